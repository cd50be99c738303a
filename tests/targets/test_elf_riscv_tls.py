"""TLS of RISC-V: every relocation type, in instructions that run in an emulator.

The machine has the thread-local storage of emulated machines. The same instructions run with the
GNU C library in an executor, and as ld.lld links them.
"""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from unittest.mock import patch

import pytest

import jitlink
from jitlink.arch.riscv import RISCVEdgeKind as K
from jitlink.arch.riscv_tls import RESOLVER_SECTION, resolver
from jitlink.errors import FixupError, TargetOutOfRangeError, TLSError
from jitlink.executor import RemoteExecutorProcessControl
from jitlink.graph import LinkGraph
from jitlink.link import PassConfiguration
from jitlink.memory.tls import TLSBlock
from jitlink.memory.tls_module import TLSABI, TLSModuleSpec
from jitlink.targets.elf_riscv import RELOCATIONS
from tests.arch.disassembly import disassemble
from tests.elf_files import ElfFile
from tests.emulation import Emulator, Program
from tests.executor.remote.foreign import executor_command
from tests.toolchain import CompilerName, compile_c, cross_compiler, require, run

BITS = (32, 64)
_DESCRIPTOR = (
    "1: auipc a0, %tlsdesc_hi(target); {load} a1, %tlsdesc_load_lo(1b)(a0); "
    "addi a0, a0, %tlsdesc_add_lo(1b); jalr t0, 0(a1), %tlsdesc_call(1b); add a0, a0, tp"
)
# Code that leaves the address of a variable, or its value, in a0.
ADDRESSES = {
    "general dynamic": (
        "1: auipc a0, %tls_gd_pcrel_hi(target); addi a0, a0, %pcrel_lo(1b); call __tls_get_addr"
    ),
    "initial exec": (
        "1: auipc a0, %tls_ie_pcrel_hi(target); {load} a0, %pcrel_lo(1b)(a0); add a0, a0, tp"
    ),
    "descriptor": _DESCRIPTOR,
    "descriptor, scheduled": (
        "1: auipc a3, %tlsdesc_hi(target); nop; addi a0, a3, %tlsdesc_add_lo(1b); nop; "
        "{load} a4, %tlsdesc_load_lo(1b)(a3); jalr t0, 0(a4), %tlsdesc_call(1b); add a0, a0, tp"
    ),
    "local exec": (
        "lui a5, %tprel_hi(target); add a5, a5, tp, %tprel_add(target); "
        "addi a0, a5, %tprel_lo(target)"
    ),
}
VALUES = {
    "local exec, load": (
        "lui a5, %tprel_hi(target); add a5, a5, tp, %tprel_add(target); "
        "lw a0, %tprel_lo(target)(a5)"
    ),
    "local exec, store": (
        "li a1, 42; lui a5, %tprel_hi(target); add a5, a5, tp, %tprel_add(target); "
        "sw a1, %tprel_lo(target)(a5); lw a0, %tprel_lo(target)(a5)"
    ),
    "local exec, beside": (
        "lui a5, %tprel_hi(target + 4); add a5, a5, tp, %tprel_add(target + 4); "
        "lw a0, %tprel_lo(target + 4)(a5)"
    ),
}
STATIC = ("initial exec", "local exec")
VARIABLES = """
    .section .tdata, "awT", @progbits
    .balign 16
before: .zero {gap}
    .globl target
    .type target, @tls_object
    .size target, 8
target: .word 7, 8
    .section .tbss, "awT", @nobits
    .zero 64
"""


def assemble(source: str, bits: int, *flags: str) -> Path:
    return compile_c(source, "clang", flags, suffix=".s", target=f"riscv{bits}-linux-gnu")


def source(bits: int, bodies: Sequence[str], gap: int) -> str:
    load = "ld" if bits == 64 else "lw"
    store = "sd" if bits == 64 else "sw"
    functions = "\n".join(
        f".balign 4\n.globl f{n}\nf{n}: addi sp, sp, -16; {store} ra, 0(sp); "
        f"{body.format(load=load)}; {load} ra, 0(sp); addi sp, sp, 16; ret"
        for n, body in enumerate(bodies)
    )
    return f".text\n{functions}\n{VARIABLES.format(gap=gap)}"


