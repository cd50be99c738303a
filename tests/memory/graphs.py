"""Graphs to allocate, and functions that inspect their memory."""

from __future__ import annotations

from collections.abc import Coroutine
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np

from jitlink.graph import LinkGraph, MemLifetime, MemProt, Section
from jitlink.memory import mapping
from tests.machine_code import returning
from tests.toolchain import MACHINE

T = TypeVar("T")

READ = MemProt.READ
READ_WRITE = MemProt.READ | MemProt.WRITE
READ_EXEC = MemProt.READ | MemProt.EXEC
FINALIZE = MemLifetime.FINALIZE
NO_ALLOC = MemLifetime.NO_ALLOC

RETURN_42 = returning(42)


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that must not suspend."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    raise AssertionError("the coroutine suspended")


def empty_graph() -> LinkGraph:
    """A graph without sections."""
    return LinkGraph("test.o", f"{MACHINE}-unknown-linux-gnu")


def add_section(
    graph: LinkGraph, prot: MemProt, lifetime: MemLifetime = MemLifetime.STANDARD
) -> Section:
    """A section with a new name."""
    return graph.create_section(f".s{graph.sections_size}", prot, lifetime)


def small_graph() -> LinkGraph:
    """Code that returns 42, a constant, a variable and some zeros."""
    graph = empty_graph()
    code, constants, data = (add_section(graph, prot) for prot in (READ_EXEC, READ, READ_WRITE))
    function = graph.create_content_block(code, RETURN_42, alignment=16)
    graph.add_defined_symbol(function, 0, "answer", is_callable=True)
    graph.create_content_block(constants, b"constant", alignment=4)
    graph.create_content_block(data, b"variable", alignment=8)
    graph.create_zero_fill_block(data, 5000, alignment=32)
    return graph


def state(graph: LinkGraph) -> list[list[int]]:
    """What an allocation changes in a graph."""
    table = graph.block_table
    return [table.address.tolist(), table.content.tolist()]


def check_blocks(graph: LinkGraph, contents: list[bytes | None]) -> None:
    """Check that all blocks are aligned and disjoint, and have these contents (by row)."""
    table = graph.block_table
    spans = []
    for block in graph.blocks:
        if block.section.mem_lifetime == NO_ALLOC:
            continue
        assert (block.address - block.alignment_offset) % block.alignment == 0
        assert block.address + block.size <= graph.address_limit
        spans.append((block.address, block.address + block.size))
        expected = contents[block.row]
        assert block.is_zero_fill == (expected is None)
        if expected is not None:
            assert bytes(block.content) == expected
    spans.sort()
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert table.rows == len(contents)


def contents_of(graph: LinkGraph) -> list[bytes | None]:
    """The contents of all blocks (None: zero-fill), to be compared with later."""
    return [None if block.is_zero_fill else bytes(block.content) for block in graph.blocks]


def random_graph(seed: int, blocks: int) -> LinkGraph:
    """Blocks of many alignments, sizes and sections, from several buffers."""
    random = np.random.default_rng(seed)
    graph = empty_graph()
    prots = [(READ_EXEC, 0), (READ, 0), (READ_WRITE, 0), (READ_WRITE, 1), (READ, 2), (READ, 0)]
    sections = [add_section(graph, prot, MemLifetime(lifetime)) for prot, lifetime in prots]
    # Blocks that are adjacent in a buffer may or may not be adjacent in memory.
    ends = [graph.contents.add(random.bytes(60 * blocks + 1)) for _ in range(3)]
    for _ in range(blocks):
        section = sections[random.integers(len(sections))]
        alignment = int(1 << random.integers(8)) if random.integers(2) else 1
        offset = int(random.integers(alignment))
        size, address = int(random.integers(60)), int(random.integers(100))
        if random.integers(4) == 0:
            graph.create_zero_fill_block(section, size, address, alignment, offset)
            continue
        buffer = random.integers(len(ends))
        graph.block_table.extend(
            1,
            section=section.ordinal,
            content=ends[buffer],
            size=size,
            address=address,
            alignment=alignment,
            alignment_offset=offset,
        )
        ends[buffer] += size
    return graph


def accessible(ranges: list[tuple[int, int]]) -> list[tuple[int, int, str]]:
    """The accessible mappings (start, end, permissions) in some ranges."""
    # The kernel merges mappings in a range with those beside it.
    parts = [
        (max(start, mapped.start), min(end, mapped.end), mapped.permissions[:3])
        for mapped in mapping.mapped_ranges()
        for start, end in ranges
    ]
    return [part for part in parts if part[0] < part[1] and part[2] != "---"]


def permissions(address: int) -> str:
    """Permissions (``r-x``) of the mapping at an address."""
    return next(
        mapped.permissions[:3]
        for mapped in mapping.mapped_ranges()
        if mapped.start <= address < mapped.end
    )


def writable_and_executable() -> set[int]:
    """Addresses of mappings of this process that are both; an emulator has some of its own."""
    return {mapped.start for mapped in mapping.mapped_ranges() if "wx" in mapped.permissions}
