"""What `load` accepts: definitions of every kind, archives alone, roots; and what stays alive."""

from __future__ import annotations

import ctypes
import gc
import mmap
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import jitlink
from jitlink import input_reader, inputs
from jitlink.errors import (
    ArchiveError,
    ExecutorError,
    MissingFileError,
    SymbolError,
    UndefinedSymbolError,
)
from jitlink.formats.archive import Archive, Member
from jitlink.inputs import ArchiveInput, InputFile
from jitlink.library import ClosedLibraryError, SymbolSizeError
from jitlink.orc.interface import HostSymbol
from tests.formats.archives import MAGIC, header, indexed, member
from tests.toolchain import compile_c, require, run, zig_command

INT_TO_INT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)
CALLER = "int hook(int a); int call(int a) { return hook(a) + 1; }"
HOOK = "int hook(int a) { return 10 * a; }"
COUNTER = """
int counter = 7;
static int begun;
__attribute__((constructor)) static void begin(void) { begun = 1; }
int is_begun(void) { return begun; }
"""
USES_HOOK = "int hook(int a); int twice(int a) { return 2 * hook(a); }"


def compiled(source: str) -> Path:
    return compile_c(source, flags=["-O1", "-fPIC"])


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    place = tmp_path / "libparts.a"
    members = []
    for number, source in enumerate((HOOK, COUNTER, USES_HOOK)):
        members.append(tmp_path / f"part{number}.o")
        members[-1].write_bytes(compiled(source).read_bytes())
    run([*zig_command("ar"), "rcs", place, *members])
    return place


# What a library keeps alive


@pytest.mark.parametrize("as_mapping", [False, True])
def test_a_library_keeps_what_it_was_given(*, as_mapping: bool) -> None:
    hook = jitlink.load(compiled(HOOK))
    used = jitlink.load(compiled(CALLER), definitions=hook if as_mapping else hook.exports)
    hook.close()
    del hook
    gc.collect()
    # Something else would be linked where the code was.
    others = [jitlink.load(compiled(f"int other(void) {{ return {n}; }}")) for n in range(8)]
    assert used.call(4) == 41
    assert [other.other() for other in others] == list(range(8))


def test_a_library_keeps_functions() -> None:
    used = jitlink.load(compiled(CALLER), definitions={"hook": INT_TO_INT(lambda a: a + 100)})
    gc.collect()
    assert used.call(1) == 102


# Definitions


def test_definitions_of_every_kind() -> None:
    def annotated(a: ctypes.c_int) -> ctypes.c_int:
        return a + 2  # type: ignore[operator,return-value]

    annotated.__annotations__ = {"a": ctypes.c_int, "return": ctypes.c_int}
    library = jitlink.load(compiled(HOOK))
    for definition, result in (
        (library["hook"], 31),
        (library.hook, 31),
        ((lambda a: a - 1, INT_TO_INT), 3),
        (annotated, 6),
    ):
        with jitlink.load(compiled(CALLER), definitions={"hook": definition}) as lib:
            assert lib.call(3) == result
    with pytest.raises(TypeError, match="hook"):
        jitlink.load(compiled(CALLER), definitions={"hook": "text"})  # type: ignore[dict-item]


def test_definitions_precede_archives(archive: Path) -> None:
    given = {"hook": (lambda a: -a, INT_TO_INT)}
    with jitlink.load(compiled(CALLER), archive, definitions=given) as lib:
        assert lib.call(5) == -4
        assert len(lib.linked_files) == 1


