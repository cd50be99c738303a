"""The plugin of ELFPlatform: registers frames, and records initialisers and finalisers.

Frames are registered, by allocation actions, before any code of the link can run, and
deregistered before its memory is deallocated. Initialisers are kept alive and recorded; the
platform runs them later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from jitlink.graph import AllocActionPair, LinkGraph, Symbol, WrapperCall
from jitlink.link import PassConfiguration
from jitlink.orc.dylib import JITDylib
from jitlink.orc.link_resources import LinkResources
from jitlink.orc.materialization import MaterializationResponsibility
from jitlink.orc.trackers import TrackedResources
from jitlink.passes.eh_frame import SECTION, terminate_eh_frames
from jitlink.passes.init_fini import init_fini_sections, lower_init_fini
from jitlink.passes.initializers import FunctionArray, function_arrays, mark_arrays_live
from jitlink.passes.linker_defined import synthesize_symbols
from jitlink.passes.runtime_sections import keep_runtime_sections
from jitlink.platform.base import DSO_HANDLE
from jitlink.platform.state import DylibState, LinkRecord
from jitlink.runtime import Runtime
from jitlink.sps import EXECUTOR_ADDR
from jitlink.targets.elf_linker_defined import (
    ELF_PREFIXES,
    synthesize_elf_symbols,
)
from jitlink.targets.registry import target_of_graph

_UNWINDERS = (
    ("__unw_add_dynamic_eh_frame_section", "__unw_remove_dynamic_eh_frame_section"),
    ("__register_frame", "__deregister_frame"),
)
"""Functions that take an `.eh_frame` section. LLVM's libunwind defines all four names and comes
first: its `__register_frame` takes one record."""
_UNWINDER_FUNCTIONS = frozenset(name for names in _UNWINDERS for name in names)


def keep_initializers(config: PassConfiguration) -> Callable[[LinkGraph], list[FunctionArray]]:
    """Keep alive what only the platform refers to, in a link into a JITDylib with a handle.

    Args:
        config: the passes of the link. The handle stays an external symbol, which is defined
            elsewhere in the JITDylib.

    Returns:
        A function that gives the initialisers and finalisers of the graph, once it is allocated.
    """

    def synthesize(graph: LinkGraph) -> None:
        synthesize_symbols(graph, {}, ELF_PREFIXES)

    config.pre_prune = [
        synthesize if existing is synthesize_elf_symbols else existing
        for existing in config.pre_prune
    ]
    has_arrays = False

    def keep(graph: LinkGraph) -> None:
        nonlocal has_arrays
        if any(init_fini_sections(graph)):
            lower_init_fini(graph, target_of_graph(graph).crti_crtn)
        has_arrays = mark_arrays_live(graph)

    config.add_pre_prune(keep, keep_runtime_sections)
    return lambda graph: function_arrays(graph) if has_arrays else []


class RuntimePlatform(Protocol):
    """What `PlatformPlugin` needs of its platform, on the driver thread.

    Attributes:
        states: the state of each JITDylib.
    """

    states: dict[JITDylib, DylibState]

    async def runtime(self) -> Runtime:
        """The executor's runtime, linked now if it has not been."""

    async def register_handle_of(self, dylib: JITDylib, graph: LinkGraph) -> Symbol | None:
        """See `ELFPlatform.register_handle_of`."""


class PlatformPlugin(LinkResources[LinkRecord]):
    """Takes part in the links of a platform's layer."""

    defines_symbols = False

    def __init__(self, platform: RuntimePlatform) -> None:
        super().__init__()
        self._platform = platform
        self._runtime: Runtime | None = None  # Of the present process.
        # Of links that are about to begin.
        self._handles: dict[MaterializationResponsibility, Symbol] = {}

    async def prepare(
        self,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,
    ) -> None:
        """Link the runtime if the graph has frames; register a handle that a program defines."""
        if self._runtime is None and graph.section_list.ordinals_named(SECTION):
            self._runtime = await self._platform.runtime()
        await self.prepare_handle(responsibility, graph)

    async def prepare_handle(
        self, responsibility: MaterializationResponsibility, graph: LinkGraph
    ) -> None:
        """Register a handle that a program defines."""
        dylib = responsibility.dylib
        if DSO_HANDLE in dylib.symbols and responsibility.defines(DSO_HANDLE):
            symbol = await self._platform.register_handle_of(dylib, graph)
            if symbol is not None:
                self._handles[responsibility] = symbol

    def handle_restart(self) -> None:
        """Forget the runtime of a process that has ended."""
        self._runtime = None
        self._handles.clear()

    def modify_pass_config(
        self,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,  # noqa: ARG002
        config: PassConfiguration,
    ) -> None:
        """Add the passes that keep initialisers and register frames."""
        config.post_prune.append(self._register_frames)
        unwinder = _unwinder_of(responsibility)
        if unwinder is not None:
            config.post_prune.append(lambda graph: self._add_unwinder(graph, *unwinder))
        handle = self._handles.pop(responsibility, None)
        if responsibility.dylib not in self._platform.states:
            return
        link = LinkRecord()
        self.keep(responsibility, link)
        arrays = keep_initializers(config)

        def record(graph: LinkGraph) -> None:
            link.arrays = arrays(graph)
            link.memory = graph.memory
            if handle is not None:
                link.handle = handle.address

        config.post_allocation.append(record)

    def _register_frames(self, graph: LinkGraph) -> None:
        if self._runtime is not None:
            for section in terminate_eh_frames(graph):
                graph.alloc_actions.append(self._runtime.frame_actions(section))

    def _add_unwinder(self, graph: LinkGraph, add: str, remove: str) -> None:
        """Register an unwinder that the graph defines: it gets all frames."""
        runtime = self._runtime
        functions = [graph.find_defined_symbol_by_name(name) for name in (add, remove)]
        if runtime is None or None in functions:
            return

        def arguments() -> bytes:
            return b"".join(EXECUTOR_ADDR.serialize(f.address) for f in functions if f)

        calls = [
            WrapperCall(runtime.addresses[name], arguments)
            for name in ("__jitlink_add_unwinder", "__jitlink_remove_unwinder")
        ]
        graph.alloc_actions.append(AllocActionPair(*calls))

    def resources(self, dylib: JITDylib) -> TrackedResources[LinkRecord]:
        """The records of links into a JITDylib."""
        state = self._platform.states.get(dylib)
        return super().resources(dylib) if state is None else state.links

    def notify_emitted(self, responsibility: MaterializationResponsibility) -> None:
        """Keep the record of the link, under the tracker that owns the code."""
        super().notify_emitted(responsibility)
        link, state = self.kept(responsibility), self._platform.states.get(responsibility.dylib)
        if link is not None and link.handle and state is not None:
            state.handle = link.handle

    def notify_failed(self, responsibility: MaterializationResponsibility) -> None:
        """Discard the record of the link, and the handle."""
        self._handles.pop(responsibility, None)
        link, state = self.kept(responsibility), self._platform.states.get(responsibility.dylib)
        super().notify_failed(responsibility)
        if link is not None and link.handle and state is not None and state.handle == link.handle:
            state.handle = 0


def _unwinder_of(responsibility: MaterializationResponsibility) -> tuple[str, str] | None:
    """Names of the functions of an unwinder that the responsibility is to define."""
    symbols = responsibility.dylib.symbols
    if symbols.keys().isdisjoint(_UNWINDER_FUNCTIONS):
        return None
    for names in _UNWINDERS:
        held = [symbols.get(name) for name in names]
        if all(d is not None and d.responsibility is responsibility for d in held):
            return names
    return None
