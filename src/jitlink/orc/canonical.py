"""Direct references out of reach: canonical PLT entries, copies, and code out of line.

Code compiled with -fno-pic, and -fPIE code for data, refers to other libraries' functions and
variables directly, in 32 bits. A static linker then defines them in the program: a function as its
PLT entry, which is the function's address everywhere (the *canonical* PLT entry), a variable as a
copy, which the dynamic linker fills and makes the variable of all libraries. Here the libraries are
running already, and keep using what is theirs:

- A function gets a canonical PLT entry in the JITDylib, once for all of its code. Whatever is
  linked into the JITDylib from then on sees that address, in 64 bits too, so that pointers to the
  function compare equal. Calls are one jump longer.
- Data that can no longer change is copied: what the library has in read-only memory, which after
  relocation are also virtual tables and type information. Copies are read-only, so that a write
  to one cannot go unnoticed.
- Any other variable would exist twice. Instructions that refer to it are executed out of line,
  with its address in 64 bits (`DirectAccess.out_of_line`). What that cannot be done for, such as
  an address in data, is an error.
- Only `stdin`, `stdout` and `stderr` are copied then: pointers that the C library sets once. The
  C standard does not let programs assign to them; code that does faults.

Entries and copies are symbols of the JITDylib, named ``function@plt`` and ``variable@copy``, which
live as long as it does. Code out of line belongs to the code that jumps to it.

Specification: System V psABI, AMD64 supplement, "Function Addresses" and R_X86_64_COPY.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple, NoReturn, Protocol
from weakref import WeakKeyDictionary

import numpy as np

from jitlink.errors import TargetOutOfRangeError
from jitlink.executor.control import LibrarySymbol
from jitlink.fixup_errors import fail
from jitlink.fixups import FixupTable
from jitlink.graph import Block, LinkGraph, MemLifetime, MemProt, Scope
from jitlink.graph.columns import ADDRESS_MASK, Int64Array, rows_where
from jitlink.graph.edges import INVALID
from jitlink.graph.link_graph import NO_ADDRESS_LIMIT
from jitlink.memory.reservation import REACH
from jitlink.orc.interface import (
    JITDylibLookupFlags,
    JITSymbolFlags,
    LookupKind,
    MaterializationUnit,
    ResourceTracker,
    SymbolState,
)
from jitlink.orc.lookup import look_up
from jitlink.orc.materialization import MaterializationResponsibility
from jitlink.passes.got_plt import GOT_SECTION, accepts, add_stub, stored_values
from jitlink.targets.base import DirectAccess, OutOfLine
from jitlink.targets.registry import target_of_graph, target_of_triple

if TYPE_CHECKING:
    from jitlink.orc.dylib import Definition, JITDylib

COPY_SECTION = "$__COPY"
OUT_OF_LINE_SECTION = "$__OUT_OF_LINE"
PLT_SUFFIX, COPY_SUFFIX = "@plt", "@copy"
STANDARD_STREAMS = frozenset({"stdin", "stdout", "stderr"})
"""Variables that no conforming program assigns to, and the C library sets once: C17, 7.21.1."""
_LARGEST_ALIGNMENT = 64
_numbers = itertools.count(1)


class EmittingLayer(Protocol):
    """A layer that links graphs for responsibilities."""

    async def emit(self, responsibility: MaterializationResponsibility, graph: LinkGraph) -> None:
        """Link a graph."""


class _Reference(NamedTuple):
    """A symbol that a graph refers to directly, and that is out of reach.

    Attributes:
        name: its name.
        address: its address.
        edges: rows of the edges that do not reach it (int64).
        definition: its definition.
    """

    name: str
    address: int
    edges: Int64Array
    definition: Definition


class _CanonicalNames:
    """The canonical PLT entries and copies of one JITDylib.

    Attributes:
        tracker: owns them.
        names: the name of each in the JITDylib, by the name and address that it stands for and
            the address limit of the code that uses it.
    """

    def __init__(self, dylib: JITDylib) -> None:
        self.tracker = dylib.create_resource_tracker()
        self.names: dict[tuple[str, int, int], str] = {}
        dylib.put_first(self.tracker)

    def add(self, reference: _Reference, limit: int, suffix: str) -> str:
        """Name one."""
        # A function of another JITDylib may have been removed and defined again.
        number = sum(name == reference.name for name, _, _ in self.names)
        name = reference.name + suffix + (f".{number}" if number else "")
        self.names[reference.name, reference.address, limit] = name
        return name


class CanonicalSymbols:
    """The canonical PLT entries and copies of the JITDylibs that a layer links into.

    Args:
        layer: links them.
    """

    def __init__(self, layer: EmittingLayer) -> None:
        self._layer = layer
        self._of_dylib: WeakKeyDictionary[JITDylib, _CanonicalNames] = WeakKeyDictionary()

    async def substitute(
        self,
        graph: LinkGraph,
        fixups: FixupTable,
        found: Mapping[str, Definition],
        addresses: dict[str, int],
        tracker: ResourceTracker,
    ) -> None:
        """Replace the addresses of external symbols by those of canonical PLT entries and copies.

        Args:
            graph: a graph that has its addresses.
            fixups: how its edges are applied.
            found: the definitions of its external symbols.
            addresses: the addresses of all of them, changed in place.
            tracker: the owner of its memory.

        Raises:
            TargetOutOfRangeError: a variable is out of reach.
        """
        dylib = tracker.dylib
        access = target_of_graph(graph).direct_access
        if access is None or not (graph.memory and found):
            return
        known = self._names(dylib)
        chosen: dict[str, str] = {}
        if known is not None:
            limit, names = graph.address_limit, known.names
            pairs = ((name, names.get((name, addresses.get(name, 0), limit))) for name in found)
            chosen = {name: own for name, own in pairs if own is not None}
        if not _are_near(graph, addresses):
            references = _out_of_reach(graph, fixups, access, found, addresses)
            new = [each for each in references if each.name not in chosen]
            if new:
                chosen |= await self._define(graph, access, tracker, new)
        if chosen:
            linked = await _linked(dylib, chosen.values())
            addresses |= {name: linked[own] for name, own in chosen.items()}

    def _names(self, dylib: JITDylib) -> _CanonicalNames | None:
        """The entries and copies of a JITDylib; None if it has none since it was cleared."""
        names = self._of_dylib.get(dylib)
        return None if names is None or names.tracker.is_defunct else names

    async def _define(
        self,
        graph: LinkGraph,
        access: DirectAccess,
        tracker: ResourceTracker,
        references: list[_Reference],
    ) -> dict[str, str]:
        """Define canonical symbols; returns their names, by the names that they stand for."""
        dylib = tracker.dylib
        executor = dylib.session.executor
        described = await executor.describe_addresses([each.address for each in references])
        substitutes: list[tuple[_Reference, int]] = []
        moved: list[tuple[_Reference, list[tuple[int, OutOfLine]]]] = []
        for reference, symbol in zip(references, described, strict=True):
            size = _size_of_copy(reference, symbol)
            code = None if size is not None else _out_of_line(graph, access, reference)
            if code is not None:
                moved.append((reference, code))
            elif size is not None:
                substitutes.append((reference, size))
            elif symbol is not None and _is_stream(graph, reference, symbol):
                substitutes.append((reference, symbol.size))
            else:
                _refuse(graph, access, reference, symbol, dylib)
        if moved:
            await self._move_out_of_line(graph, access, tracker, moved)
        # Nothing is awaited from here on: what is named is defined.
        names = self._names(dylib)
        if names is None:
            names = self._of_dylib[dylib] = _CanonicalNames(dylib)
        unit, chosen = _CanonicalUnit(self._layer, access, graph.address_limit), {}
        for reference, size in substitutes:
            key = reference.name, reference.address, graph.address_limit
            # Another link may have defined it while the executor was waited for.
            if key not in names.names:
                own = names.add(reference, key[2], COPY_SUFFIX if size else PLT_SUFFIX)
                unit.add(own, reference.address, size)
            chosen[reference.name] = names.names[key]
        if unit.symbols:
            dylib.add_unit(unit, names.tracker)
        return chosen

    async def _move_out_of_line(
        self,
        graph: LinkGraph,
        access: DirectAccess,
        tracker: ResourceTracker,
        moved: list[tuple[_Reference, list[tuple[int, OutOfLine]]]],
    ) -> None:
        """Link code for instructions, and replace these by jumps to it."""
        unit = _OutOfLineUnit(self._layer, access, graph.address_limit)
        places = []
        for reference, instructions in moved:
            for row, each in instructions:
                block = Block(graph, int(graph.edge_table.block[row]))
                pointed = (reference.address + each.addend) & ADDRESS_MASK
                places.append((row, each, block, unit.add(each, pointed, block.address)))
        tracker.dylib.add_unit(unit, tracker)
        base = (await _linked(tracker.dylib, [unit.name]))[unit.name]
        for row, each, block, offset in places:
            size = each.end - each.start
            distance = base + offset - (block.address + each.start + len(access.jump) + 4)
            jump = access.jump + distance.to_bytes(4, graph.endianness, signed=True)
            jump += access.filler * (size - len(jump))
            block.mutable_content()[each.start : each.end] = jump
            graph.edge_table.kind[row] = INVALID


async def _linked(dylib: JITDylib, names: Iterable[str]) -> dict[str, int]:
    """Addresses of symbols that were defined here, once they can be used."""
    order = [(dylib, JITDylibLookupFlags.MATCH_ALL_SYMBOLS)]
    wanted, state = dict.fromkeys(names, True), SymbolState.READY
    found = await look_up(dylib.session, order, wanted, state, LookupKind.STATIC)
    return {name: definition.addresses[name] for name, definition in found.items()}


class _CanonicalUnit(MaterializationUnit):
    """Defines canonical PLT entries and copies."""

    name = "<canonical PLT entries and copies>"
    is_generated = True

    def __init__(self, layer: EmittingLayer, access: DirectAccess, limit: int) -> None:
        self.symbols: dict[str, JITSymbolFlags] = {}
        self._layer = layer
        self._access = access
        self._address_limit = limit
        self._targets: dict[str, tuple[int, int]] = {}

    def add(self, name: str, address: int, size: int) -> None:
        """Add a copy of data of this size, or the canonical PLT entry of a function."""
        self.symbols[name] = JITSymbolFlags.NONE if size else JITSymbolFlags.CALLABLE
        self._targets[name] = address, size

    async def materialize(self, responsibility: MaterializationResponsibility) -> None:
        """Link stubs, with pointers to the functions, and the contents of the data."""
        executor = responsibility.session.executor
        graph = target_of_triple(executor.triple).new_graph(self.name)
        graph.address_limit = self._address_limit
        for name, (address, size) in self._targets.items():
            if size:
                section = graph.obtain_section(COPY_SECTION, MemProt.READ)
                content = await executor.read_memory(address, size)
                alignment = min(address & -address, _LARGEST_ALIGNMENT)
                block = graph.create_content_block(section, content, 0, alignment)
            else:
                got = graph.obtain_section(GOT_SECTION, MemProt.READ)
                block, pointer = add_stub(graph, got, self._access.got_plt)
                function = graph.add_absolute_symbol("", address, scope=Scope.LOCAL)
                pointer.block.add_edge(self._access.got_plt.pointer, 0, function)
            graph.add_defined_symbol(
                block, 0, name, block.size, scope=Scope.HIDDEN, is_callable=not size
            )
        await self._layer.emit(responsibility, graph)


class _OutOfLineUnit(MaterializationUnit):
    """Defines one symbol, at the beginning of code for instructions."""

    is_generated = True

    def __init__(self, layer: EmittingLayer, access: DirectAccess, limit: int) -> None:
        self.name = f"$out_of_line.{next(_numbers)}"
        self.symbols = {self.name: JITSymbolFlags.CALLABLE}
        self._layer = layer
        self._access = access
        self._address_limit = limit
        self._code = bytearray()
        self._distances: list[tuple[int, int]] = []
        self._pointers: dict[int, list[int]] = {}

    def add(self, code: OutOfLine, pointed: int, block: int) -> int:
        """Add code for an instruction of a block at an address; returns its offset."""
        offset = len(self._code)
        self._pointers.setdefault(pointed, []).append(offset + code.pointer)
        self._distances.append((offset + code.back, block + code.end))
        self._code += code.code
        return offset

    async def materialize(self, responsibility: MaterializationResponsibility) -> None:
        """Link the code, with a pointer for each address."""
        executor, spec = responsibility.session.executor, self._access.got_plt
        graph = target_of_triple(executor.triple).new_graph(self.name)
        graph.address_limit = self._address_limit
        code = graph.obtain_section(OUT_OF_LINE_SECTION, MemProt.READ | MemProt.EXEC)
        got = graph.obtain_section(GOT_SECTION, MemProt.READ)
        block = graph.create_content_block(code, bytes(self._code), 0, 16)
        for offset, address in self._distances:
            place = graph.add_absolute_symbol("", address, scope=Scope.LOCAL)
            block.add_edge(self._access.distance, offset, place)
        for address, offsets in self._pointers.items():
            slot = graph.create_content_block(got, spec.pointer_content, 0, spec.pointer_size)
            variable = graph.add_absolute_symbol("", address, scope=Scope.LOCAL)
            slot.add_edge(spec.pointer, 0, variable)
            pointer = graph.add_anonymous_symbol(slot, 0, spec.pointer_size)
            for offset in offsets:
                block.add_edge(self._access.distance, offset, pointer)
        graph.add_defined_symbol(
            block, 0, self.name, block.size, scope=Scope.HIDDEN, is_callable=True
        )
        await self._layer.emit(responsibility, graph)


def _are_near(graph: LinkGraph, addresses: Mapping[str, int]) -> bool:
    """Whether all code of a graph reaches addresses in 32 bits, however it refers to them."""
    low, high = min(addresses.values()), max(addresses.values())
    if graph.address_limit < NO_ADDRESS_LIMIT:
        return high < graph.address_limit
    start, end = graph.memory[0].start, graph.memory[0].end
    for each in graph.memory[1:]:
        start, end = min(start, each.start), max(end, each.end)
    return high - start < REACH and end - low < REACH


def _out_of_reach(
    graph: LinkGraph,
    fixups: FixupTable,
    access: DirectAccess,
    found: Mapping[str, Definition],
    addresses: Mapping[str, int],
) -> Iterator[_Reference]:
    """The external symbols that some edges of a graph do not reach."""
    edges, symbols = graph.edge_table, graph.symbol_table
    externals, names = graph.external_names()
    address = np.zeros(symbols.rows, np.uint64)
    address[externals] = np.array([addresses.get(name, 0) for name in names], np.uint64)
    loaded = graph.section_lifetimes() != MemLifetime.NO_ALLOC
    missed = []
    for kind in access.kinds:
        rows = rows_where(edges.kind == kind)
        target = address[edges.target[rows]].view(np.int64)
        # A weak reference to nothing is null, and only out of reach if it is used.
        chosen = (target != 0) & loaded[graph.block_table.section[edges.block[rows]]]
        rows, target = rows[chosen], target[chosen]
        missed.append(rows[~accepts(graph, fixups.by_kind[kind], rows, target)])
    rows = np.concatenate(missed)
    targets, name_of = edges.target[rows], dict(zip(externals.tolist(), names, strict=True))
    for target in dict.fromkeys(targets.tolist()):
        name = name_of[target]
        yield _Reference(name, int(address[target]), rows[targets == target], found[name])


def _size_of_copy(reference: _Reference, symbol: LibrarySymbol | None) -> int | None:
    """The size of a copy of data, in bytes; 0 for a function, None if a copy is not as good."""
    is_function = symbol is not None and symbol.is_function
    if is_function or reference.definition.flags[reference.name] & JITSymbolFlags.CALLABLE:
        return 0
    return symbol.size or None if symbol is not None and symbol.is_constant else None


def _is_stream(graph: LinkGraph, reference: _Reference, symbol: LibrarySymbol) -> bool:
    """Whether data is a pointer to a standard stream."""
    return reference.name in STANDARD_STREAMS and symbol.size == graph.pointer_size


def _out_of_line(
    graph: LinkGraph, access: DirectAccess, reference: _Reference
) -> list[tuple[int, OutOfLine]] | None:
    """Code for all instructions that refer to a variable, by the rows of their edges."""
    found = [(row, access.out_of_line(graph, row)) for row in reference.edges.tolist()]
    code = [(row, each) for row, each in found if each is not None]
    return code if len(code) == len(found) else None


def _refuse(
    graph: LinkGraph,
    access: DirectAccess,
    reference: _Reference,
    symbol: LibrarySymbol | None,
    dylib: JITDylib,
) -> NoReturn:
    """Raise an error about references to data that nothing can be done for."""
    edges = [row for row in reference.edges.tolist() if access.out_of_line(graph, row) is None]
    rows = np.array(edges)
    fixup = target_of_graph(graph).fixups.by_kind[int(graph.edge_table.kind[rows[0]])]
    address = np.array([reference.address], np.uint64).view(np.int64)
    low, high = fixup.limits
    home, flags = reference.definition.dylib, reference.definition.flags[reference.name]
    if not flags & JITSymbolFlags.ABSOLUTE:
        reason = "is data that was linked before"
        if home is not dylib:
            reason = (
                f"is data of JITDylib {home.name}: link that below 2 GiB, with "
                "address_limit=1 << 31, or compile with -fPIC"
            )
    elif symbol is None:
        reason = "is at an address of which nothing is known: compile with -fPIC"
    else:
        reason = (
            f"is a variable of {symbol.library}, of which a copy would be a second one: "
            "compile with -fPIC, or link an archive of that library"
        )
    fail(
        graph,
        rows,
        f"at {reference.address:#x} is out of range, and {reason}",
        TargetOutOfRangeError,
        int(stored_values(graph, fixup, rows[:1], address)[0]),
        low=low,
        high=high,
        target_address=reference.address,
    )
