"""The link map: it covers every byte, and agrees with other linkers and reports."""

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from jitlink.graph import LinkGraph
from jitlink.memory import InProcessMemoryManager
from jitlink.memory.layout import BasicLayout
from jitlink.memory.manager import InFlightAlloc, JITLinkDylib
from tests.tool.command import Command, archive, compile_to, error
from tests.toolchain import require

PROGRAMS = Path(__file__).parent.parent / "programs"
LIBRARIES = {
    "sqlite3": "sqlite_query.c",
    "lua5.4": "lua_script.c",
    "z": "zlib_round_trip.c",
    "zstd": "zstd_round_trip.c",
}


class Row(NamedTuple):
    """A line of the memory part."""

    address: int
    size: int
    indent: int
    what: str


class Map(NamedTuple):
    """A parsed map.

    Attributes:
        objects: reason by object.
        segments: segments with the rows in them.
        totals: bytes of blocks, of padding and of both, by protection.
        discarded: object, section, size and reason.
        externals: address and place by name.
    """

    objects: dict[str, str]
    segments: list[tuple[Row, list[Row]]]
    totals: dict[str, tuple[int, ...]]
    discarded: list[tuple[str, str, int, str]]
    externals: dict[str, tuple[int, str]]


def read_map(text: str) -> Map:
    """Parse a map; fails on malformed lines."""
    parts = re.split(r"^(Objects|Memory|Totals|Read and not loaded|Symbols from elsewhere)\n\n",
                     text, flags=re.MULTILINE)  # fmt: skip
    assert parts[0] == ""
    objects, memory, totals, discarded, externals = parts[2::2]
    found = Map({}, [], {}, [], {})
    for line in objects.strip("\n").splitlines():
        name, _, reason = line.strip().partition("  ")
        found.objects[name] = reason.strip()
    for line in memory.strip("\n").splitlines()[1:]:
        if line:
            match = re.fullmatch(r"(0x[0-9a-f]{16}) +(0x[0-9a-f]+) {2}([ 0-9]{6})  ( *)(.*)", line)
            assert match is not None, line
            row = Row(int(match[1], 16), int(match[2], 16), len(match[4]), match[5])
            if row.indent == 0:
                found.segments.append((row, []))
            else:
                found.segments[-1][1].append(row)
    for line in totals.strip("\n").splitlines()[1:]:
        name, *numbers = line.split()
        found.totals[name] = tuple(map(int, numbers))
    file = ""
    for line in discarded.strip("\n").splitlines():
        if match := re.fullmatch(r"    +(0x[0-9a-f]+)  (\S+) +(.*)", line):
            found.discarded.append((file, match[2], int(match[1], 16), match[3]))
        else:
            file = line.strip()
    for line in externals.strip("\n").splitlines():
        match = re.fullmatch(r"(0x[0-9a-f]{16})  (\S+)( \(.*\))? {2,}(\S.*)", line)
        assert match is not None or line == "  none", line
        if match is not None:
            found.externals[match[2]] = int(match[1], 16), match[4]
    return found


def check_complete(found: Map) -> int:
    """Check that blocks and padding fill each segment; returns the number of bytes."""
    for segment, rows in found.segments:
        position = segment.address
        for row in rows:
            if row.indent == 2:
                # An empty block may be anywhere.
                assert row.address == position or row.size == 0, row
                position += row.size
            else:
                assert segment.address <= row.address <= segment.address + segment.size
        assert position == segment.address + segment.size
    total = sum(segment.size for segment, _ in found.segments)
    assert found.totals["all"][2] == total
    assert sum(numbers[2] for name, numbers in found.totals.items() if name != "all") == total
    return total


