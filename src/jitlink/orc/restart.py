"""Restarting the executor of a session: what was added is there again, in a new process.

What the process has computed is lost: variables have their initial values, and all addresses are
others. Everything else is as it was:

1. It is found out whether all units can be renewed; if not, nothing happens.
2. The process is ended, if it has not. Links and lookups that are under way fail.
3. All resources are removed, as if their trackers were, but the trackers stay.
4. Another process is started, with the same shared libraries.
5. In each JITDylib, the units that were recorded (`jitlink.orc.unit_record`) are added again, with
   their trackers, in order. They are linked when they are looked up.
6. Graphs that are linked as a whole are linked again; then what had been initialised is
   initialised.

Several sessions may use one executor. The first one restarts it; for the others, what they had
linked is gone as well, and their own restart begins with step 3.

LLVM differs: there, a session ends with its executor.
"""

from __future__ import annotations

import threading
from typing import Protocol

from jitlink.executor import ExecutorProcessControl, ExecutorRestartedError
from jitlink.executor.remote.incoming import handles_call
from jitlink.orc.dylib import Definition, JITDylib
from jitlink.orc.errors import NotRestartableError, raise_first
from jitlink.orc.interface import Session
from jitlink.orc.link_orders import walk_link_orders
from jitlink.orc.unit_record import UnitRecord
from jitlink.orc.waiting_on_graph import WaitingOnGraph
from jitlink.tasks import sleep

_POLL = 0.001
_CANCEL_TIMEOUT = 5.0
"""Seconds that cancelled searches have to stop."""


class RestartableSession(Session, Protocol):
    """An `ExecutionSession`, as `Restarter` uses it."""

    waiting_on_graph: WaitingOnGraph[Definition]

    async def stop_materializing(self) -> list[str]:
        """Stop all materialization."""

    def report_error(self, error: BaseException) -> None:
        """Call the error handler."""


class Restarter:
    """Restarts the executor of one session.

    Args:
        session: the session.

    Attributes:
        record: what was added to the session.
        generation: the executor's generation that the session's addresses belong to.
        is_stopped: whether nothing can be linked, because what was linked is gone, and not yet
            added again.
    """

    def __init__(self, session: RestartableSession) -> None:
        self.record = UnitRecord()
        self.generation = session.executor.generation
        self.is_stopped = False
        self._session = session
        # Whether all is there again that is there at once.
        self._is_complete = True
        # Held while the executor is restarted, and what had run runs again; by no driver thread.
        self._lock = threading.RLock()
        self._is_restarting = False

    @property
    def _executor(self) -> ExecutorProcessControl:
        return self._session.executor

    @property
    def is_connected(self) -> bool:
        """Whether the executor is there, and its process is that of the session's addresses."""
        executor = self._executor
        is_present = executor.generation == self.generation and not self.is_stopped
        return is_present and executor.is_alive

    def _is_current(self) -> bool:
        return self.is_connected and self._is_complete

    def check(self) -> None:
        """Restart the executor if it is to be; see `ExecutionSession.check_executor`."""
        if self._is_current() or handles_call():
            # What an initialiser calls must not wait for the initialisers.
            return
        # Perhaps another thread is about to have restarted it.
        with self._lock:
            if self._is_current() or self._is_restarting:
                return
            if self._executor.restarts_on_crash:
                self._restart()
            elif self._executor.is_alive:
                raise self.error()

    def check_links(self) -> None:
        """Check that links are possible.

        Raises:
            ExecutorRestartedError: what was linked is in a process that has ended.
        """
        if self.is_stopped or self._executor.generation != self.generation:
            raise self.error()

    def error(self) -> ExecutorRestartedError:
        """The error of what needs the process that has ended."""
        return ExecutorRestartedError(
            "the session's code was in an executor that has ended: "
            "restart_executor() of the session links it again"
        )

    def restart(self) -> None:
        """Restart the executor; see `ExecutionSession.restart_executor`."""
        generation = self.generation
        with self._lock:
            if self.generation == generation or not self._is_current():
                self._restart()

    def _restart(self) -> None:
        session, ended = self._session, self.generation
        session.run(self._stop)
        self._is_restarting = True
        try:
            self._restart_process(ended)
            for dylib in session.run(lambda: list(session.dylibs.values())):
                if dylib.relink is not None:
                    dylib.relink()
            self._resume()
        finally:
            self._is_restarting = False

    def _restart_process(self, ended: int) -> None:
        session, executor = self._session, self._executor
        try:
            executor.stop(ended)
            session.wait(self._release())
            executor.restart(ended)
            session.run(self._add_again)
        except BaseException:
            # If it has not ended, all is as it was.
            session.run(self._go_on)
            raise

    def _resume(self) -> None:
        session = self._session
        errors: list[Exception] = []
        try:
            for manager in session.run(lambda: list(session.resource_managers)):
                try:
                    manager.resume()
                except Exception as error:  # noqa: BLE001 - the others are still to be resumed
                    errors.append(error)
        finally:
            self._is_complete = True
        raise_first(errors)

    # On the driver thread

    def _stop(self) -> None:
        """Refuse lookups from now on, unless something could not be linked again."""
        self._session.check_open()
        obstacles = [
            obstacle
            for manager in self._session.resource_managers
            for obstacle in manager.restart_obstacles()
        ]
        for recorded in self.record.in_order():
            obstacles += recorded.unit.restart_obstacles(recorded.symbols)
        for dylib in self._session.dylibs.values():
            obstacles += dylib.restart_obstacles
        if obstacles:
            raise NotRestartableError(obstacles)
        self.is_stopped, self._is_complete = True, False

    def _go_on(self) -> None:
        is_whole = self._executor.generation == self.generation and self._executor.is_alive
        self.is_stopped, self._is_complete = not is_whole, is_whole

    async def _release(self) -> None:
        """Stop what is under way, and release all resources; their process has ended."""
        session = self._session
        # They end by themselves, with the executor's error, unless they wait for something else.
        await session.stop_materializing()
        for task in list(session.searches):
            task.cancel()
        for query in list(session.queries):
            query.fail(self.error())
        for _ in range(int(_CANCEL_TIMEOUT / _POLL)):
            if not session.searches:
                break
            await sleep(_POLL)
        for dylib in reversed(walk_link_orders(session.dylibs.values())):
            await self._release_resources(dylib)

    async def _release_resources(self, dylib: JITDylib) -> None:
        for tracker in reversed(list(dylib.trackers)):
            for manager in reversed(self._session.resource_managers):
                if manager is self.record:
                    continue
                try:
                    await manager.handle_remove_resources(dylib, tracker)
                except Exception as error:  # noqa: BLE001 - the others are still to be notified
                    self._session.report_error(error)

    def _add_again(self) -> None:
        """Add what was recorded again; if that of one unit fails, nothing changes."""
        session = self._session
        units = [(each.tracker, each.renewed()) for each in self.record.in_order()]
        self.record.clear()
        session.waiting_on_graph = WaitingOnGraph()
        for dylib in session.dylibs.values():
            dylib.forget_definitions()
        self.generation = self._executor.generation
        for manager in session.resource_managers:
            try:
                manager.handle_restart()
            except Exception as error:  # noqa: BLE001 - all the rest is still to be added again
                session.report_error(error)
        for tracker, unit in units:
            tracker.dylib.add_unit(unit, tracker)
        self.is_stopped = False
