"""Whole programs behave in memory as when the system's linker links them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.platform.programs import (
    NON_PIC,
    PIC,
    Build,
    Outcome,
    linked,
    native,
    native_against_library,
    native_with_library,
    objects,
)
from tests.toolchain import CompilerName, require

# Source, number of objects, arguments.
C_PROGRAMS = [
    ("init_order.c", 3, ("x",)),
    ("handlers.c", 1, ()),
    ("handlers.c", 1, ("exits",)),
    ("quick.c", 1, ()),
    ("fork.c", 1, ()),
    ("backtrace.c", 2, ()),
    ("interpose.c", 1, ()),
    ("cancel.c", 1, ()),
    ("thread_exit.c", 1, ()),
    ("thread_exit.c", 1, ("exits",)),
    ("thread_variables.c", 2, ()),
]
CXX_PROGRAMS = [
    ("throw.cpp", 2, ()),
    ("ends.cpp", 2, ("uncaught",)),
    ("ends.cpp", 2, ("noexcept",)),
    ("ends.cpp", 2, ("destructor",)),
    ("forced.cpp", 2, ()),
]


def _check(name: str, parts: int, arguments: tuple[str, ...], build: Build, *, pie: bool) -> None:
    inputs = objects(name, build, parts)
    expected = native(inputs, arguments, pie=pie)
    assert expected.output, expected
    assert linked(inputs, arguments) == expected


@pytest.mark.parametrize("build", PIC, ids=str)
@pytest.mark.parametrize(("name", "parts", "arguments"), C_PROGRAMS + CXX_PROGRAMS)
def test_a_program(name: str, parts: int, arguments: tuple[str, ...], build: Build) -> None:
    _check(name, parts, arguments, build, pie=True)


@pytest.mark.parametrize("build", NON_PIC, ids=str)
@pytest.mark.parametrize(("name", "parts", "arguments"), C_PROGRAMS)
def test_a_position_dependent_program(
    name: str, parts: int, arguments: tuple[str, ...], build: Build
) -> None:
    _check(name, parts, arguments, build, pie=False)


# The pinned compiler has a C++ library of its own, which the process lacks.
@pytest.mark.parametrize("build", [build for build in PIC if build.compiler != "zig"], ids=str)
@pytest.mark.parametrize("name", ["library.cpp", "thread_objects.cpp"])
def test_the_cxx_library(name: str, build: Build) -> None:
    _check(name, 2, (), build, pie=True)


def test_thread_local_variables_of_the_cxx_library_in_the_static_tls_surplus() -> None:
    """What gcc emits by default: `std::call_once` with initial-exec accesses."""
    _check("thread_objects.cpp", 2, (), Build("gcc", ("-O2", "-fPIE")), pie=True)


def test_the_oracle_sees_differences() -> None:
    build = PIC[0]
    assert native(objects("handlers.c", build)) != native(objects("handlers.c", build), ("exits",))
    assert isinstance(native(objects("quick.c", build)), Outcome)


@pytest.mark.parametrize("build", PIC, ids=str)
def test_dlopen(build: Build, tmp_path: Path) -> None:
    host, plugin = objects("plugin_host.c", build), objects("plugin.c", build)
    expected = native_with_library(host, plugin, tmp_path / "plugin.so")
    assert "twice 3 is 6" in expected.output
    assert linked(host, libraries=[("./plugin.so", plugin)]) == expected


@pytest.mark.parametrize("build", PIC, ids=str)
@pytest.mark.parametrize("arguments", [(), ("exits",)])
def test_a_program_and_its_library(
    arguments: tuple[str, ...], build: Build, tmp_path: Path
) -> None:
    program, library = objects("library_order.c", build, 2)
    expected = native_against_library([program], [library], tmp_path, arguments)
    assert expected.output.startswith("library: begin")
    assert linked([program], arguments, [("library", [library])]) == expected


@pytest.mark.parametrize("build", PIC, ids=str)
@pytest.mark.parametrize(("name", "arguments"), [("throw.cpp", ()), ("ends.cpp", ("uncaught",))])
def test_exceptions_across_dylibs(name: str, arguments: tuple[str, ...], build: Build) -> None:
    program, library = objects(name, build, 2)
    expected = native([program, library], arguments)
    assert linked([program], arguments, [("library", [library])]) == expected


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_an_unwinder_of_its_own(compiler: CompilerName) -> None:
    # As with gcc's -static-libgcc.
    archives = [require("libgcc_eh.a"), require("libgcc.a")]
    inputs = objects("backtrace.c", Build(compiler, ("-O1", "-fPIC")), 2)
    expected = native(inputs)
    assert linked([*inputs, *archives]) == expected
