"""LLVM's ORC runtime, driven by jitlink, behaves as under LLVM."""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pytest

from jitlink.errors import (
    ArchiveError,
    ExecutorError,
    FixupError,
    InputError,
    JITLinkError,
    TLSError,
    UndefinedSymbolError,
    UnsupportedObjectError,
)
from jitlink.executor import ExecutorProcessControl, SelfExecutorProcessControl
from jitlink.lljit import LLJIT
from jitlink.orc import ExecutionSession, FailedToMaterializeError, ObjectLinkingLayer, SessionError
from jitlink.platform import (
    IncompleteRuntimeError,
    ORCRuntimePlatform,
    orc_runtime,
)
from jitlink.sps import WrapperFunctionResult
from tests.platform.orc_programs import (
    CLANG,
    GCC,
    parts,
    runtime,
    under_jitlink,
    under_llvm,
)
from tests.platform.programs import Build, native, objects
from tests.toolchain import CompilerName, compile_c, run, zig_command

# Name, number of objects; programs that llvm-jitlink gets right.
FOR_BOTH = [
    ("../orc_runtime/order.c", 1, ("a", "b")),
    ("../orc_runtime/threads.cpp", 2, ()),
    ("handlers.c", 1, ()),
    ("backtrace.c", 2, ()),
    ("cancel.c", 1, ()),
    ("ends.cpp", 2, ("program", "uncaught")),
    ("ends.cpp", 2, ("program", "noexcept")),
]
# Programs that need nothing that this runtime lacks; llvm-jitlink fails with some of them.
AS_NATIVE = [
    ("throw.cpp", 2),
    ("forced.cpp", 2),
    ("backtrace.c", 2),
    ("cancel.c", 1),
    ("library.cpp", 2),
]


@pytest.mark.parametrize("build", [GCC, CLANG], ids=str)
@pytest.mark.parametrize(("name", "count", "arguments"), FOR_BOTH)
def test_a_program_does_what_it_does_under_llvm_jitlink(
    name: str, count: int, arguments: tuple[str, ...], build: Build
) -> None:
    dylibs = [("main", objects(name, build, count))]
    expected, found = under_llvm(dylibs, arguments), under_jitlink(dylibs, arguments)
    assert expected.output or expected.status < 0
    if expected.status < 0:
        # LLVM adds to what the program says when it is killed.
        assert expected.errors.startswith(found.errors)
        assert found[:2] == expected[:2]
    else:
        assert found == expected


@pytest.mark.parametrize("build", [GCC, CLANG], ids=str)
def test_the_entry_points_of_the_runtime(build: Build) -> None:
    program, library = parts("entries.cpp", build, 2)
    dylibs = [("main", [program]), ("library", [library])]
    expected = under_llvm(dylibs, ("one", "two"))
    assert "twice 4 is 8\n" in expected.output
    assert under_jitlink(dylibs, ("one", "two")) == expected


@pytest.mark.parametrize("build", [GCC, CLANG], ids=str)
@pytest.mark.parametrize(("name", "count"), AS_NATIVE)
def test_a_program_does_what_it_does_natively(name: str, count: int, build: Build) -> None:
    runtime()
    inputs = objects(name, build, count)
    assert under_jitlink([("main", inputs)]) == native(inputs)


# In this process

COUNTED = """
extern "C" void say(const char *);
struct Object {
  Object() { say("begin " NAME); }
  ~Object() { say("end " NAME); }
};
static Object object;
extern "C" int VALUE() { return 5; }
"""


def _counted(name: str, build: Build = GCC) -> Path:
    flags = (*build.flags, f'-DNAME="{name}"', f"-DVALUE={name}_value")
    return compile_c(COUNTED, build.compiler, flags, suffix=".cpp")


executors: Callable[[], AbstractContextManager[ExecutorProcessControl | None]] = nullcontext
"""Starts the executor of a JIT; by default it is this process."""


@contextmanager
def _jit() -> Iterator[tuple[LLJIT, ORCRuntimePlatform, list[str]]]:
    """A JIT with the runtime, and the texts that linked code passes to ``say``."""
    said: list[str] = []

    def say(text: bytes) -> None:
        said.append(text.decode())

    prototype = ctypes.CFUNCTYPE(None, ctypes.c_char_p)
    with executors() as executor, LLJIT(executor=executor, platform=orc_runtime(runtime())) as jit:
        assert jit.process_symbols is not None
        jit.define({"say": (say, prototype)}, dylib=jit.process_symbols)
        assert isinstance(jit.platform, ORCRuntimePlatform)
        yield jit, jit.platform, said


