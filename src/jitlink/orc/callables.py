"""Calls between Python and linked code, in both directions, with ctypes types.

`PythonSymbols` defines functions that are implemented in Python; `ExecutorAddr` is an address that
Python can call. An exception in a Python function cannot pass through C code. The C code continues
with a result of zero; when the innermost call from Python into linked code through an
`ExecutorAddr` on that thread returns, the exception is raised there. Exceptions that no such call
can raise go to `threading.excepthook`: one on a thread that C code started, in a call by other
means, or after another one in the same call.

Only code in this process can call Python.
"""

from __future__ import annotations

import ctypes
import gc
import inspect
import threading
import typing
from _ctypes import CFuncPtr  # The base of all foreign functions has no public name.
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from jitlink.errors import NotAFunctionError
from jitlink.executor import SelfExecutorProcessControl
from jitlink.memory.mapping import may_be_code
from jitlink.orc.errors import SessionError
from jitlink.orc.interface import (
    ExecutorSymbolDef,
    HostSymbol,
    JITSymbolFlags,
    MaterializationUnit,
    ResourceManager,
    ResourceTracker,
)

if TYPE_CHECKING:
    from jitlink.executor import ExecutorProcessControl
    from jitlink.orc.dylib import JITDylib
    from jitlink.orc.interface import Session
    from jitlink.orc.materialization import MaterializationResponsibility
    from jitlink.runtime.remote_calls import RemoteFunction

_FUNCFLAG_CDECL = 1
_CALLABLE = JITSymbolFlags.EXPORTED | JITSymbolFlags.CALLABLE
_ABSOLUTE = JITSymbolFlags.EXPORTED | JITSymbolFlags.ABSOLUTE


class _CallStack(threading.local):
    """The calls of linked code that a thread is in, each with the exception that it will raise."""

    def __init__(self) -> None:
        self.frames: list[list[BaseException]] = []


_calls = _CallStack()


class _Function(CFuncPtr):
    """A C function that takes any arguments, until its types are set."""

    _flags_ = _FUNCFLAG_CDECL
    _restype_ = ctypes.c_int


F = TypeVar("F", bound=CFuncPtr)


def function_at(
    address: int, executor: ExecutorProcessControl | None, kind: type[F]
) -> F | RemoteFunction:
    """A C function that takes any arguments, until its types are set.

    Args:
        address: its address.
        executor: the executor; None for this process.
        kind: class of functions of this process.

    Raises:
        ExecutorError: functions of the executor's architecture cannot be called.
    """
    if executor is None or isinstance(executor, SelfExecutorProcessControl):
        return kind(address)
    from jitlink.runtime.remote_calls import RemoteFunction  # noqa: PLC0415 - not in this process

    return RemoteFunction(executor, address)


class ExecutorAddr(int):
    """An address in an executor: an int that can be called.

    ``argtypes`` and ``restype`` are those of ctypes functions; without them a call takes and
    returns C ints. The address keeps nothing alive: a call after the code was removed, or the
    session ended, is as wrong as it is in C.
    """

    _function: Any
    _unproven: str | None

    def __new__(
        cls,
        address: int,
        executor: ExecutorProcessControl | None = None,
        *,
        unproven: str | None = None,
    ) -> Self:
        """Create an address.

        Args:
            address: the number.
            executor: where it is an address, by default in this process.
            unproven: name of the symbol at an address in this process, if that may be no function.
                The first call then checks that it is in executable memory.

        Raises:
            ValueError: the number is not an address.
        """
        if not 0 <= address < 1 << 64:
            raise ValueError(f"{address:#x} is not an address")
        self = super().__new__(cls, address)
        self._function = function_at(int(address), executor, _Function)
        self._unproven = unproven
        return self

    def __repr__(self) -> str:
        return f"<ExecutorAddr {int(self):#x}>"

    @property
    def argtypes(self) -> Sequence[type[Any]]:
        """Types of the parameters; empty for a function that takes any arguments."""
        types: Sequence[type[Any]] = self._function.argtypes or ()
        return types

    @argtypes.setter
    def argtypes(self, types: Sequence[type[Any]] | None) -> None:
        self._function.argtypes = types

    @property
    def restype(self) -> Callable[..., Any] | None:
        """Type of the result; None for a function that returns nothing."""
        kind: Callable[..., Any] | None = self._function.restype
        return kind

    @restype.setter
    def restype(self, kind: Callable[..., Any] | None) -> None:
        self._function.restype = kind

    def __call__(self, *arguments: object) -> Any:  # noqa: ANN401 - as its restype says
        """Call the function at the address.

        Raises:
            NotAFunctionError: the address is not in executable memory.
            BaseException: raised by a Python function that the code called.
        """
        if self._unproven is not None:
            if not may_be_code(self):
                advice = "from_address of a ctypes type accesses a variable in place"
                raise NotAFunctionError(self._unproven, self, advice)
            self._unproven = None
        return call_code(self._function, *arguments)


