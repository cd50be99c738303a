"""Lazy functions: lazy re-exports, layers of lazy and of hidden objects, speculation.

A lazy function is a stub (see `jitlink.orc.stubs`); its body is linked when the stub is first
called::

    stubs = IndirectStubsManager(layer)
    layer.add_object(bodies, "filters.o")
    main.define(lazy_reexports(stubs, bodies, {"median": "median"}))

Code that is linked into ``main`` and calls ``median`` is ready at once; ``filters.o`` is linked
when, and if, the call is made. The bodies are best kept in a JITDylib that the callers' link order
does not name: code that finds the body itself links it.

`LazyHiddenObjectLayer` adds whole objects and archives with other symbols than they have. *Hidden*
objects define their symbols for their own JITDylib only: nothing is exported. Functions of *lazy*
objects are stubs, through which the object is linked when one of them is called. The function
itself is defined under its name with `BODY_SUFFIX`. Data is not lazy: an object is linked when its
data is referred to. Within the object, functions call each other directly, and the address that
the object takes of its own function is that of the body, not of the stub. An object with
initialisers is not lazy where a platform runs them, which is before any of its functions is
called::

    lazy = LazyHiddenObjectLayer(layer, SymbolTransform(is_lazy=True), IndirectStubsManager(layer))
    lazy.add_objects(main, [open_input("filters.o")])
    main.add_generator(StaticLibraryGenerator(lazy, "libdsp.a"))

A `Speculator` links bodies in the background before they are called. A body becomes a candidate as
soon as its stub is materialized, because linked code then refers to it. The bodies that an earlier
run called go first, in that order; the others follow in the order of their stubs. One body is
looked up at a time, with a pause before each, so that a thread that waits for something else is
delayed by one link at most. A body that cannot be linked is skipped: the error is reported when
the function is called.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from jitlink.graph import LinkGraph, Scope, SymbolFlags, SymbolKind
from jitlink.graph.columns import Int64Array
from jitlink.input_reader import SymbolRules
from jitlink.inputs import InputFile
from jitlink.logs import Log
from jitlink.orc.dylib import JITDylib
from jitlink.orc.interface import JITSymbolFlags, MaterializationUnit
from jitlink.orc.object_batch import ObjectBatch, read_batch
from jitlink.orc.object_layer import ObjectLinkingLayer
from jitlink.orc.object_unit import ObjectPart, ObjectUnit
from jitlink.orc.session import ExecutionSession
from jitlink.orc.stubs import FUNCTION, FunctionBody, IndirectStubsManager
from jitlink.tasks import Task

if TYPE_CHECKING:
    from jitlink.orc.interface import ResourceTracker


def lazy_reexports(
    stubs: IndirectStubsManager,
    source: JITDylib,
    aliases: Mapping[str, str],
    flags: JITSymbolFlags = FUNCTION,
) -> MaterializationUnit:
    """Aliases of functions that are linked when they are first called.

    A missing body is an error only then. The stubs of all aliases are materialized when the first
    of them is looked up.

    Args:
        stubs: creates the stubs.
        source: the JITDylib of the bodies; all of its symbols match, exported or not.
        aliases: the body's name for each alias.
        flags: flags of the aliases.

    Returns:
        A unit for `JITDylib.define` of any JITDylib.
    """
    return stubs.unit({alias: FunctionBody(source, name) for alias, name in aliases.items()}, flags)


BODY_SUFFIX = "$orc_fnbody"
"""Suffix of the name of a lazy function's body; the same as LLVM's."""

Symbols = Mapping[str, JITSymbolFlags]


@dataclass(frozen=True, slots=True)
class SymbolTransform:
    """How the symbols of objects are changed when they are added.

    Attributes:
        is_hidden: whether no symbol is exported.
        is_lazy: whether their functions are linked when they are called.
    """

    is_hidden: bool = False
    is_lazy: bool = False

    def visible(self, symbols: Symbols) -> dict[str, JITSymbolFlags]:
        """The symbols with their new flags."""
        hidden = JITSymbolFlags.EXPORTED if self.is_hidden else JITSymbolFlags.NONE
        return {name: flags & ~hidden for name, flags in symbols.items()}

    def apply(self, graph: LinkGraph, rows: Int64Array) -> None:
        """Transform definitions of a graph, given by the rows (int64) of their symbols."""
        table = graph.symbol_table
        if self.is_hidden:
            exported = rows[table.scope[rows] == int(Scope.DEFAULT)]
            table.scope[exported] = int(Scope.HIDDEN)
        if self.is_lazy:
            callable_ = table.flags[rows] & int(SymbolFlags.CALLABLE) != 0
            functions = rows[callable_ & (table.kind[rows] == int(SymbolKind.DEFINED))]
            names = graph.strings.get_many(table.name[functions])
            references = graph.strings.add_many([name + BODY_SUFFIX for name in names])
            table.name[functions] = np.asarray(references)


def is_function(flags: JITSymbolFlags) -> bool:
    """Whether a symbol of a lazy object is a stub."""
    return bool(flags & JITSymbolFlags.CALLABLE) and not flags & JITSymbolFlags.ABSOLUTE


class LazyHiddenObjectUnit(ObjectUnit):
    """An object whose symbols are transformed."""

    def merge_key(self) -> Hashable | None:
        """Hidden objects can be linked together; each lazy one is linked when it is called.

        Any objects of a linker set are linked together.
        """
        key, transform = super().merge_key(), self.parts[0].transform
        if self.set_use or key is None:
            return key
        is_lazy = isinstance(transform, SymbolTransform) and transform.is_lazy
        return None if is_lazy else (key, transform)


class LazyHiddenObjectLayer:
    """Adds objects whose symbols are transformed.

    Args:
        layer: links them.
        transform: how their symbols are changed.
        stubs: creates the stubs of lazy functions; required only for those.
    """

    def __init__(
        self,
        layer: ObjectLinkingLayer,
        transform: SymbolTransform,
        stubs: IndirectStubsManager | None = None,
    ) -> None:
        if transform.is_lazy and stubs is None:
            raise ValueError("lazy objects require stubs")
        self._layer = layer
        self._transform = transform
        self._stubs = stubs

    @property
    def symbol_rules(self) -> SymbolRules | None:
        """Rules that are applied to all objects that are read, transformed or not."""
        return self._layer.symbol_rules

    def add_objects(
        self, dylib: JITDylib, files: Sequence[InputFile], tracker: ResourceTracker | None = None
    ) -> None:
        """Add objects, all or none; see `ObjectLinkingLayer.add_objects`.

        Raises:
            InputError: an object cannot be read.
            DuplicateDefinitionError: a strong definition exists already.
            ResourceTrackerDefunctError: the tracker, or the JITDylib, was removed.
        """
        if files:
            batch = read_batch(files, self.symbol_rules)
            self._layer.session.run(lambda: self.define_objects(dylib, batch, tracker))

    def define_objects(
        self, dylib: JITDylib, batch: ObjectBatch, tracker: ResourceTracker | None = None
    ) -> None:
        """`add_objects`, for callers on the driver thread."""
        definitions = batch.definitions_for(dylib)
        for file, symbols in zip(batch.files, definitions, strict=True):
            dylib.resolve_precedence(symbols, file.name)
        for number, symbols in enumerate(definitions):
            self._define(dylib, batch, number, self._transform.visible(symbols), tracker)
        self._layer.record(dylib, batch, tracker)

    def _define(
        self,
        dylib: JITDylib,
        batch: ObjectBatch,
        number: int,
        visible: Symbols,
        tracker: ResourceTracker | None,
    ) -> None:
        own, transform = visible, self._transform
        initializers, others = self._layer.side_effects(batch, number)
        if initializers:
            transform = replace(transform, is_lazy=False)
        if transform.is_lazy:
            functions = {name: flags for name, flags in visible.items() if is_function(flags)}
            self._define_stubs(dylib, batch.files[number].name, functions, tracker)
            own = {
                name + BODY_SUFFIX if name in functions else name: flags
                for name, flags in visible.items()
            }
        defined = {**own, **others}
        if defined:
            part = ObjectPart(batch, number, transform)
            dylib.add_unit(
                LazyHiddenObjectUnit(self._layer, [part], defined, initializers), tracker
            )

    def _define_stubs(
        self,
        dylib: JITDylib,
        file: str,
        functions: Symbols,
        tracker: ResourceTracker | None,
    ) -> None:
        assert self._stubs is not None
        for flags, names in _by_flags(functions):
            unit = self._stubs.unit({n: FunctionBody(dylib, n + BODY_SUFFIX) for n in names}, flags)
            unit.name = file
            dylib.add_unit(unit, tracker)


def _by_flags(symbols: Symbols) -> Iterable[tuple[JITSymbolFlags, list[str]]]:
    groups: dict[JITSymbolFlags, list[str]] = {}
    for name, flags in symbols.items():
        groups.setdefault(flags, []).append(name)
    return groups.items()


log = Log(__name__)

_PAUSE = 0.001
"""Seconds before each lookup of a body."""


class Speculator:
    """Links bodies in the background; a listener of an `IndirectStubsManager`.

    Args:
        session: the session of the bodies.
        suggestions: names of JITDylibs and of bodies in them, in the order in which they are
            likely to be called.
    """

    def __init__(
        self, session: ExecutionSession, suggestions: Iterable[tuple[str, str]] = ()
    ) -> None:
        self._session = session
        self._ranks: dict[tuple[str, str], int] = {}
        for rank, suggestion in enumerate(suggestions):
            self._ranks.setdefault(suggestion, rank)
        self._waiting: set[FunctionBody] = set()
        self._queue: list[tuple[int, int, FunctionBody]] = []
        self._numbers = itertools.count()
        self._task: Task[None] | None = None
        self._is_scheduled = False

    def stubs_emitted(self, bodies: Sequence[FunctionBody]) -> None:
        """Record bodies that may be called."""
        for body in bodies:
            if body not in self._waiting:
                self._waiting.add(body)
                rank = self._ranks.get((body.dylib.name, body.name), len(self._ranks))
                heapq.heappush(self._queue, (rank, next(self._numbers), body))
        self._schedule()

    def stub_called(self, body: FunctionBody) -> None:
        """Leave a body to the call that links it."""
        self._waiting.discard(body)

    def stop(self) -> None:
        """Link nothing more; from any thread."""
        self._session.run(self._clear)

    def _clear(self) -> None:
        self._waiting.clear()
        self._queue.clear()

    # On the driver thread

    def _schedule(self) -> None:
        if self._queue and not self._is_scheduled:
            self._is_scheduled = True
            self._session.call_later(_PAUSE, self._begin)

    def _begin(self) -> None:
        self._task = self._session.begin(self._link_next(), Context())

    async def _link_next(self) -> None:
        try:
            body = self._next()
            if body is not None:
                await self._session.lookup_async(body.dylib, body.name)
        except Exception as error:  # noqa: BLE001 - the call will report it
            log.debug("not linked before its call: %s", error)
        finally:
            self._is_scheduled = False
            if not self._session.is_ending:
                self._schedule()

    def _next(self) -> FunctionBody | None:
        while self._queue:
            _, _, body = heapq.heappop(self._queue)
            if body in self._waiting:
                self._waiting.discard(body)
                return body
        return None
