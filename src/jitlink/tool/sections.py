"""Sections made from files: `-sectcreate`, after the option of Apple's linker."""

from __future__ import annotations

from jitlink.graph import LinkGraph, MemProt
from jitlink.inputs import open_input
from jitlink.targets.registry import target_of_triple
from jitlink.tool.options import CommandLineError, SectionArgument

_ALIGNMENT = 16


def section_graph(argument: SectionArgument, triple: str) -> LinkGraph:
    """A graph of one read-only section with a file's content, and symbols in it.

    Args:
        argument: the argument of the option.
        triple: the target of the graph.

    Raises:
        InputError: the file cannot be read.
        CommandLineError: an offset is outside of the file, or a name is given twice.
    """
    name = f"orc_sectcreate_{argument.name}"
    content = open_input(argument.file).data
    graph = target_of_triple(triple).new_graph(name)
    graph.origins.append(name)
    section = graph.create_section(argument.name, MemProt.READ)
    block = graph.create_content_block(section, content, 0, _ALIGNMENT)
    graph.block_table.origin[block.row] = 0
    names: set[str] = set()
    for symbol, offset in argument.symbols:
        if symbol in names:
            raise CommandLineError(f"{symbol} is given twice", option="sectcreate")
        # LLVM differs: it allows any offset.
        if offset > len(content):
            raise CommandLineError(
                f"offset {offset} of {symbol} is outside of {argument.file}, which has "
                f"{len(content)} bytes",
                option="sectcreate",
            )
        names.add(symbol)
        graph.add_defined_symbol(block, offset, symbol, is_live=True)
    return graph
