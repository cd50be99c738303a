"""The runtime's prebuilt objects, and how they are linked into an executor."""

from __future__ import annotations

from pathlib import Path

import pytest

import jitlink.runtime.build
from jitlink.errors import UnsupportedObjectError
from jitlink.executor import SelfExecutorProcessControl
from jitlink.graph import Scope
from jitlink.link import run_in_process
from jitlink.runtime import EXPORTS, PER_DYLIB, has_runtime, linked_runtime, open_object, runtime_of
from jitlink.runtime.objects import DIRECTORIES, SHARED
from jitlink.targets.registry import create_link_graph

HERE = Path(jitlink.runtime.__file__).parent
TRIPLE = "x86_64-unknown-linux-gnu"


def test_the_committed_objects_are_what_the_sources_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Path(__file__).parents[2] / ".cache" / "zig"
    for kind in ("GLOBAL", "LOCAL"):
        monkeypatch.setenv(f"ZIG_{kind}_CACHE_DIR", str(cache))
    jitlink.runtime.build.build(tmp_path)
    made = {each.relative_to(tmp_path): each.read_bytes() for each in tmp_path.rglob("*.o")}
    committed = {each.relative_to(HERE): each.read_bytes() for each in HERE.rglob("*.o")}
    assert committed == made
    assert len(made) == len(DIRECTORIES) * (len(SHARED) + len(PER_DYLIB))


def test_nothing_of_the_place_is_in_the_objects() -> None:
    for name in (*SHARED, *PER_DYLIB):
        content = bytes(open_object(TRIPLE, name).data)
        assert str(HERE).encode() not in content
        assert b".debug" not in content


@pytest.mark.parametrize("name", PER_DYLIB)
def test_what_each_jitdylib_has_is_weak_and_hidden(name: str) -> None:
    graph = create_link_graph(bytes(open_object(TRIPLE, name).data))
    named = {each.name: each for each in graph.defined_symbols if each.has_name}
    assert set(named) == set(PER_DYLIB[name])
    assert {each.scope for each in named.values()} == {Scope.HIDDEN}
    assert {each.linkage.name for each in named.values()} == {"WEAK"}


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
    for triple in ("aarch64-unknown-linux-gnu", "x86_64-pc-windows-msvc", "x86_64"):
        assert not has_runtime(triple)
        with pytest.raises(UnsupportedObjectError, match="no runtime"):
            open_object(triple, "frames")
