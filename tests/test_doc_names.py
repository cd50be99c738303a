"""Files and names in the pages for developers exist, and their tables are those of the source.

Checked are words in backticks, outside of code blocks: paths, dotted names, and names with capitals
or underscores. A path begins at the root of the repository or of the package. A dotted name begins
with a module, of which the last part is enough, or with a class. In these pages names of LLVM and
of object formats have no backticks.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from jitlink.graph import BlockTable, EdgeTable, SymbolTable
from jitlink.resolve import Strength, precedence

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "jitlink"
DESIGN = ROOT / "docs" / "design.md"
PAGES = [DESIGN, ROOT / "CONTRIBUTING.md"]
_BLOCK = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`]+)`")
# A file of the project by its suffix, or anything with a slash.
_PATH = re.compile(r"(?!\w+://)\w[\w.-]*(?:/[\w.-]+)+/?|\w+/|\w[\w-]*\.(?:md|py|toml|yml|c|s|o)")
_DOTTED = re.compile(r"_?[A-Za-z]\w*(?:\.\w+)+")
_NAME = re.compile(r"_?[A-Za-z]\w*")


def words(page: Path) -> Iterator[str]:
    """The words in backticks."""
    for code in _CODE.findall(_BLOCK.sub("", page.read_text(encoding="utf-8"))):
        yield from code.removesuffix("()").split()


def is_path(word: str) -> bool:
    return _PATH.fullmatch(word) is not None


def is_name(word: str) -> bool:
    """Whether a word without dots is a name of this project, and not a word or a placeholder."""
    if not _NAME.fullmatch(word):
        return False
    return "_" in word[1:] or (word != word.lower() and word != word.upper())


@cache
def sources() -> dict[str, Path]:
    """The project's modules by name."""
    found = {}
    for base, top in ((ROOT / "src", PACKAGE), (ROOT, ROOT / "tests"), (ROOT, ROOT / "bench")):
        for path in top.rglob("*.py"):
            parts = path.relative_to(base).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


@cache
def defined_names() -> frozenset[str]:
    """All that the modules define, with attributes and parameters; modules and builtins too."""
    names = {*dir(builtins), *(name.rpartition(".")[2] for name in sources())}
    for path in sources().values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                    names.add(name)
                case ast.AsyncFunctionDef(name=name) | ast.arg(arg=name):
                    names.add(name)
                case ast.Name(id=name, ctx=ast.Store()):
                    names.add(name)
                case ast.Attribute(attr=name, ctx=ast.Store()):
                    names.add(name)
    return frozenset(names)


def modules(name: str) -> list[ModuleType]:
    """Modules that a name without its package may mean."""
    wanted = [each for each in sources() if each == name or each.endswith(f".{name}")]
    return [importlib.import_module(each) for each in wanted]


@cache
def classes(name: str) -> list[type]:
    """The package's classes of a name."""
    pattern = re.compile(rf"^class {name}\b", re.MULTILINE)
    found = []
    for module, path in sources().items():
        if module.startswith("jitlink") and pattern.search(path.read_text(encoding="utf-8")):
            found.append(getattr(importlib.import_module(module), name))
    return found


def has(owner: object, path: list[str]) -> bool:
    """Whether a module or class has an attribute, or its instances."""
    for number, name in enumerate(path):
        if not hasattr(owner, name):
            is_last = number == len(path) - 1
            return is_last and isinstance(owner, type) and instances_have(owner, name)
        owner = getattr(owner, name)
    return True


def instances_have(owner: type, name: str) -> bool:
    bases = [each for each in owner.__mro__ if each.__module__.startswith("jitlink")]
    pattern = re.compile(rf"^    {name}\b|\bself\.{name}\b", re.MULTILINE)
    return any(pattern.search(inspect.getsource(each)) for each in bases)


def resolves(word: str) -> bool:
    parts = word.split(".")
    if parts[0] in sys.stdlib_module_names:
        return has(importlib.import_module(parts[0]), parts[1:])
    for length in range(len(parts), 0, -1):
        head, rest = ".".join(parts[:length]), parts[length:]
        if any(has(module, rest) for module in modules(head)):
            return True
    return any(has(owner, parts[1:]) for owner in classes(parts[0]))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_name_exists(page: Path) -> None:
    found = list(words(page))
    missing = []
    for word in dict.fromkeys(found):
        if is_path(word):
            exists = (ROOT / word).exists() or (PACKAGE / word).exists()
        elif _DOTTED.fullmatch(word):
            exists = resolves(word)
        else:
            exists = not is_name(word) or word in defined_names()
        if not exists:
            missing.append(word)
    assert missing == []
    assert len(set(filter(is_path, found))) > 20


def test_what_is_checked() -> None:
    assert is_path("graph/split.py")
    assert is_path("CONTRIBUTING.md")
    assert not is_path("https://semver.org/spec")
    assert resolves("targets.base.Target")
    assert resolves("split.split_blocks")
    assert resolves("LinkGraph.block_table")
    assert resolves("JITLinkContext.lookup")
    assert not resolves("targets.base.Nothing")
    assert not resolves("LinkGraph.nothing")
    assert is_name("ObjectUnit")
    assert is_name("look_up")
    assert not is_name("NAME")
    assert not is_name("lookup")
    assert "NoSuchClass" not in defined_names()


def rows(heading: str) -> list[list[str]]:
    """The cells of a section's first table."""
    section = DESIGN.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2]
    table = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)[0]
    lines = [line.strip("|").split("|") for line in table.splitlines()]
    return [[cell.strip() for cell in line] for line in (lines[0], *lines[2:])]


def test_layers_are_those_of_the_import_contract() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = project["tool"]["importlinter"]["contracts"][0]
    layers = [sorted(re.findall(r"\w+", layer)) for layer in contract["layers"]]
    documented = [sorted(re.findall(r"`(\w+)`", cells[0])) for cells in rows("Layers")[1:]]
    assert documented == [layer for layer in layers if layer != ["__main__"]]


def test_precedence_is_that_of_the_linker() -> None:
    head, *body = rows("Which definition prevails")
    added = [Strength[name.upper()] for name in head[1:]]
    assert sorted(added) == sorted(Strength)
    assert len(body) == len(Strength)
    for held, *cells in body:
        outcomes = [precedence(Strength[held.upper()], each).value for each in added]
        assert outcomes == cells


def test_columns_are_those_of_the_graph() -> None:
    tables = {
        "LinkGraph.block_table": BlockTable,
        "LinkGraph.symbol_table": SymbolTable,
        "LinkGraph.edge_table": EdgeTable,
    }
    documented = {
        cells[0].strip("`"): re.findall(r"`(\w+)`", cells[2]) for cells in rows("The graph")
    }
    for name, table in tables.items():
        assert documented[name] == list(table.FIELDS)
