"""The sandbox of jitlink's executor: what linked code there cannot do."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from jitlink.errors import ExecutorError
from jitlink.executor.remote.services import Services
from jitlink.executor.remote.shared_memory import SharedMemory, sealed_memory

FEATURES = (
    "privileges", "cpu-time", "file-size", "processes", "files", "code", "memory", "network",
    "system-calls",
)  # fmt: skip
"""What a sandbox enforces: the names of `Sandbox.accept`, and of an executor's report."""

# Settings of the program's options, and the attributes of a Sandbox.
_FLAGS = ("network", "kill")
_NUMBERS = {
    "memory": "memory",
    "cpu-time": "cpu_time",
    "processes": "processes",
    "file-size": "file_size",
}
_MOST_DIGITS = 18
_LISTS = {"read": "read", "write": "write", "library": "libraries", "accept": "accept"}


@dataclass(frozen=True)
class Sandbox:
    """What linked code may do in an executor; by default it can compute.

    Args:
        memory: bytes of address space that the code may use beside the memory that it was linked
            into: heap, mapped files, and the stacks of threads, usually 8 MiB each.
        cpu_time: seconds of processor time of the process, after which SIGXCPU ends it.
        processes: how many processes and threads of its user there may be when it forks or starts
            a thread; by default it cannot fork, and threads are limited by `memory` only.
        file_size: bytes of the largest file that can be written; SIGXFSZ ends what writes more.
        read: directories, and files, that can be read.
        write: directories, and files, that can be read and written.
        libraries: shared libraries to load before the sandbox is closed; and directories, which can
            be read, and whose libraries can be loaded at any time. Such a directory rules out
            `write`, and that standard output is a file.
        network: whether it can use sockets, of the families AF_INET and AF_INET6.
        kill: whether a forbidden system call ends the executor by SIGSYS; otherwise it fails
            with EPERM.
        accept: features, of `FEATURES`, that need not be enforced where the system cannot.

    Raises:
        TypeError: a path is given in place of a sequence of paths.
        ValueError: a number is negative, a path empty, or no feature has such a name.
    """

    memory: int | None = None
    cpu_time: int | None = None
    processes: int | None = None
    file_size: int | None = None
    read: Sequence[str | os.PathLike[str]] = ()
    write: Sequence[str | os.PathLike[str]] = ()
    libraries: Sequence[str | os.PathLike[str]] = ()
    network: bool = False
    kill: bool = False
    accept: Collection[str] = ()

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and value < 0:
                raise ValueError(f"{field.name} of a sandbox is {value}, which is negative")
            if isinstance(value, str | os.PathLike):
                raise TypeError(f"{field.name} of a sandbox is a sequence, not {value!r}")
        for path in (*self.read, *self.write, *self.libraries):
            if not os.fspath(path) or "\0" in os.fspath(path):
                raise ValueError(f"{os.fspath(path)!r} is no path for a sandbox")
        unknown = sorted(set(self.accept) - set(FEATURES))
        if unknown:
            message = f"{', '.join(unknown)} is no feature of a sandbox"
            raise ValueError(f"{message}; these are: {', '.join(FEATURES)}")

    def options(self) -> list[str]:
        """The options of the executor's program."""
        flags = [key for key in _FLAGS if getattr(self, key)]
        numbers = {key: getattr(self, field) for key, field in _NUMBERS.items()}
        values = [f"{key}={value}" for key, value in numbers.items() if value is not None]
        for key, field in _LISTS.items():
            values += [f"{key}={os.fspath(value)}" for value in getattr(self, field)]
        return ["--sandbox", *(f"--sandbox-{setting}" for setting in (*flags, *values))]

    def code_memory(self, size: int) -> SharedMemory | None:
        """Memory that is writable in this process only; None if the system has no such memory.

        Raises:
            ExecutorError: there is not so much.
        """
        try:
            return sealed_memory(size)
        except (OSError, OverflowError, ValueError) as error:
            raise ExecutorError(f"cannot create memory for a sandbox: {error}") from error


def sandbox_of(settings: Sequence[str]) -> Sandbox:
    """The sandbox of settings such as ``cpu-time=10`` and ``network``, as the program has them.

    Raises:
        ValueError: there is no such setting, or it has another value.
    """
    found: dict[str, Any] = {}
    for setting in filter(None, settings):
        key, equals, value = setting.partition("=")
        if key in _FLAGS and not equals:
            found[key] = True
        elif key in _NUMBERS and value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS:
            found[_NUMBERS[key]] = int(value)
        elif key in _LISTS and value:
            found.setdefault(_LISTS[key], []).append(value)
        else:
            keys = [*_FLAGS, *(f"{each}=NUMBER" for each in _NUMBERS)]
            keys += [f"{each}={'FEATURE' if each == 'accept' else 'PATH'}" for each in _LISTS]
            raise ValueError(
                f"{setting!r} is no setting of a sandbox; these are: {', '.join(keys)}"
            )
    return Sandbox(**found)


def create_library_directory() -> str:
    """A new directory, for libraries that this process makes for an executor.

    Raises:
        ExecutorError: it cannot be created.
    """
    import tempfile  # noqa: PLC0415 - seldom needed

    try:
        directory = tempfile.mkdtemp(prefix="jitlink-")
        # The executor may be another user's, and opens files by their names.
        os.chmod(directory, 0o711)  # noqa: PTH101
    except OSError as error:
        raise ExecutorError(f"cannot create a directory for a sandbox: {error}") from error
    return directory


def remove_library_directory(directory: str) -> None:
    """Remove it; libraries in it have been removed."""
    with contextlib.suppress(OSError):
        os.rmdir(directory)  # noqa: PTH106


async def read_report(services: Services) -> Mapping[str, str | None]:
    """The features of an executor's sandbox, and why they are unavailable.

    Returns:
        A reason for each feature, or None if it is enforced; nothing without a sandbox.
    """
    service = services.dialect.sandbox_report
    if service is None or not services.has(service):
        return {}
    return {name: problem or None for name, problem in await services.call(service)}
