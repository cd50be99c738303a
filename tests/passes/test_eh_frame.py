"""`.eh_frame` splitting: FDEs are kept with their functions, malformed records are refused."""

import struct
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from jitlink.arch.x86_64 import X86_64EdgeKind as K
from jitlink.errors import FixupError, ObjectError
from jitlink.graph import Block, LinkGraph, MemProt, Scope
from jitlink.graph.edges import KEEP_ALIVE
from jitlink.link import PassConfiguration
from jitlink.passes import eh_frame, eh_frame_few
from jitlink.passes.eh_frame import FramePass
from tests.elf_files import ElfFile
from tests.linking import Configure, Linked, Linker, read_graph
from tests.passes.frame_sources import (
    ENCODINGS,
    INDIRECT,
    OMIT,
    PCREL,
    Cie,
    Fde,
    dump_frames,
    frame_section,
    functions,
    linked_frames,
    record,
)
from tests.toolchain import CompilerName, compile_c

SOURCES = Path(__file__).parent.parent / "sources"
COMPILED = [
    ("shapes.cpp", ("-O0",)),
    ("shapes.cpp", ("-O2", "-ffunction-sections")),
    ("everything.c", ("-O1",)),
    ("everything.c", ("-O2", "-ffunction-sections", "-fexceptions")),
]


@pytest.fixture
def linker() -> Iterator[Linker]:
    with Linker() as linker:
        yield linker


def assemble(*parts: str) -> Path:
    return compile_c("\n".join(parts), "clang", suffix=".s")


def split(path: Path | bytes, *, leaves_whole: bool = False) -> LinkGraph:
    graph = read_graph(path)
    FramePass(neg_delta32=K.NEG_DELTA32, leaves_whole=leaves_whole)(graph)
    return graph


def records_of(graph: LinkGraph) -> dict[int, Block]:
    """The records by offset in the object's section, without the terminator."""
    section = graph.find_section_by_name(".eh_frame")
    assert section is not None
    return {
        block.address: block for block in section.blocks if bytes(block.content[:4]) != bytes(4)
    }


def exporting(*names: str) -> Configure:
    """Make all other symbols local."""

    def configure(graph: LinkGraph, _passes: PassConfiguration) -> None:
        for symbol in graph.defined_symbols:
            if symbol.has_name and symbol.name not in names:
                symbol.scope = Scope.LOCAL

    return configure


def described(linked: Linked) -> set[int]:
    """Addresses of the functions that FDEs describe; checks that the CIEs are those of the FDEs."""
    frames = linked_frames(linked.graph)
    cies = {frame.address for frame in frames if frame.cie is None}
    assert {frame.cie for frame in frames if frame.cie is not None} == cies
    found = [frame.function for frame in frames if frame.function is not None]
    assert len(set(found)) == len(found)
    return set(found)


def addresses(linked: Linked, *names: str) -> set[int]:
    return {linked.address(name) for name in names}


# Compiled code


@pytest.mark.parametrize(("name", "flags"), COMPILED)
def test_records_are_those_of_dwarfdump(
    compiler: CompilerName, name: str, flags: tuple[str, ...]
) -> None:
    path = compile_c(SOURCES / name, compiler, flags)
    expected = dump_frames(path)
    graph = split(path)
    found = records_of(graph)
    assert sorted(found) == [entry.offset for entry in expected]
    for entry in expected:
        links = [e for e in found[entry.offset].edges if e.kind == K.NEG_DELTA32]
        if entry.cie is None:
            assert links == []
        else:
            (link,) = links
            assert link.target.block == found[entry.cie]
            assert (link.offset, link.addend, link.target.offset) == (4, 0, 0)


@pytest.mark.parametrize(("name", "flags"), COMPILED)
def test_every_function_keeps_its_fde(
    compiler: CompilerName, name: str, flags: tuple[str, ...]
) -> None:
    path = compile_c(SOURCES / name, compiler, flags)
    graph = split(path)
    found = records_of(graph)
    for entry in dump_frames(path):
        if entry.cie is None:
            continue
        frame = found[entry.offset]
        (function,) = [edge.target for edge in frame.edges if edge.offset == 8]
        kept = [edge.target.block for edge in function.block.edges if edge.kind == KEEP_ALIVE]
        assert frame in kept