def test_dependencies_are_opened_first_and_what_is_open_only_updated() -> None:
    with _jit() as (jit, _, said):
        library = jit.create_jitdylib("library")
        jit.main.add_to_link_order(library)
        jit.add_object(_counted("program"))
        jit.add_object(_counted("library"), dylib=library)
        jit.initialize()
        assert said == ["begin library", "begin program"]
        jit.initialize()
        jit.add_object(_counted("late"), dylib=library)
        jit.initialize()
        assert said == ["begin library", "begin program", "begin late"]
        jit.deinitialize()
        jit.deinitialize()
        assert said[3:] == ["end program"]
        jit.initialize()
        assert said[4:] == ["begin program"]
    assert said[5:] == ["end program"]


def test_the_last_one_opened_is_closed_first_at_the_end() -> None:
    with _jit() as (jit, _, said):
        for name in ("first", "second"):
            dylib = jit.create_jitdylib(name)
            jit.add_object(_counted(name), dylib=dylib)
            jit.initialize(dylib)
    assert said == ["begin first", "begin second", "end second", "end first"]


def test_what_is_open_is_closed_when_its_jitdylib_is_removed() -> None:
    with _jit() as (jit, platform, said):
        library = jit.create_jitdylib("library")
        jit.add_object(_counted("library"), dylib=library)
        jit.initialize(library)
        jit.session.remove_jitdylib(library)
        assert said == ["begin library", "end library"]
        assert library not in platform.states
        # The runtime has deregistered the name.
        jit.create_jitdylib("library")


def test_a_session_that_ends_without_its_platform_closes_what_is_open() -> None:
    with _jit() as (jit, _, said):
        jit.add_object(_counted("program"))
        jit.initialize()
        jit.platform = None
    assert said == ["begin program", "end program"]


def test_code_is_added_to_an_open_jitdylib_and_removed() -> None:
    with _jit() as (jit, _, said):
        for _ in range(3):
            tracker = jit.create_resource_tracker()
            jit.add_object(_counted("program"), tracker)
            jit.initialize()
            assert jit.lookup("program_value")() == 5
            jit.deinitialize()
            jit.remove(tracker)
    assert said == ["begin program", "end program"] * 3


def test_a_jitdylib_that_was_cleared_is_registered_again() -> None:
    with _jit() as (jit, platform, said):
        library = jit.create_jitdylib("library")
        jit.add_object(_counted("library"), dylib=library)
        jit.initialize(library)
        jit.deinitialize(library)
        library.clear()
        assert platform.states[library].handle
        jit.add_object(_counted("again"), dylib=library)
        dlopen = jit.lookup("__orc_rt_jit_dlopen", dylib=platform.dylib)
        dlopen.restype = ctypes.c_void_p
        assert dlopen(b"library", 1) == platform.states[library].handle
    assert said == ["begin library", "end library", "begin again"]


def test_a_jitdylib_that_is_not_linked_against_the_platform_is_removed_before_the_runtime() -> None:
    with _jit() as (jit, _, said):
        assert jit.process_symbols is not None
        jit.add_object(_counted("program"))
        jit.initialize()
        jit.deinitialize()
        jit.main.set_link_order([])
        other = jit.session.create_jitdylib("not set up")
        jit.add_object(compile_c("int forty(void) { return 40; }", "gcc"), dylib=other)
        assert jit.lookup("forty", dylib=other)() == 40
    assert said == ["begin program", "end program"]


def test_ctors_run_backwards_and_preinit_first() -> None:
    source = """
        typedef void (*function)(void);
        extern void say(const char *);
        static void a(void) { say("a"); }
        static void b(void) { say("b"); }
        static void c(void) { say("c"); }
        static void d(void) { say("d"); }
        #define IN(name) __attribute__((section(name), used, aligned(8))) static function
        IN(".ctors") ctors[] = {a, b};
        IN(".init_array.100") init = c;
        IN(".preinit_array") preinit = d;
    """
    with _jit() as (jit, _, said):
        jit.add_object(compile_c(source, "gcc", ("-fPIC",)))
        jit.initialize()
    assert said == ["d", "c", "b", "a"]


def test_a_program_that_is_given_by_its_address() -> None:
    with _jit() as (jit, platform, said):
        jit.add_object(_counted("program"))
        main = "extern void say(const char *); int main(int n, char **v) { say(v[1]); return n; }"
        jit.add_object(compile_c(main, "gcc", ("-fPIC",)))
        assert platform.run_main(jit.main, jit.lookup("main"), ["x", "hello"]) == 2
        assert said == ["begin program", "hello", "end program"]


# Thread-local variables

