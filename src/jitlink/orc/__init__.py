"""ORC: sessions whose definitions are linked when they are looked up, tracked and removed.

A session (`ExecutionSession`) has JITDylibs. `MaterializationUnit`s add definitions to them, which
are materialized when they are looked up. `ObjectLinkingLayer` adds and links objects and graphs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jitlink.lazy_imports import lazy_imports

if TYPE_CHECKING:
    from jitlink.orc.aliases import AliasCycleError, ReExports, ReExportsGenerator
    from jitlink.orc.call_sites import CallSite, CallSiteOutOfReachError, CallSiteRecorder
    from jitlink.orc.callables import ExecutorAddr, PythonSymbols
    from jitlink.orc.compiler_support import CompilerSupportGenerator
    from jitlink.orc.dylib import JITDylib
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
    from jitlink.orc.interface import (
        DefinitionGenerator,
        ExecutorSymbolDef,
        JITDylibLookupFlags,
        JITSymbolFlags,
        LookupKind,
        MaterializationUnit,
        ResourceManager,
        ResourceTracker,
        SymbolDependenceGroup,
        SymbolState,
    )
    from jitlink.orc.lazy import lazy_reexports
    from jitlink.orc.materialization import AbsoluteSymbols, MaterializationResponsibility
    from jitlink.orc.object_layer import ObjectLinkingLayer, Plugin
    from jitlink.orc.session import ExecutionSession
    from jitlink.orc.stubs import (
        IndirectStubsManager,
        LazyCallError,
        NotRedirectableError,
        RedirectableSymbolManager,
    )

__all__ = [
    "AbsoluteSymbols",
    "AliasCycleError",
    "CallSite",
    "CallSiteOutOfReachError",
    "CallSiteRecorder",
    "CompilerSupportGenerator",
    "DefinitionGenerator",
    "DynamicLibraryGenerator",
    "ExecutionSession",
    "ExecutorAddr",
    "ExecutorSymbolDef",
    "FailedToMaterializeError",
    "IndirectStubsManager",
    "JITDylib",
    "JITDylibDefunctError",
    "JITDylibLookupFlags",
    "JITSymbolFlags",
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
    "RedirectableSymbolManager",
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

# A name is imported when it is first used: many programs need no stubs or aliases.
_HOMES = {
    "AliasCycleError": "jitlink.orc.aliases",
    "ReExports": "jitlink.orc.aliases",
    "ReExportsGenerator": "jitlink.orc.aliases",
    "CallSite": "jitlink.orc.call_sites",
    "CallSiteOutOfReachError": "jitlink.orc.call_sites",
    "CallSiteRecorder": "jitlink.orc.call_sites",
    "ExecutorAddr": "jitlink.orc.callables",
    "PythonSymbols": "jitlink.orc.callables",
    "CompilerSupportGenerator": "jitlink.orc.compiler_support",
    "DefinitionGenerator": "jitlink.orc.interface",
    "JITDylib": "jitlink.orc.dylib",
    "FailedToMaterializeError": "jitlink.orc.errors",
    "JITDylibDefunctError": "jitlink.orc.errors",
    "MissingDefinitionsError": "jitlink.orc.errors",
    "ResourceTrackerDefunctError": "jitlink.orc.errors",
    "SessionEndedError": "jitlink.orc.errors",
    "SessionError": "jitlink.orc.errors",
    "SymbolsCouldNotBeRemovedError": "jitlink.orc.errors",
    "UnexpectedDefinitionError": "jitlink.orc.errors",
    "UnsatisfiedDependenciesError": "jitlink.orc.errors",
    "DynamicLibraryGenerator": "jitlink.orc.generators",
    "StaticLibraryGenerator": "jitlink.orc.generators",
    "lazy_reexports": "jitlink.orc.lazy",
    "AbsoluteSymbols": "jitlink.orc.materialization",
    "MaterializationResponsibility": "jitlink.orc.materialization",
    "MaterializationUnit": "jitlink.orc.interface",
    "SymbolDependenceGroup": "jitlink.orc.interface",
    "ObjectLinkingLayer": "jitlink.orc.object_layer",
    "Plugin": "jitlink.orc.object_layer",
    "RedirectableSymbolManager": "jitlink.orc.stubs",
    "ExecutionSession": "jitlink.orc.session",
    "IndirectStubsManager": "jitlink.orc.stubs",
    "LazyCallError": "jitlink.orc.stubs",
    "NotRedirectableError": "jitlink.orc.stubs",
    "ExecutorSymbolDef": "jitlink.orc.interface",
    "JITDylibLookupFlags": "jitlink.orc.interface",
    "JITSymbolFlags": "jitlink.orc.interface",
    "LookupKind": "jitlink.orc.interface",
    "SymbolState": "jitlink.orc.interface",
    "ResourceManager": "jitlink.orc.interface",
    "ResourceTracker": "jitlink.orc.interface",
}

__getattr__ = lazy_imports(__name__, _HOMES)
