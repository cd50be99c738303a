"""Compressed ELF sections: zlib, and zstd where Python has a decoder.

Python 3.14 has one (`compression.zstd`); before that, the optional package ``zstandard`` provides
it.

Before there was SHF_COMPRESSED, GNU tools compressed debug sections and renamed them to
``.zdebug_*``: the letters ``ZLIB``, the size in eight bytes, big-endian, and the stream.

Specification: gABI chapter 4, "Section compression"; the older form is that of binutils 2.25.
"""

from __future__ import annotations

import importlib
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import BinaryIO, Literal

from jitlink.errors import ObjectError, UnsupportedObjectError

ELFCOMPRESS_ZLIB, ELFCOMPRESS_ZSTD = 1, 2
_MAX_EXPANSION = 1 << 15
"""No encoder compresses debug data by such a factor; a larger size is a decompression bomb."""
_MAX_ALIGNMENT = 1 << 47
_PIECE = 1 << 20


def decompress_section(
    data: memoryview, *, wide: bool, byte_order: Literal["little", "big"], file: str, offset: int
) -> tuple[bytes, int]:
    """Decompress one section.

    Args:
        data: the section as stored, with its compression header.
        wide: whether the object is 64-bit.
        byte_order: byte order of the object.
        file: display name of the object, for errors.
        offset: position of the section in the file, in bytes.

    Returns:
        The content and its alignment in bytes.

    Raises:
        ObjectError: the data is corrupt.
        UnsupportedObjectError: the method is unknown, or zstd is not available.
    """
    header = struct.Struct(("<" if byte_order == "little" else ">") + ("IIQQ" if wide else "III"))
    if len(data) < header.size:
        raise ObjectError("compressed section is too small", file=file, offset=offset)
    fields = header.unpack_from(data)
    method, size, alignment = fields[0], fields[-2], max(fields[-1], 1)
    payload = data[header.size :]
    odd = alignment > _MAX_ALIGNMENT or alignment & (alignment - 1)
    if odd or size > max(len(payload), 1) * _MAX_EXPANSION:
        raise ObjectError("compression header is corrupt", file=file, offset=offset)
    if method == ELFCOMPRESS_ZLIB:
        content = _inflate(payload, size)
    elif method == ELFCOMPRESS_ZSTD:
        content = _unzstd(payload, size, file, offset)
    else:
        raise UnsupportedObjectError(f"compression method {method}", file=file, offset=offset)
    if content is None or len(content) != size:
        raise ObjectError("compressed section is corrupt", file=file, offset=offset)
    return content, alignment


def decompress_gnu_section(data: memoryview, *, file: str, offset: int) -> bytes:
    """Decompress one section ``.zdebug_*``.

    Args:
        data: the section as stored.
        file: display name of the object, for errors.
        offset: position of the section in the file, in bytes.

    Raises:
        ObjectError: the data is corrupt.
    """
    size, payload = int.from_bytes(data[4:12], "big"), data[12:]
    fits = bytes(data[:4]) == b"ZLIB" and size <= max(len(payload), 1) * _MAX_EXPANSION
    content = _inflate(payload, size) if fits else None
    if content is None or len(content) != size:
        raise ObjectError("compressed section is corrupt", file=file, offset=offset)
    return content


def _inflate(payload: memoryview, size: int) -> bytes | None:
    decoder = zlib.decompressobj()
    try:
        # With a limit of one byte more, a stream that is too long is detected.
        content = decoder.decompress(payload, size + 1)
    except zlib.error:
        return None
    # The checksum is compared at the end of the stream only.
    return content if decoder.eof else None


def _unzstd(payload: memoryview, size: int, file: str, offset: int) -> bytes | None:
    found = _zstd_decoder()
    if found is None:
        message = "zstd-compressed section needs Python 3.14 or the package zstandard"
        raise UnsupportedObjectError(message, file=file, offset=offset)
    decode, error = found
    try:
        return decode(bytes(payload), size)
    except error:
        return None


@cache
def _zstd_decoder() -> tuple[Callable[[bytes, int], bytes], type[Exception]] | None:
    try:
        standard = importlib.import_module("compression.zstd")
    except ImportError:
        try:
            package = importlib.import_module("zstandard")
        except ImportError:
            return None
        return (
            lambda data, size: _read(package.ZstdDecompressor().stream_reader(data), size + 1),
            package.ZstdError,
        )
    return (
        lambda data, size: standard.ZstdDecompressor().decompress(data, size + 1),
        standard.ZstdError,
    )


def _read(reader: BinaryIO, size: int) -> bytes:
    """The first `size` bytes of a stream, or all if it has fewer.

    They are read in pieces, because a reader allocates the requested size before it decodes.
    """
    pieces = []
    while size > 0 and (piece := reader.read(min(size, _PIECE))):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
