"""Which definition prevails if an archive has one: the same everywhere, and as in GNU ld.

An object and an archive member, or two archive members, define ``value`` in all possible ways. The
program is linked by GNU ld, by `jitlink.load`, in sessions that link objects together or one by
one, and by the command, whose inputs are lazy or not. `PEERS` has where ld.lld and mold differ from
GNU ld.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import jitlink
from jitlink.tool.main import main
from tests.test_precedence import (
    DEFINITIONS,
    DUPLICATE,
    FIRST,
    SECOND,
    Outcome,
    assembled,
    by_linker,
    outcome,
    reason_in,
)
from tests.toolchain import compile_c, require

FUNCTION = """
    .text
    .globl value
    .type value, @function
    value: .long {0}
"""
KINDS = {**DEFINITIONS, "function": FUNCTION}
IS_LONG = os.environ.get("JITLINK_LONG") == "1"
CHOSEN = (
    ("strong", "weak", "common", "comdat", "weak comdat", "unique", "function")
    if not IS_LONG
    else tuple(KINDS)
)
NEEDED = """
    .text
    .globl needed{0}
    .type needed{0}, @function
needed{0}:
    xorl %eax, %eax
    ret
"""
MAIN = """
extern int value;
int needed1(void), needed2(void);
int main(void) {
    long address = (long)&value;
    return CALLS (address < 4096 ? (int)address : value);
}
"""


def _main(calls: str) -> Path:
    return compile_c(MAIN.replace("CALLS", calls), flags=["-O1", "-fPIC"])


def _archive(place: Path, *members: Path) -> Path:
    """An archive of those objects, as members of different names."""
    place.parent.mkdir(exist_ok=True)
    named = [place.parent / f"{place.stem}{number}.o" for number in range(len(members))]
    for member, path in zip(members, named, strict=True):
        shutil.copy(member, path)
    subprocess.run([require("ar"), "rcs", place, *named], check=True)
    return place


Layout = Callable[[str, str, Path], list[Path]]
"""The inputs of a program with two kinds of definitions, given a new directory."""


def member_needed(first: str, second: str, place: Path) -> list[Path]:
    """An object, and a member that is extracted for another name."""
    member = assembled(KINDS[second].format(SECOND) + NEEDED.format(2))
    archive = _archive(place / "lib.a", member)
    return [assembled(KINDS[first].format(FIRST)), _main("needed2() +"), archive]


def member_needed_by_what_is_needed(first: str, second: str, place: Path) -> list[Path]:
    """An object, and a member that is extracted for an object that ``main`` refers to."""
    member = assembled(KINDS[second].format(SECOND) + NEEDED.format(2))
    between = assembled(NEEDED.format(1).replace("xorl %eax, %eax", "jmp needed2@PLT"))
    archive = _archive(place / "lib.a", member)
    return [assembled(KINDS[first].format(FIRST)), between, _main("needed1() +"), archive]


def member_for_this_name(first: str, second: str, place: Path) -> list[Path]:
    """An object, and a member that is extracted for nothing else, before it."""
    archive = _archive(place / "lib.a", assembled(KINDS[second].format(SECOND)))
    return [archive, assembled(KINDS[first].format(FIRST)), _main("")]


def two_members(first: str, second: str, place: Path) -> list[Path]:
    """Two members that are extracted for other names."""
    members = [
        assembled(KINDS[kind].format(number) + NEEDED.format(n))
        for n, kind, number in ((1, first, FIRST), (2, second, SECOND))
    ]
    return [_archive(place / "lib.a", *members), _main("needed1() + needed2() +")]


def members_for_this_name(first: str, second: str, place: Path) -> list[Path]:
    """Two members: the first is extracted for this name, the second only if that is common."""
    members = [assembled(KINDS[k].format(n)) for k, n in ((first, FIRST), (second, SECOND))]
    return [_main(""), _archive(place / "lib.a", *members)]


LAYOUTS = (
    member_needed,
    member_needed_by_what_is_needed,
    member_for_this_name,
    two_members,
    members_for_this_name,
)
PEERS: dict[tuple[Layout, str, str], tuple[Outcome, Outcome, Outcome]] = {
    (member_needed, "weak", "strong"): (22, 22, 22),
    (member_needed, "strong", "weak"): (11, 11, 11),
    (member_needed, "common", "strong"): (22, 22, 22),
    # mold prefers weak definitions to common symbols.
    (member_needed, "weak", "common"): (0, 0, 11),
    (member_needed, "common", "weak"): (0, 0, 22),
    # To ld.lld, a unique definition is a weak one.
    (member_needed, "weak", "unique"): (22, 11, 22),
    # Neither knows .gnu.linkonce sections.
    (member_needed, "linkonce", "comdat"): (11, DUPLICATE, DUPLICATE),
    (member_for_this_name, "weak", "strong"): (11, 11, 11),
    # For a common symbol, ld.lld extracts nothing, and mold weak definitions and functions, too.
    (member_for_this_name, "common", "strong"): (22, 0, 22),
    (member_for_this_name, "common", "weak"): (0, 0, 22),
    (member_for_this_name, "common", "function"): (0, 0, 22),
}
"""What GNU ld, ld.lld and mold link."""
LAZY_LIMIT = member_needed_by_what_is_needed


def _by_load(inputs: list[Path]) -> int:
    with jitlink.load(*inputs) as library:
        status: int = library.main()
        return status


def _by_session(inputs: list[Path], *, batched: bool) -> int:
    with jitlink.LLJIT() as jit:
        jit.layer.batch_objects = batched
        for path in inputs:
            (jit.add_archive if path.suffix == ".a" else jit.add_object)(path)
        status: int = jit.lookup("main")()
        return status


def answers(inputs: list[Path], capture: pytest.CaptureFixture[str]) -> dict[str, Outcome]:
    found = {
        "load": outcome(partial(_by_load, inputs)),
        "session": outcome(partial(_by_session, inputs, batched=True)),
        "session, one by one": outcome(partial(_by_session, inputs, batched=False)),
    }
    capture.readouterr()
    status = main(list(map(str, inputs)))
    printed = capture.readouterr().err
    found["command"] = reason_in(printed) if printed else status
    return found


def by_lazy_command(inputs: list[Path]) -> Outcome:
    """The command of lazy inputs, in a process that it may abort."""
    lazy = [str(each) for path in inputs for each in ("-lazy", path)]
    done = subprocess.run(
        [sys.executable, "-m", "jitlink", *lazy], capture_output=True, text=True, check=False
    )
    return reason_in(done.stderr) if done.stderr else done.returncode


@pytest.mark.parametrize("first", CHOSEN)
@pytest.mark.parametrize("layout", LAYOUTS, ids=[layout.__name__ for layout in LAYOUTS])
def test_the_same_definition_prevails_everywhere(
    layout: Layout, first: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    differing = {}
    for number, second in enumerate(CHOSEN):
        inputs = layout(first, second, tmp_path / str(number))
        gnu = by_linker(require("ld"), inputs, tmp_path)
        found = answers(inputs, capsys)
        if IS_LONG and "function" not in {first, second} and layout is not LAZY_LIMIT:
            found["command, lazy"] = by_lazy_command(inputs)
        if set(found.values()) != {gnu}:
            differing[second] = gnu, {how: got for how, got in found.items() if got != gnu}
    assert not differing


@pytest.mark.parametrize("kinds", [("weak", "strong"), ("common", "strong"), ("weak", "weak")])
@pytest.mark.parametrize("layout", LAYOUTS, ids=[layout.__name__ for layout in LAYOUTS])
def test_lazy_inputs(layout: Layout, kinds: tuple[str, str], tmp_path: Path) -> None:
    inputs = layout(*kinds, tmp_path / "0")
    expected = by_linker(require("ld"), inputs, tmp_path)
    if layout is LAZY_LIMIT and kinds == ("weak", "strong"):
        # The member is extracted when the function that needs it is called.
        expected = DUPLICATE
    assert by_lazy_command(inputs) == expected


@pytest.mark.parametrize(("layout", "first", "second"), PEERS)
def test_other_linkers(layout: Layout, first: str, second: str, tmp_path: Path) -> None:
    inputs = layout(first, second, tmp_path / "0")
    found = [by_linker(require(name), inputs, tmp_path) for name in ("ld", "ld.lld-22", "mold")]
    assert tuple(found) == PEERS[layout, first, second]
    assert outcome(partial(_by_load, inputs)) == found[0]
