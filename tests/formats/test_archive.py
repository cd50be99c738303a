"""Static archives: written by real archivers, and hand-written ones of rare dialects."""

import mmap
import shutil
from collections.abc import Sequence
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from jitlink.errors import ArchiveError
from jitlink.formats.archive import Archive, Member
from jitlink.formats.archive_magic import is_archive
from tests.formats.archives import (
    MAGIC,
    THIN_MAGIC,
    ByteOrder,
    bsd_member,
    content,
    contents,
    defined_in,
    header,
    indexed,
    member,
    ranlib,
    ranlib_archive,
    sysv_index,
)
from tests.toolchain import compile_c, require, run, zig_command

FORMATS = ("gnu", "bsd", "darwin", "coff")
LONG_NAME = "second_with_a_long_name.o"
EXPECTED_INDEX = {"one": "first.o", "shared": "first.o", "two": LONG_NAME, "last": LONG_NAME}


@pytest.fixture(params=["zig ar", "llvm-ar-22"])
def llvm_ar(request: pytest.FixtureRequest) -> list[str]:
    """LLVM's archivers: that of the pinned compiler and that of Debian."""
    return zig_command("ar") if request.param == "zig ar" else [str(require(request.param))]


@pytest.fixture
def gnu_ar() -> list[str]:
    """The archiver of GNU binutils."""
    return [str(require("ar"))]


@pytest.fixture
def objects(tmp_path: Path) -> list[Path]:
    """Two objects that define `shared`: one with a short name, one with a long name."""
    first = compile_c("int one(void) { return 1; } int shared = 1;")
    second = compile_c("int two(void) { return 2; } int shared = 2; int last = 3;")
    (tmp_path / "sub").mkdir()
    shutil.copy(first, tmp_path / "first.o")
    shutil.copy(second, tmp_path / "sub" / LONG_NAME)
    return [tmp_path / "first.o", tmp_path / "sub" / LONG_NAME]


def make(archiver: list[str], path: Path, inputs: Sequence[Path], *options: str) -> Archive:
    """Write an archive, with relative names of its inputs, and open it."""
    names = [str(each.relative_to(path.parent)) for each in inputs]
    run([*archiver, *options, path.name, *names], cwd=path.parent)
    return Archive(path.read_bytes(), str(path))


# Archives of real tools


@pytest.mark.parametrize("threshold", [None, "0"], ids=["32-bit", "64-bit"])
@pytest.mark.parametrize("style", FORMATS)
def test_archives_of_llvm(
    llvm_ar: list[str],
    objects: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    style: str,
    threshold: str | None,
) -> None:
    if threshold is not None:
        monkeypatch.setenv("SYM64_THRESHOLD", threshold)
    archive = make(llvm_ar, tmp_path / "lib.a", objects, "rcs", f"--format={style}")
    marker = b"__.SYMDEF_64" if style == "darwin" else b"/SYM64/"
    assert (marker in (tmp_path / "lib.a").read_bytes()[:100]) == (threshold is not None)
    assert not archive.is_thin
    assert contents(archive) == {path.name: path.read_bytes() for path in objects}
    assert defined_in(archive) == EXPECTED_INDEX
    archive = make(llvm_ar, tmp_path / "no_index.a", objects, "rcS", f"--format={style}")
    assert contents(archive) == {path.name: path.read_bytes() for path in objects}
    assert archive.index is None


@pytest.mark.parametrize("style", FORMATS)
def test_odd_sizes_of_llvm(llvm_ar: list[str], tmp_path: Path, style: str) -> None:
    files = {"one": b"1", "three": b"333", "none": b"", "na me": b"22", "last": b"55555"}
    paths = [tmp_path / name for name in files]
    for path in paths:
        path.write_bytes(files[path.name])
    found = contents(make(llvm_ar, tmp_path / "lib.a", paths, "rc", f"--format={style}"))
    if style == "darwin":
        # Darwin counts padding as part of the member.
        assert [len(data) % 8 for data in found.values()] == [0] * len(files)
        found = {name: data[: len(files[name])] for name, data in found.items()}
    assert found == files


def test_archives_of_gnu_ar(gnu_ar: list[str], objects: list[Path], tmp_path: Path) -> None:
    archive = make(gnu_ar, tmp_path / "lib.a", objects, "rcs")
    assert contents(archive) == {path.name: path.read_bytes() for path in objects}
    assert defined_in(archive) == EXPECTED_INDEX
    archive = make(gnu_ar, tmp_path / "no_index.a", objects, "rcS")
    assert contents(archive) == {path.name: path.read_bytes() for path in objects}
    assert archive.index is None


