"""Tasks and futures: order, cancellation, timers, and that no task is kept alive."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import weakref
from collections.abc import Awaitable, Coroutine
from typing import Any

import pytest

from jitlink.tasks import (
    CancelledError,
    Event,
    Future,
    Lock,
    Loop,
    Task,
    TaskVariable,
    current_task,
    in_thread,
    run,
    sleep,
    wait_for_all,
)


def begin(coroutine: Coroutine[Any, Any, Any]) -> Task[Any]:
    """A new task in the loop of the running one."""
    return Task(current_task().loop, coroutine)


def test_tasks_take_turns() -> None:
    order: list[str] = []

    async def count(name: str) -> str:
        for number in range(3):
            order.append(f"{name}{number}")
            await sleep(0)
        return name

    async def both() -> list[str]:
        tasks = [begin(count("a")), begin(count("b"))]
        return [await task for task in tasks]

    assert run(both()) == ["a", "b"]
    assert order == ["a0", "b0", "a1", "b1", "a2", "b2"]


def test_await_of_a_done_future_does_not_suspend() -> None:
    async def wait() -> list[int]:
        loop = current_task().loop
        done: Future[int] = Future()
        done.set_result(5)
        later: list[int] = []
        loop.call_soon(lambda: later.append(1))
        found = await done
        return [found, *later]

    assert run(wait()) == [5]


def test_errors_reach_all_waiting_tasks() -> None:
    async def wait() -> list[str]:
        failing: Future[None] = Future()

        async def catch() -> str:
            try:
                await failing
            except ValueError as error:
                return str(error)
            return "nothing"

        tasks = [begin(catch()) for _ in range(3)]
        await sleep(0)
        failing.set_exception(ValueError("failed"))
        return [await task for task in tasks]

    assert run(wait()) == ["failed"] * 3
    with pytest.raises(KeyError):
        run(_raise(KeyError()))


async def _raise(error: BaseException) -> None:
    raise error


def test_a_future_is_completed_once() -> None:
    future: Future[int] = Future(Loop(lambda: None))
    future.set_result(1)
    assert not future.cancel()
    with pytest.raises(RuntimeError):
        future.set_result(2)
    assert future.result() == 1


@pytest.mark.parametrize("moment", ["before", "waiting", "woken", "running"])
def test_cancellation(moment: str) -> None:
    log: list[str] = []

    async def work(future: Future[None]) -> None:
        log.append("begun")
        if moment == "running":
            current_task().cancel()
        try:
            await future
        except CancelledError:
            log.append("cancelled")
            raise

    async def cancel() -> None:
        future: Future[None] = Future()
        task = begin(work(future))
        if moment != "before":
            await sleep(0)
        if moment == "woken":
            future.set_result(None)
        if moment != "running":
            assert task.cancel()
        with pytest.raises(CancelledError):
            await task
        assert not task.cancel()

    run(cancel())
    assert log == ([] if moment == "before" else ["begun", "cancelled"])


def test_a_task_that_catches_the_cancellation_continues() -> None:
    async def stubborn() -> int:
        for number in range(100):
            try:
                await sleep(100)
            except CancelledError:
                if number == 2:
                    return number
        return -1

    async def cancel() -> int:
        task = begin(stubborn())
        while not task.is_done:
            await sleep(0)
            task.cancel()
        found: int = await task
        return found

    assert run(cancel()) == 2


def test_only_futures_of_the_loop_can_be_waited_for() -> None:
    foreign: Future[None] = Future(Loop(lambda: None))

    async def wait_for(what: Awaitable[None]) -> None:
        with pytest.raises(TypeError, match="a future of its own loop, not for"):
            await what

    run(wait_for(foreign))
    run(wait_for(asyncio.sleep(0)))
    with pytest.raises(RuntimeError, match="no task is running on this thread"):
        Future()


def test_a_lock_is_acquired_in_order_of_request() -> None:
    order: list[int] = []

    async def hold(lock: Lock, number: int) -> None:
        await lock.acquire()
        try:
            order.append(number)
            await sleep(0)
        finally:
            lock.release()

    async def hold_all() -> bool:
        lock = Lock()
        await lock.acquire()
        tasks = [begin(hold(lock, number)) for number in range(5)]
        await sleep(0)
        tasks[1].cancel()
        # The lock is passed to the first task, which is cancelled before it resumes.
        lock.release()
        tasks[0].cancel()
        await wait_for_all(tasks, 30)
        return lock.is_held

    assert run(hold_all()) is False
    assert order == [2, 3, 4]


def test_a_cancelled_waiter_does_not_release_the_lock() -> None:
    async def wait() -> list[bool]:
        lock = Lock()
        await lock.acquire()
        tasks = [begin(lock.acquire()) for _ in range(3)]
        await sleep(0)
        # The first task is skipped before it resumes to its cancellation.
        tasks[0].cancel()
        lock.release()
        await wait_for_all(tasks[:2], 30)
        return [task.has_result for task in tasks]

    assert run(wait()) == [False, True, False]


def test_an_error_that_run_raises_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="raised"):
        run(_raise(ValueError("raised")))

    async def fail_later() -> None:
        await sleep(0.001)
        raise ValueError("later")

    with pytest.raises(ValueError, match="later"):
        run(fail_later())
    assert not caplog.records


def test_loops_can_run_inside_tasks_of_others() -> None:
    async def inner() -> Task[Any]:
        await sleep(0)
        return current_task()

    async def outer() -> bool:
        task = current_task()
        inside = run(inner())
        await sleep(0)
        return inside is not task and current_task() is task

    assert run(outer())


def test_an_event_wakes_all_waiting_tasks() -> None:
    async def wait() -> int:
        event = Event()
        tasks = [begin(event.wait()) for _ in range(3)]
        await sleep(0)
        tasks[0].cancel()
        event.set()
        await wait_for_all(tasks, 30)
        await event.wait()
        return sum(task.is_done for task in tasks)

    assert run(wait()) == 3


def test_waiting_with_a_timeout() -> None:
    async def wait() -> float:
        task = begin(sleep(100))
        start = time.monotonic()
        await wait_for_all([task], 0.02)
        taken = time.monotonic() - start
        assert not task.is_done
        task.cancel()
        await wait_for_all([task], 100)
        assert current_task().loop.delay() is None
        return taken

    assert 0.02 <= run(wait()) < 10


def test_other_threads_can_complete_a_future() -> None:
    async def wait() -> str:
        future: Future[str] = Future()

        def complete() -> None:
            time.sleep(0.01)
            future.loop.call_soon_threadsafe(lambda: future.set_result("done"))

        threading.Thread(target=complete).start()
        return await future

    assert run(wait()) == "done"


def test_result_or_error_of_another_thread() -> None:
    assert run(in_thread(threading.get_ident)) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        run(in_thread(lambda: 1 // 0))
    begun, proceed = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        assert proceed.wait(30)

    async def cancel() -> None:
        task = begin(in_thread(block))
        await sleep(0)
        assert begun.wait(30)
        task.cancel()
        proceed.set()
        with pytest.raises(CancelledError):
            await task
        # The result of the thread is dropped.
        await sleep(0.01)

    run(cancel())


def test_tasks_have_variables_of_their_own() -> None:
    variable: TaskVariable[int] = TaskVariable(0)

    async def change() -> int:
        await sleep(0)
        variable.set(variable.get() + 1)
        return variable.get()

    async def both() -> list[int]:
        variable.set(5)
        tasks = [begin(change()), begin(change())]
        return [*[await task for task in tasks], variable.get()]

    assert run(both()) == [6, 6, 5]
    assert variable.get() == 0


def test_errors_without_a_waiting_task_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    loop = Loop(lambda: None)
    Task(loop, _raise(ValueError("lost")))
    loop.call_soon(lambda: 1 // 0)
    loop.run_due()
    assert [record.message for record in caplog.records] == [
        "a task failed, and nothing waits for it",
        "a call of the session failed",
    ]
    assert all(record.levelno == logging.ERROR for record in caplog.records)


def test_unreferenced_tasks_are_collected() -> None:
    class Held:
        pass

    async def wait_forever(_held: Held) -> None:
        await Future()

    loop, held = Loop(lambda: None), Held()
    Task(loop, wait_forever(held))
    loop.run_due()
    assert len(loop.unfinished) == 1
    reference = weakref.ref(held)
    del held
    gc.collect()
    assert reference() is None
    assert loop.unfinished == []


def test_an_error_leaves_no_reference_cycle() -> None:
    def failed() -> Future[None]:
        future: Future[None] = Future()
        future.set_exception(ValueError())
        return future

    async def fail() -> None:
        # A variable for the future would be a cycle of this function's own.
        await failed()

    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            with pytest.raises(ValueError, match=r"^$"):
                run(fail())
        del _
        assert gc.collect() == 0
    finally:
        gc.enable()
