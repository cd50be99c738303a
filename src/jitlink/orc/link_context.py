"""How a graph is linked into the JITDylib of a responsibility, and what its symbols depend on.

`MaterializationContext` is for graphs that define symbols of the JITDylib: the responsibility is
for them, or claims them when the link begins. `LayerContext` alone is for graphs whose symbols are
not defined in the JITDylib.

`dependence_groups` computes from a linked graph which external symbols its symbols reach. A symbol
reaches an external symbol if a path of edges, keep-alive edges included, leads from its block to
it. Each block has a bit set, with one bit for each external symbol. The bits are propagated along
the edges backwards, for all blocks at once, until nothing changes. The number of rounds is the
length of the longest path, but a round visits only the blocks that changed in the one before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Protocol

import numpy as np

from jitlink.errors import ExecutableStackError, TargetOutOfRangeError, UndefinedSymbolError
from jitlink.fixups import FixupTable
from jitlink.graph import Block, LinkGraph, MemProt, SymbolKind
from jitlink.graph.columns import BoolArray, Int64Array, UInt64Array, ragged_arange, rows_where
from jitlink.graph.edges import INVALID
from jitlink.link import JITLinkContext, PassConfiguration
from jitlink.orc.canonical import CanonicalSymbols
from jitlink.orc.errors import FailedToMaterializeError, UnexpectedDefinitionError
from jitlink.orc.interface import JITSymbolFlags, LookupKind, SymbolDependenceGroup, SymbolState
from jitlink.orc.linker_sets import LinkerSets
from jitlink.orc.lookup import look_up
from jitlink.orc.materialization import MaterializationResponsibility
from jitlink.orc.objects import CommonSizes, ExportedSymbols
from jitlink.orc.visibility import constrained
from jitlink.passes.ifunc import RESOLVER_SECTION
from jitlink.passes.prune import mark_exported_live
from jitlink.passes.tls_variables import PHONY_SECTION
from jitlink.resolve import referrers
from jitlink.targets.registry import target_of_graph

if TYPE_CHECKING:
    from jitlink.orc.dylib import Definition, JITDylib

_WORDS_AT_ONCE = 1 << 22
"""64-bit words that a round may copy: 32 MiB."""


def dependence_groups(
    graph: LinkGraph,
    exported: ExportedSymbols,
    unready: Mapping[str, Definition],
) -> list[SymbolDependenceGroup]:
    """Group the symbols of a graph by the external symbols that they reach.

    Args:
        graph: the graph, linked.
        exported: the symbols to be grouped.
        unready: external symbols that are not ready, with their definitions.

    Returns:
        The groups; a symbol that reaches none of the external symbols is in no group.
    """
    table = graph.symbol_table
    externals = rows_where(table.kind == int(SymbolKind.EXTERNAL))
    names = graph.strings.get_many(table.name[externals])
    wanted = [number for number, name in enumerate(names) if name in unready]
    if not wanted:
        return []
    needed = [names[number] for number in wanted]
    reached = _reached_by_block(graph, externals[wanted])

    blocks = np.where(table.kind == int(SymbolKind.DEFINED), table.block, -1)[exported.rows]
    reaches: BoolArray = (reached != 0).any(axis=1)
    with_bits = rows_where((blocks >= 0) & reaches[blocks])
    sets, group_of = np.unique(reached[blocks[with_bits]], axis=0, return_inverse=True)
    groups = [_group(bits, needed, unready) for bits in sets]
    for row, number in zip(with_bits.tolist(), group_of.ravel().tolist(), strict=True):
        groups[number].symbols.add(exported.names[row])
    return groups


def _group(
    bits: UInt64Array, needed: list[str], unready: Mapping[str, Definition]
) -> SymbolDependenceGroup:
    group = SymbolDependenceGroup(set())
    words = bits.astype("<u8").view(np.uint8)
    for number in np.unpackbits(words, bitorder="little").nonzero()[0].tolist():
        name = needed[number]
        group.dependencies.setdefault(unready[name].dylib, set()).add(name)
    return group


def _reached_by_block(graph: LinkGraph, externals: Int64Array) -> UInt64Array:
    """For each block, which of some external symbols it reaches: bits of words (uint64, 2-D)."""
    edges, symbols = graph.edge_table, graph.symbol_table
    number_of = np.full(symbols.rows, -1, np.int64)
    number_of[externals] = np.arange(len(externals))
    direct = rows_where((number_of[edges.target] >= 0) & (edges.kind != INVALID))
    numbers = number_of[edges.target[direct]]

    words = (len(externals) + 63) // 64
    reached = np.zeros((graph.block_table.rows, words), np.uint64)
    bits = np.uint64(1) << (numbers % 64).astype(np.uint64)
    np.bitwise_or.at(reached, (edges.block[direct], numbers // 64), bits)

    starts, users = _users_of_blocks(graph)
    # Some words at a time, to limit the memory of a round.
    step = max(1, _WORDS_AT_ONCE // max(1, len(users)))
    for first in range(0, words, step):
        part = reached[:, first : first + step]
        _propagate(part, starts, users)
    return reached


def _propagate(reached: UInt64Array, starts: Int64Array, users: Int64Array) -> None:
    """Add to every block's bits those of the blocks that it refers to."""
    reaches: BoolArray = (reached != 0).any(axis=1)
    changed = rows_where(reaches)
    while len(changed):
        counts = starts[changed + 1] - starts[changed]
        user = users[ragged_arange(starts[changed], counts)]
        new = reached[np.repeat(changed, counts)] & ~reached[user]
        grows: BoolArray = (new != 0).any(axis=1)
        user = user[grows]
        np.bitwise_or.at(reached, user, new[grows])
        changed = np.unique(user)


