"""Commands that run their program in another process, beside llvm-jitlink with the same options."""

import shlex
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from jitlink.executor.remote.process import own_executor
from tests.executor.remote.executors import FOREIGN_MACHINES, PIPES, Setting
from tests.executor.remote.foreign import executor_command
from tests.executor.remote.listening import COMMAND, Certificates, listening
from tests.tool.command import Command, compile_to, spawn
from tests.tool.test_peer import llvm_jitlink
from tests.toolchain import compile_c, require, run

HELLO = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int count, char **words) {
  for (int n = 0; n < count; n++) printf("<%s>", words[n]);
  fflush(stdout);
  if (count > 1 && !strcmp(words[1], "exit")) exit(9);
  if (count > 1 && !strcmp(words[1], "crash")) abort();
  return count + 3;
}
"""
EXECUTOR = "llvm-jitlink-executor-22"


@pytest.fixture(autouse=True)
def _files(_here: None) -> None:
    compile_to(Path("hello.o"), HELLO, "gcc", "-fPIC", "-O1")


@pytest.mark.parametrize("setting", PIPES, ids=str)
def test_a_program_with_arguments(command: Command, setting: Setting) -> None:
    words = [f"-oop-executor={setting.program}", f"-use-memmgr={setting.memory}", "hello.o"]
    done = command(*words, "-args", "one", "two words")
    assert (done.status, done.out, done.err) == (5, "<one><two words>", "")


@pytest.mark.parametrize("memory", ["generic", "simple-remote", "shared", "default"])
def test_llvm_jitlink_does_the_same(command: Command, memory: str) -> None:
    words = [f"-oop-executor={require(EXECUTOR)}", f"-use-memmgr={memory}", "hello.o"]
    theirs = llvm_jitlink(*words, "-args", "one")
    ours = command(*words, "-args", "one")
    assert (ours.status, ours.out) == (theirs.status, theirs.out) == (4, "<one>")


@pytest.mark.parametrize("option", ["-oop-executor-connect", "-oop-connect"])
def test_an_executor_that_listens(command: Command, option: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = str(require(EXECUTOR))
    with subprocess.Popen([program, f"listen=localhost:{port}"], stdout=subprocess.PIPE) as server:
        end = time.monotonic() + 20
        done = command(f"{option}=127.0.0.1:{port}", "hello.o", "-args", "x")
        while "refused" in done.err and time.monotonic() < end:
            done = command(f"{option}=127.0.0.1:{port}", "hello.o", "-args", "x")
        assert (done.status, done.err) == (4, "")
        assert server.stdout is not None
        # The program writes where the executor does.
        assert server.stdout.read() == b"<x>"


@pytest.fixture(name="token_file")
def _token_file() -> Path:
    path = Path("token")
    path.write_text("a token\n")
    return path


def test_a_unix_socket_and_a_token(command: Command, token_file: Path) -> None:
    with listening("socket=./socket", f"--token-file={token_file}") as server:
        wrong = Path("wrong")
        wrong.write_text("another one")
        words = ["-oop-connect=./socket", "hello.o", "-args", "x"]
        done = command(f"-oop-token-file={wrong}", *words)
        assert (done.status, done.out) == (1, "")
        assert "the executor has hung up: the token is wrong" in done.err
        assert command(f"-oop-token-file={token_file}", *words) == (4, "", "")
        assert server.process.wait(20) == 0


def test_tls(command: Command, certificates: Certificates) -> None:
    words = [f"--tls-cert={certificates.server}", f"--tls-ca={certificates.authority}", "listen=0"]
    with listening(*words, command=COMMAND) as server:
        known = f"-oop-tls-ca={certificates.authority}"
        address = [f"-oop-connect=tcp:connect={server.host}:{server.port}", "hello.o"]
        done = command(f"-oop-tls-ca={certificates.stranger}", *address)
        assert "certificate verify failed" in done.err
        done = command(known, *address)
        assert "certificate required" in done.err
        done = command(known, f"-oop-tls-cert={certificates.client}", *address, "-args", "x")
        assert done == (4, "", "")
        assert server.process.wait(20) == 0


ENDS = r"""
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int count, char **words) {
  int number = count > 2 ? atoi(words[2]) : 0;
  printf("begin\n");
  fflush(stdout);
  if (count > 1 && !strcmp(words[1], "exit")) exit(number);
  if (count > 1 && !strcmp(words[1], "_exit")) _exit(number);
  if (count > 1 && !strcmp(words[1], "raise")) raise(number);
  return number;
}
"""
FAILURE = 1


@pytest.mark.parametrize("kind", ["jitlink", "llvm22"])
@pytest.mark.parametrize(
    ("arguments", "status", "theirs"),
    [
        ("", 0, None),
        ("return 7", 7, None),
        ("return 256", 0, None),
        ("return 300", 44, None),
        ("return -1", 255, None),
        # For llvm-jitlink an executor that is gone is an error.
        ("exit 0", 0, FAILURE),
        ("exit 9", 9, FAILURE),
        ("_exit 5", 5, FAILURE),
        (f"raise {signal.SIGABRT:d}", FAILURE, None),
        (f"raise {signal.SIGSEGV:d}", FAILURE, None),
        (f"raise {signal.SIGKILL:d}", FAILURE, None),
        (f"raise {signal.SIGTERM:d}", FAILURE, None),
    ],
)
def test_exit_statuses(arguments: str, status: int, theirs: int | None, kind: str) -> None:
    """They are llvm-jitlink's, but for programs that exit."""
    compile_to(Path("ends.o"), ENDS, "gcc", "-fPIC")
    program = Setting(kind, "pipes", "generic").program
    words = [f"-oop-executor={program}", "ends.o", "-args", "ends", *arguments.split()]
    ours, peer = spawn(*words), llvm_jitlink(*words)
    assert (ours.status, ours.out) == (status, "begin\n")
    assert (peer.status, peer.out) == (status if theirs is None else theirs, "begin\n")
    if arguments.startswith("raise"):
        name = signal.Signals(int(arguments.split()[1])).name
        assert f"the executor was ended by {name}" in ours.err


