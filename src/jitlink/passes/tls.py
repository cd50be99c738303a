"""Thread-local variables of a graph: their storage, their entries, and who may refer to them.

Code that finds a variable through a table gets entries there, one per variable and kind of
access. What an entry holds is known to the executor's C library, which is asked for it when the
graph's addresses are known; see `jitlink.memory.tls`. The blocks of the initial image
take no memory of their own in the executor: their content goes into the link's template.

The steps of a link are `plan_tls` after the post-prune passes, `place` when memory
has been allocated, and `load` before fixups are applied.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from jitlink.errors import TLSError
from jitlink.fixups import FixupTable, fail
from jitlink.graph import Block, BlockFlags, LinkGraph, MemLifetime, MemProt
from jitlink.graph.columns import ADDRESS_MASK, BoolArray, Int64Array, rows_where
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.edges import FIRST_RELOCATION, INVALID, KEEP_ALIVE, EdgeKind
from jitlink.graph.tables import ABSOLUTE, DEFINED, EXTERNAL
from jitlink.memory.layout import copy_contents, place
from jitlink.memory.manager import InFlightAlloc
from jitlink.memory.tls import (
    FIRST_ADDRESS,
    LAST_ADDRESS,
    TLSRegistry,
    TLSValue,
    WriteTLSModule,
)
from jitlink.passes.got_plt import TLS_INFO_SECTION, add_equal_blocks
from jitlink.passes.tls_variables import OWN_TLS_BLOCK, TLSVariables

BASE_SYMBOL = "_TLS_MODULE_BASE_"
"""The start of the storage, for code that computes offsets from there."""
_NO_ALLOC = int(MemLifetime.NO_ALLOC)
_THREAD_LOCAL = int(BlockFlags.THREAD_LOCAL)
_NOT_ORDINARY = "takes a thread-local variable for an ordinary one"
_NOT_THREAD_LOCAL = "takes the target for a thread-local variable, which it is not"


class TLSEntryKind(NamedTuple):
    """What an edge kind asks for.

    Attributes:
        values: what the entry holds, one behind the other.
        becomes: the edge kind that then refers to the entry.
        of_block: whether the entry is about the graph's storage, whatever variable is meant.
    """

    values: tuple[TLSValue, ...]
    becomes: EdgeKind
    of_block: bool = False

    @property
    def size(self) -> int:
        """Size of the entry in bytes."""
        return sum(value.size for value in self.values)


class TLSEdgeKinds:
    """How an architecture's code accesses thread-local variables.

    Args:
        entries: edge kinds that ask for an entry.
        tp_offsets: edge kinds whose value is an offset from the thread pointer.
        dtp_offsets: edge kinds whose value is an offset from the start of the storage.
        modules: edge kinds whose value is the number of the graph's module.
        write: writes a template.
        endianness: byte order of entries.
    """

    def __init__(
        self,
        entries: Mapping[EdgeKind, TLSEntryKind],
        tp_offsets: frozenset[EdgeKind],
        dtp_offsets: frozenset[EdgeKind],
        modules: frozenset[EdgeKind],
        write: WriteTLSModule,
        endianness: Literal["little", "big"] = "little",
    ) -> None:
        self.entries = entries
        self.tp_offsets, self.dtp_offsets = tp_offsets, dtp_offsets
        self.modules = modules
        self.write = write
        self.endianness: Literal["little", "big"] = endianness

    @cached_property
    def mask(self) -> BoolArray:
        """Whether edges of a kind are about thread-local variables (bool, one per kind)."""
        kinds = [*self.entries, *self.tp_offsets, *self.dtp_offsets, *self.modules]
        mask = np.zeros(int(max(type(kinds[0]))) + 1, np.bool_)
        mask[[int(kind) for kind in kinds]] = True
        return mask


class _Entry(NamedTuple):
    block: int
    target: int
    kind: TLSEntryKind


def plan_tls(graph: LinkGraph, kinds: TLSEdgeKinds | None, fixups: FixupTable) -> TLSPlan | None:
    """Find out what a pruned graph needs, and make the entries.

    Returns:
        The further steps, or None if the graph has nothing to do with thread-local variables.

    Raises:
        FixupError: an edge is about a thread-local variable and its target is none, or the
            other way round.
    """
    if kinds is None:
        return None
    image = _tls_blocks(graph)
    accesses = rows_where(kinds.mask[graph.edge_table.kind])
    if not len(accesses) and not np.count_nonzero(image):
        return None
    return TLSPlan(graph, kinds, fixups, rows_where(image), accesses)


class TLSPlan:
    """What one link does about thread-local variables.

    Attributes:
        later: rows (int64) of the edges whose fixups are to be applied once `load` is through.
    """

    def __init__(
        self,
        graph: LinkGraph,
        kinds: TLSEdgeKinds,
        fixups: FixupTable,
        image: Int64Array,
        accesses: Int64Array,
    ) -> None:
        self.graph = graph
        self.kinds = kinds
        self.fixups = fixups
        self.later = np.empty(0, np.int64)
        self._check_ordinary()
        self._accesses = self._check_accesses(accesses)
        self._place_base_symbol = graph.find_external_symbol_by_name(BASE_SYMBOL)
        # What the code asks for; entries' edges turn into other kinds.
        self._static_accesses = self._find_static_accesses()
        self._direct = self._accesses[self._is_of(kinds.tp_offsets | kinds.dtp_offsets)]
        self._has_storage = len(image) > 0 or self._place_base_symbol is not None
        self._has_storage |= bool(self._is_of(kinds.dtp_offsets | kinds.modules).any())
        self._entries: list[_Entry] = []
        self._create_entries()
        self._lay_out(image)

    # Checks

    @property
    def _image(self) -> BoolArray:
        """Which blocks are of the initial image (bool, one per block row)."""
        return _tls_blocks(self.graph)

    def _is_local(self, rows: Int64Array) -> BoolArray:
        """Whether targets of edges are thread-local variables of the graph."""
        symbols, target = self.graph.symbol_table, self.graph.edge_table.target[rows]
        result: BoolArray = symbols.kind[target] == DEFINED
        result[result] = self._image[symbols.block[target[result]]]
        return result

    def _check_ordinary(self) -> None:
        """Refuse edges that take a thread-local variable for an ordinary one."""
        if not self._image.any():
            return
        edges = self.graph.edge_table
        rows = rows_where((edges.kind >= FIRST_RELOCATION) & ~self.kinds.mask[edges.kind])
        rows = rows[self._is_local(rows)]
        rows = rows[_loaded(self.graph, rows)]
        rows = rows[_uses_address(self.graph, self.fixups, rows)]
        if len(rows):
            fail(self.graph, rows, _NOT_ORDINARY)

    def _check_accesses(self, rows: Int64Array) -> Int64Array:
        """Refuse accesses to what is not thread-local; the rows of those of loaded blocks.

        Debug information may say where a variable of the graph is in its storage.
        """
        edges = self.graph.edge_table
        loaded = _loaded(self.graph, rows)
        debug = rows[~loaded]
        if len(debug):
            kept = np.isin(edges.kind[debug], [int(kind) for kind in self.kinds.dtp_offsets])
            kept &= self._is_local(debug)
            edges.kind[debug[~kept]] = INVALID
        rows = rows[loaded]
        wrong = rows[~_of_others(self.graph)[edges.target[rows]] & ~self._is_local(rows)]
        if len(wrong):
            fail(self.graph, wrong, _NOT_THREAD_LOCAL)
        return rows

    def _is_of(self, kinds: Iterable[EdgeKind]) -> BoolArray:
        """Whether accesses are of some kinds."""
        return np.isin(self.graph.edge_table.kind[self._accesses], [int(kind) for kind in kinds])

    def _find_static_accesses(self) -> BoolArray:
        """Which accesses make static room for the graph's own storage necessary."""
        kinds, local = self.kinds, self._is_local(self._accesses)
        entries = [kind for kind, entry in kinds.entries.items() if TLSValue.TPOFF in entry.values]
        offsets = self._is_of([*entries, *kinds.tp_offsets])
        self._static_names = self._names_of_others(self._accesses[~local & offsets])
        wanted = local & offsets
        # Storage of others is at a fixed distance only if both are in static room.
        wanted |= ~local & self._is_of(kinds.dtp_offsets)
        return wanted

    def _names_of_others(self, rows: Int64Array) -> list[str]:
        """Names of the external targets of edges."""
        symbols = self.graph.symbol_table
        targets = np.unique(self.graph.edge_table.target[rows])
        targets = targets[symbols.kind[targets] == EXTERNAL]
        return self.graph.strings.get_many(symbols.name[targets])

    # After pruning

    def _create_entries(self) -> None:
        edges = self.graph.edge_table
        for kind, entry in self.kinds.entries.items():
            rows = self._accesses[edges.kind[self._accesses] == kind]
            if not len(rows):
                continue
            if entry.of_block:
                self._has_storage = True
                ((_, symbol),) = self._add_entries(entry, [OWN_TLS_BLOCK])
                edges.target[rows] = symbol
            else:
                wanted = np.zeros(self.graph.symbol_table.rows, np.bool_)
                wanted[edges.target[rows]] = True
                entry_of = np.zeros(len(wanted), np.int64)
                created = self._add_entries(entry, rows_where(wanted).tolist())
                for target, symbol in created:
                    entry_of[target] = symbol
                edges.target[rows] = entry_of[edges.target[rows]]
            edges.kind[rows] = int(entry.becomes)

    def _add_entries(self, entry: TLSEntryKind, targets: list[int]) -> list[tuple[int, int]]:
        """Add an entry for each target; the target and the entry's symbol row of each."""
        graph = self.graph
        section = graph.obtain_section(TLS_INFO_SECTION, MemProt.READ)
        blocks, symbols = add_equal_blocks(graph, section, len(targets), bytes(entry.size), 8, 0)
        for block, target in zip(blocks.tolist(), targets, strict=True):
            self._entries.append(_Entry(block, target, entry))
            if target != OWN_TLS_BLOCK:
                # So that it can still be seen which symbols the code needs.
                graph.edge_table.extend(1, block=block, kind=KEEP_ALIVE, target=target)
        return list(zip(targets, symbols.tolist(), strict=True))

    def _lay_out(self, rows: Int64Array) -> None:
        """Order the blocks of the initial image, those with content first, and place them."""
        table = self.graph.block_table
        zero = table.content[rows] == ZERO_FILL
        order = np.lexsort((table.address[rows], table.origin[rows], table.section[rows], zero))
        self._rows = rows[order]
        sizes, alignments = table.size[self._rows], table.alignment[self._rows]
        self._offsets, self._size, self._content_size, self._alignment = self._rows, 1, 0, 1
        if len(rows):
            group = np.zeros(len(rows), np.int64)
            offsets = place(group, sizes, alignments, table.alignment_offset[self._rows])
            ends = offsets + sizes
            self._offsets, self._alignment = offsets, int(alignments.max())
            self._size = max(int(ends.max()), 1)
            self._content_size = int(ends[~zero[order]].max(initial=0))
        self._take_out_of_memory()

    def _take_out_of_memory(self) -> None:
        """Make the sections of the initial image NO_ALLOC; what else is in them stays."""
        graph, table = self.graph, self.graph.block_table
        present = table.flags & int(BlockFlags.REMOVED) == 0
        for ordinal in set(table.section[self._rows].tolist()):
            section = graph.section_list[ordinal]
            if (present & ~self._image & (table.section == ordinal)).any():
                other = graph.obtain_section(section.name, section.mem_prot, MemLifetime.NO_ALLOC)
                mine = self._rows[table.section[self._rows] == ordinal]
                table.section[mine] = other.ordinal
            else:
                section.mem_lifetime = MemLifetime.NO_ALLOC

    # After allocation

    def place(self, storage: TLSRegistry | None, alloc: InFlightAlloc) -> None:
        """Give the variables their addresses, and say which of libraries need static room.

        Args:
            storage: the executor's thread-local storage.
            alloc: what is to hold on to the link's.

        Raises:
            TLSError: there is none in this executor, or not so much.
        """
        if storage is None:
            error = TLSError("the memory has no thread-local storage")
            self._locate(error)
            raise error
        self._storage = storage
        self._lease = storage.new_lease()
        alloc.hold(self._lease)
        self._lease.want_static_tls(self._static_names, self.kinds.write)
        if not self._has_storage:
            return
        try:
            block = self._lease.reserve(self._size, self._alignment)
        except TLSError as error:
            self._locate(error)
            raise
        address = np.uint64(block.address)
        self.graph.block_table.address[self._rows] = self._offsets.view(np.uint64) + address
        if self._place_base_symbol is not None:
            self.graph.make_absolute(self._place_base_symbol, block.address)

    # Before fixups

    def _gather_image(self) -> bytearray:
        """One buffer of all contents of the initial image, which the blocks then refer to."""
        graph, table, rows = self.graph, self.graph.block_table, self._rows
        image = bytearray(self._content_size)
        filled = table.content[rows] != ZERO_FILL
        rows, offsets = rows[filled], self._offsets[filled]
        if len(rows):
            copy_contents(graph, table.content[rows], table.size[rows], memoryview(image), offsets)
            table.content[rows] = graph.contents.add(image) + offsets
        return image

    async def load(self, got_address: int | None) -> dict[str, int]:
        """Load the storage, and fill the entries.

        The fixups of the initial image itself are applied.

        Args:
            got_address: as for `FixupTable.apply`.

        Returns:
            What `FixupTable.apply` wants as ``tls_bases``.

        Raises:
            TLSError: the storage, or a variable of others, cannot be had.
            FixupError: the initial image depends on where threads have their storage, or
                an ordinary access is to a thread-local variable of others.
        """
        self._lease.want_static_tls((), self.kinds.write)
        edges = self.graph.edge_table
        inside = self._image[edges.block]
        self.later = rows_where(~inside)
        image, bases = self._gather_image(), {}
        if self._lease.block is not None:
            bases["DTP"] = self._lease.block.address
        self.fixups.apply(
            self.graph, got_address=got_address, tls_bases=bases, rows=rows_where(inside)
        )
        try:
            await self._load(image)
        except TLSError as error:
            self._locate(error)
            raise
        return bases | self._bases()

    def _bases(self) -> dict[str, int]:
        block = self._lease.block
        if block is None:
            # Only variables of others are accessed, whose addends make up for it.
            return {"TP": 0}
        offset = block.address if block.tp_offset is None else block.tp_offset
        return {"MODULE": block.module, "TP": (block.address - offset) & ADDRESS_MASK}

    def _locate(self, error: TLSError) -> None:
        """Make an error say where the storage is wanted."""
        error.locate(self.graph.name, self._objects())

    def _objects(self) -> list[str]:
        """Display names of the objects whose code wants static room, or else have storage."""
        graph, edges = self.graph, self.graph.edge_table
        blocks = edges.block[self._accesses[self._static_accesses]]
        if not len(blocks):
            blocks = self._rows if len(self._rows) else edges.block[self._accesses]
        origins = sorted(set(graph.block_table.origin[blocks].tolist()))
        return [graph.origins[each] for each in origins if 0 <= each < len(graph.origins)]

    def _is_outside(self, rows: Int64Array) -> BoolArray:
        """Whether targets of edges are not in the link's own storage."""
        edges, block = self.graph.edge_table, self._lease.block
        address = self.graph.symbol_addresses()[edges.target[rows]]
        if block is None:
            return np.ones(len(rows), np.bool_)
        start, end = np.uint64(block.address), np.uint64(block.address + block.size)
        result: BoolArray = (address < start) | (address > end)
        return result

    async def _load(self, image: bytearray) -> None:
        graph = self.graph
        edges = graph.edge_table
        outside = self._direct[self._is_outside(self._direct)]
        wanted = [(value, each.target) for each in self._entries for value in each.kind.values]
        wanted += [(TLSValue.TPOFF, each) for each in edges.target[outside].tolist()]
        variables = TLSVariables(graph, self._storage, self._lease, self.kinds.write)
        await variables.request(wanted, image, room=bool(self._static_accesses.any()))
        for entry in self._entries:
            words = [w for v in entry.kind.values for w in variables.words(v, entry.target)]
            content = b"".join(word.to_bytes(8, self.kinds.endianness) for word in words)
            Block(graph, entry.block).already_mutable_content[:] = content
        # The addend makes up for another distance between the address and the variable.
        if len(outside):
            thread_pointer = self._bases()["TP"]
            addresses = graph.symbol_addresses()
            for row in outside.tolist():
                target = int(edges.target[row])
                offset = variables.words(TLSValue.TPOFF, target)[0]
                distance = thread_pointer + offset - int(addresses[target])
                edges.addend[row] = _signed(int(edges.addend[row]) + distance)


