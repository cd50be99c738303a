"""Response files: a word ``@FILE`` of a command stands for the words in that file.

White space separates words. Single or double quotes keep white space in a word; a backslash,
within quotes or without, escapes the next character. The words may name response files again.
``@FILE`` is an ordinary word if no such file exists.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

from jitlink.tool.options.command_line import CommandLineError

# One piece of a word: quoted text (the closing quote may be missing at the end of the file),
# an escaped character, or plain characters. Dots match line feeds.
_PIECE = r"""
    '((?:[^'\\]|\\.)*)(?:'|\\?\Z) | "((?:[^"\\]|\\.)*)(?:"|\\?\Z) | \\(.?) | ([^\s'"\\]+)
"""
_ESCAPE = r"(?s)\\(.)"


def expand(words: Sequence[str], within: tuple[str, ...] = ()) -> Iterator[str]:
    """The words of a command, with response files replaced by the words in them.

    Args:
        words: the words.
        within: the response files that contain the words, outermost first.

    Raises:
        CommandLineError: a response file cannot be read, is not text, or includes itself.
    """
    for word in words:
        name = word[1:]
        if not word.startswith("@") or not os.path.exists(name):  # noqa: PTH110
            yield word
            continue
        place = os.path.realpath(name)
        if place in within:
            raise CommandLineError(f"response file {name} includes itself")
        yield from expand(split(_read(name)), (*within, place))


def split(text: str) -> list[str]:
    """Split the text of a response file into words."""
    # Compiled on use, because few commands have response files.
    piece_at = re.compile(_PIECE, re.DOTALL | re.VERBOSE).match
    words = []
    position = _skip_space(text, 0)
    while position < len(text):
        pieces = []
        while piece := piece_at(text, position):
            single, double, escaped, plain = piece.groups()
            quoted = single if single is not None else double
            if quoted is not None:
                pieces.append(re.sub(_ESCAPE, r"\1", quoted))
            else:
                pieces.append(escaped if escaped is not None else plain)
            position = piece.end()
        words.append("".join(pieces))
        position = _skip_space(text, position)
    return words


def _skip_space(text: str, position: int) -> int:
    while text[position : position + 1].isspace():
        position += 1
    return position


def _read(name: str) -> str:
    try:
        with open(name, "rb") as file:  # noqa: PTH123
            text = os.fsdecode(file.read())
    except OSError as error:
        raise CommandLineError(f"response file {name}: {error.strerror}") from error
    if "\0" in text:
        raise CommandLineError(f"response file {name} is not a text file")
    return text.removeprefix("\ufeff")
