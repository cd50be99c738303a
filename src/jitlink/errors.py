"""The exceptions of jitlink; those defined in another module have its name in brackets.

::

    JITLinkError
    ├── GraphError                          an operation that would break the graph
    ├── InputError                          a file that cannot be used as input
    │   ├── MissingFileError                a file that does not exist; a FileNotFoundError, too
    │   ├── UnknownFormatError              not a supported container format
    │   ├── ObjectError                     a malformed relocatable object
    │   ├── ArchiveError                    a malformed static archive
    │   ├── UnsupportedObjectError          a well-formed object of an unsupported target or type
    │   ├── UnsupportedRelocationError      a relocation type that the target does not support
    │   └── IncompleteRuntimeError          an incomplete ORC runtime [platform.orc_rt.platform]
    ├── SymbolError                         definitions and references that do not fit together
    │   ├── DuplicateDefinitionError        two strong definitions of one name
    │   ├── UndefinedSymbolError            names without a definition
    │   │   └── MissingSymbolError          not defined by the objects under test [harnesses]
    │   ├── AllocatorError                  functions of the process's allocator beside another one
    │   ├── NotAFunctionError               a symbol that is called and is no code
    │   ├── ClosedLibraryError              a symbol of a library that is closed [library]
    │   ├── SymbolSizeError                 a C type larger than the variable [library]
    │   ├── AmbiguousSymbolError            a name that is local to several objects [harnesses]
    │   ├── UnusedMocksError                mocks of names that nothing refers to [harnesses]
    │   ├── AmbiguousReferenceError         a local name with several definitions [orc.harness]
    │   └── OverrideError                   a definition that cannot be overridden [orc.harness]
    ├── FixupError                          a relocation that cannot be applied
    │   ├── TargetOutOfRangeError           the value does not fit the field
    │   └── MisalignedTargetError           the value has bits that the field cannot hold
    ├── ExtensionModuleError                a module that cannot be linked [extension_modules]
    │   └── MissingInitFunctionError        objects without its init function [extension_modules]
    ├── AmbiguousBuildError                 several objects could be meant [build_trees.base]
    ├── ExecutableStackError                objects that need executable stacks
    ├── AllocationError                     memory that cannot be allocated, laid out or protected
    │   └── WritableCodeError               sections that are writable and executable
    ├── TLSError                            thread-local storage that cannot be provided
    │   └── StaticTLSError                  the static TLS surplus is exhausted
    ├── ActionError                         a finalize or deallocate action that failed
    ├── DeallocationError                   failures while memory was deallocated [memory.manager]
    ├── ExecutorError                       a request that the executor cannot carry out
    │   ├── UnsupportedHostError            this process cannot run linked code
    │   ├── ProtocolError                   a message against the protocol [executor.remote.errors]
    │   └── ExecutorDisconnectedError       the connection has ended [executor.remote.errors]
    │       ├── ExecutorExitedError         the executor has exited [executor.remote.errors]
    │       │   └── EmulatedExitError       emulated code has [executor.emulated.errors]
    │       ├── ExecutorCrashedError        a signal has ended it [executor.remote.errors]
    │       │   └── EmulatedCrashError      emulated code cannot go on [executor.emulated.errors]
    │       ├── ExecutorInterruptedError    a call was interrupted [executor.remote.errors]
    │       ├── ExecutorRestartedError      of a process that has ended [executor.remote.errors]
    │       └── ExecutorTimeoutError        a call took too long [executor.remote.errors]
    │           └── EmulatedTimeoutError    an emulated one did [executor.emulated.errors]
    ├── SPSError                            bytes or a value that do not fit an SPS type [sps.types]
    ├── SessionError                        an operation that a session cannot do [orc.errors]
    │   ├── SessionEndedError               the session has ended [orc.errors]
    │   ├── NotRestartableError             what cannot be linked again [orc.errors]
    │   ├── JITDylibDefunctError            the JITDylib has been removed [orc.errors]
    │   ├── ResourceTrackerDefunctError     the tracker has been removed [orc.errors]
    │   ├── ConsequenceError                what follows from the failure of a unit [orc.errors]
    │   │   ├── FailedToMaterializeError    definitions that could not be materialized [orc.errors]
    │   │   ├── UnsatisfiedDependenciesError  symbols that have failed or were removed [orc.errors]
    │   │   └── LazyCallError               a lazy function that cannot be linked [orc.stubs]
    │   ├── UnexpectedDefinitionError       definitions outside a responsibility [orc.errors]
    │   ├── MissingDefinitionsError         a responsibility without all definitions [orc.errors]
    │   ├── SymbolsCouldNotBeRemovedError   symbols that are being materialized [orc.errors]
    │   ├── AliasCycleError                 aliases that resolve only to each other [orc.aliases]
    │   ├── CallSiteOutOfReachError         a call that cannot reach its new target [orc.call_sites]
    │   ├── SplitCallSiteError              a call of several instructions [orc.call_sites]
    │   ├── CommonSizeError                 a common symbol too large for its memory [orc.objects]
    │   └── NotRedirectableError            functions without a redirectable stub [orc.stubs]
    ├── CommandLineError                    an invalid command line [tool.options.command_line]
    ├── OutputError                         standard output that cannot be written [tool.main]
    ├── OutputFileError                     a file that cannot be written [tool.output_file]
    ├── CheckFailedError                    rules of ``-check`` that do not hold [tool.check.checks]
    ├── ExpressionError                     an expression without a value [tool.check.expressions]
    ├── UnknownPlaceError                   a name that was not linked [tool.check.expressions]
    └── DuplicateFileError                  files that rules cannot distinguish [tool.check.linked]

Invalid arguments of Python calls are ordinary ``TypeError`` and ``ValueError``; errors that depend
on an input file, on the executor or on the linked code are a `JITLinkError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

_MOST_LISTED = 20
"""How many targets a message lists; it counts the others."""


class JITLinkError(Exception):
    """Base of all errors of jitlink; the message is one sentence without a full stop."""


class GraphError(JITLinkError):
    """A graph operation whose preconditions do not hold; the graph is unchanged."""


class InputError(JITLinkError):
    """An input that cannot be used.

    Attributes:
        file: display name of the file, ``libx.a(member.o)`` for a member.
        offset: position of the error in that file in bytes, or None.
    """

    def __init__(self, message: str, *, file: str, offset: int | None = None) -> None:
        where = file if offset is None else f"{file}, offset {offset:#x}"
        super().__init__(f"{where}: {message}")
        self.file = file
        self.offset = offset


class MissingFileError(InputError, FileNotFoundError):
    """A file that does not exist."""


class UnknownFormatError(InputError):
    """The bytes are not of a supported container format."""


class ObjectError(InputError):
    """A relocatable object whose headers or tables are inconsistent."""


class ArchiveError(InputError):
    """A static archive whose headers, index or names are inconsistent."""


class UnsupportedObjectError(InputError):
    """A well-formed file that is not a relocatable object of a supported target."""


class UnsupportedRelocationError(InputError):
    """A relocation type that the target does not support.

    Attributes:
        section: name of the section to be relocated.
        number: relocation type as stored in the file.
        relocation: its name in the ABI, or None if the ABI does not define it.
        reason: why it is not supported.
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
        first: display name of the object with the first definition.
        second: display name of the object with the second definition.
    """

    def __init__(self, name: str, *, first: str, second: str) -> None:
        super().__init__(f"duplicate definition of symbol {name}: in {first} and in {second}")
        self.name = name
        self.first = first
        self.second = second


class DefiningLibrary(NamedTuple):
    """A library that defines a symbol.

    Attributes:
        path: its path.
        option: the option of the command that finds it, as ``-lz``; empty if none does.
    """

    path: str
    option: str = ""

    def __str__(self) -> str:
        return f"{self.path} ({self.option})" if self.option else self.path


class UndefinedSymbolError(SymbolError):
    """Names that neither the inputs nor the libraries of the process define.

    The message is composed when it is read. It gives mangled names in demangled form too, similar
    names that exist, and the libraries that usually define such names; for other names, libraries
    on this machine that define them, which are searched for then.

    Attributes:
        names: all missing names, in order of first reference.
        referrers: for each name, the display names of objects that refer to it.
        suggestions: for some names, a similar one that exists.
        versions: for names with a version, as in ``f@V``, the versions that exist.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        referrers: Mapping[str, Sequence[str]] | None = None,
        suggestions: Mapping[str, str] | None = None,
        versions: Mapping[str, Sequence[str]] | None = None,
        search: Callable[[Sequence[str]], Mapping[str, Sequence[DefiningLibrary]]] | None = None,
    ) -> None:
        self.names = tuple(names)
        self._search = search
        self._libraries: dict[str, tuple[DefiningLibrary, ...]] | None = None
        self.referrers = {name: tuple((referrers or {}).get(name, ())) for name in self.names}
        self.suggestions = dict(suggestions or {})
        self.versions = {name: tuple(those) for name, those in (versions or {}).items()}
        super().__init__(self.names)

    def __str__(self) -> str:
        from jitlink.names.undefined import message  # noqa: PLC0415 - rarely needed

        libraries = {name: [*map(str, those)] for name, those in self.libraries.items()}
        return message(self.names, self.referrers, self.suggestions, self.versions, libraries)

    @property
    def libraries(self) -> Mapping[str, Sequence[DefiningLibrary]]:
        """For some names that no list of well-known names has, libraries that define them.

        The search path's libraries are searched when this, or the message, is first read.
        """
        if self._libraries is None:
            # Set first: whatever happens, there is one search.
            self._libraries = {}
            from jitlink.names.undefined import unknown_names  # noqa: PLC0415 - rarely needed

            names = unknown_names(self.names) if self._search is not None else []
            if names and self._search is not None:
                found = self._search(names)
                self._libraries = {name: tuple(those) for name, those in found.items()}
        return self._libraries


