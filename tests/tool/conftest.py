"""Fixtures of the command's tests: each test runs in a directory of its own."""

from pathlib import Path

import pytest

from tests.tool.command import Command, in_process


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Command:
    """The command, run in this process."""
    return in_process(capfd)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
