"""The rows of the benchmark: their input files, generated once in the repository's `.cache/bench`.

A row is a list of object files (and perhaps an archive) with a function whose address is looked up.
If the function can be called, `expected` is its result, so that a wrong link does not count as a
fast one.

- `tiny`: one function.
- `sqlite3`: the whole of Debian's libsqlite3.a and a small root object. The root refers to the two
  ends of the archive (the library proper and the session extension), so that linkers that extract
  members on demand extract all that are not empty, too. Its function runs a query.
- `isel`: LLVM's X86ISelLowering.cpp.o, from Debian's libLLVMX86CodeGen.a, without its
  `.init_array`; all its references are undefined, so it is linked and never run.
- `1k` ... `100k`, `1k-fs` ...: one C file of that many relocations, half of them calls, half of
  them `.eh_frame`'s, without and with `-ffunction-sections`. The calls form a tree of two levels
  and as many branches as leaves on each, so that few functions have relocations of their own.
  Functions are global and position-independent.
- `10-objects` ...: that many objects in a binary tree of calls. Each defines one variable and one
  function, which adds its variable to the results of its at most two children.
- `tree`, `cycle`: 2,500 functions with `-ffunction-sections`, each of which calls one other: its
  parent in a binary tree (the root calls none), or the next one in a ring. Nothing else differs
  between the two.

- `1k-members`, `10k-members`, `100k-symbols`, `1m-symbols`, `10k-groups`, `100k-groups`: a growing
  number of objects, of symbols with a relocation each, of COMDAT groups (`bench/synthetic.py`).
- `llvm`, `grpc`: real programs (`bench/programs.py`).

Rows of sessions add objects as JITs do, from memory, to a session that lives (`bench/jit.py`).
Their one-function objects are copies of one object, with other names and values
(`bench/renamed.py`).

- `session-1000`: 1,000 such objects that call one another in a binary tree are added one by one to
  a new session; one lookup reaches all.
- `session-archive`: the files of `sqlite3` are added to a new session; a lookup.
- `jit-loop`: in a new session, 1,000 such objects are each added, looked up, called and removed,
  one after another.
- `reused-session-1` ...: an object of so many functions is added to a session that exists and has
  linked it before; a lookup. Its removal is not timed.
- `lazy-1000`: in a new session, 1,000 such objects are added and lazy functions defined for them;
  an object that calls all of these is added, looked up, and called.

The row `command` is a whole process: the time of `jitlink hello.o` or `llvm-jitlink hello.o`, which
link and run a program that prints a line. Its floor is an interpreter that imports NumPy.

Files are compiled by clang-22 with `-O1 -fPIC`; a row's directory is regenerated when its recipe
(sources, compiler version and options) changes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path

from bench import programs, renamed, synthetic
from bench.elf_counts import Counts, count, members

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "bench"

_COMPILER = "clang-22"
_OPTIONS = ("-O1", "-fPIC", "-w", "-c")
_OBJCOPY = "llvm-objcopy-22"
_SQLITE_ARCHIVE = Path("/usr/lib/x86_64-linux-gnu/libsqlite3.a")
_ISEL_ARCHIVE = Path("/usr/lib/llvm-22/lib/libLLVMX86CodeGen.a")
_ISEL_MEMBER = "X86ISelLowering.cpp.o"
_PROVIDED = frozenset({"__dso_handle", "_GLOBAL_OFFSET_TABLE_"})
_RING = 2500
# Against inlining.
_OPAQUE = "__attribute__((noinline, optnone))"


class WorkloadError(Exception):
    """A row's input files cannot be generated; the message has the reason."""


class Use(Enum):
    """What is done with the files of a row; the value is the note of a peer that cannot do it.

    Sessions are given objects as bytes and archives as paths. In `LOOP` and `LAZY`, the stem of an
    object's file name is the name of its function; in `LAZY` the first object has the entry.
    """

    LOAD = "links no files at once"  # all members of archives
    PROGRAM = "links no programs of archives that are searched"  # members that are needed
    COMMAND = "is no command that runs objects"
    SESSION = "has no sessions"  # a new one
    LOOP = "has no sessions from which objects are removed"  # each object on its own, in a new one
    REUSED = "has no sessions that can be used again"  # one that stays
    LAZY = "has no lazy functions"  # in a new session


