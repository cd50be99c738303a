"""The ways in which memory of an executor that is another process is managed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Literal

from jitlink import tasks
from jitlink.executor.remote.services import Services
from jitlink.memory import JITLinkMemoryManager

if TYPE_CHECKING:
    from jitlink.executor.remote.shared_memory import SharedMemory
    from jitlink.memory.mapper import MemoryMapper

MemoryKind = Literal["shared", "simple-remote", "generic"]


def create_memory_manager(
    kind: MemoryKind,
    services: Services,
    page_size: int,
    *,
    given: SharedMemory | None,
    pid: int | None,
) -> JITLinkMemoryManager:
    """The manager of an executor's memory.

    Args:
        kind: how it is managed.
        services: the executor's services.
        page_size: its page size in bytes.
        given: the only memory there is for code, if the executor was started with it.
        pid: its process, if it is a child.

    Raises:
        ValueError: there is no such kind.
        ExecutorError: it is not for the executor.
    """
    # Imported on use: each executor needs one of them.
    if kind == "generic":
        from jitlink.executor.remote.generic_memory import (  # noqa: PLC0415
            GenericJITLinkMemoryManager,
        )

        return GenericJITLinkMemoryManager(services, page_size)
    from jitlink.executor.remote import mappers  # noqa: PLC0415
    from jitlink.memory.mapper import MapperJITLinkMemoryManager  # noqa: PLC0415

    kinds: dict[str, Callable[[Services, int], MemoryMapper]] = {
        "shared": partial(mappers.SharedMemoryMapper, given=given, pid=pid),
        "simple-remote": mappers.SimpleRemoteMemoryMapper,
    }
    if kind not in kinds:
        raise ValueError(f"{kind!r} is no kind of memory; these are: generic, {', '.join(kinds)}")
    manager = MapperJITLinkMemoryManager(kinds[kind](services, page_size))
    if given is not None:
        # It is all there is.
        tasks.run(manager.reserve())
    return manager
