"""Links for tests: objects in, a graph and its memory out, with nothing run that is not asked for.

Each `Linker` has an address space of its own, so that what a failed link left behind can be
counted, and gives symbols without a definition the addresses that a test chooses.
"""

import ctypes
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from jitlink.graph import LinkGraph
from jitlink.input_reader import InputReader
from jitlink.inputs import Input, open_input
from jitlink.link import JITLinkContext, PassConfiguration, link, run_in_process
from jitlink.memory.address_space import AddressSpace
from jitlink.memory.in_process import InProcessMemoryManager
from jitlink.memory.manager import FinalizedAlloc, JITLinkDylib
from jitlink.memory.tls import FIRST_ADDRESS

Configure = Callable[[LinkGraph, PassConfiguration], None]


class _Context(JITLinkContext):
    """Resolves externals from a mapping; others are, as far as they are required, in the graph."""

    def __init__(self, dylib: JITLinkDylib, externals: Mapping[str, int]) -> None:
        self.dylib = dylib
        self.externals = externals
        self.near = 0

    def notify_resolved(self, graph: LinkGraph) -> None:
        addresses = graph.block_table.address
        self.near = int(addresses[addresses < FIRST_ADDRESS].max(initial=0))

    async def lookup(self, names: Mapping[str, bool]) -> Mapping[str, int]:
        return {
            name: self.externals.get(name, self.near if required else 0)
            for name, required in names.items()
        }


class Linked:
    """One link in memory.

    Attributes:
        graph: the graph, with all addresses.
        definitions: row of the symbol that each name is defined by.
    """

    def __init__(self, graph: LinkGraph, definitions: Mapping[str, int]) -> None:
        self.graph = graph
        self.definitions = definitions
        self._addresses = graph.symbol_addresses()

    def address(self, name: str) -> int:
        return int(self._addresses[self.definitions[name]])

    def read(self, name: str, size: int) -> bytes:
        return ctypes.string_at(self.address(name), size)

    def integer(self, name: str, size: int = 8, *, signed: bool = False) -> int:
        return int.from_bytes(self.read(name, size), "little", signed=signed)

    def function(
        self, name: str, result: type[Any] | None = ctypes.c_int64, *arguments: type[Any]
    ) -> Callable[..., int]:
        return ctypes.CFUNCTYPE(result, *arguments)(self.address(name))


class Linker:
    """Links objects into memory of its own; on exit the memory goes, and must be all of it."""

    def __init__(self) -> None:
        self.space = AddressSpace((64 << 20,), resident_size=0)
        self.memory = InProcessMemoryManager(self.space)
        self.dylib = JITLinkDylib("test")
        self.allocs: list[FinalizedAlloc] = []

    def link(
        self,
        *inputs: Input,
        externals: Mapping[str, int] | None = None,
        configure: Configure | None = None,
    ) -> Linked:
        """Link objects and archives like `jitlink.load`, but look nothing up in the process."""
        builder = InputReader()
        builder.add([open_input(each, number) for number, each in enumerate(inputs)])
        builder.search_archives()
        target, resolver = builder.target, builder.resolver
        resolver.finish()
        passes = target.configure(resolver.graph)
        if configure is not None:
            configure(resolver.graph, passes)
        context = _Context(self.dylib, externals or {})
        alloc = run_in_process(link(resolver.graph, context, passes, self.memory))
        self.allocs.append(alloc)
        return Linked(resolver.graph, resolver.definitions)

    def release(self) -> None:
        run_in_process(self.memory.deallocate(self.allocs))
        self.allocs = []

    @property
    def used_size(self) -> int:
        """Bytes of memory that links hold."""
        return sum(each.used_size for each in self.space.reservations)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.release()
        left = self.used_size
        self.space.close()
        assert left == 0


def read_graph(*objects: Path | bytes, name: str | None = None) -> LinkGraph:
    """The graph of some objects, resolved among each other but not linked."""
    builder = InputReader(name)
    builder.add([open_input(each, number) for number, each in enumerate(objects)])
    builder.resolver.finish()
    return builder.resolver.graph
