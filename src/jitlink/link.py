"""The generic link algorithm: one coroutine that reads top to bottom.

`link` takes a graph through five lists of passes. Between them it allocates memory, looks up
external symbols, applies fixups and finalizes. It knows no format and no architecture: what is
specific to one comes in through a `PassConfiguration`, as passes, as a fixup table, and as a
`FixupPlan` where fixups take more than a table.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar, cast

import numpy as np

from jitlink import link_log
from jitlink.fixups import FixupTable
from jitlink.graph import LinkGraph, SymbolFlags
from jitlink.memory.copying import copy_unallocated_contents
from jitlink.memory.manager import (
    FinalizedAlloc,
    InFlightAlloc,
    JITLinkDylib,
    JITLinkMemoryManager,
)
from jitlink.passes.prune import mark_exported_live, prune

Pass = Callable[[LinkGraph], None]
T = TypeVar("T")


class WaitingPass(Protocol):
    """A pre-prune pass that does more if live symbols are marked already.

    It waits for that if it is the last one. Passes behind it see its effect, so that it is then run
    like any other, with `__call__`.
    """

    def __call__(self, graph: LinkGraph) -> None:
        """Run before live symbols are marked."""

    def run_marked(self, graph: LinkGraph) -> None:
        """Run when live symbols are marked, and stay so."""


class FixupPlan(Protocol):
    """How one link applies its fixups, and what they need from the steps before.

    A target has its own where fixups use values of the executor that are neither addresses of
    the graph nor of external symbols, such as offsets from the thread pointer.
    """

    def allocate(self, memory: JITLinkMemoryManager, alloc: InFlightAlloc) -> None:
        """Give addresses to the blocks that the memory manager has not allocated.

        Args:
            memory: the memory manager of the link.
            alloc: the allocation that owns what is allocated here.
        """

    def check_targets(self) -> None:
        """Refuse edges to external symbols that edges of their kinds cannot refer to."""

    async def apply(self, got_address: int | None) -> None:
        """Apply the fixups of all edges.

        Args:
            got_address: as for `FixupTable.apply`.
        """


class TableFixups:
    """The plan of a target whose fixups take no more than a table."""

    def __init__(self, graph: LinkGraph, fixups: FixupTable) -> None:
        self._graph = graph
        self._fixups = fixups

    def allocate(self, memory: JITLinkMemoryManager, alloc: InFlightAlloc) -> None:
        """Do nothing: all blocks are in the memory manager's memory."""

    def check_targets(self) -> None:
        """Do nothing: edges of every kind may refer to any external symbol."""

    async def apply(self, got_address: int | None) -> None:
        """Apply all fixups at once."""
        self._fixups.apply(self._graph, got_address=got_address)


class PassConfiguration:
    """The passes of one link, in five lists, and how its fixups are applied.

    Args:
        fixups: how the edge kinds of the graph modify content.
        pre_prune: on the graph as it was built; symbols may be marked live here. Passes that do not
            read `.eh_frame` are added by `add_pre_prune`.
        post_prune: on what is left; content may still be added (GOT entries, stubs).
        post_allocation: addresses of everything defined in the graph are known.
        pre_fixup: all addresses are known, content is in working memory but not fixed up.
        post_fixup: content is as it will be in the executor.
        got_address: finds the address of the global offset table, after allocation.
        plan_fixups: makes the fixup plan after the post-prune passes; may still add content.
        needs_executable_stack: display names of the objects whose code needs executable stacks.
    """

    def __init__(
        self,
        fixups: FixupTable,
        pre_prune: Iterable[Pass] = (),
        post_prune: Iterable[Pass] = (),
        post_allocation: Iterable[Pass] = (),
        pre_fixup: Iterable[Pass] = (),
        post_fixup: Iterable[Pass] = (),
        got_address: Callable[[LinkGraph], int | None] = lambda _graph: None,
        plan_fixups: Callable[[LinkGraph, FixupTable], FixupPlan] = TableFixups,
        needs_executable_stack: Sequence[str] = (),
    ) -> None:
        self.fixups = fixups
        self.pre_prune = list(pre_prune)
        self.post_prune = list(post_prune)
        self.post_allocation = list(post_allocation)
        self.pre_fixup = list(pre_fixup)
        self.post_fixup = list(post_fixup)
        self.got_address = got_address
        self.plan_fixups = plan_fixups
        self.needs_executable_stack = needs_executable_stack

    def add_pre_prune(self, *passes: Pass) -> None:
        """Add passes that do not read `.eh_frame` sections to the pre-prune passes.

        The last pass stays the last if it is the one that splits these sections: no pass needs
        them split then, and it waits until live symbols are marked.
        """
        place = len(self.pre_prune) - (_waiting(self.pre_prune) is not None)
        self.pre_prune[place:place] = passes


