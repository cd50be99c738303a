"""LLVM's executors, driven by jitlink."""

import gc
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jitlink import tasks
from jitlink.errors import (
    AllocationError,
    DuplicateDefinitionError,
    ExecutorError,
    JITLinkError,
    UndefinedSymbolError,
)
from jitlink.executor import (
    ExecutorCrashedError,
    ExecutorDisconnectedError,
    ExecutorExitedError,
    ExecutorTimeoutError,
    RemoteExecutorProcessControl,
    Sandbox,
)
from jitlink.executor.remote.sandbox import FEATURES
from jitlink.lljit import LLJIT
from jitlink.memory.mapper import RESERVATION_SIZE, MapperJITLinkMemoryManager
from jitlink.orc import FailedToMaterializeError
from tests.executor.remote.executors import PIPES, SETTINGS, Setting, started
from tests.executor.remote.resources import is_free_soon, open_descriptors
from tests.toolchain import compile_c

ADD = "int add(int x) { return x + 1; }\nint counter = 40;\nint count(void) { return ++counter; }"


def cause_of(error: BaseException) -> BaseException:
    """What a lookup failed for."""
    return error.reason if isinstance(error, FailedToMaterializeError) else error


# Tests of many calls use pipes alone: LLVM's executors take 40 ms for each answer over TCP.
@pytest.fixture(params=SETTINGS, ids=str)
def executor(request: pytest.FixtureRequest) -> Iterator[RemoteExecutorProcessControl]:
    with started(request.param) as executor:
        yield executor


def test_what_it_says_of_itself(executor: RemoteExecutorProcessControl) -> None:
    assert re.fullmatch("x86_64-(pc|unknown)-linux-gnu", executor.triple)
    assert executor.page_size == os.sysconf("SC_PAGESIZE")
    assert executor.is_alive


@pytest.mark.parametrize("executor", PIPES, ids=str, indirect=True)
def test_memory_is_used_again(executor: RemoteExecutorProcessControl) -> None:
    source = "static char big[1 << 20] = {1}; char *f(void) { return big; }"
    compiled = compile_c(source, "gcc", ("-O1", "-fPIC"))
    with LLJIT(executor=executor, platform=False) as jit:
        addresses = set()
        for _ in range(20):
            tracker = jit.create_resource_tracker()
            jit.add_object(compiled, tracker)
            addresses.add(int(jit.lookup("f")))
            jit.remove(tracker)
        assert len(addresses) <= 4


@pytest.mark.parametrize("executor", PIPES, ids=str, indirect=True)
def test_memory_that_is_used_again_is_zero(executor: RemoteExecutorProcessControl) -> None:
    first = "int filled[1000] = {[0 ... 999] = -1}; int get(void) { return filled[500]; }"
    second = "int filled[1000]; int get(void) { return filled[500]; }"
    with LLJIT(executor=executor, platform=False) as jit:
        for source, expected in ((first, -1), (second, 0)) * 3:
            tracker = jit.create_resource_tracker()
            jit.add_object(compile_c(source, "gcc", ("-O1", "-fPIC")), tracker)
            address = int(jit.lookup("get"))
            assert jit.session.wait(executor.run_as_void_function(address)) == expected
            jit.remove(tracker)


def test_a_failed_link_leaves_nothing(executor: RemoteExecutorProcessControl) -> None:
    source = "extern int nothing_defines_this(void); int f(void) { return nothing_defines_this(); }"
    compiled = compile_c(source, "gcc", ("-O1", "-fPIC"))
    with LLJIT(executor=executor, platform=False) as jit:
        jit.add_object(compiled)
        with pytest.raises(JITLinkError) as caught:
            jit.lookup("f")
        assert isinstance(cause_of(caught.value), UndefinedSymbolError)
        jit.add_object(compile_c(ADD, "gcc", ("-O1", "-fPIC")))
        assert jit.session.wait(executor.run_as_int_function(int(jit.lookup("add")), 1)) == 2


