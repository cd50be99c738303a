"""The tables of options in the manual, generated from the table of options.

``python -m jitlink.tool.options.manual docs/command.md`` regenerates them. A table stands below a
line ``<!-- options: GROUP -->``; the rest of the page is written by hand.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from jitlink.tool.options.command_line import Group
from jitlink.tool.options.table import OPTIONS

_TABLE = re.compile(r"^<!-- options: (.*) -->\n(?:\|.*\n)*", re.MULTILINE)


def with_tables(page: str) -> str:
    """The page with up-to-date tables.

    Raises:
        ValueError: a group has no table or several, or a table has no group.
    """
    groups = _TABLE.findall(page)
    if sorted(groups) != sorted(group.value for group in Group):
        raise ValueError(f"the page has tables for {', '.join(groups)}")
    return _TABLE.sub(
        lambda match: match.expand(r"<!-- options: \1 -->\n") + _table(match[1]), page
    )


def _table(group: str) -> str:
    rows = [
        f"| `{option.usage}` | {option.summary} |"
        for option in OPTIONS
        if option.group.value == group
    ]
    return "".join(f"{row}\n" for row in ("| option | effect |", "|---|---|", *rows))


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.write_text(with_tables(place.read_text(encoding="utf-8")), encoding="utf-8")
