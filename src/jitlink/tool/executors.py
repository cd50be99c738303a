"""The executor of a command that runs its program in another process."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from jitlink.errors import ExecutorError, JITLinkError
from jitlink.executor import (
    ExecutorExitedError,
    ExecutorProcessControl,
    RemoteExecutorProcessControl,
)
from jitlink.executor.remote.memory_kinds import MemoryKind
from jitlink.executor.remote.opening import prologue_of
from jitlink.executor.remote.sandbox import sandbox_of
from jitlink.formats.archive_magic import is_archive
from jitlink.inputs import ArchiveInput, open_input
from jitlink.targets.registry import target_of_object
from jitlink.tool.options import CommandLine, CommandLineError, InputArgument

if TYPE_CHECKING:
    import ssl


def open_executor(line: CommandLine) -> ExecutorProcessControl:
    """Start the executor of a command, or connect to it; or make an emulated machine.

    Raises:
        CommandLineError: an option is for this process only, or for another kind of connection, or
            has words with unpaired quotes.
        ExecutorError: there is none to start, it cannot be started, does not listen, or refuses;
            a file with a token or certificates cannot be used.
    """
    for option, value in (("slab-allocate", line.slab_size), ("slab-address", line.slab_address)):
        if value is not None:
            raise CommandLineError("a slab is memory of this process", option=option)
    if line.emulate:
        return _emulated(line)
    kind: MemoryKind | None = None if line.memory_manager == "default" else line.memory_manager
    if line.executor_address is not None and line.sandbox:
        message = "an executor that listens was started in a sandbox, or without one"
        raise CommandLineError(message, option="oop-sandbox")
    if line.executor_address is not None and line.executor is not None:
        message = "an executor is started, or connected to, not both"
        raise CommandLineError(message, option="oop-executor")
    if line.executor_address is not None:
        return _connect(line, line.executor_address, kind)
    command = _words(line.executor) if line.executor else None
    target = _target_of(line.inputs) if command is None else None
    try:
        sandbox = sandbox_of(line.sandbox) if line.sandbox else None
        return RemoteExecutorProcessControl.launch(
            command, target=target, memory=kind or "shared", sandbox=sandbox
        )
    except ValueError as error:
        raise CommandLineError(str(error), option="oop-sandbox") from error


def _emulated(line: CommandLine) -> ExecutorProcessControl:
    if line.executor is not None or line.executor_address is not None or line.sandbox:
        message = "the program runs in an emulated machine, or in another process, not in both"
        raise CommandLineError(message, option="emulate")
    from jitlink.executor import Emulated  # noqa: PLC0415 - seldom needed

    triple = _target_of(line.inputs) or ""
    return Emulated(triple.partition("-")[0])


def _target_of(inputs: Sequence[InputArgument]) -> str | None:
    """The target triple of the first object; None without one that can be read, reported later."""
    for each in inputs:
        with suppress(JITLinkError):
            file = open_input(each.name)
            if is_archive(file.data):
                archive = ArchiveInput(file)
                (file, *_) = archive.open(archive.member_offsets()[:1]) or [file]
            return target_of_object(file.data, file.name).triple
    return None


def _connect(
    line: CommandLine, address: tuple[str, int] | str, kind: MemoryKind | None
) -> RemoteExecutorProcessControl:
    token = _token(line.executor_token_file)
    if isinstance(address, str):
        for option, file in (
            ("oop-tls-ca", line.executor_authority),
            ("oop-tls-cert", line.executor_certificate),
        ):
            if file is not None:
                raise CommandLineError("only TCP connections are encrypted", option=option)
        return RemoteExecutorProcessControl.connect_unix(
            address, memory=kind or "shared", token=token
        )
    host, port = address
    return RemoteExecutorProcessControl.connect(
        host, port, memory=kind or "generic", token=token, ssl_context=_ssl_context(line)
    )


def _token(path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib is slow to import
            token = file.read(1 << 16)
    except OSError as error:
        raise ExecutorError(f"cannot read the token in {path}: {error.strerror}") from error
    try:
        prologue_of(token)
    except ValueError as error:
        raise ExecutorError(f"cannot use the token in {path}: {error}") from error
    return token


def _ssl_context(line: CommandLine) -> ssl.SSLContext | None:
    """What connects by TLS; None without its options."""
    if line.executor_authority is None and line.executor_certificate is None:
        return None
    import ssl  # noqa: PLC0415 - seldom needed

    file = line.executor_authority
    try:
        context = ssl.create_default_context(cafile=file)
        if line.executor_certificate is not None:
            file = line.executor_certificate
            context.load_cert_chain(file)
    except OSError as error:
        raise ExecutorError(f"cannot use the certificates in {file}: {error.strerror}") from error
    return context


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
    """What a call returns, or the exit status if it ends the executor by ``exit``.

    LLVM differs: for llvm-jitlink that is an error.
    """
    try:
        return call()
    except ExecutorExitedError as error:
        return error.status
