"""Links code of other processors into a Unicorn emulator and calls it.

An `Emulator` is a processor with memory of its own and a memory manager for it, so that links go
through `jitlink.link` as for any executor: layout, working memory, fixups, protections, allocation
actions. Tests choose the addresses of code, and pages have the protection of their segment::

    with Emulator("aarch64", base=0x7000_0000) as emulator:
        program = emulator.link(compiled, externals={"host": lambda x: x + 1})
        assert program.call("f", 3, 4) == 7

`MACHINES` describes the processors. Arguments and results are integers in integer registers, and
doubles in floating-point registers.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, Self

import unicorn
from unicorn import arm64_const, riscv_const

from jitlink.errors import ActionError
from jitlink.graph import LinkGraph, MemLifetime, MemProt
from jitlink.input_reader import InputReader
from jitlink.inputs import Input, open_input
from jitlink.link import JITLinkContext, PassConfiguration, link, run_in_process
from jitlink.memory.actions import resolve_actions
from jitlink.memory.layout import BasicLayout, Segment
from jitlink.memory.manager import (
    FinalizedAlloc,
    InFlightAlloc,
    JITLinkDylib,
    JITLinkMemoryManager,
)
from jitlink.memory.tls import TLSAllocation, TLSBlock
from jitlink.memory.tls_glibc import GlibcLoader
from jitlink.memory.tls_link_only import LinkOnlyTLS
from jitlink.memory.tls_module import TLSABI, TLSModuleSpec, TLSValue
from jitlink.sps import AllocActionCallPair, WrapperFunctionCall

PAGE_SIZE = 0x1000
TLS_AREA = range(0x50000, 0x90000)
"""The memory of TLS blocks; the thread pointer is its start."""
Configure = Callable[[LinkGraph, PassConfiguration], None]
Host = Callable[..., int]
Place = Callable[[Segment], int | None]


@dataclass(frozen=True)
class Machine:
    """A processor and its C calling convention.

    Attributes:
        target: target triple for zig and clang.
        architecture, mode: Unicorn's constants.
        byte_order, pointer_size: byte order and pointer size in bytes of data.
        arguments: registers of integer arguments; the first two also hold results.
        float_arguments: registers of floating-point arguments; the first also holds a result.
        stack, link, pc: registers of the stack pointer, return address and program counter.
        ret: the return instruction.
        thread_pointer: register of the thread pointer.
        setup: values of control registers, which enable floating point.
    """

    target: str
    architecture: int
    mode: int
    byte_order: Literal["little", "big"]
    pointer_size: int
    arguments: tuple[int, ...]
    float_arguments: tuple[int, ...]
    stack: int
    link: int
    pc: int
    ret: bytes
    thread_pointer: int
    setup: Mapping[int, int]

    @property
    def result(self) -> int:
        """The register of an integer result."""
        return self.arguments[0]


def _registers(module: ModuleType, prefix: str, first: int, count: int) -> tuple[int, ...]:
    return tuple(getattr(module, f"{prefix}{first + each}") for each in range(count))


def _aarch64(target: str, byte_order: Literal["little", "big"]) -> Machine:
    mode = unicorn.UC_MODE_BIG_ENDIAN if byte_order == "big" else 0
    return Machine(
        target,
        unicorn.UC_ARCH_ARM64,
        unicorn.UC_MODE_ARM | mode,
        byte_order,
        8,
        _registers(arm64_const, "UC_ARM64_REG_X", 0, 8),
        _registers(arm64_const, "UC_ARM64_REG_D", 0, 8),
        arm64_const.UC_ARM64_REG_SP,
        arm64_const.UC_ARM64_REG_X30,
        arm64_const.UC_ARM64_REG_PC,
        bytes.fromhex("c0035fd6"),
        arm64_const.UC_ARM64_REG_TPIDR_EL0,
        {arm64_const.UC_ARM64_REG_CPACR_EL1: 3 << 20},
    )


def _riscv(target: str, mode: int, pointer_size: int) -> Machine:
    return Machine(
        target,
        unicorn.UC_ARCH_RISCV,
        mode,
        "little",
        pointer_size,
        # a0 .. a7 are x10 .. x17, and fa0 .. fa7 likewise.
        _registers(riscv_const, "UC_RISCV_REG_X", 10, 8),
        _registers(riscv_const, "UC_RISCV_REG_F", 10, 8),
        riscv_const.UC_RISCV_REG_X2,
        riscv_const.UC_RISCV_REG_X1,
        riscv_const.UC_RISCV_REG_PC,
        bytes.fromhex("67800000"),
        riscv_const.UC_RISCV_REG_X4,
        {riscv_const.UC_RISCV_REG_MSTATUS: 3 << 13},
    )


MACHINES = {
    "aarch64": _aarch64("aarch64-linux-gnu", "little"),
    "aarch64_be": _aarch64("aarch64_be-linux-gnu", "big"),
    "riscv64": _riscv("riscv64-linux-gnu", unicorn.UC_MODE_RISCV64, 8),
    "riscv32": _riscv("riscv32-linux-gnu", unicorn.UC_MODE_RISCV32, 4),
}


class EmulationError(Exception):
    """A fault or timeout of emulated code.

    Attributes:
        pc: address of the instruction.
    """

    def __init__(self, message: str, pc: int) -> None:
        super().__init__(f"{message} at {pc:#x}")
        self.pc = pc


class Emulator:
    """One processor with its memory, and the code that is linked into it.

    Args:
        name: the machine, a key of `MACHINES`.
        base: address of the first segment, a multiple of the page size. Others follow it.
        place: called with each segment; returns its address, or None for the next free one.
    """

    def __init__(self, name: str, base: int = 0x1000_0000, place: Place | None = None) -> None:
        self.machine = MACHINES[name]
        self.next_address = base
        self.place = place
        self.memory = _MemoryManager(self)
        self.dylib = JITLinkDylib(name)
        self._uc: Any = unicorn.Uc(self.machine.architecture, self.machine.mode)
        self._allocs: list[FinalizedAlloc] = []
        self._hosts: dict[int, Host] = {}
        for register, value in self.machine.setup.items():
            self._uc.reg_write(register, value)
        # The lowest addresses, which no test uses, hold a stack, data of the host, the arguments of
        # actions, and a page of return instructions, the entry points of functions of the host.
        self._uc.mem_map(0x10000, 0x20000, unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE)
        self._scratch, self._data, self._stack = 0x10000, 0x12000, 0x30000
        self._host_page = self._exit = 0x40000
        self._uc.mem_map(self._host_page, PAGE_SIZE, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
        self._uc.mem_write(self._host_page, self.machine.ret * (PAGE_SIZE // 4))
        end = self._host_page + PAGE_SIZE - 1
        self._uc.hook_add(unicorn.UC_HOOK_CODE, self._enter_host, None, self._host_page, end)

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
        self._allocs.append(run_in_process(link(graph, context, passes, self.memory)))

    def add_host(self, function: Host) -> int:
        """Add a function of the host; returns the address at which emulated code can call it."""
        address = self._host_page + 4 * (len(self._hosts) + 1)
        self._hosts[address] = function
        return address

    def add_data(self, content: bytes) -> int:
        """Add a few bytes that emulated code may read and write; returns their address."""
        address = self._data
        self._data += -(-len(content) // 16) * 16
        self.write(address, content)
        return address

    def _enter_host(self, _uc: object, address: int, _size: int, _data: object) -> None:
        host = self._hosts.get(address)
        if host is not None:
            machine = self.machine
            count = host.__code__.co_argcount if hasattr(host, "__code__") else 1
            arguments = [self._uc.reg_read(each) for each in machine.arguments[:count]]
            mask = (1 << 8 * machine.pointer_size) - 1
            self._uc.reg_write(machine.result, host(*arguments) & mask)

    # Memory

    def map(self, address: int, size: int, prot: MemProt) -> None:
        """Map memory; the address is a multiple of the page size."""
        protections = (
            (MemProt.READ, unicorn.UC_PROT_READ),
            (MemProt.WRITE, unicorn.UC_PROT_WRITE),
            (MemProt.EXEC, unicorn.UC_PROT_EXEC),
        )
        bits = sum(bit for flag, bit in protections if prot & flag)
        self._uc.mem_map(address, size, bits)

    def map_tls(self) -> None:
        """Map the memory of TLS blocks, which few tests have."""
        self._uc.reg_write(self.machine.thread_pointer, TLS_AREA.start)
        self.map(TLS_AREA.start, len(TLS_AREA), MemProt.READ | MemProt.WRITE)

    def unmap(self, address: int, size: int) -> None:
        """Unmap memory."""
        self._uc.mem_unmap(address, size)

    def write(self, address: int, content: bytes | memoryview) -> None:
        """Write memory of any protection."""
        self._uc.mem_write(address, bytes(content))

    def read(self, address: int, size: int) -> bytes:
        """Read memory."""
        return bytes(self._uc.mem_read(address, size))

    # Calls

    def call(self, address: int, *arguments: float) -> int:
        """Call a function; returns its integer result, unsigned.

        Raises:
            EmulationError: the code faulted or did not return in time.
        """
        machine, uc = self.machine, self._uc
        mask = (1 << 8 * machine.pointer_size) - 1
        integers, floats = iter(machine.arguments), iter(machine.float_arguments)
        for value in arguments:
            if isinstance(value, int):
                uc.reg_write(next(integers), value & mask)
            else:
                bits = int.from_bytes(struct.pack("<d", value), "little")
                uc.reg_write(next(floats), bits)
        uc.reg_write(machine.stack, self._stack)
        uc.reg_write(machine.link, self._exit)
        try:
            uc.emu_start(address, self._exit, timeout=10_000_000)
        except unicorn.UcError as error:
            raise EmulationError(str(error), uc.reg_read(machine.pc)) from error
        if (stopped := uc.reg_read(machine.pc)) != self._exit:
            raise EmulationError("still running after ten seconds", stopped)
        return int(uc.reg_read(machine.result)) & mask

    def float_result(self) -> float:
        """The floating-point result of the last call."""
        bits = int(self._uc.reg_read(self.machine.float_arguments[0]))
        (value,) = struct.unpack("<d", bits.to_bytes(8, "little"))
        return float(value)

    def run_wrapper(self, call: WrapperFunctionCall) -> None:
        """Run a call of an allocation action.

        Raises:
            ActionError: the result is not the one zero byte of success.
        """
        self.write(self._scratch, call.arguments)
        value = self.call(call.callee, self._scratch, len(call.arguments))
        size = self._uc.reg_read(self.machine.arguments[1])
        first = value.to_bytes(self.machine.pointer_size, self.machine.byte_order)[0]
        if (size, first) != (1, 0):
            raise ActionError(f"result {value:#x} of size {size}", address=call.callee)

    def release(self) -> None:
        """Deallocate everything."""
        allocs, self._allocs = self._allocs, []
        run_in_process(self.memory.deallocate(allocs))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.release()
        assert not list(self.memory.mapped)


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


@dataclass
class _Mapped:
    """One allocation: address and size of its pages, and its deallocation actions."""

    ranges: list[tuple[int, int]]
    deallocate: list[WrapperFunctionCall]


class EmulatedTLS(LinkOnlyTLS):
    """Thread-local storage of the only thread: static TLS, and other blocks at the end of the area.

    Code calls `get_address`, as a function of the host, for `__tls_get_addr`.
    """

    def __init__(self, emulator: Emulator) -> None:
        super().__init__(GlibcLoader())
        self._emulator = emulator
        self._end = TLS_AREA.stop
        self._instances: dict[int, int] = {}

    async def load(
        self, spec: TLSModuleSpec, abi: TLSABI, others: Sequence[TLSBlock] = ()
    ) -> tuple[int, list[list[int]]]:
        """Place the TLS block of a module."""
        module, values = await super().load(spec, abi, others)
        if module == 1:
            self._emulator.map_tls()
        if spec.size:
            address = self._end = (self._end - spec.size) & -spec.alignment
            for relocation, (first, *_) in zip(spec.relocations, values, strict=True):
                if relocation.value is TLSValue.TPOFF and not relocation.symbol:
                    address = TLS_AREA.start + first - relocation.addend
            assert TLS_AREA.start <= address <= TLS_AREA.stop - spec.size
            self._emulator.write(address, bytes(spec.image).ljust(spec.size, b"\0"))
            self._instances[module] = address + abi.dtp_bias
        return module, values

    def get_address(self, index: int) -> int:
        """The address of a variable, by the address of its tls_index."""
        machine, read = self._emulator.machine, self._emulator.read
        size, order = machine.pointer_size, machine.byte_order
        module, offset = (int.from_bytes(read(index + place, size), order) for place in (0, size))
        return self._instances[module] + offset


class _MemoryManager(JITLinkMemoryManager):
    """Allocates segments in the emulator's memory, each on pages of its own."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.tls: EmulatedTLS = EmulatedTLS(emulator)
        self.mapped: dict[int, _Mapped] = {}
        self.count = 0

    async def allocate(self, dylib: JITLinkDylib | None, graph: LinkGraph) -> InFlightAlloc:  # noqa: ARG002
        layout = BasicLayout(graph)
        emulator = self.emulator
        for segment in layout.segments:
            address = emulator.place(segment) if emulator.place else None
            if address is None:
                alignment = max(segment.alignment, PAGE_SIZE)
                address = -(-emulator.next_address // alignment) * alignment
                emulator.next_address = address + _pages(segment)
            segment.address = address
            segment.working_memory = memoryview(bytearray(segment.content_size))
        layout.apply()
        return _InFlight(self, layout)

    async def deallocate(self, allocs: Sequence[FinalizedAlloc]) -> None:
        for alloc in reversed(allocs):
            mapped = self.mapped.pop(alloc.release())
            for call in reversed(mapped.deallocate):
                self.emulator.run_wrapper(call)
            for address, size in mapped.ranges:
                self.emulator.unmap(address, size)


class _InFlight(InFlightAlloc):
    def __init__(self, manager: _MemoryManager, layout: BasicLayout) -> None:
        self.manager = manager
        self.layout = layout

    def hold(self, tls_allocation: TLSAllocation) -> None:
        """Do nothing: what is linked into an emulator stays as long as that."""

    async def finalize(self) -> FinalizedAlloc:
        emulator = self.manager.emulator
        ranges: dict[MemLifetime, list[tuple[int, int]]] = {each: [] for each in MemLifetime}
        for segment in self.layout.segments:
            if size := _pages(segment):
                assert segment.prot & (MemProt.WRITE | MemProt.EXEC) != (
                    MemProt.WRITE | MemProt.EXEC
                )
                emulator.map(segment.address, size, segment.prot)
                self._write(segment)
                ranges[segment.lifetime].append((segment.address, size))
        actions = resolve_actions(self.layout.graph.alloc_actions)
        mapped = _Mapped(ranges[MemLifetime.STANDARD], self._run(actions))
        for address, size in ranges[MemLifetime.FINALIZE]:
            emulator.unmap(address, size)
        self.manager.count += 1
        self.manager.mapped[self.manager.count] = mapped
        return FinalizedAlloc(self.manager.count)

    def _write(self, segment: Segment) -> None:
        """Write the blocks, without the gaps between them, which may be large."""
        table, memory = self.layout.graph.block_table, segment.working_memory
        rows = segment.content_rows
        columns = (table.address[rows].tolist(), table.size[rows].tolist())
        for address, size in zip(*columns, strict=True):
            start = address - segment.address
            self.manager.emulator.write(address, memory[start : start + size])

    def _run(self, actions: Sequence[AllocActionCallPair]) -> list[WrapperFunctionCall]:
        undo = []
        for finalize, deallocate in actions:
            if finalize.callee:
                self.manager.emulator.run_wrapper(finalize)
            if deallocate.callee:
                undo.append(deallocate)
        return undo

    async def abandon(self) -> None:
        self.layout.undo()


def _pages(segment: Segment) -> int:
    """Size of a segment in whole pages."""
    return -(-segment.size // PAGE_SIZE) * PAGE_SIZE
