"""Allocators of programs: JITDylibs that define ``malloc`` and ``free`` themselves.

In a static program the C library allocates with the program's ``malloc``, and the program frees
what it gets from the library with its own ``free``. Here the C library is that of the process,
whose code, Python among it, must go on allocating with the process's own. Therefore a JITDylib with
an allocator gets its own versions of the functions through which memory would change hands
(`ALLOCATION`).

- The allocator may be in the JITDylib, in an archive of it, or in one that it is linked against.
- ``malloc`` and its kin belong together: a native link with one of them and without another that
  is needed is a duplicate definition, since the C library has all of them in one object.
- Functions that cannot be replaced are refused. Those of other shared libraries are not known; nor
  are ``wscanf`` and its kin replaced, which allocate only if the format says so.
- ``operator new`` is not replaced: code within the C++ library allocates with that of the library
  what inline functions in the program free.

Specification: the GNU C library manual, "Replacing malloc".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum
from typing import TYPE_CHECKING

from jitlink.errors import AllocatorError
from jitlink.graph import Scope
from jitlink.input_reader import InputReader
from jitlink.orc.generators import StaticLibraryGenerator
from jitlink.orc.interface import JITDylibLookupFlags, JITSymbolFlags, MaterializationUnit
from jitlink.orc.whole_graph import WholeGraph
from jitlink.runtime import (
    ALLOCATION,
    ALLOCATION_FUNCTIONS,
    HEAP_FUNCTIONS,
    IRREPLACEABLE,
    PROCESS_PREFIX,
    open_object,
)

if TYPE_CHECKING:
    from jitlink.orc.dylib import JITDylib
    from jitlink.orc.materialization import MaterializationResponsibility
    from jitlink.platform.base import Platform

_EXPORTED = JITDylibLookupFlags.MATCH_EXPORTED_ONLY


class _Origin(Enum):
    """What defines a name: linked code, or the call that gave its address."""

    LINKED = "linked"
    GIVEN = "given"


async def add_functions(
    platform: Platform, dylib: JITDylib, names: Mapping[str, bool], process: JITDylib
) -> None:
    """Define functions in a JITDylib with an allocator; on the driver thread.

    Args:
        platform: the platform.
        dylib: the JITDylib; nothing happens if the process allocates for it.
        names: what the JITDylib looks up and does not define.
        process: the JITDylib of the process's symbols.

    Raises:
        AllocatorError: one of the names is of the process's allocator, and has no other version.
    """
    places = _places_before(dylib, process)
    if "malloc" in names:
        places = [place for place in places if place[0] is not dylib]
    malloc = _origin(places, "malloc")
    if malloc is None:
        return
    is_linked = malloc is _Origin.LINKED
    absent = [name for name in names if _origin(places, name) is None]
    heap = [name for name in absent if name in HEAP_FUNCTIONS]
    if heap and is_linked:
        raise AllocatorError(dylib.name, heap)
    if _origin(places, "free") is None:
        return
    fixed = [name for name in absent if name in IRREPLACEABLE]
    if fixed and is_linked:
        raise AllocatorError(dylib.name, fixed)
    wanted = [name for name in absent if name in ALLOCATION_FUNCTIONS]
    if not wanted:
        return
    units = [
        AllocationFunctionsUnit(platform, process, name)
        for name in sorted({ALLOCATION_FUNCTIONS[name] for name in wanted})
    ]
    for unit in units:
        await unit.choose()
    tracker = platform.states[dylib].tracker
    dylib.put_first(tracker)
    for unit in units:
        # The allocator may define some, and another search may have added them meanwhile.
        unit.symbols = {n: f for n, f in unit.symbols.items() if n not in dylib.symbols}
        if unit.symbols:
            dylib.add_unit(unit, tracker)


def _places_before(
    dylib: JITDylib, process: JITDylib
) -> list[tuple[JITDylib, JITDylibLookupFlags]]:
    """The JITDylibs that a JITDylib searches before the process; none without the process."""
    order = dylib.link_order
    searched = [each for each, _ in order]
    return list(order[: searched.index(process)]) if process in searched else []


def _origin(places: list[tuple[JITDylib, JITDylibLookupFlags]], name: str) -> _Origin | None:
    """What defines a name, or would if it were looked up."""
    for dylib, flags in places:
        definition = dylib.symbols.get(name)
        if definition is not None:
            found = definition.flags[name]
            if flags is _EXPORTED and not found.is_exported:
                continue
            return _Origin.GIVEN if found & JITSymbolFlags.ABSOLUTE else _Origin.LINKED
        for generator in dylib.generators:
            if isinstance(generator, StaticLibraryGenerator) and generator.find([name]):
                return _Origin.LINKED
            if isinstance(generator, WholeGraph):
                found_flags = generator.flags_of([name]).get(name)
                if found_flags is not None:
                    is_given = found_flags & JITSymbolFlags.ABSOLUTE
                    return _Origin.GIVEN if is_given else _Origin.LINKED
    return None


class AllocationFunctionsUnit(MaterializationUnit):
    """Defines the functions of one prebuilt object that the process has, too.

    Args:
        platform: the platform.
        process: the JITDylib of the process's symbols.
        name: the object, one of `ALLOCATION`.
    """

    is_generated = True

    def __init__(self, platform: Platform, process: JITDylib, name: str) -> None:
        self.name = name
        self.symbols: Mapping[str, JITSymbolFlags] = {}
        self._platform = platform
        self._process = process

    async def choose(self) -> None:
        """Choose what to define: what the process lacks stays undefined."""
        found = await self._process_addresses(ALLOCATION[self.name])
        flags = JITSymbolFlags.WEAK | JITSymbolFlags.CALLABLE
        self.symbols = dict.fromkeys(found, flags)

    async def materialize(self, responsibility: MaterializationResponsibility) -> None:
        """Link the object."""
        builder = InputReader()
        builder.add([open_object(self._platform.session.executor.triple, self.name)])
        resolver, graph = builder.resolver, builder.target_graph
        names = [n for n in resolver.undefined if n.startswith(PROCESS_PREFIX)]
        first = graph.symbol_table.rows
        found = await self._process_addresses([n.removeprefix(PROCESS_PREFIX) for n in names])
        for name in names:
            # What is null is called by no function that is chosen.
            builder.define(name, found.get(name.removeprefix(PROCESS_PREFIX), 0))
        resolver.hide_from(first)
        resolver.finish()
        for name in ALLOCATION[self.name]:
            symbol = graph.find_defined_symbol_by_name(name)
            if symbol is not None and not responsibility.defines(name):
                symbol.scope = Scope.LOCAL
        await self._platform.layer.emit(responsibility, graph)

    async def _process_addresses(self, names: Collection[str]) -> dict[str, int]:
        """Addresses of those names that the process has."""
        order = [(self._process, _EXPORTED)]
        found = await self._platform.session.lookup_async(order, dict.fromkeys(names, False))
        return {name: symbol.address for name, symbol in found.items()}
