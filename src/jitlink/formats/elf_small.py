"""Small ELF objects, read record by record.

What is read here is what compilers write for 64-bit little-endian machines. `read_small_object`
returns None for everything else: objects that are large, malformed, or have compressed sections,
common symbols, versions of symbols, extended indices, relocations without explicit addends, or
another rarity. See `jitlink.formats.small`.

Specification: see `jitlink.formats.elf_layout`.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from struct import Struct

from jitlink.formats.elf_layout import (
    ELFCLASS64,
    ET_REL,
    GRP_COMDAT,
    SHF_COMPRESSED,
    SHF_EXCLUDE,
    SHF_GNU_RETAIN,
    SHF_LINK_ORDER,
    SHN_ABS,
    SHN_LORESERVE,
    SHN_UNDEF,
    SHT_CREL,
    SHT_GROUP,
    SHT_LLVM_ADDRSIG,
    SHT_NOBITS,
    SHT_NULL,
    SHT_REL,
    SHT_RELA,
    SHT_STRTAB,
    SHT_SYMTAB,
    SHT_SYMTAB_SHNDX,
    STB_LOCAL,
    STB_WEAK,
    STT_FILE,
    Identity,
)
from jitlink.formats.elf_sections import DEFAULT_VERSION, LINKONCE, MAX_SIZE
from jitlink.formats.elf_symbols import (
    ACCESS,
    LIFETIMES,
    PROTS,
    SCOPES,
    THREAD_LOCAL,
    THREAD_LOCAL_DATA,
    TYPE_FLAGS,
    WEAKLY_REFERENCED,
    ZDEBUG,
)
from jitlink.formats.small import MOST_BYTES, MOST_RECORDS, SmallObject
from jitlink.graph import BlockFlags, MemLifetime, Scope
from jitlink.graph.columns import INT64_MAX
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.link_graph import NO_BLOCK
from jitlink.graph.strings import NO_NAME
from jitlink.graph.tables import ABSOLUTE, DEFINED, EXTERNAL, REMOVED

_HEADER = Struct("<6s10xHHIQQQIHHHHHH")
_SECTION = Struct("<IIQQQQIIQQ")
_SYMBOL = Struct("<IBBHQQ")
_RELA = Struct("<QQq")
_WORD = Struct("<I")
# Columns by field, as in the other reader, whose elements are no Python numbers.
_PROTS, _LIFETIMES = PROTS.tolist(), LIFETIMES.tolist()
_SCOPES, _TYPE_FLAGS = SCOPES.tolist(), TYPE_FLAGS.tolist()
_LIVE, _COMDAT, _LOCAL = int(BlockFlags.LIVE), int(BlockFlags.COMDAT), int(Scope.LOCAL)
_ALLOCATED = int(MemLifetime.STANDARD)
_NULL_ENTRY = (0, 0, 0, 0, 0, 0)
# Those of other sections without a block are unusual.
_METADATA_TYPES = frozenset((SHT_SYMTAB, SHT_STRTAB, SHT_RELA, SHT_GROUP, SHT_LLVM_ADDRSIG))
_UNUSUAL_TYPES = frozenset((SHT_REL, SHT_CREL, SHT_SYMTAB_SHNDX))
_UNUSUAL_FLAGS = SHF_EXCLUDE | SHF_COMPRESSED | SHF_LINK_ORDER
_UNUSUAL_NAMES = (ZDEBUG, LINKONCE.decode())
# An addend and what is added to it are int64.
_MOST_ADDEND = 1 << 62


class _UnusualError(Exception):
    """The object is left to the other reader."""


class SmallObjectReader:
    """Reads small objects of one identity.

    Args:
        identity: the identity.
        relocations: for each relocation type that is linked, the edge kind, what is added to the
            addend, and the size in bytes of what is modified. The kind is 0 if there is no edge.
        limiting: edge kinds that may limit the addresses at which an object can be linked.
    """

    def __init__(
        self,
        identity: Identity,
        relocations: Mapping[int, tuple[int, int, int]],
        limiting: AbstractSet[int],
    ) -> None:
        self._is_known = identity.elf_class == ELFCLASS64 and identity.byte_order == "little"
        self._start, self._machine = identity.start, identity.machine
        self._relocations, self._limiting = relocations, limiting

    def read(self, data: memoryview) -> SmallObject | None:
        """Read an object; None if it is not small, unusual in some way, or malformed."""
        if not self._is_known or not _HEADER.size <= len(data) < MOST_BYTES:
            return None
        (start, kind, machine, _, _, _, offset, flags, _, _, _, size, count, names) = (
            _HEADER.unpack_from(data)
        )
        is_ours = start == self._start and machine == self._machine and kind == ET_REL
        # Index 0 is no name table, and says that the header cannot hold the number.
        if not is_ours or size != _SECTION.size or not 0 < names < count < SHN_LORESERVE:
            return None
        end = offset + count * size
        if not offset or end > len(data) or count > MOST_RECORDS:
            return None
        sections = list(_SECTION.iter_unpack(data[offset:end]))
        reading = _Reading(data, sections, self._relocations, self._limiting)
        try:
            return reading.object(names, flags)
        except _UnusualError:
            return None


class _Reading:
    """The reading of one object."""

    def __init__(
        self,
        data: memoryview,
        headers: list[tuple[int, ...]],
        relocations: Mapping[int, tuple[int, int, int]],
        limiting: AbstractSet[int],
    ) -> None:
        self._data, self._headers = data, headers
        self._relocations, self._limiting = relocations, limiting
        # Number of the block of each section.
        self._block_of = [NO_BLOCK] * len(headers)
        self._names: list[str] = []
        self._prots, self._lifetimes = bytearray(), bytearray()
        self._blocks: list[tuple[int, int, int, int]] = []
        # Indices of the sections without blocks, by type.
        self._metadata: dict[int, list[int]] = {kind: [] for kind in _METADATA_TYPES}
        self._symbols: list[tuple[int, int, int, int, int, int, int, int]] = []
        self._edges: list[tuple[int, int, int, int, int]] = []
        self._symtab = 0
        self._may_limit = False

    def object(self, names: int, flags: int) -> SmallObject:
        """The object, whose name table and flags are given."""
        self._read_sections(self._strings(names).decode("latin-1"))
        symtabs = self._metadata[SHT_SYMTAB]
        if len(symtabs) != 1:
            raise _UnusualError
        self._symtab = symtabs[0]
        strings = self._strings(self._headers[self._symtab][6])
        self._read_symbols(self._content(self._symtab, _SYMBOL), strings)
        sections = self._metadata[SHT_GROUP]
        groups = [group for section in sections for group in self._group(section)]
        for section in self._metadata[SHT_RELA]:
            self._read_relocations(section)
        return SmallObject(
            self._data, flags, self._names, bytes(self._prots), bytes(self._lifetimes),
            self._blocks, self._symbols, self._edges, strings, groups, self._may_limit,
        )  # fmt: skip

    def _strings(self, index: int) -> bytes:
        """The content of a string table, which may not have been checked yet."""
        if index >= len(self._headers):
            raise _UnusualError
        _, kind, _, _, offset, size, _, _, _, _ = self._headers[index]
        if kind != SHT_STRTAB or offset + size > len(self._data):
            raise _UnusualError
        return bytes(self._data[offset : offset + size])

    def _content(self, index: int, record: Struct) -> memoryview:
        """The content of a section of records, which must be complete."""
        _, _, _, _, offset, size, _, _, _, entry_size = self._headers[index]
        if entry_size != record.size or size % record.size:
            raise _UnusualError
        if size > MOST_RECORDS * record.size:
            raise _UnusualError
        return self._data[offset : offset + size]

    # Sections

    def _read_sections(self, names: str) -> None:
        if not names.isascii() or any(each in names for each in _UNUSUAL_NAMES):
            raise _UnusualError
        available, metadata = len(self._data), self._metadata
        total = 0
        for index, header in enumerate(self._headers):
            name, kind, flags, _, offset, size, _, _, alignment, _ = header
            if kind == SHT_NULL:
                continue
            if alignment & (alignment - 1) or alignment > MAX_SIZE:
                raise _UnusualError
            if kind != SHT_NOBITS:
                total += size
                if offset + size > available:
                    raise _UnusualError
            if kind in metadata:
                metadata[kind].append(index)
                continue
            end = names.find("\0", name)
            if size > MAX_SIZE or kind in _UNUSUAL_TYPES or flags & _UNUSUAL_FLAGS or end < 0:
                raise _UnusualError
            self._block_of[index] = len(self._blocks)
            self._names.append(names[name:end])
            self._prots.append(_PROTS[flags & ACCESS])
            self._lifetimes.append(_LIFETIMES[flags & ACCESS])
            content = ZERO_FILL if kind == SHT_NOBITS else offset
            self._blocks.append((size, alignment or 1, content, _block_flags(flags)))
        # If sections share bytes, their total size is not bounded by that of the file.
        if total > available:
            raise _UnusualError

    def _group(self, index: int) -> list[tuple[int, list[int]]]:
        """A COMDAT group, whose blocks are marked; none for other groups."""
        _, _, _, _, offset, size, link, signature, _, _ = self._headers[index]
        if size < 4 or size % 4 or link != self._symtab or signature >= len(self._symbols):
            raise _UnusualError
        first, *members = [word for (word,) in _WORD.iter_unpack(self._data[offset:][:size])]
        name = self._symbols[signature][0]
        if not first & GRP_COMDAT:
            return []
        if name == NO_NAME or any(member >= len(self._headers) for member in members):
            raise _UnusualError
        blocks = [self._block_of[member] for member in members]
        blocks = [block for block in blocks if block != NO_BLOCK]
        for block in blocks:
            size, alignment, content, flags = self._blocks[block]
            self._blocks[block] = size, alignment, content, flags | _COMDAT
        return [(name, blocks)]

    # Symbols

    def _read_symbols(self, records: memoryview, strings: bytes) -> None:
        entries = _SYMBOL.iter_unpack(records)
        if next(entries, None) != _NULL_ENTRY or DEFAULT_VERSION in strings:
            raise _UnusualError
        symbols, string_limit = self._symbols, len(strings)
        symbols.append((NO_NAME, REMOVED, NO_BLOCK, 0, 0, 0, _LOCAL, 0))
        for name, info, other, section, value, size in entries:
            binding, of_type = info >> 4, info & 15
            if name >= string_limit or binding > STB_WEAK or size > INT64_MAX:
                raise _UnusualError
            block, kind = self._place(section, value)
            is_local, is_weak = binding == STB_LOCAL, int(binding == STB_WEAK)
            if of_type == STT_FILE or (kind == EXTERNAL and (is_local or not name)):
                kind = REMOVED
            flags = _TYPE_FLAGS[of_type]
            if kind == EXTERNAL:
                is_weak, flags = 0, WEAKLY_REFERENCED if is_weak else 0
            scope = _LOCAL if is_local else _SCOPES[other & 3]
            symbols.append((name or NO_NAME, kind, block, value, size, is_weak, scope, flags))

    def _place(self, section: int, value: int) -> tuple[int, int]:
        """Block and kind of a symbol with a section index and a value."""
        if value > INT64_MAX:
            raise _UnusualError
        if section == SHN_UNDEF:
            return NO_BLOCK, EXTERNAL
        if section < len(self._block_of):
            block = self._block_of[section]
            if block == NO_BLOCK:
                return NO_BLOCK, REMOVED
            if value > self._blocks[block][0]:
                raise _UnusualError
            return block, DEFINED
        if section != SHN_ABS:
            raise _UnusualError
        return NO_BLOCK, ABSOLUTE

    # Relocations

    def _read_relocations(self, index: int) -> None:
        link, section = self._headers[index][6:8]
        records = self._content(index, _RELA)
        if link != self._symtab or section >= len(self._headers):
            raise _UnusualError
        block = self._block_of[section]
        if block == NO_BLOCK:
            raise _UnusualError
        size, _, content, _ = self._blocks[block]
        if content == ZERO_FILL:
            raise _UnusualError
        relocations, symbols, edges = self._relocations, self._symbols, self._edges
        for offset, info, addend in _RELA.iter_unpack(records):
            symbol = info >> 32
            found = relocations.get(info & 0xFFFFFFFF)
            if found is None or symbol >= len(symbols):
                raise _UnusualError
            kind, bias, width = found
            if not kind:
                continue
            if symbols[symbol][1] == REMOVED:
                raise _UnusualError
            if offset > size - width or not -_MOST_ADDEND < addend < _MOST_ADDEND:
                raise _UnusualError
            if kind in self._limiting and self._lifetimes[block] == _ALLOCATED:
                self._may_limit = True
            edges.append((block, offset, kind, symbol, addend + bias))


def _block_flags(section_flags: int) -> int:
    flags = _LIVE if section_flags & SHF_GNU_RETAIN else 0
    if section_flags & THREAD_LOCAL_DATA == THREAD_LOCAL_DATA:
        flags |= THREAD_LOCAL
    return flags
