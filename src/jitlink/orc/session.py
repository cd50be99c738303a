"""ExecutionSession: one executor, its JITDylibs, and the thread on which everything is decided.

A session owns an event loop on a thread of its own, and all of its state is touched only
there, so there are no locks. Public methods may be called from any other thread; each has
one asynchronous form, and `wait` is how a thread waits for it. Code that was linked never
runs on the session's thread, so it may call back into the session.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from jitlink.errors import JITLinkError
from jitlink.executor import ExecutorProcessControl, SelfExecutorProcessControl
from jitlink.orc.definition import Definition
from jitlink.orc.dylib import JITDylib, SearchOrder
from jitlink.orc.errors import (
    FailedToMaterializeError,
    ResourceTrackerDefunctError,
    SessionEndedError,
    SessionError,
)
from jitlink.orc.lookup import look_up, symbols_of
from jitlink.orc.materialization import MaterializationResponsibility, MaterializationUnit
from jitlink.orc.readiness import Readiness
from jitlink.orc.symbols import (
    ExecutorSymbolDef,
    JITDylibLookupFlags,
    LookupKind,
    SymbolState,
)
from jitlink.orc.tracker import ResourceManager, ResourceTracker

T = TypeVar("T")
log = logging.getLogger(__name__)


def log_error(error: BaseException) -> None:
    """What sessions do, unless told otherwise, with errors that nobody waits for."""
    log.error("%s", error, exc_info=error)


class ExecutionSession:
    """A running JIT.

    Args:
        executor: where code is linked to; by default this process.

    Attributes (besides the argument):
        dylibs: its JITDylibs by name; for the session's thread.
        resource_managers: told when trackers are removed, last added first; for that too.
        error_handler: told of errors that nobody waits for, on the thread that meets them;
            by default they are logged.
    """

    def __init__(self, executor: ExecutorProcessControl | None = None) -> None:
        self.executor = executor or SelfExecutorProcessControl.shared()
        self.dylibs: dict[str, JITDylib] = {}
        self.resource_managers: list[ResourceManager] = []
        self._readiness = Readiness()
        self._tasks: set[asyncio.Task[None]] = set()
        self.error_handler: Callable[[BaseException], None] = log_error
        self._ended = False
        # What is handed to the loop is handed to it before the loop is told to stop, or not.
        self._gate = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="jitlink session", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            # Whoever still waits for something will not get it.
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            if left:
                self._loop.run_until_complete(asyncio.wait(left))
        finally:
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    # Between threads

    def run(self, action: Callable[[], T]) -> T:
        """Run something on the session's thread and return what it returns."""
        if threading.current_thread() is self._thread:
            return action()
        result: concurrent.futures.Future[T] = concurrent.futures.Future()

        def act() -> None:
            try:
                result.set_result(action())
            except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
                result.set_exception(error)

        self._call(act)
        return result.result()

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the session's thread and return what it returns.

        Raises:
            SessionError: called on the session's thread, which would wait for itself.
            SessionEndedError: the session has ended, or ends before there is a result.
        """
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise SessionError("the session's thread cannot wait for itself; use the async form")
        with self._gate:
            if self._ended:
                coroutine.close()
                raise SessionEndedError
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise SessionEndedError from None

    def call_later(self, delay: float, action: Callable[[], None]) -> None:
        """Run something on the session's thread after `delay` seconds, and do not wait.

        Raises:
            SessionEndedError: the session has ended. If it ends before then, nothing is run.
        """
        self._call(lambda: self._loop.call_later(delay, action))

    def _call(self, action: Callable[[], object]) -> None:
        with self._gate:
            if self._ended:
                raise SessionEndedError
            self._loop.call_soon_threadsafe(action)

    def report_error(self, error: BaseException) -> None:
        """Tell the error handler; if that fails, both errors are logged."""
        try:
            self.error_handler(error)
        except Exception as failure:  # noqa: BLE001 - it may raise anything
            log_error(error)
            log_error(failure)

    # JITDylibs

    def create_jitdylib(self, name: str) -> JITDylib:
        """Make an empty JITDylib.

        Raises:
            SessionError: there is one of that name.
        """

        def create() -> JITDylib:
            if name in self.dylibs:
                raise SessionError(f"there is a JITDylib {name} already")
            self.dylibs[name] = JITDylib(self, name)
            return self.dylibs[name]

        return self.run(create)

    def get_jitdylib_by_name(self, name: str) -> JITDylib | None:
        """The JITDylib of that name, or None."""
        return self.run(lambda: self.dylibs.get(name))

    def remove_jitdylib(self, dylib: JITDylib) -> None:
        """Remove everything from a JITDylib, and the JITDylib from all link orders."""
        self.wait(self.remove_jitdylib_async(dylib))

    async def remove_jitdylib_async(self, dylib: JITDylib) -> None:
        """The asynchronous form of `remove_jitdylib`."""
        dylib.is_open = False
        dylib.generators.clear()
        errors: list[JITLinkError] = []
        trackers = {definition.tracker: None for definition in dylib.symbols.values()}
        for tracker in [*trackers, dylib.default_tracker]:
            try:
                await self.remove_tracker(tracker)
            except JITLinkError as error:
                errors.append(error)
        self.dylibs.pop(dylib.name, None)
        for other in self.dylibs.values():
            other.remove_from_link_order(dylib)
        _raise_all(errors)

    # Lookup

    def lookup(
        self,
        order: SearchOrder | JITDylib,
        names: str | Iterable[str] | Mapping[str, bool],
        *,
        required_state: SymbolState = SymbolState.READY,
        kind: LookupKind = LookupKind.STATIC,
    ) -> dict[str, ExecutorSymbolDef]:
        """Find symbols, make them, and wait until they can be used.

        Args:
            order: where to search: JITDylibs with what to look at in each, or one JITDylib,
                of which everything is looked at.
            names: names that must be found, or a mapping that says of each whether it must.
            required_state: how far they must have come, RESOLVED or READY.
            kind: what the search is for.

        Raises:
            UndefinedSymbolError: names that must be found are not.
            FailedToMaterializeError: a definition could not be made; the cause is chained.
        """
        coroutine = self.lookup_async(order, names, required_state=required_state, kind=kind)
        return self.wait(coroutine)

    async def lookup_async(
        self,
        order: SearchOrder | JITDylib,
        names: str | Iterable[str] | Mapping[str, bool],
        *,
        required_state: SymbolState = SymbolState.READY,
        kind: LookupKind = LookupKind.STATIC,
    ) -> dict[str, ExecutorSymbolDef]:
        """The asynchronous form of `lookup`, for code on the session's thread."""
        if isinstance(order, JITDylib):
            order = [(order, JITDylibLookupFlags.MATCH_ALL_SYMBOLS)]
        if isinstance(names, str):
            names = [names]
        wanted = names if isinstance(names, Mapping) else dict.fromkeys(names, True)
        return symbols_of(await look_up(self, order, wanted, required_state, kind))

    # Making definitions; all of this runs on the session's thread.

    def materialize(self, definitions: Iterable[Definition]) -> None:
        """Start making what among these nobody has asked for yet."""
        promised = [each for each in definitions if each.unit is not None]
        for unit, made in _gather(promised):
            tracker = made[0].tracker
            for definition in made:
                definition.unit = None
                definition.state = SymbolState.MATERIALIZING
            responsibility = MaterializationResponsibility(tracker, unit.name, made)
            task = self._loop.create_task(self._make(unit, responsibility))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _make(
        self, unit: MaterializationUnit, responsibility: MaterializationResponsibility
    ) -> None:
        try:
            await unit.materialize(responsibility)
        except ResourceTrackerDefunctError:
            # Whoever waited was told when the tracker was removed.
            responsibility.fail()
        except BaseException as error:
            responsibility.fail(error)
            if not isinstance(error, Exception):
                raise

    def emit(self, groups: Sequence[tuple[Sequence[Definition], Iterable[Definition]]]) -> None:
        """Take note that definitions were emitted, with what they need."""
        failed = {needed for _, wanted in groups for needed in wanted if needed.failed}
        if failed:
            raise self.failure(failed)
        for definitions, _ in groups:
            for definition in definitions:
                definition.responsibility = None
        self._readiness.emit(groups)

    def fail(self, definitions: Iterable[Definition], error: BaseException | None) -> None:
        """Mark definitions, and all that depend on them, as failed; tell all who wait."""
        lost = self._readiness.withdraw(definitions)
        failure = self.failure(lost)
        failure.__cause__ = error
        for definition in lost:
            definition.failed = True
            queries, definition.queries = definition.queries, []
            for query in queries:
                query.fail(failure)

    def failure(self, definitions: Iterable[Definition]) -> FailedToMaterializeError:
        """An error that names symbols."""
        names: dict[str, list[str]] = {}
        for definition in definitions:
            names.setdefault(definition.dylib.name, []).extend(definition.flags)
        return FailedToMaterializeError(names)

    # Resources

    async def remove_tracker(self, tracker: ResourceTracker) -> None:
        """Remove a tracker's symbols and release its resources."""
        current = tracker.current
        if current is None:
            return
        dylib, owned = current.dylib, list(current.definitions)
        current.retire()
        for definition in owned:
            dylib.forget(definition)
        self.fail(owned, ResourceTrackerDefunctError(dylib.name))
        errors: list[JITLinkError] = []
        for manager in reversed(self.resource_managers):
            try:
                await manager.handle_remove_resources(dylib, current)
            except JITLinkError as error:
                errors.append(error)
        _raise_all(errors)

    def transfer_tracker(self, destination: ResourceTracker, source: ResourceTracker) -> None:
        """Give everything that one tracker owns to another."""
        to, origin = destination.current, source.current
        if to is None or origin is None:
            raise ResourceTrackerDefunctError(source.dylib.name)
        if to.dylib is not origin.dylib:
            raise ValueError("resources cannot move to another JITDylib")
        if to is origin:
            return
        for definition in origin.definitions:
            definition.tracker = to
        to.definitions |= origin.definitions
        origin.definitions = {}
        origin.retire(moved_to=to)
        for manager in reversed(self.resource_managers):
            manager.handle_transfer_resources(to.dylib, to, origin)

    # The end

    def end(self) -> None:
        """Remove all JITDylibs, last made first, and stop; a second call does nothing.

        Raises:
            JITLinkError: resources could not be released; everything else was.
        """
        if self._ended:
            return
        try:
            self.wait(self._end())
        except SessionEndedError:
            pass  # Another thread was first.
        finally:
            with self._gate:
                if not self._ended:
                    self._ended = True
                    self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    async def _end(self) -> None:
        errors: list[JITLinkError] = []
        for dylib in reversed(list(self.dylibs.values())):
            try:
                await self.remove_jitdylib_async(dylib)
            except JITLinkError as error:
                errors.append(error)
        if self._tasks:
            await asyncio.wait(self._tasks)
        _raise_all(errors)


