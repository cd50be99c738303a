"""The errors of sessions; `jitlink.errors` has the tree of all errors.

Undefined symbols and duplicate definitions are `UndefinedSymbolError` and
`DuplicateDefinitionError` of that module.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Self

from jitlink.errors import JITLinkError

_SHOWN = 8
"""How many names a message lists; of more names it gives the number."""


def listed(names: tuple[str, ...]) -> str:
    """Names for a message."""
    if len(names) <= _SHOWN:
        return ", ".join(names)
    return f"{', '.join(names[:_SHOWN])} and {len(names) - _SHOWN} more"


def _located(symbols: Mapping[str, tuple[str, ...]]) -> str:
    return "; ".join(f"{listed(names)} in {dylib}" for dylib, names in symbols.items())


class SessionError(JITLinkError):
    """An operation that a session cannot do."""


class SessionEndedError(SessionError):
    """The session has ended."""

    def __init__(self) -> None:
        super().__init__("the session has ended")


class JITDylibDefunctError(SessionError):
    """The JITDylib has been removed.

    Attributes:
        dylib: its name.
    """

    def __init__(self, dylib: str) -> None:
        super().__init__(f"JITDylib {dylib} was removed")
        self.dylib = dylib


class ResourceTrackerDefunctError(SessionError):
    """The resource tracker or its JITDylib has been removed, or its resources transferred.

    Attributes:
        dylib: name of the JITDylib.
    """

    def __init__(self, dylib: str) -> None:
        super().__init__(f"a resource tracker of {dylib} was removed or transferred")
        self.dylib = dylib


class FailedToMaterializeError(SessionError):
    """Definitions that could not be materialized, or that depend on such ones.

    The error that made the first of them fail is its ``__cause__``. The message names only some
    if there are many.

    Attributes:
        symbols: the names, by name of their JITDylib.
    """

    def __init__(self, symbols: Mapping[str, Iterable[str]]) -> None:
        self.symbols = {dylib: tuple(sorted(names)) for dylib, names in symbols.items()}
        super().__init__(f"failed to materialize {_located(self.symbols)}")

    @property
    def reason(self) -> BaseException:
        """The first cause, as far as it is known; else this error itself."""
        error: BaseException = self
        consequences = (FailedToMaterializeError, UnsatisfiedDependenciesError)
        while isinstance(error, consequences) and error.__cause__ is not None:
            error = error.__cause__
        return error

    def copy(self) -> Self:
        """A copy, to be raised elsewhere with a traceback of its own."""
        other = type(self).__new__(type(self), *self.args)
        other.args, other.symbols, other.__cause__ = self.args, self.symbols, self.__cause__
        return other


class _DefinitionsError(SessionError):
    """A link does not define exactly the symbols that it is responsible for."""

    _problem: ClassVar[str]

    def __init__(self, unit: str, names: Iterable[str]) -> None:
        self.unit, self.names = unit, tuple(sorted(names))
        super().__init__(f"{self._problem} definitions in {unit}: {listed(self.names)}")


class UnexpectedDefinitionError(_DefinitionsError):
    """A link defines symbols that it is not responsible for.

    Attributes:
        unit: name of the materialization unit.
        names: the symbols.
    """

    _problem = "unexpected"


class MissingDefinitionsError(_DefinitionsError):
    """A link does not define symbols that it is responsible for.

    Attributes:
        unit: name of the materialization unit.
        names: the symbols.
    """

    _problem = "missing"


class UnsatisfiedDependenciesError(SessionError):
    """A link depends on symbols that have failed, were removed or never looked up.

    Attributes:
        unit: name of the materialization unit.
        dependencies: those symbols, by name of their JITDylib.
    """

    def __init__(self, unit: str, dependencies: Mapping[str, Iterable[str]]) -> None:
        self.unit = unit
        self.dependencies = {dylib: tuple(sorted(n)) for dylib, n in dependencies.items()}
        super().__init__(f"unsatisfied dependencies of {unit}: {_located(self.dependencies)}")


class SymbolsCouldNotBeRemovedError(SessionError):
    """Symbols that cannot be removed by name because they are being materialized.

    Attributes:
        dylib: name of their JITDylib.
        names: the symbols.
    """

    def __init__(self, dylib: str, names: Iterable[str]) -> None:
        self.dylib, self.names = dylib, tuple(sorted(names))
        super().__init__(
            f"{listed(self.names)} in {dylib} cannot be removed while being materialized"
        )


def raise_first(errors: Sequence[Exception]) -> None:
    """Raise the first of some errors, if any, with the others as notes."""
    if errors:
        for other in errors[1:]:
            errors[0].add_note(str(other))
        raise errors[0]
