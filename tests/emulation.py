"""Links code of other processors into an emulated machine and calls it, without a session.

Links go through `jitlink.link` as for any executor. Tests choose the addresses of code::

    with Emulator("aarch64", base=0x7000_0000) as emulator:
        program = emulator.link(compiled, externals={"host": lambda x: x + 1})
        assert program.call("f", 3, 4) == 7

Arguments and results are integers in integer registers, and doubles in floating-point registers.
"""

import ctypes
from collections.abc import Callable, Mapping
from typing import Self

from jitlink.abi.frames import CallFrame
from jitlink.executor import Emulated, ExecutorCrashedError
from jitlink.executor.emulated.machines import Machine
from jitlink.executor.emulated.memory import EmulatedMemoryManager
from jitlink.executor.emulated.tls import EmulatedTLS
from jitlink.graph import LinkGraph, MemProt
from jitlink.input_reader import InputReader
from jitlink.inputs import Input, open_input
from jitlink.link import JITLinkContext, PassConfiguration, link, run_in_process
from jitlink.memory.layout import Segment
from jitlink.memory.manager import FinalizedAlloc, JITLinkDylib
from jitlink.memory.regions import MemoryRegion

PAGE_SIZE = 0x1000
Configure = Callable[[LinkGraph, PassConfiguration], None]
Host = Callable[..., int]
Place = Callable[[Segment], int | None]
EmulationError = ExecutorCrashedError
# At the lowest addresses, where no test places code.
_HOST, _MEMORY = 0x2_0000, 0x4_0000


