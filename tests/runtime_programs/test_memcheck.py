"""Linked code under valgrind's memcheck: it reads and writes only its own memory.

The interpreter has errors of its own. An error counts if its stack has linked code, which is in no
file, above the interpreter. Takes minutes; only with JITLINK_LONG=1 in the environment.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.runtime_programs.building import build
from tests.runtime_programs.programs import SOURCES, Case, read_program
from tests.runtime_programs.running import Outcome, execute, linked_command, run_native
from tests.toolchain import compile_c, require

pytestmark = pytest.mark.skipif(
    os.environ.get("JITLINK_LONG") != "1", reason="takes minutes; JITLINK_LONG=1"
)
PROGRAMS = (
    "constructors.c",
    "tls_alignment.c",
    "tls_models.c",
    "inline_variables.cpp",
    "thread_objects.cpp",
    "unwinding.cpp",
    "callbacks.cpp",
)
WRONG = """
#include <stdio.h>
#include <stdlib.h>
int main(void) {
  int *numbers = malloc(4);
  if (numbers[1])
    puts("beyond");
  free(numbers);
  return 0;
}
"""
_SECONDS = 1200


def _check(inputs: Sequence[Path], arguments: Sequence[str], report: Path) -> tuple[Outcome, int]:
    """Run a program under memcheck; returns the outcome, and the number of its errors."""
    words = [str(require("valgrind")), "--quiet", "--xml=yes", f"--xml-file={report}"]
    command = [*words, *linked_command(inputs), *arguments]
    outcome = execute(command, seconds=_SECONDS)
    errors = ET.parse(report).getroot().findall("error")
    return outcome, sum(map(_is_of_linked_code, errors))


def _is_of_linked_code(error: ET.Element) -> bool:
    if (error.findtext("kind") or "").startswith("Leak_"):
        # A program leaks natively, too.
        return False
    for frame in error.findall("stack[1]/frame"):
        file = frame.findtext("obj")
        if file is None:
            return True
        if "python" in Path(file).name:
            return False
    return False


@pytest.mark.parametrize("name", PROGRAMS)
def test_linked_code_has_no_errors(name: str, tmp_path: Path) -> None:
    program = read_program(SOURCES / name)
    case = Case(program, "gcc", "-O0", True, program.flags[0], program.runs[0])
    built = build(case)
    outcome, errors = _check(built.inputs, case.arguments, tmp_path / "report.xml")
    assert errors == 0
    assert outcome == run_native(built.native, case.arguments)


def test_an_error_is_detected(tmp_path: Path) -> None:
    path = compile_c(WRONG, "gcc", ("-O0", "-fPIC"))
    outcome, errors = _check([path], (), tmp_path / "report.xml")
    assert outcome.status == 0
    assert errors == 1
