"""Definition generators: definitions of names from dynamic libraries and static archives."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self
from weakref import WeakKeyDictionary

from jitlink.errors import JITLinkError
from jitlink.input_reader import SymbolRules
from jitlink.inputs import ArchiveInput, Input, InputFile, defining_members, open_input
from jitlink.logs import Log
from jitlink.orc.errors import listed
from jitlink.orc.interface import (
    ExecutorSymbolDef,
    JITDylibLookupFlags,
    JITSymbolFlags,
    LookupKind,
    SymbolState,
)
from jitlink.orc.materialization import AbsoluteSymbols
from jitlink.orc.object_batch import ObjectBatch
from jitlink.passes.linker_defined import is_of_one_image
from jitlink.resolve import Strength

if TYPE_CHECKING:
    from jitlink.orc.dylib import Definition, JITDylib
    from jitlink.orc.interface import ResourceTracker, Session

log = Log("jitlink.orc")

_FOUND = JITSymbolFlags.EXPORTED | JITSymbolFlags.ABSOLUTE

NameFilter = Callable[[str], bool] | re.Pattern[str] | str
"""Which names: those for which a function returns True, that a pattern matches in full, or that
have a prefix."""


def matcher(names: NameFilter | None) -> Callable[[str], bool]:
    """A filter as a function; None accepts every name."""
    if names is None:
        return lambda name: True  # noqa: ARG005 - part of the interface
    if isinstance(names, str):
        return lambda name: name.startswith(names)
    if isinstance(names, re.Pattern):
        return lambda name: names.fullmatch(name) is not None
    return names


class DynamicLibraryGenerator:
    """Defines symbols of a library that is loaded in the executor, or of the whole process.

    They are defined as absolute symbols, owned by the JITDylib's default tracker. Linker-defined
    symbols of an image, such as ``_end``, are not.

    Args:
        handle: handle of the library in the executor, None for the whole process.
        allow: which names may be defined; by default all.
    """

    def __init__(self, handle: int | None = None, allow: NameFilter | None = None) -> None:
        self._handle = handle
        self._allow = None if allow is None else matcher(allow)

    @classmethod
    def for_process(cls, session: Session, allow: NameFilter | None = None) -> Self:
        """A generator for the executor's process: the program and all loaded libraries."""
        del session  # Every executor's process is searched without a handle.
        return cls(None, allow)

    @classmethod
    def load(
        cls,
        session: Session,
        path: str | os.PathLike[str],
        allow: NameFilter | None = None,
    ) -> Self:
        """Load a shared library into the executor; a generator for it and its dependencies.

        Raises:
            ExecutorError: it cannot be loaded.
        """
        session.check_executor()
        return cls(session.wait(session.executor.load_dylib(path)), allow)

    async def try_to_generate(
        self,
        kind: LookupKind,  # noqa: ARG002 - part of the interface
        dylib: JITDylib,
        flags: JITDylibLookupFlags,  # noqa: ARG002
        names: Mapping[str, bool],
    ) -> None:
        """Define the names that the library exports."""
        wanted = [name for name in names if self._allow is None or self._allow(name)]
        # Such a symbol is one of the library's own image. Other libraries than the process may
        # have functions with names of programs, such as end.
        is_process = self._handle is None
        wanted = [
            name
            for name in wanted
            if not is_of_one_image(name) or not (is_process or name.startswith(("_", ".")))
        ]
        addresses = await dylib.session.executor.lookup_symbols(wanted, self._handle)
        found = {
            name: ExecutorSymbolDef(address, _FOUND)
            for name, address in zip(wanted, addresses, strict=True)
            # Another task may have defined it while the executor was waited for.
            if address is not None and name not in dylib.symbols
        }
        if found:
            dylib.add_unit(AbsoluteSymbols(found, is_generated=True))


class Extraction(NamedTuple):
    """Why a member of an archive was extracted.

    Attributes:
        member: its display name.
        symbol: the name that it was extracted for; None if all members were.
        wanted_by: display name of the object that refers to the name, if that was extracted in the
            same search; None if it is unknown.
    """

    member: str
    symbol: str | None
    wanted_by: str | None = None


class ObjectLayer(Protocol):
    """A layer that adds objects to JITDylibs."""

    @property
    def symbol_rules(self) -> SymbolRules | None:
        """Rules that are applied to objects that are read for it."""

    def define_objects(
        self, dylib: JITDylib, batch: ObjectBatch, tracker: ResourceTracker | None = None
    ) -> None:
        """Add objects; called on the driver thread."""


