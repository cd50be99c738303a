"""Machine code for tests that place bytes of their own, for each architecture that runs tests."""

from collections.abc import Callable

from tests.toolchain import MACHINE


def _x86_64(number: int) -> bytes:
    # mov $number, %eax; ret
    return b"\xb8" + number.to_bytes(4, "little") + b"\xc3"


def _aarch64(number: int) -> bytes:
    # mov w0, #number; ret
    return (0x52800000 | number << 5).to_bytes(4, "little") + bytes.fromhex("c0035fd6")


def _riscv64(number: int) -> bytes:
    # li a0, number; ret
    return (0x513 | number << 20).to_bytes(4, "little") + bytes.fromhex("67800000")


_RETURNING: dict[str, Callable[[int], bytes]] = {
    "x86_64": _x86_64,
    "aarch64": _aarch64,
    "riscv64": _riscv64,
}


def returning(number: int) -> bytes:
    """A function that returns a number below 2048."""
    return _RETURNING[MACHINE](number)
