"""ELF: what its targets share, and which target an object is for.

A new architecture is one line in `_TARGETS`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from functools import cache, reduce
from typing import TYPE_CHECKING, Literal, NamedTuple, NoReturn

import numpy as np

from jitlink.arch.reentry import HostFunctionCode, Jump, ReentryCode
from jitlink.errors import (
    InputError,
    ObjectError,
    UnsupportedObjectError,
    UnsupportedRelocationError,
)
from jitlink.fixups import FixupTable
from jitlink.formats.batch import Batch, ReadObjects
from jitlink.formats.elf import ELFObjects, read_objects
from jitlink.formats.elf_headers import RelocationColumns
from jitlink.formats.elf_layout import ELFCLASS32, ELFCLASS64, Identity, identify
from jitlink.formats.elf_notes import objects_with_executable_stack
from jitlink.formats.elf_relocations import RawRelocations
from jitlink.formats.elf_single import add_single_object
from jitlink.formats.elf_small import SmallObjectReader
from jitlink.formats.small import SmallObject
from jitlink.graph import LinkGraph, MemLifetime, Scope
from jitlink.graph.columns import BoolArray, Int64Array, rows_where
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.edges import EdgeKind
from jitlink.graph.link_graph import NO_ADDRESS_LIMIT
from jitlink.graph.tables import ABSOLUTE, REMOVED
from jitlink.link import PassConfiguration
from jitlink.memory.tls_module import TLSModuleSpec
from jitlink.passes.init_fini import CrtiCrtn
from jitlink.passes.linker_defined import keep_linked_blocks
from jitlink.targets.base import DirectAccess, RelocationTable, Target, import_name
from jitlink.targets.elf_linker_defined import ELFLinkerDefinedSymbols

if TYPE_CHECKING:
    from jitlink.memory.images import ImageSymbols
    from jitlink.memory.regions import PlacedSegment

# Why relocation types of every architecture are not linked.
DYNAMIC_ONLY = "only a dynamic linker's input has it"


class ELFTarget(NamedTuple):
    """The ELF objects of one architecture, and how they are linked.

    Attributes:
        identity: machine, class and byte order in the ELF header.
        triple: target triple of the graphs.
        edge_kinds: the architecture's edge kinds.
        fixups: how they are applied.
        relocations: all relocation types of the ABI.
        passes: the architecture's passes for a graph.
        limit: the address below which a graph must lie, by the architecture's relocations.
        limiting: the edge kinds by which there can be such a limit.
        branches: edge kinds of direct calls and jumps, those to stubs included.
        jump: code that jumps elsewhere, to be written to the entry of a function.
        reentry_module: the module with machine code for lazy functions, and for functions that
            another process implements, if the architecture has it yet; few links need it.
        direct_access: direct references to symbols of libraries, if they can be brought into reach.
        crti_crtn: prologue and epilogue of ``.init`` and ``.fini`` code, if known.
    """

    identity: Identity
    triple: str
    edge_kinds: type[EdgeKind]
    fixups: FixupTable
    relocations: RelocationTable
    passes: Callable[[LinkGraph], PassConfiguration]
    limit: Callable[[LinkGraph], int] = lambda _graph: NO_ADDRESS_LIMIT
    limiting: frozenset[EdgeKind] = frozenset()
    branches: frozenset[EdgeKind] = frozenset()
    jump: Jump | None = None
    reentry_module: str = ""
    direct_access: DirectAccess | None = None
    crti_crtn: CrtiCrtn | None = None

    @property
    def pointer_size(self) -> int:
        """Size of a pointer in bytes."""
        return self.identity.pointer_size

    @property
    def byte_order(self) -> Literal["little", "big"]:
        """Byte order of data."""
        return self.identity.byte_order

    @property
    def reentry(self) -> ReentryCode | None:
        """Machine code for lazy functions, if the architecture has it yet."""
        module = self.reentry_module
        code: ReentryCode | None = import_name(f"{module}:REENTRY") if module else None
        return code

    @property
    def host_function(self) -> HostFunctionCode | None:
        """Machine code for functions that another process implements, if there is any."""
        module = self.reentry_module
        code: HostFunctionCode | None = import_name(f"{module}:HOST_FUNCTION") if module else None
        return code

    def new_graph(self, name: str) -> LinkGraph:
        """An empty graph for objects of this target."""
        graph = LinkGraph(
            name,
            self.triple,
            pointer_size=self.pointer_size,
            endianness=self.byte_order,
            edge_kinds=self.edge_kinds,
        )
        graph.target = self
        return graph

    def configure(self, graph: LinkGraph) -> PassConfiguration:
        """The passes for a graph: the architecture's, and those of all ELF targets."""
        config, bounds = self.passes(graph), ELFLinkerDefinedSymbols(self.identity)
        config.add_pre_prune(bounds.define, keep_linked_blocks)
        config.post_prune.append(self._limit_addresses)
        config.post_allocation.append(bounds.place)
        config.needs_executable_stack = objects_with_executable_stack(graph)
        return config

    def address_limit(self, graph: LinkGraph) -> int:
        """The address below which the code of a graph must lie, by its relocations."""
        return self.limit(graph)

    def write_executable(
        self,
        segments: Sequence[PlacedSegment],
        symbols: ImageSymbols,
        entry: int,
        flags: Iterable[int],
    ) -> bytes:
        """The bytes of an executable; its e_flags are all those of the objects."""
        from jitlink.formats.elf_executable import write_executable  # noqa: PLC0415 - seldom needed

        identity = self.identity._replace(flags=reduce(operator.or_, flags, 0))
        return write_executable(identity, segments, symbols, entry)

    def _limit_addresses(self, graph: LinkGraph) -> None:
        graph.address_limit = min(graph.address_limit, self.limit(graph))

    def links(self, graph: LinkGraph) -> bool:
        """Whether a graph that no target made is one of this target's."""
        mine = (self.edge_kinds, self.pointer_size, self.identity.byte_order)
        return (graph.edge_kinds, graph.pointer_size, graph.endianness) == mine

    def read_small(self, data: memoryview) -> SmallObject | None:
        """Read one object, if it is small and ordinary."""
        reader = _small_objects(self.identity, self.relocations, self.fixups, self.limiting)
        return reader.read(data)

    def add_objects(self, graph: LinkGraph, batch: Batch) -> ReadObjects:
        """Read all objects of a batch into a graph, with their relocations as edges.

        Raises:
            InputError: an object is malformed, of another target, or has a relocation that
                is not linked; the graph must not be used any more.
        """
        read = self._add_single(graph, batch) if len(batch.names) == 1 else None
        return read or self._add_batch(graph, batch)

    def _add_single(self, graph: LinkGraph, batch: Batch) -> ReadObjects | None:
        """Read the only object of a batch; None if it has many sections, or is unusual."""
        start, size = int(batch.starts[0]), int(batch.sizes[0])
        data = batch.buffer[start : start + size].toreadonly()
        columns = _relocation_columns(self.relocations, self.fixups)
        return add_single_object(graph, data, batch.names[0], self.identity, columns)

    def _add_batch(self, graph: LinkGraph, batch: Batch) -> ReadObjects:
        """Read all objects of a batch as columns."""
        first_edge = graph.edge_table.rows
        objects, raw = read_objects(graph, batch, self.identity)
        _EdgeBuilder(self, graph, objects, raw).run()
        return ReadObjects(
            objects.first_symbol,
            objects.last_symbol,
            objects.first_block,
            first_edge,
            graph.edge_table.rows,
            objects.comdats,
            refers_to_itself=objects.has_default_versions,
        )


