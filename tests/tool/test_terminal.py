"""Colour and progress: only on a terminal."""

import io
import os
import pty
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TextIO

import pytest

from jitlink.inputs import InputFile
from jitlink.tool.progress import Progress
from jitlink.tool.terminal import ProgressBar, in_red, is_terminal
from tests.tool.command import compile_to, spawn

SLOW = """
import sys, time
from jitlink.tool import session
load = session.CommandSession.load
def slow(self):
    time.sleep({seconds})
    load(self)
session.CommandSession.load = slow
from jitlink.tool.main import main
sys.exit(main())
"""


def _on_terminal(*words: str, **environment: str) -> tuple[int, str]:
    """Run Python with standard error on a terminal; exit status and what was written there."""
    master, slave = pty.openpty()
    variables = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "TERM"}}
    process = subprocess.Popen(
        [sys.executable, *words], stderr=slave, stdout=subprocess.DEVNULL,
        env=variables | {"TERM": "xterm"} | environment,
    )  # fmt: skip
    os.close(slave)
    written = b""
    try:
        # A read from a closed terminal raises an error.
        while piece := os.read(master, 4096):
            written += piece
    except OSError:
        pass
    os.close(master)
    return process.wait(), written.decode()


def test_errors_are_red_on_a_terminal_only() -> None:
    words = ("-m", "jitlink", "missing.o")
    text = "missing.o: No such file or directory"
    assert _on_terminal(*words) == (1, f"jitlink: \x1b[1;31merror:\x1b[0m {text}\r\n")
    plain = f"jitlink: error: {text}"
    assert _on_terminal(*words, NO_COLOR="1") == (1, f"{plain}\r\n")
    assert _on_terminal(*words, TERM="dumb") == (1, f"{plain}\r\n")
    assert _on_terminal(*words, NO_COLOR="")[1] != f"{plain}\r\n"
    assert spawn("missing.o") == (1, "", f"{plain}\n")


def test_long_links_have_a_bar_that_is_erased() -> None:
    compile_to(Path("main.o"), "int main(void) { return 7; }")
    Path("slow.py").write_text(SLOW.format(seconds=1.6))
    status, written = _on_terminal("slow.py", "main.o")
    assert status == 7
    frames = written.split("\r\x1b[K")
    assert frames[0] == ""
    assert len(frames) > 3
    for frame in frames[1:-1]:
        assert re.fullmatch(r"\[#*-*\] +\d+% \d+ s  \S.*", frame), frame
    assert frames[-1] == ""


def test_short_links_have_none() -> None:
    compile_to(Path("main.o"), "int main(void) { return 7; }")
    # A long delay makes the link short, however busy the machine is.
    Path("short.py").write_text(
        f"from jitlink.tool import terminal\nterminal._DELAY = 60\n{SLOW.format(seconds=0.2)}"
    )
    assert _on_terminal("short.py", "main.o") == (7, "")
    Path("slow.py").write_text(SLOW.format(seconds=1.5))
    # Nor with an option that prints lines.
    assert _on_terminal("slow.py", "main.o", "-show-linked-files") == (7, "")


def test_the_bar_is_erased_before_an_error() -> None:
    compile_to(Path("main.o"), "int f(void); int main(void) { return f(); }")
    Path("slow.py").write_text(SLOW.format(seconds=1.3))
    status, written = _on_terminal("slow.py", "main.o", NO_COLOR="1")
    assert status == 1
    assert written.endswith(
        "\r\x1b[Kjitlink: error: undefined symbol: f (referenced by main.o)\r\n"
    )


class _Terminal(io.StringIO):
    """A terminal that can be disconnected."""

    def __init__(self) -> None:
        super().__init__()
        self.is_unplugged = False

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.is_unplugged:
            raise OSError("unplugged")
        return super().write(text)


def test_the_bar_never_decreases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jitlink.tool.terminal._DELAY", 0.01)
    monkeypatch.setattr("jitlink.tool.terminal._PERIOD", 0.01)
    monkeypatch.setenv("TERM", "xterm")
    terminal, state = _Terminal(), [0.5]
    with ProgressBar(terminal, lambda: (state[0], "working")):
        _wait_for(lambda: " 50%" in terminal.getvalue())
        state[0] = 0.2
        before = len(terminal.getvalue())
        _wait_for(lambda: len(terminal.getvalue()) > before + 200)
        state[0] = 7.0
        _wait_for(lambda: "100%" in terminal.getvalue())
    assert "20%" not in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")


@pytest.mark.serial("counts threads")
def test_a_disconnected_terminal_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jitlink.tool.terminal._DELAY", 0.01)
    monkeypatch.setenv("TERM", "xterm")
    terminal = _Terminal()
    terminal.is_unplugged = True
    before = threading.active_count()
    with ProgressBar(terminal, lambda: (0.0, "working")):
        _wait_for(lambda: threading.active_count() == before)
    assert terminal.getvalue() == ""


def _wait_for(condition: object) -> None:
    assert callable(condition)
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_other_streams_have_no_colour_and_no_bar(stream: TextIO | None) -> None:
    assert not is_terminal(stream)
    assert in_red("text", stream) == "text"
    with ProgressBar(stream, lambda: (0.0, "")):
        assert all(thread.name != "jitlink bar" for thread in threading.enumerate())


def test_a_closed_stream_is_no_terminal() -> None:
    stream = io.StringIO()
    stream.close()
    assert not is_terminal(stream)


def test_progress_counts_what_is_read() -> None:
    progress = Progress()
    assert progress.state() == (0.0, "reading")
    progress.begin_reading([InputFile("a.o", memoryview(bytes(100)))])
    assert progress.state() == (0.0, "reading")
    progress.finish_reading()
    assert progress.state() == (0.2, "linking")
