"""Reports about a whole link: the map and the traces of symbols.

They are of use only to who asks for them, so only then is this imported, and everything that
they need taken down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache

from jitlink.errors import InputError
from jitlink.executor import ExecutorProcessControl, SelfExecutorProcessControl
from jitlink.executor.self_process import library_at
from jitlink.formats.archive import is_archive
from jitlink.inputs import ArchiveInput, InputFile
from jitlink.orc.generators import Extraction, StaticLibraryGenerator
from jitlink.tool.link_facts import LinkFacts
from jitlink.tool.link_map import LinkMap
from jitlink.tool.object_facts import ObjectFacts, ReadBlock
from jitlink.tool.options import CommandLine, CommandLineError
from jitlink.tool.trace import SymbolTrace, TracedInput

STANDARD_OUTPUT = "-"


class Inspection:
    """Looks at the links of a command, and reports about them.

    Args:
        line: the command.
        write: takes text for standard output.
        executor: where is linked to.

    Attributes:
        plugin: takes the links down.
    """

    def __init__(
        self, line: CommandLine, write: Callable[[str], None], executor: ExecutorProcessControl
    ) -> None:
        self.plugin = LinkFacts()
        self._line = line
        self._write = write
        self._is_here = isinstance(executor, SelfExecutorProcessControl)
        self._objects: list[InputFile] = []
        self._archives: list[InputFile] = []
        self._generators: list[StaticLibraryGenerator] = []
        self._known: dict[str, InputFile] = {}

    def add_files(self, files: Sequence[InputFile]) -> None:
        """Take note of the command's objects and archives, in order."""
        for file in files:
            (self._archives if is_archive(file.data) else self._objects).append(file)

    def add_archive(self, generator: StaticLibraryGenerator) -> None:
        """Take note of what adds the members of the next archive."""
        self._generators.append(generator)

    def report(self) -> None:
        """Write what the command asks for, after the link.

        Raises:
            CommandLineError: the map cannot be written.
        """
        if self._line.map_file is not None:
            self._write_map(self._line.map_file)
        self.trace()

    def trace(self) -> None:
        """Write the traces, also of a link that has failed."""
        if self._line.traced_symbols:
            for name in dict.fromkeys(self._line.traced_symbols):
                self._write(self._trace(name).text())

    # The map

    def _write_map(self, path: str) -> None:
        text = LinkMap(
            self.plugin.graphs,
            named=[file.name for file in self._objects],
            extractions=self._extractions(),
            definitions=dict(self._line.definitions),
            aliases=dict(self._line.aliases),
            read_again=cache(self._read_again),
            library_at=self._library_at,
        ).text()
        if path == STANDARD_OUTPUT:
            self._write(text)
            return
        try:
            with open(path, "w", encoding="utf-8", errors="backslashreplace") as file:  # noqa: PTH123
                file.write(text)
        except OSError as error:
            reason = error.strerror or "not possible"
            raise CommandLineError(f"cannot write {path}: {reason}", option="map") from error

    def _extractions(self) -> list[Extraction]:
        return [each for archive in self._generators for each in archive.extractions]

    def _read_again(self, name: str) -> list[ReadBlock] | None:
        file = self._files().get(name)
        return None if file is None else ObjectFacts(file).blocks()

    def _library_at(self, address: int) -> str | None:
        return library_at(address) if self._is_here else None

    def _files(self) -> dict[str, InputFile]:
        """All objects that were read, by display name; the first of a name."""
        if not self._known:
            read = {each.member for each in self._extractions()}
            members = (file for archive in self._archives for file in _members(archive))
            for file in (*self._objects, *(file for file in members if file.name in read)):
                self._known.setdefault(file.name, file)
        return self._known

    # Traces

    def _trace(self, name: str) -> SymbolTrace:
        return SymbolTrace(
            name,
            inputs=list(self._inputs(name)),
            graphs=self.plugin.graphs,
            definitions=dict(self._line.definitions),
            aliases=dict(self._line.aliases),
            library_at=self._library_at,
        )

    def _inputs(self, name: str) -> Iterator[TracedInput]:
        for file in self._objects:
            # One that cannot be read is the error that the command ends with.
            with suppress(InputError):
                yield TracedInput(ObjectFacts(file), is_read=True)
        reasons = {each.member: each for each in self._extractions()}
        for archive in self._archives:
            defining = self._defining(archive, name)
            for file in _members(archive):
                read = reasons.get(file.name)
                if read is not None or file.name in defining:
                    with suppress(InputError):
                        yield _member(file, read)

    @staticmethod
    def _defining(archive: InputFile, name: str) -> set[str]:
        """Display names of the members that define a name, as the archive's index says."""
        with suppress(InputError):
            members = ArchiveInput(archive)
            return {file.name for file in members.open(list(members.find([name])))}
        return set()


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
            # A thin archive may name files that nobody needed, and that are gone.
            with suppress(InputError):
                yield from members.open([offset])
