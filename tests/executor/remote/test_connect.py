"""Connections to executors that listen: addresses, tokens, TLS, and the time that they may take."""

import contextlib
import os
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from jitlink import tasks
from jitlink.errors import ExecutorError
from jitlink.executor import (
    ExecutorDisconnectedError,
    ExecutorExitedError,
    RemoteExecutorProcessControl,
)
from jitlink.executor.remote.channels import SocketChannel
from jitlink.lljit import LLJIT
from tests.executor.remote.fake import encoded
from tests.executor.remote.listening import COMMAND, PROGRAM, Certificates, listening
from tests.toolchain import compile_c, report_missing

TOKEN = "a token of many words, 0123456789"


def check_that_it_serves(executor: RemoteExecutorProcessControl) -> None:
    """Link code in an executor, run it, and close the connection."""
    with executor, LLJIT(executor=executor) as jit:
        jit.add_object(compile_c("int add(int x) { return x + 1; }", "gcc", ("-O1", "-fPIC")))
        address = int(jit.lookup("add"))
        assert jit.session.wait(executor.run_as_int_function(address, 41)) == 42


@pytest.fixture(name="token_file")
def _token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    return path


# Addresses


@pytest.mark.parametrize("word", ["listen=0", "listen=:0", "tcp:listen=:0", "listen=127.0.0.1:0"])
def test_without_a_host_it_listens_on_loopback(word: str) -> None:
    with listening(word) as server:
        assert server.host == "127.0.0.1"
        check_that_it_serves(server.connect())
        assert server.process.wait(20) == 0
        assert server.errors() == ""


def test_listening_on_other_interfaces_is_warned_of(token_file: Path) -> None:
    for words, is_warned in (([], True), ([f"--token-file={token_file}"], False)):
        with listening("listen=0.0.0.0:0", *words) as server:
            assert server.host == "0.0.0.0"
            server.process.terminate()
            assert ("any client that can connect to 0.0.0.0" in server.errors()) is is_warned


def test_ipv6() -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError as error:
        report_missing(f"the address ::1 ({error.strerror})")
    with listening("listen=[::1]:0") as server:
        assert server.host == "::1"
        check_that_it_serves(server.connect())


@pytest.mark.parametrize("token", [None, TOKEN])
def test_a_unix_socket(tmp_path: Path, token_file: Path, token: str | None) -> None:
    path = tmp_path / "socket"
    words = [] if token is None else [f"--token-file={token_file}"]
    with listening(f"socket={path}", *words) as server:
        check_that_it_serves(RemoteExecutorProcessControl.connect_unix(path, token=token))
        assert server.process.wait(20) == 0
    assert not path.exists()


def test_a_unix_socket_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path / ("x" * 200), tmp_path / "\ud800"):
        with pytest.raises(ExecutorError, match=f"cannot connect to {path}: "):
            RemoteExecutorProcessControl.connect_unix(path)


def test_a_socket_that_was_opened_before(token_file: Path) -> None:
    for words in ([], [f"--token-file={token_file}"]):
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [PROGRAM, f"socket:adopt={theirs.fileno()}", *words], pass_fds=(theirs.fileno(),)
            )
        if words:
            ours.sendall(TOKEN.encode() + b"\n")
        check_that_it_serves(RemoteExecutorProcessControl(SocketChannel(ours), timeout=20))
        assert process.wait(20) == 0


