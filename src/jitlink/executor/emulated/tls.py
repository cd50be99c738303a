"""Thread-local storage of an emulated machine, which has one thread.

All variables are in one room at a constant distance from the thread pointer, as those of an
executable: code of all access models finds them there. What the descriptors of TLSDESC lead to, and
``__tls_get_addr``, are host functions.

Specification: "ELF Handling For Thread-Local Storage"; variant II on x86, variant I elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from jitlink.errors import JITLinkError, TLSError
from jitlink.executor.emulated.calls import EmulatedCalls
from jitlink.executor.emulated.memory import EmulatedMemory
from jitlink.executor.emulated.memory_map import PAGE_SIZE
from jitlink.executor.emulated.processor import Processor
from jitlink.graph import MemProt
from jitlink.memory.free_list import FreeList
from jitlink.memory.tls import TLSBlock, TLSRegistry
from jitlink.memory.tls_module import (
    TLSABI,
    UNDEFINED_SYMBOL,
    TLSModuleSpec,
    TLSRelocation,
    TLSValue,
)

_LARGEST_ROOM = 0x40000
"""Bytes of thread-local variables, at most."""
_SHARE = 8
"""The room takes at most one of so many parts of the memory for variables."""
_ALIGNMENT = 0x40
_MASK = (1 << 64) - 1
_ANYWHERE = 1 << 65
_DESCRIPTOR_REGISTERS: Mapping[str, str] = {"ARM64": "X0", "X86": "RAX"}
"""The register with the address of a descriptor, in which its resolver returns. RISC-V's resolvers
are linked code."""


class EmulatedTLS(TLSRegistry):
    """The thread-local storage of a machine; its memory is allocated when something needs it.

    Args:
        processor: the processor.
        memory: its memory.
        calls: makes host functions.

    Attributes:
        thread_pointer: the thread pointer; 0 as long as there are no variables.
    """

    def __init__(self, processor: Processor, memory: EmulatedMemory, calls: EmulatedCalls) -> None:
        super().__init__(_Loader(self))
        self._processor, self._memory, self._calls = processor, memory, calls
        self.thread_pointer = 0
        # Offsets from the thread pointer.
        self._free = FreeList()
        self._room = self._resolver = self._bias = 0
        # Offset and size of the blocks of modules.
        self._places: dict[int, tuple[int, int]] = {}
        self._count = 0

    def _set_up(self, abi: TLSABI) -> None:
        if self.thread_pointer:
            return
        machine, prot = self._processor.machine, MemProt.READ | MemProt.WRITE
        share = self._memory.region_for(prot).size // _SHARE // PAGE_SIZE * PAGE_SIZE
        self._room = room = min(_LARGEST_ROOM, share)
        pages = self._memory.allocate(room + PAGE_SIZE, prot)
        self._memory.protect(pages, prot)
        self._bias = abi.dtp_bias
        if abi.tcb_size is None:
            # The variables are before the thread pointer, which points to itself.
            self.thread_pointer, first = pages.address + room, -room
            word = self.thread_pointer.to_bytes(machine.pointer_size, machine.byte_order)
            self._processor.write(self.thread_pointer, word)
        else:
            self.thread_pointer, first = pages.address, abi.tcb_size
        self._free.put(first, first + room)
        self._processor.set_thread_pointer(self.thread_pointer)
        if machine.architecture in _DESCRIPTOR_REGISTERS:
            self._resolver = self._calls.add_entry(self._resolve_descriptor)

    def _resolve_descriptor(self) -> None:
        """What a descriptor leads to: the offset of a variable, all other registers unchanged."""
        processor = self._processor
        name, size = _DESCRIPTOR_REGISTERS[processor.machine.architecture], 8
        data = self._calls.read(processor.register(name) + size, size)
        processor.write_register(name, int.from_bytes(data, processor.machine.byte_order))

    def get_address(self, pair: int) -> int:
        """``__tls_get_addr``: the address of a variable, by its module and offset in memory."""
        machine, read = self._processor.machine, self._calls.read
        size = machine.pointer_size
        module, offset = (
            int.from_bytes(read(pair + place, size), machine.byte_order) for place in (0, size)
        )
        return self.address_of(module, offset)

    async def load(
        self, spec: TLSModuleSpec, abi: TLSABI, others: Sequence[TLSBlock] = ()
    ) -> tuple[int, list[list[int]]]:
        """Give a link's variables a place, and find the words of each relocation's value."""
        self._set_up(abi)
        self._count += 1
        handle = self._count
        if spec.size:
            own = self._take(spec)
            self._places[handle] = own, spec.size
            content = bytes(spec.image).ljust(spec.size, b"\0")
            self._processor.write(self.thread_pointer + own, content)
        modules = {block.name: block.module for block in others}
        try:
            return handle, [self._words(each, handle, modules) for each in spec.relocations]
        except TLSError:
            await self.unload(handle)
            raise

    def _take(self, spec: TLSModuleSpec) -> int:
        alignment, place = max(spec.alignment, 1), None
        if alignment <= _ALIGNMENT:
            place = self._free.take(spec.size, alignment, _ANYWHERE)
        if place is None:
            raise TLSError(
                f"an emulated machine has no room for {spec.size} bytes of thread-local variables "
                f"aligned to {alignment}: it has {self._room}, aligned to {_ALIGNMENT}"
            )
        return place

    def _words(
        self, relocation: TLSRelocation, module: int, modules: Mapping[str, int]
    ) -> list[int]:
        """The words of the value of a relocation of a module."""
        if relocation.symbol == UNDEFINED_SYMBOL:
            return [0] * relocation.value.words
        if relocation.symbol:
            if relocation.symbol not in modules:
                raise TLSError(f"the thread-local variable {relocation.symbol} is not linked")
            module = modules[relocation.symbol]
        match relocation.value:
            case TLSValue.DTPMOD:
                return [module]
            case TLSValue.DTPOFF:
                return [(relocation.addend - self._bias) & _MASK]
        offset = (self._place_of(module) + relocation.addend) & _MASK
        return [offset] if relocation.value is TLSValue.TPOFF else [self._resolver, offset]

    async def unload(self, handle: int) -> list[JITLinkError]:
        """Free the place of a link's variables."""
        found = self._places.pop(handle, None)
        if found is not None:
            offset, size = found
            self._free.put(offset, offset + size)
        return []

    async def reserve_static_tls(self, names: Iterable[str]) -> None:
        """Do nothing: there are no other libraries."""

    def address_of(self, module: int, offset: int) -> int:
        """Address of a variable, by the offset of `TLSValue.DTPOFF`."""
        machine = self._processor.machine
        address = self.thread_pointer + self._place_of(module) + offset + self._bias
        return address & ((1 << 8 * machine.pointer_size) - 1)

    def _place_of(self, module: int) -> int:
        """Where the block of a module is, from the thread pointer."""
        if module not in self._places:
            raise TLSError(f"an emulated machine has no thread-local variables of module {module}")
        return self._places[module][0]


class _Loader:
    """What `TLSRegistry` asks about variables; nothing is loaded."""

    def __init__(self, tls: EmulatedTLS) -> None:
        self._tls = tls

    async def load_tls_module(self, data: bytes) -> int:  # noqa: ARG002 - part of the interface
        """Refuse: there are no TLS modules."""
        raise TLSError("an emulated machine loads no TLS modules")

    async def unload_tls_module(self, handle: int) -> None:
        """Nothing is loaded."""

    async def read_words(self, handle: int, symbol: str, count: int) -> list[int]:  # noqa: ARG002
        """Refuse: there are no TLS modules."""
        raise TLSError("an emulated machine loads no TLS modules")

    def instance_address(self, module: int, offset: int) -> int:
        """Address of a variable."""
        return self._tls.address_of(module, offset)

    def is_instance(self, module: int, offset: int, address: int) -> bool:
        """Whether a variable is at an address."""
        return self._tls.address_of(module, offset) == address

    def tunables_for(self, extra: int) -> str | None:  # noqa: ARG002
        """None: there is no C library with such a setting."""
        return None
