"""Executors of other architectures are found, with what runs them; what is missing is named."""

import shutil
import sys
from pathlib import Path

import pytest

import jitlink
from jitlink.errors import ExecutorError
from jitlink.executor import RemoteExecutorProcessControl, executor_command, own_executor
from jitlink.executor.remote import emulation
from jitlink.executor.runtime_targets import runtime_target
from jitlink.host import MACHINE
from tests.executor.remote.executors import FOREIGN_MACHINES
from tests.executor.remote.foreign import executor_command as required_command
from tests.toolchain import HOST_TARGET, compile_c, require


@pytest.fixture(autouse=True)
def _no_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QEMU_LD_PREFIX", raising=False)


def test_this_machine_needs_no_emulator() -> None:
    for target in (HOST_TARGET, "x86_64-unknown-linux-gnu", "amd64-linux"):
        assert executor_command(target) == [own_executor()]


def test_the_executor_for_this_machine_is_found_on_others(monkeypatch: pytest.MonkeyPatch) -> None:
    require("qemu-x86_64")
    with monkeypatch.context() as context:
        context.setattr(emulation, "MACHINE", "aarch64")
        context.setenv("QEMU_LD_PREFIX", "/")
        command = executor_command("x86_64-linux-gnu")
    assert command[1:5] == [
        *("-E", "LD_LIBRARY_PATH=/lib/x86_64-linux-gnu:/usr/lib/x86_64-linux-gnu"),
        *("-L", "/"),
    ]
    compiled = compile_c("int scale(int x) { return 3 * x; }", "zig", ("-O1", "-fPIC"))
    with (
        RemoteExecutorProcessControl.launch(command, timeout=60) as executor,
        jitlink.load(compiled, executor=executor) as library,
    ):
        assert library.scale(14) == 42


def test_other_systems_run_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    for machine in (*FOREIGN_MACHINES, "x86_64"):
        with pytest.raises(ExecutorError, match=r"^darwin runs no executor for .*: connect to one"):
            executor_command(f"{machine}-linux-gnu")


@pytest.mark.parametrize(
    ("machine", "target"),
    [
        ("aarch64", "aarch64-linux-gnu"),
        ("aarch64", "arm64-unknown-linux-gnu"),
        ("riscv64", "riscv64-unknown-linux-gnu"),
        ("riscv64", "riscv64gc-unknown-linux-gnu"),
    ],
)
def test_an_executor_is_launched_for_a_target(
    machine: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    required_command(f"{machine}-linux-gnu")
    # Libraries for this machine.
    monkeypatch.setenv("LD_LIBRARY_PATH", "/usr/lib/x86_64-linux-gnu")
    source = "int scale(int x) { return 3 * x; }"
    compiled = compile_c(source, "zig", ("-O1", "-fPIC"), target=f"{machine}-linux-gnu")
    with (
        RemoteExecutorProcessControl.launch(target=target, timeout=60) as executor,
        jitlink.load(compiled, executor=executor) as library,
    ):
        assert executor.triple == f"{machine}-unknown-linux-gnu"
        assert library.scale(14) == 42


def test_a_root_as_debian_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries are in a directory of the architecture, and another one has a root, too."""
    target = "riscv64-linux-gnu"
    required_command(target)
    linker = "ld-linux-riscv64-lp64d.so.1"
    place = tmp_path / "usr/lib" / target
    place.mkdir(parents=True)
    (tmp_path / "lib").symlink_to("usr/lib")
    for name in ("libc.so.6", "libdl.so.2", "libpthread.so.0", linker):
        shutil.copy(Path("/usr", target, "lib", name), place)
    (tmp_path / "lib" / linker).symlink_to(place / linker)
    monkeypatch.setenv("QEMU_LD_PREFIX", str(tmp_path))
    command = executor_command(target)
    assert command[1:5] == [
        *("-E", f"LD_LIBRARY_PATH=/lib/{target}:/usr/lib/{target}"),
        *("-L", str(tmp_path)),
    ]
    with RemoteExecutorProcessControl.launch(command, timeout=60) as executor:
        assert executor.process is not None
        assert f"{place}/libc.so.6" in executor.process.mappings().decode()
    required_command("aarch64-linux-gnu")
    assert executor_command("aarch64-linux-gnu")[4] == "/usr/aarch64-linux-gnu"


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    row = runtime_target("riscv64-linux-gnu")
    assert row is not None
    required_command("riscv64-linux-gnu")
    with pytest.raises(ValueError, match="by a command, or for a target, not both"):
        RemoteExecutorProcessControl.launch("/bin/true", target="riscv64-linux-gnu")
    # An executor of this machine is none for other systems on its architecture.
    others = (f"{MACHINE}-apple-darwin", f"{MACHINE}-unknown-elf", MACHINE)
    for target in ("vax-linux-gnu", "riscv64-unknown-elf", "", *others):
        with pytest.raises(ExecutorError) as caught:
            RemoteExecutorProcessControl.launch(target=target)
        assert str(caught.value).startswith(f"there is no executor for {target}, only for x86_64-")
    monkeypatch.setattr(emulation, "runtime_target", lambda _: row._replace(name="riscv64-nothing"))
    monkeypatch.setenv("QEMU_LD_PREFIX", "/usr/aarch64-linux-gnu")
    library = (
        "a C library for it in /usr/aarch64-linux-gnu or /usr/riscv64-nothing "
        "(Debian's package libstdc++6-riscv64-cross)"
    )
    needed = "no executor for riscv64-linux-gnu runs here without "
    with pytest.raises(ExecutorError) as caught:
        executor_command("riscv64-linux-gnu")
    assert str(caught.value) == needed + library
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ExecutorError) as caught:
        executor_command("riscv64-linux-gnu")
    emulator = "qemu-riscv64 (Debian's package qemu-user)"
    assert str(caught.value) == f"{needed}{emulator} and {library}"