def tls_module_writer(name: str, flags: int = 0) -> Callable[[TLSModuleSpec], bytes]:
    """What writes TLS modules of a format of `elf_tls_module`, which few links import."""

    def write(spec: TLSModuleSpec) -> bytes:
        form = import_name(f"jitlink.formats.elf_tls_module:{name}")
        content: bytes = form.write(spec, flags)
        return content

    return write


@cache
def _relocation_columns(relocations: RelocationTable, fixups: FixupTable) -> RelocationColumns:
    """The relocation types of a target, for readers of single objects."""
    types = relocations
    return RelocationColumns(types.kinds, types.biases, types.ignored, fixups.widths)


@cache
def _small_objects(
    identity: Identity,
    relocations: RelocationTable,
    fixups: FixupTable,
    limiting: frozenset[EdgeKind],
) -> SmallObjectReader:
    """The reader of small objects of a target."""
    columns = _relocation_columns(relocations, fixups)
    return SmallObjectReader(identity, columns, frozenset(map(int, limiting)))


_TARGETS = {
    (62, ELFCLASS64, "little"): "jitlink.targets.elf_x86_64:TARGET",
    (183, ELFCLASS64, "little"): "jitlink.targets.elf_aarch64:TARGET",
    (183, ELFCLASS64, "big"): "jitlink.targets.elf_aarch64:BIG_ENDIAN_TARGET",
    (243, ELFCLASS64, "little"): "jitlink.targets.elf_riscv:TARGET64",
    (243, ELFCLASS32, "little"): "jitlink.targets.elf_riscv:TARGET32",
}
"""Targets by machine, class and byte order."""


