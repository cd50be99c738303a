"""The state of a JITDylib in its platform: handle, links, initialisers, reference count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from jitlink.graph import AddressRange
from jitlink.orc.dylib import JITDylib
from jitlink.orc.errors import SessionError
from jitlink.orc.interface import ResourceTracker
from jitlink.orc.link_orders import walk_link_orders
from jitlink.orc.trackers import TrackedResources
from jitlink.passes.initializers import FunctionArray


class LinkRecord:
    """What a platform records about one link.

    Attributes:
        arrays: the initialisers and finalisers of the linked graph.
        memory: the executor memory of the linked graph.
        handle: address of the `__dso_handle` that the graph defines; 0 if it does not.
        is_initialized: whether the initialisers have run, or are about to.
    """

    def __init__(self) -> None:
        self.arrays: list[FunctionArray] = []
        self.memory: list[AddressRange] = []
        self.handle = 0
        self.is_initialized = False


class DylibState:
    """The state of one JITDylib. Accessed on the driver thread only, except `handle`.

    Attributes:
        dylib: the JITDylib.
        tracker: owns what the platform has defined in the JITDylib.
        handle: address of its `__dso_handle`, and what ``dlopen`` returns; 0 until it is linked.
        links: records of the links into the JITDylib, under the trackers that own their code.
        may_call_python: whether its code refers to addresses that Python has given it.
        is_held: whether `Platform.initialize` holds the JITDylib open until `deinitialize`.
        dl_ref_count: calls of ``dlopen`` that no ``dlclose`` has taken back.
        is_initialized: whether its initialisers have run, and its finalisers have not.
        is_finalized: whether its finalisers have run because it is being removed.
    """

    def __init__(self, dylib: JITDylib, tracker: ResourceTracker) -> None:
        self.dylib = dylib
        self.tracker = tracker
        self.handle = 0
        self.links: TrackedResources[LinkRecord] = TrackedResources()
        self.may_call_python = False
        self.is_held = False
        self.dl_ref_count = 0
        self.is_initialized = False
        self.is_finalized = False

    # References

    @property
    def is_referenced(self) -> bool:
        """Whether `Platform.initialize` or a ``dlopen`` holds the JITDylib open."""
        return self.is_held or self.dl_ref_count > 0

    def hold(self) -> None:
        """Count `Platform.initialize`, however often it is called, as one reference."""
        self.is_held = True

    def release_hold(self) -> None:
        """Release the reference of `Platform.initialize`, if there is one."""
        self.is_held = False

    def add_dl_ref(self) -> None:
        """Count a ``dlopen``."""
        self.dl_ref_count += 1

    def release_dl_ref(self) -> None:
        """Count a ``dlclose``.

        Raises:
            SessionError: all calls of ``dlopen`` have been taken back.
        """
        if not self.dl_ref_count:
            raise SessionError(f"JITDylib {self.dylib.name} has no dlopen left to take back")
        self.dl_ref_count -= 1

    def reset(self, *, is_held: bool) -> None:
        """Forget all that was in a process that has ended."""
        self.handle, self.tracker = 0, self.dylib.create_resource_tracker()
        self.links.clear()
        self.is_held, self.dl_ref_count = is_held, 0
        self.is_initialized = self.is_finalized = False

    def release_all(self) -> None:
        """Release all references."""
        self.is_held, self.dl_ref_count = False, 0

    # Links

    @property
    def has_pending_arrays(self) -> bool:
        """Whether `take_pending_arrays` would return any."""
        return any(record.arrays and not record.is_initialized for record in self.links)

    def take_pending_arrays(self) -> list[FunctionArray]:
        """The initialisers and finalisers of the links since the last call or reset."""
        arrays: list[FunctionArray] = []
        for record in self.links:
            if not record.is_initialized:
                record.is_initialized = True
                arrays += record.arrays
        return arrays

    def reset_initializers(self) -> None:
        """Have all initialisers run again when the JITDylib is opened again."""
        self.is_initialized = False
        for record in self.links:
            record.is_initialized = False


def unlinked_initializers(dylib: JITDylib) -> list[str]:
    """Names of the initializer symbols that are still to be looked up.

    Symbols that were removed or failed to materialize are left out, now and later.
    """
    symbols = dylib.symbols
    names = [n for n in dylib.initializers if n in symbols and not symbols[n].failed]
    dylib.initializers = dict.fromkeys(names)
    return names


def dependencies_first(
    roots: Iterable[JITDylib], states: Mapping[JITDylib, DylibState]
) -> list[DylibState]:
    """JITDylibs and those in their link orders, transitively, each after its dependencies.

    In a cycle, the JITDylib that is reached last comes first.
    """
    return [states[dylib] for dylib in walk_link_orders(roots, states)]
