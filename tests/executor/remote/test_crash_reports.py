"""What the controller learns of a crash of linked code in another process."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

import jitlink
from jitlink import tasks
from jitlink.executor import (
    ExecutorCrashedError,
    ExecutorExitedError,
    RemoteExecutorProcessControl,
)
from jitlink.executor.remote.dialects import JITLINK
from jitlink.executor.remote.messages import Message, MessageReader, OpCode
from jitlink.executor.remote.process import ChildProcess, own_executor
from jitlink.executor.remote.sandbox import Sandbox
from jitlink.sps import ExecutorAddrRange
from jitlink.sps.services import SETUP
from tests.executor.remote.executors import FOREIGN_MACHINES, PIPES, Setting, started
from tests.executor.remote.foreign import executor_command
from tests.orc.units import time_limit
from tests.toolchain import compile_c

SOURCE = """
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int load(int *p) {
    return *p;              /* line 11 */
}
int null(void) { return load(0) + 1; }
int unaligned(void) { return load((int *)0x8000000000000000) + 1; }
static int compare(const void *a, const void *b) { (void)a, (void)b; return load(0); }
int sorting(void) {
    int numbers[] = {3, 1, 2};
    qsort(numbers, 3, sizeof *numbers, compare);
    return numbers[0];
}
int aborting(void) { fprintf(stderr, "no way on\\n"); abort(); }
int calling(void) { int (*volatile f)(void) = 0; return f() + 1; }
static int data;
int calling_data(void) { int (*volatile f)(void) = (int (*)(void))&data; return f() + 1; }
int calling_nowhere(void) { return ((int (*volatile)(void))0x123456789000)() + 1; }
int overflow(int n) { volatile char big[3000]; big[0] = (char)n; return overflow(n + 1) + big[0]; }
int trapping(void) { __asm__ volatile("mov $0x123456789, %%r12\\n ud2" ::: "r12"); return 0; }
int breakpoint(void) { __asm__ volatile("int3"); return 3; }
int dividing(void) { volatile int zero = 0; return 7 / zero; }
int smashing(void) {
    __asm__ volatile("mov $16, %rsp\\n mov $16, %rbp\\n movb $1, 0x70");
    return 0;
}
int sending(void) { kill(getpid(), SIGBUS); pause(); return 0; }

static void leave(int number) { _exit(40 + number); }
int handling(void) { signal(SIGSEGV, leave); return load(0); }

int forking(void) {
    int status = 0;
    pid_t child = fork();
    if (!child)
        load(0);
    waitpid(child, &status, 0);
    return WTERMSIG(status);
}