@pytest.mark.parametrize(
    "words",
    [
        ["-oop-executor=/nothing", "hello.o"],
        ["-oop-executor=/bin/true", "hello.o"],
        ["-oop-executor=/bin/false", "hello.o"],
        ["-oop-executor-connect=127.0.0.1:1", "hello.o"],
        ["-oop-executor-connect=nowhere", "hello.o"],
        ["-oop-executor-connect=127.0.0.1:1", "-oop-executor", "hello.o"],
        ["-oop-executor", "-use-memmgr=nonsense", "hello.o"],
        ["-oop-executor", "absent.o"],
        ["-oop-executor", "-entry=absent", "hello.o"],
    ],
)
def test_what_is_an_error_for_llvm_jitlink_is_one_here(command: Command, words: list[str]) -> None:
    ours, theirs = command(*words), llvm_jitlink(*words)
    assert ours.status == theirs.status == FAILURE
    assert ours.err.startswith("jitlink: error: ")
    assert theirs.err


def test_the_program_ends_the_executor(command: Command) -> None:
    option = f"-oop-executor={require(EXECUTOR)}"
    done = command(option, "hello.o", "-args", "a", "exit")
    assert (done.status, done.out, done.err) == (9, "<a><exit>", "")
    done = command(option, "hello.o", "-args", "a", "crash")
    assert (done.status, done.out) == (1, "<a><crash>")
    assert "the executor was ended by SIGABRT" in done.err


@pytest.mark.parametrize("memory", ["generic", "simple-remote", "shared", "default"])
def test_llvm_jitlink_drives_jitlinks_executor(memory: str) -> None:
    own = own_executor()
    words = [f"-oop-executor={own}", f"-use-memmgr={memory}", "hello.o", "-args", "one"]
    done = llvm_jitlink(*words)
    assert (done.status, done.out, done.err) == (4, "<one>", "")


def test_llvms_runtime_in_jitlinks_executor() -> None:
    runtime = require("liborc_rt-x86_64.a")
    words = [f"-oop-executor={own_executor()}", f"-orc-runtime={runtime}", "hello.o"]
    done = llvm_jitlink(*words, "-args", "one", "two")
    assert (done.status, done.out, done.err) == (5, "<one><two>", "")


def test_an_executor_is_found(command: Command) -> None:
    for option in ("-oop-executor", "-oop-launch"):
        assert command(option, "hello.o").status == 3


def test_a_command_that_runs_the_executor(command: Command) -> None:
    own = own_executor()
    assert own is not None
    Path("with blanks").symlink_to(own)
    for words in (f"env -i 'A=b c' {own}", "./with blanks", "./'with blanks'"):
        done = command(f"-oop-executor={words}", "hello.o", "-args", "one")
        assert (done.status, done.out, done.err) == (4, "<one>", "")


@pytest.mark.parametrize("machine", FOREIGN_MACHINES)
def test_a_program_for_another_processor(command: Command, machine: str) -> None:
    target = f"{machine}-linux-gnu"
    compiled = str(compile_c(HELLO, "gcc", ("-fPIC", "-O1"), target=target))
    run([require("ar"), "rcs", "archive.a", compiled])
    given = f"-oop-executor={shlex.join(executor_command(target))}"
    for words in ([given, compiled], ["-oop-executor", compiled], ["-oop-launch", "archive.a"]):
        done = command(*words, "-args", "one", "two words")
        assert (done.status, done.out, done.err) == (5, "<one><two words>", "")
    done = command(given, compiled, "-args", "a", "exit")
    assert (done.status, done.out) == (9, "<a><exit>")


