"""A container that nothing but its own module and the registry knows links through all layers."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

import jitlink
from jitlink.errors import (
    DuplicateDefinitionError,
    ObjectError,
    UndefinedSymbolError,
    UnknownFormatError,
    UnsupportedObjectError,
)
from jitlink.graph import LinkGraph
from jitlink.inputs import open_input
from jitlink.orc.lazy import LazyHiddenObjectLayer, SymbolTransform
from jitlink.orc.stubs import IndirectStubsManager
from jitlink.targets import registry
from jitlink.tool.main import main
from tests.flat import FLAT_TARGET, MAGIC, flat_object
from tests.toolchain import compile_c, run, zig_command

# int scaled(int a) { return a * factor; }
SCALED = flat_object(
    [("text", "code", "8b05 00000000 0fafc7 c3"), ("data", "data", "03000000")],
    [("scaled", "text", 0, 10, "strong"), ("factor", "data", 0, 4, "weak")],
    [("text", 2, "DELTA32", "factor", -4)],
)
# int main(void) { return scaled(7); }
MAIN = flat_object(
    [("text", "code", "4883ec08 bf07000000 e8 00000000 4883c408 c3")],
    [("main", "text", 0, 19, "strong"), ("scaled", None, 0, 0, "strong")],
    [("text", 10, "BRANCH_PCREL32", "scaled", 0)],
)
FACTOR = flat_object([("data", "data", "05000000")], [("factor", "data", 0, 4, "strong")], [])


@pytest.fixture(autouse=True)
def flat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.OBJECT_FORMATS, MAGIC, "tests.flat:FLAT")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An archive without an index, since `ar` does not know the format."""
    for name, data in {"main": MAIN, "scaled": SCALED}.items():
        (tmp_path / f"{name}.flat").write_bytes(data)
    place = tmp_path / "libflat.a"
    members = [tmp_path / "main.flat", tmp_path / "scaled.flat"]
    run([*zig_command("ar"), "rcS", place, *members])
    return place


def test_load() -> None:
    with jitlink.load(MAIN, SCALED) as lib:
        assert lib.main() == 21
        assert lib.scaled(4) == 12
        assert lib.variable("factor", ctypes.c_int).value == 3


def test_a_strong_definition_prevails() -> None:
    for objects in ((MAIN, SCALED, FACTOR), (FACTOR, SCALED, MAIN)):
        with jitlink.load(*objects) as lib:
            assert lib.main() == 35
    with pytest.raises(DuplicateDefinitionError, match="factor"):
        jitlink.load(MAIN, SCALED, FACTOR, FACTOR)


def test_sessions() -> None:
    with jitlink.LLJIT() as jit:
        for data in (MAIN, SCALED, FACTOR):
            jit.add_object(data)
        assert jit.lookup("main")() == 35


def test_lazy_objects(tmp_path: Path) -> None:
    place = tmp_path / "scaled.flat"
    place.write_bytes(SCALED)
    with jitlink.LLJIT() as jit:
        stubs = IndirectStubsManager(jit.layer)
        lazy = LazyHiddenObjectLayer(jit.layer, SymbolTransform(is_lazy=True), stubs)
        lazy.add_objects(jit.main, [open_input(place)])
        jit.add_object(MAIN)
        assert jit.lookup("main")() == 21


def test_members_of_archives(archive: Path) -> None:
    with jitlink.load(FACTOR, archive, aliases={"start": "main"}) as lib:
        assert lib.start() == 35
    with jitlink.LLJIT() as jit:
        jit.add_archive(archive)
        assert jit.lookup("main")() == 21


def test_the_command(archive: Path, tmp_path: Path) -> None:
    assert main([str(tmp_path / "main.flat"), str(archive)]) == 21
    assert main([str(archive)]) == 21


def test_harness() -> None:
    prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)
    with jitlink.harness(MAIN, mocks={"scaled": (lambda a: a + 1, prototype)}) as tested:
        assert tested.main() == 8


def test_graphs() -> None:
    graph = jitlink.create_link_graph(SCALED, "scaled.flat")
    assert graph.target is FLAT_TARGET
    assert {symbol.name for symbol in graph.defined_symbols} == {"scaled", "factor"}
    by_hand = LinkGraph("by hand", FLAT_TARGET.triple, edge_kinds=FLAT_TARGET.edge_kinds)
    assert registry.target_of_graph(graph) is FLAT_TARGET
    assert registry.target_of_graph(by_hand) is not None
    with pytest.raises(UnsupportedObjectError, match="no target for triple z80"):
        registry.target_of_graph(LinkGraph("by hand", "z80-unknown-none"))


def test_errors() -> None:
    with pytest.raises(UndefinedSymbolError, match="scaled"):
        jitlink.load(MAIN)
    with pytest.raises(ObjectError, match="<memory 0>: "):
        jitlink.load(MAGIC + b"{")
    with pytest.raises(UnknownFormatError, match="not an object file of a known format"):
        jitlink.load(b"CUBE\0")
    elf = compile_c("int scaled(int a) { return a; }").read_bytes()
    with pytest.raises(UnsupportedObjectError, match="<memory 1>"):
        jitlink.load(elf, MAIN)
