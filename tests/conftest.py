"""Fixtures that give the tests their compilers, peers and real archives; see tests/toolchain.py."""

import os
import signal
from pathlib import Path
from typing import cast

import hypothesis
import pytest

from tests.executor.remote.listening import Certificates, certificates_in
from tests.toolchain import (
    COMPILERS,
    DEBIAN_ARCHIVES,
    IS_EMULATED,
    MACHINE,
    CompilerName,
    require,
)

# Property tests: no deadline, because the machine may be busy; the same examples in every CI run.
hypothesis.settings.register_profile(
    "jitlink", deadline=None, derandomize="CI" in os.environ, print_blob=True
)
hypothesis.settings.load_profile("jitlink")

# A shell that starts the tests in the background has signals ignored, and so would all programs.
for _number, _usual in (
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what script/test found wrong before these tests, where it is seen: at the end."""
    if failed := os.environ.get("JITLINK_FAILED_CHECKS"):
        terminalreporter.section("failed before these tests", red=True)
        terminalreporter.write_line(failed, red=True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests of other machines, and in an emulator those of what it lacks."""
    for mark in item.iter_markers("machine"):
        if MACHINE not in mark.args:
            pytest.skip(f"runs code of {' or '.join(mark.args)}")
    if IS_EMULATED:
        for mark in item.iter_markers("native"):
            pytest.skip(f"in an emulator: {mark.args[0]}")


@pytest.fixture(params=COMPILERS)
def compiler(request: pytest.FixtureRequest) -> CompilerName:
    """Each compiler in turn, for `compile_c`."""
    name = cast("CompilerName", request.param)
    if name != "zig":
        require("gcc" if name == "gcc" else "clang-22")
    return name


@pytest.fixture(params=DEBIAN_ARCHIVES)
def debian_archive(request: pytest.FixtureRequest) -> Path:
    """Each of Debian's static archives in turn."""
    return require(request.param)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates for TLS."""
    return certificates_in(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def gcc() -> Path:
    """Debian's gcc."""
    return require("gcc")


@pytest.fixture
def clang() -> Path:
    """Debian's clang of LLVM 22."""
    return require("clang-22")


@pytest.fixture
def lld() -> Path:
    """LLVM 22's ELF linker."""
    return require("ld.lld-22")


@pytest.fixture
def llvm_jitlink() -> Path:
    """LLVM 22's llvm-jitlink."""
    return require("llvm-jitlink-22")


@pytest.fixture
def mold() -> Path:
    """The linker mold."""
    return require("mold")


@pytest.fixture
def gdb() -> Path:
    """The debugger."""
    return require("gdb")
