"""The record of what is linked into an executor, for backtraces."""

from __future__ import annotations

from jitlink.executor.code_map import CodeMap, LinkedGraph
from jitlink.graph import LinkGraph
from jitlink.link import PassConfiguration
from jitlink.orc.link_resources import LinkResources
from jitlink.orc.materialization import MaterializationResponsibility


class CodeMapPlugin(LinkResources[LinkedGraph]):
    """Records links, from their fixups until their code is removed.

    Args:
        code: where they are recorded: `ExecutorProcessControl.code_map`.
    """

    defines_symbols = False

    def __init__(self, code: CodeMap) -> None:
        super().__init__()
        self._code = code

    def modify_pass_config(
        self,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,  # noqa: ARG002 - part of the interface
        config: PassConfiguration,
    ) -> None:
        """Keep what describes a graph, and record it before its code can run."""

        def keep(graph: LinkGraph) -> None:
            self.keep(responsibility, LinkedGraph(graph))

        def record(_graph: LinkGraph) -> None:
            linked = self.kept(responsibility)
            if linked is not None:
                self._code.add(linked)

        # Dead-stripping removes debug information.
        config.add_pre_prune(keep)
        config.post_fixup.append(record)

    def release(self, resource: LinkedGraph) -> None:
        """Remove the record of a link."""
        self._code.remove(resource)
