"""Sessions for tests of stubs and call sites: two JITDylibs, and memory that is counted."""

import ctypes
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jitlink import tasks
from jitlink.executor import ExecutorProcessControl, SelfExecutorProcessControl
from jitlink.inputs import open_input
from jitlink.memory.address_space import AddressSpace
from jitlink.memory.in_process import InProcessMemoryManager
from jitlink.orc import (
    DynamicLibraryGenerator,
    ExecutionSession,
    JITDylib,
    JITSymbolFlags,
    MaterializationResponsibility,
    MaterializationUnit,
    ObjectLinkingLayer,
    Plugin,
    ResourceTracker,
)
from jitlink.orc.lazy import lazy_reexports
from jitlink.orc.stubs import IndirectStubsManager
from jitlink.runtime.remote_calls import RemoteFunction
from jitlink.runtime.remote_memory import read_memory
from jitlink.tasks import Event
from tests.toolchain import HOST_TARGET, compile_c


class LinkCounter(Plugin):
    """Records links: the JITDylib, and the names that each defines."""

    def __init__(self) -> None:
        self.links: list[tuple[str, set[str]]] = []

    def notify_emitted(self, responsibility: MaterializationResponsibility) -> None:
        self.links.append((responsibility.dylib.name, set(responsibility.symbols)))

    def count(self, name: str, dylib: str = "bodies") -> int:
        return sum(where == dylib and name in names for where, names in self.links)


class Slow(MaterializationUnit):
    """Defines a function at an address, when it is allowed to."""

    def __init__(self, name: str, address: int) -> None:
        self.name = name
        self.symbols = {name: JITSymbolFlags.EXPORTED | JITSymbolFlags.CALLABLE}
        self.address = address
        self.started = threading.Event()
        self.may_finish = Event()

    async def materialize(self, responsibility: MaterializationResponsibility) -> None:
        self.started.set()
        await self.may_finish.wait()
        responsibility.notify_resolved({self.name: self.address})
        responsibility.notify_emitted()

    def finish(self, session: ExecutionSession) -> None:
        session.run(self.may_finish.set)


class StubSession:
    """A session with callers in `main` and bodies in `bodies`, which is not in main's link order.

    Attributes:
        errors: the errors that the session's error handler was called with.
    """

    def __init__(
        self, landing: int | None = None, executor: ExecutorProcessControl | None = None
    ) -> None:
        self.space = AddressSpace((64 << 20,), resident_size=0)
        self.executor = executor
        own = SelfExecutorProcessControl(InProcessMemoryManager(self.space))
        self.session = ExecutionSession(executor or own)
        self.errors: list[BaseException] = []
        self.session.error_handler = self.errors.append
        self.layer = ObjectLinkingLayer(self.session)
        self.counter = LinkCounter()
        self.layer.add_plugin(self.counter)
        self.main = self.session.create_jitdylib("main")
        self.bodies = self.session.create_jitdylib("bodies")
        for dylib in (self.main, self.bodies):
            dylib.add_generator(DynamicLibraryGenerator())
        self.stubs = IndirectStubsManager(self.layer, landing=landing)

    @property
    def used_size(self) -> int:
        """Bytes of memory that links use."""
        return sum(reservation.used_size for reservation in self.space.reservations)

    def add(
        self,
        dylib: JITDylib,
        source: Path | str,
        *flags: str,
        suffix: str = ".c",
        tracker: ResourceTracker | None = None,
    ) -> None:
        """Compile and add an object."""
        machine = self.session.executor.triple.partition("-")[0]
        target = HOST_TARGET if HOST_TARGET.startswith(machine) else f"{machine}-linux-gnu"
        options = ("-O1", "-fPIC", *flags)
        compiled = compile_c(source, "zig", options, suffix=suffix, target=target)
        self.layer.add_objects(dylib, [open_input(compiled)], tracker)

    def address(self, name: str, dylib: JITDylib | None = None) -> int:
        return self.session.lookup(dylib or self.main, name)[name].address

    def function(
        self, name: str, result: type[Any] | None = ctypes.c_int, *arguments: type[Any]
    ) -> Callable[..., Any]:
        """A function of `main`."""
        return self.function_at(self.address(name), result, *arguments)

    def function_at(
        self, address: int, result: type[Any] | None = ctypes.c_int, *arguments: type[Any]
    ) -> Callable[..., Any]:
        """A function of the executor."""
        if self.executor is None:
            return ctypes.CFUNCTYPE(result, *arguments)(address)
        remote = RemoteFunction(self.executor, address)
        remote.argtypes, remote.restype = arguments, result
        return remote

    def pointer_of(self, name: str) -> int:
        """What the pointer of a stub in `main` has."""
        stub = self.stubs._stubs[self.main][name]
        return int.from_bytes(
            tasks.run(read_memory(self.session.executor, stub.pointer, 8)), "little"
        )


@contextmanager
def stub_session(
    landing: int | None = None, executor: ExecutorProcessControl | None = None
) -> Iterator[StubSession]:
    """A session that must have freed all memory when it has ended."""
    created = StubSession(landing, executor)
    try:
        yield created
    finally:
        created.session.end()
        left = created.used_size
        created.space.close()
    assert left == 0


def run_threads(functions: Sequence[Callable[[], object]], timeout: float = 60) -> None:
    """Run functions concurrently, each on a thread of its own, and wait for them."""
    barrier = threading.Barrier(len(functions))

    def run(function: Callable[[], object]) -> None:
        barrier.wait()
        function()

    threads = [
        threading.Thread(target=run, args=(function,), daemon=True) for function in functions
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout)
        assert not thread.is_alive()


def reexport(lazy: StubSession, *names: str) -> None:
    """Make functions of the bodies lazy in the main JITDylib."""
    lazy.main.define(lazy_reexports(lazy.stubs, lazy.bodies, {name: name for name in names}))
