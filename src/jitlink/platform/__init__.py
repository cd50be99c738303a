"""What programs need at run time (layer 4): initialisers, exit handlers, exceptions, dlopen."""

from jitlink.platform.base import Platform, PlatformCreator
from jitlink.platform.elf import ELFPlatform

__all__ = ["ELFPlatform", "Platform", "PlatformCreator"]
