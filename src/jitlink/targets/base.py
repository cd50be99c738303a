"""What the linker asks of a target: a pair of object format and architecture.

Code outside `jitlink.targets` sees targets through `Target` alone, and finds them through
`jitlink.targets.registry`. A graph remembers the target that made it, so a target that is known is
not searched for again.

The relocation types of a target are a table: a row names the edge kind that a type becomes and what
is added to its addend, or why the type is not linked.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np

from jitlink.arch.direct_access import DirectAccess, OutOfLine
from jitlink.arch.reentry import (
    EXCEPTION,
    LANDING_WORDS,
    CodeEdges,
    HostFunctionCode,
    Jump,
    ReentryCode,
)
from jitlink.fixups import FixupTable
from jitlink.formats.batch import Batch, ReadObjects
from jitlink.formats.small import SmallObject
from jitlink.graph import LinkGraph
from jitlink.graph.columns import Int64Array
from jitlink.graph.edges import EdgeKind
from jitlink.link import PassConfiguration
from jitlink.passes.init_fini import CrtiCrtn

if TYPE_CHECKING:
    from jitlink.memory.images import ImageSymbols
    from jitlink.memory.regions import PlacedSegment

__all__ = [
    "EXCEPTION",
    "LANDING_WORDS",
    "Batch",
    "CodeEdges",
    "DirectAccess",
    "HostFunctionCode",
    "Jump",
    "ObjectFormat",
    "OutOfLine",
    "ReadObjects",
    "ReentryCode",
    "Relocation",
    "RelocationTable",
    "Target",
    "import_name",
]


class Relocation(NamedTuple):
    """One relocation type.

    Attributes:
        number: as stored in the file.
        name: the ABI's name.
        kind: edge kind that it becomes, or None.
        bias: what is added to the addend.
        reason: why it is not linked; empty for a type that needs no edge.
    """

    number: int
    name: str
    kind: EdgeKind | None = None
    bias: int = 0
    reason: str = ""


class RelocationTable:
    """Relocation types as columns, indexed by number.

    Attributes:
        rows: the rows.
        by_number: the same by number.
        kinds: edge kind of each type, 0 for none (int64).
        biases: what is added to its addend (int64).
        ignored: whether it needs no edge (bool).
    """

    def __init__(self, relocations: Sequence[Relocation]) -> None:
        self.rows = tuple(relocations)
        self.by_number = {row.number: row for row in relocations}
        # The last element stands for every number that the ABI does not define.
        size = max(self.by_number) + 2
        self.kinds, self.biases = np.zeros(size, np.int64), np.zeros(size, np.int64)
        self.ignored = np.zeros(size, np.bool_)
        for number, row in self.by_number.items():
            self.kinds[number] = 0 if row.kind is None else int(row.kind)
            self.biases[number] = row.bias
            self.ignored[number] = row.kind is None and not row.reason

    def index(self, types: Int64Array) -> Int64Array:
        """The index of each of these types in the columns (int64)."""
        return np.minimum(types, len(self.kinds) - 1)


class Target(Protocol):
    """The objects of one format for one architecture, and how they are linked."""

    @property
    def triple(self) -> str:
        """Target triple of the graphs."""

    @property
    def pointer_size(self) -> int:
        """Size of a pointer in bytes."""

    @property
    def byte_order(self) -> Literal["little", "big"]:
        """Byte order of data."""

    @property
    def edge_kinds(self) -> type[EdgeKind]:
        """The architecture's edge kinds."""

    @property
    def fixups(self) -> FixupTable:
        """How they are applied."""

    @property
    def relocations(self) -> RelocationTable:
        """All relocation types of the format on the architecture."""

    @property
    def branches(self) -> frozenset[EdgeKind]:
        """Edge kinds of direct calls and jumps, those to stubs included."""

    @property
    def jump(self) -> Jump | None:
        """Code that jumps elsewhere, to be written to the entry of a function."""

    @property
    def reentry(self) -> ReentryCode | None:
        """Machine code for lazy functions, if the architecture has it yet."""

    @property
    def host_function(self) -> HostFunctionCode | None:
        """Machine code for functions that another process implements, if there is any."""

    @property
    def direct_access(self) -> DirectAccess | None:
        """Direct references to symbols of libraries, if they can be brought into reach."""

    @property
    def crti_crtn(self) -> CrtiCrtn | None:
        """Prologue and epilogue of ``.init`` and ``.fini`` code, if known."""

    def new_graph(self, name: str) -> LinkGraph:
        """An empty graph, whose `LinkGraph.target` is this target."""

    def configure(self, graph: LinkGraph) -> PassConfiguration:
        """The passes that every graph of the target needs, for one graph."""

    def address_limit(self, graph: LinkGraph) -> int:
        """The address below which the code of a graph must lie, by its relocations."""

    def links(self, graph: LinkGraph) -> bool:
        """Whether a graph that no target made is one of this target's."""

    def read_small(self, data: memoryview) -> SmallObject | None:
        """Read one object, if it is small and ordinary.

        Returns:
            What `add_objects` would add to a graph; None if that is to be asked, because the
            object is large, unusual in some way, malformed, or of another target.
        """

    def add_objects(self, graph: LinkGraph, batch: Batch) -> ReadObjects:
        """Read all objects of a batch into a graph, with their relocations as edges.

        Raises:
            InputError: an object is malformed, of another target, or has a relocation that
                is not linked; the graph must not be used any more.
        """

    def write_executable(
        self,
        segments: Sequence[PlacedSegment],
        symbols: ImageSymbols,
        entry: int,
        flags: Iterable[int],
    ) -> bytes:
        """The bytes of an executable of placed code.

        Args:
            segments: the segments, in order of address.
            symbols: the symbols, at their addresses.
            entry: the address of the entry point; 0 for none.
            flags: flags from the headers of the objects that were linked.
        """


class ObjectFormat(Protocol):
    """A container of relocatable objects, and its targets."""

    def target_of(self, data: memoryview, file: str) -> Target:
        """The target that links an object.

        Args:
            data: the object's bytes, or at least its header.
            file: display name, for errors.

        Raises:
            ObjectError: the header is malformed.
            UnsupportedObjectError: there is no such target.
        """

    def exported_among(self, data: memoryview, file: str, names: Iterable[str]) -> list[str]:
        """Those of the names that a shared library in a file defines for others.

        Args:
            data: the library's bytes.
            file: display name, for errors.
            names: the names.

        Raises:
            ObjectError: it is no shared library, or is malformed.
        """

    def targets(self) -> Iterable[Target]:
        """All targets of the format; each is imported when the iteration comes to it."""


@cache
def import_name(path: str) -> Any:  # noqa: ANN401 - the caller knows its type
    """What ``module:NAME`` stands for; the module is imported when it is first used."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
