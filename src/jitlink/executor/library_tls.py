"""The static TLS that a shared library needs, where loading it failed for the lack of that.

Specification: System V gABI, "Program Header"; "ELF Handling For Thread-Local Storage".
"""

from __future__ import annotations

import struct

from jitlink.errors import StaticTLSError
from jitlink.formats.elf_layout import PT_TLS
from jitlink.formats.elf_tls_module import X86_64
from jitlink.memory.tls import TLSRegistry
from jitlink.memory.tls_module import TLSABI
from jitlink.memory.tls_surplus import exhausted

_MAGIC = b"\x7fELF\2\1"
_HEADER = struct.Struct("<18xH12xQ14xHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")


async def lack_of_static_tls(library: str, reason: str, tls: TLSRegistry) -> StaticTLSError | None:
    """The error for a library, or for one that it needs.

    Args:
        library: the library that could not be loaded.
        reason: the dynamic linker's message, which begins with the path of the one that lacks room.
        tls: measures the room.

    Returns:
        None if the path leads to no library with a TLS block.
    """
    path, _, _ = reason.partition(": ")
    block = _tls_block(path)
    if block is None:
        return None
    size, alignment = block
    why = "" if path == library else f", for loading {library}"
    return await exhausted(tls, size, alignment, TLSABI(X86_64.write), why=why, library=path)


def _tls_block(path: str) -> tuple[int, int] | None:
    """Size and alignment, in bytes, of the TLS block of a library for x86-64."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib is slow to import
            header = file.read(1 << 16)
        machine, start, entry_size, count = _HEADER.unpack_from(header)
        if not header.startswith(_MAGIC) or machine != X86_64.identity.machine:
            return None
        for number in range(count):
            kind, _, _, _, _, _, size, alignment = _SEGMENT.unpack_from(
                header, start + number * entry_size
            )
            if kind == PT_TLS:
                return size, max(alignment, 1)
    except (OSError, OverflowError, struct.error):
        pass
    return None
