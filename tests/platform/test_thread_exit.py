"""Destructors of thread-local objects when JITDylibs are closed."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable

from tests.platform.jits import NotingJIT, compiled, noting_jit

SOURCE = """
int __cxa_thread_atexit(void (*)(void *), void *, void *);
extern char __dso_handle;
void wait_here(void);
static void say(void *number) { note((int)(long)number); }
static void slow(void *number) { note((int)(long)number); wait_here(); note(-1); }
void add(int number) { __cxa_thread_atexit(say, (void *)(long)number, &__dso_handle); }
void add_slow(int number) { __cxa_thread_atexit(slow, (void *)(long)number, &__dso_handle); }
"""
_START = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
C = ctypes.CDLL(None)


class Thread:
    """A thread of pthreads: unlike one of Python's, it has ended when it has been joined."""

    def __init__(self, run: Callable[[], object]) -> None:
        def call(_argument: int | None) -> None:
            run()

        self._function = _START(call)
        self._thread = ctypes.c_ulong()
        assert C.pthread_create(ctypes.byref(self._thread), None, self._function, None) == 0

    def join(self) -> None:
        assert C.pthread_join(self._thread, None) == 0


def _nothing() -> None:
    pass


def _prepare(jit: NotingJIT, wait: Callable[[], None] = _nothing) -> None:
    jit.define({"wait_here": (wait, ctypes.CFUNCTYPE(None))})
    jit.add_object(compiled(SOURCE))
    jit.initialize()


def test_a_thread_runs_its_own_when_it_ends(jit: NotingJIT) -> None:
    _prepare(jit)
    add = jit.lookup("add")

    def run() -> None:
        for number in (1, 2, 3):
            add(number)
        jit.notes.append(0)

    for _ in range(3):
        Thread(run).join()
        assert jit.take() == [0, 3, 2, 1]


def test_closing_runs_those_of_the_thread_that_closes(jit: NotingJIT) -> None:
    _prepare(jit)
    add, ready, over = jit.lookup("add"), threading.Event(), threading.Event()

    def run() -> None:
        add(7)
        ready.set()
        over.wait()

    thread = Thread(run)
    ready.wait()
    add(1)
    add(2)
    jit.deinitialize()
    assert jit.take() == [2, 1]
    jit.main.clear()
    over.set()
    thread.join()
    assert jit.take() == []


def test_removal_drops_them(jit: NotingJIT) -> None:
    _prepare(jit)
    tracker = jit.create_resource_tracker()
    jit.add_object(compiled(SOURCE.replace("void add", "void other_add")), tracker)
    jit.lookup("add")(1)
    jit.lookup("other_add")(2)
    jit.remove(tracker)
    jit.deinitialize()
    assert jit.take() == [1]


def test_closing_waits_for_a_destructor_that_runs_elsewhere() -> None:
    entered, leave = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        leave.wait()

    with noting_jit() as jit:
        _prepare(jit, wait)
        add_slow = jit.lookup("add_slow")
        thread = Thread(lambda: add_slow(4))
        entered.wait()
        closing = threading.Thread(target=jit.deinitialize)
        closing.start()
        closing.join(0.1)
        assert closing.is_alive()
        leave.set()
        closing.join()
        thread.join()
        assert jit.take() == [4, -1]


def test_many_threads_at_once(jit: NotingJIT) -> None:
    _prepare(jit)
    add = jit.lookup("add")

    def run() -> None:
        for number in range(50):
            add(number)

    for thread in [Thread(run) for _ in range(16)]:
        thread.join()
    assert sorted(jit.take()) == sorted(list(range(50)) * 16)
