"""What the libraries of a process have at an address.

The dynamic linker gives the symbol that begins there, and its size. Whether it can still change is
read from the protection of its memory: after relocation the dynamic linker makes what is constant
from then on read-only (PT_GNU_RELRO).

Specification: System V gABI, chapter 4, "Symbol Table"; LSB Core, "Program Header" (PT_GNU_RELRO).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from jitlink.executor.control import LibrarySymbol
from jitlink.memory.loaded_symbols import STT_FUNC, STT_GNU_IFUNC, STT_OBJECT, symbol_at
from jitlink.memory.mapping import MappedRange, mapped_ranges, mapping_at


def describe(addresses: Sequence[int]) -> list[LibrarySymbol | None]:
    """See `ExecutorProcessControl.describe_addresses`."""
    mapped = mapped_ranges()
    return [
        library_symbol(address, mapping_at(address, mapped), _find(address))
        for address in addresses
    ]


def _find(address: int) -> tuple[str, int, int] | None:
    """The symbol that begins at an address: its library, its type of ELF, and its size."""
    found = symbol_at(address)
    return None if found is None else (os.fsdecode(found.file), found.kind, found.size)


def library_symbol(
    address: int, place: MappedRange | None, found: tuple[str, int, int] | None
) -> LibrarySymbol | None:
    """What is at an address.

    Args:
        address: the address.
        place: the mapping that contains it.
        found: the symbol that begins there: its library, its type of ELF, and its size in bytes.
    """
    if place is None:
        return None
    is_code = "x" in place.permissions
    if found is None:
        return LibrarySymbol(place.path, is_function=True) if is_code else None
    library, kind, size = found
    if kind in {STT_FUNC, STT_GNU_IFUNC} or (is_code and kind != STT_OBJECT):
        return LibrarySymbol(library, is_function=True)
    is_constant = "w" not in place.permissions and address + size <= place.end
    return LibrarySymbol(library, is_function=False, size=size, is_constant=is_constant)
