"""ObjectLinkingLayer: links objects and graphs into JITDylibs, watched by plugins.

For each link, in this order:

1. `Plugin.notify_loaded` of every plugin, in order of addition, then `Plugin.prepare`;
2. `Plugin.modify_pass_config` of every plugin; the graph's own passes are in the lists;
3. the passes, as `jitlink.link.link` describes them; the first one turns definitions that hold
   elsewhere into references, so passes see what will be linked;
4. `Plugin.notify_emitted` of every plugin, when the code is in executor memory but nobody who
   waits for it has been told;
5. or, if anything fails on the way, `Plugin.notify_failed` of every plugin, once, whichever of
   the others it has been called for. The link's memory has been released by then.

Objects that are needed together are one link. If that fails, each is linked by itself, with all
these calls of its own.

A link is watched by the plugins that the layer had when it began. When resources are released
or change owner, `notify_removing_resources` (before the memory goes) and
`notify_transferring_resources` (after the memory changed owner) of the plugins that the layer
has then are called, in reverse order of addition.

An exception in a plugin fails the link that it is called for, and nothing else. Where there is
nothing left to fail, in notify_failed and while resources are released, everything else is done
first, and the exception becomes a note of the link's error or is raised to the caller.

Plugins are called on the session's thread: they must not wait for anything that happens there.

LLVM differs: its notify_loaded comes with no plugin told of failures before it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from weakref import WeakKeyDictionary

import numpy as np

from jitlink.errors import JITLinkError, UndefinedSymbolError
from jitlink.graph import LinkGraph
from jitlink.graph.columns import Int64Array
from jitlink.inputs import Input, InputFile, open_input
from jitlink.link import JITLinkContext, PassConfiguration, link
from jitlink.memory.manager import FinalizedAlloc, JITLinkMemoryManager
from jitlink.orc.definition import Definition
from jitlink.orc.dependencies import dependence_groups
from jitlink.orc.dylib import JITDylib
from jitlink.orc.errors import SessionError, UnexpectedDefinitionError, raise_first
from jitlink.orc.lookup import look_up
from jitlink.orc.materialization import MaterializationResponsibility, SymbolDependenceGroup
from jitlink.orc.objects import CommonSizes, Exported, GraphUnit, ObjectBatch, ObjectUnit
from jitlink.orc.session import ExecutionSession
from jitlink.orc.symbols import JITSymbolFlags, LookupKind, SymbolState
from jitlink.orc.tracker import ResourceManager, ResourceTracker
from jitlink.passes.prune import mark_exported_live
from jitlink.resolve import referrers
from jitlink.targets.registry import default_passes


class Plugin:
    """Base of what watches and changes links; every method may be left as it is.

    Attributes:
        defines_symbols: whether its passes may change which names a graph defines. Links are
            faster if no plugin's do.
    """

    defines_symbols = True

    def modify_pass_config(
        self,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,
        config: PassConfiguration,
    ) -> None:
        """Add passes to a link, or take some away."""

    def notify_loaded(self, responsibility: MaterializationResponsibility) -> None:
        """A link begins."""

    async def prepare(
        self, responsibility: MaterializationResponsibility, graph: LinkGraph
    ) -> None:
        """Do what must be waited for before the passes run; the link waits, and others go on."""

    def notify_emitted(self, responsibility: MaterializationResponsibility) -> None:
        """A link is complete and its code in executor memory.

        What is to be released with it is kept under ``responsibility.tracker``.
        """

    def notify_failed(self, responsibility: MaterializationResponsibility) -> None:
        """A link has failed; what was set up for it is to be undone."""

    def notify_removing_resources(self, dylib: JITDylib, key: ResourceTracker) -> None:
        """What was emitted under a key is about to be released."""

    def notify_transferring_resources(
        self, dylib: JITDylib, destination: ResourceTracker, source: ResourceTracker
    ) -> None:
        """What was emitted under one key is now under another."""


class ObjectLinkingLayer(ResourceManager):
    """Links into one session.

    Args:
        session: the session.
        memory: where the memory comes from, by default the executor's memory manager.

    Attributes:
        batch_objects: whether objects of one JITDylib and owner that are needed at the same
            time are linked as one graph.
        auto_claim: whether a link may define strong symbols that were not promised, such as
            those that a plugin adds. If not, they are an `UnexpectedDefinitionError`. Weak ones
            are always taken on if there is no other definition.
        override_flags: what holds where the flags of an object's definitions are not those
            that were promised: the promise's, or, by default, the object's.
        promises_initializers: whether what has initialisers promises a symbol that stands for
            them; a platform, which looks it up, wants it so.
    """

    def __init__(
        self, session: ExecutionSession, memory: JITLinkMemoryManager | None = None
    ) -> None:
        self.session = session
        self.memory = memory or session.executor.memory_manager
        self.batch_objects = True
        self.auto_claim = False
        self.override_flags = False
        self.promises_initializers = False
        self._plugins: list[Plugin] = []
        self._numbers = itertools.count()
        self._allocs: dict[ResourceTracker, list[FinalizedAlloc]] = {}
        self._commons: WeakKeyDictionary[JITDylib, CommonSizes] = WeakKeyDictionary()
        session.run(lambda: session.resource_managers.append(self))

    def add_plugin(self, plugin: Plugin) -> None:
        """Let a plugin watch all links that begin from now on."""
        self.session.run(lambda: self._plugins.append(plugin))

    def remove_plugin(self, plugin: Plugin) -> None:
        """Let a plugin watch no further links, and no releases.

        Raises:
            ValueError: the layer has no such plugin.
        """
        self.session.run(lambda: self._plugins.remove(plugin))

    def add_object(
        self, dylib: JITDylib, source: Input, tracker: ResourceTracker | None = None
    ) -> None:
        """Add an object; it is linked when one of its symbols is looked up.

        Args:
            dylib: where to.
            source: path or bytes; the file must not be changed before it is linked.
            tracker: what owns it, by default the JITDylib's default tracker.

        Raises:
            InputError: the object cannot be read.
            DuplicateDefinitionError: a strong definition exists already.
            ResourceTrackerDefunctError: the tracker, or the JITDylib, was removed.
        """
        self.add_objects(dylib, [self._open(source)], tracker)

    def _open(self, source: Input) -> InputFile:
        if isinstance(source, bytearray | memoryview):
            # The caller may change these before they are linked.
            source = bytes(source)
        return open_input(source, next(self._numbers))

    def add_objects(
        self, dylib: JITDylib, files: Sequence[InputFile], tracker: ResourceTracker | None = None
    ) -> None:
        """Add objects; each is linked when one of its symbols is looked up.

        Raises:
            InputError: an object cannot be read.
            DuplicateDefinitionError: a strong definition exists already.
            ResourceTrackerDefunctError: the tracker, or the JITDylib, was removed.

        After an error none of them has been added.
        """
        if files:
            batch = ObjectBatch(files)
            self.session.run(lambda: self.define_objects(dylib, batch, tracker))

    def define_objects(
        self, dylib: JITDylib, batch: ObjectBatch, tracker: ResourceTracker | None = None
    ) -> None:
        """`add_objects`, for callers on the session's thread."""
        if len(batch.files) > 1:
            # All or none: the last one may be refused, and then the first must not be there.
            for file, symbols in zip(batch.files, batch.definitions, strict=True):
                dylib.weigh(symbols, file.name)
        initializers = batch.initializers if self.promises_initializers else {}
        for number, symbols in enumerate(batch.definitions):
            part, marker = [(batch, number)], initializers.get(number)
            if marker is not None:
                promised = {**symbols, marker: JITSymbolFlags.SIDE_EFFECTS_ONLY}
                dylib.add_unit(ObjectUnit(self, part, promised, [marker]), tracker)
            elif symbols:
                dylib.add_unit(ObjectUnit(self, part, symbols), tracker)
        batch.note_commons(self.common_sizes(dylib))

    def common_sizes(self, dylib: JITDylib) -> CommonSizes:
        """Sizes of the common symbols of a JITDylib; for the session's thread."""
        sizes = self._commons.get(dylib)
        if sizes is None:
            sizes = self._commons[dylib] = CommonSizes()
        return sizes

    def add_graph(
        self, dylib: JITDylib, graph: LinkGraph, tracker: ResourceTracker | None = None
    ) -> None:
        """Add a graph that was built by hand; the layer owns it from now on.

        Raises:
            DuplicateDefinitionError: a strong definition exists already.
            ResourceTrackerDefunctError: the tracker, or the JITDylib, was removed.
        """
        dylib.define(GraphUnit(self, graph), tracker)

    # On the session's thread

    async def emit(
        self,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,
        exported: Exported | None = None,
    ) -> None:
        """Link a graph for a responsibility.

        Args:
            responsibility: what the graph is to define. It is not told if the link fails: let
                the error leave `MaterializationUnit.materialize`.
            graph: the graph.
            exported: what the graph defines, if the responsibility is for just that, less what
                is defined elsewhere or was removed; the rest becomes references then.

        Raises:
            UnexpectedDefinitionError: the graph defines what the responsibility is not for.
            MissingDefinitionsError: it does not define what the responsibility is for.
            JITLinkError: the link failed otherwise. The plugins have been told.
        """
        plugins = tuple(self._plugins)
        is_watched = any(plugin.defines_symbols for plugin in plugins)
        context = _LayerContext(self, responsibility, graph, exported, is_watched)
        try:
            for plugin in plugins:
                plugin.notify_loaded(responsibility)
            for plugin in plugins:
                await plugin.prepare(responsibility, graph)
            config = default_passes(graph)
            config.pre_prune.insert(0, context.claim)
            for plugin in plugins:
                plugin.modify_pass_config(responsibility, graph, config)
            if not context.is_exact:
                config.pre_prune.append(context.claim)
            alloc = await link(graph, context, config, self.memory)
            await self._emitted(responsibility, context, alloc, plugins)
        except BaseException as error:
            for failure in _call_all(plugins, lambda each: each.notify_failed(responsibility)):
                error.add_note(str(failure))
            raise

    async def emit_object(
        self, responsibility: MaterializationResponsibility, source: Input
    ) -> None:
        """Link an object, given as path or bytes, for a responsibility.

        Raises:
            InputError: the object cannot be read.
            JITLinkError: as for `emit`.
        """
        batch = ObjectBatch([self._open(source)])
        builder, _ = batch.take([0])
        builder.resolver.finish()
        await self.emit(responsibility, builder.target_graph)

    async def _emitted(
        self,
        responsibility: MaterializationResponsibility,
        context: _LayerContext,
        alloc: FinalizedAlloc,
        plugins: Sequence[Plugin],
    ) -> None:
        try:
            for plugin in plugins:
                plugin.notify_emitted(responsibility)
            tracker = responsibility.tracker
            responsibility.notify_emitted(context.groups())
        except BaseException as error:
            try:
                await self.memory.deallocate([alloc])
            except JITLinkError as other:
                error.add_note(str(other))
            raise
        self._allocs.setdefault(tracker, []).append(alloc)

    async def handle_remove_resources(self, dylib: JITDylib, key: ResourceTracker) -> None:
        """Release the memory of everything that was emitted under a key.

        Raises:
            SessionError: a plugin failed, or memory could not be released; all else was done.
        """
        errors = _call_all(
            self._plugins[::-1], lambda each: each.notify_removing_resources(dylib, key)
        )
        allocs = self._allocs.pop(key, [])
        if allocs:
            try:
                await self.memory.deallocate(allocs)
            except JITLinkError as error:
                errors.append(error)
        raise_first(errors)

    def handle_transfer_resources(
        self, dylib: JITDylib, destination: ResourceTracker, source: ResourceTracker
    ) -> None:
        """Keep under one key what was emitted under another.

        Raises:
            SessionError: a plugin failed; all others have been told.
        """
        allocs = self._allocs.pop(source, [])
        if allocs:
            self._allocs.setdefault(destination, []).extend(allocs)
        errors = _call_all(
            self._plugins[::-1],
            lambda each: each.notify_transferring_resources(dylib, destination, source),
        )
        raise_first(errors)


