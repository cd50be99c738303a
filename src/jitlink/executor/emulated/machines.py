"""The machines that can be emulated: a row each, of Unicorn's names and the C calling convention.

Unicorn is imported when a machine is made, so rows have its constants by name. The registers of
arguments and results are in the order of the machine's `CallingConvention`.

Specification: the psABIs that `jitlink.abi.conventions` names; for control registers the Arm
Architecture Reference Manual (CPACR_EL1) and the RISC-V Privileged Architecture (mstatus.FS).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from jitlink.errors import ExecutorError

SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS = 4, 5, 6, 7, 8, 11, 31
"""Signal numbers of Linux, for what the processor reports; the host may have others or none."""
SYSCALL = -1
"""A number of the table of exceptions: x86's instruction ``syscall`` is none of the processor's."""


class Machine(NamedTuple):
    """A processor that can be emulated.

    Attributes:
        name: its name, the architecture of its triple.
        abis: the ABIs that it has besides its usual one.
        architecture: Unicorn's constant for it, without the prefix ``UC_ARCH_``.
        modes: those of its mode, without ``UC_MODE_``.
        register_names: module and prefix of Unicorn's constants for registers.
        byte_order: byte order of data.
        pointer_size: bytes of a pointer and of an integer register.
        integers: registers of integer arguments, the one for the address of a result included.
        floats: registers of floating-point arguments.
        integer_results: registers of integer results.
        float_results: registers of floating-point results.
        stack: the stack pointer.
        link: the register of the return address; empty if calls push it.
        frame: the frame pointer.
        pc: the program counter.
        thread: the thread pointer.
        registers: those that reports show, besides stack pointer and program counter.
        setup: values of control registers, which enable floating point.
        call_values: values of registers at every call.
        return_code: the bytes of an instruction that returns.
        red_zone: bytes below the stack pointer that code uses.
        exceptions: what exceptions of the processor are by number, and the signals for them.
        exception_distance: how many bytes behind an instruction the program counter is in Unicorn
            when the instruction raises an exception.
        breakpoints: breakpoint instructions that Unicorn takes for undefined ones.
        frame_record: where the caller's frame pointer and the return address are, in words from the
            frame pointer.
        dwarf_registers: the registers by their DWARF number; empty names are not known.
    """

    name: str
    abis: Sequence[str]
    architecture: str
    modes: Sequence[str]
    register_names: tuple[str, str]
    byte_order: Literal["little", "big"]
    pointer_size: int
    integers: Sequence[str]
    floats: Sequence[str]
    integer_results: Sequence[str]
    float_results: Sequence[str]
    stack: str
    link: str
    frame: str
    pc: str
    thread: str
    registers: Sequence[str]
    setup: Mapping[str, int]
    call_values: Mapping[str, int]
    return_code: bytes
    red_zone: int
    exceptions: Mapping[int, tuple[int, str]]
    exception_distance: int
    breakpoints: Sequence[bytes]
    frame_record: tuple[int, int]
    dwarf_registers: Sequence[str]

    def triple(self, abi: str | None) -> str:
        """Its target triple for an ABI, by default the usual one.

        Raises:
            ExecutorError: it has no such ABI.
        """
        if abi is None:
            return f"{self.name}-unknown-none"
        if abi not in self.abis:
            known = ", ".join(self.abis) or "no other than its usual one"
            raise ExecutorError(f"{self.name} has no ABI {abi!r}; it has {known}")
        return f"{self.name}-unknown-none-{abi}"


def _numbered(prefix: str, first: int, count: int) -> tuple[str, ...]:
    return tuple(f"{prefix}{number}" for number in range(first, first + count))


def _aarch64(name: str, byte_order: Literal["little", "big"]) -> Machine:
    return Machine(
        name=name,
        abis=(),
        architecture="ARM64",
        modes=("ARM", "BIG_ENDIAN") if byte_order == "big" else ("ARM",),
        register_names=("arm64_const", "UC_ARM64_REG_"),
        byte_order=byte_order,
        pointer_size=8,
        integers=_numbered("X", 0, 9),
        floats=_numbered("D", 0, 8),
        integer_results=("X0", "X1"),
        float_results=_numbered("D", 0, 4),
        stack="SP",
        link="X30",
        frame="X29",
        pc="PC",
        thread="TPIDR_EL0",
        registers=_numbered("X", 0, 31),
        setup={"CPACR_EL1": 3 << 20},
        call_values={},
        return_code=bytes.fromhex("c0035fd6"),
        red_zone=0,
        exceptions={
            1: (SIGILL, "an undefined instruction"),
            2: (SIGSYS, "a system call (svc)"),
            7: (SIGTRAP, "a breakpoint instruction (brk)"),
            17: (SIGILL, "a hypervisor call (hvc)"),
            18: (SIGILL, "a secure monitor call (smc)"),
        },
        exception_distance=0,
        breakpoints=(),
        frame_record=(0, 1),
        dwarf_registers=(*_numbered("X", 0, 31), "SP"),
    )


def _riscv(name: str, mode: str, pointer_size: int) -> Machine:
    return Machine(
        name=name,
        abis=("ilp32",) if pointer_size == 4 else (),
        architecture="RISCV",
        modes=(mode,),
        register_names=("riscv_const", "UC_RISCV_REG_"),
        byte_order="little",
        pointer_size=pointer_size,
        # a0 .. a7 are x10 .. x17, and fa0 .. fa7 likewise.
        integers=_numbered("X", 10, 8),
        floats=_numbered("F", 10, 8),
        integer_results=("X10", "X11"),
        float_results=("F10", "F11"),
        stack="X2",
        link="X1",
        frame="X8",
        pc="PC",
        thread="X4",
        registers=_numbered("X", 1, 31),
        setup={"MSTATUS": 3 << 13},
        call_values={},
        return_code=bytes.fromhex("67800000"),
        red_zone=0,
        exceptions={
            2: (SIGILL, "an undefined instruction"),
            4: (SIGBUS, "a misaligned read"),
            6: (SIGBUS, "a misaligned write"),
            8: (SIGSYS, "a system call (ecall)"),
            9: (SIGSYS, "a system call (ecall)"),
            11: (SIGSYS, "a system call (ecall)"),
        },
        exception_distance=4,
        # Of two bytes, and of four.
        breakpoints=(bytes.fromhex("0290"), bytes.fromhex("73001000")),
        frame_record=(-2, -1),
        dwarf_registers=("", *_numbered("X", 1, 31)),
    )


_X86_64 = Machine(
    name="x86_64",
    abis=(),
    architecture="X86",
    modes=("64",),
    register_names=("x86_const", "UC_X86_REG_"),
    byte_order="little",
    pointer_size=8,
    integers=("RDI", "RSI", "RDX", "RCX", "R8", "R9"),
    floats=_numbered("XMM", 0, 8),
    integer_results=("RAX", "RDX"),
    float_results=_numbered("XMM", 0, 2),
    stack="RSP",
    link="",
    frame="RBP",
    pc="RIP",
    thread="FS_BASE",
    registers=("RAX", "RBX", "RCX", "RDX", "RSI", "RDI", "RBP", *_numbered("R", 8, 8)),
    setup={},
    # An upper bound of the floating-point registers, for variadic functions.
    call_values={"RAX": 8},
    return_code=b"\xc3",
    red_zone=128,
    exceptions={
        0: (SIGFPE, "a division by zero, or with a result that does not fit"),
        1: (SIGTRAP, "a debug exception"),
        3: (SIGTRAP, "a breakpoint instruction (int3)"),
        6: (SIGILL, "an undefined instruction"),
        13: (SIGSEGV, "a general protection fault"),
        128: (SIGSYS, "a system call (int 0x80)"),
        SYSCALL: (SIGSYS, "a system call (syscall)"),
    },
    exception_distance=0,
    breakpoints=(),
    frame_record=(0, 1),
    dwarf_registers=(
        *("RAX", "RDX", "RCX", "RBX", "RSI", "RDI", "RBP", "RSP"),
        *_numbered("R", 8, 8),
        "RIP",
    ),
)

MACHINES: Mapping[str, Machine] = {
    machine.name: machine
    for machine in (
        _X86_64,
        _aarch64("aarch64", "little"),
        _aarch64("aarch64_be", "big"),
        _riscv("riscv64", "RISCV64", 8),
        _riscv("riscv32", "RISCV32", 4),
    )
}
"""The machines by name."""


def machine_of(name: str) -> Machine:
    """The machine of a name.

    Raises:
        ExecutorError: there is none.
    """
    machine = MACHINES.get(name)
    if machine is None:
        known = ", ".join(sorted(MACHINES))
        raise ExecutorError(f"there is no emulated machine {name!r}; there are {known}")
    return machine
