"""The registry of object formats, and graphs of single objects.

A new object format is one line in `OBJECT_FORMATS`; a new architecture is one line in the table of
its format. Both are imported when an object of theirs is first read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from jitlink.errors import UnknownFormatError, UnsupportedObjectError
from jitlink.formats.batch import Batch
from jitlink.formats.identification import describe
from jitlink.graph import LinkGraph
from jitlink.link import PassConfiguration
from jitlink.resolve import SymbolResolver
from jitlink.targets.base import ObjectFormat, Target, import_name

OBJECT_FORMATS: dict[bytes, str] = {
    b"\x7fELF": "jitlink.targets.elf:ELF",
}
"""Module and name of each object format, by what its files begin with."""

Buffer = bytes | bytearray | memoryview


def target_of_object(data: Buffer, name: str) -> Target:
    """The target that links an object.

    Args:
        data: the object's bytes, or at least its header.
        name: display name, for errors.

    Raises:
        UnknownFormatError: the bytes are of no container format that is supported.
        ObjectError: the header is malformed.
        UnsupportedObjectError: there is no such target.
    """
    view = memoryview(data).cast("B")
    return _format_of(view, name).target_of(view, name)


def _format_of(view: memoryview, name: str) -> ObjectFormat:
    for magic, path in OBJECT_FORMATS.items():
        if view[: len(magic)] == magic:
            object_format: ObjectFormat = import_name(path)
            return object_format
    raise UnknownFormatError(describe(view), file=name)


def exported_among(data: Buffer, name: str, names: Iterable[str]) -> list[str]:
    """Those of some names that a shared library in a file defines for others.

    Args:
        data: the library's bytes.
        name: display name, for errors.
        names: the names.

    Raises:
        UnknownFormatError: the bytes are of no container format that is supported.
        ObjectError: it is no shared library, or is malformed.
    """
    view = memoryview(data).cast("B")
    return _format_of(view, name).exported_among(view, name, names)


def all_targets() -> Iterator[Target]:
    """Every target; each is imported when the iteration comes to it."""
    for path in OBJECT_FORMATS.values():
        yield from import_name(path).targets()


def target_of_graph(graph: LinkGraph) -> Target:
    """The target that made a graph, or that links it if none did.

    Raises:
        UnsupportedObjectError: there is none.
    """
    if graph.target is None:
        graph.target = next((each for each in all_targets() if each.links(graph)), None)
        if graph.target is None:
            raise UnsupportedObjectError(f"no target for triple {graph.triple}", file=graph.name)
    target: Target = graph.target  # type: ignore[assignment]  # opaque to the graph
    return target


def target_of_triple(triple: str) -> Target:
    """The target that links code for an executor's architecture.

    Raises:
        UnsupportedObjectError: there is none.
    """
    architecture = triple.partition("-")[0]
    for target in all_targets():
        if target.triple.partition("-")[0] == architecture:
            return target
    raise UnsupportedObjectError(f"no target for triple {triple}", file="<executor>")


def default_passes(graph: LinkGraph) -> PassConfiguration:
    """The passes and the fixup table that the graph's target links it with."""
    return target_of_graph(graph).configure(graph)


def create_link_graph(data: Buffer, name: str = "<memory>") -> LinkGraph:
    """A graph of one relocatable object, whatever its format and architecture.

    Args:
        data: the object; it is referred to, not copied.
        name: display name.

    Raises:
        InputError: the object cannot be read or has no target.
    """
    target = target_of_object(data, name)
    graph = target.new_graph(name)
    view = memoryview(data).cast("B")
    batch = Batch(view, [name], np.zeros(1, np.int64), np.array([len(view)]))
    resolver = SymbolResolver(graph)
    resolver.add(target.add_objects(graph, batch))
    resolver.finish()
    return graph
