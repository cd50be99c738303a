"""The dump, compared with what llvm-jitlink writes for the same graph."""

import numpy as np
import pytest

from jitlink.graph import (
    Linkage,
    LinkGraph,
    MemLifetime,
    Scope,
    Symbol,
    SymbolFlags,
    SymbolKind,
)
from jitlink.graph.text import GraphText, printable
from tests.graph.sample import READ, READ_EXEC, READ_WRITE, Kind, make_graph

EMPTY = """\
LinkGraph "test.o" (triple = x86_64-unknown-linux-gnu)
Absolute symbols:
  none

External symbols:
  none
"""

WHOLE = """\
LinkGraph "test.o" (triple = x86_64-unknown-linux-gnu)
section $first:

section .bss:

  block 0x500 size = 0x00000000, align = 1, alignment-offset = 0, zero-fill
    no symbols
    no edges

  block 0x2000 size = 0x123456789, align = 16, alignment-offset = 3, zero-fill
    symbols:
      0x2004 (block + 0x00000004): size: 0x00000004, linkage: weak, scope: default, dead  -   zero
    edges:
      0x2000 (block + 0x00000000), addend = +0x00000000, kind = Keep-Alive, target = abs

section .text:

  block 0x1000 size = 0x00000040, align = 16, alignment-offset = 0
    symbols:
      0x1000 (block + 0x00000000): size: 0x00000040, linkage: strong, scope: default, live  -   f
      0x1000 (block + 0x00000000): size: 0x00000004, linkage: strong, scope: hidden, dead  -   a
      0x1000 (block + 0x00000000): size: 0x00000008, linkage: strong, scope: hidden, dead  -   b
      0x1000 (block + 0x00000000): size: 0x00000000, linkage: strong, scope: local, dead  -   l
      0x1000 (block + 0x00000000): size: 0x00000000, linkage: strong, scope: local, dead  -   \
<anonymous symbol>
      0x1000 (block + 0x00000000): size: 0x00000000, linkage: weak, scope: default, dead  -   w
      0x100c (block + 0x0000000c): size: 0x00000002, linkage: strong, scope: local, live  -   \
<anonymous symbol>
    edges:
      0x1000 (block + 0x00000000), addend = -0x0000000a, kind = Pointer64, target = ext
      0x1008 (block + 0x00000008), addend = +0x00000000, kind = Keep-Alive, target = abs
      0x1008 (block + 0x00000008), addend = +0x00000001, kind = Delta32, target = \
addressable@0x1000+0x0000000c
      0x1009 (block + 0x00000009), addend = -0x8000000000000000, kind = Delta32, target = f
      0x1040 (block + 0x00000040), addend = +0x123456789ab, kind = Pointer64, target = \
addressable@0x77+0x00000000

  block 0xfffffffffffffff0 size = 0x00000010, align = 1, alignment-offset = 0
    no symbols
    no edges

Absolute symbols:
  0x77: 0x77 (addressable + 0x00000000): size: 0x00000000, linkage: strong, scope: local, \
dead  -   <anonymous symbol>
  0x123456789abc: 0x123456789abc (addressable + 0x00000000): size: 0x00000008, linkage: strong, \
scope: hidden, live  -   abs

External symbols:
  0x0: 0x0 (addressable + 0x00000000): size: 0x00000000, linkage: strong, scope: default, \
dead  -   ext
  0x0: 0x0 (addressable + 0x00000000): size: 0x00000004, linkage: strong, scope: default, \
dead  -   weak (weakly referenced)
"""


