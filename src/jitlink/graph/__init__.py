"""The link graph (layer 1): its elements, their tables, and the operations on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jitlink.lazy_imports import attach

if TYPE_CHECKING:
    from jitlink.graph.actions import AllocActionPair as AllocActionPair
    from jitlink.graph.actions import WrapperCall as WrapperCall
    from jitlink.graph.edges import Edge as Edge
    from jitlink.graph.edges import EdgeKind as EdgeKind
    from jitlink.graph.edges import EdgeTable as EdgeTable
    from jitlink.graph.edges import GenericEdgeKind as GenericEdgeKind
    from jitlink.graph.elements import Addressable as Addressable
    from jitlink.graph.elements import Block as Block
    from jitlink.graph.elements import Section as Section
    from jitlink.graph.elements import Symbol as Symbol
    from jitlink.graph.link_graph import LinkGraph as LinkGraph
    from jitlink.graph.ranges import AddressRange as AddressRange
    from jitlink.graph.ranges import SectionRange as SectionRange
    from jitlink.graph.tables import BlockFlags as BlockFlags
    from jitlink.graph.tables import BlockTable as BlockTable
    from jitlink.graph.tables import Linkage as Linkage
    from jitlink.graph.tables import MemLifetime as MemLifetime
    from jitlink.graph.tables import MemProt as MemProt
    from jitlink.graph.tables import Scope as Scope
    from jitlink.graph.tables import SymbolFlags as SymbolFlags
    from jitlink.graph.tables import SymbolKind as SymbolKind
    from jitlink.graph.tables import SymbolTable as SymbolTable
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        {
            "jitlink.graph.actions": ("AllocActionPair", "WrapperCall"),
            "jitlink.graph.edges": ("Edge", "EdgeKind", "EdgeTable", "GenericEdgeKind"),
            "jitlink.graph.elements": (
                "Addressable",
                "Block",
                "Section",
                "Symbol",
            ),
            "jitlink.graph.link_graph": ("LinkGraph",),
            "jitlink.graph.ranges": ("AddressRange", "SectionRange"),
            "jitlink.graph.tables": (
                "BlockFlags",
                "BlockTable",
                "Linkage",
                "MemLifetime",
                "MemProt",
                "Scope",
                "SymbolFlags",
                "SymbolKind",
                "SymbolTable",
            ),
        },
    )
