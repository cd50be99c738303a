"""Initialisers, finalisers and exit handlers of JITDylibs that are opened, closed and removed."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jitlink.errors import JITLinkError, UndefinedSymbolError
from jitlink.graph import LinkGraph
from jitlink.lljit import LLJIT, LLJITBuilder
from jitlink.orc import (
    FailedToMaterializeError,
    MaterializationResponsibility,
    ObjectLinkingLayer,
    Plugin,
    SessionError,
)
from jitlink.orc.objects import ExportedSymbols
from jitlink.platform import ELFPlatform
from jitlink.targets.registry import create_link_graph
from tests.orc.jits import archived
from tests.platform import jits
from tests.platform.jits import NotingJIT, compiled, life, noting_jit
from tests.toolchain import compile_c

ROOT = Path(__file__).parents[2]
INT_FUNCTION = ctypes.CFUNCTYPE(ctypes.c_int)


def test_initialisers_are_linked_without_a_lookup_and_run_once(jit: NotingJIT) -> None:
    jit.add_object(life(10))
    assert jit.take() == []
    jit.initialize()
    jit.initialize()
    assert jit.take() == [10]
    assert jit.lookup("f10")() == 10
    jit.deinitialize()
    jit.deinitialize()
    assert jit.take() == [11, 12, 13]


def test_an_object_without_symbols_is_run(jit: NotingJIT) -> None:
    jit.add_object(compiled("BEGIN(begin) { note(1); }"))
    jit.add_object(compiled("END(end) { note(2); }"))
    jit.initialize()
    assert jit.take() == [1]
    jit.deinitialize()
    assert jit.take() == [2]


def test_what_is_added_later_runs_with_the_next_call(jit: NotingJIT) -> None:
    jit.add_object(life(10))
    jit.initialize()
    jit.add_object(life(20))
    jit.add_object(life(30))
    # A lookup links, and runs no initialisers.
    jit.lookup("f30")
    assert jit.take() == [10]
    jit.initialize()
    assert jit.take() == [20, 30]
    jit.deinitialize()
    assert jit.take() == [32, 22, 12, 33, 23, 13]


def test_objects_are_in_order_of_addition_however_they_were_linked(jit: NotingJIT) -> None:
    for number in (50, 40, 30):
        jit.add_object(life(number))
    jit.lookup("f30")
    jit.lookup("f40")
    jit.initialize()
    assert jit.take() == [50, 40, 30]


def test_priorities_count_over_all_objects(jit: NotingJIT) -> None:
    source = "__attribute__((constructor({}))) static void begin(void) {{ note({}); }}"
    for number, priority in enumerate((300, 200, 101, 65534)):
        jit.add_object(compiled(source.format(priority, number)))
    jit.add_object(compiled("BEGIN(begin) { note(9); }"))
    jit.initialize()
    assert jit.take() == [2, 1, 0, 3, 9]


def test_an_initialized_jitdylib_can_be_closed_and_opened_again(jit: NotingJIT) -> None:
    jit.add_object(life(10))
    for _ in range(3):
        jit.initialize()
        jit.deinitialize()
        assert jit.take() == [10, 12, 13]


def test_dependencies_come_first_and_go_last(jit: NotingJIT) -> None:
    base, middle = jit.create_jitdylib("base"), jit.create_jitdylib("middle")
    jit.main.add_to_link_order(middle)
    middle.add_to_link_order(base)
    for number, dylib in ((10, jit.main), (20, middle), (30, base)):
        jit.add_object(life(number), dylib=dylib)
    jit.initialize()
    assert jit.take() == [30, 20, 10]
    jit.deinitialize()
    # As at exit: all handlers come before all finalisers.
    assert jit.take() == [12, 22, 32, 13, 23, 33]


def test_what_something_else_needs_stays_open(jit: NotingJIT) -> None:
    base, other = jit.create_jitdylib("base"), jit.create_jitdylib("other")
    jit.main.add_to_link_order(base)
    other.add_to_link_order(base)
    for number, dylib in ((10, jit.main), (20, other), (30, base)):
        jit.add_object(life(number), dylib=dylib)
    jit.initialize()
    jit.initialize(other)
    assert jit.take() == [30, 10, 20]
    jit.deinitialize()
    assert jit.take() == [12, 13]
    jit.deinitialize(other)
    assert jit.take() == [22, 32, 23, 33]


def test_circles_are_closed_at_once(jit: NotingJIT) -> None:
    other = jit.create_jitdylib("other")
    jit.main.add_to_link_order(other)
    other.add_to_link_order(jit.main)
    jit.add_object(life(10))
    jit.add_object(life(20), dylib=other)
    jit.initialize()
    assert jit.take() == [20, 10]
    jit.deinitialize()
    assert jit.take() == [12, 22, 13, 23]


def test_closing_the_jit_runs_what_is_open() -> None:
    with noting_jit() as jit:
        jit.add_object(life(10))
        jit.add_object(life(20), dylib=jit.create_jitdylib("never opened"))
        jit.initialize()
        jit.take()
    assert jit.take() == [12, 13]


def test_the_end_of_the_session_runs_what_is_open() -> None:
    jit = NotingJIT()
    jit.add_object(life(10))
    jit.initialize()
    jit.session.end()
    assert jit.take() == [10, 12, 13]
    jit.close()
    assert jit.used_size == 0
    jit.space.close()


def test_a_failed_link_leaves_no_initializer_behind(jit: NotingJIT) -> None:
    jit.add_object(life(10))
    jit.add_object(compiled("void missing(void); BEGIN(begin) { note(99); missing(); }"))
    jit.add_object(life(20))
    with pytest.raises(FailedToMaterializeError) as raised:
        jit.initialize()
    assert isinstance(raised.value.__cause__, UndefinedSymbolError)
    assert raised.value.__cause__.names == ("missing",)
    assert jit.take() == []
    jit.initialize()
    assert jit.take() == [10, 20]
    jit.deinitialize()
    assert jit.take() == [22, 12, 23, 13]


def test_initialisers_removed_before_they_ran_never_run(jit: NotingJIT) -> None:
    linked, unlinked = jit.create_resource_tracker(), jit.create_resource_tracker()
    jit.add_object(life(10))
    jit.add_object(life(20), linked)
    jit.add_object(life(30), unlinked)
    jit.lookup("f20")
    jit.remove(linked)
    jit.remove(unlinked)
    jit.initialize()
    jit.deinitialize()
    assert jit.take() == [10, 12, 13]


def test_removed_code_is_finalized_before_its_memory_is_deallocated(jit: NotingJIT) -> None:
    tracker = jit.create_resource_tracker()
    jit.add_object(life(10))
    jit.add_object(life(20), tracker)
    jit.add_object(life(30))
    jit.initialize()
    assert jit.take() == [10, 20, 30]
    jit.remove(tracker)
    assert jit.take() == [22, 23]
    assert jit.lookup("f10")() == 10
    jit.deinitialize()
    assert jit.take() == [11, 32, 12, 33, 13]


def test_a_handler_of_removed_code_runs_though_others_registered_it(jit: NotingJIT) -> None:
    tracker = jit.create_resource_tracker()
    jit.add_object(compiled("void f(void) { note(7); }"), tracker)
    jit.add_object(compiled("void f(void); void register_it(void) { atexit(f); }"))
    jit.lookup("register_it")()
    jit.remove(tracker)
    assert jit.take() == [7]
    jit.deinitialize()
    assert jit.take() == []


def test_handlers_without_initializers_run_too(jit: NotingJIT) -> None:
    source = "static void f(void) { note(7); } void register_it(void) { atexit(f); }"
    jit.add_object(compiled(source))
    jit.initialize()
    jit.lookup("register_it")()
    jit.deinitialize()
    assert jit.take() == [7]


def test_a_tracker_may_change_its_owner(jit: NotingJIT) -> None:
    first, second = jit.create_resource_tracker(), jit.create_resource_tracker()
    jit.add_object(life(10), first)
    jit.initialize()
    first.transfer_to(second)
    jit.remove(second)
    assert jit.take() == [10, 12, 13]


def test_a_cleared_jitdylib_can_be_used_again(jit: NotingJIT) -> None:
    for number in (10, 20):
        jit.add_object(life(number))
        jit.initialize()
        jit.main.clear()
        assert jit.take() == [number, number + 2, number + 3]
        jit.deinitialize()
        assert jit.take() == []


def test_a_removed_jitdylib_is_finalized(jit: NotingJIT) -> None:
    dylib = jit.create_jitdylib("other")
    for number in (10, 20):
        jit.add_object(life(number), dylib=dylib)
    jit.initialize(dylib)
    jit.session.remove_jitdylib(dylib)
    assert jit.take() == [10, 20, 22, 12, 23, 13]


def test_each_jitdylib_has_one_handle(jit: NotingJIT) -> None:
    other = jit.create_jitdylib("other")
    source = "extern char __dso_handle; char *{}(void) {{ return &__dso_handle; }}"
    for dylib, names in ((jit.main, "ab"), (other, "c")):
        for name in names:
            jit.add_object(compiled(source.format(name)), dylib=dylib)
    addresses = []
    for dylib, name in ((jit.main, "a"), (jit.main, "b"), (other, "c")):
        function = jit.lookup(name, dylib=dylib)
        function.restype = ctypes.c_void_p
        addresses.append(function())
    assert addresses[0] == addresses[1] != addresses[2]


def test_what_callbacks_raise_is_raised(jit: NotingJIT) -> None:
    def fail() -> None:
        raise LookupError("by a callback")

    jit.define({"fail": (fail, ctypes.CFUNCTYPE(None))})
    jit.add_object(compiled(
        "void fail(void); static void f(void) { fail(); note(3); }"
        "BEGIN(begin) { fail(); note(1); atexit(f); } BEGIN(again) { note(2); }"
    ))  # fmt: skip
    with pytest.raises(LookupError):
        jit.initialize()
    assert jit.take() == [1, 2]
    with pytest.raises(LookupError):
        jit.deinitialize()
    assert jit.take() == [3]


def test_an_initializer_may_use_the_session(jit: NotingJIT) -> None:
    jit.define({"look_up": (lambda: int(jit.lookup("f20")()), INT_FUNCTION)})
    jit.add_object(compiled("int look_up(void); BEGIN(begin) { note(look_up() + 5); }"))
    jit.add_object(compiled("int f20(void) { note(21); return 20; }"))
    jit.initialize()
    assert jit.take() == [21, 25]


def test_a_finalizer_may_use_the_session_while_its_code_is_removed(jit: NotingJIT) -> None:
    tracker = jit.create_resource_tracker()
    jit.define({"look_up": (lambda: int(jit.lookup("f20")()), INT_FUNCTION)})
    source = "int look_up(void); END(end) { note(look_up()); } void f(void) {}"
    jit.add_object(compiled(source), tracker)
    jit.add_object(compiled("int f20(void) { return 20; }"))
    jit.initialize()
    jit.remove(tracker)
    assert jit.take() == [20]


def test_a_graph_may_have_initializers(jit: NotingJIT) -> None:
    jit.add_graph(create_link_graph(life(10).read_bytes()))
    jit.initialize()
    jit.deinitialize()
    assert jit.take() == [10, 12, 13]


def test_threads_may_initialize_at_the_same_time(jit: NotingJIT) -> None:
    dylibs = [jit.create_jitdylib(f"lib{n}") for n in range(8)]
    for number, dylib in enumerate(dylibs):
        dylib.add_to_link_order(jit.main)
        jit.add_object(life(100 * (number + 1)), dylib=dylib)
    jit.add_object(life(10))
    threads = [threading.Thread(target=jit.initialize, args=(dylib,)) for dylib in dylibs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    notes = jit.take()
    assert notes[0] == 10
    assert sorted(notes[1:]) == [100 * (n + 1) for n in range(8)]


def test_without_a_platform_nothing_is_initialized() -> None:
    with LLJITBuilder().set_platform(False).create() as jit:
        assert jit.platform is None
        for call in (jit.initialize, jit.deinitialize):
            with pytest.raises(SessionError, match="without a platform"):
                call()
    with LLJITBuilder().set_platform(True).create() as jit:
        assert isinstance(jit.platform, ELFPlatform)
        foreign = jit.session.create_jitdylib("foreign")
        with pytest.raises(SessionError, match="foreign was not set up"):
            jit.initialize(foreign)


def test_the_orc_runtime_is_imported_when_it_is_used() -> None:
    code = (
        "import sys, jitlink.platform\n"
        "assert not any('orc_rt' in name for name in sys.modules)\n"
        "from jitlink.platform import orc_runtime\n"
        "assert orc_runtime is sys.modules['jitlink.platform.orc_rt'].orc_runtime"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class _CountingLayer(ObjectLinkingLayer):
    links: list[str]

    async def emit(
        self,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,
        exported: ExportedSymbols | None = None,
    ) -> None:
        self.links.append(graph.name)
        await super().emit(responsibility, graph, exported)


def test_nothing_is_linked_that_is_not_needed() -> None:
    path = compiled("int f(void) { return 3; }")
    with LLJIT(layer_creator=lambda session, _: _CountingLayer(session), platform=True) as jit:
        layer = jit.layer
        assert isinstance(layer, _CountingLayer)
        layer.links = []
        jit.add_object(path)
        jit.initialize()
        assert jit.lookup("f")() == 3
        assert layer.links == [str(path)]


SCRIPT = """
import ctypes, sys
sys.path.insert(0, sys.argv[1])
from tests.platform.jits import NotingJIT, life
jit = NotingJIT()
noting = ctypes.CFUNCTYPE(None, ctypes.c_int)
jit.define({"note": (lambda number: print(number, flush=True), noting)})
jit.add_object(life(10))
jit.initialize()
print("end of the script", flush=True)
"""


def test_a_forgotten_jit_is_finalized_when_the_interpreter_ends() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(ROOT)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "10\nend of the script\n12\n13\n"), done.stderr


def test_what_follows_a_failure_is_run_later(jit: NotingJIT) -> None:
    base = jit.create_jitdylib("base")
    jit.main.add_to_link_order(base)
    jit.add_object(life(10))
    jit.add_object(compiled("void missing(void); BEGIN(begin) { missing(); }"), dylib=base)
    jit.add_object(life(20), dylib=base)
    with pytest.raises(FailedToMaterializeError):
        jit.initialize()
    assert jit.take() == []
    jit.initialize()
    assert jit.take() == [20, 10]


@pytest.mark.parametrize("end", ["close", "session", "dylib"])
def test_handlers_run_at_the_end_though_nothing_was_initialized(end: str) -> None:
    # The handler is not of the code that registers it, nor is its argument.
    source = (
        "int __cxa_atexit(void (*)(int), long, void *); extern char __dso_handle;"
        "void register_it(void) { __cxa_atexit(note, 5, &__dso_handle); }"
    )
    with noting_jit() as jit:
        dylib = jit.create_jitdylib("lib")
        jit.add_object(compiled(source), dylib=dylib)
        jit.lookup("register_it", dylib=dylib)()
        if end == "dylib":
            jit.session.remove_jitdylib(dylib)
            assert jit.take() == [5]
        elif end == "session":
            jit.session.end()
            assert jit.take() == [5]
    assert jit.take() == ([5] if end == "close" else [])


def test_a_shared_object_of_two_links_is_constructed_once(jit: NotingJIT) -> None:
    source = (
        'extern "C" void note(int);'
        "struct Object {{ Object() {{ note(1); }} ~Object() {{ note(2); }} }};"
        "inline Object shared;"
        'extern "C" void *f{}() {{ return &shared; }}'
    )
    flags = ("-O1", "-fPIC", "-std=c++17")
    paths = [
        compile_c(source.format(number), "zig", flags, suffix=".cpp", target=jits.TARGET)
        for number in range(2)
    ]
    addresses = []
    for number, path in enumerate(paths):
        jit.add_object(path)
        jit.initialize()
        function = jit.lookup(f"f{number}")
        function.restype = ctypes.c_void_p
        addresses.append(function())
    assert addresses[0] == addresses[1]
    jit.deinitialize()
    assert jit.take() == [1, 2]


def test_members_of_archives_are_run_if_they_are_needed(jit: NotingJIT, tmp_path: Path) -> None:
    jit.add_archive(archived(tmp_path / "lib.a", life(10), life(20)))
    jit.add_object(compiled("int f20(void); BEGIN(begin) { note(f20()); }"))
    jit.initialize()
    # Members come after what needs them, as on a linker's command line.
    assert jit.take() == [21, 20, 20]


class Failing(Plugin):
    """Fails when the link of a function is complete."""

    def __init__(self, name: str) -> None:
        self._name = name

    def notify_emitted(self, responsibility: MaterializationResponsibility) -> None:
        if responsibility.defines(self._name):
            raise JITLinkError("it fails")


def test_a_link_that_fails_when_it_is_complete_has_no_initialisers(jit: NotingJIT) -> None:
    jit.layer.add_plugin(Failing("f10"))
    jit.add_object(life(10))
    jit.add_object(life(20))
    jit.lookup("f20")
    with pytest.raises(FailedToMaterializeError, match="it fails"):
        jit.lookup("f10")
    jit.initialize()
    assert jit.take() == [20]
    jit.deinitialize()
    assert jit.take() == [22, 23]


def test_the_handle_of_a_link_that_fails_when_it_is_complete(jit: NotingJIT) -> None:
    jit.layer.add_plugin(Failing("handle"))
    program = "void *__dso_handle = &__dso_handle; void *handle(void) { return __dso_handle; }"
    tracker = jit.create_resource_tracker()
    jit.add_object(compiled(program), tracker)
    with pytest.raises(FailedToMaterializeError, match="it fails"):
        jit.lookup("handle")
    assert isinstance(jit.platform, ELFPlatform)
    assert jit.platform.states[jit.main].handle == 0
    tracker.remove()
    jit.add_object(life(20))
    jit.initialize()
    assert jit.take() == [20]


def test_the_handle_of_a_program_that_is_transferred_and_removed(jit: NotingJIT) -> None:
    program = "void *__dso_handle = &__dso_handle; void *handle(void) { return __dso_handle; }"
    first, second = jit.create_resource_tracker(), jit.create_resource_tracker()
    jit.add_object(compiled(program), first)
    handle = jit.lookup("handle")
    handle.restype = ctypes.c_void_p
    assert isinstance(jit.platform, ELFPlatform)
    state = jit.platform.states[jit.main]
    assert state.handle == handle()
    first.transfer_to(second)
    second.remove()
    assert state.handle == 0
    jit.add_object(life(20))
    jit.initialize()
    assert jit.take() == [20]
