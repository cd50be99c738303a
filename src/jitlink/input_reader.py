"""Objects and archives, read into one graph with the archive members that they need.

All objects are read; `jitlink.inputs.defining_members` has the rule by which members of archives
are extracted.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from jitlink.errors import UnknownFormatError
from jitlink.formats.archive_magic import is_archive
from jitlink.formats.small import SmallObject, add_small_objects, are_few, may_be_small
from jitlink.graph import LinkGraph
from jitlink.graph.columns import Int64Array
from jitlink.inputs import ArchiveInput, InputFile, MappedFile, batches, defining_members
from jitlink.logs import Log
from jitlink.resolve import SymbolResolver
from jitlink.targets.base import ReadObjects, Target
from jitlink.targets.registry import target_of_object

log = Log("jitlink.formats")

_RELEASED_FROM = 1 << 23
"""Size in bytes of objects that have been read from which their pages are released."""


class SymbolRules(Protocol):
    """Changes the symbols of objects before they are resolved against each other.

    A layer may read an object twice, when it is added and when it is linked, so the rules must have
    the same effect every time.
    """

    def apply(self, graph: LinkGraph, files: Sequence[InputFile], bounds: Int64Array) -> None:
        """Change symbols of objects that were just read into a graph.

        Args:
            graph: the graph, which may contain other objects too.
            files: the objects.
            bounds: row of the first symbol of each object, and the end (int64).
        """


class InputReader:
    """Reads inputs into one graph.

    Args:
        name: name of the graph, by default that of the first object.
        rules: applied to all objects that are read.

    Attributes:
        graph: the graph; None until the first object is read.
        linked: display names of all objects that were read, in order.
    """

    def __init__(self, name: str | None = None, rules: SymbolRules | None = None) -> None:
        self.graph: LinkGraph | None = None
        self.linked: list[str] = []
        self._name = name
        self._rules = rules
        self._target: Target | None = None
        self._resolver: SymbolResolver | None = None
        self._archives: list[ArchiveInput] = []
        self._definitions: list[tuple[str, int]] = []
        self._reads: list[ReadObjects] = []
        # Row of the first symbol of each object of the first so many reads; see `objects_of`.
        self._first_symbols: list[int] = []
        self._searchable = 0
        # What was read since pages were last released.
        self._unreleased: list[InputFile] = []
        self._unreleased_size = 0

    @property
    def target_graph(self) -> LinkGraph:
        """The graph.

        Raises:
            UnknownFormatError: no object was read.
        """
        return self.resolver.graph

    @property
    def symbol_bounds(self) -> Int64Array:
        """Row of the first symbol of each object that was read, and the end (int64)."""
        return self._bounds(self._reads)

    def _bounds(self, reads: Sequence[ReadObjects]) -> Int64Array:
        end = np.array([self.target_graph.symbol_table.rows])
        return np.concatenate((*[read.first_symbol for read in reads], end))

    def objects_of(self, rows: Iterable[int]) -> list[int]:
        """The numbers of the objects that symbols are of, by the symbols' rows.

        Reading members of archives one by one calls this as often as there are members, so it does
        not go through all objects.
        """
        for read in self._reads[self._searchable :]:
            self._first_symbols += read.first_symbol.tolist()
        self._searchable = len(self._reads)
        return [bisect_right(self._first_symbols, row) - 1 for row in rows]

    def comdat_signatures(self) -> dict[int, str]:
        """Signatures of the COMDAT groups of blocks, by the block's row."""
        found: dict[int, str] = {}
        for comdats in [read.comdats for read in self._reads]:
            names = self.target_graph.strings.get_many(comdats.signature)
            groups = map(names.__getitem__, comdats.member_group.tolist())
            found.update(zip(comdats.member_block.tolist(), groups, strict=True))
        return found

    @property
    def target(self) -> Target:
        """The target of all objects read.

        Raises:
            UnknownFormatError: no object was read.
        """
        if self._target is None:
            raise UnknownFormatError("no object to link", file=self._name or "<nothing>")
        return self._target

    @property
    def resolver(self) -> SymbolResolver:
        """The resolution of names among all objects read."""
        if self._resolver is None:
            raise UnknownFormatError("no object to link", file=self._name or "<nothing>")
        return self._resolver

    def add(self, files: Iterable[InputFile], *, all_load: bool = False) -> None:
        """Read objects, and record archives.

        Args:
            files: opened inputs.
            all_load: read all members of archives, needed or not.

        Raises:
            InputError: a file is malformed or of an unknown format.
            DuplicateDefinitionError: two objects define one name.
        """
        objects: list[InputFile] = []
        for file in files:
            if is_archive(file.data):
                archive = ArchiveInput(file)
                if all_load:
                    objects += archive.extract_all()
                else:
                    self._archives.append(archive)
            else:
                objects.append(file)
        self._read(objects)

    def add_small(self, files: Sequence[InputFile], objects: Sequence[SmallObject]) -> None:
        """Add objects that have been read as records already.

        Raises:
            InputError: an object cannot be linked with the others.
            DuplicateDefinitionError: two objects define one name.
        """
        self._read(files, objects)

    def define(self, name: str, address: int) -> None:
        """Define a name as an absolute address, now or once an object is read.

        Raises:
            DuplicateDefinitionError: the name has a strong definition.
        """
        if self._resolver is None:
            self._definitions.append((name, address))
        else:
            self._resolver.define(name, address)

    def search_archives(self, also: Sequence[str] = ()) -> None:
        """Extract members of the archives, which are dropped then; see `defining_members`.

        Args:
            also: names to be defined besides those that objects refer to.
        """
        # Their indexes may be larger than all that is linked.
        archives, self._archives = self._archives, []
        undefined, commons, searched = list(also), list[str](), set[str]()
        while archives:
            if self._resolver is not None:
                defined = self._resolver.definitions
                undefined = [n for n in also if n not in defined]
                undefined += self._resolver.undefined
                commons = self._resolver.commons
            wanted = [name for name in undefined if name not in searched]
            searched.update(wanted)
            members: list[InputFile] = []
            for archive, offsets in defining_members(archives, wanted, commons):
                members += archive.extract(offsets)
            if not members:
                return
            self._read(members)

    def _read(
        self, files: Sequence[InputFile], objects: Sequence[SmallObject] | None = None
    ) -> None:
        if not files:
            return
        self.linked += [file.name for file in files]
        if self._resolver is None or self.graph is None or self._target is None:
            self._target = target_of_object(files[0].data, files[0].name)
            self.graph = self._target.new_graph(self._name or files[0].name)
            self._resolver = SymbolResolver(self.graph)
        if objects is None:
            objects = _read_small(self._target, files)
        if objects is not None:
            names = [file.name for file in files]
            reads = [add_small_objects(self.graph, names, objects)]
        else:
            reads = [self._target.add_objects(self.graph, batch) for batch in batches(files)]
        self._reads += reads
        if log.is_on:
            _log_reads(files, reads)
        if self._rules is not None:
            self._rules.apply(self.graph, files, self._bounds(reads))
        for read in reads:
            self._resolver.add(read)
        self._release_pages(files)
        definitions, self._definitions = self._definitions, []
        for name, address in definitions:
            self._resolver.define(name, address)

    def _release_pages(self, files: Sequence[InputFile]) -> None:
        """Release the pages of objects that were read, as soon as they are many.

        Relocations, symbols and names are in tables now. Contents are read again when they are
        copied, which takes little time; their pages and those of all tables are not needed at once.
        """
        self._unreleased += files
        self._unreleased_size += sum([len(file.data) for file in files])
        if self._unreleased_size < _RELEASED_FROM:
            return
        buffers = [file.container or file.data for file in self._unreleased]
        for mapping in {id(buffer.obj): buffer.obj for buffer in buffers}.values():
            if isinstance(mapping, MappedFile):
                mapping.release()
        self._unreleased, self._unreleased_size = [], 0


def _log_reads(files: Sequence[InputFile], reads: Sequence[ReadObjects]) -> None:
    symbols = [n for r in reads for n in np.diff(r.first_symbol, append=r.last_symbol).tolist()]
    for file, count in zip(files, symbols, strict=True):
        log.debug("%s: read %d bytes (symbols: %d)", file.name, len(file.data), count)
    groups = sum([len(read.comdats.signature) for read in reads])
    edges = sum([read.last_edge - read.first_edge for read in reads])
    log.debug("in all, relocations: %d, COMDAT groups: %d", edges, groups)


def _read_small(target: Target, files: Sequence[InputFile]) -> list[SmallObject] | None:
    """All objects as records, if that is faster than to read them as columns."""
    if not may_be_small(len(files), sum([len(file.data) for file in files])):
        return None
    objects: list[SmallObject] = []
    for file in files:
        small = target.read_small(file.data)
        if small is None:
            return None
        objects.append(small)
        if not are_few(objects):
            return None
    return objects
