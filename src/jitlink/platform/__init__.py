"""Platforms (layer 4): initialisers, exit handlers, exceptions and dlopen for JITDylibs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jitlink.lazy_imports import attach

if TYPE_CHECKING:
    from jitlink.platform.base import Platform as Platform
    from jitlink.platform.base import PlatformCreator as PlatformCreator
    from jitlink.platform.elf import ELFPlatform as ELFPlatform
    from jitlink.platform.orc_rt.platform import IncompleteRuntimeError as IncompleteRuntimeError
    from jitlink.platform.orc_rt.platform import ORCRuntimePlatform as ORCRuntimePlatform
    from jitlink.platform.orc_rt.platform import orc_runtime as orc_runtime
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        {
            "jitlink.platform.base": ("Platform", "PlatformCreator"),
            "jitlink.platform.elf": ("ELFPlatform",),
            "jitlink.platform.orc_rt.platform": (
                "IncompleteRuntimeError",
                "ORCRuntimePlatform",
                "orc_runtime",
            ),
        },
    )
