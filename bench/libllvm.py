"""libLLVM 22's LLJIT with JITLink in this process, through its C API.

A new default LLJIT per link. On x86-64 ELF the default object layer is JITLink's ObjectLinkingLayer
with its frame registration (the header still says RTDyld), materialization runs on the thread of
the lookup, and symbols that the inputs do not define are looked up in the process. Externals of a
phony row are defined as absolute symbols at null, as `llvm-jitlink -phony-externals` does.

LLVM links an object when one of its symbols is first needed, so every row's entry must reach all of
its objects.

Specification: `llvm-c/LLJIT.h`, `llvm-c/Orc.h`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint8, c_uint64, c_void_p

from bench.peers import Linked, Peer, PeerError
from bench.workloads import Workload

_LIBRARY = "libLLVM.so.22.1"
_EXPORTED = 1
_ARCHIVE_SUFFIX = ".a"


class _EvaluatedSymbol(ctypes.Structure):
    _fields_ = (("address", c_uint64), ("generic_flags", c_uint8), ("target_flags", c_uint8))


class _SymbolMapPair(ctypes.Structure):
    _fields_ = (("name", c_void_p), ("symbol", _EvaluatedSymbol))


# An LLVMErrorRef is a pointer; restype c_void_p gives None for success.
_SIGNATURES: dict[str, tuple[object, tuple[object, ...]]] = {
    "LLVMInitializeX86TargetInfo": (None, ()),
    "LLVMInitializeX86Target": (None, ()),
    "LLVMInitializeX86TargetMC": (None, ()),
    "LLVMInitializeX86AsmPrinter": (None, ()),
    "LLVMGetErrorMessage": (c_void_p, (c_void_p,)),
    "LLVMDisposeErrorMessage": (None, (c_void_p,)),
    "LLVMCreateMemoryBufferWithContentsOfFile": (
        c_int,
        (c_char_p, POINTER(c_void_p), POINTER(c_void_p)),
    ),
    "LLVMOrcCreateLLJIT": (c_void_p, (POINTER(c_void_p), c_void_p)),
    "LLVMOrcDisposeLLJIT": (c_void_p, (c_void_p,)),
    "LLVMOrcLLJITGetMainJITDylib": (c_void_p, (c_void_p,)),
    "LLVMOrcLLJITGetObjLinkingLayer": (c_void_p, (c_void_p,)),
    "LLVMOrcLLJITMangleAndIntern": (c_void_p, (c_void_p, c_char_p)),
    "LLVMOrcLLJITAddObjectFile": (c_void_p, (c_void_p, c_void_p, c_void_p)),
    "LLVMOrcLLJITLookup": (c_void_p, (c_void_p, POINTER(c_uint64), c_char_p)),
    "LLVMOrcCreateStaticLibrarySearchGeneratorForPath": (
        c_void_p,
        (POINTER(c_void_p), c_void_p, c_char_p),
    ),
    "LLVMOrcJITDylibAddGenerator": (None, (c_void_p, c_void_p)),
    "LLVMOrcAbsoluteSymbols": (c_void_p, (POINTER(_SymbolMapPair), c_size_t)),
    "LLVMOrcJITDylibDefine": (c_void_p, (c_void_p, c_void_p)),
}


class LibLLVM(Peer):
    """LLJIT as `LLVMOrcCreateLLJIT` creates it without a builder."""

    name = "libllvm"
    title = "libLLVM 22"
    slow = frozenset({"cycle", "1m-symbols", "100k-groups"})

    def __init__(self) -> None:
        self._llvm: ctypes.CDLL | None = None

    def missing(self) -> str | None:
        """See Peer."""
        try:
            self._library()
        except OSError as error:
            return f"{error} (Debian package libllvm22)"
        return None

    def prepare(self, workload: Workload) -> Callable[[], Linked]:
        """See Peer."""
        llvm = self._library()
        objects = [bytes(path) for path in workload.paths if path.suffix != _ARCHIVE_SUFFIX]
        archives = [bytes(path) for path in workload.paths if path.suffix == _ARCHIVE_SUFFIX]
        entry = workload.entry.encode()
        phony = [name.encode() for name in workload.phony_names]

        def link() -> Linked:
            jit = c_void_p()
            _check(llvm, llvm.LLVMOrcCreateLLJIT(byref(jit), None))
            try:
                dylib = llvm.LLVMOrcLLJITGetMainJITDylib(jit)
                _define(llvm, jit, dylib, phony)
                for path in objects:
                    _add_object(llvm, jit, dylib, path)
                for path in archives:
                    _add_archive(llvm, jit, dylib, path)
                address = c_uint64()
                _check(llvm, llvm.LLVMOrcLLJITLookup(jit, byref(address), entry))
            except PeerError:
                _check(llvm, llvm.LLVMOrcDisposeLLJIT(jit))
                raise
            return Linked(address.value, lambda: _check(llvm, llvm.LLVMOrcDisposeLLJIT(jit)))

        return link

    def _library(self) -> ctypes.CDLL:
        if self._llvm is None:
            llvm = ctypes.CDLL(_LIBRARY)
            for name, (result, arguments) in _SIGNATURES.items():
                function = getattr(llvm, name)
                function.restype, function.argtypes = result, arguments
            llvm.LLVMInitializeX86TargetInfo()
            llvm.LLVMInitializeX86Target()
            llvm.LLVMInitializeX86TargetMC()
            llvm.LLVMInitializeX86AsmPrinter()
            self._llvm = llvm
        return self._llvm


def _check(llvm: ctypes.CDLL, error: int | None) -> None:
    if error is None:
        return
    message = llvm.LLVMGetErrorMessage(error)
    text = ctypes.string_at(message).decode(errors="replace")
    llvm.LLVMDisposeErrorMessage(message)
    raise PeerError(text)


def _define(llvm: ctypes.CDLL, jit: c_void_p, dylib: int, names: list[bytes]) -> None:
    if not names:
        return
    intern = llvm.LLVMOrcLLJITMangleAndIntern
    null = _EvaluatedSymbol(0, _EXPORTED, 0)
    pairs = (_SymbolMapPair * len(names))(
        *(_SymbolMapPair(intern(jit, name), null) for name in names)
    )
    symbols = llvm.LLVMOrcAbsoluteSymbols(pairs, len(names))
    _check(llvm, llvm.LLVMOrcJITDylibDefine(dylib, symbols))


def _add_object(llvm: ctypes.CDLL, jit: c_void_p, dylib: int, path: bytes) -> None:
    buffer, message = c_void_p(), c_void_p()
    if llvm.LLVMCreateMemoryBufferWithContentsOfFile(path, byref(buffer), byref(message)):
        raise PeerError(f"cannot read {path.decode()}")
    _check(llvm, llvm.LLVMOrcLLJITAddObjectFile(jit, dylib, buffer))


def _add_archive(llvm: ctypes.CDLL, jit: c_void_p, dylib: int, path: bytes) -> None:
    generator = c_void_p()
    layer = llvm.LLVMOrcLLJITGetObjLinkingLayer(jit)
    create = llvm.LLVMOrcCreateStaticLibrarySearchGeneratorForPath
    _check(llvm, create(byref(generator), layer, path))
    llvm.LLVMOrcJITDylibAddGenerator(dylib, generator)
