"""What every memory manager for memory of this process must do.

A test class for a manager derives from `MemoryManagerConformance` and has a fixture `manager`.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterator

import pytest

from jitlink.errors import ActionError, AllocationError, ExecutorError, WritableCodeError
from jitlink.executor import SelfExecutorProcessControl
from jitlink.graph import AllocActionPair, LinkGraph, MemLifetime, MemProt, WrapperCall
from jitlink.memory import (
    AllocGroup,
    DeallocationError,
    FinalizedAlloc,
    InFlightAlloc,
    InProcessMemoryManager,
    JITLinkDylib,
    SegmentRequest,
    SimpleSegmentAlloc,
)
from jitlink.sps import SPSError
from tests.memory.graphs import (
    FINALIZE,
    NO_ALLOC,
    READ,
    READ_EXEC,
    READ_WRITE,
    RETURN_42,
    accessible,
    add_section,
    check_blocks,
    contents_of,
    drive,
    empty_graph,
    permissions,
    random_graph,
    small_graph,
    state,
    writable_and_executable,
)
from tests.memory.wrapper_functions import WrapperFunctions, wrapper_functions

Ranges = Callable[[], list[tuple[int, int]]]


def read(address: int, size: int) -> bytes:
    return drive(SelfExecutorProcessControl.shared().read_memory(address, size))


def write(address: int, content: bytes) -> None:
    drive(SelfExecutorProcessControl.shared().write_memory(address, content))


class Actions:
    """Builds allocation actions that record that they run."""

    def __init__(self, functions: WrapperFunctions) -> None:
        self.functions = functions

    def pair(self, finalize: str | None, deallocate: str | None, name: str) -> AllocActionPair:
        """A pair of functions; the first writes `name`, the second `name` and a tick."""
        call, text = self.functions.call, name.encode()
        return AllocActionPair(
            call(finalize, text) if finalize else None,
            call(deallocate, text + b"'") if deallocate else None,
        )


class MemoryManagerConformance:
    """The tests; `ranges` returns the address ranges that the manager has reserved."""

    _manager: InProcessMemoryManager
    _ranges: Ranges
    _foreign: set[int]

    @pytest.fixture(autouse=True)
    def _no_leaks(self, manager: InProcessMemoryManager, ranges: Ranges) -> Iterator[None]:
        self._manager, self._ranges = manager, ranges
        self._foreign = writable_and_executable()
        yield
        gc.collect()
        assert manager.finalized_count == 0
        assert accessible(ranges()) == []

    @pytest.fixture
    def actions(self) -> Actions:
        return Actions(wrapper_functions())

    def allocate(self, graph: LinkGraph) -> InFlightAlloc:
        return drive(self._manager.allocate(JITLinkDylib("test"), graph))

    def link(self, graph: LinkGraph) -> FinalizedAlloc:
        return drive(self.allocate(graph).finalize())

    def deallocate(self, *allocs: FinalizedAlloc) -> None:
        drive(self._manager.deallocate(allocs))

    # Layout and contents

    def test_blocks_have_addresses_and_contents(self) -> None:
        graph = small_graph()
        contents = contents_of(graph)
        alloc = self.allocate(graph)
        check_blocks(graph, contents)
        drive(alloc.abandon())

    @pytest.mark.parametrize(("seed", "blocks"), [(1, 1), (2, 7), (3, 40), (4, 299), (5, 1000)])
    def test_random_graphs(self, seed: int, blocks: int) -> None:
        graph = random_graph(seed, blocks)
        contents = contents_of(graph)
        alloc = self.allocate(graph)
        check_blocks(graph, contents)
        drive(alloc.abandon())
        assert contents_of(graph) == contents

    def test_working_memory_can_be_written(self) -> None:
        graph = small_graph()
        alloc = self.allocate(graph)
        for block in graph.blocks:
            if not block.is_zero_fill:
                block.already_mutable_content[:1] = b"!"
                assert read(block.address, 1) == b"!"
        drive(alloc.abandon())

    def test_zero_fill_and_padding_are_zero(self) -> None:
        for _ in range(2):  # the second time in pages that have been freed
            graph = empty_graph()
            section = add_section(graph, READ_WRITE)
            graph.create_content_block(section, b"\xff", alignment=1)
            graph.create_content_block(section, b"\xff", alignment=64, alignment_offset=63)
            zeros = graph.create_zero_fill_block(section, 9000, alignment=256)
            finalized = self.link(graph)
            start = zeros.address - 256
            assert read(start, 9256) == (b"\xff" + bytes(62) + b"\xff").ljust(9256, b"\0")
            write(start, b"\xee" * 9256)
            self.deallocate(finalized)

    def test_sections_without_memory_are_unchanged(self) -> None:
        graph = small_graph()
        debug = add_section(graph, READ, NO_ALLOC)
        block = graph.create_content_block(debug, b"debug", address=7)
        alloc = self.allocate(graph)
        assert (block.address, bytes(block.content)) == (7, b"debug")
        drive(alloc.abandon())

    def test_graph_without_memory(self) -> None:
        graph = empty_graph()
        graph.create_content_block(add_section(graph, READ, NO_ALLOC), b"debug")
        self.deallocate(self.link(graph), self.link(empty_graph()))
        drive(self.allocate(empty_graph()).abandon())

    def test_blocks_without_bytes_have_addresses(self) -> None:
        graph = empty_graph()
        block = graph.create_content_block(add_section(graph, READ), b"", alignment=16)
        finalized = self.link(graph)
        assert block.address % 16 == 0
        assert any(start <= block.address < end for start, end, _ in accessible(self._ranges()))
        self.deallocate(finalized)

    @pytest.mark.parametrize("alignment", [1 << 13, 1 << 16])
    def test_alignment_above_the_page_size(self, alignment: int) -> None:
        graph = empty_graph()
        section = add_section(graph, READ)
        blocks = [
            graph.create_content_block(section, b"x" * size, alignment=alignment)
            for size in (1, 5000)
        ]
        finalized = self.link(graph)
        assert [block.address % alignment for block in blocks] == [0, 0]
        self.deallocate(finalized)

    # Protections

    def test_protections(self) -> None:
        graph = small_graph()
        alloc = self.allocate(graph)
        assert {permissions(block.address) for block in graph.blocks} == {"rw-"}
        assert writable_and_executable() <= self._foreign
        finalized = drive(alloc.finalize())
        assert writable_and_executable() <= self._foreign
        found = [permissions(block.address) for block in graph.blocks]
        assert found == ["r-x", "r--", "rw-", "rw-"]
        self.deallocate(finalized)

    def test_finalized_code_runs_and_constants_cannot_be_written(self) -> None:
        graph = small_graph()
        finalized = self.link(graph)
        function, constant, variable, _ = (block.address for block in graph.blocks)
        assert ctypes.CFUNCTYPE(ctypes.c_int)(function)() == 42
        write(variable, b"V")
        assert read(variable, 8) == b"Variable"
        for address in (function, constant):
            with pytest.raises(ExecutorError, match="cannot write"):
                write(address, b"!")
        self.deallocate(finalized)

    def test_freed_memory_cannot_be_accessed(self) -> None:
        graph = small_graph()
        finalized = self.link(graph)
        addresses = [block.address for block in graph.blocks]
        self.deallocate(finalized)
        for address in addresses:
            with pytest.raises(ExecutorError, match="cannot read"):
                read(address, 1)

    def test_writable_and_executable_section_is_refused(self) -> None:
        graph = small_graph()
        section = graph.create_section(".wild", MemProt.READ | MemProt.WRITE | MemProt.EXEC)
        graph.create_content_block(section, b"\xc3")
        before = state(graph)
        with pytest.raises(WritableCodeError, match=r"both writable and executable: \.wild"):
            self.allocate(graph)
        assert state(graph) == before

    def test_writable_and_executable_section_is_allowed(self) -> None:
        graph = small_graph()
        section = graph.create_section(".wild", MemProt.READ | MemProt.WRITE | MemProt.EXEC)
        block = graph.create_content_block(section, b"\xc3")
        graph.writable_code = True
        finalized = self.link(graph)
        assert permissions(block.address) == "rwx"
        write(block.address, b"\x90")
        assert read(block.address, 1) == b"\x90"
        self.deallocate(finalized)

    # Lifetimes

    def test_finalize_lifetime_memory_is_freed_after_the_actions(self, actions: Actions) -> None:
        graph = small_graph()
        section = add_section(graph, READ, FINALIZE)
        arguments = graph.create_content_block(section, b"seen")
        graph.add_anonymous_symbol(arguments, 0)
        address = actions.functions.address("succeed")
        graph.alloc_actions.append(
            AllocActionPair(WrapperCall(address, lambda: read(arguments.address, 4)))
        )
        finalized = self.link(graph)
        assert actions.functions.called() == "seen"
        with pytest.raises(ExecutorError):
            read(arguments.address, 4)
        assert read(next(graph.blocks).address, 1) == RETURN_42[:1]
        self.deallocate(finalized)

    # Finalization, abandonment, deallocation

    def test_abandon_frees_and_restores_the_graph(self) -> None:
        graph = small_graph()
        before = state(graph)
        alloc = self.allocate(graph)
        assert state(graph) != before
        drive(alloc.abandon())
        assert state(graph) == before
        assert accessible(self._ranges()) == []

    def test_an_allocation_is_finalized_or_abandoned_once(self) -> None:
        finalized = []
        for first in ("finalize", "abandon"):
            alloc = self.allocate(small_graph())
            finalized.append(drive(getattr(alloc, first)()))
            for second in ("finalize", "abandon"):
                with pytest.raises(RuntimeError, match="finalized or abandoned before"):
                    drive(getattr(alloc, second)())
        self.deallocate(*finalized[:1])

    def test_memory_is_deallocated_once(self) -> None:
        finalized, other = self.link(small_graph()), self.link(small_graph())
        self.deallocate(finalized)
        foreign = InProcessMemoryManager()
        stranger = drive(drive(foreign.allocate(None, small_graph())).finalize())
        for wrong in ([other, finalized], [other, other], [other, stranger]):
            with pytest.raises(ValueError, match="not an allocation of this manager"):
                self.deallocate(*wrong)
        self.deallocate(other)
        drive(foreign.deallocate([stranger]))

    def test_leaked_memory_is_a_warning(self) -> None:
        finalized = self.link(small_graph())
        address = finalized.address
        with pytest.warns(ResourceWarning, match="never deallocated"):
            del finalized
        self.deallocate(FinalizedAlloc(address))

    # Actions

    def test_actions_run_in_order_and_in_reverse_order(self, actions: Actions) -> None:
        graph = small_graph()
        graph.alloc_actions = [
            actions.pair("succeed", "succeed", "a"),
            actions.pair("succeed_inline", None, "b"),
            actions.pair(None, "succeed_inline", "c"),
            actions.pair(None, None, "d"),
            actions.pair("succeed", "succeed", "e"),
        ]
        finalized = self.link(graph)
        assert actions.functions.called() == "abe"
        self.deallocate(finalized)
        assert actions.functions.called() == "e'c'a'"

    def test_allocations_are_deallocated_in_reverse_order(self, actions: Actions) -> None:
        allocs = []
        for name in "abc":
            graph = small_graph()
            graph.alloc_actions = [
                actions.pair(None, "succeed", name),
                actions.pair(None, "succeed", name.upper()),
            ]
            allocs.append(self.link(graph))
        self.deallocate(*allocs)
        assert actions.functions.called() == "C'c'B'b'A'a'"

    def test_action_named_by_a_symbol(self, actions: Actions) -> None:
        graph = small_graph()
        address = actions.functions.address("succeed")
        symbol = graph.add_absolute_symbol("succeed", address)
        graph.alloc_actions = [
            AllocActionPair(WrapperCall(symbol, b"s"), WrapperCall(symbol, b"t"))
        ]
        finalized = self.link(graph)
        graph.remove_absolute_symbol(symbol)
        self.deallocate(finalized)
        assert actions.functions.called() == "st"

    @pytest.mark.parametrize("function", ["fail", "fail_out_of_band"])
    def test_failing_finalize_action(self, actions: Actions, function: str) -> None:
        graph = small_graph()
        graph.alloc_actions = [
            actions.pair("succeed", "succeed", "a"),
            actions.pair("succeed", "fail", "b"),
            actions.pair(function, "succeed", "trouble"),
            actions.pair("succeed", "succeed", "d"),
        ]
        before = state(graph)
        alloc = self.allocate(graph)
        with pytest.raises(ActionError, match="failed: trouble") as caught:
            drive(alloc.finalize())
        assert caught.value.message == "trouble"
        assert caught.value.address == actions.functions.address(function)
        assert "failed: b'" in caught.value.__notes__[0]
        assert actions.functions.called() == "abtroubleb'a'"
        assert state(graph) == before
        assert accessible(self._ranges()) == []

    def test_action_with_an_unreadable_result(self, actions: Actions) -> None:
        graph = small_graph()
        graph.alloc_actions = [actions.pair("answer_nonsense", None, "a")]
        alloc = self.allocate(graph)
        with pytest.raises(ActionError, match="unreadable result") as caught:
            drive(alloc.finalize())
        assert isinstance(caught.value.__cause__, SPSError)
        assert actions.functions.called() == "a"

    def test_action_whose_arguments_cannot_be_serialized(self, actions: Actions) -> None:
        def no_arguments() -> bytes:
            raise KeyError("nothing")

        graph = small_graph()
        call = WrapperCall(actions.functions.address("succeed"), no_arguments)
        graph.alloc_actions = [actions.pair("succeed", "succeed", "a"), AllocActionPair(call)]
        alloc = self.allocate(graph)
        with pytest.raises(KeyError, match="nothing"):
            drive(alloc.finalize())
        assert actions.functions.called() == ""

    def test_failing_deallocate_actions(self, actions: Actions) -> None:
        first, second = small_graph(), small_graph()
        first.alloc_actions = [
            actions.pair(None, "fail", "a"),
            actions.pair(None, "succeed", "b"),
        ]
        second.alloc_actions = [
            actions.pair(None, "succeed", "c"),
            actions.pair(None, "fail_out_of_band", "d"),
        ]
        allocs = [self.link(first), self.link(second)]
        with pytest.raises(DeallocationError, match=r"failed: d'.*; .*failed: a'") as caught:
            self.deallocate(*allocs)
        errors = caught.value.errors
        assert [e.message for e in errors if isinstance(e, ActionError)] == ["d'", "a'"]
        assert actions.functions.called() == "d'c'b'a'"

    # Limits

    @pytest.mark.parametrize(
        ("size", "alignment"),
        [
            (1 << 62, 1),
            ((1 << 62) - 4096, 1),
            (1 << 55, 1),
            (1, 1 << 62),
            (1, 1 << 55),
            ((1 << 61) + 5, 1 << 61),
            ((1 << 63) - 1, 1),
        ],
    )
    @pytest.mark.parametrize("prot", [READ, READ_WRITE])
    def test_more_than_any_address_space(self, size: int, alignment: int, prot: MemProt) -> None:
        graph = small_graph()
        graph.create_zero_fill_block(add_section(graph, prot), size, alignment=alignment)
        before = state(graph)
        with pytest.raises(AllocationError) as caught:
            self.allocate(graph)
        assert caught.value.size is not None
        assert caught.value.size >= size
        assert state(graph) == before

    def test_many_huge_blocks(self) -> None:
        graph = empty_graph()
        section = add_section(graph, READ_WRITE)
        for _ in range(400):
            graph.create_zero_fill_block(section, 1 << 62)
        with pytest.raises(AllocationError) as caught:
            self.allocate(graph)
        assert caught.value.size == 400 << 62

    def test_address_limit_that_cannot_be_met(self) -> None:
        graph = small_graph()
        graph.address_limit = 1 << 12
        before = state(graph)
        with pytest.raises(AllocationError, match="0x1000"):
            self.allocate(graph)
        assert state(graph) == before

    def test_one_segment_too_many(self) -> None:
        """The last of several segments fails; the first ones are freed."""
        graph = small_graph()
        section = add_section(graph, READ_WRITE, FINALIZE)
        graph.create_zero_fill_block(section, 1 << 47)
        with pytest.raises(AllocationError):
            self.allocate(graph)
        assert accessible(self._ranges()) == []

    # Raw segments

    def test_simple_segment_alloc(self) -> None:
        code, data = AllocGroup(READ_EXEC), AllocGroup(READ_WRITE, MemLifetime.STANDARD)
        temporary = AllocGroup(READ, FINALIZE)
        wanted = {
            code: SegmentRequest(len(RETURN_42), 16),
            data: SegmentRequest(100, 64),
            temporary: SegmentRequest(10),
        }
        create = SimpleSegmentAlloc.create(self._manager, JITLinkDylib("test"), wanted)
        segments = drive(create)
        info = segments.segment_info(code)
        info.working_memory[:] = RETURN_42
        variables = segments.segment_info(data)
        assert variables.address % 64 == 0
        assert bytes(variables.working_memory) == bytes(100)
        variables.working_memory[99:] = b"!"
        with pytest.raises(KeyError):
            segments.segment_info(AllocGroup(READ))
        finalized = drive(segments.finalize())
        assert ctypes.CFUNCTYPE(ctypes.c_int)(info.address)() == 42
        assert read(variables.address + 99, 1) == b"!"
        self.deallocate(finalized)

    def test_simple_segment_alloc_abandoned(self) -> None:
        wanted = {AllocGroup(READ): SegmentRequest(10)}
        drive(drive(SimpleSegmentAlloc.create(self._manager, None, wanted)).abandon())

    def test_simple_segment_alloc_too_large(self) -> None:
        wanted = {AllocGroup(READ): SegmentRequest(1 << 62)}
        with pytest.raises(AllocationError) as caught:
            drive(SimpleSegmentAlloc.create(self._manager, None, wanted))
        assert caught.value.size == 1 << 62
