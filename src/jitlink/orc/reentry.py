"""The way back: how code that was linked calls into this process's Python to be told where to go.

There is one reentry for each process. Its machine code is linked once and never released,
because a thread may be in it at any time, whatever becomes of the session it came for.

What it is asked about is a number, the identity that a trampoline brings along. Each identity
has a `Continuation`, which runs on the thread that called and returns the address at which that
thread goes on. A continuation that fails must return an address all the same; if none is to be
had, the thread goes to the C library's ``abort``. Continuations belong to whoever registers them:
the reentry forgets those that nobody else holds.

A continuation is told the return address of the call, from which it can see whether Python
itself called: ctypes calls from one place only. Then, and only then, an exception can reach the
caller: `raise_in_caller` returns the address of code that returns zero after it has left the
exception with the interpreter, which raises it as soon as the call is over.

An interrupt (``KeyboardInterrupt``) that comes while native code waits in the reentry cannot be
raised there: the call goes on, and the interrupt comes when Python's main thread is back. Any other
exception that a signal handler raises there is taken for a failure of the call.

``errno`` is preserved, like all registers.
"""

from __future__ import annotations

import _thread
import ctypes
import functools
import itertools
import logging
import struct
import threading
from collections.abc import Mapping
from typing import Protocol
from weakref import WeakValueDictionary

from jitlink.errors import JITLinkError
from jitlink.graph import LinkGraph, MemProt, Scope, Symbol
from jitlink.link import JITLinkContext, link, run_in_process
from jitlink.memory import InProcessMemoryManager
from jitlink.memory.manager import JITLinkDylib
from jitlink.targets.base import ReentryCode, Target
from jitlink.targets.registry import default_passes

log = logging.getLogger("jitlink.orc")
_CODE = MemProt.READ | MemProt.EXEC
_Callback = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64, use_errno=True)
_MEASURE = 0
# How long an interrupt is held back that came while it could not be raised, in seconds.
_INTERRUPT_DELAY = 0.02


class Continuation(Protocol):
    """What says where a call goes on."""

    def go_on(self, caller: int) -> int:
        """From the return address of a call to the address at which it goes on."""


class _Pending(threading.local):
    """The exception that a thread is about to raise."""

    error: BaseException | None = None


_pending = _Pending()


class _Raised(BaseException):
    """Stands for the pending exception of a thread: to make one is to get that exception."""

    def __new__(cls) -> BaseException:  # type: ignore[misc]
        error, _pending.error = _pending.error, None
        return error or JITLinkError("a lazy call failed on another thread")


class Reentry:
    """The reentry of this process.

    Args:
        target: what the process's code is.
        code: the target's code for it.

    Attributes:
        code: the same.
        address: address of the reentry's machine code.
    """

    def __init__(self, target: Target, code: ReentryCode) -> None:
        self.code = code
        self._identities = itertools.count(_MEASURE + 1)
        self._continuations: WeakValueDictionary[int, Continuation] = WeakValueDictionary()
        self._callback = _Callback(self._enter)
        self._abort = _address_of(ctypes.CDLL(None).abort)
        symbols = _link(target, code, self._words(target))
        self.address, self._landing, trampoline = (symbol.address for symbol in symbols)
        self._python_caller = self._measure(trampoline)

    def _words(self, target: Target) -> Mapping[str, bytes]:
        """The two pieces of code, with the addresses in them."""
        form = "<" if target.byte_order == "little" else ">"
        form += "Q" if target.pointer_size == 8 else "I"
        reentry, landing = bytearray(self.code.reentry), bytearray(self.code.landing)
        callback = ctypes.cast(self._callback, ctypes.c_void_p).value
        struct.pack_into(form, reentry, self.code.callback_offset, callback)
        struct.pack_into(form, reentry, self.code.fallback_offset, self._abort)
        for name, offset in self.code.landing_imports.items():
            # CPython's objects are where their identities say.
            value = id(_Raised) if name == "exception" else _python_function(name)
            struct.pack_into(form, landing, offset, value)
        return {"reentry": bytes(reentry), "landing": bytes(landing)}

    def _measure(self, trampoline: int) -> int:
        """Call through the reentry, to see where ctypes calls from."""
        measurement = _Measurement()
        self._continuations[_MEASURE] = measurement
        ctypes.CFUNCTYPE(ctypes.c_ulong)(trampoline)()
        self.forget(_MEASURE)
        return measurement.caller

    def register(self, continuation: Continuation) -> int:
        """Give a continuation its identity, which no other one ever has had."""
        identity = next(self._identities)
        self._continuations[identity] = continuation
        return identity

    def forget(self, identity: int) -> None:
        """Drop a continuation; a call that is in it goes on."""
        self._continuations.pop(identity, None)

    def is_python(self, caller: int) -> bool:
        """Whether a call with that return address comes from Python itself."""
        return caller == self._python_caller

    def raise_in_caller(self, error: BaseException) -> int:
        """Where to go on to return zero to Python, and raise an exception there."""
        _pending.error = error
        return self._landing

    @property
    def abort(self) -> int:
        """Address of the C library's ``abort``."""
        return self._abort

    def _enter(self, identity: int, caller: int) -> int:
        number = ctypes.get_errno()
        try:
            while True:
                try:
                    return self._continue(identity, caller)
                except KeyboardInterrupt:
                    _interrupt_later()
        except BaseException as error:
            log.critical("a lazy call cannot go on: %s", error, exc_info=error)
            return self._abort
        finally:
            ctypes.set_errno(number)

    def _continue(self, identity: int, caller: int) -> int:
        continuation = self._continuations.get(identity)
        if continuation is not None:
            return continuation.go_on(caller)
        error = JITLinkError("the lazy function that was called has been removed")
        if not self.is_python(caller):
            raise error
        return self.raise_in_caller(error)


