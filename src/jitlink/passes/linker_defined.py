"""Linker-defined symbols: external symbols that the linker itself defines.

`synthesize_symbols` passes each external symbol to the definer of its exact name or of a prefix of
it; a definer turns the symbol into a defined one or leaves it external. Which symbols a format has
is a table of that format's. Names that something outside of the graph defines already
(`LinkGraph.is_defined_elsewhere`) are left to that.

The sections whose name is a C identifier are *linker sets*: a link makes one section of all that
have the name, and `define_section_start` and `define_section_stop` define its encapsulation
symbols, `__start_` and `__stop_` with the name. These keep the section's blocks alive, except those
that live and die with another block (`LinkGraph.linked_to`).

Specification: GNU ld manual, "Encapsulation symbols"; LLVM's lld for those with SHF_LINK_ORDER.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jitlink.graph import (
    Block,
    BlockFlags,
    Linkage,
    LinkGraph,
    MemLifetime,
    MemProt,
    Scope,
    Section,
    Symbol,
    SymbolKind,
)
from jitlink.graph.columns import rows_where
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.edges import KEEP_ALIVE
from jitlink.graph.link_graph import NO_BLOCK
from jitlink.graph.strings import NO_NAME
from jitlink.graph.symbols import check_unique
from jitlink.graph.tables import ABSOLUTE, DEFINED

START, STOP = "__start_", "__stop_"
"""Prefixes of encapsulation symbols."""
START_OF, SIZE_OF = ".startof.", ".sizeof."
"""Prefixes of symbols for the address and the size of a section of any name."""
HEADER_NAMES = frozenset(("__ehdr_start", "__executable_start"))
IMAGE_NAMES = HEADER_NAMES.union(
    ("etext", "_etext", "__etext", "edata", "_edata", "end", "_end", "__bss_start"),
    ("data_start", "__data_start"),
    (f"__{kind}_array_{side}" for kind in ("preinit", "init", "fini") for side in ("start", "end")),
)
"""Names of bounds of a program's image; see `jitlink.passes.image_bounds`."""
NO_OBJECT = -1
"""Origin of blocks that come from no object."""

Definer = Callable[[LinkGraph, Symbol, str], None]
"""Called with the graph, an external symbol, and its name without the prefix."""

_MIDDLE = ".__sets."
PIECES = (".init", ".fini")
"""Sections of the pieces of the functions ``_init`` and ``_fini``."""
# Origins that sort before and behind those of all objects.
_FIRST, _LAST = NO_OBJECT, np.iinfo(np.int32).max
# Names that are those of one image, besides `IMAGE_NAMES`.
_ONE_IMAGE = IMAGE_NAMES.union(
    ("_DYNAMIC", "_GLOBAL_OFFSET_TABLE_", "__TMC_END__", "__dso_handle"),
    ("_start", "_init", "_fini", "_IO_stdin_used"),
)


class SetUse(NamedTuple):
    """What an object, or several, have to do with linker sets and the image of the program.

    Attributes:
        elements: names of the sets that they have elements of.
        bounds: names of the sets whose bounds they refer to.
        image: whether they refer to a bound of the program's image.
    """

    elements: frozenset[str] = frozenset()
    bounds: frozenset[str] = frozenset()
    image: bool = False

    def __bool__(self) -> bool:
        return bool(self.elements or self.bounds or self.image)

    @staticmethod
    def of_all(uses: Iterable[SetUse]) -> SetUse:
        """What several objects together have to do with linker sets."""
        uses = [use for use in uses if use]
        if not uses:
            return NO_USE
        return SetUse(
            frozenset().union(*(use.elements for use in uses)),
            frozenset().union(*(use.bounds for use in uses)),
            any(use.image for use in uses),
        )


NO_USE = SetUse()
_BEGINNINGS = (START, STOP, START_OF, SIZE_OF)


def synthesize_symbols(
    graph: LinkGraph, exact: Mapping[str, Definer], prefixes: Mapping[str, Definer]
) -> None:
    """Call the definers of external symbols (for a pre-prune pass).

    Args:
        graph: the graph.
        exact: definers by name.
        prefixes: definers by prefix of a name.
    """
    rows, names = graph.external_names()
    beginnings = tuple(prefixes)
    for name, row in zip(names, rows.tolist(), strict=True):
        if name in exact:
            if not graph.is_defined_elsewhere(name):
                exact[name](graph, Symbol(graph, row), name)
        elif name.startswith(beginnings) and not graph.is_defined_elsewhere(name):
            prefix = next(each for each in beginnings if name.startswith(each))
            prefixes[prefix](graph, Symbol(graph, row), name[len(prefix) :])