@pytest.mark.parametrize(("name", "flags"), COMPILED)
def test_frames_of_a_linked_object(
    linker: Linker, compiler: CompilerName, name: str, flags: tuple[str, ...]
) -> None:
    path = compile_c(SOURCES / name, compiler, [*flags, "-fPIC"])
    functions_in_object = sum(entry.cie is not None for entry in dump_frames(path))
    linked = linker.link(path)
    code = {block.address for block in linked.graph.blocks if str(block.section.mem_prot) == "R-X"}
    found = described(linked)
    assert 0 < len(found) <= functions_in_object
    if "-ffunction-sections" in flags:
        # Every block is a function or a cold part of one, except stubs.
        stubs = {b.address for b in linked.graph.blocks if b.section.name == "$__STUBS"}
        assert code - stubs <= found
        assert found <= code - stubs


def test_frames_of_dead_functions_are_removed(linker: Linker, compiler: CompilerName) -> None:
    source = """
        static int used_inside(int n) { return n + 1; }
        int live(int n) { return used_inside(n) * 2; }
        int dead(int n) { return n * 3; }
        static int dead_leaf(int n) { return n * 5; }
        int dead_too(int n) { return dead_leaf(n); }
    """
    path = compile_c(source, compiler, ["-O0", "-ffunction-sections", "-fPIC"])
    everything = linker.link(path)
    assert len(described(everything)) == 5
    linked = linker.link(path, configure=exporting("live"))
    blocks = {b.section.name: b.address for b in linked.graph.blocks}
    assert described(linked) == {blocks[".text.live"], blocks[".text.used_inside"]}
    frames = linked_frames(linked.graph)
    assert sum(frame.cie is None for frame in frames) == 1
    nothing = linker.link(path, configure=exporting())
    assert linked_frames(nothing.graph) == []


def test_frames_keep_what_they_refer_to(linker: Linker, compiler: CompilerName) -> None:
    """A function keeps its personality and LSDA; those of a dead function are removed."""
    path = compile_c(SOURCES / "shapes.cpp", compiler, ["-O2", "-ffunction-sections", "-fPIC"])

    def tables(linked: Linked) -> list[str]:
        names = (block.section.name for block in linked.graph.blocks)
        return [name for name in names if name.startswith(".gcc_except_table")]

    live = linker.link(path, configure=exporting("_Z7measuredd"))
    assert len(tables(live)) > 0
    dead = linker.link(path, configure=exporting("_ZN5ShapeD2Ev"))
    assert tables(dead) == []


def test_frames_of_discarded_functions_are_removed(linker: Linker, compiler: CompilerName) -> None:
    """One of two inline functions of the same name is kept, with its FDE."""
    source = """
        inline __attribute__((noinline)) int shared(int n) {{ if (n > 5) throw n; return n + 1; }}
        int {0}(int n) {{ return shared(n); }}
    """
    objects = [
        compile_c(source.format(name), compiler, ["-O1", "-fPIC"], suffix=".cpp")
        for name in ("one", "two")
    ]
    linked = linker.link(*objects)
    names = ("_Z6sharedi", "_Z3onei", "_Z3twoi")
    assert described(linked) == addresses(linked, *names)


# Hand-written records


def test_two_cies(linker: Linker) -> None:
    """Only the CIEs of live FDEs are kept."""
    first, second = Cie("first"), Cie("second", augmentation="zRS")
    data = assemble(
        functions("f", "g"), frame_section(first, second, Fde("f", second), Fde("g", first))
    )
    linked = linker.link(data)
    assert described(linked) == addresses(linked, "f", "g")
    linked = linker.link(data, configure=exporting("f"))
    frames = linked_frames(linked.graph)
    assert [frame.function for frame in frames] == [None, linked.address("f")]
    assert len(frames) == 2