class AllocatorError(SymbolError):
    """References to the process's allocator, in code that has another one.

    Memory of one would get to the other.

    Attributes:
        dylib: name of the JITDylib.
        names: functions that it refers to and does not define.
    """

    def __init__(self, dylib: str, names: Sequence[str]) -> None:
        self.dylib = dylib
        self.names = tuple(names)
        verb, them = ("uses", "it") if len(names) == 1 else ("use", "them")
        super().__init__(
            f"{dylib} defines malloc, and {', '.join(names)} of the process {verb} another "
            f"allocator; define {them}, too"
        )


class ExecutableStackError(JITLinkError):
    """Objects that need executable stacks, where these are not allowed.

    Attributes:
        files: display names of the objects.
    """

    def __init__(self, files: Sequence[str]) -> None:
        self.files = tuple(files)
        others = f" and {len(files) - 1} more" if len(files) > 1 else ""
        super().__init__(
            f"{files[0]}{others}: the code needs executable stacks, as where the address of a "
            "nested function is taken; -executable-stack (executable_stack=True in Python) gives "
            "them to all threads"
        )


class NotAFunctionError(SymbolError):
    """A symbol that cannot be called: it is not in executable memory.

    Attributes:
        name: the symbol.
        address: its address.
    """

    def __init__(self, name: str, address: int, advice: str) -> None:
        super().__init__(f"{name} is no function: at {address:#x} is no code; {advice}")
        self.name, self.address = name, address


