"""Every exception that jitlink raises on purpose.

::

    JITLinkError
    ├── GraphError                      a LinkGraph operation that would break the graph
    ├── InputError                      a file that cannot be read as what it claims to be
    │   ├── UnknownFormatError              no container that jitlink knows
    │   ├── ObjectError                     malformed relocatable object
    │   ├── ArchiveError                    malformed static archive
    │   ├── UnsupportedObjectError          well formed, but of a kind that is not linked
    │   └── UnsupportedRelocationError      a relocation that the target does not link
    ├── SymbolError
    │   ├── DuplicateDefinitionError        two strong definitions of one name
    │   └── UndefinedSymbolError            no definition for some names
    ├── FixupError                      a relocation that cannot be applied
    │   ├── TargetOutOfRangeError           the value does not fit the field
    │   └── MisalignedTargetError           the value has bits that the field cannot hold
    ├── AllocationError                 memory that could not be had, laid out or protected
    ├── TLSError                        TLS that could not be allocated or accessed
    │   └── StaticTLSError              more static TLS than the surplus has left
    ├── ActionError                     a finalize or deallocate action that reported failure
    └── ExecutorError                   the executor could not do what was asked

Bad arguments to a Python call are ordinary ``TypeError`` and ``ValueError``; everything that
depends on an input file, on the executor or on what was linked is a `JITLinkError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_MOST_ADVICE = 3
"""Of how many names a message says more than that they are missing."""
_MOST_LOOKED_AT = 1000
"""How many names are looked at for that."""


class JITLinkError(Exception):
    """Base of all errors of a link; its text is one sentence without a final stop."""


class GraphError(JITLinkError):
    """A graph operation whose preconditions do not hold; the graph is as it was."""


class InputError(JITLinkError):
    """An input that cannot be used.

    Attributes:
        file: display name of the file, ``libx.a(member.o)`` for a member.
        offset: position in that file in bytes, or None where no position is to blame.
    """

    def __init__(self, message: str, *, file: str, offset: int | None = None) -> None:
        where = file if offset is None else f"{file}, offset {offset:#x}"
        super().__init__(f"{where}: {message}")
        self.file = file
        self.offset = offset


class UnknownFormatError(InputError):
    """The bytes are of no container format that jitlink reads."""


class ObjectError(InputError):
    """A relocatable object whose headers or tables are inconsistent."""


class ArchiveError(InputError):
    """A static archive whose headers, index or names are inconsistent."""


class UnsupportedObjectError(InputError):
    """A well-formed file that is not a relocatable object of a supported target."""


class UnsupportedRelocationError(InputError):
    """A relocation type that the target does not link.

    Attributes:
        section: name of the section to be relocated.
        number: relocation type as stored in the file.
        relocation: the ABI's name of it, or None if the ABI has none.
        reason: why it is not linked.
    """

    def __init__(
        self,
        *,
        file: str,
        section: str,
        offset: int,
        number: int,
        relocation: str | None,
        reason: str,
    ) -> None:
        name = relocation or f"type {number}"
        super().__init__(
            f"section {section}+{offset:#x}: relocation {name} is not supported: {reason}",
            file=file,
        )
        self.section = section
        self.offset = offset
        self.number = number
        self.relocation = relocation
        self.reason = reason


class SymbolError(JITLinkError):
    """Definitions and references that do not fit together."""


class DuplicateDefinitionError(SymbolError):
    """Two strong definitions of one name.

    Attributes:
        name: the symbol.
        first: display name of the object whose definition came first.
        second: display name of the other one.
    """

    def __init__(self, name: str, *, first: str, second: str) -> None:
        super().__init__(f"duplicate definition of symbol {name}: in {first} and in {second}")
        self.name = name
        self.first = first
        self.second = second


class UndefinedSymbolError(SymbolError):
    """Names that no input and no process library defines.

    The message is written when somebody reads it. It has mangled names as in the source too,
    the names that may have been meant, and the libraries that usually have such names.

    Attributes:
        names: all missing names, in order of first reference.
        referrers: for each name, the display names of objects that refer to it.
        suggestions: for some names another one that exists and is much like it.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        referrers: Mapping[str, Sequence[str]] | None = None,
        suggestions: Mapping[str, str] | None = None,
    ) -> None:
        self.names = tuple(names)
        self.referrers = {name: tuple((referrers or {}).get(name, ())) for name in self.names}
        self.suggestions = dict(suggestions or {})
        super().__init__(self.names)

    def __str__(self) -> str:
        noun = "symbol" if len(self.names) == 1 else "symbols"
        listed = ", ".join(self._described(name) for name in self.names)
        return "; ".join([f"undefined {noun}: {listed}", *self._meant(), *self._usual_places()])

    def _described(self, name: str) -> str:
        from jitlink.names.demangling import demangled  # noqa: PLC0415 - only for who reads it

        notes = [source] if (source := demangled(name)) else []
        users = self.referrers[name]
        if users:
            more = f" and {len(users) - 1} more" if len(users) > 1 else ""
            notes.append(f"referenced by {users[0]}{more}")
        return f"{name} ({'; '.join(notes)})" if notes else name

    def _meant(self) -> list[str]:
        from jitlink.names.demangling import with_source_name  # noqa: PLC0415

        if len(self.names) == 1:
            return [f"did you mean {with_source_name(n)}?" for n in self.suggestions.values()]
        meant = list(self.suggestions.items())[:_MOST_ADVICE]
        return [f"did you mean {with_source_name(new)} for {old}?" for old, new in meant]

    def _usual_places(self) -> list[str]:
        from jitlink.names.providers import usual_provider  # noqa: PLC0415

        places: dict[str, str] = {}
        for name in self.names[:_MOST_LOOKED_AT]:
            provider = None if name in self.suggestions else usual_provider(name)
            if provider is not None:
                places.setdefault(provider.where, name)
        chosen = list(places.items())[:_MOST_ADVICE]
        return [f"{name} is usually in {where}" for where, name in chosen]


