"""ORC: sessions into which definitions are added, linked when looked up, tracked and removed.

A session (`ExecutionSession`) has JITDylibs; definitions are promised to them by
`MaterializationUnit`s and made when somebody looks them up. `ObjectLinkingLayer` makes them
from objects and graphs.
"""

from jitlink.orc.aliases import AliasCycleError, ReExports, ReExportsGenerator
from jitlink.orc.callables import ExecutorAddress, PythonSymbols
from jitlink.orc.dylib import DefinitionGenerator, JITDylib
from jitlink.orc.errors import (
    FailedToMaterializeError,
    MissingDefinitionsError,
    ResourceTrackerDefunctError,
    SessionEndedError,
    SessionError,
    UnexpectedDefinitionError,
)
from jitlink.orc.generators import DynamicLibraryGenerator, StaticLibraryGenerator
from jitlink.orc.lljit import LLJIT, LLJITBuilder
from jitlink.orc.materialization import (
    AbsoluteSymbols,
    MaterializationResponsibility,
    MaterializationUnit,
    SymbolDependenceGroup,
)
from jitlink.orc.object_layer import ObjectLinkingLayer, Plugin
from jitlink.orc.session import ExecutionSession
from jitlink.orc.symbols import (
    ExecutorSymbolDef,
    JITDylibLookupFlags,
    JITSymbolFlags,
    LookupKind,
    SymbolState,
)
from jitlink.orc.tracker import ResourceManager, ResourceTracker

__all__ = [
    "LLJIT",
    "AbsoluteSymbols",
    "AliasCycleError",
    "DefinitionGenerator",
    "DynamicLibraryGenerator",
    "ExecutionSession",
    "ExecutorAddress",
    "ExecutorSymbolDef",
    "FailedToMaterializeError",
    "JITDylib",
    "JITDylibLookupFlags",
    "JITSymbolFlags",
    "LLJITBuilder",
    "LookupKind",
    "MaterializationResponsibility",
    "MaterializationUnit",
    "MissingDefinitionsError",
    "ObjectLinkingLayer",
    "Plugin",
    "PythonSymbols",
    "ReExports",
    "ReExportsGenerator",
    "ResourceManager",
    "ResourceTracker",
    "ResourceTrackerDefunctError",
    "SessionEndedError",
    "SessionError",
    "StaticLibraryGenerator",
    "SymbolDependenceGroup",
    "SymbolState",
    "UnexpectedDefinitionError",
]
