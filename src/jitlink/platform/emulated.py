"""EmulatedPlatform: initialisers and exit handlers of emulated machines, without a runtime there.

Handlers are recorded here, and each call of one is a call of the machine. There is neither
``dlopen`` nor a C library that runs handlers by itself: they run when their JITDylib is closed, as
those of a program do when it has ended.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from jitlink.errors import UnsupportedObjectError
from jitlink.executor import ExecutorProcessControl, PlacedArguments
from jitlink.executor.emulated.calls import EmulatedCalls
from jitlink.executor.emulated.errors import EmulatedExitError
from jitlink.graph import AllocActionPair, LinkGraph, Symbol
from jitlink.inputs import InputFile, open_input
from jitlink.orc.dylib import JITDylib
from jitlink.orc.interface import (
    ExecutorSymbolDef,
    JITDylibLookupFlags,
    JITSymbolFlags,
    LookupKind,
)
from jitlink.orc.materialization import AbsoluteSymbols, MaterializationResponsibility
from jitlink.passes.initializers import FunctionArray
from jitlink.platform.elf import ELFPlatform, InitializerRun
from jitlink.platform.plugin import PlatformPlugin
from jitlink.sps import ExecutorAddrRange

_FLAGS = JITSymbolFlags.EXPORTED | JITSymbolFlags.ABSOLUTE | JITSymbolFlags.CALLABLE


class _Handler(NamedTuple):
    """An exit handler: a function and its argument."""

    function: int
    argument: int


class EmulatedPlatform(ELFPlatform):
    """The platform of an emulated machine."""

    per_dylib_functions: Mapping[str, str] = {
        "atexit": "dylib_exit",
    }
    has_allocation_functions = False
    _calls: EmulatedCalls
    _handlers: dict[int, list[_Handler]]
    _finalizers: dict[int, list[int]]
    _arguments: Sequence[int]

    @staticmethod
    def check(executor: ExecutorProcessControl) -> None:
        """Check that an executor is an emulated machine.

        Raises:
            UnsupportedObjectError: it is not.
        """
        if executor.direct_calls is None:
            message = f"{executor.triple} is no emulated machine"
            raise UnsupportedObjectError(message, file="<runtime>")

    def create_generator(self) -> _Functions:
        """What generates the functions that register handlers."""
        calls = self.session.executor.direct_calls
        assert calls is not None
        self._calls, self._handlers, self._finalizers, self._arguments = calls, {}, {}, ()
        return _Functions(self, calls)

    def create_plugin(self) -> PlatformPlugin:
        """What takes part in links."""
        return _Plugin(self)

    def open_object(self, name: str) -> InputFile:
        """The prebuilt object of a name."""
        directory = os.path.dirname(self.session.executor.static_libraries[0])  # noqa: PTH120
        return open_input(os.path.join(directory, f"{name}.o"))  # noqa: PTH118

    async def handle_actions(
        self,
        dylib: JITDylib,  # noqa: ARG002 - part of the interface
        symbol: Symbol,  # noqa: ARG002
    ) -> Sequence[AllocActionPair]:
        """None: nothing in the machine knows JITDylibs."""
        self._has_registrations = True
        return ()

    def close_all(self) -> None:
        """Close all open JITDylibs, then flush output."""
        super().close_all()
        if self.session.is_connected and self.session.executor.is_alive:
            self.drive(self.session.executor.end_program())

    def run_main(
        self,
        dylib: JITDylib,
        address: int,
        argv: Sequence[str],
        *,
        also: Sequence[JITDylib] = (),
        name: str | None = None,
    ) -> int:
        """Run a program as a process does; ``exit`` ends it wherever it is called."""
        try:
            return super().run_main(dylib, address, argv, also=also, name=name)
        except EmulatedExitError as error:
            # An initialiser has called it: handlers are left to be run.
            self.close_all()
            return error.status

    # Handlers

    def add_handler(self, function: int, argument: int, handle: int) -> int:
        """``__cxa_atexit``."""
        self._handlers.setdefault(handle, []).append(_Handler(function, argument))
        return 0

    def run_handlers(self, handle: int) -> None:
        """Run the exit handlers of a JITDylib, the last one first, also those that they add."""
        handlers = self._handlers.get(handle, [])
        while handlers:
            function, argument = handlers.pop()
            self._run_function(function, argument)
        self._handlers.pop(handle, None)

    def set_arguments(self, placed: PlacedArguments) -> None:
        """Set what initialisers get as arguments."""
        self._arguments = tuple(placed)

    def run_initializers(self, run: InitializerRun) -> None:
        """Run initialisers, and record finalisers."""
        recorded = self._finalizers.setdefault(run.handle, [])
        recorded[:0] = self._functions_in(run.finalizers)
        for function in self._functions_in(run.initializers):
            self._calls.call_words(function, self._arguments)

    def run_finalizers(self, handles: Sequence[int], *, is_exit: bool) -> None:  # noqa: ARG002
        """Run exit handlers and finalisers of JITDylibs, by handle."""
        for handle in handles:
            self.run_handlers(handle)
            for function in reversed(self._finalizers.pop(handle, [])):
                self._run_function(function)

    def _run_function(self, function: int, *arguments: int) -> None:
        try:
            self._calls.call_words(function, arguments)
        except EmulatedExitError:
            # As natively: the handlers that are left run.
            return

    async def finalize_memory(self, memory: Sequence[ExecutorAddrRange]) -> None:
        """Forget handlers and finalisers in memory that is about to be deallocated.

        They are run: those that were added last first.
        """
        for handlers in list(self._handlers.values()):
            ended = [h for h in handlers if _is_in(h.function, memory)]
            handlers[:] = [h for h in handlers if h not in ended]
            for function, argument in reversed(ended):
                self._run_function(function, argument)
        for functions in self._finalizers.values():
            gone = [f for f in functions if _is_in(f, memory)]
            functions[:] = [f for f in functions if f not in gone]
            for function in reversed(gone):
                self._run_function(function)

    def _functions_in(self, arrays: Sequence[FunctionArray]) -> Iterator[int]:
        """The functions of arrays of pointers, in the order in which they are called.

        Raises:
            ExecutorError: an array cannot be read.
        """
        machine = self._calls.processor.machine
        size = machine.pointer_size
        for array in arrays:
            data = self._calls.processor.read(array.start, array.end - array.start)
            words = [
                int.from_bytes(data[n : n + size], machine.byte_order)
                for n in range(0, len(data), size)
            ]
            limit = (1 << 8 * size) - 1
            # Zeros and ones stand for nothing, as for other platforms.
            found = [word for word in words if word not in {0, limit}]
            yield from reversed(found) if array.backwards else found


def _is_in(address: int, memory: Sequence[ExecutorAddrRange]) -> bool:
    return any(start <= address < end for start, end in memory)


class _Functions:
    """Generates the functions that the platform implements for linked code."""

    def __init__(self, platform: EmulatedPlatform, calls: EmulatedCalls) -> None:
        def finalize(handle: int) -> None:
            platform.run_handlers(handle)

        self._functions: Mapping[str, tuple[int, Callable[..., int | None]]] = {
            "__cxa_atexit": (3, platform.add_handler),
            "__cxa_finalize": (1, finalize),
        }
        self._calls = calls
        self._addresses: dict[str, int] = {}

    async def try_to_generate(
        self,
        kind: LookupKind,  # noqa: ARG002 - part of the interface
        dylib: JITDylib,
        flags: JITDylibLookupFlags,  # noqa: ARG002
        names: Mapping[str, bool],
    ) -> None:
        """Define the names."""
        found = {}
        for name in self._functions.keys() & names.keys():
            if name not in self._addresses:
                address = self._calls.add_word_function(*self._functions[name])
                self._addresses[name] = address
            found[name] = ExecutorSymbolDef(self._addresses[name], _FLAGS)
        if found:
            dylib.add_unit(AbsoluteSymbols(found, is_generated=True))


class _Plugin(PlatformPlugin):
    """Takes part in links: frames are for backtraces only."""

    async def prepare(
        self,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,
    ) -> None:
        """Register a handle that a program defines."""
        await self.prepare_handle(responsibility, graph)
