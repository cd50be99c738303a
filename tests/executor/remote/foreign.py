"""jitlink's executor for this machine, and for others under an emulator."""

from pathlib import Path

from jitlink.executor import own_executor
from tests.toolchain import HOST_TARGET, report_missing, require


def executor_command(target: str) -> list[str]:
    """The command that runs the executor of a target, without the word for its connection.

    Args:
        target: the target, such as ``aarch64-linux-gnu``.
    """
    machine = target.partition("-")[0]
    own = own_executor(machine)
    assert own is not None
    if target == HOST_TARGET:
        return [own]
    root = Path("/usr", target)
    if not (root / "lib/libstdc++.so.6").exists():
        report_missing(f"a C++ library for {target}", "libstdc++6-arm64-cross")
    return [str(require(f"qemu-{machine}")), "-L", str(root), own]
