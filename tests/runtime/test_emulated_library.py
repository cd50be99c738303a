"""The C library of emulated machines is built from its sources, and complete."""

from pathlib import Path

import pytest

from jitlink.executor import Emulated
from jitlink.executor.emulated.machines import MACHINES
from jitlink.runtime.emulated_library import HERE, TARGETS, WITH_COMPILER_SUPPORT, build


def test_the_committed_archives_are_built_from_the_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Path(__file__).parents[2] / ".cache" / "zig"
    for kind in ("GLOBAL", "LOCAL"):
        monkeypatch.setenv(f"ZIG_{kind}_CACHE_DIR", str(cache))
    build(tmp_path)
    built = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.*")}
    paths = [path for name in TARGETS for path in (HERE / name).iterdir()]
    committed = {path.relative_to(HERE): path.read_bytes() for path in paths}
    assert committed == built
    assert len(built) == 2 * len(TARGETS) + len(WITH_COMPILER_SUPPORT)


def test_no_paths_are_in_the_archives() -> None:
    for name in TARGETS:
        for path in (HERE / name).iterdir():
            assert str(HERE).encode() not in path.read_bytes()


def test_every_machine_has_one() -> None:
    for name, machine in MACHINES.items():
        for abi in (None, *machine.abis):
            with Emulated(name, abi=abi) as executor:
                assert [Path(each).exists() for each in executor.static_libraries] == [True]
