"""Starts the command again, in the same process, with more static TLS.

The C library reserves static TLS when a process starts, and a setting in the environment says how
much. A command that links code which needs more replaces itself by one with that setting. This is
done before any of the program runs, and what the command had to print is printed by the new one.
The program gets the environment as it was: the variable of this module has what it replaces.

Inputs are read again, so that all of them have to be files; constructors of shared libraries that
had been loaded run again.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable

from jitlink.errors import StaticTLSError

VARIABLE = "JITLINK_STARTED_AGAIN"
"""How often the command was started again, and, behind an equal sign, the GLIBC_TUNABLES of the
first time, if there were any."""
_TUNABLES = "GLIBC_TUNABLES"
_MOST = 8


def restore_environment() -> int:
    """Restore the environment that the command was first started with.

    Returns:
        How often it was started again.
    """
    count, sign, tunables = os.environ.pop(VARIABLE, "").partition("=")
    if not count.isdecimal():
        return 0
    if sign:
        os.environ[_TUNABLES] = tunables
    else:
        os.environ.pop(_TUNABLES, None)
    return int(count)


def start_again(error: StaticTLSError, count: int) -> None:
    """Replace the command by one with the room that an error says was missing.

    Args:
        error: the error.
        count: how often it was started again.

    Returns if that is not possible.
    """
    command = sys.orig_argv
    if error.tunables is None or count >= _MOST or not sys.executable or not _are_files(command):
        return
    environment = dict(os.environ)
    given = environment.get(_TUNABLES)
    environment[VARIABLE] = f"{count + 1}" if given is None else f"{count + 1}={given}"
    environment[_TUNABLES] = error.tunables
    try:
        os.execve(sys.executable, command, environment)
    except OSError:
        return


def _are_files(words: Iterable[str]) -> bool:
    """Whether the inputs that words name are no pipes or terminals, of which what was read is gone.

    The words behind `-args` are the program's, which has read nothing.
    """
    for word in words:
        if word in {"-args", "--args"}:
            return True
        for path in (word, word.removeprefix("@"), word.partition("=")[2]):
            try:
                mode = os.stat(path).st_mode if path else 0  # noqa: PTH116 - pathlib is slow
            except (OSError, ValueError):
                continue
            is_stream = stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)
            if is_stream and path != os.devnull:
                return False
    return True
