"""Which thread drives a session, and that no call is lost between threads."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING

import pytest

from jitlink.orc import ExecutionSession, SessionEndedError
from jitlink.orc import driver as driver_module
from jitlink.orc.driver import SessionDriver
from jitlink.tasks import CancelledError, Future, Task, sleep
from tests.orc.sessions import run_threads
from tests.orc.units import Unit, time_limit

if TYPE_CHECKING:
    from _typeshed import TraceFunction

pytestmark = pytest.mark.serial("counts threads")


class Owner:
    """Stands for a session."""


@pytest.fixture
def owner() -> Owner:
    return Owner()


_others: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def _record_others() -> None:
    """Sessions of earlier tests may have fallback threads, above all that of `jitlink.load`."""
    _others.clear()
    _others.update(threading.enumerate())


def fallback_threads() -> list[threading.Thread]:
    """The fallback threads of the sessions of this test."""
    threads = threading.enumerate()
    return [
        thread for thread in threads if thread.name == "jitlink session" and thread not in _others
    ]


async def ident() -> int:
    await sleep(0)
    return threading.get_ident()


def test_a_thread_that_waits_becomes_the_driver(owner: Owner) -> None:
    driver = SessionDriver(owner)
    assert driver.wait(ident()) == threading.get_ident()
    assert driver.run(threading.get_ident) == threading.get_ident()
    assert not fallback_threads()
    assert driver.wait(ident(), may_drive=False) != threading.get_ident()
    driver.stop()
    assert not fallback_threads()


def test_an_idle_thread_ends(owner: Owner) -> None:
    driver = SessionDriver(owner)
    with time_limit():
        for _ in range(20):
            driver.wait(ident(), may_drive=False)
            driver.settle()
            assert not fallback_threads()
        driver.settle()
        driver.wait(ident(), may_drive=False)
        while fallback_threads():
            time.sleep(0.001)
        driver.stop()


def test_a_busy_thread_is_not_waited_for(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jitlink.orc.driver._SETTLE_TIMEOUT", 0.01)
    driver = SessionDriver(owner)
    begun, go_on = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        assert go_on.wait(30)

    with time_limit():
        assert driver.call(block)
        assert begun.wait(30)
        driver.settle()
        assert fallback_threads()
        go_on.set()
        driver.stop()


def test_an_interpreter_that_starts_no_threads(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    driver = SessionDriver(owner)
    later: list[Task[None]] = []

    async def leave() -> None:
        later.append(Task(driver.loop, sleep(0)))

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with time_limit():
        assert driver.wait(ident(), may_drive=False) == threading.get_ident()
        driver.wait(leave())
        assert driver.wait(ident(), may_drive=False) == threading.get_ident()
        driver.stop()
    assert later[0].is_done


def test_an_ordinary_session_starts_no_thread() -> None:
    with time_limit(), ExecutionSession() as session:
        main = session.create_jitdylib("main")
        units = [Unit(["a"], ["b"]), Unit(["b"], ["a"])]
        for unit in units:
            main.define(unit)
        session.lookup(main, ["a", "b"])
        main.default_tracker.remove()
        assert not fallback_threads()
    assert not fallback_threads()


def test_the_fallback_thread_runs_what_is_left(owner: Owner) -> None:
    driver = SessionDriver(owner)
    done: list[int] = []

    async def leave() -> None:
        async def later() -> None:
            for _ in range(10):
                await sleep(0)
            done.append(threading.get_ident())

        tasks.append(Task(driver.loop, later()))

    tasks: list[Task[None]] = []
    with time_limit():
        driver.wait(leave())
        while not done:
            time.sleep(0.001)
        assert done != [threading.get_ident()]
        driver.stop()


def test_timers_need_no_waiting_thread(owner: Owner) -> None:
    driver = SessionDriver(owner)
    order: list[str] = []
    with time_limit():
        assert driver.call_later(0.05, lambda: order.append("second"))
        assert driver.call_later(0.01, lambda: order.append("first"))
        while len(order) < 2:
            time.sleep(0.001)
        begin = time.monotonic()
        driver.wait(sleep(0.02))
        assert time.monotonic() - begin >= 0.02
        driver.stop()
    assert order == ["first", "second"]
    assert not driver.call_later(0, lambda: None)


def test_a_timer_that_expires_at_the_end_starts_nothing(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jitlink.orc.driver._CANCEL_TIMEOUT", 0.0)
    driver = SessionDriver(owner)
    started: list[Task[None]] = []

    def start() -> None:
        started.append(Task(driver.loop, sleep(0)))

    with time_limit():
        # Not by the driver thread, which would leave it to a fallback thread.
        driver.loop.call_later(0, start)
        driver.stop()
    # A task that is started then never runs: "coroutine 'sleep' was never awaited".
    assert not started


def test_others_wait_while_one_thread_drives(owner: Owner) -> None:
    driver = SessionDriver(owner)
    begun, go_on = threading.Event(), threading.Event()
    threads: set[int] = set()

    def block() -> None:
        begun.set()
        assert go_on.wait(30)

    def other() -> None:
        assert begun.wait(30)
        threading.Timer(0.05, go_on.set).start()
        threads.add(driver.wait(ident()))

    with time_limit():
        run_threads([lambda: driver.run(block), other, other, other])
        assert threads <= {thread.ident for thread in fallback_threads()} | threads
        driver.stop()
    assert len(threads) >= 1


def test_many_threads_at_once(owner: Owner) -> None:
    driver = SessionDriver(owner)
    counts = [0]

    async def count() -> None:
        value = counts[0]
        # No other thread drives in between.
        counts[0] = value + 1
        await sleep(0)

    def work() -> None:
        for number in range(300):
            if number % 3:
                driver.wait(count(), may_drive=number % 7 != 0)
            else:
                driver.run(lambda: counts.__setitem__(0, counts[0] + 1))

    with time_limit():
        run_threads([work] * 8)
        driver.stop()
    assert counts == [8 * 300]


def test_an_interrupt_is_deferred_until_the_call_is_done(owner: Owner) -> None:
    driver = SessionDriver(owner)
    steps: list[str] = []

    def interrupted() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        steps.append("done all the same")

    async def wait_for_ever() -> None:
        interrupted()
        try:
            await Future()
        finally:
            steps.append("cancelled")

    calls: list[Callable[[], object]] = [
        lambda: driver.run(interrupted),
        lambda: driver.wait(wait_for_ever()),
    ]
    with time_limit():
        for call in calls:
            with pytest.raises(KeyboardInterrupt):
                call()
        driver.stop()
    assert steps == ["done all the same", "done all the same", "cancelled"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class InterruptedAt:
    """Interrupts the main thread at one of the lines of the driver's module that it executes."""

    def __init__(self, number: int) -> None:
        self.remaining = number

    def trace(self, frame: FrameType, event: str, _argument: object) -> TraceFunction | None:
        if frame.f_code.co_filename != driver_module.__file__:
            return None
        if event == "line":
            self.remaining -= 1
            if self.remaining == 0:
                signal.raise_signal(signal.SIGINT)
        return self.trace


