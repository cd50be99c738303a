"""Call sites: places where linked code calls a function directly, recorded to be repointed.

::

    recorder = CallSiteRecorder(["step"])
    layer.add_plugin(recorder)
    ...
    recorder.repoint("step", address_of_the_new_one)

Direct calls cost nothing, unlike those through stubs, and can be redirected all the same. Sites
are the edges of the architecture's branch kinds to the named symbols, and to the stubs that a
link makes for calls of them. They are taken when a link's fixups have been applied, so that they
include calls through the global offset table that became direct ones, and hold the addresses that
the code has in the end. A site goes when the code that it is in goes.

LLVM differs: the example in its documentation, which this is made from, records the edges after
allocation, before calls are relaxed, and leaves the rewriting to the reader.

What is recorded and what is not:

* Names are those of symbols of a link, of whatever JITDylib: record a name in a layer of its own
  if it means two things. The calls that a compiler or assembler has resolved by itself, such as
  those of ``static`` functions in one section, are no edges any more.
* A pointer to the function that was taken, in code or in data, stays what it is, and so do calls
  through it. Code that is linked later calls what the symbol means then: repoint again, or let
  the symbol be redirectable.
* A thread that has called stays in the old function, so that must stay as well.

Repointing is safe while other threads run the calls; `jitlink.memory.patching` says how. Every
call goes to the old function or to the new one, and in each run of neighbouring code pages all
of them change at once. A target out of reach of one of the calls is refused, and nothing changes:
code of one JITDylib is always in reach.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from jitlink.fixups import Fixup, FixupTable
from jitlink.graph import LinkGraph
from jitlink.graph.columns import Int64Array, rows_where
from jitlink.graph.edges import EdgeKind
from jitlink.link import PassConfiguration
from jitlink.memory.mapping import PAGE_SIZE
from jitlink.memory.patching import replace_code
from jitlink.orc.dylib import JITDylib
from jitlink.orc.errors import SessionError
from jitlink.orc.interface import ResourceTracker
from jitlink.orc.materialization import MaterializationResponsibility
from jitlink.orc.object_layer import Plugin
from jitlink.orc.session import ExecutionSession
from jitlink.passes.got_plt import got_plt_targets
from jitlink.targets.registry import target_of_graph


class CallSiteOutOfReachError(SessionError):
    """A direct call cannot reach where it is to be repointed to.

    Attributes:
        name: the function that was called.
        site: address of the place that would be changed.
        target: address that was to be called.
        count: how many calls cannot reach it.
    """

    def __init__(self, name: str, *, site: int, target: int, count: int) -> None:
        others = f" ({count - 1} more calls neither)" if count > 1 else ""
        super().__init__(f"the call of {name} at {site:#x} does not reach {target:#x}{others}")
        self.name, self.site, self.target, self.count = name, site, target, count


class CallSite(NamedTuple):
    """A direct call: address of the place that holds the distance, and its edge kind."""

    address: int
    kind: EdgeKind


class _Sites(NamedTuple):
    """Calls of one function and kind, from one link: addresses (int64)."""

    name: str
    kind: EdgeKind
    fixups: FixupTable
    addresses: Int64Array

    @property
    def fixup(self) -> Fixup:
        return self.fixups.by_kind[int(self.kind)]


class CallSiteRecorder(Plugin):
    """Records the direct calls of some functions, and repoints them.

    Args:
        names: the functions, as symbols are spelled.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(names)
        self._session: ExecutionSession | None = None
        # A link may fail after it was emitted, so its sites are kept in mind as long as it is.
        self._found: WeakKeyDictionary[MaterializationResponsibility, list[_Sites]]
        self._found = WeakKeyDictionary()
        self._sites: dict[ResourceTracker, list[_Sites]] = {}

    # What everybody calls, from any thread.

    def sites(self, name: str) -> list[CallSite]:
        """The recorded calls of a function, in order of address.

        Raises:
            KeyError: calls of it are not recorded.
        """
        self._check(name)
        if self._session is None:
            return []
        found = self._session.run(lambda: list(self._of(name)))
        return sorted(
            CallSite(address, each.kind) for each in found for address in each.addresses.tolist()
        )

    def repoint(self, name: str, address: int) -> int:
        """Let all recorded calls of a function call what is at an address instead.

        Returns:
            How many calls there are.

        Raises:
            CallSiteOutOfReachError: a call cannot reach it; nothing has been changed.
            AllocationError: the code is not in private memory of this process, or the system
                cannot replace pages.
            KeyError: calls of it are not recorded.
        """
        self._check(name)
        if self._session is None:
            return 0
        return self._session.run(lambda: self._repoint(name, address))

    def _check(self, name: str) -> None:
        if name not in self.names:
            raise KeyError(name)

    # On the session's thread

    def _of(self, name: str) -> Iterator[_Sites]:
        return (each for sites in self._sites.values() for each in sites if each.name == name)

    def modify_pass_config(
        self,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,
        config: PassConfiguration,
    ) -> None:
        """Look for calls when the fixups have been applied."""
        self._session = responsibility.session
        branches = target_of_graph(graph).branches

        def record(graph: LinkGraph) -> None:
            found = _find(graph, self.names, branches, config.fixups)
            if found:
                self._found[responsibility] = found

        config.post_fixup.append(record)

    def notify_emitted(self, responsibility: MaterializationResponsibility) -> None:
        """Keep the sites of a link with what it is released with."""
        found = self._found.get(responsibility)
        if found:
            self._sites.setdefault(responsibility.tracker, []).extend(found)

    def notify_failed(self, responsibility: MaterializationResponsibility) -> None:
        """Drop the sites of a link."""
        found = self._found.pop(responsibility, None)
        if found:
            lost = set(map(id, found))
            for tracker, sites in list(self._sites.items()):
                self._sites[tracker] = [each for each in sites if id(each) not in lost]

    def notify_removing_resources(self, dylib: JITDylib, key: ResourceTracker) -> None:  # noqa: ARG002
        """Drop the sites in code that goes."""
        self._sites.pop(key, None)

    def notify_transferring_resources(
        self,
        dylib: JITDylib,  # noqa: ARG002 - part of the interface
        destination: ResourceTracker,
        source: ResourceTracker,
    ) -> None:
        """Keep sites with the code that they are in."""
        sites = self._sites.pop(source, None)
        if sites:
            self._sites.setdefault(destination, []).extend(sites)

    def _repoint(self, name: str, address: int) -> int:
        changes = []
        far: list[int] = []
        for sites in self._of(name):
            value = _distances(sites, address)
            far += sites.addresses[rows_where(~sites.fixup.accepts(value))].tolist()
            changes.append((sites, value))
        if far:
            raise CallSiteOutOfReachError(name, site=far[0], target=address, count=len(far))
        if changes:
            replace_code(_changed(changes))
        return sum(len(sites.addresses) for sites, _ in changes)


