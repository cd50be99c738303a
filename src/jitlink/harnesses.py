"""`harness`: links objects under test with mocks, and makes all their functions callable.

::

    def test_reading_is_retried():
        read = Mock(side_effect=[-1, 7])
        prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint8)
        with jitlink.harness("sensor.o", mocks={"i2c_read": (read, prototype)}) as sensor:
            assert sensor.read_with_retry(0x40) == 7  # A static function.
        assert read.call_count == 2

Symbols are looked up in the mocks, then in the objects, then in this process; a mock also overrides
a function that the objects define. `jitlink.orc.harness` has the rules.

An exception in a mock cannot pass through C code: that code continues, with a result of zero from
this call and from all further calls of mocks, which are skipped. The exception is raised when the
call from the test returns.
"""

from __future__ import annotations

import ctypes
import weakref
from _ctypes import CFuncPtr  # The base of all foreign functions has no public name.
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from jitlink.errors import DuplicateDefinitionError, SymbolError, UndefinedSymbolError
from jitlink.executor import ExecutorProcessControl
from jitlink.executor.callback_errors import call_code, has_raised
from jitlink.exports import Exports
from jitlink.graph import LinkGraph, MemProt, Scope
from jitlink.graph.columns import Int64Array, rows_where
from jitlink.graph.strings import NO_NAME
from jitlink.graph.tables import ABSOLUTE, DEFINED, EXTERNAL
from jitlink.input_reader import InputReader
from jitlink.inputs import Input, InputFile, open_input
from jitlink.library import FUNCFLAG_CDECL, CData, Function, Library, LinkedCode
from jitlink.loading import LinkOptions, link_inputs
from jitlink.orc.callables import python_function
from jitlink.orc.errors import listed
from jitlink.orc.harness import HarnessRules
from jitlink.orc.interface import ExecutorSymbolDef, HostSymbol
from jitlink.orc.object_batch import ObjectBatch

_DATA = (ctypes._SimpleCData, ctypes.Structure, ctypes.Union, ctypes.Array, ctypes._Pointer)  # noqa: SLF001 - their base has no name

_VARIABLE_ALIGNMENT = 16
"""In bytes: compilers align arrays so, and may use instructions that depend on it."""


class AmbiguousSymbolError(SymbolError):
    """A name that is a local symbol of several objects.

    Attributes:
        name: the symbol.
        files: display names of the objects that define it.
    """

    def __init__(self, name: str, files: Sequence[str]) -> None:
        self.name, self.files = name, tuple(files)
        super().__init__(
            f"{name} is local to {' and to '.join(self.files)}; file() chooses one of them"
        )


class MissingSymbolError(UndefinedSymbolError):
    """The objects under test do not define a symbol.

    Attributes (besides those of `UndefinedSymbolError`):
        files: display names of the objects.
        similar: names in them that the compiler may have derived from that name.
        is_mocked: whether a mock or the harness overrides their definition.
    """

    def __init__(
        self, name: str, *, files: Sequence[str], similar: Sequence[str], is_mocked: bool
    ) -> None:
        self.files, self.similar, self.is_mocked = tuple(files), tuple(similar), is_mocked
        super().__init__([name])

    def __str__(self) -> str:
        (name,) = self.names
        if self.is_mocked:
            return f"{name} is defined by a mock or the harness, not by the objects under test"
        where = f"{self.files[0]} has" if len(self.files) == 1 else "the objects have"
        text = f"{where} no symbol {name}: the compiler may have inlined it or left it out"
        if self.similar:
            text += f", or replaced it by {', '.join(self.similar)}, perhaps with other parameters"
        return text


