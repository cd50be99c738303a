"""The files of the conformance suite: their headers, and the objects assembled from them.

A file is an assembly source, or several below lines ``#--- NAME.s``. Its first line describes what
it tests; then there may be lines

- ``# OPTIONS:`` options of the command besides the default ones and the objects;
- ``# SLAB:`` the address of the slab, or ``none`` for no slab;
- ``# FLAGS:`` flags of the assembler;
- ``# INPUTS:`` objects and archives of the command, by default all objects; an archive is written
  ``libNAME.a(MEMBER.o MEMBER.o)``;
- ``# STATUS:`` the exit status, if it is not 0.
"""

import re
import shutil
from pathlib import Path
from typing import NamedTuple

from tests.tool.command import archive
from tests.toolchain import compile_c

ROOT = Path(__file__).parent
FILES = sorted(ROOT.glob("*/*.s"))
TARGETS = {
    "x86_64": "x86_64-linux-gnu",
    "aarch64": "aarch64-linux-gnu",
    "riscv64": "riscv64-linux-gnu",
}
_HEADER = re.compile(r"^# ([A-Z]+): *(.*)$", re.MULTILINE)
_PART = re.compile(r"^#--- (\S+)\n", re.MULTILINE)
_ARCHIVE = re.compile(r"(\S+\.a)\(([^)]*)\)|(\S+)")
_SLAB = "0x10000000"


class Case(NamedTuple):
    """One file of the suite.

    Attributes:
        path: the file.
        options: options of the command.
        inputs: the inputs, in the syntax of the header.
        sources: text of each source, by name.
        flags: flags of the assembler.
        status: the exit status.
    """

    path: Path
    options: list[str]
    inputs: str
    sources: dict[str, str]
    flags: list[str]
    status: int


def read_case(path: Path) -> Case:
    """Parse a file."""
    text = path.read_text(encoding="utf-8")
    head, *parts = _PART.split(text)
    sources = dict(zip(parts[::2], parts[1::2], strict=True)) or {path.name: text}
    fields = dict(_HEADER.findall(head if parts else text))
    slab = fields.pop("SLAB", _SLAB)
    options = ["-noexec"]
    if slab != "none":
        options += ["-slab-allocate", "256Kb", "-slab-page-size", "4096", "-slab-address", slab]
    options += fields.pop("OPTIONS", "").split()
    default = " ".join(Path(name).stem + ".o" for name in sources)
    case = Case(
        path,
        options,
        fields.pop("INPUTS", default),
        sources,
        fields.pop("FLAGS", "").split(),
        int(fields.pop("STATUS", "0")),
    )
    assert not fields, f"{path} has unknown headers: {', '.join(fields)}"
    return case


def build(case: Case) -> list[str]:
    """Build objects and archives of a case in the current directory; the inputs of the command."""
    target = TARGETS[case.path.parent.name]
    shutil.copyfile(case.path, case.path.name)
    for name, source in case.sources.items():
        compiled = compile_c(source, "zig", case.flags, suffix=".s", target=target)
        shutil.copyfile(compiled, Path(name).with_suffix(".o"))
    inputs = []
    for library, members, file in _ARCHIVE.findall(case.inputs):
        if library:
            archive(Path(library), *map(Path, members.split()))
        inputs.append(library or file)
    return inputs
