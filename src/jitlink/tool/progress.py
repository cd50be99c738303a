"""The progress of a command, for the bar on the terminal.

Work is counted in bytes: those of an object count once when it is read, and once more for each
stage of its link.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from jitlink.graph import LinkGraph
from jitlink.graph.text import printable
from jitlink.inputs import InputFile
from jitlink.link import Pass, PassConfiguration
from jitlink.orc import MaterializationResponsibility, Plugin

_DOING = ("placing", "looking up externals of", "writing", "finishing")
"""The stage after each list of passes that is counted."""
_STAGES = len(_DOING)


class Progress(Plugin):
    """Counts the work of reading and linking; another thread may read the state."""

    def __init__(self) -> None:
        self._to_read = 0
        self._read = 0
        self._to_link = 0
        self._linked = 0
        self._doing = "reading"

    def state(self) -> tuple[float, str]:
        """The fraction of the work that is done, between 0 and 1, and the current stage."""
        # Before the links the estimate is that all objects are linked.
        total = self._to_read + max(self._to_link, _STAGES * self._to_read)
        return (self._read + self._linked) / total if total else 0.0, self._doing

    def begin_reading(self, files: Iterable[InputFile]) -> None:
        """Count objects that are about to be read."""
        self._to_read += sum(len(file.data) for file in files)
        self._doing = "reading"

    def finish_reading(self) -> None:
        """Count them as read."""
        self._read, self._doing = self._to_read, "linking"

    def modify_pass_config(
        self,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,
        config: PassConfiguration,
    ) -> None:
        """Add the passes that count stages."""
        size = int(graph.block_table.size.sum())
        self._to_link += _STAGES * size
        lists: tuple[list[Pass], ...] = (
            config.post_prune, config.post_allocation, config.pre_fixup, config.post_fixup,
        )  # fmt: skip
        name = printable(responsibility.unit_name)
        others = f" and {len(graph.origins) - 1} more" if len(graph.origins) > 1 else ""
        for passes, stage in zip(lists, _DOING, strict=True):
            passes.append(partial(self._advance, size, f"{stage} {name}{others}"))

    def _advance(self, size: int, doing: str, graph: LinkGraph) -> None:  # noqa: ARG002 - a pass
        self._linked += size
        self._doing = doing