def link(emulator: Emulator, *paths: Path, **externals: int) -> Program:
    def get_address(index: int) -> int:
        return emulator.tls.get_address(index)

    return emulator.link(*paths, externals={"__tls_get_addr": get_address, **externals})


@pytest.mark.parametrize("gap", [0, 16, 2032, 0x1800, 0x12340])
@pytest.mark.parametrize("flags", ["ima", "imac", "imafdc"])
@pytest.mark.parametrize("relax", ["-mrelax", "-mno-relax"])
@pytest.mark.parametrize("bits", BITS)
def test_every_access_reaches_the_variable(bits: int, relax: str, flags: str, gap: int) -> None:
    bodies = [*ADDRESSES.values(), *VALUES.values()]
    path = assemble(source(bits, bodies, gap), bits, f"-march=rv{bits}{flags}", relax)
    with Emulator(f"riscv{bits}") as emulator:
        program = link(emulator, path)
        found = [program.call(f"f{n}", size=8, signed=False) for n in range(len(bodies))]
        address = emulator.tls.thread_pointer + gap
        assert found == [address] * len(ADDRESSES) + [7, 42, 8]


def test_every_type_is_used() -> None:
    elf = ElfFile(assemble(source(64, [*ADDRESSES.values(), *VALUES.values()], 0), 64))
    used = {each["type"] for each in elf.relocations(elf.find(".rela.text"))}
    names = ("TLS_G", "TPREL_", "TLSDESC_")
    wanted = {
        row.number
        for row in RELOCATIONS
        if row.name.startswith(tuple(f"R_RISCV_{n}" for n in names))
    }
    assert used >= wanted
    assert len(wanted) == 10


