"""Definition generators: where names come from that nobody has defined."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Self
from weakref import WeakKeyDictionary

from jitlink.inputs import ArchiveInput, Input, InputFile, open_input
from jitlink.orc.materialization import AbsoluteSymbols
from jitlink.orc.objects import ObjectBatch
from jitlink.orc.symbols import (
    ExecutorSymbolDef,
    JITDylibLookupFlags,
    JITSymbolFlags,
    LookupKind,
)

if TYPE_CHECKING:
    from jitlink.orc.dylib import JITDylib
    from jitlink.orc.object_layer import ObjectLinkingLayer
    from jitlink.orc.session import ExecutionSession
    from jitlink.orc.tracker import ResourceTracker

_FOUND = JITSymbolFlags.EXPORTED | JITSymbolFlags.ABSOLUTE

NameFilter = Callable[[str], bool] | re.Pattern[str] | str
"""Which names: those that a function says yes to, that a pattern matches in full, or that begin
with a text."""


def matcher(names: NameFilter | None) -> Callable[[str], bool]:
    """A filter as a function; None lets every name through."""
    if names is None:
        return lambda name: True  # noqa: ARG005 - part of the interface
    if isinstance(names, str):
        return lambda name: name.startswith(names)
    if isinstance(names, re.Pattern):
        return lambda name: names.fullmatch(name) is not None
    return names


class DynamicLibraryGenerator:
    """Names of a library that is loaded in the executor, or of all of them.

    What is found is defined, as absolute symbols, under the JITDylib's default tracker.

    Args:
        handle: handle of the library in the executor, None for the whole process.
        allow: which names may come from it; by default all.
    """

    def __init__(self, handle: int | None = None, allow: NameFilter | None = None) -> None:
        self._handle = handle
        self._allow = None if allow is None else matcher(allow)

    @classmethod
    def for_process(cls, session: ExecutionSession, allow: NameFilter | None = None) -> Self:
        """Names of the executor's whole process: the program and all that it has loaded."""
        del session  # Every executor knows its process without a handle.
        return cls(None, allow)

    @classmethod
    def load(
        cls,
        session: ExecutionSession,
        path: str | os.PathLike[str],
        allow: NameFilter | None = None,
    ) -> Self:
        """Load a shared library into the executor, for its names and those of what it needs.

        Raises:
            ExecutorError: it cannot be loaded.
        """
        return cls(session.wait(session.executor.load_dylib(path)), allow)

    async def try_to_generate(
        self,
        kind: LookupKind,  # noqa: ARG002 - part of the interface
        dylib: JITDylib,
        flags: JITDylibLookupFlags,  # noqa: ARG002
        names: Sequence[str],
    ) -> None:
        """Define the names that the library has."""
        wanted = names if self._allow is None else [name for name in names if self._allow(name)]
        addresses = await dylib.session.executor.lookup_symbols(wanted, self._handle)
        found = {
            name: ExecutorSymbolDef(address, _FOUND)
            for name, address in zip(wanted, addresses, strict=True)
            # Another lookup may have been faster if the executor let us wait.
            if address is not None and name not in dylib.symbols
        }
        if found:
            dylib.add_unit(AbsoluteSymbols(found))


