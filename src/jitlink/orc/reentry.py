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

In another process the callback is C code that has this process ask the continuation, on a thread of
its own. Python itself is the caller there if the call was made for a `RemoteFunction`, which raises
the exception.
"""

from __future__ import annotations

import _thread
import ctypes
import functools
import itertools
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol
from weakref import WeakKeyDictionary, WeakValueDictionary

from jitlink import tasks
from jitlink.errors import ExecutorError, JITLinkError
from jitlink.executor import ExecutorProcessControl
from jitlink.executor.callback_errors import report
from jitlink.graph import LinkGraph, MemProt, Scope, Symbol
from jitlink.host import c_library
from jitlink.link import JITLinkContext, link, run_in_process
from jitlink.logs import Log
from jitlink.memory import InProcessMemoryManager, JITLinkMemoryManager
from jitlink.memory.manager import JITLinkDylib
from jitlink.targets.base import EXCEPTION, LANDING_WORDS, ReentryCode, Target
from jitlink.targets.registry import default_passes

if TYPE_CHECKING:
    from jitlink.executor.emulated.calls import EmulatedCalls
    from jitlink.runtime.linked import Runtime

log = Log("jitlink.orc")
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


class Reentry(ABC):
    """The reentry of one executor.

    Attributes:
        code: the target's code for the reentry.
        address: address of the reentry's machine code.
        abort: address of the C library's ``abort``.
    """

    code: ReentryCode
    address: int
    abort: int

    def __init__(self) -> None:
        self._identities = itertools.count(_MEASURE + 1)
        self._continuations: WeakValueDictionary[int, Continuation] = WeakValueDictionary()

    def register(self, continuation: Continuation) -> int:
        """Assign a continuation its identity, which is never used again."""
        identity = next(self._identities)
        self._continuations[identity] = continuation
        return identity

    def deregister(self, identity: int) -> None:
        """Remove a continuation; a call that is in it continues."""
        self._continuations.pop(identity, None)

    @abstractmethod
    def is_python(self, caller: int) -> bool:
        """Whether a call with that return address was made by Python itself."""

    @abstractmethod
    def raise_in_caller(self, error: BaseException) -> int:
        """Have an exception raised in Python, whose call continues at the address returned."""

    def resume_address(self, identity: int, caller: int) -> int:
        """The address at which a call continues.

        Args:
            identity: that of the continuation.
            caller: return address of the call.
        """
        continuation = self._continuations.get(identity)
        if continuation is not None:
            return continuation.resume_address(caller)
        error = JITLinkError("the lazy function that was called has been removed")
        if not self.is_python(caller):
            raise error
        return self.raise_in_caller(error)

    def abort_after(self, error: BaseException) -> int:
        """Log why a call cannot continue; the address of ``abort``."""
        log.logger.critical("a lazy call cannot continue: %s", error, exc_info=error)
        return self.abort


class ProcessReentry(Reentry):
    """The reentry of this process.

    Args:
        target: the target of the process's code.
        code: the target's code for the reentry.
    """

    def __init__(self, target: Target, code: ReentryCode) -> None:
        super().__init__()
        self.code = code
        self._callback = _Callback(self._enter)
        self.abort = _address_of(c_library()["abort"])
        symbols = _link(target, code, self._contents(target))
        self.address, self._landing, trampoline = (symbol.address for symbol in symbols)
        self._python_caller = self._measure(trampoline)

    def _contents(self, target: Target) -> Mapping[str, bytes]:
        """The code of the reentry and of the landing, with the addresses filled in."""
        callback = ctypes.cast(self._callback, ctypes.c_void_p).value or 0
        # The identity of an object in CPython is its address.
        words = [
            id(_Raised) if name == EXCEPTION else _python_function(name) for name in LANDING_WORDS
        ]
        return {
            "reentry": _with_words(target, self.code.reentry, callback, self.abort),
            "landing": _with_words(target, self.code.landing, *words),
        }

    def _measure(self, trampoline: int) -> int:
        """The return address of ctypes' calls, measured by a call through the reentry."""
        measurement = _Measurement()
        self._continuations[_MEASURE] = measurement
        ctypes.CFUNCTYPE(ctypes.c_ulong)(trampoline)()
        self.deregister(_MEASURE)
        return measurement.caller

    def is_python(self, caller: int) -> bool:
        """Whether ctypes made a call."""
        return caller == self._python_caller

    def raise_in_caller(self, error: BaseException) -> int:
        """The address of code that returns zero to Python and raises an exception there."""
        _pending.error = error
        return self._landing

    def _enter(self, identity: int, caller: int) -> int:
        number = ctypes.get_errno()
        try:
            while True:
                try:
                    return self.resume_address(identity, caller)
                except KeyboardInterrupt:
                    _interrupt_later()
        except BaseException as error:  # noqa: BLE001 - the call must continue somewhere
            return self.abort_after(error)
        finally:
            ctypes.set_errno(number)


