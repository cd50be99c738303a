"""ELF file layout: constants, record layouts of both classes and byte orders, identity.

For shared objects that are written also headers and the dynamic section.

Specification: System V gABI (chapters 4 and 5 of the ELF specification), the x86-64 psABI for
SHN_X86_64_LCOMMON, LLVM's extensions page for SHT_CREL and SHT_LLVM_ADDRSIG.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from jitlink.errors import ObjectError

MAGIC = b"\x7fELF"
ELFCLASS32, ELFCLASS64 = 1, 2
ELFDATA2LSB, ELFDATA2MSB = 1, 2
ET_REL, ET_EXEC, ET_DYN = 1, 2, 3
EV_CURRENT = 1

SHT_NULL, SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_RELA = 0, 1, 2, 3, 4
SHT_NOBITS, SHT_REL, SHT_GROUP, SHT_SYMTAB_SHNDX = 8, 9, 17, 18
SHT_CREL = 0x40000014
SHT_LLVM_ADDRSIG = 0x6FFF4C03
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR = 1, 2, 4
SHF_LINK_ORDER = 0x80
SHF_TLS, SHF_COMPRESSED, SHF_GNU_RETAIN, SHF_EXCLUDE = 0x400, 0x800, 0x200000, 0x80000000
GRP_COMDAT = 1

SHN_UNDEF, SHN_LORESERVE = 0, 0xFF00
DEFINED = 1
"""The section index of a defined symbol in a shared object that is written without sections."""
SHN_X86_64_LCOMMON, SHN_ABS, SHN_COMMON, SHN_XINDEX = 0xFF02, 0xFFF1, 0xFFF2, 0xFFFF
STB_LOCAL, STB_GLOBAL, STB_WEAK, STB_GNU_UNIQUE = 0, 1, 2, 10
STT_NOTYPE, STT_OBJECT, STT_FUNC, STT_SECTION, STT_FILE, STT_COMMON, STT_TLS, STT_GNU_IFUNC = (
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    10,
)
STV_DEFAULT, STV_INTERNAL, STV_HIDDEN = 0, 1, 2

PT_NULL, PT_LOAD, PT_DYNAMIC, PT_TLS, PT_GNU_STACK = 0, 1, 2, 7, 0x6474E551
PF_X, PF_W, PF_R = 1, 2, 4
DT_NULL, DT_NEEDED, DT_HASH, DT_STRTAB, DT_SYMTAB, DT_RELA = 0, 1, 4, 5, 6, 7
DT_RELASZ, DT_RELAENT, DT_STRSZ, DT_SYMENT, DT_SONAME = 8, 9, 10, 11, 14
_FIXED_TAGS, _RELOCATION_TAGS = 7, 3


class RecordLayout:
    """Record layouts of one ELF class and byte order.

    Attributes:
        header, program_header, section, symbol, rel, rela, dynamic: dtypes of the records.
        word: dtype of an Elf32_Word.
        symbol_shift: position in bits of the symbol index in r_info.
    """

    def __init__(self, elf_class: int, byte_order: Literal["little", "big"]) -> None:
        e = "<" if byte_order == "little" else ">"
        wide = elf_class == ELFCLASS64
        addr, info = (e + "u8", e + "u8") if wide else (e + "u4", e + "u4")
        half, word = e + "u2", e + "u4"
        self.word = np.dtype(word)
        self.header = np.dtype([
            ("start", "S6"), ("ident", "u1", 10), ("type", half), ("machine", half),
            ("version", word), ("entry", addr), ("phoff", addr), ("shoff", addr), ("flags", word),
            ("ehsize", half), ("phentsize", half), ("phnum", half), ("shentsize", half),
            ("shnum", half), ("shstrndx", half),
        ])  # fmt: skip
        sizes = [("offset", addr), ("vaddr", addr), ("paddr", addr), ("filesz", addr),
                 ("memsz", addr)]  # fmt: skip
        if wide:
            program_header = [("type", word), ("flags", word), *sizes, ("align", addr)]
        else:
            program_header = [("type", word), *sizes, ("flags", word), ("align", addr)]
        self.program_header = np.dtype(program_header)
        self.dynamic = np.dtype([("tag", addr), ("value", addr)])
        self.section = np.dtype([
            ("name", word), ("type", word), ("flags", addr), ("addr", addr), ("offset", addr),
            ("size", addr), ("link", word), ("info", word), ("addralign", addr),
            ("entsize", addr),
        ])  # fmt: skip
        if wide:
            symbol = [("name", word), ("info", "u1"), ("other", "u1"), ("shndx", half),
                      ("value", addr), ("size", addr)]  # fmt: skip
        else:
            symbol = [("name", word), ("value", addr), ("size", addr), ("info", "u1"),
                      ("other", "u1"), ("shndx", half)]  # fmt: skip
        self.symbol = np.dtype(symbol)
        rel = [("offset", addr), ("info", info)]
        self.rel = np.dtype(rel)
        self.rela = np.dtype([*rel, ("addend", e + ("i8" if wide else "i4"))])
        self.symbol_shift = 32 if wide else 8


RECORD_LAYOUTS = {
    (c, d): RecordLayout(c, "little" if d == ELFDATA2LSB else "big")
    for c in (ELFCLASS32, ELFCLASS64)
    for d in (ELFDATA2LSB, ELFDATA2MSB)
}


class Identity(NamedTuple):
    """The fields of an ELF header that tell targets apart.

    Attributes:
        machine: e_machine.
        elf_class: ELFCLASS32 or ELFCLASS64.
        byte_order: ``little`` or ``big``.
        flags: e_flags, which the architecture interprets.
    """

    machine: int
    elf_class: int
    byte_order: Literal["little", "big"]
    flags: int = 0

    @property
    def start(self) -> bytes:
        """The first six bytes of e_ident: magic, class and data encoding."""
        data = ELFDATA2LSB if self.byte_order == "little" else ELFDATA2MSB
        return MAGIC + bytes([self.elf_class, data])

    @property
    def pointer_size(self) -> int:
        """Size of a pointer in bytes."""
        return 8 if self.elf_class == ELFCLASS64 else 4

    @property
    def layout(self) -> RecordLayout:
        """The layout of the records of such a file."""
        return RECORD_LAYOUTS[self.start[4], self.start[5]]


def is_elf(data: memoryview) -> bool:
    """Whether the bytes begin with the magic of ELF."""
    return bytes(data[:4]) == MAGIC


def is_shared_object(data: memoryview) -> bool:
    """Whether the bytes begin with the header of an ELF shared object."""
    byte_order: Literal["little", "big"] = "big" if bytes(data[5:6]) == b"\2" else "little"
    return is_elf(data) and int.from_bytes(data[16:18], byte_order) == ET_DYN


def identify(data: memoryview, file: str) -> Identity:
    """Read class, byte order and machine of one ELF file.

    Raises:
        ObjectError: the header is truncated or inconsistent.
    """
    if len(data) < 52 or not is_elf(data):
        raise ObjectError("not a complete ELF header", file=file, offset=0)
    layout = RECORD_LAYOUTS.get((data[4], data[5]))
    if layout is None:
        raise ObjectError(f"ELF class {data[4]}, data encoding {data[5]}", file=file, offset=4)
    if len(data) < layout.header.itemsize:
        raise ObjectError("ELF header is truncated", file=file, offset=0)
    byte_order: Literal["little", "big"] = "little" if data[5] == ELFDATA2LSB else "big"
    flags = 48 if data[4] == ELFCLASS64 else 36
    return Identity(
        int.from_bytes(data[18:20], byte_order),
        data[4],
        byte_order,
        int.from_bytes(data[flags : flags + 4], byte_order),
    )


class ProgramHeader(NamedTuple):
    """A program header; without a physical address of its own, that is the virtual one."""

    type: int
    flags: int
    offset: int
    vaddr: int
    filesz: int
    memsz: int
    align: int
    paddr: int | None = None


def write_headers(
    identity: Identity,
    program_headers: Sequence[ProgramHeader] = (),
    file_type: int = ET_DYN,
    entry: int = 0,
) -> bytes:
    """The ELF header of a file without sections, and its program headers behind it.

    Args:
        identity: what tells its target apart.
        program_headers: its program headers.
        file_type: e_type, by default that of shared objects.
        entry: e_entry, the address of the entry point.
    """
    layout = identity.layout
    header, rows = np.zeros(1, layout.header), np.zeros(len(program_headers), layout.program_header)
    header["start"], header["ident"][0, 0] = identity.start, EV_CURRENT
    header["type"], header["machine"], header["version"] = file_type, identity.machine, EV_CURRENT
    header["flags"], header["ehsize"] = identity.flags, layout.header.itemsize
    header["entry"] = entry
    if program_headers:
        header["phoff"] = layout.header.itemsize
        header["phentsize"], header["phnum"] = layout.program_header.itemsize, len(rows)
        columns = zip(*[each[:-1] for each in program_headers], strict=True)
        for name, column in zip(ProgramHeader._fields[:-1], columns, strict=True):
            rows[name] = column
        rows["paddr"] = [h.vaddr if h.paddr is None else h.paddr for h in program_headers]
    return header.tobytes() + rows.tobytes()


def check_class(identity: Identity) -> None:
    """Check that shared objects of an identity are written.

    Raises:
        ValueError: it is that of 32-bit ELF.
    """
    if identity.elf_class != ELFCLASS64:
        raise ValueError("what is written for the dynamic linker is 64-bit ELF")


def dynamic_size(identity: Identity, needed: int = 0, *, has_relocations: bool = False) -> int:
    """Size in bytes of a `dynamic_section` with a number of dependencies."""
    count = needed + _FIXED_TAGS + (_RELOCATION_TAGS if has_relocations else 0)
    return int(identity.layout.dynamic.itemsize * count)


def dynamic_section(
    identity: Identity,
    *,
    soname: int,
    hash_table: int,
    strings: tuple[int, int],
    symbols: int,
    needed: Sequence[int] = (),
    relocations: tuple[int, int] | None = None,
) -> bytes:
    """The dynamic section of a shared object.

    Args:
        identity: that of the shared object.
        soname: offset of its name in the strings.
        hash_table: address of DT_HASH.
        strings: address of the strings, and their size in bytes.
        symbols: address of the symbols.
        needed: offsets of the names of its dependencies in the strings.
        relocations: address of the relocations with addends, and their size in bytes.
    """
    layout = identity.layout
    tags = [(DT_NEEDED, each) for each in needed]
    tags += [
        (DT_SONAME, soname),
        (DT_HASH, hash_table),
        (DT_STRTAB, strings[0]),
        (DT_STRSZ, strings[1]),
        (DT_SYMTAB, symbols),
        (DT_SYMENT, layout.symbol.itemsize),
    ]
    if relocations is not None:
        address, size = relocations
        tags += [(DT_RELA, address), (DT_RELASZ, size), (DT_RELAENT, layout.rela.itemsize)]
    return np.array([*tags, (DT_NULL, 0)], layout.dynamic).tobytes()