# Of an interrupt before the driver has the coroutine.
@pytest.mark.filterwarnings("ignore:coroutine 'ident' was never awaited")
@pytest.mark.parametrize("way", ["run", "wait", "finalizer"])
def test_an_interrupt_anywhere_leaves_no_thread_as_the_driver(owner: Owner, way: str) -> None:
    driver = SessionDriver(owner)
    calls: dict[str, Callable[[], object]] = {
        "run": lambda: driver.run(threading.get_ident),
        "wait": lambda: driver.wait(ident()),
        "finalizer": lambda: driver.call_from_finalizer(lambda: sleep(0)),
    }
    interrupts = 0
    with time_limit():
        for number in itertools.count(1):
            interrupted = InterruptedAt(number)
            try:
                sys.settrace(interrupted.trace)
                calls[way]()
            except KeyboardInterrupt:
                interrupts += 1
            finally:
                sys.settrace(None)
            if interrupted.remaining > 0:
                break
            # Another thread finds neither the lock held nor a driver that never leaves.
            run_threads([lambda: driver.wait(ident())], timeout=5)
        driver.stop()
    assert interrupts > 10


def test_a_program_of_asyncio_waits_like_any_other(owner: Owner) -> None:
    driver = SessionDriver(owner)

    async def inside() -> int:
        return driver.wait(ident())

    with time_limit():
        assert asyncio.run(inside()) == threading.get_ident()
        driver.stop()


