"""ExecutionSession: one executor, its JITDylibs, and the thread on which everything is decided.

A session owns a loop, which one thread at a time runs (`jitlink.orc.driver`), and all of its state
is touched only there, so there are no locks. Public methods may be called from any other thread;
each has one asynchronous form, and `wait` is how a thread waits for it. Code that was linked never
runs on the session's thread, so it may call back into the session.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextvars import Context
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from jitlink.executor import ExecutorProcessControl, SelfExecutorProcessControl
from jitlink.orc.driver import SessionDriver
from jitlink.orc.dylib import Definition, JITDylib, walk_link_orders
from jitlink.orc.errors import (
    FailedToMaterializeError,
    ResourceTrackerDefunctError,
    SessionEndedError,
    SessionError,
    raise_first,
)
from jitlink.orc.interface import (
    ExecutorSymbolDef,
    JITDylibLookupFlags,
    JITSymbolFlags,
    LookupKind,
    ResourceManager,
    ResourceTracker,
    SearchOrder,
    SymbolState,
)
from jitlink.orc.lookup import AsynchronousSymbolQuery, look_up, search, symbols_of
from jitlink.orc.materialization import MaterializationTask, gather
from jitlink.orc.text import session_text
from jitlink.orc.waiting_on_graph import Needs, WaitingOnGraph
from jitlink.tasks import Task, wait_for_all

T = TypeVar("T")
Names = str | Iterable[str] | Mapping[str, bool]
log = logging.getLogger("jitlink.orc")

_GRACE = 0.5
"""Seconds that links have to stop by themselves when a session ends, before they are cancelled."""
_PATIENCE = 5.0
"""Seconds that they have to stop after that."""


def log_error(error: BaseException) -> None:
    """What sessions do, unless told otherwise, with errors that nobody waits for."""
    log.error("%s", error, exc_info=error)


class ExecutionSession:
    """A running JIT.

    It is to be ended (`end`, or a ``with`` statement): only that releases what was linked. The
    thread of a session that is dropped without that stops all the same.

    Args:
        executor: where code is linked to; by default this process.

    Attributes:
        executor: where code is linked to.
        dylibs: its JITDylibs by name, in order of creation; for the session's thread.
        resource_managers: told when resources are to be released; likewise.
        queries: lookups that wait; likewise.
        searches: tasks that are searching; likewise.
        error_handler: told of errors that nobody waits for, on the thread that meets them;
            by default they are logged.
        is_ending: whether nothing new is begun any more.
    """

    def __init__(self, executor: ExecutorProcessControl | None = None) -> None:
        self.executor = executor or SelfExecutorProcessControl.shared()
        self.dylibs: dict[str, JITDylib] = {}
        self.resource_managers: list[ResourceManager] = []
        self.queries: dict[AsynchronousSymbolQuery, None] = {}
        self.searches: set[Task[Any]] = set()
        self.error_handler: Callable[[BaseException], None] = log_error
        self.is_ending = False
        self.waiting_on_graph = WaitingOnGraph()
        self._materializations: dict[Task[None], MaterializationTask] = {}
        self._end_lock = threading.Lock()
        self._thread = SessionDriver(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    def dump(self) -> str:
        """The whole session as text for people.

        Raises:
            SessionEndedError: the session has ended.
        """
        return self.run(lambda: session_text(self))

    # Between threads

    def run(self, action: Callable[[], T]) -> T:
        """Run something on the session's thread and return what it returns.

        Raises:
            SessionEndedError: the session has ended.
        """
        return self._thread.run(action)

    def wait(self, coroutine: Coroutine[Any, Any, T], *, aside: bool = False) -> T:
        """Run a coroutine on the session's thread and return what it returns.

        Raises:
            SessionError: called on the session's thread, which would wait for itself.
            SessionEndedError: the session has ended, or ended meanwhile.
        """
        return self._thread.wait(coroutine, aside=aside)

    def begin(self, coroutine: Coroutine[Any, Any, T], context: Context | None = None) -> Task[T]:
        """Let a coroutine run beside what runs; on the session's thread.

        Args:
            coroutine: what to run. The task is to be held until it is done.
            context: its context variables; by default a copy of the caller's.
        """
        return Task(self._thread.loop, coroutine, context)

    def call_later(self, delay: float, action: Callable[[], None]) -> None:
        """Run something on the session's thread after `delay` seconds, and do not wait.

        Raises:
            SessionEndedError: the session has ended. If it ends before then, nothing is run.
        """
        if not self._thread.call_later(delay, action):
            raise SessionEndedError

    def settle(self) -> None:
        """End the session's own threads, which start when they are needed.

        For code that is about to run and is to find no other threads. Waits for threads that are
        busy, but not for long.
        """
        self._thread.settle()

    def report_error(self, error: BaseException) -> None:
        """Tell the error handler; if that fails, both errors are logged."""
        try:
            self.error_handler(error)
        except Exception as failure:  # noqa: BLE001 - it may raise anything
            log_error(error)
            log_error(failure)

    def check_open(self) -> None:
        """Check that something new may be begun.

        Raises:
            SessionEndedError: the session has ended, or is ending.
        """
        if self.is_ending:
            raise SessionEndedError

    # JITDylibs

    def create_jitdylib(self, name: str) -> JITDylib:
        """Make an empty JITDylib.

        Raises:
            SessionError: there is one of that name.
            SessionEndedError: the session has ended.
        """

        def create() -> JITDylib:
            self.check_open()
            if name in self.dylibs:
                raise SessionError(f"there is a JITDylib {name} already")
            log.debug("creating JITDylib %s", name)
            self.dylibs[name] = JITDylib(self, name)
            return self.dylibs[name]

        return self.run(create)

    def get_jitdylib_by_name(self, name: str) -> JITDylib | None:
        """The JITDylib of that name, or None."""
        return self.run(lambda: self.dylibs.get(name))

    def remove_jitdylib(self, dylib: JITDylib) -> None:
        """Remove everything from a JITDylib, and the JITDylib from all link orders.

        Nothing happens if it was removed already.

        Raises:
            JITLinkError: resources could not be released; it was removed all the same.
        """
        self.wait(self.remove_jitdylib_async(dylib))

    async def remove_jitdylib_async(self, dylib: JITDylib) -> None:
        """The asynchronous form of `remove_jitdylib`."""
        if dylib.session is not self:
            raise ValueError(f"{dylib.name} is a JITDylib of another session")
        if not dylib.is_open:
            return
        log.debug("removing JITDylib %s", dylib.name)
        # When the session ends all of them go, one after the other.
        for other in () if self.is_ending else self.dylibs.values():
            if other.is_linked_against(dylib):
                other.remove_from_link_order(dylib)
        del self.dylibs[dylib.name]
        dylib.is_open = False
        dylib.generators.clear()
        dylib.default_tracker.make_defunct()
        try:
            await dylib.clear_async()
        finally:
            for manager in reversed(self.resource_managers):
                manager.handle_remove_jitdylib(dylib)
            dylib.release_references()

    def discard_jitdylib(self, dylib: JITDylib) -> None:
        """Remove a JITDylib, at once if nothing else goes on and soon otherwise.

        It waits for nothing, so that it may be called while garbage is collected. Errors are
        for `report_error`.
        """

        async def remove() -> None:
            try:
                await self.remove_jitdylib_async(dylib)
            except Exception as error:  # noqa: BLE001 - nobody waits for it
                self.report_error(error)

        self._thread.call_from_finalizer(remove)

    # Lookup

    def lookup(
        self,
        order: SearchOrder | JITDylib,
        names: Names,
        *,
        required_state: SymbolState = SymbolState.READY,
        kind: LookupKind = LookupKind.STATIC,
    ) -> dict[str, ExecutorSymbolDef]:
        """Find symbols, make them, and wait until they can be used.

        Args:
            order: where to search: JITDylibs with what to look at in each, or one JITDylib,
                of which everything is looked at.
            names: names that must be found, or a mapping that says of each whether it must. A
                symbol for side effects only counts as not found where it must be.
            required_state: how far they must have come, RESOLVED or READY.
            kind: what the search is for.

        Returns:
            What was found, without symbols for side effects only.

        Raises:
            UndefinedSymbolError: names that must be found are not.
            FailedToMaterializeError: a definition could not be made, or was removed while it
                was waited for; the cause is chained.
            JITDylibDefunctError: a JITDylib of the order was removed.
            SessionEndedError: the session has ended, or ended meanwhile.
        """
        coroutine = self.lookup_async(order, names, required_state=required_state, kind=kind)
        return self.wait(coroutine)

    async def lookup_async(
        self,
        order: SearchOrder | JITDylib,
        names: Names,
        *,
        required_state: SymbolState = SymbolState.READY,
        kind: LookupKind = LookupKind.STATIC,
    ) -> dict[str, ExecutorSymbolDef]:
        """The asynchronous form of `lookup`, for code on the session's thread."""
        if required_state < SymbolState.RESOLVED:
            raise ValueError("a lookup is for symbols that are at least RESOLVED")
        where, wanted = self._order(order), _wanted(names)
        return symbols_of(await look_up(self, where, wanted, required_state, kind))

    def lookup_flags(
        self,
        order: SearchOrder | JITDylib,
        names: Names,
        *,
        kind: LookupKind = LookupKind.STATIC,
    ) -> dict[str, JITSymbolFlags]:
        """Find symbols and return their flags; generators are asked, but nothing is made.

        Raises:
            UndefinedSymbolError: names that must be found are not.
            JITDylibDefunctError: a JITDylib of the order was removed.
            SessionEndedError: the session has ended, or ended meanwhile.
        """
        return self.wait(self.lookup_flags_async(order, names, kind=kind))

    async def lookup_flags_async(
        self,
        order: SearchOrder | JITDylib,
        names: Names,
        *,
        kind: LookupKind = LookupKind.STATIC,
    ) -> dict[str, JITSymbolFlags]:
        """The asynchronous form of `lookup_flags`."""
        found = await search(self, self._order(order), _wanted(names), kind)
        return {name: definition.flags[name] for name, definition in found.items()}

    def _order(self, order: SearchOrder | JITDylib) -> SearchOrder:
        if isinstance(order, JITDylib):
            order = [(order, JITDylibLookupFlags.MATCH_ALL_SYMBOLS)]
        for dylib, _ in order:
            if dylib.session is not self:
                raise ValueError(f"{dylib.name} is a JITDylib of another session")
        return order

    # Making definitions; all of this runs on the session's thread.

    def materialize(self, definitions: Iterable[Definition]) -> None:
        """Start making what among these nobody has asked for yet."""
        promised = [each for each in definitions if each.unit is not None]
        if promised:
            for materialization in gather(promised):
                self._start(materialization)

    def _start(self, materialization: MaterializationTask) -> None:
        materialization.begin()
        log.debug("materializing %s", materialization)
        task = self.begin(self._materialize(materialization))
        self._materializations[task] = materialization
        task.add_done_callback(partial(self._materializations.pop, task))

    async def _materialize(self, materialization: MaterializationTask) -> None:
        try:
            await materialization.run()
        except BaseException as error:  # noqa: BLE001 - given to all who wait
            if (
                self.is_ending
                or not isinstance(error, Exception)
                or not materialization.can_be_divided
            ):
                log.debug("failed: %s: %s", materialization, error)
                materialization.fail(error)
            else:
                log.debug("materializing one by one: %s: %s", materialization, error)
                # One of the units may be at fault, and the others are not to suffer for it.
                for each in materialization.divide(error):
                    self._start(each)
        else:
            log.debug("materialized %s", materialization)
            materialization.finish()

    def emit(self, groups: Sequence[tuple[Sequence[Definition], Needs]]) -> None:
        """Take note that definitions were emitted, with what they need."""
        for definitions, _ in groups:
            for definition in definitions:
                definition.responsibility = None
        self.waiting_on_graph.emit(groups)

    def fail(self, definitions: Iterable[Definition], error: BaseException | None) -> None:
        """Mark definitions, and all that depend on them, as failed; tell all who wait."""
        lost = self.waiting_on_graph.withdraw(definitions)
        failure: FailedToMaterializeError | None = None
        for definition in lost:
            definition.failed, definition.cause = True, error
            definition.responsibility = None
            for query in list(definition.queries):
                # Made only if somebody is there to read it.
                failure = failure.again() if failure else self.failure(lost)
                failure.__cause__ = error
                query.fail(failure)

    def fail_later(self, definitions: list[Definition], error: BaseException) -> None:
        """`fail`, as soon as nothing else is going on; from any thread."""

        def fail() -> None:
            remaining = [each for each in definitions if each.is_in_progress]
            self.fail([d for d in remaining if d.state < SymbolState.EMITTED], error)

        self._thread.call(fail)

    def failure(self, definitions: Iterable[Definition]) -> FailedToMaterializeError:
        """An error that names symbols."""
        names: dict[str, list[str]] = {}
        for definition in definitions:
            names.setdefault(definition.dylib.name, []).extend(definition.flags)
        return FailedToMaterializeError(names)

    # Resources; on the session's thread

    async def remove_tracker(self, tracker: ResourceTracker) -> None:
        """Remove a tracker's symbols and release its resources; nothing if it is defunct."""
        dylib = tracker.dylib
        # The default tracker of a JITDylib that is being removed is defunct before it is empty.
        if tracker.is_defunct and tracker not in dylib.trackers:
            return
        owned = list(tracker.definitions)
        if owned:
            count = sum(len(each.flags) for each in owned)
            log.debug("removing from %s what a tracker owns (symbols: %d)", dylib.name, count)
        tracker.make_defunct()
        dylib.trackers.pop(tracker, None)
        if tracker is dylib.default_tracker and dylib.is_open:
            dylib.replace_default_tracker()
        for definition in owned:
            dylib.forget(definition)
        unfinished = [definition for definition in owned if definition.is_in_progress]
        if unfinished:
            error = ResourceTrackerDefunctError(dylib.name)
            makers = {each.responsibility: None for each in unfinished}
            self.fail(unfinished, error)
            for maker in makers:
                if maker is not None:
                    maker.stop(ResourceTrackerDefunctError(dylib.name))
        errors: list[Exception] = []
        for manager in reversed(self.resource_managers):
            try:
                await manager.handle_remove_resources(dylib, tracker)
            except Exception as failure:  # noqa: BLE001 - the others are still to be told
                errors.append(failure)
        raise_first(errors)

    def transfer_tracker(self, destination: ResourceTracker, source: ResourceTracker) -> None:
        """Give everything that one tracker owns to another."""
        dylib = source.dylib
        if destination.dylib is not dylib:
            raise ValueError("resources cannot move to another JITDylib")
        if destination.is_defunct or source.is_defunct:
            raise ResourceTrackerDefunctError(dylib.name)
        if destination is source:
            return
        for definition in source.definitions:
            definition.tracker = destination
        destination.definitions |= source.definitions
        source.definitions = {}
        source.make_defunct(moved_to=destination)
        if dylib.trackers.pop(source, source) is None:
            dylib.trackers.setdefault(destination)
        if source is dylib.default_tracker:
            dylib.replace_default_tracker()
        errors: list[Exception] = []
        for manager in reversed(self.resource_managers):
            try:
                manager.handle_transfer_resources(dylib, destination, source)
            except Exception as failure:  # noqa: BLE001 - the others are still to be told
                errors.append(failure)
        raise_first(errors)

    def register_resource_manager(self, manager: ResourceManager) -> None:
        """Let a manager know when resources are to be released or change owner."""
        self.run(lambda: self.resource_managers.append(manager))

    def deregister_resource_manager(self, manager: ResourceManager) -> None:
        """Do not tell a manager any more.

        Raises:
            ValueError: it was not registered.
        """
        self.run(lambda: self.resource_managers.remove(manager))

    # The end

    def end(self) -> None:
        """Stop all that is going on, remove all JITDylibs, and stop; a second call does nothing.

        Lookups that wait fail. A JITDylib is removed before those that it is linked against,
        and what was added last before the rest.

        Raises:
            JITLinkError: resources could not be released, or something cannot be stopped;
                everything else was.
            SessionError: called on the session's thread.
        """
        self._thread.check_is_other()
        with self._end_lock:
            if self._thread.is_stopped:
                return
            try:
                self.wait(self._end())
            finally:
                self._thread.stop()

    async def _end(self) -> None:
        self.is_ending = True
        for task in list(self.searches):
            task.cancel()
        for query in list(self.queries):
            query.fail(SessionEndedError())
        errors: list[Exception] = []
        stuck = await self._stop_materializing()
        for dylib in reversed(walk_link_orders(self.dylibs.values())):
            try:
                await self.remove_jitdylib_async(dylib)
            except Exception as error:  # noqa: BLE001 - the others are still to be removed
                errors.append(error)
        if stuck:
            errors.append(SessionError(f"cannot be stopped: {', '.join(stuck)}"))
        raise_first(errors)

    async def _stop_materializing(self) -> list[str]:
        """Stop all that is being made, and return the names of what cannot be."""
        if self._materializations:
            await wait_for_all(self._materializations, _GRACE)
        if self._materializations:
            for task in list(self._materializations):
                task.cancel()
            await wait_for_all(self._materializations, _PATIENCE)
        return [each.unit.name for task, each in self._materializations.items() if not task.is_done]


def _wanted(names: Names) -> Mapping[str, bool]:
    if isinstance(names, str):
        return {names: True}
    return names if isinstance(names, Mapping) else dict.fromkeys(names, True)
