"""Objects of a JITDylib: read when they are added, linked when one of their symbols is looked up.

Objects that are added together are read together, into one graph, from which the definitions and
references of each are known. If all of them are needed, that graph is linked; if only some are,
those are read again by themselves. A small object that is added alone is read as records, and its
graph is made when it is linked: `SmallObjectBatch`.

Precedence between objects is decided when they are added, by the flags of their definitions: the
JITDylib's definitions override weak and common ones that are added, and definitions in COMDAT
groups that it has already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

from jitlink.formats.archive_magic import is_archive
from jitlink.formats.small import SmallObject
from jitlink.graph import Scope, SymbolFlags, SymbolKind
from jitlink.graph.columns import rows_where
from jitlink.graph.link_graph import NO_ADDRESS_LIMIT
from jitlink.graph.strings import NO_NAME
from jitlink.graph.tables import ABSOLUTE, DEFINED, EXTERNAL
from jitlink.input_reader import InputReader, SymbolRules
from jitlink.inputs import InputFile
from jitlink.orc.interface import JITSymbolFlags
from jitlink.orc.objects import FLAGS, CommonSizes, ExportedSymbols, flags_key
from jitlink.passes.initializers import (
    ARRAY_SECTIONS,
    initializer_symbol_name,
    next_serials,
    objects_with_arrays,
)
from jitlink.passes.linker_defined import (
    NO_USE,
    PIECES,
    SetUse,
    element_symbol_name,
    linker_sets,
    set_uses,
)
from jitlink.targets.registry import target_of_graph, target_of_object

if TYPE_CHECKING:
    from jitlink.orc.dylib import JITDylib
    from jitlink.orc.interface import ResourceTracker

_HIDDEN, _LOCAL = int(Scope.HIDDEN), int(Scope.LOCAL)
# What the names of sections begin with that add more than their symbols to a JITDylib; so do those
# that do not begin with a dot.
_SPECIAL_SECTIONS = (*ARRAY_SECTIONS, *PIECES)


def read_batch(files: Sequence[InputFile], rules: SymbolRules | None) -> ObjectBatch:
    """Read objects that are added together; see `ObjectBatch`."""
    if len(files) == 1 and rules is None and not is_archive(files[0].data):
        file = files[0]
        small = target_of_object(file.data, file.name).read_small(file.data)
        if small and not small.may_limit_address and _are_plain(tuple(small.sections)):
            return SmallObjectBatch(file, small)
        return ObjectBatch(files, small=small)
    return ObjectBatch(files, rules)


# Objects of one compiler have the same few.
@lru_cache(maxsize=256)
def _are_plain(sections: tuple[str, ...]) -> bool:
    """Whether an object with sections of these names adds only its symbols to a JITDylib."""
    return all(n[:1] == "." and not n.startswith(_SPECIAL_SECTIONS) for n in sections)


class ObjectBatch:
    """Objects that were read together.

    Args:
        files: at least one object.
        rules: applied to them, also when they are read again.
        is_extracted: whether they are members of archives that were extracted together.
        small: the records of the only object, if it was read so.

    Attributes:
        files: the objects.
        is_extracted: the same.
        small: the same.

    Raises:
        InputError: an object cannot be read.
        DuplicateDefinitionError: two of them have strong definitions of one name.
    """

    def __init__(
        self,
        files: Sequence[InputFile],
        rules: SymbolRules | None = None,
        *,
        is_extracted: bool = False,
        small: SmallObject | None = None,
    ) -> None:
        self.small = small
        self.files = list(files)
        self.is_extracted = is_extracted
        self._serials = next_serials(len(self.files))
        # The hidden definitions that `definitions_for` has left out.
        self._discarded_hidden: set[str] = set()
        self._rules = rules
        self._builder = self._first_reader()

    def _first_reader(self) -> InputReader | None:
        return self._read(range(len(self.files)))

    def _read(self, numbers: Iterable[int]) -> InputReader:
        builder = InputReader(rules=self._rules)
        files = [self.files[number] for number in numbers]
        if self.small is not None and len(self.files) == 1:
            builder.add_small(files, [self.small])
        else:
            builder.add(files)
        return builder

    def _whole(self) -> InputReader:
        if self._builder is None:
            self._builder = self._read(range(len(self.files)))
        return self._builder

    def undefined(self, known: AbstractSet[str] = frozenset()) -> dict[str, str]:
        """Names with a strong reference that no object defines, each with the first referrer.

        Args:
            known: names that are left out.
        """
        builder = self._whole()
        rows = {n: row for n, row in builder.resolver.undefined.items() if n not in known}
        numbers = builder.objects_of(rows.values())
        return {name: self.files[n].name for name, n in zip(rows, numbers, strict=True)}

    @property
    def commons(self) -> list[str]:
        """The names whose definition is a common symbol."""
        return self._whole().resolver.commons

    def extend(self, files: Sequence[InputFile]) -> None:
        """Read more objects, before anything but `undefined` and `commons` is used.

        Raises:
            InputError: an object cannot be read.
            DuplicateDefinitionError: two objects have strong definitions of one name.
        """
        self._whole().add(files)
        self.small = None
        self.files += files
        self._serials += next_serials(len(files))

    @cached_property
    def _exported(self) -> ExportedSymbols:
        builder = self._whole()
        return ExportedSymbols(builder.target_graph, builder.resolver.names)

    @cached_property
    def definitions(self) -> list[dict[str, JITSymbolFlags]]:
        """The definitions of each object, with flags."""
        builder = self._whole()
        names, flags = self._exported.names, self._exported.flags(builder.target_graph)
        cuts = self._exported.rows.searchsorted(builder.symbol_bounds).tolist()
        return [
            dict(zip(names[low:high], flags[low:high], strict=True)) for low, high in pairwise(cuts)
        ]

    @cached_property
    def comdats(self) -> list[dict[str, list[str]]]:
        """For each object, the names that it defines in COMDAT groups, by signature."""
        builder, names = self._whole(), self._exported.names
        groups: list[dict[str, list[str]]] = [{} for _ in self.files]
        signatures = builder.comdat_signatures()
        if signatures:
            table, rows = builder.target_graph.symbol_table, self._exported.rows
            numbers = builder.symbol_bounds.searchsorted(rows, side="right") - 1
            blocks = table.block[rows].tolist()
            for name, number, block in zip(names, numbers.tolist(), blocks, strict=True):
                if block in signatures:
                    groups[number].setdefault(signatures[block], []).append(name)
        return groups

    @property
    def hidden_references(self) -> set[str]:
        """The names that references of hidden visibility are to."""
        graph = self._whole().target_graph
        table = graph.symbol_table
        hidden = table.scope == int(Scope.HIDDEN)
        rows = rows_where(hidden & (table.kind == int(SymbolKind.EXTERNAL)))
        return set(graph.strings.get_many(table.name[rows])) if len(rows) else set()

    def definitions_for(self, dylib: JITDylib) -> list[dict[str, JITSymbolFlags]]:
        """The definitions of each object, without those in groups that a JITDylib has already."""
        definitions = list(self.definitions)
        self._discarded_hidden = set()
        for number, groups in enumerate(self.comdats):
            discarded = {
                name
                for signature, names in groups.items()
                if signature in dylib.comdat_groups
                for name in names
                if name in dylib.symbols
            }
            if discarded:
                own = definitions[number]
                hidden = {name for name in discarded if not own[name].is_exported}
                self._discarded_hidden |= hidden
                definitions[number] = {n: f for n, f in own.items() if n not in discarded}
        return definitions

    def record_definitions(
        self, dylib: JITDylib, sizes: CommonSizes, tracker: ResourceTracker | None
    ) -> None:
        """Record what concerns other objects of the JITDylib, those that are added later, too.

        These are COMDAT groups, common symbols, hidden references and discarded definitions, and
        the address limit.
        """
        hidden = self.hidden_references | self._discarded_hidden
        dylib.hide(hidden, tracker or dylib.default_tracker)
        for groups in self.comdats:
            dylib.comdat_groups.update(groups)
        self._record_commons(sizes)
        if not dylib.is_placed:
            dylib.limit_addresses(self._address_limit)

    def _record_commons(self, sizes: CommonSizes) -> None:
        graph = self._whole().target_graph
        sizes.add(graph, self._exported.common_rows(graph))

    @property
    def _address_limit(self) -> int:
        graph = self._whole().target_graph
        return target_of_graph(graph).address_limit(graph)

    @cached_property
    def initializers(self) -> Mapping[int, str]:
        """Names of the initializer symbols, by number of the object."""
        return {
            number: initializer_symbol_name(self.files[number].name, self._serials[number])
            for number in sorted(objects_with_arrays(self._whole().target_graph))
        }

    @cached_property
    def references(self) -> list[list[str]]:
        """The names of each object's external symbols."""
        return self._referenced(0)

    @cached_property
    def strong_references(self) -> list[list[str]]:
        """The names of each object's external symbols that must be defined."""
        return self._referenced(int(SymbolFlags.WEAKLY_REFERENCED))

    def _referenced(self, without: int) -> list[list[str]]:
        """The names of each object's external symbols without a flag."""
        builder = self._whole()
        table = builder.target_graph.symbol_table
        external = table.kind == int(SymbolKind.EXTERNAL)
        rows = rows_where(external & (table.flags & without == 0) if without else external)
        names = builder.resolver.names(rows)
        cuts = rows.searchsorted(builder.symbol_bounds).tolist()
        return [names[low:high] for low, high in pairwise(cuts)]

    @cached_property
    def elements(self) -> Mapping[int, list[str]]:
        """Names of the linker sets that objects have elements of, by number of the object."""
        return linker_sets(self._whole().target_graph)

    def element_symbol(self, number: int) -> str | None:
        """Name of the element symbol of an object that has elements of linker sets."""
        if number not in self.elements:
            return None
        return element_symbol_name(self.files[number].name, self._serials[number])

    def serial(self, number: int) -> int:
        """A number that sorts objects by the order in which they were added."""
        return self._serials[number]

    def set_use(self, number: int) -> SetUse:
        """What an object has to do with linker sets."""
        return self._set_uses.get(number, NO_USE)

    @cached_property
    def _set_uses(self) -> Mapping[int, SetUse]:
        resolver = self._whole().resolver
        undefined = resolver.unresolved if resolver.is_indexed else self.references[0]
        return set_uses(self.elements, undefined, self.references)

    def take(self, numbers: Sequence[int]) -> tuple[InputReader, ExportedSymbols]:
        """A graph of some of the objects, owned by the caller, and its exported symbols."""
        builder, self._builder = self._builder, None
        # What is known about all objects is needed again only if they are read again.
        for cached in ("comdats", "references", "strong_references"):
            self.__dict__.pop(cached, None)
        if builder is None or len(numbers) < len(self.files):
            # The graph of all of them is not used: they are not linked together.
            builder = self._read(numbers)
            return builder, ExportedSymbols(builder.target_graph)
        return builder, self._exported


