"""Writers of static archives in every dialect, and readers of whole archives, for tests."""

import struct
from collections.abc import Callable, Sequence
from typing import Literal

from jitlink.formats.archive import Archive, Member

MAGIC = b"!<arch>\n"
THIN_MAGIC = b"!<thin>\n"

ByteOrder = Literal["little", "big"]
Symbols = Sequence[tuple[bytes, int]]


def content(found: Member) -> bytes:
    assert found.data is not None
    return bytes(found.data)


def contents(archive: Archive) -> dict[str, bytes]:
    return {found.name: content(found) for found in archive.members()}


def defined_in(archive: Archive) -> dict[str, str]:
    """The index, with names of members; `member_at` must return the same as the iteration."""
    assert archive.index is not None
    members = {found.header_offset: found for found in archive.members()}
    for offset in archive.index.values():
        assert archive.member_at(offset) == members[offset]
    return {symbol: members[offset].name for symbol, offset in archive.index.items()}


def header(name: bytes, size: int | bytes) -> bytes:
    digits = size if isinstance(size, bytes) else b"%d" % size
    encoded = b"%-16s%-12d%-6d%-6d%-8o%-10s`\n" % (name, 1, 2, 3, 0o644, digits)
    assert len(encoded) == 60
    return encoded


def member(name: bytes, data: bytes, padding: bytes = b"\n") -> bytes:
    return header(name, len(data)) + data + padding * (len(data) % 2)


def bsd_member(name: bytes, data: bytes, fill: int = 0) -> bytes:
    name += b"\0" * fill
    return member(b"#1/%d" % len(name), name + data)


def sysv_index(symbols: Symbols, width: int = 4) -> bytes:
    numbers = [len(symbols), *(offset for _, offset in symbols)]
    names = b"".join(name + b"\0" for name, _ in symbols)
    return b"".join(number.to_bytes(width, "big") for number in numbers) + names


def ranlib_index(symbols: Symbols, width: int = 4, order: ByteOrder = "little") -> bytes:
    pairs, names = b"", b""
    for name, offset in symbols:
        pairs += len(names).to_bytes(width, order) + offset.to_bytes(width, order)
        names += name + b"\0"
    names += b"\0" * (-len(names) % width)
    sizes = (len(part).to_bytes(width, order) for part in (pairs, names))
    return next(sizes) + pairs + next(sizes) + names


def indexed(
    symbols: Symbols,
    *rest: bytes,
    make_index: Callable[[Symbols], bytes] = sysv_index,
    wrap: Callable[[bytes], bytes] = lambda index: member(b"/", index),
) -> bytes:
    """An archive of `rest` with an index: each symbol with its member's index in `rest`."""
    first = len(MAGIC) + len(wrap(make_index([(name, 0) for name, _ in symbols])))
    starts = [first + sum(map(len, rest[:number])) for number in range(len(rest))]
    index = make_index([(name, starts[number]) for name, number in symbols])
    return MAGIC + wrap(index) + b"".join(rest)


def ranlib_archive(
    symbols: Symbols, name: bytes, fill: int | None, width: int, order: ByteOrder
) -> bytes:
    """A BSD archive of two members; if `fill` is None, the index has its name in the header."""
    return indexed(
        symbols,
        bsd_member(b"x", b"1"),
        bsd_member(b"a_quite_long_name.o", b"22", 5),
        make_index=lambda each: ranlib_index(each, width, order),
        wrap=lambda index: member(name, index) if fill is None else bsd_member(name, index, fill),
    )


def ranlib(pairs: Sequence[int], table: bytes, wrong: int = 0, wrong_names: int = 0) -> bytes:
    """A ranlib index, whose table sizes are off by `wrong` and `wrong_names`."""
    packed = struct.pack(f"<{len(pairs)}I", *pairs)
    sizes = [struct.pack("<I", len(packed) + wrong), struct.pack("<I", len(table) + wrong_names)]
    return sizes[0] + packed + sizes[1] + table