def test_a_descriptor_that_is_no_socket() -> None:
    done = subprocess.run(
        [PROGRAM, "socket:adopt=0"], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    assert done.returncode == 1
    assert b"descriptor 0 is no stream socket" in done.stderr


# Tokens


def test_a_token_is_needed(token_file: Path) -> None:
    with listening("listen=0", f"--token-file={token_file}") as server:
        for wrong in ("another", TOKEN[:-1], TOKEN + "0", TOKEN.upper()):
            with pytest.raises(
                ExecutorDisconnectedError, match=r"has hung up: the token is wrong$"
            ) as caught:
                server.connect(wrong)
            assert wrong not in str(caught.value)
        check_that_it_serves(server.connect(TOKEN))
        assert server.process.wait(20) == 0
        errors = server.errors()
        assert errors.count("a client was refused: the token is wrong") == 4
        assert TOKEN[:10] not in errors


def test_clients_that_send_nothing_do_not_delay_others(token_file: Path) -> None:
    with listening("listen=0", f"--token-file={token_file}") as server:
        address = (server.host, server.port)
        silent = [socket.create_connection(address) for _ in range(40)]
        slow = socket.create_connection(address)
        slow.sendall(b"abc")
        begun = time.monotonic()
        check_that_it_serves(server.connect(TOKEN))
        assert time.monotonic() - begun < 20
        for client in (*silent, slow):
            client.settimeout(20)
            # A hangup with the reason, or nothing if the connection was never accepted.
            assert client.recv(1000)[8:9] in (b"\x01", b"")
            client.close()


def test_a_client_that_sends_too_much_is_refused(token_file: Path) -> None:
    with listening("listen=0", f"--token-file={token_file}") as server:
        with socket.create_connection((server.host, server.port)) as client:
            client.settimeout(20)
            client.sendall(bytes(1025))
            assert b"the token is wrong" in client.recv(1000)
        check_that_it_serves(server.connect(TOKEN))


def test_a_silent_client_is_refused_after_some_time(token_file: Path) -> None:
    with listening("listen=0", f"--token-file={token_file}") as server:
        with socket.create_connection((server.host, server.port)) as client:
            client.settimeout(30)
            assert b"no token was sent in time" in client.recv(1000)
            assert client.recv(1) == b""
        check_that_it_serves(server.connect(TOKEN))


@pytest.mark.parametrize("content", [b"", b"\n", b"a\nb\n", bytes(1025)])
def test_token_files_that_are_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    done = subprocess.run(
        [PROGRAM, "listen=0", f"--token-file={path}"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{path}: not a line of 1 to 1024 bytes" in done.stderr


def test_a_token_file_that_is_not_there() -> None:
    done = subprocess.run(
        [PROGRAM, "listen=0", "--token-file=/nothing"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "/nothing: No such file or directory" in done.stderr


@pytest.mark.parametrize("token", ["", "\n", "a\nb", "x" * 1025])
def test_tokens_that_are_none(token: str) -> None:
    with pytest.raises(ValueError, match="a token is a line of 1 to 1024 bytes"):
        RemoteExecutorProcessControl.connect("127.0.0.1", 1, token=token)


def test_a_child_that_wants_a_token_is_refused_it(token_file: Path) -> None:
    with pytest.raises(ExecutorExitedError, match="no token was sent"):
        RemoteExecutorProcessControl.launch([PROGRAM, f"--token-file={token_file}"])


# Time


@pytest.mark.parametrize("words", [[], ["--token-file"]])
def test_no_client_comes(token_file: Path, words: list[str]) -> None:
    with listening("listen=0", "--timeout=1", *(f"{w}={token_file}" for w in words)) as server:
        assert server.process.wait(20) == 1
        assert server.errors() == "jitlink-executor: no client came within 1 s\n"


def test_nothing_is_to_be_done() -> None:
    executor = RemoteExecutorProcessControl.launch([PROGRAM, "--timeout=1"])
    assert executor.process is not None
    assert executor.process.wait(20) == 1
    with pytest.raises(ExecutorExitedError, match="nothing was to be done for as long"):
        tasks.run(executor.lookup_symbols(["malloc"]))
    executor.close()


def test_nothing_is_to_be_done_for_a_remote_controller() -> None:
    with listening("listen=0", "--timeout=1") as server, server.connect() as executor:
        assert server.process.wait(20) == 1
        assert "nothing was to be done for as long as the timeout" in server.errors()
        with pytest.raises(ExecutorDisconnectedError, match="has closed the connection"):
            tasks.run(executor.lookup_symbols(["malloc"]))


def test_a_message_that_does_not_go_on() -> None:
    with (
        listening("listen=0", "--timeout=1") as server,
        socket.create_connection((server.host, server.port)) as client,
    ):
        client.sendall(encoded(3, payload=b"abc")[:-1])
        assert server.process.wait(20) == 1


def test_a_long_call_is_not_idle() -> None:
    source = "#include <unistd.h>\nint f(void) { usleep(1500000); return 7; }"
    with (
        RemoteExecutorProcessControl.launch([PROGRAM, "--timeout=1"]) as executor,
        LLJIT(executor=executor, platform=False) as jit,
    ):
        jit.add_object(compile_c(source, "gcc", ("-O1", "-fPIC")))
        address = int(jit.lookup("f"))
        assert jit.session.wait(executor.run_as_void_function(address)) == 7


# TLS


@pytest.fixture(name="context")
def _context(certificates: Certificates) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificates.authority))


def test_tls(certificates: Certificates, context: ssl.SSLContext) -> None:
    words = [f"--tls-cert={certificates.server}", "listen=0"]
    for name in (None, "executor.test"):
        with listening(*words, command=COMMAND) as server:
            check_that_it_serves(server.connect(context=context, name=name))
            assert server.process.wait(20) == 0
            assert server.errors() == ""


def test_much_passes_both_ways_through_tls(
    certificates: Certificates, context: ssl.SSLContext
) -> None:
    words = [f"--tls-cert={certificates.server}", "listen=0"]
    with (
        listening(*words, command=COMMAND) as server,
        server.connect(context=context) as executor,
        LLJIT(executor=executor, platform=False) as jit,
    ):
        jit.add_object(compile_c("char room[8 << 20];", "gcc", ("-fPIC",)))
        address, content = int(jit.lookup("room")), os.urandom(8 << 20)
        jit.session.wait(executor.write_memory(address, content))
        assert jit.session.wait(executor.read_memory(address, len(content))) == content


def test_tls_with_a_token(
    certificates: Certificates, context: ssl.SSLContext, token_file: Path
) -> None:
    words = [f"--tls-cert={certificates.server}", "listen=0", f"--token-file={token_file}"]
    with listening(*words, command=COMMAND) as server:
        silent = socket.create_connection((server.host, server.port))
        for wrong in (TOKEN[:-1], "wrong"):
            with pytest.raises(ExecutorDisconnectedError, match="hung up: the token is wrong"):
                server.connect(wrong, context)
        check_that_it_serves(server.connect(TOKEN, context))
        assert server.process.wait(20) == 0
        silent.close()


def test_tls_with_certificates_of_clients(
    certificates: Certificates, context: ssl.SSLContext
) -> None:
    words = [f"--tls-cert={certificates.server}", f"--tls-ca={certificates.authority}", "listen=0"]
    with listening(*words, command=COMMAND) as server:
        with pytest.raises(ExecutorDisconnectedError, match="certificate required"):
            server.connect(context=context)
        stranger = ssl.create_default_context(cafile=str(certificates.authority))
        stranger.load_cert_chain(certificates.stranger)
        with pytest.raises(ExecutorDisconnectedError, match=r"broke: .*unknown ca"):
            server.connect(context=stranger)
        context.load_cert_chain(certificates.client)
        check_that_it_serves(server.connect(context=context))
        assert server.process.wait(20) == 0


def test_a_client_without_tls_is_refused(
    certificates: Certificates, context: ssl.SSLContext
) -> None:
    with listening(f"--tls-cert={certificates.server}", "listen=0", command=COMMAND) as server:
        with socket.create_connection((server.host, server.port)) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            client.settimeout(20)
            with contextlib.suppress(ConnectionResetError):
                while client.recv(1000):
                    pass
        check_that_it_serves(server.connect(context=context))
        assert server.process.wait(20) == 0
        assert "a client was refused: " in server.errors()


def test_a_server_without_tls_is_refused(context: ssl.SSLContext, token_file: Path) -> None:
    with (
        listening("listen=0", f"--token-file={token_file}") as server,
        pytest.raises(ExecutorError, match=r"cannot connect to 127\.0\.0\.1:\d+: .*SSL"),
    ):
        server.connect(context=context)


def test_certificates_that_are_not_trusted(
    certificates: Certificates, context: ssl.SSLContext
) -> None:
    words = [f"--tls-cert={certificates.server}", "listen=0"]
    with listening(*words, command=COMMAND) as server:
        with pytest.raises(ExecutorError, match="certificate verify failed"):
            server.connect(context=ssl.create_default_context())
        with pytest.raises(ExecutorError, match=r"is not valid for 'other\.test'"):
            server.connect(context=context, name="other.test")
        check_that_it_serves(server.connect(context=context))


def test_the_status_of_an_executor_behind_tls(
    certificates: Certificates, context: ssl.SSLContext
) -> None:
    for body, status in (("exit(7);", 7), ("abort();", 134)):
        source = f"#include <stdlib.h>\nint f(void) {{ {body} }}"
        words = [f"--tls-cert={certificates.server}", "listen=0"]
        with (
            listening(*words, command=COMMAND) as server,
            server.connect(context=context) as executor,
            LLJIT(executor=executor) as jit,
        ):
            jit.add_object(compile_c(source, "gcc", ("-O1", "-fPIC")))
            address = int(jit.lookup("f"))
            with pytest.raises(ExecutorDisconnectedError):
                jit.session.wait(executor.run_as_void_function(address))
            assert server.process.wait(20) == status


def test_an_executor_behind_tls_does_not_outlive_the_command(
    certificates: Certificates, context: ssl.SSLContext
) -> None:
    words = [f"--tls-cert={certificates.server}", "listen=0"]
    with listening(*words, command=COMMAND) as server, server.connect(context=context) as executor:
        children = Path(f"/proc/{server.process.pid}/task")
        found = [path.read_text().split() for path in children.glob("*/children")]
        (child,) = [int(number) for each in found for number in each]
        server.process.kill()
        server.process.wait()
        with pytest.raises(ExecutorDisconnectedError):
            tasks.run(executor.lookup_symbols(["malloc"]))
        end = time.monotonic() + 20
        while _is_running(child) and time.monotonic() < end:
            time.sleep(0.01)
        assert not _is_running(child)


def _is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_no_client_comes_to_tls(certificates: Certificates) -> None:
    words = [f"--tls-cert={certificates.server}", "listen=0", "--timeout=1"]
    with listening(*words, command=COMMAND) as server:
        assert server.process.wait(20) == 1
        assert server.errors() == "jitlink-executor: no client came within 1 s\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tls-cert=CERT"], "TLS needs --tls-cert=FILE and listen=HOST:PORT"),
        (["listen=0", "--tls-key=CERT"], "TLS needs --tls-cert=FILE"),
        (["listen=0", "--tls-cert=CERT", "--tls-nonsense=x"], "TLS needs --tls-cert=FILE"),
        (["socket=x", "--tls-cert=CERT"], "TLS needs --tls-cert=FILE"),
        (["listen=0", "--tls-cert=/nothing"], "cannot use the certificate /nothing: "),
        (["listen=0", "--tls-cert=CERT", "--tls-ca=/nothing"], "cannot use the authority /nothing"),
        (["listen=0", "--tls-cert=CERT", "--token-file=/nothing"], "No such file or directory"),
        (["listen=nowhere", "--tls-cert=CERT"], "nowhere is not HOST:PORT, :PORT or PORT"),
        (["listen=192.0.2.1:0", "--tls-cert=CERT"], "cannot listen on 192.0.2.1:0: "),
    ],
)
def test_tls_that_cannot_be_had(certificates: Certificates, words: list[str], message: str) -> None:
    named = [word.replace("CERT", str(certificates.server)) for word in words]
    done = subprocess.run([*COMMAND, *named], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
