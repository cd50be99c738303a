"""Sessions whose executor is restarted: all is there again, but for the values of variables."""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import jitlink
from jitlink.errors import ExecutorError, UndefinedSymbolError
from jitlink.executor import (
    ExecutorCrashedError,
    ExecutorRestartedError,
    RemoteExecutorProcessControl,
)
from jitlink.lljit import LLJIT
from jitlink.orc import (
    DynamicLibraryGenerator,
    ExecutionSession,
    JITDylib,
    JITDylibLookupFlags,
    JITSymbolFlags,
    MaterializationResponsibility,
    MaterializationUnit,
    NotRestartableError,
    ObjectLinkingLayer,
    Plugin,
    ReExports,
    ReExportsGenerator,
    ResourceTracker,
    StaticLibraryGenerator,
)
from jitlink.orc.callables import ExecutorAddr
from tests.executor.remote.executors import FOREIGN, PIPES, Setting, started
from tests.orc.jits import archived
from tests.toolchain import HOST_TARGET, CompilerName, compile_c, require

CRASH = """
int *nowhere;
int crash(void) { return *nowhere = 1; }
"""
STATE = """
#include <stdio.h>
int counter = 40;
__thread int own = 5;
int next(void) { return ++counter; }
int next_own(void) { return ++own; }
"""
FLAGS = ("-O1", "-fPIC")
OWN = Setting("jitlink", "pipes", "shared")


def c(source: str, *flags: str, target: str = HOST_TARGET) -> Path:
    return compile_c(source, "gcc", (*FLAGS, *flags), target=target)


def cpp(source: str, target: str) -> Path:
    # gcc is installed for other processors as a compiler of C.
    compiler: CompilerName = "gcc" if target == HOST_TARGET else "clang"
    return compile_c(source, compiler, FLAGS, suffix=".cpp", target=target)


def target_of(executor: RemoteExecutorProcessControl) -> str:
    return f"{executor.triple.partition('-')[0]}-linux-gnu"


@pytest.fixture(params=[*PIPES, *(s for s in FOREIGN if s.memory == "shared")], ids=str)
def anywhere(request: pytest.FixtureRequest) -> Iterator[RemoteExecutorProcessControl]:
    with started(request.param) as executor:
        yield executor


@pytest.fixture
def executor() -> Iterator[RemoteExecutorProcessControl]:
    with started(OWN) as executor:
        yield executor


def process_of(executor: RemoteExecutorProcessControl) -> int:
    assert executor.process is not None
    return executor.process.pid


def crash(function: Callable[[], Any]) -> None:
    with pytest.raises(ExecutorCrashedError) as caught:
        function()
    assert caught.value.signal == signal.SIGSEGV


# One notebook, three ways to hold it


STATIC_OBJECTS = """
#include <string>
#include <vector>
struct Log {
    std::vector<std::string> lines;
    Log() { lines.push_back("opened"); }
};
static Log log_;
extern "C" int note(const char *line) { log_.lines.push_back(line); return log_.lines.size(); }
extern "C" int is_opened(void) { return log_.lines.at(0) == "opened"; }
extern "C" int guarded(int n) {
    try { if (n > 9) throw std::string("much"); return n; }
    catch (const std::string &text) { return -(int)text.size(); }
}
"""


def test_a_library(anywhere: RemoteExecutorProcessControl) -> None:
    target = target_of(anywhere)
    inputs = [cpp(STATIC_OBJECTS, target), c(STATE, target=target), c(CRASH, target=target)]
    with jitlink.load(*inputs, executor=anywhere) as lib:
        note, is_opened, following = lib.note, lib.is_opened, lib.next
        note.argtypes = [ctypes.c_char_p]
        counter = lib.variable("counter", ctypes.c_int)
        for round_ in range(1, 4):
            assert [note(b"a"), note(b"b")] == [2, 3]
            assert is_opened()
            assert lib.guarded(10) == -4
            assert [following(), lib.next(), lib.next_own()] == [41, 42, 6]
            if anywhere.services.dialect.read_buffers is not None:
                assert counter.value == 42
            process = process_of(anywhere)
            crash(lib.crash)
            with pytest.raises(ExecutorCrashedError):
                following()
            lib.restart_executor()
            assert anywhere.generation == round_
            assert process_of(anywhere) != process