def test_a_cie_behind_its_fde(linker: Linker) -> None:
    """The pointer counts backwards, so it would be negative."""
    data = assemble(functions("f"), frame_section(Fde("f"), Cie()))
    with pytest.raises(ObjectError, match=r"\.eh_frame\+0x0: FDE points to no CIE"):
        linker.link(data)


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
@pytest.mark.parametrize("application", [0, PCREL])
def test_encodings_of_function_pointers(linker: Linker, encoding: int, application: int) -> None:
    code = encoding | application
    cie = Cie(data=(f".byte {code:#x}",))
    data = assemble(
        functions("f", "g"), frame_section(cie, Fde("f", cie, code), Fde("g", cie, code))
    )
    graph = split(data)
    assert len(records_of(graph)) == 3
    if ENCODINGS[encoding] == 2:
        # Code and frames are farther apart than 16 bits can hold.
        with pytest.raises(FixupError):
            linker.link(data)
        return
    linked = linker.link(data, configure=exporting("g"))
    functions_of = [frame.function for frame in linked_frames(linked.graph, code)]
    assert functions_of == [None, linked.address("g")]


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
@pytest.mark.parametrize("application", [0, PCREL, INDIRECT | PCREL])
def test_encodings_of_personalities(linker: Linker, encoding: int, application: int) -> None:
    code, size = encoding | application, ENCODINGS[encoding]
    directive = {8: ".quad", 4: ".long", 2: ".short"}[size]
    data = (f".byte {code:#x}", f"{directive} 0", ".byte 0x1b", ".byte 0x1b")
    cie = Cie(augmentation="zPLR", data=data)
    path = assemble(functions("f"), frame_section(cie, Fde("f", cie)))
    linked = linker.link(path)
    assert described(linked) == addresses(linked, "f")


@pytest.mark.parametrize(
    ("augmentation", "data"),
    [
        ("", ()),
        ("z", ()),
        ("zR", (".byte 0",)),
        ("zRS", (".byte 0",)),
        ("zSBGR", (".byte 0",)),
        ("zLR", (".byte 0xff", ".byte 0")),
        ("zPR", (".byte 0", ".quad 0", ".byte 0")),
        ("zPLR", (".byte 0x9b", ".long 0", ".byte 0x1b", ".byte 0")),
    ],
)
def test_augmentations(linker: Linker, augmentation: str, data: tuple[str, ...]) -> None:
    cie = Cie(augmentation=augmentation, data=data)
    path = assemble(functions("f", "g"), frame_section(cie, Fde("f", cie, 0), Fde("g", cie, 0)))
    linked = linker.link(path, configure=exporting("g"))
    frames = linked_frames(linked.graph, 0)
    assert [frame.function for frame in frames] == [None, linked.address("g")]


@pytest.mark.parametrize(
    ("version", "before"), [(1, ()), (3, ()), (4, (".byte 8, 0",))], ids=["1", "3", "4"]
)
def test_versions(linker: Linker, version: int, before: tuple[str, ...]) -> None:
    cie = Cie(version=version, before_factors=before)
    linked = linker.link(assemble(functions("f"), frame_section(cie, Fde("f", cie))))
    assert described(linked) == addresses(linked, "f")


def test_extra_data_of_an_old_compiler(linker: Linker) -> None:
    """The augmentation of GCC 2 is followed by a pointer."""
    cie = Cie(augmentation="eh", before_factors=(".quad 0x8080808080808080",))
    linked = linker.link(assemble(functions("f"), frame_section(cie, Fde("f", cie, 0))))
    assert len(linked_frames(linked.graph, 0)) == 2


@pytest.mark.parametrize("which", [(True, False), (False, True), (True, True)])
def test_64_bit_lengths(linker: Linker, which: tuple[bool, bool]) -> None:
    """The length is longer; the pointer to the CIE is not."""
    cie = Cie(extended=which[0])
    fdes = [Fde(name, cie, extended=which[1]) for name in ("f", "g")]
    data = assemble(functions("f", "g"), frame_section(cie, *fdes))
    entries = dump_frames(data)
    assert [entry.cie for entry in entries] == [None, 0, 0]
    assert sorted(records_of(split(data))) == [entry.offset for entry in entries]
    linked = linker.link(data)
    assert described(linked) == addresses(linked, "f", "g")
    linked = linker.link(data, configure=exporting("g"))
    assert described(linked) == addresses(linked, "g")


