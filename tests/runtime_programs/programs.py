"""The programs of `sources`: the keys in their first comments, and the cases to run.

A line ``key: value`` of the first comment tells how to build and run the program. All are optional:

- ``parts: 2``: the source is compiled once for each part, with PART defined as 1, 2, ...
- ``archive: yes``: all parts but the first are members of an archive.
- ``flags: -fcommon``: options of the compiler; several such lines are alternatives.
- ``compilers: clang zig``: the only compilers that support it.
- ``position: independent``: it must be compiled with -fPIC. Other code refers to data of shared
  libraries as if it were near, for which a static linker uses copy relocations, and to thread-local
  data in the local-exec model, for which a running process has little static TLS surplus.
- ``library: c++``: it needs a C++ library, not only the C++ runtime.
- ``links: atomic``: libraries that it is linked with.
- ``run: one two``: arguments; several such lines are several runs.
- ``threads: 8``: the number of threads that it starts, for readers.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

SOURCES = Path(__file__).with_name("sources")
_KEYS = frozenset(
    {"parts", "archive", "flags", "compilers", "position", "library", "links", "run", "threads"}
)
_COMMENT = re.compile(r"\s*(?:/\*+|\*+/?|//|!)?\s*(?:(?P<key>[a-z]+): (?P<value>.*))?")
_STARTS = ("/*", " *", "//", "!")

LEVELS = ("-O0", "-O2")


class Case(NamedTuple):
    """One way to build and run a program.

    Attributes:
        program: the program.
        compiler: "gcc", "clang", "zig", "rustc" or "gfortran".
        level: the optimisation level.
        is_pic: whether the code is position-independent.
        flags: more options of the compiler.
        arguments: the program's arguments.
    """

    program: Program
    compiler: str
    level: str
    is_pic: bool
    flags: tuple[str, ...]
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        position = "pic" if self.is_pic else "nopic"
        words = [self.program.source.name, self.compiler + self.level, position]
        return "-".join([*words, *(flag.strip("-") for flag in self.flags), *self.arguments])


@dataclass(frozen=True)
class Program:
    """A program, as its first comment describes it; see the module.

    Attributes:
        source: its source.
        parts: number of its objects.
        in_archive: whether all but the first are in an archive.
        flags: alternative options.
        compilers: the compilers that support it.
        needs_pic: whether it must be position-independent.
        needs_library: whether it needs a C++ library.
        links: names of libraries.
        runs: arguments of each run.
        threads: number of threads that it starts.
    """

    source: Path
    parts: int
    in_archive: bool
    flags: tuple[tuple[str, ...], ...]
    compilers: tuple[str, ...]
    needs_pic: bool
    needs_library: bool
    links: tuple[str, ...]
    runs: tuple[tuple[str, ...], ...]
    threads: int

    @property
    def is_cxx(self) -> bool:
        """Whether it is written in C++."""
        return self.source.suffix == ".cpp"

    def builds(self, compiler: str) -> list[tuple[str, bool]]:
        """The builds with a compiler: level, and whether position-independent."""
        # The pinned compiler generates only position-independent code for this system.
        only_pic = self.needs_pic or compiler == "zig"
        positions = (True,) if only_pic else (True, False)
        return list(itertools.product(LEVELS, positions))

    def all_cases(self) -> Iterator[Case]:
        """All combinations of compilers, levels, positions, options and runs."""
        for compiler in self.compilers:
            for (level, is_pic), flags, run in itertools.product(
                self.builds(compiler), self.flags, self.runs
            ):
                yield Case(self, compiler, level, is_pic, flags, run)

    def few_cases(self, first: int) -> Iterator[Case]:
        """Each compiler, each option and each run once, with alternating levels and positions.

        Args:
            first: the index at which the alternation begins.
        """
        # The pinned compiler takes minutes to build its C++ library.
        slow = {"zig"} if self.needs_library else set()
        compilers = [each for each in self.compilers if each not in slow]
        for number in range(max(len(compilers), len(self.flags), len(self.runs))):
            compiler = compilers[(first + number) % len(compilers)]
            builds = self.builds(compiler)
            level, is_pic = builds[(first + number // len(compilers) + number) % len(builds)]
            flags = self.flags[number % len(self.flags)]
            yield Case(self, compiler, level, is_pic, flags, self.runs[number % len(self.runs)])


_COMPILERS = {
    ".c": ("gcc", "clang", "zig"),
    ".cpp": ("gcc", "clang", "zig"),
    ".rs": ("rustc",),
    ".f90": ("gfortran",),
}


def read_program(source: Path) -> Program:
    """Read a program's first comment.

    Raises:
        ValueError: it has an unknown key.
    """
    found: dict[str, list[str]] = {}
    lines = source.read_text().splitlines()
    for line in itertools.takewhile(lambda line: line.startswith(_STARTS), lines):
        match = _COMMENT.match(line)
        if match and match["key"]:
            found.setdefault(match["key"], []).append(match["value"].strip())
    if unknown := found.keys() - _KEYS:
        raise ValueError(f"{source}: unknown keys {sorted(unknown)}")

    def words(key: str) -> tuple[str, ...]:
        return tuple(" ".join(found.get(key, ())).split())

    def alternatives(key: str) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(each.split()) for each in found.get(key, [""]))

    (parts,) = found.get("parts", ["1"])
    (threads,) = found.get("threads", ["1"])
    return Program(
        source=source,
        parts=int(parts),
        in_archive="archive" in found,
        flags=alternatives("flags"),
        compilers=words("compilers") or _COMPILERS[source.suffix],
        needs_pic="position" in found,
        needs_library="library" in found,
        links=words("links"),
        runs=alternatives("run"),
        threads=int(threads),
    )


def programs() -> list[Program]:
    """All programs, by name."""
    return [read_program(source) for source in sorted(SOURCES.iterdir())]
