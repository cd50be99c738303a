"""Prints the symbols of an object that are left after dead-stripping, when it is linked."""

# ruff: noqa: ARG001, ARG002 - plugins and layer creators ignore some arguments

import sys

from jitlink import LinkGraph, LLJITBuilder, PassConfiguration
from jitlink.orc import (
    ExecutionSession,
    MaterializationResponsibility,
    ObjectLinkingLayer,
    Plugin,
)


class MyPlugin(Plugin):
    """Watches links."""

    def modify_pass_config(
        self,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,
        config: PassConfiguration,
    ) -> None:
        """Add a pass that prints the defined symbols after dead-stripping."""
        config.post_prune.append(self.print_all_symbols)

    def print_all_symbols(self, graph: LinkGraph) -> None:
        """Print all defined symbols of the graph."""
        for symbol in graph.defined_symbols:
            if symbol.has_name:
                print(symbol.name)


def create_layer(session: ExecutionSession, triple: str) -> ObjectLinkingLayer:
    """Create the object linking layer with our plugin."""
    layer = ObjectLinkingLayer(session)
    layer.add_plugin(MyPlugin())
    return layer


with LLJITBuilder().set_object_linking_layer_creator(create_layer).create() as jit:
    # The object is linked when one of its symbols is looked up.
    jit.add_object(sys.argv[1])
    print("added; nothing is linked yet")

    # The plugin's pass runs here.
    main = jit.lookup("main")
    print(f"main is at {main:#x}")
