"""Malformed static archives are read correctly or refused, with the offset of the error."""

import random
import struct
import tracemalloc
from itertools import pairwise

import pytest

from jitlink.errors import ArchiveError
from jitlink.formats.archive import Archive, Member
from tests.formats.archives import (
    MAGIC,
    THIN_MAGIC,
    bsd_member,
    content,
    header,
    indexed,
    member,
    ranlib,
    ranlib_archive,
    sysv_index,
)

MUTATIONS = 2000


def read(data: bytes) -> list[Member]:
    """Read all members and the index, and check that they are consistent."""
    archive = Archive(data, "x.a")
    members = list(archive.members())
    for first, second in pairwise(members):
        assert first.header_offset + 60 <= second.header_offset
        assert first.offset + (0 if archive.is_thin else first.size) <= second.header_offset
    by_index = [archive.member_at(offset) for offset in (archive.index or {}).values()]
    assert [found.header_offset for found in by_index] == list((archive.index or {}).values())
    for found in members + by_index:
        check_member(found, data)
    return members


def check_member(found: Member, data: bytes) -> None:
    assert found.name
    assert "\0" not in found.name
    assert (found.data is None) == (found.path is not None) == (data[:8] == THIN_MAGIC)
    stored = int(data[found.header_offset + 48 : found.header_offset + 58])
    if found.data is None:
        assert (found.size, found.path) == (stored, found.name)
    else:
        assert found.header_offset + 60 + stored == found.offset + found.size <= len(data)
        assert content(found) == data[found.offset : found.offset + found.size]


def one_member(index_name: bytes, index: bytes) -> bytes:
    return MAGIC + member(index_name, index) + member(b"a/", b"12")


def long_name(code: bytes, table: bytes = b"name/\n") -> bytes:
    return MAGIC + member(b"//", table) + member(code, b"")


TABLE_END = 8 + 60 + 6
BROKEN = {
    "empty": (b"", 0, "not an archive"),
    "other magic": (b"\x7fELF\2\1\1\0", 0, "not an archive"),
    "AIX": (b"<bigaf>\n" + b"0" * 120, 0, "not an archive"),
    "half a header": (MAGIC + header(b"a/", 0)[:59], 8, "lies outside the archive"),
    "rest": (MAGIC + header(b"a/", 0) + b"\n\n", 68, "lies outside the archive"),
    "header's end": (
        MAGIC + header(b"a/", 0)[:-1] + b" ",
        8,
        "not a member's header: it ends with",
    ),
    "no size": (MAGIC + header(b"a/", b""), 8, "size is not a decimal number"),
    "negative size": (MAGIC + header(b"a/", b"-1"), 8, "size is not a decimal number"),
    "sign": (MAGIC + header(b"a/", b"+0"), 8, "size is not a decimal number"),
    "underscore": (MAGIC + header(b"a/", b"0_0") + b"\0" * 9, 8, "size is not a decimal number"),
    "hexadecimal": (MAGIC + header(b"a/", b"0x0"), 8, "size is not a decimal number"),
    "size": (MAGIC + header(b"a/", 3) + b"12", 8, "3 bytes where the archive has 2 left"),
    "huge size": (MAGIC + header(b"a/", 9999999999), 8, "9999999999 bytes where"),
    "second member": (MAGIC + member(b"a/", b"1") + header(b"b/", 1), 70, "has 0 left"),
    "no name": (MAGIC + header(b"", 0), 8, "cannot be a member's name"),
    "blank": (MAGIC + header(b"\0/", 0), 8, "cannot be a member's name"),
    "unknown special": (MAGIC + header(b"/x", 0), 8, "'/x' of unknown meaning"),
    "unclosed special": (MAGIC + header(b"/<x", 0), 8, "'/<x' of unknown meaning"),
    "no table": (MAGIC + header(b"/0", 0), 8, "no table of long names"),
    "outside the table": (long_name(b"/6"), TABLE_END, "long name at 6 in a table of 6 bytes"),
    "huge long name": (long_name(b"/99999999999999"), TABLE_END, "in a table of 6 bytes"),
    "no end": (long_name(b"/0", b"name//"), TABLE_END, "has no end"),
    "too long": (long_name(b"/0", b"n" * 4098 + b"/\n"), TABLE_END + 4094, "4096 bytes"),
    "empty long name": (long_name(b"/4"), TABLE_END, "cannot be a member's name"),
    "sign in a long name": (long_name(b"/+0"), TABLE_END, "unknown meaning"),
    "nested, not thin": (long_name(b"/0:8"), TABLE_END, "unknown meaning"),
    "nested, no offset": (THIN_MAGIC + long_name(b"/0:")[8:], TABLE_END, "unknown meaning"),
    "two tables": (MAGIC + member(b"//", b"") * 2, 68, "second table of long names"),
    "late table": (MAGIC + header(b"a/", 0) + header(b"//", 0), 68, "behind ordinary members"),
    "late index": (MAGIC + header(b"a/", 0) + header(b"/", 0), 68, "behind ordinary members"),
    "late ranlib": (MAGIC + header(b"a", 0) + header(b"__.SYMDEF", 0), 68, "behind ordinary"),
    "three indexes": (MAGIC + member(b"/", bytes(4)) * 3, 136, "second symbol index"),
    "two wide indexes": (MAGIC + member(b"/SYM64/", bytes(8)) * 2, 76, "second symbol index"),
    "two dialects": (MAGIC + member(b"/", b"") + header(b"__.SYMDEF", 0), 68, "second symbol"),
    "BSD length": (MAGIC + header(b"#1/", 3) + b"a.o", 8, "length is not a decimal number"),
    "BSD sign": (MAGIC + header(b"#1/-3", 3) + b"a.o", 8, "length is not a decimal number"),
    "BSD long": (MAGIC + member(b"#1/4", b"a.o"), 8, "name of 4 bytes in a member of 3 bytes"),
    "BSD too long": (MAGIC + bsd_member(b"n" * 4097, b""), 8, "name of 4097 bytes, more than 4096"),
    "BSD no name": (MAGIC + bsd_member(b"", b"1"), 8, "cannot be a member's name"),
    "BSD NULs": (MAGIC + bsd_member(b"\0\0", b"1"), 8, "cannot be a member's name"),
    "BSD inner NUL": (MAGIC + bsd_member(b"a\0b", b"1"), 8, "cannot be a member's name"),
    "BSD, thin": (THIN_MAGIC + bsd_member(b"a", b""), 8, "in a thin archive"),
    "thin, data": (THIN_MAGIC + member(b"a/", b"data"), 68, "lies outside the archive"),
    "thin, table": (THIN_MAGIC + header(b"//", 2), 8, "2 bytes where the archive has 0 left"),
}