def test_resolve() -> None:
    asked: list[str] = []

    def resolve(name: str) -> HostSymbol | None:
        asked.append(name)
        return (lambda a: a * a, INT_TO_INT) if name == "hook" else None

    source = "#include <stdlib.h>\nint hook(int a); int call(int a) { return abs(hook(a)); }"
    path = compile_c(source, flags=["-O1", "-fPIC", "-fno-builtin"])
    with jitlink.load(path, resolve=resolve) as lib:
        assert lib.call(6) == 36
    assert {"hook", "abs"} <= set(asked)
    with pytest.raises(UndefinedSymbolError, match="hook"):
        jitlink.load(path, resolve=lambda _: None)
    with pytest.raises(ZeroDivisionError):
        jitlink.load(path, resolve=lambda _: 1 // 0)


# Archives


def test_shared_libraries_precede_the_process_and_are_private(tmp_path: Path) -> None:
    shared = tmp_path / "libshared.so"
    text = "int atoi(const char *text) { return 7; } int only_shared(void) { return 8; }"
    run([*zig_command("cc"), "-shared", "-o", shared, compile_c(text, flags=["-fPIC"])])
    user = compile_c("int atoi(const char *); int only_shared(void); int sum(void);\n"
                     "int sum(void) { return atoi(\"1\") + only_shared(); }")  # fmt: skip
    with jitlink.load(user, libraries=[shared]) as lib:
        assert lib.sum() == 15
    with pytest.raises(UndefinedSymbolError, match="only_shared"):
        jitlink.load(user)
    resolve = {"only_shared": (lambda: 1, ctypes.CFUNCTYPE(ctypes.c_int))}.get
    with jitlink.load(user, libraries=[shared], resolve=resolve) as lib:
        assert lib.sum() == 8
    with pytest.raises(ExecutorError, match="there is no shared library nowhere"):
        jitlink.load(user, libraries=["nowhere"])
    with pytest.raises(ExecutorError, match=r"cannot load /nowhere/libx\.so"):
        jitlink.load(user, libraries=["/nowhere/libx.so"])


def test_an_archive_alone(archive: Path) -> None:
    with jitlink.load(archive) as lib:
        assert set(lib) == {"hook", "counter", "is_begun", "twice"}
        assert "hook" in lib
        assert lib.linked_files == []
        assert lib.twice(3) == 60
        assert lib.linked_files == [f"{archive}(part2.o)", f"{archive}(part0.o)"]
        assert lib.is_begun() == 1
        assert lib.variable("counter", ctypes.c_int).value == 7
        assert len(lib.linked_files) == 3
        with pytest.raises(AttributeError, match="undefined symbol: missing"):
            _ = lib.missing
        assert "missing" not in lib
    with pytest.raises(ClosedLibraryError):
        lib.address("hook")


def test_several_archives_with_definitions(archive: Path, tmp_path: Path) -> None:
    other = tmp_path / "libother.a"
    run([*zig_command("ar"), "rcs", other, compiled(CALLER)])
    with jitlink.load(other, archive) as lib:
        assert lib.call(2) == 21
    given = {"hook": (lambda a: a, INT_TO_INT)}
    with jitlink.load(other, archive, definitions=given) as lib:
        assert lib.call(2) == 3
    with pytest.raises(SymbolError, match="undefined symbol: hook"):
        jitlink.load(other).call(1)
    with jitlink.load(other, resolve=lambda _: (abs, INT_TO_INT)) as lib:
        assert lib.call(-9) == 10
    with jitlink.load(other, phony_externals=True) as lib:
        assert lib.address("call")


def test_archives_are_searched_once_for_a_name(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = tmp_path / "libchain.a"
    members = []
    for number in range(4):
        callee = f"link{number + 1}" if number < 3 else "twice"
        source = f"int {callee}(int a); int link{number}(int a) {{ return {callee}(a) + 1; }}"
        members.append(tmp_path / f"link{number}.o")
        members[-1].write_bytes(compiled(source).read_bytes())
    run([*zig_command("ar"), "rcs", chain, *members])
    searched: list[tuple[str, str]] = []
    find = ArchiveInput.find

    def record(self: ArchiveInput, names: Iterable[str]) -> dict[int, str]:
        names = list(names)
        searched.extend((self.archive.name, name) for name in names)
        return find(self, names)

    monkeypatch.setattr(ArchiveInput, "find", record)
    root = compiled("int link0(int a); int root(int a) { return link0(a); }")
    with jitlink.load(root, chain, archive) as library:
        assert library.root(2) == 44
    assert len(searched) == len(set(searched)) > 6


def test_members_of_one_name_are_numbered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    data = MAGIC + member(b"same.o/", compiled(HOOK).read_bytes()) * 20
    archive = ArchiveInput(InputFile("lib.a", memoryview(data)))
    read: list[Archive] = []
    members = Archive.members

    def record(self: Archive, *, checks_index: bool = False) -> Iterator[Member]:
        read.append(self)
        return members(self, checks_index=checks_index)

    monkeypatch.setattr(Archive, "members", record)
    names = [file.name for file in archive.extract_all()]
    assert names == ["lib.a(same.o)", *(f"lib.a[{n}](same.o)" for n in range(1, 20))]
    assert len(read) == 2


def test_an_index_that_names_a_header_inside_a_member() -> None:
    inner = member(b"same.o/", b"1234")
    outer = header(b"same.o/", len(inner) + 4) + b"1234"
    # The last one is in the one before it, which the index does not name.
    data = indexed([(b"f", 1), (b"g", 3)], member(b"a.o/", b"12"), member(b"same.o/", b"12"), outer,
                   inner)  # fmt: skip
    archive = ArchiveInput(InputFile("lib.a", memoryview(data)))
    with pytest.raises(ArchiveError, match="not the header of a member"):
        archive.extract(archive.find(["f", "g"]))


def test_roots(archive: Path) -> None:
    with jitlink.load(archive, roots=["hook"]) as lib:
        assert lib.linked_files == [f"{archive}(part0.o)"]
        assert lib.hook(2) == 20
    with pytest.raises(UndefinedSymbolError) as caught:
        jitlink.load(archive, roots=["hook", "gone"])
    assert caught.value.names == ("gone",)


def test_a_real_archive() -> None:
    with jitlink.load(require("libz.a")) as lib:
        lib.zlibVersion.restype = ctypes.c_char_p
        assert lib.zlibVersion().startswith(b"1.")
        assert lib.crc32(0, b"abc", 3) & 0xFFFFFFFF == 0x352441C2
        assert len(lib.linked_files) < 10


# Errors


def test_a_missing_file(tmp_path: Path) -> None:
    for error in (FileNotFoundError, MissingFileError):
        with pytest.raises(error, match=r"nothing\.o"):
            jitlink.load(tmp_path / "nothing.o")


def test_a_type_larger_than_the_variable() -> None:
    with jitlink.load(compiled(COUNTER)) as lib:
        with pytest.raises(SymbolSizeError) as caught:
            lib.variable("counter", ctypes.c_int64)
        assert (caught.value.size, caught.value.type_size) == (4, 8)
        assert lib.variable("counter", ctypes.c_int16).value == 7


def test_a_closed_library_says_so() -> None:
    lib = jitlink.load(compiled(HOOK))
    lib.close()
    for call in (lambda: lib.function("hook"), lambda: lib.address("hook"), lib.keep):
        with pytest.raises(ClosedLibraryError, match="is closed"):
            call()
    with pytest.raises(AttributeError, match="is closed"):
        _ = lib.hook


def test_pages_of_inputs_are_released_once_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = tmp_path / "large.o"
    source = "char padding[1 << 17] = {1}; int f(void) { return padding[0] + %d; }"
    large.write_bytes(compiled(source % 41).read_bytes())
    released: list[int] = []

    class Mapping(inputs.MappedFile):
        def release(self) -> None:
            released.append(len(self))
            super().release()

    monkeypatch.setattr(inputs, "MappedFile", Mapping)
    with jitlink.load(large) as library:
        assert (library.f(), released) == (42, [])
    monkeypatch.setattr(input_reader, "_RELEASED_FROM", 1)
    with jitlink.load(large) as library:
        assert (library.f(), released) == (42, [large.stat().st_size])


def test_pages_of_a_caller_are_not_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # They would lose what was written to them.
    monkeypatch.setattr(input_reader, "_RELEASED_FROM", 1)
    path = tmp_path / "value.o"
    path.write_bytes(
        compiled(
            "int value = 0x12345678; int f(void) { return *(volatile int *)&value; }"
        ).read_bytes()
    )
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as data:
        place = data.find((0x12345678).to_bytes(4, "little"))
        data[place : place + 4] = (7).to_bytes(4, "little")
        with jitlink.load(memoryview(data)) as library:
            assert library.f() == 7
        gc.collect()
