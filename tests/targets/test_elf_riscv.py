"""ELF RISC-V of 32 and 64 bits: linked, run in Unicorn, and compared with what C says."""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import pytest

from tests.emulation import Emulator
from tests.foreign import CALLS, call_all, link_into, native_results, objects
from tests.toolchain import CompilerName

LEVELS = ("-O0", "-O1", "-O2")
POSITIONS = ("-fPIC", "-fno-pic")
BASE = 0x7000_0000


class Build(NamedTuple):
    """How the program is compiled."""

    machine: str
    compiler: CompilerName
    flags: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.machine}-{self.compiler}{''.join(self.flags)}"

    @property
    def target(self) -> str:
        """The target; the pinned compiler makes position-dependent code for musl only."""
        return f"{self.machine}-linux-{'musl' if self.compiler == 'zig' else 'gnu'}"


def builds() -> Iterator[Build]:
    for machine, level, position, relax in product(
        ("riscv64", "riscv32"), LEVELS, POSITIONS, ("-mrelax", "-mno-relax")
    ):
        yield Build(machine, "zig", (level, position, relax))
    for level, position, relax in product(LEVELS, POSITIONS, ("-mrelax", "-mno-relax")):
        yield Build("riscv64", "gcc", (level, position, relax))
    for level, model in product(LEVELS, ("-mcmodel=medlow", "-mcmodel=medany")):
        yield Build("riscv64", "gcc", (level, "-fno-pic", model, "-fno-jump-tables"))
    yield Build("riscv64", "clang", ("-O2", "-march=rv64gc", "-mrelax", "-falign-functions=64"))


@pytest.mark.parametrize("build", list(builds()), ids=str)
def test_program_computes_what_it_computes_natively(build: Build) -> None:
    paths = objects(build.target, build.compiler, build.flags)
    with Emulator(build.machine, BASE) as emulator:
        assert call_all(link_into(emulator, paths)) == native_results()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("architecture", ["rv32imac", "rv32ima", "rv64imac", "rv64ima"])
def test_program_of_processor_without_floating_point(architecture: str, level: str) -> None:
    bits = architecture[2:4]
    abi = "ilp32" if bits == "32" else "lp64"
    flags = (level, f"-march={architecture}", f"-mabi={abi}", "-mrelax")
    # Functions of the compiler's library that nothing below calls.
    unused = dict.fromkeys(("__muldf3", "__adddf3"), lambda: 0)
    with Emulator(f"riscv{bits}", BASE) as emulator:
        paths = objects(f"riscv{bits}-linux-gnu", "clang", flags)
        program = link_into(emulator, paths, unused)
        results = [program.call(name, *arguments) for name, arguments in CALLS]
    assert results == native_results()[0]


def test_program_far_from_what_it_calls() -> None:
    paths = objects("riscv64-linux-gnu", flags=("-O2", "-fPIC"))
    with Emulator("riscv64", 0x3F_1234_5000) as emulator:
        assert call_all(link_into(emulator, paths)) == native_results()
