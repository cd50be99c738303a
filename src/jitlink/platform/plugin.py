"""The plugin of a platform: what each link does for the features that need it at run time.

Frames are registered, by allocation actions, before anything else can run and forgotten before
their memory goes. Initialisers are kept and written down; they run later.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from jitlink.graph import AllocActionPair, LinkGraph, Symbol, WrapperCall
from jitlink.link import PassConfiguration
from jitlink.orc.dylib import JITDylib
from jitlink.orc.interface import ResourceTracker
from jitlink.orc.materialization import MaterializationResponsibility
from jitlink.orc.object_layer import Plugin
from jitlink.passes.eh_frame import SECTION, terminate_eh_frames
from jitlink.passes.init_fini import init_fini_sections, lower_init_fini
from jitlink.passes.initializers import FunctionArray, function_arrays, mark_arrays_live
from jitlink.passes.linker_defined import Definer, synthesize_symbols
from jitlink.passes.runtime_sections import keep_runtime_sections
from jitlink.platform.definitions import DSO_HANDLE
from jitlink.platform.state import LinkRecord
from jitlink.runtime import Runtime
from jitlink.sps import EXECUTOR_ADDR
from jitlink.targets.elf_linker_defined import (
    ELF_PREFIXES,
    define_dso_handle,
    synthesize_elf_symbols,
)
from jitlink.targets.registry import target_of_graph

if TYPE_CHECKING:
    from jitlink.platform.elf import ELFPlatform


_UNWINDERS = (
    ("__unw_add_dynamic_eh_frame_section", "__unw_remove_dynamic_eh_frame_section"),
    ("__register_frame", "__deregister_frame"),
)
"""Functions that take an `.eh_frame` section: LLVM's, which has others of libgcc's names, first."""
_UNWINDER_FUNCTIONS = frozenset(name for names in _UNWINDERS for name in names)


def keep_initializers(
    config: PassConfiguration, define_handle: Definer | None = None
) -> Callable[[LinkGraph], list[FunctionArray]]:
    """Let a link into a JITDylib with a handle keep what nobody refers to but its platform.

    Args:
        config: the passes of the link.
        define_handle: lets the graph define the handle, if it refers to it. By default the handle
            is elsewhere in the JITDylib.

    Returns:
        What tells the initialisers and finalisers of the graph, once it has its memory.
    """
    exact = {} if define_handle is None else {DSO_HANDLE: define_handle}

    def synthesize(graph: LinkGraph) -> None:
        synthesize_symbols(graph, exact, ELF_PREFIXES)

    config.pre_prune = [
        synthesize if each is synthesize_elf_symbols else each for each in config.pre_prune
    ]
    has_arrays = False

    def keep(graph: LinkGraph) -> None:
        nonlocal has_arrays
        if any(init_fini_sections(graph)):
            lower_init_fini(graph, target_of_graph(graph).crti_crtn)
        has_arrays = mark_arrays_live(graph)

    config.pre_prune += [keep, keep_runtime_sections]
    return lambda graph: function_arrays(graph) if has_arrays else []


class PlatformPlugin(Plugin):
    """Watches the links of a platform's layer."""

    defines_symbols = False

    def __init__(self, platform: ELFPlatform) -> None:
        self._platform = platform
        self._runtime: Runtime | None = None
        self._in_flight: dict[MaterializationResponsibility, LinkRecord] = {}

    async def prepare(
        self,
        responsibility: MaterializationResponsibility,  # noqa: ARG002 - part of the interface
        graph: LinkGraph,
    ) -> None:
        """Have the runtime ready if the graph has frames."""
        if self._runtime is None and graph.section_list.ordinals_named(SECTION):
            self._runtime = await self._platform.runtime()

    def modify_pass_config(
        self,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,  # noqa: ARG002
        config: PassConfiguration,
    ) -> None:
        """Add what keeps initialisers, and what registers frames."""
        config.post_prune.append(self._register_frames)
        unwinder = _unwinder_of(responsibility)
        if unwinder is not None:
            config.post_prune.append(lambda graph: self._add_unwinder(graph, *unwinder))
        state = self._platform.states.get(responsibility.dylib)
        if state is None:
            return
        code = self._in_flight[responsibility] = LinkRecord()
        # A responsibility for nothing is a program's, which is all of its JITDylib.
        is_whole = not responsibility.definitions and self._runtime is not None
        define = partial(self._define_handle, code, responsibility.dylib) if is_whole else None
        arrays = keep_initializers(config, define)

        def note(graph: LinkGraph) -> None:
            code.arrays = arrays(graph)
            code.memory = graph.memory
            # For the handle, which comes with the first link that refers to it.
            state.address_limit = min(state.address_limit, graph.address_limit)

        config.post_allocation.append(note)

    def _define_handle(
        self, code: LinkRecord, dylib: JITDylib, graph: LinkGraph, symbol: Symbol, name: str
    ) -> None:
        """Define the handle of a JITDylib in a graph that refers to it."""
        # What is linked after the graph refers to the handle too, and cannot see this one.
        own = self._platform.per_dylib_functions.keys()
        if self._runtime is not None and own.isdisjoint(graph.external_names()[1]):
            define_dso_handle(graph, symbol, name)
            symbol.is_live = True
            graph.alloc_actions.append(self._platform.handle_action(self._runtime, dylib, symbol))
            code.handle = symbol

    def _register_frames(self, graph: LinkGraph) -> None:
        if self._runtime is not None:
            for section in terminate_eh_frames(graph):
                graph.alloc_actions.append(self._runtime.frame_actions(section))

    def _add_unwinder(self, graph: LinkGraph, add: str, remove: str) -> None:
        """Let an unwinder that is linked here know all frames."""
        runtime = self._runtime
        functions = [graph.find_defined_symbol_by_name(name) for name in (add, remove)]
        if runtime is None or None in functions:
            return

        def arguments() -> bytes:
            return b"".join(EXECUTOR_ADDR.serialize(each.address) for each in functions if each)

        calls = [
            WrapperCall(runtime.addresses[name], arguments)
            for name in ("__jitlink_add_unwinder", "__jitlink_remove_unwinder")
        ]
        graph.alloc_actions.append(AllocActionPair(*calls))

    def notify_emitted(self, responsibility: MaterializationResponsibility) -> None:
        """Keep what was written down, under the owner of the code."""
        code = self._in_flight.pop(responsibility, None)
        state = self._platform.states.get(responsibility.dylib)
        if code is not None and state is not None:
            state.linked.setdefault(responsibility.tracker, []).append(code)
            if code.handle is not None:
                state.handle = code.handle.address
                self._platform.has_handlers = True
                # A symbol has its graph.
                code.handle = None

    def notify_failed(self, responsibility: MaterializationResponsibility) -> None:
        """Forget what was written down."""
        self._in_flight.pop(responsibility, None)

    def notify_transferring_resources(
        self, dylib: JITDylib, destination: ResourceTracker, source: ResourceTracker
    ) -> None:
        """Keep it under another owner."""
        state = self._platform.states.get(dylib)
        moved = state.linked.pop(source, None) if state else None
        if state and moved:
            state.linked.setdefault(destination, []).extend(moved)


def _unwinder_of(responsibility: MaterializationResponsibility) -> tuple[str, str] | None:
    """Names of the functions of an unwinder that is among what is to be made."""
    symbols = responsibility.dylib.symbols
    if symbols.keys().isdisjoint(_UNWINDER_FUNCTIONS):
        return None
    for names in _UNWINDERS:
        held = [symbols.get(name) for name in names]
        if all(each is not None and each.responsibility is responsibility for each in held):
            return names
    return None
