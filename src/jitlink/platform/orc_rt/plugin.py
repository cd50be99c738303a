"""The plugin of an ORC runtime's platform: what each link does so that the runtime knows of it.

Allocation actions register frames, then initialisers, before anything else can run, and forget
them before their memory goes. The runtime itself, and what goes into JITDylibs that the platform
does not take care of, has its frames registered by jitlink's own runtime, which outlives both.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from jitlink.graph import LinkGraph
from jitlink.link import PassConfiguration, TableFixups
from jitlink.orc.materialization import MaterializationResponsibility
from jitlink.orc.object_layer import Plugin
from jitlink.passes.eh_frame import FrameSection, terminate_eh_frames
from jitlink.passes.initializers import FunctionArray, objects_with_arrays
from jitlink.platform.orc_rt import protocol
from jitlink.platform.orc_rt import tls as runtime_tls
from jitlink.platform.orc_rt.tls import InitializationImage
from jitlink.platform.plugin import keep_initializers
from jitlink.platform.state import DylibState
from jitlink.runtime import Runtime
from jitlink.sps import ExecutorAddrRange

if TYPE_CHECKING:
    from jitlink.platform.orc_rt.platform import ORCRuntimePlatform

_NOTHING = ExecutorAddrRange(0, 0)


class ORCRuntimePlugin(Plugin):
    """Watches the links of a platform's layer.

    Args:
        platform: the platform.
        own: jitlink's own runtime in the executor.
    """

    defines_symbols = False

    def __init__(self, platform: ORCRuntimePlatform, own: Runtime) -> None:
        self._platform = platform
        self._own = own
        self._images: dict[MaterializationResponsibility, InitializationImage] = {}

    async def prepare(
        self, responsibility: MaterializationResponsibility, graph: LinkGraph
    ) -> None:
        """Have the handle ready if the graph has initialisers, the key if it has variables."""
        state = self._state(responsibility)
        if state is None:
            return
        if objects_with_arrays(graph):
            await self._platform.handle_of(state)
        if runtime_tls.uses_tls(graph):
            self._images[responsibility] = image = InitializationImage(graph)
            await self._platform.link_thread_image(image)

    def _state(self, responsibility: MaterializationResponsibility) -> DylibState | None:
        """What is known of the JITDylib that is linked into; None if the runtime is not told."""
        dylib, platform = responsibility.dylib, self._platform
        return None if dylib is platform.dylib else platform.states.get(dylib)

    def modify_pass_config(
        self,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,  # noqa: ARG002 - part of the interface
        config: PassConfiguration,
    ) -> None:
        """Add what registers frames and initialisers."""
        dylib, state = responsibility.dylib, self._state(responsibility)
        if state is None:
            config.post_prune.append(self._register_frames_elsewhere)
            if dylib in self._platform.states:
                keep_initializers(config)
            return
        arrays = keep_initializers(config)
        self._use_runtime_tls(config, self._images.pop(responsibility, None))

        def note(graph: LinkGraph) -> None:
            # For the handle, which comes with the first link that refers to it.
            state.address_limit = min(state.address_limit, graph.address_limit)
            self._register_initializers(graph, state, arrays(graph))

        config.post_prune.append(self._register_frames)
        config.post_allocation.append(note)

    def _use_runtime_tls(
        self, config: PassConfiguration, image: InitializationImage | None
    ) -> None:
        # In place of the C library's TLS.
        config.plan_fixups = TableFixups
        key = self._platform.thread_key
        if image is None or key is None:
            return
        access = partial(runtime_tls.use_runtime_tls, key=key)
        config.post_prune[:0] = [access, image.take_out]
        config.post_allocation.insert(0, image.locate)
        config.post_fixup.append(partial(self._platform.write_thread_image, image))

    def notify_failed(self, responsibility: MaterializationResponsibility) -> None:
        """Forget what was prepared."""
        self._images.pop(responsibility, None)

    def _register_frames_elsewhere(self, graph: LinkGraph) -> None:
        for section in terminate_eh_frames(graph):
            graph.alloc_actions.append(self._own.frame_actions(section))

    def _register_frames(self, graph: LinkGraph) -> None:
        for section in terminate_eh_frames(graph):

            def frames(section: FrameSection = section) -> tuple[object, ...]:
                return ((ExecutorAddrRange(section.address, section.end), _NOTHING),)

            graph.alloc_actions.append(self._platform.section_actions(frames))

    def _register_initializers(
        self, graph: LinkGraph, state: DylibState, arrays: Sequence[FunctionArray]
    ) -> None:
        # LLVM differs: it tells the runtime also of graphs that have none.
        ranges = protocol.init_ranges(arrays)
        if not ranges:
            return

        def initializers() -> tuple[object, ...]:
            return state.handle, ranges

        actions = self._platform.actions(
            (protocol.REGISTER_INIT_SECTIONS, initializers),
            (protocol.DEREGISTER_INIT_SECTIONS, initializers),
        )
        graph.alloc_actions.append(actions)
