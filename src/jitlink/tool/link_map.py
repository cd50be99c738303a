"""The link map: what was linked, where it is in memory, what was discarded, and externals.

It is text in five parts, each in a fixed order, so that two maps of the same command differ only
in addresses, and not even there in a slab at a given address. Names are as in the object files;
those of C++ and Rust are followed by their demangled form.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from jitlink.graph.text import printable
from jitlink.names.demangling import with_source_name
from jitlink.orc.generators import Extraction
from jitlink.tool.link_facts import (
    DiscardedBlock,
    External,
    GraphFacts,
    PlacedBlock,
    PlacedSegment,
)
from jitlink.tool.object_facts import ReadBlock

_NO_FILE = "(linker)"
_WIDTH = 40
_HEAD = f"{'address':>18}  {'size':>10}  {'align':>6}  contents"


class LinkMap:
    """A map of all links of a command.

    Args:
        graphs: the links.
        named: display names of the objects that the command names, in order.
        extractions: which archive members were read, and why.
        lazy: display names of objects that are linked when one of their functions is called.
        definitions: names and addresses of `-abs`.
        aliases: new names of `-alias`, and their targets.
        read_again: reads an object by display name; None if there is no such object.
        library_at: finds the library of the process that contains an address, or None.
    """

    def __init__(
        self,
        graphs: Sequence[GraphFacts],
        *,
        named: Sequence[str] = (),
        extractions: Sequence[Extraction] = (),
        lazy: Collection[str] = (),
        definitions: Mapping[str, int] | None = None,
        aliases: Mapping[str, str] | None = None,
        read_again: Callable[[str], list[ReadBlock] | None] = lambda _: None,
        library_at: Callable[[int], str | None] = lambda _: None,
    ) -> None:
        self._graphs = graphs
        self._named = named
        self._extractions = extractions
        self._lazy = lazy
        self._definitions = dict(definitions or {})
        self._aliases = dict(aliases or {})
        self._read_again = read_again
        self._library_at = library_at
        self._places = _places(graphs)
        self._users = _users(graphs)

    def text(self) -> str:
        """The whole map as lines of text, each terminated."""
        parts = (
            ("Objects", self._objects()),
            ("Memory", self._memory()),
            ("Totals", self._totals()),
            ("Read and not loaded", self._discarded()),
            ("Symbols from elsewhere", self._elsewhere()),
        )
        return "\n".join("".join([f"{head}\n\n", *self._lines(lines)]) for head, lines in parts)

    @staticmethod
    def _lines(lines: Iterable[str]) -> Iterator[str]:
        empty = True
        for line in lines:
            empty = False
            yield f"{line.rstrip()}\n"
        if empty:
            yield "  none\n"

    # Why each object was linked

    def _objects(self) -> Iterator[str]:
        reasons = dict.fromkeys(self._named, "named in the command")
        reasons |= {each.member: self._reason(each) for each in self._extractions}
        linked = dict.fromkeys(file for graph in self._graphs for file in graph.files)
        for name in linked:
            yield f"  {printable(name):{_WIDTH}}  {reasons.get(name, 'added')}"
        for name, reason in reasons.items():
            if name not in linked:
                why = "nothing has called it yet" if name in self._lazy else "nothing leads to it"
                yield f"  {printable(name):{_WIDTH}}  {reason}; not linked: {why}"

    def _reason(self, extraction: Extraction) -> str:
        name = extraction.symbol
        if name is None:
            return "all members are read"
        wanted_by = extraction.wanted_by or next(iter(self._users.get(name, ())), None)
        alias = next((new for new, old in self._aliases.items() if old == name), None)
        shown = _shown(name)
        if wanted_by is not None:
            return f"for {shown}, wanted by {printable(wanted_by)}"
        if alias is not None:
            return f"for {shown}, the target of alias {printable(alias)}"
        return f"for {shown}, which was looked up"

    # The layout of memory

    def _segments(self) -> list[tuple[GraphFacts, PlacedSegment]]:
        pairs = [(graph, segment) for graph in self._graphs for segment in graph.segments]
        return sorted(pairs, key=lambda each: each[1].address)

    def _memory(self) -> Iterator[str]:
        yield _HEAD
        for graph, segment in self._segments():
            others = f" and {len(graph.files) - 1} more" if len(graph.files) > 1 else ""
            whose = f"{printable(graph.files[0])}{others}" if graph.files else "a graph"
            lifetime = "" if segment.lifetime == 0 else f", {segment.lifetime}"
            yield ""
            yield _row(
                segment.address,
                segment.size,
                segment.alignment,
                f"{segment.prot}{lifetime}  of {whose} in {printable(graph.dylib)}",
            )
            yield from _segment_lines(segment)

    def _totals(self) -> Iterator[str]:
        blocks: Counter[str] = Counter()
        padding: Counter[str] = Counter()
        for _, segment in self._segments():
            blocks[str(segment.prot)] += segment.size - segment.padding
            padding[str(segment.prot)] += segment.padding
        yield f"  {'':10}  {'blocks':>12}  {'padding':>12}  {'memory':>12}"
        for name in sorted(blocks):
            yield _total(name, blocks[name], padding[name])
        yield _total("all", blocks.total(), padding.total())

    # What was discarded

    def _discarded(self) -> Iterator[str]:
        kept = self._kept_groups()
        for graph in self._graphs:
            discarded: dict[str, list[DiscardedBlock]] = {}
            for each in graph.discarded:
                discarded.setdefault(each.file, []).append(each)
            for file, blocks in discarded.items():
                yield f"  {printable(file) or _NO_FILE}"
                read = self._read_again(file) or []
                for block in blocks:
                    if not block.size and not block.is_of_discarded_group:
                        continue
                    why = self._why_discarded(block, read, kept)
                    yield f"    {block.size:>#10x}  {printable(block.section):24}  {why}"

    def _kept_groups(self) -> dict[str, str]:
        """The object whose COMDAT group was kept, by signature."""
        kept: dict[str, str] = {}
        for graph in self._graphs:
            discarded = {
                (each.file, each.number) for each in graph.discarded if each.is_of_discarded_group
            }
            for file in graph.files:
                for number, block in enumerate(self._read_again(file) or []):
                    if block.group is not None and (file, number) not in discarded:
                        kept.setdefault(block.group, file)
        return kept

    def _why_discarded(
        self, discarded: DiscardedBlock, read: Sequence[ReadBlock], kept: Mapping[str, str]
    ) -> str:
        if not discarded.is_loadable:
            return "never loaded"
        number = discarded.number
        known = None if number is None or number >= len(read) else read[number]
        if discarded.is_of_discarded_group:
            group = None if known is None else known.group
            if group is None:
                return "of a COMDAT group that another object has too"
            file = printable(kept.get(group, "another object"))
            return f"of COMDAT group {_shown(group)}, kept from {file}"
        for name in () if known is None else known.exports:
            if place := self._places.get(name):
                return f"{_shown(name)} is that of {printable(place[1])}"
        return "nothing refers to it"

    # Externals

    def _elsewhere(self) -> Iterator[str]:
        seen: dict[str, External] = {}
        for graph in self._graphs:
            for each in graph.externals:
                # Symbols of other links are listed in the memory above.
                if self._places.get(each.name, (None, ""))[0] != each.address:
                    seen.setdefault(each.name, each)
        for name, address in self._definitions.items():
            seen.setdefault(name, External(name, address, "", "", ()))
        for new, old in self._aliases.items():
            address = self._places[old][0] if old in self._places else 0
            seen.setdefault(new, External(new, address, "", "", ()))
        for name, each in sorted(seen.items()):
            users = self._users.get(name, ())
            more = f" and {len(users) - 1} more" if len(users) > 1 else ""
            whose = f", for {printable(users[0])}{more}" if users else ""
            yield f"{each.address:#018x}  {_shown(name):{_WIDTH}}  {self._where(each)}{whose}"
        for graph in self._graphs:
            for symbol in graph.absolutes:
                yield f"{symbol.address:#018x}  {_shown(symbol.name):{_WIDTH}}  absolute"

    def _where(self, external: External) -> str:
        if external.name in self._definitions:
            return "-abs"
        if external.name in self._aliases:
            return f"-alias of {_shown(self._aliases[external.name])}"
        if not external.dylib:
            return f"undefined: {'unused address' if external.address else 'weakly referenced'}"
        library = self._library_at(external.address)
        return printable(library) if library else f"defined in {printable(external.dylib)}"


def _places(graphs: Iterable[GraphFacts]) -> dict[str, tuple[int, str]]:
    """Address and file of each symbol in memory that is not local."""
    return {
        symbol.name: (symbol.address, block.file or _NO_FILE)
        for graph in graphs
        for segment in graph.segments
        for block in segment.blocks
        for symbol in block.symbols
        if not symbol.is_local
    }


def _users(graphs: Iterable[GraphFacts]) -> dict[str, tuple[str, ...]]:
    """The files that refer to each external of their link, in order."""
    found: dict[str, dict[str, None]] = {}
    for graph in graphs:
        for each in graph.externals:
            found.setdefault(each.name, {}).update(dict.fromkeys(each.users))
    return {name: tuple(users) for name, users in found.items()}


def _segment_lines(segment: PlacedSegment) -> Iterator[str]:
    position, end = segment.address, segment.address + segment.size
    for block in segment.blocks:
        if block.address > position:
            yield _row(position, block.address - position, 0, "  (padding)")
        yield from _block_lines(block)
        position = max(position, block.address + block.size)
    if position < end:
        yield _row(position, end - position, 0, "  (padding)")


def _block_lines(block: PlacedBlock) -> Iterator[str]:
    what = f"{printable(block.file) or _NO_FILE}"
    target = f" for {_shown(block.leads_to)}" if block.leads_to else ""
    section = printable(block.section)
    yield _row(block.address, block.size, block.alignment, f"  {section:20}  {what}{target}")
    for symbol in block.symbols:
        yield _row(symbol.address, symbol.size, 0, f"      {_shown(symbol.name)}")


def _row(address: int, size: int, alignment: int, what: str) -> str:
    return f"{address:#018x}  {size:>#10x}  {alignment or '':>6}  {what}"


def _total(name: str, blocks: int, padding: int) -> str:
    return f"  {name:10}  {blocks:>12}  {padding:>12}  {blocks + padding:>12}"


def _shown(name: str) -> str:
    return printable(with_source_name(name))
