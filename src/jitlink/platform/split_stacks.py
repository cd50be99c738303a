"""Split stacks: code that gcc has compiled with ``-fsplit-stack``.

Such a function calls ``__morestack`` where the stack may be too small for its frame, and continues
on a new piece of stack. A compiler driver links that from libgcc.a, and has the linker wrap
``pthread_create``, so that new threads know the size of their stacks. Each JITDylib with such code
gets both, as a program has them.

Quirks: the end of the stack is in a word of the thread control block, which is 0 in threads that no
split code has created. There, as in a native process, code runs on the stack that the thread has.

Specification: ``libgcc/generic-morestack.c`` and ``libgcc/config/i386/morestack.S`` of gcc.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from jitlink.compilers import support_archives
from jitlink.errors import InputError
from jitlink.logs import Log
from jitlink.orc.aliases import ReExports
from jitlink.orc.generators import StaticLibraryGenerator
from jitlink.orc.interface import JITDylibLookupFlags, JITSymbolFlags, LookupKind
from jitlink.platform.base import MORESTACK

if TYPE_CHECKING:
    from jitlink.orc.dylib import JITDylib
    from jitlink.platform.base import Platform

_CREATE, _WRAP, _REAL = "pthread_create", "__wrap_pthread_create", "__real_pthread_create"
_FLAGS = JITSymbolFlags.WEAK | JITSymbolFlags.CALLABLE

log = Log("jitlink.platform")


async def add_split_stacks(
    platform: Platform, dylib: JITDylib, names: Mapping[str, bool], process: JITDylib
) -> None:
    """Give a JITDylib what split stacks need; on the driver thread.

    Args:
        platform: the platform.
        dylib: the JITDylib; nothing happens if no compiler's libgcc.a is installed.
        names: what it looks up and does not define, `MORESTACK` among it.
        process: the JITDylib of the process's symbols.
    """
    archive = _libgcc(platform)
    if archive is None:
        return
    dylib.add_generator(archive)
    exported = JITDylibLookupFlags.MATCH_EXPORTED_ONLY
    for aliases in (
        ReExports({_CREATE: (_WRAP, _FLAGS)}),
        ReExports({_REAL: (_CREATE, _FLAGS)}, process, exported),
    ):
        if dylib.symbols.keys().isdisjoint(aliases.symbols):
            dylib.add_unit(aliases)
    flags = JITDylibLookupFlags.MATCH_ALL_SYMBOLS
    await archive.try_to_generate(LookupKind.STATIC, dylib, flags, names)


def _libgcc(platform: Platform) -> StaticLibraryGenerator | None:
    """The first of the compilers' support libraries that has split stacks."""
    machine = platform.session.executor.triple.partition("-")[0]
    for path in support_archives(machine):
        try:
            archive = StaticLibraryGenerator(platform.layer, path)
            if not archive.undefined_among([MORESTACK]):
                return archive
        except InputError as error:
            log.debug("cannot use %s: %s", path, error)
    return None
