"""Links the inputs of a command, and runs the program."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

from jitlink.errors import JITLinkError, UndefinedSymbolError
from jitlink.executor import ExecutorProcessControl, SelfExecutorProcessControl
from jitlink.graph.link_graph import NO_ADDRESS_LIMIT
from jitlink.link import run_in_process
from jitlink.lljit import LLJIT
from jitlink.memory import InProcessMemoryManager
from jitlink.orc import FailedToMaterializeError, JITDylib, JITDylibLookupFlags
from jitlink.tool.inputs import SessionInputs
from jitlink.tool.options import CommandLine, CommandLineError

if TYPE_CHECKING:
    from jitlink.memory.slab import SlabMemoryManager
    from jitlink.platform import PlatformCreator
    from jitlink.tool.backtraces import SymbolTableWriter
    from jitlink.tool.check import Checks
    from jitlink.tool.inspection import Inspection
    from jitlink.tool.lazy import LazyLinking
    from jitlink.tool.progress import Progress
    from jitlink.tool.report import LinkReport
    from jitlink.tool.times import PhaseTimes

LOAD_PHASE = "time to load/add object files"
LINK_PHASE = "time to link object files"
RUN_PHASE = "time to execute jitlink'd code"

_ALL = JITDylibLookupFlags.MATCH_ALL_SYMBOLS


class CommandSession:
    """The session of a command, from loading its inputs to running the program.

    Args:
        line: the command.
        write: takes text for standard output.
        report_error: takes messages of errors that do not end the command.
        executor: where to link and run, by default where the command says; the session closes it.

    Attributes:
        times: how long each phase took; None without `-show-times`.

    Raises:
        JITLinkError: the session cannot be set up as the options ask.
    """

    def __init__(
        self,
        line: CommandLine,
        write: Callable[[str], None],
        report_error: Callable[[str], None],
        executor: ExecutorProcessControl | None = None,
    ) -> None:
        self.times = _times(line)
        self._line = line
        self._write = write
        self._report_error = report_error
        self._executor = executor or _executor(line)
        self._report = _report(line, write)
        self._lazy: LazyLinking | None = None
        self._symbol_table: SymbolTableWriter | None = None
        self._checks: Checks | None = None
        self._inspection: Inspection | None = None
        self._progress: Progress | None = None
        self._dylibs: list[JITDylib] = []
        self._entry_address = 0
        self._slab = _slab(line)
        try:
            self._jit = _jit(line, self._executor, self._slab)
        except BaseException:
            self._close_executor()
            raise
        try:
            self._set_up()
        except BaseException:
            self.close()
            raise

    def _set_up(self) -> None:
        """Set up the session, apart from its inputs, as the options ask."""
        line, layer = self._line, self._jit.layer
        layer.phony_externals = line.phony_externals
        layer.executable_stack = None if line.noexec else line.executable_stack
        layer.writable_code = line.writable_code
        self._jit.session.error_handler = self._report_lazy_failure
        if line.add_self_relocations:
            from jitlink.tool.self_relocations import SelfRelocations  # noqa: PLC0415 - seldom

            layer.add_plugin(SelfRelocations())
        if self._report is not None:
            layer.add_plugin(self._report)
        if line.write_symtab is not None:
            from jitlink.tool.backtraces import SymbolTableWriter  # noqa: PLC0415 - seldom needed

            self._symbol_table = SymbolTableWriter(line.write_symtab)
            layer.add_plugin(self._symbol_table)
        if line.check_files:
            from jitlink.tool.check import Checks  # noqa: PLC0415 - only with -check

            self._checks = Checks(line.check_files, line.check_name, line.definitions)
            layer.add_plugin(self._checks)
        if line.map_file is not None or line.traced_symbols:
            from jitlink.tool.inspection import Inspection  # noqa: PLC0415 - only for reports

            self._inspection = Inspection(line, self._write, self._executor)
            layer.add_plugin(self._inspection.plugin)
        if any(each.is_lazy for each in line.inputs):
            from jitlink.tool.lazy import LazyLinking  # noqa: PLC0415 - only for lazy inputs

            self._lazy = LazyLinking(layer, line)

    def watch(self, progress: Progress) -> None:
        """Let an object count the progress of reading and linking."""
        self._progress = progress
        self._jit.layer.add_plugin(progress)

    def load(self) -> None:
        """Add the inputs and definitions of the command to the session.

        Raises:
            JITLinkError: an input is missing or unusable, or a symbol is defined twice.
        """
        with self._measured(LOAD_PHASE), self._tracing_failures():
            stubs = None if self._lazy is None else self._lazy.stubs
            inputs = SessionInputs(self._jit, self._line, stubs, self._inspection, self._progress)
            inputs.add()
            self._dylibs += inputs.dylibs.values()

    def link(self) -> None:
        """Link what the entry point needs, and print the reports that the options ask for.

        Raises:
            JITLinkError: the link failed.
        """
        if self._line.show_initial_session:
            self._write(self._jit.session.dump())
        with self._tracing_failures():
            try:
                with self._measured(LINK_PHASE):
                    self._link()
            except FailedToMaterializeError as error:
                if self._line.show_failures:
                    self._report_error(error.consequence)
                reason = error.reason
            else:
                if self._inspection is not None:
                    self._inspection.report()
                return
            finally:
                self._show_result()
            raise reason

    def link_initializers(self) -> None:
        """Link all that has initialisers, before any of them runs.

        Raises:
            JITLinkError: something could not be linked.
        """
        platform = self._jit.platform
        if platform is None:
            return
        try:
            with self._measured(LINK_PHASE), self._tracing_failures():
                for dylib in {self._jit.main: None, self._home_of_entry(): None}:
                    self._jit.session.wait(platform.link_initializers(dylib))
        except FailedToMaterializeError as error:
            reason = error.reason
        else:
            return
        raise reason

    def _measured(self, phase: str) -> AbstractContextManager[None]:
        return nullcontext() if self.times is None else self.times.measure(phase)

    @contextmanager
    def _tracing_failures(self) -> Iterator[None]:
        """Print the traces of symbols also if the link fails, when they are needed most."""
        try:
            yield
        except JITLinkError:
            if self._inspection is not None:
                self._inspection.trace()
            raise

    def _link(self) -> None:
        session, entry = self._jit.session, self._line.entry
        order = [(dylib, _ALL) for dylib in self._dylibs]
        # Together: what one of them needs may be in a linker set of another.
        wanted = dict.fromkeys(self._line.undefined, False) | {entry: True}
        try:
            self._entry_address = session.lookup(order, wanted)[entry].address
        except FailedToMaterializeError:
            raise
        except UndefinedSymbolError as error:
            if not (self._line.phony_externals and self._line.noexec):
                raise self._no_entry() from error
            # LLVM differs: it links nothing in this case.
            for dylib in self._dylibs:
                names: list[str] = session.run(partial(list, dylib.symbols))
                session.lookup(dylib, dict.fromkeys(names, False))
            return
        if self._line.noexec:
            # As before a run.
            for dylib in dict.fromkeys((self._jit.main, self._home_of_entry())):
                self._jit.initialize(dylib)

    def _show_result(self) -> None:
        if self._line.show_entry_session:
            self._write(self._jit.session.dump())
        if self._report is not None and self._line.show_addrs:
            self._write("".join(f"{each}\n" for each in self._report.address_lines()))

    def _no_entry(self) -> CommandLineError:
        from jitlink.names.demangling import with_source_name  # noqa: PLC0415 - for errors
        from jitlink.orc.suggestions import suggestions  # noqa: PLC0415

        session, entry = self._jit.session, self._line.entry
        found = [session.run(partial(suggestions, [entry], dylib)) for dylib in self._dylibs]
        meant = next((names[entry] for names in found if entry in names), None)
        advice = "-entry names another one" if meant is None else f"did you mean -entry {meant}?"
        return CommandLineError(
            f"no input defines {with_source_name(entry)}, the function to call; {advice}"
        )

    def _report_lazy_failure(self, error: BaseException) -> None:
        """Report that a lazy function could not be linked, an error that no lookup raises."""
        self._report_error(str(error))

    def check(self, write_error: Callable[[str], None]) -> None:
        """Evaluate the rules of `-check`.

        Args:
            write_error: takes text for standard error.

        Raises:
            JITLinkError: a rule does not hold, or a file cannot be read.
        """
        if self._checks is not None:
            self._checks.run(write_error)

    def run(self) -> int:
        """Run the program: initialisers, the entry point, and exit handlers.

        Returns:
            What the entry point returned; 1 if it is lazy and could not be linked, which has
            then been reported.

        Raises:
            OutputFileError: the record of lazy calls could not be written.
        """
        with self._measured(RUN_PHASE):
            if self._lazy is None:
                return self._call()
            status = self._lazy.call(self._call)
        self._lazy.close()
        return status

    def _call(self) -> int:
        if not self._line.is_out_of_process:
            return self._call_entry()
        from jitlink.tool.executors import status_of_exit  # noqa: PLC0415 - seldom needed

        return status_of_exit(self._call_entry)

    def _call_entry(self) -> int:
        address, arguments = self._entry_address, self._line.arguments
        platform = self._jit.platform
        if platform is None:
            session = self._jit.session
            run = self._executor.run_as_main(address, arguments)
            if self._line.is_out_of_process:
                return session.wait(run)
            session.settle()
            return run_in_process(run)
        main, home = self._jit.main, self._home_of_entry()
        also = () if home is main else (main,)
        # Without -args there is no argv[0].
        name = self._line.program_name
        return platform.run_main(home, address, arguments, also=also, name=name)

    def _home_of_entry(self) -> JITDylib:
        """The JITDylib that defines the entry point."""

        def find() -> JITDylib:
            return next(each for each in self._dylibs if self._line.entry in each.symbols)

        return self._jit.session.run(find)

    def keep(self) -> None:
        """Keep all linked code in memory until the process ends: threads and handlers use it."""
        layer = self._jit.layer
        for dylib in self._jit.session.run(lambda: list(self._jit.session.dylibs.values())):
            layer.keep_memory(dylib)

    def close(self) -> None:
        """End the session, and release the slab with everything that was linked into it."""
        try:
            if self._lazy is not None:
                self._lazy.close()
        finally:
            self._jit.close()
            if self._symbol_table is not None:
                self._symbol_table.close()
            self._close_executor()

    def _close_executor(self) -> None:
        if self._slab is not None:
            self._slab.close()
        self._executor.close()


def _executor(line: CommandLine) -> ExecutorProcessControl:
    """The executor of a command.

    Raises:
        JITLinkError: it cannot be started, or does not listen.
    """
    if not line.is_out_of_process:
        return SelfExecutorProcessControl.shared()
    from jitlink.tool.executors import open_executor  # noqa: PLC0415 - seldom needed

    return open_executor(line)


def _jit(
    line: CommandLine, executor: ExecutorProcessControl, slab: SlabMemoryManager | None
) -> LLJIT:
    """The session of a command.

    Raises:
        JITLinkError: its runtime cannot be read or linked.
    """
    return LLJIT(
        executor=executor,
        memory_manager=_memory_manager(line, slab),
        process_symbols=line.process_symbols,
        platform=_platform(line),
        address_limit=_address_limit(line),
    )


def _address_limit(line: CommandLine) -> int:
    return 1 << 31 if line.no_pie else NO_ADDRESS_LIMIT


def _memory_manager(
    line: CommandLine, slab: SlabMemoryManager | None
) -> InProcessMemoryManager | None:
    if not line.noexec or line.is_out_of_process:
        return slab
    manager = slab or InProcessMemoryManager()
    manager.link_only()
    return manager


def _report(line: CommandLine, write: Callable[[str], None]) -> LinkReport | None:
    """The plugin that prints the links of a command, if an option asks for that."""
    graphs, contents = line.show_graphs, line.show_contents
    if not (line.show_linked_files or graphs is not None or line.show_addrs or contents):
        return None
    from jitlink.tool.report import LinkReport  # noqa: PLC0415 - only for reports

    return LinkReport(
        write,
        linked_files=line.show_linked_files,
        graphs=graphs,
        graph_format=line.show_graphs_format,
        addresses=line.show_addrs,
        contents=contents,
        definitions=line.definitions,
    )


def _times(line: CommandLine) -> PhaseTimes | None:
    if not line.show_times:
        return None
    from jitlink.tool.times import PhaseTimes  # noqa: PLC0415 - seldom needed

    return PhaseTimes()


def _platform(line: CommandLine) -> bool | PlatformCreator | None:
    if line.noexec:
        from jitlink.platform.link_only import LinkOnlyPlatform  # noqa: PLC0415 - only for -noexec

        return LinkOnlyPlatform
    if line.orc_runtime is None:
        return None
    from jitlink.platform import orc_runtime  # noqa: PLC0415 - only with -orc-runtime

    return orc_runtime(line.orc_runtime)


def _slab(line: CommandLine) -> SlabMemoryManager | None:
    """The slab that a command asks for.

    Raises:
        AllocationError: it cannot be allocated.
        CommandLineError: its parameters are invalid, or its code could not run.
    """
    if line.slab_size is None:
        return None
    from jitlink.memory.slab import SlabMemoryManager  # noqa: PLC0415 - seldom needed

    try:
        slab = SlabMemoryManager(
            line.slab_size,
            line.slab_address,
            line.slab_page_size,
            address_limit=_address_limit(line),
        )
    except ValueError as error:
        raise CommandLineError(str(error)) from error
    if not slab.is_executable_in_place and not line.noexec:
        slab.close()
        raise CommandLineError(
            f"code linked for a slab at {slab.address:#x} with pages of {slab.page_size} bytes "
            "cannot run in this process; -noexec links it without running it"
        )
    return slab
