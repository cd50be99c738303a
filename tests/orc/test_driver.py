"""Which thread runs a session, and that nothing is lost between threads."""

import asyncio
import gc
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress

import pytest

from jitlink.orc import ExecutionSession, SessionEndedError
from jitlink.orc.driver import SessionDriver
from jitlink.tasks import CancelledError, Future, Task, sleep
from tests.orc.sessions import run_threads
from tests.orc.units import Unit, time_limit

pytestmark = pytest.mark.serial("counts threads")


class Owner:
    """Stands for a session."""


@pytest.fixture
def owner() -> Owner:
    return Owner()


_others: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def _note_others() -> None:
    """Sessions of earlier tests may have spare threads, that of `jitlink.load` above all."""
    _others.clear()
    _others.update(threading.enumerate())


def spares() -> list[threading.Thread]:
    """The spare threads of the sessions of this test."""
    threads = threading.enumerate()
    return [each for each in threads if each.name == "jitlink session" and each not in _others]


async def ident() -> int:
    await sleep(0)
    return threading.get_ident()


def test_who_waits_does_the_work(owner: Owner) -> None:
    thread = SessionDriver(owner)
    assert thread.wait(ident()) == threading.get_ident()
    assert thread.run(threading.get_ident) == threading.get_ident()
    assert not spares()
    assert thread.wait(ident(), aside=True) != threading.get_ident()
    thread.stop()
    assert not spares()


def test_an_idle_thread_ends(owner: Owner) -> None:
    thread = SessionDriver(owner)
    with time_limit():
        for _ in range(20):
            thread.wait(ident(), aside=True)
            thread.settle()
            assert not spares()
        thread.settle()
        thread.wait(ident(), aside=True)
        while spares():
            time.sleep(0.001)
        thread.stop()


