"""Restarting an executor: after every end of it, on its own or by hand."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

import jitlink
from jitlink import tasks
from jitlink.errors import ExecutorError, JITLinkError
from jitlink.executor import (
    ExecutorCrashedError,
    ExecutorDisconnectedError,
    ExecutorExitedError,
    ExecutorRestartedError,
    ExecutorTimeoutError,
    RemoteExecutorProcessControl,
    Sandbox,
)
from jitlink.executor.callback_errors import CallNumbers, callback_errors
from jitlink.executor.remote.process import own_executor
from jitlink.lljit import LLJIT
from jitlink.orc import (
    DynamicLibraryGenerator,
    JITSymbolFlags,
    MaterializationResponsibility,
    MaterializationUnit,
    Plugin,
)
from jitlink.sps import WrapperFunctionResult
from jitlink.tasks import Event
from tests.executor.remote.executors import PIPES, Setting, started
from tests.orc.test_restart import CRASH, OWN, STATE, Own, c, crash, process_of
from tests.toolchain import require, run


@pytest.fixture
def executor() -> Iterator[RemoteExecutorProcessControl]:
    with started(OWN) as executor:
        yield executor


def kill(executor: RemoteExecutorProcessControl, lib: jitlink.Library) -> None:  # noqa: ARG001
    os.kill(process_of(executor), signal.SIGKILL)
    while executor.is_alive:
        time.sleep(0.001)


def exit_(executor: RemoteExecutorProcessControl, lib: jitlink.Library) -> None:  # noqa: ARG001
    with pytest.raises(ExecutorExitedError) as caught:
        lib.leave(3)
    assert caught.value.status == 3


def time_out(executor: RemoteExecutorProcessControl, lib: jitlink.Library) -> None:
    executor.services.timeout = 0.05
    with pytest.raises(ExecutorTimeoutError):
        lib.loop()


def stop(executor: RemoteExecutorProcessControl, lib: jitlink.Library) -> None:  # noqa: ARG001
    os.kill(process_of(executor), signal.SIGSTOP)


def live(executor: RemoteExecutorProcessControl, lib: jitlink.Library) -> None:
    """No end at all."""


ENDS = (kill, exit_, time_out, stop, live)
MANY = """
#include <stdlib.h>
int counter = 40;
int next(void) { return ++counter; }
void leave(int status) { exit(status); }
void loop(void) { for (;;) __asm__ volatile(""); }
"""


@pytest.mark.parametrize("end", ENDS, ids=[end.__name__ for end in ENDS])
def test_every_end(
    end: Callable[[RemoteExecutorProcessControl, jitlink.Library], None],
    executor: RemoteExecutorProcessControl,
) -> None:
    with jitlink.load(c(MANY), executor=executor) as lib:
        for _ in range(2):
            assert lib.next() == 41
            end(executor, lib)
            lib.restart_executor()
        assert lib.next() == 41


def test_a_call_that_runs_is_stopped(executor: RemoteExecutorProcessControl) -> None:
    with jitlink.load(c(MANY), executor=executor) as lib:
        errors: list[BaseException] = []

        def loop() -> None:
            try:
                lib.loop()
            except ExecutorDisconnectedError as error:
                errors.append(error)

        lib.next()
        thread = threading.Thread(target=loop)
        thread.start()
        time.sleep(0.1)
        lib.restart_executor()
        thread.join(10)
        assert "was stopped, to be restarted" in str(errors[0])
        assert lib.next() == 41


@pytest.mark.parametrize("setting", PIPES, ids=str)
def test_on_crash(setting: Setting) -> None:
    with started(setting, on_crash="restart") as executor:
        with jitlink.load(c(STATE), c(CRASH), executor=executor) as lib:
            following = lib.next
            for _ in range(2):
                assert [following(), following(), lib.next_own()] == [41, 42, 6]
                crash(lib.crash)
            assert following() == 41
        del following, lib
        with LLJIT(executor=executor) as jit:
            jit.add_object(c(STATE))
            jit.add_object(c(CRASH))
            for _ in range(2):
                function = jit.lookup("next")
                assert function() == 41
                crash(jit.lookup("crash"))
                jit.add_object(c(f"int g{executor.generation}(void) {{ return 1; }}"))
            assert jit.lookup("next")() == 41
            assert jit.lookup("g2")() == 1
            with pytest.raises(ExecutorRestartedError):
                function()


def test_many_threads_and_one_restart() -> None:
    count = 8
    with (
        started(OWN, on_crash="restart") as executor,
        jitlink.load(c(MANY), c(CRASH), executor=executor) as lib,
    ):
        errors: list[BaseException] = []
        results: list[int] = []
        meeting = threading.Barrier(count + 1)

        def use() -> None:
            meeting.wait()
            try:
                lib.loop()
            except ExecutorCrashedError as error:
                errors.append(error)
            meeting.wait()
            results.append(lib.next())

        lib.next()
        threads = [threading.Thread(target=use) for _ in range(count)]
        for thread in threads:
            thread.start()
        meeting.wait()
        time.sleep(0.1)
        os.kill(process_of(executor), signal.SIGSEGV)
        meeting.wait()
        for thread in threads:
            thread.join(20)
        assert len(errors) == count
        assert executor.generation == 1
        assert sorted(results) == list(range(41, 41 + count))


def test_several_sessions(executor: RemoteExecutorProcessControl) -> None:
    with (
        jitlink.load(c(MANY), executor=executor) as first,
        jitlink.load(c(MANY), c(CRASH), executor=executor) as second,
    ):
        assert [first.next(), second.next(), second.next()] == [41, 41, 42]
        crash(second.crash)
        first.restart_executor()
        assert first.next() == 41
        with pytest.raises(ExecutorRestartedError, match="links it again"):
            second.next()
        second.restart_executor()
        assert executor.generation == 1
        assert [first.next(), second.next()] == [42, 41]


def test_a_library_for_an_executor_that_cannot_be_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def restart(*_arguments: object) -> None:
        raise ExecutorError("it is not found")

    with started(OWN, on_crash="restart") as executor:
        with jitlink.load(c(CRASH), executor=executor) as lib:
            kill(executor, lib)
        monkeypatch.setattr(executor, "restart", restart)
        with pytest.raises(ExecutorError, match="it is not found"):
            jitlink.load(c(CRASH), executor=executor)
        # A session that was left would be a ResourceWarning.
        gc.collect()


def test_several_sessions_on_crash() -> None:
    with (
        started(OWN, on_crash="restart") as executor,
        jitlink.load(c(MANY), executor=executor) as first,
        jitlink.load(c(CRASH), definitions=first, executor=executor) as second,
        jitlink.load(c("int next(void); int f(void) { return next(); }"),
                     definitions=first, executor=executor) as third,
    ):  # fmt: skip
        for generation in range(3):
            assert [first.next(), third.f()] == [41, 42]
            assert executor.generation == generation
            crash(second.crash)


def test_a_crash_during_a_link(executor: RemoteExecutorProcessControl) -> None:
    class Killer(Plugin):
        is_on = True

        def notify_loaded(self, responsibility: MaterializationResponsibility) -> None:
            if self.is_on and "next" in responsibility.symbols:
                os.kill(process_of(executor), signal.SIGKILL)
                while executor.is_alive:
                    time.sleep(0.001)

    with LLJIT(executor=executor) as jit:
        killer = Killer()
        jit.layer.add_plugin(killer)
        jit.add_object(c(STATE))
        with pytest.raises(ExecutorCrashedError):
            jit.lookup("next")
        jit.restart_executor()
        with pytest.raises(ExecutorCrashedError):
            jit.lookup("next")
        killer.is_on = False
        jit.restart_executor()
        assert jit.lookup("next")() == 41


def test_a_crash_during_a_restart(executor: RemoteExecutorProcessControl, tmp_path: Path) -> None:
    source = f"""
        #include <unistd.h>
        #include <signal.h>
        __attribute__((constructor)) static void start(void) {{
            if (!access("{tmp_path}/crash", F_OK)) raise(SIGSEGV);
        }}
        int counter = 40;
        int next(void) {{ return ++counter; }}
    """
    with (
        jitlink.load(c(source), executor=executor) as lib,
    ):
        for _ in range(2):
            assert lib.next() == 41
            (tmp_path / "crash").touch()
            crash(lib.restart_executor)
            crash(lib.restart_executor)
            (tmp_path / "crash").unlink()
            lib.restart_executor()


def test_a_link_that_waits_for_something_else(executor: RemoteExecutorProcessControl) -> None:
    class Slow(MaterializationUnit):
        name = "slow"

        def __init__(self) -> None:
            self.symbols = {"slow": JITSymbolFlags.EXPORTED}
            self.may_finish = Event()
            self.started = threading.Event()

        async def materialize(self, responsibility: MaterializationResponsibility) -> None:  # noqa: ARG002
            self.started.set()
            await self.may_finish.wait()

        def renewed(self, symbols: Mapping[str, JITSymbolFlags]) -> MaterializationUnit:
            unit = Own()
            unit.symbols = dict(symbols)
            unit.materialize = materialize  # type: ignore[method-assign]
            return unit

    async def materialize(responsibility: MaterializationResponsibility) -> None:
        responsibility.notify_resolved({"slow": 1})
        responsibility.notify_emitted()

    with LLJIT(executor=executor) as jit:
        unit, errors = Slow(), list[BaseException]()
        jit.main.define(unit)

        def look_up() -> None:
            try:
                jit.lookup("slow")
            except JITLinkError as error:
                errors.append(error)

        thread = threading.Thread(target=look_up)
        thread.start()
        assert unit.started.wait(10)
        jit.restart_executor()
        thread.join(10)
        assert len(errors) == 1
        assert int(jit.lookup("slow")) == 1


def test_a_closed_executor_is_not_restarted() -> None:
    with started(OWN, on_crash="restart") as executor:
        with LLJIT(executor=executor) as jit:
            jit.add_object(c(STATE))
            jit.lookup("next")
            executor.close()
            with pytest.raises(ExecutorError, match="it was closed"):
                jit.restart_executor()
            with pytest.raises(ExecutorDisconnectedError):
                jit.session.wait(executor.read_memory(1, 1))
        assert executor.generation == 0


# Without sessions, and executors that cannot be started or connected to


def is_alive(executor: RemoteExecutorProcessControl) -> bool:
    # A property, of which mypy believes that it does not change.
    return executor.is_alive


def test_an_executor_without_sessions(executor: RemoteExecutorProcessControl) -> None:
    first = tasks.run(executor.lookup_symbols(["malloc"]))
    executor.restart(generation=0)
    executor.restart(generation=0)
    assert executor.generation == 1
    assert is_alive(executor)
    second = tasks.run(executor.lookup_symbols(["malloc"]))
    assert None not in (*first, *second)
    with pytest.raises(ExecutorRestartedError, match="0x10 is an address of an executor"):
        tasks.run(executor.read_memory(16, 1, generation=0))
    with pytest.raises(ExecutorRestartedError):
        tasks.run(executor.write_memory(16, b"1", generation=0))
    with pytest.raises(ExecutorRestartedError):
        tasks.run(executor.call_wrapper(16, b"", generation=0))
    executor.stop(generation=0)
    assert is_alive(executor)
    executor.stop()
    assert not is_alive(executor)
    with pytest.raises(ExecutorDisconnectedError):
        tasks.run(executor.lookup_symbols(["malloc"]))
    executor.restart()
    assert is_alive(executor)


def test_calls_are_not_numbered_by_a_process_that_has_ended(
    executor: RemoteExecutorProcessControl,
) -> None:
    """As when a thread that connects callbacks was late."""
    executor.restart()
    executor.number_calls(CallNumbers(), 16, generation=0)
    source = (
        "struct r { char *data; unsigned long size; }; struct r f(void) { return (struct r){}; }"
    )
    with LLJIT(executor=executor) as jit:
        jit.add_object(c(source))
        with callback_errors():
            result = tasks.run(executor.call_wrapper(int(jit.lookup("f")), b""))
    assert result == WrapperFunctionResult()


def test_on_crash_is_checked() -> None:
    with pytest.raises(ValueError, match="neither 'raise' nor 'restart'"):
        RemoteExecutorProcessControl.launch(on_crash="restrat")  # type: ignore[arg-type]


def test_a_sandbox() -> None:
    with (
        RemoteExecutorProcessControl.launch(sandbox=Sandbox(), on_crash="restart") as executor,
        jitlink.load(c(STATE), c(CRASH), executor=executor) as lib,
    ):
        directories = set()
        for _ in range(3):
            assert [lib.next(), lib.next_own()] == [41, 6]
            assert executor.sandbox_report
            directories.add(executor.library_directory)
            crash(lib.crash)
        assert len(directories) == 3
    assert not any(each and Path(each).exists() for each in directories)


def test_an_executor_that_is_gone(tmp_path: Path) -> None:
    own = own_executor()
    assert own is not None
    program = tmp_path / "executor"
    program.symlink_to(own)
    with RemoteExecutorProcessControl.launch(program) as executor, LLJIT(executor=executor) as jit:
        jit.add_object(c(STATE))
        jit.add_object(c(CRASH))
        assert jit.lookup("next")() == 41
        program.unlink()
        crash(jit.lookup("crash"))
        for _ in range(2):
            with pytest.raises(ExecutorError, match="cannot start the executor"):
                jit.restart_executor()
            with pytest.raises(ExecutorError):
                jit.lookup("next")
        jit.add_object(c("int next(void); int later(void) { return next() + 1; }"))
        program.symlink_to(own)
        jit.restart_executor()
        assert jit.lookup("later")() == 42


def test_a_library_that_cannot_be_loaded_again(tmp_path: Path) -> None:
    library = tmp_path / "libown.so"
    source = c("int of_library(void) { return 1; }")
    run([require("gcc"), "-shared", source, "-o", library])
    with started(OWN) as executor, LLJIT(executor=executor) as jit:
        jit.main.add_generator(DynamicLibraryGenerator.load(jit.session, library))
        jit.add_object(c(STATE))
        assert jit.lookup("of_library")() == 1
        content = library.read_bytes()
        library.unlink()
        for _ in range(2):
            with pytest.raises(ExecutorError, match=r"cannot load .*libown.so"):
                jit.restart_executor()
            assert not executor.is_alive
        library.write_bytes(content)
        jit.restart_executor()
        assert [jit.lookup("of_library")(), jit.lookup("next")()] == [1, 41]


SERVED: list[tuple[str, str]] = [
    ("jitlink", "generic"),
    ("jitlink", "shared"),
    ("llvm22", "generic"),
]


@pytest.mark.parametrize(("kind", "memory"), SERVED)
def test_connecting_again(kind: str, memory: str) -> None:
    setting = Setting(kind, "tcp", "shared" if memory == "shared" else "generic")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            subprocess.run([setting.program, f"listen=localhost:{port}"], check=False)

    server = threading.Thread(target=serve)
    server.start()
    try:
        end = time.monotonic() + 20
        while True:
            try:
                executor = RemoteExecutorProcessControl.connect(
                    "127.0.0.1", port, memory=setting.memory, on_crash="restart"
                )
                break
            except ExecutorError:
                assert time.monotonic() < end
                time.sleep(0.01)
        with executor, jitlink.load(c(STATE), c(CRASH), executor=executor) as lib:
            for generation in range(3):
                assert [lib.next(), lib.next(), lib.next_own()] == [41, 42, 6]
                assert executor.generation == generation
                with pytest.raises(ExecutorDisconnectedError):
                    lib.crash()
            assert lib.next() == 41
            ended.set()
    finally:
        ended.set()
        server.join(20)
