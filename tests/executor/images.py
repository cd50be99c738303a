"""What the dynamic linker of this process says about addresses and images."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

from jitlink.memory.dynamic_linker import DlInfo

_C = ctypes.CDLL(None)
PT_LOAD = 1


class _ProgramHeader(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("offset", ctypes.c_uint64),
        ("vaddr", ctypes.c_uint64),
        ("paddr", ctypes.c_uint64),
        ("filesz", ctypes.c_uint64),
        ("memsz", ctypes.c_uint64),
        ("align", ctypes.c_uint64),
    )


class _DlPhdrInfo(ctypes.Structure):
    _fields_ = (
        ("address", ctypes.c_uint64),
        ("name", ctypes.c_char_p),
        ("headers", ctypes.POINTER(_ProgramHeader)),
        ("count", ctypes.c_uint16),
    )


class _FoundObject(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_ulonglong),
        ("start", ctypes.c_void_p),
        ("end", ctypes.c_void_p),
        ("link_map", ctypes.c_void_p),
        ("eh_frame", ctypes.c_void_p),
        ("reserved", ctypes.c_ulonglong * 7),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(_DlPhdrInfo), ctypes.c_size_t, ctypes.c_void_p
)


class Listed(NamedTuple):
    """A segment that ``dl_iterate_phdr`` lists: name of its image, addresses, flags."""

    name: str
    start: int
    end: int
    flags: int


def listed_segments() -> list[Listed]:
    """All loaded segments of the process."""
    found: list[Listed] = []

    def visit(info: ctypes._Pointer[_DlPhdrInfo], size: int, data: object) -> int:
        del size, data
        image = info.contents
        for header in image.headers[: image.count]:
            if header.type == PT_LOAD:
                start = (image.address + header.vaddr) % (1 << 64)
                name = (image.name or b"").decode()
                found.append(Listed(name, start, start + header.memsz, header.flags))
        return 0

    _C.dl_iterate_phdr(_Callback(visit), None)
    return found


def segments_of(name: str) -> list[Listed]:
    """The segments of images of a name, without those of the ELF header and the tables."""
    ranges: dict[int, list[Listed]] = {}
    for segment in listed_segments():
        if segment.name == name:
            ranges.setdefault(object_at(segment.start) or 0, []).append(segment)
    return [segment for each in ranges.values() for segment in each[1:-1]]


def segment_at(address: int) -> Listed | None:
    """The segment that an address is in; the last one if there are several."""
    found = [each for each in listed_segments() if each.start <= address < each.end]
    return found[-1] if found else None


def symbol_at(address: int) -> tuple[str, str | None, int] | None:
    """What ``dladdr`` says: file, symbol and its address; None if the address is in no image."""
    info = DlInfo()
    if not _C.dladdr(ctypes.c_void_p(address), ctypes.byref(info)):
        return None
    name = None if info.name is None else info.name.decode()
    return (info.file or b"").decode(), name, info.address or 0


def object_at(address: int) -> int | None:
    """The start of what ``_dl_find_object`` finds; None if that is nothing."""
    found = _FoundObject()
    if _C._dl_find_object(ctypes.c_void_p(address), ctypes.byref(found)):
        return None
    assert found.start <= address < found.end
    return int(found.start)


def global_symbol(name: str) -> int | None:
    """What ``dlsym`` finds with RTLD_DEFAULT."""
    _C.dlsym.restype = ctypes.c_void_p
    found: int | None = _C.dlsym(None, name.encode())
    return found
