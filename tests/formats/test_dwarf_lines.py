"""Line tables of linked objects, compared with what a symbolizer reads from the objects."""

from functools import cache
from pathlib import Path

import pytest

from jitlink import tasks
from jitlink.executor import RemoteExecutorProcessControl
from jitlink.formats.dwarf_lines import LineSection
from jitlink.lljit import LLJIT
from tests.mutations import Region, mutants
from tests.toolchain import CompilerName, compile_c, require, run, zig_command

SOURCE = """
#include <stdlib.h>

static int square(int x) {
    return x * x;
}

int sum(const int *numbers, int count) {
    int total = 0;
    while (count--)
        total += square(numbers[count]);
    if (total > 100)
        abort();
    return total;
}

#line 500 "elsewhere/generated.c"
int other(int x) {
    return x > 3 ? sum(&x, 1) : x;
}
"""
SIZE = 32
KINDS: list[tuple[CompilerName, tuple[str, ...]]] = [
    (compiler, (f"-gdwarf-{version}", optimization, "-fPIC", *split))
    for compiler in ("gcc", "clang", "zig")
    for version in (3, 4, 5)
    for optimization in ("-O0", "-O2")
    for split in ((), ("-ffunction-sections",))
]


@pytest.mark.parametrize(("compiler", "flags"), KINDS, ids=str)
def test_every_address_of_a_function(compiler: CompilerName, flags: tuple[str, ...]) -> None:
    compiled = compile_c(SOURCE, compiler, flags)
    with RemoteExecutorProcessControl.launch() as executor, LLJIT(executor=executor) as jit:
        jit.add_object(compiled)
        for name in ("sum", "other"):
            start = int(jit.lookup(name))
            found = tasks.run(executor.describe_code(range(start, start + SIZE)))
            inside = [each for each in found if each.symbol == name]
            assert len(inside) > 4
            expected = _symbolized(compiled, name, len(inside))
            assert [(Path(each.source).name, each.line) for each in inside] == expected
            assert [each.offset for each in inside] == list(range(len(inside)))


def _symbolized(path: Path, name: str, size: int) -> list[tuple[str, int]]:
    """File and line of each byte of a function of an object, as they are in a shared object."""
    require("nm")
    shared = path.with_name("lines.so")
    run([*zig_command("ld.lld"), "-shared", path, "-o", shared])
    symbols = run(["nm", shared]).splitlines()
    (start,) = (int(line.split()[0], 16) for line in symbols if line.split()[-1] == name)
    addresses = [f"{start + offset:#x}" for offset in range(size)]
    # Not binutils' addr2line, which takes the wrong file of tables of version 5.
    tool = require("llvm-symbolizer-22")
    style = ("--output-style=GNU", "--no-inlines", "--functions=none")
    lines = run([tool, *style, "-e", shared, *addresses]).splitlines()
    pairs = [line.split(" ")[0].rpartition(":") for line in lines]
    # What the compiler has made of no line of the source is of none.
    return [
        (Path(file).name, int(number)) if number not in {"?", "0"} else ("", 0)
        for file, _, number in pairs
    ]


@cache
def _section(version: int) -> bytes:
    compiled = compile_c(SOURCE, "gcc", (f"-gdwarf-{version}", "-O2", "-fPIC"))
    place = compiled.with_name(f"lines-{version}")
    tool = require("objcopy")
    run([tool, f"--dump-section=.debug_line={place}", compiled, place.with_suffix(".o")])
    return place.read_bytes()


def _find(data: bytes) -> dict[int, tuple[str, int]]:
    section = LineSection(
        memoryview(data), "little", lambda _: 0x1000, lambda _: b"directory/file.c\0more"
    )
    return section.find([0x1000, 0x1001, 0x1020])


@pytest.mark.parametrize("version", [3, 5])
def test_damaged_tables(version: int) -> None:
    whole = _section(version)
    found = _find(whole)
    assert len(found) == 3
    for size in range(len(whole)):
        assert _find(whole[:size]).keys() <= found.keys()
    for mutant in mutants(whole, [Region(0, len(whole), 1)], 3000):
        assert _find(mutant).keys() <= found.keys()


HEADER_5 = bytes([5, 0, 8, 0, 255, 0, 0, 0, 1, 1, 1, 251, 14, 13, *[0] * 12])


def _with_size(unit: bytes) -> bytes:
    return len(unit).to_bytes(4, "little") + unit


def test_counts_that_would_take_for_ever() -> None:
    for formats in (b"\0", b"\1\1\x0b"):
        unit = HEADER_5 + formats + b"\xff\xff\xff\xff\x0f" + bytes(20)
        assert _find(_with_size(unit)) == {}


def test_names_that_would_take_for_ever() -> None:
    """The time for a name is linear in its length; this one, of a directory, has no end."""
    unit = HEADER_5 + b"\1\1\x08" + b"\1" + b"a" * (8 << 20)
    assert _find(_with_size(unit)) == {}


@pytest.mark.parametrize("version", [3, 5])
@pytest.mark.parametrize("damaged", [b"", b"\x06\0", HEADER_5, HEADER_5 + b"\0\xff"])
def test_a_damaged_unit_hides_no_other(version: int, damaged: bytes) -> None:
    whole = _section(version)
    assert _find(_with_size(damaged) + whole + _with_size(damaged)) == _find(whole)


def test_lines_are_unsigned() -> None:
    """A line number that is advanced below 0 wraps, as its register of four bytes does."""
    header = bytes([2, 0, 26, 0, 0, 0, 1, 1, 251, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1])
    files = b"\0" + b"f.c\0\0\0\0" + b"\0"
    header = header[:2] + (len(header) - 6 + len(files)).to_bytes(4, "little") + header[6:]
    # Set the address, line 1 - 3, a row, 32 bytes on, the end of the sequence.
    program = b"\0\x09\x02" + bytes(8) + b"\x03\x7d" + b"\x01" + b"\x02\x40" + b"\0\1\1"
    assert _find(_with_size(header + files + program))[0x1000] == ("f.c", (1 << 32) - 2)
