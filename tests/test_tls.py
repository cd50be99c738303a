"""Thread-local variables of linked code: every model, in old and new threads, between links.

Most programs with thread-local variables are in tests/platform, which compares them with
native ones. Here they are used from this process.
"""

import ctypes
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

import pytest

import jitlink
from jitlink.errors import FixupError, StaticTLSError, TLSError
from jitlink.memory.tls import BLOCK_LIMIT
from jitlink.memory.tls_glibc import PROCESS_TLS
from tests.elf_files import ElfFile
from tests.orc.jits import counted_jit, shared_library
from tests.toolchain import COMPILERS, IS_EMULATED, MACHINE, CompilerName, compile_c

T = TypeVar("T")
SOURCE = Path(__file__).parent / "programs" / "thread_models.c"
PIC, PIE, FIXED = ("-fPIC",), ("-fPIE",), ("-fno-pic",)
# Beside TLS descriptors, which are the default on some architectures.
DYNAMIC = {
    "x86_64": ((*PIC, "-mcmodel=large"), (*PIC, "-mtls-dialect=gnu2")),
    "aarch64": ((*PIC, "-mtls-dialect=trad"),),
    "riscv64": ((*PIC, "-mtls-dialect=desc"),),
}.get(MACHINE, ())
# The dialect that is not gcc's default, which has one only for RISC-V.
DIALECTS = {
    "x86_64": ((*PIC, "-mtls-dialect=gnu2"),),
    "aarch64": ((*PIC, "-mtls-dialect=trad"),),
}.get(MACHINE, ())
MODELS = [
    PIC,
    PIE,
    FIXED,
    *DYNAMIC,
    (*PIC, "-fno-plt"),
    *((*PIC, f"-ftls-model={model}") for model in ("local-dynamic", "initial-exec", "local-exec")),
    (*PIC, "-femulated-tls"),
]
# What the C library aligns static TLS to, whatever is linked.
STATIC_ALIGNMENT = {"x86_64": 64, "aarch64": 16}.get(MACHINE, 16)


