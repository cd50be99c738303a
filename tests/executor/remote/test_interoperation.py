"""The interoperation of controllers and executors: jitlink's and LLVM's, in one table.

`docs/executor-setup.md` has the same table.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from jitlink.executor.remote.memory_kinds import MemoryKind
from tests.executor.remote.executors import Setting
from tests.executor.remote.interoperation import (
    CONTROLLERS,
    HANGS,
    Controller,
    Program,
    expected,
    program,
    run,
)

DOCS = Path(__file__).parents[3] / "docs" / "executor-setup.md"
EXECUTORS = {"jitlink": "jitlink-executor", "llvm22": "LLVM 22's", "llvm19": "LLVM 19's"}
TRANSPORTS = {"pipes": "pipes", "tcp": "TCP"}
LONG = os.environ.get("JITLINK_LONG") == "1"
MEMORY: tuple[MemoryKind, ...] = ("generic", "shared")
PROGRAMS = ("hello", "C++", "sqlite3")

WORKS = "works"
# What does not, and why.
NO_RUNTIME = "An error of llvm-jitlink: C++ needs the runtime there"
HANGING = (
    "The program runs, and llvm-jitlink never ends: it waits for the end of the connection, which "
    "jitlink's executor ends when it is idle, with `--timeout=SECONDS`"
)
NO_SERVICE = "An error of llvm-jitlink, which looks for services of its own version"
MESSAGES = {
    NO_SERVICE: "__llvm_orc_SimpleExecutorDylibManager_resolve_wrapper",
    NO_RUNTIME: "Symbols not found: [ __dso_handle ]",
}


def outcome(controller: Controller, executor: str, transport: str, name: str) -> str:
    """What the table says."""
    if not controller.is_llvm:
        return WORKS
    if executor == "llvm19":
        return NO_SERVICE
    if name == "C++" and not controller.has_orc_runtime:
        return NO_RUNTIME
    # It waits for the executor to close the connection, which jitlink's does after its --timeout.
    return HANGING if (executor, transport) == ("llvm22", "tcp") else WORKS


def table() -> str:
    """The table of the documentation: per program the outcome, where it is not the same for all."""
    places = [(executor, transport) for executor in EXECUTORS for transport in TRANSPORTS]
    heads = [f"{EXECUTORS[executor]}, {TRANSPORTS[transport]}" for executor, transport in places]
    rows = [["", *heads], ["---"] * (len(heads) + 1)]
    notes: dict[str, str] = {}
    for controller in CONTROLLERS:
        row = [str(controller)]
        for executor, transport in places:
            found = {p: outcome(controller, executor, transport, p) for p in PROGRAMS}
            cells = []
            for what in dict.fromkeys(found.values()):
                names = [name for name in PROGRAMS if found[name] == what]
                text = "yes" if what == WORKS else notes.setdefault(what, f"({len(notes) + 1})")
                cells.append(text if len(names) == len(PROGRAMS) else f"{', '.join(names)}: {text}")
            row.append("; ".join(cells))
        rows.append(row)
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*lines, "", *(f"{note} {text}.\n" for text, note in notes.items())])


def cases() -> Iterator[tuple[Controller, Setting, str]]:
    """What is tested; by default each cell once: one kind of memory by pipes, the other by TCP."""
    cells = product(CONTROLLERS, EXECUTORS, TRANSPORTS, PROGRAMS)
    for number, (controller, executor, transport, name) in enumerate(cells):
        what = outcome(controller, executor, transport, name)
        # Failures do not depend on the memory. LLVM's controller may hang after an error, too.
        if what == WORKS:
            kinds = MEMORY if LONG else (MEMORY[number % 2],)
        else:
            kinds = MEMORY[:1] if LONG or what == NO_RUNTIME or name == PROGRAMS[0] else ()
        for memory in kinds:
            yield controller, Setting(executor, transport, memory), name


CASES = list(cases())


def test_the_table_in_the_documentation() -> None:
    assert table() in DOCS.read_text()


def remove_files(directory: Path) -> None:
    """Remove what the program has left."""
    for path in directory.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("controller", "setting", "name"),
    CASES,
    ids=[f"{controller}-{setting}-{name}" for controller, setting, name in CASES],
)
def test_a_program(controller: Controller, setting: Setting, name: str, tmp_path: Path) -> None:
    chosen: Program = program(name, tmp_path)
    what = outcome(controller, setting.kind, setting.transport, name)
    done = run(controller, setting, chosen)
    if what == WORKS:
        remove_files(tmp_path)
        wanted = expected(chosen)
        # LLVM's controller with LLVM's executor loses the output at times.
        attempts = 4 if controller.is_llvm and setting.kind != "jitlink" else 0
        while done != wanted and attempts:
            remove_files(tmp_path)
            done, attempts = run(controller, setting, chosen), attempts - 1
        assert done == wanted
    elif what == HANGING or done.status == HANGS:
        # LLVM's controllers may also hang after an error, over TCP.
        assert controller.is_llvm
        assert setting.transport == "tcp"
    else:
        assert done.status == 1
        assert MESSAGES[what] in done.errors
