"""Memory that this process shares with executors."""

import errno
import fcntl
import gc
import os
from pathlib import Path

import pytest

from jitlink.executor import Sandbox
from jitlink.executor.remote.shared_memory import named_memory
from tests.executor.remote.resources import open_descriptors


@pytest.mark.serial("counts descriptors of this process")
def test_a_system_that_cannot_seal_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    gc.collect()
    before = open_descriptors()
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    assert Sandbox().code_memory(4096) is None
    assert open_descriptors() <= before


def test_memory_that_is_sealed() -> None:
    """Through its descriptor it can be neither written to nor made smaller."""
    memory = Sandbox().code_memory(4096)
    assert memory is not None
    memory.view(0, 4)[:] = b"code"
    with pytest.raises(PermissionError):
        os.pwrite(memory.file, b"evil", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(memory.file, 0)
    assert os.pread(memory.file, 4, 0) == b"code"
    memory.close()


@pytest.mark.serial("counts descriptors of this process")
def test_a_name_that_cannot_be_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An executor of another user may have made it; nothing is kept open."""
    name = f"/jitlink_{os.getpid()}_kept"
    path = f"/dev/shm{name}"
    Path(path).write_bytes(bytes(4096))
    unlink = os.unlink

    def refuse(_path: str) -> None:
        raise PermissionError(errno.EPERM, "it is another user's")

    gc.collect()
    before = open_descriptors()
    monkeypatch.setattr(os, "unlink", refuse)
    try:
        with pytest.raises(PermissionError, match="another user's"):
            named_memory(name, 4096)
    finally:
        unlink(path)
    assert open_descriptors() <= before
