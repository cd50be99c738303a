"""One definition across the process of variables with vague linkage.

Inline variables, static members of templates, static variables of inline functions and the guards
of their initialisation are defined in every object that uses them. A static linker keeps one of a
program, and the dynamic linker lets all libraries use that one. Here libraries were loaded first
and use theirs, so linked code uses theirs, too: the definition of what comes first in the link
order, of a library or of a JITDylib that has been linked already.

- This holds for variables in COMDAT groups, GNU unique or weak, that code may write to. A variable
  and its guard are bound together or not at all.
- Functions, virtual tables, type information and other constants stay the linked code's own: a
  second one makes no difference but in its address, and most of them would have to be asked for.
  The C++ library compares types by name.
- Hidden and thread-local variables stay the linked code's own, as do all variables of code that is
  limited to low addresses: it could not reach those of a library, nor could -fPIE code reach its.
- What is not ready is not used: its link may fail, and may wait for the graph that asks.
- A graph without such variables asks the executor nothing.

Specification: Itanium C++ ABI, chapter 5.2, "Vague Linkage"; GNU gABI extensions, STB_GNU_UNIQUE.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jitlink.graph import BlockFlags, LinkGraph, MemProt, Scope, SymbolFlags
from jitlink.graph.columns import Int64Array, rows_where
from jitlink.graph.link_graph import NO_ADDRESS_LIMIT
from jitlink.graph.strings import NO_NAME
from jitlink.graph.tables import ABSOLUTE, DEFINED, Linkage
from jitlink.orc.generators import DynamicLibraryGenerator
from jitlink.orc.interface import JITSymbolFlags, LookupKind, SymbolState
from jitlink.orc.lookup import look_up
from jitlink.targets.registry import target_of_graph

if TYPE_CHECKING:
    from jitlink.orc.dylib import Definition, JITDylib

_COMDAT, _WRITE = int(BlockFlags.COMDAT), int(MemProt.WRITE)
_DEFAULT, _WEAK = int(Scope.DEFAULT), int(Linkage.WEAK)
_CONSTANT_AFTER_RELOCATION = ".data.rel.ro"
_NO_BLOCK = -1
_VARIABLE, _GUARD = "_Z", "_ZGV"


async def bind_variables(graph: LinkGraph, dylib: JITDylib) -> None:
    """Let a graph use the variables with vague linkage that there are already.

    Its definitions of them become absolute symbols.

    Args:
        graph: a graph that is about to be linked.
        dylib: the JITDylib that it is linked into.
    """
    if not np.count_nonzero(graph.block_table.flags & _COMDAT):
        return
    rows = _variables(graph)
    executor = dylib.session.executor
    if not len(rows) or not executor.runs(graph.triple):
        return
    limit = target_of_graph(graph).address_limit(graph)
    if min(limit, dylib.address_limit) < NO_ADDRESS_LIMIT:
        return
    names = graph.strings.get_many(graph.symbol_table.name[rows])
    found = await _find(dylib, names)
    # A guard of another variable would leave this one uninitialised, or initialise it twice.
    partners = {name: _GUARD + name.removeprefix(_VARIABLE) for name in names}
    apart = {
        pair
        for pair in partners.items()
        if pair[1] in partners and (pair[0] in found) != (pair[1] in found)
    }
    excluded = {name for pair in apart for name in pair}
    table = graph.symbol_table
    for row, name in zip(rows.tolist(), names, strict=True):
        if name in found and name not in excluded:
            table.kind[row], table.block[row], table.value[row] = ABSOLUTE, _NO_BLOCK, found[name]


def _variables(graph: LinkGraph) -> Int64Array:
    """Rows (int64) of the symbols of variables with vague linkage."""
    table, blocks, sections = graph.symbol_table, graph.block_table, graph.section_list
    rows = rows_where((table.kind == DEFINED) & (table.scope == _DEFAULT))
    flags, block = table.flags[rows], table.block[rows]
    chosen = (table.linkage[rows] == _WEAK) | (flags & int(SymbolFlags.UNIQUE) != 0)
    chosen &= (flags & int(SymbolFlags.CALLABLE) == 0) & (table.name[rows] != NO_NAME)
    own = blocks.flags[block]
    chosen &= (own & _COMDAT != 0) & (own & int(BlockFlags.THREAD_LOCAL) == 0)
    section = blocks.section[block]
    chosen &= (sections.prots() & _WRITE != 0)[section]
    rows = rows[chosen]
    names = map(sections.name, section[chosen].tolist())
    is_variable = [not name.startswith(_CONSTANT_AFTER_RELOCATION) for name in names]
    variables: Int64Array = rows[np.array(is_variable, np.bool_)]
    return variables


async def _find(dylib: JITDylib, names: list[str]) -> dict[str, int]:
    """Addresses of those names that the rest of a JITDylib's link order has already."""
    found: dict[str, int] = {}
    for other, flags in dylib.link_order:
        wanted = [name for name in names if name not in found]
        is_limited = other.address_limit < NO_ADDRESS_LIMIT
        if other is dylib or not wanted or not other.is_open or is_limited:
            continue
        for generator in tuple(other.generators):
            absent = {name: False for name in wanted if name not in other.symbols}
            if absent and isinstance(generator, DynamicLibraryGenerator):
                await generator.try_to_generate(LookupKind.STATIC, other, flags, absent)
        here = {name: True for name in wanted if _is_there(other.symbols.get(name), name)}
        if here:
            order, state = [(other, flags)], SymbolState.READY
            linked = await look_up(dylib.session, order, here, state, LookupKind.STATIC)
            found |= {name: each.addresses[name] for name, each in linked.items()}
    return found


def _is_there(definition: Definition | None, name: str) -> bool:
    """Whether a definition is for all to use, and is ready or waits for nothing."""
    if definition is None or definition.failed or not definition.flags[name].is_exported:
        return False
    is_absolute = bool(definition.flags[name] & JITSymbolFlags.ABSOLUTE)
    return is_absolute or definition.state >= SymbolState.READY
