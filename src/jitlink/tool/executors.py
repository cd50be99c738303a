"""The executor of a command that runs its program in another process."""

from __future__ import annotations

import os
from collections.abc import Callable

from jitlink.executor import ExecutorExitedError, RemoteExecutorProcessControl
from jitlink.executor.remote.control import MemoryKind
from jitlink.executor.remote.sandbox import sandbox_of
from jitlink.tool.options import CommandLine, CommandLineError


def open_executor(line: CommandLine) -> RemoteExecutorProcessControl:
    """Start the executor of a command, or connect to it.

    Raises:
        CommandLineError: an option is for this process only, or has words with unpaired quotes.
        ExecutorError: there is none to start, it cannot be started, or does not listen.
    """
    for option, value in (("slab-allocate", line.slab_size), ("slab-address", line.slab_address)):
        if value is not None:
            raise CommandLineError("a slab is memory of this process", option=option)
    kind: MemoryKind | None = None if line.memory_manager == "default" else line.memory_manager
    if line.executor_address is not None and line.sandbox:
        message = "an executor that listens was started in a sandbox, or without one"
        raise CommandLineError(message, option="oop-sandbox")
    if line.executor_address is not None:
        host, port = line.executor_address
        return RemoteExecutorProcessControl.connect(host, port, memory=kind or "generic")
    command = _words(line.executor) if line.executor else None
    try:
        sandbox = sandbox_of(line.sandbox) if line.sandbox else None
        memory = kind or "shared"
        return RemoteExecutorProcessControl.launch(command, memory=memory, sandbox=sandbox)
    except ValueError as error:
        raise CommandLineError(str(error), option="oop-sandbox") from error


def _words(executor: str) -> list[str]:
    """The words of an option's value: the path of an executor, or a command as in a shell."""
    if os.path.exists(executor):  # noqa: PTH110 - pathlib is slow to import
        return [executor]
    import shlex  # noqa: PLC0415 - few commands need it

    try:
        return shlex.split(executor) or [executor]
    except ValueError as error:
        raise CommandLineError(f"{executor}: {error}", option="oop-executor") from error


def status_of_exit(call: Callable[[], int]) -> int:
    """What a call returns, or the exit status if it ends the executor by ``exit``."""
    try:
        return call()
    except ExecutorExitedError as error:
        return error.status
