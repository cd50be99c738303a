"""Objects that are added in another shape than they have: hidden, or with lazy functions.

*Hidden* objects define what they define for their own JITDylib only: nothing of it is exported.

Functions of *lazy* objects are stubs, through which the object is linked when one of them is
called. The function itself is there under its name with `BODY_SUFFIX`. Data is not lazy: an object
is linked when its data is referred to. Within the object, functions call each other directly; and
the address that it takes of its own function is that of the body, not of the stub. An object with
initialisers is not lazy where they are run, which is before any of its functions is called.

Both are ways to add objects and archives, by `ReshapedObjectLayer`::

    lazy = ReshapedObjectLayer(layer, Shape(is_lazy=True), IndirectStubsManager(layer))
    lazy.add_objects(main, [open_input("filters.o")])
    main.add_generator(StaticLibraryGenerator(lazy, "libdsp.a"))
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from jitlink.graph import LinkGraph, Scope, SymbolFlags, SymbolKind
from jitlink.inputs import GraphBuilder, InputFile, SymbolRules
from jitlink.orc.object_layer import ObjectLinkingLayer
from jitlink.orc.objects import Exported, ObjectBatch, ObjectUnit
from jitlink.orc.stubs import Body, IndirectStubsManager
from jitlink.orc.symbols import JITSymbolFlags

if TYPE_CHECKING:
    from jitlink.orc.dylib import JITDylib
    from jitlink.orc.tracker import ResourceTracker

BODY_SUFFIX = "$orc_fnbody"
"""What the name of a lazy function's body has behind the name of the function; LLVM's."""

Symbols = Mapping[str, JITSymbolFlags]


@dataclass(frozen=True, slots=True)
class Shape:
    """What is different from the objects as they are.

    Attributes:
        is_hidden: whether other JITDylibs do not see what they define.
        is_lazy: whether their functions are linked when they are called.
    """

    is_hidden: bool = False
    is_lazy: bool = False

    def visible(self, symbols: Symbols) -> dict[str, JITSymbolFlags]:
        """The symbols with the flags that others see."""
        hidden = JITSymbolFlags.EXPORTED if self.is_hidden else JITSymbolFlags.NONE
        return {name: flags & ~hidden for name, flags in symbols.items()}

    def apply(self, graph: LinkGraph, exported: Exported) -> None:
        """Change a graph's definitions."""
        table = graph.symbol_table
        if self.is_hidden:
            rows = exported.rows
            rows = rows[table.scope[rows] == int(Scope.DEFAULT)]
            table.scope[rows] = int(Scope.HIDDEN)
        if self.is_lazy:
            rows = exported.rows
            callable_ = table.flags[rows] & int(SymbolFlags.CALLABLE) != 0
            rows = rows[callable_ & (table.kind[rows] == int(SymbolKind.DEFINED))]
            names = graph.strings.get_many(table.name[rows])
            references = graph.strings.add_many([name + BODY_SUFFIX for name in names])
            table.name[rows] = np.asarray(references)


def is_function(flags: JITSymbolFlags) -> bool:
    """Whether a symbol of a lazy object is a stub."""
    return bool(flags & JITSymbolFlags.CALLABLE) and not flags & JITSymbolFlags.ABSOLUTE


class ReshapedObjectUnit(ObjectUnit):
    """The promise of objects in a shape."""

    def __init__(
        self,
        layer: ObjectLinkingLayer,
        parts: Sequence[tuple[ObjectBatch, int]],
        symbols: Symbols,
        initializers: Sequence[str],
        shape: Shape,
    ) -> None:
        super().__init__(layer, parts, symbols, initializers)
        self.shape = shape

    def merge_key(self) -> Hashable | None:
        """Hidden objects can be linked together; each lazy one waits for its own first call."""
        key = super().merge_key()
        return None if key is None or self.shape.is_lazy else (key, self.shape)

    def of(
        self,
        parts: Sequence[tuple[ObjectBatch, int]],
        symbols: Symbols,
        initializers: Sequence[str],
    ) -> ReshapedObjectUnit:
        """A promise of other objects in this shape."""
        return ReshapedObjectUnit(self.layer, parts, symbols, initializers, self.shape)

    def reshape(self, builder: GraphBuilder, exported: Exported) -> Exported:
        """Give the graph its shape."""
        self.shape.apply(builder.target_graph, exported)
        return Exported(builder.target_graph, builder.comdat_blocks)


class ReshapedObjectLayer:
    """Adds objects in a shape.

    Args:
        layer: links them.
        shape: what is different from the objects as they are.
        stubs: makes the stubs of lazy functions; needed for those only.
    """

    def __init__(
        self, layer: ObjectLinkingLayer, shape: Shape, stubs: IndirectStubsManager | None = None
    ) -> None:
        if shape.is_lazy and stubs is None:
            raise ValueError("lazy objects need stubs")
        self._layer = layer
        self._shape = shape
        self._stubs = stubs

    @property
    def symbol_rules(self) -> SymbolRules | None:
        """What is applied to objects that are read, in whatever shape."""
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
            batch = ObjectBatch(files, self.symbol_rules)
            self._layer.session.run(lambda: self.define_objects(dylib, batch, tracker))

    def define_objects(
        self, dylib: JITDylib, batch: ObjectBatch, tracker: ResourceTracker | None = None
    ) -> None:
        """`add_objects`, for callers on the session's thread."""
        for file, symbols in zip(batch.files, batch.definitions, strict=True):
            dylib.weigh(symbols, file.name)
        initializers = batch.initializers if self._layer.promises_initializers else {}
        for number, symbols in enumerate(batch.definitions):
            visible, marker = self._shape.visible(symbols), initializers.get(number)
            if marker is not None:
                promised = {**visible, marker: JITSymbolFlags.SIDE_EFFECTS_ONLY}
                shape = replace(self._shape, is_lazy=False)
                unit = ReshapedObjectUnit(self._layer, [(batch, number)], promised, [marker], shape)
                dylib.add_unit(unit, tracker)
            else:
                self._define(dylib, batch, number, visible, tracker)
        batch.note_commons(self._layer.common_sizes(dylib))

    def _define(
        self,
        dylib: JITDylib,
        batch: ObjectBatch,
        number: int,
        visible: Symbols,
        tracker: ResourceTracker | None,
    ) -> None:
        own = visible
        if self._shape.is_lazy:
            functions = {name: flags for name, flags in visible.items() if is_function(flags)}
            self._define_stubs(dylib, batch.files[number].name, functions, tracker)
            own = {
                name + BODY_SUFFIX if name in functions else name: flags
                for name, flags in visible.items()
            }
        if own:
            unit = ReshapedObjectUnit(self._layer, [(batch, number)], own, (), self._shape)
            dylib.add_unit(unit, tracker)

    def _define_stubs(
        self,
        dylib: JITDylib,
        file: str,
        functions: Symbols,
        tracker: ResourceTracker | None,
    ) -> None:
        assert self._stubs is not None
        for flags, names in _by_flags(functions):
            unit = self._stubs.unit({n: Body(dylib, n + BODY_SUFFIX) for n in names}, flags)
            unit.name = file
            dylib.add_unit(unit, tracker)


def _by_flags(symbols: Symbols) -> Iterable[tuple[JITSymbolFlags, list[str]]]:
    groups: dict[JITSymbolFlags, list[str]] = {}
    for name, flags in symbols.items():
        groups.setdefault(flags, []).append(name)
    return groups.items()