class UnusedMocksError(SymbolError):
    """Mocks of names that the objects neither refer to nor define as functions.

    Attributes:
        names: the names.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        super().__init__(
            f"nothing would use the mocks of {listed(self.names)}: a function may be inlined "
            "everywhere, and static variables keep their place"
        )


class _TestedFunction(Function):
    """A function under test; raises the exceptions of the mocks that it calls."""

    # ctypes does not inherit these.
    _flags_ = FUNCFLAG_CDECL
    _restype_ = ctypes.c_int

    def __call__(self, *arguments: Any) -> Any:  # noqa: ANN401 - as its restype says
        """Call it."""
        return call_code(super().__call__, *arguments)


class _Slot:
    """The current implementation of a mocked function."""

    __slots__ = ("__weakref__", "function", "given", "prototype")

    def __init__(self, given: object, function: Callable[..., Any], prototype: type[Any]) -> None:
        self.given, self.function, self.prototype = given, function, prototype


def _entry(slot: _Slot) -> Callable[..., Any]:
    """The function that C code calls, with a weak reference: the mock may refer to the code."""
    reference = weakref.ref(slot)
    result_type = slot.prototype._restype_
    zero = None if result_type is None else getattr(result_type(), "value", None)

    def call(*arguments: object) -> object:
        current = reference()
        return zero if current is None or has_raised() else current.function(*arguments)

    return call


class Mocks(Mapping[str, Any]):
    """The mocks of a harness, by name.

    Python functions may be replaced, for as long as the harness lives: the new one is called
    with the types of the first. ``monkeypatch.setitem(h.mocks, "name", function)`` does it
    for one test.

    Args:
        mocks: the mocks, by name.
        is_local: whether the code is linked into this process.

    Attributes:
        symbols: the definitions to link with, other than variables.
        variables: types of the variables to allocate.

    Raises:
        TypeError: C code could not use one of them.
    """

    def __init__(self, mocks: Mapping[str, object], *, is_local: bool = True) -> None:
        self._is_local = is_local
        self._slots: dict[str, _Slot] = {}
        self._fixed: dict[str, object] = {}
        self.symbols: dict[str, HostSymbol] = {}
        self.variables: dict[str, type[Any]] = {}
        for name, value in mocks.items():
            if isinstance(value, type) and issubclass(value, _DATA):
                self._fixed[name] = self.variables[name] = value
            else:
                self.symbols[name] = self._add(name, value)

    def _add(self, name: str, value: Any) -> HostSymbol:  # noqa: ANN401
        self._fixed[name] = value
        if isinstance(value, _DATA):
            if not self._is_local:
                raise TypeError(
                    f"{name} is a variable of this process, which code of another one does not "
                    "see: mock it with its type"
                )
            return ctypes.addressof(value)
        if isinstance(value, int | ExecutorSymbolDef):
            return value
        typed = python_function(name, value)
        if typed is None:
            code: HostSymbol = value
            return code
        del self._fixed[name]
        function, prototype = typed
        given = value[0] if isinstance(value, tuple) else value
        self._slots[name] = slot = _Slot(given, function, prototype)
        return _entry(slot), prototype

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - whatever was given
        slot = self._slots.get(name)
        return self._fixed[name] if slot is None else slot.given

    def __setitem__(self, name: str, value: Any) -> None:  # noqa: ANN401
        """Replace the implementation of a mocked function.

        Raises:
            KeyError: there is no mock of that name; none can be added after linking.
            TypeError: the new or the old mock is not a Python function, or the prototypes differ.
        """
        slot = self._slots.get(name)
        if slot is None:
            if name in self._fixed:
                raise TypeError(f"the mock of {name} is not a Python function: it stays as it is")
            raise KeyError(name)
        function, prototype = value, slot.prototype
        if isinstance(value, tuple | CFuncPtr):
            typed = python_function(name, value)
            function, prototype = typed or (None, prototype)
        if prototype is not slot.prototype:
            raise TypeError(f"the new mock of {name} has another prototype than the first")
        if not callable(function):
            raise TypeError(f"the new mock of {name} is {value!r}, which is not a Python function")
        slot.given = value[0] if isinstance(value, tuple) else value
        slot.function = function

    def __iter__(self) -> Iterator[str]:
        yield from self.symbols
        yield from self.variables

    def __len__(self) -> int:
        return len(self.symbols) + len(self.variables)


class _Definitions(Exports):
    """All named definitions of a linked graph, local ones too, with their objects.

    Attributes:
        origins: display names of the objects.
    """

    def __init__(self, graph: LinkGraph) -> None:
        super().__init__(graph)
        self.origins = graph.origins

    def find(self, name: str, files: Sequence[int] | None = None) -> list[int]:
        """Rows of a name's definitions in all or some objects; of the global one alone, if any."""
        table = self._symbols
        rows = [
            row
            for reference in self._strings.find(name).tolist()
            for row in rows_where(table.name == reference).tolist()
            if table.kind[row] in {DEFINED, ABSOLUTE}
            and (files is None or self._origin(row) in files)
        ]
        shared = [row for row in rows if table.scope[row] != Scope.LOCAL]
        return shared[:1] or rows

    def file_of(self, row: int) -> str:
        """Display name of the object that defines a symbol."""
        origin = self._origin(row)
        return self.origins[origin] if origin >= 0 else "an absolute definition"

    def _origin(self, row: int) -> int:
        table = self._symbols
        return int(self._blocks.origin[table.block[row]]) if table.kind[row] == DEFINED else -1

    def files(self, name: str) -> list[int]:
        """Numbers of the objects with a display name or, failing that, a file name."""
        numbers = range(len(self.origins))
        return [n for n in numbers if self.origins[n] == name] or [
            n for n in numbers if self.origins[n].rpartition("/")[2] == name
        ]

    def derived_from(self, name: str) -> list[str]:
        """Names that a compiler has derived from a name: ``crc.constprop.0``, ``f.n``."""
        rows: Int64Array = rows_where(
            (self._symbols.kind == DEFINED) & (self._symbols.name != NO_NAME)
        )
        names = set(self._strings.get_many(self._symbols.name[rows])) - {name}
        return sorted(other for other in names if name in other.split("."))[:4]


