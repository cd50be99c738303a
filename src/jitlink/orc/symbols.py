"""What symbols are to a session: flags, states, addresses, and the ways to look for them."""

from __future__ import annotations

from enum import Enum, IntEnum, IntFlag
from functools import cached_property
from typing import NamedTuple


class JITSymbolFlags(IntFlag):
    """Properties of a definition; the bits are those of LLVM's wire format."""

    NONE = 0
    HAS_ERROR = 1
    WEAK = 2
    """Another definition may take its place."""
    COMMON = 4
    """A tentative definition; weak too."""
    ABSOLUTE = 8
    EXPORTED = 16
    """Visible outside its JITDylib."""
    CALLABLE = 32
    SIDE_EFFECTS_ONLY = 64
    """Can be looked up for what materializing it does, but has no address."""

    # Operators of flags are slow, and there are few combinations that are asked about often.

    @cached_property
    def is_strong(self) -> bool:
        """Whether no other definition may take its place."""
        return not self & (JITSymbolFlags.WEAK | JITSymbolFlags.COMMON)

    @cached_property
    def is_exported(self) -> bool:
        """Whether it is visible outside its JITDylib."""
        return bool(self & JITSymbolFlags.EXPORTED)

    @cached_property
    def has_address(self) -> bool:
        """Whether it is there for more than side effects."""
        return not self & JITSymbolFlags.SIDE_EFFECTS_ONLY


class ExecutorSymbolDef(NamedTuple):
    """Where a symbol is in the executor, and what it is."""

    address: int
    flags: JITSymbolFlags


class SymbolState(IntEnum):
    """How far a symbol has come; states are passed through in this order.

    NEVER_SEARCHED: defined, nobody has asked. MATERIALIZING: its definition is being made.
    RESOLVED: it has an address, but nothing need be there. EMITTED: it is in memory, but what
    it needs may not be. READY: it and all that it reaches can be used.
    """

    NEVER_SEARCHED = 0
    MATERIALIZING = 1
    RESOLVED = 2
    EMITTED = 3
    READY = 4


class JITDylibLookupFlags(Enum):
    """Which symbols of a JITDylib a search sees."""

    MATCH_EXPORTED_ONLY = "exported only"
    MATCH_ALL_SYMBOLS = "all symbols"


class LookupKind(Enum):
    """What a search is for: linking, or a program's ``dlsym``."""

    STATIC = "static"
    DLSYM = "dlsym"
