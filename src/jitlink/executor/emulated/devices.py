"""Devices of an emulated machine: pages whose accesses Python functions carry out."""

from __future__ import annotations

from collections.abc import Iterable

from jitlink.executor.emulated.machines import SIGSEGV
from jitlink.executor.emulated.memory_map import Device, device_pages
from jitlink.executor.emulated.processor import Processor, Stop


def map_devices(processor: Processor, devices: Iterable[Device]) -> None:
    """Map devices, which do not overlap; several may share pages.

    Raises:
        ExecutorError: something is mapped there already.
    """
    groups: list[tuple[int, int, list[Device]]] = []
    for device in sorted(devices, key=lambda each: each.start):
        start, end = device_pages(device)
        if groups and start < groups[-1][1]:
            first, _, owners = groups[-1]
            groups[-1] = first, end, [*owners, device]
        else:
            groups.append((start, end, [device]))
    for start, end, owners in groups:
        pages = _DevicePages(processor, start, owners)
        processor.map_device(start, end - start, pages.read, pages.write)


class _DevicePages:
    """Adjacent pages of devices, from an address."""

    def __init__(self, processor: Processor, start: int, devices: list[Device]) -> None:
        self._processor, self._start, self._devices = processor, start, devices

    def read(self, _uc: object, offset: int, size: int, _data: object) -> int:
        """Called by Unicorn, whose devices are little-endian."""
        value = self._processor.guard(lambda: self._read(self._start + offset, size))
        return self._converted(value, size)

    def write(self, _uc: object, offset: int, size: int, value: int, _data: object) -> None:
        """Called by Unicorn, likewise."""
        converted = self._converted(value, size)
        self._processor.guard(lambda: self._write(self._start + offset, size, converted))

    def _converted(self, value: int, size: int) -> int:
        order = self._processor.machine.byte_order
        return value if order == "little" else int.from_bytes(value.to_bytes(size, "little"), "big")

    def _read(self, address: int, size: int) -> int:
        device = self._device_at(address, size)
        if device is None or device.read is None:
            raise self._refused(device, "read", address, size)
        value = device.read(address - device.start, size)
        return int(value) & ((1 << 8 * size) - 1)

    def _write(self, address: int, size: int, value: int) -> None:
        device = self._device_at(address, size)
        if device is None or device.write is None:
            raise self._refused(device, "write", address, size)
        device.write(address - device.start, size, value)

    def _device_at(self, address: int, size: int) -> Device | None:
        for device in self._devices:
            if device.start <= address and address + size <= device.end:
                return device
        return None

    @staticmethod
    def _refused(device: Device | None, what: str, address: int, size: int) -> Stop:
        which = "no device" if device is None else f"{device.name}, which does not allow that"
        return Stop(SIGSEGV, f"a {what} of {size} bytes at {address:#x}, of {which}", address)
