"""Where an emulated machine is: its registers, and what code it is in.

Callers are found by unwind information where there is some (`unwinding`), elsewhere by frame
pointers, which end where code keeps none.
"""

from __future__ import annotations

from jitlink.errors import ExecutorError
from jitlink.executor.code_map import CodeMap, describe_code
from jitlink.executor.emulated.processor import Processor
from jitlink.executor.emulated.unwinding import Unwinder
from jitlink.executor.remote.errors import Crash

_MOST_FRAMES = 128


class Backtraces:
    """Finds the callers of what a machine executes.

    Args:
        processor: the processor.
        code: what has been linked into the machine.
        unwinder: knows the unwind information of that.
    """

    def __init__(self, processor: Processor, code: CodeMap, unwinder: Unwinder) -> None:
        self._processor, self._code, self._unwinder = processor, code, unwinder

    def describe(self, fault_address: int | None) -> Crash:
        """What the machine is doing.

        Args:
            fault_address: an address that could not be accessed.
        """
        counters = self._counters()
        # A return address may be that of the next function.
        places = [counters[0], *(max(each - 1, 0) for each in counters[1:])]
        found = describe_code(places, self._code, ())
        frames = tuple(
            each._replace(address=counter, offset=each.offset + counter - each.address)
            for each, counter in zip(found, counters, strict=True)
        )
        return Crash(fault_address, self._processor.all_registers(), frames)

    def _counters(self) -> list[int]:
        """The program counter and the return addresses, the innermost first."""
        processor = self._processor
        machine = processor.machine
        registers = {name: processor.register(name) for name in machine.dwarf_registers if name} | {
            machine.pc: processor.pc
        }
        counters = [registers[machine.pc]]
        is_innermost = True
        while len(counters) < _MOST_FRAMES:
            try:
                caller = self._unwinder.caller(registers, is_innermost=is_innermost)
                if caller is None:
                    caller = self._by_convention(registers, is_innermost=is_innermost)
            except ExecutorError:
                break
            is_innermost = False
            if caller is None or not caller[machine.pc]:
                break
            if caller[machine.pc] == processor.return_address:
                break
            if caller[machine.stack] < registers[machine.stack]:
                break
            registers = caller
            counters.append(registers[machine.pc])
        return counters

    def _by_convention(
        self, registers: dict[str, int], *, is_innermost: bool
    ) -> dict[str, int] | None:
        """The caller's registers by the link register or the frame pointer; None without any."""
        machine = self._processor.machine
        found = dict(registers)
        if is_innermost and not self._processor.is_executable(registers[machine.pc]):
            # A jump to nowhere, by a call: nothing has changed but the program counter.
            if machine.link:
                found[machine.pc] = registers[machine.link]
            else:
                found[machine.pc] = self._word(registers[machine.stack])
                found[machine.stack] += machine.pointer_size
            return found
        frame = registers.get(machine.frame, 0)
        if not frame:
            return None
        size = machine.pointer_size
        caller, return_address = machine.frame_record
        found[machine.frame] = self._word(frame + caller * size)
        found[machine.pc] = self._word(frame + return_address * size)
        found[machine.stack] = frame + (max(machine.frame_record) + 1) * size
        return found

    def _word(self, address: int) -> int:
        machine = self._processor.machine
        return int.from_bytes(
            self._processor.read(address, machine.pointer_size), machine.byte_order
        )
