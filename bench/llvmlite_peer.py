"""llvmlite's LLJIT with JITLink in this process.

llvmlite has its own LLVM, built with assertions, and does not accept archives: their members are
added one by one, extracted within the timed region. Like libLLVM's, it links the objects that the
entry reaches. In a session, objects that are linked are a library (a JITDylib) of their own.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

from bench import jit
from bench.elf_counts import members
from bench.peers import Linked, Peer, PeerError
from bench.workloads import Use, Workload


class LLVMLite(Peer):
    """`create_lljit_compiler(use_jit_link=True)`, a new one per link or session."""

    name = "llvmlite"
    title = "llvmlite"
    uses = frozenset({Use.LOAD, *jit.USES}) - {Use.LAZY}
    # Many seconds to minutes.
    slow = frozenset(
        {"100k", "100k-fs", "cycle", "10k-members", "1m-symbols", "10k-groups", "100k-groups"}
    )

    def __init__(self) -> None:
        self._binding: Any = None

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
        if workload.use in jit.USES:
            return jit.prepared(lambda: _Session(binding), workload)
        paths, entry = workload.paths, workload.entry
        phony = workload.phony_names

        def link(session: _Session) -> Linked:
            return session.link_files(paths, phony, entry)

        return lambda: jit.in_new_session(lambda: _Session(binding), link)


class _Session(jit.Session):
    def __init__(self, binding: ModuleType) -> None:
        self._binding = binding
        self._lljit = binding.create_lljit_compiler(use_jit_link=True)
        self._numbers = count()

    def link(self, objects: Sequence[bytes], archives: Sequence[Path], entry: str) -> Linked:
        """See Session."""
        images = (member for path in archives for _, member in members(path.read_bytes()))
        return self._link((*objects, *images), (), entry)

    def link_files(self, paths: Iterable[Path], phony: Iterable[str], entry: str) -> Linked:
        """Link objects and all members of archives, with these symbols at null."""
        images = (member for path in paths for _, member in members(path.read_bytes()))
        return self._link(images, phony, entry)

    def _link(self, images: Iterable[bytes], phony: Iterable[str], entry: str) -> Linked:
        builder = self._binding.JITLibraryBuilder()
        for image in images:
            builder.add_object_img(image)
        for name in phony:
            builder.import_symbol(name, 0)
        builder.add_current_process().export_symbol(entry)
        try:
            library = builder.link(self._lljit, f"bench{next(self._numbers)}")
        except RuntimeError as error:
            raise PeerError(str(error)) from error
        return Linked(library[entry], library.close)

    def close(self) -> None:
        """See Session."""
        self._lljit.close()
