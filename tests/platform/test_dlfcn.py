"""dlopen and its kin, called by linked code."""

from __future__ import annotations

import ctypes
import threading

import pytest

from jitlink.orc import ExecutorAddr, JITDylib
from tests.platform.jits import NotingJIT, compiled, life

CALLS = """
void *opened;
int open_it(const char *name) { opened = jit_dlopen(name, 1); return opened != 0; }
int close_it(void) { return jit_dlclose(opened); }
int update_it(void) { return jit_dlupdate(opened); }
int call_it(const char *name) {
  int (*function)(void) = jit_dlsym(opened, name);
  return function ? function() : -1;
}
const char *error(void) { return jit_dlerror(); }
"""


class Caller:
    """Calls dlopen and its kin from a JITDylib."""

    def __init__(self, jit: NotingJIT) -> None:
        jit.add_object(compiled(CALLS))
        self._jit = jit

    def _function(self, name: str) -> ExecutorAddr:
        return self._jit.lookup(name)

    def open(self, name: str | None) -> bool:
        encoded = None if name is None else name.encode()
        return bool(self._function("open_it")(encoded))

    def call(self, name: str) -> int:
        return int(self._function("call_it")(name.encode()))

    def close(self) -> int:
        return int(self._function("close_it")())

    def update(self) -> int:
        return int(self._function("update_it")())

    def error(self) -> str | None:
        function = self._function("error")
        function.restype = ctypes.c_char_p
        text: bytes | None = function()
        return None if text is None else text.decode()


@pytest.fixture
def caller(jit: NotingJIT) -> Caller:
    return Caller(jit)


@pytest.fixture
def plugin(jit: NotingJIT) -> JITDylib:
    dylib = jit.create_jitdylib("plugin")
    jit.add_object(life(10), dylib=dylib)
    return dylib


@pytest.mark.usefixtures("plugin")
def test_opening_counts(jit: NotingJIT, caller: Caller) -> None:
    assert caller.open("plugin")
    assert caller.open("plugin")
    assert jit.take() == [10]
    assert caller.call("f10") == 10
    assert caller.close() == 0
    assert jit.take() == [11]
    assert caller.close() == 0
    # In glibc's order.
    assert jit.take() == [13, 12]
    assert caller.close() == -1
    assert caller.error() == "JITDylib plugin is not open"
    assert caller.error() is None


def test_initialize_and_dlopen_each_hold_a_reference(
    jit: NotingJIT, caller: Caller, plugin: JITDylib
) -> None:
    jit.initialize(plugin)
    assert caller.open("plugin")
    jit.deinitialize(plugin)
    assert jit.take() == [10]
    assert caller.close() == 0
    assert jit.take() == [13, 12]


def test_dlclose_does_not_release_what_initialize_holds(
    jit: NotingJIT, caller: Caller, plugin: JITDylib
) -> None:
    jit.initialize(plugin)
    assert caller.open("plugin")
    assert caller.close() == 0
    assert caller.close() == -1
    assert caller.error() == "JITDylib plugin has no dlopen left to take back"
    assert jit.take() == [10]


def test_updating_runs_what_was_added(jit: NotingJIT, caller: Caller, plugin: JITDylib) -> None:
    assert caller.open("plugin")
    jit.add_object(life(20), dylib=plugin)
    assert jit.take() == [10]
    assert caller.update() == 0
    assert caller.update() == 0
    assert jit.take() == [20]


def test_a_jitdylib_without_code_can_be_opened(jit: NotingJIT, caller: Caller) -> None:
    jit.create_jitdylib("empty")
    assert caller.open("empty")
    assert caller.call("not_defined_anywhere") == -1
    assert caller.error() == "undefined symbol: not_defined_anywhere"
    assert caller.close() == 0


def test_no_name_is_the_caller_itself(caller: Caller) -> None:
    assert caller.open(None)
    assert caller.call("close_it") == 0


def test_what_does_not_exist_is_an_error(jit: NotingJIT, caller: Caller) -> None:
    assert not caller.open("missing")
    assert caller.error() == "there is no JITDylib missing"
    jit.session.create_jitdylib("not set up")
    assert not caller.open("not set up")
    assert caller.error() == "there is no JITDylib not set up"


def test_a_failed_link_is_an_error(jit: NotingJIT, caller: Caller, plugin: JITDylib) -> None:
    source = "void missing(void); BEGIN(begin) { note(99); missing(); } int g(void) { return 1; }"
    jit.add_object(compiled(source), dylib=plugin)
    assert not caller.open("plugin")
    message = caller.error()
    assert message is not None
    assert message.startswith("undefined symbol: missing")
    assert jit.take() == []


