"""What a file is that is not an input, and what to do about it, for errors.

Specification: the first bytes as in the magic numbers of each format; PE/COFF specification,
"Machine Types"; `mach-o/loader.h`; LLVM bitcode format, "Magic Numbers".
"""

from __future__ import annotations

from collections.abc import Mapping

ET_EXEC, ET_DYN, ET_CORE = 2, 3, 4

_ARCHIVE = "a static archive, not an object: its members are objects"
_BITCODE = "LLVM bitcode, not machine code: compile it without -flto, or with llc -filetype=obj"
_MACHO = "a Mach-O file, which is not supported: objects must be ELF"
_COFF = "a COFF object, which is not supported: objects must be ELF"
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"!<arch>\n", _ARCHIVE),
    (b"!<thin>\n", _ARCHIVE),
    (b"BC\xc0\xde", _BITCODE),
    (b"\xde\xc0\x17\x0b", _BITCODE),
    (b"\xfe\xed\xfa\xce", _MACHO),
    (b"\xfe\xed\xfa\xcf", _MACHO),
    (b"\xce\xfa\xed\xfe", _MACHO),
    (b"\xcf\xfa\xed\xfe", _MACHO),
    (b"\xca\xfe\xba\xbe", _MACHO),
    (b"\x64\x86", _COFF),
    (b"\x4c\x01", _COFF),
    (b"\x64\xaa", _COFF),
    (b"\xc4\x01", _COFF),
    (b"\0\0\xff\xff", _COFF),
    (b"MZ", "a Windows program or library, not a relocatable object"),
    (b"\0asm", "a WebAssembly module, not a relocatable object for a processor"),
    (b"#!", "a script, not a relocatable object"),
    (b"\x1f\x8b", "compressed with gzip: decompress it first"),
    (b"PK\x03\x04", "a ZIP archive, not a relocatable object or a static archive"),
)
_ELF_TYPES: Mapping[int, str] = {
    ET_EXEC: "an executable, not a relocatable object: link the objects that it was made of",
    ET_DYN: (
        "a shared library or an executable, not a relocatable object: load a library into the "
        "process, with ctypes.CDLL(path, ctypes.RTLD_GLOBAL) for instance, and link against that"
    ),
    ET_CORE: "a core file, not a relocatable object",
}
_SAMPLE = 512


def describe(data: memoryview) -> str:
    """What a file of no supported container format is, as the end of a sentence.

    Args:
        data: the file, or its beginning.
    """
    if len(data) == 0:
        return "an empty file"
    beginning = bytes(data[:_SAMPLE])
    for magic, description in _MAGIC:
        if beginning.startswith(magic):
            return description
    if _is_text(beginning):
        return "a text file, not a relocatable object: source code must be compiled first"
    return "not an object file of a known format"


def describe_elf_type(number: int) -> str:
    """What an ELF file is that is not relocatable, by its type (``e_type``)."""
    return _ELF_TYPES.get(number, f"an ELF file of type {number}, not a relocatable object")


def _is_text(data: bytes) -> bool:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        # The last character of the sample may be cut.
        if len(data) < _SAMPLE or error.start < len(data) - 3:
            return False
        text = data[: error.start].decode()
    return all(character.isprintable() or character in "\t\n\r\f" for character in text)