def test_an_lljit(anywhere: RemoteExecutorProcessControl) -> None:
    target = target_of(anywhere)
    with LLJIT(executor=anywhere) as jit:
        for each in (
            cpp(STATIC_OBJECTS, target),
            c(STATE, target=target),
            c(CRASH, target=target),
        ):
            jit.add_object(each)
        jit.initialize()
        for _ in range(3):
            note = jit.lookup("note")
            note.argtypes = [ctypes.c_char_p]
            assert jit.lookup("is_opened")()
            assert note(b"a") == 2
            assert jit.lookup("guarded")(12) == -4
            assert [jit.lookup("next")(), jit.lookup("next_own")()] == [41, 6]
            crash(jit.lookup("crash"))
            jit.restart_executor()


def test_a_bare_session(anywhere: RemoteExecutorProcessControl) -> None:
    with ExecutionSession(anywhere) as session:
        layer = ObjectLinkingLayer(session)
        main = session.create_jitdylib("main")
        main.add_generator(DynamicLibraryGenerator.for_process(session))
        for source in ("int counter = 40; int next(void) { return ++counter; }", CRASH):
            layer.add_object(main, c(source, target=target_of(anywhere)))
        for _ in range(3):
            found = session.lookup(main, ["next", "crash"])
            run = anywhere.run_as_void_function
            assert session.wait(run(found["next"].address)) == 41
            crash(lambda: session.wait(run(found["crash"].address)))  # noqa: B023 - called now
            session.restart_executor()


# What is there again


def test_an_archive(executor: RemoteExecutorProcessControl) -> None:
    source = """
        #include <sqlite3.h>
        #include <stddef.h>
        static sqlite3 *db;
        static int store(void *to, int n, char **values, char **names) {
            (void)n; (void)names; *(int *)to = values[0] ? values[0][0] - '0' : -1; return 0;
        }
        int run(const char *sql) {
            int result = -2;
            if (!db && sqlite3_open(":memory:", &db)) return -3;
            return sqlite3_exec(db, sql, store, &result, NULL) ? -4 : result;
        }
    """
    with LLJIT(executor=executor) as jit:
        jit.add_object(c(source))
        jit.add_object(c(CRASH))
        jit.add_archive(require("libsqlite3.a"))
        for _ in range(2):
            run = jit.lookup("run")
            run.argtypes = [ctypes.c_char_p]
            run(b"create table t(x)")
            run(b"insert into t values (1), (2), (4)")
            assert run(b"select sum(x) from t") == 7
            crash(jit.lookup("crash"))
            jit.restart_executor()


def test_a_library_of_an_archive(executor: RemoteExecutorProcessControl, tmp_path: Path) -> None:
    archive = archived(tmp_path / "lib.a", c(STATE), c(CRASH))
    with jitlink.load(archive, executor=executor) as lib:
        following = lib.next
        assert [following(), following()] == [41, 42]
        crash(lib.crash)
        lib.restart_executor()
        assert [following(), lib.next(), lib.next_own()] == [41, 42, 6]
        assert len(lib.linked_files) == 2


def test_members_of_archives_stay_extracted(
    executor: RemoteExecutorProcessControl, tmp_path: Path
) -> None:
    # The first definition of a name prevails: that of a member, which was extracted earlier.
    member = c("int chosen(void) { return 1; } int wanted(void) { return 2; }")
    archive = archived(tmp_path / "lib.a", member)
    with LLJIT(executor=executor) as jit:
        jit.add_archive(archive)
        jit.add_object(c("int wanted(void); int f(void) { return wanted(); }"))
        assert jit.lookup("f")() == 2
        jit.add_object(c("__attribute__((weak)) int chosen(void) { return 3; }"))
        assert jit.lookup("chosen")() == 1
        jit.restart_executor()
        assert jit.lookup("chosen")() == 1


def test_trackers(executor: RemoteExecutorProcessControl) -> None:
    with LLJIT(executor=executor) as jit:
        removed, moved, kept = (jit.create_resource_tracker() for _ in range(3))
        jit.add_object(c("int removed(void) { return 1; }"), removed)
        jit.add_object(c("int moved(void) { return 2; }"), moved)
        jit.add_object(c("int kept(void) { return 3; }"), kept)
        jit.add_object(c("int late(void) { return 4; }"), kept)
        assert [jit.lookup(name)() for name in ("removed", "moved", "kept")] == [1, 2, 3]
        jit.remove(removed)
        moved.transfer_to(kept)
        jit.restart_executor()
        with pytest.raises(UndefinedSymbolError):
            jit.lookup("removed")
        assert [jit.lookup(name)() for name in ("moved", "kept", "late")] == [2, 3, 4]
        jit.restart_executor()
        assert not kept.is_defunct
        jit.remove(kept)
        for name in ("moved", "kept", "late"):
            with pytest.raises(UndefinedSymbolError):
                jit.lookup(name)
        jit.add_object(c("int removed(void) { return 5; }"))
        assert jit.lookup("removed")() == 5


