"""Python functions that linked code calls, in this process and in another one."""

import ctypes as c
import gc
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

import jitlink
from jitlink import LLJIT, tasks
from jitlink.abi.callbacks import HostFunction
from jitlink.errors import ExecutorError
from jitlink.executor import ExecutorCrashedError, RemoteExecutorProcessControl
from jitlink.runtime.remote_callbacks import (
    LinkedHostFunctions,
    RemoteCallbacks,
    remote_callbacks_of,
)
from jitlink.runtime.remote_calls import RemoteFunction
from jitlink.runtime.remote_memory import RemotePointer
from tests.executor.remote.executors import FOREIGN, PIPES, started
from tests.runtime.structs import DECLARATIONS, Big, Pair, Small
from tests.toolchain import HOST_TARGET, compile_c

Int = c.CFUNCTYPE(c.c_int, c.c_int)


@pytest.fixture(params=[None, *PIPES, *FOREIGN], ids=str)
def jit(request: pytest.FixtureRequest) -> Iterator[LLJIT]:
    if request.param is None:
        with LLJIT() as jit:
            yield jit
        return
    with started(request.param) as executor, LLJIT(executor=executor) as jit:
        yield jit


def is_remote(jit: LLJIT) -> bool:
    return isinstance(jit.session.executor, RemoteExecutorProcessControl)


def compiled(jit: LLJIT, source: str) -> Path:
    machine = jit.session.executor.triple.partition("-")[0]
    target = HOST_TARGET if HOST_TARGET.startswith(machine) else f"{machine}-linux-gnu"
    return compile_c(source, "gcc", ("-O1", "-fPIC"), target=target)


def added(jit: LLJIT, source: str, **functions: object) -> None:
    if functions:
        jit.define(functions)  # type: ignore[arg-type]
    jit.add_object(compiled(jit, source))


def typed(jit: LLJIT, name: str, restype: object, *argtypes: Any) -> Any:  # noqa: ANN401
    function: Any = jit.lookup(name)
    function.restype, function.argtypes = restype, argtypes
    return function


TYPES = (
    DECLARATIONS
    + r"""
double f(int a, double b, signed char c, struct small d, long e, float f, struct big g, long h,
         struct pair i, unsigned j, unsigned char k, short l, struct small m, double n, double o,
         double p, double q, long r);
double call(void) {
  struct small d = {4, 4.5}, m = {13, 13.5};
  struct big g = {{1, 2, 3, 4, 5}};
  struct pair i = {9, 9.5};
  return f(-1, 2, -3, d, 5, 6.5f, g, 8, i, 4000000000u, 255, -12, m, 14, 15, 16, 17, 18);
}
"""
)


def test_arguments_of_all_classes(jit: LLJIT) -> None:
    seen: list[Any] = []

    def function(*arguments: Any) -> float:  # noqa: ANN401 - as the prototype says
        seen.extend(arguments)
        return -0.25

    prototype = c.CFUNCTYPE(
        c.c_double,
        *(c.c_int, c.c_double, c.c_byte, Small, c.c_long, c.c_float, Big, c.c_long, Pair, c.c_uint),
        *(c.c_ubyte, c.c_short, Small, c.c_double, c.c_double, c.c_double, c.c_double, c.c_long),
    )
    added(jit, TYPES, f=(function, prototype))
    assert typed(jit, "call", c.c_double)() == -0.25
    flat = [
        (each.a, each.b)
        if isinstance(each, Small)
        else (each.x, each.y)
        if isinstance(each, Pair)
        else list(each.a)
        if isinstance(each, Big)
        else each
        for each in seen
    ]
    assert flat == [
        *(-1, 2.0, -3, (4, 4.5), 5, 6.5, [1, 2, 3, 4, 5], 8, (9, 9.5), 4000000000, 255, -12),
        *((13, 13.5), 14.0, 15.0, 16.0, 17.0, 18),
    ]


