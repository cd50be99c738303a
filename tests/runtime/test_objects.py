"""The runtime's prebuilt objects, and how they are linked into an executor."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import jitlink.runtime.build
from jitlink.errors import UnsupportedObjectError
from jitlink.executor import SelfExecutorProcessControl, own_executor
from jitlink.executor.runtime_targets import RUNTIME_TARGETS
from jitlink.graph import Scope
from jitlink.link import run_in_process
from jitlink.runtime import (
    ALLOCATION,
    EXPORTS,
    PER_DYLIB,
    has_runtime,
    linked_runtime,
    open_object,
    runtime_of,
)
from jitlink.runtime.objects import OPTIONAL, REMOTE, SHARED
from jitlink.targets.registry import create_link_graph

HERE = Path(jitlink.runtime.__file__).parent
TRIPLE = "x86_64-unknown-linux-gnu"
TRIPLES = [f"{machine}-unknown-linux-gnu" for machine, _ in RUNTIME_TARGETS]


def _built_files(root: Path) -> list[Path]:
    return [path for target in RUNTIME_TARGETS.values() for path in (root / target.name).iterdir()]


def test_the_committed_objects_are_built_from_the_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Path(__file__).parents[2] / ".cache" / "zig"
    for kind in ("GLOBAL", "LOCAL"):
        monkeypatch.setenv(f"ZIG_{kind}_CACHE_DIR", str(cache))
    jitlink.runtime.build.build(tmp_path)
    built = {path.relative_to(tmp_path): path.read_bytes() for path in _built_files(tmp_path)}
    committed = {path.relative_to(HERE): path.read_bytes() for path in _built_files(HERE)}
    assert committed == built
    names = (*SHARED, *REMOTE, *OPTIONAL, *PER_DYLIB, *ALLOCATION)
    assert len(built) == len(RUNTIME_TARGETS) * (len(names) + 1)


def test_executors_are_where_they_are_looked_for() -> None:
    for (machine, _), target in RUNTIME_TARGETS.items():
        found = own_executor(machine)
        assert found is not None
        assert Path(found).parent == HERE / target.name
    assert own_executor() == own_executor(os.uname().machine)
    assert own_executor("vax") is None


def test_no_paths_are_in_the_objects() -> None:
    for path in _built_files(HERE):
        content = path.read_bytes()
        assert str(HERE).encode() not in content
        assert b".debug" not in content


@pytest.mark.parametrize("triple", TRIPLES)
@pytest.mark.parametrize("name", [*PER_DYLIB, *ALLOCATION])
def test_per_dylib_functions_are_weak_and_hidden(triple: str, name: str) -> None:
    graph = create_link_graph(bytes(open_object(triple, name).data))
    named = {
        symbol.name: symbol for symbol in graph.defined_symbols if symbol.scope is not Scope.LOCAL
    }
    assert set(named) == set({**PER_DYLIB, **ALLOCATION}[name])
    assert {symbol.scope for symbol in named.values()} == {Scope.HIDDEN}
    assert {symbol.linkage.name for symbol in named.values()} == {"WEAK"}


def test_an_executor_has_one_runtime() -> None:
    first, second = SelfExecutorProcessControl(), SelfExecutorProcessControl()
    runtime = run_in_process(runtime_of(first))
    assert run_in_process(runtime_of(second)) is runtime
    assert linked_runtime(first) is runtime
    assert set(runtime.exports) == set(EXPORTS)
    assert all(runtime.exports.values())


def test_other_targets_have_none() -> None:
    assert has_runtime(TRIPLE)
    assert has_runtime("x86_64-pc-linux-musl")
    assert all(map(has_runtime, TRIPLES))
    for triple in ("aarch64_be-unknown-linux-gnu", "x86_64-pc-windows-msvc", "x86_64"):
        assert not has_runtime(triple)
        with pytest.raises(UnsupportedObjectError, match="no runtime"):
            open_object(triple, "frames")
