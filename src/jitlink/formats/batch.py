"""What every reader of relocatable objects takes and returns, whatever the container.

A reader works on a *batch*: a buffer (a mapped archive, a mapped object, small files read side by
side) with the positions of the objects in it. It appends sections, blocks, symbols and edges of all
of them to a graph; a `ReadObjects` says which rows of the graph's tables they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jitlink.graph.columns import Int64Array

_NO_ROWS = np.zeros(0, np.int64)


class Batch(NamedTuple):
    """Objects that lie in one buffer.

    Attributes:
        buffer: the bytes that hold all of them.
        names: display name of each object.
        starts: position of each object in the buffer (int64, shape (n,)).
        sizes: size of each object in bytes (int64, shape (n,)).
    """

    buffer: memoryview
    names: Sequence[str]
    starts: Int64Array
    sizes: Int64Array


class ComdatGroups(NamedTuple):
    """COMDAT groups and their members, which are blocks with the flag `BlockFlags.COMDAT`.

    Of the groups with one signature a link keeps the first.

    Attributes:
        signature: name reference of the signature of each group (int64).
        member_group: number of the group of each member, ascending (int64).
        member_block: block row of each member (int64).
    """

    signature: Int64Array
    member_group: Int64Array
    member_block: Int64Array


NO_COMDAT_GROUPS = ComdatGroups(_NO_ROWS, _NO_ROWS, _NO_ROWS)


class ReadObjects(NamedTuple):
    """What reading a batch has appended to a graph.

    Attributes:
        first_symbol: row of the first symbol of each object (int64); the symbols of one object
            follow each other.
        last_symbol: one past the last symbol row.
        first_block, first_edge: rows of the first block and the first edge.
        last_edge: one past the last edge row.
        comdats: the COMDAT groups.
        refers_to_itself: whether an object may refer to a name that it defines.
    """

    first_symbol: Int64Array
    last_symbol: int
    first_block: int
    first_edge: int
    last_edge: int
    comdats: ComdatGroups = NO_COMDAT_GROUPS
    refers_to_itself: bool = False