@pytest.mark.parametrize(
    ("ctype", "declared", "value"),
    [
        (c.c_byte, "signed char", -5),
        (c.c_ubyte, "unsigned char", 250),
        (c.c_short, "short", -300),
        (c.c_int, "int", -70000),
        (c.c_uint, "unsigned", 4000000000),
        (c.c_long, "long", -(1 << 40)),
        (c.c_bool, "_Bool", True),
        (c.c_char, "char", b"x"),
        (c.c_float, "float", 1.5),
        (c.c_double, "double", -1e300),
    ],
)
def test_results(jit: LLJIT, ctype: type[Any], declared: str, value: object) -> None:
    source = f"{declared} f(void); {declared} g(void) {{ return f(); }}"
    added(jit, source, f=(lambda: value, c.CFUNCTYPE(ctype)))
    assert typed(jit, "g", ctype)() == value


def test_functions_without_a_result(jit: LLJIT) -> None:
    mock = Mock(return_value=5)
    added(
        jit,
        "void f(int); int g(void) { f(3); return 1; }",
        f=(mock, c.CFUNCTYPE(None, c.c_int)),
    )
    assert jit.lookup("g")() == 1
    mock.assert_called_once_with(3)


def test_exceptions_are_raised_where_python_called(jit: LLJIT) -> None:
    def fail(number: int) -> int:
        if number == 13:
            raise LookupError(number)
        return number

    source = "int f(int); int after; int g(int x) { after = f(x) + 1; return f(2); }"
    added(jit, source, f=(fail, Int))
    function = jit.lookup("g")
    assert function(1) == 2
    with pytest.raises(LookupError) as caught:
        function(13)
    assert caught.value.args == (13,)
    # The code went on, with zero.
    assert function(5) == 2


def test_calls_within_calls(jit: LLJIT) -> None:
    """An exception is raised in the innermost call from Python, which may handle it."""

    def descend(depth: int) -> int:
        if depth == 0:
            raise ArithmeticError
        try:
            return int(jit.lookup("g")(depth - 1)) + 1
        except ArithmeticError:
            if depth % 2:
                raise
            return 100

    added(jit, "int f(int); int g(int x) { return f(x) + 10; }", f=(descend, Int))
    assert jit.lookup("g")(2) == 110
    assert jit.lookup("g")(4) == 132
    with pytest.raises(ArithmeticError):
        jit.lookup("g")(1)


