"""Call sites: direct calls of functions in linked code, recorded so that they can be repointed.

::

    recorder = CallSiteRecorder(["step"])
    layer.add_plugin(recorder)
    ...
    recorder.repoint("step", address_of_the_new_one)

Direct calls cost nothing, unlike those through stubs, and can be redirected all the same. Sites
are the edges of the architecture's branch kinds to the named symbols, and to PLT stubs of these.
They are recorded when a link's fixups have been applied, so that they include calls through the
GOT that were relaxed to direct ones, and have their final addresses. A site is removed with the
code that contains it.

LLVM differs: the example in its documentation that this is modelled on records the edges after
allocation, before calls are relaxed, and leaves the rewriting to the reader.

What is recorded and what is not:

* Names are those of symbols in any link of the layer, whatever the JITDylib: a name that has
  different definitions in several JITDylibs needs a layer for each. Calls that a compiler or
  assembler has resolved by itself, such as those of ``static`` functions in one section, are no
  edges.
* A pointer to the function, in code or in data, is not changed, and neither are calls through it.
  Code that is linked later calls the definition that the symbol has then: repoint again, or make
  the symbol redirectable.
* A thread that has called remains in the old function, so that must remain in memory as well.

Repointing is safe while other threads execute the calls, in this process and in others:
`jitlink.memory.patching` and `jitlink.runtime.patching` say how. Every call enters the old function
or the new one, and in each run of adjacent code pages all of them change at once. If a call cannot
reach the new target, that is an error, and nothing changes; code of one JITDylib is always within
reach.

RISC-V has calls of two instructions. A thread may be between the two, so such a call is never
changed: that is an error, too. Relaxed calls, which have a target of the same link within 1 MiB,
are one instruction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from jitlink import tasks
from jitlink.fixups import Fixup, FixupTable
from jitlink.graph import LinkGraph
from jitlink.graph.columns import Int64Array, rows_where
from jitlink.graph.edges import EdgeKind
from jitlink.link import PassConfiguration
from jitlink.orc.errors import SessionError
from jitlink.orc.interface import Session
from jitlink.orc.link_resources import LinkResources
from jitlink.orc.materialization import MaterializationResponsibility
from jitlink.passes.got_plt import got_plt_targets
from jitlink.runtime.patching import read_code, replace_code
from jitlink.targets.registry import target_of_graph

_INSTRUCTION = 4
"""The largest field of one instruction with a distance, in bytes."""


class CallSiteOutOfReachError(SessionError):
    """A direct call cannot reach its new target.

    Attributes:
        name: the function that is called.
        site: address of the field that would be changed.
        target: address of the new target.
        count: how many calls cannot reach it.
    """

    def __init__(self, name: str, *, site: int, target: int, count: int) -> None:
        others = f" (nor do {count - 1} more calls)" if count > 1 else ""
        super().__init__(f"the call of {name} at {site:#x} does not reach {target:#x}{others}")
        self.name, self.site, self.target, self.count = name, site, target, count


class SplitCallSiteError(SessionError):
    """A direct call consists of several instructions, which cannot be changed at once.

    Attributes:
        name: the function that is called.
        site: address of the first of them.
        count: how many calls do.
    """

    def __init__(self, name: str, *, site: int, count: int) -> None:
        others = f" (as do {count - 1} more calls)" if count > 1 else ""
        super().__init__(
            f"the call of {name} at {site:#x} consists of several instructions{others}, and a "
            "thread may be between them; calls of redirectable functions can be changed"
        )
        self.name, self.site, self.count = name, site, count


class CallSite(NamedTuple):
    """A direct call: address of the field with the distance, and its edge kind."""

    address: int
    kind: EdgeKind


class _CallSites(NamedTuple):
    """The call sites of one function and edge kind in one link.

    Attributes:
        addresses: addresses of the fields (int64).
    """

    name: str
    kind: EdgeKind
    fixups: FixupTable
    addresses: Int64Array

    @property
    def fixup(self) -> Fixup:
        return self.fixups.by_kind[int(self.kind)]


class CallSiteRecorder(LinkResources[list[_CallSites]]):
    """Records the direct calls of some functions, and repoints them.

    Args:
        names: the functions, as symbols are spelled.
    """

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        self.names = frozenset(names)
        self._session: Session | None = None

    # From any thread

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
            CallSite(address, sites.kind) for sites in found for address in sites.addresses.tolist()
        )

    def repoint(self, name: str, address: int) -> int:
        """Repoint all recorded calls of a function to an address.

        Returns:
            How many calls there are.

        Raises:
            CallSiteOutOfReachError: a call cannot reach it; nothing was changed.
            SplitCallSiteError: a call consists of several instructions; nothing was changed.
            AllocationError: the system cannot replace pages, or the code is in memory of this
                process that is not private.
            ExecutorError: the code is in another process, which is gone.
            KeyError: calls of it are not recorded.
        """
        self._check(name)
        if self._session is None:
            return 0
        return self._session.run(lambda: self._repoint(name, address))

    def _check(self, name: str) -> None:
        if name not in self.names:
            raise KeyError(name)

    # On the driver thread

    def _of(self, name: str) -> Iterator[_CallSites]:
        return (sites for of_link in self._resources for sites in of_link if sites.name == name)

    def modify_pass_config(
        self,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,
        config: PassConfiguration,
    ) -> None:
        """Add a pass that finds the calls when the fixups have been applied."""
        self._session = responsibility.session
        branches = target_of_graph(graph).branches

        def record(graph: LinkGraph) -> None:
            found = _find(graph, self.names, branches, config.fixups)
            if found:
                self.keep(responsibility, found)

        config.post_fixup.append(record)

    def _repoint(self, name: str, address: int) -> int:
        changes = []
        far: list[int] = []
        split = [sites for sites in self._of(name) if sites.fixup.width > _INSTRUCTION]
        if split:
            count = sum(len(sites.addresses) for sites in split)
            raise SplitCallSiteError(name, site=int(split[0].addresses[0]), count=count)
        for sites in self._of(name):
            value = _distances(sites, address)
            far += sites.addresses[rows_where(~sites.fixup.accepts(value))].tolist()
            changes.append((sites, value))
        if far:
            raise CallSiteOutOfReachError(name, site=far[0], target=address, count=len(far))
        if changes:
            tasks.run(self._replace(changes))
        return sum(len(sites.addresses) for sites, _ in changes)

    async def _replace(self, changes: list[tuple[_CallSites, Int64Array]]) -> None:
        """Change the sites; the driver thread waits, so that no code is removed meanwhile."""
        assert self._session is not None
        executor = self._session.executor
        contents = await read_code(executor, _page_runs(changes, executor.page_size))
        _patch(contents, changes)
        await replace_code(executor, contents)


def _find(
    graph: LinkGraph, names: Iterable[str], branches: Iterable[EdgeKind], fixups: FixupTable
) -> list[_CallSites]:
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
                blocks = graph.block_table.address[edges.block[of_kind]].view(np.int64)
                found.append(_CallSites(name, kind, fixups, blocks + edges.offset[of_kind]))
    return found


def _distances(sites: _CallSites, address: int) -> Int64Array:
    """The values of the sites' fields for calls of an address (int64)."""
    count = len(sites.addresses)
    operands = {
        "S": np.full(count, address, np.uint64).view(np.int64),
        "A": np.zeros(count, np.int64),
        "P": sites.addresses,
    }
    value: Int64Array = sites.fixup.evaluate(operands)
    return value


def _page_runs(
    changes: Iterable[tuple[_CallSites, Int64Array]], page_size: int
) -> list[tuple[int, int]]:
    """Address and size of each run of adjacent pages that contain sites, in order."""
    firsts, lasts = [], []
    for sites, _ in changes:
        firsts.append(sites.addresses & -page_size)
        lasts.append((sites.addresses + sites.fixup.width - 1) & -page_size)
    runs: list[tuple[int, int]] = []
    for page in sorted(set(np.concatenate(firsts + lasts).tolist())):
        if runs and sum(runs[-1]) == page:
            runs[-1] = runs[-1][0], runs[-1][1] + page_size
        else:
            runs.append((page, page_size))
    return runs


def _patch(
    contents: Mapping[int, bytearray], changes: Iterable[tuple[_CallSites, Int64Array]]
) -> None:
    """Change the sites in the contents of runs of pages, which are in order of address."""
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
