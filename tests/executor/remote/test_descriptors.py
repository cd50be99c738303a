"""Systems with too few descriptors, and executors that close some of their own."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jitlink import tasks
from jitlink.errors import AllocationError, ExecutorError, JITLinkError
from jitlink.executor import (
    ExecutorDisconnectedError,
    ExecutorExitedError,
    RemoteExecutorProcessControl,
)
from jitlink.executor.remote.memory_kinds import MemoryKind
from jitlink.lljit import LLJIT
from tests.executor.remote.conversation import compiled, link_and_run
from tests.executor.remote.listening import PROGRAM, listening
from tests.executor.remote.resources import is_free_soon, open_descriptors, shared_files
from tests.toolchain import compile_c

ADD = "int add(int x) { return x + 1; }"


# Descriptors


def are_closed_but(before: set[str]) -> bool:
    """Whether this process has no more descriptors than it had before, soon."""
    return is_free_soon(lambda: open_descriptors() <= before)


def limit(process: int) -> None:
    """Keep a process from opening more than it has."""
    resource.prlimit(process, resource.RLIMIT_NOFILE, (3, 3))


@contextmanager
def limited(memory: MemoryKind) -> Iterator[RemoteExecutorProcessControl]:
    """An executor that can open nothing."""
    with RemoteExecutorProcessControl.launch(PROGRAM, memory=memory, timeout=20) as executor:
        assert executor.process is not None
        tasks.run(executor.lookup_symbols(["_Znwm", "cos"]))
        limit(executor.process.pid)
        yield executor


def test_an_executor_without_descriptors_for_shared_memory() -> None:
    before = shared_files()
    with limited("shared") as executor, LLJIT(executor=executor, platform=False) as jit:
        jit.add_object(compiled())
        with pytest.raises(JITLinkError) as caught:
            jit.lookup("f")
        reason = getattr(caught.value, "reason", caught.value)
        assert isinstance(reason, AllocationError)
        assert "Too many open files" in str(reason)
        # It goes on.
        with pytest.raises(ExecutorError, match="cannot load /lib/x"):
            tasks.run(executor.load_dylib("/lib/x"))
    assert executor.process is not None
    assert not shared_files(executor.process.pid) - before


def test_an_executor_without_descriptors_needs_none_for_generic_memory() -> None:
    with limited("generic") as executor:
        link_and_run(executor)


def test_an_executor_without_descriptors_for_clients() -> None:
    with listening("listen=0") as server:
        limit(server.process.pid)
        with pytest.raises(ExecutorError):
            server.connect()
        assert server.process.wait(20) == 1
        assert "cannot accept a connection: Too many open files" in server.errors()


@contextmanager
def few_descriptors(more: int) -> Iterator[None]:
    """Let this process open only a few more."""
    used = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Numbers below the highest one are free.
    fillers = []
    try:
        while True:
            number = os.open("/dev/null", os.O_RDONLY)
            fillers.append(number)
            if number > used:
                break
        resource.setrlimit(resource.RLIMIT_NOFILE, (fillers[-1] + 1 + more, hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in fillers:
            os.close(number)


@pytest.mark.serial("counts descriptors of this process")
def test_a_controller_without_descriptors() -> None:
    """However many there are, it is an error or a success, and nothing is left open."""
    compiled()
    before = open_descriptors()
    errors = set()
    successes = 0
    for more in range(24):
        with few_descriptors(more):
            try:
                with RemoteExecutorProcessControl.launch(PROGRAM, timeout=20) as executor:
                    link_and_run(executor)
                successes += 1
            except JITLinkError as error:
                errors.add(str(error))
        assert are_closed_but(before), more
    assert errors
    assert all("Too many open files" in error for error in errors)
    assert successes


@pytest.mark.serial("counts descriptors of this process")
def test_connecting_without_descriptors() -> None:
    for more in range(4):
        with listening("listen=0") as server:
            before = open_descriptors()
            with (
                few_descriptors(more),
                pytest.raises(ExecutorError, match="Too many open files"),
                server.connect() as executor,
            ):
                link_and_run(executor)
            assert are_closed_but(before)


# Half of a connection

HALF = """
#include <fcntl.h>
#include <unistd.h>
int half(int mode) {
  for (int n = 3; n < 64; n++) {
    int flags = fcntl(n, F_GETFL);
    if (flags != -1 && (flags & O_ACCMODE) == mode) close(n);
  }
  return 7;
}
"""


@pytest.mark.parametrize("mode", [os.O_RDONLY, os.O_WRONLY])
def test_an_executor_that_closes_half_of_its_connection(mode: int) -> None:
    kinds = (ExecutorExitedError, ExecutorDisconnectedError)
    with (
        RemoteExecutorProcessControl.launch(PROGRAM, timeout=20) as executor,
        LLJIT(executor=executor, platform=False) as jit,
    ):
        jit.add_object(compile_c(HALF, "gcc", ("-O1", "-fPIC")))
        address = int(jit.lookup("half"))
        with pytest.raises(kinds):  # noqa: PT012 - by which of the calls it is seen is open
            assert jit.session.wait(executor.run_as_int_function(address, mode)) == 7
            while True:
                jit.session.wait(executor.lookup_symbols(["malloc"]))
    assert executor.process is not None
    assert executor.process.wait(20) is not None
