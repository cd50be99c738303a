"""The contents of a single object, before symbol resolution and dead-stripping.

A link graph has only what these leave of an object. Reports about the rest read the object again,
by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from jitlink.graph import Linkage, LinkGraph, Scope, SymbolFlags, SymbolKind
from jitlink.graph.columns import rows_where
from jitlink.graph.strings import NO_NAME
from jitlink.input_reader import InputReader
from jitlink.inputs import InputFile


class ReadBlock(NamedTuple):
    """The block of a section or of a common symbol.

    Attributes:
        section: its name.
        size: its size in bytes.
        group: signature of its COMDAT group, or None.
        exports: names of the symbols in it that are not local.
    """

    section: str
    size: int
    group: str | None
    exports: tuple[str, ...]


class ReadDefinition(NamedTuple):
    """A definition that is not local.

    Attributes:
        binding: ``strong``, ``weak`` or ``common``.
        section: name of its section; empty for an absolute symbol.
        size: its size in bytes.
        group: signature of its COMDAT group, or None.
        is_hidden: whether its scope is hidden.
    """

    binding: str
    section: str
    size: int
    group: str | None
    is_hidden: bool


class ObjectFacts:
    """One object by itself.

    Args:
        file: the object.

    Attributes:
        name: its display name.

    Raises:
        InputError: it cannot be read.
    """

    def __init__(self, file: InputFile) -> None:
        builder = InputReader()
        builder.add([file])
        self.name = file.name
        self._graph: LinkGraph = builder.target_graph
        self._groups = builder.comdat_signatures()

    def blocks(self) -> list[ReadBlock]:
        """The blocks, in the order in which the reader creates them."""
        table, symbols = self._graph.block_table, self._graph.symbol_table
        exports: dict[int, list[str]] = {}
        rows = (symbols.kind == SymbolKind.DEFINED) & (symbols.scope != Scope.LOCAL)
        rows = rows_where(rows & (symbols.name != NO_NAME))
        names = self._graph.strings.get_many(symbols.name[rows])
        for name, block in zip(names, symbols.block[rows].tolist(), strict=True):
            exports.setdefault(block, []).append(name)
        sections = self._graph.section_list.names
        columns = zip(table.section.tolist(), table.size.tolist(), strict=True)
        return [
            ReadBlock(sections[section], size, self._groups.get(row), tuple(exports.get(row, ())))
            for row, (section, size) in enumerate(columns)
        ]

    def definitions(self, name: str) -> Iterator[ReadDefinition]:
        """The definitions of a name that are not local."""
        table, blocks = self._graph.symbol_table, self._graph.block_table
        for row in self._rows(name):
            if table.kind[row] not in {SymbolKind.DEFINED, SymbolKind.ABSOLUTE}:
                continue
            is_common = int(table.flags[row]) & SymbolFlags.COMMON
            binding = "common" if is_common else str(Linkage(int(table.linkage[row])))
            block = int(table.block[row]) if table.kind[row] == SymbolKind.DEFINED else None
            section = (
                "" if block is None else self._graph.section_list.names[int(blocks.section[block])]
            )
            group = None if block is None else self._groups.get(block)
            hidden = bool(table.scope[row] == Scope.HIDDEN)
            yield ReadDefinition(binding, section, int(table.size[row]), group, hidden)

    def reference(self, name: str) -> str | None:
        """How the object refers to a name that it does not define: ``strong``, ``weak`` or None."""
        table = self._graph.symbol_table
        found = [row for row in self._rows(name) if table.kind[row] == SymbolKind.EXTERNAL]
        if not found:
            return None
        weak = all(int(table.flags[row]) & SymbolFlags.WEAKLY_REFERENCED for row in found)
        return "weak" if weak else "strong"

    def _rows(self, name: str) -> list[int]:
        """Rows of the symbols with a name that are not local."""
        table = self._graph.symbol_table
        rows = rows_where((table.scope != Scope.LOCAL) & (table.name != NO_NAME))
        names = self._graph.strings.get_many(table.name[rows])
        return [row for row, each in zip(rows.tolist(), names, strict=True) if each == name]
