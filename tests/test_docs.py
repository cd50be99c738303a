"""The code in the documentation does what it says.

The first word after a fence is the kind of block: ``c NAME.c FLAG...`` is compiled to NAME.o,
where the flag PYTHON_HEADERS means those of this Python, and --target=T another target; ``python``
is run; ``console`` has commands after ``$`` and their output. The blocks of a page share a
directory and a namespace.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.extension_sources import include_flag
from tests.toolchain import HOST_TARGET, compile_c

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_TARGET = "--target="
_BLOCK = re.compile(r"^```(\w+)(?: ([^\n]+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> Iterator[tuple[str, str, str]]:
    for match in _BLOCK.finditer(page.read_text()):
        yield match.group(1), match.group(2) or "", match.group(3)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": page.stem}
    for language, name, text in blocks(page):
        if language == "c":
            file, *flags = name.split()
            source = tmp_path / file
            source.write_text(text)
            flags = [include_flag() if flag == "PYTHON_HEADERS" else flag for flag in flags]
            targets = [flag for flag in flags if flag.startswith(_TARGET)]
            target = targets[0].removeprefix(_TARGET) if targets else HOST_TARGET
            flags = ["-O1", *(flag for flag in flags if flag not in targets)]
            compiled = compile_c(source, flags=flags, target=target)
            shutil.copy(compiled, source.with_suffix(".o"))
        elif language == "python":
            exec(compile(text, f"{page.name}: {text.splitlines()[0]}", "exec"), namespace)
        elif language == "console":
            check_console(text, tmp_path)


def check_console(text: str, directory: Path) -> None:
    """Run the jitlink commands of a block, in another process too, and compare their output."""
    for command, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
        if command.startswith("jitlink "):
            assert output(command, directory) == expected, command
            if "-noexec" not in command:
                remote = command.replace("jitlink ", "jitlink -oop-executor ", 1)
                assert output(remote, directory) == expected, remote


def output(command: str, directory: Path) -> str:
    return subprocess.run(
        f"{sys.executable} -m {command}",
        shell=True,
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    ).stdout


def test_relocations_page_is_up_to_date() -> None:
    from jitlink.tool.relocation_reference import page  # noqa: PLC0415

    assert (ROOT / "docs" / "relocations.md").read_text() == page()
