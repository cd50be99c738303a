"""Thread-local variables of a graph: their TLS block, their GOT entries, and accesses to them.

Code of the general dynamic, local dynamic and initial exec models, and code that uses TLS
descriptors, finds a variable through a GOT entry; each symbol gets one per kind. What an entry
holds is decided by the executor's C library when it loads the link's TLS module; see
`jitlink.memory.tls`. The blocks of the initialisation image take no memory in the executor: their
content becomes the image of the TLS module.

`plan_tls` makes the fixup plan of a graph. A graph without thread-local variables gets one that
only checks its external symbols.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import NamedTuple

import numpy as np

from jitlink.errors import TLSError
from jitlink.fixup_errors import fail
from jitlink.fixups import FixupTable
from jitlink.graph import Block, BlockFlags, LinkGraph, MemLifetime, MemProt
from jitlink.graph.columns import ADDRESS_MASK, BoolArray, Int64Array, rows_where
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.edges import FIRST_RELOCATION, INVALID, KEEP_ALIVE, EdgeKind
from jitlink.graph.tables import ABSOLUTE, DEFINED, EXTERNAL
from jitlink.memory.copying import copy_contents
from jitlink.memory.layout import place
from jitlink.memory.manager import InFlightAlloc, JITLinkMemoryManager
from jitlink.memory.tls import END_ADDRESS, FIRST_ADDRESS, TLSAllocation, TLSRegistry
from jitlink.memory.tls_module import TLSABI, TLSValue
from jitlink.passes.got_plt import TLS_INFO_SECTION, add_equal_blocks
from jitlink.passes.tls_variables import OWN_TLS_BLOCK, TLSVariables

BASE_SYMBOL = "_TLS_MODULE_BASE_"
"""The start of the TLS block, for code that computes offsets from there."""
_NO_ALLOC = int(MemLifetime.NO_ALLOC)
_THREAD_LOCAL = int(BlockFlags.THREAD_LOCAL)
_THREAD_LOCAL_OR_REMOVED = _THREAD_LOCAL | int(BlockFlags.REMOVED)
_START, _EXTENT = np.uint64(FIRST_ADDRESS), np.uint64(END_ADDRESS - FIRST_ADDRESS)
_TLS_TARGET = "has a thread-local variable for its target, but is not of a TLS kind"
_NON_TLS_TARGET = "is of a TLS kind, but its target is not a thread-local variable"


class TLSGOTEntry(NamedTuple):
    """The GOT entry that an edge kind requests.

    Attributes:
        values: what the entry holds, in this order.
        edge_kind: the kind that the edge is transformed to, which refers to the entry.
        per_module: whether the entry is for the graph's own TLS module, whatever the edge's
            target is, as in the local dynamic model.
    """

    values: tuple[TLSValue, ...]
    edge_kind: EdgeKind
    per_module: bool = False

    @property
    def words(self) -> int:
        """Size of the entry in words."""
        return sum(value.words for value in self.values)


class TLSEdgeKinds:
    """How an architecture's code accesses thread-local variables.

    Args:
        got_requests: edge kinds that request a GOT entry.
        tpoff: edge kinds whose value is an offset from the thread pointer.
        dtpoff: edge kinds whose value is an offset from the start of the TLS block.
        dtpmod: edge kinds whose value is the module ID of the graph's TLS module.
        abi: the TLS of the architecture.
    """

    def __init__(
        self,
        got_requests: Mapping[EdgeKind, TLSGOTEntry],
        tpoff: frozenset[EdgeKind],
        dtpoff: frozenset[EdgeKind],
        dtpmod: frozenset[EdgeKind],
        abi: TLSABI,
    ) -> None:
        self.got_requests = got_requests
        self.tpoff, self.dtpoff, self.dtpmod = tpoff, dtpoff, dtpmod
        self.abi = abi

    @cached_property
    def mask(self) -> BoolArray:
        """Whether edges of a kind access thread-local variables (bool, one per kind)."""
        kinds = [*self.got_requests, *self.tpoff, *self.dtpoff, *self.dtpmod]
        mask = np.zeros(int(max(type(kinds[0]))) + 1, np.bool_)
        mask[[int(kind) for kind in kinds]] = True
        return mask


class _GOTBlock(NamedTuple):
    """A GOT entry of the graph: its block's row, its symbol's row or `OWN_TLS_BLOCK`."""

    block: int
    target: int
    entry: TLSGOTEntry


def plan_tls(kinds: TLSEdgeKinds, graph: LinkGraph, fixups: FixupTable) -> CheckedPlan:
    """The fixup plan of a pruned graph; creates the GOT entries for TLS.

    Raises:
        FixupError: an edge is of a TLS kind and its target is no thread-local variable, or the
            other way round.
    """
    accesses = rows_where(kinds.mask[graph.edge_table.kind])
    image = rows_where(graph.block_table.flags & _THREAD_LOCAL_OR_REMOVED == _THREAD_LOCAL)
    if len(accesses) or len(image):
        return TLSPlan(kinds, graph, fixups, image, accesses)
    return CheckedPlan(kinds, graph, fixups)


class CheckedPlan:
    """The fixup plan of a graph without TLS: other links' variables are not ordinary targets."""

    def __init__(self, kinds: TLSEdgeKinds, graph: LinkGraph, fixups: FixupTable) -> None:
        self._kinds = kinds
        self._graph = graph
        self._fixups = fixups

    def allocate(self, memory: JITLinkMemoryManager, alloc: InFlightAlloc) -> None:
        """Do nothing: there is no TLS block."""

    def check_targets(self) -> None:
        """Refuse ordinary edges to thread-local variables of other links.

        Raises:
            FixupError: there is such an edge.
        """
        graph = self._graph
        if not rows_where(graph.symbol_table.value - _START < _EXTENT).size:
            return
        edges, wrong = graph.edge_table, _is_other_links(graph)
        rows = rows_where(wrong[edges.target] & (edges.kind >= FIRST_RELOCATION))
        rows = rows[~self._kinds.mask[edges.kind[rows]]]
        self._refuse_tls_targets(rows)

    def _refuse_tls_targets(self, rows: Int64Array) -> None:
        """Fail if edges to thread-local variables are loaded and use the target's address."""
        rows = rows[_loaded(self._graph, rows)]
        rows = rows[_uses_address(self._graph, self._fixups, rows)]
        if len(rows):
            fail(self._graph, rows, _TLS_TARGET)

    async def apply(self, got_address: int | None) -> None:
        """Apply all fixups at once."""
        self._fixups.apply(self._graph, got_address=got_address)


