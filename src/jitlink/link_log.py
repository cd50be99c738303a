"""The log of a link, written to the logger ``jitlink.link``.

The counts in a message are computed only if the logger is enabled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from jitlink.graph import LinkGraph
from jitlink.graph.columns import rows_where
from jitlink.graph.tables import EXTERNAL, REMOVED
from jitlink.logs import Log
from jitlink.passes.got_plt import GOT_SECTION, STUBS_SECTION

log = Log("jitlink.link")


def is_on() -> bool:
    """Whether the logger is enabled."""
    return log.is_on


def begun(graph: LinkGraph) -> None:
    """Log that a link begins."""
    if is_on():
        log.debug(
            "%s: begins (objects: %d, sections: %d, %s, edges: %d)",
            graph.name,
            len(graph.origins),
            len(graph.section_list),
            _size(graph),
            graph.edge_table.rows,
        )


def pruned(graph: LinkGraph) -> None:
    """Log that dead-stripping is done."""
    if is_on():
        external = np.count_nonzero(graph.symbol_table.kind == EXTERNAL)
        log.debug("%s: pruned (%s, externals: %d)", graph.name, _size(graph), external)


def got_and_stubs_added(graph: LinkGraph) -> None:
    """Log that the passes after pruning have run."""
    if is_on():
        counts = []
        for name in (GOT_SECTION, STUBS_SECTION):
            section = graph.find_section_by_name(name)
            counts.append(0 if section is None else sum(1 for _ in section.blocks))
        log.debug("%s: added GOT entries: %d, PLT stubs: %d", graph.name, *counts)


def resolved(graph: LinkGraph, found: Mapping[str, int], names: Sequence[str]) -> None:
    """Log the addresses that were found for external symbols of those names."""
    if is_on():
        for name, address in found.items():
            log.debug("%s: external %s is at %#x", graph.name, name, address)
        for name in names:
            if name not in found:
                log.debug("%s: external %s is null: it has no definition", graph.name, name)


def fixing(graph: LinkGraph) -> None:
    """Log that fixups are about to be applied."""
    if is_on():
        counts = np.bincount(graph.edge_table.kind, minlength=1)
        kinds = rows_where(counts != 0).tolist()
        named = ", ".join(f"{counts[kind]} {graph.edge_kinds(kind)}" for kind in kinds)
        log.debug("%s: fixups: %s", graph.name, named or "none")


def finalized(graph: LinkGraph) -> None:
    """Log that the memory is finalized."""
    log.debug("%s: finalized", graph.name)


def failed(graph: LinkGraph, error: BaseException) -> None:
    """Log that the link has failed."""
    log.debug("%s: failed: %s", graph.name, error)


def _size(graph: LinkGraph) -> str:
    rows = graph.block_rows()
    symbols = np.count_nonzero(graph.symbol_table.kind != REMOVED)
    size = int(graph.block_table.size[rows].sum())
    return f"blocks: {len(rows)}, bytes: {size}, symbols: {symbols}"
