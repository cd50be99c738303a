"""The same programs in another process: they behave as they do natively, but for few things."""

from __future__ import annotations

import os
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.executor.remote.executors import Setting
from tests.runtime_programs.building import build, link_native
from tests.runtime_programs.programs import Case, programs
from tests.runtime_programs.running import execute, linked_command, run_native
from tests.toolchain import compile_c, require

LONG = os.environ.get("JITLINK_LONG") == "1"
SETTINGS = [Setting(kind, "pipes", "shared") for kind in ("jitlink", "llvm22")]
# Programs that show how executors differ from a process of their own.
DIFFERENT = (
    "main_thread.c-*",  # There are other threads.
    # What main has written is flushed when it returns, before exit handlers run.
    "ends.c-*-return",
    "ends.c-*-signal",
    # The command does not end by the signal that ends the executor.
    "ends.c-*-abort",
    "process_name.c-*-assert",
    "terminate.cpp-*",
)
# The same for LLVM's executors.
DIFFERENT_WITH_LLVM = (
    "arguments.c-*",  # main gets copies of the arguments, and no environment.
    "signals.c-*",  # main runs on a thread of its own; signals are handled on any.
    "fork_return.c-*",  # What main returns in a forked process is sent, as if its parent had.
    "*-nopic*",  # Position-dependent code needs memory below 2 GiB.
)
# What a sandbox forbids, beside memory below 2 GiB.
FORBIDDEN = ("fork_return.c-*",)


def _is_one_of(case: Case, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(str(case), pattern) for pattern in patterns)


CASES = [
    case
    for first, program in enumerate(programs())
    for case in (program.all_cases() if LONG else program.few_cases(first))
    if case.compiler == ("gcc" if first % 2 else "clang") and not _is_one_of(case, DIFFERENT)
]


def _with_options(inputs: list[Path], options: list[str]) -> list[str]:
    words = linked_command(inputs)
    place = words.index("jitlink") + 1
    return [*words[:place], *options, *words[place:]]


def _out_of_process(inputs: list[Path], setting: Setting) -> list[str]:
    options = [f"-oop-executor={setting.program}", f"-use-memmgr={setting.memory}"]
    return _with_options(inputs, options)


@pytest.mark.parametrize(
    ("case", "setting"),
    [
        (case, setting)
        for case in CASES
        for setting in SETTINGS
        if setting.kind == "jitlink" or not _is_one_of(case, DIFFERENT_WITH_LLVM)
    ],
    ids=str,
)
def test_a_feature(case: Case, setting: Setting) -> None:
    built = build(case)
    native = run_native(built.native, case.arguments)
    assert native.output, native
    command = _out_of_process(list(built.inputs), setting)
    assert execute([*command, *case.arguments]) == native


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.is_pic and not _is_one_of(case, FORBIDDEN)],
    ids=str,
)
def test_a_feature_in_a_sandbox(case: Case) -> None:
    built = build(case)
    native = run_native(built.native, case.arguments)
    # There are temporary files and locales.
    settings = ("memory=4294967296", "write=/tmp", "read=/usr/lib/locale")
    options = [f"-oop-sandbox={setting}" for setting in settings]
    assert execute([*_with_options(list(built.inputs), options), *case.arguments]) == native


def test_programs_that_differ_exist() -> None:
    cases = [case for program in programs() for case in program.all_cases()]
    for pattern in DIFFERENT + DIFFERENT_WITH_LLVM + FORBIDDEN:
        assert any(_is_one_of(case, (pattern,)) for case in cases), pattern


def test_sqlite(tmp_path: Path) -> None:
    sources = Path(__file__).parents[1] / "real_programs/sources"
    compiled = compile_c(sources / "sqlite_shell.c", "gcc", ("-O2", "-fPIC"))
    inputs = [compiled, require("libsqlite3.a")]
    program = link_native("sqlite_shell.c", inputs, "-lm", "-ldl", "-lpthread")
    script = str(sources / "script.sql")
    native = run_native(program, [str(tmp_path / "native.db"), script])
    assert "40|140|80\nok" in native.output
    for setting in (*SETTINGS, Setting("llvm19", "pipes", "generic")):
        command = _out_of_process(inputs, setting)
        path = tmp_path / f"{setting}.db"
        assert execute([*command, str(path), script]) == native
    options = [f"-oop-sandbox=write={tmp_path}", f"-oop-sandbox=read={sources}"]
    command = _with_options(inputs, options)
    assert execute([*command, str(tmp_path / "sandbox.db"), script]) == native
