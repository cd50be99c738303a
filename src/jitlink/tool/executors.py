"""The executor of a command that runs its program in another process."""

from __future__ import annotations

from collections.abc import Callable

from jitlink.executor import ExecutorExitedError, RemoteExecutorProcessControl
from jitlink.executor.remote.control import MemoryKind
from jitlink.tool.options import CommandLine, CommandLineError


def open_executor(line: CommandLine) -> RemoteExecutorProcessControl:
    """Start the executor of a command, or connect to it.

    Raises:
        CommandLineError: an option is for this process only.
        ExecutorError: there is none to start, it cannot be started, or does not listen.
    """
    for option, value in (("slab-allocate", line.slab_size), ("slab-address", line.slab_address)):
        if value is not None:
            raise CommandLineError("a slab is memory of this process", option=option)
    kind: MemoryKind | None = None if line.memory_manager == "default" else line.memory_manager
    if line.executor_address is not None:
        host, port = line.executor_address
        return RemoteExecutorProcessControl.connect(host, port, memory=kind or "generic")
    path = line.executor or None
    return RemoteExecutorProcessControl.launch(path, memory=kind or "shared")


def status_of_exit(call: Callable[[], int]) -> int:
    """What a call returns, or the exit status if it ends the executor by ``exit``."""
    try:
        return call()
    except ExecutorExitedError as error:
        return error.status
