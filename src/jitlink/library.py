"""`Library`: the functions and variables of linked code, as ctypes objects, and their life time.

Functions and variables keep the code that they belong to; it is freed with the last of them.
"""

from __future__ import annotations

import ctypes
import functools
import threading
import weakref
from _ctypes import CFuncPtr  # The base of all foreign functions has no public name.
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Self, TypeVar

from jitlink.errors import NotAFunctionError, SymbolError, UndefinedSymbolError
from jitlink.exports import Exports
from jitlink.lljit import LLJIT
from jitlink.memory.mapping import may_be_code
from jitlink.memory.tls import is_tls_address
from jitlink.orc import FailedToMaterializeError, JITDylib
from jitlink.orc.callables import function_at
from jitlink.orc.driver import is_collecting

FUNCFLAG_CDECL = 1

_Finder = Callable[[], tuple[int, int]]
CData = TypeVar("CData", bound="ctypes._CDataType")  # noqa: SLF001 - has no other name


class ClosedLibraryError(SymbolError):
    """A symbol of a library that is closed."""

    def __init__(self, name: str) -> None:
        super().__init__(f"library {name} is closed")


class SymbolSizeError(SymbolError):
    """A C type that is larger than the variable that it is to be used for.

    Attributes:
        name: the symbol.
        size: its size in bytes.
        type_size: size of the type in bytes.
    """

    def __init__(self, name: str, *, size: int, type_size: int) -> None:
        super().__init__(f"{name} has {size} bytes, and the type for it {type_size}")
        self.name, self.size, self.type_size = name, size, type_size


_shared: list[LLJIT] = []
_shared_lock = threading.Lock()


def shared_jit() -> LLJIT:
    """The session of all libraries of this process."""
    if not _shared:
        with _shared_lock:
            if not _shared:
                _shared.append(LLJIT())
    return _shared[0]


def is_shared(jit: LLJIT) -> bool:
    """Whether a session is the shared one, which is not created for that."""
    return bool(_shared) and jit is _shared[0]


class LinkedCode:
    """A JITDylib that is removed, with its memory, when this object is collected.

    Attributes:
        dylib: the JITDylib.
        executor: where it runs.
        session: the session that has linked it.
        is_remote: whether that is another process than this one.
        symbols: the addresses that it defines in another process, by name.
        kept_alive: an object that must live as long as the code.
    """

    def __init__(self, jit: LLJIT, dylib: JITDylib) -> None:
        self.session = jit.session
        self.executor = jit.session.executor
        self.is_remote = not self.executor.is_this_process
        self.symbols: Mapping[str, int] = {}
        self._layer, self.dylib = jit.layer, dylib
        self.kept_alive: object = None
        self._finalizer = weakref.finalize(self, _release, jit, dylib)
        # At the end of the process the platform runs finalisers, and memory is freed with it.
        self._finalizer.atexit = False

    def release(self) -> None:
        """Free the memory, after finalisers and deallocate actions; a second call does nothing.

        It does not wait for finalisers, which run on another thread.
        """
        self._finalizer()

    def tls_address(self, address: int) -> int:
        """Address of the calling thread's instance of a thread-local variable.

        Args:
            address: the address that represents the variable.

        Raises:
            TLSError: it represents no variable.
        """
        tls = self._layer.memory.tls
        return address if tls is None else tls.tls_address(address)

    def place(self, name: str) -> tuple[int, int]:
        """The generation of another process, and the address of a symbol there.

        Raises:
            UndefinedSymbolError: there is no such symbol.
            JITLinkError: the executor is to be restarted, and cannot be.
        """
        while True:
            generation = self.executor.generation
            self.session.check_executor()
            try:
                address = self.symbols[name]
            except KeyError:
                raise UndefinedSymbolError([name]) from None
            # Another thread may restart the executor.
            if generation == self.executor.generation:
                return generation, address

    def keep(self) -> None:
        """Never free the memory, and never run its deallocate actions."""
        self._layer.keep_memory(self.dylib)


