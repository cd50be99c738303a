"""What is public: each package's table of names, the reference, and what else the packages have."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import jitlink

ROOT = Path(__file__).parents[1]
PUBLIC = (
    "jitlink",
    "jitlink.executor",
    "jitlink.graph",
    "jitlink.memory",
    "jitlink.orc",
    "jitlink.platform",
)
# What the packages' own code needs; everything else is public, underscored or a module.
INTERNAL = {"TYPE_CHECKING", "annotations", "attach"}


@pytest.fixture(params=PUBLIC)
def package(request: pytest.FixtureRequest) -> ModuleType:
    """Each public package in turn."""
    return importlib.import_module(request.param)


def public_names(package: ModuleType) -> list[str]:
    names = package.__all__
    assert isinstance(names, list)
    return names


def syntax(module: ModuleType) -> ast.Module:
    assert module.__file__
    return ast.parse(Path(module.__file__).read_text())


def type_checking(package: ModuleType) -> ast.If:
    """The statement of a package's `__init__` of which type checkers see one branch."""
    (found,) = (node for node in syntax(package).body if isinstance(node, ast.If))
    assert ast.unparse(found.test) == "TYPE_CHECKING"
    return found


def table(package: ModuleType) -> list[tuple[str, str]]:
    """The names of a package's table, each after the module that it is from."""
    (assignment,) = type_checking(package).orelse
    assert isinstance(assignment, ast.Assign)
    assert isinstance(assignment.value, ast.Call)
    modules: dict[str, tuple[str, ...]] = ast.literal_eval(assignment.value.args[1])
    return [(module, name) for module, names in modules.items() for name in names]


def test_type_checkers_see_what_the_table_has(package: ModuleType) -> None:
    imported = []
    for node in type_checking(package).body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            # Without `as` it would not be exported.
            assert alias.asname == alias.name
            imported.append((node.module, alias.name))
    assert imported == table(package)


def test_every_name_is_what_its_module_has(package: ModuleType) -> None:
    names = table(package)
    for module, name in names:
        assert getattr(package, name) is getattr(importlib.import_module(module), name)
    assert public_names(package) == dir(package) == sorted(name for _, name in names)


def test_every_name_is_documented(package: ModuleType) -> None:
    assert [name for module, name in table(package) if not is_documented(module, name)] == []


def is_documented(module: str, name: str) -> bool:
    value = getattr(importlib.import_module(module), name)
    if isinstance(value, type):
        text = vars(value)["__doc__"] or ""
        # Dataclasses and named tuples without a docstring get their signature as one.
        return bool(text) and not text.startswith(f"{name}(")
    if callable(value) and hasattr(value, "__code__"):
        return bool(value.__doc__)
    # An alias of a type has its docstring below the assignment.
    body = syntax(importlib.import_module(module)).body
    (place,) = (
        place
        for place, node in enumerate(body)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name
    )
    below = body[place + 1]
    return isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)


def test_every_other_name_is_internal(package: ModuleType) -> None:
    others = vars(package).keys() - public_names(package) - INTERNAL
    for name in others:
        value = getattr(package, name)
        is_module = isinstance(value, ModuleType) and value.__name__ == f"{package.__name__}.{name}"
        assert name.startswith("_") or is_module, name


def test_the_reference_describes_every_name_and_no_other(package: ModuleType) -> None:
    page = ROOT / "docs" / "reference" / f"{package.__name__.rpartition('.')[2]}.md"
    text = page.read_text()
    here = re.findall(rf"^::: {package.__name__}\.(\w+)$", text, re.MULTILINE)
    elsewhere = re.findall(r"^- \[`(\w+)`\]\[jitlink\.\w+\.\1\]$", text, re.MULTILINE)
    assert sorted(here + elsewhere) == public_names(package)


def test_unknown_names_are_errors(package: ModuleType) -> None:
    with pytest.raises(AttributeError, match=f"'{package.__name__}' has no attribute 'nothing'"):
        _ = package.nothing
    with pytest.raises(AttributeError):
        _ = jitlink.nothing  # type: ignore[attr-defined]  # type checkers know it too


def test_a_package_imports_nothing_before_a_name_is_used(package: ModuleType) -> None:
    name = package.__name__
    code = f"import sys, {name}; print(*(m for m in sys.modules if m.startswith('jitlink')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"jitlink", "jitlink.lazy_imports", name}


def test_the_version_is_that_of_the_distribution() -> None:
    assert jitlink.__version__ == importlib.metadata.version("jitlink")


def listed_modules() -> list[list[str]]:
    """What the reference's first page lists: public packages, provisional and internal modules."""
    page = (ROOT / "docs" / "reference" / "index.md").read_text()
    sections = re.split(r"^#+ .*\n", page, flags=re.MULTILINE)[1:]
    return [re.findall(r"`(jitlink[\w.]*)`", section) for section in sections]


def test_every_module_is_public_provisional_or_internal() -> None:
    public, provisional, internal = listed_modules()
    assert sorted(public) == sorted(PUBLIC)
    modules = {f"jitlink.{each.name}" for each in pkgutil.iter_modules(jitlink.__path__)}
    assert sorted(public + provisional + internal) == sorted(
        modules - {"jitlink.__main__"} | {"jitlink"}
    )


@pytest.mark.parametrize(
    "file",
    [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.py")],
    ids=lambda file: file.name,
)
def test_what_users_are_shown_is_not_internal(file: Path) -> None:
    _, provisional, _ = listed_modules()
    code = re.findall(
        r"^(?:from|import) (jitlink[\w.]*)(?: import (\([^)]*\)|.*))?$",
        file.read_text(),
        re.MULTILINE,
    )
    for module, names in code:
        if module in PUBLIC:
            package = importlib.import_module(module)
            assert set(re.findall(r"\w+", names)) <= set(public_names(package))
        else:
            assert ".".join(module.split(".")[:2]) in provisional
