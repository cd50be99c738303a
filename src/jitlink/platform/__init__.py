"""Platforms (layer 4): initialisers, exit handlers, exceptions and dlopen for JITDylibs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jitlink.lazy_imports import lazy_imports
from jitlink.platform.base import Platform, PlatformCreator
from jitlink.platform.elf import ELFPlatform

if TYPE_CHECKING:
    from jitlink.platform.orc_rt import IncompleteRuntimeError, ORCRuntimePlatform, orc_runtime

__all__ = [
    "ELFPlatform",
    "IncompleteRuntimeError",
    "ORCRuntimePlatform",
    "Platform",
    "PlatformCreator",
    "orc_runtime",
]

# Most sessions use ELFPlatform only.
_ORC_RT = ("IncompleteRuntimeError", "ORCRuntimePlatform", "orc_runtime")
__getattr__ = lazy_imports(__name__, dict.fromkeys(_ORC_RT, "jitlink.platform.orc_rt"))
