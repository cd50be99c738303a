"""Redirectable functions: replaced while code that calls them runs.

::

    redirector = Redirector(IndirectStubsManager(layer))
    redirector.create(main, {"step": (slow, "step")})
    ...
    redirector.redirect(main, {"step": (fast, "step")})

Callers call a stub, and so does everybody who took the function's address. To redirect is to
store one pointer: a call that is made at the same time runs the old function or the new one.
Calls that are under way stay where they are, so the old function must stay for as long as a
thread may be in it.
"""

from __future__ import annotations

from collections.abc import Mapping

from jitlink.orc.dylib import JITDylib
from jitlink.orc.stubs import FUNCTION, Body, IndirectStubsManager, Target
from jitlink.orc.symbols import ExecutorSymbolDef, JITSymbolFlags
from jitlink.orc.tracker import ResourceTracker

Destination = int | ExecutorSymbolDef | tuple[JITDylib, str]
"""An address, a symbol that was looked up, or a definition by its name in a JITDylib."""


class Redirector:
    """Defines redirectable functions and redirects them.

    Args:
        stubs: makes the stubs.
    """

    def __init__(self, stubs: IndirectStubsManager) -> None:
        self._stubs = stubs

    def create(
        self,
        dylib: JITDylib,
        functions: Mapping[str, Destination],
        *,
        tracker: ResourceTracker | None = None,
        flags: JITSymbolFlags = FUNCTION,
    ) -> None:
        """Define functions that can be redirected.

        Args:
            dylib: where to.
            functions: where each of them leads at first. A definition that is named is linked
                when the function is first called.
            tracker: what owns them, by default the JITDylib's default tracker.
            flags: flags of the symbols.

        Raises:
            DuplicateDefinitionError: a strong definition of one of the names exists.
            ResourceTrackerDefunctError: the tracker, or the JITDylib, was removed.
        """
        dylib.define(self._stubs.unit(_targets(functions), flags), tracker)

    def redirect(self, dylib: JITDylib, functions: Mapping[str, Destination]) -> None:
        """Let functions lead elsewhere, each in one step; definitions are linked first.

        Raises:
            NotRedirectableError: some names were not made redirectable there.
            UndefinedSymbolError: a definition that is named does not exist.
            FailedToMaterializeError: it cannot be linked.

        After an error all functions lead where they led before.
        """
        dylib.session.wait(self.redirect_async(dylib, functions))

    async def redirect_async(self, dylib: JITDylib, functions: Mapping[str, Destination]) -> None:
        """The asynchronous form of `redirect`."""
        await self._stubs.redirect(dylib, _targets(functions))


def _targets(functions: Mapping[str, Destination]) -> dict[str, Target]:
    return {name: _target(destination) for name, destination in functions.items()}


def _target(destination: Destination) -> Target:
    if isinstance(destination, int):
        return destination
    if isinstance(destination, ExecutorSymbolDef):
        return destination.address
    return Body(*destination)