class Worker:
    """A thread that runs functions until `end`."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            del work  # It refers to the function that it has called.

    def __call__(self, function: Callable[[], T]) -> T:
        future: Future[T] = Future()

        def work() -> None:
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - raised in the caller
                future.set_exception(error)

        self._work.put(work)
        return future.result(timeout=60)

    def end(self) -> None:
        self._work.put(None)
        self._thread.join()


Run = Callable[[Callable[[], int]], int]


@pytest.fixture
def old() -> Iterator[Worker]:
    """A thread that is older than the link."""
    worker = Worker()
    yield worker
    worker.end()


def in_new_thread(function: Callable[[], int]) -> int:
    worker = Worker()
    try:
        return worker(function)
    finally:
        worker.end()


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = PROCESS_TLS.count
    yield
    assert PROCESS_TLS.count == before


def parts(compiler: CompilerName, *flags: str) -> list[Path]:
    return [compile_c(SOURCE, compiler, (*flags, f"-DPART={part}")) for part in (1, 2)]


def aligned_to(alignment: int) -> list[str]:
    return [f"-DALIGNMENT={alignment}", f"-DMEDIUM={min(alignment, 64)}"]


def variables(alignment: int = 64) -> list[Path]:
    return parts("zig", "-O1", *PIC, *aligned_to(alignment))


def check_fresh(library: jitlink.Library, run: Run) -> None:
    """Check what a thread finds that has changed no variable yet."""
    assert run(library.sum) == 14
    assert run(library.through_pointer) == 77
    assert run(library.nonzero) == 0
    assert run(library.misaligned) == 0
    assert run(library.local) == 320


def here(function: Callable[[], int]) -> int:
    return function()


def builds() -> Iterator[tuple[CompilerName, tuple[str, ...]]]:
    for compiler in COMPILERS:
        for flags in MODELS:
            # gcc has no emulated TLS for this target, zig no fixed addresses. One dialect is gcc's,
            # one all others'.
            if (compiler, flags[-1]) in {("gcc", "-femulated-tls"), ("zig", "-fno-pic")}:
                continue
            dialect_of_gcc = {"-mtls-dialect=trad": True, "-mtls-dialect=desc": False}
            if dialect_of_gcc.get(flags[-1], compiler == "gcc") != (compiler == "gcc"):
                continue
            for level in ("-O0", "-O2"):
                yield compiler, (level, *flags)


@pytest.mark.parametrize(("compiler", "flags"), list(builds()), ids=str)
def test_a_model(compiler: CompilerName, flags: tuple[str, ...], old: Worker) -> None:
    # The static TLS surplus cannot be aligned to a page.
    is_dynamic = flags[1:] in {PIC, *DYNAMIC, (*PIC, "-fno-plt")}
    aligned = aligned_to(4096 if is_dynamic else STATIC_ALIGNMENT)
    with jitlink.load(*parts(compiler, *flags, *aligned)) as library:
        for run in (here, old, in_new_thread):
            check_fresh(library, run)
            assert run(lambda: library.exchange(100)) == 9
        assert [here(library.sum), old(library.sum), in_new_thread(library.sum)] == [205, 205, 14]


def check_address(library: jitlink.Library, address: int, run: Run) -> None:
    own = library.function("address_of_own")
    own.restype = ctypes.c_void_p
    assert run(lambda: PROCESS_TLS.tls_address(address) - own()) == 0


def test_addresses_stand_for_the_calling_threads_variables(old: Worker) -> None:
    with jitlink.load(*variables()) as library:
        address = library.exports["own"]
        for run in (here, old, in_new_thread):
            check_address(library, address, run)
    with pytest.raises(TLSError, match="no thread-local variable is linked"):
        PROCESS_TLS.tls_address(address)


# Between links


@pytest.mark.parametrize("model", ["global-dynamic", "initial-exec"])
def test_two_objects_added_one_by_one(model: str, old: Worker) -> None:
    model_flag, aligned = f"-ftls-model={model}", aligned_to(STATIC_ALIGNMENT)
    objects = parts("gcc", "-O1", *PIC, model_flag, *aligned)
    with counted_jit() as jit:
        for path in objects:
            jit.add_object(path)
        total = ctypes.CFUNCTYPE(ctypes.c_int)(jit.lookup("sum"))
        exchange = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(jit.lookup("exchange"))
        for run in (here, old, in_new_thread):
            assert run(total) == 14
            assert run(lambda: exchange(50)) == 9
            assert run(total) == (105 if run is not in_new_thread else 14)


MUTUAL = """
extern __thread int {other};
__thread int {own} = {value};
int get_{own}(void) {{ return {own} * 10 + {other}; }}
extern int get_{other}(void);
int both_{own}(void) {{ return get_{other}(); }}
"""


@pytest.mark.parametrize("model", ["global-dynamic", "initial-exec"])
def test_two_jitdylibs_that_need_each_other(model: str, old: Worker) -> None:
    flags = ("-O1", *PIC, f"-ftls-model={model}")
    left = compile_c(MUTUAL.format(own="a", other="b", value=1), "gcc", flags)
    right = compile_c(MUTUAL.format(own="b", other="a", value=2), "gcc", flags)
    with counted_jit() as jit:
        second = jit.create_jitdylib("second")
        jit.main.add_to_link_order(second)
        second.add_to_link_order(jit.main)
        jit.add_object(left)
        jit.add_object(right, dylib=second)
        for name, value in (("get_a", 12), ("both_a", 21)):
            function = ctypes.CFUNCTYPE(ctypes.c_int)(jit.lookup(name))
            assert [here(function), old(function), in_new_thread(function)] == [value] * 3


def test_variables_outlive_their_link_while_they_have_users(old: Worker) -> None:
    provider, user = parts("gcc", "-O1", *PIC)[::-1]
    with jitlink.load(provider) as library:
        shared = library.exports["shared"]
        using = jitlink.load(user, definitions={"shared": shared})
    assert using.sum() == 14
    assert old(using.sum) == 14
    using.close()


def test_variables_of_released_links() -> None:
    provider, user = parts("gcc", "-O1", *PIC)[::-1]
    with jitlink.load(provider) as library:
        shared = library.exports["shared"]
    with pytest.raises(TLSError, match="shared does not exist"):
        jitlink.load(user, definitions={"shared": shared})


# Libraries of the process

HOST = """
#include <errno.h>
#include <unistd.h>
extern __thread int errno_of_libc __asm__("errno");
int fail(void) { close(-1); return errno; }
int same(void) { return &errno_of_libc == &errno; }
"""


@pytest.mark.parametrize("flags", [PIC, *DIALECTS, FIXED], ids=str)
def test_errno(flags: tuple[str, ...], old: Worker) -> None:
    with jitlink.load(compile_c(HOST, "gcc", ("-O1", *flags))) as library:
        for run in (here, old, in_new_thread):
            assert run(library.fail) == 9
            assert run(library.same) == 1


LIBRARY = """
__thread int {name} = 50, {name}_more[{more}];
int *of_{name}(void) {{ return &{name}; }}
"""
USER = """
extern __thread int {name};
extern int *of_{name}(void);
int agree(void) {{ return &{name} == of_{name}(); }}
"""


def library_and_user(name: str, model: str, place: Path, more: int = 0) -> Path:
    """Load a shared library with a variable; returns an object that uses the variable."""
    path = shared_library(place / "library.so", LIBRARY.format(name=name, more=more))
    ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    return compile_c(USER.format(name=name), "gcc", ("-O1", *PIC, f"-ftls-model={model}"))


@pytest.mark.parametrize("model", ["global-dynamic", "initial-exec"])
def test_variables_of_a_shared_library(model: str, old: Worker, tmp_path: Path) -> None:
    user = library_and_user(f"unused_{model.replace('-', '_')}", model, tmp_path)
    with jitlink.load(user) as library:
        assert [here(library.agree), old(library.agree), in_new_thread(library.agree)] == [1] * 3


@pytest.mark.parametrize(
    "more",
    [
        # A library that has TLS descriptors gets static TLS when it is loaded.
        pytest.param(0, marks=pytest.mark.machine("x86_64")),
        100_000,
    ],
)
def test_a_shared_librarys_variables_that_are_not_in_static_tls(more: int, tmp_path: Path) -> None:
    """A library gets static TLS only if it fits, and no thread has used its variables."""
    user = library_and_user(f"used_in_library_{more}", "initial-exec", tmp_path, more)
    library = ctypes.CDLL(str(tmp_path / "library.so"))
    library[f"of_used_in_library_{more}"]()
    with pytest.raises(TLSError, match="library that is not in static TLS") as caught:
        jitlink.load(user)
    assert caught.value.objects == (str(user),)


def test_weak_undefined_variables() -> None:
    source = """
    extern __thread int absent __attribute__((weak));
    int f(void) { return 1; }
    int *g(void) { return &absent; }
    """
    with jitlink.load(compile_c(source, "gcc", ("-O1", *PIC))) as library:
        assert library.f() == 1


# Static TLS

BLOCK = """
__thread char block[{size}] __attribute__((aligned({alignment})));
char *f(void) {{ return block; }}
"""


LOAD_OFFSET = {
    "x86_64": "mov x@gottpoff(%rip), %rax",
    "aarch64": "adrp x0, :gottprel:x; ldr x0, [x0, #:gottprel_lo12:x]",
    "riscv64": "la.tls.ie a0, x",
}


def static_bytes(size: int, alignment: int = 1) -> Path:
    """An object with a TLS block of that size, and code that requires it in static TLS."""
    source = f"""
    .section .tbss, "awT", @nobits
    .balign {alignment}
    x: .zero {size}
    .text
    .globl f
    f: {LOAD_OFFSET[MACHINE]}
    ret
    """
    return compile_c(source, suffix=".s")


def test_a_block_larger_than_the_static_tls_surplus() -> None:
    path = compile_c(BLOCK.format(size=100_000, alignment=16), "gcc", ("-O1", *FIXED))
    before = PROCESS_TLS.count
    with pytest.raises(StaticTLSError) as caught:
        jitlink.load(path)
    error = caught.value
    assert (error.size, error.alignment) == (100_000, 16)
    assert 0 < error.surplus < 100_000
    assert error.surplus_alignment >= 16
    assert error.objects == (str(path),)
    for part in (str(path), "100000 bytes", str(error.surplus), "-fPIC"):
        assert part in str(error)
    assert PROCESS_TLS.count == before
    # So many bytes are left, and not one more.
    with jitlink.load(static_bytes(error.surplus)):
        pass
    with pytest.raises(StaticTLSError) as caught:
        jitlink.load(static_bytes(error.surplus + 1))
    assert caught.value.surplus == error.surplus


def test_static_tls_is_reclaimed() -> None:
    """Also where sizes and alignments change, and what was linked first is closed first."""
    with pytest.raises(StaticTLSError) as caught:
        jitlink.load(static_bytes(100_000))
    surplus_before = caught.value.surplus
    most = STATIC_ALIGNMENT
    for size, alignment in [(1, 1), (8, most), (1, most), (24, 16), (3, 1), (65, most // 2)] * 20:
        first = jitlink.load(static_bytes(size, alignment))
        second = jitlink.load(static_bytes(alignment, size & -size))
        first.close()
        second.close()
    with pytest.raises(StaticTLSError) as caught:
        jitlink.load(static_bytes(100_000))
    assert caught.value.surplus == surplus_before


def test_an_alignment_larger_than_that_of_static_tls() -> None:
    path = compile_c(BLOCK.format(size=8, alignment=1 << 16), "gcc", ("-O1", *FIXED))
    with pytest.raises(StaticTLSError) as caught:
        jitlink.load(path)
    assert caught.value.alignment == 1 << 16 > caught.value.surplus_alignment


def test_dynamic_models_need_no_static_tls(old: Worker) -> None:
    path = compile_c(BLOCK.format(size=1_000_000, alignment=1 << 16), "gcc", ("-O1", *PIC))
    with jitlink.load(path) as library:
        library.f.restype = ctypes.c_uint64
        assert {run(library.f) % (1 << 16) for run in (here, old, in_new_thread)} == {0}


@pytest.mark.parametrize(("size", "alignment"), [(BLOCK_LIMIT, 1), (8, BLOCK_LIMIT), (1 << 62, 1)])
def test_a_block_larger_than_any_memory(size: int, alignment: int) -> None:
    source = '.section .tbss,"awT",@nobits\n.globl x\nx: .zero 8\n.text\n.globl f\nf: ret\n'
    elf = ElfFile(compile_c(source, suffix=".s"))
    elf.set_section(elf.find(".tbss"), size=size, addralign=alignment)
    with pytest.raises(jitlink.JITLinkError) as caught:
        jitlink.load(bytes(elf))
    assert "<memory 0>" in str(caught.value)


@pytest.mark.machine("x86_64")
def test_an_initialisation_image_that_depends_on_the_thread_pointer() -> None:
    """The image must be complete before the C library puts the TLS block somewhere."""
    source = """
    .section .tdata,"awT",@progbits
    .globl x
    x: .quad x@tpoff
    """
    with pytest.raises(FixupError, match="thread pointer"):
        jitlink.load(compile_c(source, suffix=".s"))


LEAK = """
import sys, os, ctypes, gc
import jitlink

