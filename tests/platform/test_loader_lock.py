"""Who may take the lock of a platform while it is held."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from jitlink.executor.callback_errors import CallNumbers, callback_errors, calls_under_way
from jitlink.platform.loader_lock import LoaderLock


class Entering(threading.Thread):
    """A thread that takes a lock, perhaps on behalf of a call."""

    def __init__(
        self, lock: LoaderLock, numbers: CallNumbers, number: int, run: Callable[[], None]
    ) -> None:
        super().__init__(daemon=True)
        self._lock, self._numbers, self._number, self._run = lock, numbers, number, run
        self.start()

    def run(self) -> None:
        with self._numbers.on_behalf_of(self._number), self._lock:
            self._run()


def test_code_that_runs_may_take_it_and_others_wait() -> None:
    lock, numbers, order = LoaderLock(), CallNumbers(), list[str]()
    with lock, lock:
        with lock.running_code(), numbers.number_of(calls_under_way()) as outer:
            other = Entering(lock, numbers, 0, lambda: order.append("other"))

            def nest() -> None:
                order.append("outer")
                # What the nested code calls is on behalf of that, by way of another call.
                with (
                    lock.running_code(),
                    callback_errors(),
                    numbers.number_of(calls_under_way()) as inner,
                ):
                    Entering(lock, numbers, inner, lambda: order.append("inner")).join(60)
                    assert order == ["outer", "inner"]

            Entering(lock, numbers, outer, nest).join(60)
        assert other.is_alive()
    other.join(60)
    assert order == ["outer", "inner", "other"]


def test_a_call_that_is_not_the_last_one_waits() -> None:
    lock, numbers, order = LoaderLock(), CallNumbers(), list[str]()
    with callback_errors(), numbers.number_of(calls_under_way()) as before:
        with lock, lock.running_code():
            early = Entering(lock, numbers, before, lambda: order.append("early"))
            early.join(0.05)
            assert early.is_alive()
            assert order == []
        early.join(60)
    assert order == ["early"]


def test_errors_of_the_code_are_raised_and_leave_it_free() -> None:
    lock, numbers = LoaderLock(), CallNumbers()
    with pytest.raises(ZeroDivisionError), lock, lock.running_code():
        calls_under_way()[-1].append(ZeroDivisionError())
    free = Entering(lock, numbers, 0, lambda: None)
    free.join(60)
    assert not free.is_alive()


def test_a_call_may_end_before_what_it_has_called() -> None:
    """As when it is interrupted, or its executor is lost: each thread gives back its own share."""
    lock, numbers, order = LoaderLock(), CallNumbers(), list[str]()
    entered, left = threading.Event(), threading.Event()

    def stay() -> None:
        entered.set()
        assert left.wait(60)
        with lock:
            order.append("again")

    with lock, lock.running_code(), numbers.number_of(calls_under_way()) as number:
        inner = Entering(lock, numbers, number, stay)
        assert entered.wait(60)
    left.set()
    inner.join(10)
    assert order == ["again"]
    free = Entering(lock, numbers, 0, lambda: order.append("free"))
    free.join(10)
    assert order == ["again", "free"]
