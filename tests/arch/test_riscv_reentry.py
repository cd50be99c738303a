"""The code of RISC-V for lazy calls, run in an emulator."""

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from jitlink.arch.reentry import LANDING_WORDS
from jitlink.arch.riscv_reentry import REENTRY
from jitlink.graph import MemProt
from jitlink.link import PassConfiguration
from jitlink.targets.elf_riscv import TARGET64
from tests.emulation import Emulator
from tests.toolchain import compile_c

IDENTITY = 0x1122_3344_5566_7788
# All registers that may hold arguments, a return address or a static chain, and those that a callee
# keeps: everything but ra, sp, gp, tp, and t1 and t3, which stubs change.
INTEGERS = [f"x{n}" for n in range(5, 32) if n not in {6, 28}]
FLOATS = [f"f{n}" for n in (8, 9, *range(10, 28))]
TEMPORARIES = ["ra", *(f"t{n}" for n in range(7)), *(f"a{n}" for n in range(1, 8))]
FLOAT_TEMPORARIES = [*(f"ft{n}" for n in range(12)), *(f"fa{n}" for n in range(8))]

SOURCE = f"""
    .text
    .globl callback, null_callback, body, fallback, caller
# Records its arguments, and changes every register that it may change.
null_callback:
    lla t2, answer
    sd zero, 0(t2)
callback:
    lla t0, asked
    sd a0, 0(t0)
    sd a1, 8(t0)
    andi t1, sp, 15
    sd t1, 16(t0)
    sd s0, 24(t0)
    lla t2, answer
    ld a0, 0(t2)
    mv t0, ra
    {"; ".join(f"li {each}, -1" for each in TEMPORARIES if each not in {"ra", "t0"})}
    {"; ".join(f"fcvt.d.w {each}, t1" for each in FLOAT_TEMPORARIES)}
    jr t0
# Store all registers.
fallback:
    li t3, 8
    j 1f
body:
    li t3, 7
1:  lla t1, seen
    {"; ".join(f"sd {each}, {8 * n}(t1)" for n, each in enumerate(INTEGERS))}
    {"; ".join(f"fsd {each}, {256 + 8 * n}(t1)" for n, each in enumerate(FLOATS))}
    sd sp, 512(t1)
    sd ra, 520(t1)
    mv a0, t3
    ret
# Calls the trampoline in its first argument, with a value in every register.
caller:
    addi sp, sp, -32
    sd ra, 0(sp)
    mv t1, a0
    lla t3, pattern
    {"; ".join(f"fld {each}, {256 + 8 * n}(t3)" for n, each in enumerate(FLOATS))}
    {"; ".join(f"ld {each}, {8 * n}(t3)" for n, each in enumerate(INTEGERS))}
    lla t3, seen
    sd sp, 528(t3)
    jalr t1
    .globl returned
returned:
    ld ra, 0(sp)
    addi sp, sp, 32
    ret
    .data
    .balign 16
    .globl asked, seen, answer, pattern
pattern:
    .quad {", ".join(str(0x1111_0000_2222_0000 + n) for n in range(64))}
asked: .zero 32
answer: .quad body
seen: .zero 544
"""


class Lazy(NamedTuple):
    """Linked code: addresses of a trampoline, of the landing, and of symbols."""

    emulator: Emulator
    trampoline: int
    landing: int
    addresses: dict[str, int]

    def read(self, name: str, index: int = 0, count: int = 1) -> list[int]:
        content = self.emulator.read(self.addresses[name] + 8 * index, 8 * count)
        return [int.from_bytes(content[n : n + 8], "little") for n in range(0, 8 * count, 8)]


def with_words(code: bytes, *words: int) -> bytes:
    return code[: -8 * len(words)] + b"".join(each.to_bytes(8, "little") for each in words)


@pytest.fixture
def lazy(request: pytest.FixtureRequest) -> Iterator[Lazy]:
    """Trampoline, reentry and landing; the parameter is the callback's name."""
    target = "riscv64-linux-gnu"
    path = compile_c(SOURCE, "clang", ("-march=rv64gc",), suffix=".s", target=target)
    with Emulator("riscv64", 0x1000_0000) as emulator:
        program = emulator.link(path)
        addresses = {name: program.address(name) for name in program.definitions}
        graph = TARGET64.new_graph("code")
        section = graph.create_section("code", MemProt.READ | MemProt.EXEC)
        data = graph.create_section("data", MemProt.READ | MemProt.WRITE)
        contents = (
            REENTRY.trampoline,
            with_words(REENTRY.reentry, addresses[request.param], addresses["fallback"]),
            with_words(REENTRY.landing, *range(0x5000, 0x5000 + len(LANDING_WORDS))),
        )
        blocks = [
            graph.create_content_block(section, each, 0, REENTRY.alignment) for each in contents
        ]
        trampoline, reentry, landing = (
            graph.add_anonymous_symbol(block, 0, block.size, is_live=True) for block in blocks
        )
        word = graph.create_content_block(data, IDENTITY.to_bytes(8, "little"), 0, 8)
        identity = graph.add_anonymous_symbol(word, 0, 8)
        for edges, symbol in ((REENTRY.identity_edges, identity), (REENTRY.reentry_edges, reentry)):
            for kind, offset, addend in edges:
                blocks[0].add_edge(kind, offset, symbol, addend)
        emulator.link_graph(graph, TARGET64.configure(graph))
        yield Lazy(emulator, trampoline.address, landing.address, addresses)


@pytest.mark.parametrize(
    ("lazy", "result"), [("callback", 7), ("null_callback", 8)], indirect=["lazy"]
)
def test_a_call_reaches_the_body_with_all_registers(lazy: Lazy, result: int) -> None:
    """Where the callback has no address, it is the fallback that is reached."""
    assert lazy.emulator.call(lazy.addresses["caller"], lazy.trampoline) == result
    caller_return = lazy.addresses["returned"]
    *asked, frame_pointer = lazy.read("asked", 0, 4)
    assert asked == [IDENTITY, caller_return, 0]
    assert lazy.read("seen", 0, len(INTEGERS)) == lazy.read("pattern", 0, len(INTEGERS))
    assert lazy.read("seen", 32, len(FLOATS)) == lazy.read("pattern", 32, len(FLOATS))
    stack, back, before = lazy.read("seen", 64, 3)
    assert (stack, back) == (before, caller_return)
    # As for code that is compiled with frame pointers.
    assert frame_pointer == before


def test_the_landing_calls_python_and_returns_zero() -> None:
    called: list[tuple[int, ...]] = []
    results = iter([41, 42, 43, 44])

    def host(first: int, second: int) -> int:
        called.append((first, second))
        return next(results)

    with Emulator("riscv64", 0x1000_0000) as emulator:
        functions = [emulator.add_host(host) for _ in LANDING_WORDS]
        exception = LANDING_WORDS.index("exception")
        functions[exception] = 0x1234_5678
        graph = TARGET64.new_graph("code")
        section = graph.create_section("code", MemProt.READ | MemProt.EXEC)
        content = with_words(REENTRY.landing, *functions)
        block = graph.create_content_block(section, content, 0, REENTRY.alignment)
        landing = graph.add_anonymous_symbol(block, 0, block.size, is_live=True)
        passes: PassConfiguration = TARGET64.configure(graph)
        emulator.link_graph(graph, passes)
        assert emulator.call(landing.address, 1, 2, 5.5) == 0
        assert emulator.float_result() == 0
    # The thread's state is released with what ensuring it returned.
    assert [first for first, _ in called] == [1, 41, 42, 41]
    assert called[2] == (42, 0x1234_5678)