def test_empty_archives(llvm_ar: list[str], gnu_ar: list[str], tmp_path: Path) -> None:
    for number, archiver in enumerate((llvm_ar, gnu_ar)):
        archive = make(archiver, tmp_path / f"{number}.a", [], "rcs")
        assert (list(archive.members()), archive.index) == ([], None)
    darwin = make(llvm_ar, tmp_path / "darwin.a", [], "rcs", "--format=darwin")
    assert (list(darwin.members()), darwin.index) == ([], {})


@pytest.mark.parametrize("gnu", [False, True], ids=["llvm", "gnu"])
def test_thin_archives(
    llvm_ar: list[str], gnu_ar: list[str], objects: list[Path], tmp_path: Path, gnu: bool
) -> None:
    archiver, option = (gnu_ar, "-T") if gnu else (llvm_ar, "--thin")
    archive = make(archiver, tmp_path / "thin.a", objects, "rcs", option)
    assert archive.is_thin
    members = list(archive.members())
    assert [found.path for found in members] == ["first.o", f"sub/{LONG_NAME}"]
    for found, path in zip(members, objects, strict=True):
        assert found.path is not None
        assert tmp_path / found.path == path
        assert (found.name, found.size) == (found.path, path.stat().st_size)
        assert (found.data, found.offset, found.nested_offset) == (None, 0, None)
        assert str(found) == f"{archive.name}({found.path})"
    index = {symbol: Path(path).name for symbol, path in defined_in(archive).items()}
    assert index == EXPECTED_INDEX


def test_archive_nested_in_a_thin_one_of_gnu_ar(
    gnu_ar: list[str], objects: list[Path], tmp_path: Path
) -> None:
    inner = make(gnu_ar, tmp_path / "sub" / "inner.a", objects[1:], "rcs")
    outer = make(gnu_ar, tmp_path / "outer.a", [objects[0], Path(inner.name)], "rcsT")
    plain, nested = outer.members()
    assert (plain.path, plain.nested_offset) == ("first.o", None)
    assert nested.path == "sub/inner.a"
    assert nested.nested_offset is not None
    found = inner.member_at(nested.nested_offset)
    assert content(found) == objects[1].read_bytes()
    assert nested.size == found.size
    assert nested.display_name == f"{outer.name}(sub/inner.a:{nested.nested_offset})"
    expected = {"first.o": plain.header_offset, LONG_NAME: nested.header_offset}
    assert outer.index == {symbol: expected[name] for symbol, name in EXPECTED_INDEX.items()}


def test_archive_nested_in_a_thin_one_of_llvm(
    llvm_ar: list[str], objects: list[Path], tmp_path: Path
) -> None:
    make(llvm_ar, tmp_path / "inner.a", objects[:1], "rcs", "--format=bsd")
    outer = make(llvm_ar, tmp_path / "outer.a", [tmp_path / "inner.a"], "rcs", "--thin")
    (found,) = outer.members()
    # The whole archive is a member like any other file.
    assert (found.path, found.nested_offset) == ("inner.a", None)
    assert found.size == (tmp_path / "inner.a").stat().st_size


def mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def test_members_of_debian_archives(debian_archive: Path) -> None:
    llvm_ar, gnu_ar = require("llvm-ar-22"), require("ar")
    members = list(Archive(mapped(debian_archive), debian_archive.name).members())
    assert [found.name for found in members] == run([llvm_ar, "t", debian_archive]).splitlines()
    # Fields: mode, owner, size, date (four words), name, offset of the data.
    lines = [line.split() for line in run([gnu_ar, "tvO", debian_archive]).splitlines()]
    assert [(found.size, found.offset) for found in members] == [
        (int(words[2]), int(words[-1], 16)) for words in lines
    ]


def test_index_of_debian_archives(debian_archive: Path) -> None:
    nm = require("llvm-nm-22")
    lines = run([nm, "--print-armap", "--no-sort", "--quiet", debian_archive]).splitlines()
    assert lines[0] == "Archive map"
    expected: dict[str, str] = {}
    for line in lines[1 : lines.index("")]:
        symbol, _, name = line.partition(" in ")
        expected.setdefault(symbol, name)
    assert defined_in(Archive(mapped(debian_archive), debian_archive.name)) == expected


# Hand-written archives


def names(data: bytes) -> list[str]:
    return [each.name for each in Archive(data, "x.a").members()]


def test_is_archive() -> None:
    assert is_archive(MAGIC)
    assert is_archive(bytearray(THIN_MAGIC + b"more"))
    assert is_archive(memoryview(MAGIC + b"more")[:9])
    for data in (b"", MAGIC[:-1], b"!<arch>\r\n", b"\x7fELF\2\1\1\0", b"<bigaf>\n"):
        assert not is_archive(data)