_EI_OSABI = 7
_SYSTEMS = {2: "netbsd", 4: "hurd-gnu", 6: "solaris", 9: "freebsd", 12: "openbsd"}
"""Systems in target triples, by ``EI_OSABI``; 0 and 3 are Linux's."""


@cache
def _target_for(path: str, system: str) -> ELFTarget:
    """A target with the triple of another system, which is linked like Linux's."""
    target: ELFTarget = import_name(path)
    architecture, vendor = target.triple.split("-")[:2]
    return target._replace(triple=f"{architecture}-{vendor}-{system}")


class _ELF:
    """The object format."""

    def target_of(self, data: memoryview, file: str) -> Target:
        """See `ObjectFormat.target_of`."""
        identity = identify(data, file)
        path = _TARGETS.get((identity.machine, identity.elf_class, identity.byte_order))
        if path is None:
            bits = 64 if identity.elf_class == ELFCLASS64 else 32
            kind = f"{bits}-bit {identity.byte_order}-endian"
            message = f"no {kind} target for machine {identity.machine}"
            raise UnsupportedObjectError(message, file=file)
        system = _SYSTEMS.get(data[_EI_OSABI])
        target: Target = import_name(path) if system is None else _target_for(path, system)
        return target

    def exported_among(self, data: memoryview, file: str, names: Iterable[str]) -> list[str]:
        """See `ObjectFormat.exported_among`."""
        from jitlink.formats.elf_dynamic_symbols import DynamicSymbols  # noqa: PLC0415 - for errors

        symbols = DynamicSymbols(data, file)
        return [name for name in names if symbols.defines(name)]

    def targets(self) -> Iterable[Target]:
        """See `ObjectFormat.targets`."""
        return map(import_name, _TARGETS.values())


ELF = _ELF()


