"""Calls between Python and linked code, in both directions, with ctypes types.

`PythonSymbols` defines functions that are implemented in Python; `ExecutorAddr` is an address that
Python can call. An exception in a Python function cannot pass through C code: that continues with a
result of zero, and the exception is raised when the call from Python returns; see
`jitlink.executor.callback_errors`.

Code of another process calls Python through its connection (`jitlink.runtime.remote_callbacks`).
"""

from __future__ import annotations

import ctypes
import inspect
import typing
from _ctypes import CFuncPtr  # The base of all foreign functions has no public name.
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from jitlink import tasks
from jitlink.errors import NotAFunctionError
from jitlink.executor.callback_errors import call_code, reporting
from jitlink.memory.mapping import may_be_code
from jitlink.orc.interface import (
    ExecutorSymbolDef,
    HostSymbol,
    JITSymbolFlags,
    MaterializationUnit,
    Symbols,
)
from jitlink.orc.trackers import TrackedResources

if TYPE_CHECKING:
    from jitlink.executor import ExecutorProcessControl
    from jitlink.orc.dylib import JITDylib
    from jitlink.orc.interface import Session
    from jitlink.orc.materialization import MaterializationResponsibility
    from jitlink.runtime.remote_callbacks import LinkedHostFunctions
    from jitlink.runtime.remote_calls import RemoteFunction

_FUNCFLAG_CDECL = 1
_CALLABLE = JITSymbolFlags.EXPORTED | JITSymbolFlags.CALLABLE
_ABSOLUTE = JITSymbolFlags.EXPORTED | JITSymbolFlags.ABSOLUTE


T = TypeVar("T")


class _Function(CFuncPtr):
    """A C function that takes any arguments, until its types are set."""

    _flags_ = _FUNCFLAG_CDECL
    _restype_ = ctypes.c_int


F = TypeVar("F", bound=CFuncPtr)


def function_at(
    address: int,
    executor: ExecutorProcessControl | None,
    kind: type[F],
    generation: int | None = None,
) -> F | RemoteFunction:
    """A C function that takes any arguments, until its types are set.

    Args:
        address: its address.
        executor: the executor; None for this process.
        kind: class of functions of this process.
        generation: the executor's generation to which the address belongs; by default the present
            one.

    Raises:
        ExecutorError: functions of the executor's architecture cannot be called.
    """
    if executor is None or executor.is_this_process:
        return kind(address)
    from jitlink.runtime.remote_calls import RemoteFunction  # noqa: PLC0415 - not in this process

    return RemoteFunction(executor, address, generation)


class ExecutorAddr(int):
    """An address in an executor: an int that can be called.

    ``argtypes`` and ``restype`` are those of ctypes functions; without them a call takes and
    returns C ints. The address keeps nothing alive: a call after the code was removed, or the
    session ended, is as wrong as it is in C. Only that another executor was restarted is noticed,
    as an `ExecutorRestartedError`.

    Attributes:
        executor: where it is an address; None for this process.
    """

    executor: ExecutorProcessControl | None
    _function: Any
    _unproven: str | None

    def __new__(
        cls,
        address: int,
        executor: ExecutorProcessControl | None = None,
        *,
        unproven: str | None = None,
        generation: int | None = None,
    ) -> Self:
        """Create an address.

        Args:
            address: the number.
            executor: where it is an address, by default in this process.
            unproven: name of the symbol at an address in this process, if that may be no function.
                The first call then checks that it is in executable memory.
            generation: the executor's generation to which it belongs; by default the present one.

        Raises:
            ValueError: the number is not an address.
        """
        if not 0 <= address < 1 << 64:
            raise ValueError(f"{address:#x} is not an address")
        self = super().__new__(cls, address)
        self.executor = executor
        self._function = function_at(int(address), executor, _Function, generation)
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

    @property
    def timeout(self) -> float | None:
        """Seconds after which a call in another process is stopped; None for the executor's own."""
        seconds: float | None = getattr(self._function, "timeout", None)
        return seconds

    @timeout.setter
    def timeout(self, seconds: float | None) -> None:
        self._function.timeout = seconds

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


def _is_prototype(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, CFuncPtr)


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
        # Imported on use: links into this process need nothing else of calling conventions.
        from jitlink.abi.callbacks import wrapped_function  # noqa: PLC0415

        prototype, function = type(value), wrapped_function(value)
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


_Functions = dict[str, tuple[int, object]]
"""Address of each function for linked code, and an object that must live as long."""


def _own_functions(functions: Mapping[str, object]) -> _Functions:
    """Functions for code of this process.

    Raises:
        TypeError: C cannot call one of them.
    """
    found: _Functions = {}
    for name, value in functions.items():
        typed = python_function(name, value)
        callback = value if typed is None else _callable(name, *typed, _callback)
        address = ctypes.cast(cast("CFuncPtr", callback), ctypes.c_void_p).value
        found[name] = address or 0, callback
    return found


