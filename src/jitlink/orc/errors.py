"""What can go wrong in a session, as exceptions.

::

    JITLinkError
    └── SessionError
        ├── SessionEndedError               the session has ended
        ├── ResourceTrackerDefunctError     the tracker was removed
        ├── FailedToMaterializeError        a definition could not be made; the cause is chained
        ├── UnexpectedDefinitionError       a link defines what it is not responsible for
        └── MissingDefinitionsError         a link does not define what it is responsible for
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from jitlink.errors import JITLinkError


class SessionError(JITLinkError):
    """Something that a session cannot do."""


class SessionEndedError(SessionError):
    """The session has ended."""

    def __init__(self) -> None:
        super().__init__("the session has ended")


class ResourceTrackerDefunctError(SessionError):
    """The resource tracker was removed, or its JITDylib was.

    Attributes:
        dylib: name of the JITDylib.
    """

    def __init__(self, dylib: str) -> None:
        super().__init__(f"a resource tracker of {dylib} was removed")
        self.dylib = dylib


class FailedToMaterializeError(SessionError):
    """Definitions that could not be made, or that depend on such ones.

    The error that stopped the first of them is its ``__cause__``.

    Attributes:
        symbols: the names, by name of their JITDylib.
    """

    def __init__(self, symbols: Mapping[str, Iterable[str]]) -> None:
        self.symbols = {dylib: tuple(sorted(names)) for dylib, names in symbols.items()}
        where = "; ".join(f"{', '.join(names)} in {d}" for d, names in self.symbols.items())
        super().__init__(f"failed to materialize {where}")


class UnexpectedDefinitionError(SessionError):
    """A link defines symbols that it was not asked to define.

    Attributes:
        unit: name of the materialization unit.
        names: the symbols.
    """

    def __init__(self, unit: str, names: Iterable[str]) -> None:
        self.unit, self.names = unit, tuple(sorted(names))
        super().__init__(f"unexpected definitions in {unit}: {', '.join(self.names)}")


class MissingDefinitionsError(SessionError):
    """A link does not define symbols that it was asked to define.

    Attributes:
        unit: name of the materialization unit.
        names: the symbols.
    """

    def __init__(self, unit: str, names: Iterable[str]) -> None:
        self.unit, self.names = unit, tuple(sorted(names))
        super().__init__(f"missing definitions in {unit}: {', '.join(self.names)}")
