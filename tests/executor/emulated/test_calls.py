"""Calls of emulated code, and of Python by it."""

import ctypes as c
import threading

import pytest

import jitlink
from jitlink.errors import AllocationError, ExecutorError
from jitlink.executor import Emulated, EmulatedCrashError
from jitlink.graph import MemProt
from tests.executor.emulated.machines import LITTLE, MACHINES, build, loaded

SOURCE = r"""
#include <stdint.h>
struct pair { double x, y; };
struct mixed { int32_t a; float b; };
struct large { int32_t numbers[7]; };
int32_t many(int32_t a, int8_t b, int16_t c, int32_t d, uint8_t e, int32_t f, int32_t g, int32_t h,
             int64_t i, int32_t j, int64_t k) {
  return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + 8 * h + 9 * (int)(i >> 32) + 10 * j +
         11 * (int)(k >> 32);
}
double floats(float a, double b, float c, double d, double e, double f, double g, double h,
              double i, float j) {
  return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + 8 * h + 9 * i + 10 * j;
}
float half(float x) { return x / 2; }
int64_t wide(int32_t high, int64_t low) { return ((int64_t)high << 40) + low; }
struct pair swap(struct pair p) { return (struct pair){p.y, p.x}; }
struct mixed twice(struct mixed m) { return (struct mixed){2 * m.a, 2 * m.b}; }
struct large count(struct large l, int32_t step) {
  for (int n = 0; n < 7; ++n) l.numbers[n] += step;
  return l;
}
int32_t sum(const int32_t *values, int32_t n) {
  int32_t total = 0;
  while (n--) total += *values++;
  return total;
}
void squares(int32_t *out, int32_t n) { for (int32_t i = 0; i < n; ++i) out[i] = i * i; }
int32_t host(int32_t a, double b, struct pair p, int64_t c, int32_t d, int32_t e, int32_t f,
             int32_t g, int32_t h);
int32_t call_host(int32_t x) {
  return host(x, x * 0.5, (struct pair){1.25, 2.5}, 1LL << 33, 1, 2, 3, 4, 5);
}
int32_t apply(int32_t (*f)(int32_t), int32_t x) { return f(x) + f(x + 1); }
int32_t increment(int32_t x) { return x + 1; }
static int32_t numbers[3] = {1, 2, 3};
int32_t *array(void) { return numbers; }
const char *text(void) { return "a text"; }
"""


class Pair(c.Structure):
    """Two doubles."""

    _fields_ = (("x", c.c_double), ("y", c.c_double))


class Mixed(c.Structure):
    """An integer and a float."""

    _fields_ = (("a", c.c_int32), ("b", c.c_float))


class Large(c.Structure):
    """A struct that is passed in memory everywhere."""

    _fields_ = (("numbers", c.c_int32 * 7),)


HOST = c.CFUNCTYPE(c.c_int32, c.c_int32, c.c_double, Pair, c.c_int64, *[c.c_int32] * 5)


def host(*_arguments: object) -> int:
    return 0


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers(machine: str) -> None:
    definitions = {"host": 1}
    with loaded(SOURCE, machine, definitions) as (_, lib):
        lib.many.argtypes = [
            *(
                c.c_int32,
                c.c_int8,
                c.c_int16,
                c.c_int32,
                c.c_uint8,
                c.c_int32,
                c.c_int32,
                c.c_int32,
            ),
            *(c.c_int64, c.c_int32, c.c_int64),
        ]
        numbers = (1, -2, -300, 4, 250, -6, 7, 8, 9 << 32, -10, 11 << 32)
        expected = 1 - 4 - 900 + 16 + 1250 - 36 + 49 + 64 + 81 - 100 + 121
        assert lib.many(*numbers) == expected
        lib.floats.argtypes = [c.c_float, c.c_double, c.c_float, *[c.c_double] * 6, c.c_float]
        lib.floats.restype = c.c_double
        assert lib.floats(*[n + 0.5 for n in range(10)]) == sum(
            (n + 0.5) * (n + 1) for n in range(10)
        )
        lib.half.argtypes, lib.half.restype = [c.c_float], c.c_float
        assert lib.half(3) == 1.5
        lib.wide.argtypes, lib.wide.restype = [c.c_int32, c.c_int64], c.c_int64
        assert lib.wide(-3, 5) == (-3 << 40) + 5


