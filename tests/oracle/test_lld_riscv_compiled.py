"""The output of jitlink for RISC-V equals that of ld.lld, for more compiler options.

Debian's archives are 64-bit position-independent code of one compiler. These tests add 32 bits,
absolute addresses, debug information and other instruction sets.
"""

from itertools import product
from pathlib import Path

import pytest

from tests.oracle.check import LAYOUTS, linkers
from tests.oracle.placement import ObjectFile
from tests.toolchain import CompilerName, compile_c

TESTS = Path(__file__).resolve().parent.parent
SOURCES = ("sources/everything.c", "sources/shapes.cpp", "programs/foreign_main.c")
ANYWHERE = {
    "PIC": ("-O2", "-fPIC"),
    "PIC, relaxable": ("-O1", "-fPIC", "-mrelax"),
    "many sections": ("-O2", "-fPIC", "-mrelax", "-ffunction-sections", "-fdata-sections"),
    "debug information": ("-O1", "-g", "-fPIC", "-mrelax"),
}
LOW = {
    "absolute": ("-O2", "-fno-pic"),
    "absolute, relaxable": ("-O2", "-fno-pic", "-mrelax"),
    "absolute, unoptimized": ("-O0", "-fno-pic", "-mrelax"),
    "medany": ("-O2", "-fno-pic", "-mcmodel=medany", "-mrelax"),
}
COMPILERS: tuple[CompilerName, ...] = ("zig", "clang")


def compare(layout: str, directory: Path, path: Path) -> None:
    objects = [ObjectFile("object.o", path.read_bytes())]
    with linkers(layout, directory) as both:
        result = both.compare(objects, both.place(objects))
    assert result.differences == []
    assert result.sections > 5


def compiled(source: str, compiler: CompilerName, flags: tuple[str, ...], bits: int) -> Path:
    if compiler == "clang":
        abi = "lp64d" if bits == 64 else "ilp32d"
        flags = (*flags, f"-march=rv{bits}gc", f"-mabi={abi}", "-ffreestanding")
    target = f"riscv{bits}-linux-{'musl' if compiler == 'zig' else 'gnu'}"
    return compile_c(TESTS / source, compiler, flags, target=target)


CASES = [
    *((64, layout, flags) for layout, flags in product(LAYOUTS, ANYWHERE)),
    *((bits, "low", flags) for bits, flags in product((32, 64), LOW)),
    *((32, "low", flags) for flags in ANYWHERE),
]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("bits", "layout", "flags"), CASES)
def test_compiled(source: str, bits: int, layout: str, flags: str, tmp_path: Path) -> None:
    compare(layout, tmp_path, compiled(source, "zig", {**ANYWHERE, **LOW}[flags], bits))


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("flags", [*ANYWHERE, *LOW])
def test_compiled_by_clang(bits: int, flags: str, tmp_path: Path) -> None:
    options = {**ANYWHERE, **LOW}[flags]
    compare("low", tmp_path, compiled("programs/foreign_main.c", "clang", options, bits))


VARIABLES = """
extern __thread int far, near;
__thread int own = 5;
static __thread long many[300] = {1, 2, 3};
__thread char zeros[3000] __attribute__((aligned(64)));
int memory[4];
__thread int *pointer = memory;
int next(void) { return far++ + near-- + own++; }
long *address(int i) { return &many[i] + zeros[i]; }
int **where(void) { return &pointer; }
"""
MODELS = ("global-dynamic", "local-dynamic", "initial-exec", "local-exec")
# ld.lld relaxes TLS descriptors in programs, and refuses local exec code in shared objects.
TLS_CASES = [
    (compiler, bits, layout, model)
    for (compiler, bits), (layout, model) in product(
        (("clang", 32), ("clang", 64), ("gcc", 64)), product(LAYOUTS, MODELS)
    )
    if (layout, model) != ("far", "local-exec") and (bits == 64 or layout == "low")
]


@pytest.mark.parametrize("level", ["-O0", "-O2"])
@pytest.mark.parametrize(("compiler", "bits", "layout", "model"), TLS_CASES)
def test_thread_local_variables(
    compiler: CompilerName, bits: int, layout: str, model: str, level: str, tmp_path: Path
) -> None:
    flags: tuple[str, ...] = (level, "-g", "-fPIC", f"-ftls-model={model}")
    if compiler == "clang":
        abi = "lp64d" if bits == 64 else "ilp32d"
        flags = (*flags, f"-march=rv{bits}gc", f"-mabi={abi}")
    path = compile_c(VARIABLES, compiler, flags, target=f"riscv{bits}-linux-gnu")
    compare(layout, tmp_path, path)
