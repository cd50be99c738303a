"""Calls of other processes that are stopped: by a timeout, and by Ctrl-C."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import jitlink
from jitlink import tasks
from jitlink.executor import (
    ExecutorInterruptedError,
    ExecutorTimeoutError,
    RemoteExecutorProcessControl,
)
from jitlink.lljit import LLJIT
from tests.executor.remote.executors import PIPES, Setting, started
from tests.orc.units import time_limit
from tests.toolchain import compile_c

SOURCE = """
#include <setjmp.h>
#include <signal.h>
#include <unistd.h>

int add(int x) { return x + 1; }
volatile int begun;
int loop(void) {
    for (begun = 1;;)
        __asm__ volatile("");
    return 0;
}
int announce(void) { return write(1, "begun\\n", 6) == 6 ? loop() : 0; }
int ignore(void) { signal(SIGINT, SIG_IGN); return loop(); }
int stop(void) { kill(getpid(), SIGSTOP); return loop(); }

static sigjmp_buf place;
static void leave(int number) { (void)number; siglongjmp(place, 1); }
int handle(void) {
    signal(SIGINT, leave);
    if (sigsetjmp(place, 1))
        return begun = 0, 77;
    return loop();
}
int main(int argc, char **argv) { (void)argc, (void)argv; return loop(); }
"""
FLAGS = ("-O1", "-fPIC")
# LLVM 19's executor cannot say whether a function has begun.
KINDS = [each for each in PIPES if each.memory == "shared" and each.kind != "llvm19"]


@contextmanager
def interrupt_when(has_begun: Callable[[], bool]) -> Iterator[None]:
    """Interrupt the main thread as soon as the function that it calls has begun."""

    def interrupt() -> None:
        while not has_begun():
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def begun(executor: RemoteExecutorProcessControl, address: int) -> Callable[[], bool]:
    """Whether the variable at an address is set, or with the address 0 the executor is stopped."""
    process = executor.process

    def has_begun() -> bool:
        if process is not None and _state(process.pid) == "T":
            return True
        # A process that is about to stop must not be asked.
        return not is_stopping and any(tasks.run(executor.read_memory(address, 4)))

    is_stopping = address == 0
    return has_begun


@pytest.fixture(autouse=True)
def _default_handler() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("setting", KINDS, ids=str)
@pytest.mark.parametrize("name", ["loop", "ignore", "stop"])
def test_interrupted_calls(setting: Setting, name: str) -> None:
    with (
        time_limit(),
        started(setting) as executor,
        jitlink.load(compile_c(SOURCE, "gcc", FLAGS), executor=executor) as lib,
    ):
        function, address = lib.function(name), 0 if name == "stop" else lib.address("begun")
        with pytest.raises(KeyboardInterrupt), interrupt_when(begun(executor, address)):
            function()
        # At once, and always the same.
        for _ in range(2):
            with pytest.raises(ExecutorInterruptedError, match="a call was interrupted"):
                lib.add(1)
        assert not executor.is_alive
    assert executor.process is not None
    assert executor.process.wait(0) is not None


def test_a_call_that_returns_when_it_is_interrupted() -> None:
    """Then the executor lives on, and so do the session and other calls."""
    with (
        time_limit(),
        RemoteExecutorProcessControl.launch() as executor,
        jitlink.load(compile_c(SOURCE, "gcc", FLAGS), executor=executor) as lib,
    ):
        handle, address = lib.handle, lib.address("begun")
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt), interrupt_when(begun(executor, address)):
                handle()
            assert lib.add(1) == 2
        assert not executor.connection._calls


def test_calls_one_after_another_run_on_the_main_thread() -> None:
    """It is the one that interrupts are for."""
    source = "#include <unistd.h>\nint is_main(void) { return getpid() == gettid(); }"
    with (
        RemoteExecutorProcessControl.launch() as executor,
        jitlink.load(compile_c(source, "gcc", (*FLAGS, "-D_GNU_SOURCE")), executor=executor) as lib,
    ):
        is_main = lib.is_main
        assert all(is_main() for _ in range(2000))


def test_a_session_whose_wait_is_interrupted() -> None:
    with (
        time_limit(),
        RemoteExecutorProcessControl.launch() as executor,
        LLJIT(executor=executor) as jit,
    ):
        jit.add_object(compile_c(SOURCE, "gcc", FLAGS))
        jit.initialize()
        main, address = int(jit.lookup("main")), int(jit.lookup("begun"))
        with pytest.raises(KeyboardInterrupt), interrupt_when(begun(executor, address)):
            jit.session.wait(executor.run_as_main(main, ["program"]))
        with pytest.raises(ExecutorInterruptedError):
            jit.session.wait(executor.run_as_int_function(int(jit.lookup("add")), 1))


def test_calls_of_other_threads_fail_with_an_interrupted_one() -> None:
    with (
        time_limit(),
        RemoteExecutorProcessControl.launch() as executor,
        jitlink.load(compile_c(SOURCE, "gcc", FLAGS), executor=executor) as lib,
    ):
        errors: list[BaseException] = []
        loop, ignore = lib.loop, lib.ignore

        def call() -> None:
            try:
                ignore()
            except ExecutorInterruptedError as error:
                errors.append(error)

        thread, address = threading.Thread(target=call), lib.address("begun")
        thread.start()
        is_busy = begun(executor, address)
        while not is_busy():
            time.sleep(0.001)
        # Now that of the other thread.
        tasks.run(executor.write_memory(address, bytes(4)))
        with pytest.raises(KeyboardInterrupt), interrupt_when(is_busy):
            loop()
        thread.join()
        assert len(errors) == 1


def test_an_interrupted_script() -> None:
    """As Ctrl-C at a terminal: all of the process group gets it, which the executor is not in."""
    compiled = compile_c(SOURCE, "gcc", FLAGS)
    program = f"""
