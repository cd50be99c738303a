"""The options of the command: one table, from which parsing and the help page are made.

An option is one `Option` row of `OPTIONS`. Nothing else needs to know it but the field of
`CommandLine` that it fills in and whoever reads that field.

All options take one dash or two, and their value as the next word or behind ``=``. A flag may
be given a value too: ``-noexec=false``. What `-args` is followed by belongs to the program,
whatever it looks like; what `-harness` is followed by, up to `-args`, are its files. After ``--``
everything is a file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Literal, get_args

from jitlink.errors import JITLinkError

DEFAULT_ENTRY = "main"
DEFAULT_CHECK_NAME = "jitlink-check"

GraphFormat = Literal["text", "json", "dot"]
"""How link graphs are printed."""


class CommandLineError(JITLinkError):
    """A command that cannot be understood or obeyed.

    Attributes:
        option: name of the option at fault, without dashes; None if it is none.
    """

    def __init__(self, message: str, *, option: str | None = None) -> None:
        super().__init__(message if option is None else f"-{option}: {message}")
        self.option = option


@dataclass(frozen=True, slots=True)
class InputArgument:
    """One input as the command names it.

    Attributes:
        kind: ``file`` for a path, ``library`` for the name that `-l` was given.
        name: the path or the name.
    """

    kind: Literal["file", "library"]
    name: str


@dataclass(slots=True)
class CommandLine:
    """What the words of a command say; each field is described with its option."""

    inputs: list[InputArgument] = field(default_factory=list)
    library_directories: list[str] = field(default_factory=list)
    all_load: bool = False
    definitions: list[tuple[str, int]] = field(default_factory=list)
    aliases: list[tuple[str, str]] = field(default_factory=list)
    phony_externals: bool = False
    harness: list[str] = field(default_factory=list)
    entry: str = DEFAULT_ENTRY
    arguments: list[str] = field(default_factory=list)
    noexec: bool = False
    slab_size: int | None = None
    slab_address: int | None = None
    slab_page_size: int | None = None
    check_files: list[str] = field(default_factory=list)
    check_name: str = DEFAULT_CHECK_NAME
    show_addrs: bool = False
    show_graphs: re.Pattern[str] | None = None
    show_graphs_format: GraphFormat = "text"
    show_linked_files: bool = False
    show_times: bool = False
    map_file: str | None = None
    traced_symbols: list[str] = field(default_factory=list)
    debug_only: list[str] = field(default_factory=list)
    help: bool = False
    version: bool = False


class Form(Enum):
    """How an option stands in a command: ``-name``, ``-name value``, ``-namevalue`` too."""

    FLAG = auto()
    VALUE = auto()
    JOINED = auto()
    REST = auto()
    """Takes all words that follow, to the end."""
    FILES = auto()
    """Takes all words that follow, to one of form REST or the end."""


class Group(Enum):
    """What a user wants to do; the help page has a part for each."""

    INPUTS = "Inputs"
    SYMBOLS = "Symbols"
    RUNNING = "Running"
    MEMORY = "Memory"
    LOOKING = "Looking inside"
    HELP = "Help"


Store = Callable[[CommandLine, str], None]


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table.

    Attributes:
        name: without dashes.
        form: how it stands in a command.
        group: its part of the help page.
        summary: what it does, in one sentence without a final stop.
        store: puts its value into the command line; raises ValueError with a reason if there
            is no such value. A flag has the value ``true`` or ``false``.
        value: what its value is, as the help page writes it; empty for a flag.
    """

    name: str
    form: Form
    group: Group
    summary: str
    store: Store
    value: str = ""

    @property
    def usage(self) -> str:
        """How it is written."""
        if self.form is Form.FLAG:
            return f"-{self.name}"
        return f"-{self.name}{'' if self.form is Form.JOINED else ' '}{self.value}"


# Values: each function turns the text of a value into what the command line holds.


def _number(text: str) -> int:
    """A number as C writes it, of at most 64 bits."""
    if not re.fullmatch(r"0x[0-9a-fA-F]+|0b[01]+|0o[0-7]+|0[0-7]*|[1-9][0-9]*", text):
        raise ValueError(f"{text!r} is not a number")
    octal = re.fullmatch(r"0[0-7]+", text)
    # Python refuses decimal numbers of thousands of digits.
    value = 1 << 64 if len(text) > 66 else int(text, 8 if octal else 0)
    if value >> 64:
        raise ValueError(f"{text} does not fit 64 bits")
    return value


_SIZE_UNITS = {"": 10, "kb": 10, "mb": 20, "gb": 30}


def _size(text: str) -> int:
    """A number of bytes; without a unit it counts kilobytes."""
    parts = re.fullmatch(r"([0-9]{1,20})([A-Za-z]*)", text)
    if parts is None or parts[2].lower() not in _SIZE_UNITS:
        raise ValueError(f"{text!r} is not a size, such as 64Kb, 10Mb or 1Gb")
    size = int(parts[1]) << _SIZE_UNITS[parts[2].lower()]
    if not 0 < size < 1 << 63:
        raise ValueError(f"{text} is not a possible size")
    return size