@dataclass(frozen=True)
class Workload:
    """One row: files to link, and the function whose address is looked up.

    With `phony`, undefined symbols resolve to arbitrary addresses; otherwise they resolve against
    the process. `expected` is the result of the function, of type `int (void)`; None if it cannot
    be called. In a `LOOP`, it is the sum of the results of all functions. `libraries` are the
    shared libraries that it needs besides the C library. With `fills_tls`, it takes so much static
    TLS that a process can link it only once.
    """

    name: str
    paths: tuple[Path, ...]
    entry: str
    expected: int | None
    phony: bool = False
    use: Use = Use.LOAD
    libraries: tuple[str, ...] = ()
    fills_tls: bool = False

    @property
    def counts(self) -> Counts:
        """The contents of the files, counted on first use."""
        return _counts_of(self.paths)

    @property
    def phony_names(self) -> list[str]:
        """The undefined symbols of a phony row, except those that every linker defines."""
        return [name for name in self.counts.undefined if self.phony and name not in _PROVIDED]


@cache
def _counts_of(paths: tuple[Path, ...]) -> Counts:
    return count(*paths)


def workload(name: str) -> Workload:
    """The row of that name; generates its files if they do not exist.

    Raises WorkloadError if that fails, KeyError for an unknown name.
    """
    return _RECIPES[name](name)


def _tiny(name: str) -> Workload:
    source = "int bench_entry(void) { return 42; }\n"
    return Workload(name, _compiled(name, {"tiny": source}), "bench_entry", 42)


_SQLITE_ROOT = """
struct sqlite3; struct sqlite3_stmt; struct sqlite3_session;
int sqlite3_open(const char *, struct sqlite3 **);
int sqlite3_close(struct sqlite3 *);
int sqlite3_prepare_v2(struct sqlite3 *, const char *, int, struct sqlite3_stmt **, const char **);
int sqlite3_step(struct sqlite3_stmt *);
int sqlite3_column_int(struct sqlite3_stmt *, int);
int sqlite3_finalize(struct sqlite3_stmt *);
int sqlite3session_create(struct sqlite3 *, const char *, struct sqlite3_session **);
void sqlite3session_delete(struct sqlite3_session *);

int bench_entry(void) {
  struct sqlite3 *database = 0;
  struct sqlite3_stmt *statement = 0;
  struct sqlite3_session *session = 0;
  int value = -1;
  if (sqlite3_open(":memory:", &database) == 0 &&
      sqlite3session_create(database, "main", &session) == 0 &&
      sqlite3_prepare_v2(database, "with recursive n(i) as (values(1) union all "
                         "select i + 1 from n where i < 100) select sum(i) from n",
                         -1, &statement, 0) == 0 && sqlite3_step(statement) == 100)
    value = sqlite3_column_int(statement, 0);
  sqlite3_finalize(statement);
  sqlite3session_delete(session);
  sqlite3_close(database);
  return value;
}
"""


def _sqlite3(use: Use) -> Callable[[str], Workload]:
    def make(name: str) -> Workload:
        if not _SQLITE_ARCHIVE.exists():
            raise WorkloadError(f"{_SQLITE_ARCHIVE} is missing (Debian package libsqlite3-dev)")
        paths = (*_compiled(name, {"root": _SQLITE_ROOT}), _SQLITE_ARCHIVE)
        return Workload(name, paths, "bench_entry", 5050, use=use)

    return make


def _hello(name: str) -> Workload:
    source = 'int puts(const char *);\nint main(void) { puts("hello"); return 0; }\n'
    return Workload(name, _compiled(name, {"hello": source}), "main", None, use=Use.COMMAND)


def _isel(name: str) -> Workload:
    if not _ISEL_ARCHIVE.exists():
        raise WorkloadError(f"{_ISEL_ARCHIVE} is missing (Debian package llvm-22-dev)")
    stat = _ISEL_ARCHIVE.stat()
    recipe = f"{_ISEL_ARCHIVE} {stat.st_size} {stat.st_mtime_ns}"

    def make(folder: Path) -> None:
        whole = folder / "whole.o"
        archived = dict(members(_ISEL_ARCHIVE.read_bytes()))
        if _ISEL_MEMBER not in archived:
            raise WorkloadError(f"{_ISEL_ARCHIVE} has no member {_ISEL_MEMBER}")
        whole.write_bytes(archived[_ISEL_MEMBER])
        removed = ("-R", ".init_array", "-R", ".rela.init_array")
        _run(_OBJCOPY, *removed, str(whole), str(folder / _ISEL_MEMBER))
        whole.unlink()

    path = _made(name, recipe, make) / _ISEL_MEMBER
    return Workload(name, (path,), _counts_of((path,)).functions[0], None, phony=True)


