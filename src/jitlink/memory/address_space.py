"""From where in this process linked code gets its memory.

A *window* is a reserved range, a gigabyte if there is room, in which everything reaches
everything else with 32-bit displacements. The first one is put so close to the process's own
libraries that it reaches those too; code whose addresses must fit 32 bits gets one below
2 GiB. A JITDylib stays in the window in which its first memory was. Only when that is full
does it get another one, in reach of the first if there is such a place.

A window is cut into parts, one for each of the usual protections and one for the rest, and
serves runs of pages lowest address first. Runs of equal protection are thus neighbours, which
the kernel joins into one mapping.

Pages that come back cannot be accessed any more. Some megabytes of them keep their storage:
to clear a page and use it again costs a tenth of what a new one costs.

Finding room near the libraries takes longer than linking a small object, so one address space
is shared by all managers of a process.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from weakref import WeakKeyDictionary

from jitlink.errors import AllocationError
from jitlink.graph import MemProt
from jitlink.memory import mapping
from jitlink.memory.manager import JITLinkDylib
from jitlink.memory.pages import PageAllocator, Request, Run
from jitlink.memory.reservation import (
    REACH,
    Reservation,
    library_span,
    reserve_below,
    reserve_near,
)

_WINDOW_SIZES = (1 << 30, 512 << 20, 256 << 20, 64 << 20, 16 << 20)
_LOW_WINDOW_SIZE = 512 << 20
_RESIDENT_SIZE = 16 << 20
# An allocation of more than this part of a window gets one of its own.
_DEDICATED_SHARE = 8
# Above all addresses that a process can have.
_USER_END = 1 << 48


class AddressSpace(PageAllocator):
    """Windows, and which JITDylib lives in which of them. Threads may share one.

    Args:
        window_sizes: sizes in bytes to try for a new window, largest first.
        resident_size: how many bytes of free pages may keep their storage.
    """

    def __init__(
        self,
        window_sizes: Sequence[int] = _WINDOW_SIZES,
        *,
        resident_size: int = _RESIDENT_SIZE,
    ) -> None:
        self.page_size = mapping.PAGE_SIZE
        self.is_executable_in_place = True
        self._window_sizes = tuple(window_sizes)
        self._resident_limit = resident_size
        self._windows: list[Reservation] = []
        self._homes: WeakKeyDictionary[JITLinkDylib, Reservation] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def after_fork(self) -> None:
        """Make usable in a child process, which has no other thread to free the lock."""
        self._lock = threading.Lock()

    @property
    def windows(self) -> tuple[Reservation, ...]:
        """All windows, in order of creation."""
        return tuple(self._windows)

    def window_of(self, dylib: JITLinkDylib) -> Reservation | None:
        """The window in which a JITDylib lives, None if it has had no memory yet."""
        return self._homes.get(dylib)

    def take(self, dylib: JITLinkDylib, requests: Sequence[Request], limit: int) -> list[Run]:
        """Serve requests for runs of pages, all of them from one window."""
        with self._lock:
            home = self._homes.get(dylib)
            window, runs = self._take(home, requests, limit)
            if home is None or home.dedicated:
                self._homes[dylib] = window
        return runs

    def _take(
        self, home: Reservation | None, requests: Sequence[Request], limit: int
    ) -> tuple[Reservation, list[Run]]:
        for window in self._candidates(home, limit):
            runs = window.take(requests, limit)
            if runs is not None:
                return window, runs
        # Alignment costs less than this where the window is aligned better, but never more.
        need = sum(size + alignment for size, alignment, _, _ in requests)
        opened = self._open(need, limit, home)
        runs = opened.take(requests, limit) if opened else None
        if opened is None or runs is None:
            where = f" below {limit:#x}" if limit < _USER_END else ""
            raise AllocationError(f"no room for {need:#x} bytes of memory{where}", size=need)
        return opened, runs

    def _candidates(self, home: Reservation | None, limit: int) -> Iterator[Reservation]:
        if home is not None and not home.dedicated:
            yield home
        for window in self._windows:
            if window is home or window.dedicated:
                continue
            if limit < _USER_END:
                fits = window.start < limit
            elif home is not None:
                fits = window.reaches(home)
            else:
                # A library that moves in will grow, and low addresses are scarce.
                fits = window.start >= REACH and window.used_size < window.size // 2
            if fits:
                yield window

    def _open(self, need: int, limit: int, home: Reservation | None) -> Reservation | None:
        """Make a window with room for `need` bytes."""
        page = mapping.PAGE_SIZE
        own = -(-need // page) * page + page
        most = _LOW_WINDOW_SIZE if limit < _USER_END else _USER_END
        sizes = [s for s in self._window_sizes if need * _DEDICATED_SHARE <= s <= most]
        for size in (*sizes, own):
            address = _reserve(size, limit, home)
            if address is not None:
                window = Reservation(address, size, dedicated=size == own)
                self._windows.append(window)
                return window
        return None

    def make_writable(self, run: Run, populate: int) -> None:
        """Make a run readable, writable and zero."""
        if run.resident:
            mapping.protect(run.address, run.size, mapping.READ_WRITE)
            mapping.clear(run.address, run.size)
        else:
            mapping.map_zeroed(run.address, run.size, populate)

    def view(self, address: int, size: int) -> memoryview:
        """The memory at an address."""
        return mapping.view(address, size)

    def protect(self, run: Run, prot: MemProt) -> None:
        """Give a writable run its own protection."""
        mapping.protect_written(run.address, run.size, prot)

    def give_back(self, runs: Iterable[Run]) -> list[AllocationError]:
        """Make runs inaccessible and free."""
        kept: list[Run] = []
        discarded: list[Run] = []
        room = self._resident_limit - sum(window.resident_size for window in self._windows)
        for run in runs:
            # Much of a large run may never have been written to.
            if run.size <= min(room, self._resident_limit // 4):
                room -= run.size
                kept.append(run)
            else:
                discarded.append(run)
        return self._free(kept, keep=True) + self._free(discarded, keep=False)

    def _free(self, runs: Sequence[Run], *, keep: bool) -> list[AllocationError]:
        errors: list[AllocationError] = []
        for address, size in joined(runs):
            try:
                if keep:
                    mapping.protect(address, size, 0)
                else:
                    mapping.discard(address, size)
            except AllocationError as error:
                errors.append(error)
                continue
            with self._lock:
                self._put(Run(address, size, keep))
        return errors

    def _put(self, run: Run) -> None:
        for window in self._windows:
            if window.start <= run.address < window.end:
                break
        window.put([run])
        if window.dedicated and not window.used_size:
            self._drop(window)

    def _drop(self, window: Reservation) -> None:
        self._windows.remove(window)
        for dylib in [dylib for dylib, home in self._homes.items() if home is window]:
            del self._homes[dylib]
        mapping.release(window.start, window.size)

    def close(self) -> None:
        """Unmap all windows, whatever is in them; for address spaces made for a while."""
        with self._lock:
            for window in self.windows:
                self._drop(window)


def _reserve(size: int, limit: int, home: Reservation | None) -> int | None:
    if limit < _USER_END:
        return reserve_below(min(limit, REACH), size) or reserve_below(limit, size)
    # The system takes a quarter of a millisecond to list them: once is enough.
    mapped = mapping.mapped_ranges()
    start, end = (home.start, home.end) if home is not None else library_span(mapped)
    return reserve_near(start, end, size, mapped) or mapping.reserve(size)


def joined(runs: Iterable[Run]) -> Iterator[tuple[int, int]]:
    """Runs (address, size) in order, neighbours as one."""
    start = end = 0
    for address, size, _ in sorted(runs):
        if address == end:
            end += size
            continue
        if end > start:
            yield start, end - start
        start, end = address, address + size
    if end > start:
        yield start, end - start


PROCESS = AddressSpace()
"""The address space that all memory managers of this process share by default."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=PROCESS.after_fork)