def whole_graph() -> LinkGraph:
    """What WHOLE shows, added in another order."""
    graph = make_graph()
    text = graph.create_section(".text", READ_EXEC)
    bss = graph.create_section(".bss", READ_WRITE)
    graph.create_section("$first", READ)
    graph.create_content_block(text, bytes(16), 2**64 - 16)
    block = graph.create_content_block(text, bytes(64), 0x1000, 16)
    zeros = graph.create_zero_fill_block(bss, 0x123456789, 0x2000, 16, 3)
    graph.create_zero_fill_block(bss, 0, 0x500)
    anonymous = graph.add_anonymous_symbol(block, 12, 2, is_live=True)
    graph.add_anonymous_symbol(block, 0)
    graph.add_defined_symbol(block, 0, "w", linkage=Linkage.WEAK)
    graph.add_defined_symbol(block, 0, "l", scope=Scope.LOCAL)
    graph.add_defined_symbol(block, 0, "b", 8, scope=Scope.HIDDEN)
    graph.add_defined_symbol(block, 0, "a", 4, scope=Scope.HIDDEN)
    function = graph.add_defined_symbol(block, 0, "f", 64, is_live=True)
    graph.add_defined_symbol(zeros, 4, "zero", 4, Linkage.WEAK)
    graph.add_external_symbol("weak", 4, weakly_referenced=True)
    external = graph.add_external_symbol("ext")
    absolute = graph.add_absolute_symbol("abs", 0x123456789ABC, 8, scope=Scope.HIDDEN, is_live=True)
    nameless = graph.add_absolute_symbol("", 0x77, scope=Scope.LOCAL)
    zeros.add_edge(Kind.KEEP_ALIVE, 0, absolute)
    block.add_edge(Kind.POINTER64, 64, nameless, 0x123456789AB)
    block.add_edge(Kind.KEEP_ALIVE, 8, absolute)
    block.add_edge(Kind.DELTA32, 8, anonymous, 1)
    block.add_edge(Kind.POINTER64, 0, external, -10)
    block.add_edge(Kind.DELTA32, 9, function, -(2**63))
    block.add_edge(Kind.POINTER64, 16, function).remove()
    return graph


def test_empty_graph() -> None:
    assert make_graph().dump() == EMPTY


def test_whole_graph() -> None:
    assert whole_graph().dump() == WHOLE


def test_some_blocks_with_what_they_refer_to() -> None:
    graph = make_graph()
    section, other = graph.create_section("a", READ), graph.create_section("b", READ)
    shown = graph.create_content_block(section, bytes(8), 0x1000)
    graph.create_content_block(section, bytes(8), 0x2000)
    hidden = graph.create_content_block(other, bytes(8), 0x3000)
    used, unused, removed = (graph.add_external_symbol(f"e{number}") for number in range(3))
    shown.add_edge(Kind.POINTER64, 0, used)
    shown.add_edge(Kind.POINTER64, 0, removed).remove()
    hidden.add_edge(Kind.POINTER64, 0, unused)
    text = GraphText(graph).text(np.array([True, False, False]), "part.o")
    assert (
        text
        == """\
LinkGraph "part.o" (triple = x86_64-unknown-linux-gnu)
section a:

  block 0x1000 size = 0x00000008, align = 1, alignment-offset = 0
    no symbols
    edges:
      0x1000 (block + 0x00000000), addend = +0x00000000, kind = Pointer64, target = e0

Absolute symbols:
  none

External symbols:
  0x0: 0x0 (addressable + 0x00000000): size: 0x00000000, linkage: strong, scope: default, \
dead  -   e0
"""
    )


def test_removed_elements_are_not_shown() -> None:
    graph = whole_graph()
    section = graph.create_section("removed", READ)
    block = graph.create_content_block(section, bytes(8))
    symbols = [graph.add_external_symbol("removed"), graph.add_anonymous_symbol(block, 0)]
    edge = block.add_edge(Kind.POINTER64, 0, symbols[0])
    assert graph.dump().count("removed") == 3
    edge.remove()
    graph.remove_external_symbol(symbols[0])
    graph.remove_defined_symbol(symbols[1])
    graph.remove_block(block)
    graph.remove_section(section)
    assert graph.dump() == WHOLE


def test_blocks_at_one_address_come_by_origin() -> None:
    graph = make_graph()
    section = graph.create_section("a", READ)
    blocks = [graph.create_zero_fill_block(section, size) for size in (1, 2, 3, 4)]
    graph.block_table.origin[:] = (1, 0, -1, 0)
    sizes = [line.split(",")[0][-1] for line in graph.dump().splitlines() if "  block" in line]
    assert sizes == ["3", "2", "4", "1"]
    blocks[0].address = 1
    blocks[2].address = 2
    sizes = [line.split(",")[0][-1] for line in graph.dump().splitlines() if "  block" in line]
    assert sizes == ["2", "4", "1", "3"]


