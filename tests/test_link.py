"""The link algorithm, seen from outside: what passes find, and what they leave."""

import numpy as np

from jitlink.fixups import FixupTable
from jitlink.graph import BlockFlags, LinkGraph, MemLifetime
from jitlink.graph.tables import EXTERNAL
from jitlink.link import PassConfiguration, TableFixups
from jitlink.memory.manager import InFlightAlloc, JITLinkMemoryManager
from tests.linking import Linker
from tests.toolchain import compile_c

UNLOADED = """
    .globl f
f:  ret
    .section .debug_names_of_entries,"",@progbits
    .zero 100
.Lname:
    .asciz "f"
    .section .debug_entries,"",@progbits
    .long 1
    .quad f
    .long .Lname
"""


def keep_all(graph: LinkGraph, passes: PassConfiguration) -> None:
    del passes
    graph.block_table.flags[:] |= np.uint8(BlockFlags.LIVE)


def test_sections_that_are_not_loaded_are_fixed_up_in_the_graph() -> None:
    path = compile_c(UNLOADED, suffix=".s")
    data = path.read_bytes()
    with Linker() as linker:
        linked = linker.link(data, configure=keep_all)
        section = linked.graph.find_section_by_name(".debug_entries")
        assert section is not None
        assert section.mem_lifetime == MemLifetime.NO_ALLOC
        (block,) = section.blocks
        content = bytes(block.content)
        assert content[:4] == b"\1\0\0\0"
        assert int.from_bytes(content[4:12], "little") == linked.address("f")
        # Sections that are not loaded lie at address zero, as far as anything refers to them.
        assert int.from_bytes(content[12:], "little") == 100
    assert data == path.read_bytes()


def test_what_is_not_loaded_asks_for_no_low_addresses() -> None:
    with Linker() as linker:
        linked = linker.link(compile_c(UNLOADED, suffix=".s"), configure=keep_all)
        assert linked.graph.address_limit == 1 << 64


def test_the_steps_of_a_fixup_plan() -> None:
    steps: list[str] = []

    class Plan(TableFixups):
        def __init__(self, graph: LinkGraph, fixups: FixupTable) -> None:
            super().__init__(graph, fixups)
            self.graph = graph
            steps.append("plan")

        def allocate(self, memory: JITLinkMemoryManager, alloc: InFlightAlloc) -> None:
            super().allocate(memory, alloc)
            assert all(block.address for block in self.graph.blocks)
            steps.append("allocate")

        def check_targets(self) -> None:
            super().check_targets()
            table = self.graph.symbol_table
            assert table.value[table.kind == EXTERNAL].all()
            steps.append("check_targets")

        async def apply(self, got_address: int | None) -> None:
            await super().apply(got_address)
            steps.append("apply")

    def configure(_graph: LinkGraph, passes: PassConfiguration) -> None:
        passes.plan_fixups = Plan
        for name in ("pre_prune", "post_prune", "post_allocation", "pre_fixup", "post_fixup"):
            getattr(passes, name).append(lambda _graph, name=name: steps.append(name))

    with Linker() as linker:
        linker.link(compile_c("void g(void); void f(void) { g(); }"), configure=configure)
    assert steps == [
        "pre_prune", "post_prune", "plan", "allocate", "post_allocation", "check_targets",
        "pre_fixup", "apply", "post_fixup",
    ]  # fmt: skip