def test_symbols_that_were_removed_by_name(executor: RemoteExecutorProcessControl) -> None:
    with LLJIT(executor=executor) as jit:
        jit.add_object(c("int f(void) { return 1; } int g(void) { return 2; }"))
        assert jit.lookup("f")() == 1
        jit.main.remove(["f"])
        jit.restart_executor()
        assert jit.lookup("g")() == 2
        with pytest.raises(UndefinedSymbolError):
            jit.lookup("f")


@pytest.mark.parametrize("is_linked", [False, True])
def test_precedence(executor: RemoteExecutorProcessControl, is_linked: bool) -> None:
    weak = "__attribute__((weak)) int chosen(void) { return 1; } int f%d(void) { return %d; }"
    with LLJIT(executor=executor) as jit:
        jit.add_object(c(weak % (1, 11)))
        jit.add_object(c("int chosen(void) { return 2; }"))
        jit.add_object(c(weak % (3, 33)))
        for _ in range(3):
            if is_linked:
                assert [jit.lookup(n)() for n in ("f1", "chosen", "f3")] == [11, 2, 33]
            jit.restart_executor()
        assert [jit.lookup(n)() for n in ("f1", "chosen", "f3")] == [11, 2, 33]
        # What has been looked up is not overridden, as before.
        jit.add_object(c("__attribute__((weak)) int chosen(void) { return 4; }"))
        assert jit.lookup("chosen")() == 2


def test_link_orders(executor: RemoteExecutorProcessControl) -> None:
    with LLJIT(executor=executor) as jit:
        first, second = jit.create_jitdylib("first"), jit.create_jitdylib("second")
        first.add_to_link_order(second)
        order = first.link_order
        jit.add_object(c("int g(void); int f(void) { return 10 * g(); }"), dylib=first)
        jit.add_object(c("int n = 4; int g(void) { return n; }"), dylib=second)
        for _ in range(2):
            assert jit.lookup("f", dylib=first)() == 40
            jit.restart_executor()
        assert first.link_order == order
        session = jit.session
        assert session.get_jitdylib_by_name("first") is first
        session.remove_jitdylib(second)
        jit.restart_executor()
        assert session.get_jitdylib_by_name("second") is None
        with pytest.raises(UndefinedSymbolError, match="g"):
            jit.lookup("f", dylib=first)


def test_addresses_aliases_and_reexports(executor: RemoteExecutorProcessControl) -> None:
    with LLJIT(executor=executor) as jit:
        other = jit.create_jitdylib("other")
        jit.define({"fixed": 0x1234})
        jit.add_object(c("int g(void) { return 7; } int h(void) { return 8; }"), dylib=other)
        jit.main.define(ReExports({"again": "g"}, other))
        jit.main.define(ReExports({"alias": "f"}))
        jit.main.add_generator(ReExportsGenerator(other))
        jit.add_object(c("extern char fixed; long f(void) { return (long)&fixed; }"))
        for _ in range(2):
            assert [jit.lookup(n)() for n in ("f", "alias")] == [0x1234, 0x1234]
            assert [jit.lookup(n)() for n in ("again", "h")] == [7, 8]
            jit.restart_executor()


def test_shared_libraries(executor: RemoteExecutorProcessControl) -> None:
    with LLJIT(executor=executor) as jit:
        for name in ("libz.so.1", "libm.so.6"):
            jit.main.add_generator(DynamicLibraryGenerator.load(jit.session, name))
        source = """
            #include <math.h>
            unsigned long crc32(unsigned long, const char *, unsigned);
            unsigned sum(const char *s, unsigned n) { return crc32(0, s, n); }
            double root(double x) { return sqrt(cbrt(x)); }
        """
        jit.add_object(c(source, "-fno-builtin"))
        for _ in range(2):
            checksum, root = jit.lookup("sum"), jit.lookup("root")
            checksum.argtypes, root.argtypes = [ctypes.c_char_p, ctypes.c_uint], [ctypes.c_double]
            root.restype, checksum.restype = ctypes.c_double, ctypes.c_uint
            assert checksum(b"123456789", 9) == 0xCBF43926
            assert root(64.0) == 2.0
            jit.restart_executor()
        # Handles are those that were given before.
        handle = jit.session.wait(executor.load_dylib("libm.so.6"))
        assert handle == 2
        assert jit.session.wait(executor.lookup_symbols(["crc32", "cbrt"], handle))[0] is None


