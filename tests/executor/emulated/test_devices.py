"""Memory maps, and devices that Python functions implement."""

import ctypes as c
from collections.abc import Callable
from typing import Any

import pytest

import jitlink
from jitlink.errors import AllocationError, ExecutorError
from jitlink.executor import Device, Emulated, EmulatedCrashError
from jitlink.graph import MemProt
from jitlink.memory.regions import MemoryRegion
from tests.executor.emulated.machines import MACHINES, build, loaded

FLASH = MemoryRegion("flash", 0x0800_0000, 0x2_0000, "rx")
RAM = MemoryRegion("ram", 0x2000_0000, 0x2_0000, "rw")
SOURCE = r"""
#include <stdint.h>
#define UART ((volatile uint8_t *)0x40000100)
#define TIMER ((volatile uint32_t *)0x40000200)
static const char greeting[] = "hello";
static int counter = 41;
static int zeros[10];
int send(void) {
  for (const char *p = greeting; *p; ++p) UART[4] = *p;
  return UART[0];
}
uint32_t elapsed(void) { uint32_t start = TIMER[1]; return TIMER[1] - start; }
void start(uint32_t n) { TIMER[0] = n; *(volatile uint16_t *)(TIMER + 2) = 0x1234; }
int count(void) { return ++counter + zeros[3]; }
void beyond(void) { UART[0x20] = 1; }
const void *code(void) { return (const void *)code; }
const void *data(void) { return &counter; }
const void *constants(void) { return greeting; }
const void *stack(void) { volatile int x = 0; return (const void *)(uintptr_t)&x; }
"""


@pytest.mark.parametrize("machine", MACHINES)
def test_devices(machine: str) -> None:
    sent, written, times = bytearray(), [], iter([100, 350])

    def send(offset: int, size: int, value: int) -> None:
        assert (offset, size) == (4, 1)
        sent.append(value)

    devices = [
        Device("uart", 0x4000_0100, 8, read=lambda _offset, _size: 0x1FF, write=send),
        Device(
            "timer",
            0x4000_0200,
            0x10,
            read=lambda offset, size: next(times) if (offset, size) == (4, 4) else 0,
            write=lambda *access: written.append(access),
        ),
    ]
    with loaded(SOURCE, machine, memory=[FLASH, RAM], devices=devices) as (_, lib):
        # What is returned is cut to the size of the access.
        assert lib.send() == 0xFF
        assert sent == b"hello"
        assert lib.elapsed() == 250
        lib.start(7)
        assert written == [(0, 4, 7), (8, 2, 0x1234)]
        assert [lib.count(), lib.count()] == [42, 43]


@pytest.mark.parametrize("machine", MACHINES)
def test_everything_is_where_it_belongs(machine: str) -> None:
    with loaded(SOURCE, machine, memory=[FLASH, RAM]) as (_, lib):
        for name, region in (("code", FLASH), ("constants", FLASH), ("data", RAM), ("stack", RAM)):
            lib.function(name)
            function = lib.function(name)
            function.restype = c.c_void_p
            assert region.start <= function() < region.end, name


def test_accesses_beside_devices() -> None:
    devices = [
        Device("uart", 0x4000_0100, 8, write=lambda *_: None),
        Device("timer", 0x4000_0200, 0x10),
    ]
    with loaded(SOURCE, "riscv32", memory=[FLASH, RAM], devices=devices) as (_, lib):
        with pytest.raises(EmulatedCrashError, match="a read of 1 bytes at 0x40000100, of uart"):
            lib.send()
        with pytest.raises(EmulatedCrashError, match="a write of 4 bytes at 0x40000200, of timer"):
            lib.start(1)
        with pytest.raises(
            EmulatedCrashError, match="1 bytes at 0x40000120, of no device"
        ) as caught:
            lib.beyond()
        assert caught.value.fault_address == 0x4000_0120


@pytest.mark.parametrize("machine", MACHINES)
def test_what_a_device_raises_ends_the_call(machine: str) -> None:
    calls = []

    def fail(offset: int, size: int, value: int) -> None:
        calls.append((offset, size, value))
        raise KeyError("no such register")

    devices = [Device("uart", 0x4000_0100, 8, write=fail)]
    with loaded(SOURCE, machine, memory=[FLASH, RAM], devices=devices) as (_, lib):
        for _ in range(2):
            with pytest.raises(KeyError, match="no such register"):
                lib.send()
        assert len(calls) == 2
        assert lib.count() == 42


def test_a_device_cannot_call_code() -> None:
    functions: dict[str, Callable[[], int]] = {}

    def write(_offset: int, _size: int, _value: int) -> None:
        functions["count"]()

    devices = [Device("uart", 0x4000_0100, 8, write=write)]
    with loaded(SOURCE, "aarch64", memory=[FLASH, RAM], devices=devices) as (_, lib):
        functions["count"] = lib.count
        with pytest.raises(ExecutorError, match="a device or a watch cannot call emulated code"):
            lib.send()


def test_a_device_sees_registers_and_memory() -> None:
    seen: list[int] = []

    def write(_offset: int, _size: int, _value: int) -> None:
        seen.append(machine.registers["sp"])
        seen.append(len(machine.processor.read(RAM.start, 4)))

    devices = [Device("uart", 0x4000_0100, 8, read=lambda *_: 0, write=write)]
    with loaded(SOURCE, "aarch64", memory=[FLASH, RAM], devices=devices) as (machine, lib):
        lib.send()
    assert RAM.start < seen[0] <= RAM.end
    assert len(seen) == 10


