"""The same calls of a library in this process and in another one."""

import ctypes as c
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import jitlink
from jitlink.abi.buffers import In, InOut, Out
from jitlink.executor import ExecutorCrashedError
from jitlink.library import Library
from jitlink.sps import WrapperFunctionResult
from tests.executor.remote.executors import FOREIGN, PIPES, Setting, started
from tests.runtime.structs import DECLARATIONS, Big, Pair, Small
from tests.toolchain import HOST_TARGET, compile_c

SOURCE = (
    DECLARATIONS
    + r"""
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
int add(int a, int b) { return a + b; }
double mix(int a, double b, float c, long d, char e, short f, unsigned g, long long h, double i,
           int j, int k, double l, double m, double n, double o, double p, double q, double r) {
  return a + b * 2 + c * 3 + d * 4 + e * 5 + f * 6 + g * 7 + h * 8 + i * 9 + j * 10 + k * 11 + l +
         m * 13 + n * 14 + o * 15 + p * 16 + q * 17 + r * 18;
}
struct small swap_small(struct small s) { return (struct small){(int)s.b, s.a}; }
struct pair swap_pair(struct pair p) { return (struct pair){p.y, p.x}; }
struct big twice(struct big b, int n) {
  for (int i = 0; i < 5; i++) b.a[i] *= n;
  return b;
}
long sum(int n, ...) {
  va_list list;
  long total = 0;
  va_start(list, n);
  while (n--) total += va_arg(list, int);
  va_end(list);
  return total;
}
double float_sum(int n, ...) {
  va_list list;
  double total = 0;
  va_start(list, n);
  while (n--) total += va_arg(list, double);
  va_end(list);
  return total;
}
void scale(double *a, int n, double k) { while (n--) a[n] *= k; }
size_t length(const char *s) { return strlen(s); }
const char *title(void) { return "a title"; }
const char *nothing(void) { return 0; }
void store(int *p) { *p += 42; }
_Bool is_odd(int x) { return x & 1; }
signed char negate(signed char c) { return -c; }
void copy(char *to, const char *from, int n) { memcpy(to, from, n); }
void crash(void) { *(volatile int *)0 = 1; }
int counter = 5;
struct small pair = {3, 0.5};
int fetch(void) { return counter; }
void shift(int *to, const int *from, int n) { for (int i = 0; i < n; i++) to[i] = from[i] + 1; }
int *address_of_counter(void) { return &counter; }
int get_at(const int *p) { return *p; }
int apply(int (*f)(int, int), int a) { return f(a, a); }
"""
)


@pytest.fixture(params=[None, *PIPES, *FOREIGN], ids=str)
def library(request: pytest.FixtureRequest) -> Iterator[Library]:
    setting: Setting | None = request.param
    target = HOST_TARGET if setting is None else setting.target
    compiled = compile_c(SOURCE, "gcc", ("-O1", "-fPIC"), target=target)
    if setting is None:
        with jitlink.load(compiled) as library:
            yield library
        return
    with started(setting) as executor, jitlink.load(compiled, executor=executor) as library:
        yield library


def _typed(function: Any, restype: object, *argtypes: object) -> Any:  # noqa: ANN401 - a function
    function.restype, function.argtypes = restype, argtypes
    return function


def test_scalars(library: Library) -> None:
    assert library.add(2, 3) == 5
    types = [c.c_int, c.c_double, c.c_float, c.c_long, c.c_char, c.c_short, c.c_uint, c.c_longlong]
    types += [c.c_double, c.c_int, c.c_int, *[c.c_double] * 7]
    values = (1, 2.5, 3.5, -4, b"a", -6, 7, 8, 9.25, 10, -11, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)
    numbers = [97 if each == b"a" else float(each) for each in values]
    expected = sum(n * factor for factor, n in enumerate(numbers, 1))
    expected -= 11 * numbers[11]  # its factor is 1
    assert _typed(library.mix, c.c_double, *types)(*values) == expected
    assert _typed(library.is_odd, c.c_bool, c.c_int)(7) is True
    assert _typed(library.negate, c.c_byte, c.c_byte)(-5) == 5
    with pytest.raises((TypeError, c.ArgumentError), match="argument 1"):
        _typed(library.add, c.c_int, c.c_int, c.c_int)("x", 1)
    with pytest.raises(TypeError, match="arguments"):
        library.add(1)


def test_structs(library: Library) -> None:
    small = _typed(library.swap_small, Small, Small)(Small(3, 8.0))
    assert (small.a, small.b) == (8, 3.0)
    pair = _typed(library.swap_pair, Pair, Pair)(Pair(1.5, 2.5))
    assert (pair.x, pair.y) == (2.5, 1.5)
    big = _typed(library.twice, Big, Big, c.c_int)(Big((c.c_long * 5)(1, 2, 3, 4, 5)), 3)
    assert list(big.a) == [3, 6, 9, 12, 15]


def test_variadic_functions(library: Library) -> None:
    assert library.sum(8, 1, 2, 3, 4, 5, 6, 7, -8) == 20
    float_sum = _typed(library.float_sum, c.c_double, c.c_int)
    values = [c.c_double(n / 2) for n in range(12)]
    assert float_sum(12, *values) == 33.0


def test_arrays(library: Library) -> None:
    scale = _typed(library.scale, None, c.c_void_p, c.c_int, c.c_double)
    array = (c.c_double * 4)(1, 2, 3, 4)
    assert scale(array, 4, 2.5) is None
    assert list(array) == [2.5, 5, 7.5, 10]
    numbers = np.arange(4.0)
    scale(InOut(numbers), 4, 10.0)
    assert numbers.tolist() == [0, 10, 20, 30]
    scale(InOut(array), 2, 2.0)
    assert list(array) == [5, 10, 7.5, 10]
    target = bytearray(5)
    library.copy(Out(target), In(b"hello"), 5)
    assert target == b"hello"