def _signed(value: int) -> int:
    """A number modulo 2**64, as a signed one."""
    value &= ADDRESS_MASK
    return value - (1 << 64) if value >> 63 else value


def check_tls_addresses(graph: LinkGraph, kinds: TLSEdgeKinds | None, fixups: FixupTable) -> None:
    """Refuse ordinary access to thread-local variables of other links.

    Args:
        graph: with all externals resolved.
        kinds: how the architecture's code accesses thread-local variables.
        fixups: the architecture's fixups.

    Raises:
        FixupError: there is such access.
    """
    edges, wrong = graph.edge_table, _has_thread_address(graph)
    if kinds is None or not np.count_nonzero(wrong):
        return
    access = rows_where(wrong[edges.target] & (edges.kind >= FIRST_RELOCATION))
    access = access[~kinds.mask[edges.kind[access]]]
    access = access[_loaded(graph, access) & _uses_address(graph, fixups, access)]
    if len(access):
        fail(graph, access, _NOT_ORDINARY)


def _has_thread_address(graph: LinkGraph) -> BoolArray:
    """Which external and absolute symbols stand for thread-local variables of other links."""
    symbols = graph.symbol_table
    size = np.uint64(LAST_ADDRESS - FIRST_ADDRESS)
    result: BoolArray = symbols.value - np.uint64(FIRST_ADDRESS) < size
    result &= (symbols.kind == EXTERNAL) | (symbols.kind == ABSOLUTE)
    return result


def _of_others(graph: LinkGraph) -> BoolArray:
    """Which symbols may be thread-local variables of others, as far as is known before look-up."""
    result: BoolArray = (graph.symbol_table.kind == EXTERNAL) | _has_thread_address(graph)
    return result


def _tls_blocks(graph: LinkGraph) -> BoolArray:
    """Which blocks are of the initial image (bool, one per block row)."""
    flags = graph.block_table.flags
    result: BoolArray = flags & (_THREAD_LOCAL | int(BlockFlags.REMOVED)) == _THREAD_LOCAL
    return result


def _loaded(graph: LinkGraph, rows: Int64Array) -> BoolArray:
    """Whether edges are in blocks that are loaded."""
    loaded = graph.section_lifetimes() != _NO_ALLOC
    result: BoolArray = loaded[graph.block_table.section[graph.edge_table.block[rows]]]
    return result


def _uses_address(graph: LinkGraph, fixups: FixupTable, rows: Int64Array) -> BoolArray:
    """Whether edges are of kinds whose value has to do with the target's address."""
    unconcerned = [
        kind for kind, row in fixups.by_kind.items() if row.expression and "S" not in row.letters
    ]
    result: BoolArray = ~np.isin(graph.edge_table.kind[rows], unconcerned)
    return result
