"""The floor: the work that no loader can avoid, and nothing else.

Reads the files, maps new pages for the bytes that would be loaded, copies as many bytes into those
pages and protects them. Nothing is parsed: the number of bytes of each protection is known
beforehand. The floor of a command in Python that uses NumPy is an interpreter that imports that.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Callable

from bench.commands import run_by
from bench.elf_counts import count
from bench.peers import Linked, Peer, PeerError
from bench.workloads import Use, Workload

_PROT = {"r": mmap.PROT_READ, "rx": mmap.PROT_READ | mmap.PROT_EXEC}


def _pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


class Floor(Peer):
    """One mapping, three protections."""

    name = "floor"
    title = "floor"
    uses = frozenset({Use.LOAD, Use.COMMAND})

    def __init__(self) -> None:
        self._mprotect = ctypes.CDLL(None, use_errno=True).mprotect
        self._mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

    def missing(self) -> str | None:
        """See Peer."""
        return None

    def prepare(self, workload: Workload) -> Callable[[], Linked]:
        """See Peer."""
        if workload.use is Use.COMMAND:
            return run_by([sys.executable, "-c", "import numpy"], "")
        per_file = [(os.fspath(path), count(path).loaded) for path in workload.paths]
        totals = dict(workload.counts.loaded)
        totals["rw"] += workload.counts.zero_filled
        starts, size = {}, 0
        for protection, bytes_ in totals.items():
            starts[protection] = size
            size += _pages(bytes_)
        mprotect = self._mprotect

        def link() -> Linked:
            memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            at = dict(starts)
            for path, copied in per_file:
                with open(path, "rb", buffering=0) as file:  # noqa: PTH123  # the floor
                    content = memoryview(file.read())
                for protection, number in copied.items():
                    begin = at[protection]
                    memory[begin : begin + number] = content[:number]
                    at[protection] = begin + number
            base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
            for protection, flags in _PROT.items():
                length = _pages(totals[protection])
                if length and mprotect(base + starts[protection], length, flags):
                    raise PeerError(f"mprotect failed: errno {ctypes.get_errno()}")
            return Linked(None, memory.close)

        return link