def _gather(
    promised: Sequence[Definition],
) -> list[tuple[MaterializationUnit, list[Definition]]]:
    """Units to be made, those that can be made together as one, with their definitions."""
    groups: dict[object, dict[MaterializationUnit, list[Definition]]] = {}
    for definition in _with_anticipated(promised):
        unit = definition.unit
        if unit is not None:
            key = unit.merge_key()
            group = (id(unit), unit) if key is None else (key, definition.tracker)
            groups.setdefault(group, {}).setdefault(unit, []).append(definition)
    made = []
    for members in groups.values():
        first, *others = members
        unit = first.merge(others) if others else first
        made.append((unit, [each for definitions in members.values() for each in definitions]))
    return made


def _with_anticipated(promised: Sequence[Definition]) -> list[Definition]:
    """Definitions, the rest of what their units promise, and what those will ask for."""
    chosen = dict.fromkeys(promised)
    pending = list(promised)
    while pending:
        definition = pending.pop()
        unit, symbols = definition.unit, definition.dylib.symbols
        if unit is None:
            continue
        others = {held for n in unit.symbols if (held := symbols.get(n)) and held.unit is unit}
        if unit.merge_key() is not None:
            held_names = [symbols.get(name) for name in unit.anticipated()]
            others |= {h for h in held_names if h and h.unit and h.unit.merge_key() is not None}
        for other in others - chosen.keys():
            chosen[other] = None
            pending.append(other)
    return list(chosen)


def _raise_all(errors: Sequence[JITLinkError]) -> None:
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise SessionError("; ".join(map(str, errors)))
