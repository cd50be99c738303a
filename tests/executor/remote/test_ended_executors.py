"""Whatever ends an executor is the right exception, in bounded time, and leaves nothing."""

import ctypes
import gc
import operator
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from jitlink import tasks
from jitlink.errors import JITLinkError
from jitlink.executor import (
    ExecutorCrashedError,
    ExecutorDisconnectedError,
    ExecutorExitedError,
    ExecutorTimeoutError,
    RemoteExecutorProcessControl,
)
from jitlink.lljit import LLJIT
from jitlink.orc import FailedToMaterializeError
from tests.executor.remote.executors import PIPES, Setting, started
from tests.executor.remote.resources import is_free_soon, open_descriptors, shared_files
from tests.orc.units import time_limit
from tests.toolchain import compile_c

pytestmark = pytest.mark.serial("counts threads, descriptors and shared memory")

SOURCE = """
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#if defined(IN_CONSTRUCTOR)
__attribute__((constructor)) static void begin(void) { IN_CONSTRUCTOR; }
int fault(int x) { return x; }
#elif defined(IN_THREAD)
static void *run(void *unused) { (void)unused; IN_THREAD; return 0; }
int fault(int x) {
    pthread_t threads[4];
    for (int n = 0; n < 4; ++n)
        pthread_create(&threads[n], 0, run, 0);
    for (int n = 0; n < 4; ++n)
        pthread_join(threads[n], 0);
    return x;
}
#else
static int recurse(int n) {
    volatile char big[5000];
    big[0] = (char)n;
    return recurse(n + 1) + big[0];
}
static int fill(void) {
    struct rlimit limit = {1 << 20, 1 << 20};
    setrlimit(RLIMIT_AS, &limit);
    for (;;) {
        char *more = malloc(1 << 20);
        if (!more)
            abort();
        memset(more, 1, 1 << 20);
    }
}
int fault(int x) { (void)fill, (void)recurse; IN_MAIN; return x; }
#endif
"""


class Fault(NamedTuple):
    """Something that ends an executor.

    Attributes:
        place: ``MAIN``, ``THREAD`` or ``CONSTRUCTOR``.
        code: what is done there.
        error: what calls raise.
        value: the signal or the exit status.
        seconds: how long a call may take.
    """

    place: str
    code: str
    error: type[ExecutorDisconnectedError]
    value: int | None = None
    seconds: float = 50


_CRASH, _ABORT = "*(volatile int *)0 = 1", "abort()"
FAULTS = {
    "SIGKILL": Fault("MAIN", "kill(getpid(), SIGKILL)", ExecutorCrashedError, signal.SIGKILL),
    "SIGSEGV": Fault("MAIN", _CRASH, ExecutorCrashedError, signal.SIGSEGV),
    "SIGTERM": Fault("MAIN", "raise(SIGTERM)", ExecutorCrashedError, signal.SIGTERM),
    "SIGSTOP": Fault("MAIN", "kill(getpid(), SIGSTOP); pause()", ExecutorTimeoutError, seconds=1),
    "loop": Fault("MAIN", 'for (;;) __asm__ volatile("")', ExecutorTimeoutError, seconds=1),
    "exit": Fault("MAIN", "exit(3)", ExecutorExitedError, 3),
    "exit with output": Fault("MAIN", 'puts("last words"); exit(0)', ExecutorExitedError, 0),
    "_exit": Fault("MAIN", "_exit(4)", ExecutorExitedError, 4),
    "abort": Fault("MAIN", _ABORT, ExecutorCrashedError, signal.SIGABRT),
    "recursion": Fault("MAIN", "recurse(x)", ExecutorCrashedError, signal.SIGSEGV),
    "memory": Fault("MAIN", "fill()", ExecutorCrashedError, signal.SIGABRT),
    "threads": Fault("THREAD", _CRASH, ExecutorCrashedError, signal.SIGSEGV),
    "exit in threads": Fault("THREAD", "exit(5)", ExecutorExitedError, 5),
    "_exit in threads": Fault("THREAD", "_exit(6)", ExecutorExitedError, 6),
    "constructor": Fault("CONSTRUCTOR", _CRASH, ExecutorCrashedError, signal.SIGSEGV),
    "exit in a constructor": Fault("CONSTRUCTOR", "exit(7)", ExecutorExitedError, 7),
    "abort in a constructor": Fault("CONSTRUCTOR", _ABORT, ExecutorCrashedError, signal.SIGABRT),
}

CHOSEN = [("jitlink", "shared"), ("jitlink", "simple-remote"), ("llvm22", "shared")]
REPORTED = (signal.SIGSEGV, signal.SIGABRT)


