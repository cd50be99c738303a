"""Adds the inputs and definitions of a command to the JITDylibs of a session.

The link order of each JITDylib is itself, its libraries in the order of the command, and the
process; the platform's functions precede shared libraries. A library is static, and its members are
added to the JITDylib; shared, and a JITDylib of its own; or another JITDylib of the command.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from jitlink.errors import DuplicateDefinitionError, ExecutorError
from jitlink.executor.runtime_targets import runtime_target
from jitlink.formats.archive_magic import is_archive
from jitlink.inputs import InputFile, open_input
from jitlink.lljit import LLJIT
from jitlink.orc import (
    AbsoluteSymbols,
    DynamicLibraryGenerator,
    ExecutorSymbolDef,
    JITDylib,
    JITDylibLookupFlags,
    JITSymbolFlags,
    MaterializationUnit,
    ObjectLinkingLayer,
    StaticLibraryGenerator,
)
from jitlink.orc.generators import extract_needed
from jitlink.orc.object_batch import ObjectBatch
from jitlink.targets.registry import target_of_object
from jitlink.tool.libraries import InputCollector
from jitlink.tool.options import (
    MAIN_DYLIB,
    AliasArgument,
    CommandLine,
    CommandLineError,
    DylibArguments,
    InputArgument,
    SectionArgument,
)

if TYPE_CHECKING:
    from jitlink.orc.lazy import LazyHiddenObjectLayer
    from jitlink.orc.stubs import IndirectStubsManager
    from jitlink.tool.inspection import Inspection
    from jitlink.tool.progress import Progress

_ABSOLUTE = JITSymbolFlags.EXPORTED | JITSymbolFlags.ABSOLUTE

# Prefixes of the parts of target triples whose objects are not ELF.
_FOREIGN_SYSTEMS = (
    *("windows", "win32", "cygwin", "mingw", "uefi", "darwin", "macos", "ios", "tvos", "watchos"),
    *("xros", "driverkit", "wasi", "emscripten", "aix", "zos"),
)


_LayerKey = tuple[bool, bool]
"""Whether an input is hidden, and whether it is lazy."""


class _Found:
    """The opened inputs of a JITDylib.

    Attributes:
        objects: the layer that adds them, and consecutive objects, in order.
        archives: static archives with the layer that adds their members, in order.
        libraries: the JITDylibs that it is linked against, in order.
    """

    def __init__(self) -> None:
        self.objects: list[tuple[_LayerKey, list[InputFile]]] = []
        self.archives: list[tuple[_LayerKey, InputFile]] = []
        self.libraries: list[JITDylib] = []


class SessionInputs:
    """Adds the inputs of a command to a session.

    Args:
        jit: the session, with the JITDylib ``main``.
        line: the command.
        stubs: creates the stubs of lazy inputs; None if there are none.
        inspection: records the inputs for reports; None without reports.
        progress: counts what is read; None without a progress bar.

    Attributes:
        dylibs: the JITDylibs of the command, by name.
    """

    def __init__(
        self,
        jit: LLJIT,
        line: CommandLine,
        stubs: IndirectStubsManager | None = None,
        inspection: Inspection | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._jit = jit
        self._line = line
        self._stubs = stubs
        self._inspection = inspection
        self._progress = progress
        self._layers: dict[_LayerKey, ObjectLinkingLayer | LazyHiddenObjectLayer] = {
            (False, False): jit.layer
        }
        self._libraries: dict[str, JITDylib] = {}
        self.dylibs: dict[str, JITDylib] = {MAIN_DYLIB: jit.main}

    def add(self) -> None:
        """Add all inputs and definitions.

        Raises:
            JITLinkError: an input is missing or unusable, or a symbol is defined twice.
        """
        for path in self._line.preloads:
            self._jit.session.wait(self._jit.session.executor.load_dylib(path))
        for arguments in self._line.dylibs[1:]:
            self.dylibs[arguments.name] = self._jit.create_jitdylib(arguments.name)
        if not self._line.noexec:
            self._make_visible()
        self._add_harness()
        for arguments in self._line.dylibs:
            self._add_inputs(arguments)
        for arguments in self._line.dylibs:
            self._define(arguments)
        for arguments in self._line.dylibs:
            if arguments.undefined:
                self._extract(self.dylibs[arguments.name], arguments.undefined)

    def _extract(self, dylib: JITDylib, names: Sequence[str]) -> None:
        self._jit.session.run(lambda: extract_needed(dylib, names))

    def _make_visible(self) -> None:
        """Make the JITDylibs images of the process, where that is supported.

        As natively, a program exports symbols only if it is asked to, a library always.
        """
        from jitlink.orc.images import make_visible  # noqa: PLC0415 - not with -noexec

        line, layer = self._line, self._jit.layer
        for name, dylib in self.dylibs.items():
            is_program = name == MAIN_DYLIB
            shown = name
            if is_program:
                path = line.symbol_file
                shown = line.program_name if path is None else os.path.abspath(path)  # noqa: PTH100
            try:
                make_visible(layer, dylib, shown, exports=line.rdynamic or not is_program)
            except ExecutorError:
                if line.rdynamic or line.symbol_file is not None:
                    raise
        if line.symbol_file is not None:
            from jitlink.tool.symbol_file import SymbolFileWriter  # noqa: PLC0415 - seldom needed

            layer.add_plugin(SymbolFileWriter(line.symbol_file, self._jit.main))

    def _add_harness(self) -> None:
        """Add the objects of the harness to ``main``, and apply their rules to all other inputs."""
        if not self._line.harness:
            return
        from jitlink.orc.harness import HarnessRules  # noqa: PLC0415 - only with -harness

        files = [open_input(path) for path in self._line.harness]
        for file in files:
            self._check_runs(file)
        batch, layer = ObjectBatch(files), self._jit.layer
        layer.symbol_rules = HarnessRules.of(batch)
        self._jit.session.run(lambda: layer.define_objects(self._jit.main, batch))

    # Inputs

    def _add_inputs(self, arguments: DylibArguments) -> None:
        dylib = self.dylibs[arguments.name]
        found = self._find(arguments)
        objects = [file for _, files in found.objects for file in files]
        for file in objects:
            self._check_runs(file)
        if self._progress is not None:
            self._progress.begin_reading(objects)
        for key, files in found.objects:
            self._layer(key).add_objects(dylib, files)
        if self._progress is not None:
            self._progress.finish_reading()
        for key, file in found.archives:
            self._add_archive(dylib, key, file)
        if self._line.harness:
            # The definitions that override others are in main.
            found.libraries.append(self._jit.main)
        self._link_against(dylib, found.libraries)

    def _find(self, arguments: DylibArguments) -> _Found:
        """Open the inputs of a JITDylib, and load its shared libraries."""
        directories = list(arguments.library_directories)
        if self._line.search_system_libraries:
            from jitlink.library_search import run_time_directories  # noqa: PLC0415

            directories += run_time_directories()
        self.dylibs[arguments.name].library_directories = tuple(directories)
        collector = InputCollector(directories)
        found = _Found()
        for argument in arguments.inputs:
            other = self.dylibs.get(argument.name) if argument.kind == "library" else None
            if other is not None:
                found.libraries.append(_as_library(other, argument))
                continue
            files, paths = len(collector.files), len(collector.dylibs)
            collector.add(argument)
            key = argument.linkage == "hidden", argument.is_lazy
            for file in collector.files[files:]:
                if self._inspection is not None:
                    self._inspection.add_file(arguments.name, file, is_lazy=argument.is_lazy)
                self._check_format(file)
                if is_archive(file.data):
                    found.archives.append((key, file))
                elif found.objects and found.objects[-1][0] == key:
                    found.objects[-1][1].append(file)
                else:
                    found.objects.append((key, [file]))
            found.libraries += map(self._library, collector.dylibs[paths:])
        return found

    def _layer(self, key: _LayerKey) -> ObjectLinkingLayer | LazyHiddenObjectLayer:
        """The layer for inputs that are hidden, lazy, both or neither."""
        if key not in self._layers:
            from jitlink.orc.lazy import LazyHiddenObjectLayer, SymbolTransform  # noqa: PLC0415 - seldom

            self._layers[key] = LazyHiddenObjectLayer(
                self._jit.layer, SymbolTransform(*key), self._stubs
            )
        return self._layers[key]

    def _add_archive(self, dylib: JITDylib, key: _LayerKey, file: InputFile) -> None:
        archive = StaticLibraryGenerator(self._layer(key), file, self._check_runs)
        if self._inspection is not None:
            self._inspection.add_archive(dylib.name, archive, is_lazy=key[1])
        if self._line.all_load:
            archive.force_load(dylib)
        else:
            dylib.add_generator(archive)

    def _library(self, path: str) -> JITDylib:
        """The JITDylib of a shared library, which is loaded immediately."""
        if path not in self._libraries:
            generator = DynamicLibraryGenerator.load(self._jit.session, path)
            dylib = self._jit.session.create_jitdylib(f"<{path}>")
            dylib.add_generator(generator)
            self._libraries[path] = dylib
        return self._libraries[path]

    def _link_against(self, dylib: JITDylib, linked: list[JITDylib]) -> None:
        """Put these into the link order before the process.

        The platform's functions precede those of shared libraries, of which the C library, named
        in the command, is one.
        """
        exported, platform = JITDylibLookupFlags.MATCH_EXPORTED_ONLY, self._jit.platform
        others = [each for each in dict.fromkeys(linked) if each is not dylib]
        shared = set(self._libraries.values()) if platform is not None else set()
        order = [(each, exported) for each in others if each not in shared]
        later = [(each, exported) for each in others if each in shared]
        for each in dylib.link_order:
            if each[0] is not dylib:
                order.append(each)
            if platform is not None and each[0] is platform.dylib:
                order += later
        dylib.set_link_order(order)

    def _check_format(self, file: InputFile) -> None:
        triple = self._line.triple
        if triple is None:
            return
        if any(part.startswith(_FOREIGN_SYSTEMS) for part in triple.lower().split("-")):
            raise CommandLineError(
                f"{file.name} is not an object or archive for {triple}", option="triple"
            )

    def _check_runs(self, file: InputFile) -> None:
        """Refuse to run code for another processor; with `-noexec` it is linked."""
        triple = target_of_object(file.data, file.name).triple
        executor = self._jit.session.executor
        if executor.runs(triple):
            return
        if not self._line.noexec:
            code, process = (each.partition("-")[0] for each in (triple, executor.triple))
            where = "this process" if executor.is_this_process else "the executor"
            hint = "-oop-executor runs it in another one, " if runtime_target(triple) else ""
            raise CommandLineError(
                f"code for {code} cannot run in {where}, which is {process}; {hint}-noexec links "
                "it without running it"
            )
        from jitlink.platform.link_only import LinkOnlyPlatform  # noqa: PLC0415 - seldom needed

        if isinstance(self._jit.platform, LinkOnlyPlatform):
            self._jit.platform.links_foreign_code = True

    # Definitions

    def _define(self, arguments: DylibArguments) -> None:
        dylib = self.dylibs[arguments.name]
        if arguments.sections:
            self._define_sections(dylib, arguments.sections)
        if arguments.definitions:
            _check_distinct((name for name, _ in arguments.definitions), "abs")
            absolute = {
                name: ExecutorSymbolDef(address, _ABSOLUTE)
                for name, address in arguments.definitions
            }
            _define_unit(dylib, AbsoluteSymbols(absolute), "abs")
        if arguments.aliases:
            self._define_aliases(dylib, arguments.aliases)

    def _define_sections(self, dylib: JITDylib, sections: Sequence[SectionArgument]) -> None:
        from jitlink.tool.sections import section_graph  # noqa: PLC0415 - seldom needed

        for section in sections:
            graph = section_graph(section, self._jit.session.executor.triple)
            self._jit.layer.add_graph(dylib, graph)

    def _define_aliases(self, dylib: JITDylib, aliases: Sequence[AliasArgument]) -> None:
        from jitlink.orc.aliases import ReExports  # noqa: PLC0415 - seldom needed

        groups: dict[tuple[JITDylib, JITDylib | None], dict[str, str]] = {}
        defined: dict[JITDylib, list[str]] = {}
        for alias in aliases:
            places = self._places(alias, dylib)
            groups.setdefault(places, {})[alias.name] = alias.target
            defined.setdefault(places[0], []).append(alias.name)
        for each in defined.values():
            _check_distinct(each, "alias")
        for (place, source), names in groups.items():
            _define_unit(place, ReExports(names, source), "alias")

    def _places(self, alias: AliasArgument, here: JITDylib) -> tuple[JITDylib, JITDylib | None]:
        """The JITDylib of an alias, and that of its target if it is another one."""
        place, source = (
            None if name is None else self._named(name)
            for name in (alias.dylib, alias.target_dylib)
        )
        place = place or here
        return place, None if source is place else source

    def _named(self, name: str) -> JITDylib:
        if name not in self.dylibs:
            raise CommandLineError(f"there is no JITDylib {name}", option="alias")
        return self.dylibs[name]


def _as_library(dylib: JITDylib, argument: InputArgument) -> JITDylib:
    if argument.linkage != "plain":
        raise CommandLineError(f"{dylib.name} is a JITDylib", option=argument.option)
    return dylib


def _check_distinct(names: Iterable[str], option: str) -> None:
    """Refuse two definitions of a name by options for one JITDylib."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DuplicateDefinitionError(
                name, first=f"an -{option} option", second=f"another -{option} option"
            )
        seen.add(name)


def _define_unit(dylib: JITDylib, unit: MaterializationUnit, option: str) -> None:
    try:
        dylib.define(unit)
    except DuplicateDefinitionError as error:
        raise DuplicateDefinitionError(
            error.name, first=error.first, second=f"an -{option} option"
        ) from error
