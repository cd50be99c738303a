"""Peers that are commands: linkers, whose result is then loaded, and llvm-jitlink.

The linkers produce a shared library, which `dlopen` loads with immediate binding, as ctypes does:
the way to a callable address without a JIT linker. With `-Bsymbolic` and `--whole-archive` they do
the same work as the others: references stay within the library, and all of the archive is in it.
The undefined symbols of a phony row are defined by a stub library of empty functions, built and
loaded beforehand. Starting the process is part of their time.

A program is linked as an executable at a fixed address instead, because archives may not be
position-independent. It is run once and not loaded.

llvm-jitlink times itself, from reading its files to the entry's address, without its start-up,
except in the row that is a command's: that is the whole process, which runs the program.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from itertools import count
from pathlib import Path

from bench.peers import Linked, Peer, PeerError, run
from bench.workloads import CACHE, Use, Workload

_ASSEMBLER = "clang-22"
# Hidden, in every library: a compiler driver's start file defines it.
_HANDLE = ".hidden __dso_handle\n.globl __dso_handle\n.data\n__dso_handle: .quad 0\n"
_MAIN = """.globl main
.text
main: sub $8, %rsp
call bench_entry
cmp $42, %eax
setne %al
movzbl %al, %eax
add $8, %rsp
ret
.section .note.GNU-stack,"",@progbits
"""
_START_FILES, _END_FILES = ("crt1.o", "crti.o", "crtbegin.o"), ("crtend.o", "crtn.o")
_LIBRARIES = ("libc.so.6", "libc_nonshared.a", "libgcc.a", "libgcc_s.so.1", "libm.so.6")
_DYNAMIC_LINKER = "/lib64/ld-linux-x86-64.so.2"
WALL_TIME = re.compile(r"([\d.]+) \(\s*[\d.]+%\)\s+Total$", re.MULTILINE)


HELLO = "hello\n"  # what the program of the row of commands prints


def run_by(command: Sequence[str | Path], output: str) -> Callable[[], Linked]:
    """A function that runs a command, which is run once to see that it prints that.

    Raises PeerError if it fails or prints something else.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or done.stdout != output:
        lines = done.stderr.strip().splitlines() or [f"printed {done.stdout!r}"]
        raise PeerError(f"{command[0]}: {lines[-1]}")

    def link() -> Linked:
        run(command)
        return Linked(None)

    return link


class _Command(Peer):
    """A peer that is an executable on the search path."""

    executable: str
    package: str

    def missing(self) -> str | None:
        """See Peer."""
        if shutil.which(self.executable):
            return None
        return f"{self.executable} is not installed (Debian package {self.package})"


