"""Fixtures of the session tests: sessions that end with the test, and have a time limit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jitlink.orc import ExecutionSession, JITDylib
from tests.orc.sessions import StubSession, stub_session
from tests.orc.units import time_limit


@pytest.fixture
def session() -> Iterator[ExecutionSession]:
    """A session."""
    with time_limit(), ExecutionSession() as session:
        yield session


@pytest.fixture
def main(session: ExecutionSession) -> JITDylib:
    """The JITDylib of the session that most tests use."""
    return session.create_jitdylib("main")


@pytest.fixture
def lazy() -> Iterator[StubSession]:
    """A session with stubs."""
    with stub_session() as created:
        yield created
