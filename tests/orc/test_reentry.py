"""The reentry: the registers and arguments of a call that leaves it, and its machine code."""

import ctypes
from pathlib import Path

import pytest

from jitlink.arch.x86_64_reentry import REENTRY
from jitlink.orc import stubs as stubs_module
from jitlink.orc.reentry import ProcessReentry
from jitlink.targets.base import LANDING_WORDS
from jitlink.targets.registry import create_link_graph, target_of_triple
from tests.orc.sessions import StubSession, reexport, stub_session
from tests.toolchain import MACHINE, compile_c

EVERY_KIND = """
    #include <stdarg.h>
    long integers(long a, long b, long c, long d, long e, long f, long g, long h) {
        return a + 10 * b + 100 * c + 1000 * d + 10000 * e + 100000 * f + 1000000 * g
            + 10000000 * h;
    }
    double numbers(double a, float b, double c, double d, double e, double f, double g, double h,
                   double i, long j) {
        return a + 10 * b + 100 * c + 1e3 * d + 1e4 * e + 1e5 * f + 1e6 * g + 1e7 * h + 1e8 * i + j;
    }
    double variadic(int count, ...) {
        va_list list;
        double sum = 0;
        va_start(list, count);
        for (int i = 0; i < count; i++) sum += va_arg(list, double);
        va_end(list);
        return sum;
    }
    struct large { long a[9]; };
    struct large large(struct large in, int add) {
        for (int i = 0; i < 9; i++) in.a[i] += add;
        return in;
    }
    long double wide(long double x) { return x * 2; }
"""
CALLERS = """
    long integers(long, long, long, long, long, long, long, long);
    double numbers(double, float, double, double, double, double, double, double, double, long);
    double variadic(int, ...);
    struct large { long a[9]; };
    struct large large(struct large, int);
    long double wide(long double);
    int check(void) {
        struct large in = {{1, 2, 3, 4, 5, 6, 7, 8, 9}};
        if (integers(1, 2, 3, 4, 5, 6, 7, 8) != 87654321) return 1;
        if (numbers(1, 2, 3, 4, 5, 6, 7, 8, 9, 1000000000) != 1987654321) return 2;
        if (variadic(3, 1.0, 2.5, 4.0) != 7.5) return 3;
        if (large(in, 10).a[8] != 19) return 4;
        if (wide(1.5L) != 3.0L) return 5;
        return 0;
    }
"""


def test_arguments_of_every_kind_arrive(lazy: StubSession) -> None:
    lazy.add(lazy.bodies, EVERY_KIND)
    lazy.add(lazy.main, CALLERS)
    reexport(lazy, "integers", "numbers", "variadic", "large", "wide")
    check = lazy.function("check")
    assert check() == 0
    assert check() == 0
    assert lazy.counter.count("integers") == 1


def x86_64_registers(prefix: str, size: int, count: int) -> tuple[str, str]:
    """Assembly of a caller that fills all registers, and of a body that stores them all."""
    general = ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", *(f"r{n}" for n in range(8, 16))]
    move = {"xmm": "movups", "ymm": "vmovups", "zmm": "vmovdqu64"}[prefix]
    saved = ["rbx", "rbp", "r12", "r13", "r14", "r15"]
    load = [f"push %{name}" for name in saved]
    load += [f"{move} {size * n}+pattern(%rip), %{prefix}{n}" for n in range(count)]
    load += [f"movabs ${0x1122334455667700 + n}, %{name}" for n, name in enumerate(general)]
    load += ["stc", "call body"]
    load += [f"pop %{name}" for name in reversed(saved)]
    clear = ["vzeroupper"] if prefix != "xmm" else []
    code = "\n".join([".globl caller", "caller:", *load, *clear, "ret"])
    data = "\n".join(f".byte {n % 251 + 1}" for n in range(size * count))
    caller = f".text\n{code}\n.data\n.balign 64\n.globl pattern\npattern:\n{data}\n"
    store = [f"mov %{name}, {8 * n}+seen(%rip)" for n, name in enumerate(general)]
    store += [
        f"{move} %{prefix}{n}, {8 * len(general) + size * n}+seen(%rip)" for n in range(count)
    ]
    area = 8 * len(general) + size * count
    body = "\n".join(
        [".text", ".globl body", "body:", *store, "ret", ".bss", ".globl seen", "seen:"]
    )
    return caller, f"{body}\n.zero {area}\n"


# Those for arguments, results and the callee; those of vectors for arguments of any function.
GENERAL = [f"x{n}" for n in (*range(16), *range(19, 29))]
VECTORS = [f"q{n}" for n in range(8)] + [f"d{n}" for n in range(8, 16)]


def aarch64_registers() -> tuple[str, str]:
    """The same for AArch64, without the registers that stubs or the callee may change."""
    pairs = [("x29", "x30"), *((f"x{n}", f"x{n + 1}") for n in range(19, 29, 2))]
    pairs += [(f"d{n}", f"d{n + 1}") for n in range(8, 16, 2)]
    load = [f"stp {first}, {second}, [sp, #-16]!" for first, second in pairs]
    load += ["adrp x16, pattern", "add x16, x16, :lo12:pattern"]
    load += [f"ldr q{n}, [x16, #{16 * n}]" for n in range(16)]
    for number, name in enumerate(GENERAL):
        value = 0x1122334455667700 + number
        load += [f"movz {name}, #{value & 0xFFFF}"]
        load += [f"movk {name}, #{value >> n & 0xFFFF}, lsl #{n}" for n in (16, 32, 48)]
    load += ["bl body"]
    load += [f"ldp {first}, {second}, [sp], #16" for first, second in reversed(pairs)]
    code = "\n".join([".globl caller", "caller:", *load, "ret"])
    data = "\n".join(f".byte {n % 251 + 1}" for n in range(16 * 16))
    caller = f".text\n{code}\n.data\n.balign 16\n.globl pattern\npattern:\n{data}\n"
    store = ["adrp x16, seen", "add x16, x16, :lo12:seen"]
    store += [f"str {name}, [x16, #{8 * n}]" for n, name in enumerate(GENERAL)]
    store += [f"str {name}, [x16, #{8 * len(GENERAL) + 16 * n}]" for n, name in enumerate(VECTORS)]
    body = "\n".join([".text", ".globl body", "body:", *store, "ret", ".bss", ".balign 16"])
    return caller, f"{body}\n.globl seen\nseen:\n.zero {8 * len(GENERAL) + 16 * 16}\n"


