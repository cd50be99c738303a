"""Small ELF objects, read record by record; see `jitlink.formats.small`.

Specification: see `jitlink.formats.elf_layout`.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from jitlink.formats.elf_headers import (
    RELA,
    SYMBOL,
    ObjectHeaders,
    RelocationColumns,
    UnusualError,
)
from jitlink.formats.elf_layout import (
    SHN_ABS,
    SHN_UNDEF,
    STB_LOCAL,
    STB_WEAK,
    STT_FILE,
    Identity,
)
from jitlink.formats.elf_symbols import SCOPES, TYPE_FLAGS, WEAKLY_REFERENCED
from jitlink.formats.small import MOST_BYTES, MOST_RECORDS, SmallObject
from jitlink.graph import MemLifetime, Scope
from jitlink.graph.columns import INT64_MAX
from jitlink.graph.link_graph import NO_BLOCK
from jitlink.graph.strings import NO_NAME
from jitlink.graph.tables import ABSOLUTE, DEFINED, EXTERNAL, REMOVED

# As in the other reader, whose elements are no Python numbers.
_SCOPES, _TYPE_FLAGS, _LOCAL = SCOPES.tolist(), TYPE_FLAGS.tolist(), int(Scope.LOCAL)
_ALLOCATED = int(MemLifetime.STANDARD)
_NULL_ENTRY = (0, 0, 0, 0, 0, 0)
# An addend and what is added to it are int64.
_MOST_ADDEND = 1 << 62


class SmallObjectReader:
    """Reads small objects of one identity.

    Args:
        identity: the identity.
        relocations: the relocation types of the machine.
        limiting: edge kinds that may limit the addresses at which an object can be linked.
    """

    def __init__(
        self,
        identity: Identity,
        relocations: RelocationColumns,
        limiting: AbstractSet[int],
    ) -> None:
        self._identity, self._limiting = identity, limiting
        # Edge kind, bias and width of the types that are linked; the kind is 0 if there is no edge.
        widths = relocations.widths[relocations.kinds]
        columns = (relocations.kinds, relocations.biases, widths, relocations.ignored)
        rows = enumerate(zip(*(column.tolist() for column in columns), strict=True))
        self._relocations = {
            number: (kind, bias, width)
            for number, (kind, bias, width, ignored) in rows
            if kind or ignored
        }

    def read(self, data: memoryview) -> SmallObject | None:
        """Read an object; None if it is not small, unusual in some way, or malformed."""
        if len(data) > MOST_BYTES:
            return None
        try:
            return self._read(ObjectHeaders(data, self._identity))
        except UnusualError:
            return None

    def _read(self, headers: ObjectHeaders) -> SmallObject:
        sections = headers.relocations()
        record_bytes = len(headers.symbols) + sum([len(each.records) for each in sections])
        if record_bytes > MOST_RECORDS * SYMBOL.size:
            raise UnusualError
        symbols = _read_symbols(headers)
        groups = headers.groups([symbol[0] for symbol in symbols])
        edges: list[tuple[int, int, int, int, int]] = []
        may_limit = False
        for records, block, size in sections:
            found = self._read_relocations(records, block, size, symbols)
            edges += found
            if headers.lifetimes[block] == _ALLOCATED:
                may_limit |= any(edge[2] in self._limiting for edge in found)
        return SmallObject(
            headers.data, headers.flags, headers.names, bytes(headers.prots),
            bytes(headers.lifetimes), headers.blocks, symbols, edges, headers.strings, groups,
            may_limit,
        )  # fmt: skip

    def _read_relocations(
        self, records: memoryview, block: int, size: int, symbols: list[_Symbol]
    ) -> list[tuple[int, int, int, int, int]]:
        """The edges of a block of that size."""
        relocations, edges = self._relocations, []
        for offset, info, addend in RELA.iter_unpack(records):
            symbol, found = info >> 32, relocations.get(info & 0xFFFFFFFF)
            if found is None or symbol >= len(symbols):
                raise UnusualError
            kind, bias, width = found
            if not kind:
                continue
            if symbols[symbol][1] == REMOVED or offset > size - width:
                raise UnusualError
            if not -_MOST_ADDEND < addend < _MOST_ADDEND:
                raise UnusualError
            edges.append((block, offset, kind, symbol, addend + bias))
        return edges


_Symbol = tuple[int, int, int, int, int, int, int, int]


def _read_symbols(headers: ObjectHeaders) -> list[_Symbol]:
    entries = SYMBOL.iter_unpack(headers.symbols)
    if next(entries, None) != _NULL_ENTRY:
        raise UnusualError
    symbols: list[_Symbol] = [(NO_NAME, REMOVED, NO_BLOCK, 0, 0, 0, _LOCAL, 0)]
    string_limit = len(headers.strings)
    for name, info, other, section, value, size in entries:
        binding, of_type = info >> 4, info & 15
        if name >= string_limit or binding > STB_WEAK or size > INT64_MAX:
            raise UnusualError
        block, kind = _place(headers, section, value)
        is_local, is_weak = binding == STB_LOCAL, int(binding == STB_WEAK)
        if of_type == STT_FILE or (kind == EXTERNAL and (is_local or not name)):
            kind = REMOVED
        flags = _TYPE_FLAGS[of_type]
        if kind == EXTERNAL:
            is_weak, flags = 0, WEAKLY_REFERENCED if is_weak else 0
        scope = _LOCAL if is_local else _SCOPES[other & 3]
        symbols.append((name or NO_NAME, kind, block, value, size, is_weak, scope, flags))
    return symbols


def _place(headers: ObjectHeaders, section: int, value: int) -> tuple[int, int]:
    """Block and kind of a symbol with a section index and a value."""
    if value > INT64_MAX:
        raise UnusualError
    if section == SHN_UNDEF:
        return NO_BLOCK, EXTERNAL
    if section < len(headers.block_of):
        block = headers.block_of[section]
        if block == NO_BLOCK:
            return NO_BLOCK, REMOVED
        if value > headers.blocks[block][0]:
            raise UnusualError
        return block, DEFINED
    if section != SHN_ABS:
        raise UnusualError
    return NO_BLOCK, ABSOLUTE
