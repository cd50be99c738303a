"""The link graph (layer 1): its elements, their tables, and the operations on them."""

from jitlink.graph.actions import AllocActionPair, WrapperCall
from jitlink.graph.edges import Edge, EdgeKind, EdgeTable, GenericEdgeKind
from jitlink.graph.elements import Addressable, Block, Section, Symbol
from jitlink.graph.link_graph import LinkGraph
from jitlink.graph.ranges import AddressRange, SectionRange
from jitlink.graph.tables import (
    BlockFlags,
    BlockTable,
    Linkage,
    MemLifetime,
    MemProt,
    Scope,
    SymbolFlags,
    SymbolKind,
    SymbolTable,
)

__all__ = [
    "AddressRange",
    "Addressable",
    "AllocActionPair",
    "Block",
    "BlockFlags",
    "BlockTable",
    "Edge",
    "EdgeKind",
    "EdgeTable",
    "GenericEdgeKind",
    "LinkGraph",
    "Linkage",
    "MemLifetime",
    "MemProt",
    "Scope",
    "Section",
    "SectionRange",
    "Symbol",
    "SymbolFlags",
    "SymbolKind",
    "SymbolTable",
    "WrapperCall",
]
