"""The symbol file of a program, by which symbolizers in its process find its functions."""

from __future__ import annotations

import numpy as np

from jitlink.executor.images import program_identity
from jitlink.formats.elf_symbol_file import write_symbol_file
from jitlink.graph import BlockFlags, LinkGraph, MemLifetime, Scope, SymbolFlags, SymbolKind
from jitlink.graph.columns import Int64Array, rows_where
from jitlink.graph.strings import NO_NAME
from jitlink.link import PassConfiguration
from jitlink.memory.images import ImageSymbols
from jitlink.memory.tls import FIRST_ADDRESS
from jitlink.orc import JITDylib, MaterializationResponsibility, Plugin
from jitlink.tool.output_file import OutputFileError


class SymbolFileWriter(Plugin):
    """Writes the symbols of all links into a JITDylib.

    Args:
        path: the file, which is overwritten.
        dylib: the JITDylib, which is an image.
    """

    defines_symbols = False

    def __init__(self, path: str, dylib: JITDylib) -> None:
        self._path = path
        self._dylib = dylib
        self._symbols: list[ImageSymbols] = []

    def modify_pass_config(
        self,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,  # noqa: ARG002 - part of the interface
        config: PassConfiguration,
    ) -> None:
        """Record the symbols when their addresses are final."""
        if responsibility.dylib is not self._dylib:
            return
        named = np.zeros(0, np.int64)

        def find(graph: LinkGraph) -> None:
            nonlocal named
            named = _named_rows(graph)

        # Dead-stripping removes symbols that nothing refers to, also those of blocks that stay.
        config.add_pre_prune(find)
        config.post_fixup.append(lambda graph: self._symbols.append(_symbols(graph, named)))

    def notify_emitted(self, responsibility: MaterializationResponsibility) -> None:
        """Write the symbols of all links until now.

        Raises:
            OutputFileError: the file cannot be written.
        """
        images = self._dylib.images
        if responsibility.dylib is not self._dylib or images is None:
            return
        names = [name for symbols in self._symbols for name in symbols.names]
        rows = [symbols[1:] for symbols in self._symbols]
        columns = [np.concatenate(each) for each in zip(*rows, strict=True)]
        content = write_symbol_file(program_identity(), ImageSymbols(names, *columns), images.bias)
        try:
            with open(self._path, "wb") as file:  # noqa: PTH123 - pathlib is slow to import
                file.write(content)
        except OSError as error:
            raise OutputFileError(self._path, error) from error


def _named_rows(graph: LinkGraph) -> Int64Array:
    """The symbols of a graph that have a name, local ones too."""
    table = graph.symbol_table
    named = (table.kind == int(SymbolKind.DEFINED)) & (table.name != NO_NAME)
    return rows_where(named & (table.scope != int(Scope.SIDE_EFFECTS_ONLY)))


def _symbols(graph: LinkGraph, rows: Int64Array) -> ImageSymbols:
    """Those of some symbols that are in the memory of a linked graph."""
    table, blocks = graph.symbol_table, graph.block_table
    kept = [s.ordinal for s in graph.sections if s.mem_lifetime == MemLifetime.STANDARD]
    block = table.block[rows]
    is_there = (block >= 0) & (blocks.flags[block] & int(BlockFlags.REMOVED) == 0)
    rows = rows[is_there & np.isin(blocks.section[block], kept)]
    addresses = blocks.address[table.block[rows]] + table.value[rows]
    is_thread_local = addresses >= FIRST_ADDRESS
    rows, addresses = rows[~is_thread_local], addresses[~is_thread_local]
    neither = np.zeros(len(rows), bool)
    return ImageSymbols(
        graph.strings.get_many(table.name[rows]),
        addresses,
        table.size[rows],
        (table.flags[rows] & int(SymbolFlags.CALLABLE)) != 0,
        neither,
        neither,
    )
