"""The executor for this process.

Symbols are looked up with `dlsym` directly: ctypes creates an object for each symbol, and reports
a symbol whose value is null as missing.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import sys
import threading
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Literal

from jitlink import host
from jitlink.errors import ExecutorError
from jitlink.executor import program
from jitlink.executor.control import ExecutorProcessControl, LibrarySymbol, PlacedArguments
from jitlink.memory import InProcessMemoryManager, JITLinkMemoryManager
from jitlink.memory.actions import call_wrapper
from jitlink.memory.dynamic_linker import dlerror, dlopen, dlsym, dlvsym, object_at
from jitlink.memory.images import EXPORTING, Images
from jitlink.memory.mapping import MappedRange, mapped_ranges
from jitlink.sps import WrapperFunctionResult

_C = host.c_library()

_fflush = _C["fflush"]
_fflush.argtypes = (ctypes.c_void_p,)

_Main = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_VoidFunction = ctypes.CFUNCTYPE(ctypes.c_int)
_IntFunction = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)


class SelfExecutorProcessControl(ExecutorProcessControl):
    """The process that jitlink runs in, as an executor. Its coroutines never suspend.

    Code runs on the calling thread. If it calls ``exit``, this process ends.

    Args:
        memory_manager: by default an `InProcessMemoryManager`.

    Raises:
        UnsupportedHostError: linked code cannot run in this process.
    """

    is_this_process = True

    def __init__(self, memory_manager: JITLinkMemoryManager | None = None) -> None:
        host.check()
        self.triple = host.triple()
        self.page_size = mmap.PAGESIZE
        self.memory_manager = memory_manager or InProcessMemoryManager()
        self._process = dlopen(None, os.RTLD_NOW)
        self._name = program.ProgramName()

    @staticmethod
    def shared() -> SelfExecutorProcessControl:
        """The executor that all users in this process share by default."""
        if not _shared:
            with _shared_lock:
                if not _shared:
                    _shared.append(SelfExecutorProcessControl())
        return _shared[0]

    async def load_dylib(self, path: str | os.PathLike[str]) -> int:
        """Load a shared library, whose symbols are then visible to later lookups."""
        name = os.fsencode(path)
        if b"\0" in name or not name:
            raise ExecutorError(f"cannot load {os.fsdecode(name)!r}: not a file name")
        handle = dlopen(name, os.RTLD_NOW | os.RTLD_GLOBAL)
        if not handle:
            reason = (dlerror() or b"unknown reason").decode("utf-8", "replace")
            if "static TLS" in reason and self.memory_manager.tls is not None:
                from jitlink.executor.library_tls import lack_of_static_tls  # noqa: PLC0415

                lack = await lack_of_static_tls(os.fsdecode(name), reason, self.memory_manager.tls)
                if lack is not None:
                    raise lack
            raise ExecutorError(f"cannot load {os.fsdecode(name)}: {reason}")
        return int(handle)

    async def lookup_symbols(
        self, names: Sequence[str], dylib: int | None = None
    ) -> list[int | None]:
        """Addresses of symbols that loaded libraries export."""
        tls = self.memory_manager.tls
        if tls is not None:
            await tls.reserve_static_tls(names)
        handle = self._process if dylib is None else dylib
        encoded = [name.encode("utf-8", "surrogateescape") for name in names]
        found: list[int | None] = list(map(dlsym, repeat(handle), encoded))
        if EXPORTING:
            found = [
                None if address is None or _is_linked(address) else address for address in found
            ]
        if None in found or any(b"\0" in name for name in encoded):
            for index, name in enumerate(encoded):
                if found[index] is None or b"\0" in name:
                    found[index] = _null_or_missing(handle, name)
        if dylib is not None:
            first = [_find(self._process, name) for name in encoded]
            if any(own and used and own != used for own, used in zip(found, first, strict=True)):
                # Imported on use: seldom does a library have what the process has elsewhere.
                from jitlink.executor.program_variables import program_variables  # noqa: PLC0415

                found = program_variables(self._process, found, first)
        return found

    async def symbol_versions(self, name: str) -> list[str]:
        """The versions of a symbol that the library with its default version exports."""
        from jitlink.executor.library_versions import versions_of  # noqa: PLC0415 - for errors

        address = dlsym(self._process, name.encode("utf-8", "surrogateescape"))
        path = library_at(address) if address else None
        return versions_of(path, name) if path else []

    async def describe_addresses(self, addresses: Sequence[int]) -> list[LibrarySymbol | None]:
        """What the libraries of this process, and its other memory, have at addresses."""
        from jitlink.executor.library_symbols import describe  # noqa: PLC0415 - seldom needed

        return describe(addresses)

    async def mappings(self) -> list[MappedRange]:
        """What this process maps."""
        return mapped_ranges()

    async def place_arguments(self, argv: Sequence[str]) -> PlacedArguments:
        """Place arguments, the environment and the auxiliary vector as the system does."""
        return program.place(argv)

    async def begin_program(self, argv: Sequence[str], name: str | None = None) -> PlacedArguments:
        """Place arguments; make the first one the name, and the environment that of the process."""
        arguments = program.place(argv)
        program.set_environment(arguments.envp)
        self._name.enter(arguments, name)
        _flush_python()
        return arguments

    async def call_main(self, address: int, arguments: PlacedArguments) -> int:
        """Call a ``main``; its output and Python's appear in the order of writing."""
        _flush_python()
        environment = program.environment_address()
        return int(_Main(address)(arguments.argc, arguments.argv, environment))

    async def end_program(self) -> None:
        """Flush C's output buffers, and restore the name of the process."""
        _fflush(None)
        self._name.leave()

    async def make_stacks_executable(self) -> None:
        """Make the stacks of all threads executable, now and later."""
        from jitlink.executor.stacks import make_stacks_executable  # noqa: PLC0415 - seldom needed

        make_stacks_executable()

    def create_images(self, name: str, *, exports: bool) -> Images:
        """What makes memory of a JITDylib images of this process."""
        from jitlink.executor.images import ProcessImages  # noqa: PLC0415 - seldom needed

        return ProcessImages(name, exports=exports)

    async def run_as_void_function(self, address: int) -> int:
        """Call ``int f(void)``."""
        return _run(_VoidFunction(address))

    async def run_as_int_function(self, address: int, argument: int) -> int:
        """Call ``int f(int)``."""
        if not -(1 << 31) <= argument < 1 << 31:
            raise ValueError(f"{argument} does not fit a C int")
        return _run(lambda: _IntFunction(address)(argument))

    async def call_wrapper(
        self,
        address: int,
        arguments: bytes,
        generation: int | None = None,  # noqa: ARG002 - part of the interface
        *,
        timeout: float | None = None,  # noqa: ARG002 - nothing can stop the call
    ) -> WrapperFunctionResult:
        """Call a wrapper function with serialized arguments."""
        return call_wrapper(address, arguments)

    async def read_memory(
        self,
        address: int,
        size: int,
        generation: int | None = None,  # noqa: ARG002 - part of the interface
    ) -> bytes:
        """The bytes at an address."""
        try:
            buffer = bytearray(size)
        except (MemoryError, OverflowError) as error:
            raise ExecutorError(f"cannot read {size:#x} bytes at {address:#x}: {error}") from error
        _transfer("read", buffer, address)
        return bytes(buffer)

    async def write_memory(
        self,
        address: int,
        content: bytes | bytearray | memoryview,
        generation: int | None = None,  # noqa: ARG002 - part of the interface
    ) -> None:
        """Write bytes to an address."""
        _transfer("write", bytearray(content), address)

    async def write_words(self, words: Sequence[tuple[int, int]]) -> None:
        """Write words to memory that is writable."""
        for address, word in words:
            # ctypes copies a word of fixed size, which is one store to an aligned address.
            _Word.from_address(address).value = word