def _pair(text: str, syntax: str) -> tuple[str, str]:
    first, equals, second = text.partition("=")
    if not first or not equals or not second:
        raise ValueError(f"{text!r} is not of the form {syntax}")
    return first, second


def _definition(text: str) -> tuple[str, int]:
    name, address = _pair(text, "NAME=ADDRESS")
    return name, _number(address)


def _alias(text: str) -> tuple[str, str]:
    return _pair(text, "NEW=OLD")


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}") from error


def _graph_format(text: str) -> str:
    if text not in get_args(GraphFormat):
        raise ValueError(f"{text!r} is not one of {', '.join(get_args(GraphFormat))}")
    return text


def _output_file(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError(f"{text!r} is not the name of a file")
    return text


def _boolean(text: str) -> bool:
    if text.lower() not in {"true", "1", "false", "0"}:
        raise ValueError(f"{text!r} is neither true nor false")
    return text.lower() in {"true", "1"}


# Stores: each function makes one that fills in a field.


def _set(destination: str, convert: Callable[[str], object] = str) -> Store:
    def store(line: CommandLine, text: str) -> None:
        setattr(line, destination, convert(text))

    return store


def _append(destination: str, convert: Callable[[str], object] = str) -> Store:
    def store(line: CommandLine, text: str) -> None:
        getattr(line, destination).append(convert(text))

    return store


def _flag(destination: str) -> Store:
    return _set(destination, _boolean)


def _add_library(line: CommandLine, text: str) -> None:
    line.inputs.append(InputArgument("library", text))


def _set_entry(line: CommandLine, text: str) -> None:
    line.entry = text or DEFAULT_ENTRY


def _add_loggers(line: CommandLine, text: str) -> None:
    line.debug_only += [name for name in text.split(",") if name]


OPTIONS: tuple[Option, ...] = (
    Option(
        "l", Form.JOINED, Group.INPUTS,
        "link the library libNAME, static if there is libNAME.a, else shared: found in the "
        "directories of -L, then where the system's compiler looks",
        _add_library, "NAME",
    ),
    Option(
        "L", Form.JOINED, Group.INPUTS,
        "look for libraries in this directory; several are searched in order",
        _append("library_directories"), "DIR",
    ),
    Option(
        "all_load", Form.FLAG, Group.INPUTS,
        "read all members of static archives, not only those that define what is missing",
        _flag("all_load"),
    ),
    Option(
        "abs", Form.VALUE, Group.SYMBOLS,
        "define a symbol as an address", _append("definitions", _definition), "NAME=ADDRESS",
    ),
    Option(
        "alias", Form.VALUE, Group.SYMBOLS,
        "define a symbol as another name of an existing one",
        _append("aliases", _alias), "NEW=OLD",
    ),
    Option(
        "phony-externals", Form.FLAG, Group.SYMBOLS,
        "give symbols that nobody defines an address without a use, instead of failing",
        _flag("phony_externals"),
    ),
    Option(
        "harness", Form.FILES, Group.SYMBOLS,
        "test the inputs with these objects: their definitions come first, and they see what is "
        "local to the inputs", _append("harness"), "FILE...",
    ),
    Option(
        "entry", Form.VALUE, Group.RUNNING,
        f"call this function, not {DEFAULT_ENTRY}", _set_entry, "NAME",
    ),
    Option(
        "args", Form.REST, Group.RUNNING,
        "pass all that follows to the program; its argv[0] is the first of it",
        _append("arguments"), "ARGUMENT...",
    ),
    Option(
        "noexec", Form.FLAG, Group.RUNNING, "link, but do not run anything", _flag("noexec")
    ),
    Option(
        "slab-allocate", Form.VALUE, Group.MEMORY,
        "take all memory from one slab of this size: a number of kilobytes, or with a unit "
        "Kb, Mb or Gb",
        _set("slab_size", _size), "SIZE",
    ),
    Option(
        "slab-address", Form.VALUE, Group.MEMORY,
        "link as if the slab were at this address; if it cannot be there, only with -noexec",
        _set("slab_address", _number), "ADDRESS",
    ),
    Option(
        "slab-page-size", Form.VALUE, Group.MEMORY,
        "align segments in the slab to this many bytes",
        _set("slab_page_size", _number), "BYTES",
    ),
    Option(
        "check", Form.VALUE, Group.LOOKING,
        "check, before anything runs, what was linked against the rules in this file; several "
        "are checked in order",
        _append("check_files"), "FILE",
    ),
    Option(
        "check-name", Form.VALUE, Group.LOOKING,
        "the rules are the lines that begin with '# NAME:'",
        _set("check_name"), "NAME",
    ),
    Option(
        "show-linked-files", Form.FLAG, Group.LOOKING,
        "name each object that is linked", _flag("show_linked_files"),
    ),
    Option(
        "show-addrs", Form.FLAG, Group.LOOKING,
        "print the addresses of symbols, sections, GOT entries and stubs", _flag("show_addrs"),
    ),
    Option(
        "show-graphs", Form.VALUE, Group.LOOKING,
        "print the link graphs of the objects whose names match a regular expression, after "
        "fixups",
        _set("show_graphs", _pattern), "REGEX",
    ),
    Option(
        "show-graphs-format", Form.VALUE, Group.LOOKING,
        "how -show-graphs prints: text, json (a line for each object) or dot, for Graphviz",
        _set("show_graphs_format", _graph_format), "FORMAT",
    ),
    Option(
        "map", Form.VALUE, Group.LOOKING,
        "write a link map: every object and why it is there, what is where, what is not loaded, "
        "what is from elsewhere; - is standard output",
        _set("map_file", _output_file), "FILE",
    ),
    Option(
        "trace-symbol", Form.VALUE, Group.LOOKING,
        "tell who defines a symbol, who refers to it, and whose definition holds and why",
        _append("traced_symbols"), "NAME",
    ),
    Option(
        "show-times", Form.FLAG, Group.LOOKING,
        "print how long reading, linking and running took", _flag("show_times"),
    ),
    Option(
        "debug-only", Form.VALUE, Group.LOOKING,
        "write a log of these parts of the linker, separated by commas; jitlink is all of them",
        _add_loggers, "PART,...",
    ),
    Option("help", Form.FLAG, Group.HELP, "print this page", _flag("help")),
    Option("version", Form.FLAG, Group.HELP, "print the version", _flag("version")),
)  # fmt: skip

_BY_NAME = {option.name: option for option in OPTIONS}
_JOINED = [option for option in OPTIONS if option.form is Form.JOINED]


def parse(words: Sequence[str]) -> CommandLine:
    """Understand the words of a command, the program's name not among them.

    Raises:
        CommandLineError: an option is unknown, lacks its value or has an impossible one, or
            options do not go together.
    """
    line = CommandLine()
    rest = iter(words)
    for word in rest:
        if word == "--":
            line.inputs += [InputArgument("file", each) for each in rest]
        elif word.startswith("-") and word != "-":
            _take_option(line, word, rest)
        else:
            line.inputs.append(InputArgument("file", word))
    if not line.help and not line.version:
        _check(line)
    return line


def _take_option(line: CommandLine, word: str, rest: Iterator[str]) -> None:
    """Take one option, and the words after it that belong to it."""
    option, value = _find(word)
    if option.form is Form.REST:
        for each in rest:
            option.store(line, each)
        return
    if option.form is Form.FILES:
        _take_files(line, option, rest)
        return
    if value is None:
        value = "true" if option.form is Form.FLAG else next(rest, None)
    if value is None:
        raise CommandLineError(f"needs a value: {option.usage}", option=option.name)
    try:
        option.store(line, value)
    except ValueError as error:
        raise CommandLineError(str(error), option=option.name) from error


def _take_files(line: CommandLine, option: Option, rest: Iterator[str]) -> None:
    """Take the words after an option that are its files, and the option that ends them."""
    for word in rest:
        if word == "--":
            for each in rest:
                option.store(line, each)
            return
        named = _BY_NAME.get(word.removeprefix("-").removeprefix("-"))
        if named is None or not word.startswith("-"):
            option.store(line, word)
        elif named.form is Form.REST:
            _take_option(line, word, rest)
        else:
            message = f"takes the words that follow it as files; {word} must stand before it"
            raise CommandLineError(message, option=option.name)


def _find(word: str) -> tuple[Option, str | None]:
    """The option that a word names, and the value in the same word, if there is one."""
    body = word.removeprefix("-").removeprefix("-")
    name, equals, value = body.partition("=")
    option = _BY_NAME.get(name)
    if option is not None:
        if equals and option.form in {Form.REST, Form.FILES}:
            raise CommandLineError("takes the words that follow it", option=name)
        return option, value if equals else None
    for option in _JOINED:
        if body.startswith(option.name):
            return option, body[len(option.name) :]
    raise _unknown(name)


def _unknown(name: str) -> CommandLineError:
    # Imported only for those who mistype.
    from jitlink.names.likeness import most_alike  # noqa: PLC0415

    close = most_alike(name, _BY_NAME, 0.6)
    advice = f"did you mean -{close}?" if close else "-help lists all options"
    return CommandLineError(f"unknown option -{name}; {advice}")


def _check(line: CommandLine) -> None:
    """Check what no option can check alone."""
    if not line.inputs:
        raise CommandLineError("no input files; -help says how the command is used")
    if line.show_graphs is None and line.show_graphs_format != "text":
        raise CommandLineError(
            "nothing is printed without -show-graphs", option="show-graphs-format"
        )
    if line.slab_size is None:
        for option, value in (
            ("slab-address", line.slab_address),
            ("slab-page-size", line.slab_page_size),
        ):
            if value is not None:
                raise CommandLineError("there is no slab without -slab-allocate", option=option)