def test_the_terminator(linker: Linker) -> None:
    """The terminator of one object must not terminate the section of all objects."""
    data = assemble(functions("f"), frame_section(Cie(), Fde("f"), ".long 0"))
    other = assemble(functions("g"), frame_section(Cie(), Fde("g"), ".long 0"))
    linked = linker.link(data, other)
    assert described(linked) == addresses(linked, "f", "g")
    nothing = linker.link(assemble(functions("h"), frame_section(".long 0")))
    assert linked_frames(nothing.graph) == []


def test_several_sections_of_one_object(linker: Linker) -> None:
    """An FDE's CIE is in the same section."""
    first = frame_section(Cie("one"), Fde("f", Cie("one")))
    second = frame_section(Cie("two"), Fde("g", Cie("two")))
    second = second.replace("@progbits", "@progbits, unique, 7")
    linked = linker.link(assemble(functions("f", "g"), first, second))
    assert described(linked) == addresses(linked, "f", "g")
    wrong = frame_section(Fde("g", Cie("one")).text.replace(". - one", ". - fde_g + 0x40"))
    wrong = wrong.replace("@progbits", "@progbits, unique, 7")
    with pytest.raises(ObjectError, match="FDE points to no CIE"):
        linker.link(assemble(functions("f", "g"), first, wrong))


def test_frames_of_external_functions(linker: Linker) -> None:
    """The FDE of an external function is removed."""
    data = assemble(functions("f"), frame_section(Cie(), Fde("external"), Fde("f")))
    linked = linker.link(data)
    assert described(linked) == addresses(linked, "f")


def test_objects_without_frames() -> None:
    graph = split(compile_c(".text\n.globl f\nf: ret", "clang", suffix=".s"))
    assert graph.find_section_by_name(".eh_frame") is None


def test_records_of_odd_size_have_no_padding_between_them(linker: Linker) -> None:
    """Zeros between records would be a terminator."""
    odd = record("odd", '.long 0\n.byte 1\n.asciz ""\n.byte 1, 0x78, 16, 0, 0').replace(
        ".balign 4, 0", ""
    )
    fde = Fde("f", Cie("odd", augmentation="", data=()), 0).text.replace(".balign 4, 0", "")
    linked = linker.link(assemble(functions("f"), frame_section(odd, fde)))
    first, second = linked_frames(linked.graph, 0)
    assert second.address == first.address + first.size
    assert first.size % 4


# Finding the records


CIE = struct.pack("<II", 16, 0) + b"\1zR\0\1\x78\x10\1\x1b" + bytes(3)


def random_records(random: Random) -> tuple[bytes, list[int]]:
    """A section of records, and offsets of relocations, also where no record starts before them."""
    content, relocated, cie = bytearray(CIE), [], 0
    for _ in range(random.choice((1, 3, 30))):
        start = len(content)
        what = random.choice(("FDE", "FDE", "FDE", "FDE", "LSDA", "CIE", "end", "extended"))
        if what == "CIE":
            cie = start
            content += CIE
        elif what == "end":
            content += bytes(4)
        elif what == "extended":
            content += struct.pack("<IQI16x", 0xFFFFFFFF, 20, start + 12 - cie)
        else:
            size = 12 if what == "FDE" else 28
            content += struct.pack("<II", size + 4, start + 4 - cie) + bytes(size)
            relocated += [start + 8] if random.random() < 0.9 else []
            relocated += [start + 20] if what == "LSDA" else []
    if random.random() < 0.01:
        content = content[: random.randrange(1, len(content))]
    if random.random() < 0.3:
        relocated += random.sample(relocated, len(relocated))
    return bytes(content), [offset for offset in relocated if offset + 4 <= len(content)]


