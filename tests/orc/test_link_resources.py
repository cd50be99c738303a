"""Plugins that have a resource for each link."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from jitlink.errors import JITLinkError
from jitlink.graph import LinkGraph
from jitlink.link import PassConfiguration
from jitlink.orc import (
    FailedToMaterializeError,
    MaterializationResponsibility,
    Plugin,
    ResourceTracker,
)
from jitlink.orc.link_resources import LinkResources
from tests.orc.jits import CountedJIT, compiled, counted_jit


class Names(LinkResources[str]):
    """Has the name of each graph that defines functions."""

    def __init__(self) -> None:
        super().__init__()
        self.released: list[str] = []

    def modify_pass_config(
        self,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,
        config: PassConfiguration,  # noqa: ARG002
    ) -> None:
        if "f" in responsibility.symbols:
            self.keep(responsibility, graph.name)

    def release(self, resource: str) -> None:
        self.released.append(resource)


class Failing(Plugin):
    """Fails when a link is complete.

    Attributes:
        destination: where it transfers the code before that.
    """

    destination: ResourceTracker | None = None

    def notify_emitted(self, responsibility: MaterializationResponsibility) -> None:
        if self.destination is not None:
            session = responsibility.session
            session.transfer_tracker(self.destination, responsibility.tracker)
        raise JITLinkError("it fails")


@pytest.fixture
def jit() -> Iterator[CountedJIT]:
    with counted_jit() as created:
        yield created


@pytest.fixture
def names(jit: CountedJIT) -> Names:
    plugin = Names()
    jit.layer.add_plugin(plugin)
    return plugin


SOURCE = "int f(void) { return 1; }"


def held_by(names: Names, jit: CountedJIT) -> int:
    return len(list(names.resources(jit.main)))


def test_a_resource_lives_as_long_as_the_code(jit: CountedJIT, names: Names) -> None:
    first, second = jit.create_resource_tracker(), jit.create_resource_tracker()
    jit.add_object(compiled(SOURCE), first)
    jit.add_object(compiled("int g(void) { return 2; }"), first)
    jit.lookup("f")
    jit.lookup("g")
    gc.collect()
    # What is known of a link goes with it, but for its resource.
    assert len(names._links) == 0
    first.transfer_to(second)
    assert names.released == []
    assert len(names.resources(jit.main).under(second)) == 1
    second.remove()
    assert len(names.released) == 1
    assert held_by(names, jit) == 0


@pytest.mark.parametrize("is_first", [False, True])
@pytest.mark.parametrize("is_transferred", [False, True])
def test_a_link_that_fails_when_it_is_complete(
    jit: CountedJIT, names: Names, is_first: bool, is_transferred: bool
) -> None:
    failing = Failing()
    jit.layer.add_plugin(failing)
    if is_first:
        jit.layer.remove_plugin(names)
        jit.layer.add_plugin(names)
    if is_transferred:
        failing.destination = jit.create_resource_tracker()
    jit.add_object(compiled(SOURCE), jit.create_resource_tracker())
    with pytest.raises(FailedToMaterializeError, match="it fails"):
        jit.lookup("f")
    assert len(names.released) == 1
    assert held_by(names, jit) == 0