def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

def state():
    with open("/proc/self/maps") as file:
        maps = len(file.readlines())
    return maps, len(os.listdir("/proc/self/fd"))

def use():
    with jitlink.load(*sys.argv[1:]) as library:
        assert library.sum() == 14 and library.exchange(3) == 9

for _ in range(100):
    use()
gc.collect()
before, size = state(), rss()
for _ in range({rounds}):
    use()
gc.collect()
after = state()
assert after == before, (before, after)
print((rss() - size) // {rounds})
"""


@pytest.mark.parametrize("flags", [PIC, FIXED, *DIALECTS], ids=str)
def test_nothing_leaks(flags: tuple[str, ...]) -> None:
    rounds = 500
    objects = parts("gcc", "-O1", *flags, *aligned_to(STATIC_ALIGNMENT))
    command = [sys.executable, "-c", LEAK.format(rounds=rounds), *map(str, objects)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    # Bytes a round: what is left over is less than one TLS module's page. An emulator keeps more.
    assert int(done.stdout) < 2048 or IS_EMULATED


def loaded_modules() -> int:
    """How many segments of libraries from memory are mapped; other tests leave some."""
    return Path("/proc/self/maps").read_text().count("memfd:jitlink")


def test_a_link_that_fails_after_its_tls_module_is_loaded() -> None:
    before = loaded_modules()

    def fail(_graph: jitlink.LinkGraph) -> None:
        assert loaded_modules() > before
        raise jitlink.GraphError("the last pass fails")

    def configure(_graph: jitlink.LinkGraph, passes: jitlink.PassConfiguration) -> None:
        passes.post_fixup.append(fail)

    with pytest.raises(jitlink.GraphError, match="the last pass fails"):
        jitlink.load(*variables(), configure=configure)
    assert loaded_modules() == before