def _callback(function: Callable[..., Any], prototype: type[Any]) -> object:
    return prototype(reporting(function, prototype))


def _remote_functions(
    executor: ExecutorProcessControl, functions: Mapping[str, object]
) -> _Functions:
    """The same for code of another process; those of Python are released together.

    Raises:
        TypeError: C cannot call one of them, or only that of this process.
        ExecutorError: code of the executor cannot call Python.
    """
    # Imported on use: functions of this process need neither.
    from jitlink.runtime.remote_callbacks import callbacks_of  # noqa: PLC0415
    from jitlink.runtime.remote_calls import RemoteFunction, host_function  # noqa: PLC0415

    callees, found = {}, _Functions()
    for name, value in functions.items():
        if isinstance(value, RemoteFunction) and value.executor is executor:
            found[name] = value.address, None
            continue
        typed = None if isinstance(value, RemoteFunction) else python_function(name, value)
        if typed is None:
            raise TypeError(f"{name} is a C function of another process than the executor")
        callees[name] = _callable(name, *typed, partial(host_function, executor))

    async def link() -> LinkedHostFunctions:
        callbacks = await callbacks_of(executor)
        return await callbacks.link_functions(executor, list(callees.values()))

    if callees:
        linked = tasks.run(link())
        for name, address in zip(callees, linked.addresses, strict=True):
            found[name] = address, linked
    return found


def _callable(
    name: str,
    function: Callable[..., Any],
    prototype: type[Any],
    make: Callable[[Callable[..., Any], type[Any]], T],
) -> T:
    """What C code calls for a Python function.

    Raises:
        TypeError: C cannot call it.
    """
    try:
        return make(function, prototype)
    except (TypeError, ValueError) as error:
        raise TypeError(f"C code cannot call {name}: {error}") from error


def _is_lost(value: object, executor: ExecutorProcessControl) -> bool:
    """Whether something that a name is defined as is lost when an executor is restarted."""
    return getattr(value, "executor", None) is executor and getattr(value, "find", None) is None


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
        ExecutorError: there are functions, and code of the session's executor cannot call Python.
    """

    def __init__(self, session: Session, symbols: Mapping[str, HostSymbol]) -> None:
        self.name = "<Python>"
        self._session = session
        # Evaluated once more when the executor was restarted: a library then has other addresses.
        self._given: Mapping[str, HostSymbol] = {}
        if session.record is not None:
            self._given = dict(symbols) if isinstance(symbols, dict) else symbols
        self.addresses: dict[str, int] = {}
        functions: dict[str, object] = {}
        flags: dict[str, JITSymbolFlags] = {}
        for name, value in symbols.items():
            if isinstance(value, ExecutorSymbolDef):
                self.addresses[name], flags[name] = value
            elif isinstance(value, int):
                self.addresses[name], flags[name] = int(ExecutorAddr(value)), _ABSOLUTE
            else:
                functions[name], flags[name] = value, _CALLABLE
        self.symbols = flags
        self._functions: dict[str, object] = {}
        if functions:
            executor = session.executor
            is_here = executor.is_this_process
            found = _own_functions(functions) if is_here else _remote_functions(executor, functions)
            for name, (address, function) in found.items():
                self.addresses[name], self._functions[name] = address, function

    def discard(self, dylib: JITDylib, name: str) -> None:  # noqa: ARG002 - part of the interface
        """Release the function of a definition that was overridden or removed."""
        self._functions.pop(name, None)
        if isinstance(self._given, dict):
            self._given.pop(name, None)

    def restart_obstacles(self, symbols: Symbols) -> Iterable[str]:
        """Those that are addresses of the executor."""
        if not isinstance(self._given, dict):
            return []
        lost = [name for name in symbols if _is_lost(self._given[name], self._session.executor)]
        return [f"{name}, an address of the executor," for name in lost]

    def renewed(self, symbols: Symbols) -> PythonSymbols:
        """The same definitions."""
        return PythonSymbols(self._session, {name: self._given[name] for name in symbols})

    async def materialize(self, responsibility: MaterializationResponsibility) -> None:
        """Report the addresses, and keep the functions alive from now on."""
        # An address may be that of a ctypes callback, too.
        _python_symbols(responsibility.session).add(responsibility.tracker, self)
        responsibility.notify_resolved(self.addresses)
        responsibility.notify_emitted()


class _LinkedPythonSymbols(TrackedResources[PythonSymbols]):
    """Keeps the functions alive that linked code may call, under the trackers that own them."""

    def dylibs_that_call_python(self) -> Iterable[JITDylib]:
        """The JITDylibs in which Python has defined functions or addresses."""
        return {tracker.dylib for tracker in self.keys}


def _python_symbols(session: Session) -> _LinkedPythonSymbols:
    for manager in session.resource_managers:
        if isinstance(manager, _LinkedPythonSymbols):
            return manager
    created = _LinkedPythonSymbols()
    # Resources are released from the last manager to the first: code before what it calls.
    session.resource_managers.insert(0, created)
    return created