def test_edges_at_one_offset_come_in_order_of_creation() -> None:
    graph = make_graph()
    block = graph.create_content_block(graph.create_section("a", READ), bytes(8), 2**64 - 8)
    target = graph.add_external_symbol("e")
    for addend in range(100):
        block.add_edge(Kind.POINTER64, 8 if addend % 2 else 0, target, addend)
    lines = [line.split() for line in graph.dump().splitlines() if "addend" in line]
    # Places wrap at the end of the address space, as addresses do.
    assert [line[0] for line in lines] == ["0xfffffffffffffff8"] * 50 + ["0x0"] * 50
    addends = [int(line[6].strip("+,"), 16) for line in lines]
    assert addends == [*range(0, 100, 2), *range(1, 100, 2)]


def test_sections_of_one_name_are_told_apart() -> None:
    graph = make_graph()
    graph.create_section("b", READ)
    graph.create_section("a", READ_WRITE)
    graph.create_section("a", READ, MemLifetime.NO_ALLOC)
    graph.create_section("a", READ_EXEC, MemLifetime.FINALIZE)
    lines = [line for line in graph.dump().splitlines() if line.startswith("section")]
    assert lines == [
        "section a (RW- standard):",
        "section a (R-- noalloc):",
        "section a (R-X finalize):",
        "section b:",
    ]


@pytest.mark.parametrize(
    ("flags", "notes"),
    [
        (SymbolFlags(0), ""),
        (SymbolFlags.CALLABLE | SymbolFlags.COMMON | SymbolFlags.WEAKLY_REFERENCED, ""),
        (SymbolFlags.INDIRECT, " (ifunc)"),
        (SymbolFlags.THREAD_LOCAL | SymbolFlags.UNIQUE, " (thread-local) (unique)"),
    ],
)
def test_notes_on_a_symbol(flags: SymbolFlags, notes: str) -> None:
    graph = make_graph()
    block = graph.create_zero_fill_block(graph.create_section("a", READ), 8)
    graph.add_defined_symbol(block, 0, "s").flags = flags
    (line,) = (line for line in graph.dump().splitlines() if "dead" in line)
    assert line.endswith(f"dead  -   s{notes}")


def test_hostile_names_stay_on_their_line() -> None:
    graph = make_graph()
    block = graph.create_content_block(graph.create_section("x\ny", READ), bytes(8))
    base = graph.strings.add_table(b"\0one\ntwo\xff\0gr\xc3\xb6\xc3\x9fe\0")
    row = graph.symbol_table.extend(
        2, kind=SymbolKind.EXTERNAL, name=np.array([base + 1, base + 10])
    )
    block.add_edge(Kind.POINTER64, 0, Symbol(graph, row))
    text = graph.dump()
    assert r"section x\x0ay:" in text
    assert text.count(r"target = one\x0atwo\xff") == 1
    assert "größe" in text
    assert len(text.splitlines()) == len(text.split("\n")) - 1
    text.encode("utf-8")


def test_unknown_kind_of_edge_is_shown_by_number() -> None:
    graph = make_graph()
    block = graph.create_content_block(graph.create_section("a", READ), bytes(8))
    edge = block.add_edge(Kind.POINTER64, 0, graph.add_external_symbol("e"))
    graph.edge_table.kind[edge.row] = 77
    assert "kind = <unknown kind 77>, target = e" in graph.dump()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain", "plain"),
        ("größe", "größe"),
        ("a b", "a b"),
        ("a\tb\x7f", r"a\x09b\x7f"),
        ("\udc80\udcff", r"\x80\xff"),
        ("\u2028", r"\u2028"),
        ("\ud800", r"\ud800"),
        ("\U000e0001", r"\U000e0001"),
    ],
)
def test_printable(name: str, shown: str) -> None:
    assert printable(name) == shown