def _resources() -> tuple[int, int]:
    """How many threads and descriptors this process has."""
    return threading.active_count(), len(open_descriptors())


@contextmanager
def nothing_left() -> Iterator[list[int]]:
    """Check that what a block has used is gone; the list is for identifiers of processes."""
    gc.collect()
    before, others, pids = _resources(), shared_files(), list[int]()
    yield pids
    assert is_free_soon(lambda: all(map(operator.le, _resources(), before)))
    for pid in pids:
        # Another process may have the identifier by now, which is no child.
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        assert not shared_files(pid) - others


def call(executor: RemoteExecutorProcessControl, path: Path) -> None:
    """Link the object, run its constructors, and call its function."""
    with LLJIT(executor=executor) as jit:
        jit.add_object(path)
        jit.initialize()
        assert jit.lookup("fault")(1) == 1


def cause_of(error: BaseException) -> BaseException:
    return error.reason if isinstance(error, FailedToMaterializeError) else error


@pytest.mark.parametrize(
    "setting", [each for each in PIPES if (each.kind, each.memory) in CHOSEN], ids=str
)
@pytest.mark.parametrize("name", FAULTS)
def test_faults(setting: Setting, name: str) -> None:
    place, code, kind, value, seconds = FAULTS[name]
    compiled = compile_c(SOURCE, "gcc", ("-O0", "-fPIC", "-w", f"-DIN_{place}={code}"))
    with nothing_left() as pids, time_limit(), started(setting, timeout=seconds) as executor:
        assert executor.process is not None
        pids.append(executor.process.pid)
        with pytest.raises(JITLinkError) as caught:
            call(executor, compiled)
        error = cause_of(caught.value)
        if setting.kind != "jitlink" and name == "exit in threads":
            # LLVM's executors run destructors of their own at exit, while other threads use them.
            assert isinstance(error, ExecutorExitedError | ExecutorCrashedError)
            kind, value = type(error), getattr(error, "signal", value)
        assert isinstance(error, kind)
        assert getattr(error, "signal", getattr(error, "status", None)) == value
        # All later calls say the same.
        with pytest.raises(kind):
            tasks.run(executor.lookup_symbols(["malloc"]))
        if kind is ExecutorCrashedError and value in REPORTED and setting.kind == "jitlink":
            assert isinstance(error, ExecutorCrashedError)
            names = [each.symbol for each in error.frames]
            assert {"fault", "run", "begin", "recurse"} & set(names)
        del caught, error


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_an_executor_that_crashes_while_it_calls_back(number: int) -> None:
    source = "int callback(int x); int fault(int x) { return callback(x) + 1; }"
    compiled = compile_c(source, "gcc", ("-O1", "-fPIC"))
    with (
        nothing_left() as pids,
        time_limit(),
        RemoteExecutorProcessControl.launch(timeout=50) as executor,
        LLJIT(executor=executor) as jit,
    ):
        assert executor.process is not None
        pid = executor.process.pid
        pids.append(pid)

        def callback(x: int) -> int:
            os.kill(pid, number)
            # The call of the executor is still under way, and has nowhere to return to.
            while executor.is_alive:
                time.sleep(0.001)
            return x

        prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)
        jit.define({"callback": prototype(callback)})
        jit.add_object(compiled)
        fault = jit.lookup("fault")
        with pytest.raises(ExecutorCrashedError) as caught:
            fault(1)
        assert caught.value.signal == number
        del caught


def test_an_executor_that_is_stopped_while_it_is_idle() -> None:
    """It answers nothing: the first call ends it, and takes no longer than its timeout."""
    with (
        nothing_left() as pids,
        time_limit(),
        RemoteExecutorProcessControl.launch(timeout=0.3) as executor,
    ):
        assert executor.process is not None
        pids.append(executor.process.pid)
        os.kill(executor.process.pid, signal.SIGSTOP)
        with pytest.raises(ExecutorTimeoutError):
            tasks.run(executor.lookup_symbols(["malloc"]))


def test_many_crashes_leave_nothing() -> None:
    compiled = compile_c(SOURCE, "gcc", ("-O0", "-fPIC", "-w", f"-DIN_MAIN={_CRASH}"))
    with nothing_left() as pids, time_limit(300):
        for _ in range(20):
            with RemoteExecutorProcessControl.launch(timeout=50) as executor:
                assert executor.process is not None
                pids.append(executor.process.pid)
                with pytest.raises(ExecutorCrashedError):
                    call(executor, compiled)
