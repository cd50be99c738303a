"""The types of option parsing: the options' forms, and the `CommandLine` that they fill in.

An option is one `Option` row of `jitlink.tool.options.table`, which sets an attribute of
`CommandLine` or of one of its `DylibArguments`.

All options take one dash or two, and their value as the next word or after ``=``. A flag may
be given a value too: ``-noexec=false``. All words after `-args` belong to the program; the words
after `-harness`, up to `-args`, are its files. After ``--`` every word is a file.
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
"""Name of the JITDylib of the options before the first `-jd`."""

GraphFormat = Literal["text", "json", "dot"]
"""How link graphs are printed."""

LibraryPreference = Literal["default", "static", "shared"]
"""Which libraries `-l` searches for: see `-Bstatic` and `-Bdynamic`."""


class CommandLineError(JITLinkError):
    """A command that is malformed or cannot be carried out.

    Attributes:
        option: name of the option at fault, without dashes; None if no option is.
    """

    def __init__(self, message: str, *, option: str | None = None) -> None:
        super().__init__(message if option is None else f"-{option}: {message}")
        self.option = option


class InputArgument(NamedTuple):
    """One input as the command names it.

    Attributes:
        kind: ``file`` for a path, ``library`` for the name given to `-l`.
        name: the path or the name.
        linkage: ``hidden`` for a static library whose symbols only its own JITDylib sees,
            ``weak`` for one whose symbols may all be missing.
        is_lazy: whether its functions are linked on their first call.
        preference: which kind of library is searched for.
    """

    kind: Literal["file", "library"]
    name: str
    linkage: Literal["plain", "hidden", "weak"] = "plain"
    is_lazy: bool = False
    preference: LibraryPreference = "default"

    @property
    def option(self) -> str | None:
        """The option that names it; None for a plain word."""
        prefix = {"plain": "", "hidden": "hidden-", "weak": "weak-"}[self.linkage]
        if self.kind == "library":
            return f"{prefix}l"
        return {"plain": None, "hidden": "load_hidden", "weak": "weak_library"}[self.linkage]


class AliasArgument(NamedTuple):
    """An alias of a symbol.

    Attributes:
        name: the new name.
        target: the name of the symbol.
        dylib: name of the JITDylib where the alias is defined; None for the one where `-alias`
            stands.
        target_dylib: name of the JITDylib that defines the target; None for a search in the
            link order of the first one.
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
        symbols: names of the symbols in it, and their offsets in bytes.
    """

    name: str
    file: str
    symbols: tuple[tuple[str, int], ...] = ()


class DylibArguments:
    """The arguments for one JITDylib; each attribute is described with its option."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.inputs: list[InputArgument] = []
        self.library_directories: list[str] = []
        self.definitions: list[tuple[str, int]] = []
        self.aliases: list[AliasArgument] = []
        self.sections: list[SectionArgument] = []
        self.undefined: list[str] = []


class CommandLine:
    """A parsed command; each attribute is described with its option.

    Attributes:
        dylibs: the JITDylibs in order, ``main`` first; arguments are added to the last one.
        next_is_lazy: whether `-lazy` applies to the next input.
        preference: which libraries the `-l` from here on search for.
        warnings: messages about options that have no effect.
        given: names and values of the options, in order.
    """

    def __init__(self) -> None:  # noqa: PLR0915 - one for each option
        self.dylibs = [DylibArguments(MAIN_DYLIB)]
        self.next_is_lazy = False
        self.preference: LibraryPreference = "default"
        self.warnings: list[str] = []
        self.given: list[tuple[str, str]] = []
        self.all_load = False
        self.search_system_libraries = False
        self.preloads: list[str] = []
        self.process_symbols = True
        self.orc_runtime: str | None = None
        self.executor: str | None = None
        self.emulate = False
        self.executor_address: tuple[str, int] | str | None = None
        self.executor_token_file: str | None = None
        self.executor_authority: str | None = None
        self.executor_certificate: str | None = None
        self.sandbox: list[str] = []
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
        self.executable_stack = False
        self.writable_code = False
        self.rdynamic = False
        self.threads: int | None = None
        self.slab_size: int | None = None
        self.slab_address: int | None = None
        self.slab_page_size: int | None = None
        self.no_pie = False
        self.memory_manager: Literal["default", "generic", "simple-remote", "shared"] = "default"
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
        self.symbol_file: str | None = None
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
    def program_name(self) -> str:
        """The program's name: its first argument, or else its first input."""
        names = [*self.arguments[:1], *(each.name for each in self.inputs)]
        return next(filter(None, names), self.entry)

    @property
    def definitions(self) -> list[tuple[str, int]]:
        """The names and addresses of `-abs`, for all JITDylibs."""
        return [each for dylib in self.dylibs for each in dylib.definitions]

    @property
    def is_out_of_process(self) -> bool:
        """Whether the program runs in another process, or in an emulated machine."""
        chosen = (self.executor, self.executor_address)
        return bool(self.sandbox) or self.emulate or any(each is not None for each in chosen)

    @property
    def undefined(self) -> list[str]:
        """The names of `-u`, for all JITDylibs."""
        return [each for dylib in self.dylibs for each in dylib.undefined]

    def add_input(self, argument: InputArgument) -> None:
        """Add an input to the JITDylib that was named last."""
        self.dylibs[-1].inputs.append(argument)
        self.next_is_lazy = False


class Form(Enum):
    """How an option is written in a command."""

    FLAG = auto()
    """``-name``, or ``-name=true``."""
    VALUE = auto()
    """``-name value`` or ``-name=value``."""
    JOINED = auto()
    """``-namevalue`` too."""
    OPTIONAL = auto()
    """``-name`` or ``-name=value``."""
    REST = auto()
    """Takes all words that follow."""
    FILES = auto()
    """Takes all words that follow, up to an option of form REST."""


class Group(Enum):
    """Options for one purpose; the help page has a part for each group."""

    INPUTS = "Inputs"
    DYLIBS = "Several JITDylibs"
    SYMBOLS = "Symbols"
    RUNNING = "Running"
    LAZY = "Linking lazily"
    MEMORY = "Memory"
    LOOKING = "Looking inside"
    BACKTRACES = "Backtraces"
    ELSEWHERE = "Other runtimes and executors"
    HELP = "Help"


Store = Callable[[CommandLine, str], None]


class Option(NamedTuple):
    """One row of the table.

    Attributes:
        name: without dashes.
        form: how it is written in a command.
        group: its part of the help page.
        summary: its effect, in one sentence without a final stop.
        store: stores its value in the command line; raises ValueError with a reason if the
            value is invalid. A flag has the value ``true`` or ``false``, an optional value that
            is not given is empty.
        value: what stands for its value on the help page; empty for a flag.
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
