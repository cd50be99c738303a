"""Small extension modules, compiled to objects for this interpreter."""

from __future__ import annotations

import sysconfig
from pathlib import Path

from tests.toolchain import compile_c, report_missing, run, zig_command

_SOURCES = Path(__file__).with_name("sources") / "extensions"


def include_flag() -> str:
    """The option for Python's headers; skips the test if they are missing, as `require` does."""
    directory = Path(sysconfig.get_path("include"))
    if not (directory / "Python.h").exists():
        report_missing(f"{directory}/Python.h", "libpython3-dev")
    return f"-I{directory}"


def compile_extension(name: str, *flags: str) -> Path:
    """The object of a source of ``tests/sources/extensions``."""
    return compile_c(_SOURCES / name, flags=("-O1", "-fPIC", include_flag(), *flags))


def compile_value(value: int, function: str = "value") -> Path:
    """An object that defines a function which returns a number."""
    return compile_c(f"int {function}(void) {{ return {value}; }}", flags=("-O1", "-fPIC"))


def link_natively(path: Path, *inputs: Path) -> Path:
    """A shared library, as builds of extension modules make it."""
    run([*zig_command("cc"), "-shared", "-o", path, *inputs])
    return path