class JITLinkContext(ABC):
    """What a link asks of its client, and notifies it of."""

    dylib: JITLinkDylib | None = None

    @abstractmethod
    async def lookup(self, names: Mapping[str, bool]) -> Mapping[str, int]:
        """Addresses of external symbols.

        Args:
            names: each name, and whether it must be found.

        Raises:
            UndefinedSymbolError: some names that must be found are not; all are reported.
        """

    def mark_live(self, graph: LinkGraph) -> None:
        """Mark the symbols that dead-stripping starts from; by default all exported ones.

        Sections of frames are perhaps not split yet: see `PassConfiguration.add_pre_prune`.
        """
        mark_exported_live(graph)

    def notify_resolved(self, graph: LinkGraph) -> None:  # noqa: B027 - optional, as the next two
        """The graph's symbols have their final addresses; their content is not in place yet."""

    def notify_finalized(self, alloc: FinalizedAlloc) -> None:  # noqa: B027
        """The graph is in executor memory; the receiver must deallocate it in the end."""

    def notify_failed(self, error: BaseException) -> None:  # noqa: B027
        """The link failed; all its memory has been deallocated."""


async def link(
    graph: LinkGraph,
    context: JITLinkContext,
    passes: PassConfiguration,
    memory: JITLinkMemoryManager,
) -> FinalizedAlloc:
    """Link one graph into the executor that `memory` and `context` belong to.

    Raises:
        JITLinkError: anything about the graph, its symbols or the executor; what passes
            raise is passed on as it is. Nothing stays allocated after an error.
    """
    try:
        return await _link(graph, context, passes, memory)
    except BaseException as error:
        link_log.failed(graph, error)
        context.notify_failed(error)
        raise


async def _link(
    graph: LinkGraph,
    context: JITLinkContext,
    passes: PassConfiguration,
    memory: JITLinkMemoryManager,
) -> FinalizedAlloc:
    # The graph is as its builder left it, with the object's own addresses.
    link_log.begun(graph)
    _prune(graph, context, passes.pre_prune)
    link_log.pruned(graph)

    # Only live blocks are left; GOT entries and stubs that they need are added.
    memory.divide(graph)
    _run(passes.post_prune, graph)
    plan = passes.plan_fixups(graph, passes.fixups)
    link_log.got_and_stubs_added(graph)
    if context.dylib is not None:
        context.dylib.place(graph)
    alloc = await memory.allocate(context.dylib, graph)
    try:
        plan.allocate(memory, alloc)
        # Defined symbols have their final addresses. The context is notified before the lookup:
        # two graphs that need each other would wait for each other forever.
        _run(passes.post_allocation, graph)
        context.notify_resolved(graph)
        await _resolve_externals(graph, context)
        plan.check_targets()

        # Everything has its final address, and content is in working memory.
        copy_unallocated_contents(graph)
        _run(passes.pre_fixup, graph)
        link_log.fixing(graph)
        await plan.apply(passes.got_address(graph))
        _run(passes.post_fixup, graph)
    except BaseException:
        await alloc.abandon()
        raise
    final = await alloc.finalize()
    link_log.finalized(graph)
    context.notify_finalized(final)
    return final


def _prune(graph: LinkGraph, context: JITLinkContext, passes: list[Pass]) -> None:
    waiting = _waiting(passes)
    _run(passes if waiting is None else passes[:-1], graph)
    context.mark_live(graph)
    if waiting is not None:
        waiting.run_marked(graph)
    prune(graph)


def _waiting(passes: list[Pass]) -> WaitingPass | None:
    """The last pass, if it waits until live symbols are marked."""
    last = passes[-1] if passes else None
    return cast("WaitingPass", last) if hasattr(last, "run_marked") else None


def _run(passes: list[Pass], graph: LinkGraph) -> None:
    for each in passes:
        each(graph)


async def _resolve_externals(graph: LinkGraph, context: JITLinkContext) -> None:
    table = graph.symbol_table
    rows, names = graph.external_names()
    if len(rows) == 0:
        return
    required = (table.flags[rows] & int(SymbolFlags.WEAKLY_REFERENCED)) == 0
    found = await context.lookup(dict(zip(names, required.tolist(), strict=True)))
    table.value[rows] = np.array([found.get(name, 0) for name in names], np.uint64)
    link_log.resolved(graph, found, names)


def run_in_process(coroutine: Coroutine[object, object, T]) -> T:
    """Run a coroutine that has no reason to suspend, as with an in-process executor.

    No event loop is needed, so none is created.

    Raises:
        RuntimeError: the coroutine suspended.
    """
    try:
        coroutine.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    coroutine.close()
    raise RuntimeError("an in-process operation waits; run it with jitlink.tasks.run instead")
