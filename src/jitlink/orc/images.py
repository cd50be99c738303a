"""JITDylibs as images of the executor: its dynamic linker lists their memory, and their symbols.

Memory is listed as it is allocated, by the memory manager. Symbols of default visibility are
exported when the code that defines them is in executor memory, and no longer when that is about to
be removed. A thread-local variable is exported by the TLS module that has its TLS block, to
libraries that linked code opens.
"""

from __future__ import annotations

from weakref import WeakSet

import numpy as np

from jitlink.errors import ExecutorError
from jitlink.graph import Linkage, LinkGraph, Scope, SymbolFlags
from jitlink.graph.columns import BoolArray, Int64Array, UInt64Array
from jitlink.graph.tables import ABSOLUTE, exported_rows, symbol_addresses
from jitlink.link import PassConfiguration
from jitlink.memory.images import Images, ImageSymbols
from jitlink.memory.tls import END_ADDRESS, FIRST_ADDRESS, TLSBlock, TLSRegistry
from jitlink.memory.tls_module import TLSSymbol
from jitlink.orc.dylib import JITDylib
from jitlink.orc.link_resources import LinkResources
from jitlink.orc.materialization import MaterializationResponsibility
from jitlink.orc.object_layer import ObjectLinkingLayer

# Those that have an `ImagePlugin`.
_layers: WeakSet[ObjectLinkingLayer] = WeakSet()


def make_visible(
    layer: ObjectLinkingLayer, dylib: JITDylib, name: str, *, exports: bool = True
) -> None:
    """Make a JITDylib, into which nothing has been linked yet, an image of the executor.

    Args:
        layer: links what is added to the JITDylib.
        dylib: the JITDylib.
        name: the name in the dynamic linker's list, such as a path.
        exports: whether libraries that are loaded later see its symbols.

    Raises:
        ExecutorError: the executor or the memory manager does not support that, or the name
            cannot be one.
    """
    session = layer.session
    if not layer.memory.supports_images:
        raise ExecutorError("the memory manager cannot make linked code an image of the process")
    images = session.executor.create_images(name, exports=exports)

    def enter() -> None:
        if exports and layer not in _layers:
            _layers.add(layer)
            layer.add_plugin(ImagePlugin(layer.memory.tls))
        dylib.images = images

    session.run(enter)


class _Exports:
    """What one link exports.

    Args:
        images: the images that export it.
        symbols: symbols that have addresses.
        block: the TLS block with the thread-local variables; None without any.
    """

    def __init__(self, images: Images, symbols: ImageSymbols, block: TLSBlock | None) -> None:
        self._images = images
        self._symbols = symbols
        self._block = block
        self._is_entered = False

    def enter(self) -> None:
        """Export it.

        Raises:
            AllocationError: there is no room for so many.
        """
        images = self._images
        try:
            images.define(self._symbols)
        except BaseException:
            images.remove(self._symbols)
            raise
        if self._block is not None:
            images.tls_modules.append(self._block.name)
        self._is_entered = True

    def leave(self) -> None:
        """Stop exporting it, if it is exported."""
        if not self._is_entered:
            return
        self._is_entered = False
        self._images.remove(self._symbols)
        if self._block is not None:
            self._images.tls_modules.remove(self._block.name)


class ImagePlugin(LinkResources[_Exports]):
    """Exports the symbols of links into JITDylibs that are images.

    Args:
        tls: thread-local storage of the links; None if their memory manager has none.
    """

    defines_symbols = False

    def __init__(self, tls: TLSRegistry | None) -> None:
        super().__init__()
        self._tls = tls

    def modify_pass_config(
        self,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,  # noqa: ARG002 - part of the interface
        config: PassConfiguration,
    ) -> None:
        """Record the symbols of a link, once they have addresses."""
        images = responsibility.dylib.images
        if images is None or not images.exports:
            return

        def record(graph: LinkGraph) -> None:
            block = self._export_variables(graph)
            self.keep(responsibility, _Exports(images, dynamic_symbols(graph), block))

        # Before the TLS module is loaded.
        config.pre_fixup.append(record)

    def _export_variables(self, graph: LinkGraph) -> TLSBlock | None:
        """Have the TLS module of a graph export its variables; returns their block."""
        rows, addresses, is_thread_local = _visible(graph)
        rows, addresses = rows[is_thread_local], addresses[is_thread_local]
        found = self._tls.find(int(addresses[0])) if len(rows) and self._tls is not None else None
        if found is None:
            return None
        block, table = found[0], graph.symbol_table
        names = graph.strings.get_many(table.name[rows])
        offsets = (addresses - np.uint64(block.address)).tolist()
        columns = zip(names, offsets, table.size[rows].tolist(), strict=True)
        block.symbols = [TLSSymbol(*row) for row in columns]
        return block

    def notify_emitted(self, responsibility: MaterializationResponsibility) -> None:
        """Export the symbols of a link."""
        exports = self.kept(responsibility)
        if exports is not None:
            exports.enter()
        super().notify_emitted(responsibility)

    def release(self, resource: _Exports) -> None:
        """Stop exporting the symbols of a link."""
        resource.leave()


def _visible(graph: LinkGraph) -> tuple[Int64Array, UInt64Array, BoolArray]:
    """Symbols of default visibility: rows, addresses, and whether they are thread-local."""
    table = graph.symbol_table
    rows = exported_rows(table)
    rows = rows[table.scope[rows] == Scope.DEFAULT]
    addresses = symbol_addresses(table, graph.block_table)[rows]
    return rows, addresses, (addresses >= FIRST_ADDRESS) & (addresses < END_ADDRESS)


def dynamic_symbols(graph: LinkGraph) -> ImageSymbols:
    """The symbols that an image with a graph exports."""
    table = graph.symbol_table
    rows, addresses, is_thread_local = _visible(graph)
    rows, addresses = rows[~is_thread_local], addresses[~is_thread_local]
    return ImageSymbols(
        graph.strings.get_many(table.name[rows]),
        addresses,
        table.size[rows],
        (table.flags[rows] & int(SymbolFlags.CALLABLE)) != 0,
        table.linkage[rows] == Linkage.WEAK,
        table.kind[rows] == ABSOLUTE,
        np.zeros(len(rows), np.bool_),
    )
