"""How static archives begin, for those who only want to tell them from other files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from typing_extensions import Buffer

MAGIC: Final = b"!<arch>\n"
THIN_MAGIC: Final = b"!<thin>\n"


def is_archive(data: Buffer) -> bool:
    """Whether bytes begin as a static archive does, thin or not.

    Args:
        data: a contiguous buffer, of which the first eight bytes are looked at.
    """
    return bytes(memoryview(data).cast("B")[: len(MAGIC)]) in (MAGIC, THIN_MAGIC)