GLOBAL_DYNAMIC = ("-fPIC", "-ftls-model=global-dynamic")
COUNTER = """
    extern void say(const char *);
    __thread int counter = START;
    __thread char *text = "text";
    int count(void) { if (counter == START) say(text); return ++counter; }
"""


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_thread_local_variables_of_two_objects(compiler: CompilerName) -> None:
    """LLVM gives each object variables of its own; natively they are the same."""
    runtime()
    inputs = parts("variables.cpp", Build(compiler, ("-O2", *GLOBAL_DYNAMIC)), 2)
    expected = native(inputs)
    assert "3: 14 14 1 Dnitial 4.5\n" in expected.output
    assert under_jitlink([("main", inputs)]) == expected


def test_thread_local_variables_are_added_and_removed() -> None:
    with _jit() as (jit, platform, said):
        keys = set()
        for start in (10, 20, 30):
            tracker = jit.create_resource_tracker()
            flags = (*GLOBAL_DYNAMIC, f"-DSTART={start}")
            jit.add_object(compile_c(COUNTER, "gcc", flags), tracker)
            count = jit.lookup("count")
            results = [count(), count()]
            thread = threading.Thread(target=lambda: results.append(count()))  # noqa: B023
            thread.start()
            thread.join()
            assert results == [start + 1, start + 2, start + 1]
            keys.add(platform.tls.key)
            jit.remove(tracker)
        assert said == ["text"] * 6
        assert len(keys) == 1


def _next_key() -> int:
    """The key that ``pthread_key_create`` returns next."""
    key, process = ctypes.c_uint(), ctypes.CDLL(None)
    assert process.pthread_key_create(ctypes.byref(key), None) == 0
    assert process.pthread_key_delete(key) == 0
    return key.value


def test_a_thread_may_outlive_the_session() -> None:
    before, used, done = _next_key(), threading.Event(), threading.Event()
    with _jit() as (jit, _, _said):
        jit.add_object(compile_c(COUNTER, "gcc", (*GLOBAL_DYNAMIC, "-DSTART=1")))
        count = jit.lookup("count")

        def run() -> None:
            assert count() == 2
            used.set()
            done.wait()

        thread = threading.Thread(target=run)
        thread.start()
        assert used.wait(10)
        assert _next_key() != before
    assert _next_key() == before
    done.set()
    thread.join()


@pytest.mark.parametrize("model", ["local-dynamic", "initial-exec", "local-exec"])
def test_other_models_are_refused(model: str) -> None:
    source = "static __thread int counter; int count(void) { return ++counter; }"
    # clang: gcc takes the strongest model that is allowed, whatever -ftls-model says.
    path = compile_c(source, "clang", ("-fPIC", f"-ftls-model={model}"))
    with _jit() as (jit, _, _said):
        jit.add_object(path)
        with pytest.raises(FailedToMaterializeError) as caught:
            jit.lookup("count")
    cause = caught.value.__cause__
    assert isinstance(cause, FixupError)
    assert "-ftls-model=global-dynamic" in str(cause)


def test_variables_that_are_aligned_too_much_are_refused() -> None:
    source = "__thread __attribute__((aligned(64))) int counter; int f(void) { return ++counter; }"
    with _jit() as (jit, _, _said):
        jit.add_object(compile_c(source, "gcc", GLOBAL_DYNAMIC))
        with pytest.raises(FailedToMaterializeError) as caught:
            jit.lookup("f")
    assert isinstance(caught.value.__cause__, TLSError)
    assert "aligned to 64 bytes" in str(caught.value.__cause__)


# Errors

UNDEFINED = (
    "extern int nowhere; __attribute__((constructor)) static void run(void) { nowhere = 1; }"
)


def test_initialisers_that_cannot_be_linked_raise_the_error_of_the_link() -> None:
    with _jit() as (jit, platform, said):
        jit.add_object(_counted("program"))
        tracker = jit.create_resource_tracker()
        jit.add_object(compile_c(UNDEFINED, "gcc", ("-fPIC",)), tracker)
        with pytest.raises(FailedToMaterializeError) as caught:
            jit.initialize()
        assert isinstance(caught.value.__cause__, UndefinedSymbolError)
        assert caught.value.__cause__.names == ("nowhere",)
        assert said == []
        assert not platform.states[jit.main].is_held
        jit.remove(tracker)
        jit.initialize()
        assert said == ["begin program"]


def test_a_program_without_its_entry() -> None:
    with _jit() as (jit, platform, _), pytest.raises(UndefinedSymbolError) as caught:
        platform.run_program(jit.main, "main", ["program"])
    assert caught.value.names == ("main",)


def test_a_program_may_fail_to_open_a_jitdylib() -> None:
    main = """
        extern void *__orc_rt_jit_dlopen(const char *name, int mode);
        int main(void) { return __orc_rt_jit_dlopen("broken", 1) ? 1 : 42; }
    """
    with _jit() as (jit, platform, _):
        jit.add_object(compile_c(UNDEFINED, "gcc", ("-fPIC",)), dylib=jit.create_jitdylib("broken"))
        jit.add_object(compile_c(main, "gcc", ("-fPIC",)))
        assert platform.run_program(jit.main, "main", ["program"]) == 42


