"""Initialisers and finalisers: sections that are arrays of pointers to functions.

``.preinit_array``, ``.init_array`` and ``.ctors`` list the functions to be called before a
program's own code, ``.fini_array`` and ``.dtors`` those to be called after it. Their order is that
of a static link with the default script of GNU ld: sections with a priority in their name come
first, in ascending order (``.ctors.N`` has priority 65535 - N) and then by name; those with another
suffix follow, by name, then those without a suffix; equal ones are in order of input. ``.ctors``
and ``.dtors`` are called from the last function to the first. Finalisers are called in reverse
order.

No symbol or edge refers to these sections, so they are marked live, and each object that has one
gets an initializer symbol, with scope side-effects-only: a lookup of the symbol links the object.

Code in ``.init`` is called before the arrays and code in ``.fini`` after them, both in order of
input; `jitlink.passes.init_fini` turns it into functions.

GNU ld compares a section without a priority by name with every other one, which is no order if
there are `.init_array.N`, `.ctors.N` and `.ctors.foo`, or `.init_array.9` and `.init_array.10x`;
here those without a priority come last.

Specification: System V gABI, chapter 4, "Special Sections"; GNU ld, SORT_BY_INIT_PRIORITY.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

import numpy as np

from jitlink.graph import (
    Block,
    BlockFlags,
    LinkGraph,
    MemLifetime,
    MemProt,
    Scope,
    Section,
    SymbolKind,
)
from jitlink.graph.columns import rows_where
from jitlink.graph.edges import KEEP_ALIVE
from jitlink.graph.link_graph import NO_BLOCK
from jitlink.graph.sections import NameBeginnings
from jitlink.graph.strings import NO_NAME
from jitlink.graph.symbols import check_unique
from jitlink.graph.tables import DEFINED
from jitlink.passes.init_fini import (
    FINI_CALLS,
    INIT_CALLS,
    init_fini_sections,
    rows_with_content,
)

INIT_SYMBOL_SECTION = "$__INITS"
_MIDDLE = ".__inits."


class ArrayKind(Enum):
    """When the functions of an array are called."""

    PREINIT = "before all initialisers, those of dependencies included"
    INIT = "before the code of the graph"
    FINI = "after the code of the graph"


class FunctionArray:
    """A block of pointers to functions.

    Attributes:
        kind: when the functions are called.
        order: sort key of arrays of one kind, in the order of a static link.
        start, end: the addresses that it spans.
        backwards: whether its last function is called first.
        has_priority: whether the name of its section has a suffix; such arrays come first.
    """

    __slots__ = ("backwards", "end", "has_priority", "kind", "order", "start")

    def __init__(
        self, section: _ArraySection, order: tuple[object, ...], start: int, end: int
    ) -> None:
        self.kind, self.order, self.start, self.end = section.kind, order, start, end
        self.backwards, self.has_priority = section.backwards, section.rank < _PLAIN


class _ArraySection(NamedTuple):
    """The properties of an array section, from its name.

    Attributes:
        kind: when its functions are called.
        rank: sort key of sections: a group, a priority, the name.
        backwards: whether its last function is called first.
    """

    kind: ArrayKind
    rank: tuple[int, int, str]
    backwards: bool


ARRAY_SECTIONS: Mapping[str, tuple[ArrayKind, bool]] = {
    ".preinit_array": (ArrayKind.PREINIT, False),
    ".init_array": (ArrayKind.INIT, False),
    ".ctors": (ArrayKind.INIT, True),
    ".fini_array": (ArrayKind.FINI, False),
    ".dtors": (ArrayKind.FINI, True),
    INIT_CALLS: (ArrayKind.INIT, False),
    FINI_CALLS: (ArrayKind.FINI, False),
}
"""What the names of sections of initialisers and finalisers begin with: when their functions are
called, and whether from the last one to the first."""
_BEGINNINGS = NameBeginnings(ARRAY_SECTIONS)
_CALLS_RANK = (-2, 0, "")
_BEFORE_NUMBERS, _NUMBERED, _AFTER_NUMBERS = -1, 0, 1
_PLAIN = (2, 0, "")
_LAST_PRIORITY = 65535
# A larger number in a name is no priority.
_INT_MAX = (1 << 31) - 1
_MAX_DIGITS = 10
_serials = itertools.count()


def next_serials(count: int) -> list[int]:
    """Serial numbers for `count` objects that are added now: they sort objects by input order."""
    return list(itertools.islice(_serials, count))


def _parse_name(name: str) -> _ArraySection | None:
    base = next(
        (each for each in ARRAY_SECTIONS if name == each or name.startswith(each + ".")), None
    )
    if base is None:
        return None
    kind, backwards = ARRAY_SECTIONS[base]
    if base in (INIT_CALLS, FINI_CALLS):
        return _ArraySection(kind, _CALLS_RANK, backwards)
    rank = _PLAIN if name == base else _rank(name, base, inverted=backwards)
    return _ArraySection(kind, rank, backwards)


def _rank(name: str, base: str, *, inverted: bool) -> tuple[int, int, str]:
    """The sort key of a section whose name has a suffix, as GNU ld's SORT_BY_INIT_PRIORITY.

    Args:
        name: its name.
        base: the name without the suffix.
        inverted: whether larger numbers come first.
    """
    suffix = name[len(base) + 1 :]
    if suffix.isascii() and suffix.isdigit() and len(suffix.lstrip("0")) <= _MAX_DIGITS:
        number = int(suffix[-_MAX_DIGITS:])
        priority = _LAST_PRIORITY - number if inverted else number
        if 0 <= priority <= _INT_MAX:
            return _NUMBERED, priority, name
    return (_AFTER_NUMBERS if suffix >= "0" else _BEFORE_NUMBERS), 0, name


def _array_sections(graph: LinkGraph) -> Iterator[tuple[Section, _ArraySection]]:
    sections = graph.section_list
    for ordinal in _BEGINNINGS.ordinals(sections):
        section = sections[ordinal]
        properties = _parse_name(section.name)
        if properties and section.mem_lifetime != MemLifetime.NO_ALLOC:
            yield section, properties


def _sections(graph: LinkGraph) -> Iterator[Section]:
    """All sections of initialisers and finalisers."""
    yield from (section for section, _ in _array_sections(graph))
    yield from init_fini_sections(graph)


def objects_with_arrays(graph: LinkGraph) -> set[int]:
    """Indices in ``graph.origins`` of the objects that have initialisers or finalisers."""
    origins = graph.block_table.origin
    found = [origins[rows_with_content(graph, section)] for section in _sections(graph)]
    return set(np.concatenate(found).tolist()) if found else set()


def initializer_symbol_name(name: str, serial: int) -> str:
    """Name of the initializer symbol of an object with that serial number."""
    return f"$.{name}{_MIDDLE}{serial}"


def add_initializer_symbols(graph: LinkGraph, names: Mapping[int, str]) -> None:
    """Define initializer symbols of objects, each at an empty block that keeps the arrays alive.

    Args:
        graph: the graph, before pruning.
        names: names of the symbols, by index of the object in ``graph.origins``.

    Raises:
        GraphError: the graph has a symbol of one of these names that is not local.
    """
    if not names:
        return
    if graph.strings.has_text(_MIDDLE):
        for name in names.values():
            check_unique(graph, SymbolKind.DEFINED, name)
    count, blocks, table = len(names), graph.block_table, graph.symbol_table
    section = graph.obtain_section(INIT_SYMBOL_SECTION, MemProt.READ)
    init_blocks = blocks.extend(
        count,
        section=section.ordinal,
        origin=list(names),
        content=graph.contents.add(b""),
        alignment=1,
    )
    table.extend(
        count,
        kind=DEFINED,
        name=graph.strings.add_many(names.values()),
        block=np.arange(init_blocks, init_blocks + count),
        scope=int(Scope.SIDE_EFFECTS_ONLY),
    )
    init_block_of = dict(zip(names, range(init_blocks, init_blocks + count), strict=True))
    found = [rows_with_content(graph, section) for section in _sections(graph)]
    arrays = np.concatenate(found) if found else np.empty(0, np.int64)
    kept = [init_block_of.get(origin, NO_BLOCK) for origin in blocks.origin[arrays].tolist()]
    keeper = np.array(kept, np.int64)
    arrays, keeper = arrays[keeper >= 0], keeper[keeper >= 0]
    target = table.extend(
        len(arrays), kind=DEFINED, name=NO_NAME, block=arrays, scope=int(Scope.LOCAL)
    )
    graph.edge_table.extend(
        len(arrays),
        kind=KEEP_ALIVE,
        block=keeper,
        target=np.arange(target, target + len(arrays)),
    )


def mark_arrays_live(graph: LinkGraph) -> bool:
    """Mark the blocks of initialisers and finalisers live.

    To be called before pruning, after `jitlink.passes.init_fini.lower_init_fini`.

    Returns:
        Whether the graph has any.
    """
    sections = list(_array_sections(graph))
    for section, _ in sections:
        graph.block_table.flags[rows_with_content(graph, section)] |= np.uint8(BlockFlags.LIVE)
    return bool(sections)


def ordered_arrays(graph: LinkGraph, kind: ArrayKind) -> tuple[list[Section], list[Block]]:
    """Place the arrays of one kind in the order of a static link, before pruning.

    Returns:
        The sections of the arrays, which are consecutive; and the blocks among them whose last
        function is called first. The lowered code of ``.init`` and ``.fini`` is left out.
    """
    found = [
        (properties, section)
        for section, properties in _array_sections(graph)
        if properties.kind is kind and properties.rank != _CALLS_RANK and not section.empty
    ]
    if not found:
        return [], []
    found.sort(key=lambda each: each[0].rank)
    prot = functools.reduce(operator.or_, (section.mem_prot for _, section in found))
    sections = graph.section_list
    first = len(sections)
    ordinals: dict[_ArraySection, int] = {}
    for properties, section in found:
        ordinal = ordinals.setdefault(properties, first + len(ordinals))
        if ordinal == len(sections):
            sections.extend([section.name], bytes([prot]), bytes([MemLifetime.STANDARD]))
        graph.block_table.section[section.block_rows()] = ordinal
    backwards = [ordinal for properties, ordinal in ordinals.items() if properties.backwards]
    return (
        [sections[ordinal] for ordinal in ordinals.values()],
        [block for ordinal in backwards for block in sections[ordinal].blocks],
    )


def function_arrays(graph: LinkGraph) -> list[FunctionArray]:
    """All initialisers and finalisers of a graph whose memory is allocated."""
    sections = list(_array_sections(graph))
    if not sections:
        return []
    serials, table = _serials_of(graph), graph.block_table
    found = []
    for section, properties in sections:
        for row in rows_with_content(graph, section).tolist():
            origin, start = int(table.origin[row]), int(table.address[row])
            if origin not in serials:
                serials[origin] = next(_serials)
            # Finalisers are called in reverse order, but .fini code in order of input.
            sign = -1 if section.name == FINI_CALLS else 1
            order = (properties.rank, sign * serials[origin], sign * row)
            end = start + int(table.size[row])
            found.append(FunctionArray(properties, order, start, end))
    return found


def _serials_of(graph: LinkGraph) -> dict[int, int]:
    """Serial numbers of the objects that have an initializer symbol, by index of the object."""
    table = graph.symbol_table
    rows = rows_where((table.kind == DEFINED) & (table.scope == int(Scope.SIDE_EFFECTS_ONLY)))
    origins = graph.block_table.origin[table.block[rows]].tolist()
    serials = {}
    for origin, name in zip(origins, graph.strings.get_many(table.name[rows]), strict=True):
        _, middle, serial = name.rpartition(_MIDDLE)
        if middle and serial.isdigit():
            serials[origin] = int(serial)
    return serials


def in_order(arrays: Iterable[FunctionArray], kind: ArrayKind) -> Sequence[FunctionArray]:
    """The arrays of one kind, in the order of a static link."""
    return sorted((each for each in arrays if each.kind is kind), key=lambda each: each.order)
