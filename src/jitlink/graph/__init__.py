"""The link graph (layer 1): what is linked, and every way to look at it or change it."""

from jitlink.graph.actions import AllocActionPair, WrapperCall
from jitlink.graph.edges import Edge, EdgeKind, EdgeTable, GenericEdgeKind
from jitlink.graph.elements import (
    Addressable,
    Block,
    BlockFlags,
    BlockTable,
    Linkage,
    MemLifetime,
    MemProt,
    Scope,
    Section,
    Symbol,
    SymbolFlags,
    SymbolKind,
    SymbolTable,
)
from jitlink.graph.link_graph import LinkGraph
from jitlink.graph.ranges import AddressRange, SectionRange

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
