"""Definition generators: where names come from that nobody has defined."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol, Self
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
        names: Mapping[str, bool],
    ) -> None:
        """Define the names that the library has."""
        wanted = [name for name in names if self._allow is None or self._allow(name)]
        addresses = await dylib.session.executor.lookup_symbols(wanted, self._handle)
        found = {
            name: ExecutorSymbolDef(address, _FOUND)
            for name, address in zip(wanted, addresses, strict=True)
            # Another lookup may have been faster if the executor let us wait.
            if address is not None and name not in dylib.symbols
        }
        if found:
            dylib.add_unit(AbsoluteSymbols(found))


class ObjectLayer(Protocol):
    """What adds objects to JITDylibs."""

    def define_objects(
        self, dylib: JITDylib, batch: ObjectBatch, tracker: ResourceTracker | None = None
    ) -> None:
        """Add objects; called on the session's thread."""


class StaticLibraryGenerator:
    """Members of a static archive, added when something refers to what they define.

    With a member come the members that it needs, so that they are linked together, as far as
    what they need is searched for in archives first: in this one, and in the others that stand
    with it at the head of the JITDylib's generators. As for a static linker, only references
    that must be resolved pull members in: weak ones do not, nor does a program's ``dlsym``.

    Members are added under the JITDylib's default tracker. When all of a member's definitions
    were removed, it may be added again.

    Args:
        layer: links the members.
        source: path, bytes or opened file of the archive, which must not be changed while this is
            in use.

    Attributes:
        layer: links the members.

    Raises:
        InputError: the archive cannot be read.
    """

    def __init__(self, layer: ObjectLayer, source: Input | InputFile) -> None:
        self.layer = layer
        file = source if isinstance(source, InputFile) else open_input(source)
        self._archive = ArchiveInput(file)
        self._added: WeakKeyDictionary[JITDylib, dict[int, list[str]]] = WeakKeyDictionary()

    def force_load(self, dylib: JITDylib, tracker: ResourceTracker | None = None) -> None:
        """Add all members, needed or not; each is linked when a name of it is looked up.

        Raises:
            InputError: a member cannot be read.
            DuplicateDefinitionError: a strong definition exists already; none has been added.
            ResourceTrackerDefunctError: the tracker, or the JITDylib, was removed.
        """
        dylib.session.run(lambda: self._force_load(dylib, tracker))

    def _force_load(self, dylib: JITDylib, tracker: ResourceTracker | None) -> None:
        members = _Members(dylib)
        members.read(self, self._archive.member_offsets())
        members.define(self.layer, tracker)

    async def try_to_generate(
        self,
        kind: LookupKind,
        dylib: JITDylib,
        flags: JITDylibLookupFlags,  # noqa: ARG002 - part of the interface
        names: Mapping[str, bool],
    ) -> None:
        """Add the members that define names, and those that these need."""
        if kind is LookupKind.DLSYM:
            return
        # Nothing is waited for from here on, so that no other search can add the same members.
        members = _Members(dylib)
        has_more = members.read(self, self.find(n for n, required in names.items() if required))
        while has_more:
            has_more = members.read_needed(self._searched_together(dylib))
        members.define(self.layer)

    def _searched_together(self, dylib: JITDylib) -> list[StaticLibraryGenerator]:
        """The archives in which references are searched for before anywhere else."""
        order, archives = dylib.link_order, []
        for generator in dylib.generators:
            if not isinstance(generator, StaticLibraryGenerator):
                break
            archives.append(generator)
        is_first = bool(order) and order[0][0] is dylib
        mine = [each for each in archives if each.layer is self.layer]
        return archives if is_first and self in archives and mine == archives else []

    def find(self, names: Iterable[str]) -> list[int]:
        """Header offsets of the members that define any of these names."""
        return sorted(self._archive.find(names))

    def lacking(self, names: Iterable[str]) -> list[str]:
        """Those of the names that no member defines."""
        return self._archive.lacking(names)

    def open(self, offset: int) -> list[InputFile]:
        """The member at a header offset; nothing if it is empty."""
        return self._archive.open([offset])

    def is_absent(self, dylib: JITDylib, offset: int) -> bool:
        """Whether a JITDylib has nothing of a member."""
        names = self._added.get(dylib, {}).get(offset)
        # A member that defines nothing is added only once.
        return names is None or (bool(names) and dylib.symbols.keys().isdisjoint(names))

    def note(self, dylib: JITDylib, offset: int, names: list[str]) -> None:
        """Take note that a member was added, which defines these names."""
        self._added.setdefault(dylib, {})[offset] = names


class _Members:
    """Members of archives that are about to be added to a JITDylib together."""

    def __init__(self, dylib: JITDylib) -> None:
        self._dylib = dylib
        self._batch: ObjectBatch | None = None
        # The number of each in the batch; None for one without contents.
        self._numbers: dict[tuple[StaticLibraryGenerator, int], int | None] = {}

    def read(self, archive: StaticLibraryGenerator, offsets: Iterable[int]) -> bool:
        """Read members that are not there yet; returns whether there were any."""
        files: list[InputFile] = []
        for offset in offsets:
            if (archive, offset) in self._numbers or not archive.is_absent(self._dylib, offset):
                continue
            opened = archive.open(offset)
            count = len(files) + (len(self._batch.files) if self._batch else 0)
            self._numbers[archive, offset] = count if opened else None
            files += opened
        if files and self._batch is None:
            self._batch = ObjectBatch(files)
        elif files and self._batch is not None:
            self._batch.extend(files)
        return bool(files)

    def read_needed(self, archives: Iterable[StaticLibraryGenerator]) -> bool:
        """Read what these members refer to and nothing defines; returns whether there was any."""
        wanted = self._batch.wanted if self._batch else []
        wanted = [name for name in wanted if name not in self._dylib.symbols]
        has_read = False
        for archive in archives:
            has_read |= self.read(archive, archive.find(wanted))
            wanted = archive.lacking(wanted)
        return has_read

    def define(self, layer: ObjectLayer, tracker: ResourceTracker | None = None) -> None:
        """Add the members to the JITDylib."""
        definitions = []
        if self._batch is not None:
            layer.define_objects(self._dylib, self._batch, tracker)
            definitions = self._batch.definitions
        for (archive, offset), number in self._numbers.items():
            names = [] if number is None else list(definitions[number])
            archive.note(self._dylib, offset, names)
