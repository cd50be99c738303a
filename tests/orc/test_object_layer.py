"""ObjectLinkingLayer: its plugins, its options, its memory, and precedence among objects."""

# ruff: noqa: ARG002 - a plugin need not use all arguments

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jitlink.errors import DuplicateDefinitionError, InputError, UndefinedSymbolError
from jitlink.graph import Linkage, LinkGraph, MemProt, Scope
from jitlink.inputs import open_input
from jitlink.link import PassConfiguration
from jitlink.orc import (
    FailedToMaterializeError,
    JITDylib,
    JITSymbolFlags,
    MaterializationResponsibility,
    MaterializationUnit,
    MissingDefinitionsError,
    ObjectLinkingLayer,
    Plugin,
    ResourceTracker,
    ResourceTrackerDefunctError,
    SessionError,
    UnexpectedDefinitionError,
)
from jitlink.targets.registry import create_link_graph
from jitlink.tasks import Task
from tests.orc.jits import CountedJIT, compiled, counted_jit

FORTY_TWO = "int answer(void) { return 42; }"
CALLER = "int answer(void); int asked(void) { return answer() + 1; }"
Log = list[tuple[str, ...]]


@pytest.fixture
def jit() -> Iterator[CountedJIT]:
    with counted_jit() as created:
        yield created


class Recorder(Plugin):
    """Records its calls, and fails in those that the test chooses."""

    def __init__(self, log: Log, name: str = "plugin", fails_in: str = "") -> None:
        self.log = log
        self.name = name
        self.fails_in = fails_in

    def _note(self, what: str, *details: str) -> None:
        self.log.append((self.name, what, *details))
        if what == self.fails_in:
            raise LookupError(f"{self.name} in {what}")

    def _pass(self, what: str) -> Callable[[LinkGraph], None]:
        return lambda graph: self._note(what)  # noqa: ARG005

    def modify_pass_config(
        self,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,
        config: PassConfiguration,
    ) -> None:
        self._note("modify_pass_config")
        for name in ("pre_prune", "post_prune", "post_allocation", "pre_fixup", "post_fixup"):
            getattr(config, name).append(self._pass(name))

    def notify_loaded(self, responsibility: MaterializationResponsibility) -> None:
        self._note("notify_loaded", *sorted(responsibility.symbols))

    def notify_emitted(self, responsibility: MaterializationResponsibility) -> None:
        self._note("notify_emitted", *sorted(responsibility.symbols))

    def notify_failed(self, responsibility: MaterializationResponsibility) -> None:
        self._note("notify_failed", *sorted(responsibility.symbols))

    def notify_removing_resources(self, dylib: JITDylib, key: ResourceTracker) -> None:
        self._note("notify_removing_resources", dylib.name)

    def notify_transferring_resources(
        self, dylib: JITDylib, destination: ResourceTracker, source: ResourceTracker
    ) -> None:
        self._note("notify_transferring_resources", dylib.name)


class Passes(Plugin):
    """Adds one pass to every link."""

    def __init__(self, where: str, added: Callable[[LinkGraph], None]) -> None:
        self.where = where
        self.added = added

    def modify_pass_config(
        self,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,
        config: PassConfiguration,
    ) -> None:
        getattr(config, self.where).append(self.added)


# Plugins


def test_plugins_are_called_in_the_documented_order(jit: CountedJIT) -> None:
    log: Log = []
    jit.layer.add_plugin(Recorder(log, "first"))
    jit.layer.add_plugin(Recorder(log, "second"))
    jit.add_object(compiled(FORTY_TWO))
    assert log == []
    assert jit.lookup("answer")() == 42
    passes = ["pre_prune", "post_prune", "post_allocation", "pre_fixup", "post_fixup"]
    assert log == [
        ("first", "notify_loaded", "answer"),
        ("second", "notify_loaded", "answer"),
        ("first", "modify_pass_config"),
        ("second", "modify_pass_config"),
        *((plugin, name) for name in passes for plugin in ("first", "second")),
        ("first", "notify_emitted", "answer"),
        ("second", "notify_emitted", "answer"),
    ]


def test_plugins_are_notified_of_resources_in_reverse_order(jit: CountedJIT) -> None:
    log: Log = []
    tracker, other = jit.create_resource_tracker(), jit.create_resource_tracker()
    jit.add_object(compiled(FORTY_TWO), tracker)
    jit.lookup("answer")
    jit.layer.add_plugin(Recorder(log, "first"))
    jit.layer.add_plugin(Recorder(log, "second"))
    tracker.transfer_to(other)
    assert log == [
        ("second", "notify_transferring_resources", "main"),
        ("first", "notify_transferring_resources", "main"),
    ]
    log.clear()
    assert jit.used_size > 0
    jit.remove(other)
    assert log == [
        ("second", "notify_removing_resources", "main"),
        ("first", "notify_removing_resources", "main"),
    ]
    assert jit.used_size == 0
    jit.remove(tracker)
    assert len(log) == 2


