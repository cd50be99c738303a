"""`jitlink.harness`: functions and variables, mocks, errors, and the memory that is left."""

import ctypes
import operator
import re
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

import jitlink
from jitlink.errors import (
    DuplicateDefinitionError,
    UndefinedSymbolError,
    UnknownFormatError,
    UnsupportedObjectError,
)
from jitlink.harnesses import AmbiguousSymbolError, MissingSymbolError, UnusedMocksError
from jitlink.library import ClosedLibraryError
from jitlink.orc.harness import AmbiguousReferenceError, OverrideError
from tests.orc.jits import archived, collect_garbage, compiled
from tests.test_library import Counted
from tests.toolchain import compile_c

INT = ctypes.c_int
GET = ctypes.CFUNCTYPE(INT)
STEP = ctypes.CFUNCTYPE(INT, INT)
DRIVER = """
    int read_port(int port);
    extern volatile int registers[4];
    static int calls = 5;
    int total;
    static int add(int x, int y) { calls++; return x + y; }
    static int read_twice(int port) { return add(read_port(port), read_port(port)); }
    int sum(int port) { return total = read_twice(port) + registers[1]; }
"""


@pytest.fixture
def executor() -> Iterator[Counted]:
    made = Counted()
    yield made
    collect_garbage()
    left = made.used_size
    made.space.close()
    assert left == 0


def plain(source: str, *flags: str, suffix: str = ".c") -> Path:
    return compiled(source, "-O0", *flags, suffix=suffix)


def named(place: Path, source: str) -> Path:
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(plain(source).read_bytes())
    return place


def test_static_functions_and_variables(executor: Counted) -> None:
    registers = (INT * 4)(0, 100)
    read = Mock(side_effect=lambda port: port * 10)
    mocks = {"read_port": (read, STEP), "registers": registers}
    with jitlink.harness(plain(DRIVER), mocks=mocks, executor=executor) as h:
        assert h.add(2, 3) == 5
        assert h.add is h.add
        assert h.variable("calls", INT).value == 6
        assert h.sum(2) == 140
        registers[1] = 7
        assert h.sum(2) == 47
        assert h.variable("total", INT).value == 47
        h.variable("calls", INT).value = 0
        assert h.read_twice(1) == 20
        assert h.variable("calls", INT).value == 1
        assert h.address("sum") == h["sum"]
        assert set(h) == {"sum", "total"}
    assert read.call_count == 6
    read.assert_called_with(1)


def test_unreferenced_functions_are_kept(executor: Counted) -> None:
    source = "static __attribute__((used)) int lonely(void) { return 8; } int other;"
    path = plain(source, "-ffunction-sections", "-fdata-sections")
    with jitlink.harness(path, executor=executor) as h:
        assert h.lonely() == 8


def test_a_function_outlives_its_harness(executor: Counted) -> None:
    mocks = {"read_port": (lambda port: port, STEP), "registers": (INT * 4)()}
    h = jitlink.harness(plain(DRIVER), mocks=mocks, executor=executor)
    read_twice = h.read_twice
    h.close()
    del h
    collect_garbage()
    assert read_twice(3) == 6
    closed = jitlink.harness(plain("int x;"), executor=executor)
    closed.close()
    with pytest.raises(ClosedLibraryError, match="closed"):
        closed.address("x")


def test_a_mock_that_refers_to_the_harness_does_not_keep_it_alive(executor: Counted) -> None:
    def make() -> None:
        def read(port: int) -> int:
            return int(h.add(port, 1))

        mocks = {"read_port": (read, STEP), "registers": (INT * 4)()}
        h = jitlink.harness(plain(DRIVER), mocks=mocks, executor=executor)
        assert h.read_twice(1) == 4

    for _ in range(3):
        make()
    collect_garbage()
    assert executor.used_size == 0


def test_in_the_session_of_all_libraries() -> None:
    for _ in range(3):
        with jitlink.harness(plain(DRIVER), mocks={"read_port": 0x1000, "registers": 0x2000}) as h:
            assert h.add(1, 2) == 3


# Mocks


