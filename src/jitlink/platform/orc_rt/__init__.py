"""LLVM's ORC runtime, driven as LLVM's ELFNixPlatform drives it."""

from jitlink.platform.orc_rt.platform import (
    IncompleteRuntimeError,
    ORCRuntimePlatform,
    orc_runtime,
)

__all__ = ["IncompleteRuntimeError", "ORCRuntimePlatform", "orc_runtime"]