def test_a_library_that_needs_another_one(executor: RemoteExecutorProcessControl) -> None:
    with jitlink.load(
        c("unsigned long adler32(unsigned long, const char *, unsigned);"
          "int f(void) { return adler32(1, 0, 0); }"),
        c(CRASH),
        libraries=["libz.so.1"],
        executor=executor,
    ) as lib:  # fmt: skip
        for _ in range(2):
            assert lib.f() == 1
            crash(lib.crash)
            lib.restart_executor()


def test_initialisers_run_again_where_they_had(executor: RemoteExecutorProcessControl) -> None:
    source = """
        static int runs;
        __attribute__((constructor)) static void start(void) { runs++; }
        int runs_of_%s(void) { return runs; }
    """
    with LLJIT(executor=executor) as jit:
        opened, closed, never = (jit.create_jitdylib(n) for n in ("opened", "closed", "never"))
        for dylib in (opened, closed, never):
            jit.add_object(c(source % dylib.name), dylib=dylib)
        jit.initialize(opened)
        jit.initialize(opened)
        jit.initialize(closed)
        jit.deinitialize(closed)

        def runs() -> list[int]:
            dylibs = (opened, closed, never)
            return [jit.lookup(f"runs_of_{dylib.name}", dylib=dylib)() for dylib in dylibs]

        assert runs() == [1, 1, 0]
        jit.restart_executor()
        assert runs() == [1, 0, 0]
        jit.initialize(never)
        jit.restart_executor()
        assert runs() == [1, 0, 1]


def test_an_initialiser_that_fails_does_not_keep_others_from_running(
    executor: RemoteExecutorProcessControl,
) -> None:
    source = """
        static int runs;
        void check(void);
        __attribute__((constructor)) static void start(void) { runs++; check(); }
        int runs_of_it(void) { return runs; }
    """
    is_faulty = False

    def check() -> None:
        if is_faulty:
            raise ValueError("it fails")

    with LLJIT(executor=executor) as jit:
        dylibs = [jit.create_jitdylib(name) for name in ("first", "second")]
        for dylib in dylibs:
            dylib.define({"check": (check, ctypes.CFUNCTYPE(None))})
            jit.add_object(c(source), dylib=dylib)
            jit.initialize(dylib)
        is_faulty = True
        with pytest.raises(ValueError, match="it fails"):
            jit.restart_executor()
        assert [jit.lookup("runs_of_it", dylib=dylib)() for dylib in dylibs] == [1, 1]


def test_exit_handlers_after_a_restart(
    executor: RemoteExecutorProcessControl, capfd: pytest.CaptureFixture[str]
) -> None:
    source = """
        #include <stdio.h>
        #include <stdlib.h>
        static void bye(void) { fputs("bye\\n", stderr); }
        __attribute__((constructor)) static void start(void) { atexit(bye); }
    """
    with LLJIT(executor=executor) as jit:
        jit.add_object(c(source))
        jit.initialize()
        jit.restart_executor()
        assert "bye" not in capfd.readouterr().err
    executor.close()
    assert capfd.readouterr().err.count("bye") == 1


def test_dlopen_after_a_restart(executor: RemoteExecutorProcessControl) -> None:
    source = """
        #include <dlfcn.h>
        int call(void) {
            int (*f)(void) = (int (*)(void))dlsym(dlopen("other", RTLD_NOW), "f");
            return f ? f() : -1;
        }
    """
    with LLJIT(executor=executor) as jit:
        other = jit.create_jitdylib("other")
        jit.add_object(c("int f(void) { return 12; }"), dylib=other)
        jit.add_object(c(source))
        for _ in range(3):
            assert jit.lookup("call")() == 12
            jit.restart_executor()


# What is not there


class Own(MaterializationUnit):
    """A user's unit, without renewal."""

    name = "own unit"

    def __init__(self) -> None:
        self.symbols = {"defined_by_hand": JITSymbolFlags.EXPORTED}

    async def materialize(self, responsibility: MaterializationResponsibility) -> None:
        responsibility.notify_resolved({"defined_by_hand": 1})
        responsibility.notify_emitted()