static void *crash(void *barrier) { pthread_barrier_wait(barrier); abort(); }
int many(void) {
    pthread_barrier_t barrier;
    pthread_t threads[8];
    pthread_barrier_init(&barrier, 0, 8);
    for (int n = 0; n < 8; ++n)
        pthread_create(&threads[n], 0, crash, &barrier);
    pause();
    return 0;
}
int waiting(void) { return pause(); }
"""
FLAGS = ("-g", "-O0", "-fPIC", "-fno-omit-frame-pointer")
OWN = [setting for setting in PIPES if setting.kind == "jitlink"]


def crash(name: str, *arguments: int) -> ExecutorCrashedError:
    """The error of a function."""
    with (
        time_limit(),
        RemoteExecutorProcessControl.launch(timeout=50) as executor,
        jitlink.load(compile_c(SOURCE, "gcc", FLAGS), executor=executor) as lib,
    ):
        with pytest.raises(ExecutorCrashedError) as caught:
            lib.function(name)(*arguments)
        assert executor.process is not None
        # As without a report.
        assert executor.process.wait(0) == -caught.value.signal
        with pytest.raises(ExecutorCrashedError) as again:
            lib.function("null")()
        assert again.value.frames == caught.value.frames
    return caught.value


def symbols(error: ExecutorCrashedError) -> Sequence[str]:
    return [each.symbol for each in error.frames]


CRASHES: dict[str, tuple[signal.Signals, int | None, list[str]]] = {
    "null": (signal.SIGSEGV, 0, ["load", "null", "jitlink_call_frame", "__jitlink_call"]),
    "unaligned": (signal.SIGSEGV, None, ["load", "unaligned", "jitlink_call_frame"]),
    "calling": (signal.SIGSEGV, 0, ["", "calling", "jitlink_call_frame"]),
    "calling_nowhere": (
        signal.SIGSEGV,
        0x123456789000,
        ["", "calling_nowhere", "jitlink_call_frame"],
    ),
    "trapping": (signal.SIGILL, -1, ["trapping", "jitlink_call_frame"]),
    "breakpoint": (signal.SIGTRAP, None, ["breakpoint", "jitlink_call_frame"]),
    "dividing": (signal.SIGFPE, -1, ["dividing", "jitlink_call_frame"]),
}


@pytest.mark.parametrize("name", CRASHES)
def test_frames(name: str) -> None:
    number, address, expected = CRASHES[name]
    error = crash(name)
    assert error.signal == number
    assert error.registers["rip"] == error.frames[0].address
    # -1: that of the instruction.
    assert error.fault_address == (error.frames[0].address if address == -1 else address)
    assert symbols(error)[: len(expected)] == expected
    own = next(each for each in error.frames if each.symbol == name)
    assert own.file.endswith("source.o")
    assert own.graph
    assert Path(own.source).name == "source.c"
    lines = SOURCE.splitlines()
    assert name in lines[own.line - 1] or name == "trapping"
    # The executor and the C library are below.
    files = {Path(each.file).name for each in error.frames}
    assert {"jitlink-executor", "libc.so.6"} <= files


def test_the_message_shows_the_frames() -> None:
    error = crash("null")
    line = SOURCE.splitlines().index("    return *p;              /* line 11 */") + 1
    text = str(error)
    assert text.startswith("the executor was ended by SIGSEGV at address 0x0\n#0  0x")
    first, second, *_ = text.splitlines()[1:]
    assert first.endswith(f"source.c:{line}")
    assert " load + " in first
    assert second.startswith("#1  0x")
    assert " null + " in second


def test_frames_of_a_library() -> None:
    error = crash("sorting")
    names = symbols(error)
    assert names[:2] == ["load", "compare"]
    place = names.index("sorting")
    between = error.frames[2:place]
    assert all("libc.so" in each.file and not each.graph for each in between)
    assert any(each.symbol.startswith("qsort") for each in between)


def test_abort_and_standard_error() -> None:
    error = crash("aborting")
    assert error.signal == signal.SIGABRT
    assert error.fault_address is None
    assert error.stderr == "no way on\n"
    names = symbols(error)
    assert names.index("abort") == names.index("aborting") - 1
    assert "; its standard error: no way on\n#0  0x" in str(error)


def test_a_call_of_data() -> None:
    error = crash("calling_data")
    assert error.fault_address == error.frames[0].address == error.registers["rip"]
    assert symbols(error)[1] == "calling_data"


def test_registers() -> None:
    assert crash("trapping").registers["r12"] == 0x123456789


def test_infinite_recursion() -> None:
    error = crash("overflow", 0)
    assert error.signal == signal.SIGSEGV
    assert error.fault_address is not None
    assert abs(error.fault_address - error.registers["rsp"]) < 1 << 14
    assert set(symbols(error)) == {"overflow"}
    assert len(error.frames) > 100
    assert "times)" in str(error)
    assert len(str(error).splitlines()) < 5


def test_infinite_recursion_on_another_thread() -> None:
    """The main thread is busy; so the call is carried out by one of its own."""
    with (
        time_limit(),
        RemoteExecutorProcessControl.launch(timeout=50) as executor,
        jitlink.load(compile_c(SOURCE, "gcc", FLAGS), executor=executor) as lib,
    ):
        errors: list[BaseException] = []

        def wait() -> None:
            try:
                lib.waiting()
            except ExecutorCrashedError as error:
                errors.append(error)

        waiting = [threading.Thread(target=wait) for _ in range(2)]
        for each in waiting:
            each.start()
        while len(executor.connection._calls) < 2:
            time.sleep(0.001)
        with pytest.raises(ExecutorCrashedError) as caught:
            lib.overflow(0)
        for each in waiting:
            each.join()
        # The calls that were under way have failed with it.
        assert all(isinstance(each, ExecutorCrashedError) for each in errors)
        assert len(errors) == 2
        assert set(symbols(caught.value)) == {"overflow"}


def test_a_stack_that_cannot_be_unwound() -> None:
    error = crash("smashing")
    assert error.signal == signal.SIGSEGV
    assert error.fault_address == 0x70
    assert error.registers["rsp"] == 16
    assert symbols(error)[:1] == ["smashing"]


def test_a_signal_that_was_sent() -> None:
    error = crash("sending")
    assert error.signal == signal.SIGBUS
    assert error.fault_address is None
    assert "sending" in symbols(error)


def test_threads_that_crash_at_once() -> None:
    for _ in range(5):
        error = crash("many")
        assert error.signal == signal.SIGABRT
        assert "crash" in symbols(error)


def test_handlers_of_the_program() -> None:
    with (
        RemoteExecutorProcessControl.launch(timeout=50) as executor,
        jitlink.load(compile_c(SOURCE, "gcc", FLAGS), executor=executor) as lib,
        pytest.raises(ExecutorExitedError) as caught,
    ):
        lib.handling()
    assert caught.value.status == 40 + signal.SIGSEGV


def test_forked_processes_report_nothing() -> None:
    with (
        RemoteExecutorProcessControl.launch(timeout=50) as executor,
        jitlink.load(compile_c(SOURCE, "gcc", FLAGS), executor=executor) as lib,
    ):
        for _ in range(3):
            assert lib.forking() == signal.SIGSEGV
        with pytest.raises(ExecutorCrashedError):
            lib.null()


@pytest.mark.parametrize("kind", ["llvm22", "llvm19"])
def test_executors_of_llvm(kind: str) -> None:
    with (
        started(Setting(kind, "pipes", "shared")) as executor,
        jitlink.load(compile_c(SOURCE, "gcc", FLAGS), executor=executor) as lib,
    ):
        address = lib.address("null")
        (described,) = tasks.run(executor.describe_code([address]))
        assert (described.symbol, described.offset) == ("null", 0)
        with pytest.raises(ExecutorCrashedError) as caught:
            lib.null()
    assert caught.value.signal == signal.SIGSEGV
    assert caught.value.fault_address is None
    assert not caught.value.frames
    assert not caught.value.registers


def test_an_executor_that_listens() -> None:
    """It is no child: what has ended it is known from the report alone."""
    with (
        started(Setting("jitlink", "tcp", "generic")) as executor,
        jitlink.load(compile_c(SOURCE, "gcc", FLAGS), executor=executor) as lib,
    ):
        (getenv,) = tasks.run(executor.lookup_symbols(["getenv"]))
        assert getenv is not None
        (described,) = tasks.run(executor.describe_code([getenv + 3]))
        assert (described.symbol, described.offset) == ("getenv", 3)
        with pytest.raises(ExecutorCrashedError) as caught:
            lib.null()
        assert symbols(caught.value)[:2] == ["load", "null"]


def test_an_executor_in_a_sandbox() -> None:
    """It cannot read the list of its mappings."""
    with (
        time_limit(),
        RemoteExecutorProcessControl.launch(sandbox=Sandbox(), timeout=50) as executor,
        jitlink.load(compile_c(SOURCE, "gcc", FLAGS), executor=executor) as lib,
    ):
        (getenv,) = tasks.run(executor.lookup_symbols(["getenv"]))
        assert getenv is not None
        (described,) = tasks.run(executor.describe_code([getenv]))
        assert (described.symbol, described.offset) == ("getenv", 0)
        with pytest.raises(ExecutorCrashedError) as caught:
            lib.aborting()
        names = symbols(caught.value)
        assert names.index("abort") == names.index("aborting") - 1


@pytest.mark.parametrize("machine", FOREIGN_MACHINES)
def test_another_architecture(machine: str) -> None:
    plain = """
    #include <signal.h>
    static int load(int *p) { return *p; }
    int null(int *p) { return load(p) + 1; }
    /* Not abort, which has no unwind information in the C library of RISC-V. */
    int raising(void) { return raise(SIGABRT); }
    int calling(int (*f)(void)) { return f() + 1; }
    int calling_nowhere(void) { return ((int (*volatile)(void))0x123456789000)() + 1; }
    """
    compiled = compile_c(plain, "zig", ("-g", "-O0", "-fPIC"), target=f"{machine}-linux-gnu")
    expected = {
        "null": (signal.SIGSEGV, ["load", "null", "jitlink_call_frame"]),
        "calling": (signal.SIGSEGV, ["", "calling", "jitlink_call_frame"]),
        "calling_nowhere": (signal.SIGSEGV, ["", "calling_nowhere", "jitlink_call_frame"]),
        "raising": (signal.SIGABRT, ["raise", "raising", "jitlink_call_frame"]),
    }
    for name, (number, names) in expected.items():
        with (
            time_limit(),
            RemoteExecutorProcessControl.launch(
                executor_command(f"{machine}-linux-gnu"), memory="generic", timeout=50
            ) as executor,
            jitlink.load(compiled, executor=executor) as lib,
            pytest.raises(ExecutorCrashedError) as caught,
        ):
            lib.function(name)(0)
        error = caught.value
        assert error.signal == number
        found = symbols(error)
        first = found.index(names[0])
        assert found[first : first + len(names)] == names
        assert error.registers["pc"] == error.frames[0].address
        assert all(each.line for each in error.frames if each.symbol == name)


def test_a_report_that_cannot_be_sent() -> None:
    """The thread that crashes has the connection locked: the process ends all the same."""
    path = own_executor()
    assert path is not None
    child = ChildProcess([path])
    report, read = JITLINK.report_crashes, JITLINK.read_buffers
    assert report is not None
    assert read is not None
    with time_limit():
        reader = MessageReader()
        incoming, outgoing = child.channel.incoming, child.channel.outgoing
        os.set_blocking(incoming, True)
        (message,) = _receive(reader, incoming)
        bootstrap = SETUP.deserialize(message.payload).bootstrap_symbols
        tag = bootstrap[report.name]
        _call(outgoing, 0, tag, report.signature.serialize_arguments(tag))
        _receive(reader, incoming)
        # More than a pipe takes, so sending the result does not end.
        code = bootstrap[read.name] & ~0xFFF
        ranges = [ExecutorAddrRange(code, code + 4096)] * 1000
        _call(outgoing, 1, bootstrap[read.name], read.signature.serialize_arguments(ranges))
        os.read(incoming, 1)
        os.kill(child.pid, signal.SIGSEGV)
        assert child.wait(50) == -signal.SIGSEGV
    child.channel.close()


def _call(descriptor: int, sequence: int, function: int, arguments: bytes) -> None:
    message = Message(OpCode.CALL_WRAPPER, sequence, function, arguments)
    os.write(descriptor, message.header() + message.payload)


def _receive(reader: MessageReader, descriptor: int) -> list[Message]:
    while not (messages := reader.feed(os.read(descriptor, 1 << 16))):
        pass
    return messages


def test_a_controller_that_crashes_first() -> None:
    """The executor of a controller that is gone ends, too."""
    program = (
        "import os, signal, jitlink\n"
        "from jitlink.executor import RemoteExecutorProcessControl\n"
        "executor = RemoteExecutorProcessControl.launch()\n"
        "print(executor.process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as controller:
        assert controller.stdout is not None
        pid = int(controller.stdout.read())
    with time_limit():
        while Path(f"/proc/{pid}").exists() and "Z" not in _state(pid):
            os.sched_yield()


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"
