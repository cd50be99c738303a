"""Symbol tables of linked code in files, and the symbolication of backtraces with them.

A symbol table has a line with the name of each object in quotes, followed by a line with the
address and name of each of its symbols::

    "filter.o"
    0x7f1364002000 main

A backtrace is any text. To a line that ends with an address, in hexadecimal digits with or
without ``0x``, the symbol at or before it is added if one is within 2 GiB, with the distance in
bytes and the object::

    #0 0x7f1364002005 main + 5 (filter.o)
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_right
from contextlib import suppress
from typing import TextIO

import numpy as np

from jitlink.graph import LinkGraph, MemLifetime, Scope, SymbolKind
from jitlink.graph.columns import rows_where
from jitlink.graph.strings import NO_NAME
from jitlink.graph.text import printable
from jitlink.inputs import open_input
from jitlink.link import PassConfiguration
from jitlink.orc import MaterializationResponsibility, Plugin
from jitlink.tool.output_file import OutputFileError, open_output

_REACH = 1 << 31
_NUMBER = re.compile(r"[0-9a-fA-F]+")
_UNIDENTIFIED = "<unidentified>"


class SymbolTableWriter(Plugin):
    """Writes the symbol table of all links.

    Args:
        path: the file, which is overwritten.

    Raises:
        OutputFileError: it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: TextIO = open_output(path)

    def modify_pass_config(
        self,
        responsibility: MaterializationResponsibility,  # noqa: ARG002 - part of the interface
        graph: LinkGraph,  # noqa: ARG002
        config: PassConfiguration,
    ) -> None:
        """Write the symbols when their addresses are final."""
        config.post_fixup.append(self._write)

    def _write(self, graph: LinkGraph) -> None:
        try:
            self._file.write(symbol_table(graph))
            # The program may crash.
            self._file.flush()
        except OSError as error:
            raise OutputFileError(self._path, error) from error

    def close(self) -> None:
        """Close the file; a failed write has failed its link already."""
        with suppress(OSError):
            self._file.close()


def symbol_table(graph: LinkGraph) -> str:
    """The named symbols of a linked graph, object by object."""
    table, blocks = graph.symbol_table, graph.block_table
    named = (table.kind == int(SymbolKind.DEFINED)) & (table.name != NO_NAME)
    # Initializer symbols have no address.
    rows = rows_where(named & (table.scope != int(Scope.SIDE_EFFECTS_ONLY)))
    absent = [s.ordinal for s in graph.sections if s.mem_lifetime == MemLifetime.NO_ALLOC]
    rows = rows[~np.isin(blocks.section[table.block[rows]], absent)]
    origins = blocks.origin[table.block[rows]]
    names = list(map(printable, graph.strings.get_many(table.name[rows])))
    addresses = graph.symbol_addresses()[rows].tolist()
    lines: list[str] = []
    for number, origin in enumerate(graph.origins or [graph.name]):
        own = rows_where(origins == number) if graph.origins else range(len(rows))
        lines.append(f'"{printable(origin)}"')
        lines += [f"{addresses[each]:#x} {names[each]}" for each in own]
    return "".join(f"{line}\n" for line in lines)


class Symbolicator:
    """Adds symbols to backtraces.

    Args:
        text: a symbol table; malformed lines are skipped.
    """

    def __init__(self, text: str) -> None:
        symbols: dict[int, tuple[str, str]] = {}
        file = _UNIDENTIFIED
        for row in map(str.strip, text.split("\n")):
            if row.startswith('"') and row.endswith('"'):
                file = row.strip('"')
                continue
            digits, space, name = row.partition(" ")
            address = _address(digits)
            if space and address is not None:
                symbols[address] = name, file
        self._addresses = sorted(symbols)
        self._symbols = symbols

    @classmethod
    def read(cls, path: str) -> Symbolicator:
        """Read a symbol table from a file.

        Raises:
            InputError: the file cannot be read.
        """
        return cls(_text(path))

    def file(self, path: str) -> str:
        """The symbolicated text of a file; ``-`` is standard input.

        Raises:
            InputError: the file cannot be read.
        """
        if path == "-":
            data = sys.stdin.buffer.read() if sys.stdin is not None else b""
            return self.text(data.decode("utf-8", "surrogateescape"))
        return self.text(_text(path))

    def text(self, backtrace: str) -> str:
        """The symbolicated text, each line terminated."""
        return "".join(f"{self._row(row)}\n" for row in backtrace.split("\n"))

    def _row(self, row: str) -> str:
        start, space, column = row.rstrip().rpartition(" ")
        if not space:
            # As in LLVM: an address alone on its line cannot be told from other words.
            return row
        address = _address(column)
        if address is None:
            return row
        place = bisect_right(self._addresses, address) - 1
        if place < 0 or address - self._addresses[place] >= _REACH:
            return row
        symbol = self._addresses[place]
        name, file = self._symbols[symbol]
        distance = f" + {address - symbol}" if address > symbol else ""
        return f"{start} {column} {name}{distance} ({file})"


def _address(text: str) -> int | None:
    digits = text.removeprefix("0x")
    # LLVM's numbers have at most 64 bits.
    if not _NUMBER.fullmatch(digits) or len(digits.lstrip("0")) > 16:
        return None
    return int(digits, 16)


def _text(path: str) -> str:
    return bytes(open_input(path).data).decode("utf-8", "surrogateescape")