def test_a_busy_thread_is_not_waited_for(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jitlink.orc.driver._SETTLING", 0.01)
    thread = SessionDriver(owner)
    begun, go_on = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        assert go_on.wait(30)

    with time_limit():
        assert thread.call(block)
        assert begun.wait(30)
        thread.settle()
        assert spares()
        go_on.set()
        thread.stop()


def test_an_interpreter_that_starts_no_threads(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    thread = SessionDriver(owner)
    later: list[Task[None]] = []

    async def leave() -> None:
        later.append(Task(thread.loop, sleep(0)))

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with time_limit():
        assert thread.wait(ident(), aside=True) == threading.get_ident()
        thread.wait(leave())
        assert thread.wait(ident(), aside=True) == threading.get_ident()
        thread.stop()
    assert later[0].is_done


def test_an_ordinary_session_starts_no_thread() -> None:
    with time_limit(), ExecutionSession() as session:
        main = session.create_jitdylib("main")
        units = [Unit(["a"], ["b"]), Unit(["b"], ["a"])]
        for unit in units:
            main.define(unit)
        session.lookup(main, ["a", "b"])
        main.default_tracker.remove()
        assert not spares()
    assert not spares()


def test_what_is_left_is_for_the_spare_thread(owner: Owner) -> None:
    thread = SessionDriver(owner)
    done: list[int] = []

    async def leave() -> None:
        async def later() -> None:
            for _ in range(10):
                await sleep(0)
            done.append(threading.get_ident())

        tasks.append(Task(thread.loop, later()))

    tasks: list[Task[None]] = []
    with time_limit():
        thread.wait(leave())
        while not done:
            time.sleep(0.001)
        assert done != [threading.get_ident()]
        thread.stop()


def test_timers_need_nobody(owner: Owner) -> None:
    thread = SessionDriver(owner)
    order: list[str] = []
    with time_limit():
        assert thread.call_later(0.05, lambda: order.append("second"))
        assert thread.call_later(0.01, lambda: order.append("first"))
        while len(order) < 2:
            time.sleep(0.001)
        begin = time.monotonic()
        thread.wait(sleep(0.02))
        assert time.monotonic() - begin >= 0.02
        thread.stop()
    assert order == ["first", "second"]
    assert not thread.call_later(0, lambda: None)


def test_others_wait_while_one_thread_drives(owner: Owner) -> None:
    thread = SessionDriver(owner)
    begun, go_on = threading.Event(), threading.Event()
    drivers: set[int] = set()

    def block() -> None:
        begun.set()
        assert go_on.wait(30)

    def other() -> None:
        assert begun.wait(30)
        threading.Timer(0.05, go_on.set).start()
        drivers.add(thread.wait(ident()))

    with time_limit():
        run_threads([lambda: thread.run(block), other, other, other])
        assert drivers <= {each.ident for each in spares()} | drivers
        thread.stop()
    assert len(drivers) >= 1


def test_many_threads_at_once(owner: Owner) -> None:
    thread = SessionDriver(owner)
    counts = [0]

    async def count() -> None:
        value = counts[0]
        # Nobody else comes in between.
        counts[0] = value + 1
        await sleep(0)

    def work() -> None:
        for number in range(300):
            if number % 3:
                thread.wait(count(), aside=number % 7 == 0)
            else:
                thread.run(lambda: counts.__setitem__(0, counts[0] + 1))

    with time_limit():
        run_threads([work] * 8)
        thread.stop()
    assert counts == [8 * 300]


def test_an_interrupt_waits_until_the_work_is_at_rest(owner: Owner) -> None:
    thread = SessionDriver(owner)
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
        lambda: thread.run(interrupted),
        lambda: thread.wait(wait_for_ever()),
    ]
    with time_limit():
        for call in calls:
            with pytest.raises(KeyboardInterrupt):
                call()
        thread.stop()
    assert steps == ["done all the same", "done all the same", "cancelled"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_program_of_asyncio_waits_like_any_other(owner: Owner) -> None:
    thread = SessionDriver(owner)

    async def inside() -> int:
        return thread.wait(ident())

    with time_limit():
        assert asyncio.run(inside()) == threading.get_ident()
        thread.stop()


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


def test_what_a_finalizer_hands_over(owner: Owner) -> None:
    thread = SessionDriver(owner)
    order: list[str] = []

    async def collect() -> None:
        order.append("collected")

    def busy() -> None:
        # As if garbage were collected here.
        thread.call_from_finalizer(collect)
        order.append("busy")

    with time_limit():
        thread.call_from_finalizer(collect)
        assert order == ["collected"]
        thread.run(busy)
        while len(order) < 3:
            time.sleep(0.001)
        thread.stop()
    assert order == ["collected", "busy", "collected"]


def test_nothing_is_handed_over_after_the_stop(owner: Owner) -> None:
    thread = SessionDriver(owner)
    thread.stop()
    thread.stop()
    assert thread.is_stopped
    assert not thread.call(lambda: None)
    for call in (lambda: thread.run(lambda: None), lambda: thread.wait(ident())):
        with pytest.raises(SessionEndedError):
            call()


def test_a_child_process_has_threads_of_its_own(owner: Owner) -> None:
    thread = SessionDriver(owner)
    thread.wait(ident(), aside=True)
    # Python 3.12 and later warn of forks while there are other threads.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        status = 1
        try:
            signal.alarm(30)
            status = 0 if thread.wait(ident(), aside=True) != threading.get_ident() else 1
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    thread.stop()


def test_an_owner_that_is_dropped_without_a_spare_thread() -> None:
    owner = Owner()
    thread = SessionDriver(owner)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del owner
        gc.collect()
    assert [each.category for each in caught] == [ResourceWarning]
    assert thread.is_stopped


def test_what_begins_as_the_thread_stops_is_cancelled(owner: Owner) -> None:
    thread = SessionDriver(owner)
    begun, errors = threading.Event(), []

    async def wait_for_ever() -> None:
        begun.set()
        await Future()

    def wait() -> None:
        with pytest.raises(SessionEndedError) as caught:
            thread.wait(wait_for_ever())
        errors.append(caught.value)

    def hold() -> None:
        # Handed over, because this thread is at the wheel, and begun when it is locked.
        waiting.start()
        while not thread.loop.has_due:
            time.sleep(0.001)
        stopping.start()
        while not thread.is_stopped:
            time.sleep(0.001)

    waiting, stopping = threading.Thread(target=wait), threading.Thread(target=thread.stop)
    with time_limit():
        thread.run(hold)
        waiting.join(20)
        stopping.join(20)
    assert begun.is_set()
    assert len(errors) == 1


def test_what_a_finalizer_hands_over_while_the_lock_is_held(owner: Owner) -> None:
    thread = SessionDriver(owner)
    wheel = thread._driven
    held, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def hold() -> None:
        with wheel._changed:
            held.set()
            assert go_on.wait(30)

    async def collect() -> None:
        done.set()

    holder = threading.Thread(target=hold)
    with time_limit():
        holder.start()
        assert held.wait(30)
        thread.call_from_finalizer(collect)
        go_on.set()
        holder.join()
        assert done.wait(30)
        thread.stop()


def test_nobody_waits_for_what_does_not_stop(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jitlink.orc.driver._PATIENCE", 0.05)
    thread, begun = SessionDriver(owner), threading.Event()

    async def stubborn() -> None:
        begun.set()
        while True:
            with suppress(CancelledError):
                await sleep(100)

    errors: list[BaseException] = []

    def wait() -> None:
        with pytest.raises(SessionEndedError) as caught:
            thread.wait(stubborn())
        errors.append(caught.value)

    waiter = threading.Thread(target=wait)
    with time_limit():
        waiter.start()
        assert begun.wait(30)
        thread.stop()
        waiter.join(20)
    assert len(errors) == 1
