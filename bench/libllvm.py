"""libLLVM 22's LLJIT with JITLink in this process, through its C API.

A new default LLJIT per link. On x86-64 ELF the default object layer is JITLink's ObjectLinkingLayer
with its frame registration (the header still says RTDyld), materialization runs on the thread of
the lookup, and symbols that the inputs do not define are looked up in the process. Externals of a
phony row are defined as absolute symbols at null, as `llvm-jitlink -phony-externals` does.

LLVM links an object when one of its symbols is first needed, so every row's entry must reach all of
its objects. Those that a session is given are not copied.

Specification: `llvm-c/LLJIT.h`, `llvm-c/Orc.h`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint8, c_uint64, c_void_p
from pathlib import Path

from bench import jit
from bench.peers import Linked, Peer, PeerError
from bench.workloads import Use, Workload

_LIBRARY = "libLLVM.so.22.1"
_EXPORTED = 1
_CALLABLE = 4


class _EvaluatedSymbol(ctypes.Structure):
    _fields_ = (("address", c_uint64), ("generic_flags", c_uint8), ("target_flags", c_uint8))


class _SymbolMapPair(ctypes.Structure):
    _fields_ = (("name", c_void_p), ("symbol", _EvaluatedSymbol))


class _SymbolAliasMapPair(ctypes.Structure):
    _fields_ = (
        ("name", c_void_p),
        ("aliasee", c_void_p),
        ("generic_flags", c_uint8),
        ("target_flags", c_uint8),
    )


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
    "LLVMCreateMemoryBufferWithMemoryRange": (c_void_p, (c_char_p, c_size_t, c_char_p, c_int)),
    "LLVMOrcCreateLLJIT": (c_void_p, (POINTER(c_void_p), c_void_p)),
    "LLVMOrcDisposeLLJIT": (c_void_p, (c_void_p,)),
    "LLVMOrcLLJITGetExecutionSession": (c_void_p, (c_void_p,)),
    "LLVMOrcLLJITGetMainJITDylib": (c_void_p, (c_void_p,)),
    "LLVMOrcLLJITGetTripleString": (c_char_p, (c_void_p,)),
    "LLVMOrcLLJITGetObjLinkingLayer": (c_void_p, (c_void_p,)),
    "LLVMOrcLLJITMangleAndIntern": (c_void_p, (c_void_p, c_char_p)),
    "LLVMOrcLLJITAddObjectFile": (c_void_p, (c_void_p, c_void_p, c_void_p)),
    "LLVMOrcLLJITAddObjectFileWithRT": (c_void_p, (c_void_p, c_void_p, c_void_p)),
    "LLVMOrcLLJITLookup": (c_void_p, (c_void_p, POINTER(c_uint64), c_char_p)),
    "LLVMOrcCreateStaticLibrarySearchGeneratorForPath": (
        c_void_p,
        (POINTER(c_void_p), c_void_p, c_char_p),
    ),
    "LLVMOrcJITDylibAddGenerator": (None, (c_void_p, c_void_p)),
    "LLVMOrcAbsoluteSymbols": (c_void_p, (POINTER(_SymbolMapPair), c_size_t)),
    "LLVMOrcJITDylibDefine": (c_void_p, (c_void_p, c_void_p)),
    "LLVMOrcJITDylibCreateResourceTracker": (c_void_p, (c_void_p,)),
    "LLVMOrcResourceTrackerRemove": (c_void_p, (c_void_p,)),
    "LLVMOrcReleaseResourceTracker": (None, (c_void_p,)),
    "LLVMOrcExecutionSessionCreateBareJITDylib": (c_void_p, (c_void_p, c_char_p)),
    "LLVMOrcCreateLocalIndirectStubsManager": (c_void_p, (c_char_p,)),
    "LLVMOrcDisposeIndirectStubsManager": (None, (c_void_p,)),
    "LLVMOrcCreateLocalLazyCallThroughManager": (
        c_void_p,
        (c_char_p, c_void_p, c_uint64, POINTER(c_void_p)),
    ),
    "LLVMOrcDisposeLazyCallThroughManager": (None, (c_void_p,)),
    "LLVMOrcLazyReexports": (
        c_void_p,
        (c_void_p, c_void_p, c_void_p, POINTER(_SymbolAliasMapPair), c_size_t),
    ),
}


class LibLLVM(Peer):
    """LLJIT as `LLVMOrcCreateLLJIT` creates it without a builder."""

    name = "libllvm"
    title = "libLLVM 22"
    uses = frozenset({Use.LOAD, *jit.USES})
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
        if workload.use in jit.USES:
            return jit.prepared(lambda: _Session(llvm), workload)
        objects = [bytes(path) for path in workload.paths if path.suffix != jit.ARCHIVE_SUFFIX]
        archives = [bytes(path) for path in workload.paths if path.suffix == jit.ARCHIVE_SUFFIX]
        entry = workload.entry.encode()
        phony = [name.encode() for name in workload.phony_names]

        def link(session: _Session) -> Linked:
            session.define(phony)
            for path in objects:
                session.add_file(path)
            for path in archives:
                session.add_archive(path)
            return Linked(session.lookup(entry))

        return lambda: jit.in_new_session(lambda: _Session(llvm), link)

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


class _Session(jit.Session):
    """An LLJIT, with a manager of lazy functions if there are any."""

    def __init__(self, llvm: ctypes.CDLL) -> None:
        self._llvm = llvm
        self._lljit = c_void_p()
        self._managers: list[tuple[Callable[[c_void_p | int], None], c_void_p | int]] = []
        _check(llvm, llvm.LLVMOrcCreateLLJIT(byref(self._lljit), None))
        self._dylib: int = llvm.LLVMOrcLLJITGetMainJITDylib(self._lljit)

    def define(self, names: list[bytes]) -> None:
        """Define symbols at null."""
        if not names:
            return
        llvm, lljit = self._llvm, self._lljit
        intern = llvm.LLVMOrcLLJITMangleAndIntern
        null = _EvaluatedSymbol(0, _EXPORTED, 0)
        pairs = (_SymbolMapPair * len(names))(
            *(_SymbolMapPair(intern(lljit, name), null) for name in names)
        )
        symbols = llvm.LLVMOrcAbsoluteSymbols(pairs, len(names))
        _check(llvm, llvm.LLVMOrcJITDylibDefine(self._dylib, symbols))

    def add_file(self, path: bytes) -> None:
        """Add an object."""
        llvm = self._llvm
        buffer, message = c_void_p(), c_void_p()
        if llvm.LLVMCreateMemoryBufferWithContentsOfFile(path, byref(buffer), byref(message)):
            raise PeerError(f"cannot read {path.decode()}")
        _check(llvm, llvm.LLVMOrcLLJITAddObjectFile(self._lljit, self._dylib, buffer))

    def add_archive(self, path: bytes) -> None:
        """Add an archive that is searched."""
        llvm = self._llvm
        generator = c_void_p()
        layer = llvm.LLVMOrcLLJITGetObjLinkingLayer(self._lljit)
        create = llvm.LLVMOrcCreateStaticLibrarySearchGeneratorForPath
        _check(llvm, create(byref(generator), layer, path))
        llvm.LLVMOrcJITDylibAddGenerator(self._dylib, generator)

    def lookup(self, name: bytes) -> int:
        """Address of a symbol."""
        llvm, address = self._llvm, c_uint64()
        _check(llvm, llvm.LLVMOrcLLJITLookup(self._lljit, byref(address), name))
        return address.value

    def link(self, objects: Sequence[bytes], archives: Sequence[Path], entry: str) -> Linked:
        """See Session."""
        llvm, lljit = self._llvm, self._lljit
        tracker = llvm.LLVMOrcJITDylibCreateResourceTracker(self._dylib)
        for data in objects:
            _check(llvm, llvm.LLVMOrcLLJITAddObjectFileWithRT(lljit, tracker, self._buffer(data)))
        for path in archives:
            self.add_archive(bytes(path))

        def release() -> None:
            _check(llvm, llvm.LLVMOrcResourceTrackerRemove(tracker))
            llvm.LLVMOrcReleaseResourceTracker(tracker)

        return Linked(self.lookup(entry.encode()), release)

    def _buffer(self, data: bytes) -> int:
        buffer: int = self._llvm.LLVMCreateMemoryBufferWithMemoryRange(data, len(data), b"", 0)
        return buffer

    def link_lazily(self, bodies: Mapping[str, bytes], root: bytes, entry: str) -> Linked:
        """See Session."""
        llvm, lljit = self._llvm, self._lljit
        session = llvm.LLVMOrcLLJITGetExecutionSession(lljit)
        hidden = llvm.LLVMOrcExecutionSessionCreateBareJITDylib(session, b"bodies")
        for data in bodies.values():
            _check(llvm, llvm.LLVMOrcLLJITAddObjectFile(lljit, hidden, self._buffer(data)))
        calls, stubs = self._lazy_managers(session)
        intern = llvm.LLVMOrcLLJITMangleAndIntern
        names = [name.encode() for name in bodies]
        pairs = (_SymbolAliasMapPair * len(names))(
            *(
                _SymbolAliasMapPair(intern(lljit, each), intern(lljit, each), _EXPORTED | _CALLABLE)
                for each in names
            )
        )
        unit = llvm.LLVMOrcLazyReexports(calls, stubs, hidden, pairs, len(names))
        _check(llvm, llvm.LLVMOrcJITDylibDefine(self._dylib, unit))
        return self.link([root], (), entry)

    def _lazy_managers(self, session: int) -> tuple[c_void_p, int]:
        """What catches first calls, and what has the stubs."""
        llvm, triple = self._llvm, self._llvm.LLVMOrcLLJITGetTripleString(self._lljit)
        # Called instead of a function that cannot be linked.
        abort = ctypes.cast(ctypes.CDLL(None).abort, c_void_p).value
        calls = c_void_p()
        create = llvm.LLVMOrcCreateLocalLazyCallThroughManager
        _check(llvm, create(triple, session, abort, byref(calls)))
        stubs: int = llvm.LLVMOrcCreateLocalIndirectStubsManager(triple)
        self._managers.append((llvm.LLVMOrcDisposeIndirectStubsManager, stubs))
        self._managers.append((llvm.LLVMOrcDisposeLazyCallThroughManager, calls))
        return calls, stubs

    def close(self) -> None:
        """See Session."""
        # They have names of the session's.
        for dispose, manager in self._managers:
            dispose(manager)
        _check(self._llvm, self._llvm.LLVMOrcDisposeLLJIT(self._lljit))