@pytest.mark.parametrize("name", [each for each in ADDRESSES if not each.startswith(STATIC)])
@pytest.mark.parametrize("bits", BITS)
def test_dynamic_models_take_no_static_tls(bits: int, name: str) -> None:
    with Emulator(f"riscv{bits}") as emulator:
        specs: list[TLSModuleSpec] = []
        load = emulator.tls.load

        async def record(
            spec: TLSModuleSpec, abi: TLSABI, others: Sequence[TLSBlock] = ()
        ) -> tuple[int, list[list[int]]]:
            specs.append(spec)
            return await load(spec, abi, others)

        with patch.object(emulator.tls, "load", record):
            program = link(emulator, assemble(source(bits, [ADDRESSES[name]], 0x1000), bits))
        assert [spec.needs_static_tls for spec in specs] == [False]
        found = program.call("f0", size=bits // 8, signed=False)
        assert found == emulator.tls.thread_pointer + 0x1000


# Descriptors

_SAVED = [f"x{n}" for n in range(1, 32) if n not in {2, 4, 5, 10, 11}]


@pytest.mark.parametrize(("bits", "flags", "float_size"), [
    (64, ("-march=rv64imafdc", "-mabi=lp64d"), 8), (64, ("-march=rv64imafc", "-mabi=lp64f"), 4),
    (64, ("-march=rv64imac", "-mabi=lp64"), 0), (32, ("-march=rv32imafdc", "-mabi=ilp32d"), 8),
    (32, ("-march=rv32imafc", "-mabi=ilp32f"), 4), (32, ("-march=rv32imac", "-mabi=ilp32"), 0),
])  # fmt: skip
def test_a_descriptor_changes_no_other_register(
    bits: int, flags: Sequence[str], float_size: int
) -> None:
    """`__tls_get_addr` is code that changes all registers that calls may change."""
    word, load, store = bits // 8, "ld" if bits == 64 else "lw", "sd" if bits == 64 else "sw"
    float_load, float_store = ("fld", "fsd") if float_size == 8 else ("flw", "fsw")
    floats = [f"f{n}" for n in range(32)] if float_size else []
    temporaries = ["ra", *(f"t{n}" for n in range(7)), *(f"a{n}" for n in range(1, 8))]
    clobbered = [f"f{n}" for n in (*range(8), *range(10, 18), *range(28, 32))] if floats else []
    convert = "fcvt.d.w" if float_size == 8 else "fcvt.s.w"
    text = f"""
    .text
    .globl check, __tls_get_addr
__tls_get_addr:
    mv s11, ra
    {load} a0, {word}(a0)
    {"; ".join(f"li {each}, -1" for each in temporaries)}
    {"; ".join(f"{convert} {each}, t0" for each in clobbered)}
    andi t0, sp, 15
    bnez t0, 1f
    li t0, 0x800
    add a0, a0, t0
    add a0, a0, tp
1:  jr s11
check:
    addi sp, sp, -16
    {store} ra, 0(sp)
    lla a0, saved_sp
    {store} sp, 0(a0)
    lla a0, pattern
    {"; ".join(f"{float_load} {each}, {8 * n}(a0)" for n, each in enumerate(floats))}
    {"; ".join(f"li {each}, {100 + n}" for n, each in enumerate(_SAVED) if each != "x27")}
1:  auipc a0, %tlsdesc_hi(target)
    {load} a1, %tlsdesc_load_lo(1b)(a0)
    addi a0, a0, %tlsdesc_add_lo(1b)
    jalr t0, 0(a1), %tlsdesc_call(1b)
    lla t0, seen
    {"; ".join(f"{store} {each}, {8 * n}(t0)" for n, each in enumerate(_SAVED))}
    {"; ".join(f"{float_store} {each}, {256 + 8 * n}(t0)" for n, each in enumerate(floats))}
    lla t0, saved_sp
    {load} t0, 0(t0)
    bne t0, sp, 2f
    {load} ra, 0(sp)
    addi sp, sp, 16
    ret
2:  ebreak
    .data
    .balign 16
    .globl seen, saved_sp
pattern:
    .quad {", ".join(str(0x1000_0000_2000 + n) for n in range(32))}
seen: .zero 512
saved_sp: .quad 0
{VARIABLES.format(gap=32)}
"""
    with Emulator(f"riscv{bits}") as emulator:
        program = emulator.link(assemble(text, bits, *flags))
        assert program.call("check", size=4) == 32
        seen = program.read("seen", 512)
        words = [int.from_bytes(seen[8 * n : 8 * n + word], "little") for n in range(len(_SAVED))]
        # The function above keeps its return address in s11, which is x27.
        assert [value for value, name in zip(words, _SAVED, strict=True) if name != "x27"] == [
            100 + n for n, name in enumerate(_SAVED) if name != "x27"
        ]
        for n in range(len(floats)):
            value = seen[256 + 8 * n : 256 + 8 * n + float_size]
            assert value == (0x1000_0000_2000 + n).to_bytes(8, "little")[:float_size]


def test_a_descriptor_of_an_undefined_variable_gives_null() -> None:
    text = ".weak target\n" + source(64, [_DESCRIPTOR], 0).partition("    .section .tdata")[0]
    with Emulator("riscv64") as emulator:
        assert link(emulator, assemble(text, 64), target=0).call("f0", size=8) == 0


def test_variables_share_a_resolver_and_each_has_one_descriptor() -> None:
    other = _DESCRIPTOR.replace("target", "before")
    path = assemble(source(64, [_DESCRIPTOR, _DESCRIPTOR, other], 16), 64)
    graphs: list[LinkGraph] = []

    def configure(_graph: LinkGraph, passes: PassConfiguration) -> None:
        passes.post_fixup.append(graphs.append)

    with Emulator("riscv64") as emulator:
        externals = {"__tls_get_addr": 0x1234}
        emulator.link(path, externals=externals, configure=configure)
        (graph,) = graphs
        section = graph.find_section_by_name(RESOLVER_SECTION)
        info = graph.find_section_by_name("$__TLSINFO")
        assert section is not None
        assert info is not None
        (code,) = section.blocks
        content = bytes(code.content)
        assert content[:-8] == resolver(8, 8)[:-8]
        assert int.from_bytes(content[-8:], "little") == 0x1234
        # A descriptor and a tls_index for each variable.
        words = [bytes(block.content) for block in info.blocks]
        assert len(words) == 4
        assert sum(each[:8] == code.address.to_bytes(8, "little") for each in words) == 2


def test_the_resolver_is_what_its_comments_say(tmp_path: Path) -> None:
    code = disassemble(resolver(8, 0)[:-8], tmp_path, "riscv64")
    start = code.index("ld a0, 8(a0)")
    assert code[start : start + 9] == [
        "ld a0, 8(a0)",
        "ld t1, 0(a0)",
        "beqz t1, 20",
        "auipc t1, 0",
        "ld t1, 92(t1)",
        "jalr t1",
        "j 8",
        "li a0, 0",
        "sub a0, a0, tp",
    ]
    assert (code[0], code[-2:]) == ("addi sp, sp, -128", ["addi sp, sp, 128", "jr t0"])


# Compilers

MODELS = ("global-dynamic", "local-dynamic", "initial-exec", "local-exec")
PROGRAM = """
__thread int first = 5;
static __thread long many[1000] = {1, 2, 3};
__thread char zeros[3000];
__thread struct { char c; short s; long long l; } mixed = {1, 2, 3};
int next(void) { return first++; }
long element(int i) { return many[i]; }
void assign(int i, int value) { many[i] = value; }
int *address(void) { return &first; }
int distance(void) { return (int)((char *)&many[7] - (char *)many); }
int sum(void) {
    zeros[2999]++;
    return mixed.c + mixed.s + (int)mixed.l + zeros[2999];
}
"""


def compilers() -> Iterator[tuple[CompilerName, int, tuple[str, ...]]]:
    options = product(BITS, ("-O0", "-O2"), ("trad", "desc"), ("-mrelax", "-mno-relax"))
    for bits, level, dialect, relax in options:
        for model in MODELS:
            float_abi = ("lp64d", "ilp32d")[bits == 32]
            yield "clang", bits, (
                level, f"-mtls-dialect={dialect}", relax, "-fPIC", f"-ftls-model={model}",
                f"-march=rv{bits}gc", f"-mabi={float_abi}",
            )  # fmt: skip
    for level, model, relax in product(("-O0", "-O2"), MODELS, ("-mrelax", "-mno-relax")):
        yield "gcc", 64, (level, "-fPIC", relax, f"-ftls-model={model}")
    for level, code_model in product(("-O0", "-O2"), ("medlow", "medany")):
        yield "gcc", 64, (level, "-fno-pic", f"-mcmodel={code_model}")
        yield "clang", 64, (level, "-fno-pic", f"-mcmodel={code_model}", "-march=rv64gc")
        yield "zig", 64, (level, "-fno-pic", f"-mcmodel={code_model}")
    for bits, march in ((64, "rv64imac"), (32, "rv32imac"), (32, "rv32ima")):
        abi = "lp64" if bits == 64 else "ilp32"
        yield "clang", bits, ("-O2", "-fPIC", f"-march={march}", f"-mabi={abi}", "-mrelax")


@contextmanager
def linked(compiler: CompilerName, bits: int, flags: tuple[str, ...]) -> Iterator[Program]:
    # Code for glibc is always position-independent with zig.
    library = "musl" if compiler == "zig" else "gnu"
    path = compile_c(PROGRAM, compiler, flags, target=f"riscv{bits}-linux-{library}")
    with Emulator(f"riscv{bits}", 0x1000_0000) as emulator:
        yield link(emulator, path)


@pytest.mark.parametrize(("compiler", "bits", "flags"), list(compilers()), ids=str)
def test_compiled_accesses(compiler: CompilerName, bits: int, flags: tuple[str, ...]) -> None:
    with linked(compiler, bits, flags) as program:
        assert [program.call("next") for _ in range(3)] == [5, 6, 7]
        assert [program.call("element", n) for n in (0, 2, 3, 999)] == [1, 3, 0, 0]
        program.call("assign", 999, 77)
        assert program.call("element", 999) == 77
        address = program.call("address")
        assert program.emulator.read(address, 4) == (8).to_bytes(4, "little")
        assert program.call("distance") == 7 * bits // 8
        assert [program.call("sum"), program.call("sum")] == [7, 8]


# In an executor, with the GNU C library

TARGET = "riscv64-linux-gnu"
CHECK = """
#include <pthread.h>
#include <stdio.h>
extern __thread int target[];
extern void *(*const functions[])(void);

/* The number of the first function with a wrong result; -1 if all are right. */
static void *check(void *unused) {
    for (long n = 0; n < COUNT; n++)
        if (functions[n]() != target) return (void *)n;
    return target[0] == 7 && target[1]++ == 8 ? (void *)-1 : (void *)COUNT;
}

int first_wrong(void) {
    pthread_t thread;
    void *result = check(0);
    if ((long)result >= 0) return (int)(long)result;
    pthread_create(&thread, 0, check, 0);
    pthread_join(thread, &result);
    return (int)(long)result;
}

int main(void) {
    printf("%d\\n", first_wrong());
    return 0;
}
"""


@pytest.fixture(scope="module")
def executor() -> Iterator[RemoteExecutorProcessControl]:
    command = executor_command(TARGET)
    with RemoteExecutorProcessControl.launch(command, timeout=60) as executor:
        yield executor


def checks(names: Sequence[str]) -> list[Path]:
    """Accesses, and a program that checks them in two threads."""
    functions = "\n".join(f".quad f{n}" for n in range(len(names)))
    table = f'.section .data.rel.ro, "aw"\n.balign 8\n.globl functions\nfunctions: {functions}\n'
    text = source(64, [ADDRESSES[name] for name in names], 48) + table
    flags = ("-O1", "-fPIC", f"-DCOUNT={len(names)}L")
    return [assemble(text, 64, "-march=rv64gc"), compile_c(CHECK, "gcc", flags, target=TARGET)]


def test_all_accesses_with_a_real_c_library(executor: RemoteExecutorProcessControl) -> None:
    with jitlink.load(*checks(list(ADDRESSES)), executor=executor) as library:
        wrong = library.first_wrong()
        assert wrong == -1, [*ADDRESSES, "contents"][wrong]


def test_lld_links_them_to_the_same(tmp_path: Path) -> None:
    program = tmp_path / "program"
    (tmp_path / "ld.lld").symlink_to(require("ld.lld-22"))
    flags = [f"-B{tmp_path}", "-fuse-ld=lld", "-pie"]
    run([require(cross_compiler(TARGET)), *flags, *checks(list(ADDRESSES)), "-o", program])
    command = [*executor_command(TARGET)[:-1], str(program)]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"-1\n"


@pytest.mark.parametrize("dialect", ["trad", "desc"])
@pytest.mark.parametrize("model", MODELS)
def test_programs_of_every_model(
    dialect: str, model: str, executor: RemoteExecutorProcessControl
) -> None:
    flags = ("-O2", "-fPIC", f"-mtls-dialect={dialect}", f"-ftls-model={model}", "-mrelax")
    # Static TLS has no room for large variables.
    text = PROGRAM.replace("1000", "40").replace("3000", "30").replace("2999", "29")
    path = compile_c(text, "clang", (*flags, "-march=rv64gc", "-mabi=lp64d"), target=TARGET)
    with jitlink.load(path, executor=executor) as library:
        assert [library.next() for _ in range(3)] == [5, 6, 7]
        assert [library.element(n) for n in (0, 2, 3, 39)] == [1, 3, 0, 0]
        assert [library.sum(), library.sum()] == [7, 8]


def test_a_variable_of_another_link(
    executor: RemoteExecutorProcessControl,
) -> None:
    first = "__thread int shared = 5; int *place(void) { return &shared; }"
    second = """
    extern __thread int shared;
    int add(int by) { return shared += by; }
    """
    for dialect in ("desc", "trad"):
        flags = ("-O1", "-fPIC", f"-mtls-dialect={dialect}", "-march=rv64gc", "-mabi=lp64d")
        objects = [compile_c(each, "clang", flags, target=TARGET) for each in (first, second)]
        with (
            jitlink.load(objects[0], executor=executor) as one,
            jitlink.load(
                objects[1], executor=executor, definitions={"shared": one.exports["shared"]}
            ) as other,
        ):
            assert [other.add(2), other.add(3)] == [7, 10]


def test_a_variable_of_a_library(executor: RemoteExecutorProcessControl) -> None:
    """`errno`, in each model: glibc's is in static TLS."""
    text = """
    #include <errno.h>
    #include <unistd.h>
    #undef errno
    extern __thread int errno;
    int fails(void) { errno = 0; close(-1); return errno; }
    """
    cases: list[tuple[CompilerName, str]] = [
        ("gcc", "-ftls-model=global-dynamic"),
        ("gcc", "-ftls-model=initial-exec"),
        ("clang", "-mtls-dialect=desc"),
    ]
    for compiler, flag in cases:
        march = ("-march=rv64gc", "-mabi=lp64d") if compiler == "clang" else ()
        path = compile_c(text, compiler, ("-O1", "-fPIC", flag, *march), target=TARGET)
        with jitlink.load(path, executor=executor) as library:
            assert library.fails() == 9


# Errors


def test_offsets_out_of_range_are_refused_with_the_limits() -> None:
    kind, line = K.R_RISCV_TPREL_HI20, f"lui a0, %tprel_hi(target + {1 << 33})"
    path = assemble(f".text\n.globl f\nf: {line}\n{VARIABLES.format(gap=0)}", 64)
    with Emulator("riscv64") as emulator, pytest.raises(TargetOutOfRangeError) as caught:
        link(emulator, path)
    error = caught.value
    assert (error.kind, error.target) == (str(kind), "target")
    assert (error.low, error.high) == (-(1 << 31) - 0x800, (1 << 31) - 0x801)


HOSTILE = {
    "a low part without a high part": (
        "1: nop; addi a0, a0, %tlsdesc_add_lo(1b)", "refers to a label without a HI20"),
    "a low part of an undefined label": (
        ".reloc ., R_RISCV_TLSDESC_LOAD_LO12, outside; nop; nop", "refers to no label"),
    "a low part with an addend": (
        "1: auipc a0, %tlsdesc_hi(target); .reloc ., R_RISCV_TLSDESC_ADD_LO12, 1b + 4; nop; nop",
        "has an addend"),
    "an ordinary access": (
        "1: auipc a0, %pcrel_hi(target); addi a0, a0, %pcrel_lo(1b)",
        "has a thread-local variable for its target"),
    "general dynamic of a function": (
        "1: auipc a0, %tls_gd_pcrel_hi(f)", "is not a thread-local variable"),
    "a descriptor of a function": (
        "1: auipc a0, %tlsdesc_hi(f)", "is not a thread-local variable"),
    "local exec of a function": ("lui a0, %tprel_hi(f)", "is not a thread-local variable"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_makes_no_sense_is_refused(name: str) -> None:
    body, message = HOSTILE[name]
    path = assemble(f".globl f\nf: {body}\n{VARIABLES.format(gap=0)}", 64)
    with Emulator("riscv64") as emulator, pytest.raises((FixupError, TLSError), match=message):
        link(emulator, path, outside=0x1000)


@pytest.mark.parametrize("kind", ["TPREL_ADD", "TLSDESC_CALL", "RELAX"])
def test_marks_change_no_instruction(kind: str) -> None:
    body = f"li a0, 5; .reloc ., R_RISCV_{kind}, target; xori a0, a0, 3"
    with Emulator("riscv64") as emulator:
        assert link(emulator, assemble(source(64, [body], 0), 64)).call("f0") == 6


# Debug information


@pytest.mark.parametrize("bits", BITS)
def test_debug_information_has_offsets_in_the_block(bits: int) -> None:
    size = bits // 8
    word = "quad" if bits == 64 else "word"
    reloc = f".reloc ., R_RISCV_TLS_DTPREL{bits}, target + 0x800; .{word} 0"
    text = f"{VARIABLES.format(gap=48)}\n.section .debug_info\n.globl info\ninfo: {reloc}\n"
    found: list[bytes] = []

    def configure(_graph: LinkGraph, passes: PassConfiguration) -> None:
        def record(graph: LinkGraph) -> None:
            section = graph.find_section_by_name(".debug_info")
            assert section is not None
            found.extend(bytes(block.content) for block in section.blocks)

        passes.post_fixup.append(record)

    with Emulator(f"riscv{bits}") as emulator:
        emulator.link(assemble(text, bits), configure=configure)
    assert found == [(48).to_bytes(size, "little")]
