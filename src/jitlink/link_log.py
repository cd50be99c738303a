"""The story of a link, as the logger ``jitlink.link`` tells it.

Whatever must be counted for a line is counted only if somebody listens.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from jitlink.graph import LinkGraph
from jitlink.graph.columns import rows_where
from jitlink.graph.tables import EXTERNAL, REMOVED
from jitlink.passes.got_plt import GOT_SECTION, STUBS_SECTION

log = logging.getLogger("jitlink.link")


def is_on() -> bool:
    """Whether anybody listens."""
    return log.isEnabledFor(logging.DEBUG)


def begun(graph: LinkGraph) -> None:
    """A link begins."""
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
    """What nothing refers to is gone."""
    if is_on():
        external = np.count_nonzero(graph.symbol_table.kind == EXTERNAL)
        log.debug("%s: pruned (%s, externals: %d)", graph.name, _size(graph), external)


def entries_made(graph: LinkGraph) -> None:
    """The passes after pruning have added what they add."""
    if is_on():
        counts = []
        for name in (GOT_SECTION, STUBS_SECTION):
            section = graph.find_section_by_name(name)
            counts.append(0 if section is None else sum(1 for _ in section.blocks))
        log.debug("%s: made entries (GOT: %d, stubs: %d)", graph.name, *counts)


def resolved(graph: LinkGraph, found: Mapping[str, int], names: Sequence[str]) -> None:
    """External symbols of those names have addresses, as far as they were found."""
    if is_on():
        for name, address in found.items():
            log.debug("%s: external %s is at %#x", graph.name, name, address)
        for name in names:
            if name not in found:
                log.debug("%s: external %s is null: nobody defines it", graph.name, name)


def fixing(graph: LinkGraph) -> None:
    """Fixups are about to be applied."""
    if is_on():
        counts = np.bincount(graph.edge_table.kind, minlength=1)
        kinds = rows_where(counts != 0).tolist()
        named = ", ".join(f"{counts[kind]} {graph.edge_kinds(kind)}" for kind in kinds)
        log.debug("%s: fixups: %s", graph.name, named or "none")


def finalized(graph: LinkGraph) -> None:
    """The code can be used."""
    log.debug("%s: finalized", graph.name)


def failed(graph: LinkGraph, error: BaseException) -> None:
    """The link has failed."""
    log.debug("%s: failed: %s", graph.name, error)


def _size(graph: LinkGraph) -> str:
    rows = graph.block_rows()
    symbols = np.count_nonzero(graph.symbol_table.kind != REMOVED)
    size = int(graph.block_table.size[rows].sum())
    return f"blocks: {len(rows)}, bytes: {size}, symbols: {symbols}"
