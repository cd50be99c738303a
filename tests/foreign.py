"""The program of `programs/foreign_*.c`, compiled for other processors and called in an emulator.

The expected results are those of the same source, compiled for this machine and linked into this
process.
"""

import ctypes
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jitlink
from tests.emulation import Emulator, Host, Program
from tests.toolchain import CompilerName, compile_c

_PROGRAMS = Path(__file__).parent / "programs"
_SOURCES = (_PROGRAMS / "foreign_main.c", _PROGRAMS / "foreign_parts.c")
_FLAGS = ("-ffreestanding", "-fcommon", "-fno-stack-protector")
_HOST_DATA = 1234

CALLS: tuple[tuple[str, tuple[int, ...]], ...] = (
    *(("fibonacci", (n,)) for n in (0, 1, 12)),
    *(("change_data", (x,)) for x in (0, 3, 3, 77, -5)),
    *(("read_sizes", (i,)) for i in range(5)),
    *(("call_through", (i, x)) for i in range(9) for x in (1, 20)),
    *(("letter", (day, 2)) for day in range(7)),
    *(("vary", (x,)) for x in (4, -1000)),
    *(("weigh", (by,)) for by in (0, 9)),
    *(("ask_host", (x,)) for x in (0, -3)),
    ("same_address", ()),
)
"""Functions and arguments, in order of the calls, some of which modify data."""

Results = tuple[list[int], list[float]]


class Build(NamedTuple):
    """A machine, a compiler and its flags."""

    machine: str
    compiler: CompilerName
    flags: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.machine}-{self.compiler}{''.join(self.flags)}"

    @property
    def target(self) -> str:
        """The target; the pinned compiler generates position-dependent code for musl only."""
        return f"{self.machine}-linux-{'musl' if self.compiler == 'zig' else 'gnu'}"


def objects(target: str, compiler: CompilerName = "zig", flags: tuple[str, ...] = ()) -> list[Path]:
    """The two objects of the program for a target."""
    return [compile_c(each, compiler, (*_FLAGS, *flags), target=target) for each in _SOURCES]


def _host(a: int, b: int) -> int:
    return a * 3 - b


def _host_in_emulator(a: int, b: int) -> int:
    return _host(ctypes.c_int32(a).value, ctypes.c_int32(b).value)


@cache
def native_results() -> Results:
    """Results of the calls in this process."""
    host = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int32, ctypes.c_int32)(_host)
    data = ctypes.c_int32(_HOST_DATA)
    definitions = {
        "host": ctypes.cast(host, ctypes.c_void_p).value or 0,
        "host_data": ctypes.addressof(data),
    }
    paths = objects("x86_64-linux-gnu", flags=("-O2", "-fPIC"))
    with jitlink.load(*paths, definitions=definitions) as library:
        integers = []
        for name, arguments in CALLS:
            prototype = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_int32] * len(arguments))
            integers.append(prototype(library.address(name))(*arguments))
        double = ctypes.c_double
        area = ctypes.CFUNCTYPE(double, double)(library.address("total_area"))
        return integers, [area(1.5)]


def link_into(
    emulator: Emulator, paths: list[Path], more: Mapping[str, int | Host] | None = None
) -> Program:
    """Link the program into an emulator, with the symbols of the host, and more."""
    data = _HOST_DATA.to_bytes(4, emulator.machine.byte_order)
    externals: dict[str, int | Host] = {
        "host": _host_in_emulator,
        "host_data": emulator.add_data(data),
        **(more or {}),
    }
    return emulator.link(*paths, externals=externals)


def call_all(program: Program) -> Results:
    """Results of the calls in an emulator."""
    integers = [program.call(name, *arguments) for name, arguments in CALLS]
    return integers, [program.call_float("total_area", 1.5)]
