"""Definition generators: the process, shared libraries, static archives."""

# ruff: noqa: ARG002 - a plugin need not use all arguments

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import jitlink
from jitlink.errors import (
    ArchiveError,
    DuplicateDefinitionError,
    ExecutorError,
    ObjectError,
    UndefinedSymbolError,
)
from jitlink.graph import LinkGraph
from jitlink.link import PassConfiguration
from jitlink.orc import (
    DynamicLibraryGenerator,
    FailedToMaterializeError,
    JITSymbolFlags,
    LookupKind,
    MaterializationResponsibility,
    Plugin,
    StaticLibraryGenerator,
)
from tests.orc.jits import CountedJIT, archived, compiled, counted_jit, shared_library
from tests.toolchain import require, run

LEFT = "int right(void); int left(void) { return right() + 1; } int left_too(void) { return 5; }"
RIGHT = "int base(void); int right(void) { return base() + 1; }"
BASE = "int base(void) { return 100; }"
LONELY = "int lonely(void) { return 7; }"


@pytest.fixture
def jit() -> Iterator[CountedJIT]:
    with counted_jit(process_symbols=False) as created:
        yield created


class Counter(Plugin):
    """Counts links, and records what each of them is responsible for."""

    def __init__(self) -> None:
        self.links: list[set[str]] = []

    def modify_pass_config(
        self,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,
        config: PassConfiguration,
    ) -> None:
        self.links.append(set(responsibility.symbols))


@pytest.fixture
def links(jit: CountedJIT) -> list[set[str]]:
    counter = Counter()
    jit.layer.add_plugin(counter)
    return counter.links


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return archived(tmp_path / "libfour.a", *map(compiled, (LEFT, RIGHT, BASE, LONELY)))


def defined(jit: CountedJIT) -> set[str]:
    return jit.session.run(lambda: set(jit.main.symbols))


# Shared libraries


def test_process_symbols(jit: CountedJIT) -> None:
    jit.main.add_generator(DynamicLibraryGenerator.for_process(jit.session))
    jit.add_object(compiled("int getpid(void); int f(void) { return getpid() + 1; }"))
    assert jit.lookup("f")() == os.getpid() + 1
    found = jit.session.lookup(jit.main, "getpid")["getpid"]
    assert found.flags == JITSymbolFlags.EXPORTED | JITSymbolFlags.ABSOLUTE
    with pytest.raises(UndefinedSymbolError) as caught:
        jit.lookup("no_such_name_anywhere")
    assert caught.value.names == ("no_such_name_anywhere",)


@pytest.mark.parametrize(
    "allow",
    ["get", re.compile("getp?p?id"), lambda name: name == "getpid"],
    ids=["prefix", "pattern", "function"],
)  # fmt: skip
def test_process_symbols_are_filtered(jit: CountedJIT, allow: str) -> None:
    jit.main.add_generator(DynamicLibraryGenerator.for_process(jit.session, allow))
    assert jit.lookup("getpid")
    with pytest.raises(UndefinedSymbolError) as caught:
        jit.session.lookup(jit.main, ["getpid", "malloc", "the_getpid"])
    assert caught.value.names == ("malloc", "the_getpid")


def test_a_generator_can_be_removed(jit: CountedJIT) -> None:
    generator = DynamicLibraryGenerator.for_process(jit.session)
    jit.main.add_generator(generator)
    assert jit.lookup("getpid")
    jit.main.remove_generator(generator)
    assert jit.lookup("getpid")
    with pytest.raises(UndefinedSymbolError):
        jit.lookup("getppid")


def test_one_shared_library(jit: CountedJIT, tmp_path: Path) -> None:
    library = shared_library(tmp_path / "libone.so", "int only_here(void) { return 77; }")
    jit.main.add_generator(DynamicLibraryGenerator.load(jit.session, library))
    jit.add_object(compiled("int only_here(void); int f(void) { return only_here() + 1; }"))
    assert jit.lookup("f")() == 78


def test_a_shared_library_that_cannot_be_loaded(jit: CountedJIT, tmp_path: Path) -> None:
    with pytest.raises(ExecutorError, match=r"libmissing\.so"):
        DynamicLibraryGenerator.load(jit.session, tmp_path / "libmissing.so")


# Static archives


