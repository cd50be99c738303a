"""ORC: sessions into which definitions are added, linked when looked up, tracked and removed.

A session (`ExecutionSession`) has JITDylibs; definitions are promised to them by
`MaterializationUnit`s and made when somebody looks them up. `ObjectLinkingLayer` makes them
from objects and graphs.
"""

from jitlink.orc.aliases import AliasCycleError, ReExports, ReExportsGenerator
from jitlink.orc.call_sites import CallSite, CallSiteOutOfReachError, CallSiteRecorder
from jitlink.orc.callables import ExecutorAddress, PythonSymbols
from jitlink.orc.compiler_support import CompilerSupportGenerator
from jitlink.orc.dylib import DefinitionGenerator, JITDylib
from jitlink.orc.errors import (
    FailedToMaterializeError,
    JITDylibDefunctError,
    MissingDefinitionsError,
    ResourceTrackerDefunctError,
    SessionEndedError,
    SessionError,
    SymbolsCouldNotBeRemovedError,
    UnexpectedDefinitionError,
    UnsatisfiedDependenciesError,
)
from jitlink.orc.generators import DynamicLibraryGenerator, StaticLibraryGenerator
from jitlink.orc.lazy import lazy_reexports
from jitlink.orc.lljit import LLJIT, LLJITBuilder
from jitlink.orc.materialization import (
    AbsoluteSymbols,
    MaterializationResponsibility,
    MaterializationUnit,
    SymbolDependenceGroup,
)
from jitlink.orc.object_layer import ObjectLinkingLayer, Plugin
from jitlink.orc.redirect import Redirector
from jitlink.orc.session import ExecutionSession
from jitlink.orc.stubs import (
    IndirectStubsManager,
    LazyCallError,
    NotRedirectableError,
)
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
    "CallSite",
    "CallSiteOutOfReachError",
    "CallSiteRecorder",
    "CompilerSupportGenerator",
    "DefinitionGenerator",
    "DynamicLibraryGenerator",
    "ExecutionSession",
    "ExecutorAddress",
    "ExecutorSymbolDef",
    "FailedToMaterializeError",
    "IndirectStubsManager",
    "JITDylib",
    "JITDylibDefunctError",
    "JITDylibLookupFlags",
    "JITSymbolFlags",
    "LLJITBuilder",
    "LazyCallError",
    "LookupKind",
    "MaterializationResponsibility",
    "MaterializationUnit",
    "MissingDefinitionsError",
    "NotRedirectableError",
    "ObjectLinkingLayer",
    "Plugin",
    "PythonSymbols",
    "ReExports",
    "ReExportsGenerator",
    "Redirector",
    "ResourceManager",
    "ResourceTracker",
    "ResourceTrackerDefunctError",
    "SessionEndedError",
    "SessionError",
    "StaticLibraryGenerator",
    "SymbolDependenceGroup",
    "SymbolState",
    "SymbolsCouldNotBeRemovedError",
    "UnexpectedDefinitionError",
    "UnsatisfiedDependenciesError",
    "lazy_reexports",
]