class StaticLibraryGenerator:
    """Adds members of a static archive when names that they define are looked up.

    The members that a member needs are added with it, so that they are linked together, if their
    names would be searched for in archives first: in this one, and in the others that precede all
    other generators of the JITDylib. `jitlink.inputs.defining_members` has the rule of extraction.
    A program's ``dlsym`` extracts nothing.

    A definition in a member may override a weak or common one, unless that has been looked up. So a
    lookup of definitions first extracts what these, and what they refer to in the JITDylib, need of
    the archives that precede all other generators, and what initialisers need.

    Members are owned by the JITDylib's default tracker. When all of a member's definitions have
    been removed, it may be extracted again.

    Args:
        layer: links the members.
        source: path, bytes or opened file of the archive, which must not be changed while this is
            in use.
        check: called with each member before it is read; an error that it raises fails the lookup.

    Attributes:
        layer: links the members.
        name: display name of the archive.
        check: the same.
        extractions: which members were extracted, and why, in order; for the driver thread.

    Raises:
        InputError: the archive cannot be read.
    """

    def __init__(
        self,
        layer: ObjectLayer,
        source: Input | InputFile,
        check: Callable[[InputFile], None] | None = None,
    ) -> None:
        self.layer = layer
        self.check = check
        file = source if isinstance(source, InputFile) else open_input(source)
        self._archive = ArchiveInput(file)
        self.name = file.name
        self.extractions: list[Extraction] = []
        # Names of the members that were added to each JITDylib, by header offset.
        self._added: WeakKeyDictionary[JITDylib, dict[int, list[str]]] = WeakKeyDictionary()

    def force_load(self, dylib: JITDylib, tracker: ResourceTracker | None = None) -> None:
        """Add all members, needed or not; each is linked when a name of it is looked up.

        Raises:
            InputError: a member cannot be read.
            DuplicateDefinitionError: a strong definition exists already; none was added.
            ResourceTrackerDefunctError: the tracker, or the JITDylib, was removed.
        """
        dylib.session.run(lambda: self._force_load(dylib, tracker))

    def _force_load(self, dylib: JITDylib, tracker: ResourceTracker | None) -> None:
        members = _ExtractedMembers(dylib)
        try:
            members.read(self, dict.fromkeys(self._archive.member_offsets()))
            members.define(self.layer, tracker)
        finally:
            members.record_reasons()

    async def try_to_generate(
        self,
        kind: LookupKind,
        dylib: JITDylib,
        flags: JITDylibLookupFlags,  # noqa: ARG002 - part of the interface
        names: Mapping[str, bool],
    ) -> None:
        """Add the members that define names, and the members that these need."""
        if kind is not LookupKind.DLSYM:
            self.extract(dylib, [name for name, required in names.items() if required])

    def extract(self, dylib: JITDylib, names: Iterable[str]) -> None:
        """Add the members that define names, and the members that these need.

        For the driver thread. Nothing is awaited, so that no other search can add the same members.

        Raises:
            InputError: a member cannot be read.
            DuplicateDefinitionError: a strong definition exists already.
        """
        members = _ExtractedMembers(dylib)
        archives = _searched_first(dylib)
        # The first archive is asked first: members of all of them are then one batch, which is not
        # read again to be linked together. The others are asked for what none of them defines.
        searched = archives if archives[:1] == [self] else [self]
        try:
            if members.read_defining(searched, list(names)):
                members.read_needed(archives if self in archives else ())
            members.define(self.layer)
        finally:
            members.record_reasons()

    def find(self, names: Iterable[str]) -> dict[int, str]:
        """Header offsets of the members that define any of these names; the first name of each."""
        return self._archive.find(names)

    def find_data(self, names: Iterable[str]) -> dict[str, int]:
        """Header offset of the first member that defines each of these names as data, if any."""
        return self._archive.find_data(names)

    def undefined_among(self, names: Iterable[str]) -> list[str]:
        """Those of the names that no member defines."""
        return self._archive.undefined_among(names)

    def known_names(self) -> Iterable[str]:
        """All names that members define."""
        return self._archive.names()

    def open(self, offset: int) -> list[InputFile]:
        """The member at a header offset, checked; no file if it is empty."""
        members = self._archive.open([offset])
        if self.check is not None:
            for member in members:
                self.check(member)
        return members

    def is_absent(self, dylib: JITDylib, offset: int) -> bool:
        """Whether a JITDylib has no definition of a member."""
        names = self._added.get(dylib, {}).get(offset)
        # A member that defines nothing is added only once.
        return names is None or (bool(names) and dylib.symbols.keys().isdisjoint(names))

    def record_added(self, dylib: JITDylib, offset: int, names: list[str]) -> None:
        """Record that a member was added, which defines these names."""
        self._added.setdefault(dylib, {})[offset] = names


