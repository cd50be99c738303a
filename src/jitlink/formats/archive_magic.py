"""The magic of static archives, without the reader."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from typing_extensions import Buffer

MAGIC: Final = b"!<arch>\n"
THIN_MAGIC: Final = b"!<thin>\n"
_MAGICS, _SIZE = (MAGIC, THIN_MAGIC), len(MAGIC)


def is_archive(data: Buffer) -> bool:
    """Whether the bytes begin with the magic of a static archive, thin or not.

    Args:
        data: a contiguous buffer; only its first eight bytes are read.
    """
    return bytes(memoryview(data).cast("B")[:_SIZE]) in _MAGICS
