"""llvmlite's LLJIT with JITLink in this process.

llvmlite has its own LLVM, built with assertions, and does not accept archives: their members are
added one by one, extracted within the timed region. Like libLLVM's, it links the objects that the
entry reaches.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from itertools import count
from typing import Any

from bench.elf_counts import members
from bench.peers import Linked, Peer, PeerError
from bench.workloads import Workload


class LLVMLite(Peer):
    """`create_lljit_compiler(use_jit_link=True)`, a new one per link."""

    name = "llvmlite"
    title = "llvmlite"
    # Many seconds to minutes.
    slow = frozenset(
        {"100k", "100k-fs", "cycle", "10k-members", "1m-symbols", "10k-groups", "100k-groups"}
    )

    def __init__(self) -> None:
        self._binding: Any = None
        self._numbers = count()

    def missing(self) -> str | None:
        """See Peer."""
        if self._binding is not None:
            return None
        try:
            binding = importlib.import_module("llvmlite.binding")
        except ImportError as error:
            return f"{error} (PyPI package llvmlite)"
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        self._binding = binding
        return None

    def prepare(self, workload: Workload) -> Callable[[], Linked]:
        """See Peer."""
        binding = self._binding
        paths, entry = workload.paths, workload.entry
        phony = workload.phony_names

        def link() -> Linked:
            builder = binding.JITLibraryBuilder()
            for path in paths:
                for _, member in members(path.read_bytes()):
                    builder.add_object_img(member)
            for name in phony:
                builder.import_symbol(name, 0)
            builder.add_current_process().export_symbol(entry)
            jit = binding.create_lljit_compiler(use_jit_link=True)
            try:
                library = builder.link(jit, f"bench{next(self._numbers)}")
            except RuntimeError as error:
                jit.close()
                raise PeerError(str(error)) from error

            def release() -> None:
                library.close()
                jit.close()

            return Linked(library[entry], release)

        return link