@pytest.mark.parametrize(
    "place",
    ["notify_loaded", "modify_pass_config", "pre_prune", "post_allocation", "post_fixup",
     "notify_emitted"],
)  # fmt: skip
def test_a_plugin_fails_its_link_and_nothing_else(jit: CountedJIT, place: str) -> None:
    log: Log = []
    failing = Recorder(log, "failing", place)
    jit.layer.add_plugin(Recorder(log, "before"))
    jit.layer.add_plugin(failing)
    jit.layer.add_plugin(Recorder(log, "after"))
    tracker = jit.create_resource_tracker()
    jit.add_object(compiled(FORTY_TWO), tracker)
    with pytest.raises(FailedToMaterializeError) as caught:
        jit.lookup("answer")
    assert caught.value.symbols == {"main": ("answer",)}
    assert isinstance(caught.value.__cause__, LookupError)
    failed = [entry for entry in log if entry[1] == "notify_failed"]
    assert failed == [(name, "notify_failed", "answer") for name in ("before", "failing", "after")]
    assert log[-3:] == failed
    assert jit.used_size == 0
    failing.fails_in = ""
    jit.remove(tracker)
    jit.add_object(compiled(FORTY_TWO))
    assert jit.lookup("answer")() == 42


def test_all_plugins_are_notified_of_a_failure_even_if_one_fails_then(jit: CountedJIT) -> None:
    log: Log = []
    jit.layer.add_plugin(Recorder(log, "first", "notify_failed"))
    jit.layer.add_plugin(Recorder(log, "second"))
    jit.add_object(compiled("int missing(void); int f(void) { return missing(); }"))
    with pytest.raises(FailedToMaterializeError) as caught:
        jit.lookup("f")
    cause = caught.value.__cause__
    assert isinstance(cause, UndefinedSymbolError)
    assert cause.__notes__ == ["a plugin failed: LookupError: first in notify_failed"]
    assert [entry[0] for entry in log if entry[1] == "notify_failed"] == ["first", "second"]


def test_resources_are_released_even_if_a_plugin_fails_then(jit: CountedJIT) -> None:
    log: Log = []
    failing = Recorder(log, "failing", "notify_removing_resources")
    tracker = jit.create_resource_tracker()
    jit.add_object(compiled(FORTY_TWO), tracker)
    jit.lookup("answer")
    jit.layer.add_plugin(Recorder(log, "other"))
    jit.layer.add_plugin(failing)
    with pytest.raises(SessionError, match="a plugin failed: LookupError: failing in") as caught:
        jit.remove(tracker)
    assert isinstance(caught.value.__cause__, LookupError)
    assert [entry[0] for entry in log] == ["failing", "other"]
    assert jit.used_size == 0
    jit.layer.remove_plugin(failing)


def test_plugins_are_added_and_removed_between_links(jit: CountedJIT) -> None:
    log: Log = []
    first, second = Recorder(log, "first"), Recorder(log, "second")
    jit.layer.add_plugin(first)
    jit.add_object(compiled(FORTY_TWO))
    jit.lookup("answer")
    jit.layer.remove_plugin(first)
    jit.layer.add_plugin(second)
    jit.add_object(compiled("int other(void) { return 1; }"))
    jit.lookup("other")
    assert {entry[0] for entry in log if "answer" in entry} == {"first"}
    assert {entry[0] for entry in log if "other" in entry} == {"second"}
    with pytest.raises(ValueError, match="not in list"):
        jit.layer.remove_plugin(first)


def test_a_link_keeps_the_plugins_it_began_with(jit: CountedJIT) -> None:
    log: Log = []
    first = Recorder(log, "first")
    jit.layer.add_plugin(first)
    jit.layer.add_plugin(Passes("post_prune", lambda graph: jit.layer.remove_plugin(first)))  # noqa: ARG005
    jit.add_object(compiled(FORTY_TWO))
    jit.lookup("answer")
    assert log[-1] == ("first", "notify_emitted", "answer")


def test_a_pass_sees_and_changes_the_graph(jit: CountedJIT) -> None:
    seen: list[str] = []

    def look(graph: LinkGraph) -> None:
        seen.extend(symbol.name for symbol in graph.defined_symbols if symbol.has_name)

    jit.layer.add_plugin(Passes("post_prune", look))
    source = "static int unused(void) { return 7; } int (*volatile unseen)(void);" + FORTY_TWO
    jit.add_object(compiled(source))
    jit.lookup("answer")
    assert {"answer", "unseen"} <= set(seen)
    assert "unused" not in seen


