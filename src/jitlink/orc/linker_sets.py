"""Linker sets of a JITDylib: one section of a name, whichever objects its elements are in.

A linker set is a section whose name is a C identifier; `__start_` and `__stop_` with its name are
its bounds (`jitlink.passes.linker_defined`). The rules:

- When an object that has elements of a set, or refers to its bounds, is linked, so are all objects
  of its JITDylib and tracker that have elements, in one link and in order of addition. Members of
  archives count if something refers to them, which is found out before; a set extracts none.
- The link defines the bounds, hidden, for what is linked later and has no elements of its own.
- Objects that are added after that, and those of another tracker, are like another shared object:
  they have a set of their own, which their references lead to.
- If the link fails, objects that have elements of a set whose bounds are referred to fail together.
  All others are linked apart.

In the same way, an object that refers to a bound of the program's image, such as ``_end``, is
linked together with all objects of its JITDylib and tracker.

LLVM differs: there, each graph has its own sets and no image.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from jitlink.graph import LinkGraph
from jitlink.orc.interface import (
    JITDylibLookupFlags,
    JITSymbolFlags,
    LookupKind,
    MaterializationUnit,
    SymbolState,
)
from jitlink.orc.lookup import look_up
from jitlink.passes.linker_defined import (
    START,
    STOP,
    SetUse,
    export_set_bounds,
    find_bounds,
    set_name,
)

if TYPE_CHECKING:
    from jitlink.orc.dylib import Definition, JITDylib
    from jitlink.orc.materialization import MaterializationResponsibility

_FEW = 16


class LinkerSets:
    """The linker sets of one JITDylib; for the driver thread.

    Each object with elements defines a symbol for side effects only, its element symbol.
    """

    def __init__(self) -> None:
        # Element symbols by set, in order of addition.
        self._elements: dict[str, dict[str, None]] = {}
        self._purge_at: dict[str, int] = {}
        # Names of the bounds that links have defined.
        self._bounds: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._elements)

    def add(self, dylib: JITDylib, sets: Iterable[str], symbol: str) -> None:
        """Record the element symbol of an object that was added to the JITDylib."""
        if not self._elements:
            dylib.add_generator(_BoundsGenerator(self), last=True)
        for name in sets:
            known = self._elements.setdefault(name, {})
            known[symbol] = None
            if len(known) > self._purge_at.get(name, _FEW):
                self._elements[name] = known = {s: None for s in known if s in dylib.symbols}
                self._purge_at[name] = 2 * len(known) + _FEW

    def elements(self, dylib: JITDylib, name: str) -> Iterator[Definition]:
        """The definitions of the element symbols of a set, without those that have failed."""
        for symbol in tuple(self._elements.get(name, ())):
            definition = dylib.symbols.get(symbol)
            if definition is not None and not definition.failed:
                yield definition

    def has_defined(self, bound: str) -> bool:
        """Whether the definition of a bound is that of a link, and not the program's own."""
        return bound in self._bounds

    def define_bounds(
        self,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,
        sets: Iterable[str],
        own: Iterable[str],
    ) -> None:
        """Define the bounds of sets that a graph has elements of, if nothing else does.

        Args:
            responsibility: the responsibility for the graph.
            graph: the graph.
            sets: names of the sets.
            own: names that the graph itself defines.
        """
        bounds = {START + name for name in sets} | {STOP + name for name in sets}
        absent = [b for b in bounds - set(own) if b not in responsibility.dylib.symbols]
        wanted = [b for b in absent if (name := set_name(b)) and find_bounds(graph, name)]
        if wanted:
            flags = dict.fromkeys(sorted(wanted), JITSymbolFlags.WEAK)
            defined = responsibility.define_materializing(flags)
            self._bounds |= defined
            export_set_bounds(graph, sorted(defined))


class _BoundsGenerator:
    """Links the elements of sets whose bounds are looked up."""

    def __init__(self, sets: LinkerSets) -> None:
        self._sets = sets

    async def try_to_generate(
        self,
        kind: LookupKind,
        dylib: JITDylib,
        flags: JITDylibLookupFlags,
        names: Mapping[str, bool],
    ) -> None:
        """Have the link of a set define its bounds."""
        if kind is LookupKind.DLSYM or flags is JITDylibLookupFlags.MATCH_EXPORTED_ONLY:
            return
        for name in names:
            section = set_name(name)
            for definition in () if section is None else self._sets.elements(dylib, section):
                if name in dylib.symbols:
                    break
                symbols = dict.fromkeys(definition.flags, False)
                order = [(dylib, JITDylibLookupFlags.MATCH_ALL_SYMBOLS)]
                await look_up(dylib.session, order, symbols, SymbolState.RESOLVED, kind)


def companions(
    sets: LinkerSets, use: SetUse, definition: Definition, handled: set[Hashable]
) -> Iterator[Definition]:
    """Definitions that must be linked together with one, if the same layer links them.

    Args:
        sets: the linker sets of its JITDylib.
        use: what its unit has to do with linker sets.
        definition: the definition.
        handled: see `MaterializationUnit.companions`.
    """
    dylib, tracker = definition.dylib, definition.tracker
    names: Iterable[str | None] = [None] if use.image else use.elements | use.bounds
    for name in names:
        if (sets, name, tracker) not in handled:
            handled.add((sets, name, tracker))
            candidates = tracker.definitions if name is None else sets.elements(dylib, name)
            yield from (other for other in candidates if other.tracker is tracker and other.unit)


def separate(
    uses: Sequence[tuple[MaterializationUnit, SetUse]],
) -> list[list[MaterializationUnit]]:
    """Groups of units that can be linked apart."""
    if any(use.image for _, use in uses):
        return [[unit for unit, _ in uses]]
    bounds = frozenset().union(*(use.bounds for _, use in uses))
    groups: list[list[MaterializationUnit]] = []
    group_of: dict[str, list[MaterializationUnit]] = {}
    for unit, use in uses:
        sets = (use.elements | use.bounds) & bounds
        together = [unit]
        for other in {id(g): g for g in (group_of.get(name) for name in sets) if g}.values():
            together += other
            other.clear()
        groups.append(together)
        members = frozenset(name for name, group in group_of.items() if not group) | sets
        group_of.update(dict.fromkeys(members, together))
    return [group for group in groups if group]