def test_members_are_extracted_together(
    jit: CountedJIT, archive: Path, links: list[set[str]]
) -> None:
    jit.add_archive(archive)
    assert defined(jit) == set()
    assert jit.lookup("left")() == 102
    assert links == [{"left", "left_too", "right", "base"}]
    assert defined(jit) == {"left", "left_too", "right", "base"}
    assert jit.lookup("left_too")() == 5
    assert jit.lookup("lonely")() == 7
    assert links[1:] == [{"lonely"}]


def test_members_define_names_for_objects(jit: CountedJIT, archive: Path) -> None:
    jit.add_archive(archive)
    jit.add_object(compiled("int right(void); int f(void) { return right() * 2; }"))
    assert jit.lookup("f")() == 202
    assert defined(jit) == {"f", "right", "base"}


def test_archives_define_names_for_each_other(
    jit: CountedJIT, tmp_path: Path, links: list[set[str]]
) -> None:
    # Each needs the other, and both define one of the names.
    first = "int middle(void), last(void); int first(void) { return middle() + last(); }"
    last = "int last(void) { return 100; }"
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    jit.add_archive(archived(tmp_path / "1" / "lib.a", compiled(first), compiled(last)))
    middle = "int last(void); int middle(void) { return last() + 1; }"
    other = "int last(void) { return 900; }"
    jit.add_archive(archived(tmp_path / "2" / "lib.a", compiled(middle), compiled(other)))
    assert jit.lookup("first")() == 201
    assert links == [{"first", "middle", "last"}]


