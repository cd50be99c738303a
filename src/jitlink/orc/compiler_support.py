"""Functions that compilers call without being asked to, from the libraries beside them.

An object that divides 128-bit numbers calls ``__udivti3``, and few processes export that. The
generator here is asked last of all, and only gives what `jitlink.names.providers` knows as
compiler support, so that it cannot hide that something else is missing. Its functions are linked
into a JITDylib of their own, once for all users in a session.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from jitlink.errors import InputError
from jitlink.orc.generators import StaticLibraryGenerator
from jitlink.orc.interface import JITDylibLookupFlags, LookupKind

if TYPE_CHECKING:
    from jitlink.orc.dylib import JITDylib
    from jitlink.orc.object_layer import ObjectLinkingLayer

COMPILER_SUPPORT = "<compiler support>"
"""Name of the JITDylib that the functions are linked into."""

log = logging.getLogger("jitlink.orc")


class CompilerSupportGenerator:
    """Names that compilers' support libraries define, if nothing before this has them.

    The libraries are searched for when such a name is asked for the first time. For all names
    of a session there is one generator, in the JITDylib that is searched last.

    Args:
        layer: links what is needed.
    """

    def __init__(self, layer: ObjectLinkingLayer) -> None:
        self._layer = layer
        self._archives: list[StaticLibraryGenerator] | None = None
        self._source: JITDylib | None = None

    async def try_to_generate(
        self,
        kind: LookupKind,
        dylib: JITDylib,
        flags: JITDylibLookupFlags,  # noqa: ARG002 - part of the interface
        names: Mapping[str, bool],
    ) -> None:
        """Define the names that a support library has, as re-exports of what is linked there."""
        if kind is LookupKind.DLSYM:
            return
        wanted = [name for name, required in names.items() if required]
        if not wanted:
            return
        # Most programs never come here: the process has what they need.
        from jitlink.names.providers import is_compiler_support  # noqa: PLC0415
        from jitlink.orc.aliases import ReExports  # noqa: PLC0415

        wanted = [name for name in wanted if is_compiler_support(name)]
        if not wanted:
            return
        source = self._obtain_source(dylib)
        lacking = wanted
        for archive in self._archives or ():
            lacking = archive.lacking(lacking)
        found = [name for name in wanted if name not in lacking and name not in dylib.symbols]
        if found:
            dylib.add_unit(ReExports({name: name for name in found}, source))

    def _obtain_source(self, dylib: JITDylib) -> JITDylib:
        """The JITDylib of the functions, which may use what the asking one has."""
        source = self._source
        if source is None or not source.is_open:
            source = self._source = dylib.session.create_jitdylib(COMPILER_SUPPORT)
            source.add_to_link_order(dylib)
            for archive in self._open_archives(dylib):
                source.add_generator(archive)
        return source

    def _open_archives(self, dylib: JITDylib) -> list[StaticLibraryGenerator]:
        if self._archives is None:
            from jitlink.compilers import support_archives  # noqa: PLC0415

            self._archives = []
            machine = dylib.session.executor.triple.partition("-")[0]
            for path in support_archives(machine):
                try:
                    archive = StaticLibraryGenerator(self._layer, path)
                    archive.known_names()
                except InputError as error:
                    # Nobody has named it, so nobody is told unless something is missing.
                    log.debug("no use of %s: %s", path, error)
                else:
                    self._archives.append(archive)
        return self._archives
