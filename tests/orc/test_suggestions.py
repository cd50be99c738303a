"""Suggestions for undefined symbols."""

from pathlib import Path

import pytest

import jitlink
from jitlink.errors import UndefinedSymbolError
from jitlink.lljit import LLJIT
from jitlink.orc import FailedToMaterializeError
from tests.tool.command import archive
from tests.toolchain import compile_c

CALLER = "int compute_totl(int); int caller(void) { return compute_totl(1); }"
DEFINER = "int compute_total(int x) { return x; }"


def _cause(jit: LLJIT, name: str = "caller") -> UndefinedSymbolError:
    with pytest.raises(FailedToMaterializeError) as caught:
        jit.lookup(name)
    reason = caught.value.reason
    assert isinstance(reason, UndefinedSymbolError)
    return reason


def test_names_of_other_objects() -> None:
    with LLJIT() as jit:
        jit.add_object(compile_c(CALLER))
        assert _cause(jit).suggestions == {}
    with LLJIT() as jit:
        jit.add_object(compile_c(CALLER))
        jit.add_object(compile_c(DEFINER))
        error = _cause(jit)
    assert error.suggestions == {"compute_totl": "compute_total"}
    assert str(error).endswith("; did you mean compute_total?")


def test_names_of_archives_and_of_other_jitdylibs(tmp_path: Path) -> None:
    library = archive(tmp_path / "lib.a", compile_c(DEFINER))
    with LLJIT() as jit:
        jit.add_object(compile_c(CALLER))
        jit.add_archive(library)
        assert _cause(jit).suggestions == {"compute_totl": "compute_total"}
    with LLJIT() as jit:
        other = jit.create_jitdylib("other")
        jit.add_object(compile_c(DEFINER), dylib=other)
        jit.add_object(compile_c(CALLER))
        jit.main.add_to_link_order(other)
        assert _cause(jit).suggestions == {"compute_totl": "compute_total"}


def test_names_of_the_linked_object_itself() -> None:
    with pytest.raises(UndefinedSymbolError) as caught:
        jitlink.load(compile_c(CALLER + DEFINER))
    assert caught.value.suggestions == {"compute_totl": "compute_total"}


def test_aliases() -> None:
    with LLJIT() as jit:
        jit.add_object(compile_c(DEFINER))
        jit.main.define(jitlink.orc.ReExports({"nick": "compute_totla"}))
        error = _cause(jit, "nick")
    assert error.suggestions == {"compute_totla": "compute_total"}
    assert error.referrers == {"compute_totla": ("alias nick",)}


def test_another_undefined_name_is_not_suggested() -> None:
    text = "int compute_totl(void), compute_totm(void); int caller(void) { return %s; }"
    with LLJIT() as jit:
        jit.add_object(compile_c(text % "compute_totl() + compute_totm()"))
        error = _cause(jit)
    assert error.suggestions == {}
    assert set(error.names) == {"compute_totl", "compute_totm"}
