"""The LLJIT facade: a ready-made session."""

# ruff: noqa: ARG001, ARG002 - plugins and layer creators ignore some arguments

import ctypes
import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import jitlink
from jitlink.errors import InputError, UndefinedSymbolError
from jitlink.executor import SelfExecutorProcessControl
from jitlink.graph import LinkGraph
from jitlink.link import PassConfiguration
from jitlink.lljit import LLJITBuilder, global_prefix
from jitlink.memory.address_space import AddressSpace
from jitlink.memory.in_process import InProcessMemoryManager
from jitlink.orc import (
    ExecutionSession,
    MaterializationResponsibility,
    ObjectLinkingLayer,
    Plugin,
    ResourceTrackerDefunctError,
    SessionEndedError,
)
from jitlink.targets.registry import create_link_graph
from tests.orc.jits import CountedJIT, archived, compiled, counted_jit

FORTY_TWO = "int answer(void) { return 42; }"
EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def jit() -> Iterator[CountedJIT]:
    with counted_jit() as made:
        yield made


def test_a_program_of_everything(jit: CountedJIT, tmp_path: Path) -> None:
    graph = create_link_graph(compiled("int from_graph(void) { return 3; }").read_bytes())
    jit.define({"from_python": (lambda: 1000, ctypes.CFUNCTYPE(ctypes.c_int)), "number": 20})
    jit.add_archive(archived(tmp_path / "lib.a", compiled("int in_archive(void) { return 100; }")))
    jit.add_graph(graph)
    jit.add_object(compiled(
        "int from_python(void), in_archive(void), from_graph(void), getpid(void);"
        "extern char number[];"
        "long total(void) { return from_python() + in_archive() + from_graph() + getpid() "
        "+ (long)number; }"
    ).read_bytes())  # fmt: skip
    assert jit.used_size == 0
    total = jit.lookup("total")
    total.restype = ctypes.c_long
    assert total() == 1123 + os.getpid()


def test_the_builder_takes_a_layer(capsys: pytest.CaptureFixture[str]) -> None:
    class Printer(Plugin):
        def modify_pass_config(
            self,
            responsibility: MaterializationResponsibility,
            graph: LinkGraph,
            config: PassConfiguration,
        ) -> None:
            config.post_prune.append(self.print_all)

        def print_all(self, graph: LinkGraph) -> None:
            for symbol in graph.defined_symbols:
                if symbol.has_name:
                    print(symbol.name)  # noqa: T201

    triples: list[str] = []

    def create(session: ExecutionSession, triple: str) -> ObjectLinkingLayer:
        triples.append(triple)
        layer = ObjectLinkingLayer(session, InProcessMemoryManager())
        layer.add_plugin(Printer())
        return layer

    with LLJITBuilder().set_object_linking_layer_creator(create).create() as jit:
        jit.add_object(compiled(FORTY_TWO))
        assert capsys.readouterr().out == ""
        jit.lookup("answer")
        assert "answer\n" in capsys.readouterr().out
        assert triples == [SelfExecutorProcessControl.shared().triple]


def test_the_builder_takes_memory_and_an_executor() -> None:
    space = AddressSpace((16 << 20,), resident_size=0)
    executor = SelfExecutorProcessControl()
    builder = LLJITBuilder().set_executor(executor)
    builder.set_memory_manager(InProcessMemoryManager(space)).set_link_process_symbols(False)
    with builder.create() as jit:
        assert jit.session.executor is executor
        jit.add_object(compiled(FORTY_TWO))
        jit.add_object(compiled("int getpid(void); int f(void) { return getpid(); }"))
        assert jit.lookup("answer")() == 42
        assert sum(each.used_size for each in space.reservations) > 0
        with pytest.raises(jitlink.JITLinkError, match="undefined symbol: getpid") as caught:
            jit.lookup("f")
        assert isinstance(caught.value.__cause__, UndefinedSymbolError)
    assert sum(each.used_size for each in space.reservations) == 0
    space.close()


def test_a_layer_that_cannot_be_made() -> None:
    def create(session: ExecutionSession, triple: str) -> ObjectLinkingLayer:
        raise LookupError(triple)

    with pytest.raises(LookupError):
        jitlink.LLJIT(layer_creator=create)


def test_removal_and_replacement(jit: CountedJIT) -> None:
    for number in range(3):
        tracker = jit.create_resource_tracker()
        jit.add_object(compiled(f"int value(void) {{ return {number}; }}"), tracker)
        assert jit.lookup("value")() == number
        jit.remove(tracker)
        assert jit.used_size == 0
        with pytest.raises(UndefinedSymbolError):
            jit.lookup("value")
        with pytest.raises(ResourceTrackerDefunctError):
            jit.add_object(compiled(FORTY_TWO), tracker)


