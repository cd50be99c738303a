"""jitlink: the JIT linker for Python.

Links relocatable object files and static archives in memory, into the running process:

    with jitlink.load("add.o") as lib:
        print(lib.add(2, 3))

What is underneath has packages of its own: sessions (`jitlink.orc`), the link graph
(`jitlink.graph`), memory managers (`jitlink.memory`), executors (`jitlink.executor`) and platforms
(`jitlink.platform`). docs/reference/index.md says what else is public.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jitlink.lazy_imports import attach

__version__ = "0.1.0"

if TYPE_CHECKING:
    from jitlink.abi.buffers import In as In
    from jitlink.abi.buffers import InOut as InOut
    from jitlink.abi.buffers import Out as Out
    from jitlink.errors import ActionError as ActionError
    from jitlink.errors import AllocationError as AllocationError
    from jitlink.errors import AllocatorError as AllocatorError
    from jitlink.errors import ArchiveError as ArchiveError
    from jitlink.errors import DuplicateDefinitionError as DuplicateDefinitionError
    from jitlink.errors import ExecutableStackError as ExecutableStackError
    from jitlink.errors import ExecutorError as ExecutorError
    from jitlink.errors import FixupError as FixupError
    from jitlink.errors import GraphError as GraphError
    from jitlink.errors import InputError as InputError
    from jitlink.errors import JITLinkError as JITLinkError
    from jitlink.errors import MisalignedTargetError as MisalignedTargetError
    from jitlink.errors import MissingFileError as MissingFileError
    from jitlink.errors import NotAFunctionError as NotAFunctionError
    from jitlink.errors import ObjectError as ObjectError
    from jitlink.errors import StaticTLSError as StaticTLSError
    from jitlink.errors import SymbolError as SymbolError
    from jitlink.errors import TargetOutOfRangeError as TargetOutOfRangeError
    from jitlink.errors import TLSError as TLSError
    from jitlink.errors import UndefinedSymbolError as UndefinedSymbolError
    from jitlink.errors import UnknownFormatError as UnknownFormatError
    from jitlink.errors import UnsupportedHostError as UnsupportedHostError
    from jitlink.errors import UnsupportedObjectError as UnsupportedObjectError
    from jitlink.errors import UnsupportedRelocationError as UnsupportedRelocationError
    from jitlink.errors import WritableCodeError as WritableCodeError
    from jitlink.extension_modules import ExtensionModuleError as ExtensionModuleError
    from jitlink.extension_modules import MissingInitFunctionError as MissingInitFunctionError
    from jitlink.extension_modules import import_module as import_module
    from jitlink.graph import Block as Block
    from jitlink.graph import Edge as Edge
    from jitlink.graph import Linkage as Linkage
    from jitlink.graph import LinkGraph as LinkGraph
    from jitlink.graph import MemLifetime as MemLifetime
    from jitlink.graph import MemProt as MemProt
    from jitlink.graph import Scope as Scope
    from jitlink.graph import Section as Section
    from jitlink.graph import Symbol as Symbol
    from jitlink.harnesses import AmbiguousSymbolError as AmbiguousSymbolError
    from jitlink.harnesses import Harness as Harness
    from jitlink.harnesses import MissingSymbolError as MissingSymbolError
    from jitlink.harnesses import UnusedMocksError as UnusedMocksError
    from jitlink.harnesses import harness as harness
    from jitlink.importer import Importer as Importer
    from jitlink.importer import install_importer as install_importer
    from jitlink.library import ClosedLibraryError as ClosedLibraryError
    from jitlink.library import Library as Library
    from jitlink.library import SymbolSizeError as SymbolSizeError
    from jitlink.link import JITLinkContext as JITLinkContext
    from jitlink.link import PassConfiguration as PassConfiguration
    from jitlink.lljit import LLJIT as LLJIT
    from jitlink.lljit import LLJITBuilder as LLJITBuilder
    from jitlink.loading import load as load
    from jitlink.memory_image import MemoryImage as MemoryImage
    from jitlink.targets.registry import create_link_graph as create_link_graph
    from jitlink.targets.registry import default_passes as default_passes
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        {
            "jitlink.abi.buffers": ("In", "InOut", "Out"),
            "jitlink.errors": (
                "ActionError",
                "AllocationError",
                "AllocatorError",
                "ArchiveError",
                "DuplicateDefinitionError",
                "ExecutableStackError",
                "ExecutorError",
                "FixupError",
                "GraphError",
                "InputError",
                "JITLinkError",
                "MisalignedTargetError",
                "MissingFileError",
                "NotAFunctionError",
                "ObjectError",
                "StaticTLSError",
                "SymbolError",
                "TargetOutOfRangeError",
                "TLSError",
                "UndefinedSymbolError",
                "UnknownFormatError",
                "UnsupportedHostError",
                "UnsupportedObjectError",
                "UnsupportedRelocationError",
                "WritableCodeError",
            ),
            "jitlink.extension_modules": (
                "ExtensionModuleError",
                "MissingInitFunctionError",
                "import_module",
            ),
            "jitlink.graph": (
                "Block",
                "Edge",
                "Linkage",
                "LinkGraph",
                "MemLifetime",
                "MemProt",
                "Scope",
                "Section",
                "Symbol",
            ),
            "jitlink.harnesses": (
                "AmbiguousSymbolError",
                "Harness",
                "MissingSymbolError",
                "UnusedMocksError",
                "harness",
            ),
            "jitlink.importer": ("Importer", "install_importer"),
            "jitlink.library": ("ClosedLibraryError", "Library", "SymbolSizeError"),
            "jitlink.link": ("JITLinkContext", "PassConfiguration"),
            "jitlink.lljit": ("LLJIT", "LLJITBuilder"),
            "jitlink.loading": ("load",),
            "jitlink.memory_image": ("MemoryImage",),
            "jitlink.targets.registry": ("create_link_graph", "default_passes"),
        },
    )