_shared: list[SelfExecutorProcessControl] = []
_shared_lock = threading.Lock()

_Word = ctypes.c_uint64 if ctypes.sizeof(ctypes.c_void_p) == 8 else ctypes.c_uint32


def library_at(address: int) -> str | None:
    """The path of the program or shared library of this process that contains an address."""
    found = object_at(address)
    return os.fsdecode(found.file) if found is not None and found.file else None


def _is_linked(address: int) -> bool:
    """Whether an address is in an image, whose code is not kept by what finds it here."""
    return any(address in image for image in list(EXPORTING))


def _find(handle: int, name: bytes) -> int | None:
    """The address of a symbol, of a version of it after an at sign."""
    plain, at, version = name.partition(b"@")
    found: int | None = dlvsym(handle, plain, version) if at and dlvsym else dlsym(handle, name)
    return found


def _null_or_missing(handle: int, name: bytes) -> int | None:
    """0 if there is a symbol whose value is null, None if there is none."""
    if b"\0" in name:
        return None
    # Only a new error message distinguishes the two.
    dlerror()
    address = _find(handle, name)
    if address and _is_linked(address):
        return None
    return None if not address and dlerror() is not None else address or 0


def _run(function: Callable[[], int]) -> int:
    """Call native code between flushes of Python's and C's output."""
    _flush_python()
    try:
        return function()
    finally:
        _fflush(None)