def _release(jit: LLJIT, dylib: JITDylib) -> None:
    """Remove a JITDylib, or end its session if that is not shared."""
    if is_shared(jit):
        jit.session.discard_jitdylib(dylib)
    elif is_collecting():
        threading.Thread(target=jit.close, name="jitlink close", daemon=True).start()
    else:
        jit.close()


class Function(CFuncPtr):
    """A C function of a library; keeps the code that it calls alive."""

    _flags_ = FUNCFLAG_CDECL
    _restype_ = ctypes.c_int
    code: LinkedCode
    timeout: float | None = None
    """Of functions of other processes; nothing can stop a call in this one."""


class Library(Mapping[str, int]):
    """Linked code: a mapping of names to addresses, and an attribute per function.

    ``lib.add`` is a ctypes function, to be given ``argtypes`` and ``restype`` like one of a
    `ctypes.CDLL`; without those it takes and returns C ints. Every access gives the same
    object. The memory is freed when the library is closed or collected *and* no function or
    variable of it is alive.

    Attributes:
        name: display name.
        exports: the `definitions` for another link. The mapping itself gives the address of the
            calling thread's instance of a thread-local variable; this gives the address that
            represents the variable on all threads.
    """

    _function_type: ClassVar[type[Function]] = Function

    def __init__(
        self, name: str, code: LinkedCode, exports: Mapping[str, int], linked_files: list[str]
    ) -> None:
        self.name = name
        self._linked_files = linked_files
        self._code: LinkedCode | None = code
        self._exports = self._owned(exports)
        if code.is_remote:
            code.symbols = exports
            self._found = exports

    def __repr__(self) -> str:
        return f"<Library {self.name}>"

    @property
    def linked_files(self) -> list[str]:
        """Display names of the objects that were linked, in order."""
        return self._linked_files

    @property
    def exports(self) -> Mapping[str, int]:
        """The addresses of the code; none once the library is closed."""
        code = self._code
        if code is not None and code.is_remote:
            code.session.check_executor()
            if code.symbols is not self._found:
                # The executor was restarted.
                self._found = code.symbols
                self._exports = self._owned(code.symbols)
        return self._exports

    def _owned(self, exports: Mapping[str, int]) -> Mapping[str, int]:
        # A link that is given them keeps the code; the session, which has them, too, must not.
        return exports.owned_by(self._code) if isinstance(exports, Exports) else exports

    def restart_executor(self) -> None:
        """Start another process in place of the executor's, and link the library there again.

        Its functions and variables are found again, and the latter have their initial values. See
        `ExecutionSession.restart_executor`.

        Raises:
            ClosedLibraryError: the library is closed.
            NotRestartableError: something could not be linked again; nothing has happened.
            ExecutorError: the executor is this process, or cannot be started, or has ended again.
            JITLinkError: something could not be linked or initialised; the executor was restarted.
        """
        self._open_code().session.restart_executor()

    def __getitem__(self, name: str) -> int:
        address = self.exports[name]
        if is_tls_address(address):
            return self._open_code().tls_address(address)
        return address

    def __contains__(self, name: object) -> bool:
        return name in self.exports

    def __iter__(self) -> Iterator[str]:
        return iter(self.exports)

    def __len__(self) -> int:
        return len(self.exports)

    def address(self, name: str) -> int:
        """Address of a symbol that the library defines.

        For a thread-local variable it is that of the calling thread's instance.

        Raises:
            UndefinedSymbolError: it does not define the symbol.
            ClosedLibraryError: the library is closed.
        """
        self._open_code()
        try:
            return self[name]
        except KeyError:
            raise UndefinedSymbolError([name]) from None

    def function(self, name: str) -> Any:  # noqa: ANN401 - as its restype says
        """A new ctypes function for a symbol, independent of the attribute of that name.

        The symbol may be of any type, but is in executable memory.

        Raises:
            UndefinedSymbolError: the library defines no symbol of that name.
            NotAFunctionError: it is not in executable memory.
        """
        address = self.address(name)
        is_code = self._is_code(name)
        if is_code is None:
            # A call of data in another process is reported by that.
            is_code = self._open_code().is_remote or may_be_code(address)
        if not is_code:
            use = f'variable("{name}", TYPE)'
            raise NotAFunctionError(name, address, f"{use} accesses a variable in place")
        return self._function_at(name, address)

    def variable(self, name: str, ctype: type[CData]) -> CData:
        """A variable of the library, as a ctypes object in place.

        Of a library in another process it is a `RemoteVariable`, whose ``value`` is read and
        written there.

        Raises:
            UndefinedSymbolError: the library defines no symbol of that name.
            SymbolSizeError: the type is larger than the variable.
        """
        address, size = self.address(name), self._size(name)
        if 0 < size < ctypes.sizeof(ctype):
            raise SymbolSizeError(name, size=size, type_size=ctypes.sizeof(ctype))
        return self._variable_at(name, address, ctype)

    def _size(self, name: str) -> int:
        """Size of a symbol in bytes; 0 if it is not known."""
        return self.exports.size(name) if isinstance(self.exports, Exports) else 0

    def _is_code(self, name: str) -> bool | None:
        """Whether a symbol is in an executable section; None if no section is known."""
        exports = self.exports
        return exports.is_code(exports.row(name)) if isinstance(exports, Exports) else None

    def _finder(self, name: str) -> _Finder | None:
        """What finds a symbol in another process, whenever that was restarted; see `Placed.find`.

        It must not keep the library.
        """
        return functools.partial(self._open_code().place, name)

    def _placed(self, name: str, address: int) -> tuple[_Finder | None, int | None, int]:
        """The finder of a symbol in another process, and the generation and address it finds.

        Args:
            name: the symbol.
            address: its address, if there is no finder.
        """
        find = self._finder(name)
        generation, address = (None, address) if find is None else find()
        return find, generation, address

    def _function_at(self, name: str, address: int) -> Any:  # noqa: ANN401
        code = self._open_code()
        if not code.is_remote:
            local = function_at(address, None, self._function_type)
            local.code = code
            return local
        find, generation, address = self._placed(name, address)
        function: Any = function_at(address, code.executor, self._function_type, generation)
        function.code, function.find = code, find
        return function

    def _variable_at(self, name: str, address: int, ctype: type[CData]) -> CData:
        code = self._open_code()
        if code.is_remote:
            from jitlink.runtime.remote_memory import RemoteVariable  # noqa: PLC0415 - as above

            find, generation, address = self._placed(name, address)
            remote = RemoteVariable(code.executor, address, ctype, generation)
            remote.code, remote.find = code, find
            return remote  # type: ignore[return-value]
        variable: CData = ctype.from_address(address)  # type: ignore[assignment]
        # Not every ctypes object has attributes, so a finalizer refers to the code.
        weakref.finalize(variable, _keep_alive, code)
        return variable

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        try:
            function = self.function(name)
        except FailedToMaterializeError:
            raise
        except SymbolError as error:
            if isinstance(error, UndefinedSymbolError) and name not in error.names:
                raise  # It is defined, but cannot be linked.
            raise AttributeError(str(error)) from error
        self.__dict__[name] = function
        return function

    def _open_code(self) -> LinkedCode:
        if self._code is None:
            raise ClosedLibraryError(self.name)
        return self._code

    def close(self) -> None:
        """Release the code; it is freed with the last function of the library.

        If there is no such function left, its finalisers have run on return, on another thread.
        """
        code, self._code = self._code, None
        self._exports = {}
        for name in [n for n, value in self.__dict__.items() if hasattr(value, "code")]:
            del self.__dict__[name]
        if code is not None:
            session, dylib, reference = code.session, code.dylib, weakref.ref(code)
            del code
            if reference() is None:
                session.wait_until_removed(dylib)

    def keep(self) -> None:
        """Keep the code in memory until the process ends.

        Code that has registered exit handlers must outlive all Python objects.
        """
        self._open_code().keep()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def _keep_alive(code: LinkedCode) -> None:
    """Do nothing: the finalizer exists for its reference to the code."""
