"""Link graphs as JSON and DOT, compared with the text and drawn by Graphviz."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from jitlink.tool.graph_dot import GraphDot
from jitlink.tool.graph_json import GraphJSON
from tests.graph.sample import READ_EXEC, Kind, make_graph
from tests.tool.command import Command, compile_to, error
from tests.toolchain import require

MAIN = """
int puts(const char *); int other(int); int table[50]; extern int maybe __attribute__((weak));
static int step(int x) { return x + table[x]; }
int (*steps[])(int) = {step, other};
int main(int argc, char **argv) { puts(argv[0]); return steps[argc & 1](argc) + (&maybe != 0); }
"""


@pytest.fixture
def words() -> tuple[str, ...]:
    """A command that prints two graphs."""
    compile_to(Path("main.o"), MAIN, "gcc", "-ffunction-sections")
    compile_to(Path("other.o"), "extern int table[]; int other(int x) { return table[x]; }", "gcc")
    slab = ("-slab-allocate=1Mb", "-slab-address=0x100000", "-slab-page-size=4096")
    return ("main.o", "other.o", "-noexec", "-show-graphs", ".", *slab)


def test_json_has_the_facts_of_the_text(command: Command, words: tuple[str, ...]) -> None:
    text = command(*words).out
    lines = command(*words, "-show-graphs-format", "json").out.splitlines()
    graphs = [json.loads(line) for line in lines]
    assert [graph["name"] for graph in graphs] == ["main.o", "other.o"]
    facts = [_facts_of_json(graph) for graph in graphs]
    assert facts == [_facts_of_text(part) for part in text.split("Link graph ")[1:]]
    assert all(len(each) > 5 for each in facts)


def _facts_of_json(graph: dict[str, Any]) -> list[tuple[object, ...]]:
    facts: list[tuple[object, ...]] = []
    for section in graph["sections"]:
        facts.append(("section", section["name"]))
        for block in section["blocks"]:
            facts.append(("block", block["address"], block["size"], block["alignment"]))
            assert block["file"] == (None if section["name"][:1] == "$" else graph["name"])
            for symbol in block["symbols"]:
                assert int(symbol["address"], 16) == int(block["address"], 16) + symbol["offset"]
                facts.append(_symbol_fact(symbol))
            facts += [("edge", e["offset"], e["addend"], e["kind"]) for e in block["edges"]]
    for kind in ("absolute_symbols", "external_symbols"):
        facts += [_symbol_fact(symbol) for symbol in graph[kind]]
    return facts


def _symbol_fact(symbol: dict[str, Any]) -> tuple[object, ...]:
    name, live = symbol["name"] or "<anonymous symbol>", "live" if symbol["live"] else "dead"
    weak = " (weakly referenced)" if symbol.get("weakly_referenced") else ""
    properties = (symbol["size"], symbol["linkage"], symbol["scope"], live)
    return ("symbol", symbol["address"], *properties, name + weak)


def _facts_of_text(text: str) -> list[tuple[object, ...]]:
    facts: list[tuple[object, ...]] = []
    for line in text.splitlines():
        if match := re.match(r"section (.*):$", line):
            facts.append(("section", match[1]))
        elif match := re.match(r"  block (\w+) size = (\w+), align = (\d+)", line):
            facts.append(("block", match[1], int(match[2], 16), int(match[3])))
        elif match := re.search(
            r"(0x\w+) \(\w+ \+ \w+\): size: (\w+), linkage: (\w+), scope: (\S+), (\w+)  -   (.*)",
            line,
        ):
            facts.append(("symbol", match[1], int(match[2], 16), *match.groups()[2:]))
        elif match := re.search(r"\(block \+ (\w+)\), addend = (\S+), kind = (.*), target", line):
            facts.append(("edge", int(match[1], 16), int(match[2], 16), match[3]))
    return facts


def test_targets_of_edges_are_symbols(command: Command, words: tuple[str, ...]) -> None:
    graphs = [json.loads(n) for n in command(*words, "-show-graphs-format=json").out.splitlines()]
    symbols: dict[int, str | None] = {}
    for graph in graphs:
        blocks = [block for section in graph["sections"] for block in section["blocks"]]
        for each in (graph["absolute_symbols"], graph["external_symbols"],
                     *(block["symbols"] for block in blocks)):  # fmt: skip
            symbols |= {symbol["id"]: symbol["name"] for symbol in each}
    edges = [
        edge
        for graph in graphs
        for section in graph["sections"]
        for block in section["blocks"]
        for edge in block["edges"]
    ]
    assert len(edges) > 5
    for edge in edges:
        assert symbols[edge["target"]] == edge["target_name"]


_STRING = r'"(?:[^"\\]|\\.)*"'
_ATTRIBUTES = rf"(?: \[(?:\w+=(?:\w+|{_STRING}) ?)+\])"


def _check_dot(text: str) -> dict[str, set[str]]:
    """Check that a text is in the subset of DOT that is used here; returns the arrows by node."""
    arrows: dict[str, set[str]] = {}
    depth = 0
    for line in text.splitlines():
        body = line.strip()
        if re.fullmatch(rf"(digraph {_STRING}|subgraph \w+) \{{", body):
            depth += 1
        elif body == "}":
            depth -= 1
        elif match := re.fullmatch(rf"(\w+) -> (\w+){_ATTRIBUTES}", body):
            arrows.setdefault(match[1], set()).add(match[2])
        elif match := re.fullmatch(rf"([bs]\d+){_ATTRIBUTES}", body):
            arrows.setdefault(match[1], set())
        else:
            pattern = rf"(\w+=(\w+|{_STRING}) ?)+|node{_ATTRIBUTES}"
            assert re.fullmatch(pattern, body), line
        assert depth >= 0
    assert depth == 0
    return arrows


def test_dot_has_all_blocks_and_their_targets(command: Command, words: tuple[str, ...]) -> None:
    out = command(*words, "-show-graphs-format", "dot").out
    graphs = re.split(r"(?m)^(?=digraph)", out)[1:]
    assert len(graphs) == 2
    for graph, name in zip(graphs, ("main.o", "other.o"), strict=True):
        arrows = _check_dot(graph)
        assert graph.startswith(f'digraph "{name}" {{')
        # Every target is a node.
        assert set().union(*arrows.values()) <= arrows.keys()
    assert re.search(r's\d+ \[shape=oval label="puts\\n0x', graphs[0])
    assert re.search(r'b\d+ \[label="main\\n0x', graphs[0])
    assert re.search(r'b\d+ \[label="table\\n0x\w+, 200 bytes"', graphs[1])
    assert 'label="Delta32 x' not in graphs[1]


def test_graphviz_draws_it(command: Command, words: tuple[str, ...]) -> None:
    dot = require("dot")
    out = command(*words, "-show-graphs-format", "dot").out
    done = subprocess.run([dot, "-Tsvg"], input=out, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "puts" in done.stdout


def test_odd_names_are_valid_in_both() -> None:
    graph = make_graph()
    section = graph.create_section('a "quoted"\\section', READ_EXEC)
    block = graph.create_content_block(section, bytes(8))
    for number in range(9):
        graph.add_defined_symbol(block, number % 8, f'n"{number}\\\n\udcff', 1, is_live=True)
    symbol = graph.add_external_symbol("el\udc80se")
    block.add_edge(Kind.POINTER64, 0, symbol, 4)
    block.add_edge(Kind.POINTER64, 0, symbol, -4)
    fields = json.loads(GraphJSON(graph).text().encode("ascii"))
    assert fields["sections"][0]["name"] == 'a "quoted"\\section'
    assert fields["sections"][0]["blocks"][0]["file"] is None
    assert fields["external_symbols"][0]["name"] == "el\\x80se"
    assert [edge["addend"] for edge in fields["sections"][0]["blocks"][0]["edges"]] == [4, -4]
    text = GraphDot(graph).text()
    _check_dot(text)
    assert 'label="a \\"quoted\\"\\\\section R-X"' in text
    assert "\\nand 3 more\\n" in text
    assert '[label="Pointer64 x2"]' in text


def test_an_unknown_format(command: Command) -> None:
    assert command("-show-graphs-format", "xml", "a.o") == error(
        "-show-graphs-format: 'xml' is not one of text, json, dot"
    )
