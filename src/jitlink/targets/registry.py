"""The registry of targets, and graphs of single objects.

A new architecture is one line in `_ELF_TARGETS`: a module, and the name in it if that is not
TARGET. A target is imported when an object of it is first read.
"""

from __future__ import annotations

import importlib
from functools import cache

import numpy as np

from jitlink.errors import UnknownFormatError, UnsupportedObjectError
from jitlink.formats.batch import Batch
from jitlink.formats.elf_layout import ELFCLASS32, ELFCLASS64, identify, is_elf
from jitlink.graph import LinkGraph
from jitlink.link import PassConfiguration
from jitlink.resolve import SymbolResolver
from jitlink.targets.elf import ELFTarget

_ELF_TARGETS = {
    (62, ELFCLASS64, "little"): "jitlink.targets.elf_x86_64",
    (183, ELFCLASS64, "little"): "jitlink.targets.elf_aarch64",
    (183, ELFCLASS64, "big"): "jitlink.targets.elf_aarch64:BIG_ENDIAN_TARGET",
    (243, ELFCLASS64, "little"): "jitlink.targets.elf_riscv:TARGET64",
    (243, ELFCLASS32, "little"): "jitlink.targets.elf_riscv:TARGET32",
}

Buffer = bytes | bytearray | memoryview


def target_of_object(data: Buffer, name: str) -> ELFTarget:
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
    if not is_elf(view):
        raise UnknownFormatError("not an object file of a known format", file=name)
    identity = identify(view, name)
    module = _ELF_TARGETS.get((identity.machine, identity.elf_class, identity.byte_order))
    if module is None:
        bits = 64 if identity.elf_class == ELFCLASS64 else 32
        kind = f"{bits}-bit {identity.byte_order}-endian"
        raise UnsupportedObjectError(f"no {kind} target for machine {identity.machine}", file=name)
    return _load(module)


def target_of_graph(graph: LinkGraph) -> ELFTarget:
    """The target whose edge kinds a graph uses.

    Raises:
        UnsupportedObjectError: there is none.
    """
    for module in _ELF_TARGETS.values():
        target = _load(module)
        if target.links(graph):
            return target
    raise UnsupportedObjectError(f"no target for triple {graph.triple}", file=graph.name)


def target_of_triple(triple: str) -> ELFTarget:
    """The target that links code for an executor's architecture.

    Raises:
        UnsupportedObjectError: there is none.
    """
    architecture = triple.partition("-")[0]
    # Lazily: targets after the one that is found are not imported.
    for target in map(_load, dict.fromkeys(_ELF_TARGETS.values())):
        if target.triple.partition("-")[0] == architecture:
            return target
    raise UnsupportedObjectError(f"no target for triple {triple}", file="<executor>")


def all_targets() -> list[ELFTarget]:
    """Every target that the registry knows."""
    return [_load(module) for module in dict.fromkeys(_ELF_TARGETS.values())]


def default_passes(graph: LinkGraph) -> PassConfiguration:
    """The passes and the fixup table that the graph's target links it with."""
    return target_of_graph(graph).configure(graph)


def create_link_graph(data: Buffer, name: str = "<memory>") -> LinkGraph:
    """A graph of one relocatable object, whatever its format and architecture.

    Args:
        data: the object, which is not copied.
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


@cache
def _load(path: str) -> ELFTarget:
    module, _, name = path.partition(":")
    target: ELFTarget = getattr(importlib.import_module(module), name or "TARGET")
    return target