def test_member() -> None:
    data = bytearray(MAGIC + member(b"a.o/", b"abc") + member(b"b.o/", b"de"))
    archive = Archive(data, "libx.a")
    first, second = archive.members()
    assert first == Member("libx.a", "a.o", 8, 68, 3, None, None, None)
    assert second == archive.member_at(72) != first
    assert str(first) == first.display_name == "libx.a(a.o)"
    assert first.data is not None
    assert first.data.readonly
    data[69:70] = b"x"  # a view, not a copy
    assert content(first) == b"axc"
    with pytest.raises(FrozenInstanceError):
        first.size = 4  # type: ignore[misc]
    assert (archive.name, archive.is_thin, archive.index) == ("libx.a", False, None)
    assert repr(archive) == "<Archive 'libx.a'>"
    assert repr(Archive(THIN_MAGIC, "t.a")) == "<Archive 't.a' (thin)>"


def test_mapped_file_can_be_closed_after_use(tmp_path: Path) -> None:
    path = tmp_path / "x.a"
    path.write_bytes(indexed([(b"f", 0)], member(b"a.o/", b"abc")))
    data = mapped(path)
    archive = Archive(data, str(path))
    assert archive.index is not None
    found = archive.member_at(archive.index["f"])
    assert content(found) == b"abc"
    with pytest.raises(BufferError):
        data.close()
    del archive, found
    data.close()


@pytest.mark.parametrize(
    ("stored", "name"),
    [
        (b"a.o/", "a.o"),
        (b"a.o", "a.o"),
        (b"fifteen_chars.o/", "fifteen_chars.o"),
        (b"sixteen__chars.o", "sixteen__chars.o"),
        (b"na me.o/", "na me.o"),
        (b" a.o/", " a.o"),
        (b"#1.o/", "#1.o"),
        (b"caf\xc3\xa9.o/", "caf\u00e9.o"),
        (b"caf\xe9.o/", "caf\udce9.o"),
    ],
)
def test_names_in_the_header(stored: bytes, name: str) -> None:
    assert names(MAGIC + member(stored, b"12")) == [name]


@pytest.mark.parametrize("fill", [0, 1, 7])
@pytest.mark.parametrize("name", [b"a.o", b"dir/a.o/", b"/12", b"//", b"/", b"na me ", b"#1/3"])
def test_names_before_the_data(name: bytes, fill: int) -> None:
    data = MAGIC + bsd_member(name, b"123", fill) + bsd_member(b"next.o", b"")
    first, second = Archive(data, "x.a").members()
    assert (first.name, content(first), first.size) == (name.decode(), b"123", 3)
    assert first.offset == 8 + 60 + len(name) + fill
    assert (second.name, content(second)) == ("next.o", b"")


@pytest.mark.parametrize("end", [b"/\n", b"\n", b"\0"], ids=["gnu", "bare", "coff"])
def test_long_names(end: bytes) -> None:
    longest = b"n" * 4096
    table = b"dir/one.o" + end + b"two.o" + end + longest + end
    second = len(b"dir/one.o" + end)
    third = second + len(b"two.o" + end)
    codes = (b"/0", b"/%d" % second, b"/%d" % third, b"/4")
    data = MAGIC + member(b"//", table) + b"".join(member(code, b"") for code in codes)
    assert names(data) == ["dir/one.o", "two.o", longest.decode(), "one.o"]


@pytest.mark.parametrize("padding", [b"\n", b"\0", b" ", b"`"])
def test_any_padding(padding: bytes) -> None:
    data = MAGIC + member(b"a/", b"1", padding) + member(b"b/", b"333", padding)
    for whole in (data, data[:-1]):  # the last member's may be missing
        assert contents(Archive(whole, "x.a")) == {"a": b"1", "b": b"333"}


def test_size_may_be_padded_on_both_sides() -> None:
    assert names(MAGIC + header(b"a/", b"  2") + b"12" + header(b"b/", b"0000000000")) == ["a", "b"]


@pytest.mark.parametrize(("name", "width"), [(b"/", 4), (b"/SYM64/", 8)])
def test_sysv_index(name: bytes, width: int) -> None:
    data = indexed(
        [(b"b", 1), (b"a", 0), (b"", 1), (b"b", 0), (b"caf\xc3\xa9\xff", 1)],
        member(b"x/", b"1"),
        member(b"y/", b"2"),
        make_index=lambda symbols: sysv_index(symbols, width) + b"\0\0padding",
        wrap=lambda index: member(name, index),
    )
    expected = {"b": "y", "a": "x", "": "y", "caf\u00e9\udcff": "y"}
    archive = Archive(data, "x.a")
    assert defined_in(archive) == expected
    found = archive.find_all({"a", "b", "c"})
    definers = {n: [archive.member_at(o).name for o in offsets] for n, offsets in found.items()}
    assert definers == {"a": ["x"], "b": ["y", "x"], "c": []}
    assert archive.may_define(["c", "caf\u00e9\udcff"])
    assert not archive.may_define(["c", "caf", "x", "y"])
    assert archive.index_size == 6 * width + len(b"b\0a\0\0b\0caf\xc3\xa9\xff\0\0\0padding")


