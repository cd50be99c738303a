"""Fixtures of the platform's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.orc.units import time_limit
from tests.platform.jits import NotingJIT, noting_jit


@pytest.fixture
def jit() -> Iterator[NotingJIT]:
    """A JIT with a platform, which must not hang and not leak."""
    with time_limit(), noting_jit() as created:
        yield created
