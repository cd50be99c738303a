"""Links objects with jitlink up to finalization, without running code, and records the output."""

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from jitlink.errors import JITLinkError, UnsupportedRelocationError
from jitlink.graph import Block, BlockFlags, LinkGraph, MemLifetime, Scope, Symbol
from jitlink.input_reader import InputReader
from jitlink.inputs import InputFile
from jitlink.link import JITLinkContext, PassConfiguration, link, run_in_process
from jitlink.memory.slab import SlabMemoryManager
from jitlink.memory.tls import TLSBlock as RegisteredBlock
from jitlink.memory.tls import TLSRegistry
from jitlink.memory.tls_module import TLSABI
from jitlink.passes.got_plt import STUBS_SECTION
from jitlink.passes.linker_defined import IMAGE_NAMES
from tests.oracle.architectures import ARCHITECTURES
from tests.oracle.elf_file import STT_TLS, ElfFile, ElfSection
from tests.oracle.memory import Memory, TLSBlock

EH_FRAME = ".eh_frame"
COMMONS = ".common"
LINKER_DEFINED = frozenset({"__dso_handle", *IMAGE_NAMES})
"""Symbols that the linker defines if no object does."""
EXTERNAL_SPACING = 16
SLAB_SIZE = 64 << 20
TLS_PLACE, EXTERNAL_TLS_PLACE = SLAB_SIZE - (2 << 20), SLAB_SIZE - (1 << 20)
"""Where variables of the objects, and external ones, are in the comparison: offsets in the slab,
the end of which no object reaches."""


@dataclass(frozen=True)
class Addressing:
    """Addresses of sections and external symbols.

    Attributes:
        base: address of the objects' sections, which have `SLAB_SIZE` bytes.
        near: address of the first external symbol; the others follow.
        far: the same for the symbols of which every reference is in range of any address; None to
            have all of them near.
        null_weak: whether half of the weakly referenced symbols are undefined.
    """

    base: int
    near: int
    far: int | None = None
    null_weak: bool = False


class ObjectFile(NamedTuple):
    """A relocatable object."""

    name: str
    data: bytes


class PlacedSection(NamedTuple):
    """A section of an object, its address and linked content; None for zero-fill."""

    elf: ElfFile
    section: ElfSection
    address: int
    content: bytes | None


@dataclass
class Placement:
    """Objects, linked by jitlink but not run.

    Attributes:
        sections: all their sections that are linked, in order of input.
        externals: addresses of the symbols that were looked up; one that is 0 is undefined.
        far: those that are out of range of 32-bit displacements.
        symbols: addresses of the global symbols that the graph defines.
        commons: address of the common symbols, or None if there are none.
        linker_defined: addresses of linker-defined symbols, such as `__dso_handle`.
        memory: contents of memory.
        frames: address range of `.eh_frame`, or None.
        external_variables: addresses of the thread-local symbols that were looked up.
    """

    sections: list[PlacedSection]
    externals: Mapping[str, int]
    far: frozenset[str]
    symbols: Mapping[str, int]
    commons: int | None
    linker_defined: Mapping[str, int]
    memory: Memory
    frames: range | None
    external_variables: Mapping[str, int] = field(default_factory=dict)


class Refused(Exception):  # noqa: N818 - no error: an outcome that is counted
    """jitlink refuses the objects.

    Attributes:
        reason: name of the unsupported relocation type, or else of the error's class.
        detail: the error.
    """

    def __init__(self, error: JITLinkError) -> None:
        super().__init__(str(error))
        self.detail = error
        self.reason = type(error).__name__
        if isinstance(error, UnsupportedRelocationError):
            self.reason = error.relocation or f"relocation {error.number}"


class _Recorded(Exception):  # noqa: N818 - no error: it ends a link before anything is run
    pass


class _Context(JITLinkContext):
    """Gives external symbols consecutive addresses."""

    def __init__(
        self, addressing: Addressing, far: frozenset[str], variables: Mapping[str, int]
    ) -> None:
        self.addressing = addressing
        self.far = far
        self.variables = variables
        self.addresses: dict[str, int] = {}

    async def lookup(self, names: Mapping[str, bool]) -> Mapping[str, int]:
        for number, (name, required) in enumerate(names.items()):
            if name in self.variables:
                continue
            first = self.addressing.near
            if name in self.far and self.addressing.far is not None:
                first = self.addressing.far
            address = first + number * EXTERNAL_SPACING
            self.addresses[name] = 0 if self._is_absent(name, required) else address
        return {**self.addresses, **self.variables}

    def _is_absent(self, name: str, required: bool) -> bool:
        if required or not self.addressing.null_weak:
            return False
        # The stubs of ld.lld cannot reach address zero from far away.
        if self.addressing.far is not None and name not in self.far:
            return False
        # ld.lld defines both bounds of this table, and fails if only one is undefined.
        return not name.startswith("__rela_iplt_") and bool(zlib.crc32(name.encode()) & 1)


