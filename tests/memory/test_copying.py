"""Copies of contents to memory: as few as possible, and the same bytes as one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from jitlink.arch.x86_64 import X86_64EdgeKind
from jitlink.graph import Block, BlockFlags
from jitlink.graph.edges import KEEP_ALIVE
from jitlink.memory.copying import copy_contents, copy_unallocated_contents
from tests.memory.graphs import NO_ALLOC, READ, add_section, empty_graph


class _Counted:
    """Memory that counts the writes to it."""

    def __init__(self) -> None:
        self.copies = 0

    def __setitem__(self, where: slice, content: bytes) -> None:
        self.copies += 1


def test_contiguous_contents_of_one_buffer_are_one_copy() -> None:
    graph = empty_graph()
    first, second = graph.contents.add(bytes(16000)), graph.contents.add(bytes(160))
    references = np.concatenate((first + np.arange(0, 16000, 16), second + np.arange(0, 160, 16)))
    sizes = np.full(len(references), 16)
    memory: Any = _Counted()
    copy_contents(graph, references, sizes, memory, sizes.cumsum() - 16)
    assert memory.copies == 2


def test_contents_of_two_buffers_are_not_contiguous() -> None:
    """Although each piece is where the one before ends in the other buffer."""
    graph, size, count = empty_graph(), 16, 40
    buffers = [bytes([number]) * (size * count) for number in (1, 2)]
    bases = np.array([graph.contents.add(each) for each in buffers])
    places = np.arange(0, size * count, size)
    references = bases[np.arange(count) % 2] + places
    memory = bytearray(size * count)
    copy_contents(graph, references, np.full(count, size), memoryview(memory), places)
    assert memory == (b"\1" * size + b"\2" * size) * (count // 2)


@pytest.mark.parametrize("sizes", [(6,), (0, 1, 6, 7), (4095, 4096, 4097), range(1, 40)])
@pytest.mark.parametrize(("buffers", "count"), [(1, 20), (1, 21), (1, 500), (3, 300), (40, 4000)])
def test_copies_agree_with_those_of_single_pieces(
    sizes: range | tuple[int, ...], buffers: int, count: int
) -> None:
    """Pieces in any order, which share bytes of their buffers, with gaps between them."""
    random, graph = np.random.default_rng(count), empty_graph()
    bases = np.array([graph.contents.add(random.bytes(5000)) for _ in range(buffers)])
    size, order = random.choice(np.array(sizes), count), random.permutation(count)
    gaps = size + random.integers(0, 2, count)
    target, size = (gaps.cumsum() - gaps)[order], size[order]
    references = random.choice(bases, count) + random.integers(0, 5000 - size + 1)
    memory, expected = bytearray(int(gaps.sum())), bytearray(int(gaps.sum()))
    copy_contents(graph, references, size, memoryview(memory), target)
    for reference, each, to in zip(
        references.tolist(), size.tolist(), target.tolist(), strict=True
    ):
        expected[to : to + each] = graph.contents.view(reference, each)
    assert memory == expected


@pytest.mark.parametrize("others", [0, 40])
def test_unallocated_contents_with_fixups_are_copied(others: int) -> None:
    graph = empty_graph()
    loaded, debug = add_section(graph, READ), add_section(graph, READ, NO_ALLOC)
    graph.edge_kinds = X86_64EdgeKind
    for _ in range(others):
        graph.create_content_block(loaded, b"others")
    symbol = graph.add_external_symbol("target")

    def add(kind: int | None, flags: int = 0) -> Block:
        block = graph.create_content_block(debug, b"contents")
        if kind is not None:
            block.add_edge(kind, 0, symbol)
        graph.block_table.flags[block.row] |= flags
        return block

    kinds = (X86_64EdgeKind.POINTER64, KEEP_ALIVE, None)
    edited, kept, plain = (add(kind) for kind in kinds)
    add(X86_64EdgeKind.POINTER64, BlockFlags.REMOVED)
    constant = graph.create_content_block(loaded, b"constant")
    constant.add_edge(X86_64EdgeKind.POINTER64, 0, symbol)
    before = graph.block_table.content.tolist()
    copy_unallocated_contents(graph)
    changed = graph.block_table.content != before
    assert np.flatnonzero(changed).tolist() == [edited.row]
    reference, size = int(graph.block_table.content[edited.row]), edited.size
    view = graph.contents.view(reference, size)
    assert (bytes(view), view.readonly) == (b"contents", False)
    for block in (edited, kept, plain):
        graph.block_table.flags[block.row] |= np.uint8(BlockFlags.REMOVED)
    before = graph.block_table.content.tolist()
    copy_unallocated_contents(graph)
    assert graph.block_table.content.tolist() == before
