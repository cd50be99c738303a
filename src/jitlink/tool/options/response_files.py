"""Response files: a word ``@FILE`` of a command stands for the words in that file.

Words are separated by white space. Single or double quotes keep white space in a word, and a
backslash, within quotes or without, the character behind it. The words may be response files
again. A word that names no existing file stands for itself.
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
    """The words of a command with response files replaced by their words.

    Args:
        words: the words.
        within: the response files that they came from, outermost first.

    Raises:
        CommandLineError: a response file cannot be read, is no text, or includes itself.
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
    """Cut the text of a response file into words."""
    # Compiled here, because few commands have response files.
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
