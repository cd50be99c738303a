"""The address below which a graph must lie, by its relocations."""

from __future__ import annotations

import pytest

from jitlink.graph.link_graph import NO_ADDRESS_LIMIT
from jitlink.input_reader import InputReader
from jitlink.inputs import open_input
from jitlink.targets.registry import target_of_graph
from tests.toolchain import HOST_TARGET, compile_c

NARROW = """
int own[2];
extern int other[];
int near(long i) { return own[i]; }
int far(long i) { return other[i]; }
"""
DEBUG = "int f(int x) { return x + 1; }"


def limit(source: str, *flags: str, target: str = HOST_TARGET) -> int:
    reader = InputReader()
    reader.add([open_input(compile_c(source, "gcc", ["-O1", *flags], target=target))])
    graph = reader.target_graph
    return target_of_graph(graph).address_limit(graph)


def test_position_dependent_code() -> None:
    assert limit(NARROW, "-fno-pic") == 1 << 31
    assert limit(NARROW, "-fPIC") == NO_ADDRESS_LIMIT


def test_debug_information_does_not_count() -> None:
    assert limit(DEBUG, "-fPIC", "-g") == NO_ADDRESS_LIMIT


@pytest.mark.parametrize("name", ["own", "other"])
def test_one_reference_is_enough(name: str) -> None:
    source = f"extern int {name}[]; int f(long i) {{ return {name}[i]; }}"
    source += "int own[2];" if name == "own" else ""
    assert limit(source, "-fno-pic") == 1 << 31


@pytest.mark.parametrize("name", ["own", "other"])
def test_medlow_code_of_risc_v(name: str) -> None:
    source = f"extern int {name}[]; int f(long i) {{ return {name}[i]; }}"
    source += "int own[2];" if name == "own" else ""
    target = "riscv64-linux-gnu"
    low = limit(source, "-fno-pic", "-mcmodel=medlow", target=target)
    assert low == (1 << 31) - 0x800
    assert limit(source, "-fPIC", "-mcmodel=medany", target=target) == NO_ADDRESS_LIMIT
