"""Loggers that are not imported by who does not use them."""

import logging
import subprocess
import sys

import pytest

from jitlink.logs import Log

LATER = """
import sys
from jitlink.logs import Log
log = Log("jitlink.some")
assert not log.is_on
log.debug("%s", "nobody reads this")
assert "logging" not in sys.modules
import logging
log.debug("%s", "this neither")
logging.basicConfig(level=logging.DEBUG, format="%(name)s %(filename)s: %(message)s")
assert log.is_on
log.debug("%s of %d", "part", 2)
"""
ERROR = """
from jitlink.logs import Log
Log("jitlink.some").logger.error("it fails")
"""


def _written(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stderr


def test_messages_are_written_from_when_somebody_wants_them() -> None:
    assert _written(LATER) == "jitlink.some <string>: part of 2\n"


def test_errors_are_written_even_if_nobody_has_imported_the_loggers() -> None:
    assert _written(ERROR) == "it fails\n"


def test_a_level_counts_at_once(caplog: pytest.LogCaptureFixture) -> None:
    log = Log("jitlink.some")
    log.debug("before")
    with caplog.at_level(logging.DEBUG, "jitlink.some"):
        log.debug("%s", "now")
    log.debug("after")
    assert caplog.messages == ["now"]