def test_objects_that_fail_together_are_linked_one_by_one(jit: CountedJIT) -> None:
    log: Log = []
    jit.layer.add_plugin(Recorder(log))
    good = compiled("int good(void) { return 1; }")
    bad = compiled("int good(void), missing(void); int bad(void) { return good() + missing(); }")
    jit.layer.add_objects(jit.main, [open_input(good), open_input(bad)])
    with pytest.raises(FailedToMaterializeError):
        jit.lookup("bad")
    assert jit.lookup("good")() == 1
    ends = [entry[1:] for entry in log if entry[1] in {"notify_failed", "notify_emitted"}]
    assert ends[0][0] == "notify_failed"
    assert sorted(ends[1:]) == [("notify_emitted", "good"), ("notify_failed", "bad")]
    assert len([entry for entry in log if entry[1] == "notify_loaded"]) == 3


# What links define


def define_in(
    graph: LinkGraph,
    name: str,
    *,
    linkage: Linkage = Linkage.STRONG,
    scope: Scope = Scope.DEFAULT,
) -> None:
    section = graph.obtain_section(".extra", MemProt.READ)
    block = graph.create_content_block(section, (1234).to_bytes(8, "little"), alignment=8)
    graph.add_defined_symbol(block, 0, name, 8, linkage, scope, is_live=True)


def test_an_unexpected_strong_symbol_is_an_error(jit: CountedJIT) -> None:
    jit.layer.add_plugin(Passes("pre_prune", lambda graph: define_in(graph, "extra")))
    jit.add_object(compiled(FORTY_TWO))
    with pytest.raises(FailedToMaterializeError) as caught:
        jit.lookup("answer")
    cause = caught.value.__cause__
    assert isinstance(cause, UnexpectedDefinitionError)
    assert cause.names == ("extra",)
    assert jit.used_size == 0


@pytest.mark.parametrize("where", ["pre_prune", "post_prune"])
def test_auto_claim_claims_what_a_plugin_adds(jit: CountedJIT, where: str) -> None:
    jit.layer.auto_claim = True
    jit.layer.add_plugin(Passes(where, lambda graph: define_in(graph, "extra")))
    jit.add_object(compiled(FORTY_TWO))
    assert jit.lookup("answer")() == 42
    assert ctypes.c_int64.from_address(jit.lookup("extra")).value == 1234


def test_auto_claim_respects_strong_definitions(jit: CountedJIT) -> None:
    jit.layer.auto_claim = True
    jit.define({"extra": 5})
    jit.layer.add_plugin(Passes("pre_prune", lambda graph: define_in(graph, "extra")))
    jit.add_object(compiled(FORTY_TWO))
    with pytest.raises(FailedToMaterializeError) as caught:
        jit.lookup("answer")
    assert isinstance(caught.value.__cause__, DuplicateDefinitionError)
    assert caught.value.__cause__.name == "extra"
    assert jit.used_size == 0
    assert jit.lookup("extra") == 5


def test_a_weak_symbol_that_a_plugin_adds_is_claimed_or_overridden(jit: CountedJIT) -> None:
    def add(graph: LinkGraph) -> None:
        define_in(graph, "held", linkage=Linkage.WEAK)
        define_in(graph, "fresh", linkage=Linkage.WEAK)

    jit.define({"held": 5})
    jit.layer.add_plugin(Passes("pre_prune", add))
    jit.add_object(compiled(FORTY_TWO))
    assert jit.lookup("answer")() == 42
    assert jit.lookup("held") == 5
    assert ctypes.c_int64.from_address(jit.lookup("fresh")).value == 1234


def test_a_missing_symbol_is_an_error(jit: CountedJIT) -> None:
    def rename(graph: LinkGraph) -> None:
        symbol = graph.find_defined_symbol_by_name("answer")
        assert symbol is not None
        graph.rename_symbol(symbol, "response")

    jit.layer.auto_claim = True
    jit.layer.add_plugin(Passes("pre_prune", rename))
    jit.add_object(compiled(FORTY_TWO))
    with pytest.raises(FailedToMaterializeError) as caught:
        jit.lookup("answer")
    cause = caught.value.__cause__
    assert isinstance(cause, MissingDefinitionsError)
    assert cause.names == ("answer",)
    assert jit.used_size == 0