def random_frames(seed: int) -> LinkGraph:
    """A graph of sections of records."""
    random = Random(seed)
    graph = LinkGraph("frames", "x86_64-unknown-linux-gnu", edge_kinds=K)
    section = graph.create_section(".eh_frame", MemProt.READ)
    code = graph.create_section(".text", MemProt.READ | MemProt.EXEC)
    symbol = graph.add_defined_symbol(graph.create_zero_fill_block(code, 16), 0, "f")
    for _ in range(random.choice((1, 2, 60))):
        content, relocated = random_records(random)
        block = graph.create_content_block(section, content)
        for offset in relocated:
            graph.add_edge(block, K.DELTA32, offset, symbol)
    return graph


@pytest.mark.parametrize("seed", range(60))
def test_records_are_those_that_lengths_lead_to(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records are found by their relocations as they are one by one."""
    found: list[list[tuple[int, bytes]] | str] = []
    for few in (0, 1 << 62):
        monkeypatch.setattr(eh_frame, "MOST_BYTES", few)
        graph = random_frames(seed)
        try:
            eh_frame.FramePass(neg_delta32=K.NEG_DELTA32, leaves_whole=False)(graph)
        except ObjectError as error:
            found.append(str(error))
        else:
            found.append([(block.row, bytes(block.content)) for block in frame_blocks(graph)])
    assert found[0] == found[1]


# Sections that stay whole

TWO = "int f(int x) { return x + 1; } int g(int x) { return f(x) * 2; }"


def reading_frames(_graph: LinkGraph, passes: PassConfiguration) -> None:
    """Add a pre-prune pass, which may read frames."""
    passes.pre_prune.append(lambda _graph: None)


def frame_blocks(graph: LinkGraph) -> list[Block]:
    section = graph.find_section_by_name(".eh_frame")
    assert section is not None
    return list(section.blocks)


def test_a_section_about_one_block_of_code_is_kept_by_that_block(compiler: CompilerName) -> None:
    graph = split(compile_c(TWO, compiler, ("-O1", "-fPIC")), leaves_whole=True)
    (frames,) = frame_blocks(graph)
    code = graph.find_defined_symbol_by_name("f")
    assert code is not None
    kept = [edge.target.block for edge in code.block.edges if edge.kind == KEEP_ALIVE]
    assert kept == [frames]


def test_whole_sections_are_kept_with_their_code(linker: Linker, compiler: CompilerName) -> None:
    paths = [
        compile_c(TWO.replace("f(", f"f{n}(").replace("g(", f"g{n}("), compiler, ("-O1", "-fPIC"))
        for n in range(3)
    ]
    linked = linker.link(*paths, configure=exporting("f0", "g2"))
    found = described(linked)
    assert len(found) == 4
    assert addresses(linked, "f0", "g2") < found


@pytest.mark.parametrize("odd", [False, True])
def test_whole_sections_beside_split_ones(linker: Linker, odd: bool) -> None:
    """A record whose size is no multiple of four causes no padding, in any order."""
    paths = [
        compile_c(TWO, "gcc", ("-O1", "-fPIC")),
        compile_c("int h(void) { return 1; } int i(void) { return 2; }", "clang",
                  ("-O1", "-fPIC", "-ffunction-sections")),
    ]  # fmt: skip
    if odd:
        cie = Cie("odd")
        parts = [each.text.replace(".balign 4, 0", "") for each in (cie, Fde("j", cie))]
        paths.insert(1, assemble(functions("j"), frame_section(*parts)))
    names = ["f", "g", "h", "i", *(["j"] if odd else [])]
    linked = linker.link(*paths, configure=reading_frames)
    assert described(linked) == addresses(linked, *names)
    assert len(frame_blocks(linked.graph)) == 1 + odd + 3


@pytest.mark.parametrize(
    "records",
    [
        (Cie(), Fde("f"), ".long 0"),
        (".long 0", Cie(), Fde("f")),
        (Cie(), Fde("f"), Fde("g")),
        (Cie(), Fde("f"), Fde("external")),
        (Cie(extended=True), Fde("f")),
        (Cie(), Fde("f", extended=True)),
        (Cie(),),
    ],
)
def test_sections_that_are_split(records: tuple[Cie | Fde | str, ...]) -> None:
    path = assemble(functions("f", "g"), frame_section(*records))
    assert len(frame_blocks(split(path, leaves_whole=True))) == len(records)


@pytest.mark.parametrize("is_small", [False, True])
def test_frames_of_the_frame_section_itself_are_split(
    is_small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a whole, only the section itself would keep it alive."""
    graph = read_graph(assemble(functions("f"), frame_section(Cie(), Fde("f"))))
    (section,) = frame_blocks(graph)
    # An assembler computes the distance, and leaves no relocation.
    (edge,) = section.edges
    edge.target = graph.add_anonymous_symbol(section, 0)
    if not is_small:
        monkeypatch.setattr(eh_frame_few, "MOST_ROWS", 0)
    FramePass(neg_delta32=K.NEG_DELTA32)(graph)
    assert len(frame_blocks(graph)) == 2


SECTIONS = ("-O1", "-fPIC", "-ffunction-sections", "-fno-inline")


def test_frames_of_live_functions_stay_whole(linker: Linker, compiler: CompilerName) -> None:
    linked = linker.link(compile_c(TWO, compiler, SECTIONS))
    assert len(frame_blocks(linked.graph)) == 1
    assert described(linked) == addresses(linked, "f", "g")


def test_frames_are_split_for_passes_that_follow(linker: Linker, compiler: CompilerName) -> None:
    found: list[int] = []

    def configure(_graph: LinkGraph, passes: PassConfiguration) -> None:
        passes.pre_prune.append(lambda graph: found.append(len(frame_blocks(graph))))

    linked = linker.link(compile_c(TWO, compiler, SECTIONS), configure=configure)
    assert found == [3]
    assert described(linked) == addresses(linked, "f", "g")


@pytest.mark.parametrize("is_last", [False, True])
def test_frames_of_functions_that_a_pass_hides(
    linker: Linker, compiler: CompilerName, is_last: bool
) -> None:
    """Whether a function is live is known when all passes have run."""

    def configure(_graph: LinkGraph, passes: PassConfiguration) -> None:
        place = len(passes.pre_prune) if is_last else 0
        passes.pre_prune.insert(place, lambda graph: exporting("f")(graph, passes))

    linked = linker.link(compile_c(TWO, compiler, SECTIONS), configure=configure)
    assert described(linked) == addresses(linked, "f")


def test_frames_of_functions_that_are_reached_only_by_others(
    linker: Linker, compiler: CompilerName
) -> None:
    source = "static int h(int x) { return x + 1; } int f(int x) { return h(x) * 2; }"
    linked = linker.link(compile_c(source, compiler, SECTIONS))
    assert len(frame_blocks(linked.graph)) == 3
    assert len(described(linked)) == 2


@pytest.mark.parametrize("has_personality", [False, True])
def test_frames_with_personalities_are_split(linker: Linker, has_personality: bool) -> None:
    """Else each function would depend on the personalities and LSDAs of all."""
    routine = "personality - ." if has_personality else "0"
    data = (".byte 0x1b", f".long {routine}", ".byte 0x1b")
    cie = Cie(augmentation="zPR", data=data)
    path = assemble(functions("f", "g"), frame_section(cie, Fde("f", cie), Fde("g", cie)))
    linked = linker.link(path)
    assert len(frame_blocks(linked.graph)) == (3 if has_personality else 1)
    assert described(linked) == addresses(linked, "f", "g")


# Malformed sections


def refuse(*records: Cie | Fde | str, message: str, place: int) -> None:
    path = assemble(functions("f"), frame_section(*records))
    for leaves_whole in (False, True):
        with pytest.raises(ObjectError, match=message) as caught:
            split(path, leaves_whole=leaves_whole)
        assert caught.value.file == str(path)
        assert f".eh_frame+{place:#x}: " in str(caught.value)


CIE_SIZE = 24


@pytest.mark.parametrize(
    ("text", "message", "inside"),
    [
        (".byte 0", "record is truncated", 0),
        (".byte 0, 0, 0", "record is truncated", 0),
        (".long 0xffffffff", "record is truncated", 4),
        (".long 0xffffffff, 1", "record is truncated", 4),
        (".long 5, 0", "record extends past the end", 4),
        (".long 0x7fffffff, 0", "record extends past the end", 4),
        (".long 0xfffffffe, 0", "record extends past the end", 4),
        (".long 0xffffffff\n.quad 1", "record extends past the end", 12),
        (".long 0xffffffff\n.quad 0xffffffffffffffff\n.quad 0", "record extends past the end", 12),
        (".long 0xffffffff\n.quad 0x8000000000000000\n.quad 0", "record extends past the end", 12),
        (".long 3\n.byte 0, 0, 0", "record is too short", 0),
        (".long 1\n.byte 1", "record is too short", 0),
        (".long 0xffffffff\n.quad 0", "record is too short", 0),
        (".long 0xffffffff\n.quad 3\n.byte 0, 0, 0", "record is too short", 0),
        (".long 4, 1", "FDE points to no CIE", 0),
        (".long 4, 0xffffffff", "FDE points to no CIE", 0),
        (".long 4, 0x80000000", "FDE points to no CIE", 0),
        (".long 4, 4", "FDE points to no CIE", 0),
        (f".long 4, {CIE_SIZE + 8}", "FDE points to no CIE", 0),
    ],
)
def test_malformed_records(text: str, message: str, inside: int) -> None:
    cie = Cie()
    graph = split(assemble(functions("f"), frame_section(cie, Fde("f"))))
    start = sorted(records_of(graph))[1]
    assert start == CIE_SIZE
    refuse(cie, text, message=message, place=start + inside)
    refuse(cie, Fde("f"), text, message=message, place=start + 20 + inside)


def malformed(**changes: object) -> Cie:
    return Cie(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "cie",
    [
        malformed(version=0),
        malformed(version=2),
        malformed(version=5),
        malformed(augmentation="R"),
        malformed(augmentation="zX"),
        malformed(augmentation="armcc+"),
        malformed(augmentation="eh2"),
        malformed(data=(f".byte {OMIT:#x}",)),
        malformed(data=(".byte 0x01",)),
        malformed(data=(".byte 0x09",)),
        malformed(data=(".byte 0x0f",)),
        malformed(augmentation="zPR", data=(".byte 0x01", ".byte 0", ".byte 0x1b")),
        malformed(augmentation="zPR", data=(f".byte {OMIT:#x}", ".byte 0x1b")),
    ],
)
def test_malformed_cies(cie: Cie) -> None:
    refuse(cie, Fde("f"), message="CIE is malformed or not supported", place=0)
    refuse(".long 0", cie, Fde("f"), message="CIE is malformed or not supported", place=4)


@pytest.mark.parametrize(
    "body",
    [
        ".long 0",
        ".long 0\n.byte 1",
        '.long 0\n.byte 1\n.ascii "zR"',
        '.long 0\n.byte 1\n.asciz "zR"',
        '.long 0\n.byte 1\n.asciz "zR"\n.byte 0x80, 0x80, 0x80',
        '.long 0\n.byte 1\n.asciz "zR"\n.byte 1, 0x78, 16, 0x80',
        '.long 0\n.byte 1\n.asciz "zR"\n.byte 1, 0x78, 16, 1',
        '.long 0\n.byte 1\n.asciz "zPR"\n.byte 1, 0x78, 16, 6, 0, 0, 0',
        '.long 0\n.byte 4\n.asciz ""',
    ],
)
def test_truncated_cies(body: str) -> None:
    text = record("short", body).replace(".balign 4, 0", "")
    refuse(text, message="CIE is malformed or not supported", place=0)


def test_a_frame_section_without_content() -> None:
    elf = ElfFile(assemble(functions("f"), '.section .eh_frame, "a", @progbits\n.long 0'))
    elf.set_section(elf.find(".eh_frame"), type=8, size=100)
    graph = split(bytes(elf))
    section = graph.find_section_by_name(".eh_frame")
    assert section is not None
    (block,) = section.blocks
    assert (block.is_zero_fill, block.size) == (True, 100)
