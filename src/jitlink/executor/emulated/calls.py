"""Calls of emulated code, and of host functions by it.

A call gets the registers and the words of the stack that `jitlink.abi` has placed, and memory for
what arguments point to. One thread calls at a time. Host functions run on the thread whose call has
led to them, and may call emulated code, which continues on the stack of the caller.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from jitlink.abi.buffers import Region as ArgumentRegion
from jitlink.abi.callbacks import HostFunction, PassedWords
from jitlink.abi.conventions import CallingConvention
from jitlink.abi.frames import CallFrame
from jitlink.errors import AllocationError, ExecutorError
from jitlink.executor.emulated.errors import EmulatedCrashError, EmulatedTimeoutError
from jitlink.executor.emulated.machines import SIGABRT, SIGSEGV
from jitlink.executor.emulated.memory import EmulatedMemory, Pages
from jitlink.executor.emulated.processor import Processor, StepsExceededError, Stop
from jitlink.executor.emulated.watchdog import Watchdog
from jitlink.executor.remote.errors import Crash
from jitlink.graph import MemProt

_STACK_ALIGNMENT = 16
_GUARD = 0x1000
_MOST_ON_STACK = 1 << 12
"""Bytes of arguments that are copied to the stack; more have memory of their own."""


class Limits:
    """How long a call may take.

    Attributes:
        seconds: None for any time.
        steps: instructions between two calls of host functions; 0 for any number.

    Raises:
        ValueError: a limit is negative, also when it is set.
    """

    def __init__(self, seconds: float | None, steps: int) -> None:
        self.seconds, self.steps = seconds, steps

    def __setattr__(self, name: str, value: float | None) -> None:
        if value is not None and not value >= 0:
            raise ValueError(f"a limit of {value} {name}")
        super().__setattr__(name, value)


class EmulatedCalls:
    """The calls of one machine.

    Args:
        processor: the processor.
        convention: its calling convention.
        memory: its memory, from which the stack is allocated.
        stack_size: bytes of the stack.
        limits: those of calls that have none of their own.
        describe: what the machine is doing, for errors.

    Attributes:
        processor: the same.
        convention: the same.
        stack: the pages of the stack.
        guard: the page below it, which code cannot access.
        is_closed: whether `close` was called.
        callbacks: for `jitlink.runtime.remote_callbacks`, which makes it.
    """

    def __init__(
        self,
        processor: Processor,
        convention: CallingConvention,
        memory: EmulatedMemory,
        stack_size: int,
        limits: Limits,
        describe: Callable[[int | None], Crash],
    ) -> None:
        self.processor, self.limits = processor, limits
        self.convention, self._memory, self._describe = convention, memory, describe
        self._seconds = 0.0
        self._lock = threading.RLock()
        self._watchdog = Watchdog(processor.stop_piece)
        prot = MemProt.READ | MemProt.WRITE
        pages = memory.allocate(stack_size + _GUARD, prot, at_end=True)
        self._stack_pages = pages
        self.guard = Pages(pages.address, _GUARD)
        self.stack = Pages(pages.address + _GUARD, pages.size - _GUARD)
        memory.protect(self.stack, prot)
        memory.protect(self.guard, MemProt.NONE)
        self._next_stack = self.stack.address + self.stack.size
        # That of the call, and that which the watchdog knows.
        self._deadline: float | None = None
        self._watched: float | None = None
        self._is_at_breakpoint = False
        # How many calls are running, each but the first by a host function of the one before.
        self._depth = 0
        self.is_closed = False
        self.callbacks: Any = None
        self._word = processor.machine.pointer_size
        self._mask = (1 << 8 * self._word) - 1

    # Calls from Python

    def call(
        self,
        address: int,
        frame: CallFrame,
        regions: Sequence[ArgumentRegion] = (),
        results: tuple[int, int] = (1, 0),
        timeout: float | None = None,
    ) -> tuple[list[int], list[int], list[bytes]]:
        """Call a function.

        Args:
            address: the function.
            frame: its arguments.
            regions: what they point to.
            results: how many integer and floating-point registers hold the result.
            timeout: seconds after which the call is stopped; None for those of the machine.

        Returns:
            The integer and the floating-point registers of the result, and the contents of the
            regions that are copied back.

        Raises:
            EmulatedCrashError: the code did what the machine cannot do.
            EmulatedTimeoutError: it has reached a limit.
            ExecutorError: the machine is closed, or a device or a watch makes the call.
            BaseException: raised by a device, a watch or a breakpoint.
        """
        with self._lock:
            if self.is_closed:
                raise ExecutorError("the emulated machine is closed")
            if self.processor.is_in_piece:
                raise ExecutorError("a device or a watch cannot call emulated code")
            outer = self._next_stack, self._deadline, self._seconds
            # Code that waits for a host function has its values in registers, which a call that
            # ends early does not restore; at a breakpoint no register may change at all.
            saved = self.processor.save() if self._depth else None
            was_at_breakpoint, self._is_at_breakpoint = self._is_at_breakpoint, False
            has_returned = False
            self._depth += 1
            extra: list[Pages] = []
            try:
                self._limit(timeout)
                places = self._place_regions(frame, regions, extra)
                self._place_words(frame)
                self._execute(address)
                found = self._results(regions, places, results)
                has_returned = True
                return found
            finally:
                self._depth -= 1
                self._next_stack, self._deadline, self._seconds = outer
                self._is_at_breakpoint = was_at_breakpoint
                if saved is not None and (was_at_breakpoint or not has_returned):
                    self.processor.restore(saved)
                for pages in extra:
                    self._memory.release(pages)

    def call_words(
        self, address: int, words: Sequence[int], *, timeout: float | None = None
    ) -> int:
        """Call a function of integers or pointers, as many as there are registers; its result."""
        frame = CallFrame(self.convention)
        frame.integers += words
        integers, _, _ = self.call(address, frame, timeout=timeout)
        return integers[0]

    def _limit(self, timeout: float | None) -> None:
        seconds = self.limits.seconds if timeout is None else timeout
        if seconds is not None:
            deadline = time.monotonic() + seconds
            if self._deadline is None or deadline < self._deadline:
                self._deadline, self._seconds = deadline, seconds

    def _place_regions(
        self, frame: CallFrame, regions: Sequence[ArgumentRegion], extra: list[Pages]
    ) -> list[int]:
        """Copy what arguments point to; returns where it is."""
        places = []
        for region in regions:
            place = self._room(region.size, extra)
            content = region.content()
            self.processor.write(place, content + bytes(region.size - len(content)))
            for slot, offset in region.pointers:
                frame.set_word(slot, place + offset)
            places.append(place)
        return places

    def _room(self, size: int, extra: list[Pages]) -> int:
        """Memory for a call."""
        if size <= _MOST_ON_STACK:
            return self._take_stack(size)
        prot = MemProt.READ | MemProt.WRITE
        pages = self._memory.allocate(size, prot)
        extra.append(pages)
        self._memory.protect(pages, prot)
        return pages.address

    def _take_stack(self, size: int) -> int:
        """The address of so many bytes below what is in use of the stack.

        Raises:
            AllocationError: they are not of the stack.
        """
        address = (self._next_stack - size) // _STACK_ALIGNMENT * _STACK_ALIGNMENT
        # With room for a return address.
        if address < self.stack.address + _STACK_ALIGNMENT:
            raise AllocationError(
                f"the stack of the emulated machine, {self.stack.size:#x} bytes at "
                f"{self.stack.address:#x}, has no room for {size:#x} bytes of a call",
                size=size,
            )
        self._next_stack = address
        return address

    def _place_words(self, frame: CallFrame) -> None:
        """Set the registers and the words of the stack for a call."""
        processor, machine, word = self.processor, self.processor.machine, self._word
        order, mask = machine.byte_order, self._mask
        stack = self._take_stack(len(frame.stack) * word)
        content = b"".join((each & mask).to_bytes(word, order) for each in frame.stack)
        values: list[tuple[str, int]] = []
        if machine.link:
            values.append((machine.link, processor.return_address))
        else:
            stack -= word
            content = processor.return_address.to_bytes(word, order) + content
        processor.write(stack, content)
        values += zip(machine.integers, frame.integers, strict=False)
        values += zip(machine.floats, frame.floats, strict=False)
        values += machine.call_values.items()
        values.append((machine.stack, stack))
        processor.write_registers(values)
        self._next_stack = stack

    def _execute(self, address: int) -> None:
        processor, outer = self.processor, self._watched
        if self._deadline is not None:
            self._watched = self._deadline
            self._watchdog.set_deadline(self._deadline)
        try:
            processor.execute(address, self.limits.steps, self._time_error)
        except Stop as stop:
            cause = stop.cause
            if stop.address is not None and self._is_guard(stop.address):
                cause = f"a stack overflow, {cause}"
            crash = self._describe(stop.address)
            raise EmulatedCrashError(stop.number, cause, crash) from None
        except StepsExceededError:
            steps = self.limits.steps
            raise EmulatedTimeoutError(0, steps, self._describe(None)) from None
        finally:
            if self._watched != outer:
                self._watched = outer
                self._watchdog.set_deadline(outer)

    def _is_guard(self, address: int) -> bool:
        # A large frame may reach beyond the page; what is linked is at the other end.
        return self.guard.address - _GUARD <= address < self.guard.address + _GUARD

    def _time_error(self) -> EmulatedTimeoutError:
        """The error of a call that was stopped at its deadline."""
        return EmulatedTimeoutError(self._seconds, 0, self._describe(None))

    def _results(
        self,
        regions: Sequence[ArgumentRegion],
        places: Sequence[int],
        results: tuple[int, int],
    ) -> tuple[list[int], list[int], list[bytes]]:
        processor, machine = self.processor, self.processor.machine
        integers = [processor.register(name) for name in machine.integer_results[: results[0]]]
        floats = [
            processor.register(name) & _FLOAT_MASK for name in machine.float_results[: results[1]]
        ]
        contents = [
            processor.read(place, region.size)
            for region, place in zip(regions, places, strict=True)
            if region.is_output
        ]
        return integers, floats, contents

    # Calls from emulated code

    def add_host_function(self, function: HostFunction) -> int:
        """Make a function of this process callable; returns its address in the machine."""
        integers, floats, on_stack = function.words
        results = function.results
        count = self.convention.integer_results
        names = self.processor.machine.integers[:integers]
        float_names = self.processor.machine.floats[:floats]

        def entry() -> None:
            processor = self.processor
            machine = processor.machine
            words = PassedWords(
                [processor.register(name) for name in names],
                [processor.register(name) & _FLOAT_MASK for name in float_names],
                self._stack_words(on_stack),
            )
            found = function.call(words)
            kept = found[: results[0]], found[count : count + results[1]]
            processor.write_registers(zip(machine.integer_results, kept[0], strict=False))
            processor.write_registers(zip(machine.float_results, kept[1], strict=False))

        return self.add_entry(entry)

    def add_word_function(self, count: int, function: Callable[..., int | None]) -> int:
        """The same for a function of integers and pointers, which may raise to end the call."""
        machine, mask = self.processor.machine, self._mask
        names = machine.integers[:count]

        def entry() -> None:
            processor = self.processor
            result = function(*[processor.register(name) for name in names])
            if result is not None:
                processor.write_register(machine.integer_results[0], result & mask)

        return self.add_entry(entry)

    def add_entry(self, entry: Callable[[], None]) -> int:
        """Have a function called by code that jumps to an address, which is returned."""

        def enter(_return_address: int) -> None:
            processor = self.processor
            outer = self._next_stack
            self._next_stack = processor.stack - processor.machine.red_zone
            try:
                entry()
            finally:
                self._next_stack = outer

        return self.processor.add_host(enter)

    def _stack_words(self, count: int) -> list[int]:
        if not count:
            return []
        machine, word = self.processor.machine, self._word
        start = self.processor.stack + (0 if machine.link else word)
        data = self.processor.read(start, count * word)
        return [
            int.from_bytes(data[n : n + word], machine.byte_order)
            for n in range(0, len(data), word)
        ]

    def string_at(self, address: int, most: int | None = None) -> bytes:
        """The characters of a string that emulated code has passed: `Processor.string_at`.

        Raises:
            Stop: they cannot be read.
        """
        try:
            return self.processor.string_at(address, most)
        except ExecutorError:
            raise self.bad_access(address) from None

    def read(self, address: int, size: int) -> bytes:
        """The bytes at an address that emulated code has passed.

        Raises:
            Stop: they cannot be read.
        """
        try:
            return self.processor.read(address, size)
        except ExecutorError:
            raise self.bad_access(address) from None

    def write(self, address: int, content: bytes) -> None:
        """Write bytes to an address that emulated code has passed.

        Raises:
            Stop: they cannot be written.
        """
        try:
            self.processor.write(address, content)
        except ExecutorError:
            raise self.bad_access(address) from None

    # Breakpoints

    def at_breakpoint(self, callback: Callable[[], object]) -> Callable[[], None]:
        """What is called at a breakpoint for a function, which may call emulated code."""

        def stopped() -> None:
            processor = self.processor
            outer = self._next_stack
            self._next_stack = processor.stack - processor.machine.red_zone
            self._is_at_breakpoint = True
            try:
                callback()
            finally:
                self._is_at_breakpoint = False
                self._next_stack = outer

        return stopped

    def close(self) -> None:
        """Refuse further calls; waits for one of another thread.

        Raises:
            ExecutorError: this thread is in a call.
        """
        with self._lock:
            if self._depth:
                raise ExecutorError("an emulated machine cannot be closed by a call of its own")
            self.is_closed = True
        self._watchdog.close()

    def add_abort(self) -> int:
        """Make what ends a call as ``abort`` does callable; returns its address."""

        def abort() -> None:
            raise self.crash(SIGABRT, "abort")

        return self.add_entry(abort)

    def crash(self, number: int, cause: str) -> EmulatedCrashError:
        """The error of code that has given up, such as by ``abort``."""
        return EmulatedCrashError(number, cause, self._describe(None))

    def bad_access(self, address: int) -> Stop:
        """What ends a call whose host function was given an address without memory."""
        return Stop(SIGSEGV, f"a host function cannot access {address:#x}", address)


_FLOAT_MASK = (1 << 64) - 1
"""The bits of a floating-point register that arguments have; vectors have more."""
