"""TLS modules as ELF shared objects.

A TLS module is a shared object (`jitlink.formats.elf_shared_object`) with a TLS block, under the
module's name, and with `VALUES_SYMBOL`, its data, where its relocations store their values in their
order. Other symbols are those of other modules that relocations refer to, and exported variables.

Specification: "ELF Handling For Thread-Local Storage", chapter 3.
"""

from __future__ import annotations

from collections.abc import Mapping

from jitlink.formats.elf_layout import (
    DEFINED,
    ELFCLASS32,
    ELFCLASS64,
    STB_GLOBAL,
    STB_WEAK,
    STT_OBJECT,
    STT_TLS,
    Identity,
)
from jitlink.formats.elf_shared_object import (
    Relocation,
    SharedObject,
    Symbol,
    TLSSegment,
    write_shared_object,
)
from jitlink.memory.tls_module import UNDEFINED_SYMBOL, VALUES_SYMBOL, TLSModuleSpec, TLSValue

_EM_X86_64, _EM_AARCH64, _EM_RISCV = 62, 183, 243


class TLSModuleFormat:
    """The format of an architecture's TLS modules.

    Args:
        identity: what the ELF header says.
        page_size: the largest page size that the ABI allows, in bytes.
        relocation_types: type of the relocation that stores each value.

    """

    def __init__(
        self, identity: Identity, page_size: int, relocation_types: Mapping[TLSValue, int]
    ) -> None:
        self.identity, self.page_size = identity, page_size
        self.relocation_types = relocation_types

    def write(self, spec: TLSModuleSpec, flags: int = 0) -> bytes:
        """The bytes of a TLS module, without the zeros after the initialisation image.

        Args:
            spec: its contents.
            flags: e_flags, where they differ between programs of the architecture.
        """
        # Without a TLS block there is no symbol of that name: it must not hide another module's.
        block = TLSSegment(spec.image, spec.size, spec.alignment) if spec.size else None
        symbols = [Symbol(spec.name, STT_TLS, section=DEFINED, size=spec.size)] if block else []
        symbols += [
            Symbol(each.name, STT_TLS, section=DEFINED, value=each.offset, size=each.size)
            for each in spec.symbols
        ]
        word = self.identity.pointer_size
        values = word * sum(each.value.words for each in spec.relocations)
        symbols.append(
            Symbol(VALUES_SYMBOL, STT_OBJECT, section=DEFINED, size=values, is_data=True)
        )
        numbers: dict[str, int] = {}
        for name in dict.fromkeys(each.symbol for each in spec.relocations if each.symbol):
            is_weak = spec.is_weak or name == UNDEFINED_SYMBOL
            numbers[name] = len(symbols)
            symbols.append(Symbol(name, STT_TLS, STB_WEAK if is_weak else STB_GLOBAL))
        relocations, offset = [], 0
        for value, name, addend in spec.relocations:
            kind = self.relocation_types[value]
            relocations.append(Relocation(offset, kind, numbers[name] if name else None, addend))
            offset += word * value.words
        contents = SharedObject(spec.name, spec.needed, symbols, values, relocations, block)
        identity = self.identity._replace(flags=flags)
        return write_shared_object(identity, contents, self.page_size)


X86_64 = TLSModuleFormat(
    Identity(_EM_X86_64, ELFCLASS64, "little"),
    0x1000,
    {
        TLSValue.DTPMOD: 16,  # R_X86_64_DTPMOD64
        TLSValue.DTPOFF: 17,  # R_X86_64_DTPOFF64
        TLSValue.TPOFF: 18,  # R_X86_64_TPOFF64
        TLSValue.TLSDESC: 36,  # R_X86_64_TLSDESC
    },
)
"""TLS modules for x86-64."""
_AARCH64_TYPES = {
    TLSValue.DTPMOD: 1028,  # R_AARCH64_TLS_DTPMOD
    TLSValue.DTPOFF: 1029,  # R_AARCH64_TLS_DTPREL
    TLSValue.TPOFF: 1030,  # R_AARCH64_TLS_TPREL
    TLSValue.TLSDESC: 1031,  # R_AARCH64_TLSDESC
}
AARCH64 = TLSModuleFormat(Identity(_EM_AARCH64, ELFCLASS64, "little"), 0x10000, _AARCH64_TYPES)
AARCH64_BE = TLSModuleFormat(Identity(_EM_AARCH64, ELFCLASS64, "big"), 0x10000, _AARCH64_TYPES)
"""TLS modules for AArch64 of both byte orders."""
# The C library fills no TLS descriptors: those of `riscv_tls` need no dynamic relocation.
RISCV64 = TLSModuleFormat(
    Identity(_EM_RISCV, ELFCLASS64, "little"),
    0x1000,
    {
        TLSValue.DTPMOD: 7,  # R_RISCV_TLS_DTPMOD64
        TLSValue.DTPOFF: 9,  # R_RISCV_TLS_DTPREL64
        TLSValue.TPOFF: 11,  # R_RISCV_TLS_TPREL64
    },
)
RISCV32 = TLSModuleFormat(
    Identity(_EM_RISCV, ELFCLASS32, "little"),
    0x1000,
    {
        TLSValue.DTPMOD: 6,  # R_RISCV_TLS_DTPMOD32
        TLSValue.DTPOFF: 8,  # R_RISCV_TLS_DTPREL32
        TLSValue.TPOFF: 10,  # R_RISCV_TLS_TPREL32
    },
)
"""TLS modules for RISC-V of 64 and 32 bits."""
FORMATS = {each.identity[:3]: each for each in (X86_64, AARCH64, AARCH64_BE, RISCV64, RISCV32)}
"""The formats by machine, class and byte order."""