def call_code(function: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401 - as above
    """Call linked code through a ctypes function.

    Raises:
        BaseException: raised by a Python function that the code called.
    """
    frames = _calls.frames
    raised: list[BaseException] = []
    frames.append(raised)
    try:
        result = function(*arguments)
    finally:
        frames.pop()
    if raised:
        raise raised[0]
    return result


def has_raised() -> bool:
    """Whether this thread's call of linked code will raise an exception when it returns."""
    frames = _calls.frames
    return bool(frames and frames[-1])


@contextmanager
def callback_errors() -> Iterator[None]:
    """Raise, at the end of a ``with`` statement, what Python functions raise that code calls."""
    raised: list[BaseException] = []
    _calls.frames.append(raised)
    try:
        yield
    finally:
        _calls.frames.pop()
    if raised:
        raise raised[0]


def _report(error: BaseException) -> None:
    """Record an exception for the call that will raise it, or report it."""
    frames = _calls.frames
    if frames and not frames[-1]:
        frames[-1].append(error)
        return
    thread = threading.current_thread()
    threading.excepthook(
        threading.ExceptHookArgs((type(error), error, error.__traceback__, thread))
    )


def _callback(function: Callable[..., Any], prototype: type[Any]) -> CFuncPtr:
    """A C function that calls a Python function.

    Raises:
        TypeError: ctypes cannot make functions of this prototype.
    """
    result_type = prototype._restype_
    # The result of a failed function for C: zero bits, converted as ctypes does it.
    zero = None if result_type is None else getattr(result_type(), "value", None)

    def call(*arguments: object) -> object:
        try:
            result = function(*arguments)
            if result_type is None:
                return None
            # ctypes would not raise an error for a result of a wrong type.
            return result_type(result).value
        except BaseException as error:  # noqa: BLE001 - raised in the caller of the code
            _report(error)
            return zero

    callback: CFuncPtr = prototype(call)
    return callback


def _is_prototype(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, CFuncPtr)


def _wrapped_function(function: CFuncPtr) -> Callable[..., Any] | None:
    """The Python function that a decorated one calls; None if it is C code.

    ctypes has no attribute for it.
    """
    referents = gc.get_referents(function)
    if not any(type(referent).__name__ == "CThunkObject" for referent in referents):
        return None
    candidates = [
        referent for referent in referents if callable(referent) and not isinstance(referent, type)
    ]
    return candidates[0] if len(candidates) == 1 else None


def _annotated_prototype(name: str, function: Callable[..., Any]) -> type[Any]:
    """The prototype that annotations give."""
    try:
        hints = typing.get_type_hints(getattr(function, "__func__", function))
        parameters = list(inspect.signature(function).parameters)
    except (NameError, TypeError, ValueError) as error:
        raise TypeError(f"the C types of {name} are unknown: {error}") from error
    unknown = [parameter for parameter in [*parameters, "return"] if parameter not in hints]
    if unknown:
        raise TypeError(
            f"the C types of {name} are unknown: no annotation for {', '.join(unknown)}; "
            "give a pair of the function and its ctypes prototype instead"
        )
    # get_type_hints returns the type of None for None.
    result = None if hints["return"] is type(None) else hints["return"]
    try:
        return ctypes.CFUNCTYPE(result, *(hints[parameter] for parameter in parameters))
    except TypeError as error:
        raise TypeError(f"the annotations of {name} are not ctypes types: {error}") from error


def python_function(name: str, value: object) -> tuple[Callable[..., Any], type[Any]] | None:
    """The Python function that a name is defined as, and its prototype; None if it is C code.

    Raises:
        TypeError: C cannot call it.
    """
    function: object
    prototype: type[Any] | None
    if isinstance(value, tuple):
        function, prototype = value
    elif isinstance(value, CFuncPtr):
        prototype, function = type(value), _wrapped_function(value)
        if function is None:
            return None
    else:
        function, prototype = value, None
    if not callable(function):
        raise TypeError(
            f"{name} is defined as {function!r}, which is neither an address nor a function"
        )
    if prototype is None:
        prototype = _annotated_prototype(name, function)
    if not _is_prototype(prototype):
        raise TypeError(f"the prototype of {name} is {prototype!r}, not a ctypes function type")
    return function, prototype


def _host_function(name: str, value: object) -> tuple[int, object]:
    """Address of a function, and the object that must live as long.

    Raises:
        TypeError: C cannot call it.
    """
    typed = python_function(name, value)
    if typed is None:
        return ctypes.cast(cast("CFuncPtr", value), ctypes.c_void_p).value or 0, value
    function, prototype = typed
    try:
        callback = _callback(function, prototype)
    except (TypeError, ValueError) as error:
        raise TypeError(f"C code cannot call {name}: {error}") from error
    return ctypes.cast(callback, ctypes.c_void_p).value or 0, callback


class PythonSymbols(MaterializationUnit):
    """Addresses, and Python functions that linked code can call.

    A function lives as long as its definition: until its tracker is removed.

    Args:
        session: the session of the JITDylib.
        symbols: what to define, by name.

    Attributes:
        addresses: their addresses, by name.

    Raises:
        TypeError: a value is neither an address nor a function with known C types.
        ValueError: a number is not an address.
        SessionError: there are functions, and the session's executor is another process.
    """

    def __init__(self, session: Session, symbols: Mapping[str, HostSymbol]) -> None:
        self.name = "<Python>"
        self.addresses: dict[str, int] = {}
        self._functions: dict[str, object] = {}
        flags: dict[str, JITSymbolFlags] = {}
        for name, value in symbols.items():
            if isinstance(value, ExecutorSymbolDef):
                self.addresses[name], flags[name] = value
            elif isinstance(value, int):
                self.addresses[name], flags[name] = int(ExecutorAddr(value)), _ABSOLUTE
            else:
                self.addresses[name], self._functions[name] = _host_function(name, value)
                flags[name] = _CALLABLE
        self.symbols = flags
        if self._functions and not isinstance(session.executor, SelfExecutorProcessControl):
            names = ", ".join(self._functions)
            raise SessionError(f"code in another process cannot call Python: {names}")

    def discard(self, dylib: JITDylib, name: str) -> None:  # noqa: ARG002 - part of the interface
        """Drop an overridden definition."""
        self._functions.pop(name, None)

    async def materialize(self, responsibility: MaterializationResponsibility) -> None:
        """Report the addresses, and keep the functions alive from now on."""
        tracker = responsibility.tracker
        # An address may be that of a ctypes callback, too.
        resources = _function_resources(responsibility.session)
        resources.functions.setdefault(tracker, []).extend(self._functions.values())
        responsibility.notify_resolved(self.addresses)
        responsibility.notify_emitted()


class _FunctionResources(ResourceManager):
    """Keeps the functions alive that linked code may call, under the trackers that own them."""

    def __init__(self) -> None:
        self.functions: dict[ResourceTracker, list[object]] = {}

    def dylibs_that_call_python(self) -> Iterable[JITDylib]:
        """The JITDylibs in which Python has defined functions or addresses."""
        return {tracker.dylib for tracker in self.functions}

    async def handle_remove_resources(
        self,
        dylib: JITDylib,  # noqa: ARG002 - part of the interface
        key: ResourceTracker,
    ) -> None:
        """Release functions."""
        self.functions.pop(key, None)

    def handle_transfer_resources(
        self,
        dylib: JITDylib,  # noqa: ARG002
        destination: ResourceTracker,
        source: ResourceTracker,
    ) -> None:
        """Hold functions under another tracker."""
        moved = self.functions.pop(source, None)
        if moved:
            self.functions.setdefault(destination, []).extend(moved)


def _function_resources(session: Session) -> _FunctionResources:
    for manager in session.resource_managers:
        if isinstance(manager, _FunctionResources):
            return manager
    created = _FunctionResources()
    # Resources are released from the last manager to the first: code before what it calls.
    session.resource_managers.insert(0, created)
    return created