class _Recorder:
    """Passes that keep all sections alive, and record the linked output."""

    def __init__(
        self, elves: Sequence[ElfFile], passes: PassConfiguration, tls: "_TLS | None"
    ) -> None:
        self.elves = elves
        self.passes = passes
        self.tls = tls
        self.inputs: list[tuple[ElfFile, ElfSection, Block]] = []
        self.placement: Placement | None = None
        passes.pre_prune.insert(0, self.keep_all)
        passes.post_fixup.append(self.record)

    def keep_all(self, graph: LinkGraph) -> None:
        """Mark all blocks live, and record the section of each.

        The blocks are as the reader added them: for each object one for each section, in order,
        and then those of common symbols.
        """
        table = graph.block_table
        rows: list[list[int]] = [[] for _ in self.elves]
        for row, origin in enumerate(table.origin.tolist()):
            rows[origin].append(row)
        for elf, of_object in zip(self.elves, rows, strict=True):
            sections = [each for each in elf.sections if each.is_linked]
            for section, row in zip(sections, of_object, strict=False):
                block = Block(graph, row)
                assert block.section.name == section.name
                assert block.size == section.size or section.is_compressed
                if not table.flags[row] & BlockFlags.REMOVED:
                    self.inputs.append((elf, section, block))
        # FDEs are kept with their functions, some of which are in discarded COMDAT groups.
        others = [block.row for _, section, block in self.inputs if section.name != EH_FRAME]
        table.flags[others] |= np.uint8(BlockFlags.LIVE)

    def record(self, graph: LinkGraph) -> None:
        """Record addresses and contents, and abort the link."""
        flags, is_tls = graph.block_table.flags, int(BlockFlags.THREAD_LOCAL)
        memory = Memory.of(
            (self.address(block), bytes(block.content))
            for block in graph.blocks
            if (block.section.mem_lifetime != MemLifetime.NO_ALLOC or flags[block.row] & is_tls)
            and not block.is_zero_fill
        )
        sections = [
            PlacedSection(elf, section, self.address(block), _content(block))
            for elf, section, block in self.inputs
        ]
        if self.tls is not None:
            self.tls.describe(memory)
        memory.got = self.passes.got_address(graph)
        memory.follow_stub = ARCHITECTURES[self.elves[0].machine].follow
        memory.pointer_size = self.elves[0].pointer_size
        memory.resolvers = dict(_ifunc_pointers(graph))
        stubs = _span(graph, STUBS_SECTION)
        memory.stubs = [stubs] if stubs else []
        exported = [each for each in graph.defined_symbols if _is_global(each)]
        names = {section.name for _, section, _ in self.inputs}
        defined = [s for s in graph.defined_symbols if s.name in LINKER_DEFINED]
        defined = [s for s in defined if s.section.name not in names]
        defined += [
            s for s in graph.absolute_symbols if s.name in LINKER_DEFINED and s.scope is Scope.LOCAL
        ]
        self.placement = Placement(
            sections=sections,
            externals={},
            far=frozenset(),
            symbols={each.name: each.address for each in exported},
            commons=commons.start if (commons := _span(graph, COMMONS)) else None,
            linker_defined={str(each.name): each.address for each in defined},
            memory=memory,
            frames=_span(graph, EH_FRAME),
        )
        raise _Recorded

    def address(self, block: Block) -> int:
        """Its address in the comparison."""
        return block.address if self.tls is None else self.tls.address(block.address)


class _TLS:
    """The TLS blocks of a link: that of the objects, and one of external variables.

    Args:
        registry: assigns them.
        abi: the TLS of the architecture.
        base: start of the slab.
        names: names of the external variables.
    """

    def __init__(self, registry: TLSRegistry, abi: TLSABI, base: int, names: Sequence[str]) -> None:
        self._registry, self._abi, self._base = registry, abi, base
        allocation = registry.new_allocation()
        self._external = allocation.reserve(EXTERNAL_SPACING * (len(names) + 1), EXTERNAL_SPACING)
        # Outside of static TLS, in which the objects' block comes first.
        run_in_process(allocation.load(bytearray(), [], abi))
        self._own: RegisteredBlock | None = None
        offsets = {name: EXTERNAL_SPACING * number for number, name in enumerate(names)}
        start = self._external.address
        self.variables = {name: start + offset for name, offset in offsets.items()}
        self.placed = {name: base + EXTERNAL_TLS_PLACE + offset for name, offset in offsets.items()}

    def address(self, address: int) -> int:
        """The address in the comparison of what has an address in the graph."""
        found = self._registry.find(address)
        if found is None:
            return address
        block, offset = found
        if block is self._external:
            return self._base + EXTERNAL_TLS_PLACE + offset
        self._own = block
        return self._base + TLS_PLACE + offset

    def describe(self, memory: Memory) -> None:
        """Add the blocks to the memory of the link."""
        memory.dtp_bias = self._abi.dtp_bias
        for block in (self._own, self._external):
            if block is not None:
                place = self.address(block.address)
                memory.tls.append(TLSBlock(place, block.size, block.module, block.tp_offset))


