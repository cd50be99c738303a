"""Links what a command names, and runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jitlink.errors import DuplicateDefinitionError, JITLinkError, UndefinedSymbolError
from jitlink.executor import ExecutorProcessControl, SelfExecutorProcessControl
from jitlink.formats.archive import is_archive
from jitlink.inputs import InputFile, open_input
from jitlink.link import run_in_process
from jitlink.memory.slab import SlabMemoryManager
from jitlink.orc import (
    LLJIT,
    AbsoluteSymbols,
    DynamicLibraryGenerator,
    ExecutorSymbolDef,
    FailedToMaterializeError,
    JITSymbolFlags,
    MaterializationUnit,
    ReExports,
    StaticLibraryGenerator,
)
from jitlink.orc.objects import ObjectBatch
from jitlink.targets.registry import target_of_object
from jitlink.tool.libraries import InputCollector
from jitlink.tool.options import CommandLine, CommandLineError
from jitlink.tool.report import LinkReport
from jitlink.tool.times import PhaseTimes

if TYPE_CHECKING:
    from jitlink.tool.check import Checks
    from jitlink.tool.inspection import Inspection
    from jitlink.tool.progress import Progress

LOAD_PHASE = "time to load/add object files"
LINK_PHASE = "time to link object files"
RUN_PHASE = "time to execute jitlink'd code"

_ABSOLUTE = JITSymbolFlags.EXPORTED | JITSymbolFlags.ABSOLUTE


class Program:
    """A command at work: a session with what it has read, linked and is about to run.

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
        self._report = LinkReport(
            write,
            linked_files=line.show_linked_files,
            graphs=line.show_graphs,
            graph_format=line.show_graphs_format,
            addresses=line.show_addrs,
            definitions=line.definitions,
        )
        self._slab = _slab(line)
        # What is not run needs no run time; it may be for another processor, too.
        platform = False if line.noexec else None
        self._jit = LLJIT(executor=self._executor, memory_manager=self._slab, platform=platform)
        self._jit.layer.phony_externals = line.phony_externals
        if self._report.is_needed:
            self._jit.layer.add_plugin(self._report)
        self._checks = _checks(line)
        if self._checks is not None:
            self._jit.layer.add_plugin(self._checks)
        self._inspection = _inspection(line, write, self._executor)
        if self._inspection is not None:
            self._jit.layer.add_plugin(self._inspection.plugin)
        self._progress: Progress | None = None
        self._entry_address = 0

    def watch(self, progress: Progress) -> None:
        """Let somebody know how far reading and linking have come."""
        self._progress = progress
        self._jit.layer.add_plugin(progress)

    def load(self) -> None:
        """Add the inputs to the session, and define what the command defines.

        Raises:
            JITLinkError: an input is missing or unusable, or a symbol is defined twice.
        """
        with self.times.measure(LOAD_PHASE), self._tracing_failures():
            collector = InputCollector(self._line.library_directories)
            for argument in self._line.inputs:
                collector.add(argument)
            # A library that cannot be loaded is an error before anything is read.
            loaded = [
                DynamicLibraryGenerator.load(self._jit.session, path) for path in collector.dylibs
            ]
            if self._inspection is not None:
                self._inspection.add_files(collector.files)
            objects = [file for file in collector.files if not is_archive(file.data)]
            harness = [open_input(path) for path in self._line.harness]
            self._check_architecture([*objects, *harness])
            if self._progress is not None:
                self._progress.begin_reading(objects)
            self._add_harness(harness)
            self._jit.layer.add_objects(self._jit.main, objects)
            if self._progress is not None:
                self._progress.finish_reading()
            for file in collector.files:
                if is_archive(file.data):
                    self._add_archive(file)
            for generator in loaded:
                self._jit.main.add_generator(generator)
            self._define()

    def _add_harness(self, files: list[InputFile]) -> None:
        """Add the objects of the harness, and let their rules hold for all others."""
        if files:
            from jitlink.orc.harness import HarnessRules  # noqa: PLC0415 - only for those with one

            batch = ObjectBatch(files)
            self._jit.layer.symbol_rules = HarnessRules.of(batch)
            self._jit.session.run(lambda: self._jit.layer.define_objects(self._jit.main, batch))

    def _add_archive(self, file: InputFile) -> None:
        archive = StaticLibraryGenerator(self._jit.layer, file)
        if self._inspection is not None:
            self._inspection.add_archive(archive)
        if self._line.all_load:
            archive.force_load(self._jit.main)
        else:
            self._jit.main.add_generator(archive)

    def _define(self) -> None:
        line = self._line
        if line.definitions:
            absolute = {
                name: ExecutorSymbolDef(address, _ABSOLUTE) for name, address in line.definitions
            }
            self._define_unit(AbsoluteSymbols(absolute), "abs")
        if line.aliases:
            self._define_unit(ReExports(dict(line.aliases)), "alias")

    def _define_unit(self, unit: MaterializationUnit, option: str) -> None:
        try:
            self._jit.main.define(unit)
        except DuplicateDefinitionError as error:
            raise DuplicateDefinitionError(
                error.name, first=error.first, second=f"an -{option} option"
            ) from error

    def link(self) -> None:
        """Link what the entry point needs.

        Raises:
            JITLinkError: the link failed.
        """
        with self.times.measure(LINK_PHASE), self._tracing_failures():
            try:
                self._link()
            except FailedToMaterializeError as error:
                reason = error.reason
            else:
                if self._inspection is not None:
                    self._inspection.report()
                if self._line.show_addrs:
                    self._write("".join(f"{each}\n" for each in self._report.address_lines()))
                return
            raise reason

    @contextmanager
    def _tracing_failures(self) -> Iterator[None]:
        """Whoever traces a symbol wants to know about it above all when the link fails."""
        try:
            yield
        except JITLinkError:
            if self._inspection is not None:
                self._inspection.trace()
            raise

    def _link(self) -> None:
        jit, entry = self._jit, self._line.entry
        try:
            self._entry_address = jit.session.lookup(jit.main, entry)[entry].address
        except UndefinedSymbolError as error:
            if not (self._line.phony_externals and self._line.noexec):
                raise self._no_entry() from error
            # LLVM differs: it links nothing then.
            names = jit.session.run(lambda: list(jit.main.symbols))
            jit.session.lookup(jit.main, dict.fromkeys(names, False))

    def _check_architecture(self, objects: list[InputFile]) -> None:
        """Refuse to run what another processor's code is; to link it is fine."""
        for file in objects:
            triple = target_of_object(file.data, file.name).triple
            if not self._line.noexec and not self._executor.runs(triple):
                code, process = (each.partition("-")[0] for each in (triple, self._executor.triple))
                raise CommandLineError(
                    f"code for {code} cannot run in this process, which is {process}; -noexec "
                    "links it without running it"
                )

    def _no_entry(self) -> CommandLineError:
        from jitlink.names.demangling import with_source_name  # noqa: PLC0415 - for errors
        from jitlink.orc.suggestions import suggestions  # noqa: PLC0415

        jit, entry = self._jit, self._line.entry
        meant = jit.session.run(lambda: suggestions([entry], jit.main)).get(entry)
        advice = "-entry names another one" if meant is None else f"did you mean -entry {meant}?"
        return CommandLineError(
            f"no input defines {with_source_name(entry)}, the function to call; {advice}"
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

    def run(self) -> int:
        """Run the program: initialisers, the entry point, and what is to run at exit.

        Returns:
            What the entry point returned.
        """
        address, arguments = self._entry_address, self._line.arguments
        platform = self._jit.platform
        with self.times.measure(RUN_PHASE):
            if platform is None:
                return run_in_process(self._executor.run_as_main(address, arguments))
            return platform.run_main(self._jit.main, address, arguments)

    def close(self) -> None:
        """End the session, and give up the slab with whatever was linked into it."""
        self._jit.close()
        if self._slab is not None:
            self._slab.close()


def _checks(line: CommandLine) -> Checks | None:
    if not line.check_files:
        return None
    from jitlink.tool.check import Checks  # noqa: PLC0415 - only for those who check something

    return Checks(line.check_files, line.check_name, line.definitions)


def _inspection(
    line: CommandLine, write: Callable[[str], None], executor: ExecutorProcessControl
) -> Inspection | None:
    """What takes down the links of a command that wants reports about them."""
    if line.map_file is None and not line.traced_symbols:
        return None
    from jitlink.tool.inspection import Inspection  # noqa: PLC0415 - only for who wants reports

    return Inspection(line, write, executor)


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
