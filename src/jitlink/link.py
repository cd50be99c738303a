"""The generic link algorithm: one coroutine that reads top to bottom.

`link` takes a graph through five lists of passes, with the three places between them where
something outside must act: memory is allocated, external symbols are looked up, memory is
finalized. It knows no format and no architecture; what is specific comes in through the
passes and the fixup table of a `PassConfiguration`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from jitlink import link_log
from jitlink.fixups import FixupTable
from jitlink.graph import LinkGraph, SymbolFlags
from jitlink.memory.layout import copy_unallocated_contents
from jitlink.memory.manager import FinalizedAlloc, JITLinkDylib, JITLinkMemoryManager
from jitlink.passes.prune import mark_exported_live, prune
from jitlink.passes.tls import TLSEdgeKinds, check_tls_addresses, plan_tls

Pass = Callable[[LinkGraph], None]
T = TypeVar("T")


@dataclass
class PassConfiguration:
    """The passes of one link, in five lists, and the table that applies its fixups.

    Attributes:
        fixups: how the edge kinds of the graph modify content.
        pre_prune: on the graph as it was built; symbols may be marked live here.
        post_prune: on what is left; content may still be added (GOT entries, stubs).
        post_allocation: addresses of everything defined in the graph are known.
        pre_fixup: all addresses are known, content is in working memory but not fixed up.
        post_fixup: content is as it will be in the executor.
        got_address: finds the address of the global offset table, after allocation.
        threads: how code accesses thread-local variables; None if the target does not link such.
    """

    fixups: FixupTable
    pre_prune: list[Pass] = field(default_factory=list)
    post_prune: list[Pass] = field(default_factory=list)
    post_allocation: list[Pass] = field(default_factory=list)
    pre_fixup: list[Pass] = field(default_factory=list)
    post_fixup: list[Pass] = field(default_factory=list)
    got_address: Callable[[LinkGraph], int | None] = lambda _graph: None
    threads: TLSEdgeKinds | None = None


class JITLinkContext(ABC):
    """What a link asks of and tells to whoever started it."""

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
        """Mark the symbols that dead-stripping starts from; by default all exported ones."""
        mark_exported_live(graph)

    def notify_resolved(self, graph: LinkGraph) -> None:  # noqa: B027 - optional, as the next two
        """The addresses of the graph's symbols are known, though nothing is there yet."""

    def notify_finalized(self, alloc: FinalizedAlloc) -> None:  # noqa: B027
        """The graph is in executor memory; whoever is told must deallocate it in the end."""

    def notify_failed(self, error: BaseException) -> None:  # noqa: B027
        """The link failed; all its memory has been given back."""


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
    _run(passes.pre_prune, graph)
    context.mark_live(graph)
    prune(graph)
    link_log.pruned(graph)

    # Only what is needed is left; entries that it needs may be added.
    _run(passes.post_prune, graph)
    threads = plan_tls(graph, passes.threads, passes.fixups)
    link_log.got_and_stubs_added(graph)
    alloc = await memory.allocate(context.dylib, graph)
    try:
        if threads is not None:
            threads.place(memory.tls, alloc)
        # Defined symbols have their final addresses. They are announced before anything is
        # looked up: two graphs that need each other would wait for each other forever.
        _run(passes.post_allocation, graph)
        context.notify_resolved(graph)
        await _resolve_externals(graph, context)
        check_tls_addresses(graph, passes.threads, passes.fixups)

        # Everything has its final address, and content is in working memory.
        copy_unallocated_contents(graph)
        _run(passes.pre_fixup, graph)
        link_log.fixing(graph)
        got_address = passes.got_address(graph)
        if threads is None:
            passes.fixups.apply(graph, got_address=got_address)
        else:
            # Threads that exist get their copies of the initial image when it is loaded.
            bases = await threads.load(got_address)
            passes.fixups.apply(graph, got_address=got_address, tls_bases=bases, rows=threads.later)
        _run(passes.post_fixup, graph)
    except BaseException:
        await alloc.abandon()
        raise
    final = await alloc.finalize()
    link_log.finalized(graph)
    context.notify_finalized(final)
    return final


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

    No loop is needed, and none is paid for.

    Raises:
        RuntimeError: the coroutine suspended all the same.
    """
    try:
        coroutine.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    coroutine.close()
    raise RuntimeError("an in-process operation waits; run it with jitlink.tasks.run instead")