def _content(block: Block) -> bytes | None:
    return None if block.is_zero_fill else bytes(block.content)


def _span(graph: LinkGraph, name: str) -> range | None:
    """The addresses of a graph section, or None if it is empty."""
    section = graph.find_section_by_name(name)
    if section is None or section.empty:
        return None
    return range(section.range().start, section.range().end)


def _is_global(symbol: Symbol) -> bool:
    return symbol.has_name and symbol.scope != Scope.LOCAL


def _ifunc_pointers(graph: LinkGraph) -> Iterator[tuple[int, int]]:
    """Pointers and resolvers, from the arguments of the allocation action for ifuncs."""
    for action in graph.alloc_actions:
        if action.finalize is not None and callable(action.finalize.arguments):
            pair = "<QQ" if graph.pointer_size == 8 else "<II"
            for resolver, pointer in struct.iter_unpack(pair, action.finalize.arguments()):
                yield pointer, resolver


def place(
    objects: Sequence[ObjectFile], addressing: Addressing, memory: SlabMemoryManager
) -> Placement:
    """Link objects as one graph, up to finalization of its memory.

    Args:
        objects: the objects.
        addressing: addresses of sections and external symbols.
        memory: memory manager for these addresses; the memory is released at the end.

    Raises:
        Refused: jitlink refuses them.
    """
    elves = [ElfFile(each.data) for each in objects]
    architecture, tls = ARCHITECTURES[elves[0].machine], None
    if architecture.tls is not None:
        memory.link_only()
        assert memory.tls is not None
        abi = TLSABI(lambda _spec: b"", tcb_size=0, dtp_bias=architecture.tls.bias)
        tls = _TLS(memory.tls, abi, addressing.base, _external_variables(elves))
    far = frozenset[str]()
    if addressing.far is not None:
        far = _reachable_from_anywhere(elves)
    context = _Context(addressing, far, tls.variables if tls else {})
    recorder: _Recorder | None = None
    try:
        builder = InputReader()
        builder.add([InputFile(each.name, memoryview(each.data)) for each in objects])
        builder.resolver.finish()
        graph = builder.resolver.graph
        passes = builder.target.configure(graph)
        if architecture.configure is not None:
            architecture.configure(passes)
        recorder = _Recorder(elves, passes, tls)
        run_in_process(link(graph, context, recorder.passes, memory))
    except JITLinkError as error:
        raise Refused(error) from error
    except _Recorded:
        pass
    assert recorder is not None
    assert recorder.placement is not None
    recorder.placement.externals = context.addresses
    recorder.placement.far = far
    recorder.placement.external_variables = tls.placed if tls else {}
    return recorder.placement


def _external_variables(elves: Sequence[ElfFile]) -> list[str]:
    """Names of the thread-local symbols that no object defines."""
    symbols = [each for elf in elves for each in elf.symbols if each.name]
    defined = {each.name for each in symbols if each.shndx}
    undefined = {each.name for each in symbols if not each.shndx and each.type == STT_TLS}
    return sorted(undefined - defined)


def _reachable_from_anywhere(elves: Sequence[ElfFile]) -> frozenset[str]:
    """External symbols of which every reference is in range of any address."""
    candidates: set[str] = set()
    bound: set[str] = set()
    for elf in elves:
        reaches_any_address = ARCHITECTURES[elf.machine].reaches_any_address
        undefined = {n: s for n, s in enumerate(elf.symbols) if s.shndx == 0 and s.name}
        candidates |= {symbol.name for symbol in undefined.values()}
        bound |= {symbol.name for symbol in undefined.values() if symbol.visibility}
        for section in elf.sections:
            for each in elf.relocations(section):
                # ld.lld emits no dynamic relocations for sections that are not loaded.
                anywhere = section.is_allocated and reaches_any_address(each.type)
                if each.symbol in undefined and not anywhere:
                    bound.add(undefined[each.symbol].name)
    return frozenset(candidates - bound)