class FailedTarget:
    """The fixups with one target that cannot be applied.

    Args:
        target: name of the target symbol, or a description of it if it has none.
        object: display name of the object with the first of them; empty if none is known.
        section: name of the section with it.
        within: the function, variable or label there, as "function f"; empty if none is known.
        count: how many there are.
    """

    __slots__ = ("count", "object", "section", "target", "within")

    def __init__(
        self,
        target: str,
        object: str = "",  # noqa: A002 - as the attribute
        section: str = "",
        within: str = "",
        count: int = 1,
    ) -> None:
        self.target = target
        self.object = object
        self.section = section
        self.within = within
        self.count = count

    def __str__(self) -> str:
        place = [self.object, f"section {self.section}", self.within]
        times = f"{self.count} times" if self.count > 1 else ""
        return f"{self.target} ({', '.join(filter(None, [*place, times]))})"


class FixupError(JITLinkError):
    """A relocation that cannot be applied; of several, the first one.

    Attributes:
        graph: name of the graph.
        object: display name of the object; empty if none is known.
        section: name of the section to be fixed up.
        within: the function, variable or label there, as "function f"; empty if none is known.
        block_address: address of the containing block.
        offset: offset of the fixup within that block, in bytes.
        kind: name of the edge kind.
        target: name of the target symbol, or a description of it if it has none.
        value: the value of the edge's expression.
        count: how many fixups of the graph fail, this one included.
        targets: the targets of all of them, in order of the first failure; this one's first.
    """

    def __init__(
        self,
        reason: str,
        *,
        graph: str,
        object: str = "",  # noqa: A002 - as the attribute
        section: str,
        within: str = "",
        block_address: int,
        offset: int,
        kind: str,
        target: str,
        value: int,
        targets: Sequence[FailedTarget] = (),
    ) -> None:
        self.targets = tuple(targets) or (FailedTarget(target, object, section, within),)
        self.count = sum(each.count for each in self.targets)
        where = graph if object in {"", graph} else f"{graph}, {object}"
        place = f"section {section}, {within}" if within else f"section {section}"
        super().__init__(
            f"in graph {where}, {place}: fixup at {block_address + offset:#x} ({block_address:#x} "
            f"+ {offset:#x}) of kind {kind} to {target} {reason}{self._others()}"
        )
        self.graph = graph
        self.object = object
        self.section = section
        self.within = within
        self.block_address = block_address
        self.offset = offset
        self.kind = kind
        self.target = target
        self.value = value

    def _others(self) -> str:
        """The other fixups that fail, as a clause."""
        first, *others = self.targets
        if self.count == 1:
            return ""
        parts = [] if first.count == 1 else [f"{first.count - 1} to the same target"]
        parts += map(str, others[:_MOST_LISTED])
        if len(others) > _MOST_LISTED:
            parts.append(f"{len(others) - _MOST_LISTED} more targets")
        noun = "fixup fails" if self.count == 2 else "fixups fail"
        return f"; {self.count - 1} more {noun}: {', '.join(parts)}"