def _generated(relocations: int, *options: str) -> Callable[[str], Workload]:
    # A tree of n functions has n - 1 calls and n frames: this gives `relocations + 1` of them.
    return _tree(relocations // 2 + 1, options)


def _tree(
    functions: int, options: tuple[str, ...] = (), use: Use = Use.LOAD
) -> Callable[[str], Workload]:
    """One object of functions that call one another in a tree of two levels."""
    branches = round(functions**0.5)

    def make(name: str) -> Workload:
        calls = [[*range(1, min(branches, functions - 1) + 1)]]
        calls += [
            [*range(first, min(first + branches, functions))]
            for first in range(1 + branches, functions, branches)
        ]
        calls += [[] for _ in range(functions - len(calls))]
        source = "".join(_functions(calls))
        paths = _compiled(name, {"tree": source}, options)
        return Workload(name, paths, "bench_entry", functions, use=use)

    return make


def _functions(calls: Iterable[list[int]]) -> list[str]:
    """C functions that return the number of functions called; `calls[i]` are function i's calls."""
    lists = list(calls)
    lines = [f"int f{index}(void);\n" for index in range(1, len(lists))]
    for index, callees in enumerate(lists):
        name = f"f{index}" if index else "bench_entry"
        total = " + ".join(["1", *(f"f{callee}()" for callee in callees)])
        lines.append(f"{_OPAQUE} int {name}(void) {{ return {total}; }}\n")
    return lines


def _objects(number: int) -> Callable[[str], Workload]:
    def make(name: str) -> Workload:
        sources = {}
        for index in range(number):
            callees = _children(index, number)
            declared = "".join(f"int f{child}(void); " for child in callees)
            total = " + ".join([f"v{index}", *(f"f{child}()" for child in callees)])
            function = f"f{index}" if index else "bench_entry"
            sources[f"f{index:04}"] = (
                f"{declared}int v{index} = {index}; int {function}(void) {{ return {total}; }}\n"
            )
        expected = number * (number - 1) // 2
        return Workload(name, _compiled(name, sources), "bench_entry", expected)

    return make


def _children(number: int, of: int) -> list[int]:
    """The children of a node of a binary tree of so many nodes."""
    return [child for child in (2 * number + 1, 2 * number + 2) if child < of]


def _session(number: int) -> Callable[[str], Workload]:
    """One-function objects that call one another in a binary tree."""

    def make(name: str) -> Workload:
        paths = _renamed(name, [_children(index, number) for index in range(number)])
        expected = number * (number - 1) // 2
        return Workload(name, paths, renamed.name(0), expected, use=Use.SESSION)

    return make


def _loop(number: int) -> Callable[[str], Workload]:
    """One-function objects that refer to nothing."""

    def make(name: str) -> Workload:
        paths = _renamed(name, [()] * number)
        expected = number * (number - 1) // 2
        return Workload(name, paths, renamed.name(0), expected, use=Use.LOOP)

    return make


def _lazy(number: int) -> Callable[[str], Workload]:
    """One-function objects, and a function that calls all of them."""

    def make(name: str) -> Workload:
        names = [renamed.name(index) for index in range(number)]
        lines = [f"int {each}(void);\n" for each in names]
        lines += ["int bench_entry(void) { int sum = 0;\n"]
        lines += [f"sum += {each}();\n" for each in names]
        root = _compiled(f"{name}-root", {"root": "".join([*lines, "return sum; }\n"])})
        paths = (*root, *_renamed(name, [()] * number))
        expected = number * (number - 1) // 2
        return Workload(name, paths, "bench_entry", expected, use=Use.LAZY)

    return make


def _graph(
    called_by: Callable[[int], int | None], start: int, steps: int
) -> Callable[[str], Workload]:
    """Functions that each call at most one other: `called_by(i)` is what function i calls.

    The entry follows the calls from function `start` for `steps` steps and returns their number.
    """
    lines = [f"int f{index}(int n);\n" for index in range(_RING)]
    for index in range(_RING):
        called = called_by(index)
        value = "0" if called is None else f"n ? f{called}(n - 1) + 1 : 0"
        lines.append(f"{_OPAQUE} int f{index}(int n) {{ return {value}; }}\n")
    lines.append(f"int bench_entry(void) {{ return f{start}({steps}); }}\n")

    def make(name: str) -> Workload:
        paths = _compiled(name, {"graph": "".join(lines)}, ("-ffunction-sections",))
        return Workload(name, paths, "bench_entry", steps)

    return make


def _synthetic(program: synthetic.Program) -> Callable[[str], Workload]:
    """A root object, and an archive of the other ones."""

    def make(name: str) -> Workload:
        def write(folder: Path) -> None:
            files = program.files()
            (folder / "root.o").write_bytes(next(files)[0])
            (folder / "members.a").write_bytes(synthetic.archive(files))

        source = Path(synthetic.__file__).read_text()
        folder = _made(name, f"{source} {program}", write)
        paths = (folder / "root.o", folder / "members.a")
        return Workload(name, paths, "bench_entry", program.result)

    return make


def _program(find: Callable[[], programs.RealProgram]) -> Callable[[str], Workload]:
    """A root object, and the archives as they are installed."""

    def make(name: str) -> Workload:
        try:
            program = find()
        except programs.ProgramError as error:
            raise WorkloadError(str(error)) from None
        # Some headers of C++ libraries are for g++ only.
        command = ("g++", "-O1", "-fPIC", "-w", "-c", *program.options)

        def compile_root(folder: Path) -> None:
            source = folder / "root.cpp"
            source.write_text(program.root)
            _run(*command, "-o", str(folder / "root.o"), str(source))

        folder = _made(name, repr((command, program)), compile_root)
        paths = (folder / "root.o", *program.archives)
        return Workload(
            name,
            paths,
            "bench_entry",
            42,
            use=Use.PROGRAM,
            libraries=tuple(program.libraries),
            fills_tls=program.fills_tls,
        )

    return make


_RECIPES: Mapping[str, Callable[[str], Workload]] = {
    "tiny": _tiny,
    "sqlite3": _sqlite3(Use.LOAD),
    "isel": _isel,
    "1k": _generated(1_000),
    "1k-fs": _generated(1_000, "-ffunction-sections"),
    "10k": _generated(10_000),
    "10k-fs": _generated(10_000, "-ffunction-sections"),
    "100k": _generated(100_000),
    "100k-fs": _generated(100_000, "-ffunction-sections"),
    "10-objects": _objects(10),
    "100-objects": _objects(100),
    "1000-objects": _objects(1_000),
    "tree": _graph(lambda i: (i - 1) // 2 if i else None, start=_RING - 1, steps=11),
    # Twice around, to include the call that closes the ring.
    "cycle": _graph(lambda i: (i + 1) % _RING, start=0, steps=2 * _RING),
    "1k-members": _synthetic(synthetic.Program(1_000)),
    "10k-members": _synthetic(synthetic.Program(10_000)),
    "100k-symbols": _synthetic(synthetic.Program(100, variables=1_000)),
    "1m-symbols": _synthetic(synthetic.Program(1_000, variables=1_000)),
    "10k-groups": _synthetic(synthetic.Program(100, groups=100)),
    "100k-groups": _synthetic(synthetic.Program(1_000, groups=100)),
    "llvm": _program(programs.llvm),
    "grpc": _program(programs.grpc),
    "session-1000": _session(1_000),
    "session-archive": _sqlite3(Use.SESSION),
    "jit-loop": _loop(1_000),
    "reused-session-1": _tree(1, use=Use.REUSED),
    "reused-session-100": _tree(100, use=Use.REUSED),
    "reused-session-1000": _tree(1_000, use=Use.REUSED),
    "lazy-1000": _lazy(1_000),
    "command": _hello,
}
ROWS = tuple(_RECIPES)


def _compiled(
    name: str, sources: dict[str, str], options: tuple[str, ...] = ()
) -> tuple[Path, ...]:
    """The objects of C sources, in their order."""
    command = (_COMPILER, *_OPTIONS, *options)

    def make(folder: Path) -> None:
        def compile_one(stem: str) -> None:
            source = folder / f"{stem}.c"
            source.write_text(sources[stem])
            _run(*command, "-o", str(folder / f"{stem}.o"), str(source))

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(compile_one, sources))

    folder = _made(name, repr((_compiler_version(), command, sources)), make)
    return tuple(folder / f"{stem}.o" for stem in sources)


def _renamed(name: str, callees: Sequence[Sequence[int]]) -> tuple[Path, ...]:
    """One-function objects: function i, whose value is i, calls the functions callees[i]."""
    numbers = sorted({len(each) for each in callees})
    sources = {f"calls{number}": renamed.source(number) for number in numbers}
    originals = dict(zip(numbers, _compiled(f"{name}-originals", sources), strict=True))

    def make(folder: Path) -> None:
        for index, each in enumerate(callees):
            data = renamed.renamed(originals[len(each)].read_bytes(), index, each, index)
            (folder / f"{renamed.name(index)}.o").write_bytes(data)

    generator = Path(renamed.__file__).read_text()
    folder = _made(name, repr((_compiler_version(), generator, callees)), make)
    return tuple(folder / f"{renamed.name(index)}.o" for index in range(len(callees)))


def _made(name: str, recipe: str, make: Callable[[Path], None]) -> Path:
    """The directory that `make` fills, again only if the recipe has changed."""
    folder = CACHE / name
    stamp = folder / "recipe"
    digest = hashlib.sha256(recipe.encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    make(folder)
    stamp.write_text(digest)
    return folder


@cache
def _compiler_version() -> str:
    return _run(_COMPILER, "--version")


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise WorkloadError(f"{command[0]} is not installed") from None
    if done.returncode:
        raise WorkloadError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return done.stdout
