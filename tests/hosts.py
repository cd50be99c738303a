"""Makes this process look like one of a host that is not supported, before jitlink is imported.

Modules of others are imported first, since they would not work there; then what the host lacks is
removed from them.
"""

import contextlib
import ctypes
import importlib
import mmap
import os
import pkgutil
import select
import signal
import socket
import sys
import types
from collections.abc import Callable
from typing import NoReturn

_OF_UNIX = ("fcntl", "grp", "pwd", "resource", "termios")
_SIGNALS = ("SIGBUS", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGSYS", "SIGTRAP", "SIGXFSZ")


def _import_first() -> None:
    """What jitlink, and the tests that use it, import of others."""
    for name in (
        "concurrent.futures",
        "ctypes.util",
        "difflib",
        "hashlib",
        "json",
        "numpy",
        "shutil",
    ):
        importlib.import_module(name)
    for name in ("ssl", "subprocess", "tempfile", "tomllib", "traceback", "unicorn", "zlib"):
        importlib.import_module(name)


def _remove(module: types.ModuleType, *names: str) -> None:
    for name in names:
        with contextlib.suppress(AttributeError):
            delattr(module, name)


def _refuse(*_arguments: object, **_named: object) -> NoReturn:
    raise TypeError("LoadLibrary() argument 1 must be str, not None")


def windows() -> None:
    """No functions of POSIX, and no library of the whole process."""
    sys.platform = "win32"
    os.environ["PROCESSOR_ARCHITECTURE"] = "AMD64"
    rtld = [name for name in dir(os) if name.startswith("RTLD_")]
    _remove(os, "uname", "confstr", "fork", "register_at_fork", "memfd_create", "pipe2", "readv")
    _remove(os, *rtld, "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "MFD_CLOEXEC", "sysconf", "getuid")
    _remove(mmap, *[name for name in dir(mmap) if name.startswith(("MAP_", "PROT_", "MADV_"))])
    _remove(signal, *_SIGNALS)
    _remove(socket, "AF_UNIX", "socketpair")
    _remove(select, "poll", "epoll")
    for name in _OF_UNIX:
        sys.modules[name] = None  # type: ignore[assignment] # as importlib does it
    ctypes.CDLL = ctypes.PyDLL = _refuse  # type: ignore[assignment,misc]


def darwin() -> None:
    """Functions of POSIX, and not those of Linux."""
    sys.platform = "darwin"
    machine = os.uname_result(("Darwin", "host", "24.0.0", "Darwin Kernel Version 24.0.0", "arm64"))
    os.uname = lambda: machine
    _remove(os, "confstr", "memfd_create", "MFD_CLOEXEC", "pipe2")
    usual = ctypes.CDLL

    class _Library(usual):  # type: ignore[misc,valid-type]
        def __getattr__(self, name: str) -> object:
            if name in {"dlvsym", "dladdr1", "dlinfo", "mremap", "process_vm_readv", "__fbufsize"}:
                raise AttributeError(name)
            return super().__getattr__(name)

    ctypes.CDLL = _Library  # type: ignore[misc]


def musl() -> None:
    """Another C library."""

    def confstr(name: str) -> NoReturn:
        raise ValueError(f"unrecognized configuration name: {name}")

    os.confstr = confstr  # type: ignore[assignment]


def narrow() -> None:
    """A Python of 32 bits, on a system of 64."""
    sys.maxsize = (1 << 31) - 1


def pypy() -> None:
    """Another implementation of Python, without the C API."""
    sys.implementation.name = "pypy"
    _remove(ctypes, "pythonapi")


HOSTS: dict[str, Callable[[], None]] = {
    each.__name__: each for each in (windows, darwin, musl, narrow, pypy)
}


def become(host: str) -> None:
    """Look like a host from now on."""
    _import_first()
    HOSTS[host]()


def import_everything() -> None:
    """Import all modules of jitlink."""
    import jitlink  # noqa: PLC0415 - the host is simulated first

    for module in pkgutil.walk_packages(jitlink.__path__, "jitlink."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
