"""Functions that compilers call implicitly, from their support libraries.

An object that divides 128-bit numbers calls ``__udivti3``, and few processes export that. The
generator here is called last of all, and defines only names that `jitlink.names.providers` lists as
compiler support, so that it cannot hide that another library is missing.

They are linked into a JITDylib of their own, once for all users in a session, which re-export them;
a JITDylib with an address limit gets its own, because its code refers to data such as
``__cpu_model`` in 32 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from jitlink.errors import InputError
from jitlink.logs import Log
from jitlink.orc.generators import StaticLibraryGenerator, extract
from jitlink.orc.interface import JITDylibLookupFlags, JITSymbolFlags, LookupKind
from jitlink.orc.lookup import REQUESTER

if TYPE_CHECKING:
    from jitlink.orc.dylib import JITDylib
    from jitlink.orc.object_layer import ObjectLinkingLayer

COMPILER_SUPPORT = "<compiler support>"
"""Name of the JITDylib that the functions are linked into."""

log = Log("jitlink.orc")


class CompilerSupportGenerator:
    """Defines functions of compilers' support libraries that are found nowhere else.

    The libraries are searched for when such a name is looked up for the first time. A session has
    one such generator, in the JITDylib that is searched last.

    Args:
        layer: links the functions.
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
        """Define the names that a support library defines, in the JITDylib that needs them."""
        if kind is LookupKind.DLSYM:
            return
        wanted = [name for name, required in names.items() if required]
        if not wanted:
            return
        # Imported on use: most programs find everything in the process.
        from jitlink.names.providers import is_compiler_support  # noqa: PLC0415
        from jitlink.orc.aliases import ReExports  # noqa: PLC0415

        wanted = [name for name in wanted if is_compiler_support(name)]
        if not wanted:
            return
        archives, user = self._open_archives(dylib), _user(dylib)
        undefined = wanted
        for archive in archives:
            undefined = archive.undefined_among(undefined)
        found = [name for name in wanted if name not in undefined and name not in user.symbols]
        if not found:
            return
        source = self._obtain_source(dylib)
        limit = dylib.session.executor.address_limit
        if user is source or user.address_limit < limit:
            extract(user, archives, found)
        else:
            given = JITSymbolFlags.EXPORTED if user is dylib else JITSymbolFlags.NONE
            user.add_unit(ReExports({name: (name, given) for name in found}, source))

    def _obtain_source(self, dylib: JITDylib) -> JITDylib:
        """The JITDylib of the functions, linked against the one that uses them."""
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
            executor = dylib.session.executor
            machine = executor.triple.partition("-")[0]
            for path in (*executor.support_libraries, *support_archives(machine)):
                try:
                    archive = StaticLibraryGenerator(self._layer, path)
                    archive.known_names()
                except InputError as error:
                    # The user has not named it, so this is no error unless a symbol is missing.
                    log.debug("cannot use %s: %s", path, error)
                else:
                    self._archives.append(archive)
        return self._archives


def _user(searched: JITDylib) -> JITDylib:
    """The JITDylib of the link that searches for names; the searched one if there is none."""
    requester = REQUESTER.get()
    user: JITDylib | None = getattr(requester, "dylib", None)
    return user if user is not None and user.is_linked_against(user) else searched