def test_a_program_for_a_processor_that_no_executor_is_for(command: Command) -> None:
    compiled = compile_c("int main(void) { return 0; }", target="aarch64_be-linux-gnu")
    done = command("-oop-executor", "missing.o", str(compiled))
    assert done.status == 1
    assert "there is no executor for aarch64_be-unknown-linux-gnu, only for x86_64" in done.err
    done = command(f"-oop-executor={own_executor()}", str(compiled))
    assert "code for aarch64_be cannot run in the executor, which is x86_64; -noexec" in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-oop-executor=un'paired"], "un'paired: No closing quotation"),
        (["-oop-executor=/nothing"], "cannot start the executor /nothing"),
        (["-oop-executor-connect=nowhere"], "'nowhere' is not HOST:PORT"),
        (["-oop-sandbox=nothing"], "-oop-sandbox: 'nothing' is no setting of a sandbox"),
        (["-oop-sandbox=accept=all"], "-oop-sandbox: all is no feature of a sandbox"),
        (["-oop-sandbox", "-use-memmgr=generic"], "-oop-sandbox: memory of the kind generic"),
        (["-oop-sandbox", "-oop-executor-connect=127.0.0.1:1"], "-oop-sandbox: an executor that"),
        (["-oop-sandbox=read=/nothing"], "cannot enforce files: /nothing: No such file"),
        (["-oop-executor-connect=host:0"], "'host:0' is not HOST:PORT"),
        (["-oop-executor-connect=host:99999"], "is not HOST:PORT"),
        (["-oop-executor-connect=127.0.0.1:1"], "cannot connect to 127.0.0.1:1"),
        (["-oop-connect=/x", "-oop-launch"], "started, or connected to, not both"),
        (["-oop-connect=/nothing"], "cannot connect to /nothing: "),
        (["-oop-executor", "-slab-allocate=1Mb"], "a slab is memory of this process"),
        (["-oop-executor", "-oop-token-file=x"], "nothing is connected to"),
        (["-oop-token-file=x"], "-oop-token-file: nothing is connected to"),
        (["-oop-tls-ca=x"], "-oop-tls-ca: nothing is connected to"),
        (["-oop-tls-cert=x"], "-oop-tls-cert: nothing is connected to"),
        (["-oop-connect=/x", "-oop-tls-cert=x"], "only TCP connections are encrypted"),
        (
            ["-oop-connect=127.0.0.1:1", "-oop-token-file=/nothing"],
            "the token in /nothing: No such",
        ),
        (
            ["-oop-connect=127.0.0.1:1", "-oop-token-file=hello.o"],
            "cannot use the token in hello.o: a token is a line of 1 to 1024 bytes",
        ),
        (
            ["-oop-connect=127.0.0.1:1", "-oop-tls-ca=/nothing"],
            "the certificates in /nothing: No such file",
        ),
        (
            ["-oop-connect=127.0.0.1:1", "-oop-tls-cert=hello.o"],
            "the certificates in hello.o: [SSL] PEM lib",
        ),
    ],
)
def test_errors(command: Command, words: list[str], message: str) -> None:
    done = command(*words, "hello.o")
    assert done.status == 1
    assert message in done.err


def test_noexec_links_and_does_not_run(command: Command) -> None:
    done = command(f"-oop-executor={require(EXECUTOR)}", "-noexec", "hello.o")
    assert (done.status, done.out, done.err) == (0, "", "")


@pytest.mark.parametrize("setting", PIPES, ids=str)
def test_dlopen_of_several_jitdylibs(command: Command, setting: Setting) -> None:
    source = """
    #include <dlfcn.h>
    static int call(const char *name) {
      void *handle = dlopen(name, RTLD_NOW);
      return ((int (*)(void))dlsym(handle, "f"))() + dlclose(handle);
    }
    int main(void) { return 10 * call("a") + call("b"); }
    """
    compile_to(Path("main.o"), source, "gcc", "-fPIC")
    for name, value in (("a.o", 4), ("b.o", 2)):
        compile_to(Path(name), f"int f(void) {{ return {value}; }}", "gcc", "-fPIC")
    words = ["main.o", "-jd", "a", "a.o", "-jd", "b", "b.o"]
    option = [f"-oop-executor={setting.program}", f"-use-memmgr={setting.memory}"]
    assert command(*option, *words) == (42, "", "")
