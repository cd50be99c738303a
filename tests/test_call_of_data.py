"""What can be called: symbols in executable memory, whatever their type; others are errors."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest

import jitlink
from jitlink.errors import NotAFunctionError
from jitlink.orc.interface import HostSymbol
from tests.orc.jits import archived, compiled

SOURCE = """
    .text
    .globl typed, untyped
    .type typed, @function
typed:
    movl $1, %eax
    ret
untyped:
    movl $2, %eax
    ret
    .globl resolver, chosen
    .type chosen, @gnu_indirect_function
chosen:
resolver:
    leaq typed(%rip), %rax
    ret
    .globl in_code
    .type in_code, @object
in_code:
    movl $3, %eax
    ret
    .data
    .globl counter, untyped_data
    .type counter, @object
    .size counter, 4
counter: .long 5
untyped_data: .long 6
    .section .rodata, "a"
    .globl constant
constant: .long 7
    .bss
    .globl buffer
buffer: .zero 64
    .comm tentative, 4, 4
    .section .tdata, "awT", @progbits
    .globl local
    .type local, @object
local: .long 8
    .globl number
    number = 9
"""
CODE = {"typed": 1, "untyped": 2, "chosen": 1, "in_code": 3}
DATA = ("counter", "untyped_data", "constant", "buffer", "tentative", "local", "number")


@pytest.fixture
def jit() -> Iterator[jitlink.LLJIT]:
    with jitlink.LLJIT() as created:
        created.add_object(compiled(SOURCE, suffix=".s"))
        yield created


@pytest.mark.parametrize("archive", [False, True])
def test_attributes_of_libraries(archive: bool, tmp_path: Path) -> None:
    path = compiled(SOURCE, suffix=".s")
    if archive:
        path = archived(tmp_path / "lib.a", path)
    with jitlink.load(path) as library:
        for name, result in CODE.items():
            assert getattr(library, name)() == result
            assert library.function(name)() == result
        for name in DATA:
            with pytest.raises(AttributeError, match=rf'{name} is no .*variable\("{name}", TYPE\)'):
                getattr(library, name)
            with pytest.raises(NotAFunctionError) as caught:
                library.function(name)
            assert caught.value.name == name
            assert caught.value.address == library.address(name)
        assert library.variable("counter", ctypes.c_int).value == 5
        assert library.variable("local", ctypes.c_int).value == 8


def test_definitions_that_were_given() -> None:
    pointer = ctypes.CFUNCTYPE(ctypes.c_int)
    buffer = ctypes.create_string_buffer(8)
    definitions: dict[str, HostSymbol] = {
        "given": (lambda: 11, pointer),
        "process": ctypes.CDLL(None).getpid,
        "data": ctypes.addressof(buffer),
        "null": 0,
    }
    source = """
        extern int given(void), process(void); extern char data[], null[] __attribute__((weak));
        int call(void) { return given() + data[0] + (null != 0) - process() + process(); }
    """
    with jitlink.load(compiled(source), definitions=definitions) as library:
        assert library.call() == library.given() == 11
        assert library.process() == ctypes.CDLL(None).getpid()
        for name in ("data", "null"):
            assert not hasattr(library, name)


def test_addresses_of_sessions(jit: jitlink.LLJIT) -> None:
    for name, result in CODE.items():
        address = jit.lookup(name)
        assert address() == address() == result
    for name in DATA:
        address = jit.lookup(name)
        for _ in range(2):
            with pytest.raises(NotAFunctionError, match=f"{name} is no function.*from_address"):
                address()
    assert ctypes.c_int.from_address(jit.lookup("counter")).value == 5
    jit.define({"process": ctypes.cast(ctypes.CDLL(None).getpid, ctypes.c_void_p).value or 0})
    assert jit.lookup("process")() == ctypes.CDLL(None).getpid()


def test_harness() -> None:
    source = "static int seven = 7; static int get(void) { return seven; } int (*p)(void) = get;"
    with jitlink.harness(compiled(source, "-O0")) as tested:
        assert tested.function("get")() == 7
        with pytest.raises(AttributeError, match="seven is no function"):
            _ = tested.seven
        assert tested.variable("seven", ctypes.c_int).value == 7