class Harness(Library):
    """Objects under test, linked with mocks.

    A `Library` with ``static`` functions and variables too, each by its name. If several objects
    have one of a name, `file` chooses the object. Functions raise the exceptions of the mocks
    that they call.

    Attributes:
        mocks: the mocks, by name.
    """

    _function_type: ClassVar[type[Function]] = _TestedFunction

    def __init__(
        self,
        name: str,
        code: LinkedCode,
        definitions: _Definitions,
        linked_files: list[str],
        mocks: Mocks,
        overridden: set[str],
    ) -> None:
        super().__init__(name, code, definitions, linked_files)
        self.mocks = mocks
        self._definitions = definitions
        self._overridden = overridden
        self._numbers: Sequence[int] | None = None

    def __repr__(self) -> str:
        return f"<Harness {self.name}>"

    def address(self, name: str) -> int:
        """Address of a symbol of the objects under test.

        Raises:
            MissingSymbolError: they do not define the name.
            AmbiguousSymbolError: it is a local symbol of several of them.
            ClosedLibraryError: the harness is closed.
        """
        self._open_code()
        return self._definitions.address_of(self._row(name))

    def _size(self, name: str) -> int:
        return self._definitions.size_of(self._row(name))

    def _is_code(self, name: str) -> bool | None:
        return self._definitions.is_code(self._row(name))

    def _finder(self, name: str) -> None:
        """None: what is under test is not linked again."""

    def _row(self, name: str) -> int:
        rows = self._definitions.find(name, self._numbers)
        if len(rows) > 1:
            raise AmbiguousSymbolError(name, [self._definitions.file_of(row) for row in rows])
        if not rows:
            raise MissingSymbolError(
                name,
                files=self.linked_files,
                similar=self._definitions.derived_from(name),
                is_mocked=name in self._overridden or name in self.mocks,
            )
        return rows[0]

    def variable(self, name: str, ctype: type[CData]) -> CData:
        """A variable of the objects under test, ``static`` or not, as a ctypes object in place.

        Raises:
            SymbolError: see `address`.
        """
        return super().variable(name, ctype)

    def file(self, name: str) -> Harness:
        """The harness restricted to the symbols of one object.

        Args:
            name: the display name of the object, or the last part of its path.

        Raises:
            KeyError: there is no such object, or there are several.
        """
        numbers = self._definitions.files(name)
        files = [self._definitions.origins[number] for number in numbers]
        if len(set(files)) != 1:
            known = ", ".join(files or self._definitions.origins)
            raise KeyError(f"{'several objects' if files else 'no object'} {name} among {known}")
        part = Harness(
            name,
            self._open_code(),
            self._definitions,
            files,
            self.mocks,
            self._overridden,
        )
        part._numbers = numbers
        return part


