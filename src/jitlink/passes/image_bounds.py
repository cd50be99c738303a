"""Bounds of a program's image: linker-defined symbols such as ``_end`` and `__init_array_start`.

A graph counts as a program here: the bounds are those of its own segments. `ImageBounds.define`
defines the names that the graph refers to and that nothing else defines, and
`ImageBounds.place` gives them addresses once the graph's memory is allocated. Names without a
leading underscore, such as ``end``, are in the namespace of programs, whose definitions take
precedence.

- ``etext`` is the end of code, ``edata`` that of data with content, ``end`` that of all data,
  `__bss_start` the start of zero-fill data, `__data_start` the start of data, `__executable_start`
  that of code. Code, data and constants may be far apart, in any order: ``end`` is not the end of
  the image.
- `__init_array_start` and its kin span the pointers of `.init_array` and its kin, in the order in
  which they are called.
- `.startof.X` and `.sizeof.X` are the address and the size of the sections of name X.

Names of the image have no meaning in other images: `is_of_one_image`, beside the names, says which
ones a search of other libraries must leave out.

Specification: GNU ld manual, "PROVIDE", and the default linker script (``ld --verbose``); GNU as
manual, "Section". System V gABI, chapter 5, "Dynamic Section", for ``_DYNAMIC``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from jitlink.errors import UnsupportedObjectError
from jitlink.graph import Block, BlockFlags, LinkGraph, MemLifetime, MemProt, Scope, Symbol
from jitlink.graph.columns import BoolArray, UInt64Array
from jitlink.graph.contents import ZERO_FILL
from jitlink.passes.initializers import ArrayKind, ordered_arrays
from jitlink.passes.linker_defined import (
    HEADER_NAMES,
    IMAGE_NAMES,
    NO_OBJECT,
    SIZE_OF,
    START_OF,
    Definer,
    find_bounds,
    make_bounds,
    synthesize_symbols,
)

_SECTION = "$__IMAGE_BOUNDS"
_SECTION_BOUNDS = (START_OF, SIZE_OF)


class _Extents:
    """Addresses of the loaded blocks of an allocated graph, as columns."""

    def __init__(self, graph: LinkGraph) -> None:
        blocks, rows = graph.block_table, graph.block_rows()
        sections = graph.section_list
        section = blocks.section[rows]
        loaded = graph.section_lifetimes()[section] == int(MemLifetime.STANDARD)
        loaded &= blocks.flags[rows] & int(BlockFlags.THREAD_LOCAL) == 0
        loaded &= blocks.size[rows] > 0
        rows, section = rows[loaded], section[loaded]
        prots = sections.prots()[section]
        self.start: UInt64Array = blocks.address[rows]
        self.end: UInt64Array = self.start + blocks.size[rows].astype(np.uint64)
        self.is_code: BoolArray = prots & int(MemProt.EXEC) != 0
        self.is_data: BoolArray = prots & int(MemProt.WRITE) != 0
        self.is_zero: BoolArray = self.is_data & (blocks.content[rows] == ZERO_FILL)

    def end_of(self, chosen: BoolArray) -> int:
        """The highest end of the chosen blocks; of all blocks if none is chosen; 0 without any."""
        ends = self.end[chosen] if chosen.any() else self.end
        return int(ends.max()) if len(ends) else 0

    def start_of_zeros(self) -> int:
        """Address of the first zero-fill block; the end of data if there is none."""
        if self.is_zero.any():
            return int(self.start[self.is_zero].min())
        return self.end_of(self.is_data)

    def start_of_data(self) -> int:
        """Address of the first block of data; the end of everything if there is none."""
        return (
            int(self.start[self.is_data].min()) if self.is_data.any() else self.end_of(self.is_data)
        )


_ENDS: Mapping[str, Callable[[_Extents], int]] = {
    "etext": lambda extents: extents.end_of(extents.is_code),
    "edata": lambda extents: extents.end_of(extents.is_data & ~extents.is_zero),
    "end": lambda extents: extents.end_of(extents.is_data),
    "bss_start": _Extents.start_of_zeros,
    "data_start": _Extents.start_of_data,
}
"""Addresses by name, without leading underscores."""


class ImageBounds:
    """The bounds of the image that one graph is.

    Args:
        add_header: adds a block with the header of an image to a graph.
    """

    def __init__(self, add_header: Callable[[LinkGraph], Block]) -> None:
        self._add_header = add_header
        self._header: Block | None = None
        self._anchors: dict[str, Block] = {}
        self._sizes: list[tuple[Symbol, tuple[Block, Block]]] = []

    def define(self, graph: LinkGraph) -> None:
        """Define the symbols that the graph refers to (pre-prune pass)."""
        names = graph.external_names()[1]
        if IMAGE_NAMES.isdisjoint(names) and not any(n.startswith(_SECTION_BOUNDS) for n in names):
            return
        synthesize_symbols(
            graph,
            {name: self._definer(name) for name in IMAGE_NAMES},
            {START_OF: self._define_start, SIZE_OF: self._define_size},
        )

    def _definer(self, name: str) -> Definer:
        if name in HEADER_NAMES:
            return self._define_header
        return self._define_array_bound if "_array_" in name else self._define_anchor

    def place(self, graph: LinkGraph) -> None:
        """Set the addresses and sizes (post-allocation pass)."""
        if self._anchors:
            extents = _Extents(graph)
            for name, block in self._anchors.items():
                graph.block_table.address[block.row] = _ENDS[name](extents)
        for symbol, (first, last) in self._sizes:
            graph.symbol_table.value[symbol.row] = last.address - first.address

    def _define_anchor(self, graph: LinkGraph, symbol: Symbol, name: str) -> None:
        key = name.lstrip("_")
        if key not in self._anchors:
            self._anchors[key] = _empty_block(graph)
        _make_local(graph, symbol, self._anchors[key])

    def _define_header(self, graph: LinkGraph, symbol: Symbol, _name: str) -> None:
        if self._header is None:
            self._header = self._add_header(graph)
        _make_local(graph, symbol, self._header)

    def _define_array_bound(self, graph: LinkGraph, symbol: Symbol, name: str) -> None:
        kind, _, side = name.lstrip("_").partition("_array_")
        sections, backwards = ordered_arrays(graph, ArrayKind[kind.upper()])
        if backwards:
            raise UnsupportedObjectError(
                f"section {backwards[0].section.name} is called backwards, so that {name}, which "
                "the program refers to, cannot be a bound of it; use .init_array and .fini_array",
                file=graph.origin_name(backwards[0].row),
            )
        bounds = make_bounds(sections) if sections else (_empty_block(graph),) * 2
        _make_local(graph, symbol, bounds[0 if side == "start" else 1])

    def _define_start(self, graph: LinkGraph, symbol: Symbol, section: str) -> None:
        bounds = find_bounds(graph, section)
        if bounds is not None:
            _make_local(graph, symbol, bounds[0])

    def _define_size(self, graph: LinkGraph, symbol: Symbol, section: str) -> None:
        bounds = find_bounds(graph, section)
        if bounds is not None:
            graph.make_absolute(symbol, 0)
            self._sizes.append((symbol, bounds))


def _empty_block(graph: LinkGraph) -> Block:
    block = graph.create_content_block(graph.obtain_section(_SECTION, MemProt.READ), b"", 0, 1)
    graph.block_table.origin[block.row] = NO_OBJECT
    return block


def _make_local(graph: LinkGraph, symbol: Symbol, block: Block) -> None:
    graph.make_defined(symbol, block, 0, 0, scope=Scope.LOCAL)
