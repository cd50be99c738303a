"""Executable stacks, as the GNU C library provides them.

Loading a shared library with an executable PT_GNU_STACK makes the stacks of all threads executable,
those of later threads too, and they stay so. Since version 2.41, glibc refuses the library unless
the process was started with executable stacks.

Specification: dlopen(3); GNU C Library manual, "Dynamic Linking Tunables" (glibc.rtld.execstack).
"""

from __future__ import annotations

import functools

from jitlink.errors import ExecutorError
from jitlink.executor.images import program_identity
from jitlink.formats.elf_layout import PF_R, PF_W, PF_X
from jitlink.formats.elf_shared_object import SharedObject, write_shared_object
from jitlink.memory.tls_glibc import load_module, unload_module


@functools.cache
def make_stacks_executable() -> None:
    """Make the stacks of all threads of this process executable, now and later.

    Raises:
        ExecutorError: the C library or the system refuses.
    """
    library = SharedObject("jitlink-executable-stack", stack_access=PF_R | PF_W | PF_X)
    try:
        unload_module(load_module(write_shared_object(program_identity(), library)))
    except (ExecutorError, ValueError) as error:
        raise ExecutorError(
            f"stacks cannot be made executable: {error}; glibc 2.41 and later need "
            "GLIBC_TUNABLES=glibc.rtld.execstack=2 in the environment when the process starts"
        ) from error