@pytest.mark.parametrize("machine", LITTLE)
def test_structs(machine: str) -> None:
    with loaded(SOURCE, machine, {"host": 1}) as (_, lib):
        lib.swap.argtypes, lib.swap.restype = [Pair], Pair
        swapped = lib.swap(Pair(1.5, 2.5))
        assert (swapped.x, swapped.y) == (2.5, 1.5)
        lib.twice.argtypes, lib.twice.restype = [Mixed], Mixed
        twice = lib.twice(Mixed(-3, 1.25))
        assert (twice.a, twice.b) == (-6, 2.5)
        lib.count.argtypes, lib.count.restype = [Large, c.c_int32], Large
        given = Large((c.c_int32 * 7)(*range(7)))
        assert list(lib.count(given, 10).numbers) == list(range(10, 17))
        assert list(given.numbers) == list(range(7))


def test_structs_of_a_big_endian_machine_are_refused() -> None:
    with loaded(SOURCE, "aarch64_be", {"host": 1}) as (_, lib):
        lib.swap.argtypes = [Pair]
        with pytest.raises(TypeError, match="Pair is not passed by value to a big-endian machine"):
            lib.swap(Pair(1, 2))


@pytest.mark.parametrize("size", [3, 100_000])
@pytest.mark.parametrize("machine", LITTLE)
def test_memory(machine: str, size: int) -> None:
    with loaded(SOURCE, machine, {"host": 1}) as (_, lib):
        values = (c.c_int32 * size)(*range(size))
        total = c.c_int32(sum(range(size))).value
        assert lib.sum(jitlink.In(values), size) == total
        out = (c.c_int32 * size)()
        lib.squares(jitlink.Out(out), size)
        assert out[size - 1] == c.c_int32((size - 1) ** 2).value
        lib.array.restype = c.POINTER(c.c_int32)
        assert lib.array()[:3] == [1, 2, 3]
        lib.text.restype = c.c_char_p
        assert lib.text() == b"a text"


@pytest.mark.parametrize("machine", LITTLE)
def test_python_functions(machine: str) -> None:
    seen: list[tuple[object, ...]] = []

    def record(*arguments: object) -> int:
        seen.append(tuple((a.x, a.y) if isinstance(a, Pair) else a for a in arguments))
        return -7

    with loaded(SOURCE, machine, {"host": (record, HOST)}) as (_, lib):
        assert lib.call_host(6) == -7
        assert seen == [(6, 3.0, (1.25, 2.5), 1 << 33, 1, 2, 3, 4, 5)]
        function = c.CFUNCTYPE(c.c_int32, c.c_int32)
        assert lib.apply(function(lambda x: 10 * x), 3) == 70
        # A function of the machine, and Python that calls the machine while it runs.
        assert lib.apply(lib.increment, 3) == 9
        assert lib.apply(function(lambda x: lib.apply(lib.increment, x)), 3) == (4 + 5) + (5 + 6)


@pytest.mark.parametrize("machine", LITTLE)
def test_an_exception_of_python_is_raised_by_the_call(machine: str) -> None:
    def fail(*_arguments: object) -> int:
        raise KeyError("a reason")

    with loaded(SOURCE, machine, {"host": (fail, HOST)}) as (_, lib):
        with pytest.raises(KeyError, match="a reason"):
            lib.call_host(1)
        assert lib.increment(1) == 2


@pytest.mark.parametrize("machine", MACHINES)
def test_code_goes_on_when_a_call_of_its_callback_has_failed(machine: str) -> None:
    source = """
    int outer(int (*f)(int), int a, int b, int c, int d, int e) {
      return f(a) * 100000 + a * 10000 + b * 1000 + c * 100 + d * 10 + e;
    }
    int crash(int x) { return *(volatile int *)0 + x; }
    """
    with loaded(source, machine) as (_, lib):

        def fail(_x: int) -> int:
            with pytest.raises(EmulatedCrashError):
                lib.outer(lib.crash, 6, 7, 8, 9, 1)
            return 1

        function = c.CFUNCTYPE(c.c_int32, c.c_int32)
        assert lib.outer(function(fail), 1, 2, 3, 4, 5) == 112345


@pytest.mark.parametrize("machine", MACHINES)
def test_arguments_that_the_stack_cannot_hold(machine: str) -> None:
    source = "int sum(const char *a, const char *b) { return *a + *b; }"
    with loaded(source, machine, stack_size=0x1000) as (executor, lib):
        guard, below = executor.calls.guard, 0x1000
        prot = MemProt.READ | MemProt.WRITE
        executor.memory.allocate_at(guard.address - below, below, prot)
        before = executor.processor.read(guard.address - below, below + guard.size)
        assert lib.sum(b"\1" * 1500, b"\2" * 1500) == 3
        with pytest.raises(AllocationError, match="has no room for 0xbb9 bytes of a call"):
            lib.sum(b"\1" * 3000, b"\2" * 3000)
        assert executor.processor.read(guard.address - below, below + guard.size) == before
        assert lib.sum(b"\1" * 5000, b"\2" * 1500) == 3


