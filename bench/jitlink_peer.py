"""jitlink itself."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from bench.peers import Linked, Peer
from bench.workloads import Workload


class JITLink(Peer):
    """`jitlink.load` of all the files at once."""

    name = "jitlink"
    title = "jitlink"

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
        load = self._module.load
        paths, entry, phony = workload.paths, workload.entry, workload.phony

        def link() -> Linked:
            library = load(*paths, all_load=True, phony_externals=phony, process_symbols=not phony)
            return Linked(library.address(entry), library.close)

        return link