def test_members_that_are_linked_together_are_read_once(
    jit: CountedJIT, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number, code in enumerate((LEFT, LONELY, "int third(void) { return 3; }", RIGHT, BASE)):
        jit.main.add_generator(
            StaticLibraryGenerator(jit.layer, archived(tmp_path / f"{number}.a", compiled(code)))
        )
    names = ["left", "lonely", "third"]
    with caplog.at_level("DEBUG", "jitlink.formats"):
        assert set(jit.session.lookup(jit.main, names)) == set(names)
    assert [jit.lookup(name)() for name in names] == [102, 7, 3]
    read = [record.getMessage() for record in caplog.records if ": read " in record.getMessage()]
    assert len(read) == len(set(read)) == 5


def test_archives_are_searched_once_for_what_many_objects_need(
    jit: CountedJIT, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jit.main.add_generator(StaticLibraryGenerator(jit.layer, archive))
    jit.main.add_generator(DynamicLibraryGenerator.for_process(jit.session))
    searched: list[str] = []
    find = StaticLibraryGenerator.find

    def record(self: StaticLibraryGenerator, names: Iterable[str]) -> dict[int, str]:
        names = list(names)
        searched.extend(names)
        return find(self, names)

    monkeypatch.setattr(StaticLibraryGenerator, "find", record)
    for number in range(20):
        callee = f"f{number + 1}" if number < 19 else "lonely"
        jit.add_object(
            compiled(
                f"int getpid(void), {callee}(void);"
                f"int f{number}(void) {{ return getpid() ? {callee}() : 0; }}"
            )
        )
    assert jit.lookup("f0")() == 7
    # For all objects, and by links that do not find it in an archive; not for each object.
    assert 0 < searched.count("getpid") < 5


def test_undefined_weak_references_are_null(jit: CountedJIT, tmp_path: Path) -> None:
    user = "__attribute__((weak)) int base(void); int user(void) { return base ? 1 : 0; }"
    jit.add_archive(archived(tmp_path / "lib.a", compiled(user)))
    assert jit.lookup("user")() == 0


def test_objects_precede_members(jit: CountedJIT, archive: Path) -> None:
    jit.add_archive(archive)
    jit.add_object(compiled("int base(void) { return 500; }"))
    assert jit.lookup("left")() == 502


def test_generators_are_called_in_order(jit: CountedJIT, archive: Path, tmp_path: Path) -> None:
    library = shared_library(tmp_path / "libbase.so", "int base(void) { return 800; }")
    jit.main.add_generator(DynamicLibraryGenerator.load(jit.session, library))
    jit.add_archive(archive)
    assert jit.lookup("left")() == 802


def test_members_are_not_extracted_out_of_link_order(jit: CountedJIT, archive: Path) -> None:
    first = jit.create_jitdylib("first")
    jit.add_object(compiled("int base(void) { return 600; }"), dylib=first)
    order = [(first, flags) for _, flags in jit.main.link_order]
    jit.main.set_link_order([*order, *jit.main.link_order], link_against_this=False)
    jit.add_archive(archive)
    assert jit.lookup("left")() == 602
    assert "base" not in defined(jit)


@pytest.mark.parametrize("names", [["left"], ["lonely", "left_too"]])
def test_force_load_adds_everything(
    jit: CountedJIT, archive: Path, links: list[set[str]], names: list[str]
) -> None:
    jit.add_archive(archive, force_load=True)
    assert defined(jit) == {"left", "left_too", "right", "base", "lonely"}
    assert links == []
    jit.session.lookup(jit.main, names)
    assert len(links) == 1


def test_members_loaded_by_force_belong_to_a_tracker(jit: CountedJIT, archive: Path) -> None:
    tracker = jit.create_resource_tracker()
    generator = StaticLibraryGenerator(jit.layer, archive)
    generator.force_load(jit.main, tracker)
    generator.force_load(jit.main)
    assert jit.lookup("left")() == 102
    jit.remove(tracker)
    assert defined(jit) == set()
    assert jit.used_size == 0


def test_dlsym_extracts_nothing(jit: CountedJIT, archive: Path) -> None:
    jit.add_archive(archive)
    with pytest.raises(UndefinedSymbolError):
        jit.session.lookup(jit.main, "left", kind=LookupKind.DLSYM)
    assert defined(jit) == set()
    assert jit.lookup("left")() == 102
    found = jit.session.lookup(jit.main, "left", kind=LookupKind.DLSYM)
    assert found["left"].address


def test_removed_members_are_extracted_again(jit: CountedJIT, archive: Path) -> None:
    jit.add_archive(archive)
    for _ in range(3):
        assert jit.lookup("left")() == 102
        jit.main.default_tracker.remove()
        assert jit.used_size == 0


def test_an_archive_in_two_jitdylibs(jit: CountedJIT, archive: Path) -> None:
    other = jit.create_jitdylib("other")
    generator = StaticLibraryGenerator(jit.layer, archive.read_bytes())
    jit.main.add_generator(generator)
    other.add_generator(generator)
    assert jit.lookup("left") != jit.lookup("left", dylib=other)
    assert jit.lookup("left")() == jit.lookup("left", dylib=other)() == 102


def test_a_member_that_defines_what_exists(jit: CountedJIT, archive: Path) -> None:
    jit.add_archive(archive)
    jit.add_object(compiled("int left_too(void) { return 1; }"))
    for _ in range(2):
        with pytest.raises(DuplicateDefinitionError) as caught:
            jit.lookup("left")
        assert caught.value.name == "left_too"
        assert "member0.o" in caught.value.second
    assert defined(jit) == {"left_too"}


WEAK = "__attribute__((weak)) int value = 11; int get(void) { return value; }"
STRONG = "int value = 22; int needed(void) { return value; }"
USER = "int get(void), needed(void); int use(void) { return get() * 100 + needed(); }"
CONSTRUCTOR = "int needed(void); __attribute__((constructor)) static void run(void) { needed(); }"


def test_a_member_overrides_what_is_looked_up_with_it(
    jit: CountedJIT, tmp_path: Path, links: list[set[str]]
) -> None:
    jit.add_archive(archived(tmp_path / "libone.a", compiled(STRONG)))
    jit.add_object(compiled(WEAK))
    jit.add_object(compiled(USER))
    assert jit.lookup("use")() == 2222
    # Members of archives are a link of their own.
    assert sorted(map(sorted, links)) == [["get", "use"], ["needed", "value"]]


def test_a_member_overrides_what_is_linked_long_before_its_user(
    jit: CountedJIT, tmp_path: Path
) -> None:
    jit.layer.batch_objects = False
    jit.add_archive(archived(tmp_path / "libone.a", compiled(STRONG)))
    jit.add_object(compiled(WEAK))
    jit.add_object(compiled("int needed(void); int inner(void) { return needed(); }"))
    jit.add_object(compiled("int inner(void); int outer(void) { return inner(); }"))
    jit.add_object(compiled(USER.replace("needed", "outer")))
    assert jit.lookup("use")() == 2222


def test_a_member_overrides_nothing_that_was_looked_up(jit: CountedJIT, tmp_path: Path) -> None:
    jit.add_archive(archived(tmp_path / "libone.a", compiled(STRONG)))
    jit.add_object(compiled(WEAK))
    assert jit.lookup("get")() == 11
    jit.add_object(compiled(USER))
    with pytest.raises(FailedToMaterializeError) as caught:
        jit.lookup("use")
    assert isinstance(caught.value.reason, DuplicateDefinitionError)
    assert caught.value.reason.name == "value"
    assert jit.lookup("get")() == 11


def test_a_member_that_an_initialiser_needs(tmp_path: Path) -> None:
    with jitlink.LLJIT() as jit:
        jit.add_archive(archived(tmp_path / "libone.a", compiled(STRONG)))
        jit.add_object(compiled(WEAK))
        jit.add_object(compiled(CONSTRUCTOR))
        assert jit.lookup("get")() == 22
        jit.initialize()
        assert jit.lookup("get")() == 22


def test_a_member_that_cannot_be_read(jit: CountedJIT, tmp_path: Path) -> None:
    path = archived(tmp_path / "libtwo.a", compiled(STRONG), compiled(LONELY))
    data = bytearray(path.read_bytes())
    start = data.rindex(b"\x7fELF")
    data[start + 0x28 : start + 0x30] = b"\xff" * 8  # e_shoff
    generator = StaticLibraryGenerator(jit.layer, bytes(data))
    jit.main.add_generator(generator)
    jit.add_object(compiled("int lonely(void), one(void); int f(void) { return lonely(); }"))
    jit.add_object(compiled("int needed(void); int g(void) { return needed(); }"))
    # The error is that of the link which needs the member.
    with pytest.raises(FailedToMaterializeError) as caught:
        jit.lookup("f")
    assert isinstance(caught.value.reason, ObjectError)
    assert [each.symbol for each in generator.extractions] == ["lonely"]
    assert jit.lookup("g")() == 22


COMMON = "int value; int get(void) { return value; }"


@pytest.mark.parametrize("flags", ["rcs", "rcS"], ids=["indexed", "without an index"])
def test_data_of_a_later_member_replaces_a_common_symbol(
    jit: CountedJIT, tmp_path: Path, flags: str
) -> None:
    members = [tmp_path / "common.o", tmp_path / "data.o"]
    for path, source in zip(members, (COMMON.replace("get", "other"), STRONG), strict=True):
        shutil.copy(compiled(source, "-fcommon"), path)
    archive = tmp_path / "lib.a"
    run([require("ar"), flags, archive, *members])
    jit.add_archive(archive)
    jit.add_object(compiled(COMMON, "-fcommon"))
    assert jit.lookup("get")() == 22
    with jitlink.load(compiled(COMMON, "-fcommon"), archive) as library:
        assert library.function("get")() == 22


def test_data_of_one_member_replaces_several_common_symbols(
    jit: CountedJIT, tmp_path: Path
) -> None:
    both = archived(tmp_path / "libboth.a", compiled("int first = 1, second = 2;"))
    # Natively, the first archive that defines a name is searched.
    other = archived(tmp_path / "libother.a", compiled("int second = 3;"))
    source = "int first, second; int get(void) { return 10 * first + second; }"
    user = compiled(source, "-fcommon")
    jit.add_object(user)
    jit.add_archive(both)
    jit.add_archive(other)
    assert jit.lookup("get")() == 12
    with jitlink.load(user, both, other) as library:
        assert library.function("get")() == 12


def test_undefined_symbols_of_members(jit: CountedJIT, tmp_path: Path) -> None:
    library = archived(tmp_path / "libtwo.a", *map(compiled, (LEFT, RIGHT)))
    jit.add_archive(library)
    with pytest.raises(FailedToMaterializeError):
        jit.lookup("left")
    with pytest.raises(FailedToMaterializeError) as caught:
        jit.lookup("right")
    cause = caught.value.__cause__
    assert isinstance(cause, UndefinedSymbolError)
    assert cause.names == ("base",)
    (referrer,) = cause.referrers["base"]
    assert referrer.endswith("libtwo.a(member1.o)")
    assert jit.used_size == 0


def test_a_broken_archive(jit: CountedJIT, archive: Path) -> None:
    with pytest.raises(ArchiveError):
        jit.add_archive(archive.read_bytes()[:100])