@pytest.mark.parametrize(("data", "offset", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_archives(data: bytes, offset: int, message: str) -> None:
    with pytest.raises(ArchiveError) as caught:
        read(data)
    assert (caught.value.file, caught.value.offset) == ("x.a", offset)
    assert message in str(caught.value)


SYMDEF = b"__.SYMDEF"
BROKEN_INDEXES = {
    "no count": (b"/", b"", "0 symbols in 0 bytes"),
    "half a count": (b"/", bytes(3), "in 3 bytes"),
    "count": (b"/", struct.pack(">2I", 2, 74) + b"f\0", "2 symbols in 10 bytes"),
    "huge count": (b"/", b"\xff" * 4 + bytes(60), "4294967295 symbols"),
    "huge wide count": (b"/SYM64/", b"\xff" * 8 + bytes(60), "18446744073709551615 symbols"),
    "few names": (b"/", struct.pack(">3I", 2, 80, 80) + b"f\0g", "1 symbols instead of 2"),
    "offset": (b"/", struct.pack(">2I", 1, 81) + b"f\0", "member of 'f' would be at offset 0x51"),
    "in the index": (b"/", struct.pack(">2I", 1, 8) + b"f\0", "offset 0x8, where no member"),
    "in the magic": (b"/", struct.pack(">2I", 1, 0) + b"f\0", "offset 0x0, where no member"),
    "huge offset": (b"/SYM64/", struct.pack(">2Q", 1, 2**64 - 1) + b"f\0", "0xffffffffffffffff"),
    "long symbol": (b"/", struct.pack(">2I", 1, 0) + b"f" * 99 + b"\0", "'" + "f" * 80 + "'..."),
    "ranlib, empty": (SYMDEF, b"", "do not fit"),
    "ranlib, one size": (SYMDEF, bytes(4), "do not fit"),
    "ranlib, half a size": (SYMDEF, bytes(7), "do not fit"),
    "ranlib, half a pair": (SYMDEF, ranlib([0], b"f\0\0\0"), "do not fit"),
    "ranlib, many pairs": (SYMDEF, ranlib([0, 0], b"f\0", wrong=16), "do not fit"),
    "ranlib, huge": (SYMDEF, ranlib([0, 0], b"f\0", wrong=2**32 - 16), "do not fit"),
    "ranlib, names": (SYMDEF, ranlib([0, 0], b"f\0", wrong_names=1), "do not fit"),
    "ranlib, position": (SYMDEF, ranlib([2, 0], b"f\0"), "no name begins at 2"),
    "ranlib, inside": (SYMDEF, ranlib([1, 0], b"ff\0g\0"), "no name begins at 1"),
    "ranlib, no end": (SYMDEF, ranlib([2, 0], b"f\0g"), "no name begins at 2"),
    "ranlib, no names": (SYMDEF, ranlib([0, 0], b""), "no name begins at 0"),
    "ranlib, offset": (SYMDEF, ranlib([0, 7], b"f\0"), "member of 'f' would be at offset 0x7"),
    "ranlib, wide": (b"__.SYMDEF_64", ranlib([0, 90], b"f\0"), "do not fit"),
}


@pytest.mark.parametrize(("name", "index", "message"), BROKEN_INDEXES.values(), ids=BROKEN_INDEXES)
def test_broken_indexes(name: bytes, index: bytes, message: str) -> None:
    archive = Archive(one_member(name, index), "x.a")
    assert [each.name for each in archive.members()] == ["a"]
    for _ in range(2):  # after an error the index is not None
        with pytest.raises(ArchiveError) as caught:
            _ = archive.index
        assert (caught.value.file, caught.value.offset) == ("x.a", 8)
        assert message in str(caught.value)


@pytest.mark.parametrize("offset", [-120, -60, -1, 0, 7, 9, 67, 69, 72, 128, 129, 10**30])
def test_no_member_at_an_offset(offset: int) -> None:
    archive = Archive(MAGIC + member(b"a/", b"1234") + header(b"b/", 0)[:-4], "x.a")
    inside, outside = "not a member's header", "a member's header lies outside the archive"
    message = inside if 8 <= offset <= 68 else outside
    with pytest.raises(ArchiveError, match=message) as caught:
        archive.member_at(offset)
    assert caught.value.offset == offset


def test_special_members_cannot_be_asked_for() -> None:
    inner = member(b"inner/", b"")
    data = MAGIC + member(b"/", bytes(4)) + member(b"//", inner) + header(b"/<x>/", 0)
    data += header(b"a/", 0) + header(b"/<x>/", 0)
    archive = Archive(data, "x.a")
    for offset in (8, 72, 132, 192, 312):  # 132 is a valid header inside the table of long names
        with pytest.raises(ArchiveError, match="not an ordinary member") as caught:
            archive.member_at(offset)
        assert caught.value.offset == offset
    assert archive.member_at(252).name == "a"


def test_members_that_the_index_names_do_not_overlap() -> None:
    inner = member(b"inner/", b"1")
    outer = header(b"outer/", len(inner)) + inner
    start = 8 + len(member(b"/", sysv_index([(b"f", 0), (b"g", 0)])))
    index = sysv_index([(b"f", start + 60), (b"g", start)])
    archive = Archive(MAGIC + member(b"/", index) + outer, "x.a")
    assert archive.member_at(start + 60).name == "inner"
    with pytest.raises(ArchiveError, match="overlaps the one at offset") as caught:
        archive.member_at(start)
    assert caught.value.offset == start
    assert [each.name for each in archive.members()] == ["outer"]
    with pytest.raises(ArchiveError, match="overlaps the one at offset") as caught:
        list(archive.members(checks_index=True))
    assert caught.value.offset == start


def test_memory_is_bounded_by_the_size_of_the_file() -> None:
    claims = (
        one_member(b"/", b"\x7f" + b"\xff" * 3 + bytes(4096)),
        one_member(b"/SYM64/", b"\x7f" + b"\xff" * 7 + bytes(4096)),
        one_member(SYMDEF, b"\xf8\xff\xff\x7f" + bytes(4096)),
        one_member(b"__.SYMDEF_64", b"\xf0" + b"\xff" * 6 + b"\x7f" + bytes(4096)),
        MAGIC + header(b"#1/9999999999", 9999999999),
        # Many names within one string would take quadratic memory.
        one_member(SYMDEF, ranlib([n // 2 for n in range(60_000)], b"x" * 60_000 + b"\0")),
        # So would the whole table of long names as the name of each of many members.
        MAGIC + member(b"//", b"x" * 60_000) + header(b"/0", 0) * 1000,
    )
    tracemalloc.start()
    try:
        for data in claims:
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            with pytest.raises(ArchiveError):
                read(data)
            _, peak = tracemalloc.get_traced_memory()
            assert peak - before < 200_000 + 16 * len(data)
    finally:
        tracemalloc.stop()


LONG_NAMES = b"a_quite_long_name.o/\nsub/other.o/\n"
FILES = (member(b"a.o/", b"1"), member(b"/0", b"22"), member(b"b.o/", b"333"))
PATHS = (header(b"/21", 11), header(b"b.o/", 22), header(b"/0:68", 33))
SYMBOLS = [(b"one", 1), (b"two", 2), (b"one", 2), (b"three", 3)]
BSD_SYMBOLS = [(b"one", 0), (b"two", 1), (b"one", 1)]
# One archive of each dialect, with all of its features.
SMALL = {
    "gnu": indexed(SYMBOLS, member(b"//", LONG_NAMES), *FILES),
    "wide": indexed(
        SYMBOLS,
        member(b"//", LONG_NAMES),
        *FILES,
        make_index=lambda symbols: sysv_index(symbols, 8),
        wrap=lambda index: member(b"/SYM64/", index),
    ),
    "coff": indexed(
        SYMBOLS, member(b"/", bytes(8)) + member(b"//", b"a_quite_long_name.o\0"), *FILES
    ),
    "bsd": ranlib_archive(BSD_SYMBOLS, b"__.SYMDEF SORTED", 4, 4, "little"),
    "darwin": ranlib_archive(BSD_SYMBOLS, b"__.SYMDEF_64", 8, 8, "little"),
    "big endian": ranlib_archive(BSD_SYMBOLS, b"__.SYMDEF", None, 4, "big"),
    "no index": MAGIC + member(b"//", LONG_NAMES) + b"".join(FILES),
    "thin": THIN_MAGIC + indexed(SYMBOLS, member(b"//", LONG_NAMES), *PATHS)[len(MAGIC) :],
}


def attempt(data: bytes) -> list[Member] | ArchiveError:
    try:
        return read(data)
    except ArchiveError as error:
        return error


def ends_of_members(data: bytes) -> set[int]:
    """Offsets of the ends of members, with and without padding."""
    position = len(MAGIC)
    ends = {position}
    while position < len(data):
        special = data[position : position + 16].rstrip() in (b"/", b"//")
        inline = special or not data.startswith(THIN_MAGIC)
        end = position + 60 + (int(data[position + 48 : position + 58]) if inline else 0)
        position = end + end % 2
        ends |= {end, position}
    return ends


@pytest.mark.parametrize("dialect", SMALL)
def test_every_truncation(dialect: str) -> None:
    data = SMALL[dialect]
    whole = read(data)
    assert len(whole) == (2 if dialect in ("bsd", "darwin", "big endian") else 3)
    index = Archive(data, "x.a").index
    assert (index is None) == (dialect == "no index")
    for size in range(len(data)):
        outcome = attempt(data[:size])
        if isinstance(outcome, ArchiveError):
            assert outcome.file == "x.a"
            assert outcome.offset is not None
            assert 0 <= outcome.offset <= size
            # A cut between members is detected only by an index that names a missing member.
            assert size not in ends_of_members(data) or (index and size > len(MAGIC))
        else:
            assert outcome == whole[: len(outcome)]
            assert size in ends_of_members(data)
            # The last members of these archives have an odd size: only their padding is missing.
            assert not index or size in (len(MAGIC), len(data) - 1)


@pytest.mark.parametrize("dialect", SMALL)
def test_mutations(dialect: str) -> None:
    chosen = random.Random(f"archive {dialect}")
    refused = 0
    for _ in range(MUTATIONS):
        data = mutate(SMALL[dialect], chosen)
        outcome = attempt(data)
        if isinstance(outcome, ArchiveError):
            refused += 1
            assert outcome.file == "x.a"
            assert outcome.offset is not None
            assert 0 <= outcome.offset <= len(data)
    # Both outcomes occur: any bytes are valid as dates and contents, but not as magic and sizes.
    assert MUTATIONS // 20 < refused < MUTATIONS - MUTATIONS // 20


def mutate(data: bytes, chosen: random.Random) -> bytes:
    """Change, remove, repeat or copy one to four short runs of bytes."""
    mutated = bytearray(data)
    for _ in range(chosen.randint(1, 4)):
        start = chosen.randrange(len(mutated))
        size = min(chosen.choice((1, 1, 1, 2, 4, 8, 60)), len(mutated) - start)
        source = chosen.randrange(len(mutated) - size + 1)
        run_of_bytes = (
            bytes([mutated[start] ^ 1 << chosen.randrange(8)]) + mutated[start + 1 : start + size],
            chosen.randbytes(size),
            chosen.choice((b"\0", b"\xff", b" ", b"9")) * size,
            b"",
            mutated[start : start + size] * 2,
            mutated[source : source + size],
        )
        mutated[start : start + size] = chosen.choice(run_of_bytes)
    return bytes(mutated)
