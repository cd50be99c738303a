"""Fixtures of the tests of sandboxes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from jitlink.errors import ExecutorError
from jitlink.executor import RemoteExecutorProcessControl, Sandbox
from tests.executor.remote.sandboxes import Place
from tests.toolchain import report_missing


@pytest.fixture(scope="session")
def sandboxes() -> None:
    """A system that can enforce everything."""
    try:
        RemoteExecutorProcessControl.launch(sandbox=Sandbox()).close()
    except ExecutorError as error:
        report_missing(f"a kernel that enforces a sandbox ({error})", "linux-image-amd64")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Directories inside and outside of a sandbox."""
    made = Place(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, str(value))
    yield made
    made.listening.close()
