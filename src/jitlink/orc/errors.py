"""What can go wrong in a session, as exceptions.

::

    JITLinkError
    └── SessionError
        ├── SessionEndedError               the session has ended
        ├── JITDylibDefunctError            the JITDylib was removed
        ├── ResourceTrackerDefunctError     the tracker was removed, or gave all to another
        ├── FailedToMaterializeError        a definition could not be made; the cause is chained
        ├── UnexpectedDefinitionError       a link defines what it is not responsible for
        ├── MissingDefinitionsError         a link does not define what it is responsible for
        ├── UnsatisfiedDependenciesError    a link depends on what is not there any more
        └── SymbolsCouldNotBeRemovedError   symbols that are just being made

Undefined symbols and duplicate definitions are `UndefinedSymbolError` and
`DuplicateDefinitionError` of `jitlink.errors`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Self

from jitlink.errors import JITLinkError

_SHOWN = 8
"""Of more names than this, a message tells the first ones and how many there are."""


def listed(names: tuple[str, ...]) -> str:
    """Names as a message has them."""
    if len(names) <= _SHOWN:
        return ", ".join(names)
    return f"{', '.join(names[:_SHOWN])} and {len(names) - _SHOWN} more"


def _located(symbols: Mapping[str, tuple[str, ...]]) -> str:
    return "; ".join(f"{listed(names)} in {dylib}" for dylib, names in symbols.items())


class SessionError(JITLinkError):
    """Something that a session cannot do."""


class SessionEndedError(SessionError):
    """The session has ended."""

    def __init__(self) -> None:
        super().__init__("the session has ended")


class JITDylibDefunctError(SessionError):
    """The JITDylib was removed.

    Attributes:
        dylib: its name.
    """

    def __init__(self, dylib: str) -> None:
        super().__init__(f"JITDylib {dylib} was removed")
        self.dylib = dylib


class ResourceTrackerDefunctError(SessionError):
    """The resource tracker was removed, or its JITDylib was, or all it had was transferred.

    Attributes:
        dylib: name of the JITDylib.
    """

    def __init__(self, dylib: str) -> None:
        super().__init__(f"a resource tracker of {dylib} was removed or transferred")
        self.dylib = dylib


class FailedToMaterializeError(SessionError):
    """Definitions that could not be made, or that depend on such ones.

    The error that stopped the first of them is its ``__cause__``. The message names only some
    if there are many.

    Attributes:
        symbols: the names, by name of their JITDylib.
    """

    def __init__(self, symbols: Mapping[str, Iterable[str]]) -> None:
        self.symbols = {dylib: tuple(sorted(names)) for dylib, names in symbols.items()}
        super().__init__(f"failed to materialize {_located(self.symbols)}")

    @property
    def reason(self) -> BaseException:
        """What went wrong first, as far as it is known; else this error itself."""
        error: BaseException = self
        later = (FailedToMaterializeError, UnsatisfiedDependenciesError)
        while isinstance(error, later) and error.__cause__ is not None:
            error = error.__cause__
        return error

    def again(self) -> Self:
        """Another one that says the same, to be raised elsewhere with a traceback of its own."""
        other = type(self).__new__(type(self), *self.args)
        other.args, other.symbols, other.__cause__ = self.args, self.symbols, self.__cause__
        return other


class _DefinitionsError(SessionError):
    """A link does not define what it was asked to define, no more and no less."""

    _problem: ClassVar[str]

    def __init__(self, unit: str, names: Iterable[str]) -> None:
        self.unit, self.names = unit, tuple(sorted(names))
        super().__init__(f"{self._problem} definitions in {unit}: {listed(self.names)}")


class UnexpectedDefinitionError(_DefinitionsError):
    """A link defines symbols that it was not asked to define.

    Attributes:
        unit: name of the materialization unit.
        names: the symbols.
    """

    _problem = "unexpected"


class MissingDefinitionsError(_DefinitionsError):
    """A link does not define symbols that it was asked to define.

    Attributes:
        unit: name of the materialization unit.
        names: the symbols.
    """

    _problem = "missing"


class UnsatisfiedDependenciesError(SessionError):
    """A link was completed that depends on symbols that failed, were removed or never asked for.

    Attributes:
        unit: name of the materialization unit.
        dependencies: the symbols that it depends on in vain, by name of their JITDylib.
    """

    def __init__(self, unit: str, dependencies: Mapping[str, Iterable[str]]) -> None:
        self.unit = unit
        self.dependencies = {dylib: tuple(sorted(n)) for dylib, n in dependencies.items()}
        super().__init__(f"unsatisfied dependencies of {unit}: {_located(self.dependencies)}")


class SymbolsCouldNotBeRemovedError(SessionError):
    """Symbols that cannot be removed by name because they are just being made.

    Attributes:
        dylib: name of their JITDylib.
        names: the symbols.
    """

    def __init__(self, dylib: str, names: Iterable[str]) -> None:
        self.dylib, self.names = dylib, tuple(sorted(names))
        super().__init__(f"{listed(self.names)} in {dylib} cannot be removed while being made")


def raise_first(errors: Sequence[Exception]) -> None:
    """Raise the first of some errors, if there are any, with notes about the others."""
    if errors:
        for other in errors[1:]:
            errors[0].add_note(str(other))
        raise errors[0]
