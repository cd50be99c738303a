"""Frames that are found to stay whole record by record are those that are found as columns."""

import struct
from itertools import islice
from random import Random

import pytest

from jitlink.arch.x86_64 import X86_64EdgeKind as K
from jitlink.errors import ObjectError
from jitlink.formats.archive import Archive
from jitlink.graph import LinkGraph, MemLifetime, MemProt, Scope
from jitlink.graph.columns import Columns
from jitlink.passes import eh_frame_few
from jitlink.passes.eh_frame import FramePass
from jitlink.passes.eh_frame_few import MOST_ROWS, find_whole_sections
from jitlink.passes.prune import mark_exported_live
from tests.linking import read_graph
from tests.toolchain import CompilerName, compile_c, require

CIES = (
    struct.pack("<II", 16, 0) + b"\1zR\0\1\x78\x10\1\x1b" + bytes(3),
    struct.pack("<II", 13, 0) + b"\1\0\1\x78\x10" + bytes(4),
    struct.pack("<II", 24, 0) + b"\1zPLR\0\1\x78\x10\7\x1b\0\0\0\0\x1b\x1b" + bytes(3),
)
TABLES = ("block_table", "symbol_table", "edge_table")


def tables(graph: LinkGraph) -> list[dict[str, list[object]]]:
    found: list[Columns] = [getattr(graph, name) for name in TABLES]
    return [{name: getattr(table, name).tolist() for name in table.FIELDS} for table in found]


def outcome(graph: LinkGraph, *, is_marked: bool) -> object:
    """The graph with its frames split, or the error."""
    frames = FramePass(neg_delta32=K.NEG_DELTA32)
    if is_marked:
        mark_exported_live(graph)
    try:
        (frames.run_marked if is_marked else frames)(graph)
    except ObjectError as error:
        return str(error)
    return tables(graph)


def random_section(random: Random) -> tuple[bytearray, list[int]]:
    """Records, most of them as compilers write them, and offsets of relocations."""
    content, relocated, cie = bytearray(random.choice(CIES)), [], 0
    for _ in range(random.choice((0, 1, 1, 2, 5))):
        start = len(content)
        what = random.choice(("FDE",) * 9 + ("CIE", "LSDA", "end"))
        if what == "CIE":
            cie = start
            content += random.choice(CIES)
        elif what == "end":
            content += bytes(4)
        else:
            size = random.choice((8, 12, 12, 13, 20))
            content += struct.pack("<II", size + 4, start + 4 - cie) + bytes(size)
            relocated += [start + 8] + ([start + 12] if what == "LSDA" else [])
    if random.random() < 0.3:
        place = random.randrange(len(content))
        content[place] = random.choice((0, 1, 4, 8, 0xFF))
    if random.random() < 0.1:
        relocated = random.sample(relocated, len(relocated))
    if random.random() < 0.1:
        relocated += relocated[-1:]
    return content, relocated


def random_frames(seed: int) -> LinkGraph:
    random = Random(seed)
    graph = LinkGraph("frames", "x86_64-unknown-linux-gnu", edge_kinds=K)
    code = graph.create_section(".text", MemProt.READ | MemProt.EXEC)
    symbols = [graph.add_external_symbol("external")] if random.random() < 0.1 else []
    for number in range(random.choice((1, 1, 2, 3))):
        block = graph.create_content_block(code, bytes(16))
        scope = random.choice((Scope.DEFAULT, Scope.DEFAULT, Scope.LOCAL))
        symbols += [graph.add_defined_symbol(block, 0, f"f{number}", scope=scope)]
        symbols += [graph.add_anonymous_symbol(block, 8)]
    for lifetime in random.choice(((0,), (0,), (0, 2))):
        section = graph.create_section(".eh_frame", MemProt.READ, MemLifetime(lifetime))
        for _ in range(random.choice((1, 1, 2, 3))):
            content, relocated = random_section(random)
            block = graph.create_content_block(section, content)
            if random.random() < 0.1:
                symbols += [graph.add_anonymous_symbol(block, 0)]
            target = random.choice(symbols)
            for offset in relocated:
                target = target if random.random() < 0.7 else random.choice(symbols)
                graph.add_edge(block, K.DELTA32, min(offset, block.size), target)
        if random.random() < 0.1:
            graph.create_zero_fill_block(section, 8)
    return graph


@pytest.mark.parametrize("is_marked", [False, True])
def test_random_frames(is_marked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [outcome(random_frames(seed), is_marked=is_marked) for seed in range(2000)]
    monkeypatch.setattr(eh_frame_few, "MOST_ROWS", 0)
    for seed, each in enumerate(found):
        assert outcome(random_frames(seed), is_marked=is_marked) == each


@pytest.mark.parametrize("name", ["libc.a", "libgcc.a", "aarch64-linux-gnu/libgcc.a"])
@pytest.mark.parametrize("is_marked", [False, True])
def test_members_of_archives(name: str, is_marked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    members = Archive(memoryview(require(name).read_bytes()), name).members()
    compared = 0
    for member in islice(members, 0, None, 4):
        data = bytes(member.data or b"")
        if not data.startswith(b"\x7fELF"):
            continue
        found = []
        for most in (MOST_ROWS, 0):
            monkeypatch.setattr(eh_frame_few, "MOST_ROWS", most)
            graph = read_graph(data)
            ordinals = graph.section_list.ordinals_named(".eh_frame")
            compared += find_whole_sections(graph, ordinals, is_marked=False) is not None
            found.append(outcome(graph, is_marked=is_marked))
        assert found[0] == found[1]
    assert compared > 20


def test_what_compilers_write_is_found(compiler: CompilerName) -> None:
    """Where both functions are exported, their frames stay, whatever their sections are."""
    source = "int f(int x) { return x + 1; } int g(int x) { return f(x) * 2; }"
    for flags in (["-O1"], ["-O1", "-ffunction-sections"]):
        graph = read_graph(compile_c(source, compiler, flags))
        ordinals = graph.section_list.ordinals_named(".eh_frame")
        mark_exported_live(graph)
        found = find_whole_sections(graph, ordinals, is_marked=True)
        assert found is not None
        assert (len(found.live), found.others, found.alignment) == (1, [], 4)
