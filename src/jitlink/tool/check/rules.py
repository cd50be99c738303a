"""The rules in a file, as llvm-jitlink finds them.

A rule is the text after ``# NAME:`` at the start of a line, which may be indented. If the line ends
in a backslash, the rule continues on the next such line.

Quirks: lines end at a line feed, a carriage return or both. Within a continued rule empty lines
are skipped, and any other line ends the rule; the rule is dropped if the file ends first. A line
that begins with a null byte ends the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from jitlink.inputs import open_input

SPACE = " \t\n\v\f\r"
"""White space in files and expressions."""

_LINE = re.compile(r"[^\r\n]+")


class Position(NamedTuple):
    """A character of a file.

    Attributes:
        line: number of its line, from 1.
        column: its position in the line, from 1.
        text: the line.
    """

    line: int
    column: int
    text: str


class _Piece(NamedTuple):
    """The part of a rule on one line.

    Attributes:
        start: its offset in the rule.
        position: its position in the file.
    """

    start: int
    position: Position


@dataclass(frozen=True, slots=True)
class Rule:
    """One expression.

    Attributes:
        text: the expression, without white space around it.
        file: its file.
        pieces: its parts, one per line.
    """

    text: str
    file: str
    pieces: tuple[_Piece, ...]

    def position(self, offset: int = 0) -> Position:
        """The position in the file of a character of the expression, or of its end."""
        # The end of a piece is not the start of the next one.
        piece = next(
            (each for each in reversed(self.pieces) if each.start <= offset), self.pieces[0]
        )
        line, column, text = piece.position
        return Position(line, column + offset - piece.start, text)


def read_rules(file: str, name: str) -> Iterator[Rule]:
    """The rules of a file, in order.

    Args:
        file: its path.
        name: the name of the rules, before the colon.

    Raises:
        InputError: the file cannot be read.
    """
    text = bytes(open_input(file).data).decode("utf-8", "surrogateescape")
    return find_rules(text, file, name)


def find_rules(text: str, file: str, name: str) -> Iterator[Rule]:
    """The rules in the text of a file; see `read_rules`."""
    prefix = f"# {name}:"
    pending, pieces = "", list[_Piece]()
    for number, column, line in _lines(text):
        if line.startswith(prefix):
            start = Position(number, column + len(prefix), " " * (column - 1) + line)
            pieces.append(_Piece(len(pending), start))
            pending += line[len(prefix) :]
        if pending.endswith("\\"):
            pending = pending[:-1]
        elif pending:
            yield _rule(pending, file, pieces)
            pending, pieces = "", []
        else:
            pieces = []


def _lines(text: str) -> Iterator[tuple[int, int, str]]:
    """The lines that are not blank: number, column of the first character, and text from there."""
    position, number = 0, 1
    for match in _LINE.finditer(text):
        number += _line_ends(text[position : match.start()])
        position = match.end()
        line = match[0].lstrip(SPACE)
        if line.startswith("\0"):
            return
        if line:
            yield number, len(match[0]) - len(line) + 1, line


def _line_ends(text: str) -> int:
    """The number of line ends in some line feeds and carriage returns."""
    return len(re.findall(r"\r\n|\r|\n", text))


def _rule(text: str, file: str, pieces: list[_Piece]) -> Rule:
    """A rule of some lines, without the white space around it."""
    cut = len(text) - len(text.lstrip(SPACE))
    moved = tuple(_Piece(each.start - cut, each.position) for each in pieces)
    return Rule(text.strip(SPACE), file, moved)