def test_other_jitdylibs(jit: CountedJIT) -> None:
    library = jit.create_jitdylib("library")
    jit.add_object(compiled(FORTY_TWO), dylib=library)
    tracker = jit.create_resource_tracker(library)
    jit.add_object(compiled("int getpid(void); int f(void) { return getpid(); }"), tracker)
    assert jit.lookup("answer", dylib=library)() == 42
    assert jit.lookup("f", dylib=library)() == os.getpid()
    with pytest.raises(UndefinedSymbolError):
        jit.lookup("answer")
    jit.main.add_to_link_order(library)
    jit.add_object(compiled("int answer(void); int g(void) { return answer(); }"))
    assert jit.lookup("g")() == 42
    with pytest.raises(ValueError, match="of library, not of main"):
        jit.add_object(compiled(FORTY_TWO), tracker, dylib=jit.main)


def test_a_closed_jit() -> None:
    jit = jitlink.LLJIT()
    jit.close()
    jit.close()
    with pytest.raises(SessionEndedError):
        jit.lookup("answer")
    with pytest.raises(SessionEndedError):
        jit.add_object(compiled(FORTY_TWO))


def test_invalid_objects(jit: CountedJIT, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        jit.add_object(b"not an object")
    with pytest.raises(InputError):
        jit.add_object(tmp_path / "missing.o")


@pytest.mark.parametrize(
    ("triple", "prefix"),
    [
        ("x86_64-unknown-linux-gnu", ""),
        ("aarch64-unknown-linux-musl", ""),
        ("arm64-apple-darwin24.1.0", "_"),
        ("x86_64-apple-macosx15", "_"),
        ("arm64-apple-ios17-simulator", "_"),
        ("x86_64-pc-windows-msvc", ""),
        ("i686-pc-windows-msvc", "_"),
        ("i686-unknown-linux-gnu", ""),
    ],
)
def test_mangling(triple: str, prefix: str) -> None:
    assert global_prefix(triple) == prefix


def test_names_are_mangled_or_raw() -> None:
    executor = SelfExecutorProcessControl()
    executor.triple = "x86_64-apple-macosx15"
    with jitlink.LLJIT(executor=executor, process_symbols=False) as jit:
        assert jit.mangle("name") == "_name"
        jit.define({"name": 5})
        jit.define({"bare": 6}, raw=True)
        assert jit.lookup("name") == jit.lookup("_name", raw=True) == 5
        assert jit.lookup("bare", raw=True) == 6
        with pytest.raises(UndefinedSymbolError) as caught:
            jit.lookup("bare")
        assert caught.value.names == ("_bare",)


def test_the_example_runs_as_documented(tmp_path: Path) -> None:
    main = tmp_path / "hello.o"
    main.write_bytes(compiled((EXAMPLES / "hello.c").read_text()).read_bytes())
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "plugin.py"), str(main)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines[0] == "added; nothing is linked yet"
    assert "main" in lines[1:]
    assert lines[-1].startswith("main is at 0x")


def test_the_example_of_a_python_function(tmp_path: Path) -> None:
    source = (EXAMPLES / "sensor.c").read_text()
    (tmp_path / "sensor.o").write_bytes(compiled(source).read_bytes())
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "sensor.py")],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "highest of 3 channels: 42\nno channel 3\n"


@pytest.mark.native("says itself that a signal has ended a program")
def test_the_example_of_code_that_crashes(tmp_path: Path) -> None:
    source = (EXAMPLES / "parser.c").read_text()
    (tmp_path / "parser.o").write_bytes(compiled(source).read_bytes())
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "survivor.py")],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = ["b'12' 2", "b'' the executor was ended by SIGABRT", "b'345' 5", "still here"]
    # But for the backtrace, which has the function that has called abort.
    assert [line for line in done.stdout.splitlines() if not line.startswith("#")] == lines
    assert "(parser.o)" in done.stdout
    assert not done.stderr


# Endurance


def resident_size() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def mappings() -> int:
    return len(Path("/proc/self/maps").read_text().splitlines())


@pytest.mark.native("keeps translated code")
@pytest.mark.serial("counts objects, mappings and resident memory")
def test_adding_calling_and_removing_leaves_nothing_behind(jit: CountedJIT) -> None:
    objects = [
        compiled(
            f"int base_value(void), tell(int); static int many[1000] = {{1}};"
            f"int work(int x) {{ many[x] = x; return tell(many[x] + base_value() + {number}); }}"
        ).read_bytes()
        for number in range(3)
    ]
    jit.add_object(compiled("int base_value(void) { return 100; }"))

    def tell(number: int) -> int:
        return number + 1

    prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)

    def once(number: int) -> None:
        tracker = jit.create_resource_tracker()
        jit.define({"tell": (tell, prototype)}, tracker)
        jit.add_object(objects[number % 3], tracker)
        assert jit.lookup("work")(5) == 106 + number % 3
        jit.remove(tracker)

    for number in range(100):
        once(number)
    gc.collect()
    counts = len(gc.get_objects()), jit.used_size, mappings(), resident_size()
    rounds = 20_000 if os.environ.get("JITLINK_LONG") else 2_000
    for number in range(rounds):
        once(number)
    gc.collect()
    after = len(gc.get_objects()), jit.used_size, mappings(), resident_size()
    assert after[0] <= counts[0] + 10
    assert after[1] == counts[1]
    assert after[2] <= counts[2] + 1
    # Heaps grow a little, by an amount that does not depend on the number of rounds.
    assert after[3] <= counts[3] + (2 << 20)