def test_pointers(library: Library) -> None:
    number = c.c_int(8)
    library.store(c.byref(number))
    assert number.value == 50
    _typed(library.store, None, c.POINTER(c.c_int))(c.pointer(number))
    assert number.value == 92


def test_memory_that_arguments_share(library: Library) -> None:
    shift = _typed(library.shift, None, c.c_void_p, c.c_void_p, c.c_int)
    array = (c.c_int * 5)(1, 2, 3, 4, 5)
    shift(array, array, 5)
    assert list(array) == [2, 3, 4, 5, 6]
    shift(array, c.byref(array, 8), 3)
    assert list(array) == [5, 6, 7, 5, 6]
    numbers = np.arange(6, dtype=np.int32)
    shift(Out(numbers[:3]), In(numbers[3:]), 3)
    assert numbers.tolist() == [4, 5, 6, 3, 4, 5]
    shift(InOut(numbers[1:4]), InOut(numbers[2:5]), 3)
    assert numbers.tolist() == [4, 7, 4, 5, 4, 5]


def test_pointers_to_arrays(library: Library) -> None:
    int_pointer = c.POINTER(c.c_int)
    shift = _typed(library.shift, None, int_pointer, int_pointer, c.c_int)
    source, target = np.arange(4, dtype=np.int32), (c.c_int * 4)()
    shift(c.cast(target, int_pointer), source.ctypes.data_as(int_pointer), 4)
    assert list(target) == [1, 2, 3, 4]


def test_pointers_that_functions_return(library: Library) -> None:
    int_pointer = c.POINTER(c.c_int)
    address = _typed(library.address_of_counter, int_pointer)()
    assert library.get_at(address) == 5
    assert library.get_at(c.cast(address, c.c_void_p)) == 5
    typed = _typed(library.get_at, c.c_int, int_pointer)
    assert typed(address) == 5
    # ctypes takes the object itself for a pointer to it.
    assert typed(c.c_int(7)) == 7
    with pytest.raises((TypeError, c.ArgumentError), match="expected "):
        typed(c.cast(address, c.c_void_p))


def test_functions_as_arguments(library: Library) -> None:
    binary = c.CFUNCTYPE(c.c_int, c.c_int, c.c_int)
    assert library.apply(library.add, 21) == 42
    assert _typed(library.apply, c.c_int, c.c_void_p, c.c_int)(library.add, 4) == 8
    if library.add.__class__.__name__ == "RemoteFunction":
        assert _typed(library.apply, c.c_int, binary, c.c_int)(library.add, 3) == 6
        with pytest.raises(TypeError, match="a function of this process cannot be called"):
            library.apply(c.CDLL(None).abs, 1)
    assert library.apply(binary(lambda a, b: a * b), 3) == 9


def test_strings(library: Library) -> None:
    assert _typed(library.length, c.c_size_t, c.c_char_p)(b"hello") == 5
    assert library.length(b"x" * 10_000) == 10_000
    assert _typed(library.nothing, c.c_char_p)() is None


def test_a_string_that_is_returned(library: Library) -> None:
    assert _typed(library.title, c.c_char_p)() == b"a title"


def test_variables(library: Library) -> None:
    counter = library.variable("counter", c.c_int)
    counter.value = 77
    assert library.fetch() == 77
    assert counter.value == 77
    with pytest.raises(jitlink.SymbolError, match="pair has 16 bytes"):
        library.variable("pair", c.c_char * 17)


def test_threads(library: Library) -> None:
    results: dict[int, int] = {}

    def call(first: int) -> None:
        for n in range(first, first + 30):
            results[n] = library.add(n, 1)

    threads = [threading.Thread(target=call, args=(n * 100,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(result == n + 1 for n, result in results.items())
    assert len(results) == 180


@pytest.mark.parametrize("setting", PIPES, ids=str)
def test_a_call_that_crashes(setting: Setting) -> None:
    compiled = compile_c(SOURCE, "gcc", ("-O1", "-fPIC"))
    with started(setting) as executor:
        library = jitlink.load(compiled, executor=executor)
        with pytest.raises(ExecutorCrashedError, match="SIGSEGV"):
            library.crash()
        with pytest.raises(ExecutorCrashedError, match="SIGSEGV"):
            library.add(1, 2)
        library.close()


def test_functions_keep_the_code(library: Library) -> None:
    add = library.add
    library.close()
    assert add(2, 2) == 4
    with pytest.raises(AttributeError, match="closed"):
        library.fetch()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (bytes(7), "__jitlink_call failed: "),
        (bytes(8 * 5), "memory of other sizes"),
        (bytes(8 * 4) + (1).to_bytes(8, "little") + bytes(8), "memory of other sizes"),
        (bytes(8 * 4) + (1 << 60).to_bytes(8, "little"), "__jitlink_call failed: "),
    ],
)
def test_results_that_do_not_fit_the_call(
    data: bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = compile_c(SOURCE, "gcc", ("-O1", "-fPIC"))
    with started(PIPES[0]) as executor, jitlink.load(compiled, executor=executor) as library:
        number = c.c_int(1)
        library.store(c.byref(number))

        async def lie(*_arguments: object, **_options: object) -> WrapperFunctionResult:
            return WrapperFunctionResult(data)

        with monkeypatch.context() as patch:
            patch.setattr(executor, "call_wrapper", lie)
            with pytest.raises(jitlink.ExecutorError, match=message):
                library.store(c.byref(number))
        assert number.value == 43