class TLSPlan(CheckedPlan):
    """The fixup plan of a graph that has or accesses thread-local variables.

    Args:
        kinds: the architecture's TLS edge kinds.
        graph: a pruned graph.
        fixups: the architecture's fixups.
        image: rows (int64) of the blocks of the initialisation image.
        accesses: rows (int64) of the edges of TLS kinds.
    """

    _registry: TLSRegistry
    _allocation: TLSAllocation

    def __init__(
        self,
        kinds: TLSEdgeKinds,
        graph: LinkGraph,
        fixups: FixupTable,
        image: Int64Array,
        accesses: Int64Array,
    ) -> None:
        super().__init__(kinds, graph, fixups)
        self._check_ordinary()
        self._accesses = self._check_accesses(accesses)
        self._base_symbol = graph.find_external_symbol_by_name(BASE_SYMBOL)
        # Before GOT entries are created, which changes the kinds of accesses.
        self._static_accesses = self._find_static_accesses()
        self._offset_accesses = self._accesses[self._is_of(kinds.tpoff | kinds.dtpoff)]
        self._has_block = len(image) > 0 or self._base_symbol is not None
        self._has_block |= bool(self._is_of(kinds.dtpoff | kinds.dtpmod).any())
        self._got_blocks: list[_GOTBlock] = []
        self._create_got_entries()
        self._lay_out(image)

    # Checks

    @property
    def _image(self) -> BoolArray:
        """Which blocks are of the initialisation image (bool, one per block row)."""
        flags = self._graph.block_table.flags
        result: BoolArray = flags & _THREAD_LOCAL_OR_REMOVED == _THREAD_LOCAL
        return result

    def _is_local(self, rows: Int64Array) -> BoolArray:
        """Whether targets of edges are thread-local variables of the graph."""
        symbols, target = self._graph.symbol_table, self._graph.edge_table.target[rows]
        result: BoolArray = symbols.kind[target] == DEFINED
        result[result] = self._image[symbols.block[target[result]]]
        return result

    def _check_ordinary(self) -> None:
        """Refuse ordinary edges to thread-local variables of the graph.

        Debug information of compilers that know no TLS kind for it has such edges: the value of a
        thread-local symbol is then its offset in the TLS block.
        """
        self._debug_offsets = np.empty(0, np.int64)
        if not self._image.any():
            return
        edges = self._graph.edge_table
        rows = rows_where((edges.kind >= FIRST_RELOCATION) & ~self._kinds.mask[edges.kind])
        rows = rows[self._is_local(rows)]
        self._refuse_tls_targets(rows)
        rows = rows[~_loaded(self._graph, rows)]
        self._debug_offsets = rows[_uses_address(self._graph, self._fixups, rows)]

    def _check_accesses(self, rows: Int64Array) -> Int64Array:
        """Refuse accesses to what is not thread-local; rows of the accesses that are loaded.

        Debug information may have the offset of a variable of the graph in its TLS block.
        """
        edges = self._graph.edge_table
        loaded = _loaded(self._graph, rows)
        debug = rows[~loaded]
        if len(debug):
            kept = np.isin(edges.kind[debug], [int(kind) for kind in self._kinds.dtpoff])
            kept &= self._is_local(debug)
            edges.kind[debug[~kept]] = INVALID
        rows = rows[loaded]
        # External symbols are checked when they have addresses.
        others = (self._graph.symbol_table.kind == EXTERNAL) | _is_other_links(self._graph)
        wrong = rows[~others[edges.target[rows]] & ~self._is_local(rows)]
        if len(wrong):
            fail(self._graph, wrong, _NON_TLS_TARGET)
        return rows

    def _is_of(self, kinds: Iterable[EdgeKind]) -> BoolArray:
        """Whether accesses are of some kinds."""
        return np.isin(self._graph.edge_table.kind[self._accesses], [int(kind) for kind in kinds])

    def _find_static_accesses(self) -> BoolArray:
        """Which accesses require the graph's own TLS block to be in static TLS."""
        kinds, local = self._kinds, self._is_local(self._accesses)
        requests = [
            kind for kind, entry in kinds.got_requests.items() if TLSValue.TPOFF in entry.values
        ]
        tpoff = self._is_of([*requests, *kinds.tpoff])
        self._static_names = self._external_names(self._accesses[~local & tpoff])
        static = local & tpoff
        # Another link's TLS block is at a constant distance only if both are in static TLS.
        static |= ~local & self._is_of(kinds.dtpoff)
        return static

    def _external_names(self, rows: Int64Array) -> list[str]:
        """Names of the external targets of edges."""
        symbols = self._graph.symbol_table
        targets = np.unique(self._graph.edge_table.target[rows])
        targets = targets[symbols.kind[targets] == EXTERNAL]
        return self._graph.strings.get_many(symbols.name[targets])

    # After pruning

    def _create_got_entries(self) -> None:
        edges = self._graph.edge_table
        for kind, entry in self._kinds.got_requests.items():
            rows = self._accesses[edges.kind[self._accesses] == kind]
            if not len(rows):
                continue
            if entry.per_module:
                self._has_block = True
                ((_, symbol),) = self._add_got_entries(entry, [OWN_TLS_BLOCK])
                edges.target[rows] = symbol
            else:
                is_target = np.zeros(self._graph.symbol_table.rows, np.bool_)
                is_target[edges.target[rows]] = True
                entry_of = np.zeros(len(is_target), np.int64)
                for target, symbol in self._add_got_entries(entry, rows_where(is_target).tolist()):
                    entry_of[target] = symbol
                edges.target[rows] = entry_of[edges.target[rows]]
            edges.kind[rows] = int(entry.edge_kind)

    def _add_got_entries(self, entry: TLSGOTEntry, targets: list[int]) -> list[tuple[int, int]]:
        """Add a GOT entry for each target; pairs of the target's and the entry's symbol row."""
        graph = self._graph
        section, word = graph.obtain_section(TLS_INFO_SECTION, MemProt.READ), graph.pointer_size
        content = bytes(word * entry.words)
        blocks, symbols = add_equal_blocks(graph, section, len(targets), content, word, 0)
        for block, target in zip(blocks.tolist(), targets, strict=True):
            self._got_blocks.append(_GOTBlock(block, target, entry))
            if target != OWN_TLS_BLOCK:
                # The graph must go on to show which symbols the code depends on.
                graph.edge_table.extend(1, block=block, kind=KEEP_ALIVE, target=target)
        return list(zip(targets, symbols.tolist(), strict=True))

    def _lay_out(self, rows: Int64Array) -> None:
        """Lay out the blocks of the initialisation image, zero-fill (.tbss) last."""
        table = self._graph.block_table
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
        """Make the sections of the initialisation image NO_ALLOC, but no other block in them."""
        graph, table = self._graph, self._graph.block_table
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

    def allocate(self, memory: JITLinkMemoryManager, alloc: InFlightAlloc) -> None:
        """Give the TLS block and its symbols TLS addresses; request static TLS for externals.

        Raises:
            TLSError: the memory manager has no TLS, or the TLS block is too large.
        """
        registry = memory.tls
        if registry is None:
            error = TLSError("the memory manager has no thread-local storage")
            self._locate(error)
            raise error
        self._registry = registry
        self._allocation = allocation = registry.new_allocation()
        alloc.hold(allocation)
        allocation.request_static_tls(self._static_names, self._kinds.abi)
        if not self._has_block:
            return
        try:
            block = allocation.reserve(self._size, self._alignment)
        except TLSError as error:
            self._locate(error)
            raise
        address = np.uint64(block.address)
        self._graph.block_table.address[self._rows] = self._offsets.view(np.uint64) + address
        addends = self._graph.edge_table.addend.view(np.uint64)
        addends[self._debug_offsets] -= address
        if self._base_symbol is not None:
            self._graph.make_absolute(self._base_symbol, block.address)

    # Fixups

    async def apply(self, got_address: int | None) -> None:
        """Apply the fixups of the initialisation image, load the TLS module, apply the others.

        The order matters: threads that exist get copies of the image when it is loaded.

        Raises:
            TLSError: the TLS module cannot be loaded, or the target of an access turned out not
                to be a thread-local variable.
            FixupError: a fixup cannot be applied; in the initialisation image, also one whose
                value depends on where the C library puts the TLS block.
        """
        # All names have been looked up.
        self._allocation.request_static_tls((), self._kinds.abi)
        in_image = self._image[self._graph.edge_table.block]
        image, bases = self._gather_image(), {}
        if self._allocation.block is not None:
            bases["DTP"] = self._allocation.block.address
        self._apply_rows(rows_where(in_image), got_address, bases)
        try:
            await self._load(image)
        except TLSError as error:
            self._locate(error)
            raise
        self._apply_rows(rows_where(~in_image), got_address, bases | self._bases())

    def _apply_rows(
        self, rows: Int64Array, got_address: int | None, bases: Mapping[str, int]
    ) -> None:
        self._fixups.apply(self._graph, got_address=got_address, tls_bases=bases, rows=rows)

    def _gather_image(self) -> bytearray:
        """One buffer of all contents of the initialisation image, which the blocks then share."""
        graph, table, rows = self._graph, self._graph.block_table, self._rows
        image = bytearray(self._content_size)
        filled = table.content[rows] != ZERO_FILL
        rows, offsets = rows[filled], self._offsets[filled]
        if len(rows):
            copy_contents(graph, table.content[rows], table.size[rows], memoryview(image), offsets)
            table.content[rows] = graph.contents.add(image) + offsets
        return image

    async def _load(self, image: bytearray) -> None:
        """Load the TLS module, fill the GOT entries, correct the addends of external accesses."""
        graph = self._graph
        edges = graph.edge_table
        external = self._offset_accesses[self._is_external(self._offset_accesses)]
        wanted = [(value, got.target) for got in self._got_blocks for value in got.entry.values]
        wanted += [(TLSValue.TPOFF, target) for target in edges.target[external].tolist()]
        variables = TLSVariables(graph, self._registry, self._allocation, self._kinds.abi)
        await variables.load(wanted, image, static=bool(self._static_accesses.any()))
        dtype = f"{'<' if graph.endianness == 'little' else '>'}u{graph.pointer_size}"
        for block, target, entry in self._got_blocks:
            words = [word for value in entry.values for word in variables.words(value, target)]
            # Truncated to the size of a pointer.
            content = np.array(words, np.uint64).astype(dtype).tobytes()
            Block(graph, block).already_mutable_content[:] = content
        # S - TP and S - DTP hold only in the link's own TLS block; the addend makes up for it.
        if len(external):
            thread_pointer = self._bases()["TP"]
            addresses = graph.symbol_addresses()
            for row in external.tolist():
                target = int(edges.target[row])
                offset = variables.words(TLSValue.TPOFF, target)[0]
                correction = thread_pointer + offset - int(addresses[target])
                edges.addend[row] = _signed(int(edges.addend[row]) + correction)

    def _is_external(self, rows: Int64Array) -> BoolArray:
        """Whether targets of edges are outside the link's own TLS block."""
        edges, block = self._graph.edge_table, self._allocation.block
        address = self._graph.symbol_addresses()[edges.target[rows]]
        if block is None:
            return np.ones(len(rows), np.bool_)
        start, end = np.uint64(block.address), np.uint64(block.address + block.size)
        result: BoolArray = (address < start) | (address > end)
        return result

    def _bases(self) -> dict[str, int]:
        """Values of the fixup letters MODULE and TP; TP as a TLS address."""
        block = self._allocation.block
        if block is None:
            # All accesses are to external variables, and their addends make up for it.
            return {"TP": 0}
        offset = block.address if block.tp_offset is None else block.tp_offset
        return {"MODULE": block.module, "TP": (block.address - offset) & ADDRESS_MASK}

    # Errors

    def _locate(self, error: TLSError) -> None:
        """Add the graph and its objects to an error."""
        error.locate(self._graph.name, self._objects())

    def _objects(self) -> list[str]:
        """Display names of the objects that require static TLS, or else have variables."""
        graph, edges = self._graph, self._graph.edge_table
        blocks = edges.block[self._accesses[self._static_accesses]]
        if not len(blocks):
            blocks = self._rows if len(self._rows) else edges.block[self._accesses]
        origins = sorted(set(graph.block_table.origin[blocks].tolist()))
        return [graph.origins[each] for each in origins if 0 <= each < len(graph.origins)]


def _signed(value: int) -> int:
    """A number modulo 2**64, as a signed one."""
    value &= ADDRESS_MASK
    return value - (1 << 64) if value >> 63 else value


def _is_other_links(graph: LinkGraph) -> BoolArray:
    """Which external and absolute symbols are thread-local variables of other links."""
    symbols = graph.symbol_table
    result: BoolArray = symbols.value - _START < _EXTENT
    result &= (symbols.kind == EXTERNAL) | (symbols.kind == ABSOLUTE)
    return result


def _loaded(graph: LinkGraph, rows: Int64Array) -> BoolArray:
    """Whether edges are in blocks that are loaded."""
    loaded = graph.section_lifetimes() != _NO_ALLOC
    result: BoolArray = loaded[graph.block_table.section[graph.edge_table.block[rows]]]
    return result


def _uses_address(graph: LinkGraph, fixups: FixupTable, rows: Int64Array) -> BoolArray:
    """Whether edges are of kinds whose value depends on the target's address."""
    independent = [
        kind for kind, row in fixups.by_kind.items() if row.expression and "S" not in row.letters
    ]
    result: BoolArray = ~np.isin(graph.edge_table.kind[rows], independent)
    return result