def linker_sets(graph: LinkGraph) -> dict[int, list[str]]:
    """Names of the linker sets that objects of a graph have elements of, by index of the object.

    The pieces of the functions ``_init`` and ``_fini``, which have no encapsulation symbols, are
    among them.
    """
    sections, table = graph.section_list, graph.block_table
    # Nearly all names begin with a dot.
    others, names = sections.others(), sections.read_names
    ordinals = [n for n in others if names[n][:1] != "." and _is_set_name(names[n])]
    ordinals += [n for name in PIECES for n in sections.ordinals_named(name)]
    if not ordinals:
        return {}
    is_set = np.zeros(len(sections), np.bool_)
    is_set[ordinals] = True
    is_set &= graph.section_lifetimes() != int(MemLifetime.NO_ALLOC)
    excluded = int(BlockFlags.THREAD_LOCAL | BlockFlags.REMOVED)
    rows = rows_where(is_set[table.section] & (table.flags & excluded == 0))
    found: dict[int, dict[str, None]] = {}
    origins = table.origin[rows].tolist()
    for origin, ordinal in zip(origins, table.section[rows].tolist(), strict=True):
        found.setdefault(origin, {})[sections.name(ordinal)] = None
    return {origin: list(names) for origin, names in found.items()}


def set_uses(
    elements: Mapping[int, Sequence[str]],
    undefined: Iterable[str],
    references: Sequence[Sequence[str]],
) -> dict[int, SetUse]:
    """What objects have to do with linker sets, by index of the object, if anything.

    Args:
        elements: the names of the sets that objects have elements of; see `linker_sets`.
        undefined: the names that objects refer to and none defines, and perhaps others.
        references: names of the external symbols of each object.
    """
    bounds = {n for n in undefined if n in IMAGE_NAMES or n.startswith(_BEGINNINGS)}
    found = {n: SetUse(frozenset(names)) for n, names in elements.items()}
    if bounds:
        for number, names in enumerate(references):
            chosen = bounds.intersection(names)
            if chosen:
                sets = frozenset(name for name in map(set_name, chosen) if name is not None)
                is_image = any(not each.startswith((START, STOP)) for each in chosen)
                found[number] = found.get(number, NO_USE)._replace(bounds=sets, image=is_image)
    return found


def _is_set_name(name: str) -> bool:
    # Linkers make ``.bss`` of a section COMMON, of which ``ld.lld -r`` makes common symbols.
    return name.isascii() and name.isidentifier() and name != "COMMON"


def set_name(symbol_name: str) -> str | None:
    """Name of the linker set that an encapsulation symbol is a bound of; None for other names."""
    if symbol_name.startswith((START, STOP)):
        name = symbol_name.removeprefix(START if symbol_name.startswith(START) else STOP)
        return name if _is_set_name(name) else None
    return None


def is_of_one_image(name: str) -> bool:
    """Whether a name is a linker-defined symbol of each image, without meaning in another one."""
    return name in _ONE_IMAGE or name.startswith(_BEGINNINGS)


def export_set_bounds(graph: LinkGraph, symbol_names: Iterable[str]) -> None:
    """Define encapsulation symbols, referred to or not, for other graphs of the JITDylib.

    Args:
        graph: the graph, before pruning. It has elements of the sets, and no definitions of these
            names.
        symbol_names: the names.
    """
    rows, names = graph.external_names()
    external = dict(zip(names, rows.tolist(), strict=True))
    for each in symbol_names:
        name = set_name(each)
        bounds = None if name is None else find_bounds(graph, name)
        if bounds is None:
            continue
        block = bounds[0 if each.startswith(START) else 1]
        if each in external:
            symbol = Symbol(graph, external[each])
            graph.make_defined(symbol, block, 0, 0, Linkage.WEAK, Scope.HIDDEN)
        else:
            graph.add_defined_symbol(block, 0, each, 0, Linkage.WEAK, Scope.HIDDEN)


def element_symbol_name(name: str, serial: int) -> str:
    """Name of the element symbol of an object with that serial number."""
    return f"$.{name}{_MIDDLE}{serial}"


def add_element_symbols(graph: LinkGraph, names: Sequence[str]) -> None:
    """Define the element symbols of objects of a graph: for side effects only, at no address.

    Raises:
        GraphError: the graph has a symbol of one of these names that is not local.
    """
    if graph.strings.has_text(_MIDDLE):
        for name in names:
            check_unique(graph, SymbolKind.ABSOLUTE, name)
    graph.symbol_table.extend(
        len(names),
        kind=ABSOLUTE,
        name=graph.strings.add_many(names),
        block=NO_BLOCK,
        scope=int(Scope.SIDE_EFFECTS_ONLY),
    )