def test_sessions_can_wait_for_one_another(owner: Owner) -> None:
    outer, inner = SessionDriver(owner), SessionDriver(owner)

    async def inside() -> int:
        await sleep(0)
        found = inner.wait(ident())
        # The task that runs here is again the outer one.
        await sleep(0)
        return found

    with time_limit():
        assert outer.wait(inside()) == threading.get_ident()
        inner.stop()
        outer.stop()


def test_calls_from_finalizers(owner: Owner) -> None:
    driver = SessionDriver(owner)
    order: list[str] = []

    async def collect() -> None:
        order.append("collected")

    def busy() -> None:
        # As if garbage were collected here.
        driver.call_from_finalizer(collect)
        order.append("busy")

    with time_limit():
        driver.call_from_finalizer(collect)
        assert order == ["collected"]
        driver.run(busy)
        while len(order) < 3:
            time.sleep(0.001)
        driver.stop()
    assert order == ["collected", "busy", "collected"]


def test_calls_are_refused_after_the_stop(owner: Owner) -> None:
    driver = SessionDriver(owner)
    driver.stop()
    driver.stop()
    assert driver.is_stopped
    assert not driver.call(lambda: None)
    for call in (lambda: driver.run(lambda: None), lambda: driver.wait(ident())):
        with pytest.raises(SessionEndedError):
            call()


def test_a_child_process_has_threads_of_its_own(owner: Owner) -> None:
    driver = SessionDriver(owner)
    driver.wait(ident(), may_drive=False)
    # Python 3.12 and later warn of forks while there are other threads.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        status = 1
        try:
            signal.alarm(30)
            status = 0 if driver.wait(ident(), may_drive=False) != threading.get_ident() else 1
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    driver.stop()


def test_an_owner_that_is_dropped_without_a_fallback_thread() -> None:
    owner = Owner()
    driver = SessionDriver(owner)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del owner
        gc.collect()
    assert [warning.category for warning in caught] == [ResourceWarning]
    assert driver.is_stopped


def test_a_call_that_starts_as_the_driver_stops_is_cancelled(owner: Owner) -> None:
    driver = SessionDriver(owner)
    begun, errors = threading.Event(), []

    async def wait_for_ever() -> None:
        begun.set()
        await Future()

    def wait() -> None:
        with pytest.raises(SessionEndedError) as caught:
            driver.wait(wait_for_ever())
        errors.append(caught.value)

    def hold() -> None:
        # The call is scheduled while this thread drives, and starts when the loop is closed.
        waiting.start()
        while not driver.loop.has_due:
            time.sleep(0.001)
        stopping.start()
        while not driver.is_stopped:
            time.sleep(0.001)

    waiting, stopping = threading.Thread(target=wait), threading.Thread(target=driver.stop)
    with time_limit():
        driver.run(hold)
        waiting.join(20)
        stopping.join(20)
    assert begun.is_set()
    assert len(errors) == 1


def test_a_call_from_a_finalizer_while_the_lock_is_held(owner: Owner) -> None:
    driver = SessionDriver(owner)
    role = driver._role
    held, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def hold() -> None:
        with role._changed:
            held.set()
            assert go_on.wait(30)

    async def collect() -> None:
        done.set()

    holder = threading.Thread(target=hold)
    with time_limit():
        holder.start()
        assert held.wait(30)
        driver.call_from_finalizer(collect)
        go_on.set()
        holder.join()
        assert done.wait(30)
        driver.stop()


def test_no_caller_waits_for_a_task_that_does_not_stop(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jitlink.orc.driver._CANCEL_TIMEOUT", 0.05)
    driver, begun = SessionDriver(owner), threading.Event()

    async def stubborn() -> None:
        begun.set()
        while True:
            with suppress(CancelledError):
                await sleep(100)

    errors: list[BaseException] = []

    def wait() -> None:
        with pytest.raises(SessionEndedError) as caught:
            driver.wait(stubborn())
        errors.append(caught.value)

    waiter = threading.Thread(target=wait)
    with time_limit():
        waiter.start()
        assert begun.wait(30)
        driver.stop()
        waiter.join(20)
    assert len(errors) == 1