@pytest.mark.parametrize("name", [b"/", b"/SYM64/", b"__.SYMDEF", b"__.SYMDEF_64"])
def test_index_without_symbols(name: bytes) -> None:
    numbers = 2 if name.startswith(b"_") else 1
    index = bytes(numbers * (8 if b"64" in name else 4))
    assert Archive(MAGIC + member(name, index) + member(b"a/", b""), "x.a").index == {}


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize(
    ("name", "fill", "width"),
    [
        (b"__.SYMDEF", None, 4),
        (b"__.SYMDEF/", None, 4),
        (b"__.SYMDEF SORTED", None, 4),
        (b"__.SYMDEF_64", None, 8),
        (b"__.SYMDEF", 0, 4),
        (b"__.SYMDEF SORTED", 4, 4),
        (b"__.SYMDEF_64", 8, 8),
        (b"__.SYMDEF_64 SORTED", 1, 8),
    ],
)
def test_ranlib_index(name: bytes, fill: int | None, width: int, order: ByteOrder) -> None:
    symbols = [(b"_b", 1), (b"_a", 0), (b"_long_symbol", 1), (b"_b", 0)]
    archive = Archive(ranlib_archive(symbols, name, fill, width, order), "x.a")
    long_name = "a_quite_long_name.o"
    assert defined_in(archive) == {"_b": long_name, "_a": "x", "_long_symbol": long_name}
    assert archive.may_define(["_c", "_long_symbol"])
    assert not archive.may_define(["_c", "_long"])


def test_ranlib_names_in_any_order() -> None:
    table = b"unused\0second\0first\0"
    start = 8 + 60 + len(ranlib([0] * 6, table))
    index = ranlib([14, start, 7, start, 14, start], table)
    archive = Archive(MAGIC + member(b"__.SYMDEF", index) + member(b"a", b""), "x.a")
    assert archive.index == {"first": start, "second": start}


def test_special_members_are_skipped() -> None:
    archive = Archive(
        indexed(
            [(b"f", 4)],
            member(b"/", b"ignored"),
            member(b"//", b"a_long_name.obj\0"),
            member(b"/<ECSYMBOLS>/", b"1"),
            member(b"/<XFGHASHMAP>/", b"22"),
            member(b"/0", b"data"),
            member(b"/<HYBRIDMAP>/", b"333"),
            member(b"z.obj/", b""),
        ),
        "x.lib",
    )
    assert contents(archive) == {"a_long_name.obj": b"data", "z.obj": b""}
    assert defined_in(archive) == {"f": "a_long_name.obj"}


def test_special_members_of_thin_archives_have_data() -> None:
    table = member(b"//", b"dir/a.o/\n/abs/lib.a/\n")
    index = member(b"/", sysv_index([(b"f", 8 + 70 + 82)]))
    assert (len(index), len(table)) == (70, 82)
    thin = THIN_MAGIC + index + table + header(b"/0", 5) + header(b"b.o/", 3)
    archive = Archive(thin + header(b"/9:500", 7), "x.a")
    assert [(each.path, each.size, each.nested_offset) for each in archive.members()] == [
        ("dir/a.o", 5, None),
        ("b.o", 3, None),
        ("/abs/lib.a", 7, 500),
    ]
    assert defined_in(archive) == {"f": "dir/a.o"}
    # Only GNU has thin archives, so BSD's special names are ordinary in them.
    assert names(THIN_MAGIC + header(b"__.SYMDEF", 4)) == ["__.SYMDEF"]


def test_members_are_read_on_request() -> None:
    archive = Archive(indexed([(b"f", 0), (b"g", 1)], member(b"a/", b"1"), b"\xff" * 64), "x.a")
    assert archive.index is not None
    bad = archive.index["g"]
    assert content(archive.member_at(archive.index["f"])) == b"1"
    members = archive.members()
    assert next(members).name == "a"
    with pytest.raises(ArchiveError) as from_iteration:
        next(members)
    with pytest.raises(ArchiveError) as from_index:
        archive.member_at(bad)
    assert (from_iteration.value.file, from_iteration.value.offset) == ("x.a", bad)
    assert (from_index.value.file, from_index.value.offset) == ("x.a", bad)


def test_no_index_defines_nothing() -> None:
    archive = Archive(MAGIC + member(b"x/", b"f\0"), "x.a")
    assert not archive.may_define(["f"])
    assert archive.index_size == 0
