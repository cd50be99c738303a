"""Tests the driver of thermostat.o, firmware for RISC-V, with devices that are Python functions."""

import jitlink
from jitlink.executor import Device, Emulated, EmulatedTimeoutError
from jitlink.memory import MemoryRegion


class ADC:
    """An analog-to-digital converter, which is ready when its status was read three times."""

    def __init__(self) -> None:
        self.value, self.polls, self.is_stuck = 0, 0, False

    def read(self, offset: int, _size: int) -> int:
        """Read the status or the value."""
        if offset == 4:
            self.polls += 1
            return int(self.polls >= 3 and not self.is_stuck)
        return self.value

    def write(self, offset: int, _size: int, _value: int) -> None:
        """Start a conversion."""
        assert offset == 0
        self.polls = 0


adc, heater = ADC(), []
board = Emulated(
    "riscv32",
    memory=[
        MemoryRegion("flash", 0x0800_0000, 0x2_0000, "rx"),
        MemoryRegion("ram", 0x2000_0000, 0x1_0000, "rw"),
    ],
    devices=[
        Device("adc", 0x4000_0000, 12, adc.read, adc.write),
        Device("heater", 0x4000_1000, 4, write=lambda *access: heater.append(access[2])),
    ],
    step_limit=100_000,
)
with board, jitlink.load("thermostat.o", executor=board) as firmware:
    print(f"regulate is at {firmware['regulate']:#x}")
    with board.coverage() as covered:
        for adc.value in (800, 1000):
            firmware.regulate(200)
    print("heater:", heater)
    lines = sorted({place.line for place in board.describe(covered.blocks) if place.line})
    print(f"lines {lines[0]} to {lines[-1]} were executed")
    adc.is_stuck = True
    try:
        firmware.regulate(200)
    except EmulatedTimeoutError as error:
        print("stuck in", error.frames[0].symbol, "at line", error.frames[0].line)