def test_overriding_what_the_object_defines(executor: Counted) -> None:
    multiply = (operator.mul, ctypes.CFUNCTYPE(INT, INT, INT))
    mocks = {"read_port": (lambda port: port, STEP), "registers": (INT * 4)(), "add": multiply}
    with jitlink.harness(plain(DRIVER), mocks=mocks, executor=executor) as h:
        assert h.read_twice(7) == 49
        with pytest.raises(MissingSymbolError) as caught:
            h.function("add")
        assert caught.value.is_mocked
        assert "is defined by a mock or the harness" in str(caught.value)
        assert h.variable("calls", INT).value == 5


def test_mocks_are_replaced(executor: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Mock(return_value=1)
    mocks = {"read_port": (first, STEP), "registers": (INT * 4)()}
    with jitlink.harness(plain(DRIVER), mocks=mocks, executor=executor) as h:
        with monkeypatch.context() as patch:
            patch.setitem(h.mocks, "read_port", lambda port: port + 1)
            assert h.read_twice(5) == 12
        assert h.mocks["read_port"] is first
        assert h.read_twice(5) == 2
        h.mocks["read_port"] = STEP(lambda port: port + 2)
        assert h.read_twice(5) == 14
        assert list(h.mocks) == ["read_port", "registers"]
        assert len(h.mocks) == 2


@pytest.mark.parametrize(
    ("name", "value", "kind", "message"),
    [
        ("absent", abs, KeyError, "absent"),
        ("registers", abs, TypeError, "it stays as it is"),
        ("read_port", 5, TypeError, "is 5, which is not a Python function"),
        ("read_port", (abs, GET), TypeError, "another prototype"),
        ("read_port", STEP(0x1000), TypeError, "not a Python function"),
    ],
)
def test_impossible_replacements(
    name: str, value: object, kind: type[Exception], message: str
) -> None:
    mocks = {"read_port": (lambda port: port, STEP), "registers": (INT * 4)()}
    with jitlink.harness(plain(DRIVER), mocks=mocks) as h:
        with pytest.raises(kind, match=message):
            h.mocks[name] = value
        assert h.read_twice(4) == 8


@pytest.mark.parametrize("value", [Mock(), "text", abs, (abs, int), None])
def test_impossible_mocks(executor: Counted, value: object) -> None:
    mocks: dict[str, object] = {"read_port": value, "registers": (INT * 4)()}
    with pytest.raises(TypeError, match="read_port"):
        jitlink.harness(plain(DRIVER), mocks=mocks, executor=executor)


def test_mocks_that_are_addresses_or_c_functions(executor: Counted) -> None:
    absolute = ctypes.CDLL(None).abs
    assert (
        jitlink.harness(
            plain("int f(int); int g(int x) { return f(x); }"),
            mocks={"f": absolute},
            executor=executor,
        ).g(-4)
        == 4
    )
    number = INT(9)
    source = "extern int x, y; int g(void) { return x + y; }"
    mocks = {"x": number, "y": ctypes.addressof(number)}
    assert jitlink.harness(plain(source), mocks=mocks, executor=executor).g() == 18


@pytest.mark.parametrize("flags", [("-fPIC",), ("-fPIE",), ("-fno-pic",)])
def test_allocated_variables(executor: Counted, flags: tuple[str, ...]) -> None:
    source = """
        struct { char c; long l; } extern state;
        extern int registers[8];
        int mine = 3;
        int f(void) { registers[7] += state.l + mine; return registers[0]; }
    """

    class State(ctypes.Structure):
        _fields_ = (("c", ctypes.c_char), ("l", ctypes.c_long))

    path = compile_c(source, "gcc", ("-O0", *flags))
    array = INT * 8
    mocks = {"state": State, "registers": array, "mine": INT}
    with jitlink.harness(path, mocks=mocks, executor=executor) as h:
        registers = h.variable("registers", array)
        assert list(registers) == [0] * 8
        registers[0] = 11
        h.variable("state", State).l = 20
        h.variable("mine", INT).value = 300
        assert h.f() == 11
        assert registers[7] == 320
        assert h.mocks["state"] is State
        assert set(h.mocks) == set(mocks)
        assert len(h.mocks) == 3


class FailedError(Exception):
    """Raised by a mock."""


def test_an_exception_reaches_the_test_and_ends_the_mocks(executor: Counted) -> None:
    read = Mock(side_effect=FailedError("port 3"))
    mocks = {"read_port": (read, STEP), "registers": (INT * 4)()}
    with jitlink.harness(plain(DRIVER), mocks=mocks, executor=executor) as h:
        with pytest.raises(FailedError, match="port 3"):
            h.sum(3)
        assert read.call_count == 1
        # The C code continued, with zeros.
        assert h.variable("calls", INT).value == 6
        h.mocks["read_port"] = lambda port: port
        assert h.sum(3) == 6


def test_an_exception_through_several_calls(executor: Counted) -> None:
    def read(port: int) -> int:
        if port == 0:
            raise FailedError
        return int(h.read_twice(port - 1))

    mocks = {"read_port": (read, STEP), "registers": (INT * 4)()}
    with jitlink.harness(plain(DRIVER), mocks=mocks, executor=executor) as h:
        with pytest.raises(FailedError):
            h.read_twice(3)
        h.mocks["read_port"] = lambda port: port
        assert h.read_twice(3) == 6


@pytest.mark.parametrize(
    "restype", [None, ctypes.c_double, ctypes.c_void_p, ctypes.c_char, ctypes.c_wchar]
)
def test_the_result_after_an_exception_is_zero(executor: Counted, restype: type | None) -> None:
    source = "void f(void); void twice(void) { f(); f(); }"
    fail = Mock(side_effect=FailedError)
    mocks = {"f": (fail, ctypes.CFUNCTYPE(restype))}
    with jitlink.harness(plain(source), mocks=mocks, executor=executor) as h:
        h.twice.restype = None
        with pytest.raises(FailedError):
            h.twice()
    assert fail.call_count == 1


# Several objects


def test_static_functions_of_one_name(executor: Counted, tmp_path: Path) -> None:
    first = named(tmp_path / "a.o", "static int f(void) { return 1; } int a(void) { return f(); }")
    second = named(tmp_path / "b.o", "static int f(void) { return 2; } int b(void) { return f(); }")
    with jitlink.harness(first, second, executor=executor) as h:
        with pytest.raises(AmbiguousSymbolError) as caught:
            h.function("f")
        assert (caught.value.name, caught.value.files) == ("f", (str(first), str(second)))
        with pytest.raises(AttributeError, match=re.escape(str(second))):
            _ = h.f
        assert h.file("a.o").f() == 1
        assert h.file(str(second)).f() == 2
        assert h.file("a.o").linked_files == [str(first)]
        assert h.file("a.o").file("a.o").a() == 1
        with pytest.raises(MissingSymbolError):
            h.file("a.o").address("b")
        with pytest.raises(KeyError, match=r"no object c\.o among"):
            h.file("c.o")
    mocks = {"f": (lambda: 7, GET)}
    with jitlink.harness(first, second, mocks=mocks, executor=executor) as h:
        assert (h.a(), h.b()) == (7, 7)


def test_objects_of_one_file_name(executor: Counted, tmp_path: Path) -> None:
    first = named(tmp_path / "x" / "a.o", "int a;")
    second = named(tmp_path / "y" / "a.o", "int b;")
    with jitlink.harness(first, second, executor=executor) as h:
        with pytest.raises(KeyError, match="several objects"):
            h.file("a.o")
        assert h.file(str(second)).address("b") == h["b"]


def test_a_global_function_comes_first(executor: Counted) -> None:
    static = plain("static int f(void) { return 1; } int a(void) { return f(); }")
    shared = plain("int f(void) { return 2; }")
    for inputs in ((static, shared), (shared, static)):
        with jitlink.harness(*inputs, executor=executor) as h:
            assert (h.f(), h.a()) == (2, 1)
            assert h.file(str(static)).f() == 1


def test_archives(executor: Counted, tmp_path: Path) -> None:
    member = plain("static int half(int x) { return x / 2; } int f(int x) { return half(x); }")
    archive = archived(tmp_path / "lib.a", member, plain("int unused;"))
    user = plain("int f(int); int g(int x) { return f(x); }")
    with jitlink.harness(user, archive, executor=executor) as h:
        assert (h.g(8), h.half(8)) == (4, 4)
        assert "unused" not in h
        assert h.file("lib.a(member0.o)").half(2) == 1


def test_a_harness_of_objects(executor: Counted) -> None:
    board = plain("int add(int, int); int read_port(int p) { return add(p, 1); } int registers[4];")
    with jitlink.harness(plain(DRIVER), harness=[board], executor=executor) as h:
        assert h.read_twice(1) == 4
        assert h.read_port(5) == 6


def test_a_harness_of_objects_and_functions(executor: Counted) -> None:
    board = plain("int registers[4]; int sum(int port) { return -1; }")
    mocks = {"read_port": (lambda port: port, STEP)}
    with jitlink.harness(plain(DRIVER), harness=[board], mocks=mocks, executor=executor) as h:
        assert h.sum(3) == -1
    with pytest.raises(DuplicateDefinitionError) as caught:
        jitlink.harness(plain(DRIVER), harness=[board], mocks={"sum": 16}, executor=executor)
    assert (caught.value.first, caught.value.second) == (str(board), "the mocks")


# Errors


def test_functions_that_the_compiler_removed(executor: Counted) -> None:
    text = ".text\n.type crc.constprop.0, @function\ncrc.constprop.0:\nret\n.globl f\nf:\nret\n"
    path = compiled(text, suffix=".s")
    with jitlink.harness(path, executor=executor) as h:
        with pytest.raises(MissingSymbolError) as caught:
            h.address("crc")
        assert caught.value.similar == ("crc.constprop.0",)
        assert caught.value.files == (str(path),)
        assert "perhaps with other parameters" in str(caught.value)
        with pytest.raises(AttributeError, match="may have inlined it"):
            _ = h.absent
        assert h.address("crc.constprop.0")


@pytest.mark.parametrize("name", ["absent", "calls"])
def test_mocks_without_effect(executor: Counted, name: str) -> None:
    # `calls` is a static variable.
    mocks = {"read_port": (abs, STEP), "registers": INT * 4, name: INT}
    with pytest.raises(UnusedMocksError) as caught:
        jitlink.harness(plain(DRIVER), mocks=mocks, executor=executor)
    assert caught.value.names == (name,)
    with jitlink.harness(plain(DRIVER), mocks=mocks, unused_mocks=True, executor=executor) as h:
        assert h.read_twice(-4) == 8


def test_undefined_symbols(executor: Counted) -> None:
    with pytest.raises(UndefinedSymbolError) as caught:
        jitlink.harness(plain(DRIVER), executor=executor)
    assert set(caught.value.names) == {"read_port", "registers"}
    with jitlink.harness(plain(DRIVER), phony_externals=True, executor=executor) as h:
        assert h.add(1, 2) == 3
    with pytest.raises(UndefinedSymbolError, match="getpid"):
        jitlink.harness(
            plain("int getpid(void); int f(void) { return getpid(); }"),
            process_symbols=False,
            executor=executor,
        )


def test_errors_of_the_rules(executor: Counted) -> None:
    one = plain("static int f(void) { return 1; } int a(void) { return f(); }")
    two = plain("static int f(void) { return 2; } int b(void) { return f(); }")
    caller = plain("int f(void); int c(void) { return f(); }")
    with pytest.raises(AmbiguousReferenceError):
        jitlink.harness(one, two, harness=[caller], executor=executor)
    tiny = compiled(".text\n.type t, @function\nt: ret\n", suffix=".s")
    with pytest.raises(OverrideError):
        jitlink.harness(tiny, mocks={"t": 0x1000}, executor=executor)


def test_unusable_inputs(executor: Counted) -> None:
    with pytest.raises(UnknownFormatError):
        jitlink.harness(executor=executor)
    with pytest.raises(UnknownFormatError):
        jitlink.harness(b"text", executor=executor)
    with pytest.raises(UnknownFormatError):
        jitlink.harness(plain("int x;"), harness=[b"text"], executor=executor)
    foreign = compile_c("int x;", target="riscv64-linux-musl")
    with pytest.raises(UnsupportedObjectError, match="riscv64"):
        jitlink.harness(foreign, executor=executor)


class Elsewhere(Counted):
    """An executor that is not this process, as far as its type shows."""


def test_the_example_is_that_of_the_documentation() -> None:
    root = Path(__file__).parents[1]
    source = (root / "examples" / "barometer.c").read_text()
    assert f"```c barometer.c -O0\n{source}```" in (root / "docs" / "harness.md").read_text()
