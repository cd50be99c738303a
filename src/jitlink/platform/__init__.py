"""What programs need at run time (layer 4): initialisers, exit handlers, exceptions, dlopen."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from jitlink.platform.base import Platform, PlatformCreator
from jitlink.platform.elf import ELFPlatform

if TYPE_CHECKING:
    from jitlink.platform.orc_rt.platform import (
        IncompleteRuntimeError,
        ORCRuntimePlatform,
        orc_runtime,
    )

__all__ = [
    "ELFPlatform",
    "IncompleteRuntimeError",
    "ORCRuntimePlatform",
    "Platform",
    "PlatformCreator",
    "orc_runtime",
]

# Imported when they are first used: nearly all JITs have the other platform.
_OF_LLVM = ("IncompleteRuntimeError", "ORCRuntimePlatform", "orc_runtime")


def __getattr__(name: str) -> object:
    if name not in _OF_LLVM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module("jitlink.platform.orc_rt.platform"), name)
    globals()[name] = value
    return value
