"""What the site needs beyond mkdocs.yml: a hook of MkDocs and an extension of Griffe.

A fence may have a file name and compiler options behind the language, for the test suite; Markdown
does not know that form. Names in backticks in docstrings become links to their descriptions.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import griffe

_REFERENCE = Path(__file__).parent / "reference"
_FENCE = re.compile(r"^```(\w+) ([^\n]+)$", re.MULTILINE)
_DIRECTIVE = re.compile(r"^::: (\S+)$", re.MULTILINE)
_NAME = re.compile(r"(?<!`)`([A-Za-z_][\w.]*)`(?!`)")


def on_page_markdown(markdown: str, **_: object) -> str:
    """Show what stands behind the language of a fence as the title of the block."""
    return _FENCE.sub(r'```\1 title="\2"', markdown)


class CrossReferences(griffe.Extension):
    """Links names in docstrings that the reference describes."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:  # noqa: ANN401
        """Change the docstrings of a package that has been read."""
        places: dict[str, str] = {}
        for page in _REFERENCE.glob("*.md"):
            for path in _DIRECTIVE.findall(page.read_text()):
                places |= _places(pkg, path)
        _link(pkg, places)


def _places(package: griffe.Module, path: str) -> dict[str, str]:
    """The names for which docstrings mean an object of the reference or one of its members."""
    if path == package.name:
        return {path: path}
    described = package[path.removeprefix(f"{package.name}.")]
    if described.is_module:
        return {path: path}
    members = described.final_target.members if described.is_alias else described.members
    shown = (each.name for each in members.values() if each.docstring and each.is_public)
    return {described.name: path} | {f"{described.name}.{each}": f"{path}.{each}" for each in shown}


def _link(scope: griffe.Object, places: dict[str, str]) -> None:
    """Link the names in the docstrings of a scope and of all that it has."""
    owner = scope.parent if scope.is_function or scope.is_attribute else scope
    prefix = owner.name if owner else ""

    def link(match: re.Match[str]) -> str:
        place = places.get(f"{prefix}.{match.group(1)}") or places.get(match.group(1))
        return f"[{match.group()}][{place}]" if place else match.group()

    if scope.docstring:
        scope.docstring.value = _NAME.sub(link, scope.docstring.value)
    for member in scope.members.values():
        if isinstance(member, griffe.Object):
            _link(member, places)