def test_exceptions_on_threads_of_the_code(jit: LLJIT, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = Mock()
    monkeypatch.setattr(threading, "excepthook", hook)
    source = """
    #include <pthread.h>
    int f(int);
    static void *run(void *x) { return (void *)(long)f(7); }
    int g(void) {
      pthread_t thread;
      void *result;
      pthread_create(&thread, 0, run, 0);
      pthread_join(thread, &result);
      return (int)(long)result + 5;
    }
    """
    added(jit, source, f=(Mock(side_effect=KeyError("here")), Int))
    assert jit.lookup("g")() == 5
    (call,) = hook.call_args_list
    assert call.args[0].exc_type is KeyError


def test_threads_call_at_once(jit: LLJIT) -> None:
    added(jit, "int f(int); int g(int x) { return f(x) * 2; }", f=(lambda x: x + 1, Int))
    function = jit.lookup("g")
    results: dict[int, list[int]] = {}

    def call(number: int) -> None:
        results[number] = [function(number * 100 + each) for each in range(30)]

    threads = [threading.Thread(target=call, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == {n: [2 * (n * 100 + each + 1) for each in range(30)] for n in range(6)}


def test_initialisers_call_python(jit: LLJIT) -> None:
    added(
        jit,
        "int f(int); int v; __attribute__((constructor)) static void begin(void) { v = f(3); }"
        "int get(void) { return v; }"
        "__attribute__((destructor)) static void end(void) { f(4); }",
        f=(mock := Mock(side_effect=[30, 40]), Int),
    )
    jit.initialize()
    assert jit.lookup("get")() == 30
    jit.deinitialize()
    assert [call.args for call in mock.call_args_list] == [(3,), (4,)]


def test_exceptions_in_initialisers(jit: LLJIT) -> None:
    added(
        jit,
        "int f(int); __attribute__((constructor)) static void begin(void) { f(3); }",
        f=(Mock(side_effect=[EOFError("now")]), Int),
    )
    with pytest.raises(EOFError, match="now"):
        jit.initialize()


def test_strings(jit: LLJIT) -> None:
    source = """
    #include <stddef.h>
    int f(const char *, const wchar_t *, const char *);
    static char text[9000];
    int g(void) {
      for (int i = 0; i < 8999; ++i) text[i] = 'a' + i % 26;
      return f(text, L"wide \\u20ac", 0);
    }
    """
    seen: list[object] = []

    def function(*arguments: object) -> int:
        seen.extend(arguments)
        return 1

    added(jit, source, f=(function, c.CFUNCTYPE(c.c_int, c.c_char_p, c.c_wchar_p, c.c_char_p)))
    assert jit.lookup("g")() == 1
    assert seen == [bytes(97 + i % 26 for i in range(8999)), "wide \u20ac", None]


def test_pointers(jit: LLJIT) -> None:
    source = """
    struct small { int a; double b; };
    int f(int *numbers, struct small *, int *null);
    int g(void) {
      int numbers[4] = {1, 2, 3, 4};
      struct small s = {5, 6.5};
      return f(numbers, &s, 0) + numbers[1] * 100 + s.a * 1000;
    }
    """

    def function(numbers: Any, small: Any, null: Any) -> int:  # noqa: ANN401 - ctypes pointers
        assert numbers[0] == 1
        assert numbers[1:4] == [2, 3, 4]
        assert numbers[2:0:-1] == [3, 2]
        assert numbers.contents.value == 1
        assert bool(numbers)
        assert not null
        with pytest.raises(ValueError, match="NULL pointer"):
            null[0]
        assert (small[0].a, small[0].b) == (5, 6.5)
        numbers[1] = 7
        small[0] = Small(9, 0.5)
        return int(add_up(numbers, 4))

    pointers = c.POINTER(c.c_int), c.POINTER(Small), c.POINTER(c.c_int)
    added(jit, source, f=(function, c.CFUNCTYPE(c.c_int, *pointers)))
    added(jit, "int add_up(int *p, int n) { int s = 0; while (n--) s += p[n]; return s; }")
    add_up = typed(jit, "add_up", c.c_int, c.POINTER(c.c_int), c.c_int)
    assert jit.lookup("g")() == 15 + 700 + 9000


def test_functions_of_the_code_as_arguments(jit: LLJIT) -> None:
    source = """
    static int twice(int x) { return 2 * x; }
    int f(int (*)(int), int);
    int g(int x) { return f(twice, x); }
    int h(void) { return f(0, 3); }
    """

    def call(function: Any, argument: int) -> int:  # noqa: ANN401 - a function of the code
        return int(function(argument)) + 1 if function else -1

    added(jit, source, f=(call, c.CFUNCTYPE(c.c_int, Int, c.c_int)))
    assert jit.lookup("g")(20) == 41
    assert jit.lookup("h")() == -1


def test_python_functions_as_arguments(jit: LLJIT) -> None:
    source = """
    #include <stdlib.h>
    void sort(int *a, int n, int (*f)(const int *, const int *)) {
      qsort(a, n, sizeof *a, (int (*)(const void *, const void *))f);
    }
    static int (*kept)(int);
    void keep(int (*f)(int)) { kept = f; }
    int again(int x) { return kept(x); }
    """
    added(jit, source)
    compare = c.CFUNCTYPE(c.c_int, c.POINTER(c.c_int), c.POINTER(c.c_int))
    numbers = (c.c_int * 6)(5, 2, 6, 4, 1, 3)
    sort = typed(jit, "sort", None, c.POINTER(c.c_int), c.c_int, compare)
    sort(numbers, 6, compare(lambda a, b: b[0] - a[0]))
    assert list(numbers) == [6, 5, 4, 3, 2, 1]
    function = Int(lambda x: x * 3)
    typed(jit, "keep", None, Int)(function)
    # For as long as the object lives.
    assert [jit.lookup("again")(n) for n in (1, 2)] == [3, 6]
    if is_remote(jit):
        with pytest.raises(ZeroDivisionError):
            sort(numbers, 2, compare(lambda _a, _b: 1 // 0))


def test_functions_that_are_not_needed_any_more_are_released(jit: LLJIT) -> None:
    class Callee:
        def __call__(self, number: int) -> int:
            return number + 1

    def add_and_remove() -> weakref.ref[Callee]:
        callee, tracker = Callee(), jit.create_resource_tracker()
        jit.define({"f": (callee, Int)}, tracker)
        jit.add_object(compiled(jit, "int f(int); int g(int x) { return f(x); }"), tracker)
        assert jit.lookup("g")(5) == 6
        tracker.remove()
        return weakref.ref(callee)

    references = [add_and_remove() for _ in range(3)]
    # What leads to the last function is freed with the next one.
    jit.define({"other": (lambda: 0, c.CFUNCTYPE(c.c_int))})
    gc.collect()
    assert [each() for each in references] == [None] * 3


def test_results_that_are_pointers(jit: LLJIT) -> None:
    added(
        jit,
        "static int values[3] = {7, 8, 9}; int *get(void) { return values; } int *no(void) "
        "{ return 0; } static int inc(int x) { return x + 1; } int (*fn(void))(int) { return inc; }"
        "int second(int *p) { return p[1]; }",
    )
    pointer = typed(jit, "get", c.POINTER(c.c_int))()
    assert pointer[0:3] == [7, 8, 9]
    pointer[1] = 80
    assert typed(jit, "second", c.c_int, c.POINTER(c.c_int))(pointer) == 80
    assert typed(jit, "second", c.c_int, c.c_void_p)(pointer) == 80
    assert not typed(jit, "no", c.POINTER(c.c_int))()
    assert typed(jit, "fn", Int)()(4) == 5
    if is_remote(jit):
        assert isinstance(pointer, RemotePointer)
        assert isinstance(typed(jit, "fn", Int)(), RemoteFunction)


def test_what_c_cannot_call(jit: LLJIT) -> None:
    for prototype in (c.CFUNCTYPE(Small), c.CFUNCTYPE(c.POINTER(c.c_int))):
        with pytest.raises(TypeError, match="C code cannot call f"):
            jit.define({"f": (lambda: 0, prototype)})
    if is_remote(jit):
        with pytest.raises(TypeError, match="c_longdouble"):
            jit.define({"f": (lambda: 0, c.CFUNCTYPE(c.c_int, c.c_longdouble))})
        with pytest.raises(TypeError, match="a C function of another process"):
            jit.define({"f": c.CDLL(None).abs})


@pytest.mark.parametrize("jit", [*PIPES, *FOREIGN], ids=str, indirect=True)
def test_memory_of_this_process_is_no_result_elsewhere(jit: LLJIT) -> None:
    added(
        jit,
        "char *f(void); long g(void) { return (long)f(); }",
        f=(lambda: b"text", c.CFUNCTYPE(c.c_char_p)),
    )
    with pytest.raises(TypeError, match="memory of this process"):
        jit.lookup("g")()


@pytest.mark.parametrize("setting", [None, *PIPES], ids=str)
def test_the_interfaces_that_take_functions(setting: Any) -> None:  # noqa: ANN401
    """`load` with definitions, on demand too; a harness with mocks and variables."""
    compiled = compile_c(
        "extern int limit; int f(int); int g(int x) { return f(x) + 1; }"
        "static int hidden(int x) { return f(x) - limit; }"
        "int (*use)(int) = hidden;",
        "gcc",
        ("-O1", "-fPIC"),
    )
    if setting is None:
        _check_interfaces(compiled, None)
        return
    with started(setting) as executor:
        _check_interfaces(compiled, executor)
        with jitlink.load(
            compile_c("int limit; int f(int x) { return x; }", "gcc", ("-fPIC",)), executor=executor
        ) as library:
            functions = {"f": library.f, "limit": library["limit"]}
            with jitlink.load(compiled, executor=executor, definitions=functions) as other:
                assert other.g(5) == 6
        with pytest.raises(TypeError, match="limit is a variable of this process"):
            jitlink.harness(compiled, mocks={"limit": c.c_int(3)}, executor=executor)


def _check_interfaces(compiled: Path, executor: RemoteExecutorProcessControl | None) -> None:
    given = {"f": (lambda x: x * 10, Int), "limit": c.c_int}
    mocked: dict[str, object] = dict(given)
    with jitlink.harness(compiled, mocks=mocked, executor=executor) as tested:
        assert tested.g(5) == 51
        tested.mocks["f"] = lambda x: x * 20
        assert tested.hidden(5) == 100
        tested.mocks["f"] = Mock(side_effect=PermissionError)
        with pytest.raises(PermissionError):
            tested.hidden(5)
    definitions: dict[str, Any] = {"f": (lambda x: x * 10, Int), "limit": 0x1000}

    def resolve(name: str) -> Any:  # noqa: ANN401
        return definitions.get(name)

    for options in ({"definitions": definitions}, {"resolve": resolve}):
        arguments: dict[str, Any] = options
        with jitlink.load(compiled, executor=executor, **arguments) as library:
            assert library.g(7) == 71


def test_the_executor_crashes_in_a_call_of_python() -> None:
    with started(PIPES[0]) as executor, LLJIT(executor=executor) as jit:
        process = executor.process
        assert process is not None

        def kill(_number: int) -> int:
            process.kill()
            return 1

        added(jit, "int f(int); int g(int x) { return f(x); }", f=(kill, Int))
        function = jit.lookup("g")
        with pytest.raises(ExecutorCrashedError):
            function(1)


def test_sessions_of_one_executor() -> None:
    with started(PIPES[0]) as executor:
        jits = [LLJIT(executor=executor, platform=False) for _ in range(3)]
        for number, jit in enumerate(jits):
            added(
                jit,
                "int f(int); int g(int x) { return f(x); }",
                f=(lambda x, n=number: x + n, Int),
            )
        assert [jit.lookup("g")(10) for jit in jits] == [10, 11, 12]
        for jit in jits:
            jit.close()


def test_a_function_that_threads_pass_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has one address, for as long as it lives: calls with it may be under way."""
    link_functions, barrier = RemoteCallbacks.link_functions, threading.Barrier(2)

    async def link_together(self: RemoteCallbacks, *arguments: Any) -> LinkedHostFunctions:  # noqa: ANN401
        barrier.wait(20)
        return await link_functions(self, *arguments)

    with started(PIPES[0]) as executor, LLJIT(executor=executor) as jit:
        added(
            jit,
            "long at(int (*f)(int)) { return (long)f; }"
            "int call(int (*f)(int), int x) { return f(x); }",
        )
        at, call = typed(jit, "at", c.c_long, Int), typed(jit, "call", c.c_int, Int, c.c_int)
        function, other = Int(lambda x: x + 1), Int(lambda x: x + 2)
        call(other, 1)
        monkeypatch.setattr(RemoteCallbacks, "link_functions", link_together)
        with ThreadPoolExecutor(2) as threads:
            addresses = set(threads.map(at, [function] * 2))
        monkeypatch.undo()
        assert len(addresses) == 1
        # What one of them has linked in vain is freed.
        assert call(Int(lambda x: x + 3), 1) == 4
        assert call(function, 1) == 2
        assert at(function) in addresses
        del function
        gc.collect()
        assert call(other, 1) == 3


def test_a_call_of_what_was_released() -> None:
    with started(PIPES[0]) as executor, LLJIT(executor=executor) as jit:
        added(jit, "int call(int (*f)(int)) { return f(1) + 5; }")
        callbacks = tasks.run(remote_callbacks_of(executor))
        call = typed(jit, "call", c.c_int, c.c_void_p)
        function = HostFunction((0, 0, 0), (1, 0), lambda _words: [1, 0, 0, 0])
        linked = tasks.run(callbacks.link_functions(executor, [function]))
        assert call(linked.addresses[0]) == 6
        callbacks._functions.clear()
        with pytest.raises(ExecutorError, match="called a Python function that was released"):
            call(linked.addresses[0])
        del linked


def test_a_string_that_cannot_be_read() -> None:
    """Its address is as wrong as in this process, but only the executor ends."""
    with started(PIPES[0]) as executor, LLJIT(executor=executor) as jit:
        source = "int f(const char *); int g(void) { return f((const char *)16); }"
        added(jit, source, f=(mock := Mock(), c.CFUNCTYPE(c.c_int, c.c_char_p)))
        with pytest.raises(ExecutorCrashedError, match="SIGSEGV"):
            jit.lookup("g")()
        mock.assert_not_called()
