"""Machine code of an architecture for lazy calls: trampoline, reentry and landing.

A stub jumps through a pointer (see `GotPltSpec`). The pointer of a function that is not linked yet
points to a *trampoline*, which stores the identity of the function and jumps to the process's
*reentry*. The reentry saves all registers that may hold arguments, calls a callback for the address
of the function, restores the registers and jumps to that address. If the function cannot be linked,
the callback may return the address of the *landing*, which raises a Python exception on the calling
thread and returns zero.

Code of another process has no Python: there, the callback is C code that asks the controller, and
functions that Python implements lead to such code, too (`HostFunctionCode`).

All of the code is position independent. One `ReentryCode`, a table of bytes and offsets, is
everything that an architecture provides for lazy calls. The addresses that reentry and landing need
are words at their ends, in the same order for all architectures.
"""

from __future__ import annotations

from typing import NamedTuple

from jitlink.graph.edges import EdgeKind
from jitlink.passes.got_plt import GotPltSpec

CodeEdges = tuple[tuple[EdgeKind, int, int], ...]

EXCEPTION = "exception"
LANDING_WORDS = (
    "PyGILState_Ensure", "PyThread_get_thread_ident", EXCEPTION, "PyThreadState_SetAsyncExc",
    "PyGILState_Release",
)  # fmt: skip
"""What the words at the end of a landing are the addresses of: functions of Python's C interface,
and the type of the exception that it sets."""


class Jump(NamedTuple):
    """A jump to a symbol at any distance.

    Attributes:
        content: the instructions; they modify no register that holds an argument.
        edges: edges to the symbol: kind, offset, addend.
    """

    content: bytes
    edges: CodeEdges


class HostFunctionCode(NamedTuple):
    """Machine code of a function that another process implements.

    It loads the address of a record into a register that holds no argument, and jumps to the
    address in the record's first word.

    Attributes:
        content: the instructions.
        record_edges: edges to the record: kind, offset, addend.
        alignment: in bytes.
    """

    content: bytes
    record_edges: CodeEdges
    alignment: int


class ReentryCode(NamedTuple):
    """Machine code, and the offsets of the addresses in it.

    Attributes:
        got_plt: the stub and its pointer.
        trampoline: content of a trampoline.
        identity_edges: its edges to the pointer-sized word that holds its identity: kind, offset,
            addend.
        reentry_edges: its edges to the reentry.
        alignment: alignment of trampolines, reentry and landing in bytes.
        reentry: content of the reentry. On entry the registers are as in the call of the stub,
            except those that the ABI lets linkage code change; the identity is where the
            trampoline has stored it. Its last two words are the address of the callback, and the
            address to jump to if that returns null. The arguments of the callback are the identity
            and the return address of the call; it returns the address to jump to.
        landing: content of the landing. It sets the exception, and returns zero in all result
            registers. Its last words are `LANDING_WORDS`.
    """

    got_plt: GotPltSpec
    trampoline: bytes
    identity_edges: CodeEdges
    reentry_edges: CodeEdges
    alignment: int
    reentry: bytes
    landing: bytes
