"""Sections that language runtimes look up by name, without a reference from code.

They hold type metadata, selectors, profile counters and the like. `keep_runtime_sections` protects
them from dead-stripping, and `runtime_sections` returns their addresses, for plugins that register
them with a runtime.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jitlink.graph import AddressRange, BlockFlags, LinkGraph, MemLifetime
from jitlink.graph.sections import NameBeginnings

_PREFIXES: Mapping[str, str] = {
    "swift5_": "Swift: types, protocols and their conformances",
    "__objc_": "Objective-C (GNUstep): classes, selectors, categories",
    ".objc_": "Objective-C (GNUstep): selectors of objects without names",
    "__llvm_prf_": "LLVM: profile counters and data",
    "__llvm_covmap": "LLVM: coverage maps",
    "__llvm_covfun": "LLVM: functions of coverage maps",
    "__sancov_": "LLVM: sanitizer coverage guards and program counters",
    "asan_globals": "AddressSanitizer: descriptions of globals",
    "__patchable_function_entries": "GCC and LLVM: where functions may be patched",
    "xray_": "LLVM XRay: sleds",
    ".jcr": "GCJ: classes to be registered",
    "__libc_": "glibc: functions that run at exit",
}
"""Prefixes of the names of such sections: the runtime, and what the sections hold."""
_BEGINNINGS = NameBeginnings(_PREFIXES)


def runtime_sections(graph: LinkGraph) -> dict[str, AddressRange]:
    """Address ranges of sections of language runtimes, by name (for a pass after allocation)."""
    found: dict[str, AddressRange] = {}
    for ordinal in _ordinals(graph):
        section = graph.section_list[ordinal]
        place = section.range()
        if not place.empty:
            known = found.get(section.name, place)
            found[section.name] = AddressRange(
                min(known.start, place.start), max(known.end, place.end)
            )
    return found


def keep_runtime_sections(graph: LinkGraph) -> None:
    """Mark sections of language runtimes live (a pre-prune pass)."""
    for ordinal in _ordinals(graph):
        rows = graph.section_list[ordinal].block_rows()
        graph.block_table.flags[rows] |= np.uint8(BlockFlags.LIVE)


def _ordinals(graph: LinkGraph) -> list[int]:
    ordinals = _BEGINNINGS.ordinals(graph.section_list)
    if not ordinals:
        return []
    lifetimes = graph.section_lifetimes()
    return [each for each in ordinals if lifetimes[each] != MemLifetime.NO_ALLOC]