def harness(
    *tests: Input,
    mocks: Mapping[str, object] | None = None,
    harness: Sequence[Input] = (),
    unused_mocks: bool = False,
    phony_externals: bool = False,
    executable_stack: bool = False,
    writable_code: bool = False,
    process_symbols: bool = True,
    executor: ExecutorProcessControl | None = None,
) -> Harness:
    """Link objects under test with mocks for the rest of the program.

    Args:
        tests: paths or bytes of relocatable objects and static archives; needed members of
            archives are extracted.
        mocks: Python functions with their C types, ctypes types or objects for variables, or
            addresses, by name. They override the definitions of the objects. A variable that is
            given as a type is allocated, zero-filled, within reach of all code.
        harness: objects with overriding definitions, which see the local symbols of those under
            test.
        unused_mocks: allow mocks that nothing would use, instead of failing.
        phony_externals: give undefined symbols unused addresses, instead of failing; calling one
            faults.
        executable_stack: link objects whose code needs executable stacks, and make those of all
            threads of the process executable, for good.
        writable_code: link sections that are both writable and executable, and map them so.
        process_symbols: whether to search undefined symbols in this process.
        executor: the executor to link for; by default this process.

    Raises:
        InputError: an input cannot be read.
        SymbolError: a symbol has no definition or two; see `jitlink.orc.harness`.
        UnusedMocksError: a mock would have no effect.
        TypeError: C code could not use one of the mocks.
        JITLinkError: the link failed otherwise; nothing is left allocated.
    """
    is_local = executor is None or executor.is_this_process
    mocked = Mocks(mocks or {}, is_local=is_local)
    overriding = [open_input(source, number) for number, source in enumerate(harness)]
    tested = [open_input(source, number) for number, source in enumerate(tests, len(overriding))]
    rules = _rules(overriding, mocked)
    builder = InputReader(rules=rules)
    builder.add([*overriding, *tested])
    builder.search_archives()
    if not unused_mocks:
        _check_use(builder.target_graph, mocked, rules)
    _add_variables(builder, mocked.variables)
    definitions, files = _Definitions(builder.target_graph), list(builder.linked)
    options = LinkOptions(
        phony_externals=phony_externals,
        executable_stack=executable_stack,
        writable_code=writable_code,
        process_symbols=process_symbols,
    )
    code, _ = link_inputs(builder, mocked.symbols, options, executor)
    code.kept_alive = mocked
    return Harness(builder.target_graph.name, code, definitions, files, mocked, rules.overridden)


def _check_use(graph: LinkGraph, mocks: Mocks, rules: HarnessRules) -> None:
    """Refuse mocks without effect: the test would not test what it seems to test."""
    table = graph.symbol_table
    rows: Int64Array = rows_where(table.kind == EXTERNAL)
    used = rules.overridden.union(graph.strings.get_many(table.name[rows]))
    unused = [name for name in mocks if name not in used]
    if unused:
        raise UnusedMocksError(unused)


def _add_variables(builder: InputReader, types: Mapping[str, type[Any]]) -> None:
    """Allocate zero-filled variables within reach of the code."""
    graph = builder.target_graph
    for name, kind in types.items():
        section = graph.obtain_section("$__MOCKS", MemProt.READ | MemProt.WRITE)
        alignment = max(ctypes.alignment(kind), _VARIABLE_ALIGNMENT)
        block = graph.create_zero_fill_block(section, ctypes.sizeof(kind), alignment=alignment)
        builder.resolver.define_block(name, block)


def _rules(files: Sequence[InputFile], mocks: Mocks) -> HarnessRules:
    """The rules of a harness with these objects and mocks."""
    if not files:
        return HarnessRules(mocks, keep_locals=True)
    batch = ObjectBatch(files)
    definers = {
        name: file.name
        for file, names in zip(batch.files, batch.definitions, strict=True)
        for name in names
    }
    for name in mocks:
        if name in definers:
            raise DuplicateDefinitionError(name, first=definers[name], second="the mocks")
    references = {name for names in batch.references for name in names}
    return HarnessRules({*mocks, *definers}, references, files, keep_locals=True)
