"""Links what a command names, and runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from jitlink.errors import DuplicateDefinitionError, UndefinedSymbolError
from jitlink.executor import ExecutorProcessControl, SelfExecutorProcessControl
from jitlink.graph import LinkGraph
from jitlink.inputs import GraphBuilder
from jitlink.library import Library, link_library
from jitlink.link import PassConfiguration, run_in_process
from jitlink.memory.slab import SlabMemoryManager
from jitlink.tool.libraries import InputCollector
from jitlink.tool.options import CommandLine, CommandLineError
from jitlink.tool.report import LinkReport
from jitlink.tool.times import PhaseTimes

if TYPE_CHECKING:
    from jitlink.tool.check import Checks

LOAD_PHASE = "time to load/add object files"
LINK_PHASE = "time to link object files"
RUN_PHASE = "time to execute jitlink'd code"


class Program:
    """A command at work: what it has read, linked and is about to run.

    Args:
        line: the command.
        write: takes text for standard output.
        executor: where to link and run, by default this process.

    Attributes:
        times: how long each phase took.
    """

    def __init__(
        self,
        line: CommandLine,
        write: Callable[[str], None],
        executor: ExecutorProcessControl | None = None,
    ) -> None:
        self.times = PhaseTimes()
        self._line = line
        self._write = write
        self._executor = executor or SelfExecutorProcessControl.shared()
        self._slab = _slab(line)
        self._builder = GraphBuilder()
        self._dylibs: list[int] = []
        self._unresolved: dict[str, str] = {}
        self._checks = _checks(line)

    def load(self) -> None:
        """Read the inputs, and define what the command defines.

        Raises:
            JITLinkError: an input is missing or unusable, or a symbol is defined twice.
        """
        with self.times.measure(LOAD_PHASE):
            collector = InputCollector(self._line.library_directories)
            for argument in self._line.inputs:
                collector.add(argument)
            self._dylibs = [
                run_in_process(self._executor.load_dylib(path)) for path in collector.dylibs
            ]
            for name, address in self._line.definitions:
                self._builder.define(name, address)
            self._builder.add(collector.files, all_load=self._line.all_load)
            self._add_definitions()

    def _add_definitions(self) -> None:
        """Search archives, and let aliases stand for what was found."""
        line, builder = self._line, self._builder
        aliases = dict(line.aliases)
        entry = aliases.get(line.entry, line.entry)
        builder.search_archives(also=[entry, *aliases.values()])
        if builder.graph is None:
            raise self._no_entry()
        for alias, name in line.aliases:
            self._add_alias(alias, name)

    def _add_alias(self, alias: str, name: str) -> None:
        resolver = self._builder.resolver
        try:
            resolver.alias(alias, name)
        except DuplicateDefinitionError as error:
            raise DuplicateDefinitionError(
                alias, first=error.first, second="an -alias option"
            ) from error
        except UndefinedSymbolError:
            # The process may define it. If it does not, only a use of the alias is an error.
            (address,) = run_in_process(self._executor.lookup_symbols([name]))
            if address is not None:
                resolver.define(alias, address)
            else:
                self._unresolved[alias] = name

    def link(self) -> Library:
        """Link what the entry point needs.

        Raises:
            JITLinkError: the link failed; nothing is left allocated.
        """
        line = self._line
        self._check_architecture()
        roots = self._roots()
        report = LinkReport(
            self._write,
            linked_files=line.show_linked_files,
            graphs=line.show_graphs,
            addresses=line.show_addrs,
            everything=roots is None,
        )

        def configure(graph: LinkGraph, passes: PassConfiguration) -> None:
            report.configure(graph, passes)
            if self._checks is not None:
                self._checks.configure(graph, passes)

        with self.times.measure(LINK_PHASE):
            try:
                library = link_library(
                    self._builder,
                    self._executor,
                    phony_externals=line.phony_externals,
                    memory=self._slab,
                    configure=configure,
                    dylibs=self._dylibs,
                    roots=roots,
                )
            except UndefinedSymbolError as error:
                raise self._with_aliases(error) from error
        self._write("".join(f"{each}\n" for each in report.address_lines))
        return library

    def _check_architecture(self) -> None:
        """Refuse to run what another processor's code is; to link it is fine."""
        triple = self._builder.target.triple
        if not self._line.noexec and not self._executor.runs(triple):
            code, process = (each.partition("-")[0] for each in (triple, self._executor.triple))
            raise CommandLineError(
                f"code for {code} cannot run in this process, which is {process}; -noexec links it "
                "without running it"
            )

    def _with_aliases(self, error: UndefinedSymbolError) -> UndefinedSymbolError:
        """The same error, with what aliases stand for where it names those."""
        users: dict[str, tuple[str, ...]] = {}
        for name in error.names:
            target = self._unresolved.get(name, name)
            both = (*users.get(target, ()), *error.referrers[name])
            users[target] = tuple(dict.fromkeys(both))
        return UndefinedSymbolError(list(users), referrers=users)

    def _roots(self) -> list[str] | None:
        """The entry point, or None to link everything because there is none and may be none."""
        line = self._line
        if line.entry in self._builder.resolver.definitions:
            return [line.entry]
        if line.phony_externals and line.noexec:
            # LLVM differs: it links nothing then.
            return None
        raise self._no_entry()

    def _no_entry(self) -> CommandLineError:
        return CommandLineError(
            f"no input defines {self._line.entry}, the function to call; -entry names another one"
        )

    def check(self, write_error: Callable[[str], None]) -> None:
        """Evaluate the rules that the command names about what was linked.

        Args:
            write_error: takes text for standard error.

        Raises:
            JITLinkError: one of them does not hold, or a file cannot be read.
        """
        if self._checks is not None:
            self._checks.run(write_error)

    def run(self, library: Library) -> int:
        """Call the entry point.

        Returns:
            What it returned.
        """
        with self.times.measure(RUN_PHASE):
            address = library.address(self._line.entry)
            return run_in_process(self._executor.run_as_main(address, self._line.arguments))

    def close(self) -> None:
        """Give up the slab, and with it whatever was linked into it."""
        if self._slab is not None:
            self._slab.close()


def _checks(line: CommandLine) -> Checks | None:
    if not line.check_files:
        return None
    from jitlink.tool.check import Checks  # noqa: PLC0415 - only for those who check something

    return Checks(line.check_files, line.check_name)


def _slab(line: CommandLine) -> SlabMemoryManager | None:
    """The slab that a command asks for.

    Raises:
        AllocationError: it cannot be had.
        CommandLineError: it is impossible, or could not be run in.
    """
    if line.slab_size is None:
        return None
    try:
        slab = SlabMemoryManager(line.slab_size, line.slab_address, line.slab_page_size)
    except ValueError as error:
        raise CommandLineError(str(error)) from error
    if not slab.is_executable_in_place and not line.noexec:
        slab.close()
        raise CommandLineError(
            f"code linked for a slab at {slab.address:#x} with pages of {slab.page_size} bytes "
            "cannot run in this process; -noexec links it without running it"
        )
    return slab
