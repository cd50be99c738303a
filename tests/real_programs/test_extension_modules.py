"""Extension modules from PyPI, imported from the objects of their own builds, pass their own tests.

With JITLINK_LONG=1. Each source distribution is built as it prescribes, in an environment made for
it. Its tests run twice in processes of their own: with the shared libraries of the build, and
without these in a copy of the packages, with `install_importer`, which processes that the tests
start have, too. The outcome of every test must be the same.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tarfile
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple
from xml.etree import ElementTree as ET

import pytest

from tests.toolchain import require

ROOT = Path(__file__).parents[2]
_BUILD_TOOLS = (
    *("numpy", "pytest", "setuptools>=80", "wheel", "packaging"),
    *("cffi", "cppy", "setuptools_scm", "meson", "ninja", "meson-python", "pybind11"),
)
_TEST_TOOLS = ("hypothesis", "psutil", "objgraph")
_SECONDS = 900

pytestmark = pytest.mark.skipif(
    os.environ.get("JITLINK_LONG") != "1", reason="needs minutes and PyPI: JITLINK_LONG=1"
)


class _Project(NamedTuple):
    """A project on PyPI.

    Attributes:
        requirement: its name and version.
        modules: the extension modules that its tests must have linked.
        tests: arguments of pytest; files are in the source distribution.
        is_meson: whether meson builds it, and not setuptools.
        variables: for the environment of its tests.
    """

    requirement: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]
    is_meson: bool = False
    variables: Mapping[str, str] = MappingProxyType({})


PROJECTS = (
    _Project("markupsafe==3.0.4", ("markupsafe._speedups",), ("tests",)),
    _Project("simplejson==4.3.0", ("simplejson._speedups",), ("--pyargs", "simplejson.tests")),
    _Project("msgpack==1.2.4", ("msgpack._cmsgpack",), ("test",)),
    _Project(
        "bitarray==3.12.3",
        ("bitarray._bitarray", "bitarray._util"),
        ("--pyargs", "bitarray.test_bitarray", "bitarray.test_util"),
    ),
    _Project("wrapt==2.5.2", ("wrapt._wrappers",), ("tests",)),
    _Project("regex==2026.11.19", ("regex._regex",), ("--pyargs", "regex.tests.test_regex")),
    _Project("kiwisolver==1.5.1", ("kiwisolver._cext",), ("py/tests",)),
    _Project("zstandard==0.25.0", ("zstandard.backend_c",), ("tests",)),
    _Project(
        "zstandard==0.25.0",
        ("zstandard._cffi",),
        ("tests",),
        variables={"PYTHON_ZSTANDARD_IMPORT_POLICY": "cffi"},
    ),
    _Project(
        "greenlet==3.5.6",
        ("greenlet._greenlet",),
        ("--pyargs", "greenlet.tests.test_throw", "greenlet.tests.test_interpreter_shutdown"),
    ),
    _Project(
        "contourpy==1.3.3",
        ("contourpy._contourpy",),
        ("tests",),
        is_meson=True,
        # All of them take many minutes, and some need a browser.
        variables={
            "PYTEST_ADDOPTS": "-k 'test_enum or test_static or test_z_interp or test_convert'"
        },
    ),
)


class _Environment:
    """A virtual environment with what builds and tests need."""

    def __init__(self, directory: Path) -> None:
        venv.create(directory, with_pip=True, symlinks=True)
        self.bin = directory / "bin"
        self.python = self.bin / "python"
        self.run("-m", "pip", "install", "-q", *_BUILD_TOOLS, *_TEST_TOOLS)

    def run(
        self,
        *words: str | Path,
        cwd: Path | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run its Python; the exit status must be 0 or, for tests that fail, 1."""
        environment = {name: v for name, v in os.environ.items() if name != "PYTHONPATH"}
        path = os.pathsep.join([str(self.bin), os.environ["PATH"]])
        done = subprocess.run(
            [self.python, *words],
            cwd=cwd,
            env={**environment, "PATH": path, "CFLAGS": "-O1", "CXXFLAGS": "-O1"}
            | dict(variables or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        assert done.returncode in {0, 1}, done.stdout + done.stderr
        return done


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> _Environment:
    """The environment of all projects."""
    require("gcc")
    require("g++")
    return _Environment(tmp_path_factory.mktemp("environment") / "venv")


def _unpack(environment: _Environment, project: _Project, directory: Path) -> Path:
    """Download and unpack a source distribution."""
    options = ("--no-deps", "--no-build-isolation", "--no-binary", ":all:", "-d", directory)
    environment.run("-m", "pip", "download", "-q", *options, project.requirement)
    (archive,) = directory.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(directory, filter="data")
    return Path(str(archive).removesuffix(".tar.gz"))


def _build_setuptools(environment: _Environment, source: Path) -> tuple[Path, Path]:
    """Build; returns the build directory, and that of the packages with shared libraries."""
    script = source / "setup.py"
    if not script.exists():
        script.write_text("from setuptools import setup; setup()")
    assert environment.run("setup.py", "-q", "build", cwd=source).returncode == 0
    (packages,) = (source / "build").glob("lib.*")
    return source / "build", packages


def _build_meson(environment: _Environment, source: Path) -> tuple[Path, Path]:
    words = ("setup", "-Doptimization=1", "-Ddebug=false", "build")
    assert environment.run("-m", "mesonbuild.mesonmain", *words, cwd=source).returncode == 0
    assert environment.run("-m", "ninja", "-C", "build", cwd=source).returncode == 0
    packages = source / "packages"
    shutil.copytree(source / "lib", packages)
    for generated in (source / "build" / "lib").rglob("*.py"):
        shutil.copy(generated, packages / generated.relative_to(source / "build" / "lib"))
    for library in (source / "build" / "src").glob("*.so"):
        shutil.copy(library, packages / "contourpy")
    return source / "build", packages


_HOOK = """
import sys
sys.path.append({path!r})
import jitlink
importer = jitlink.install_importer({build!r})
"""
_REPORT = """
import sys
def pytest_sessionfinish(session, exitstatus):
    with open({report!r}, "w") as file:
        for name, module in list(sys.modules.items()):
            path = str(getattr(module, "__file__", ""))
            if path.startswith({source!r}) and path.endswith((".o", ".so")):
                print(name, path.rpartition(".")[2], file=file)
"""


class _Run(NamedTuple):
    """A run of a project's tests.

    Attributes:
        outcomes: for each test, what it ended in.
        modules: the project's extension modules that were imported, and the suffix of their files.
    """

    outcomes: dict[str, str]
    modules: dict[str, str]


def _run_tests(
    environment: _Environment, project: _Project, source: Path, place: Path, paths: Sequence[Path]
) -> _Run:
    place.mkdir()
    results, report = place / "results.xml", place / "modules"
    (place / "report_modules.py").write_text(_REPORT.format(report=str(report), source=str(source)))
    tests = [_copied(each, source, place) for each in project.tests]
    words = ("-q", "-p", "no:cacheprovider", "-p", "report_modules", "-o", "addopts=")
    done = environment.run(
        *("-m", "pytest", *words, f"--junitxml={results}", *tests),
        cwd=place,
        variables={
            "PYTHONPATH": os.pathsep.join(map(str, [*paths, place])),
            "PYTHONSAFEPATH": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            **project.variables,
        },
    )
    assert results.exists(), done.stdout + done.stderr
    cases = ET.parse(results).iter("testcase")
    outcomes = {
        f"{case.get('classname')}.{case.get('name')}": " ".join(sorted(e.tag for e in case))
        for case in cases
    }
    lines = report.read_text().splitlines()
    return _Run(outcomes, dict(line.split() for line in lines))


def _copied(word: str, source: Path, place: Path) -> str | Path:
    """An argument of pytest, of which a directory is copied away from the project's packages."""
    if not (source / word).is_dir():
        return word
    return Path(shutil.copytree(source / word, place / Path(word).name))


@pytest.mark.parametrize("project", PROJECTS, ids=lambda project: project.requirement)
def test_the_tests_of_a_project(
    project: _Project, environment: _Environment, tmp_path: Path
) -> None:
    source = _unpack(environment, project, tmp_path)
    build_project = _build_meson if project.is_meson else _build_setuptools
    build, packages = build_project(environment, source)
    # In the project's directory, since it is the project's packages that have its modules.
    linked_packages = source / "linked"
    shutil.copytree(packages, linked_packages, ignore=shutil.ignore_patterns("*.so"))
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(_HOOK.format(path=str(ROOT / "src"), build=str(build)))
    run = functools.partial(_run_tests, environment, project, source)
    native = run(tmp_path / "native", [packages])
    linked = run(tmp_path / "in-memory", [linked_packages, hook])
    assert linked.outcomes == native.outcomes
    assert "" in native.outcomes.values()
    for name in project.modules:
        assert (native.modules[name], linked.modules[name]) == ("so", "o")
    assert set(linked.modules.values()) == {"o"}
