"""How code that refers directly to what other libraries define is linked, if that is far away."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jitlink.graph import LinkGraph
from jitlink.graph.edges import EdgeKind
from jitlink.passes.got_plt import GotPltSpec


class OutOfLine(NamedTuple):
    """Code that does elsewhere what an instruction does.

    Attributes:
        start: offset of the instruction in its block.
        end: offset of the instruction behind it.
        addend: what is added to the address of the edge's target.
        code: the code.
        pointer: offset in it of the distance to a pointer with that sum.
        back: offset in it of the distance to the instruction behind.
    """

    start: int
    end: int
    addend: int
    code: bytes
    pointer: int
    back: int


class DirectAccess(NamedTuple):
    """Direct references of an architecture's code to symbols of other libraries.

    Attributes:
        kinds: edge kinds that hold an address or a distance in fewer bits than a pointer has, and
            are not of branches.
        got_plt: the stubs that are canonical PLT entries.
        out_of_line: code to execute in place of the instruction of an edge, given by its row in a
            graph; None if it cannot be replaced.
        distance: edge kind of distances in that code, which count from the end of the field.
        jump: a jump from the place of the instruction, without its distance, which is 4 bytes.
        filler: fills the rest of the place of the instruction.
    """

    kinds: tuple[EdgeKind, ...]
    got_plt: GotPltSpec
    out_of_line: Callable[[LinkGraph, int], OutOfLine | None]
    distance: EdgeKind
    jump: bytes
    filler: bytes