import jitlink
from jitlink.executor import ExecutorInterruptedError, RemoteExecutorProcessControl
with RemoteExecutorProcessControl.launch() as executor:
    with jitlink.load({str(compiled)!r}, executor=executor) as lib:
        try:
            lib.announce()
        except KeyboardInterrupt:
            print("interrupted")
        try:
            lib.add(1)
        except ExecutorInterruptedError:
            print("gone")
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, process_group=0
    )
    with time_limit(), process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.read() == "interrupted\ngone\n"
        assert process.wait() == 0


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("name", ["loop", "ignore", "stop"])
def test_a_timeout_of_one_function(name: str) -> None:
    with (
        time_limit(),
        RemoteExecutorProcessControl.launch() as executor,
        jitlink.load(compile_c(SOURCE, "gcc", FLAGS), executor=executor) as lib,
    ):
        function = lib.function(name)
        function.timeout = 0.2
        lib.add.timeout = 50
        assert lib.add(1) == 2
        with pytest.raises(ExecutorTimeoutError, match=r"within 0\.2 s") as caught:
            function()
        assert caught.value.seconds == 0.2
        with pytest.raises(ExecutorTimeoutError):
            lib.add(1)


def test_timeouts_of_other_calls() -> None:
    compiled = compile_c(SOURCE, "gcc", FLAGS)

    def run_main(jit: LLJIT, executor: RemoteExecutorProcessControl) -> None:
        main = int(jit.lookup("main"))
        jit.session.wait(executor.run_as_main(main, ["program"], timeout=0.1))

    def run_void(jit: LLJIT, executor: RemoteExecutorProcessControl) -> None:
        jit.session.wait(executor.run_as_void_function(int(jit.lookup("loop")), timeout=0.1))

    def run_int(jit: LLJIT, executor: RemoteExecutorProcessControl) -> None:
        jit.session.wait(executor.run_as_int_function(int(jit.lookup("loop")), 1, timeout=0.1))

    def run_address(jit: LLJIT, executor: RemoteExecutorProcessControl) -> None:
        del executor
        loop = jit.lookup("loop")
        loop.timeout = 0.1
        assert loop.timeout == 0.1
        loop()

    def run_default(jit: LLJIT, executor: RemoteExecutorProcessControl) -> None:
        loop = jit.lookup("loop")
        executor.timeout = 0.1
        assert executor.timeout == 0.1
        loop()

    for run in (run_main, run_void, run_int, run_address, run_default):
        with (
            time_limit(),
            RemoteExecutorProcessControl.launch() as executor,
            LLJIT(executor=executor) as jit,
        ):
            jit.add_object(compiled)
            with pytest.raises(ExecutorTimeoutError, match=r"within 0\.1 s"):
                run(jit, executor)


def test_an_interrupt_of_an_executor_that_is_no_child() -> None:
    """It cannot be interrupted: the connection is cut, and it ends itself."""
    with (
        time_limit(),
        started(Setting("jitlink", "tcp", "generic")) as executor,
        jitlink.load(compile_c(SOURCE, "gcc", FLAGS), executor=executor) as lib,
    ):
        loop, address = lib.loop, lib.address("begun")
        with pytest.raises(KeyboardInterrupt), interrupt_when(begun(executor, address)):
            loop()
        with pytest.raises(ExecutorInterruptedError):
            lib.add(1)