def _users_of_blocks(graph: LinkGraph) -> tuple[Int64Array, Int64Array]:
    """For each block, the blocks whose edges lead to it: start indices, and rows (int64)."""
    edges, symbols = graph.edge_table, graph.symbol_table
    count = graph.block_table.rows
    target = np.where(symbols.kind == int(SymbolKind.DEFINED), symbols.block, -1)[edges.target]
    inner = rows_where((target >= 0) & (edges.kind != INVALID) & (target != edges.block))
    # Each pair once, in order of the block that is referred to.
    pairs = target[inner] * count + edges.block[inner]
    # Not np.unique, which hashes integers: that takes five times as long as to sort them.
    pairs.sort()
    pairs = pairs[np.diff(pairs, prepend=-1) != 0]
    starts: Int64Array = (pairs // max(count, 1)).searchsorted(np.arange(count + 1))
    users: Int64Array = pairs % max(count, 1)
    return starts, users


_PHONY_SIZE = 64
"""Bytes of zeros at the address of phony externals."""


class UnplacedNames(Protocol):
    """Names that are defined without an address, because the code that is linked does not run."""

    @property
    def dylib(self) -> JITDylib:
        """Where they are defined."""

    def defines(self, name: str) -> bool:
        """Whether a name is one of them."""


class LinkingLayer(Protocol):
    """An `ObjectLinkingLayer`, which documents all of this, as contexts use it."""

    phony_externals: bool
    auto_claim: bool
    executable_stack: bool | None
    writable_code: bool
    override_flags: bool
    canonical: CanonicalSymbols
    unplaced: UnplacedNames | None

    def common_sizes(self, dylib: JITDylib) -> CommonSizes:
        """Sizes of the common symbols of a JITDylib."""

    def linker_sets(self, dylib: JITDylib) -> LinkerSets:
        """The linker sets of a JITDylib."""


class LayerContext(JITLinkContext):
    """Links one graph, whose external symbols are searched for in the link order of a JITDylib.

    Args:
        layer: the layer.
        responsibility: the responsibility that the link is for.
        graph: the graph.

    Attributes:
        layer: the layer.
        phony_externals: whether undefined symbols get an address.
        executable_stack: see `ObjectLinkingLayer`, as for the next one.
        writable_code: whether sections may be both writable and executable.
        responsibility: the responsibility.
        dylib: its JITDylib.
        fixups: how the edges of the graph are applied; set by the layer.
    """

    def __init__(
        self,
        layer: LinkingLayer,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,
    ) -> None:
        self.layer = layer
        self.phony_externals = layer.phony_externals
        self.executable_stack = layer.executable_stack
        self.writable_code = layer.writable_code
        self.responsibility = responsibility
        self.dylib = responsibility.dylib
        self._graph = graph
        self._found: dict[str, Definition] = {}
        self._phony: Block | None = None
        dylib = self.dylib
        graph.is_defined_elsewhere = lambda name: (
            name in dylib.symbols and not layer.linker_sets(dylib).has_defined(name)
        )
        self.fixups: FixupTable | None = None

    async def provide_executable_stack(self, files: Sequence[str]) -> None:
        """Make stacks executable for some objects, if that is allowed.

        Raises:
            ExecutableStackError: it is not.
            ExecutorError: the executor cannot do that.
        """
        if self.executable_stack:
            await self.responsibility.session.executor.make_stacks_executable()
        elif self.executable_stack is not None:
            raise ExecutableStackError(files)

    def add_first_passes(self, config: PassConfiguration) -> None:
        """Add passes that run before those of plugins."""

    def add_last_passes(self, config: PassConfiguration) -> None:
        """Add passes that run after those of plugins."""

    def notify_resolved(self, graph: LinkGraph) -> None:  # noqa: ARG002 - for subclasses
        """Report that the responsibility, which is for no symbol of the graph, is resolved."""
        self.responsibility.notify_resolved({})

    def mark_live(self, graph: LinkGraph) -> None:
        """Keep the exported symbols, and create the block of the phony externals."""
        mark_exported_live(graph)
        unplaced = self.layer.unplaced
        if self.phony_externals or (
            unplaced is not None and any(map(unplaced.defines, graph.external_names()[1]))
        ):
            section = graph.obtain_section(PHONY_SECTION, MemProt.READ)
            self._phony = graph.create_zero_fill_block(section, _PHONY_SIZE, alignment=_PHONY_SIZE)
            graph.add_anonymous_symbol(self._phony, 0, is_live=True)

    async def lookup(self, names: Mapping[str, bool]) -> Mapping[str, int]:
        """Search the JITDylib's link order; phony externals get the address of their block."""
        dylib, phony = self.responsibility.dylib, self._phony
        order, state, kind = dylib.link_order, SymbolState.RESOLVED, LookupKind.STATIC
        missing: list[str] | None = [] if self.phony_externals else None
        try:
            found = await look_up(dylib.session, order, names, state, kind, missing)
        except FailedToMaterializeError:
            # It may be an UndefinedSymbolError, too, of another link.
            raise
        except UndefinedSymbolError as error:
            raise await self._more_complete(error.names) from None
        self._found = found
        if found and self._graph.find_section_by_name(RESOLVER_SECTION) is not None:
            # Few graphs have ifuncs.
            from jitlink.orc.ifunc_order import wait_for_callees  # noqa: PLC0415

            await wait_for_callees(self.responsibility, self._graph, found)
        addresses = {name: definition.addresses.get(name, 0) for name, definition in found.items()}
        if self.fixups is not None and found:
            canonical = self.layer.canonical
            tracker = self.responsibility.tracker
            await canonical.substitute(self._graph, self.fixups, found, addresses, tracker)
        if phony is not None:
            # LLVM differs: its phony externals are null, which some relocations cannot reach;
            # these have the address of zeros within reach of the code.
            addresses |= dict.fromkeys(missing or (), phony.address)
            if self.layer.unplaced is not None:
                place = self.layer.unplaced.dylib
                unplaced = [name for name, each in found.items() if each.dylib is place]
                addresses |= dict.fromkeys(unplaced, phony.address)
        return addresses

    async def _more_complete(self, names: Sequence[str]) -> UndefinedSymbolError:
        """An error with the referrers of undefined symbols, and suggestions."""
        from jitlink.library_search import LibrarySearch  # noqa: PLC0415
        from jitlink.orc.suggestions import available_versions, suggestions  # noqa: PLC0415

        graph = self._graph
        found = {name: graph.find_external_symbol_by_name(name) for name in names}
        users = referrers(graph, {name: symbol.row for name, symbol in found.items() if symbol})
        similar = suggestions(names, self.responsibility.dylib, graph)
        versions = await available_versions(names, self.responsibility.dylib, graph)
        return UndefinedSymbolError(
            names,
            referrers=users,
            suggestions=similar,
            versions=versions,
            search=LibrarySearch(
                target_of_graph(graph).triple, self.responsibility.dylib.library_directories
            ),
        )

    def advise(self, error: TargetOutOfRangeError) -> None:
        """Say how a target of the JITDylib itself comes into reach, if it was placed elsewhere."""
        dylib = self.responsibility.dylib
        if dylib.is_divided and error.target in self._found:
            error.advise(
                f"position-dependent code was added to {dylib.name} after the first link into it; "
                "all of it is linked below 2 GiB with address_limit=1 << 31 (-no-pie of the "
                "command), or compile that code with -fPIE"
            )

    def unready(self) -> dict[str, Definition]:
        """The definitions of external symbols that are not ready yet, by name."""
        return {
            name: definition
            for name, definition in self._found.items()
            if definition.state < SymbolState.READY
        }

    def groups(self) -> list[SymbolDependenceGroup]:
        """The dependencies of the responsibility's symbols: all external symbols, for each."""
        unready: dict[JITDylib, set[str]] = {}
        for name, definition in self.unready().items():
            unready.setdefault(definition.dylib, set()).add(name)
        return [SymbolDependenceGroup(set(self.responsibility.symbols), unready)] if unready else []


class MaterializationContext(LayerContext):
    """Links a graph whose definitions a responsibility is for.

    Args:
        layer: the layer.
        responsibility: the responsibility.
        graph: the graph.
        exported: the graph's definitions, if the responsibility is for no other symbols; those
            that it is not for are defined elsewhere.
        may_change: whether plugins may change which names the graph defines.
    """

    def __init__(
        self,
        layer: LinkingLayer,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,
        exported: ExportedSymbols | None,
        may_change: bool,
    ) -> None:
        super().__init__(layer, responsibility, graph)
        # Whether the definitions are known, and are not changed by passes.
        self._is_exact = exported is not None and not may_change
        self._may_be_overridden = exported is not None
        self._exported = exported or ExportedSymbols(graph)

    def add_first_passes(self, config: PassConfiguration) -> None:
        """See `LayerContext`."""
        config.pre_prune.insert(0, self.claim_or_externalize)

    def add_last_passes(self, config: PassConfiguration) -> None:
        """See `LayerContext`."""
        if not self._is_exact:
            config.pre_prune.append(self.claim_or_externalize)

    def _unclaimed(self) -> dict[str, JITSymbolFlags]:
        """The graph's definitions that the responsibility is not for, with flags."""
        definitions, names = self.responsibility.definitions, self._exported.names
        if self._is_exact and sum([len(definition.flags) for definition in definitions]) == len(
            names
        ):
            # The responsibility is only for definitions of the graph, so it is for all of them.
            return {}
        claimed: set[str] = set()
        for definition in definitions:
            claimed.update(definition.flags)
        if claimed.issuperset(names):
            return {}
        return self._exported.flags_of(self._graph, set(names) - claimed)

    def claim_or_externalize(self, graph: LinkGraph) -> None:
        """Claim further weak definitions, and turn overridden ones into external symbols."""
        if not self._is_exact:
            self._exported = self._exported.updated(graph)
        commons = self._exported.common_rows(graph)
        unclaimed = self._unclaimed()
        # What the JITDylib has of an object's definitions prevailed when these were added, or has
        # their COMDAT group.
        defined = self.responsibility.dylib.symbols if self._may_be_overridden else {}
        weak = {n: flag for n, flag in unclaimed.items() if not flag.is_strong and n not in defined}
        claimed = self.responsibility.define_materializing(weak) if weak else set()
        overridden = (unclaimed if self._may_be_overridden else weak).keys() - claimed
        # Strong definitions that appear later were added by plugins.
        self._may_be_overridden = False
        if overridden:
            if len(commons):
                self._check_commons(graph, commons, overridden)
            self._exported.externalize(graph, overridden)
            self._exported = self._exported.updated(graph)
        if len(commons):
            sizes = self.layer.common_sizes(self.responsibility.dylib)
            sizes.enlarge(graph, self._exported.common_rows(graph))

    def _check_commons(
        self, graph: LinkGraph, rows: Int64Array, overridden: AbstractSet[str]
    ) -> None:
        names = graph.strings.get_many(graph.symbol_table.name[rows])
        chosen = [row for row, name in zip(rows.tolist(), names, strict=True) if name in overridden]
        dylib = self.responsibility.dylib
        self.layer.common_sizes(dylib).check(graph, np.array(chosen, np.int64), dylib)

    def notify_resolved(self, graph: LinkGraph) -> None:
        """Report the addresses of the exported symbols."""
        if not self._is_exact:
            self._exported = self._exported.updated(graph)
            self._claim_late()
            self._update_flags()
        self.responsibility.notify_resolved(self._exported.addresses(graph))

    def _claim_late(self) -> None:
        """Claim what was defined after pruning, without weak definitions that are overridden."""
        extra = self._unclaimed()
        strong = {name for name, flag in extra.items() if flag.is_strong}
        if strong and not self.layer.auto_claim:
            raise UnexpectedDefinitionError(self.responsibility.unit_name, strong)
        if extra:
            self.responsibility.define_materializing(extra)

    def _update_flags(self) -> None:
        if self.layer.override_flags:
            return
        names, flags = self._exported.names, self._exported.flags(self._graph)
        actual = dict(zip(names, flags, strict=True))
        for definition in self.responsibility.definitions:
            given = {name: actual.get(name, flag) for name, flag in definition.flags.items()}
            updated = constrained(given, self.responsibility.dylib.hidden_names.names)
            if updated != definition.flags:
                definition.flags = updated

    def groups(self) -> list[SymbolDependenceGroup]:
        """The dependencies of the exported symbols on external symbols that are not ready."""
        unready = self.unready()
        return dependence_groups(self._graph, self._exported, unready) if unready else []