def test_recursion_through_python() -> None:
    source = "int down(int); int f(int n) { return n ? down(n - 1) + 1 : 0; }"
    prototype = c.CFUNCTYPE(c.c_int, c.c_int)
    with Emulated("riscv64") as machine:
        functions: dict[str, object] = {}
        path = build(source, "riscv64")

        def down(n: int) -> int:
            result: int = functions["f"](n)  # type: ignore[operator]
            return result

        with jitlink.load(path, executor=machine, definitions={"down": (down, prototype)}) as lib:
            functions["f"] = lib.f
            assert lib.f(40) == 40


def test_threads_take_turns() -> None:
    with loaded(SOURCE, "aarch64", {"host": 1}) as (_, lib):
        results: list[int] = []
        values = (c.c_int32 * 1000)(*range(1000))

        def work() -> None:
            results.extend(lib.sum(jitlink.In(values), 1000) for _ in range(20))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert results == [sum(range(1000))] * 80


def test_two_machines_at_once() -> None:
    prototype = c.CFUNCTYPE(c.c_int32, c.c_int32)
    with (
        loaded(SOURCE, "aarch64", {"host": 1}) as (machine, one),
        loaded(SOURCE, "riscv32", {"host": 1}) as (_, other),
    ):
        assert one.apply(prototype(other.increment), 1) == 5
        with pytest.raises(TypeError, match="another process"):
            jitlink.load(
                build("int g(int); int h(void) { return g(1); }", "aarch64"),
                executor=machine,
                definitions={"g": other.increment},
            )


def test_functions_cannot_be_called_when_the_machine_is_closed() -> None:
    path = build("int f(void) { return 1; }", "aarch64")
    machine = Emulated("aarch64")
    with jitlink.load(path, executor=machine) as lib:
        function = lib.f
        assert function() == 1
        machine.close()
        machine.close()
        assert not machine.is_alive
        with pytest.raises(ExecutorError, match="the emulated machine is closed"):
            function()


def test_a_machine_cannot_be_closed_by_its_code() -> None:
    prototype = c.CFUNCTYPE(c.c_int)
    path = build("int host(void); int f(void) { return host(); }", "aarch64")
    with Emulated("aarch64") as machine:
        definitions = {"host": (machine.close, prototype)}
        with jitlink.load(path, executor=machine, definitions=definitions) as lib:
            with pytest.raises(ExecutorError, match="cannot be closed by a call of its own"):
                lib.f()
            assert machine.is_alive


def test_a_function_that_was_released() -> None:
    source = """
    static int (*kept)(int);
    void remember(int (*f)(int)) { kept = f; }
    int call(void) { return kept(1); }
    """
    prototype = c.CFUNCTYPE(c.c_int, c.c_int)
    with loaded(source, "aarch64") as (_, lib):
        function = prototype(lambda x: x + 5)
        lib.remember(function)
        assert lib.call() == 6
        del function
        with pytest.raises(EmulatedCrashError, match="a Python function that was released"):
            lib.call()


def test_code_of_another_machine_is_refused() -> None:
    path = build("int f(void) { return 1; }", "riscv64")
    with (
        Emulated("aarch64") as machine,
        pytest.raises(jitlink.UnsupportedObjectError, match="code for riscv64"),
    ):
        jitlink.load(path, executor=machine)


def test_soft_float() -> None:
    source = """
    #include <math.h>
    double mean(double a, float b) { return (a + b) / 2; }
    double root(double x) { return sqrt(x) + floor(x); }
    """
    path = build(source, "riscv32", "-mcpu=generic_rv32+m+a+c", "-mabi=ilp32")
    with (
        Emulated("riscv32", abi="ilp32") as machine,
        jitlink.load(path, executor=machine) as lib,
    ):
        lib.mean.argtypes, lib.mean.restype = [c.c_double, c.c_float], c.c_double
        assert lib.mean(1.5, 2.25) == 1.875
        lib.root.argtypes, lib.root.restype = [c.c_double], c.c_double
        assert lib.root(6.25) == 8.5
    with pytest.raises(ExecutorError, match="aarch64 has no ABI 'ilp32'"):
        Emulated("aarch64", abi="ilp32")


def test_unknown_machines() -> None:
    with pytest.raises(ExecutorError, match="no emulated machine 'armv7m'; there are aarch64"):
        Emulated("armv7m")
