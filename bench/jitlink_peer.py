"""jitlink itself."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from bench.peers import Linked, Peer
from bench.programs import load_libraries
from bench.workloads import Workload


class JITLink(Peer):
    """`jitlink.load` of all the files at once."""

    name = "jitlink"
    title = "jitlink"
    is_in_process = True
    links_programs = True

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
        all_load = not workload.is_program
        load_libraries(workload.libraries)

        def link() -> Linked:
            library = load(
                *paths, all_load=all_load, phony_externals=phony, process_symbols=not phony
            )
            return Linked(library.address(entry), library.close)

        return link
