"""Traces of symbols: which objects define one, which refer to it, whose definition holds and why.

The rules are those of static linking, see `jitlink.resolve`; across objects that are linked
at different times they are those of JITDylibs: archives are searched for symbols that no object
defines, and the process for symbols that no input defines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from jitlink.errors import UndefinedSymbolError
from jitlink.graph.text import printable
from jitlink.names.demangling import with_source_name
from jitlink.tool.link_facts import GraphFacts
from jitlink.tool.object_facts import ObjectFacts, ReadDefinition


class TracedInput(NamedTuple):
    """An object that may define a symbol or refer to it.

    Attributes:
        facts: its contents.
        is_read: whether it was read; members of archives are read only if needed.
        reason: why a member was read or not.
    """

    facts: ObjectFacts
    is_read: bool
    reason: str = ""


class SymbolTrace:
    """The trace of one symbol.

    Args:
        name: the symbol.
        inputs: the objects, in the order in which they were read.
        graphs: the links.
        definitions: names and addresses of `-abs`.
        aliases: new names of `-alias`, and their targets.
        library_at: finds the library of the process that contains an address, or None.
        dylib: name of the JITDylib of all of these; None if there is no other.
    """

    def __init__(
        self,
        name: str,
        *,
        inputs: Sequence[TracedInput],
        graphs: Sequence[GraphFacts],
        definitions: Mapping[str, int] | None = None,
        aliases: Mapping[str, str] | None = None,
        library_at: Callable[[int], str | None] = lambda _: None,
        dylib: str | None = None,
    ) -> None:
        self._name = name
        self._inputs = inputs
        self._graphs = graphs
        self._definitions = definitions or {}
        self._aliases = aliases or {}
        self._library_at = library_at
        self._where = "" if dylib is None else f" in JITDylib {printable(dylib)}"
        self._definers = [
            (each, definition) for each in inputs for definition in each.facts.definitions(name)
        ]

    @property
    def is_concerned(self) -> bool:
        """Whether the JITDylib defines the symbol or refers to it."""
        read = (each.facts for each in self._inputs if each.is_read)
        return (
            bool(self._definers)
            or self._name in {**self._definitions, **self._aliases}
            or any(facts.reference(self._name) for facts in read)
        )

    def text(self) -> str:
        """The trace as lines of text, each terminated."""
        lines = [
            f"Symbol {printable(with_source_name(self._name))}{self._where}",
            *(f"  {line}" for line in self._lines()),
        ]
        return "".join(f"{line}\n" for line in lines)

    def _lines(self) -> Iterator[str]:
        if self._name in self._definitions:
            yield f"defined by -abs as {self._definitions[self._name]:#x}"
        if self._name in self._aliases:
            yield f"defined by -alias as {printable(self._aliases[self._name])}"
        linked = {file for graph in self._graphs for file in graph.files}
        for each, definition in self._definers:
            file = each.facts.name
            state = "" if file in linked else "; not linked" if each.is_read else "; not read"
            reason = f": {each.reason}" if each.reason else ""
            yield f"defined in {printable(file)}: {_described(definition)}{state}{reason}"
        referrers = False
        for each in self._inputs:
            if each.is_read and (how := each.facts.reference(self._name)):
                referrers = True
                weakly = "weakly " if how == "weak" else ""
                state = "" if each.facts.name in linked else "; not linked"
                yield f"referred to {weakly}by {printable(each.facts.name)}{state}"
        if not referrers:
            yield "referred to by no other object"
        yield self._outcome()

    def _outcome(self) -> str:
        """Which definition holds, and why."""
        place = self._place()
        if place is not None:
            file, address = place
            if not file and self._definers:
                return f"holds: a stub, at {address:#x}: a call of it links the definition"
            return f"holds: {printable(file)}, at {address:#x}: {self._why(file)}"
        external = [e for graph in self._graphs for e in graph.externals if e.name == self._name]
        found = [each for each in external if each.dylib]
        if found and self._name in self._definitions:
            return f"holds: -abs, at {found[0].address:#x}: the command comes before the process"
        if found and self._name in self._aliases:
            return f"holds: -alias, at {found[0].address:#x}"
        if found:
            library = self._library_at(found[0].address) or f"JITDylib {found[0].dylib}"
            where = f"{printable(library)}, at {found[0].address:#x}"
            return f"holds: {where}: no input that is linked{self._where} defines it"
        if external and external[0].address:
            return f"holds: an unused address, {external[0].address:#x}: it is undefined"
        if external:
            return "holds: null: it is undefined, and all references are weak"
        if self._definers or self._name in {**self._definitions, **self._aliases}:
            return "holds: none: nothing that was linked needs it"
        return f"holds: none: {UndefinedSymbolError([self._name])}"

    def _place(self) -> tuple[str, int] | None:
        """The object whose definition is in memory, and its address."""
        for graph in self._graphs:
            for segment in graph.segments:
                for block in segment.blocks:
                    for symbol in block.symbols:
                        if symbol.name == self._name and not symbol.is_local:
                            return block.file, symbol.address
        return None

    def _why(self, file: str) -> str:
        """Why the definition of an object holds."""
        read = [
            (each.facts.name, definition) for each, definition in self._definers if each.is_read
        ]
        others = [definition for name, definition in read if name != file]
        mine = next((definition for name, definition in read if name == file), None)
        if mine is None:
            return "the linker defines it"
        if not others:
            unread = len(self._definers) > len(read)
            return "the only one that was read" if unread else "the only definition"
        if mine.group is not None and all(each.group == mine.group for each in others):
            return f"the first of {len(read)} COMDAT groups of that signature"
        if mine.binding == "strong":
            return f"strong, before {_listed(others)}"
        if any(each.binding == "strong" for each in others):
            # Possible only if the two are not linked together.
            return f"{mine.binding}, and in use before the strong one was read"
        if mine.binding == "common":
            larger = any(each.binding == "common" and each.size > mine.size for each in others)
            size = ", with the size of the largest" if larger else ""
            return f"common, before {_listed(others)}{size}"
        return f"the first of {len(read)} weak definitions, in order of the command"


def _described(definition: ReadDefinition) -> str:
    section = f" in {printable(definition.section)}" if definition.section else ", absolute"
    group = "" if definition.group is None else f", COMDAT group {printable(definition.group)}"
    hidden = ", hidden" if definition.is_hidden else ""
    return f"{definition.binding}, {definition.size} bytes{section}{group}{hidden}"


def _listed(others: Sequence[ReadDefinition]) -> str:
    """Kinds of definitions, and how many of each."""
    kinds = [each.binding for each in others]
    counted = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    return " and ".join(f"{number} {kind}" for kind, number in counted.items())
