"""LinkOnlyPlatform: resolves names as a platform does for code that is linked and never run.

Code that runs finds the functions of a runtime, and a handle and functions of its own in each
JITDylib. Here these names are defined, and have no address: references to them lead to zeros within
reach, like those to phony externals. Nothing is loaded for them, and nothing runs, so the code may
be for any processor. What has initialisers is linked, and what compilers' shared libraries define
is searched there, as for code that runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from jitlink.graph import AllocActionPair, Symbol
from jitlink.orc.dylib import JITDylib
from jitlink.orc.interface import (
    ExecutorSymbolDef,
    JITDylibLookupFlags,
    JITSymbolFlags,
    LookupKind,
    ResourceTracker,
)
from jitlink.orc.materialization import AbsoluteSymbols
from jitlink.orc.object_layer import ObjectLinkingLayer
from jitlink.orc.session import ExecutionSession
from jitlink.platform.base import DSO_HANDLE, Platform
from jitlink.platform.state import DylibState
from jitlink.runtime import EXPORTS, PER_DYLIB_FUNCTIONS

_NAMES = frozenset({DSO_HANDLE, *PER_DYLIB_FUNCTIONS, *EXPORTS})
_FLAGS = JITSymbolFlags.EXPORTED | JITSymbolFlags.ABSOLUTE


class LinkOnlyPlatform(Platform):
    """A platform for code that does not run.

    Attributes:
        links_foreign_code: whether code for another processor than the executor's is linked. The
            functions of its compiler's support library are then defined, too.

    Raises:
        SessionError: the session has a platform already.
    """

    def __init__(
        self,
        session: ExecutionSession,
        layer: ObjectLinkingLayer,
        process_symbols: JITDylib | None = None,
    ) -> None:
        self.links_foreign_code = False
        super().__init__(session, layer, process_symbols)
        self.dylib.add_generator(self)
        layer.unplaced = self

    def defines(self, name: str) -> bool:
        """Whether a name would be defined for code that runs."""
        return name in _NAMES or (self.links_foreign_code and _is_compiler_support(name))

    async def try_to_generate(
        self,
        kind: LookupKind,  # noqa: ARG002 - part of the interface
        dylib: JITDylib,
        flags: JITDylibLookupFlags,  # noqa: ARG002
        names: Mapping[str, bool],
    ) -> None:
        """Define the names, without addresses."""
        found = {name: ExecutorSymbolDef(0, _FLAGS) for name in names if self.defines(name)}
        if found:
            dylib.add_unit(AbsoluteSymbols(found))

    def _create_state(self, dylib: JITDylib) -> None:
        self.states[dylib] = DylibState(dylib, dylib.create_resource_tracker())

    async def handle_actions(
        self,
        dylib: JITDylib,  # noqa: ARG002 - part of the interface
        symbol: Symbol,  # noqa: ARG002
    ) -> Sequence[AllocActionPair]:
        """None: there is nothing to register the JITDylib with."""
        return ()

    def initialize(self, dylib: JITDylib, argv: Sequence[str] | None = None) -> None:  # noqa: ARG002
        """Link what has initialisers, in the JITDylib and in those of its link order.

        Raises:
            JITLinkError: something could not be linked.
        """
        self.session.wait(self.link_initializers(dylib))

    def deinitialize(self, dylib: JITDylib) -> None:
        """Nothing: nothing has run."""

    def close_all(self) -> None:
        """Nothing: nothing has run."""

    def dylibs_that_call_python(self) -> Iterable[JITDylib]:
        """None: nothing runs."""
        return ()

    async def handle_remove_resources(self, dylib: JITDylib, key: ResourceTracker) -> None:
        """Nothing: no resources are held."""


def _is_compiler_support(name: str) -> bool:
    from jitlink.names.providers import is_compiler_support  # noqa: PLC0415 - slow to import

    return is_compiler_support(name)
