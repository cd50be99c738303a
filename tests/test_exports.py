"""Names of linked graphs: found one by one, together, and in string tables of many objects."""

from __future__ import annotations

import pytest

from jitlink.exports import Exports
from jitlink.input_reader import InputReader
from jitlink.inputs import open_input
from tests.toolchain import compile_c

DEFINITIONS = """
int variable = 1;
static int local = 2;
int function(void) { return local; }
__attribute__((section(".text"))) int word = 3;
__asm__(".globl number; .set number, 0x1234");
"""
# Each has a string table of its own, and the name in it.
USERS = [f"int function(void); int user{n}(void) {{ return function(); }}" for n in range(6)]
NAMES = ["variable", "function", "word", "number", *(f"user{n}" for n in range(6))]


@pytest.fixture(scope="module")
def exports() -> Exports:
    reader = InputReader()
    flags = ("-O1", "-fPIC")
    sources = [*USERS, DEFINITIONS]
    reader.add([open_input(compile_c(each, flags=flags), n) for n, each in enumerate(sources)])
    reader.resolver.finish()
    graph = reader.target_graph
    for number, block in enumerate(graph.blocks, 1):
        block.address = number << 12
    assert len(graph.strings.find("function")) > 4
    return Exports(graph)


def test_one_name_and_many_have_the_same_rows(exports: Exports) -> None:
    rows = {name: exports.row(name) for name in NAMES}
    assert exports.rows(NAMES) == rows
    assert exports.rows([*NAMES[:2], "local", "absent"]) == {n: rows[n] for n in NAMES[:2]}
    assert exports.rows([*NAMES, "local", "absent"]) == rows
    assert len(set(rows.values())) == len(NAMES)


def test_addresses_are_the_same_before_and_after_all_were_read(exports: Exports) -> None:
    fresh = exports.owned_by(None)
    one_by_one = {name: fresh[name] for name in NAMES}
    assert one_by_one["number"] == 0x1234
    assert sorted(fresh) == sorted(NAMES)
    assert {name: fresh[name] for name in NAMES} == one_by_one == dict(fresh)
    assert len(fresh) == len(NAMES)


@pytest.mark.parametrize("name", ["local", "absent", "", "printf"])
def test_what_is_not_exported(exports: Exports, name: str) -> None:
    assert name not in exports
    with pytest.raises(KeyError):
        exports.row(name)


def test_what_is_code_and_what_is_not(exports: Exports) -> None:
    found = {name: exports.is_code(exports.row(name)) for name in NAMES[:4]}
    assert found == {"variable": False, "function": True, "word": True, "number": None}


def test_sizes_and_owners(exports: Exports) -> None:
    assert exports.size("variable") == 4
    assert exports.size("number") == 0
    owner = object()
    assert exports.owned_by(owner).owner is owner
    assert exports.owner is None