class RemoteReentry(Reentry):
    """The reentry of an executor that is not this process: its callback asks this one.

    Args:
        code: the target's code for the reentry.
        address: address of the reentry's machine code.
        abort: address of ``abort``.
        python_caller: the return address of calls from Python.
        return_zero: address of code that returns zero.
    """

    def __init__(
        self, code: ReentryCode, address: int, abort: int, python_caller: int, return_zero: int
    ) -> None:
        super().__init__()
        self.code, self.address, self.abort = code, address, abort
        self._python_caller, self._return_zero = python_caller, return_zero

    def is_python(self, caller: int) -> bool:
        """Whether a call was made for a `RemoteFunction`."""
        return caller == self._python_caller

    def raise_in_caller(self, error: BaseException) -> int:
        """Record an exception for the call; the address of code that returns zero."""
        report(error)
        return self._return_zero

    def resume(self, identity: int, caller: int) -> int:
        """The address at which a call continues, whatever happens."""
        try:
            return self.resume_address(identity, caller)
        except BaseException as error:  # noqa: BLE001 - the call must continue somewhere
            return self.abort_after(error)


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


def reentry_of(target: Target, executor: ExecutorProcessControl) -> Reentry | None:
    """The reentry of an executor, or None if its architecture has no code for it.

    Raises:
        ExecutorError: code of the executor cannot call this process.
    """
    if target.reentry is None:
        return None
    if not executor.is_this_process:
        return tasks.run(_remote(target, target.reentry, executor))
    with _lock:
        if target.triple not in _reentries:
            _reentries[target.triple] = ProcessReentry(target, target.reentry)
        return _reentries[target.triple]


_lock = threading.Lock()
_reentries: dict[str, Reentry] = {}
_remote_reentries: WeakKeyDictionary[Runtime, RemoteReentry] = WeakKeyDictionary()
_direct_reentries: WeakKeyDictionary[EmulatedCalls, RemoteReentry] = WeakKeyDictionary()


async def _remote(
    target: Target, code: ReentryCode, executor: ExecutorProcessControl
) -> RemoteReentry:
    from jitlink.runtime.remote_callbacks import remote_callbacks_of  # noqa: PLC0415 - not here

    direct = executor.direct_calls
    if direct is not None:
        return await _direct(target, code, executor, direct)
    callbacks = await remote_callbacks_of(executor)
    runtime = callbacks.runtime
    found = _remote_reentries.get(runtime)
    if found is None:
        (abort,) = await executor.lookup_symbols(["abort"])
        if abort is None:
            raise ExecutorError("the executor has no function abort")
        resume = runtime.addresses["__jitlink_resume"]
        address = await _link_reentry(target, code, executor, resume, abort)
        caller = runtime.addresses["__jitlink_call_return"]
        return_zero = runtime.addresses["__jitlink_return_zero"]
        created = RemoteReentry(code, address, abort, caller, return_zero)
        found = _remote_reentries.setdefault(runtime, created)
        callbacks.resume = found.resume
    return found