class _Linker(_Command):
    """An ELF linker and `dlopen`."""

    uses = frozenset({Use.LOAD, Use.PROGRAM})
    # The memory of a linker that forks cannot be watched.
    options_to_watch: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._numbers = count()
        self._stubs: dict[Path, ctypes.CDLL] = {}
        self._dlclose = ctypes.CDLL(None).dlclose
        self._dlclose.argtypes = (ctypes.c_void_p,)

    def prepare(self, workload: Workload) -> Callable[[], Linked]:
        """See Peer."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="bench")
        folder, numbers, dlclose = Path(self._folder.name), self._numbers, self._dlclose
        entry, watch = workload.entry, self.watch_memory
        options = ("-shared", "-Bsymbolic", "--eh-frame-hdr")
        watched = self.options_to_watch if watch else ()
        command = (str(shutil.which(self.executable)), *options, *watched)
        if workload.use is Use.PROGRAM:
            return self._program(workload, folder)
        inputs: tuple[str | Path, ...]
        inputs = ("--whole-archive", *workload.paths, *self._stub(workload))

        def link() -> Linked:
            output = folder / f"{next(numbers)}.so"  # dlopen loads a file once
            _, peak = run((*command, "-o", output, *inputs), watch)
            library = ctypes.CDLL(str(output))
            address = ctypes.cast(library[entry], ctypes.c_void_p).value

            def release() -> None:
                dlclose(library._handle)  # noqa: SLF001  # ctypes has no public way to close
                output.unlink()

            return Linked(address, release, peak_bytes=peak)

        return link

    def _program(self, workload: Workload, folder: Path) -> Callable[[], Linked]:
        """Link a program once and run it; the returned function links it again."""
        main = CACHE / "stubs" / "main.o"
        _assembled(main, _MAIN, ("-c",))
        output = folder / workload.name
        watched = self.options_to_watch if self.watch_memory else ()
        command: list[str | Path] = [
            str(shutil.which(self.executable)), *watched, "--eh-frame-hdr", "-no-pie",
            "-dynamic-linker", _DYNAMIC_LINKER, *map(_installed, _START_FILES), main,
            "--start-group", *workload.paths, "--end-group",
            *map(_installed, (*workload.libraries, *_LIBRARIES, *_END_FILES)), _DYNAMIC_LINKER,
            "-o", output,
        ]  # fmt: skip
        run(command)
        run([output])

        def link() -> Linked:
            _, peak = run(command, self.watch_memory)
            return Linked(None, peak_bytes=peak)

        return link

    def _stub(self, workload: Workload) -> tuple[Path, ...]:
        """For a phony row: the stub library, and an object with the start file's symbol."""
        if not workload.phony:
            return ()
        functions = [
            f'.globl "{name}"\n.type "{name}",@function\n"{name}":\n'
            for name in workload.phony_names
        ]
        stub = CACHE / "stubs" / f"{workload.name}.so"
        shared = ("-shared", "-nostdlib", "-fuse-ld=lld", f"-Wl,-soname,{stub}")
        _assembled(stub, "".join([*functions, "ret\n"]), shared)
        handle = CACHE / "stubs" / "handle.o"
        _assembled(handle, _HANDLE, ("-c",))
        if stub not in self._stubs:
            self._stubs[stub] = ctypes.CDLL(str(stub))
        return (handle, stub)


@cache
def _installed(name: str) -> str:
    """Path of a library or start file, which the compiler driver knows."""
    done = subprocess.run(
        ("g++", f"-print-file-name={name}"), capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def _assembled(output: Path, text: str, options: tuple[str, ...]) -> None:
    source = output.with_suffix(".s")
    if output.exists() and source.exists() and source.read_text() == text:
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    source.write_text(text)
    run((_ASSEMBLER, *options, "-o", output, source))


class GNULD(_Linker):
    """GNU ld."""

    name = "ld"
    title = "GNU ld"
    executable = "ld.bfd"
    package = "binutils"


class LLD(_Linker):
    """LLVM's linker."""

    name = "lld"
    title = "ld.lld"
    executable = "ld.lld-22"
    package = "lld-22"


class Mold(_Linker):
    """mold."""

    name = "mold"
    title = "mold"
    executable = "mold"
    package = "mold"
    options_to_watch = ("--no-fork",)


class LLVMJITLink(_Command):
    """llvm-jitlink without running anything; the sum of its own link timers."""

    name = "llvm-jitlink"
    title = "llvm-jitlink"
    executable = "llvm-jitlink-22"
    package = "llvm-22"
    uses = frozenset({Use.LOAD, Use.COMMAND})
    slow = frozenset({"cycle", "1m-symbols", "100k-groups"})

    def prepare(self, workload: Workload) -> Callable[[], Linked]:
        """See Peer."""
        if workload.use is Use.COMMAND:
            return run_by([str(shutil.which(self.executable)), *workload.paths], HELLO)
        command: list[str | Path] = [
            str(shutil.which(self.executable)),
            "-noexec",
            "-show-times",
            f"-entry={workload.entry}",
            *workload.paths,
        ]
        if workload.phony:
            command.append("-phony-externals")

        def link() -> Linked:
            errors, peak = run(command, self.watch_memory)
            times = WALL_TIME.findall(errors)
            if not times:
                raise PeerError("llvm-jitlink printed no times")
            return Linked(None, seconds=float(times[-1]), peak_bytes=peak)

        return link
