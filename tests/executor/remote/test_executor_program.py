"""jitlink's executor as a program: how it is reached, and what ends it."""

import os
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jitlink import tasks
from jitlink.executor import RemoteExecutorProcessControl
from jitlink.executor.remote.channels import SocketChannel
from jitlink.executor.remote.messages import OpCode
from jitlink.executor.remote.process import own_executor
from jitlink.lljit import LLJIT
from tests.executor.remote.fake import encoded
from tests.toolchain import compile_c

PROGRAM = own_executor() or ""


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *words], capture_output=True, text=True, timeout=60, check=False
    )


def test_usage() -> None:
    assert run("--help").stdout.startswith("usage: jitlink-executor [OPTION]... CONNECTION")
    assert run("--help").returncode == 0
    for words in (
        (),
        ("filedescs=1",),
        ("filedescs=1,2x",),
        ("nonsense",),
        ("--nonsense",),
        ("--timeout=x", "listen=0"),
        ("--timeout=-1", "listen=0"),
        ("listen=0", "listen=0"),
        ("socket:adopt=x",),
        ("--sandbox-memry=5", "filedescs=0,1"),
    ):
        done = run(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("usage:")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("listen=nowhere", "nowhere is not HOST:PORT, :PORT or PORT"),
        ("listen=", " is not HOST:PORT"),
        ("listen=65536", "65536 is not HOST:PORT"),
        ("listen=127.0.0.1:-1", "127.0.0.1:-1 is not HOST:PORT"),
        ("tcp:listen=[::1]", "[::1] is not HOST:PORT"),
        ("listen=no.such.host.invalid:1", "no.such.host.invalid: "),
        ("socket=/no/such/directory/socket", "No such file or directory"),
        ("socket=" + "x" * 200, "File name too long"),
    ],
)
def test_addresses_that_cannot_be_listened_at(word: str, message: str) -> None:
    done = run(word)
    assert done.returncode == 1
    assert message in done.stderr


def test_the_installed_command() -> None:
    words = [sys.executable, "-c", "from jitlink.executor.remote.command import main; main()"]
    done = subprocess.run([*words, "--help"], capture_output=True, text=True, check=False)
    assert done.stdout == run("--help").stdout