def _interrupt_later() -> None:
    """Interrupt Python's main thread when it has left the reentry, as it must before it can be."""
    timer = threading.Timer(_INTERRUPT_DELAY, _thread.interrupt_main)
    timer.daemon = True
    timer.start()


class _Measurement:
    """Goes on in a function that does nothing."""

    caller = 0

    def go_on(self, caller: int) -> int:
        self.caller = caller
        return _python_function("PyThread_get_thread_ident")


def reentry_of(target: Target) -> Reentry | None:
    """The reentry of this process, or None if its architecture has no code for it yet."""
    return None if target.reentry is None else _shared(target.triple, target, target.reentry)


_lock = threading.Lock()
_made: dict[str, Reentry] = {}


def _shared(triple: str, target: Target, code: ReentryCode) -> Reentry:
    with _lock:
        if triple not in _made:
            _made[triple] = Reentry(target, code)
        return _made[triple]


class _Context(JITLinkContext):
    """Links what refers to nothing outside."""

    dylib = JITLinkDylib("reentry")

    async def lookup(self, names: Mapping[str, bool]) -> Mapping[str, int]:
        raise JITLinkError(f"the reentry refers to {', '.join(names)}")


def _link(
    target: Target, code: ReentryCode, contents: Mapping[str, bytes]
) -> tuple[Symbol, Symbol, Symbol]:
    """Link the reentry, the landing, and a trampoline for one call that is a measurement."""
    graph = target.new_graph("<reentry>")
    section = graph.create_section("$__REENTRY", _CODE)

    def add(content: bytes) -> Symbol:
        block = graph.create_content_block(section, content, 0, code.alignment)
        return graph.add_anonymous_symbol(block, 0, len(content), is_live=True)

    reentry, landing = (add(content) for content in contents.values())
    identity = add(_MEASURE.to_bytes(graph.pointer_size, graph.endianness))
    trampoline = add(code.trampoline)
    for edges, symbol in ((code.identity_edges, identity), (code.reentry_edges, reentry)):
        for kind, offset, addend in edges:
            trampoline.block.add_edge(kind, offset, symbol, addend)
    memory = InProcessMemoryManager()
    alloc = run_in_process(link(graph, _Context(), default_passes(graph), memory))
    # The code stays for ever.
    alloc.release()
    return reentry, landing, trampoline


def _address_of(function: ctypes._FuncPointer) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


@functools.cache
def _python_function(name: str) -> int:
    return _address_of(getattr(ctypes.pythonapi, name))


def absolute(graph: LinkGraph, name: str, address: int) -> Symbol:
    """A symbol of a graph for code that is elsewhere in the process."""
    return graph.add_absolute_symbol(name, address, scope=Scope.LOCAL)