@pytest.mark.machine("aarch64")
def test_no_register_of_aarch64_changes(lazy: StubSession) -> None:
    caller, body = aarch64_registers()
    lazy.add(lazy.bodies, body, suffix=".s")
    lazy.add(lazy.main, caller, suffix=".s")
    reexport(lazy, "body")
    function = lazy.function("caller", None)
    count, pattern = len(GENERAL), bytes(n % 251 + 1 for n in range(16 * 16))
    # Of the last ones the callee keeps the lower half.
    expected = pattern[:128] + b"".join(pattern[n : n + 8] + bytes(8) for n in range(128, 256, 16))
    for _ in range(2):
        function()
        seen = ctypes.string_at(lazy.address("seen", lazy.bodies), 8 * count + 256)
        values = [0x1122334455667700 + number for number in range(count)]
        assert seen[: 8 * count] == b"".join(value.to_bytes(8, "little") for value in values)
        assert seen[8 * count :] == expected


def check_registers(lazy: StubSession, prefix: str, size: int, count: int) -> None:
    caller, body = x86_64_registers(prefix, size, count)
    lazy.add(lazy.bodies, body, suffix=".s")
    lazy.add(lazy.main, caller, suffix=".s")
    reexport(lazy, "body")
    function = lazy.function("caller", None)
    for _ in range(2):
        function()
        seen = ctypes.string_at(lazy.address("seen", lazy.bodies), 15 * 8 + size * count)
        values = [0x1122334455667700 + number for number in range(15)]
        assert seen[: 15 * 8] == b"".join(value.to_bytes(8, "little") for value in values)
        assert seen[15 * 8 :] == bytes(n % 251 + 1 for n in range(size * count))


# Prefix, size in bytes, number, and the processor's feature.
VECTOR_REGISTERS = [("xmm", 16, 16, "sse2"), ("ymm", 32, 16, "avx"), ("zmm", 64, 32, "avx512f")]
FEATURES = Path("/proc/cpuinfo").read_text().split()


@pytest.mark.machine("x86_64")
@pytest.mark.parametrize(
    ("prefix", "size", "count"),
    [tuple(registers) for *registers, feature in VECTOR_REGISTERS if feature in FEATURES],
)
def test_no_register_changes(lazy: StubSession, prefix: str, size: int, count: int) -> None:
    check_registers(lazy, prefix, size, count)


@pytest.mark.machine("x86_64")
def test_no_register_changes_on_processors_without_xsave(monkeypatch: pytest.MonkeyPatch) -> None:
    # The test for XSAVE is replaced by its result.
    assert REENTRY.reentry[0x1D] == 0x73
    patched = bytearray(REENTRY.reentry)
    patched[0x1D] = 0xEB
    code = REENTRY._replace(reentry=bytes(patched))
    other = ProcessReentry(target_of_triple(MACHINE), code)
    monkeypatch.setattr(stubs_module, "reentry_of", lambda *_: other)
    with stub_session() as lazy:
        check_registers(lazy, "xmm", 16, 16)
        assert len(other._continuations) == 1
    assert not other._continuations


def test_errno_is_preserved(lazy: StubSession) -> None:
    lazy.add(lazy.bodies, "#include <errno.h>\nint body(void) { return errno; }")
    lazy.add(
        lazy.main,
        "#include <errno.h>\nint body(void);"
        "int caller(void) { errno = 123; int seen = body(); return seen * 1000 + errno; }",
    )
    reexport(lazy, "body")
    assert lazy.function("caller")() == 123123


def section(data: bytes, name: str) -> bytes:
    graph = create_link_graph(data)
    found = graph.find_section_by_name(name)
    assert found is not None
    return b"".join(bytes(block.content) for block in found.blocks)


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64", "riscv64"])
def test_the_bytes_are_those_of_the_assembly(architecture: str) -> None:
    assembly = Path(__file__).with_name(f"reentry_{architecture}.s")
    data = compile_c(assembly, target=f"{architecture}-linux-gnu").read_bytes()
    target = target_of_triple(architecture)
    code, host_function = target.reentry, target.host_function
    assert code is not None
    assert host_function is not None
    assert section(data, ".trampoline") == code.trampoline
    assert section(data, ".reentry") == code.reentry
    assert section(data, ".landing") == code.landing
    assert section(data, ".host_function") == host_function.content
    symbols = {
        each.name: each.offset for each in create_link_graph(data).defined_symbols if each.has_name
    }
    # The words at the ends are where the code looks for them.
    for content, words in (
        (code.reentry, ("callback", "fallback")),
        (code.landing, LANDING_WORDS),
    ):
        first = len(content) - 8 * len(words)
        assert [symbols[name] for name in words] == list(range(first, len(content), 8))
