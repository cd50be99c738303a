"""Reports about all links of a command: the link map and the traces of symbols.

This module is imported, and the links are recorded, only if the command asks for a report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache

from jitlink.errors import InputError
from jitlink.executor import ExecutorProcessControl
from jitlink.executor.self_process import library_at
from jitlink.formats.archive_magic import is_archive
from jitlink.inputs import ArchiveInput, InputFile
from jitlink.orc.generators import Extraction, StaticLibraryGenerator
from jitlink.tool.link_facts import LinkFacts
from jitlink.tool.link_map import LinkMap
from jitlink.tool.object_facts import ObjectFacts, ReadBlock
from jitlink.tool.options import MAIN_DYLIB, CommandLine
from jitlink.tool.output_file import OutputFileError, open_output
from jitlink.tool.trace import SymbolTrace, TracedInput

STANDARD_OUTPUT = "-"


@dataclass
class _Contents:
    """The inputs and definitions of one JITDylib.

    Attributes:
        objects: its objects, in order.
        archives: its archives, in order.
        generators: the generators of the archives.
        lazy: the objects, and the generators of archives, that are linked lazily.
        definitions: names and addresses of `-abs`.
        aliases: new names of `-alias`, and their targets.
    """

    objects: list[InputFile] = field(default_factory=list)
    archives: list[InputFile] = field(default_factory=list)
    generators: list[StaticLibraryGenerator] = field(default_factory=list)
    lazy: list[InputFile | StaticLibraryGenerator] = field(default_factory=list)
    definitions: dict[str, int] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)

    @property
    def extractions(self) -> list[Extraction]:
        """The extracted members of the archives, and why they were extracted."""
        return [each for archive in self.generators for each in archive.extractions]

    @property
    def lazy_names(self) -> set[str]:
        """Display names of the objects and members that are linked lazily."""
        archives = [each for each in self.lazy if isinstance(each, StaticLibraryGenerator)]
        members = {each.member for archive in archives for each in archive.extractions}
        return members | {each.name for each in self.lazy if isinstance(each, InputFile)}


class Inspection:
    """Records the links of a command, and reports about them.

    Args:
        line: the command.
        write: takes text for standard output.
        executor: the executor that is linked for.

    Attributes:
        plugin: records the links.
    """

    def __init__(
        self, line: CommandLine, write: Callable[[str], None], executor: ExecutorProcessControl
    ) -> None:
        self.plugin = LinkFacts()
        self._line = line
        self._write = write
        self._is_here = executor.is_this_process
        self._contents = _contents_of(line)
        self._known: dict[str, InputFile] = {}

    def add_file(self, dylib: str, file: InputFile, *, is_lazy: bool) -> None:
        """Record the next object or archive of a JITDylib of the command."""
        contents = self._contents[dylib]
        (contents.archives if is_archive(file.data) else contents.objects).append(file)
        if is_lazy:
            contents.lazy.append(file)

    def add_archive(self, dylib: str, generator: StaticLibraryGenerator, *, is_lazy: bool) -> None:
        """Record the generator of the next archive of a JITDylib."""
        contents = self._contents[dylib]
        contents.generators.append(generator)
        if is_lazy:
            contents.lazy.append(generator)

    def report(self) -> None:
        """Write the reports that the command asks for, after the link.

        Raises:
            OutputFileError: the map cannot be written.
        """
        if self._line.map_file is not None:
            self._write_map(self._line.map_file)
        self.trace()

    def trace(self) -> None:
        """Write the traces, also after a failed link."""
        if self._line.traced_symbols:
            for name in dict.fromkeys(self._line.traced_symbols):
                self._write("".join(trace.text() for trace in self._traces(name)))

    # The map

    def _write_map(self, path: str) -> None:
        contents = self._contents.values()
        text = LinkMap(
            self.plugin.graphs,
            named=[file.name for each in contents for file in each.objects],
            extractions=self._extractions(),
            lazy={name for each in contents for name in each.lazy_names},
            definitions={n: a for each in contents for n, a in each.definitions.items()},
            aliases={new: old for each in contents for new, old in each.aliases.items()},
            read_again=cache(self._read_again),
            library_at=self._library_at,
        ).text()
        if path == STANDARD_OUTPUT:
            self._write(text)
            return
        try:
            with open_output(path) as file:
                file.write(text)
        except OSError as error:
            raise OutputFileError(path, error) from error

    def _extractions(self) -> list[Extraction]:
        return [each for contents in self._contents.values() for each in contents.extractions]

    def _read_again(self, name: str) -> list[ReadBlock] | None:
        file = self._files().get(name)
        return None if file is None else ObjectFacts(file).blocks()

    def _library_at(self, address: int) -> str | None:
        return library_at(address) if self._is_here else None

    def _files(self) -> dict[str, InputFile]:
        """The objects that were read, by display name; of several with one name the first."""
        if not self._known:
            read = {each.member for each in self._extractions()}
            for contents in self._contents.values():
                members = (file for archive in contents.archives for file in _members(archive))
                extracted = (file for file in members if file.name in read)
                for file in (*contents.objects, *extracted):
                    self._known.setdefault(file.name, file)
        return self._known

    # Traces

    def _traces(self, name: str) -> list[SymbolTrace]:
        """The traces of a symbol in the JITDylibs that it concerns, or else in ``main``."""
        if len(self._contents) == 1:
            return [self._trace(name, MAIN_DYLIB, None)]
        traces = [self._trace(name, dylib, dylib) for dylib in self._contents]
        return [each for each in traces if each.is_concerned] or traces[:1]

    def _trace(self, name: str, dylib: str, shown: str | None) -> SymbolTrace:
        contents = self._contents[dylib]
        others = self._contents.keys() - {dylib}
        return SymbolTrace(
            name,
            inputs=list(self._inputs(name, contents)),
            graphs=[graph for graph in self.plugin.graphs if graph.dylib not in others],
            definitions=contents.definitions,
            aliases=contents.aliases,
            library_at=self._library_at,
            dylib=shown,
        )

    def _inputs(self, name: str, contents: _Contents) -> Iterator[TracedInput]:
        for file in contents.objects:
            # The command reports an object that cannot be read as its error.
            with suppress(InputError):
                yield TracedInput(ObjectFacts(file), is_read=True)
        reasons = {each.member: each for each in contents.extractions}
        for archive in contents.archives:
            defining = self._defining(archive, name)
            for file in _members(archive):
                read = reasons.get(file.name)
                if read is not None or file.name in defining:
                    with suppress(InputError):
                        yield _member(file, read)

    @staticmethod
    def _defining(archive: InputFile, name: str) -> set[str]:
        """Display names of the members that define a name, by the archive's symbol index."""
        with suppress(InputError):
            members = ArchiveInput(archive)
            return {file.name for file in members.open(list(members.find([name])))}
        return set()


def _contents_of(line: CommandLine) -> dict[str, _Contents]:
    """The definitions in each JITDylib of the command; files are added when they are opened."""
    found = {each.name: _Contents(definitions=dict(each.definitions)) for each in line.dylibs}
    for arguments in line.dylibs:
        for alias in arguments.aliases:
            place = found.get(alias.dylib or arguments.name)
            # The command reports an alias in an unknown JITDylib as its error.
            if place is not None:
                place.aliases[alias.name] = alias.target
    return found


def _member(file: InputFile, read: Extraction | None) -> TracedInput:
    if read is None:
        return TracedInput(ObjectFacts(file), False, "nothing that is missing needs it")
    wanted_by = f", wanted by {read.wanted_by}" if read.wanted_by else ""
    reason = f"read for {read.symbol}{wanted_by}" if read.symbol else "all members are read"
    return TracedInput(ObjectFacts(file), True, reason)


def _members(archive: InputFile) -> Iterator[InputFile]:
    with suppress(InputError):
        members = ArchiveInput(archive)
        for offset in members.member_offsets():
            # A thin archive may refer to files that do not exist and are not needed.
            with suppress(InputError):
                yield from members.open([offset])