def test_it_listens_where_it_says_and_nowhere_else() -> None:
    with subprocess.Popen(
        [PROGRAM, "listen=127.0.0.1:0"], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        found = re.fullmatch(r"listening on 127\.0\.0\.1:(\d+)\n", line)
        assert found
        listening = subprocess.run(
            ["cat", "/proc/net/tcp"], capture_output=True, text=True, check=True
        )
        assert f"0100007F:{int(found[1]):04X}" in listening.stdout
        with RemoteExecutorProcessControl.connect("127.0.0.1", int(found[1])) as executor:
            assert tasks.run(executor.lookup_symbols(["malloc", "cos", "_Znwm"])).count(None) == 0
        assert server.wait(20) == 0


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with subprocess.Popen([PROGRAM, f"socket={path}"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == f"listening on {path}\n"
        assert path.stat().st_mode & 0o777 == 0o600
        connected = socket.socket(socket.AF_UNIX)
        connected.connect(str(path))
        with RemoteExecutorProcessControl(SocketChannel(connected), memory="shared") as executor:
            assert tasks.run(executor.lookup_symbols(["malloc"])) != [None]
        assert server.wait(20) == 0
    assert not path.exists()


def test_sockets_send_at_once() -> None:
    """Those that the executor is given, too."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as connected,
        listening.accept()[0] as theirs,
    ):
        words = [PROGRAM, f"socket:adopt={theirs.fileno()}"]
        with subprocess.Popen(words, pass_fds=[theirs.fileno()]) as process:
            connected.recv(1)
            sends_at_once = theirs.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            connected.close()
            process.wait(20)
    assert sends_at_once


@pytest.mark.parametrize(
    "name",
    ["cos", "_Znwm", "__cxa_throw", "_Unwind_Resume", "__register_frame", "_Znwm@GLIBCXX_3.4"],
)
def test_what_programs_expect_is_loaded(name: str) -> None:
    with RemoteExecutorProcessControl.launch() as executor:
        names = [name, "_Znwm@NONE_1.0", "no_such_symbol"]
        found = tasks.run(executor.lookup_symbols(names))
        assert [address is None for address in found] == [False, True, True]


def test_its_own_functions_are_not_found() -> None:
    """Names such as these are a program's, or a library's."""
    names = ["__jit_debug_descriptor", "__jit_debug_register_code"]
    names += ["put", "fail", "serve", "option", "dispatch", "is_forked", "hang_up"]
    with RemoteExecutorProcessControl.launch() as executor:
        found = tasks.run(executor.lookup_symbols(names))
    assert [address is not None for address in found] == [True] * 2 + [False] * 7


def test_lookups_at_once_all_see_what_one_of_them_loads() -> None:
    names = ["__deregister_frame", "_ZSt4cout", "__cxa_throw", "_Znwm"]
    for _ in range(10):
        with RemoteExecutorProcessControl.launch() as executor, ThreadPoolExecutor() as pool:
            lookups = [
                pool.submit(tasks.run, executor.lookup_symbols([name])) for name in names * 3
            ]
            assert all(lookup.result(20) != [None] for lookup in lookups)


SIGNALS = """
#include <pthread.h>
#include <signal.h>
#include <unistd.h>
/* Which signals are blocked, and whether it runs on the main thread. */
int look(int times) {
  sigset_t blocked;
  int count = 0;
  while (times--) usleep(1000);
  pthread_sigmask(SIG_BLOCK, 0, &blocked);
  for (int number = 1; number < 65; number++) count += sigismember(&blocked, number) == 1;
  return 2 * count + (gettid() == getpid());
}
"""


def test_no_signals_are_blocked_in_programs() -> None:
    """Those that run beside another one neither; one after the other all are on the main thread."""
    with (
        RemoteExecutorProcessControl.launch() as executor,
        LLJIT(executor=executor, platform=False) as jit,
        ThreadPoolExecutor() as pool,
    ):
        jit.add_object(compile_c(SIGNALS, "gcc", ("-O1", "-fPIC", "-D_GNU_SOURCE")))
        look = int(jit.lookup("look"))
        calls = [pool.submit(tasks.run, executor.run_as_int_function(look, 50)) for _ in range(4)]
        assert {call.result(20) for call in calls} == {0, 1}
        for _ in range(200):
            assert tasks.run(executor.run_as_int_function(look, 0)) == 1


def exchange(data: bytes) -> tuple[int, str]:
    """Exit status and standard error of an executor that is sent bytes."""
    to_executor, from_us = os.pipe()
    to_us, from_executor = os.pipe()
    process = subprocess.Popen(
        [PROGRAM, f"filedescs={to_executor},{from_executor}"],
        pass_fds=(to_executor, from_executor),
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(to_executor)
    os.close(from_executor)
    os.write(from_us, data)
    os.close(from_us)
    _, errors = process.communicate(timeout=60)
    os.close(to_us)
    return process.returncode, errors


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        (b"", 0, ""),
        (encoded(OpCode.HANGUP, payload=b"\0"), 0, ""),
        (encoded(OpCode.HANGUP), 0, ""),
        (b"\x20", 1, "ended within a message"),
        (encoded(OpCode.CALL_WRAPPER, payload=b"abc")[:-1], 1, "ended within a message"),
        (bytes(32), 1, "impossible size"),
        (b"\xff" * 32, 1, "impossible size"),
        (encoded(9), 1, "unexpected opcode"),
        (encoded(OpCode.SETUP), 1, "unexpected opcode"),
        (encoded(OpCode.RESULT, 5), 1, "a result belongs to no call"),
    ],
)
def test_what_ends_it(data: bytes, status: int, message: str) -> None:
    code, errors = exchange(data)
    assert code == status
    assert message in errors


def test_it_does_not_outlive_its_controller() -> None:
    """Even if linked code never returns."""
    program = f"""
import sys, threading
import jitlink
from jitlink.executor import RemoteExecutorProcessControl
executor = RemoteExecutorProcessControl.launch({PROGRAM!r})
pause = executor.services
(address,) = __import__("jitlink.tasks").tasks.run(executor.lookup_symbols(["pause"]))
threading.Thread(
    target=lambda: jitlink.tasks.run(executor.run_as_void_function(address)), daemon=True
).start()
print(executor.process.pid, flush=True)
sys.stdin.read()
"""
    words = [sys.executable, "-c", program]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as controller:
        assert controller.stdout is not None
        pid = int(controller.stdout.readline())
        controller.kill()
    end = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert not Path(f"/proc/{pid}").exists()
