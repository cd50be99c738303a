"""Edge kinds and a graph for the tests of the graph."""

from __future__ import annotations

from jitlink.graph import EdgeKind, LinkGraph, MemProt


class Kind(EdgeKind):
    """Edge kinds of an architecture that does not exist."""

    INVALID = 0, "INVALID RELOCATION"
    KEEP_ALIVE = 1, "Keep-Alive"
    POINTER64 = 2, "Pointer64"
    DELTA32 = 3, "Delta32"


class OtherKind(EdgeKind):
    """Edge kinds of another architecture that does not exist."""

    INVALID = 0, "INVALID RELOCATION"
    KEEP_ALIVE = 1, "Keep-Alive"
    BRANCH26 = 2, "Branch26"


READ = MemProt.READ
READ_WRITE = MemProt.READ | MemProt.WRITE
READ_EXEC = MemProt.READ | MemProt.EXEC


def make_graph() -> LinkGraph:
    """An empty graph."""
    return LinkGraph("test.o", "x86_64-unknown-linux-gnu", edge_kinds=Kind)