@pytest.mark.parametrize("override", [False, True])
def test_flags_are_the_objects_or_the_responsibility_s(jit: CountedJIT, *, override: bool) -> None:
    def hide(graph: LinkGraph) -> None:
        for symbol in graph.defined_symbols:
            if symbol.name == "answer":
                symbol.scope = Scope.HIDDEN

    jit.layer.override_flags = override
    jit.layer.add_plugin(Passes("post_prune", hide))
    jit.add_object(compiled(FORTY_TWO))
    flags = jit.session.lookup(jit.main, "answer")["answer"].flags
    expected = JITSymbolFlags.CALLABLE | (JITSymbolFlags.EXPORTED if override else 0)
    assert flags == expected


class Compiler(MaterializationUnit):
    """Defines symbols, and emits an object for them when they are looked up."""

    def __init__(
        self, layer: ObjectLinkingLayer, source: Path, symbols: dict[str, JITSymbolFlags]
    ) -> None:
        self.name = "compiler"
        self.layer = layer
        self.source = source
        self.symbols = symbols

    async def materialize(self, responsibility: MaterializationResponsibility) -> None:
        await self.layer.emit_object(responsibility, self.source)


def test_a_unit_emits_an_object(jit: CountedJIT) -> None:
    jit.main.define(Compiler(jit.layer, compiled(FORTY_TWO), {"answer": JITSymbolFlags.EXPORTED}))
    assert jit.lookup("answer")() == 42
    more = FORTY_TWO + "int other(void) { return 1; }"
    dylib = jit.create_jitdylib("second")
    dylib.define(Compiler(jit.layer, compiled(more), {"answer": JITSymbolFlags.EXPORTED}))
    with pytest.raises(FailedToMaterializeError) as caught:
        jit.lookup("answer", dylib=dylib)
    assert isinstance(caught.value.__cause__, UnexpectedDefinitionError)
    assert caught.value.__cause__.names == ("other",)


# Graphs and objects


def test_a_graph_built_by_hand(jit: CountedJIT) -> None:
    graph = create_link_graph(compiled(FORTY_TWO).read_bytes(), "mine")
    define_in(graph, "number")
    define_in(graph, "unseen", scope=Scope.HIDDEN)
    jit.add_graph(graph)
    assert jit.used_size == 0
    assert jit.lookup("answer")() == 42
    found = jit.session.lookup(jit.main, ["number", "unseen"])
    assert found["number"].flags == JITSymbolFlags.EXPORTED
    assert found["unseen"].flags == JITSymbolFlags.NONE


def test_side_effects_only_symbols_have_no_address(jit: CountedJIT) -> None:
    log: Log = []
    graph = create_link_graph(compiled(FORTY_TWO).read_bytes(), "mine")
    define_in(graph, "initialize", scope=Scope.SIDE_EFFECTS_ONLY)
    jit.layer.add_plugin(Recorder(log))
    jit.add_graph(graph)
    assert jit.session.lookup(jit.main, {"initialize": False}) == {}
    assert log[-1] == ("plugin", "notify_emitted", "answer", "initialize")


@pytest.mark.parametrize("kind", ["path", "bytes", "bytearray"])
def test_objects_are_given_as_paths_or_bytes(jit: CountedJIT, kind: str) -> None:
    path = compiled(FORTY_TWO)
    jit.add_object(path if kind == "path" else {"bytes": bytes, "bytearray": bytearray}[kind](
        path.read_bytes()))  # fmt: skip
    assert jit.lookup("answer")() == 42


def test_objects_may_change_once_they_were_added(jit: CountedJIT) -> None:
    content = bytearray(compiled(FORTY_TWO).read_bytes())
    jit.add_object(content)
    content[:] = bytes(len(content))
    assert jit.lookup("answer")() == 42


@pytest.mark.parametrize("is_watched", [False, True])
def test_a_name_that_was_removed_is_found_elsewhere(jit: CountedJIT, *, is_watched: bool) -> None:
    if is_watched:
        jit.layer.add_plugin(Plugin())
    jit.add_object(compiled("int f(void) { return 1; } int g(void) { return f() + 10; }", "-O0"))
    jit.main.remove(["f"])
    jit.add_object(compiled("int f(void) { return 2; }"))
    assert jit.lookup("g")() == 12


def test_if_an_object_is_refused_none_is_added(jit: CountedJIT) -> None:
    jit.add_object(compiled(FORTY_TWO))
    other = compiled("int other(void) { return 1; }")
    files = [open_input(other), open_input(compiled(FORTY_TWO + "int third;"))]
    with pytest.raises(DuplicateDefinitionError) as caught:
        jit.layer.add_objects(jit.main, files)
    assert caught.value.name == "answer"
    with pytest.raises(InputError):
        jit.layer.add_objects(jit.main, [open_input(other), open_input(b"no object")])
    jit.layer.add_objects(jit.main, [])
    with pytest.raises(UndefinedSymbolError) as missing:
        jit.lookup("other")
    assert missing.value.names == ("other",)