class _EdgeBuilder:
    """Turns the raw relocations of one batch into edges."""

    def __init__(
        self, target: ELFTarget, graph: LinkGraph, read: ELFObjects, raw: RawRelocations
    ) -> None:
        self.target = target
        self.graph = graph
        self.read = read
        self.raw = raw

    def run(self) -> None:
        raw, target = self.raw, self.target
        if len(raw.type) == 0:
            return
        index = target.relocations.index(raw.type)
        kind = target.relocations.kinds[index]
        allocated = self._allocated(raw.block)
        refused = (kind == 0) & ~target.relocations.ignored[index] & allocated
        if refused.any():
            self._refuse(int(rows_where(refused)[0]))
        # Debug information may use types that code may not; its bytes then stay as in the file.
        keep = kind != 0
        keep &= allocated | (self.graph.symbol_table.kind[raw.symbol] != REMOVED)
        if not keep.all():
            raw = RawRelocations(*(column[keep] for column in raw))
            index, kind = index[keep], kind[keep]
        placed, kind = self._check_places(raw, kind)
        if placed is not raw:
            raw, index = placed, target.relocations.index(placed.type)
        addend = raw.addend
        if raw.implicit.any():
            addend = addend.copy()
            chosen = rows_where(raw.implicit)
            addend[chosen] += target.fixups.read_addends(
                self.graph, kind[chosen], raw.block[chosen], raw.offset[chosen]
            )
        self._place_null_symbols(raw.symbol)
        self.graph.edge_table.extend(
            len(kind),
            block=raw.block,
            offset=raw.offset,
            kind=kind,
            target=raw.symbol,
            addend=addend + target.relocations.biases[index],
        )

    def _allocated(self, blocks: Int64Array) -> BoolArray:
        loaded = self.graph.section_lifetimes() != int(MemLifetime.NO_ALLOC)
        # Only those of this batch: a graph may be read in very many.
        first = self.read.first_block
        allocated: BoolArray = loaded[self.graph.block_table.section[first:]][blocks - first]
        return allocated

    def _check_places(
        self, raw: RawRelocations, kind: Int64Array
    ) -> tuple[RawRelocations, Int64Array]:
        """Refuse relocations that have no place; those of debug information are left out."""
        table, blocks = self.graph.symbol_table, self.graph.block_table
        outside = (raw.offset < 0) | (raw.offset > blocks.size[raw.block] - self._widths(kind))
        empty = blocks.content[raw.block] == ZERO_FILL
        first = int(self.read.first_symbol[0])
        removed = table.kind[first:] == REMOVED
        removed[self.read.null_symbols - first] = False
        nowhere = removed[raw.symbol - first]
        if not np.count_nonzero(outside | empty | nowhere):
            return raw, kind
        for bad, message in (
            (outside, "lies outside its section"),
            (empty, "lies in a section without content"),
            (nowhere, "refers to a symbol that is in no section"),
        ):
            if not np.count_nonzero(bad):
                continue
            errors = rows_where(bad & self._allocated(raw.block))
            if len(errors):
                row = int(errors[0])
                self._fail(raw, row, f"relocation {self._name(int(raw.type[row]))} {message}")
        bad = outside | empty
        if np.count_nonzero(bad):
            raw, kind = RawRelocations(*(column[~bad] for column in raw)), kind[~bad]
        return raw, kind

    def _widths(self, kind: Int64Array) -> Int64Array:
        widths: Int64Array = self.target.fixups.widths[kind]
        return widths

    def _place_null_symbols(self, symbols: Int64Array) -> None:
        """A relocation without a symbol refers to address zero."""
        table, null = self.graph.symbol_table, self.read.null_symbols
        first = int(self.read.first_symbol[0])
        used = np.zeros(table.rows - first, np.bool_)
        used[symbols - first] = True
        null = null[used[null - first]]
        table.kind[null] = ABSOLUTE
        table.scope[null] = Scope.LOCAL

    # Errors

    def _name(self, number: int) -> str:
        row = self.target.relocations.by_number.get(number)
        return row.name if row else f"type {number}"

    def _file(self, block: int) -> str:
        return self.graph.origin_name(block)

    def _section(self, block: int) -> str:
        return self.graph.section_list.names[int(self.graph.block_table.section[block])]

    def _fail(self, raw: RawRelocations, row: int, message: str) -> NoReturn:
        block = int(raw.block[row])
        location = f"section {self._section(block)}+{int(raw.offset[row]):#x}"
        raise ObjectError(f"{location}: {message}", file=self._file(block))

    def _refuse(self, row: int) -> NoReturn:
        raw = self.raw
        block, number = int(raw.block[row]), int(raw.type[row])
        known = self.target.relocations.by_number.get(number)
        error: InputError = UnsupportedRelocationError(
            file=self._file(block),
            section=self._section(block),
            offset=int(raw.offset[row]),
            number=number,
            relocation=known.name if known else None,
            reason=known.reason if known else "the ABI does not define it",
        )
        raise error