def _call_all(plugins: Sequence[Plugin], call: Callable[[Plugin], None]) -> list[JITLinkError]:
    """Call plugins, all of them, and return what they raised."""
    errors: list[JITLinkError] = []
    for plugin in plugins:
        try:
            call(plugin)
        except JITLinkError as error:
            errors.append(error)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            failure = SessionError(f"a plugin failed: {type(error).__name__}: {error}")
            failure.__cause__ = error
            errors.append(failure)
    return errors


class _LayerContext(JITLinkContext):
    """Links one graph into the JITDylib of a responsibility.

    Args:
        layer: the layer.
        responsibility: what the graph is to define.
        graph: the graph.
        exported: what it defines as it is, if that is what was promised or less.
        is_watched: whether plugins may change what it defines.

    Attributes:
        is_exact: whether nobody can change that the graph defines what was promised or less.
    """

    def __init__(
        self,
        layer: ObjectLinkingLayer,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,
        exported: Exported | None,
        is_watched: bool,
    ) -> None:
        self.layer = layer
        self.responsibility = responsibility
        self.dylib = responsibility.dylib
        self._graph = graph
        self.is_exact = exported is not None and not is_watched
        self._may_have_less = exported is not None
        self._exported = exported or Exported(graph)
        self._found: dict[str, Definition] = {}

    def _unpromised(self) -> dict[str, JITSymbolFlags]:
        """What the graph defines and the responsibility is not for."""
        definitions, names = self.responsibility.definitions, self._exported.names
        if self.is_exact and sum([len(each.flags) for each in definitions]) == len(names):
            # Only what the graph defines was promised, so nothing is left.
            return {}
        promised: set[str] = set()
        for definition in definitions:
            promised |= definition.flags.keys()
        if promised.issuperset(names):
            return {}
        return self._exported.flags_of(self._graph, set(names) - promised)

    def claim(self, graph: LinkGraph) -> None:
        """Take on what may be defined here, and refer to where else the rest is defined."""
        if not self.is_exact:
            self._exported = self._exported.again(graph)
        commons = self._exported.common_rows(graph)
        unpromised = self._unpromised()
        weak = {name: flag for name, flag in unpromised.items() if not flag.is_strong}
        taken = self.responsibility.define_materializing(weak) if weak else set()
        yielding = (unpromised if self._may_have_less else weak).keys() - taken
        # What comes later was added by plugins.
        self._may_have_less = False
        if yielding:
            if len(commons):
                self._check_commons(graph, commons, yielding)
            self._exported.externalize(graph, yielding)
            self._exported = self._exported.again(graph)
        if len(commons):
            sizes = self.layer.common_sizes(self.responsibility.dylib)
            sizes.enlarge(graph, self._exported.common_rows(graph))

    def _check_commons(
        self, graph: LinkGraph, rows: Int64Array, yielding: AbstractSet[str]
    ) -> None:
        names = graph.strings.get_many(graph.symbol_table.name[rows])
        chosen = [row for row, name in zip(rows.tolist(), names, strict=True) if name in yielding]
        dylib = self.responsibility.dylib
        self.layer.common_sizes(dylib).check(graph, np.array(chosen, np.int64), dylib)

    def mark_live(self, graph: LinkGraph) -> None:
        """Keep what the responsibility is for."""
        mark_exported_live(graph)

    def notify_resolved(self, graph: LinkGraph) -> None:
        """Announce the addresses of what the graph exports."""
        if not self.is_exact:
            self._exported = self._exported.again(graph)
            self._claim_late()
            self._agree_on_flags()
        self.responsibility.notify_resolved(self._exported.addresses(graph))

    def _claim_late(self) -> None:
        """Take on what was defined after pruning; weak definitions may stay unannounced."""
        extra = self._unpromised()
        strong = {name for name, flag in extra.items() if flag.is_strong}
        if strong and not self.layer.auto_claim:
            raise UnexpectedDefinitionError(self.responsibility.unit_name, strong)
        if extra:
            self.responsibility.define_materializing(extra)

    def _agree_on_flags(self) -> None:
        if self.layer.override_flags:
            return
        names, flags = self._exported.names, self._exported.flags(self._graph)
        actual = dict(zip(names, flags, strict=True))
        for definition in self.responsibility.definitions:
            held = {name: actual.get(name, flag) for name, flag in definition.flags.items()}
            if held != definition.flags:
                definition.flags = held

    async def lookup(self, names: Mapping[str, bool]) -> Mapping[str, int]:
        """Search the JITDylib's link order."""
        dylib = self.responsibility.dylib
        order, state, kind = dylib.link_order, SymbolState.RESOLVED, LookupKind.STATIC
        try:
            self._found = await look_up(dylib.session, order, names, state, kind)
        except UndefinedSymbolError as error:
            users = self._referrers(error.names)
            raise UndefinedSymbolError(error.names, referrers=users) from error
        return {name: each.addresses.get(name, 0) for name, each in self._found.items()}

    def _referrers(self, names: Sequence[str]) -> dict[str, list[str]]:
        graph = self._graph
        found = {name: graph.find_external_symbol_by_name(name) for name in names}
        return referrers(graph, {name: symbol.row for name, symbol in found.items() if symbol})

    def groups(self) -> list[SymbolDependenceGroup]:
        """What the symbols of the graph need that is not ready yet."""
        unready = {
            name: definition
            for name, definition in self._found.items()
            if definition.state < SymbolState.READY
        }
        if not unready:
            return []
        return dependence_groups(self._graph, self._exported, unready)
