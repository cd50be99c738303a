"""What a command may say: the options' form, and what their words come to.

An option is one `Option` row of `jitlink.tool.option_table`. Nothing else needs to know it but
the field of `CommandLine`, or of one of its `DylibArguments`, that it fills in, and whoever reads
that field.

All options take one dash or two, and their value as the next word or behind ``=``. A flag may
be given a value too: ``-noexec=false``. What `-args` is followed by belongs to the program,
whatever it looks like; what `-harness` is followed by, up to `-args`, are its files. After ``--``
everything is a file.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Literal, NamedTuple

from jitlink.errors import JITLinkError

DEFAULT_ENTRY = "main"
DEFAULT_CHECK_NAME = "jitlink-check"
MAIN_DYLIB = "main"
"""Name of the JITDylib of what stands before the first `-jd`."""

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
        linkage: ``hidden`` for a static library whose symbols are for its own JITDylib,
            ``weak`` for one whose symbols may all be missing.
        is_lazy: whether its functions are linked when they are called.
    """

    kind: Literal["file", "library"]
    name: str
    linkage: Literal["plain", "hidden", "weak"] = "plain"
    is_lazy: bool = False

    @property
    def option(self) -> str | None:
        """The option that names it, None for a plain word."""
        prefix = {"plain": "", "hidden": "hidden-", "weak": "weak-"}[self.linkage]
        if self.kind == "library":
            return f"{prefix}l"
        return {"plain": None, "hidden": "load_hidden", "weak": "weak_library"}[self.linkage]


class AliasArgument(NamedTuple):
    """A symbol that stands for another.

    Attributes:
        name: the new name.
        target: the name that it stands for.
        dylib: name of the JITDylib where it is defined, None for the one where `-alias` stands.
        target_dylib: name of the JITDylib that has the target, None for where code in the
            first one would search.
    """

    name: str
    target: str
    dylib: str | None = None
    target_dylib: str | None = None


class SectionArgument(NamedTuple):
    """A section made from a file.

    Attributes:
        name: the section.
        file: path of the file with its content.
        symbols: names and offsets, in bytes, of the symbols in it.
    """

    name: str
    file: str
    symbols: tuple[tuple[str, int], ...] = ()


@dataclass(slots=True)
class DylibArguments:
    """What a command says of one JITDylib; each field is described with its option."""

    name: str
    inputs: list[InputArgument] = field(default_factory=list)
    library_directories: list[str] = field(default_factory=list)
    definitions: list[tuple[str, int]] = field(default_factory=list)
    aliases: list[AliasArgument] = field(default_factory=list)
    sections: list[SectionArgument] = field(default_factory=list)


def _only_main() -> list[DylibArguments]:
    return [DylibArguments(MAIN_DYLIB)]


@dataclass(slots=True)
class CommandLine:
    """What the words of a command say; each field is described with its option.

    Attributes:
        dylibs: the JITDylibs in order, ``main`` first; what is read now belongs to the last.
        next_is_lazy: whether `-lazy` waits for an input to follow.
        warnings: what the command says that comes to nothing.
        given: names and values of the options, as they come.
    """

    dylibs: list[DylibArguments] = field(default_factory=_only_main)
    next_is_lazy: bool = False
    warnings: list[str] = field(default_factory=list)
    given: list[tuple[str, str]] = field(default_factory=list, compare=False)
    all_load: bool = False
    objc: bool = False
    search_system_libraries: bool = False
    preloads: list[str] = field(default_factory=list)
    process_symbols: bool = True
    orc_runtime: str | None = None
    triple: str | None = None
    add_self_relocations: bool = False
    phony_externals: bool = False
    harness: list[str] = field(default_factory=list)
    speculate: Literal["none", "simple"] = "none"
    speculate_order: str | None = None
    record_lazy_execs: str | None = None
    entry: str = DEFAULT_ENTRY
    arguments: list[str] = field(default_factory=list)
    noexec: bool = False
    threads: int | None = None
    slab_size: int | None = None
    slab_address: int | None = None
    slab_page_size: int | None = None
    memory_manager: str = "default"
    check_files: list[str] = field(default_factory=list)
    check_name: str = DEFAULT_CHECK_NAME
    show_addrs: bool = False
    show_contents: bool = False
    show_entry_session: bool = False
    show_failures: bool = False
    show_graphs: re.Pattern[str] | None = None
    show_graphs_format: GraphFormat = "text"
    show_initial_session: bool = False
    show_linked_files: bool = False
    show_times: bool = False
    map_file: str | None = None
    traced_symbols: list[str] = field(default_factory=list)
    write_symtab: str | None = None
    symbolicate_with: str | None = None
    debug_only: list[str] = field(default_factory=list)
    print_options: Literal["given", "all"] | None = None
    help: bool = False
    version: bool = False

    @property
    def inputs(self) -> list[InputArgument]:
        """The inputs of all JITDylibs."""
        return [each for dylib in self.dylibs for each in dylib.inputs]

    @property
    def definitions(self) -> list[tuple[str, int]]:
        """The names and addresses that are defined in all JITDylibs."""
        return [each for dylib in self.dylibs for each in dylib.definitions]

    def add_input(self, argument: InputArgument) -> None:
        """Take an input for the JITDylib that was named last."""
        self.dylibs[-1].inputs.append(argument)
        self.next_is_lazy = False


class Form(Enum):
    """How an option stands in a command."""

    FLAG = auto()
    """``-name``, or ``-name=true``."""
    VALUE = auto()
    """``-name value`` or ``-name=value``."""
    JOINED = auto()
    """``-namevalue`` too."""
    OPTIONAL = auto()
    """``-name`` or ``-name=value``."""
    REST = auto()
    """Takes all words that follow, to the end."""
    FILES = auto()
    """Takes all words that follow, to one of form REST or the end."""


class Group(Enum):
    """What a user wants to do; the help page has a part for each."""

    INPUTS = "Inputs"
    DYLIBS = "Several JITDylibs"
    SYMBOLS = "Symbols"
    RUNNING = "Running"
    LAZY = "Linking lazily"
    MEMORY = "Memory"
    LOOKING = "Looking inside"
    BACKTRACES = "Backtraces"
    ELSEWHERE = "Other places to run"
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
            is no such value. A flag has the value ``true`` or ``false``, an optional value that
            is not given is empty.
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
        match self.form:
            case Form.FLAG:
                return f"-{self.name}"
            case Form.JOINED:
                return f"-{self.name}{self.value}"
            case Form.OPTIONAL:
                return f"-{self.name}[={self.value}]"
            case _:
                return f"-{self.name} {self.value}"
