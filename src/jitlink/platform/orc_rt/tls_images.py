"""Initialisation images in LLVM's ORC runtime, and the key of pthreads that they share.

`jitlink.platform.orc_rt.tls` has what links do; here is what outlives them.
"""

from __future__ import annotations

import itertools

from jitlink import tasks
from jitlink.errors import ExecutorError
from jitlink.graph import LinkGraph
from jitlink.orc.dylib import JITDylib
from jitlink.orc.interface import JITDylibLookupFlags
from jitlink.orc.object_layer import ObjectLinkingLayer
from jitlink.orc.object_unit import GraphUnit
from jitlink.platform.orc_rt import protocol
from jitlink.platform.orc_rt.actions import RuntimeActions
from jitlink.platform.orc_rt.tls import InitializationImage
from jitlink.sps import ExecutorAddrRange
from jitlink.targets.registry import target_of_triple

_NO_FRAMES = ExecutorAddrRange(0, 0)


class RuntimeTLS:
    """The initialisation images of a session; used on the driver thread.

    Args:
        layer: links the images.
        dylib: the platform's own JITDylib, which owns them.
        actions: makes the calls that register them.

    Attributes:
        key: the key of pthreads under which threads keep their variables; None until a link
            accesses thread-local variables.
    """

    def __init__(self, layer: ObjectLinkingLayer, dylib: JITDylib, actions: RuntimeActions) -> None:
        self._layer = layer
        self._session = layer.session
        self._dylib = dylib
        self._actions = actions
        self._numbers = itertools.count()
        self.key: int | None = None

    async def link_image(self, image: InitializationImage) -> None:
        """Reserve memory for the image of a link, for as long as the runtime lives.

        Raises:
            JITLinkError: there is no memory, or the process has no more keys of pthreads.
        """
        await self._create_key()
        if not image.size:
            return
        name = f"$__TLSIMAGE.{next(self._numbers)}"
        graph = target_of_triple(self._session.executor.triple).new_graph(name)
        symbol = image.reserve(graph, name)

        def arguments() -> tuple[object, ...]:
            start = symbol.address
            return ((_NO_FRAMES, ExecutorAddrRange(start, start + image.size)),)

        graph.alloc_actions.append(self._actions.object_sections(arguments))
        self._dylib.add_unit(GraphUnit(self._layer, graph))
        order = [(self._dylib, JITDylibLookupFlags.MATCH_ALL_SYMBOLS)]
        await self._session.lookup_async(order, name)
        image.address = symbol.address

    def write_image(self, image: InitializationImage, graph: LinkGraph) -> None:
        """Write the image of a graph to executor memory (a post-fixup pass)."""
        if image.size:
            executor = self._session.executor
            tasks.run(executor.write_memory(image.address, image.content(graph)))

    async def _create_key(self) -> None:
        """Create the key if there is none.

        Raises:
            ExecutorError: the process has no more keys.
        """
        if self.key is not None:
            return
        create = protocol.CREATE_PTHREAD_KEY
        address = self._actions.addresses[create.name]
        executor = self._session.executor
        try:
            key = await executor.call_function(create.name, address, create.signature)
        except ExecutorError as error:
            message = f"thread-local variables need a key of pthreads: {error}"
            raise ExecutorError(message) from error
        self.key = key

    async def delete_key(self) -> None:
        """Delete the key: threads that end later must not call into the runtime."""
        key, self.key = self.key, None
        if key is None:
            return
        executor = self._session.executor
        (delete,) = await executor.lookup_symbols(["pthread_key_delete"])
        if delete:
            await executor.run_as_int_function(delete, key)
