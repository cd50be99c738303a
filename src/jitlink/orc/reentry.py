"""The reentry: machine code through which a call of a trampoline asks Python where to continue.

There is one reentry for each process. Its machine code is linked once and never deallocated,
because a thread may execute it at any time, even after the end of its session.

A trampoline passes a number, its identity, to the reentry. Each identity has a `Continuation`,
which runs on the calling thread and returns the address at which that thread continues. A
continuation that fails must return an address all the same; if it raises an exception, the thread
continues in the C library's ``abort``. The reentry has only weak references to continuations.

A continuation gets the return address of the call, which shows whether Python itself has called:
ctypes calls from one address only. Then, and only then, an exception can reach the caller:
`raise_in_caller` returns the address of code that returns zero after it has set the exception in
the interpreter, which raises it as soon as the call returns.

A ``KeyboardInterrupt`` that occurs while native code waits in the reentry cannot be raised there:
the call continues, and the interrupt is raised when Python's main thread has left the reentry. Any
other exception that a signal handler raises there counts as a failure of the call.

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
# Seconds until an interrupt that could not be raised is raised again.
_INTERRUPT_DELAY = 0.02


class Continuation(Protocol):
    """Decides where a call continues."""

    def resume_address(self, caller: int) -> int:
        """The address at which a call continues; `caller` is its return address."""


class _Pending(threading.local):
    """The exception that a thread is about to raise."""

    error: BaseException | None = None


_pending = _Pending()


class _Raised(BaseException):
    """Constructing one returns the pending exception of the thread instead."""

    def __new__(cls) -> BaseException:  # type: ignore[misc]
        error, _pending.error = _pending.error, None
        return error or JITLinkError("a lazy call failed on another thread")


class Reentry:
    """The reentry of this process.

    Args:
        target: the target of the process's code.
        code: the target's code for the reentry.

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
        symbols = _link(target, code, self._contents(target))
        self.address, self._landing, trampoline = (symbol.address for symbol in symbols)
        self._python_caller = self._measure(trampoline)

    def _contents(self, target: Target) -> Mapping[str, bytes]:
        """The code of the reentry and of the landing, with the addresses filled in."""
        word = "<" if target.byte_order == "little" else ">"
        word += "Q" if target.pointer_size == 8 else "I"
        reentry, landing = bytearray(self.code.reentry), bytearray(self.code.landing)
        callback = ctypes.cast(self._callback, ctypes.c_void_p).value
        struct.pack_into(word, reentry, self.code.callback_offset, callback)
        struct.pack_into(word, reentry, self.code.fallback_offset, self._abort)
        for name, offset in self.code.landing_imports.items():
            # The identity of an object in CPython is its address.
            value = id(_Raised) if name == "exception" else _python_function(name)
            struct.pack_into(word, landing, offset, value)
        return {"reentry": bytes(reentry), "landing": bytes(landing)}

    def _measure(self, trampoline: int) -> int:
        """The return address of ctypes' calls, measured by a call through the reentry."""
        measurement = _Measurement()
        self._continuations[_MEASURE] = measurement
        ctypes.CFUNCTYPE(ctypes.c_ulong)(trampoline)()
        self.deregister(_MEASURE)
        return measurement.caller

    def register(self, continuation: Continuation) -> int:
        """Assign a continuation its identity, which is never used again."""
        identity = next(self._identities)
        self._continuations[identity] = continuation
        return identity

    def deregister(self, identity: int) -> None:
        """Remove a continuation; a call that is in it continues."""
        self._continuations.pop(identity, None)

    def is_python(self, caller: int) -> bool:
        """Whether a call with that return address was made by Python itself."""
        return caller == self._python_caller

    def raise_in_caller(self, error: BaseException) -> int:
        """The address of code that returns zero to Python and raises an exception there."""
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
            log.critical("a lazy call cannot continue: %s", error, exc_info=error)
            return self._abort
        finally:
            ctypes.set_errno(number)

    def _continue(self, identity: int, caller: int) -> int:
        continuation = self._continuations.get(identity)
        if continuation is not None:
            return continuation.resume_address(caller)
        error = JITLinkError("the lazy function that was called has been removed")
        if not self.is_python(caller):
            raise error
        return self.raise_in_caller(error)


def _interrupt_later() -> None:
    """Interrupt Python's main thread after a delay, when it may have left the reentry."""
    timer = threading.Timer(_INTERRUPT_DELAY, _thread.interrupt_main)
    timer.daemon = True
    timer.start()


class _Measurement:
    """Records the return address, and continues in a function without effect."""

    caller = 0

    def resume_address(self, caller: int) -> int:
        self.caller = caller
        return _python_function("PyThread_get_thread_ident")


def reentry_of(target: Target) -> Reentry | None:
    """The reentry of this process, or None if its architecture has no code for it."""
    return None if target.reentry is None else _shared(target.triple, target, target.reentry)


_lock = threading.Lock()
_reentries: dict[str, Reentry] = {}


def _shared(triple: str, target: Target, code: ReentryCode) -> Reentry:
    with _lock:
        if triple not in _reentries:
            _reentries[triple] = Reentry(target, code)
        return _reentries[triple]


class _Context(JITLinkContext):
    """Links a graph without external symbols."""

    dylib = JITLinkDylib("reentry")

    async def lookup(self, names: Mapping[str, bool]) -> Mapping[str, int]:
        raise JITLinkError(f"the reentry refers to {', '.join(names)}")


def _link(
    target: Target, code: ReentryCode, contents: Mapping[str, bytes]
) -> tuple[Symbol, Symbol, Symbol]:
    """Link the reentry, the landing, and a trampoline for the measurement."""
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
    # The code is never deallocated.
    alloc.release()
    return reentry, landing, trampoline


def _address_of(function: ctypes._FuncPointer) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


@functools.cache
def _python_function(name: str) -> int:
    return _address_of(getattr(ctypes.pythonapi, name))


def absolute(graph: LinkGraph, name: str, address: int) -> Symbol:
    """Add an absolute symbol for code of the process to a graph."""
    return graph.add_absolute_symbol(name, address, scope=Scope.LOCAL)
