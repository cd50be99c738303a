"""Features that need a runtime: a program linked in memory behaves as it does natively.

By default each program is compiled by each compiler, with alternating levels and positions; with
JITLINK_LONG=1 in the environment in all combinations.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from typing import cast

import pytest
from _pytest.mark.structures import ParameterSet

from tests.runtime_programs.building import build
from tests.runtime_programs.programs import Case, programs, read_program
from tests.runtime_programs.running import Outcome, run_linked, run_native

LONG = os.environ.get("JITLINK_LONG") == "1"
CASES = [
    case
    for first, program in enumerate(programs())
    for case in (program.all_cases() if LONG else program.few_cases(first))
]

# Known differences, by patterns of cases, with their reasons.
DIFFERENCES = {
    "terminate.cpp-gcc-*-nopic-pure": (
        "the native program calls null: a static linker extracts no member for a weak reference"
    ),
}

Runs = dict[Case, Future[tuple[Outcome, Outcome]]]


def _run(case: Case) -> tuple[Outcome, Outcome]:
    built = build(case)
    return run_native(built.native, case.arguments), run_linked(built.inputs, case.arguments)


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest) -> Iterator[Runs]:
    """The selected cases, run in parallel: most of their time is start-up."""
    chosen = [
        cast("Case", item.callspec.params["case"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and "runs" in item.fixturenames
    ]
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        yield {case: pool.submit(_run, case) for case in chosen}
    finally:
        pool.shutdown(cancel_futures=True)


def _parameter(case: Case) -> ParameterSet:
    matching = (reason for each, reason in DIFFERENCES.items() if fnmatch(str(case), each))
    reason = next(matching, None)
    marks = [pytest.mark.xfail(reason=reason)] if reason else []
    return pytest.param(case, marks=marks, id=str(case))


@pytest.mark.parametrize("case", [_parameter(case) for case in CASES])
def test_a_feature(case: Case, runs: Runs) -> None:
    native, linked = runs[case].result()
    # Without output there is nothing to compare.
    assert native.output, native
    assert linked == native


def test_every_feature_is_run_by_every_compiler_in_every_way() -> None:
    few = [case for n, program in enumerate(programs()) for case in program.few_cases(n)]
    for compiler in ("gcc", "clang", "zig"):
        ways = {(case.level, case.is_pic) for case in few if case.compiler == compiler}
        assert len(ways) == (2 if compiler == "zig" else 4)
    for program in programs():
        mine = [case for case in few if case.program == program]
        assert {case.flags for case in mine} == set(program.flags)
        assert {case.arguments for case in mine} == set(program.runs)


def test_an_unknown_key(tmp_path: Path) -> None:
    source = tmp_path / "wrong.c"
    source.write_text("/* Text.\n *\n * pards: 2\n */\nint main(void) { return 0; }\n")
    with pytest.raises(ValueError, match="pards"):
        read_program(source)
