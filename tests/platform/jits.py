"""JITs with a platform, whose linked code notes numbers."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jitlink.executor import ExecutorProcessControl, SelfExecutorProcessControl
from jitlink.lljit import LLJIT
from jitlink.memory.address_space import AddressSpace
from jitlink.memory.in_process import InProcessMemoryManager
from jitlink.orc import JITDylib
from jitlink.platform import ELFPlatform
from tests.toolchain import HOST_TARGET, compile_c

TARGET = HOST_TARGET
"""What `compiled` compiles for; tests that run code elsewhere replace it."""

PROLOGUE = """
typedef unsigned long size_t;
void note(int);
int atexit(void (*)(void));
void *jit_dlopen(const char *, int), *jit_dlsym(void *, const char *);
int jit_dlclose(void *), jit_dlupdate(void *);
char *jit_dlerror(void);
#define BEGIN(name) __attribute__((constructor)) static void name(void)
#define END(name) __attribute__((destructor)) static void name(void)
"""


class NotingJIT(LLJIT):
    """An LLJIT with a platform, and memory of its own.

    Args:
        executor: where its code runs; by default in this process.

    Attributes:
        notes: the numbers that linked code has passed to ``note``.
        space: the address space that its memory is in, if that is this process's.
    """

    def __init__(self, executor: ExecutorProcessControl | None = None) -> None:
        self.space = AddressSpace((64 << 20,), resident_size=0)
        if executor is None:
            executor = SelfExecutorProcessControl(InProcessMemoryManager(self.space))
        super().__init__(executor=executor, platform=True)
        self.notes: list[int] = []
        prototype = ctypes.CFUNCTYPE(None, ctypes.c_int)
        # In the link order of all JITDylibs, and removed after them.
        self.host = self.session.create_jitdylib("<host>")
        self.host.define({"note": (self.notes.append, prototype)})
        self.main.add_to_link_order(self.host)

    def create_jitdylib(
        self,
        name: str,
        *,
        process_symbols: bool = True,
        visible: bool = False,
        address_limit: int | None = None,
    ) -> JITDylib:
        dylib = super().create_jitdylib(
            name, process_symbols=process_symbols, visible=visible, address_limit=address_limit
        )
        if name != "main":
            dylib.add_to_link_order(self.host)
        return dylib

    @property
    def elf_platform(self) -> ELFPlatform:
        """The platform."""
        assert isinstance(self.platform, ELFPlatform)
        return self.platform

    def take(self) -> Sequence[int]:
        """The notes since this was last called."""
        notes = list(self.notes)
        self.notes.clear()
        return notes

    @property
    def used_size(self) -> int:
        """Size of the memory that links hold, in bytes."""
        return sum(each.used_size for each in self.space.reservations)


@contextmanager
def noting_jit() -> Iterator[NotingJIT]:
    """A JIT, and a check that all its memory is deallocated when it is closed."""
    jit = NotingJIT()
    try:
        yield jit
    finally:
        jit.close()
        left = jit.used_size
        jit.space.close()
    assert left == 0


def compiled(source: str, *flags: str, suffix: str = ".c") -> Path:
    """An object of position-independent code that may use what `PROLOGUE` declares."""
    flags = ("-O1", "-fPIC", *flags)
    return compile_c(PROLOGUE + source, "zig", flags, suffix=suffix, target=TARGET)


LIFE = (
    "static void at_exit(void) {{ note({0} + 2); }}"
    "BEGIN(begin) {{ note({0}); atexit(at_exit); }} END(end) {{ note({0} + 3); }}"
    "int f{0}(void) {{ note({0} + 1); return {0}; }}"
)


def life(number: int) -> Path:
    """Notes a number in its initialiser; 1, 2 and 3 more in f, at exit, and in its finaliser."""
    return compiled(LIFE.format(number))
