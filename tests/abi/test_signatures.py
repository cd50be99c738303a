"""Functions of other processes that real compilers have compiled, with arguments of all kinds.

They are called from Python, and call Python functions.
"""

import ctypes as c
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import jitlink
from jitlink.executor import RemoteExecutorProcessControl
from tests.abi.signatures import (
    ROOM,
    CType,
    Generator,
    content,
    packed,
    source_of,
    source_of_callers,
    stored,
)
from tests.executor.remote.foreign import executor_command
from tests.toolchain import CompilerName, compile_c

_COUNT = 150
TARGETS = ("x86_64-linux-gnu", "aarch64-linux-gnu", "riscv64-linux-gnu")


class Answer(c.Structure):
    """The bytes of what the next function returns."""

    _fields_ = (("data", c.c_ubyte * 64),)


class Given(c.Structure):
    """The bytes of what the next function passes on."""

    _fields_ = (("data", c.c_ubyte * ROOM),)


@contextmanager
def _linked(
    source: str | Path, target: str, compiler: CompilerName, level: str
) -> Iterator[jitlink.Library]:
    compiled = compile_c(source, compiler, (level, "-fPIC", "-w"), target=target)
    command = executor_command(target)
    with (
        RemoteExecutorProcessControl.launch(command, timeout=120) as executor,
        jitlink.load(compiled, executor=executor) as library,
    ):
        yield library


@pytest.mark.parametrize("level", ["-O0", "-O2"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("target", TARGETS)
def test_random_signatures(target: str, compiler: CompilerName, level: str) -> None:
    generator = Generator(len(level + compiler + target), has_empty=True)
    signatures = [generator.signature() for _ in range(_COUNT)]
    with _linked(source_of(signatures), target, compiler, level) as library:
        seen = library.variable("seen", c.c_char * ROOM)
        answer = library.variable("answer", Answer)
        for signature in signatures:
            function = getattr(library, signature.name)
            function.argtypes = signature.parameters
            function.restype = signature.result
            arguments = [generator.value(kind) for kind in signature.arguments]
            expected = None if signature.result is None else generator.value(signature.result)
            told = () if expected is None else tuple(bytes(expected))
            answer.value = Answer(told)
            returned = function(*arguments)
            context = source_of([signature])
            assert content(returned) == content(expected), context
            found = stored(signature, bytes(seen.value))
            assert list(map(content, found)) == list(map(content, arguments)), context


@pytest.mark.parametrize("level", ["-O0", "-O2"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("target", TARGETS)
def test_random_signatures_of_callbacks(target: str, compiler: CompilerName, level: str) -> None:
    generator = Generator(len(level + compiler + target))
    signatures = [generator.callback() for _ in range(_COUNT)]
    with _linked(source_of_callers(signatures), target, compiler, level) as library:
        given = library.variable("given", Given)
        answer = library.variable("answer", Answer)
        for signature in signatures:
            arguments = [generator.value(kind) for kind in signature.parameters]
            told = None if signature.result is None else generator.value(signature.result)
            given.value = Given(tuple(packed(signature, arguments, generator.bits(ROOM))))
            found: list[object] = []

            def record(*passed: object, found: list[object] = found, told: CType = told) -> object:
                found += passed
                return None if told is None else told.value

            caller = getattr(library, signature.name)
            caller.restype = None
            caller(c.CFUNCTYPE(signature.result, *signature.parameters)(record))
            context = source_of_callers([signature])
            assert list(map(content, found)) == list(map(content, arguments)), context
            if signature.result is not None:
                returned = signature.result.from_buffer_copy(bytes(answer.value))
                assert content(returned) == content(told), context


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("target", TARGETS)
def test_small_integers_are_extended(target: str, compiler: CompilerName) -> None:
    """Arguments and results of callbacks: compiled code relies on the bits above them."""
    plain = -2 if target.startswith("x86_64") else 0xFE
    cases: list[tuple[str, CType, object, int]] = [
        ("char", c.c_char, b"\xfe", plain),
        ("signed char", c.c_int8, -2, -2),
        ("unsigned char", c.c_uint8, 0xFE, 0xFE),
        ("short", c.c_int16, -2, -2),
        ("unsigned short", c.c_uint16, 0xFFFE, 0xFFFE),
        ("int", c.c_int32, -2, -2),
        ("unsigned", c.c_uint32, 0xFFFF_FFFE, 0xFFFF_FFFE),
        ("_Bool", c.c_bool, True, 1),
        # RISC-V has them extended as if they were signed.
        ("unsigned", c.c_uint32, 0xFFFF_FFFE, -2),
    ]
    source = "".join(
        f"long widen{n}({name} x) {{ return {'' if expected >= 0 else '(signed)'}x; }}\n"
        f"long call{n}({name} (*f)(void)) {{ return {'' if expected >= 0 else '(signed)'}f(); }}\n"
        for n, (name, _, _, expected) in enumerate(cases)
    )
    with _linked(source, target, compiler, "-O2") as library:
        for n, (_, kind, value, expected) in enumerate(cases):
            widen, call = getattr(library, f"widen{n}"), getattr(library, f"call{n}")
            widen.argtypes, widen.restype, call.restype = [kind], c.c_long, c.c_long
            assert (widen(value), call(c.CFUNCTYPE(kind)(lambda value=value: value))) == (
                expected,
                expected,
            )


@pytest.mark.parametrize("target", TARGETS)
def test_unwinding_through_a_call(target: str) -> None:
    source = Path(__file__).with_name("unwind.c")
    with _linked(source, target, "clang", "-O2") as library:
        assert library.reaches_the_start(*range(1, 10)) == 1