class FixupError(JITLinkError):
    """A relocation that cannot be applied where it stands.

    Attributes:
        graph: name of the graph.
        section: name of the section to be fixed up.
        block_address: address of the containing block.
        offset: offset of the fixup within that block, in bytes.
        kind: name of the edge kind.
        target: name of the target symbol, or a description of it if it has none.
        value: the value that the edge's expression gives.
        count: how many edges of the graph fail for the same reason.
    """

    def __init__(
        self,
        reason: str,
        *,
        graph: str,
        section: str,
        block_address: int,
        offset: int,
        kind: str,
        target: str,
        value: int,
        count: int = 1,
    ) -> None:
        others = f" ({count - 1} more fixups fail likewise)" if count > 1 else ""
        super().__init__(
            f"in graph {graph}, section {section}: fixup at {block_address + offset:#x} "
            f"({block_address:#x} + {offset:#x}) of kind {kind} to {target} {reason}{others}"
        )
        self.graph = graph
        self.section = section
        self.block_address = block_address
        self.offset = offset
        self.kind = kind
        self.target = target
        self.value = value
        self.count = count


class TargetOutOfRangeError(FixupError):
    """The value of a fixup does not fit its field.

    Attributes (besides those of `FixupError`):
        low: smallest value that fits.
        high: largest value that fits.
        target_address: address of the target.
    """

    low: int
    high: int
    target_address: int


class MisalignedTargetError(FixupError):
    """The value of a fixup is not a multiple of what its field can express.

    Attributes (besides those of `FixupError`):
        alignment: what the value must be a multiple of.
    """

    alignment: int


class AllocationError(JITLinkError):
    """Memory could not be reserved, laid out, written or protected.

    Attributes:
        size: bytes asked for, or None.
    """

    def __init__(self, message: str, *, size: int | None = None) -> None:
        super().__init__(message)
        self.size = size


class TLSError(JITLinkError):
    """TLS could not be allocated, or a thread-local variable could not be accessed.

    Attributes:
        graph: name of the graph that needs it; empty where none is known.
        objects: display names of the objects whose code or variables need it.
    """

    graph = ""
    objects: tuple[str, ...] = ()

    def locate(self, graph: str, objects: Sequence[str]) -> None:
        """Add the graph and its objects to the error and its text."""
        self.graph, self.objects = graph, tuple(objects)
        named = ", ".join(self.objects[:3]) + (", ..." if len(self.objects) > 3 else "")
        where = f"in graph {graph} ({named})" if self.objects else f"in graph {graph}"
        self.args = (f"{where}: {self}",)


class StaticTLSError(TLSError):
    """The process's static TLS surplus is exhausted.

    Attributes:
        size: size of the TLS block that needs static TLS, in bytes.
        alignment: alignment of that block, in bytes.
        surplus: bytes that are left, of alignment 1.
        surplus_alignment: the largest alignment that a block in static TLS can have, in bytes.
    """

    def __init__(
        self, size: int, alignment: int, surplus: int, surplus_alignment: int, why: str = ""
    ) -> None:
        left = f"{surplus} bytes are left, aligned to at most {surplus_alignment}"
        super().__init__(
            f"code of the initial exec or local exec model needs {size} bytes of static TLS "
            f"aligned to {alignment}: {left}{why}; compile with -fPIC, or start the process with "
            f"a larger static TLS surplus (GLIBC_TUNABLES=glibc.rtld.optional_static_tls=...)"
        )
        self.size = size
        self.alignment = alignment
        self.surplus = surplus
        self.surplus_alignment = surplus_alignment


class ActionError(JITLinkError):
    """An allocation action returned an error.

    Attributes:
        message: the text that the action returned.
        address: address of the action's function in the executor.
    """

    def __init__(self, message: str, *, address: int) -> None:
        super().__init__(f"allocation action at {address:#x} failed: {message}")
        self.message = message
        self.address = address


class ExecutorError(JITLinkError):
    """The executor could not look up, read, write or call what it was asked to."""