def test_a_python_exception_in_an_initialiser_is_raised() -> None:
    def say(text: bytes) -> None:
        raise ValueError(text.decode())

    with _jit() as (jit, _, _said):
        jit.define({"say": (say, ctypes.CFUNCTYPE(None, ctypes.c_char_p))})
        jit.add_object(_counted("program"))
        with pytest.raises(ValueError, match="begin program"):
            jit.initialize()
        with pytest.raises(ValueError, match="end program"):
            jit.deinitialize()


def test_a_jitdylib_that_was_not_set_up() -> None:
    with _jit() as (jit, platform, _):
        other = jit.session.create_jitdylib("other")
        for action in (platform.initialize, platform.deinitialize):
            with pytest.raises(SessionError, match="other was not set up"):
                action(other)


def test_one_platform_a_session() -> None:
    with _jit() as (jit, _, _said), pytest.raises(SessionError, match="<platform>"):
        ORCRuntimePlatform(jit.session, jit.layer, jit.process_symbols, runtime())


def _archive(place: Path, *paths: Path) -> Path:
    run([*zig_command("ar"), "rcs", place, *paths])
    return place


def test_an_archive_that_is_not_the_runtime(tmp_path: Path) -> None:
    path = _archive(tmp_path / "other.a", compile_c("int f(void) { return 0; }"))
    with pytest.raises(IncompleteRuntimeError, match="LLVM 22") as caught:
        LLJIT(platform=orc_runtime(path))
    assert caught.value.file == str(path)
    assert "__orc_rt_elfnix_register_jitdylib" in caught.value.missing


def test_a_runtime_that_lacks_one_function(tmp_path: Path) -> None:
    path = tmp_path / "less.a"
    path.write_bytes(runtime().read_bytes())
    run([*zig_command("ar"), "d", path, "run_program_wrapper.cpp.o"])
    with pytest.raises(IncompleteRuntimeError) as caught:
        LLJIT(platform=orc_runtime(path))
    assert caught.value.missing == ("__orc_rt_run_program_wrapper",)


def test_files_that_are_no_archives(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing here"):
        LLJIT(platform=orc_runtime(tmp_path / "nothing here.a"))
    with pytest.raises(ArchiveError):
        LLJIT(platform=orc_runtime(compile_c("int f(void) { return 0; }")))


class _OtherExecutor(SelfExecutorProcessControl):
    """The process that runs this, said to be another machine."""

    def __init__(self, triple: str) -> None:
        super().__init__()
        self.triple = triple


def test_another_processor() -> None:
    path = runtime()
    with ExecutionSession(_OtherExecutor("aarch64-unknown-linux-gnu")) as session:
        layer = ObjectLinkingLayer(session)
        with pytest.raises(UnsupportedObjectError, match="not for aarch64") as caught:
            ORCRuntimePlatform(session, layer, None, path)
        assert caught.value.file == str(path)
        assert session.get_jitdylib_by_name("<platform>") is None


# Leaks


def _mappings() -> int:
    return len(Path("/proc/self/maps").read_text().splitlines())


def test_200_cycles_leave_nothing() -> None:
    path, counts = _counted("program"), []
    with _jit() as (jit, _, said):
        for number in range(200):
            library = jit.create_jitdylib("library")
            jit.add_object(path, dylib=library)
            jit.initialize(library)
            jit.deinitialize(library)
            jit.session.remove_jitdylib(library)
            if number in {20, 199}:
                gc.collect()
                counts.append(_mappings())
    assert said == ["begin program", "end program"] * 200
    assert counts[1] <= counts[0]


def test_sessions_leave_nothing() -> None:
    path, counts = _counted("program"), []
    for number in range(25):
        with _jit() as (jit, _, said):
            jit.add_object(path)
            jit.initialize()
        assert said == ["begin program", "end program"]
        if number in {8, 24}:
            gc.collect()
            counts.append(_mappings())
    assert counts[1] <= counts[0]


def test_a_runtime_that_does_not_start_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its functions cannot be called: the first action fails."""
    path = runtime()

    def refuse(address: int, arguments: bytes) -> WrapperFunctionResult:
        raise ExecutorError(f"{address:#x} is not called with {len(arguments)} bytes")

    with ExecutionSession() as session:
        layer = ObjectLinkingLayer(session)
        process = session.create_jitdylib("process")
        with monkeypatch.context() as context:
            context.setattr("jitlink.memory.actions.call_wrapper", refuse)
            with pytest.raises(JITLinkError):
                ORCRuntimePlatform(session, layer, process, path)
        assert session.get_jitdylib_by_name("<platform>") is None
        assert session.dump().count("JITDylib") == 1
