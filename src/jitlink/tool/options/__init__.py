"""The command line: its options, and the parsed form of a command.

`expand` replaces response files by the words in them; `parse` turns the words into a `CommandLine`
by the rows of `table`. `values` converts the options' values. `help_page` and `manual` print the
rows; they are not imported here, because few commands need them.
"""

from jitlink.tool.options.command_line import (
    MAIN_DYLIB,
    AliasArgument,
    CommandLine,
    CommandLineError,
    DylibArguments,
    GraphFormat,
    InputArgument,
    LibraryPreference,
    SectionArgument,
)
from jitlink.tool.options.parsing import parse
from jitlink.tool.options.response_files import expand

__all__ = [
    "MAIN_DYLIB",
    "AliasArgument",
    "CommandLine",
    "CommandLineError",
    "DylibArguments",
    "GraphFormat",
    "InputArgument",
    "LibraryPreference",
    "SectionArgument",
    "expand",
    "parse",
]
