"""Executors: the processes in which linked code is placed and run (layer 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jitlink.lazy_imports import attach

if TYPE_CHECKING:
    from jitlink.executor.code_map import CodeLocation as CodeLocation
    from jitlink.executor.control import ExecutorProcessControl as ExecutorProcessControl
    from jitlink.executor.control import LibrarySymbol as LibrarySymbol
    from jitlink.executor.control import PlacedArguments as PlacedArguments
    from jitlink.executor.emulated.control import Emulated as Emulated
    from jitlink.executor.emulated.debugging import Coverage as Coverage
    from jitlink.executor.emulated.debugging import MemoryAccess as MemoryAccess
    from jitlink.executor.emulated.debugging import Snapshot as Snapshot
    from jitlink.executor.emulated.errors import EmulatedCrashError as EmulatedCrashError
    from jitlink.executor.emulated.errors import EmulatedExitError as EmulatedExitError
    from jitlink.executor.emulated.errors import EmulatedTimeoutError as EmulatedTimeoutError
    from jitlink.executor.emulated.memory_map import Device as Device
    from jitlink.executor.remote.control import (
        RemoteExecutorProcessControl as RemoteExecutorProcessControl,
    )
    from jitlink.executor.remote.emulation import executor_command as executor_command
    from jitlink.executor.remote.errors import ExecutorCrashedError as ExecutorCrashedError
    from jitlink.executor.remote.errors import (
        ExecutorDisconnectedError as ExecutorDisconnectedError,
    )
    from jitlink.executor.remote.errors import ExecutorExitedError as ExecutorExitedError
    from jitlink.executor.remote.errors import ExecutorInterruptedError as ExecutorInterruptedError
    from jitlink.executor.remote.errors import ExecutorRestartedError as ExecutorRestartedError
    from jitlink.executor.remote.errors import ExecutorTimeoutError as ExecutorTimeoutError
    from jitlink.executor.remote.errors import ProtocolError as ProtocolError
    from jitlink.executor.remote.process import own_executor as own_executor
    from jitlink.executor.remote.sandbox import Sandbox as Sandbox
    from jitlink.executor.self_process import (
        SelfExecutorProcessControl as SelfExecutorProcessControl,
    )
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        {
            "jitlink.executor.code_map": ("CodeLocation",),
            "jitlink.executor.control": (
                "ExecutorProcessControl",
                "LibrarySymbol",
                "PlacedArguments",
            ),
            "jitlink.executor.emulated.control": ("Emulated",),
            "jitlink.executor.emulated.debugging": ("Coverage", "MemoryAccess", "Snapshot"),
            "jitlink.executor.emulated.errors": (
                "EmulatedCrashError",
                "EmulatedExitError",
                "EmulatedTimeoutError",
            ),
            "jitlink.executor.emulated.memory_map": ("Device",),
            "jitlink.executor.remote.control": ("RemoteExecutorProcessControl",),
            "jitlink.executor.remote.emulation": ("executor_command",),
            "jitlink.executor.remote.errors": (
                "ExecutorCrashedError",
                "ExecutorDisconnectedError",
                "ExecutorExitedError",
                "ExecutorInterruptedError",
                "ExecutorRestartedError",
                "ExecutorTimeoutError",
                "ProtocolError",
            ),
            "jitlink.executor.remote.process": ("own_executor",),
            "jitlink.executor.remote.sandbox": ("Sandbox",),
            "jitlink.executor.self_process": ("SelfExecutorProcessControl",),
        },
    )
