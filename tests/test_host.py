"""Hosts that are not supported: what works there, and what says why it does not."""

import subprocess
import sys
from pathlib import Path

import pytest

import jitlink
from jitlink import host
from tests.executor.remote.listening import listening
from tests.hosts import HOSTS
from tests.toolchain import HOST_TARGET, MACHINE, compile_c

ROOT = Path(__file__).parents[1]
SOURCE = "int twice(int x) { return 2 * x; }"

MISSING = {
    "windows": "Linux, and this system is win32",
    "darwin": "Linux, and this system is darwin",
    "musl": "the GNU C library, and this Python uses another one",
    "narrow": "a 64-bit Python, and this one has 32 bits",
    "pypy": "CPython, and this is pypy",
}

every_host = pytest.mark.parametrize("name", HOSTS)
every_host_that_links = pytest.mark.parametrize(
    "name", [each for each in HOSTS if each != "narrow"]
)


def on(name: str, program: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a program on a host, which has the modules `hosts` and `sys`."""
    prologue = f"import sys; from tests import hosts; hosts.become({name!r})\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", prologue + program, *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_this_host_is_supported() -> None:
    assert host.obstacle() is None
    assert host.triple() == HOST_TARGET.replace("-linux", "-unknown-linux")
    assert host.MACHINE == MACHINE
    host.check()


@every_host
def test_everything_can_be_imported(name: str) -> None:
    on(name, "hosts.import_everything()")


@every_host
def test_loading_says_what_is_missing(name: str) -> None:
    program = """
import jitlink
from jitlink.errors import ExecutorError
with open(sys.argv[1], "rb") as file:
    data = file.read()
for use in (lambda: jitlink.load(sys.argv[1]), lambda: jitlink.load(data), jitlink.LLJIT):
    try:
        use()
    except jitlink.UnsupportedHostError as error:
        assert isinstance(error, ExecutorError)
        print(error.missing, error, sep=";", end=";")
"""
    told = MISSING[name]
    message = (
        f"linked code cannot run in this process: that takes {told}; "
        "an executor elsewhere can run it"
    )
    if name == "narrow":
        message = f"this process cannot link: that takes {told}"
    assert on(name, program, compile_c(SOURCE)).stdout == f"{told};{message};" * 3


@every_host
def test_the_command_says_what_is_missing(name: str) -> None:
    program = """
from jitlink.tool.main import main
print(main(sys.argv[1:]))
"""
    done = on(name, program, compile_c("int main(void) { return 0; }"))
    assert done.stdout == "1\n"
    assert MISSING[name] in done.stderr
    assert "Traceback" not in done.stderr


def test_graphs_need_64_bits() -> None:
    program = """
import jitlink
try:
    jitlink.LinkGraph("g", "aarch64-unknown-linux-gnu")
except jitlink.UnsupportedHostError as error:
    print(error, error.can_link)
"""
    printed = on("narrow", program).stdout
    assert printed == f"this process cannot link: that takes {MISSING['narrow']} False\n"


@every_host_that_links
def test_code_for_memory_elsewhere(name: str) -> None:
    """Links code of another machine into an emulator, whose memory is buffers of bytes."""
    program = """
from tests.emulation import Emulator
with Emulator("aarch64", base=0x7000_0000) as emulator:
    print(emulator.link(sys.argv[1]).call("twice", 21))
"""
    compiled = compile_c(SOURCE, flags=("-O1", "-fPIC"), target="aarch64-linux-gnu")
    assert on(name, program, compiled).stdout == "42\n"


@every_host_that_links
def test_code_for_an_executor(name: str) -> None:
    program = """
import jitlink
from jitlink.executor import RemoteExecutorProcessControl
connected = RemoteExecutorProcessControl.connect("127.0.0.1", int(sys.argv[2]), timeout=60)
with connected as executor, jitlink.load(sys.argv[1], executor=executor) as library:
    print(library.twice(21))
"""
    with listening("listen=127.0.0.1:0") as server:
        assert on(name, program, compile_c(SOURCE), server.port).stdout == "42\n"


def test_the_error_is_public() -> None:
    assert issubclass(jitlink.UnsupportedHostError, jitlink.JITLinkError)
