"""Lazy and redirectable functions in executors that are other processes: as in this process."""

import ctypes
import signal
from collections.abc import Iterator

import pytest

from jitlink.executor import ExecutorCrashedError, RemoteExecutorProcessControl
from jitlink.orc.stubs import IndirectStubsManager, LazyCallError
from tests.executor.remote.executors import FOREIGN, PIPES, Setting, started
from tests.orc.sessions import StubSession, reexport, stub_session
from tests.orc.test_lazy import (  # noqa: F401 - with the fixtures below
    test_a_body_that_does_not_link_fails_every_thread,
    test_a_body_that_is_removed_is_looked_up_again,
    test_a_failure_is_raised_in_python_and_can_be_repaired,
    test_aliases_have_their_own_names_and_flags,
    test_calls_while_other_code_is_linked,
    test_concurrent_first_calls_all_enter_the_body,
    test_lazy_functions_call_lazy_functions,
    test_nothing_is_linked_before_the_first_call,
    test_the_first_call_may_come_from_a_thread_without_python,
)
from tests.orc.test_redirect import (  # noqa: F401 - likewise
    CALLER,
    VERSIONS,
    test_a_definition_that_cannot_be_linked_changes_nothing,
    test_a_function_is_redirected,
    test_a_function_may_be_redirected_before_it_is_looked_up,
    test_a_redirection_while_the_body_is_linked_prevails,
    test_a_removed_body_is_not_called_any_more,
    test_calls_under_load_go_to_the_old_function_or_to_the_new_one,
    test_definitions_given_by_name_are_linked_when_they_are_called,
    test_removal_of_the_old_body_does_not_affect_a_redirected_stub,
    test_removed_functions_cannot_be_redirected,
)
from tests.orc.units import IS_LONG

# Kinds of memory do not depend on the processor, and emulators are slow.
KINDS = [
    *(s for s in PIPES if s.memory == "shared" or s.kind == "jitlink"),
    *(s for s in FOREIGN if s.memory == "shared" or IS_LONG),
]


@pytest.fixture(params=KINDS, ids=str)
def executor(request: pytest.FixtureRequest) -> Iterator[RemoteExecutorProcessControl]:
    with started(request.param) as executor:
        yield executor


@pytest.fixture
def lazy(executor: RemoteExecutorProcessControl) -> Iterator[StubSession]:
    with stub_session(executor=executor) as session:
        yield session


@pytest.fixture
def session(lazy: StubSession) -> StubSession:
    lazy.add(lazy.bodies, VERSIONS)
    lazy.add(lazy.main, CALLER)
    return lazy


def test_arguments_of_the_first_call(lazy: StubSession) -> None:
    """All registers that hold arguments arrive in the function that is linked meanwhile."""
    lazy.add(
        lazy.bodies,
        """
        double f(int a, long b, short c, char d, long e, long f, long g, double h, float i,
                 double j, double k, double l, double m, double n, double o, double p) {
            return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + 8 * h + 9 * i + 10 * j
                + 11 * k + 12 * l + 13 * m + 14 * n + 15 * o + 16 * p;
        }
        """,
    )
    reexport(lazy, "f")
    types = [ctypes.c_int, ctypes.c_long, ctypes.c_short, ctypes.c_char]
    types += [ctypes.c_long] * 3 + [ctypes.c_double, ctypes.c_float] + [ctypes.c_double] * 7
    function = lazy.function("f", ctypes.c_double, *types)
    values = [1, 2, 3, b"\4", *range(5, 17)]
    assert function(*values) == sum(n * n for n in range(1, 17))


def test_native_callers_continue_at_the_landing(executor: RemoteExecutorProcessControl) -> None:
    with stub_session(executor=executor) as place:
        place.add(place.main, "long landing(void) { return -5; } double other(void);")
        with stub_session(place.address("landing"), executor) as lazy:
            lazy.add(lazy.main, "long f(int); long caller(void) { return f(1) * 2; }")
            reexport(lazy, "f")
            assert lazy.function("caller", ctypes.c_long)() == -10
            assert lazy.function("f", ctypes.c_long)() == -5
            assert [isinstance(error, LazyCallError) for error in lazy.errors] == [True] * 2


@pytest.mark.parametrize("setting", PIPES[:1], ids=str)
def test_native_callers_without_a_landing_abort(setting: Setting) -> None:
    with started(setting) as executor, stub_session(executor=executor) as lazy:
        reexport(lazy, "f")
        lazy.add(lazy.main, "int f(void); int caller(void) { return f() + 1; }")
        with pytest.raises(ExecutorCrashedError) as caught:
            lazy.function("caller")()
        assert caught.value.signal == signal.SIGABRT
        assert [str(error) for error in lazy.errors] == [
            "f in main was called and could not be linked: undefined symbol: f"
        ]


def test_two_managers_of_one_executor(executor: RemoteExecutorProcessControl) -> None:
    with stub_session(executor=executor) as first, stub_session(executor=executor) as second:
        for number, lazy in enumerate((first, second)):
            lazy.add(lazy.bodies, f"int f(void) {{ return {number}; }}")
            reexport(lazy, "f")
        others = IndirectStubsManager(first.layer)
        first.main.define(others.unit({"g": first.address("f")}))
        functions = first.function("f"), second.function("f"), first.function("g")
        assert [function() for function in functions] == [0, 1, 0]