class SmallObjectBatch(ObjectBatch):
    """One object that was read as records, without commons, linker sets and initialisers.

    Args:
        file: the object.
        small: its records.

    Attributes:
        small: its records.
    """

    small: SmallObject

    def __init__(self, file: InputFile, small: SmallObject) -> None:
        super().__init__([file], small=small)

    def _first_reader(self) -> None:
        """None: the graph is made when it is linked."""

    @cached_property
    def definitions(self) -> list[dict[str, JITSymbolFlags]]:
        """See `ObjectBatch`."""
        small, blocks = self.small, self.small.blocks
        found = {}
        for name, kind, block, _, _, linkage, scope, flags in small.symbols:
            if name != NO_NAME and scope != _LOCAL and kind in (DEFINED, ABSOLUTE):
                block_flags = blocks[block][3] if kind == DEFINED else 0
                key = flags_key(kind, linkage, scope, flags, block_flags)
                found[small.string(name)] = FLAGS[key]
        return [found]

    @cached_property
    def comdats(self) -> list[dict[str, list[str]]]:
        """See `ObjectBatch`."""
        small = self.small
        if not small.groups:
            return [{}]
        signatures = {
            block: small.string(name) for name, blocks in small.groups for block in blocks
        }
        groups: dict[str, list[str]] = {}
        for name, kind, block, _, _, _, scope, _ in small.symbols:
            if name != NO_NAME and scope != _LOCAL and kind == DEFINED and block in signatures:
                groups.setdefault(signatures[block], []).append(small.string(name))
        return [groups]

    @property
    def hidden_references(self) -> set[str]:
        """See `ObjectBatch`."""
        symbols = self.small.symbols
        hidden = [s[0] for s in symbols if s[1] == EXTERNAL and s[6] == _HIDDEN]
        return set(map(self.small.string, hidden))

    @property
    def initializers(self) -> Mapping[int, str]:
        """See `ObjectBatch`: there are none."""
        return {}

    @property
    def elements(self) -> Mapping[int, list[str]]:
        """See `ObjectBatch`: there are none."""
        return {}

    def _referenced(self, without: int) -> list[list[str]]:
        symbols = self.small.symbols
        rows = [s[0] for s in symbols if s[1] == EXTERNAL and not s[7] & without]
        return [list(map(self.small.string, rows))]

    def set_use(self, number: int) -> SetUse:
        """See `ObjectBatch`: it has no elements, and few objects refer to bounds."""
        names = self.references[number]
        return next(iter(set_uses({}, names, [names]).values()), NO_USE)

    def _record_commons(self, sizes: CommonSizes) -> None:
        """See `ObjectBatch`: there are none."""

    @property
    def _address_limit(self) -> int:
        """See `ObjectBatch`: no edge is of a kind that has one."""
        return NO_ADDRESS_LIMIT
