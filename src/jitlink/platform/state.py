"""What a platform knows of each JITDylib: its handle, what is linked into it, who has opened it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from jitlink.graph import AddressRange, Symbol
from jitlink.orc.dylib import JITDylib, walk_link_orders
from jitlink.orc.interface import ResourceTracker
from jitlink.passes.initializers import FunctionArray


class LinkRecord:
    """What one link has brought.

    Attributes:
        arrays: its initialisers and finalisers.
        memory: where it is.
        is_initialized: whether its initialisers have been run, or are about to.
        handle: the handle of its JITDylib if it brings that, until it is emitted.
    """

    def __init__(self) -> None:
        self.handle: Symbol | None = None
        self.arrays: list[FunctionArray] = []
        self.memory: list[AddressRange] = []
        self.is_initialized = False


class DylibState:
    """A JITDylib that a platform takes care of. For the session's thread, but for `handle`.

    Attributes:
        dylib: the JITDylib.
        tracker: owns what the platform has defined in it.
        handle: address of its `__dso_handle`, and what ``dlopen`` returns; 0 until it is linked.
        address_limit: what the code of the JITDylib reaches lies below this address.
        linked: what was linked into it, by owner.
        opens: how often it was opened by ``dlopen`` and not closed.
        is_kept: whether `initialize` has opened it, and `deinitialize` not closed it.
        is_initialized: whether its initialisers have been run, and its finalisers not.
        is_finalized: whether its finalisers have been run because it is being removed.
    """

    def __init__(self, dylib: JITDylib, tracker: ResourceTracker) -> None:
        self.dylib = dylib
        self.tracker = tracker
        self.handle = 0
        self.address_limit = 1 << 64
        self.linked: dict[ResourceTracker, list[LinkRecord]] = {}
        self.opens = 0
        self.is_kept = False
        self.is_initialized = False
        self.is_finalized = False

    @property
    def is_wanted(self) -> bool:
        """Whether somebody has opened it."""
        return self.is_kept or self.opens > 0

    def code(self) -> Iterator[LinkRecord]:
        """Everything that was linked into it."""
        for each in self.linked.values():
            yield from each

    @property
    def has_uninitialized(self) -> bool:
        """Whether there are initialisers or finalisers that `take_uninitialized` would return."""
        return any(each.arrays and not each.is_initialized for each in self.code())

    def take_uninitialized(self) -> list[FunctionArray]:
        """The initialisers and finalisers of what was linked since this was last called."""
        arrays: list[FunctionArray] = []
        for code in self.code():
            if not code.is_initialized:
                code.is_initialized = True
                arrays += code.arrays
        return arrays

    def rearm(self) -> None:
        """Let all initialisers be run again when it is opened again."""
        self.is_initialized = False
        for code in self.code():
            code.is_initialized = False


def unlinked_initializers(dylib: JITDylib) -> list[str]:
    """Names of symbols that stand for initialisers and are to be looked up.

    What has been removed, or could not be linked, is not among them, nor will it ever be.
    """
    symbols = dylib.symbols
    names = [n for n in dylib.initializers if n in symbols and not symbols[n].failed]
    dylib.initializers = dict.fromkeys(names)
    return names


def dependencies_first(
    roots: Iterable[JITDylib], states: Mapping[JITDylib, DylibState]
) -> list[DylibState]:
    """JITDylibs and what they are linked against, each after what it is linked against itself.

    Where they are linked against each other, the one that is reached last comes first.
    """
    return [states[dylib] for dylib in walk_link_orders(roots, states)]
