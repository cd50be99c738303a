"""Values of options: their conversion from text, and their storage in a `CommandLine`.

The functions that convert a text raise ValueError with a reason if the text is invalid. The
functions below them are stores, or return one, for the column `store` of the table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Literal

from jitlink.tool.options.command_line import (
    DEFAULT_ENTRY,
    AliasArgument,
    CommandLine,
    DylibArguments,
    InputArgument,
    LibraryPreference,
    SectionArgument,
    Store,
)

_SIZE_UNITS = {"": 10, "kb": 10, "mb": 20, "gb": 30}


def number(text: str) -> int:
    """A number in C's notation, of at most 64 bits."""
    if not re.fullmatch(r"0x[0-9a-fA-F]+|0b[01]+|0o[0-7]+|0[0-7]*|[1-9][0-9]*", text):
        raise ValueError(f"{text!r} is not a number")
    octal = re.fullmatch(r"0[0-7]+", text)
    # Python refuses decimal numbers of thousands of digits.
    value = 1 << 64 if len(text) > 66 else int(text, 8 if octal else 0)
    if value >> 64:
        raise ValueError(f"{text} does not fit 64 bits")
    return value


def size(text: str) -> int:
    """A number of bytes, from a text that without a unit counts kilobytes."""
    parts = re.fullmatch(r"([0-9]{1,20})([A-Za-z]*)", text)
    if parts is None or parts[2].lower() not in _SIZE_UNITS:
        raise ValueError(f"{text!r} is not a size, such as 64Kb, 10Mb or 1Gb")
    count = int(parts[1]) << _SIZE_UNITS[parts[2].lower()]
    if not 0 < count < 1 << 63:
        raise ValueError(f"{text} is not a possible size")
    return count


def _pair(text: str, syntax: str) -> tuple[str, str]:
    first, equals, second = text.partition("=")
    if not first or not equals or not second:
        raise ValueError(f"{text!r} is not of the form {syntax}")
    return first, second


def definition(text: str) -> tuple[str, int]:
    """``NAME=ADDRESS``."""
    name, address = _pair(text, "NAME=ADDRESS")
    return name, number(address)


def alias(text: str) -> AliasArgument:
    """``[JD:]NEW=[JD:]OLD``; a JITDylib named only for the new name defines the old one too."""
    new, old = _pair(text, "NEW=OLD")
    dylib, name = _qualified(new)
    target_dylib, target = _qualified(old)
    return AliasArgument(name, target, dylib, target_dylib or dylib)


def _qualified(text: str) -> tuple[str | None, str]:
    dylib, _, name = text.partition(":")
    return (dylib or None, name) if name else (None, dylib)


def section(text: str) -> SectionArgument:
    """``SECTION,FILE[@NAME=OFFSET,...]``."""
    syntax = "SECTION,FILE[@NAME=OFFSET,...]"
    place, _, symbols = text.rpartition("@") if "@" in text else (text, "", "")
    name, _, file = place.rpartition(",")
    if not name or not file:
        raise ValueError(f"{text!r} is not of the form {syntax}")
    pairs = [_pair(each, syntax) for each in symbols.split(",") if each]
    return SectionArgument(name, file, tuple((each, number(offset)) for each, offset in pairs))


def symbol_name(text: str) -> str:
    """The name of a symbol."""
    if not text:
        raise ValueError("a symbol needs a name")
    return text


def pattern(text: str) -> re.Pattern[str]:
    """A regular expression."""
    try:
        return re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}") from error


def output_file(text: str) -> str:
    """The name of an output file, or ``-``."""
    if not text or "\0" in text:
        raise ValueError(f"{text!r} is not the name of a file")
    return text


def boolean(text: str) -> bool:
    """``true`` or ``false``."""
    if text.lower() not in {"true", "1", "false", "0"}:
        raise ValueError(f"{text!r} is neither true nor false")
    return text.lower() in {"true", "1"}


def negated(text: str) -> bool:
    """The opposite of `boolean`, for an option that turns something off."""
    return not boolean(text)


def executor_address(text: str) -> tuple[str, int] | str:
    """A host and a TCP port, separated by a colon; brackets surround an IPv6 address.

    What has a slash is the path of a Unix socket.
    """
    if "/" in text:
        return text
    # Newer versions of LLVM have a word for the protocol before the address.
    host, _, port = text.removeprefix("tcp:connect=").rpartition(":")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 1 << 16:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def one_of(choices: Collection[str]) -> Callable[[str], str]:
    """A converter that accepts one of these words."""

    def choose(text: str) -> str:
        if text not in choices:
            raise ValueError(f"{text!r} is not one of {', '.join(choices)}")
        return text

    return choose


# Stores for the whole command


def put(destination: str, convert: Callable[[str], object] = str) -> Store:
    """A store that sets an attribute; the last value of a repeated option holds."""

    def store(line: CommandLine, text: str) -> None:
        setattr(line, destination, convert(text))

    return store


def append(destination: str, convert: Callable[[str], object] = str) -> Store:
    """A store that appends to a list."""

    def store(line: CommandLine, text: str) -> None:
        getattr(line, destination).append(convert(text))

    return store


def put_entry(line: CommandLine, text: str) -> None:
    """Set the entry point; an empty name selects the default."""
    line.entry = text or DEFAULT_ENTRY


def add_loggers(line: CommandLine, text: str) -> None:
    """Add the names of loggers."""
    line.debug_only += [name for name in text.split(",") if name]


def accept(line: CommandLine, text: str) -> None:  # noqa: ARG001 - part of the interface
    """Accept a flag that has no effect."""
    boolean(text)


def refuse(reason: str) -> Store:
    """A store that refuses a flag unless its value is ``false``."""

    def store(line: CommandLine, text: str) -> None:  # noqa: ARG001 - part of the interface
        if boolean(text):
            raise ValueError(reason)

    return store


# Stores for the next input, and for the JITDylib that was named last


def append_here(destination: str, convert: Callable[[str], object] = str) -> Store:
    """A store that appends to a list of the JITDylib that was named last."""

    def store(line: CommandLine, text: str) -> None:
        getattr(line.dylibs[-1], destination).append(convert(text))

    return store


def add_input(
    kind: Literal["file", "library"], linkage: Literal["plain", "hidden", "weak"] = "plain"
) -> Store:
    """A store that adds an input of this kind."""

    def store(line: CommandLine, text: str) -> None:
        line.add_input(InputArgument(kind, text, linkage, line.next_is_lazy, line.preference))

    return store


def search_for(preference: LibraryPreference) -> Store:
    """A store that sets which libraries are searched for from here on."""

    def store(line: CommandLine, text: str) -> None:
        if boolean(text):
            line.preference = preference

    return store


def begin_dylib(line: CommandLine, text: str) -> None:
    """Begin the JITDylib that all following arguments belong to."""
    if not text:
        raise ValueError("a JITDylib needs a name")
    if any(each.name == text for each in line.dylibs):
        raise ValueError(f"there is a JITDylib {text} already")
    line.dylibs.append(DylibArguments(text))


def begin_lazy(line: CommandLine, text: str) -> None:
    """Set whether the next input is lazy."""
    line.next_is_lazy = boolean(text)
