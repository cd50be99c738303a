"""Calls between Python and linked code."""

import ctypes
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jitlink.errors import DuplicateDefinitionError
from jitlink.orc import ExecutorAddr, ExecutorSymbolDef, JITSymbolFlags
from tests.orc.jits import CountedJIT, compiled, counted_jit

SENSOR = """
int read_sensor(int channel);
int sum(int first, int last) {
    int total = 0;
    for (int channel = first; channel <= last; channel++) total += read_sensor(channel);
    return total;
}
"""
Prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)


@pytest.fixture
def jit() -> Iterator[CountedJIT]:
    with counted_jit() as created:
        yield created


def annotated(channel: ctypes.c_int) -> ctypes.c_int:
    return channel * 10  # type: ignore[operator, return-value]


def plain(channel: int) -> int:
    return channel * 10


class Sensor:
    """Multiplies its argument by a factor."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def read(self, channel: ctypes.c_int) -> ctypes.c_int:
        return channel * self.factor  # type: ignore[operator, return-value]

    def __call__(self, channel: int) -> int:
        return channel * self.factor


@pytest.mark.parametrize(
    "function",
    [annotated, (plain, Prototype), Prototype(plain), Sensor(10).read, (Sensor(10), Prototype),
     Prototype(Sensor(10)), (lambda channel: channel * 10, Prototype)],
    ids=["annotated", "pair", "decorated", "method", "object", "decorated object", "lambda"],
)  # fmt: skip
def test_linked_code_calls_python(jit: CountedJIT, function: Callable[..., Any]) -> None:
    jit.define({"read_sensor": function})
    jit.add_object(compiled(SENSOR))
    assert jit.lookup("sum")(1, 4) == 100
    flags = jit.session.lookup(jit.main, "read_sensor")["read_sensor"].flags
    assert flags == JITSymbolFlags.EXPORTED | JITSymbolFlags.CALLABLE
    assert jit.lookup("read_sensor")(3) == 30


def test_a_jitdylib_takes_functions_by_name(jit: CountedJIT) -> None:
    jit.main.define({"read_sensor": annotated, "somewhere": 0x1234})
    jit.add_object(compiled(SENSOR))
    assert jit.lookup("sum")(1, 4) == 100
    assert jit.lookup("somewhere") == 0x1234


def test_a_c_function_is_given_as_it_is(jit: CountedJIT) -> None:
    c_abs = ctypes.CDLL(None).abs
    jit.define({"read_sensor": c_abs})
    jit.add_object(compiled(SENSOR))
    assert jit.lookup("read_sensor") == ctypes.cast(c_abs, ctypes.c_void_p).value
    assert jit.lookup("sum")(-2, 1) == 4


def test_addresses_and_functions_together(jit: CountedJIT) -> None:
    jit.define({"read_sensor": annotated, "somewhere": 0x1234})
    jit.add_object(
        compiled(SENSOR + "extern char somewhere[]; char *where(void) { return somewhere; }")
    )
    where = jit.lookup("where")
    where.restype = ctypes.c_void_p
    assert where() == 0x1234
    assert jit.lookup("sum")(0, 1) == 10


@pytest.mark.parametrize(
    ("kind", "value", "declared"),
    [(ctypes.c_double, 2.5, "double"), (ctypes.c_float, 0.5, "float"),
     (ctypes.c_int64, -(1 << 40), "long"), (ctypes.c_uint8, 200, "unsigned char"),
     (ctypes.c_void_p, 0x7000_0000_0000, "void *"), (ctypes.c_bool, True, "_Bool")],
    ids=["double", "float", "long", "unsigned char", "pointer", "bool"],
)  # fmt: skip
def test_values_pass_both_ways(
    jit: CountedJIT, kind: type[Any], value: object, declared: str
) -> None:
    seen: list[object] = []

    def give(given: object) -> object:
        seen.append(given)
        if value != given:
            raise AssertionError(given)
        return value

    jit.define({"give": (give, ctypes.CFUNCTYPE(kind, kind))})
    source = f"{declared} give({declared}); {declared} pass({declared} x) {{ return give(x); }}"
    jit.add_object(compiled(source))
    function = jit.lookup("pass")
    function.argtypes, function.restype = [kind], kind
    assert function(value) == value
    assert seen == [value]


def test_functions_without_a_result(jit: CountedJIT) -> None:
    seen: list[int] = []

    def record(number: ctypes.c_int) -> None:
        seen.append(number)  # type: ignore[arg-type]

    jit.define({"record": record})
    jit.add_object(compiled("void record(int); void f(void) { record(1); record(2); }"))
    function = jit.lookup("f")
    function.restype = None
    assert function() is None
    assert seen == [1, 2]


# Exceptions


def failing(channel: int) -> int:
    if channel == 3:
        raise KeyError(channel)
    return channel


def test_the_caller_gets_the_exception_and_c_code_zero(jit: CountedJIT) -> None:
    after: list[int] = []

    def note(total: int) -> None:
        after.append(total)

    jit.define(
        {"read_sensor": (failing, Prototype), "note": (note, ctypes.CFUNCTYPE(None, ctypes.c_int))}
    )
    jit.add_object(compiled(SENSOR + "void note(int); void f(void) { note(sum(1, 4)); }"))
    for _ in range(2):
        with pytest.raises(KeyError) as caught:
            jit.lookup("f")()
        assert caught.value.args == (3,)
        assert caught.traceback[-1].name == "failing"
    # 1 + 2 + 0 + 4
    assert after == [7, 7]
    assert jit.lookup("sum")(1, 2) == 3


@pytest.mark.parametrize("function", [Prototype(failing), (failing, Prototype)])
def test_exceptions_of_decorated_functions_too(
    jit: CountedJIT, function: Callable[..., Any]
) -> None:
    jit.define({"read_sensor": function})
    jit.add_object(compiled(SENSOR))
    with pytest.raises(KeyError):
        jit.lookup("sum")(3, 3)


@pytest.mark.parametrize(
    ("prototype", "result", "declared"),
    [(ctypes.CFUNCTYPE(ctypes.c_double), 0.0, "double"),
     (ctypes.CFUNCTYPE(ctypes.c_void_p), None, "void *"),
     (ctypes.CFUNCTYPE(ctypes.c_char), b"\0", "char")],
    ids=["double", "pointer", "char"],
)  # fmt: skip
def test_zero_of_every_type(
    jit: CountedJIT, prototype: type[Any], result: object, declared: str
) -> None:
    seen: list[object] = []
    kind = prototype._restype_

    def fail() -> None:
        raise LookupError

    def see(value: object) -> None:
        seen.append(value)

    jit.define({"fail": (fail, prototype), "see": (see, ctypes.CFUNCTYPE(None, kind))})
    source = f"{declared} fail(void); void see({declared}); void f(void) {{ see(fail()); }}"
    jit.add_object(compiled(source))
    with pytest.raises(LookupError):
        jit.lookup("f")()
    assert seen == [result]


@pytest.mark.parametrize("wrong", ["text", None, 1.5])
def test_a_result_of_a_wrong_type_is_an_exception(jit: CountedJIT, wrong: object) -> None:
    jit.define({"read_sensor": (lambda channel: wrong, Prototype)})  # noqa: ARG005
    jit.add_object(compiled(SENSOR))
    with pytest.raises(TypeError):
        jit.lookup("sum")(1, 1)


def test_the_innermost_call_raises(jit: CountedJIT) -> None:
    handled: list[int] = []

    def outer(channel: int) -> int:
        if channel == 3:
            raise KeyError(channel)
        try:
            return int(jit.lookup("sum")(3, 3))
        except KeyError:
            handled.append(channel)
            return 50

    jit.define({"read_sensor": (outer, Prototype)})
    jit.add_object(compiled(SENSOR))
    assert jit.lookup("sum")(1, 2) == 100
    assert handled == [1, 2]


def test_exceptions_that_no_call_can_raise_are_not_lost(
    jit: CountedJIT, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: reported.append(args.exc_value))

    def fail(channel: int) -> int:
        raise KeyError(channel)

    jit.define({"read_sensor": (fail, Prototype)})
    jit.add_object(compiled(SENSOR))
    function = jit.lookup("sum")
    with pytest.raises(KeyError) as caught:
        function(1, 3)
    assert caught.value.args == (1,)
    assert [error.args for error in reported if error] == [(2,), (3,)]
    reported.clear()
    # A call by other means.
    assert ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int)(int(function))(5, 5) == 0
    assert [error.args for error in reported if error] == [(5,)]


def test_each_thread_gets_its_own_exceptions(jit: CountedJIT) -> None:
    jit.define({"read_sensor": (failing, Prototype)})
    jit.add_object(compiled(SENSOR))
    function = jit.lookup("sum")
    results: dict[int, object] = {}

    def work(number: int) -> None:
        for _ in range(200):
            try:
                results[number] = function(number, number)
            except KeyError as error:
                results[number] = error

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert isinstance(results.pop(3), KeyError)
    assert results == {1: 1, 2: 2, 4: 4}


# What cannot be defined


def unannotated(channel):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    return channel


def half(channel: ctypes.c_int):  # type: ignore[no-untyped-def]  # noqa: ANN201
    return channel


@pytest.mark.parametrize(
    ("value", "message"),
    [(unannotated, "no annotation for channel, return"), (half, "no annotation for return"),
     (plain, "are not ctypes types"), ("text", "neither an address nor a function"),
     ((plain, ctypes.c_int), "not a ctypes function type"),
     ((plain, ctypes.CFUNCTYPE(ctypes.POINTER(ctypes.c_int))), "C code cannot call"),
     (abs, "no annotation for x, return"), ((5, Prototype), "neither an address nor a function")],
)  # fmt: skip
def test_what_c_cannot_call_is_refused(
    jit: CountedJIT, value: Callable[..., Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        jit.define({"read_sensor": value})


def test_numbers_that_are_no_addresses_are_refused(jit: CountedJIT) -> None:
    for number in (-1, 1 << 64):
        with pytest.raises(ValueError, match="is not an address"):
            jit.define({"somewhere": number})


def test_a_name_is_defined_once(jit: CountedJIT) -> None:
    jit.define({"read_sensor": annotated})
    with pytest.raises(DuplicateDefinitionError) as caught:
        jit.define({"read_sensor": annotated, "another": 5})
    assert caught.value.name == "read_sensor"


# Lifetime


def test_a_function_lives_as_long_as_its_definition(jit: CountedJIT) -> None:
    sensor = Sensor(2)
    reference = weakref.ref(sensor)
    tracker, other = jit.create_resource_tracker(), jit.create_resource_tracker()
    jit.define({"read_sensor": (sensor, Prototype)}, tracker)
    del sensor
    jit.add_object(compiled(SENSOR), jit.create_resource_tracker())
    function = jit.lookup("sum")
    gc.collect()
    assert function(1, 2) == 6
    tracker.transfer_to(other)
    gc.collect()
    assert function(1, 2) == 6
    jit.remove(other)
    gc.collect()
    assert reference() is None


def test_a_function_that_was_never_used_is_released_too(jit: CountedJIT) -> None:
    sensor = Sensor(2)
    reference = weakref.ref(sensor)
    tracker = jit.create_resource_tracker()
    jit.define({"read_sensor": (sensor, Prototype)}, tracker)
    del sensor
    jit.remove(tracker)
    gc.collect()
    assert reference() is None


def test_a_function_is_released_whose_definition_is_removed_or_overridden(jit: CountedJIT) -> None:
    weak = JITSymbolFlags.EXPORTED | JITSymbolFlags.WEAK
    sensors = [Sensor(2), Sensor(3)]
    references = [weakref.ref(sensor) for sensor in sensors]
    jit.define({"first": (sensors[0], Prototype), "second": (sensors[1], Prototype),
                "third": ExecutorSymbolDef(1, weak)})  # fmt: skip
    del sensors
    jit.main.remove(["first"])
    jit.define({"third": 3})
    gc.collect()
    assert references[0]() is None
    assert references[1]() is not None
    second = jit.lookup("second")
    second.argtypes = [ctypes.c_int]
    assert second(5) == 15
    assert jit.lookup("third") == 3


# Addresses


def test_an_address_is_an_int_and_a_function(jit: CountedJIT) -> None:
    jit.add_object(
        compiled("double half(double x) { return x / 2; } int seven(void) { return 7; }")
    )
    seven, half_of = jit.lookup("seven"), jit.lookup("half")
    assert isinstance(seven, int)
    assert seven == jit.session.lookup(jit.main, "seven")["seven"].address
    assert (seven(), seven.restype, tuple(seven.argtypes)) == (7, ctypes.c_int, ())
    half_of.argtypes, half_of.restype = [ctypes.c_double], ctypes.c_double
    assert half_of(5) == 2.5
    assert (half_of.restype, tuple(half_of.argtypes)) == (ctypes.c_double, (ctypes.c_double,))
    with pytest.raises(ctypes.ArgumentError):
        half_of("text")
    assert hex(seven) in repr(seven)


@pytest.mark.parametrize("number", [-1, 1 << 64])
def test_numbers_that_are_not_addresses(number: int) -> None:
    with pytest.raises(ValueError, match="is not an address"):
        ExecutorAddr(number)
