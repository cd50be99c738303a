"""Visible JITDylibs: what the process, and libraries that it loads, see of linked code."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

import jitlink
from jitlink import LLJIT, LLJITBuilder
from jitlink.errors import ExecutorError, JITLinkError
from jitlink.executor import SelfExecutorProcessControl
from jitlink.graph import LinkGraph
from jitlink.memory import InProcessMemoryManager
from jitlink.memory.address_space import AddressSpace
from jitlink.memory.slab import SlabMemoryManager
from jitlink.orc import FailedToMaterializeError, JITDylib, Plugin
from jitlink.orc.images import ImagePlugin, dynamic_symbols
from tests.executor.images import (
    global_symbol,
    listed_segments,
    object_at,
    segment_at,
    segments_of,
    symbol_at,
)
from tests.orc.jits import CountedJIT, archived, compiled, counted_jit
from tests.toolchain import run, zig_command

SOURCE = """
int img_data = 7;
int img_zeros[2000];
const int img_constants[] = {1, 2, 3};
__thread int img_thread_local = 5;
static int img_static(void) { return 1; }
__attribute__((visibility("hidden"))) int img_hidden(void) { return 2; }
__attribute__((visibility("protected"))) int img_protected(void) { return 3; }
__attribute__((weak)) int img_weak(void) { return 4; }
int img_function(void) { return img_static() + img_hidden() + img_data + img_thread_local; }
"""
EXPORTED = ("img_data", "img_zeros", "img_constants", "img_protected", "img_weak", "img_function")
NOT_EXPORTED = ("img_thread_local", "img_static", "img_hidden")
PLUGIN = """
int img_function(void);
extern int img_data;
int own(void) { return 100; }
int call_back(void) { return img_function() + img_data; }
int (*address(void))(void) { return img_function; }
"""


@pytest.fixture
def jit() -> Iterator[CountedJIT]:
    with counted_jit() as jit:
        yield jit


def plugin(directory: Path, source: str = PLUGIN, *flags: str) -> Path:
    """A shared library with undefined symbols."""
    path = directory / "plugin.so"
    run([*zig_command("cc"), "-shared", compiled(source), "-o", path, *flags])
    return path


def failure(jit: LLJIT, name: str, dylib: JITDylib) -> str:
    """Why a symbol cannot be looked up."""
    with pytest.raises(FailedToMaterializeError) as caught:
        jit.lookup(name, dylib=dylib)
    return str(caught.value.reason)


def image_names() -> set[str]:
    return {segment.name for segment in listed_segments()}


def test_each_address_is_in_a_segment_of_its_protection() -> None:
    path = compiled(SOURCE)
    with jitlink.load(path, visible=True) as library:
        flags = {}
        for name in EXPORTED:
            address = library.exports[name]
            segment = segment_at(address)
            assert segment is not None
            assert segment.name == str(path)
            flags[name] = segment.flags
            assert symbol_at(address) == (str(path), name, address)
            assert global_symbol(name) == address
            assert object_at(address) == object_at(library["img_function"])
        read, code, write = 4, 5, 6
        assert flags == dict(zip(EXPORTED, (write, write, read, code, code, code), strict=True))
        for name in NOT_EXPORTED:
            assert global_symbol(name) is None
        hidden = library.exports["img_hidden"]
        # Nothing that is exported is there.
        assert symbol_at(hidden) == (str(path), None, 0)
        assert library.img_function() == 15
    assert segments_of(str(path)) == []
    for name in EXPORTED:
        assert global_symbol(name) is None


def test_a_library_is_invisible_by_default() -> None:
    path = compiled(SOURCE)
    with jitlink.load(path) as library:
        assert segment_at(library["img_function"]) is None
        assert symbol_at(library["img_function"]) is None
        assert global_symbol("img_function") is None


def test_the_segments_of_an_image_are_in_order_and_apart() -> None:
    path = compiled(SOURCE)
    with jitlink.load(path, visible=True):
        segments = [each for each in listed_segments() if each.name == str(path)]
        assert [each.flags for each in segments][-5:] == [4, 4, 5, 6, 4]
        assert all(first.end <= second.start for first, second in pairwise(segments[-5:]))


def test_a_plugin_calls_back(tmp_path: Path) -> None:
    with jitlink.load(compiled(SOURCE), visible=True) as library:
        opened = ctypes.CDLL(str(plugin(tmp_path)))
        assert opened.call_back() == 22
        opened.address.restype = ctypes.c_size_t
        assert opened.address() == library["img_function"]


def test_a_plugin_needs_a_visible_library(tmp_path: Path) -> None:
    with (
        jitlink.load(compiled(SOURCE)),
        pytest.raises(OSError, match=r"undefined symbol: img_(data|function)"),
    ):
        ctypes.CDLL(str(plugin(tmp_path)), os.RTLD_NOW)


def test_a_session_that_grows_and_shrinks(jit: CountedJIT) -> None:
    dylib = jit.create_jitdylib("growing", visible=True)
    assert "growing" not in image_names()
    trackers = []
    for number in range(40):
        source = f"int grow_{number}(void) {{ return {number}; }} int grown_{number}[3000] = {{1}};"
        trackers.append(jit.create_resource_tracker(dylib))
        jit.add_object(compiled(source), trackers[-1])
        # Linked when it is first looked up.
        assert global_symbol(f"grow_{number}") is None
        address = jit.lookup(f"grow_{number}", dylib=dylib)
        assert global_symbol(f"grow_{number}") == address
    segments = segments_of("growing")
    assert [each.flags for each in segments] == [4, 5, 6]
    assert segments[2].end - segments[2].start >= 40 * 12000
    for number in range(0, 40, 2):
        jit.remove(trackers[number])
    assert [global_symbol(f"grow_{number}") is None for number in range(40)] == [True, False] * 20
    # All that is listed can be read, what was freed too.
    for segment in segments_of("growing"):
        ctypes.string_at(segment.start, segment.end - segment.start)
    for number in range(39, 20, -2):
        jit.remove(trackers[number])
    fewer = segments_of("growing")
    assert all(each.end < before.end for each, before in zip(fewer[1:], segments[1:], strict=True))
    jit.add_object(compiled("int grow_0(void) { return 50; }"), dylib=dylib)
    assert jit.lookup("grow_0", dylib=dylib)() == 50
    assert global_symbol("grow_0") == jit.lookup("grow_0", dylib=dylib)


def test_trackers_that_are_merged(jit: CountedJIT) -> None:
    dylib = jit.create_jitdylib("merged", visible=True)
    first, second = (jit.create_resource_tracker(dylib) for _ in range(2))
    jit.add_object(compiled("int merged_one(void) { return 1; }"), first)
    jit.add_object(compiled("int merged_two(void) { return 2; }"), second)
    for name in ("merged_one", "merged_two"):
        jit.lookup(name, dylib=dylib)
    first.transfer_to(second)
    assert global_symbol("merged_one")
    jit.remove(second)
    assert global_symbol("merged_one") is global_symbol("merged_two") is None


def test_several_jitdylibs(jit: CountedJIT) -> None:
    made = [jit.create_jitdylib(f"several {number}", visible=number != 2) for number in range(4)]
    for number, dylib in enumerate(made):
        jit.add_object(compiled(f"int several_{number}(void) {{ return {number}; }}"), dylib=dylib)
    addresses = [jit.lookup(f"several_{n}", dylib=dylib) for n, dylib in enumerate(made)]
    found = [symbol_at(address) for address in addresses]
    assert found == [
        None if number == 2 else (f"several {number}", f"several_{number}", addresses[number])
        for number in range(4)
    ]
    assert len({object_at(address) for address in addresses}) == 4


def test_the_first_jitdylib_prevails(jit: CountedJIT) -> None:
    addresses = []
    for number in range(2):
        dylib = jit.create_jitdylib(f"first {number}", visible=True)
        jit.add_object(compiled(f"int img_same(void) {{ return {number}; }}"), dylib=dylib)
        addresses.append(jit.lookup("img_same", dylib=dylib))
    assert global_symbol("img_same") == addresses[0]
    jit.session.remove_jitdylib(dylib)
    assert global_symbol("img_same") == addresses[0]


def test_a_name_of_the_process_is_not_taken_over() -> None:
    before = global_symbol("getpid")
    with jitlink.load(compiled("int getpid(void) { return -3; }"), visible=True) as library:
        assert library.getpid() == -3
        assert global_symbol("getpid") == before


def test_other_links_do_not_find_the_symbols() -> None:
    """They would not keep the code that they refer to; `definitions` do."""
    user = compiled("int img_function(void); int use(void) { return img_function(); }")
    with jitlink.load(compiled(SOURCE), visible=True) as library:
        with pytest.raises(JITLinkError, match="img_function"):
            jitlink.load(user)
        with jitlink.load(user, definitions=library.exports) as linked:
            assert linked.use() == 15


def test_an_indirect_function() -> None:
    source = """
    static int chosen(void) { return 11; }
    static int (*choose(void))(void) { return chosen; }
    int img_indirect(void) __attribute__((ifunc("choose")));
    """
    with jitlink.load(compiled(source), visible=True) as library:
        address = global_symbol("img_indirect")
        assert address == library["img_indirect"]
        assert ctypes.CFUNCTYPE(ctypes.c_int)(address)() == 11


def test_absolute_symbols() -> None:
    source = '__asm__(".globl img_absolute\\nimg_absolute = 0x1234"); int img_any;'
    with jitlink.load(compiled(source), visible=True):
        assert global_symbol("img_absolute") == 0x1234


def test_exceptions_pass_through_an_image() -> None:
    source = """
    extern "C" int img_throw(int x) { if (x > 2) throw x; return 0; }
    extern "C" int img_catch(int x) { try { return img_throw(x); } catch (int y) { return y * 2; } }
    """
    with jitlink.load(compiled(source, suffix=".cpp"), visible=True) as library:
        assert library.img_catch(21) == 42
        assert library.img_catch(1) == 0


def test_a_visible_library_of_archives_alone(tmp_path: Path) -> None:
    members = [compiled(f"int lazy_{name}(void) {{ return 3; }}") for name in ("one", "two")]
    path = archived(tmp_path / "lib.a", *members)
    with jitlink.load(path, visible=True) as library:
        assert global_symbol("lazy_one") is None
        assert library.lazy_one() == 3
        assert global_symbol("lazy_one") == library["lazy_one"]
        assert global_symbol("lazy_two") is None
        assert symbol_at(library["lazy_one"]) == (str(path), "lazy_one", library["lazy_one"])


def test_the_main_jitdylib_of_a_session() -> None:
    for jit in (LLJIT(visible=True), LLJITBuilder().set_visible(True).create()):
        with jit:
            jit.add_object(compiled(SOURCE))
            address = jit.lookup("img_function")
            assert address() == 15
            assert symbol_at(address) == ("main", "img_function", address)
        assert segments_of("main") == []


def test_a_failed_link_leaves_nothing() -> None:
    before = len(segments_of("failed"))
    with counted_jit() as jit:
        dylib = jit.create_jitdylib("failed", visible=True)
        source = "int missing(void); int img_failed(void) { return missing(); }"
        jit.add_object(compiled(source), dylib=dylib)
        assert "missing" in failure(jit, "img_failed", dylib)
        assert global_symbol("img_failed") is None
        assert len(segments_of("failed")) == before
        assert "failed" not in image_names()


def test_a_plugin_that_fails_at_the_end(jit: CountedJIT) -> None:
    class Failing(Plugin):
        def notify_emitted(self, responsibility: object) -> None:  # noqa: ARG002
            raise JITLinkError("it fails")

    dylib = jit.create_jitdylib("late", visible=True)
    jit.layer.add_plugin(Failing())
    jit.add_object(compiled("int img_late(void) { return 1; }"), dylib=dylib)
    assert failure(jit, "img_late", dylib) == "it fails"
    assert global_symbol("img_late") is None


def test_too_many_symbols_fail_the_link_alone(jit: CountedJIT) -> None:
    dylib = jit.create_jitdylib("many", visible=True)
    jit.add_object(compiled("int img_few(void) { return 1; }"), dylib=dylib)
    jit.lookup("img_few", dylib=dylib)
    names = [f"img_many_{number}" for number in range(70_000)]
    lines = [f".globl {name}\n{name}:" for name in names]
    jit.add_object(compiled("\n".join([".data", *lines, ".quad 0\n"]), suffix=".s"), dylib=dylib)
    reason = failure(jit, "img_many_3", dylib)
    assert re.match(r"an image has room for \d+ more dynamic symbols and", reason)
    assert global_symbol("img_many_3") is None
    assert global_symbol("img_few") == jit.lookup("img_few", dylib=dylib)


def test_memory_managers_without_images() -> None:
    slab = SlabMemoryManager(16 << 20)
    with pytest.raises(ExecutorError, match="the memory manager cannot make linked code an image"):
        LLJIT(memory_manager=slab, visible=True)
    slab.close()


def test_executors_without_images() -> None:
    class Elsewhere(SelfExecutorProcessControl):
        def create_images(self, name: str, *, exports: bool) -> object:  # type: ignore[override]
            return super(SelfExecutorProcessControl, self).create_images(name, exports=exports)

    with pytest.raises(ExecutorError, match="the executor cannot make linked code an image"):
        jitlink.load(compiled(SOURCE), visible=True, executor=Elsewhere())


def test_a_plain_link_is_not_affected() -> None:
    space = AddressSpace()
    executor = SelfExecutorProcessControl(InProcessMemoryManager(space))
    with LLJIT(executor=executor) as jit:
        jit.add_object(compiled(SOURCE))
        jit.lookup("img_function")
        assert not any(isinstance(each, ImagePlugin) for each in jit.layer._plugins)
        assert len(space.reservations) == 1
    space.close()


def test_dynamic_symbols_of_a_graph() -> None:
    found = []

    def configure(_graph: LinkGraph, passes: jitlink.PassConfiguration) -> None:
        passes.post_fixup.append(lambda graph: found.append(dynamic_symbols(graph)))

    with jitlink.load(compiled(SOURCE), configure=configure):
        pass
    (symbols,) = found
    assert set(symbols.names) == set(EXPORTED)
    by_name = {name: number for number, name in enumerate(symbols.names)}
    assert symbols.sizes[by_name["img_zeros"]] == 8000
    assert [bool(symbols.is_weak[by_name[name]]) for name in ("img_weak", "img_data")] == [
        True,
        False,
    ]
    assert not symbols.is_callable[by_name["img_data"]]
    assert symbols.is_callable[by_name["img_function"]]


def test_listed_segments_are_whole() -> None:
    """The helper of these tests sees the libraries of the process, with their code."""
    segments = listed_segments()
    assert any(re.search(r"libc\.so", each.name) and each.flags == 5 for each in segments)
    assert all(each.start <= each.end for each in segments)
