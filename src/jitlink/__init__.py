"""jitlink: the JIT linker for Python.

Links relocatable object files and static archives in memory, into the running process::

    with jitlink.load("add.o") as lib:
        print(lib.add(2, 3))

Everything underneath is public too: graphs (`jitlink.graph`), the link algorithm
(`jitlink.link`), passes, memory managers and executors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jitlink.lazy_imports import lazy_imports

if TYPE_CHECKING:
    from jitlink.errors import (
        ActionError,
        AllocationError,
        ArchiveError,
        DuplicateDefinitionError,
        ExecutorError,
        FixupError,
        GraphError,
        InputError,
        JITLinkError,
        MisalignedTargetError,
        ObjectError,
        StaticTLSError,
        SymbolError,
        TargetOutOfRangeError,
        TLSError,
        UndefinedSymbolError,
        UnknownFormatError,
        UnsupportedObjectError,
        UnsupportedRelocationError,
    )
    from jitlink.graph import (
        Block,
        Edge,
        Linkage,
        LinkGraph,
        MemLifetime,
        MemProt,
        Scope,
        Section,
        Symbol,
    )
    from jitlink.harnesses import Harness, harness
    from jitlink.library import Library, load
    from jitlink.link import JITLinkContext, PassConfiguration
    from jitlink.lljit import LLJIT, LLJITBuilder
    from jitlink.targets.registry import create_link_graph, default_passes

__version__ = "0.1.0"

__all__ = [
    "LLJIT",
    "ActionError",
    "AllocationError",
    "ArchiveError",
    "Block",
    "DuplicateDefinitionError",
    "Edge",
    "ExecutorError",
    "FixupError",
    "GraphError",
    "Harness",
    "InputError",
    "JITLinkContext",
    "JITLinkError",
    "LLJITBuilder",
    "Library",
    "LinkGraph",
    "Linkage",
    "MemLifetime",
    "MemProt",
    "MisalignedTargetError",
    "ObjectError",
    "PassConfiguration",
    "Scope",
    "Section",
    "StaticTLSError",
    "Symbol",
    "SymbolError",
    "TLSError",
    "TargetOutOfRangeError",
    "UndefinedSymbolError",
    "UnknownFormatError",
    "UnsupportedObjectError",
    "UnsupportedRelocationError",
    "create_link_graph",
    "default_passes",
    "harness",
    "load",
]

# A public name is imported when it is first used, so that a command or a program pays at
# start-up only for what it needs.
_HOMES = {
    "ActionError": "jitlink.errors",
    "AllocationError": "jitlink.errors",
    "ArchiveError": "jitlink.errors",
    "DuplicateDefinitionError": "jitlink.errors",
    "ExecutorError": "jitlink.errors",
    "FixupError": "jitlink.errors",
    "GraphError": "jitlink.errors",
    "InputError": "jitlink.errors",
    "JITLinkError": "jitlink.errors",
    "MisalignedTargetError": "jitlink.errors",
    "ObjectError": "jitlink.errors",
    "StaticTLSError": "jitlink.errors",
    "SymbolError": "jitlink.errors",
    "TargetOutOfRangeError": "jitlink.errors",
    "TLSError": "jitlink.errors",
    "UndefinedSymbolError": "jitlink.errors",
    "UnknownFormatError": "jitlink.errors",
    "UnsupportedObjectError": "jitlink.errors",
    "UnsupportedRelocationError": "jitlink.errors",
    "Block": "jitlink.graph",
    "Edge": "jitlink.graph",
    "Linkage": "jitlink.graph",
    "LinkGraph": "jitlink.graph",
    "MemLifetime": "jitlink.graph",
    "MemProt": "jitlink.graph",
    "Scope": "jitlink.graph",
    "Section": "jitlink.graph",
    "Symbol": "jitlink.graph",
    "Harness": "jitlink.harnesses",
    "harness": "jitlink.harnesses",
    "Library": "jitlink.library",
    "load": "jitlink.library",
    "JITLinkContext": "jitlink.link",
    "LLJIT": "jitlink.lljit",
    "LLJITBuilder": "jitlink.lljit",
    "PassConfiguration": "jitlink.link",
    "create_link_graph": "jitlink.targets.registry",
    "default_passes": "jitlink.targets.registry",
}

__getattr__ = lazy_imports(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