def _flush_python() -> None:
    for stream in (sys.stdout, sys.stderr):
        # The stream may be missing or closed, which must not prevent the call.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()


# What a pipe holds, usually.
_PIPE_SIZE = 64 << 10


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_size_t), ("length", ctypes.c_size_t))


def _transfer(verb: Literal["read", "write"], buffer: bytearray, address: int) -> None:
    """Copy between a buffer and memory through the kernel, which detects unmapped addresses."""
    size = len(buffer)
    where = f"{size:#x} bytes at {address:#x}"
    if not 0 <= address <= (1 << 64) - size:
        raise ExecutorError(f"cannot {verb} {where}: not in the address space")
    local = ctypes.addressof(ctypes.c_char.from_buffer(buffer)) if size else 0
    function = getattr(_C, f"process_vm_{verb}v", None)
    done = 0
    while done < size:
        ranges = [_Iovec(start + done, size - done) for start in (local, address)]
        ctypes.set_errno(errno.ENOSYS)
        count = -1
        if function is not None:
            count = function(os.getpid(), ctypes.byref(ranges[0]), 1, ctypes.byref(ranges[1]), 1, 0)
        if count <= 0:
            number = ctypes.get_errno()
            if number not in {errno.ENOSYS, errno.EPERM}:
                raise ExecutorError(f"cannot {verb} {where}: {os.strerror(number)}")
            break
        done += count
    if done < size:
        source, target = (address, local) if verb == "read" else (local, address)
        try:
            _copy_through_pipe(target + done, source + done, size - done)
        except OSError as error:
            raise ExecutorError(f"cannot {verb} {where}: {error.strerror}") from error


def _copy_through_pipe(target: int, source: int, size: int) -> None:
    """Copy memory where the system call is missing, as in emulators, or forbidden.

    Raises:
        OSError: the kernel cannot read or write some of it; what comes before may be copied.
    """
    # A pipe that is empty takes a page at least, or as much as it can without waiting.
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        while size:
            part = min(size, _PIPE_SIZE)
            left = written = os.write(writer, _memory(source, part))
            while left:
                left -= os.readv(reader, [_memory(target + written - left, left)])
            source, target, size = source + written, target + written, size - written
    finally:
        os.close(reader)
        os.close(writer)


def _memory(address: int, size: int) -> ctypes.Array[ctypes.c_char]:
    return (ctypes.c_char * size).from_address(address)