def test_units_that_cannot_be_renewed(executor: RemoteExecutorProcessControl) -> None:
    with LLJIT(executor=executor) as jit:
        jit.add_object(c(STATE))
        assert jit.lookup("next")() == 41
        tracker = jit.create_resource_tracker()
        jit.main.define(Own(), tracker)
        with pytest.raises(NotRestartableError, match="own unit could not be linked") as caught:
            jit.restart_executor()
        assert caught.value.names == ("own unit",)
        # Nothing has happened.
        assert [jit.lookup("next")(), executor.generation] == [42, 0]
        jit.remove(tracker)
        jit.restart_executor()
        assert jit.lookup("next")() == 41


def test_addresses_of_the_executor_cannot_be_defined_again(
    executor: RemoteExecutorProcessControl,
) -> None:
    with LLJIT(executor=executor) as jit:
        jit.add_object(c(STATE))
        address = jit.lookup("next")
        jit.define({"also": address})
        with pytest.raises(NotRestartableError, match="also, an address of the executor"):
            jit.restart_executor()
        jit.main.remove(["also"])
        jit.restart_executor()


def test_other_memory(executor: RemoteExecutorProcessControl) -> None:
    from jitlink.executor.remote.generic_memory import (  # noqa: PLC0415 - for this test
        GenericJITLinkMemoryManager,
    )

    manager = GenericJITLinkMemoryManager(executor.services, executor.page_size)
    message = "manager that is not the executor's"
    with (
        LLJIT(executor=executor, memory_manager=manager) as jit,
        pytest.raises(NotRestartableError, match=message),
    ):
        jit.restart_executor()


def test_this_process_cannot_be_restarted() -> None:
    with LLJIT() as jit:
        with pytest.raises(ExecutorError, match="this process, which cannot be restarted"):
            jit.restart_executor()
        assert jit.session.record is None
    with jitlink.load(c("int f(void) { return 1; }")) as lib:
        with pytest.raises(ExecutorError, match="this process, which cannot be restarted"):
            lib.restart_executor()
        assert lib.f() == 1


def test_bare_addresses(executor: RemoteExecutorProcessControl) -> None:
    with LLJIT(executor=executor) as jit:
        jit.add_object(c(STATE))
        function = jit.lookup("next")
        assert function() == 41
        jit.restart_executor()
        assert jit.lookup("next")() == 41
        for _ in range(2):
            with pytest.raises(ExecutorRestartedError, match="is an address of an executor") as e:
                function()
            assert e.value.address == int(function)
        again = ExecutorAddr(int(function), executor, generation=0)
        with pytest.raises(ExecutorRestartedError):
            again()


def test_functions_as_arguments(executor: RemoteExecutorProcessControl) -> None:
    source = """
        int counter; int next(void) { return ++counter; }
        int twice(int (*f)(void)) { f(); return f(); }
    """
    with jitlink.load(c(source), executor=executor) as lib:
        twice, following = lib.twice, lib.next
        assert twice(following) == 2
        lib.restart_executor()
        assert twice(following) == 2


def test_plugins_see_removals(executor: RemoteExecutorProcessControl) -> None:
    class Books(Plugin):
        def __init__(self) -> None:
            self.emitted: dict[ResourceTracker, int] = {}

        def notify_emitted(self, responsibility: MaterializationResponsibility) -> None:
            tracker = responsibility.tracker
            self.emitted[tracker] = self.emitted.get(tracker, 0) + 1

        def notify_removing_resources(self, dylib: JITDylib, key: ResourceTracker) -> None:  # noqa: ARG002
            self.emitted.pop(key, None)

    with LLJIT(executor=executor) as jit:
        books = Books()
        jit.layer.add_plugin(books)
        tracker = jit.create_resource_tracker()
        jit.add_object(c(STATE), tracker)
        jit.lookup("next")
        assert books.emitted[tracker] == 1
        jit.restart_executor()
        assert books.emitted == {}
        jit.lookup("next")
        assert books.emitted[tracker] == 1


def test_what_was_never_looked_up(executor: RemoteExecutorProcessControl, tmp_path: Path) -> None:
    path = tmp_path / "late.o"
    path.write_bytes(c("int f(void) { return 1; }").read_bytes())
    with LLJIT(executor=executor) as jit:
        main = jit.main
        jit.add_object(path)
        archive = StaticLibraryGenerator(jit.layer, archived(tmp_path / "lib.a", c(STATE)))
        archive.force_load(main, jit.create_resource_tracker())
        jit.restart_executor()
        assert [jit.lookup("f")(), jit.lookup("next")()] == [1, 41]
        assert (main, JITDylibLookupFlags.MATCH_ALL_SYMBOLS) in main.link_order
