"""jitlink itself: all files at once, or in sessions, or as a command."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from bench import jit
from bench.commands import HELLO, run_by
from bench.peers import Linked, Peer
from bench.programs import load_libraries
from bench.workloads import Use, Workload


class JITLink(Peer):
    """`jitlink.load` of all the files at once, and `jitlink.LLJIT`."""

    name = "jitlink"
    title = "jitlink"
    is_in_process = True
    uses = frozenset(Use)

    def __init__(self) -> None:
        self._module: Any = None

    def missing(self) -> str | None:
        """See Peer."""
        try:
            self._module = importlib.import_module("jitlink")
            # Absent if the import found a directory instead of the package.
            self._module.load  # noqa: B018
        except (ImportError, AttributeError) as error:
            return f"{error} (is it installed, or `src` on the path?)"
        return None

    def prepare(self, workload: Workload) -> Callable[[], Linked]:
        """See Peer."""
        if workload.use is Use.COMMAND:
            # The console script; its file is not installed with every tree that is measured.
            script = "from jitlink.tool.main import run; run()"
            return run_by([sys.executable, "-c", script, *workload.paths], HELLO)
        if workload.use in jit.USES:
            return jit.prepared(lambda: _Session(self._module), workload)
        load = self._module.load
        paths, entry, phony = workload.paths, workload.entry, workload.phony
        all_load = workload.use is Use.LOAD
        load_libraries(workload.libraries)

        def link() -> Linked:
            library = load(
                *paths, all_load=all_load, phony_externals=phony, process_symbols=not phony
            )
            return Linked(library.address(entry), library.close)

        return link


class _Session(jit.Session):
    """An `LLJIT` with its defaults."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._jit = module.LLJIT()

    def link(self, objects: Sequence[bytes], archives: Sequence[Path], entry: str) -> Linked:
        """See Session."""
        lljit = self._jit
        tracker = lljit.create_resource_tracker()
        for data in objects:
            lljit.add_object(data, tracker)
        for path in archives:
            lljit.add_archive(path)
        return Linked(int(lljit.lookup(entry)), tracker.remove)

    def link_lazily(self, bodies: Mapping[str, bytes], root: bytes, entry: str) -> Linked:
        """See Session."""
        lljit, orc = self._jit, self._module.orc
        hidden = lljit.create_jitdylib("bodies")
        for data in bodies.values():
            lljit.add_object(data, dylib=hidden)
        stubs = orc.IndirectStubsManager(lljit.layer)
        lljit.main.define(orc.lazy_reexports(stubs, hidden, {name: name for name in bodies}))
        return self.link([root], (), entry)

    def close(self) -> None:
        """See Session."""
        self._jit.close()
