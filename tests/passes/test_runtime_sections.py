"""Sections of language runtimes are not dead-stripped, and a plugin gets their addresses."""

from jitlink.graph import AddressRange, LinkGraph
from jitlink.link import PassConfiguration
from jitlink.lljit import LLJIT
from jitlink.orc import MaterializationResponsibility, Plugin
from jitlink.passes.runtime_sections import runtime_sections
from tests.toolchain import compile_c

SOURCE = """
static int type __attribute__((section("swift5_types"), used)) = 42;
static int other __attribute__((section(".not_kept"))) __attribute__((used)) = 43;
int f(void) { return 1; }
"""


class Finder(Plugin):
    """Records the address ranges of the sections."""

    def __init__(self) -> None:
        self.found: dict[str, AddressRange] = {}
        self.names: list[str] = []

    def modify_pass_config(
        self,
        responsibility: MaterializationResponsibility,  # noqa: ARG002
        graph: LinkGraph,  # noqa: ARG002
        config: PassConfiguration,
    ) -> None:
        def find(graph: LinkGraph) -> None:
            self.found |= runtime_sections(graph)
            self.names += [each.name for each in graph.sections if not each.empty]

        config.post_fixup.append(find)


def test_kept_and_found() -> None:
    finder = Finder()
    with LLJIT() as jit:
        jit.layer.add_plugin(finder)
        jit.add_object(compile_c(SOURCE))
        jit.lookup("f")
        assert list(finder.found) == ["swift5_types"]
        place = finder.found["swift5_types"]
        assert place.size == 4
        assert ".not_kept" not in finder.names