@pytest.mark.parametrize(("memory", "devices", "message"), [
    ([MemoryRegion("a", 0x1000, 0x1001)], (), "a at 0x1000, of 0x1001 bytes, is not aligned"),
    ([FLASH, MemoryRegion("b", 0x0801_0000, 0x1000)], (), "flash at .* and b at .* overlap"),
    ([MemoryRegion("a", 0xFFFF_F000, 0x2000)], (), "not in an address space of 0x100000000"),
    ([MemoryRegion("a", 0x1000, 0x1000, load_region="b")], (), "has a load region"),
    ([RAM], [Device("d", 0x2000_0010, 4)], "pages of d at .* are in ram"),
    ([RAM], [Device("d", 0x10, 4), Device("e", 0x12, 4)], "d at .* and e at .* overlap"),
    ([MemoryRegion(f"r{n}", n << 16, 0x1000, sections=(f"s{n}",)) for n in range(8)], (),
     "8 regions name sections; the most is 7"),
    ([RAM], [Device("d", 0x10, 0)], "d at 0x10, of 0x0 bytes, is not in an address space"),
])  # fmt: skip
def test_impossible_maps(memory: list[MemoryRegion], devices: list[Device], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Emulated("riscv32", memory=memory, devices=devices)


@pytest.mark.parametrize(("options", "message"), [
    ({"stack_size": 0}, "a stack of 0 bytes"),
    ({"heap_size": -1}, "a heap of -1 bytes"),
    ({"step_limit": -1}, "a limit of -1 steps"),
    ({"time_limit": float("nan")}, "a limit of nan seconds"),
    ({"host_address": 0xFFFF_0000}, "0x20000 bytes at 0xffff0000 are not beside the memory map"),
])  # fmt: skip
def test_impossible_sizes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Emulated("riscv32", **options)


def test_limits_that_are_set() -> None:
    with Emulated("riscv32") as machine:
        with pytest.raises(ValueError, match="a limit of -1 steps"):
            machine.step_limit = -1
        machine.time_limit, machine.step_limit = None, 5
        assert (machine.time_limit, machine.step_limit) == (None, 5)


def test_a_map_without_room() -> None:
    with pytest.raises(AllocationError, match="no region of the memory map allows"):
        Emulated("riscv32", memory=[FLASH])
    small = MemoryRegion("ram", 0x2000_0000, 0x3000, "rw")
    with pytest.raises(
        AllocationError, match=r"ram .*cannot hold 0x4000 more bytes: ram has 0x3000 left"
    ):
        Emulated("riscv32", memory=[FLASH, small], stack_size=0x3000)
    source = "int large[100000]; int f(void) { return large[5]; }"
    with (
        pytest.raises(AllocationError, match="ram of the memory map cannot hold"),
        loaded(source, "riscv32", memory=[FLASH, RAM]),
    ):
        pass


def test_sections_of_a_region() -> None:
    fast = MemoryRegion("fast", 0x1000_0000, 0x1000, "rwx", sections=(".fast*",))
    source = """
    __attribute__((section(".fast.text"))) int quick(int x) { return x + 1; }
    int slow(int x) { return quick(x) * 2; }
    """
    with loaded(source, "riscv32", memory=[fast, FLASH, RAM]) as (_, lib):
        assert lib["quick"] == fast.start
        assert FLASH.start <= lib["slow"] < FLASH.end
        assert lib.slow(3) == 8
    others = [MemoryRegion(f"r{n}", n << 16, 0x1000, "r") for n in range(1, 9)]
    with loaded(source, "riscv32", memory=[*others, FLASH, RAM, fast]) as (_, lib):
        assert lib["quick"] == fast.start
        assert lib.slow(3) == 8
    constant = MemoryRegion("constant", 0x1000_0000, 0x1000, "r", sections=(".fast*",))
    with (
        pytest.raises(AllocationError, match="region constant of the memory map does not allow"),
        loaded(source, "riscv32", memory=[constant, FLASH, RAM]),
    ):
        pass


def test_memory_that_the_host_does_not_have_is_given_back() -> None:
    large = MemoryRegion("large", 0x1_0000_0000, 1 << 50, "rw")
    with Emulated("riscv64", memory=[large], is_sparse=True) as machine:
        for _ in range(3):
            with pytest.raises(AllocationError, match="cannot map 0x2000000000000 bytes at"):
                machine.memory.allocate(1 << 49, MemProt.READ)


def test_initialisers_take_no_more_memory_each_time() -> None:
    source = """
    static volatile int started; int f(void) { return started; }
    __attribute__((constructor)) static void start(void) { ++started; }
    """
    path = build(source, "riscv32")
    with Emulated("riscv32", memory=[FLASH, RAM]) as machine:
        for _ in range(2 * RAM.size // 0x1000):
            with jitlink.load(path, executor=machine) as lib:
                assert lib.f() == 1


def test_memory_is_given_back() -> None:
    source = "int large[20000] = {1}; int f(void) { return large[0]++; }"
    path = build(source, "riscv32")
    with Emulated("riscv32", memory=[FLASH, RAM], stack_size=0x1000) as machine:
        for _ in range(4):
            with jitlink.load(path, executor=machine) as lib:
                assert lib.f() == 1
                assert lib.f() == 2
