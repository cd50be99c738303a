"""Hostile input: a link of any object or archive succeeds or raises a `JITLinkError`.

Truncations and seeded mutations of real objects are linked in this process, but not run. Each link
must end within a second of processor time and release all memory, and the process must then be able
to link and run a valid object. `JITLINK_MUTATIONS` sets the number of mutants of each object; the
full run has 10,000.
"""

import ctypes
import gc
import os
import resource
import signal
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import pytest

from jitlink.errors import InputError, JITLinkError
from jitlink.formats.archive import Archive
from jitlink.graph import LinkGraph
from jitlink.link import PassConfiguration
from jitlink.memory.mapping import MappedRange, mapped_ranges
from tests.linking import Linker
from tests.mutations import Region, archive_regions, elf_regions, mutants
from tests.toolchain import compile_c, require, run, zig_command

MUTATIONS = int(os.environ.get("JITLINK_MUTATIONS", "1000"))
PIECE = 500
TIME_LIMIT = 1.0
RESIDENT_LIMIT = 200 << 20

SOURCES = Path(__file__).parent / "sources"


class Case(NamedTuple):
    """An object or archive to mutate.

    Attributes:
        data: its bytes.
        regions: what is mutated.
        others: other objects to link it with.
        is_foreign: whether it is for another processor, whose TLS modules this process cannot load.
    """

    data: bytes
    regions: list[Region]
    others: tuple[bytes, ...] = ()
    is_foreign: bool = False


def _gcc_c() -> Case:
    flags = ["-g", "-gz", "-O1", "-fcommon"]
    data = compile_c(SOURCES / "everything.c", "gcc", flags).read_bytes()
    return Case(data, elf_regions(data))


def _gcc_cxx() -> Case:
    data = compile_c(SOURCES / "shapes.cpp", "gcc", ["-O1", "-fPIC"]).read_bytes()
    return Case(data, elf_regions(data))


def _clang_compressed() -> Case:
    """Debug sections compressed with zstd, and CREL relocations."""
    crel = "-Wa,--allow-experimental-crel,--crel"
    flags = ["-g1", "-gz=zstd", "-O1", "-ffunction-sections", crel]
    data = compile_c(SOURCES / "shapes.cpp", "clang", flags).read_bytes()
    return Case(data, elf_regions(data))


def _zig_c() -> Case:
    """From the pinned compiler, which is always installed."""
    data = compile_c(SOURCES / "everything.c", "zig", ["-O2", "-g"]).read_bytes()
    return Case(data, elf_regions(data))


def _debian_member() -> Case:
    members = Archive(require("liblua5.4.a").read_bytes(), "liblua5.4.a").members()
    data = next(bytes(each.data or b"") for each in members if each.name == "ldo.o")
    return Case(data, elf_regions(data))


LINKER_DEFINED = """
extern int __start_set[], __stop_set[];
extern char _end[], __data_start[], __executable_start[];
extern void (*__init_array_start[])(void), (*__init_array_end[])(void);
int first __attribute__((section("set"))) = 1;
int second __attribute__((section("set"), used)) = 2;
__attribute__((constructor)) static void begin(void) {}
__asm__(".section set,\\"ao\\",@progbits,.text.one,unique,1; .long 3; .section .kept,\\"aR\\";"
        ".quad .startof.(set), .sizeof.(set); .text");
__attribute__((section(".text.one"))) long one(void) {
    return (__stop_set - __start_set) + (__init_array_end - __init_array_start)
        + (_end - __data_start) + __executable_start[1];
}
"""


def _linker_defined() -> Case:
    data = compile_c(LINKER_DEFINED, "gcc", ["-O1", "-fPIC"]).read_bytes()
    return Case(data, elf_regions(data))


RISCV_VARIABLES = """
static __thread int own = 5;
__thread long many[100] = {1, 2, 3};
__attribute__((tls_model("initial-exec"))) __thread int static_one = 7;
__attribute__((tls_model("local-exec"))) __thread int local_one = 8;
extern __thread int absent __attribute__((weak));
extern int outside(int), data[];
int sum(int i) { return own++ + (int)many[i] + static_one + local_one + outside(data[i]); }
int *get(void) { local_one = static_one; return &absent; }
"""


def _riscv_variables(dialect: str) -> Case:
    flags = ["-O1", "-g", "-fPIC", "-mrelax", "-march=rv64gc", f"-mtls-dialect={dialect}"]
    target = "riscv64-linux-gnu"
    data = compile_c(RISCV_VARIABLES, "clang", flags, target=target).read_bytes()
    return Case(data, elf_regions(data), is_foreign=True)


def make_archive(directory: Path) -> bytes:
    """An archive of two members, one with a long name, with an index."""
    one = compile_c("int one(void) { return 1; }").read_bytes()
    two = compile_c("int two(void) { return 2; }").read_bytes()
    (directory / "one.o").write_bytes(one)
    (directory / "a_very_long_member_name.o").write_bytes(two)
    names = ["one.o", "a_very_long_member_name.o"]
    run([*zig_command("ar"), "rcD", "both.a", *names], cwd=directory)
    return (directory / "both.a").read_bytes()


