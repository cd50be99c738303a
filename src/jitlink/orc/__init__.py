"""ORC: sessions whose definitions are linked when they are looked up, tracked and removed.

A session (`ExecutionSession`) has JITDylibs. `MaterializationUnit`s add definitions to them, which
are materialized when they are looked up. `ObjectLinkingLayer` adds and links objects and graphs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jitlink.lazy_imports import attach

if TYPE_CHECKING:
    from jitlink.orc.aliases import AliasCycleError as AliasCycleError
    from jitlink.orc.aliases import ReExports as ReExports
    from jitlink.orc.aliases import ReExportsGenerator as ReExportsGenerator
    from jitlink.orc.call_sites import CallSite as CallSite
    from jitlink.orc.call_sites import CallSiteOutOfReachError as CallSiteOutOfReachError
    from jitlink.orc.call_sites import CallSiteRecorder as CallSiteRecorder
    from jitlink.orc.call_sites import SplitCallSiteError as SplitCallSiteError
    from jitlink.orc.callables import ExecutorAddr as ExecutorAddr
    from jitlink.orc.callables import PythonSymbols as PythonSymbols
    from jitlink.orc.compiler_support import CompilerSupportGenerator as CompilerSupportGenerator
    from jitlink.orc.dylib import JITDylib as JITDylib
    from jitlink.orc.errors import ConsequenceError as ConsequenceError
    from jitlink.orc.errors import FailedToMaterializeError as FailedToMaterializeError
    from jitlink.orc.errors import Failure as Failure
    from jitlink.orc.errors import JITDylibDefunctError as JITDylibDefunctError
    from jitlink.orc.errors import MissingDefinitionsError as MissingDefinitionsError
    from jitlink.orc.errors import NotRestartableError as NotRestartableError
    from jitlink.orc.errors import ResourceTrackerDefunctError as ResourceTrackerDefunctError
    from jitlink.orc.errors import SessionEndedError as SessionEndedError
    from jitlink.orc.errors import SessionError as SessionError
    from jitlink.orc.errors import SymbolsCouldNotBeRemovedError as SymbolsCouldNotBeRemovedError
    from jitlink.orc.errors import UnexpectedDefinitionError as UnexpectedDefinitionError
    from jitlink.orc.errors import UnsatisfiedDependenciesError as UnsatisfiedDependenciesError
    from jitlink.orc.generators import DynamicLibraryGenerator as DynamicLibraryGenerator
    from jitlink.orc.generators import StaticLibraryGenerator as StaticLibraryGenerator
    from jitlink.orc.harness import AmbiguousReferenceError as AmbiguousReferenceError
    from jitlink.orc.harness import OverrideError as OverrideError
    from jitlink.orc.interface import DefinitionGenerator as DefinitionGenerator
    from jitlink.orc.interface import ExecutorSymbolDef as ExecutorSymbolDef
    from jitlink.orc.interface import JITDylibLookupFlags as JITDylibLookupFlags
    from jitlink.orc.interface import JITSymbolFlags as JITSymbolFlags
    from jitlink.orc.interface import LookupKind as LookupKind
    from jitlink.orc.interface import MaterializationUnit as MaterializationUnit
    from jitlink.orc.interface import ResourceManager as ResourceManager
    from jitlink.orc.interface import ResourceTracker as ResourceTracker
    from jitlink.orc.interface import SymbolDependenceGroup as SymbolDependenceGroup
    from jitlink.orc.interface import SymbolState as SymbolState
    from jitlink.orc.lazy import LazyHiddenObjectLayer as LazyHiddenObjectLayer
    from jitlink.orc.lazy import Speculator as Speculator
    from jitlink.orc.lazy import SymbolTransform as SymbolTransform
    from jitlink.orc.lazy import lazy_reexports as lazy_reexports
    from jitlink.orc.materialization import AbsoluteSymbols as AbsoluteSymbols
    from jitlink.orc.materialization import (
        MaterializationResponsibility as MaterializationResponsibility,
    )
    from jitlink.orc.object_layer import ObjectLinkingLayer as ObjectLinkingLayer
    from jitlink.orc.object_layer import Plugin as Plugin
    from jitlink.orc.objects import CommonSizeError as CommonSizeError
    from jitlink.orc.session import ExecutionSession as ExecutionSession
    from jitlink.orc.stubs import IndirectStubsManager as IndirectStubsManager
    from jitlink.orc.stubs import LazyCallError as LazyCallError
    from jitlink.orc.stubs import NotRedirectableError as NotRedirectableError
    from jitlink.orc.stubs import RedirectableSymbolManager as RedirectableSymbolManager
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        {
            "jitlink.orc.aliases": ("AliasCycleError", "ReExports", "ReExportsGenerator"),
            "jitlink.orc.call_sites": (
                "CallSite",
                "CallSiteOutOfReachError",
                "CallSiteRecorder",
                "SplitCallSiteError",
            ),
            "jitlink.orc.callables": ("ExecutorAddr", "PythonSymbols"),
            "jitlink.orc.compiler_support": ("CompilerSupportGenerator",),
            "jitlink.orc.dylib": ("JITDylib",),
            "jitlink.orc.errors": (
                "ConsequenceError",
                "FailedToMaterializeError",
                "Failure",
                "JITDylibDefunctError",
                "MissingDefinitionsError",
                "NotRestartableError",
                "ResourceTrackerDefunctError",
                "SessionEndedError",
                "SessionError",
                "SymbolsCouldNotBeRemovedError",
                "UnexpectedDefinitionError",
                "UnsatisfiedDependenciesError",
            ),
            "jitlink.orc.generators": ("DynamicLibraryGenerator", "StaticLibraryGenerator"),
            "jitlink.orc.harness": ("AmbiguousReferenceError", "OverrideError"),
            "jitlink.orc.interface": (
                "DefinitionGenerator",
                "ExecutorSymbolDef",
                "JITDylibLookupFlags",
                "JITSymbolFlags",
                "LookupKind",
                "MaterializationUnit",
                "ResourceManager",
                "ResourceTracker",
                "SymbolDependenceGroup",
                "SymbolState",
            ),
            "jitlink.orc.lazy": (
                "LazyHiddenObjectLayer",
                "Speculator",
                "SymbolTransform",
                "lazy_reexports",
            ),
            "jitlink.orc.materialization": ("AbsoluteSymbols", "MaterializationResponsibility"),
            "jitlink.orc.object_layer": ("ObjectLinkingLayer", "Plugin"),
            "jitlink.orc.objects": ("CommonSizeError",),
            "jitlink.orc.session": ("ExecutionSession",),
            "jitlink.orc.stubs": (
                "IndirectStubsManager",
                "LazyCallError",
                "NotRedirectableError",
                "RedirectableSymbolManager",
            ),
        },
    )
