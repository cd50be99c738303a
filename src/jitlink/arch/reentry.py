"""What an architecture's code for calls through stubs is made of.

A stub jumps through a pointer (`EntryKinds` says how). The pointer of a function that is not
linked yet leads to a *trampoline*, which notes which function it is and jumps to the process's
*reentry*. That saves whatever may hold arguments, asks a callback for the address of the
function, restores, and jumps there as if nothing had been. If there is no address, it may jump
to the *landing*, which raises a Python exception on the calling thread and returns zero.

All of it is position independent. An architecture adds one `ReentryCode`, a table of bytes and
offsets; nothing else about lazy functions knows an architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from jitlink.graph.edges import EdgeKind
from jitlink.passes.got_plt import EntryKinds

CodeEdges = tuple[tuple[EdgeKind, int, int], ...]


class Jump(NamedTuple):
    """A jump to a symbol, wherever that is.

    Attributes:
        content: the instructions; they change no register that holds an argument.
        edges: edges to the symbol: kind, offset, addend.
    """

    content: bytes
    edges: CodeEdges


class ReentryCode(NamedTuple):
    """Machine code and where the addresses go in it.

    Attributes:
        entries: what a stub and its pointer look like.
        trampoline: content of a trampoline.
        identity_edges: its edges to a pointer-sized word that tells it from others: kind,
            offset, addend.
        reentry_edges: its edges to the reentry.
        alignment: alignment of trampolines, reentry and landing in bytes.
        reentry: content of the reentry. The registers are as in the call of the stub, apart
            from those that linkage code may use, and the identity is where the trampoline
            has put it.
        callback_offset: where the address of the callback stands in the reentry. The callback
            takes the identity and the return address of the call, and returns where to go on.
        fallback_offset: where the address stands at which it goes on if that is null.
        landing: content of the landing: sets the exception, with the functions of Python's
            C interface in `landing_imports`, and returns zero in all registers that results
            are in.
        landing_imports: offsets in the landing of the addresses of those functions, by name,
            and of the exception's type, under the name ``exception``.
    """

    entries: EntryKinds
    trampoline: bytes
    identity_edges: CodeEdges
    reentry_edges: CodeEdges
    alignment: int
    reentry: bytes
    callback_offset: int
    fallback_offset: int
    landing: bytes
    landing_imports: Mapping[str, int]
