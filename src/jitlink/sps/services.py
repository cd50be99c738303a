"""The records that ORC's executor services exchange with a controller.

==================================  ==================================================
type                                LLVM's name
==================================  ==================================================
SEGMENT_FINALIZE_REQUEST            SPSSegFinalizeRequest
FINALIZE_REQUEST                    SPSFinalizeRequest
SHARED_SEGMENT_FINALIZE_REQUEST     SPSSharedMemorySegFinalizeRequest
SHARED_FINALIZE_REQUEST             SPSSharedMemoryFinalizeRequest
SYMBOL_DEF                          SPSExecutorSymbolDef
SYMBOL_ADDRESS                      SPSExecutorAddr, of a symbol
SYMBOL_LOOKUP_ELEMENT               SPSRemoteSymbolLookupSetElement
SETUP                               the payload of a setup message
==================================  ==================================================

Specification: llvm/ExecutionEngine/Orc/Shared/TargetProcessControlTypes.h.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntFlag
from typing import NamedTuple

from jitlink.sps.types import (
    BOOL,
    CHARS,
    EXECUTOR_ADDR,
    STRING,
    UINT8,
    UINT64,
    Map,
    Reader,
    Record,
    Sequence,
    SPSType,
    Tuple,
)
from jitlink.sps.wrapper import ALLOC_ACTION_CALL_PAIR, AllocActionCallPair


class RemoteAllocGroup(IntFlag):
    """Protection and lifetime of a segment."""

    READ = 1
    WRITE = 2
    EXEC = 4
    FINALIZE = 8


class SegmentFinalizeRequest(NamedTuple):
    """A segment to be initialised, with its content.

    Attributes:
        group: its `RemoteAllocGroup`.
        address: its address in the executor.
        size: its size in bytes.
        content: its first bytes; zeros follow.
    """

    group: int
    address: int
    size: int
    content: bytes | memoryview


class FinalizeRequest(NamedTuple):
    """Segments to be initialised, and actions to be run then."""

    segments: list[SegmentFinalizeRequest]
    actions: list[AllocActionCallPair]


class SharedSegmentFinalizeRequest(NamedTuple):
    """A segment whose content is in memory that the controller shares; see the other one."""

    group: int
    address: int
    size: int


class SharedFinalizeRequest(NamedTuple):
    """The same for shared memory."""

    segments: list[SharedSegmentFinalizeRequest]
    actions: list[AllocActionCallPair]


class SymbolDef(NamedTuple):
    """A symbol of the executor.

    Attributes:
        address: its address.
        flags: generic and target-specific flags, each a byte.
    """

    address: int
    flags: tuple[int, int]


class SymbolLookupElement(NamedTuple):
    """A name to look up, and whether it must be found."""

    name: str
    is_required: bool


class FoundSymbol(NamedTuple):
    """The symbol of a library that begins at an address.

    Attributes:
        library: path of the library, or of the program.
        kind: its type, of ELF: STT_FUNC and so on.
        size: in bytes.
    """

    library: str
    kind: int
    size: int


class Setup(NamedTuple):
    """What an executor says of itself when a connection begins.

    Attributes:
        triple: its target triple.
        page_size: in bytes.
        bootstrap_map: serialized values, by name.
        bootstrap_symbols: addresses, by name.
    """

    triple: str
    page_size: int
    bootstrap_map: Mapping[str, bytes]
    bootstrap_symbols: Mapping[str, int]


class _SymbolAddress(SPSType[SymbolDef]):
    min_size = EXECUTOR_ADDR.min_size

    def write(self, value: SymbolDef, out: bytearray) -> None:
        """Append the address."""
        EXECUTOR_ADDR.write(value.address, out)

    def read(self, reader: Reader) -> SymbolDef:
        """Read the address; there are no flags."""
        return SymbolDef(EXECUTOR_ADDR.read(reader), (0, 0))


_ACTIONS = Sequence(ALLOC_ACTION_CALL_PAIR)
SEGMENT_FINALIZE_REQUEST = Record(SegmentFinalizeRequest, UINT8, EXECUTOR_ADDR, UINT64, CHARS)
FINALIZE_REQUEST = Record(FinalizeRequest, Sequence(SEGMENT_FINALIZE_REQUEST), _ACTIONS)
SHARED_SEGMENT_FINALIZE_REQUEST = Record(SharedSegmentFinalizeRequest, UINT8, EXECUTOR_ADDR, UINT64)
SHARED_FINALIZE_REQUEST = Record(
    SharedFinalizeRequest, Sequence(SHARED_SEGMENT_FINALIZE_REQUEST), _ACTIONS
)
SYMBOL_DEF = Record(SymbolDef, EXECUTOR_ADDR, Tuple(UINT8, UINT8))
SYMBOL_ADDRESS = _SymbolAddress()
"""A symbol of which only the address crosses the wire."""
SYMBOL_LOOKUP_ELEMENT = Record(SymbolLookupElement, STRING, BOOL)
FOUND_SYMBOL = Record(FoundSymbol, STRING, UINT8, UINT64)
SETUP = Record(Setup, STRING, UINT64, Map(STRING, CHARS), Map(STRING, EXECUTOR_ADDR))