def extract(
    dylib: JITDylib,
    archives: Sequence[StaticLibraryGenerator],
    names: Iterable[str],
    referrers: Mapping[str, str] = MappingProxyType({}),
    commons: Iterable[str] = (),
) -> bool:
    """Add the members of archives of one layer that define names, and those that these need.

    Args:
        dylib: the JITDylib.
        archives: the archives, in the order in which they are searched.
        names: the names.
        referrers: display names of objects that refer to them, as far as known.
        commons: names that common symbols define.

    Returns:
        Whether there were any.

    Raises:
        InputError: a member cannot be read.
        DuplicateDefinitionError: a strong definition exists already; none was added.
    """
    members = _ExtractedMembers(dylib)
    has_read = members.read_defining(archives, names, commons, referrers)
    if has_read:
        members.read_needed(archives)
        members.define(archives[0].layer)
        members.record_reasons()
        if log.is_on:
            log.debug("members extracted for %s: %s", dylib.name, listed(members.names))
    return has_read


def _searched_first(dylib: JITDylib) -> list[StaticLibraryGenerator]:
    """The archives that are searched for references before anything else.

    They add members with the same layer.
    """
    order, archives = dylib.link_order, list[StaticLibraryGenerator]()
    if not order or order[0][0] is not dylib:
        return archives
    for generator in dylib.generators:
        if not isinstance(generator, StaticLibraryGenerator):
            break
        if archives and generator.layer is not archives[0].layer:
            break
        archives.append(generator)
    return archives


def extract_members(definitions: Iterable[Definition]) -> bool:
    """Add the archive members that definitions need which are about to be materialized.

    An error is left to the link that needs the member: it searches for the name again.

    Returns:
        Whether members were added.
    """
    by_dylib: dict[JITDylib, list[Definition]] = {}
    for definition in definitions:
        by_dylib.setdefault(definition.dylib, []).append(definition)
    has_added = False
    for dylib, chosen in by_dylib.items():
        archives = _searched_first(dylib)
        if archives:
            named = [dylib.symbols.get(name) for name in dylib.initializers]
            chosen += [definition for definition in named if definition is not None]
            with suppress(JITLinkError):
                while _extract_for(dylib, archives, chosen):
                    has_added = True
    return has_added


def _extract_for(
    dylib: JITDylib, archives: list[StaticLibraryGenerator], definitions: list[Definition]
) -> bool:
    """Add the members that definitions need, and replace these by what is needed of the members.

    Returns:
        Whether there were any.
    """
    undefined, commons = _needed_names(dylib, definitions)
    if not extract(dylib, archives, undefined, undefined, commons):
        return False
    named = [dylib.symbols.get(name) for name in (*undefined, *commons)]
    definitions[:] = [definition for definition in named if definition is not None]
    return True


def _needed_names(
    dylib: JITDylib, definitions: Iterable[Definition]
) -> tuple[dict[str, str], list[str]]:
    """What definitions, and all that will be materialized for them, need of archives.

    Those are the definitions that they refer to in the JITDylib, and their companions.

    Returns:
        The undefined names to which there is a strong reference, with the first referrer of each,
        and the names of common symbols.
    """
    symbols, pending = dylib.symbols, list(definitions)
    undefined: dict[str, str] = {}
    commons: list[str] = []
    handled: set[Hashable] = set()
    visited: set[Definition] = set()
    while pending:
        definition = pending.pop()
        unit = definition.unit
        if unit is None or definition in visited:
            continue
        visited.add(definition)
        # Others may have been added since the unit was complete.
        pending += unit.companions(definition, handled)
        if unit.is_complete:
            continue
        unit.is_complete = True
        commons += [n for n, f in unit.symbols.items() if f.strength is Strength.COMMON]
        required = unit.required()
        # Units that are materialized one by one anticipate nothing.
        named = [symbols.get(name) for name in unit.anticipated() or required]
        pending += [definition for definition in named if definition is not None]
        for name, referrer in required.items():
            if name not in symbols:
                undefined.setdefault(name, referrer)
    return undefined, commons


