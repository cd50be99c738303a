"""Prints the symbols of an object that are left after dead-stripping, when it is linked."""

# ruff: noqa: ARG001, ARG002 - a plugin need not look at all that it is told

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
    """Set up the object linking layer by hand, which gives us a chance to install our plugin."""
    layer = ObjectLinkingLayer(session)
    layer.add_plugin(MyPlugin())
    return layer


with LLJITBuilder().set_object_linking_layer_creator(create_layer).create() as jit:
    # Nothing is linked here: that begins when some symbol of the object is looked up.
    jit.add_object(sys.argv[1])
    print("added; nothing is linked yet")

    # Here the plugin sees the link of the object.
    main = jit.lookup("main")
    print(f"main is at {main:#x}")