def _find(
    graph: LinkGraph, names: Iterable[str], branches: Iterable[EdgeKind], fixups: FixupTable
) -> list[_Sites]:
    """The direct calls of some functions in a graph that has been fixed up."""
    edges, table = graph.edge_table, graph.symbol_table
    is_branch = np.zeros(len(graph.edge_kinds) + 2, np.bool_)
    is_branch[[int(kind) for kind in branches]] = True
    rows = rows_where(is_branch[edges.kind] & (edges.addend == 0))
    if len(rows) == 0:
        return []
    called = table.name[got_plt_targets(graph)[edges.target[rows]]]
    found = []
    for name in names:
        references = graph.strings.find(name)
        chosen = rows[np.isin(called, references)]
        for kind in branches:
            of_kind = chosen[edges.kind[chosen] == int(kind)]
            if len(of_kind):
                places = graph.block_table.address[edges.block[of_kind]].view(np.int64)
                found.append(_Sites(name, kind, fixups, places + edges.offset[of_kind]))
    return found


def _distances(sites: _Sites, address: int) -> Int64Array:
    """What stands in the sites once they call what is at an address."""
    count = len(sites.addresses)
    letters = {
        "S": np.full(count, address, np.uint64).view(np.int64),
        "A": np.zeros(count, np.int64),
        "P": sites.addresses,
    }
    value: Int64Array = sites.fixup.evaluate(letters)
    return value


def _changed(changes: Iterable[tuple[_Sites, Int64Array]]) -> dict[int, bytearray]:
    """New content of all code pages that hold sites, by address of each run of pages."""
    changes = list(changes)
    firsts, lasts = [], []
    for sites, _ in changes:
        firsts.append(sites.addresses & -PAGE_SIZE)
        lasts.append((sites.addresses + sites.fixup.width - 1) & -PAGE_SIZE)
    pages = sorted(set(np.concatenate(firsts + lasts).tolist()))
    contents: dict[int, bytearray] = {}
    start = end = 0
    for page in pages:
        if page != end:
            start = page
            contents[start] = bytearray()
        contents[start] += ctypes.string_at(page, PAGE_SIZE)
        end = page + PAGE_SIZE
    starts = np.array(list(contents), np.int64)
    for sites, value in changes:
        run = starts.searchsorted(sites.addresses, side="right") - 1
        for number, content in enumerate(contents.values()):
            chosen = rows_where(run == number)
            data = np.frombuffer(content, np.uint8)
            containers = sites.fixups.containers(data, sites.fixup)
            at = sites.addresses[chosen] - starts[number]
            old = containers[at].astype(f"u{sites.fixup.width}")
            containers[at] = sites.fixup.insert(value[chosen], old)
    return contents
