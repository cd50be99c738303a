"""Lazy inputs of a command: their stubs, speculation, and the record of first calls.

A record of first calls, and an order of speculation, are text files of one format. Each line is the
name of a JITDylib and that of a function's body, separated by a comma, in the order of the first
calls::

    main, helper$orc_fnbody
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TextIO

from jitlink.errors import InputError
from jitlink.inputs import open_input
from jitlink.orc.lazy import Speculator
from jitlink.orc.object_layer import ObjectLinkingLayer
from jitlink.orc.stubs import FunctionBody, IndirectStubsManager, LazyCallError, StubsListener
from jitlink.tool.options import CommandLine
from jitlink.tool.output_file import OutputFileError, open_output


class LazyLinking:
    """The stubs, the speculator and the record of a command with lazy inputs.

    Args:
        layer: links the inputs.
        line: the command.

    Attributes:
        stubs: creates the stubs.

    Raises:
        InputError: the order of speculation cannot be read.
        OutputFileError: the record cannot be written.
        SessionError: lazy stubs are not supported on this processor.
    """

    def __init__(self, layer: ObjectLinkingLayer, line: CommandLine) -> None:
        self._speculator: Speculator | None = None
        self._record: ExecutionRecord | None = None
        listeners: list[StubsListener] = []
        if line.speculate != "none" and line.threads != 0:
            order = line.speculate_order
            suggestions = () if order is None else read_order(order)
            self._speculator = Speculator(layer.session, suggestions)
            listeners.append(self._speculator)
        if line.record_lazy_execs is not None:
            self._record = ExecutionRecord(line.record_lazy_execs)
            listeners.append(self._record)
        self.stubs = IndirectStubsManager(layer, listeners=listeners)

    def call(self, program: Callable[[], int]) -> int:
        """Call a program; returns 1 if it is a lazy function that cannot be linked.

        In that case the session's error handler has reported the error.
        """
        try:
            return program()
        except LazyCallError:
            return 1

    def close(self) -> None:
        """Stop speculation, and close the record.

        Raises:
            OutputFileError: the record could not be written.
        """
        if self._speculator is not None:
            self._speculator.stop()
        if self._record is not None:
            self._record.close()


class ExecutionRecord:
    """Records first calls of lazy functions; a listener of stubs.

    Each line is written before the function begins, so the record is complete however the program
    ends.

    LLVM differs: it writes the file when the program has returned.

    Args:
        path: the file, which is overwritten.

    Raises:
        OutputFileError: it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: TextIO = open_output(path)
        self._seen: set[FunctionBody] = set()
        self._error: OSError | None = None

    def stubs_emitted(self, bodies: object) -> None:
        """Only calls are recorded."""

    def stub_called(self, body: FunctionBody) -> None:
        """Record a call; an error is kept for `close`, because the call must go on."""
        # Threads that outlive the program's main may still call.
        if body in self._seen or self._file.closed:
            return
        self._seen.add(body)
        try:
            self._file.write(f"{body.dylib.name}, {body.name}\n")
            self._file.flush()
        except OSError as error:
            self._error = error

    def close(self) -> None:
        """Close the file.

        Raises:
            OutputFileError: it could not be written.
        """
        try:
            self._file.close()
        except OSError as error:
            self._error = error
        if self._error is not None:
            raise OutputFileError(self._path, self._error) from self._error


def read_order(path: str) -> list[tuple[str, str]]:
    """Read the order of speculation.

    Returns:
        Names of JITDylibs and of bodies.

    Raises:
        InputError: the file cannot be read, or a line has no such names.
    """
    text = bytes(open_input(path).data).decode("utf-8", "surrogateescape")
    return list(_pairs(path, text))


def _pairs(path: str, text: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        dylib, comma, function = (part.strip() for part in line.partition(","))
        if not (dylib and comma and function):
            raise InputError(f"line {number} is not of the form JITDYLIB, FUNCTION", file=path)
        yield dylib, function
