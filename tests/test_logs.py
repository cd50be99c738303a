"""Loggers that are imported only when they are used."""

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
log.debug("%s", "this is not read")
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


def test_messages_are_written_once_logging_is_configured() -> None:
    assert _written(LATER) == "jitlink.some <string>: part of 2\n"


def test_errors_are_written_although_logging_was_not_imported() -> None:
    assert _written(ERROR) == "it fails\n"


def test_a_level_counts_at_once(caplog: pytest.LogCaptureFixture) -> None:
    log = Log("jitlink.some")
    log.debug("before")
    with caplog.at_level(logging.DEBUG, "jitlink.some"):
        log.debug("%s", "now")
    log.debug("after")
    assert caplog.messages == ["now"]
