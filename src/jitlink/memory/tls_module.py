"""TLS modules and their values, as an architecture's ABI has them.

Specification: "ELF Handling For Thread-Local Storage" (Ulrich Drepper).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple

VALUES_SYMBOL = "jitlink_tls_values"
"""The symbol of a TLS module where the C library stores the values of its relocations."""
UNDEFINED_SYMBOL = "jitlink_undefined"
"""A weak symbol that is not defined, for relocations against other such symbols."""


class TLSValue(Enum):
    """What a dynamic relocation for TLS stores, in words of the size of a pointer.

    DTPMOD: the ID of the module that defines the symbol.
    DTPOFF: the symbol's offset in that module's TLS block, less `TLSABI.dtp_bias`.
    TPOFF: the symbol's offset from the thread pointer, which puts the module into static TLS.
    TLSDESC: a function that returns that offset, and the function's argument.
    """

    DTPMOD = 1
    DTPOFF = 2
    TPOFF = 3
    TLSDESC = 4

    @property
    def words(self) -> int:
        """Size of the value in words."""
        return 2 if self is TLSValue.TLSDESC else 1


class TLSRelocation(NamedTuple):
    """A dynamic relocation of a TLS module.

    Attributes:
        value: the value to store.
        symbol: a thread-local symbol of another module; empty for the TLS module itself.
        addend: offset from that symbol, or from the start of the TLS module's block.
    """

    value: TLSValue
    symbol: str = ""
    addend: int = 0


class TLSSymbol(NamedTuple):
    """A thread-local variable that a TLS module exports: its name, and its place in bytes."""

    name: str
    offset: int
    size: int


class TLSModuleSpec(NamedTuple):
    """The contents of a TLS module.

    Attributes:
        name: unique; also the symbol at the start of its TLS block.
        image: the initialisation image; the rest of the block is zero.
        size: size of the TLS block in bytes; 0 for a module without one.
        alignment: of the TLS block in bytes, a power of two.
        relocations: its dynamic relocations.
        needed: names of the TLS modules that define the relocations' symbols.
        is_weak: whether symbols may be undefined; their values are then unspecified.
        symbols: the variables of its TLS block that it exports.
    """

    name: str
    image: bytes | bytearray = b""
    size: int = 0
    alignment: int = 1
    relocations: Sequence[TLSRelocation] = ()
    needed: Sequence[str] = ()
    is_weak: bool = False
    symbols: Sequence[TLSSymbol] = ()

    @property
    def needs_static_tls(self) -> bool:
        """Whether a relocation requires static TLS."""
        return any(each.value is TLSValue.TPOFF for each in self.relocations)


class TLSABI(NamedTuple):
    """The thread-local storage of an architecture.

    Attributes:
        write_module: writes a TLS module in a format that the architecture's C library loads.
        tcb_size: size in bytes of the thread control block at the thread pointer, behind which the
            blocks in static TLS are (variant I); None if they are before it (variant II).
        dtp_bias: what `__tls_get_addr` adds to an offset in a TLS block.
    """

    write_module: Callable[[TLSModuleSpec], bytes]
    tcb_size: int | None = None
    dtp_bias: int = 0
