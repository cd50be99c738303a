"""Executors: the processes in which linked code is placed and run (layer 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jitlink.lazy_imports import attach

if TYPE_CHECKING:
    from jitlink.executor.control import ExecutorProcessControl as ExecutorProcessControl
    from jitlink.executor.control import PlacedArguments as PlacedArguments
    from jitlink.executor.self_process import (
        SelfExecutorProcessControl as SelfExecutorProcessControl,
    )
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        {
            "jitlink.executor.control": ("ExecutorProcessControl", "PlacedArguments"),
            "jitlink.executor.self_process": ("SelfExecutorProcessControl",),
        },
    )