def test_undefined_symbols_are_reported_with_their_referrers(jit: CountedJIT) -> None:
    first = compiled("int gone(void), lost(void); int f(void) { return gone() + lost(); }")
    second = compiled("int f(void), gone(void); int g(void) { return f() + gone(); }")
    jit.layer.add_objects(jit.main, [open_input(first), open_input(second)])
    with pytest.raises(FailedToMaterializeError) as caught:
        jit.lookup("f")
    cause = caught.value.__cause__
    assert isinstance(cause, UndefinedSymbolError)
    assert set(cause.names) == {"gone", "lost"}
    assert cause.referrers == dict.fromkeys(["gone", "lost"], (str(first),))
    with pytest.raises(FailedToMaterializeError):
        jit.lookup("g")
    assert jit.used_size == 0


def test_a_failed_link_does_not_affect_other_code(jit: CountedJIT) -> None:
    jit.add_object(compiled(FORTY_TWO))
    answer = jit.lookup("answer")
    used = jit.used_size
    jit.add_object(compiled("int missing(void); int f(void) { return missing(); }"))
    for _ in range(2):
        with pytest.raises(FailedToMaterializeError):
            jit.lookup("f")
    assert jit.used_size == used
    assert answer() == 42


def test_removal_during_a_link_releases_its_memory(jit: CountedJIT) -> None:
    tracker = jit.create_resource_tracker()
    tasks: list[Task[None]] = []
    log: Log = []

    def remove(graph: LinkGraph) -> None:
        if graph.find_defined_symbol_by_name("asked"):
            tasks.append(jit.session.begin(tracker.remove_async()))

    jit.layer.batch_objects = False
    jit.layer.add_plugin(Passes("post_allocation", remove))
    jit.layer.add_plugin(Recorder(log))
    jit.add_object(compiled(CALLER), tracker)
    jit.add_object(compiled(FORTY_TWO))
    with pytest.raises(FailedToMaterializeError) as caught:
        jit.lookup("asked")
    assert isinstance(caught.value.__cause__, ResourceTrackerDefunctError)
    answer = jit.lookup("answer")
    used = jit.used_size
    assert answer() == 42
    assert ("plugin", "notify_failed") in [entry[:2] for entry in log]
    jit.remove(jit.main.default_tracker)
    assert used > jit.used_size == 0


def test_code_stays_when_its_neighbour_is_removed(jit: CountedJIT) -> None:
    tracker = jit.create_resource_tracker()
    jit.add_object(compiled(FORTY_TWO))
    jit.add_object(compiled("int other(void) { return 1; }"), tracker)
    answer, other = jit.lookup("answer"), jit.lookup("other")
    both = jit.used_size
    assert (answer(), other()) == (42, 1)
    jit.remove(tracker)
    assert jit.used_size < both
    assert answer() == 42
    with pytest.raises(UndefinedSymbolError):
        jit.lookup("other")


class Preparing(Plugin):
    """Looks names up before each link of main."""

    defines_symbols = False

    def __init__(self, prepared: list[int], *names: str) -> None:
        self.prepared, self.names = prepared, names

    async def prepare(
        self, responsibility: MaterializationResponsibility, graph: LinkGraph
    ) -> None:
        if responsibility.dylib.name == "main":
            other = responsibility.session.dylibs["other"]
            found = await responsibility.session.lookup_async(other, self.names)
            self.prepared += [symbol.address for symbol in found.values()]


def test_a_plugin_may_wait_for_another_link_before_one(jit: CountedJIT) -> None:
    prepared: list[int] = []
    other = jit.create_jitdylib("other")
    jit.layer.add_plugin(Preparing(prepared, "answer"))
    jit.add_object(compiled(FORTY_TWO), dylib=other)
    jit.add_object(compiled(FORTY_TWO))
    assert jit.lookup("answer")() == 42
    assert prepared == [int(jit.lookup("answer", dylib=other))]


def test_an_error_in_prepare_fails_the_link(jit: CountedJIT) -> None:
    jit.create_jitdylib("other")
    jit.layer.add_plugin(Preparing([], "missing"))
    jit.add_object(compiled(FORTY_TWO))
    with pytest.raises(FailedToMaterializeError) as raised:
        jit.lookup("answer")
    assert isinstance(raised.value.__cause__, UndefinedSymbolError)
    assert jit.used_size == 0