class _ExtractedMembers:
    """Members of archives that are to be added to a JITDylib together."""

    def __init__(self, dylib: JITDylib) -> None:
        self._dylib = dylib
        self._batch: ObjectBatch | None = None
        # The number of each in the batch; None for an empty one.
        self._numbers: dict[tuple[StaticLibraryGenerator, int], int | None] = {}
        # Names that members refer to and that archives were searched for.
        self._searched: set[str] = set()
        self._reasons: list[tuple[StaticLibraryGenerator, Extraction]] = []

    @property
    def names(self) -> tuple[str, ...]:
        """Display names of the members."""
        return () if self._batch is None else tuple(file.name for file in self._batch.files)

    def read(
        self,
        archive: StaticLibraryGenerator,
        reasons: Mapping[int, str | None],
        referrers: Mapping[str, str] = MappingProxyType({}),
    ) -> bool:
        """Read members that were not extracted yet; returns whether there were any.

        Args:
            archive: the archive.
            reasons: their header offsets, and the name that each is extracted for.
            referrers: display names of objects that refer to those names, as far as known.
        """
        files: list[InputFile] = []
        for offset, name in reasons.items():
            if (archive, offset) in self._numbers or not archive.is_absent(self._dylib, offset):
                continue
            opened = archive.open(offset)
            count = len(files) + (len(self._batch.files) if self._batch else 0)
            self._numbers[archive, offset] = count if opened else None
            files += opened
            wanted_by = None if name is None else referrers.get(name)
            self._reasons += [(archive, Extraction(file.name, name, wanted_by)) for file in opened]
        if files and self._batch is None:
            rules = archive.layer.symbol_rules
            self._batch = ObjectBatch(files, rules, is_extracted=True)
        elif files and self._batch is not None:
            self._batch.extend(files)
        return bool(files)

    def read_defining(
        self,
        archives: Iterable[StaticLibraryGenerator],
        undefined: Iterable[str],
        commons: Iterable[str] = (),
        referrers: Mapping[str, str] = MappingProxyType({}),
    ) -> bool:
        """Read the members that define names; returns whether there were any.

        Args:
            archives: the archives, in order of search.
            undefined: undefined names with a strong reference.
            commons: names that common symbols define.
            referrers: display names of objects that refer to those names, as far as known.
        """
        has_read = False
        for archive, reasons in defining_members(archives, undefined, commons):
            has_read |= self.read(archive, reasons, referrers)
        return has_read

    def read_needed(self, archives: Sequence[StaticLibraryGenerator]) -> None:
        """Read the members that these members need."""
        has_more = bool(archives)
        while has_more and self._batch is not None:
            symbols = self._dylib.symbols
            referrers = self._batch.undefined(self._searched)
            self._searched.update(referrers)
            undefined = [name for name in referrers if name not in symbols]
            commons = [name for name in self._batch.commons if _is_tentative(symbols, name)]
            has_more = self.read_defining(archives, undefined, commons, referrers)

    def record_reasons(self) -> None:
        """Record in the archives which members were read, and why."""
        for archive, reason in self._reasons:
            archive.extractions.append(reason)

    def define(self, layer: ObjectLayer, tracker: ResourceTracker | None = None) -> None:
        """Add the members to the JITDylib."""
        definitions = []
        if self._batch is not None:
            layer.define_objects(self._dylib, self._batch, tracker)
            definitions = self._batch.definitions
        for (archive, offset), number in self._numbers.items():
            names = [] if number is None else list(definitions[number])
            archive.record_added(self._dylib, offset, names)


def extract_needed(dylib: JITDylib, names: Iterable[str]) -> None:
    """Extract the archive members that a link would extract when it looks names up.

    These are the members of archives that are searched before anything else. Of others it is not
    known before the link.

    Args:
        dylib: the JITDylib.
        names: the names, to which there are strong references.

    Raises:
        JITLinkError: a member cannot be read or added.
    """
    archives = _searched_first(dylib)
    if archives:
        extract(dylib, archives, [name for name in names if name not in dylib.symbols])


def _is_tentative(symbols: Mapping[str, Definition], name: str) -> bool:
    """Whether a JITDylib has no definition of a name, or a common one that may be overridden."""
    found = symbols.get(name)
    if found is None:
        return True
    is_common = found.flags[name].strength is Strength.COMMON
    return is_common and found.state is SymbolState.NEVER_SEARCHED
