"""Properties of each architecture for the comparison with ld.lld."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from jitlink.link import PassConfiguration
from tests.oracle import aarch64, references, riscv
from tests.oracle.elf_file import ElfFile, ElfRelocation, ElfSection
from tests.oracle.memory import Memory, Target, follow_x86_64

EM_X86_64, EM_AARCH64, EM_RISCV = 62, 183, 243


class Dynamic(NamedTuple):
    """Numbers of the dynamic relocation types."""

    absolute: int
    glob_dat: int
    jump_slot: int
    relative: int
    irelative: int


class DynamicTLS(NamedTuple):
    """Numbers of the dynamic relocation types of TLS, and what the second subtracts (DTP bias)."""

    dtpmod: int
    dtpoff: int
    tpoff: int
    bias: int


class Architecture(NamedTuple):
    """One architecture.

    Attributes:
        dynamic: dynamic relocation types.
        tls_relocations: names of the TLS relocation types.
        reaches_any_address: whether a relocation of a type is in range of every address.
        touched: offsets in the section of the bytes that a linker may change.
        follow: target of a jump through a stub.
        meaning: target of the field at an address.
        flags: flags that make ld.lld relax no more than jitlink.
        configure: reduces jitlink's passes likewise, or None.
        tls: for architectures whose TLS blocks are behind the thread pointer, and whose TLS is
            compared: the blocks are then at the offsets that they have in a program of ld.lld.
    """

    dynamic: Dynamic
    tls_relocations: Mapping[int, str]
    reaches_any_address: Callable[[int], bool]
    touched: Callable[[ElfRelocation], range]
    follow: Callable[[Memory, int], Target]
    meaning: Callable[[Memory, int, ElfRelocation, ElfFile, ElfSection], object]
    flags: Sequence[str] = ()
    configure: Callable[[PassConfiguration], None] | None = None
    tls: DynamicTLS | None = None


def _meaning_x86_64(
    memory: Memory, place: int, relocation: ElfRelocation, _elf: ElfFile, _section: ElfSection
) -> object:
    return references.meaning(memory, place, relocation)


ARCHITECTURES = {
    EM_X86_64: Architecture(
        Dynamic(1, 6, 7, 8, 37),
        references.TLS_RELOCATIONS,
        references.reaches_any_address,
        references.touched,
        follow_x86_64,
        _meaning_x86_64,
    ),
    EM_AARCH64: Architecture(
        Dynamic(257, 1025, 1026, 1027, 1032),
        aarch64.TLS_RELOCATIONS,
        aarch64.reaches_any_address,
        aarch64.touched,
        aarch64.follow,
        aarch64.meaning,
    ),
    EM_RISCV: Architecture(
        # One type serves both pointers in data and GOT entries.
        Dynamic(2, 2, 5, 3, 58),
        riscv.TLS_RELOCATIONS,
        riscv.reaches_any_address,
        riscv.touched,
        riscv.follow,
        riscv.meaning,
        ("--no-relax",),
        riscv.keep_code,
        DynamicTLS(7, 9, 11, 0x800),
    ),
}
"""By e_machine."""
