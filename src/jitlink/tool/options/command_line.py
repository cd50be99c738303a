"""What a command may say: the options' form, and what their words come to.

An option is one `Option` row of `jitlink.tool.options.table`. Nothing else needs to know it but
the attribute of `CommandLine`, or of one of its `DylibArguments`, that it fills in, and whoever
reads that.

All options take one dash or two, and their value as the next word or behind ``=``. A flag may
be given a value too: ``-noexec=false``. What `-args` is followed by belongs to the program,
whatever it looks like; what `-harness` is followed by, up to `-args`, are its files. After ``--``
everything is a file.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import TYPE_CHECKING, Literal, NamedTuple

from jitlink.errors import JITLinkError

if TYPE_CHECKING:
    import re

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


class InputArgument(NamedTuple):
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


class DylibArguments:
    """What a command says of one JITDylib; each attribute is described with its option."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.inputs: list[InputArgument] = []
        self.library_directories: list[str] = []
        self.definitions: list[tuple[str, int]] = []
        self.aliases: list[AliasArgument] = []
        self.sections: list[SectionArgument] = []


class CommandLine:
    """What the words of a command say; each attribute is described with its option.

    Attributes:
        dylibs: the JITDylibs in order, ``main`` first; what is read now belongs to the last.
        next_is_lazy: whether `-lazy` waits for an input to follow.
        warnings: what the command says that comes to nothing.
        given: names and values of the options, as they come.
    """

    def __init__(self) -> None:
        self.dylibs = [DylibArguments(MAIN_DYLIB)]
        self.next_is_lazy = False
        self.warnings: list[str] = []
        self.given: list[tuple[str, str]] = []
        self.all_load = False
        self.objc = False
        self.search_system_libraries = False
        self.preloads: list[str] = []
        self.process_symbols = True
        self.orc_runtime: str | None = None
        self.triple: str | None = None
        self.add_self_relocations = False
        self.phony_externals = False
        self.harness: list[str] = []
        self.speculate: Literal["none", "simple"] = "none"
        self.speculate_order: str | None = None
        self.record_lazy_execs: str | None = None
        self.entry = DEFAULT_ENTRY
        self.arguments: list[str] = []
        self.noexec = False
        self.threads: int | None = None
        self.slab_size: int | None = None
        self.slab_address: int | None = None
        self.slab_page_size: int | None = None
        self.memory_manager = "default"
        self.check_files: list[str] = []
        self.check_name = DEFAULT_CHECK_NAME
        self.show_addrs = False
        self.show_contents = False
        self.show_entry_session = False
        self.show_failures = False
        self.show_graphs: re.Pattern[str] | None = None
        self.show_graphs_format: GraphFormat = "text"
        self.show_initial_session = False
        self.show_linked_files = False
        self.show_times = False
        self.map_file: str | None = None
        self.traced_symbols: list[str] = []
        self.write_symtab: str | None = None
        self.symbolicate_with: str | None = None
        self.debug_only: list[str] = []
        self.print_options: Literal["given", "all"] | None = None
        self.help = False
        self.version = False

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


class Option(NamedTuple):
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
