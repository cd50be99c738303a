"""The facts in the output of `-show-addrs` and `-show-linked-files`, of jitlink or llvm-jitlink."""

import re
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import NamedTuple


class Facts(NamedTuple):
    """The facts that both commands print.

    Attributes:
        linked: names of the objects that were linked.
        symbols: name, size and kind of memory of each symbol.
        sections: object, name, size and kind of memory of each section.
        entries: object, kind (``GOT`` or ``Stubs``) and target of each GOT entry and stub.
    """

    linked: set[str]
    symbols: set[tuple[str, int, str]]
    sections: set[tuple[str, str, int, str]]
    entries: set[tuple[str, str, str]]


_LINE = re.compile(
    r'  (?:(\w+) )?"(.*?)":? target addr = (0x[0-9a-f]{16}), '
    r"(?:content: (0x[0-9a-f]+) -- (0x[0-9a-f]+) \((\d+) bytes\)|zero-fill: (\d+) bytes)"
)
# Symbols that only one of the commands prints: the GOT's, and ELF's null symbol.
OWN_SYMBOLS = {"_GLOBAL_OFFSET_TABLE_", "__jitlink_ELF_SYM_UND_0"}


def facts_of(output: str, own: AbstractSet[str] = frozenset()) -> Facts:
    """Parse the output of either command; `own` are names that the program defines."""
    facts = Facts(set(), set(), set(), set())
    file = ""
    for line in output.splitlines():
        if line.startswith("Linking "):
            facts.linked.add(_file(line[8:]))
        elif line.startswith("File "):
            # llvm-jitlink omits the directory here.
            file = Path(_file(line[6:-2])).name
        elif match := _LINE.fullmatch(line):
            what, name = match[1], match[2]
            size, memory = int(match[6] or match[7]), "content" if match[6] else "zero-fill"
            if match[6]:
                assert int(match[5], 16) - int(match[4], 16) == size
            if what is None and name not in OWN_SYMBOLS:
                facts.symbols.add((name, size, memory))
            elif what == "Section" and not name.startswith("$__") and name != ".eh_frame":
                facts.sections.add((file, name, size, memory))
            elif what in {"GOT", "Stubs"} and name not in own:
                facts.entries.add((file, what, name))
        else:
            assert line in {"Registered addresses:", "Symbols:"}
    return facts


def _file(name: str) -> str:
    # llvm-jitlink numbers members, because several may have one name.
    return re.sub(r"\[\d+\]", "", name)