async def _direct(
    target: Target, code: ReentryCode, executor: ExecutorProcessControl, calls: EmulatedCalls
) -> RemoteReentry:
    """The reentry of an executor that calls this process without any code there."""
    from jitlink.abi.callbacks import HostFunction  # noqa: PLC0415 - not in this process

    found = _direct_reentries.get(calls)
    if found is None:

        def resume(identity: int, caller: int) -> int:
            return _direct_reentries[calls].resume(identity, caller)

        results = calls.convention.integer_results, calls.convention.float_results
        zeros = HostFunction((0, 0, 0), results, lambda _words: [0] * sum(results))
        abort, return_zero = calls.add_abort(), calls.add_host_function(zeros)
        callback = calls.add_word_function(2, resume)
        address = await _link_reentry(target, code, executor, callback, abort)
        caller = calls.processor.return_address
        found = RemoteReentry(code, address, abort, caller, return_zero)
        _direct_reentries[calls] = found
    return found


async def _link_reentry(
    target: Target, code: ReentryCode, executor: ExecutorProcessControl, resume: int, abort: int
) -> int:
    """Link the machine code of a reentry; its address."""
    content = _with_words(target, code.reentry, resume, abort)
    graph, reentry = _graph(target, code, {"reentry": content})
    await _link_forever(graph, executor.memory_manager)
    return reentry[0].address


class _Context(JITLinkContext):
    """Links a graph without external symbols."""

    dylib = JITLinkDylib("reentry")

    async def lookup(self, names: Mapping[str, bool]) -> Mapping[str, int]:
        raise JITLinkError(f"the reentry refers to {', '.join(names)}")


def _with_words(target: Target, code: bytes, *words: int) -> bytes:
    """Machine code with the words that are to be at its end."""
    size, order = target.pointer_size, target.byte_order
    return code[: -size * len(words)] + b"".join(word.to_bytes(size, order) for word in words)


def _graph(
    target: Target, code: ReentryCode, contents: Mapping[str, bytes]
) -> tuple[LinkGraph, list[Symbol]]:
    """A graph of some code, and a symbol for each piece."""
    graph = target.new_graph("<reentry>")
    section = graph.create_section("$__REENTRY", _CODE)
    symbols = []
    for content in contents.values():
        block = graph.create_content_block(section, content, 0, code.alignment)
        symbols.append(graph.add_anonymous_symbol(block, 0, len(content), is_live=True))
    return graph, symbols


def _link(target: Target, code: ReentryCode, contents: Mapping[str, bytes]) -> list[Symbol]:
    """Link the reentry and the landing into this process, and a trampoline for the measurement."""
    identity = _MEASURE.to_bytes(target.pointer_size, target.byte_order)
    pieces = {**contents, "trampoline": code.trampoline, "identity": identity}
    graph, symbols = _graph(target, code, pieces)
    reentry, landing, trampoline, word = symbols
    for edges, symbol in ((code.identity_edges, word), (code.reentry_edges, reentry)):
        for kind, offset, addend in edges:
            trampoline.block.add_edge(kind, offset, symbol, addend)
    run_in_process(_link_forever(graph, InProcessMemoryManager()))
    return [reentry, landing, trampoline]


async def _link_forever(graph: LinkGraph, memory: JITLinkMemoryManager) -> None:
    """Link a graph that is never deallocated."""
    alloc = await link(graph, _Context(), default_passes(graph), memory)
    alloc.release()


def _address_of(function: ctypes._FuncPointer) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


@functools.cache
def _python_function(name: str) -> int:
    return _address_of(getattr(ctypes.pythonapi, name))


def absolute(graph: LinkGraph, name: str, address: int) -> Symbol:
    """Add an absolute symbol for code of the process to a graph."""
    return graph.add_absolute_symbol(name, address, scope=Scope.LOCAL)