class TargetOutOfRangeError(FixupError):
    """The value of a fixup does not fit its field.

    Attributes:
        low: smallest value that fits.
        high: largest value that fits.
        target_address: address of the target.
    """

    low: int
    high: int
    target_address: int

    def advise(self, advice: str) -> None:
        """Add to the text what to do."""
        self.args = (f"{self}; {advice}",)


class MisalignedTargetError(FixupError):
    """The value of a fixup is not aligned as its field requires.

    Attributes:
        alignment: the value must be a multiple of this.
    """

    alignment: int


class AllocationError(JITLinkError):
    """Memory could not be reserved, laid out, written or protected.

    Attributes:
        size: bytes requested, or None.
    """

    def __init__(self, message: str, *, size: int | None = None) -> None:
        super().__init__(message)
        self.size = size


class WritableCodeError(AllocationError):
    """Sections that are both writable and executable, where these are not allowed.

    Attributes:
        graph: name of the graph.
        sections: names of the sections.
        files: display names of the objects that they are of, as far as known.
    """

    def __init__(
        self, graph: str, sections: Sequence[str], files: Sequence[str], *, size: int
    ) -> None:
        self.graph, self.sections, self.files = graph, tuple(sections), tuple(files)
        where = ", ".join(self.files[:3]) + (", ..." if len(self.files) > 3 else "")
        super().__init__(
            f"in graph {graph}{f' ({where})' if where else ''}, sections are both writable and "
            f"executable: {', '.join(self.sections)}; -writable-code (writable_code=True in "
            "Python) maps them so, and whatever can be made to write there can then become code",
            size=size,
        )


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
        tunables: the value of the environment variable GLIBC_TUNABLES with which a process has the
            room; None if there is none.
        library: path of the shared library that has the block; None for linked code.
    """

    def __init__(
        self,
        size: int,
        alignment: int,
        surplus: int,
        surplus_alignment: int,
        why: str = "",
        *,
        tunables: str | None = None,
        library: str | None = None,
    ) -> None:
        who, advice = "code of the initial exec or local exec model", ["compile with -fPIC"]
        if library is not None:
            who, advice = f"shared library {library}", []
        if tunables is not None:
            advice.append(f"start the process with GLIBC_TUNABLES={tunables}")
        left = f"{surplus} bytes are left, aligned to at most {surplus_alignment}"
        message = f"{who} needs {size} bytes of static TLS aligned to {alignment}: {left}{why}"
        super().__init__("; ".join([message, ", or ".join(advice)] if advice else [message]))
        self.tunables = tunables
        self.library = library
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
    """The executor could not look up, read, write or call something."""


class UnsupportedHostError(ExecutorError):
    """Linked code cannot run in this process, or this process cannot link.

    Attributes:
        missing: what it lacks.
        can_link: whether it can link code that others run.
    """

    def __init__(self, missing: str, *, can_link: bool = True) -> None:
        super().__init__(
            f"linked code cannot run in this process: that takes {missing}; "
            "an executor elsewhere can run it"
            if can_link
            else f"this process cannot link: that takes {missing}"
        )
        self.missing = missing
        self.can_link = can_link
