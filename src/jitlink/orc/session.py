"""ExecutionSession: one executor, its JITDylibs, and the loop that changes them.

A session owns a loop, which at most one thread at a time drives (`jitlink.orc.driver`), and its
state is accessed only on the driver thread, so there are no locks. Public methods may be called
from any other thread; each that waits has an asynchronous form, for which a thread waits with
`wait`. Linked code never runs on the driver thread, so it may call back into the session.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

from jitlink.errors import ExecutorError
from jitlink.executor import ExecutorProcessControl, SelfExecutorProcessControl
from jitlink.logs import Log
from jitlink.orc.driver import SessionDriver, is_collecting
from jitlink.orc.dylib import Definition, JITDylib
from jitlink.orc.errors import (
    FailedToMaterializeError,
    Failure,
    SessionEndedError,
    SessionError,
    raise_first,
)
from jitlink.orc.generators import extract_members
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
from jitlink.orc.link_orders import walk_link_orders
from jitlink.orc.lookup import look_up, search, symbols_of
from jitlink.orc.materialization import MaterializationTask, tasks_for
from jitlink.orc.tracebacks import shorten
from jitlink.orc.trackers import remove_tracker, transfer_tracker
from jitlink.orc.waiting_on_graph import WaitingOnGraph
from jitlink.tasks import Event, Task, wait_for_all

if TYPE_CHECKING:
    from jitlink.orc.interface import HostSymbol, MaterializationUnit, Query
    from jitlink.orc.restart import Restarter
    from jitlink.orc.unit_record import UnitRecord

T = TypeVar("T")
Names = str | Iterable[str] | Mapping[str, bool]
log = Log("jitlink.orc")

_GRACE = 0.5
"""Seconds that links have to finish when a session ends, before they are cancelled."""
_CANCEL_TIMEOUT = 5.0
"""Seconds that cancelled links have to stop."""


def log_error(error: BaseException) -> None:
    """Log an error: the default `ExecutionSession.error_handler`."""
    log.logger.error("%s", error, exc_info=error)


class ExecutionSession:
    """A running JIT.

    It must be ended (`end`, or a ``with`` statement): only that releases what was linked. The
    threads of a session that is collected without that stop all the same.

    Args:
        executor: the executor to link for; by default this process.

    Attributes:
        executor: the executor to link for.
        dylibs: its JITDylibs by name, in order of creation; for the driver thread.
        resource_managers: notified when resources are to be released; likewise.
        queries: lookups that wait; likewise.
        searches: tasks that are searching; likewise.
        waiting_on_graph: the symbols that are emitted and not ready; likewise.
        error_handler: called with errors that no caller waits for, on the thread where they occur;
            by default they are logged.
        is_ending: whether lookups and definitions are refused.
        record: what was added, if the executor can be restarted; likewise.
    """

    def __init__(self, executor: ExecutorProcessControl | None = None) -> None:
        self.executor = executor or SelfExecutorProcessControl.shared()
        self.dylibs: dict[str, JITDylib] = {}
        self._discarded: dict[JITDylib, Event] = {}
        self.resource_managers: list[ResourceManager] = []
        self.queries: dict[Query, None] = {}
        self.searches: set[Task[Any]] = set()
        self.error_handler: Callable[[BaseException], None] = log_error
        self.is_ending = False
        self.waiting_on_graph: WaitingOnGraph[Definition] = WaitingOnGraph()
        self._materializations: dict[Task[None], MaterializationTask] = {}
        self._end_lock = threading.Lock()
        self.record: UnitRecord | None = None
        self._restarter: Restarter | None = None
        if not self.executor.is_this_process:
            from jitlink.orc.restart import Restarter  # noqa: PLC0415 - not in this process

            self._restarter = Restarter(self)
            self.record = self._restarter.record
            self.resource_managers.append(self.record)
        self._driver = SessionDriver(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.end()

    def dump(self) -> str:
        """The whole session as human-readable text.

        Raises:
            SessionEndedError: the session has ended.
        """
        from jitlink.orc.text import session_text  # noqa: PLC0415 - for people only

        return self.run(lambda: session_text(self.dylibs.values(), self.queries))

    # Between threads

    def run(self, action: Callable[[], T]) -> T:
        """Run a function on the driver thread and return its result.

        Raises:
            SessionEndedError: the session has ended.
        """
        try:
            return self._driver.run(action)
        except BaseException as error:
            shorten(error)
            raise

    def wait(self, coroutine: Coroutine[Any, Any, T], *, may_drive: bool = True) -> T:
        """Run a coroutine on the driver thread and return its result.

        Args:
            coroutine: the coroutine.
            may_drive: whether the calling thread may become the driver thread.

        Raises:
            SessionError: called on the driver thread, which would wait for itself.
            SessionEndedError: the session has ended, or ended meanwhile.
        """
        try:
            return self._driver.wait(coroutine, may_drive=may_drive)
        except BaseException as error:
            shorten(error)
            raise

    def begin(self, coroutine: Coroutine[Any, Any, T], context: Context | None = None) -> Task[T]:
        """Start a coroutine as a task of its own; on the driver thread.

        Args:
            coroutine: the coroutine. The caller must keep the task alive until it is done.
            context: its context variables; by default a copy of the caller's.
        """
        return Task(self._driver.loop, coroutine, context)

    def call_later(self, delay: float, action: Callable[[], None]) -> None:
        """Call a function on the driver thread after `delay` seconds, without waiting for it.

        Raises:
            SessionEndedError: the session has ended. If it ends before then, nothing is called.
        """
        if not self._driver.call_later(delay, action):
            raise SessionEndedError

    def settle(self) -> None:
        """End the session's own threads, which start when they are needed.

        For code that is about to run and is to find no other threads. Waits for threads that are
        busy, but not for long.
        """
        self._driver.settle()

    def report_error(self, error: BaseException) -> None:
        """Call the error handler; if that fails, both errors are logged."""
        try:
            self.error_handler(error)
        except Exception as failure:  # noqa: BLE001 - it may raise anything
            log_error(error)
            log_error(failure)

    def check_open(self) -> None:
        """Check that lookups and definitions are still accepted.

        Raises:
            SessionEndedError: the session has ended, or is ending.
        """
        if self.is_ending:
            raise SessionEndedError

    # The executor

    def restart_executor(self) -> None:
        """Start another process in place of the executor's, and have all there again that was.

        Definitions, trackers and link orders stay, and are linked when they are looked up; what had
        been initialised is initialised again. Variables have their initial values. See
        `jitlink.orc.restart`. While another thread does the same, this waits for that.

        Raises:
            NotRestartableError: something could not be linked again; nothing has happened.
            ExecutorError: the executor is this process, or was closed, or cannot be started; or it
                has ended again, by an initialiser.
            JITLinkError: something could not be linked or initialised; the executor was restarted.
            SessionEndedError: the session has ended.
        """
        if self._restarter is None:
            raise ExecutorError("the executor is this process, which cannot be restarted")
        self._restarter.restart()

    def check_executor(self) -> None:
        """Restart the executor if it has ended and is to be restarted when it is needed again.

        All methods that wait for links do so first; their asynchronous forms do not.

        Raises:
            ExecutorRestartedError: the executor was restarted for another session, and is not to be
                restarted without being told so.
            JITLinkError: as for `restart_executor`.
        """
        if self._restarter is not None:
            self._restarter.check()

    def check_links(self) -> None:
        """Check that links are possible; on the driver thread.

        Raises:
            ExecutorRestartedError: what was linked is in a process that has ended.
        """
        if self._restarter is not None:
            self._restarter.check_links()

    @property
    def generation(self) -> int:
        """The executor's generation that the session's addresses belong to."""
        return 0 if self._restarter is None else self._restarter.generation

    @property
    def is_connected(self) -> bool:
        """Whether the executor is there, with what the session has linked."""
        return self._restarter is None or self._restarter.is_connected

    # JITDylibs

    def create_jitdylib(self, name: str) -> JITDylib:
        """Create an empty JITDylib.

        Raises:
            SessionError: a JITDylib of that name exists.
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
        # A session that ends removes all of them.
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
        """Remove a JITDylib: at once if no other thread drives the session, else soon.

        It does not block, so that it may be called while garbage is collected; finalisers of its
        code run on another thread. Errors are reported with `report_error`.
        """
        removed = self._discarded[dylib] = Event()

        async def remove() -> None:
            try:
                await self.remove_jitdylib_async(dylib)
            except Exception as error:  # noqa: BLE001 - no caller waits for it
                self.report_error(error)
            finally:
                self._discarded.pop(dylib, None)
                removed.set()

        self._driver.call_from_finalizer(remove)

    def wait_until_removed(self, dylib: JITDylib) -> None:
        """Wait for `discard_jitdylib`; not where that is impossible.

        That is so on the driver thread, while garbage is collected, and once the session has ended.
        """
        removed = self._discarded.get(dylib)
        if removed is None or self._driver.is_current or is_collecting():
            return
        with contextlib.suppress(SessionEndedError):
            # Native code may have called this thread.
            self._driver.wait(removed.wait(), may_drive=False)

    # Lookup

    def lookup(
        self,
        order: SearchOrder | JITDylib,
        names: Names,
        *,
        required_state: SymbolState = SymbolState.READY,
        kind: LookupKind = LookupKind.STATIC,
    ) -> dict[str, ExecutorSymbolDef]:
        """Find symbols, materialize them, and wait for them.

        Args:
            order: the JITDylibs to search, with lookup flags; or one JITDylib, all of whose symbols
                match.
            names: names that must be found, or a mapping of names to whether they must. A symbol
                for side effects only counts as not found if it must be.
            required_state: the state to wait for, RESOLVED or READY.
            kind: what the search is for.

        Returns:
            The symbols that were found, without those for side effects only.

        Raises:
            UndefinedSymbolError: names that must be found are not.
            FailedToMaterializeError: a definition could not be materialized, or was removed
                meanwhile; the cause is chained.
            JITDylibDefunctError: a JITDylib of the order was removed.
            SessionEndedError: the session has ended, or ended meanwhile.
        """
        self.check_executor()
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
        """The asynchronous form of `lookup`, for code on the driver thread."""
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
        """Find symbols and return their flags; generators are called, but nothing is materialized.

        Raises:
            UndefinedSymbolError: names that must be found are not.
            JITDylibDefunctError: a JITDylib of the order was removed.
            SessionEndedError: the session has ended, or ended meanwhile.
        """
        self.check_executor()
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

    def python_symbols(self, symbols: Mapping[str, HostSymbol]) -> MaterializationUnit:
        """A unit that defines addresses and Python functions by name.

        Raises:
            TypeError: a value is neither an address nor a function with known C types.
            ValueError: a number is not an address.
            SessionError: there are functions, and the executor is another process.
        """
        from jitlink.orc.callables import PythonSymbols  # noqa: PLC0415 - many sessions need none

        return PythonSymbols(self, symbols)

    # Materialization; on the driver thread

    def materialize(self, definitions: Iterable[Definition]) -> None:
        """Start materializing those definitions that have not been looked up before."""
        unsearched = [definition for definition in definitions if definition.unit is not None]
        if unsearched:
            for materialization in tasks_for(unsearched):
                self._start(materialization)

    def extract_members(self, definitions: Iterable[Definition]) -> bool:
        """Extract the archive members that definitions need which are about to be materialized.

        Returns:
            Whether there were any; they may have overridden some of the definitions.
        """
        unsearched = [definition for definition in definitions if definition.unit is not None]
        return bool(unsearched) and extract_members(unsearched)

    def _start(self, materialization: MaterializationTask) -> None:
        materialization.begin()
        log.debug("materializing %s", materialization)
        task = self.begin(self._materialize(materialization))
        self._materializations[task] = materialization
        task.add_done_callback(partial(self._materializations.pop, task))

    async def _materialize(self, materialization: MaterializationTask) -> None:
        try:
            await materialization.run()
        except BaseException as error:  # noqa: BLE001 - the lookups that wait fail with it
            if (
                self.is_ending
                or not self.is_connected
                or not isinstance(error, Exception)
                or not materialization.can_be_split
            ):
                log.debug("failed: %s: %s", materialization, error)
                materialization.fail(error)
            else:
                log.debug("materializing one by one: %s: %s", materialization, error)
                # Perhaps only one of the units is at fault.
                for task in materialization.split(error):
                    self._start(task)
        else:
            log.debug("materialized %s", materialization)
            materialization.finish()
        finally:
            # Frames of an error lead back to this one, and a unit may have the error.
            del materialization

    def emit(
        self, groups: Sequence[tuple[Sequence[Definition], Mapping[Definition, set[str]]]]
    ) -> None:
        """Record that definitions were emitted, with their dependencies."""
        for definitions, _ in groups:
            for definition in definitions:
                definition.responsibility = None
        self.waiting_on_graph.emit(groups)

    def fail(self, definitions: Iterable[Definition], error: BaseException | None) -> None:
        """Fail definitions, all that depend on them, and the lookups that wait for these."""
        failed = list(definitions)
        lost = self.waiting_on_graph.fail(failed)
        failure = Failure.of(failed[0].source, error) if failed else None
        raised: FailedToMaterializeError | None = None
        for definition in lost:
            definition.failure = failure
            definition.responsibility = None
            for query in list(definition.queries):
                # Created only if a lookup waits, and once for each, for its own traceback.
                raised = raised.copy() if raised else self.failed_to_materialize(lost)
                query.fail(raised)

    def fail_later(self, definitions: list[Definition], error: BaseException) -> None:
        """`fail`, as soon as the driver thread is free; from any thread."""

        def fail() -> None:
            remaining = [definition for definition in definitions if definition.is_in_progress]
            self.fail([d for d in remaining if d.state < SymbolState.EMITTED], error)

        self._driver.call(fail)

    def failed_to_materialize(self, definitions: Sequence[Definition]) -> FailedToMaterializeError:
        """An error about definitions that have failed."""
        names: dict[str, list[str]] = {}
        for definition in definitions:
            names.setdefault(definition.dylib.name, []).extend(definition.flags)
        return FailedToMaterializeError(names, failure=definitions[0].failure)

    # Resources; on the driver thread

    async def remove_tracker(self, tracker: ResourceTracker) -> None:
        """Remove a tracker's symbols and release its resources; nothing if it is defunct."""
        await remove_tracker(self, tracker)

    def transfer_tracker(self, destination: ResourceTracker, source: ResourceTracker) -> None:
        """Transfer everything that one tracker owns to another."""
        transfer_tracker(self, destination, source)

    def register_resource_manager(self, manager: ResourceManager) -> None:
        """Notify a manager when resources are to be released or transferred."""
        self.run(lambda: self.resource_managers.append(manager))

    def deregister_resource_manager(self, manager: ResourceManager) -> None:
        """Stop notifying a manager.

        Raises:
            ValueError: it was not registered.
        """
        self.run(lambda: self.resource_managers.remove(manager))

    # The end

    def end(self) -> None:
        """Stop all links, remove all JITDylibs, and end the session; a second call does nothing.

        Lookups that wait fail. A JITDylib is removed before those that it is linked against; in
        each, the trackers are removed in reverse order of first use.

        Raises:
            JITLinkError: resources could not be released, or a link could not be stopped;
                everything else was done.
            SessionError: called on the driver thread.
        """
        self._driver.check_is_other()
        with self._end_lock:
            if self._driver.is_stopped:
                return
            try:
                self.wait(self._end())
            finally:
                self._driver.stop()

    async def _end(self) -> None:
        self.is_ending = True
        for task in list(self.searches):
            task.cancel()
        for query in list(self.queries):
            query.fail(SessionEndedError())
        errors: list[Exception] = []
        stuck = await self.stop_materializing()
        for dylib in reversed(walk_link_orders(self.dylibs.values())):
            try:
                await self.remove_jitdylib_async(dylib)
            except Exception as error:  # noqa: BLE001 - the others are still to be removed
                errors.append(error)
        if stuck:
            errors.append(SessionError(f"cannot be stopped: {', '.join(stuck)}"))
        raise_first(errors)

    async def stop_materializing(self) -> list[str]:
        """Stop all materialization, and return the names of the units that could not be stopped."""
        if self._materializations:
            await wait_for_all(self._materializations, _GRACE)
        if self._materializations:
            for task in list(self._materializations):
                task.cancel()
            await wait_for_all(self._materializations, _CANCEL_TIMEOUT)
        return [
            materialization.unit.name
            for task, materialization in self._materializations.items()
            if not task.is_done
        ]


def _wanted(names: Names) -> Mapping[str, bool]:
    if isinstance(names, str):
        return {names: True}
    return names if isinstance(names, Mapping) else dict.fromkeys(names, True)