def test_hidden_symbols_are_not_found(jit: NotingJIT, caller: Caller, plugin: JITDylib) -> None:
    source = '__attribute__((visibility("hidden"))) int inside(void) { return 1; }'
    jit.add_object(compiled(source), dylib=plugin)
    assert caller.open("plugin")
    assert caller.call("inside") == -1


def test_errors_are_those_of_the_calling_thread(caller: Caller) -> None:
    assert not caller.open("missing")
    others: list[str | None] = []
    thread = threading.Thread(target=lambda: others.append(caller.error()))
    thread.start()
    thread.join()
    assert others == [None]
    assert caller.error() == "there is no JITDylib missing"


def test_an_initializer_may_open_another(jit: NotingJIT, plugin: JITDylib) -> None:
    source = 'BEGIN(begin) { note(1); jit_dlopen("plugin", 1); note(2); }'
    jit.add_object(compiled(source), dylib=jit.create_jitdylib("opener"))
    jit.add_object(compiled('BEGIN(begin) { jit_dlopen("opener", 1); note(3); }'))
    jit.initialize()
    assert jit.take() == [1, 10, 2, 3]
    assert jit.session.run(lambda: jit.elf_platform.state_of(plugin).dl_ref_count) == 1


def test_an_initializer_may_open_its_own_jitdylib(jit: NotingJIT) -> None:
    jit.add_object(compiled('BEGIN(begin) { note(jit_dlopen("main", 1) != 0); note(2); }'))
    jit.initialize()
    assert jit.take() == [1, 2]


def test_an_initializer_may_open_another_through_python(jit: NotingJIT, plugin: JITDylib) -> None:
    jit.define({"open_it": (lambda: jit.initialize(plugin), ctypes.CFUNCTYPE(None))})
    jit.add_object(compiled("void open_it(void); BEGIN(begin) { note(1); open_it(); note(2); }"))
    jit.initialize()
    assert jit.take() == [1, 10, 2]


def test_an_initializer_may_call_python_that_calls_what_opens_another(
    jit: NotingJIT, plugin: JITDylib
) -> None:
    del plugin
    source = 'int g(void) { return jit_dlopen("plugin", 1) != 0; }'
    jit.add_object(compiled(source), dylib=(dylib := jit.create_jitdylib("between")))
    jit.define({
        "call_it": (lambda: int(jit.lookup("g", dylib=dylib)()), ctypes.CFUNCTYPE(ctypes.c_int))
    })  # fmt: skip
    jit.add_object(compiled("int call_it(void); BEGIN(begin) { note(call_it()); }"))
    jit.initialize()
    assert jit.take() == [10, 1]


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize("where", ["END(end)", "static void f(void)"])
def test_what_runs_at_the_end_may_open_and_close(jit: NotingJIT, where: str) -> None:
    """A finaliser, or an exit handler."""
    begin = "" if where.startswith("END") else "BEGIN(begin) { atexit(f); }"
    jit.add_object(compiled(
        f'{where} {{ note(1); jit_dlclose(jit_dlopen("plugin", 1)); note(2); }} {begin}'
    ))  # fmt: skip
    jit.initialize()
    jit.deinitialize()
    assert jit.take() == [1, 10, 13, 12, 2]


def test_threads_open_and_close(jit: NotingJIT, caller: Caller) -> None:
    source = (
        "int round_trip(const char *name) {"
        "  void *handle = jit_dlopen(name, 1);"
        '  int (*function)(void) = jit_dlsym(handle, "answer");'
        "  int result = function ? function() : -1;"
        "  return jit_dlclose(handle) ? -2 : result;"
        "}"
    )
    jit.add_object(compiled(source))
    del caller
    round_trip = jit.lookup("round_trip")
    for number in range(8):
        dylib = jit.create_jitdylib(f"lib{number}")
        body = f"static int x; BEGIN(begin) {{ x = {number}; }} int answer(void) {{ return x; }}"
        jit.add_object(compiled(body), dylib=dylib)
    results: dict[int, set[int]] = {}

    def run(number: int) -> None:
        name = f"lib{number}".encode()
        results[number] = {round_trip(name) for _ in range(25)}

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: {number} for number in range(8)}


def test_a_program_may_define_its_own(jit: NotingJIT) -> None:
    jit.add_object(compiled("void *dlopen(const char *n, int m) { return (void *)7; }"))
    jit.add_object(compiled(
        "void *dlopen(const char *, int); char *dlerror(void);"
        "int f(void) { return dlerror() == 0 ? (int)(long)dlopen(0, 0) : -1; }"
    ))  # fmt: skip
    assert jit.lookup("f")() == 7