class StaticLibraryGenerator:
    """Members of a static archive, added when something refers to what they define.

    With a member come the members that it needs, as far as nothing that is searched before
    defines those names, so that they are linked together. As for a static linker, only
    references pull members in: a program's ``dlsym`` does not.

    Members are added under the JITDylib's default tracker. When all of a member's definitions
    were removed, it may be added again.

    Args:
        layer: links the members.
        source: path or bytes of the archive; the file must not be changed while this is in use.

    Raises:
        InputError: the archive cannot be read.
    """

    def __init__(self, layer: ObjectLinkingLayer, source: Input) -> None:
        self._layer = layer
        self._archive = ArchiveInput(open_input(source))
        self._added: WeakKeyDictionary[JITDylib, dict[int, list[str]]] = WeakKeyDictionary()
        self._lock = asyncio.Lock()

    def force_load(self, dylib: JITDylib, tracker: ResourceTracker | None = None) -> None:
        """Add all members, needed or not; each is linked when a name of it is looked up.

        Raises:
            InputError: a member cannot be read.
            DuplicateDefinitionError: a strong definition exists already; none has been added.
            ResourceTrackerDefunctError: the tracker, or the JITDylib, was removed.
        """
        dylib.session.run(lambda: self._force_load(dylib, tracker))

    def _force_load(self, dylib: JITDylib, tracker: ResourceTracker | None) -> None:
        pulled = _Members(self._archive)
        pulled.read(self._absent(dylib, self._archive.member_offsets()))
        self._define(dylib, pulled, tracker)

    async def try_to_generate(
        self,
        kind: LookupKind,
        dylib: JITDylib,
        flags: JITDylibLookupFlags,
        names: Sequence[str],
    ) -> None:
        """Add the members that define names, and those that these need."""
        if kind is LookupKind.DLSYM:
            return
        # Two lookups must not add one member while one of them waits for other generators.
        async with self._lock:
            pulled = _Members(self._archive)
            wanted = [name for name in names if name not in dylib.symbols]
            while pulled.read(self._absent(dylib, self._archive.find(wanted))):
                wanted = await self._needed(dylib, flags, pulled.batch)
            self._define(dylib, pulled, None)

    async def _needed(
        self, dylib: JITDylib, flags: JITDylibLookupFlags, batch: ObjectBatch | None
    ) -> list[str]:
        """Names that members refer to and that nothing defines which is searched before."""
        order = dylib.link_order
        if batch is None or not order or order[0][0] is not dylib:
            return []
        wanted = [name for name in batch.wanted if name not in dylib.symbols]
        for generator in list(dylib.generators):
            if generator is self or not wanted:
                break
            await generator.try_to_generate(LookupKind.STATIC, dylib, flags, wanted)
            wanted = [name for name in wanted if name not in dylib.symbols]
        return wanted

    def _absent(self, dylib: JITDylib, offsets: Iterable[int]) -> list[int]:
        """Those of the members of which nothing is defined."""
        added, defined = self._added.get(dylib, {}), dylib.symbols.keys()

        def is_gone(offset: int) -> bool:
            names = added[offset]
            return bool(names) and defined.isdisjoint(names)

        return sorted(each for each in offsets if each not in added or is_gone(each))

    def _define(self, dylib: JITDylib, members: _Members, tracker: ResourceTracker | None) -> None:
        if members.batch is not None:
            self._layer.define_objects(dylib, members.batch, tracker)
        added = self._added.setdefault(dylib, {})
        added |= members.defined_names()


class _Members:
    """Members of an archive that are about to be added together.

    Attributes:
        batch: their contents; None while there are none.
    """

    def __init__(self, archive: ArchiveInput) -> None:
        self.batch: ObjectBatch | None = None
        self._archive = archive
        self._numbers: dict[int, int | None] = {}

    def read(self, offsets: Iterable[int]) -> bool:
        """Read the members at these offsets that were not read; returns whether there were any."""
        files: list[InputFile] = []
        for offset in offsets:
            if offset not in self._numbers:
                opened = self._archive.open([offset])
                count = len(files) + (len(self.batch.files) if self.batch else 0)
                self._numbers[offset] = count if opened else None
                files += opened
        if files and self.batch is None:
            self.batch = ObjectBatch(files)
        elif files and self.batch is not None:
            self.batch.extend(files)
        return bool(files)

    def defined_names(self) -> dict[int, list[str]]:
        """What each of the members defines, by offset."""
        definitions = self.batch.definitions if self.batch else []
        return {
            offset: [] if number is None else list(definitions[number])
            for offset, number in self._numbers.items()
        }
