"""One emulated processor: Unicorn's engine, its registers and memory, and the loop that runs code.

Code runs in pieces. A piece ends where the call returns, at the address of a host function, at a
breakpoint, or when a `Watchdog` stops it, which ends the call. Then Python is not called by
Unicorn: host functions and breakpoints may call emulated code, and raise anything. Devices and
watches are called within a piece; what they raise is kept until it has ended, and ends the call.

Quirks of Unicorn 2.1: the addresses of host functions are not mapped, because a fault costs nothing
until there is one, but hooks do. The address where calls return is mapped, because RISC-V code
faults there before it is found to be the end. Translated code does not change with memory and
protections, until it is flushed.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from jitlink.errors import ExecutorError
from jitlink.executor.emulated.machines import SIGILL, SIGSEGV, SIGTRAP, SYSCALL, Machine
from jitlink.executor.emulated.memory_map import PAGE_SIZE
from jitlink.graph import MemProt

HostEntry = Callable[[int], None]
"""Carries out a host function for its return address, with the registers of its call."""
ReadRegister = Callable[[object, int, int, object], int]
"""Reads a register of a device for Unicorn, by its offset in the mapped pages and its size."""
WriteRegister = Callable[[object, int, int, int, object], None]
"""Writes one likewise, with the value."""
_HOST_AREA = 0x20000
"""Bytes of addresses for what is not of the memory map."""
_HOST_STEP = 4
"""Bytes between the addresses of host functions."""
_LARGE_READ = 1 << 20
"""Bytes of a read that is checked first: Unicorn makes room for it before it looks for memory."""
_MASK = (1 << 64) - 1


class Stop(Exception):  # noqa: N818 - not an error by itself: it becomes one, with a backtrace
    """The processor cannot go on.

    Attributes:
        number: number of a signal.
        cause: what happened.
        address: the address that could not be accessed, if there is one.
    """

    def __init__(self, number: int, cause: str, address: int | None = None) -> None:
        super().__init__(cause)
        self.number, self.cause, self.address = number, cause, address


def import_unicorn() -> ModuleType:
    """Unicorn.

    Raises:
        ExecutorError: it is not installed.
    """
    try:
        return importlib.import_module("unicorn")
    except ImportError as error:
        raise ExecutorError(
            f"an emulated machine needs Unicorn: install jitlink[emulator], or unicorn ({error})"
        ) from None


class Processor:
    """An emulated processor.

    Args:
        machine: what to emulate.
        host_area: the lowest address of `_HOST_AREA` bytes that are not in the memory map.

    Attributes:
        machine: the same.
        return_address: where the code of a call returns to.
        is_closed: whether `close` was called.
        is_in_piece: whether Unicorn runs code now, and what it calls cannot call code.
        interrupted: whether the `Watchdog` has stopped a piece.
        breakpoints: what is called before the instruction at an address.

    Raises:
        ExecutorError: Unicorn is not installed.
    """

    host_area_size = _HOST_AREA

    def __init__(self, machine: Machine, host_area: int) -> None:
        self._unicorn = unicorn = import_unicorn()
        self.machine = machine
        self._constants = self._module(machine.register_names[0])
        self._ids: dict[str, int] = {}
        mode = sum(getattr(unicorn, f"UC_MODE_{name}") for name in machine.modes)
        architecture = getattr(unicorn, f"UC_ARCH_{machine.architecture}")
        self._uc: Any = unicorn.Uc(architecture, mode)
        self.lock = threading.RLock()
        self.is_closed = False
        self._pending: BaseException | None = None
        self._fault: tuple[str, int, int] | None = None
        self._exception: tuple[int, int] | None = None
        self.interrupted = False
        self.breakpoints: dict[int, tuple[Callable[[], object], int]] = {}
        self._break: int | None = None
        self._passed: int | None = None
        self._thread_pointer: int | None = None
        self.is_in_piece = False
        self._counts = False
        self._devices: set[int] = set()
        self._hosts: dict[int, HostEntry] = {}
        self._free_hosts: list[int] = []
        self.return_address = host_area
        self._host_start = self._next_host = host_area + PAGE_SIZE
        self._host_end = host_area + _HOST_AREA
        for name, value in machine.setup.items():
            self.write_register(name, value)
        self.map(host_area, PAGE_SIZE, MemProt.READ | MemProt.EXEC)
        code = machine.return_code
        self.write(host_area, code * (PAGE_SIZE // len(code)))
        self._add_hooks()

    def _module(self, name: str) -> ModuleType:
        return importlib.import_module(f"unicorn.{name}")

    def _add_hooks(self) -> None:
        unicorn, uc = self._unicorn, self._uc
        invalid = (
            unicorn.UC_HOOK_MEM_READ_UNMAPPED
            | unicorn.UC_HOOK_MEM_WRITE_UNMAPPED
            | unicorn.UC_HOOK_MEM_READ_PROT
            | unicorn.UC_HOOK_MEM_WRITE_PROT
        )
        uc.hook_add(invalid, self._note_fault)
        uc.hook_add(unicorn.UC_HOOK_INTR, self._note_exception)
        if self.machine.architecture == "X86":
            number = self._constants.UC_X86_INS_SYSCALL
            uc.hook_add(unicorn.UC_HOOK_INSN, self._note_system_call, None, 1, 0, number)

    # Called by Unicorn. They raise nothing.

    def _note_fault(
        self, _uc: object, access: int, address: int, size: int, _value: int, _data: object
    ) -> bool:
        unicorn = self._unicorn
        is_write = access in {unicorn.UC_MEM_WRITE_UNMAPPED, unicorn.UC_MEM_WRITE_PROT}
        self._fault = ("write" if is_write else "read", address, size)
        return False

    def _note_exception(self, _uc: object, number: int, _data: object) -> None:
        self._note(number)

    def _note_system_call(self, _uc: object, _data: object) -> None:
        self._note(SYSCALL)

    def _note(self, number: int) -> None:
        # The processor may go on for a few instructions, and raise more.
        if self._exception is None:
            self._exception = number, self.pc
        self._uc.emu_stop()

    def guard(self, action: Callable[[], int | None]) -> int:
        """Carry out what Unicorn calls; what it raises ends the piece, and is raised after it."""
        if self._pending is None:
            try:
                return action() or 0
            except BaseException as error:  # noqa: BLE001 - raised when the piece has ended
                self._pending = error
                self._uc.emu_stop()
        return 0

    # Registers

    def _register(self, name: str) -> int:
        number = self._ids.get(name)
        if number is None:
            number = getattr(self._constants, self.machine.register_names[1] + name, None)
            if number is None:
                raise ExecutorError(f"{self.machine.name} has no register {name}")
            self._ids[name] = number
        return number

    def register(self, name: str) -> int:
        """The contents of a register, unsigned.

        Raises:
            ExecutorError: there is no such register.
        """
        value: int = self._uc.reg_read(self._register(name))
        return value

    def write_register(self, name: str, value: int) -> None:
        """Set a register; errors as for `register`."""
        self._uc.reg_write(self._register(name), value)

    def write_registers(self, values: Iterable[tuple[str, int]]) -> None:
        """Set several registers."""
        ids, write = self._ids, self._uc.reg_write
        for name, value in values:
            write(ids[name] if name in ids else self._register(name), value)

    @property
    def pc(self) -> int:
        """The program counter."""
        return self.register(self.machine.pc)

    @property
    def stack(self) -> int:
        """The stack pointer."""
        return self.register(self.machine.stack)

    def all_registers(self) -> dict[str, int]:
        """The contents of the registers that reports show, by name in lower case."""
        machine = self.machine
        names = dict.fromkeys((*machine.registers, machine.stack, machine.pc))
        return {name.lower(): self.register(name) for name in names}

    def save(self) -> object:
        """The state of all registers, for `restore`."""
        with self.lock:
            return self._uc.context_save()

    def restore(self, state: object) -> None:
        """Set all registers to a state."""
        with self.lock:
            self._uc.context_restore(state)
            if self._thread_pointer is not None:
                self.write_register(self.machine.thread, self._thread_pointer)

    def set_thread_pointer(self, address: int) -> None:
        """Set the thread pointer for good: `restore` keeps it."""
        self._thread_pointer = address
        self.write_register(self.machine.thread, address)

    # Memory

    def map(self, address: int, size: int, prot: MemProt) -> None:
        """Map memory, which is zero; both are multiples of the page size.

        Raises:
            ExecutorError: it is mapped already, or there is no memory.
        """
        with self.lock:
            try:
                self._uc.mem_map(address, size, self._bits(prot))
            except self._unicorn.UcError as error:
                raise ExecutorError(
                    f"cannot map {size:#x} bytes at {address:#x}: {error}"
                ) from None

    def unmap(self, address: int, size: int) -> None:
        """Unmap memory."""
        with self.lock:
            self._uc.mem_unmap(address, size)
            self._uc.ctl_flush_tb()

    def protect(self, address: int, size: int, prot: MemProt) -> None:
        """Change what code may do with mapped memory."""
        with self.lock:
            self._uc.mem_protect(address, size, self._bits(prot))
            self._uc.ctl_flush_tb()

    def _bits(self, prot: MemProt) -> int:
        unicorn = self._unicorn
        return sum(
            bit
            for flag, bit in (
                (MemProt.READ, unicorn.UC_PROT_READ),
                (MemProt.WRITE, unicorn.UC_PROT_WRITE),
                (MemProt.EXEC, unicorn.UC_PROT_EXEC),
            )
            if prot & flag
        )

    def read(self, address: int, size: int) -> bytes:
        """The bytes at an address, whatever code may do there.

        Raises:
            ExecutorError: not all of it is memory.
        """
        with self.lock:
            if size > _LARGE_READ and not self._is_mapped(address, size):
                raise self._inaccessible("read", address, size, "not all of it is memory")
            try:
                return bytes(self._uc.mem_read(address, size)) if size else b""
            except (self._unicorn.UcError, ValueError, OverflowError, MemoryError) as error:
                raise self._inaccessible("read", address, size, error) from None

    def string_at(self, address: int, most: int | None = None) -> bytes:
        """The characters of a string up to its null, or as many as are wanted.

        Raises:
            ExecutorError: they are not in memory.
        """
        found = bytearray()
        while most is None or len(found) < most:
            place = address + len(found)
            piece = self.read(place, PAGE_SIZE - place % PAGE_SIZE)
            end = piece.find(b"\0")
            if end >= 0:
                return bytes((found + piece[:end])[:most])
            found += piece
        return bytes(found[:most])

    def write(self, address: int, content: bytes | bytearray | memoryview) -> None:
        """Write bytes to an address, whatever code may do there.

        Raises:
            ExecutorError: not all of it is memory.
        """
        with self.lock:
            try:
                if content:
                    self._uc.mem_write(address, bytes(content))
            except (self._unicorn.UcError, ValueError, OverflowError) as error:
                raise self._inaccessible("write", address, len(content), error) from None

    def flush(self) -> None:
        """Forget translated code, after code has been written."""
        with self.lock:
            self._uc.ctl_flush_tb()

    @staticmethod
    def _inaccessible(what: str, address: int, size: int, error: object) -> ExecutorError:
        return ExecutorError(f"cannot {what} {size} bytes at {address:#x}: {error}")

    def mapped_ranges(self) -> list[tuple[int, int, MemProt]]:
        """Start, end and protection of what is mapped, in order of address."""
        unicorn, found = self._unicorn, []
        with self.lock:
            regions = sorted(self._uc.mem_regions())
        for start, end, bits in regions:
            prot = MemProt.NONE
            for flag, bit in (
                (MemProt.READ, unicorn.UC_PROT_READ),
                (MemProt.WRITE, unicorn.UC_PROT_WRITE),
                (MemProt.EXEC, unicorn.UC_PROT_EXEC),
            ):
                if bits & bit:
                    prot |= flag
            found.append((start, end + 1, prot))
        return found

    def _is_mapped(self, address: int, size: int) -> bool:
        """Whether all bytes of a range are mapped."""
        place = address
        for start, end, _ in self.mapped_ranges():
            if start <= place < end:
                place = end
        return place >= address + size

    def is_executable(self, address: int) -> bool:
        """Whether there is memory at an address that code may be in."""
        return any(
            start <= address < end and prot & MemProt.EXEC
            for start, end, prot in self.mapped_ranges()
        )

    def map_device(self, address: int, size: int, read: ReadRegister, write: WriteRegister) -> None:
        """Map pages whose accesses functions carry out, which Unicorn calls; they raise nothing.

        Raises:
            ExecutorError: something is mapped there already.
        """
        with self.lock:
            try:
                self._uc.mmio_map(address, size, read, None, write, None)
            except self._unicorn.UcError as error:
                raise ExecutorError(
                    f"cannot map a device of {size:#x} bytes at {address:#x}: {error}"
                ) from None
        self._devices.add(address)

    def is_device(self, address: int) -> bool:
        """Whether what begins at an address was mapped by `map_device`."""
        return address in self._devices

    # Host functions

    def add_host(self, entry: HostEntry) -> int:
        """Have a function called by code that jumps to an address, which is returned.

        Raises:
            ExecutorError: there are too many.
        """
        if self._free_hosts:
            address = self._free_hosts.pop()
        elif self._next_host < self._host_end:
            address, self._next_host = self._next_host, self._next_host + _HOST_STEP
        else:
            raise ExecutorError("an emulated machine has too many host functions")
        self._hosts[address] = entry
        return address

    def remove_host(self, address: int) -> None:
        """Release what `add_host` has returned."""
        del self._hosts[address]
        self._free_hosts.append(address)

    def _call_host(self, address: int) -> int:
        """Call a host function; returns where the code continues."""
        machine, entry = self.machine, self._hosts.get(address)
        if entry is None:
            raise Stop(SIGSEGV, f"a call of a Python function that was released, at {address:#x}")
        if machine.link:
            return_address, stack = self.register(machine.link), self.stack
        else:
            stack = self.stack
            word = self.read(stack, machine.pointer_size)
            return_address = int.from_bytes(word, machine.byte_order)
            stack += machine.pointer_size
        entry(return_address)
        self.write_register(machine.stack, stack)
        return return_address

    # Running

    def execute(self, address: int, steps: int, time_error: Callable[[], BaseException]) -> None:
        """Run code from an address until it jumps to `return_address`.

        Args:
            address: where to begin; registers are set.
            steps: how many instructions may be executed between two calls of host functions, 0 for
                any number.
            time_error: makes what is raised when `stop_piece` was called.

        Raises:
            Stop: the code cannot go on.
            StepsExceededError: it has executed more steps.
            BaseException: raised by a device, a watch or a breakpoint, or that of `time_error`.
        """
        unicorn, end = self._unicorn, self.return_address
        if steps and not self._counts:
            # What was translated before does not count.
            self.flush()
        self._counts = steps > 0
        self.interrupted = False
        while address != end:
            try:
                with self.lock:
                    self.is_in_piece = True
                    try:
                        self._uc.emu_start(address, end, 0, steps)
                    finally:
                        self.is_in_piece = False
            except unicorn.UcError as error:
                address = self._after_fault(error)
                continue
            address = self.pc
            if address != end or self._pending is not None:
                address = self._after_piece(address, steps, time_error)

    def _after_fault(self, error: Any) -> int:  # noqa: ANN401 - Unicorn has no types
        """Where code continues after a fault."""
        self._raise_pending()
        unicorn, pc = self._unicorn, self.pc
        fetches = {unicorn.UC_ERR_FETCH_UNMAPPED, unicorn.UC_ERR_FETCH_PROT}
        if error.errno in fetches and self._host_start <= pc < self._host_end:
            return self._call_host(pc)
        fault, self._fault = self._fault, None
        if error.errno in fetches:
            what = "execution of memory that is not executable"
            if error.errno == unicorn.UC_ERR_FETCH_UNMAPPED:
                what = "a jump to an address without memory"
            raise Stop(SIGSEGV, f"{what}, {pc:#x}", pc)
        if fault is not None:
            access, address, size = fault
            unmapped = {unicorn.UC_ERR_READ_UNMAPPED, unicorn.UC_ERR_WRITE_UNMAPPED}
            kind = (
                "without memory" if error.errno in unmapped else f"that does not allow a {access}"
            )
            raise Stop(
                SIGSEGV, f"a {access} of {size} bytes at {address:#x}, an address {kind}", address
            )
        if error.errno == unicorn.UC_ERR_INSN_INVALID:
            if self.read(pc, 4).startswith(tuple(self.machine.breakpoints)):
                raise Stop(SIGTRAP, f"a breakpoint instruction at {pc:#x}")
            raise Stop(SIGILL, f"an undefined instruction at {pc:#x}", pc)
        raise Stop(SIGSEGV, f"{error} at {pc:#x}", pc)

    def _after_piece(self, pc: int, steps: int, time_error: Callable[[], BaseException]) -> int:
        """Where code continues after a piece that has ended before the call did."""
        self._raise_pending()
        if self._exception is not None:
            (number, pc), self._exception = self._exception, None
            unknown = SIGILL, f"exception {number} of the processor"
            signal, cause = self.machine.exceptions.get(number, unknown)
            pc -= self.machine.exception_distance
            self.write_register(self.machine.pc, pc)
            raise Stop(signal, f"{cause} at {pc:#x}")
        if self._break is not None:
            place, self._break = self._break, None
            if place in self.breakpoints:
                self.breakpoints[place][0]()
            # Not before: what the function calls may stop there, too, and what it raises ends this.
            self._passed = place if place in self.breakpoints and self.pc == place else None
            return self.pc
        if self.interrupted:
            raise time_error()
        if steps:
            raise StepsExceededError
        return pc

    def _raise_pending(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            self._fault = self._exception = None
            raise pending

    def stop_piece(self) -> None:
        """Stop the piece that runs now, from any thread."""
        self.interrupted = True
        self._uc.emu_stop()

    def close(self) -> None:
        """Release the engine, and with it all memory."""
        with self.lock:
            # The engine's hooks refer to this object: nothing else refers to the engine.
            self._uc = _ClosedEngine()
            self.is_closed = True

    # Debugging

    def add_breakpoint(self, address: int, callback: Callable[[], object]) -> None:
        """Have a function called before the instruction at an address is executed."""

        def stop(uc: Any, place: int, _size: int, _data: object) -> None:  # noqa: ANN401
            if self._passed == place:
                self._passed = None
                return
            self._break = place
            uc.emu_stop()

        self.remove_breakpoint(address)
        with self.lock:
            hook = self._uc.hook_add(self._unicorn.UC_HOOK_CODE, stop, None, address, address)
            self._uc.ctl_flush_tb()
        self.breakpoints[address] = callback, hook

    def remove_breakpoint(self, address: int) -> None:
        """Take back `add_breakpoint`; nothing without one."""
        found = self.breakpoints.pop(address, None)
        if found is not None:
            self.remove_hook(found[1])

    def add_access_hook(
        self, start: int, end: int, callback: Callable[[str, int, int, int], object]
    ) -> int:
        """Have a function called for each read and write in a range; returns a hook.

        It takes ``read`` or ``write``, address, size, and the value that is written.
        """
        unicorn = self._unicorn

        def access(_uc: object, kind: int, address: int, size: int, value: int, _d: object) -> None:
            name = "write" if kind == unicorn.UC_MEM_WRITE else "read"
            self.guard(lambda: _nothing(callback(name, address, size, value & _MASK)))

        kinds = unicorn.UC_HOOK_MEM_READ | unicorn.UC_HOOK_MEM_WRITE
        with self.lock:
            hook: int = self._uc.hook_add(kinds, access, None, start, end - 1)
            self._uc.ctl_flush_tb()
        return hook

    def add_block_hook(self, callback: Callable[[int, int], object]) -> int:
        """Have a function called with address and size of each block of code that is executed."""

        def block(_uc: object, address: int, size: int, _data: object) -> None:
            self.guard(lambda: _nothing(callback(address, size)))

        with self.lock:
            hook: int = self._uc.hook_add(self._unicorn.UC_HOOK_BLOCK, block)
            self._uc.ctl_flush_tb()
        return hook

    def remove_hook(self, hook: int) -> None:
        """Take back what has returned a hook."""
        with self.lock:
            self._uc.hook_del(hook)
            self._uc.ctl_flush_tb()


class _ClosedEngine:
    """Takes the place of an engine that was released."""

    def __getattr__(self, name: str) -> object:
        raise ExecutorError("the emulated machine is closed")


class StepsExceededError(Exception):
    """Code has executed more instructions than it may."""


def _nothing(_result: object) -> None:
    """For functions whose results do not matter."""
