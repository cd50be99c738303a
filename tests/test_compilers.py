"""Installed compilers: their directories and support libraries."""

from pathlib import Path

import pytest

from jitlink import compilers
from jitlink.compilers import gcc_directories, support_archives
from tests.toolchain import require, run


def test_the_directory_of_gcc_is_what_gcc_says() -> None:
    said = run([require("gcc"), "-print-libgcc-file-name"]).strip()
    directory = Path(said).parent.resolve()
    assert directory in [Path(each).resolve() for each in gcc_directories("x86_64")]
    assert said in support_archives("x86_64")


def test_the_directory_of_a_cross_compiler() -> None:
    said = run([require("aarch64-linux-gnu-gcc-12"), "-print-libgcc-file-name"]).strip()
    assert str(Path(said).parent) in gcc_directories("aarch64")
    assert said in support_archives("aarch64")


def test_nothing_for_a_machine_that_does_not_exist() -> None:
    assert gcc_directories("pdp11") == []
    assert support_archives("pdp11") == []


def test_the_newest_version_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("9", "21.1.0", "22", "3.9"):
        place = tmp_path / version / "lib" / "linux"
        place.mkdir(parents=True)
        (place / "libclang_rt.builtins-x86_64.a").touch()
    monkeypatch.setattr(compilers, "_CLANG_PARENTS", (str(tmp_path),))
    found = [Path(each) for each in support_archives("x86_64") if str(tmp_path) in each]
    assert [path.parts[-4] for path in found] == ["22", "21.1.0", "9", "3.9"]
