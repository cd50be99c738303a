"""The help page, generated from the table of options."""

from __future__ import annotations

import textwrap

from jitlink.tool.options.command_line import CommandLine, Group, Option
from jitlink.tool.options.table import OPTIONS

_WIDTH = 80
_COLUMN = 26

_HEAD = """\
Usage: jitlink [OPTION...] FILE... [-harness FILE...] [-args ARGUMENT...]

Links relocatable objects and static archives in memory and calls their main.
The exit status is main's. Options take one dash or two, and their value as the
next word or after an equals sign; @FILE stands for the words in a file.
"""

_EXAMPLES = {
    Group.INPUTS: "jitlink query.o -Lbuild -lsqlite3",
    Group.DYLIBS: "jitlink main.o -lplugin -jd plugin filter.o",
    Group.SYMBOLS: "jitlink driver.o -abs device=0x40001000 -phony-externals",
    Group.RUNNING: "jitlink print.o -entry show -args show a b c",
    Group.LAZY: "jitlink main.o -lazy codec.o -speculate simple",
    Group.MEMORY: "jitlink rom.o -noexec -slab-allocate 1Mb -slab-address 0x8000",
    Group.LOOKING: "jitlink -noexec -show-addrs -show-graphs . hello.o",
    Group.BACKTRACES: "jitlink -symbolicate-with symbols.txt backtrace.txt",
}


def help_page() -> str:
    """All options by group, with an example for each group."""
    parts = [_HEAD]
    for group in Group:
        example = _EXAMPLES.get(group)
        head = f"{group.value}:" if example is None else f"{group.value}, as in: {example}"
        rows = [_row(option) for option in OPTIONS if option.group is group]
        parts.append("\n".join((head, *rows)) + "\n")
    return "\n".join(parts)


def options_page(line: CommandLine) -> str:
    """The options of a command with their values, one per line, sorted by name."""
    rows = [f"  -{name} = {value!r}" for name, value in line.given]
    if line.print_options == "all":
        names = {name for name, _ in line.given}
        rows += [f"  -{option.name}" for option in OPTIONS if option.name not in names]
    return "".join(f"{row}\n" for row in sorted(rows))


def _row(option: Option) -> str:
    text = textwrap.wrap(option.summary, _WIDTH - _COLUMN)
    usage = f"  {option.usage}"
    if len(usage) > _COLUMN - 2:
        lines = [usage, *(" " * _COLUMN + line for line in text)]
    else:
        lines = [usage.ljust(_COLUMN) + text[0], *(" " * _COLUMN + line for line in text[1:])]
    return "\n".join(lines)
