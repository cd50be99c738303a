"""The errors of sessions; `jitlink.errors` has the tree of all errors.

Undefined symbols and duplicate definitions are `UndefinedSymbolError` and
`DuplicateDefinitionError` of that module.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

from jitlink.errors import JITLinkError

_SHOWN = 8
"""How many names a message lists; of more names it gives the number."""


def listed(names: tuple[str, ...]) -> str:
    """Names for a message."""
    if len(names) <= _SHOWN:
        return ", ".join(names)
    return f"{', '.join(names[:_SHOWN])} and {len(names) - _SHOWN} more"


def _located(symbols: Mapping[str, tuple[str, ...]]) -> str:
    return "; ".join(f"{listed(_of_inputs(n))} in {dylib}" for dylib, n in symbols.items())


def _of_inputs(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names without those of the linker's own symbols, such as those of initialisers."""
    return tuple(name for name in names if not name.startswith("$")) or names


class SessionError(JITLinkError):
    """An operation that a session cannot do."""


class SessionEndedError(SessionError):
    """The session has ended."""

    def __init__(self) -> None:
        super().__init__("the session has ended")


class NotRestartableError(SessionError):
    """The executor of a session cannot be restarted: something could not be linked again.

    Attributes:
        names: what that is.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        super().__init__(
            f"the executor cannot be restarted: {listed(self.names)} could not be linked again"
        )


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


class Failure(NamedTuple):
    """Why definitions could not be materialized: the first cause of all that follows from it.

    Attributes:
        unit: display name of the materialization unit that failed first.
        cause: the error that made it fail; None if no reason was given.
    """

    unit: str
    cause: BaseException | None

    @classmethod
    def of(cls, unit: str, error: BaseException | None) -> Failure:
        """The first failure that led to an error in a unit."""
        first = error.failure if isinstance(error, ConsequenceError) else None
        return first or cls(unit, error)

    def __str__(self) -> str:
        if self.cause is None:
            return f"{self.unit} failed"
        text, kind = str(self.cause), type(self.cause).__name__
        if isinstance(self.cause, JITLinkError):
            return text
        return f"{self.unit} failed with {kind}: {text}" if text else f"{self.unit} failed: {kind}"


_CONTROL_FLOW = (AttributeError, LookupError, StopIteration, StopAsyncIteration)
"""Exceptions by which `hasattr`, mappings and iterators say that there is nothing."""

E = TypeVar("E", bound="ConsequenceError")


class ConsequenceError(SessionError):
    """An error that may follow from a failure, whose first cause is then its ``__cause__``.

    It is of the class of the first cause, too, and has its attributes: ``except
    UndefinedSymbolError`` catches what follows from undefined symbols.

    Attributes:
        failure: the failure; None if it follows from none.
    """

    failure: Failure | None = None

    def __new__(cls, *arguments: object, failure: Failure | None = None) -> Self:  # noqa: ARG004
        """An instance of a class that is derived from that of the cause."""
        cause = None if failure is None else failure.cause
        if cause is not None:
            derived = _with_base(cls, type(cause))
            # The class of the cause may want arguments.
            with contextlib.suppress(Exception):
                return super(ConsequenceError, derived).__new__(derived)
        return super().__new__(cls)

    def follow_from(self, failure: Failure | None, message: str) -> None:
        """Initialise it: not with ``super().__init__``, which may be that of the cause's class."""
        Exception.__init__(self, message)
        self.failure = failure
        if failure is not None and failure.cause is not None:
            self.__cause__ = failure.cause
            if isinstance(self, type(failure.cause)):
                _copy_attributes(failure.cause, self)

    def __str__(self) -> str:
        text: str = self.args[0]
        return text

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    @property
    def reason(self) -> BaseException:
        """The first cause, as far as it is known; else this error itself."""
        return self.__cause__ or self


_classes: dict[tuple[type, type], Any] = {}


def _with_base(cls: type[E], base: type[BaseException]) -> type[E]:
    """A class of the same name that is derived from another class, too, if that is possible."""
    if not issubclass(base, Exception) or issubclass(cls, base):
        return cls
    if issubclass(base, _CONTROL_FLOW):
        return cls
    if (cls, base) not in _classes:
        namespace = {"__module__": cls.__module__, "__doc__": cls.__doc__}
        try:
            _classes[cls, base] = type(cls.__name__, (cls, base), namespace)
        except Exception:  # noqa: BLE001 - some classes have reasons of their own to refuse it
            _classes[cls, base] = cls
    derived: type[E] = _classes[cls, base]
    return derived


def _copy_attributes(source: BaseException, destination: BaseException) -> None:
    """Copy the attributes of an error, but those that every exception has."""
    own = {"__notes__", *vars(destination)}
    vars(destination).update({n: v for n, v in vars(source).items() if n not in own})
    for cls in type(source).__mro__:
        if cls is BaseException:
            return
        for name, attribute in vars(cls).items():
            # Those of OSError, for instance.
            if isinstance(attribute, MemberDescriptorType | GetSetDescriptorType):
                with contextlib.suppress(AttributeError, TypeError):
                    setattr(destination, name, getattr(source, name))


class FailedToMaterializeError(ConsequenceError):
    """Definitions that could not be materialized, or that depend on such ones.

    The message is that of the first cause, the error that made the first of them fail. It is the
    ``__cause__``, and `reason`, and this error is of its class, too; a note names the symbols, or
    some of them if there are many.

    Attributes:
        symbols: the names, by name of their JITDylib.
        failure: which unit failed first, and why; None if that is unknown.
    """

    def __init__(
        self, symbols: Mapping[str, Iterable[str]], *, failure: Failure | None = None
    ) -> None:
        self.symbols = {dylib: tuple(sorted(names)) for dylib, names in symbols.items()}
        self.follow_from(failure, self.consequence)
        if failure is not None and failure.cause is not None:
            self.add_note(f"{failure.unit} failed, and with it {_located(self.symbols)}")

    def __str__(self) -> str:
        if self.failure is None or self.failure.cause is None:
            return self.consequence
        # Composed when it is read, as that of undefined symbols.
        return str(self.failure)

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (self.symbols, self.failure)

    @property
    def consequence(self) -> str:
        """Which symbols failed to materialize, as a sentence."""
        return f"failed to materialize {_located(self.symbols)}"

    def copy(self) -> FailedToMaterializeError:
        """A copy, to be raised elsewhere with a traceback of its own."""
        return _restored(self.symbols, self.failure)


def _restored(
    symbols: Mapping[str, Iterable[str]], failure: Failure | None
) -> FailedToMaterializeError:
    return FailedToMaterializeError(symbols, failure=failure)


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


class UnsatisfiedDependenciesError(ConsequenceError):
    """A link depends on symbols that have failed, were removed or never looked up.

    Attributes:
        unit: name of the materialization unit.
        dependencies: those symbols, by name of their JITDylib.
        failure: why the first of them failed; None if none has failed.
    """

    def __init__(
        self,
        unit: str,
        dependencies: Mapping[str, Iterable[str]],
        *,
        failure: Failure | None = None,
    ) -> None:
        self.unit = unit
        self.dependencies = {dylib: tuple(sorted(n)) for dylib, n in dependencies.items()}
        self.follow_from(
            failure, f"unsatisfied dependencies of {unit}: {_located(self.dependencies)}"
        )


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