class Emulator:
    """One machine, and the code that is linked into it.

    Args:
        name: the machine.
        base: address of the first segment, a multiple of the page size. Others follow it.
        place: called with each segment; returns its address, or None for the next free one.
    """

    def __init__(self, name: str, base: int = 0x1000_0000, place: Place | None = None) -> None:
        self._next_address, self._place = base, place
        end = 1 << 32 if name == "riscv32" else 1 << 47
        self.executor = Emulated(
            name,
            memory=[MemoryRegion("memory", _MEMORY, end - _MEMORY)],
            is_sparse=True,
            host_address=_HOST,
            place=self._place_segment,
            stack_size=0x2_0000,
            time_limit=10,
        )
        self.machine: Machine = self.executor.processor.machine
        self.dylib = JITLinkDylib(name)
        self._data, self._float_bits = _MEMORY, 0
        manager = self.executor.memory_manager
        assert isinstance(manager, EmulatedMemoryManager)
        assert isinstance(manager.tls, EmulatedTLS)
        self.tls = manager.tls
        self._allocs: list[FinalizedAlloc] = []

    def _place_segment(self, segment: Segment) -> int:
        address = self._place(segment) if self._place else None
        if address is None:
            alignment = max(segment.alignment, PAGE_SIZE)
            address = -(-self._next_address // alignment) * alignment
            self._next_address = address + -(-segment.size // PAGE_SIZE) * PAGE_SIZE
        return address

    def link(
        self,
        *inputs: Input,
        externals: Mapping[str, int | Host] | None = None,
        configure: Configure | None = None,
    ) -> "Program":
        """Link objects and archives.

        Args:
            inputs: paths or bytes of objects and archives.
            externals: external symbols: addresses, or functions of the host, which are called with
                the (unsigned) values of argument registers.
            configure: called with the graph and its passes before the link.
        """
        builder = InputReader()
        builder.add([open_input(each, number) for number, each in enumerate(inputs)])
        builder.search_archives()
        builder.resolver.finish()
        graph = builder.resolver.graph
        passes = builder.target.configure(graph)
        if configure is not None:
            configure(graph, passes)
        self.link_graph(graph, passes, externals)
        return Program(self, graph, builder.resolver.definitions)

    def link_graph(
        self,
        graph: LinkGraph,
        passes: PassConfiguration,
        externals: Mapping[str, int | Host] | None = None,
    ) -> None:
        """Link a graph."""
        addresses = {
            name: value if isinstance(value, int) else self.add_host(value)
            for name, value in (externals or {}).items()
        }
        context = _Context(self.dylib, addresses)
        manager = self.executor.memory_manager
        self._allocs.append(run_in_process(link(graph, context, passes, manager)))

    def add_host(self, function: Host) -> int:
        """Add a function of the host; returns the address at which emulated code can call it."""
        count = function.__code__.co_argcount if hasattr(function, "__code__") else 1
        return self.executor.calls.add_word_function(count, function)

    def add_data(self, content: bytes) -> int:
        """Add a few bytes that emulated code may read and write; returns their address."""
        memory, prot = self.executor.memory, MemProt.READ | MemProt.WRITE
        pages = memory.allocate_at(self._data, len(content), prot)
        self._data += pages.size
        memory.protect(pages, prot)
        self.executor.processor.write(pages.address, content)
        return pages.address

    # Memory

    def read(self, address: int, size: int) -> bytes:
        """Read memory."""
        return self.executor.processor.read(address, size)

    # Calls

    def call(self, address: int, *arguments: float) -> int:
        """Call a function; returns its integer result, unsigned.

        Raises:
            EmulationError: the code faulted or did not return in time.
        """
        calls = self.executor.calls
        frame = CallFrame(calls.convention)
        mask = (1 << 8 * self.machine.pointer_size) - 1
        for value in arguments:
            if isinstance(value, int):
                frame.integers.append(value & mask)
            else:
                frame.add_value(ctypes.c_double(value))
        integers, floats, _ = calls.call(address, frame, results=(1, 1))
        self._float_bits = floats[0]
        return integers[0]

    def float_result(self) -> float:
        """The floating-point result of the last call."""
        return ctypes.c_double.from_buffer_copy(self._float_bits.to_bytes(8, "little")).value

    def release(self) -> None:
        """Deallocate everything."""
        allocs, self._allocs = self._allocs, []
        run_in_process(self.executor.memory_manager.deallocate(allocs))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.release()
        self.executor.close()


class Program:
    """One link in an emulator.

    Attributes:
        graph: the graph, with all addresses.
        definitions: row of the symbol that defines each name.
    """

    def __init__(
        self, emulator: Emulator, graph: LinkGraph, definitions: Mapping[str, int]
    ) -> None:
        self.emulator = emulator
        self.graph = graph
        self.definitions = definitions
        self._addresses = graph.symbol_addresses()

    def address(self, name: str) -> int:
        """Address of a symbol."""
        return int(self._addresses[self.definitions[name]])

    def call(self, name: str, *arguments: float, size: int = 4, signed: bool = True) -> int:
        """Call a function; returns its result as an integer of `size` bytes."""
        result = self.emulator.call(self.address(name), *arguments)
        mask = (1 << 8 * size) - 1
        return int.from_bytes((result & mask).to_bytes(size, "little"), "little", signed=signed)

    def call_float(self, name: str, *arguments: float) -> float:
        """Call a function that returns a double."""
        self.emulator.call(self.address(name), *arguments)
        return self.emulator.float_result()

    def read(self, name: str, size: int) -> bytes:
        """Read memory at a symbol."""
        return self.emulator.read(self.address(name), size)

    def integer(self, name: str, size: int = 8, *, signed: bool = False) -> int:
        """Read an integer at a symbol."""
        content = self.read(name, size)
        return int.from_bytes(content, self.emulator.machine.byte_order, signed=signed)


class _Context(JITLinkContext):
    def __init__(self, dylib: JITLinkDylib, externals: Mapping[str, int]) -> None:
        self.dylib = dylib
        self.externals = externals

    async def lookup(self, names: Mapping[str, bool]) -> Mapping[str, int]:
        missing = [n for n, required in names.items() if required and n not in self.externals]
        assert not missing, missing
        return {name: self.externals.get(name, 0) for name in names}
