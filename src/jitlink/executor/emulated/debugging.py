"""Looks into an emulated machine: breakpoints, watches, coverage, and snapshots."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from jitlink.executor.emulated.calls import EmulatedCalls
from jitlink.executor.emulated.processor import Processor


class MemoryAccess(NamedTuple):
    """An access to memory by emulated code.

    Attributes:
        is_write: whether it is a write.
        address: where.
        size: in bytes.
        value: what is written; 0 for a read.
        pc: address of the instruction.
    """

    is_write: bool
    address: int
    size: int
    value: int
    pc: int


class Coverage:
    """The blocks of code that were executed: instructions without a jump between them.

    Attributes:
        blocks: their sizes in bytes, by address.
        counts: how often each was entered.
    """

    def __init__(self) -> None:
        self.blocks: dict[int, int] = {}
        self.counts: dict[int, int] = {}

    def add(self, address: int, size: int) -> None:
        """Count a block."""
        self.blocks[address] = max(size, self.blocks.get(address, 0))
        self.counts[address] = self.counts.get(address, 0) + 1

    def __contains__(self, address: int) -> bool:
        """Whether the instruction at an address was executed."""
        return any(start <= address < start + size for start, size in self.blocks.items())


class Snapshot(NamedTuple):
    """The state of a machine.

    Attributes:
        registers: the state of the processor.
        memory: start and contents of what was memory.
    """

    registers: object
    memory: list[tuple[int, bytes]]


class Debugger:
    """Looks into one machine.

    Args:
        processor: the processor.
        calls: its calls.
    """

    def __init__(self, processor: Processor, calls: EmulatedCalls) -> None:
        self._processor, self._calls = processor, calls

    def add_breakpoint(self, address: int, callback: Callable[[], object]) -> None:
        """See `Emulated.add_breakpoint`."""
        self._processor.add_breakpoint(address, self._calls.at_breakpoint(callback))

    def remove_breakpoint(self, address: int) -> None:
        """See `Emulated.remove_breakpoint`."""
        self._processor.remove_breakpoint(address)

    @contextmanager
    def watch(
        self, address: int, size: int, callback: Callable[[MemoryAccess], object]
    ) -> Iterator[None]:
        """See `Emulated.watch`."""
        processor = self._processor

        def access(kind: str, place: int, count: int, value: int) -> None:
            is_write = kind == "write"
            written = value & ((1 << 8 * count) - 1) if is_write else 0
            callback(MemoryAccess(is_write, place, count, written, processor.pc))

        hook = processor.add_access_hook(address, address + size, access)
        try:
            yield
        finally:
            processor.remove_hook(hook)

    @contextmanager
    def coverage(self) -> Iterator[Coverage]:
        """See `Emulated.coverage`."""
        found = Coverage()
        hook = self._processor.add_block_hook(found.add)
        try:
            yield found
        finally:
            self._processor.remove_hook(hook)

    def snapshot(self) -> Snapshot:
        """See `Emulated.snapshot`."""
        processor = self._processor
        with processor.lock:
            memory = [
                (start, processor.read(start, end - start))
                for start, end, _ in processor.mapped_ranges()
                if not processor.is_device(start)
            ]
            return Snapshot(processor.save(), memory)

    def restore(self, snapshot: Snapshot) -> None:
        """See `Emulated.restore`."""
        processor = self._processor
        with processor.lock:
            mapped = [(start, end) for start, end, _ in processor.mapped_ranges()]
            for start, content in snapshot.memory:
                for first, end in mapped:
                    low, high = max(start, first), min(start + len(content), end)
                    if low < high:
                        processor.write(low, content[low - start : high - start])
            processor.restore(snapshot.registers)
            processor.flush()
