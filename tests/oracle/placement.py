"""Links one object with jitlink, without running anything of it, and records what came out."""

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jitlink.errors import JITLinkError, UnsupportedRelocationError
from jitlink.graph import Block, BlockFlags, LinkGraph, MemLifetime, Scope, Symbol
from jitlink.link import JITLinkContext, PassConfiguration, link, run_in_process
from jitlink.memory.slab import SlabMemoryManager
from jitlink.passes.entries import STUBS_SECTION
from jitlink.targets.registry import create_link_graph, default_passes
from tests.oracle.elf_file import ElfFile, ElfSection
from tests.oracle.memory import Memory

EH_FRAME = ".eh_frame"
EXTERNAL_SPACING = 16


@dataclass(frozen=True)
class Addresses:
    """Where things go.

    Attributes:
        base: where the object's sections begin.
        size: how much room there is for them, in bytes.
        externals: address of the first external symbol; the others follow.
    """

    base: int
    size: int
    externals: int

    @property
    def end(self) -> int:
        """Where the room for sections ends."""
        return self.base + self.size


class PlacedSection(NamedTuple):
    """A section of the object and what became of it; `content` is None for zero-fill."""

    section: ElfSection
    address: int
    content: bytes | None


@dataclass
class Placement:
    """An object, linked by jitlink but not run.

    Attributes:
        sections: all its sections that are linked, in the object's order.
        externals: addresses of the symbols that were looked up; one that is 0 is undefined.
        symbols: addresses of the global symbols that the object defines.
        memory: what would be at which address.
        frames: address range of `.eh_frame`, or None.
    """

    sections: list[PlacedSection]
    externals: Mapping[str, int]
    symbols: Mapping[str, int]
    memory: Memory
    frames: range | None


class Refused(Exception):  # noqa: N818 - no error: an outcome that is counted
    """jitlink does not link the object.

    Attributes:
        reason: name of the relocation type that it does not link, or else of the error.
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
    """Gives externals addresses one after the other; half of the weak ones are undefined."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.addresses: dict[str, int] = {}

    async def lookup(self, names: Mapping[str, bool]) -> Mapping[str, int]:
        place = self.first
        for name, required in names.items():
            defined = required or zlib.crc32(name.encode()) & 1
            self.addresses[name] = place if defined else 0
            place += EXTERNAL_SPACING
        return self.addresses


class _Recorder:
    """Passes that keep everything alive, and record what the link made of it."""

    def __init__(self, sections: list[ElfSection], passes: PassConfiguration) -> None:
        self.sections = sections
        self.passes = passes
        self.blocks: list[Block] = []
        self.placement: Placement | None = None
        passes.pre_prune.insert(0, self.keep_all)
        passes.post_fixup.append(self.record)

    def keep_all(self, graph: LinkGraph) -> None:
        """Mark all blocks live; the reader has just made one for each section, in order."""
        self.blocks = list(graph.blocks)
        for section, block in zip(self.sections, self.blocks, strict=False):
            # Compressed sections have grown.
            if not section.flags & 0x800:
                assert (section.name, section.size) == (block.section.name, block.size)
        graph.block_table.flags[:] |= np.uint8(BlockFlags.LIVE)

    def record(self, graph: LinkGraph) -> None:
        """Record addresses and contents, and stop the link."""
        placed = [
            PlacedSection(section, block.address, _content(block))
            for section, block in zip(self.sections, self.blocks, strict=False)
        ]
        frames = graph.find_section_by_name(EH_FRAME)
        has_frames = frames is not None and not frames.empty
        memory = Memory.of(
            (block.address, bytes(block.content))
            for block in graph.blocks
            if block.section.mem_lifetime != MemLifetime.NO_ALLOC and not block.is_zero_fill
        )
        memory.got = self.passes.got_address(graph)
        memory.indirect = _indirect_pointers(graph)
        stubs = graph.find_section_by_name(STUBS_SECTION)
        if stubs is not None and not stubs.empty:
            memory.made.append(_span(list(stubs.blocks)))
        self.placement = Placement(
            placed,
            {},
            {s.name: s.address for s in graph.defined_symbols if _is_global(s)},
            memory,
            _span(list(frames.blocks)) if frames is not None and has_frames else None,
        )
        raise _Recorded


def _content(block: Block) -> bytes | None:
    return None if block.is_zero_fill else bytes(block.content)


def _span(blocks: list[Block]) -> range:
    return range(
        min(block.address for block in blocks),
        max(block.address + block.size for block in blocks),
    )


def _is_global(symbol: Symbol) -> bool:
    return symbol.has_name and symbol.scope != Scope.LOCAL


def _indirect_pointers(graph: LinkGraph) -> dict[int, int]:
    """Resolver by pointer, as the allocation action that would call resolvers is told them."""
    pointers: dict[int, int] = {}
    for action in graph.alloc_actions:
        if action.finalize is not None and callable(action.finalize.arguments):
            for resolver, pointer in struct.iter_unpack("<QQ", action.finalize.arguments()):
                pointers[pointer] = resolver
    return pointers


def place(
    data: bytes, name: str, addresses: Addresses, memory: SlabMemoryManager
) -> tuple[ElfFile, Placement]:
    """Link an object up to the point where its memory would be finalized.

    Args:
        data: the object.
        name: display name.
        addresses: where its sections and the symbols that it lacks are.
        memory: memory at those addresses; it is given back.

    Raises:
        Refused: jitlink does not link it.
    """
    elf = ElfFile(data)
    context = _Context(addresses.externals)
    try:
        graph = create_link_graph(data, name)
        passes = default_passes(graph)
        recorder = _Recorder([each for each in elf.sections if each.is_linked], passes)
        run_in_process(link(graph, context, passes, memory))
    except JITLinkError as error:
        raise Refused(error) from error
    except _Recorded:
        pass
    assert recorder.placement is not None
    recorder.placement.externals = context.addresses
    return elf, recorder.placement