def caller() -> bytes:
    source = "int one(void), two(void); int three(void) { return one() + two(); }"
    return compile_c(source).read_bytes()


CASES: dict[str, Callable[[], Case]] = {
    "gcc-c": _gcc_c,
    "gcc-c++": _gcc_cxx,
    "clang-crel-zstd": _clang_compressed,
    "zig-c": _zig_c,
    "debian-member": _debian_member,
    "linker-defined": _linker_defined,
    "riscv-tls": partial(_riscv_variables, "trad"),
    "riscv-tls-descriptors": partial(_riscv_variables, "desc"),
}


@cache
def good_object() -> bytes:
    return compile_c("int add(int a, int b) { return a + b; }").read_bytes()


def check_usable(linker: Linker) -> None:
    good = linker.link(good_object())
    add = good.function("add", ctypes.c_int, ctypes.c_int, ctypes.c_int)
    assert add(40, 2) == 42
    linker.release()


class TooSlowError(BaseException):
    """A link exceeded its processor time; a `BaseException`, so that no handler swallows it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlowError(f"signal {number} in {frame}")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def drop_actions(graph: LinkGraph, passes: PassConfiguration) -> None:
    """Remove the allocation actions, which would call the resolvers of ifuncs."""
    assert graph.alloc_actions == []
    passes.post_fixup.append(lambda graph: graph.alloc_actions.clear())


def try_link(linker: Linker, data: bytes, others: tuple[bytes, ...] = ()) -> bool:
    """Whether the link succeeds; exceptions other than `JITLinkError` propagate."""
    linked = True
    try:
        with time_limit(TIME_LIMIT):
            linker.link(*others, data, configure=drop_actions)
    except JITLinkError:
        linked = False
    linker.release()
    assert linker.used_size == 0
    assert linker.memory.finalized_count == 0
    return linked


@contextmanager
def unchanged_process(
    original: bytes, others: tuple[bytes, ...] = (), *, is_foreign: bool = False
) -> Iterator[Linker]:
    """A linker; checks afterwards that mappings and resident memory have not grown."""

    def mappings() -> list[MappedRange]:
        # Memory of Python itself, which may grow, is neither executable nor inaccessible.
        return [r for r in mapped_ranges() if "x" in r.permissions or "r" not in r.permissions]

    # Collect garbage of other tests first.
    gc.collect()
    # The first link may load libraries, such as a decoder for compressed sections.
    with Linker() as linker:
        try_link(linker, original, others)
    before, resident = mappings(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Linker() as linker:
        if is_foreign:
            linker.memory.link_only()
        yield linker
        check_usable(linker)
    assert mappings() == before
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident < RESIDENT_LIMIT >> 10


def check_mutants(case: Case, count: int) -> None:
    results = {True: 0, False: 0}
    for first in range(0, count, PIECE):
        with unchanged_process(case.data, case.others, is_foreign=case.is_foreign) as linker:
            for data in mutants(case.data, case.regions, min(PIECE, count - first), first):
                results[try_link(linker, data, case.others)] += 1
    # If one outcome is rare, the mutations miss the structures that they should modify.
    assert min(results.values()) > count // 20


@pytest.mark.parametrize("name", CASES)
def test_originals_link(name: str) -> None:
    case = CASES[name]()
    with unchanged_process(case.data, is_foreign=case.is_foreign) as linker:
        assert try_link(linker, case.data)


@pytest.mark.parametrize("name", CASES)
def test_mutated_objects(name: str) -> None:
    check_mutants(CASES[name](), MUTATIONS)


def test_mutated_archives(tmp_path: Path) -> None:
    data = make_archive(tmp_path)
    check_mutants(Case(data, archive_regions(data), (caller(),)), MUTATIONS)


def test_mutants_are_the_same_in_every_run() -> None:
    regions = [Region(0, 64, 8), Region(64, 960, 1)]
    first = list(mutants(bytes(range(256)) * 4, regions, 4))
    assert [zlib.crc32(each) for each in first] == [1886476273, 2395411408, 735808667, 883276080]
    assert list(mutants(bytes(range(256)) * 4, regions, 1, 3)) == first[3:]


def test_every_truncation_of_an_object() -> None:
    source = 'extern int puts(const char *); int hello(void) { return puts("hello"); }'
    data = compile_c(source, flags=["-O1"]).read_bytes()
    with unchanged_process(data) as linker:
        assert try_link(linker, data)
        for size in range(len(data)):
            # The section headers are at the end.
            with pytest.raises(InputError), time_limit(TIME_LIMIT):
                linker.link(data[:size], configure=drop_actions)
        assert linker.used_size == 0


def test_every_truncation_of_an_archive(tmp_path: Path) -> None:
    data, others = make_archive(tmp_path), (caller(),)
    linked = []
    with unchanged_process(data, others) as linker:
        for size in range(len(data) + 1):
            try:
                with time_limit(TIME_LIMIT):
                    result = linker.link(*others, data[:size], configure=drop_actions)
                linked.append((size, "two" in result.definitions))
            except InputError:
                pass
            linker.release()
    # The padding behind the last member is optional.
    assert linked[-1] == (len(data), True)
    assert all(has_both == (size >= len(data) - 1) for size, has_both in linked)