@pytest.fixture
def memory_used(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Address and size of all allocated segments."""
    used: list[tuple[int, int]] = []
    allocate = InProcessMemoryManager.allocate

    async def record(
        self: InProcessMemoryManager, dylib: JITLinkDylib | None, graph: LinkGraph
    ) -> InFlightAlloc:
        sizes = [segment.size for segment in BasicLayout(graph).segments]
        alloc = await allocate(self, dylib, graph)
        layout = alloc._layout  # type: ignore[attr-defined]
        used.extend((each.address, each.size) for each in layout.segments)
        assert [each.size for each in layout.segments] == sizes
        return alloc

    monkeypatch.setattr(InProcessMemoryManager, "allocate", record)
    return used


@pytest.mark.parametrize("name", LIBRARIES)
def test_every_loaded_byte_is_in_the_map(
    command: Command, memory_used: list[tuple[int, int]], name: str
) -> None:
    library = require(f"lib{name}.a")
    compile_to(Path("main.o"), PROGRAMS / LIBRARIES[name])
    words = ("main.o", library, "-noexec", "-map", "link.map", "-show-addrs")
    done = command(*words, "-show-linked-files")
    assert (done.status, done.err) == (0, "")
    found = read_map(Path("link.map").read_text())
    assert check_complete(found) == sum(size for _, size in memory_used)
    assert sorted((row.address, row.size) for row, _ in found.segments) == sorted(memory_used)
    linked = re.findall(r"^Linking (.*)$", done.out, re.MULTILINE)
    assert sorted(linked) == sorted(found.objects)
    # The report of addresses has the same symbols, GOT entries, stubs and sizes.
    rows = {row for _, inside in found.segments for row in inside}
    symbols = re.findall(
        r'^  "(.*)" target addr = (0x\w+), (?:content: .* \((\d+) bytes\)|zero-fill: (\d+) bytes)$',
        done.out,
        re.MULTILINE,
    )
    assert len(symbols) > 20
    named = {(row.address, row.what.split(" (")[0]): row.size for row in rows if row.indent == 6}
    for symbol, address, content, zero in symbols:
        assert named[int(address, 16), symbol] == int(content or zero)
    entries = set(
        re.findall(r'^  (GOT|Stubs) "(.*)": target addr = (0x\w+)', done.out, re.MULTILINE)
    )
    shown = {
        ({"$__GOT": "GOT", "$__STUBS": "Stubs"}[match[1]], match[2], f"{row.address:#018x}")
        for row in rows
        if (match := re.fullmatch(r"(\$__GOT|\$__STUBS) +\(linker\) for (\S+).*", row.what))
    }
    # The report of addresses omits unused GOT entries and stubs.
    assert entries <= shown


@pytest.mark.parametrize("name", LIBRARIES)
def test_members_are_read_for_reasons(command: Command, name: str) -> None:
    """The members that ld.lld extracts, each for a name that it defines and another refers to."""
    library, lld = require(f"lib{name}.a"), require("ld.lld-22")
    compile_to(Path("main.o"), PROGRAMS / LIBRARIES[name])
    assert command("main.o", library, "-noexec", "-map", "link.map").status == 0
    objects = read_map(Path("link.map").read_text()).objects
    options = ["-e", "main", "--unresolved-symbols=ignore-all", "--why-extract=why", "-o", "out"]
    words: list[str | Path] = [lld, *options, "main.o", library]
    subprocess.run(words, check=True, capture_output=True)
    extracted = {line.split("\t")[1] for line in Path("why").read_text().splitlines()[1:]}
    assert objects.pop("main.o") == "named in the command"
    assert objects.keys() == extracted
    defined, undefined = _names("main.o", str(library))
    for member, reason in objects.items():
        match = re.fullmatch(r"for (\S+)(?: \(.*\))?, wanted by (.*)", reason)
        assert match is not None, reason
        assert match[1] in defined[member]
        assert match[1] in undefined[match[2]]


def _names(*files: str) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Global names that objects define and refer to, by display name."""
    defined: dict[str, set[str]] = {}
    undefined: dict[str, set[str]] = {}
    for file in files:
        words = ["nm", "--print-file-name", "--extern-only", "--format=posix", file]
        out = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        for line in out.splitlines():
            place, name, kind = line.split()[:3]
            match = re.fullmatch(r"(.*?)(?:\[(.*)\])?:", place)
            assert match is not None
            shown = f"{match[1]}({match[2]})" if match[2] else match[1]
            (undefined if kind in "Uvw" else defined).setdefault(shown, set()).add(name)
    return defined, undefined


CPLUSPLUS = """
template <class T> struct Box { T value; __attribute__((noinline)) T get() { return value; } };
extern "C" int puts(const char *);
int %s(int x) { Box<int> box{x}; return box.get(); }
"""


def test_discarded_comdat_groups_and_sections_are_listed(command: Command) -> None:
    flags = ("-ffunction-sections", "-g")
    compile_to(Path("main.o"), "int one(int), two(int); int main(void) { return one(1) + two(2); }")
    for name in ("one", "two"):
        text = f'extern "C" int {name}(int);' + CPLUSPLUS % name
        _compile_cplusplus(Path(f"{name}.o"), text, *flags)
    done = command("main.o", "one.o", "two.o", "-noexec", "-map", "-")
    assert (done.status, done.err) == (0, "")
    found = read_map(done.out)
    check_complete(found)
    groups = [each for each in found.discarded if "COMDAT" in each[3]]
    assert {(file, why) for file, _, _, why in groups} == {
        ("two.o", "of COMDAT group _ZN3BoxIiE3getEv (Box<int>::get()), kept from one.o")
    }
    assert any(
        why == "never loaded" and ".debug" in section for _, section, _, why in found.discarded
    )


def _compile_cplusplus(place: Path, text: str, *flags: str) -> None:
    source = place.with_suffix(".cc")
    source.write_text(text)
    words: list[str | Path] = [
        require("g++"),
        "-O1",
        "-fno-exceptions",
        *flags,
        "-c",
        source,
        "-o",
        place,
    ]
    subprocess.run(words, check=True)


def test_unlinked_objects_and_externals_are_listed(command: Command) -> None:
    text = """
    int puts(const char *); int fixed(void); int nick(void); int late(void);
    int maybe(void) __attribute__((weak));
    static int unused(void) { return 3; }
    int main(void) { return maybe ? maybe() : puts("") + fixed() + nick() + late(); }
    """
    compile_to(Path("main.o"), text, "gcc", "-ffunction-sections")
    weak = "__attribute__((weak)) int main(void) { return 1; } int idle(void) { return 2; }"
    compile_to(Path("weak.o"), weak, "gcc", "-ffunction-sections")
    compile_to(Path("late.o"), "int late(void) { return 1; }")
    compile_to(Path("idle.o"), "int never(void) { return 1; }")
    archive(Path("liblate.a"), Path("late.o"), Path("idle.o"))
    words = ["main.o", "weak.o", "liblate.a", "-abs", "fixed=0x10000", "-alias", "nick=puts"]
    found = read_map(command(*words, "-noexec", "-map", "-").out)
    assert found.objects == {
        "main.o": "named in the command",
        "liblate.a(late.o)": "for late, wanted by main.o",
        "weak.o": "named in the command; not linked: nothing leads to it",
    }
    assert found.externals["fixed"] == (0x10000, "-abs, for main.o")
    assert found.externals["nick"][1] == "-alias of puts, for main.o"
    assert found.externals["maybe"] == (0, "undefined: weakly referenced, for main.o")
    assert re.search(r"/libc\S*\.so\S*, for main\.o$", found.externals["puts"][1])
    assert found.externals["nick"][0] == found.externals["puts"][0]


def test_an_overridden_definition_is_discarded(command: Command) -> None:
    compile_to(Path("main.o"), "int f(void); int main(void) { return f(); }")
    compile_to(Path("weak.o"), "__attribute__((weak)) int f(void) { return 1; } int g;", "gcc",
               "-ffunction-sections")  # fmt: skip
    compile_to(Path("strong.o"), "extern int g; int f(void) { return g; }")
    found = read_map(command("main.o", "weak.o", "strong.o", "-noexec", "-map", "-").out)
    assert ("weak.o", ".text.f", "f is that of strong.o") in [
        (file, section, why) for file, section, _, why in found.discarded
    ]


def test_lazy_objects_and_members_are_linked_when_they_are_called(command: Command) -> None:
    compile_to(Path("f.o"), "int f(void) { return 1; }")
    compile_to(Path("g.o"), "int g(void) { return 2; }")
    compile_to(Path("unused.o"), "int unused(void) { return 3; }")
    compile_to(Path("m.o"), "int f(void), g(void); int main(void) { return f() + g(); }")
    archive(Path("libg.a"), Path("g.o"))
    words = ("m.o", "-lazy", "f.o", "-L.", "-lazy", "-lg", "unused.o")
    done = command(*words, "-jd", "other", "-abs", "x=7", "-map=-", "-noexec")
    assert (done.status, done.err) == (0, "")
    found = read_map(done.out)
    check_complete(found)
    assert found.externals["x"] == (7, "-abs")
    assert {name: found.objects[name] for name in ("f.o", "unused.o", "./libg.a(g.o)")} == {
        "f.o": "named in the command; not linked: nothing has called it yet",
        "./libg.a(g.o)": "for g, wanted by m.o; not linked: nothing has called it yet",
        "unused.o": "named in the command; not linked: nothing leads to it",
    }


def test_maps_of_one_command_are_equal_in_a_slab(command: Command) -> None:
    compile_to(Path("main.o"), "int f(int), t[9]; int main(void) { return f(t[1]); }", "gcc")
    compile_to(Path("f.o"), "int f(int x) { static int n; return n += x; }", "gcc")
    library = archive(Path("libf.a"), Path("f.o"))
    words = ["main.o", library, "-noexec", "-slab-allocate", "4Mb", "-slab-address", "0x100000"]
    assert command(*words, "-map", "one").status == 0
    assert command(*words, "-map", "two").status == 0
    assert Path("one").read_bytes() == Path("two").read_bytes()
    check_complete(read_map(Path("one").read_text()))


def test_other_architectures(command: Command) -> None:
    for machine in ("aarch64", "riscv64"):
        text = "int far(int); int table[9]; int main(void) { return far(table[2]); }"
        other = "int far(int x) { return x; }"
        for name, code in (("main", text), ("far", other)):
            _compile_for(machine, Path(f"{name}.o"), code)
        done = command("main.o", "far.o", "-noexec", "-map", "-")
        assert (done.status, done.err) == (0, "")
        check_complete(read_map(done.out))


def _compile_for(machine: str, place: Path, text: str) -> None:
    from tests.toolchain import compile_c  # noqa: PLC0415

    target = f"{machine}-linux-musl"
    place.write_bytes(compile_c(text, "zig", ("-O1",), target=target).read_bytes())


def test_control_characters_in_names_are_escaped(command: Command) -> None:
    compile_to(
        Path("a.o"), "int two_lines(void) { return 1; } int main(void) { return two_lines(); }"
    )
    Path("a.o").write_bytes(Path("a.o").read_bytes().replace(b"two_lines", b"two\n\xff\x80nes"))
    done = command("a.o", "-map", "link.map", "-noexec")
    assert (done.status, done.err) == (0, "")
    assert "two\\x0a\\xff\\x80nes\n" in Path("link.map").read_text()


@pytest.mark.parametrize(
    ("name", "reason"), [("no/such/place", "No such file or directory"), (".", "Is a directory")]
)
def test_a_map_that_cannot_be_written(command: Command, name: str, reason: str) -> None:
    compile_to(Path("a.o"), "int main(void) { return 3; }")
    assert command("a.o", "-map", name) == error(f"cannot write {name}: {reason}")