def test_many_threads_call(executor: RemoteExecutorProcessControl) -> None:
    with LLJIT(executor=executor, platform=False) as jit:
        jit.add_object(compile_c(ADD, "gcc", ("-O1", "-fPIC")))
        add, results = int(jit.lookup("add")), dict[int, int]()

        def call(first: int) -> None:
            for value in range(first, first + 50):
                results[value] = jit.session.wait(executor.run_as_int_function(add, value))

        threads = [threading.Thread(target=call, args=(n * 1000,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(results) == 400
        assert all(result == value + 1 for value, result in results.items())


ENDS = {
    "crash": (
        "*(volatile int *)0 = 1;",
        ExecutorCrashedError,
        "ended by SIGSEGV( at address 0x0)?; its standard error: about to end",
    ),
    "abort": ("abort();", ExecutorCrashedError, "ended by SIGABRT"),
    "exit": ("exit(7);", ExecutorExitedError, "exited with status 7"),
    "loop": ('for (;;) __asm__ volatile("");', ExecutorTimeoutError, "did not return within 1 s"),
    "kill": ("raise(SIGKILL);", ExecutorCrashedError, "ended by SIGKILL"),
    "closed pipes": (
        "for (int n = 3; n < 64; n++) close(n); pause();",
        ExecutorDisconnectedError,
        "closed the connection|exited with status 1",
    ),
}


@pytest.mark.parametrize("setting", PIPES, ids=str)
@pytest.mark.parametrize("end", ENDS)
def test_an_executor_that_ends(end: str, setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    if end == "closed pipes":
        # The process goes on, and the connection waits so long for its exit status.
        monkeypatch.setattr("jitlink.executor.remote.process._EXIT_TIMEOUT", 0.2)
    body, kind, message = ENDS[end]
    source = (
        "#include <signal.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <unistd.h>\n"
        'int f(void) { fprintf(stderr, "about to end\\n"); ' + body + " return 0; }"
    )
    compiled = compile_c(source, "gcc", ("-O1", "-fPIC"))
    timeout = 1 if end == "loop" else 60
    # The session ends without an error: nothing is left to release.
    with started(setting, timeout=timeout) as executor, LLJIT(executor=executor) as jit:
        jit.add_object(compiled)
        jit.add_object(compile_c(ADD, "gcc", ("-O1", "-fPIC")))
        address = int(jit.lookup("f"))
        with pytest.raises(kind, match=message) as caught:
            jit.session.wait(executor.run_as_void_function(address))
        assert isinstance(caught.value, kind)
        assert not executor.is_alive
        with pytest.raises(JITLinkError) as caught_later:
            jit.lookup("add")
        assert isinstance(cause_of(caught_later.value), kind)
    assert executor.process is not None
    assert executor.process.wait(1) is not None


@pytest.mark.parametrize("setting", PIPES, ids=str)
def test_an_executor_that_is_killed_while_it_is_idle(setting: Setting) -> None:
    with started(setting) as executor, LLJIT(executor=executor) as jit:
        jit.add_object(compile_c(ADD, "gcc", ("-O1", "-fPIC")))
        jit.lookup("add")
        assert executor.process is not None
        executor.process.kill()
        end = time.monotonic() + 20
        while executor.is_alive and time.monotonic() < end:
            time.sleep(0.001)
        with pytest.raises(ExecutorCrashedError, match="SIGKILL"):
            tasks.run(executor.lookup_symbols(["malloc"]))


def test_signals_of_all_threads_that_run_code() -> None:
    """One call waits on the main thread; the other one, beside it, is not without signals."""
    source = """
    #include <pthread.h>
    #include <signal.h>
    #include <semaphore.h>
    static sem_t begun, ended;
    void prepare(void) { sem_init(&begun, 0, 0); sem_init(&ended, 0, 0); }
    int wait_here(void) { sem_post(&begun); return sem_wait(&ended); }
    int blocked(void) {
      sigset_t now;
      sem_wait(&begun);
      pthread_sigmask(SIG_SETMASK, 0, &now);
      sem_post(&ended);
      return sigismember(&now, SIGTERM) + sigismember(&now, SIGXFSZ);
    }
    """
    compiled = compile_c(source, "gcc", ("-O1", "-fPIC"))
    with (
        started(Setting("jitlink", "pipes", "shared")) as executor,
        LLJIT(executor=executor) as jit,
    ):
        jit.add_object(compiled)
        prepare, wait, blocked = (
            int(jit.lookup(name)) for name in ("prepare", "wait_here", "blocked")
        )
        jit.session.wait(executor.run_as_void_function(prepare))
        waiting = threading.Thread(
            target=lambda: jit.session.wait(executor.run_as_void_function(wait))
        )
        waiting.start()
        assert jit.session.wait(executor.run_as_void_function(blocked)) == 0
        waiting.join(60)


@pytest.mark.parametrize("executor", PIPES, ids=str, indirect=True)
def test_sessions_one_after_another(executor: RemoteExecutorProcessControl) -> None:
    """Memory of one session is where memory of the session before was."""
    source = """
    #include <stdlib.h>
    static void nothing(void) {}
    int f(void) { return atexit(nothing); }
    """
    compiled = compile_c(source, "gcc", ("-O1", "-fPIC"))
    for _ in range(3):
        with LLJIT(executor=executor) as jit:
            jit.add_object(compiled)
            jit.initialize()
            address = int(jit.lookup("f"))
            assert jit.session.wait(executor.run_as_int_function(address, 0)) == 0


@pytest.mark.parametrize("setting", PIPES, ids=str)
def test_sessions_at_once(setting: Setting) -> None:
    """Each opens its own JITDylibs, whatever session the executor's runtime was linked for."""
    source = """
    #include <dlfcn.h>
    static int began;
    __attribute__((constructor)) static void begin(void) { began = 1; }
    int f(void) { return began && dlsym(dlopen("main", RTLD_NOW), "f") == f; }
    int other(void) { return dlopen("second", RTLD_NOW) != 0; }
    """
    compiled = compile_c(source, "gcc", ("-O1", "-fPIC"))
    with started(setting) as executor:
        for _ in range(2):
            with LLJIT(executor=executor) as first, LLJIT(executor=executor) as second:
                second.create_jitdylib("second")
                for jit in (first, second):
                    jit.add_object(compiled)
                    jit.initialize()
                    assert jit.lookup("f")() == 1
                assert (first.lookup("other")(), second.lookup("other")()) == (0, 1)
                second.close()
                assert first.lookup("f")() == 1


@pytest.mark.parametrize("setting", PIPES, ids=str)
def test_dladdr(setting: Setting) -> None:
    source = """
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <string.h>
    int sought(void) { return 1; }
    int is_found(void) {
        Dl_info found;
        return dladdr((char *)sought + 1, &found) && found.dli_saddr == (void *)sought
            && !strcmp(found.dli_sname, "sought") && !strcmp(found.dli_fname, "main");
    }
    int is_nothing_found(void) { Dl_info found; return !dladdr((void *)8, &found); }
    """
    with started(setting) as executor, LLJIT(executor=executor) as jit:
        jit.add_object(compile_c(source, "gcc", ("-O1", "-fPIC")))
        for _ in range(2):
            assert jit.lookup("is_found")() == 1
        assert jit.lookup("is_nothing_found")() == 1


def test_programs_that_are_no_executors(tmp_path: Path) -> None:
    with pytest.raises(ExecutorError, match="cannot start the executor /nothing"):
        RemoteExecutorProcessControl.launch("/nothing")
    with pytest.raises(ExecutorExitedError, match="exited with status 0"):
        RemoteExecutorProcessControl.launch("/bin/true")
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\necho usage: none >&2\nexit 3\n")
    script.chmod(0o755)
    with pytest.raises(ExecutorExitedError, match="status 3; its standard error: usage: none"):
        RemoteExecutorProcessControl.launch(script)


def test_a_command_without_words() -> None:
    with pytest.raises(ExecutorError, match="cannot start an executor: the command has no words"):
        RemoteExecutorProcessControl.launch([])


def test_nothing_listens() -> None:
    with pytest.raises(ExecutorError, match=r"cannot connect to 127\.0\.0\.1:1: .*refused"):
        RemoteExecutorProcessControl.connect("127.0.0.1", 1)


@pytest.mark.parametrize("setting", PIPES, ids=str)
def test_more_memory_than_there_is(setting: Setting) -> None:
    source = "char huge[1ul << 47]; char *f(void) { return huge; }"
    compiled = compile_c(source, "gcc", ("-O1", "-fPIC", "-mcmodel=large"))
    with started(setting) as executor, LLJIT(executor=executor, platform=False) as jit:
        jit.add_object(compiled)
        with pytest.raises(JITLinkError) as caught:
            jit.lookup("f")
        assert isinstance(cause_of(caught.value), AllocationError)


def test_a_second_definition_is_refused_as_in_process() -> None:
    with started(PIPES[0]) as executor, LLJIT(executor=executor) as jit:
        compiled = compile_c(ADD, "gcc", ("-O1", "-fPIC"))
        jit.add_object(compiled)
        with pytest.raises(DuplicateDefinitionError):
            jit.add_object(compiled)


@pytest.mark.parametrize("setting", PIPES, ids=str)
def test_closing_frees_all_descriptors(setting: Setting) -> None:
    gc.collect()
    before = open_descriptors()
    with started(setting) as executor, LLJIT(executor=executor) as jit:
        jit.add_object(compile_c(ADD, "gcc", ("-O1", "-fPIC")))
        jit.lookup("add")
    assert is_free_soon(lambda: len(open_descriptors()) <= len(before))
    assert not executor.is_alive


def test_an_executor_that_is_dropped_is_ended() -> None:
    executor = RemoteExecutorProcessControl.launch(PIPES[0].program)
    process = executor.process
    assert process is not None
    tasks.run(executor.place_arguments(["program"]))
    gc.disable()
    try:
        del executor
        assert process.wait(20) is not None
    finally:
        gc.enable()
    assert process.wait(20) is not None


def test_a_forked_process_leaves_the_executor_alone() -> None:
    with RemoteExecutorProcessControl.launch(sandbox=Sandbox(accept=FEATURES)) as executor:
        assert executor.library_directory is not None
        directory = Path(executor.library_directory)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                # As at the end of a block, or when it is collected.
                executor.close()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert directory.is_dir()
        assert None not in tasks.run(executor.lookup_symbols(["malloc"]))
    assert not directory.exists()


@pytest.mark.parametrize("host", ["a" * 70, "a..b", "\udcff"])
def test_names_of_no_host(host: str) -> None:
    with pytest.raises(ExecutorError, match=r"^cannot connect to .*:1: "):
        RemoteExecutorProcessControl.connect(host, 1)


def test_shared_memory_that_was_not_reserved() -> None:
    with RemoteExecutorProcessControl.launch() as executor:
        manager = executor.memory_manager
        assert isinstance(manager, MapperJITLinkMemoryManager)
        for access in (manager.mapper.view, manager.mapper.prepare, manager.mapper.discard):
            with pytest.raises(AllocationError, match="executor's memory at 0x1000"):
                access(0x1000, 0x1000)
        tasks.run(manager.reserve())
        (start,) = manager.mapper._addresses  # type: ignore[attr-defined]
        end = start + RESERVATION_SIZE
        assert len(manager.mapper.view(end - 0x1000, 0x1000)) == 0x1000
        for address in (start - 0x1000, end - 0x800, end):
            with pytest.raises(AllocationError, match=f"executor's memory at {address:#x}"):
                manager.mapper.view(address, 0x1000)