def keep_linked_blocks(graph: LinkGraph) -> None:
    """Keep blocks alive with those that they are linked to (pre-prune pass)."""
    if graph.linked_to:
        rows = np.array(list(graph.linked_to), np.int64)
        symbol = graph.symbol_table.extend(
            len(rows), name=NO_NAME, kind=DEFINED, block=rows, scope=Scope.LOCAL
        )
        graph.edge_table.extend(
            len(rows),
            block=np.array(list(graph.linked_to.values()), np.int64),
            kind=KEEP_ALIVE,
            target=np.arange(symbol, symbol + len(rows)),
        )


def define_section_start(graph: LinkGraph, symbol: Symbol, section_name: str) -> None:
    """Define a symbol at the start of a section, which the symbol then keeps alive."""
    _define_bound(graph, symbol, section_name, 0)


def define_section_stop(graph: LinkGraph, symbol: Symbol, section_name: str) -> None:
    """Define a symbol at the end of a section, which the symbol then keeps alive."""
    _define_bound(graph, symbol, section_name, 1)


def _define_bound(graph: LinkGraph, symbol: Symbol, section_name: str, side: int) -> None:
    bounds = find_bounds(graph, section_name) if _is_set_name(section_name) else None
    if bounds is not None:
        graph.make_defined(symbol, bounds[side], 0, 0, scope=Scope.LOCAL)


def find_bounds(graph: LinkGraph, section_name: str) -> tuple[Block, Block] | None:
    """Empty blocks at the start and at the end of a section; None if the graph has none.

    All sections of the name become one.
    """
    section = _output_section(graph, section_name)
    return None if section is None else make_bounds([section])


def make_bounds(sections: Sequence[Section]) -> tuple[Block, Block]:
    """Empty blocks at the start of the first and at the end of the last of consecutive sections."""
    graph, table = sections[0].graph, sections[0].graph.block_table
    found: list[Block] = []
    for section, origin in ((sections[0], _FIRST), (sections[-1], _LAST)):
        rows = section.block_rows()
        empty = rows[(table.origin[rows] == origin) & (table.size[rows] == 0)]
        found += [Block(graph, row) for row in empty[:1].tolist()]
    return (found[0], found[1]) if len(found) == 2 else _add_bounds(sections)


def _output_section(graph: LinkGraph, name: str) -> Section | None:
    """One section of all loaded sections of a name, whose blocks are then contiguous.

    Constant and writable elements of a set are in sections of different protection. As in an output
    section of a static linker, the access that any of them needs holds for all. What would be
    writable and executable at once stays apart.
    """
    sections = [graph.section_list[each] for each in graph.section_list.ordinals_named(name)]
    loaded = [s for s in sections if s.mem_lifetime != MemLifetime.NO_ALLOC and not s.empty]
    if not loaded:
        return None
    output, *others = loaded
    for other in others:
        mem_prot = output.mem_prot | other.mem_prot
        if mem_prot & MemProt.WRITE and mem_prot & MemProt.EXEC:
            continue
        graph.block_table.section[other.block_rows()] = output.ordinal
        output.mem_prot = mem_prot
    return output


def _add_bounds(sections: Sequence[Section]) -> tuple[Block, Block]:
    """Add an empty block at each end of consecutive sections.

    Each keeps the other alive, and all others that do not depend on another block.
    """
    graph, table = sections[0].graph, sections[0].graph.block_table
    rows = np.concatenate([section.block_rows() for section in sections])
    zero_fill = table.content[rows] == ZERO_FILL
    # The first block has the alignment of the section, so that no padding follows it.
    alignment = int(table.alignment[rows].max())
    first = _add_empty_block(sections[0], _FIRST, alignment, zero_fill=bool(zero_fill.all()))
    last = _add_empty_block(sections[-1], _LAST, 1, zero_fill=bool(zero_fill.any()))
    kept = [row for row in rows.tolist() if row not in graph.linked_to]
    targets = np.array([*kept, last.row], np.int64)
    symbol = graph.symbol_table.extend(
        len(targets), name=NO_NAME, kind=DEFINED, block=targets, scope=Scope.LOCAL
    )
    symbols = np.arange(symbol, symbol + len(targets))
    graph.edge_table.extend(len(targets), block=first.row, kind=KEEP_ALIVE, target=symbols)
    graph.add_edge(last, KEEP_ALIVE, 0, graph.add_anonymous_symbol(first, 0))
    return first, last


def _add_empty_block(section: Section, origin: int, alignment: int, *, zero_fill: bool) -> Block:
    graph = section.graph
    if zero_fill:
        block = graph.create_zero_fill_block(section, 0, 0, alignment)
    else:
        block = graph.create_content_block(section, b"", 0, alignment)
    graph.block_table.origin[block.row] = origin
    graph.block_table.flags[block.row] &= ~np.uint8(BlockFlags.LIVE)
    return block
