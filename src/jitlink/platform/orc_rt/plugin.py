"""The plugin of ORCRuntimePlatform: registers frames, initialisers and TLS images of each link.

Allocation actions register frames, then initialisers, before any code of the link can run, and
deregister them before its memory is deallocated. Frames of the runtime itself, and of links into
JITDylibs that were not set up, are registered with jitlink's own runtime, which outlives both.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from jitlink.graph import LinkGraph
from jitlink.link import PassConfiguration, TableFixups
from jitlink.orc.materialization import MaterializationResponsibility
from jitlink.orc.object_layer import Plugin
from jitlink.passes.eh_frame import FrameSection, terminate_eh_frames
from jitlink.passes.initializers import FunctionArray, objects_with_arrays
from jitlink.platform.base import Platform
from jitlink.platform.orc_rt import protocol
from jitlink.platform.orc_rt import tls as runtime_tls
from jitlink.platform.orc_rt.actions import RuntimeActions
from jitlink.platform.orc_rt.tls import InitializationImage
from jitlink.platform.orc_rt.tls_images import RuntimeTLS
from jitlink.platform.plugin import keep_initializers
from jitlink.platform.state import DylibState
from jitlink.runtime import Runtime
from jitlink.sps import ExecutorAddrRange

_NO_TLS_IMAGE = ExecutorAddrRange(0, 0)


class ORCRuntimePlugin(Plugin):
    """Takes part in the links of a platform's layer.

    Args:
        platform: the platform.
        actions: makes the calls of the ORC runtime.
        tls: its initialisation images.
        jitlink_runtime: jitlink's own runtime in the executor.
    """

    defines_symbols = False

    def __init__(
        self, platform: Platform, actions: RuntimeActions, tls: RuntimeTLS, jitlink_runtime: Runtime
    ) -> None:
        self._platform = platform
        self._actions = actions
        self._tls = tls
        self._jitlink_runtime = jitlink_runtime
        self._images: dict[MaterializationResponsibility, InitializationImage] = {}

    async def prepare(
        self, responsibility: MaterializationResponsibility, graph: LinkGraph
    ) -> None:
        """Link the handle if the graph has initialisers, the image if it has variables."""
        state = self._state(responsibility)
        if state is None:
            return
        if objects_with_arrays(graph):
            await self._platform.handle_of(state)
        if runtime_tls.uses_tls(graph):
            self._images[responsibility] = image = InitializationImage(graph)
            await self._tls.link_image(image)

    def _state(self, responsibility: MaterializationResponsibility) -> DylibState | None:
        """The state of the JITDylib that is linked into; None if the ORC runtime has none of it."""
        dylib, platform = responsibility.dylib, self._platform
        return None if dylib is platform.dylib else platform.states.get(dylib)

    def modify_pass_config(
        self,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,  # noqa: ARG002 - part of the interface
        config: PassConfiguration,
    ) -> None:
        """Add the passes that register frames and initialisers."""
        dylib, state = responsibility.dylib, self._state(responsibility)
        if state is None:
            config.post_prune.append(self._register_frames_with_jitlink)
            if dylib in self._platform.states:
                keep_initializers(config)
            return
        arrays = keep_initializers(config)
        self._use_runtime_tls(config, self._images.pop(responsibility, None))

        def register(graph: LinkGraph) -> None:
            self._register_initializers(graph, state, arrays(graph))

        config.post_prune.append(self._register_frames)
        config.post_allocation.append(register)

    def _use_runtime_tls(
        self, config: PassConfiguration, image: InitializationImage | None
    ) -> None:
        # In place of the C library's TLS.
        config.plan_fixups = TableFixups
        key = self._tls.key
        if image is None or key is None:
            return
        access = partial(runtime_tls.use_runtime_tls, key=key)
        config.post_prune[:0] = [access, image.take_out]
        config.post_allocation.insert(0, image.locate)
        config.post_fixup.append(partial(self._tls.write_image, image))

    def notify_failed(self, responsibility: MaterializationResponsibility) -> None:
        """Discard the image."""
        self._images.pop(responsibility, None)

    def _register_frames_with_jitlink(self, graph: LinkGraph) -> None:
        for section in terminate_eh_frames(graph):
            graph.alloc_actions.append(self._jitlink_runtime.frame_actions(section))

    def _register_frames(self, graph: LinkGraph) -> None:
        for section in terminate_eh_frames(graph):

            def frames(section: FrameSection = section) -> tuple[object, ...]:
                return ((ExecutorAddrRange(section.address, section.end), _NO_TLS_IMAGE),)

            graph.alloc_actions.append(self._actions.object_sections(frames))

    def _register_initializers(
        self, graph: LinkGraph, state: DylibState, arrays: Sequence[FunctionArray]
    ) -> None:
        # LLVM differs: it notifies the runtime also of graphs that have none.
        ranges = protocol.init_ranges(arrays)
        if not ranges:
            return

        def initializers() -> tuple[object, ...]:
            return state.handle, ranges

        graph.alloc_actions.append(self._actions.init_sections(initializers))
