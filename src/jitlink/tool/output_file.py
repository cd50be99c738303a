"""Output files of a command."""

from __future__ import annotations

from typing import TextIO

from jitlink.errors import JITLinkError


class OutputFileError(JITLinkError):
    """A file that cannot be written.

    Attributes:
        path: the file.
    """

    def __init__(self, path: str, error: OSError | ValueError) -> None:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        super().__init__(f"cannot write {path}: {reason}")
        self.path = path


def open_output(path: str) -> TextIO:
    """Open a text file for writing; names in it may be any bytes.

    Raises:
        OutputFileError: it cannot be opened.
    """
    try:
        return open(path, "w", encoding="utf-8", errors="surrogateescape", newline="\n")  # noqa: PTH123
    except (OSError, ValueError) as error:  # A null byte in the name is a ValueError.
        raise OutputFileError(path, error) from error
