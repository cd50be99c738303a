"""Debian's static archives: the command links them into programs that use them."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.tool.command import Done, compile_to, spawn
from tests.toolchain import require

PROGRAMS = Path(__file__).parent.parent / "programs"

SQL = (
    "create table towns (name text primary key, people integer)",
    "insert into towns values ('Bern', 134), ('Basel', 173), ('Chur', 38), ('Thun', null)",
    "select name, people * 2 from towns where people > 100 order by people desc",
    "select count(*), round(avg(people), 1), json_group_array(name) from towns",
    (
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < 100) "
        "select sum(i), group_concat(case when i < 4 then i end, '-') from n"
    ),
)
ROWS = 'Basel|346\nBern|268\n4|115.0|["Bern","Basel","Chur","Thun"]\n5050|1-2-3\n'

LUA = """
local squares = {}
for i = 1, 5 do squares[i] = i * i end
print(arg:upper(), #arg, table.concat(squares, ","), string.format("%.3f", math.pi))
print(select(2, pcall(error, {code = 7})).code, select("#", table.unpack(squares)))
local co = coroutine.wrap(function(a) local b = coroutine.yield(a + 1) return b * 2 end)
print(co(1), co(21), ("x=1, y=2"):gsub("(%w)=(%w)", "%2=%1"))
error("the end", 0)
"""
PRINTED = """HELLO\t5\t1,4,9,16,25\t3.142
7\t5
2\t42\t1=x, 2=y\t2
"""


TWICE = "int main(void) { int one(void), two(void); return one() * 10 + two(); }"


def test_members_of_one_name_are_told_apart() -> None:
    for place, source in (
        ("a", "int one(void) { return 1; }"),
        ("b", "int two(void) { return 2; }"),
    ):
        Path(place).mkdir()
        compile_to(Path(place, "same.o"), source)
    subprocess.run([require("ar"), "qcs", "libtwice.a", "a/same.o", "b/same.o"], check=True)
    compile_to(Path("twice.o"), TWICE)
    done = spawn("twice.o", "libtwice.a", "-show-linked-files", "-map", "map")
    assert done.status == 12
    names = {"libtwice.a(same.o)", "libtwice.a[1](same.o)"}
    assert {line.split()[1] for line in done.out.splitlines()} == {"twice.o", *names}
    assert all(name in Path("map").read_text() for name in names)
    rules = "".join(
        f"# jitlink-check: section_addr(libtwice.a[{n}](same.o), .text) = {name}\n"
        for n, name in enumerate(("one", "two"))
    )
    Path("rules").write_text(rules)
    options = ("twice.o", "libtwice.a", "-noexec", "-check", "rules")
    assert spawn(*options) == Done(0, "", "")
    peer = subprocess.run([require("llvm-jitlink-22"), *options], check=False, capture_output=True)
    assert peer.returncode == 0, peer.stderr


def test_sqlite_runs_queries() -> None:
    require("libsqlite3.a")
    compile_to(Path("query.o"), PROGRAMS / "sqlite_query.c")
    assert spawn("query.o", "-lsqlite3", "-args", *SQL) == Done(0, ROWS, "")
    wrong = spawn("query.o", "-lsqlite3", "-args", "select missing")
    assert wrong == Done(3, "", "no such column: missing\n")


def test_lua_runs_a_script() -> None:
    require("liblua5.4.a")
    compile_to(Path("lua.o"), PROGRAMS / "lua_script.c")
    Path("script.lua").write_text(LUA)
    done = spawn("lua.o", "-llua5.4", "-args", "script.lua", "hello")
    assert done == Done(1, PRINTED, "the end\n")


@pytest.mark.parametrize("name", ["z", "zstd"])
def test_compression_round_trip(name: str) -> None:
    require(f"lib{name}.a")
    program = "zlib_round_trip.c" if name == "z" else "zstd_round_trip.c"
    compile_to(Path("pack.o"), PROGRAMS / program)
    assert spawn("pack.o", f"-l{name}") == Done(0, "1048576 packed well\n", "")


@pytest.mark.parametrize(
    ("program", "library"),
    [
        ("sqlite_query.c", "libsqlite3.a"),
        # Not liblua5.4.a: llvm-jitlink refuses its symbols of internal visibility.
        ("zlib_round_trip.c", "libz.a"),
        ("zstd_round_trip.c", "libzstd.a"),
    ],
)
def test_same_members_are_linked_as_by_llvm_jitlink(
    program: str, library: str, llvm_jitlink: Path
) -> None:
    compile_to(Path("main.o"), PROGRAMS / program)
    words = ["main.o", str(require(library)), "-noexec", "-show-linked-files"]
    # Several threads would interleave lines.
    command: list[str | Path] = [llvm_jitlink, "-num-threads=0", *words]
    peer = subprocess.run(command, capture_output=True, text=True, check=True)
    ours, theirs = spawn(*words).out.splitlines(), peer.stdout.splitlines()
    assert sorted(ours) == sorted(re.sub(r"\[\d+\]", "", line) for line in theirs)
    assert len(ours) > 2


@pytest.mark.parametrize("name", ["sqlite3", "lua5.4", "z", "zstd"])
def test_whole_archive_is_linked(name: str) -> None:
    library = require(f"lib{name}.a")
    done = spawn(library, "-all_load", "-noexec", "-phony-externals", "-show-linked-files")
    assert (done.status, done.err) == (0, "")
    # Members without global symbols cannot be looked up, so they are not linked.
    words = ["nm", "--print-file-name", "--defined-only", "--extern-only", str(library)]
    names = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    members = dict.fromkeys(re.findall(r":([^:]+\.o):", names))
    assert [re.sub(r".*\((.*)\)", r"\1", line) for line in done.out.splitlines()] == [*members]
