"""The static TLS that a shared library needs, where loading it failed for the lack of that.

Specification: System V gABI, "Program Header"; "ELF Handling For Thread-Local Storage".
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from jitlink.errors import ObjectError, StaticTLSError
from jitlink.formats.elf_layout import PT_TLS, identify
from jitlink.formats.elf_tls_module import FORMATS
from jitlink.memory.tls import TLSRegistry
from jitlink.memory.tls_module import TLSABI
from jitlink.memory.tls_surplus import exhausted

_HEADERS_SIZE = 1 << 16
"""So many bytes at the start of a library have its program headers."""


class _Block(NamedTuple):
    """The TLS block of a library: size and alignment in bytes, and the TLS of its architecture."""

    size: int
    alignment: int
    abi: TLSABI


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
    size, alignment, abi = block
    why = "" if path == library else f", for loading {library}"
    return await exhausted(tls, size, alignment, abi, why=why, library=path)


def _tls_block(path: str) -> _Block | None:
    """The TLS block of a library for an architecture whose TLS modules are known."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib is slow to import
            content = file.read(_HEADERS_SIZE)
        identity = identify(memoryview(content), path)
        form, layout = FORMATS.get(identity[:3]), identity.layout
        (header,) = np.frombuffer(content, layout.header, 1)
        if form is None or header["phentsize"] != layout.program_header.itemsize:
            return None
        start, count = int(header["phoff"]), int(header["phnum"])
        rows = np.frombuffer(content, layout.program_header, count, start)
    except (OSError, OverflowError, ValueError, ObjectError):
        return None
    write = partial(form.write, flags=identity.flags)
    for row in rows[rows["type"] == PT_TLS]:
        return _Block(int(row["memsz"]), max(int(row["align"]), 1), TLSABI(write))
    return None
