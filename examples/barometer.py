"""Tests the driver in barometer.o, compiled with -O0, without its board."""

import ctypes
from collections.abc import MutableSequence
from unittest.mock import Mock

import jitlink

Bytes = ctypes.POINTER(ctypes.c_uint8)
I2C_READ = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint8, ctypes.c_uint8, Bytes, ctypes.c_int)
DELAY = ctypes.CFUNCTYPE(None, ctypes.c_int)

registers = [0x65, 0x5A, 0xC0, 0x00]


def i2c_read(device: int, register: int, data: MutableSequence[int], size: int) -> int:
    """The bus, with one device on it."""
    if (device, register) != (0x76, 0xF7):
        return -1
    for i in range(size):
        data[i] = registers[i]
    return 0


delay = Mock()
mocks = {"i2c_read": (i2c_read, I2C_READ), "delay_ms": (delay, DELAY)}
with jitlink.harness("barometer.o", mocks=mocks) as h:
    h.crc8.restype = ctypes.c_uint8
    registers[3] = h.crc8(bytes(registers[:3]), 3)
    print("checksum, by a static function:", hex(registers[3]))
    print("pressure:", h.barometer_read(), "Pa")
    registers[3] ^= 1
    print("with a wrong checksum:", h.barometer_read(), "after", delay.call_count, "delays")
    print("static variable failures:", h.variable("failures", ctypes.c_int).value)
