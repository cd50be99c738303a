"""jitlink's executor for this machine, and for others under an emulator."""

from pathlib import Path

from jitlink import executor
from jitlink.executor.runtime_targets import runtime_target
from tests.toolchain import HOST_TARGET, report_missing, require


def executor_command(target: str) -> list[str]:
    """The command that runs the executor of a target, without the word for its connection.

    Args:
        target: the target, such as ``aarch64-linux-gnu``.
    """
    row = runtime_target(target)
    assert row is not None
    if target != HOST_TARGET:
        require(row.emulator)
        if not Path("/usr", target, "lib/libstdc++.so.6").exists():
            report_missing(f"a C++ library for {target}", row.package)
    return executor.executor_command(target)
