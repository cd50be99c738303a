"""Shared memory that this process has in common with an executor."""

from __future__ import annotations

import contextlib
import mmap
import os
import weakref

from jitlink.errors import AllocationError

_DIRECTORY = "/dev/shm"
_NAME_PREFIX = "/jitlink_"
"""How names of shared memory begin in all executors: others belong to other programs."""
_MFD_EXEC = 0x10
_F_SEAL_FUTURE_WRITE = 0x10
"""Flags of memfd_create and fcntl that Python does not name yet."""


class SharedMemory:
    """A shared memory object, mapped readable and writable.

    Args:
        file: its descriptor, which is closed with it.
        size: its size in bytes.

    Attributes:
        file: the same.
        size: the same.

    Raises:
        OSError: it cannot be mapped.
        OverflowError: it is larger than an address space.
        ValueError: it is smaller than its size.
    """

    def __init__(self, file: int, size: int) -> None:
        self.file, self.size = file, size
        self._close_file = weakref.finalize(self, os.close, file)
        try:
            # Refused by mmap if the object has fewer bytes.
            self._map = mmap.mmap(file, size)
        except BaseException:
            self._close_file()
            raise

    def prepare(self, offset: int, size: int) -> memoryview:
        """A range of it, all zeros; its pages exist, so that writing to them cannot fail.

        Raises:
            AllocationError: there is not so much memory.
        """
        try:
            os.posix_fallocate(self.file, offset, max(size, 1))
        except OSError as error:
            message = f"cannot allocate {size:#x} bytes of shared memory: {error.strerror}"
            raise AllocationError(message, size=size) from error
        return self.view(offset, size)

    def view(self, offset: int, size: int) -> memoryview:
        """A range of it, whose pages exist."""
        return memoryview(self._map)[offset : offset + size]

    def withdraw(self, offset: int, size: int) -> None:
        """Have pages count no longer as memory of this process, until they are used again."""
        with contextlib.suppress(OSError):
            self._map.madvise(mmap.MADV_DONTNEED, offset, size)

    def discard(self, offset: int, size: int) -> None:
        """Free pages, which are zeros in both processes from now on."""
        try:
            self._map.madvise(mmap.MADV_REMOVE, offset, size)
        except OSError:
            # Not all file systems can do it, and memory that is sealed stays. Pages that were never
            # prepared must not be touched: there may be no memory for them.
            self._clear(offset, size)

    def _clear(self, offset: int, size: int) -> None:
        try:
            os.posix_fallocate(self.file, offset, size)
        except OSError:
            return
        self.view(offset, size)[:] = bytes(size)

    def close(self) -> None:
        """Unmap it, unless a view of it is still in use; it is unmapped with the last one then.

        A second call does nothing.
        """
        if not self._close_file.alive:
            return
        self._close_file()
        try:
            self._map.close()
        except BufferError:
            del self._map


def named_memory(name: str, size: int) -> SharedMemory:
    """The shared memory of a name, which is removed; errors as for `SharedMemory`."""
    if not name.startswith(_NAME_PREFIX) or "/" in name[1:] or "\0" in name:
        raise OSError(f"{name!r} is no name of an executor's shared memory")
    path = _DIRECTORY + name
    with contextlib.ExitStack() as undo:
        try:
            file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            undo.callback(os.close, file)
        finally:
            # Both processes have it; it is freed with the last of them, whatever happens.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108
        undo.pop_all()
    return SharedMemory(file, size)


def remove_files(pid: int) -> None:
    """Remove the files of shared memory of an executor that has ended.

    LLVM's executors leave those that they could not map, and each one that is ended before its
    controller knows the name.
    """
    with contextlib.suppress(OSError):
        for name in os.listdir(_DIRECTORY):  # noqa: PTH208 - slow to import
            if name.startswith(f"{_NAME_PREFIX[1:]}{pid}_"):
                os.unlink(f"{_DIRECTORY}/{name}")  # noqa: PTH108


def sealed_memory(size: int) -> SharedMemory | None:
    """New shared memory without a name, that only this process can write to.

    Other processes can map its descriptor, and neither write to it nor truncate it.

    Returns:
        None if the system cannot seal memory; Linux can since 5.1.

    Raises:
        OSError: it cannot be created; further errors as for `SharedMemory`.
    """
    import fcntl  # noqa: PLC0415 - seldom needed

    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        file = os.memfd_create("jitlink", flags | _MFD_EXEC)
    except OSError:
        # Linux before 6.3 does not know the flag.
        file = os.memfd_create("jitlink", flags)
    try:
        os.ftruncate(file, size)
    except BaseException:
        os.close(file)
        raise
    memory = SharedMemory(file, size)
    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL | _F_SEAL_FUTURE_WRITE
    try:
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)
    except OSError:
        memory.close()
        return None
    return memory
