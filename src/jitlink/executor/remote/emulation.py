"""The command that runs jitlink's executor for a target: on other machines, an emulator runs it.

Quirks: qemu-user looks for absolute paths in a root directory first, and for what is not there on
the host. The dynamic linker of a root without a list of its libraries would find the host's list,
and may load libraries from there, so the command tells it where those of the root are.

Specification: QEMU User Documentation, "QEMU User space emulator", options ``-L`` and ``-E``, and
QEMU_LD_PREFIX; ld.so(8).
"""

from __future__ import annotations

import os
import shutil
import sys

from jitlink.errors import ExecutorError
from jitlink.executor.remote.process import default_executor, own_executor
from jitlink.executor.runtime_targets import RUNTIME_TARGETS, RuntimeTarget, runtime_target
from jitlink.host import MACHINE, is_linux

_C_LIBRARY = "libc.so.6"


def executor_command(target: str) -> list[str]:
    """The command that starts an executor for a target: its path, or an emulator with arguments.

    Emulators of this machine run jitlink's executors of other architectures, with the C library in
    the directory that QEMU_LD_PREFIX names, or else in the place of Debian's cross-compilers. What
    is missing is in the error, and the package with it.

    Args:
        target: the target, such as ``riscv64-linux-gnu``; a target triple is one.

    Raises:
        ExecutorError: there is no executor for it, or nothing here that runs it.
    """
    found = runtime_target(target)
    architecture, *rest = target.split("-")
    if found is not None:
        architecture = found.architecture
    # This machine may be one that has no row, but runs an executor of LLVM.
    for_linux = any(part.startswith("linux") for part in rest)
    if for_linux and is_linux() and architecture == MACHINE:
        return [default_executor()]
    if found is None:
        names = ", ".join(each.name for each in RUNTIME_TARGETS.values())
        raise ExecutorError(f"there is no executor for {target}, only for {names}")
    own = own_executor(architecture)
    if own is None:
        raise ExecutorError(f"{sys.platform} runs no executor for {target}: connect to one")
    emulator, root = _find_emulator(found), _find_root(found)
    missing = []
    if emulator is None:
        missing.append(f"{found.emulator} (Debian's package qemu-user)")
    if root is None:
        places = " or ".join(_roots(found))
        missing.append(f"a C library for it in {places} (Debian's package {found.package})")
    if emulator is None or root is None:
        raise ExecutorError(f"no executor for {target} runs here without {' and '.join(missing)}")
    libraries = ":".join(_library_directories(root, found))
    return [emulator, "-E", f"LD_LIBRARY_PATH={libraries}", "-L", root, own]


def _find_emulator(target: RuntimeTarget) -> str | None:
    names = (target.emulator, f"{target.emulator}-static")
    return next(filter(None, map(shutil.which, names)), None)


def _roots(target: RuntimeTarget) -> list[str]:
    """Directories that may be roots, the one to be preferred first."""
    places = (os.environ.get("QEMU_LD_PREFIX"), f"/usr/{target.name}")
    return [place for place in places if place]


def _find_root(target: RuntimeTarget) -> str | None:
    """A directory with the target's dynamic linker and C library.

    QEMU_LD_PREFIX may name that of another architecture.
    """
    for root in _roots(target):
        if _exists(root + target.interpreter) and _library_directories(root, target):
            return root
    return None


def _library_directories(root: str, target: RuntimeTarget) -> list[str]:
    """Where libraries are in a root: of cross-compilers, of Debian, or of other distributions."""
    candidates = ("/lib", f"/lib/{target.name}", f"/usr/lib/{target.name}", "/lib64", "/usr/lib64")
    return [place for place in candidates if _exists(f"{root}{place}/{_C_LIBRARY}")]


def _exists(path: str) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - pathlib is slow to import
