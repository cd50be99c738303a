"""Frames are registered with the unwinder exactly as long as their code is in memory."""

from __future__ import annotations

import ctypes
import sys
import time
from functools import cache
from pathlib import Path

import pytest

from jitlink.lljit import LLJIT
from jitlink.orc import FailedToMaterializeError
from tests.platform.jits import NotingJIT, compiled
from tests.toolchain import compile_c, require, run


@cache
def _find_frame() -> ctypes._NamedFuncPointer:
    library = ctypes.CDLL("libgcc_s.so.1")
    find = library["_Unwind_FindEnclosingFunction"]
    find.argtypes, find.restype = (ctypes.c_void_p,), ctypes.c_void_p
    return find


def has_frame(address: int) -> bool:
    """Whether the unwinder has a frame of the function at an address."""
    # It takes return addresses, and looks before them.
    return bool(_find_frame()(address + 1) == address)


def test_frames_are_registered_as_long_as_their_code_exists(jit: NotingJIT) -> None:
    trackers = [jit.create_resource_tracker() for _ in range(3)]
    for number, tracker in enumerate(trackers):
        jit.add_object(compiled(f"int f{number}(void) {{ return {number}; }}"), tracker)
    addresses = [int(jit.lookup(f"f{number}")) for number in range(3)]
    assert list(map(has_frame, addresses)) == [True, True, True]
    jit.remove(trackers[1])
    assert list(map(has_frame, addresses)) == [True, False, True]
    jit.close()
    assert not any(map(has_frame, addresses))


def test_all_objects_of_a_link_have_frames(jit: NotingJIT) -> None:
    for number in range(20):
        callee = f"f{number + 1}" if number < 19 else "getpid"
        source = f"int {callee}(void); int f{number}(void) {{ return {callee}() + 1; }}"
        jit.add_object(compile_c(source, ("gcc", "clang", "zig")[number % 3], ("-O1", "-fPIC")))
    jit.lookup("f0")
    assert all(has_frame(int(jit.lookup(f"f{number}"))) for number in range(20))


def test_a_terminator_in_an_object_ends_nothing(jit: NotingJIT) -> None:
    # As crtend.o has it.
    terminator = compile_c('.section .eh_frame,"a",@unwind\n.long 0\n.text\n.globl g\ng: ret\n',
                           suffix=".s")  # fmt: skip
    jit.add_object(terminator)
    jit.add_object(compiled("int g(void); int f(void) { return g(); }"))
    assert has_frame(int(jit.lookup("f")))


def test_a_failed_link_leaves_no_frames(jit: NotingJIT) -> None:
    jit.add_object(compiled("int missing(void); int f(void) { return missing(); }"))
    for _ in range(3):
        try:
            jit.lookup("f")
        except FailedToMaterializeError:
            continue
    assert jit.used_size == 0


def test_frames_are_registered_without_references_to_the_unwinder() -> None:
    # Nothing refers to the unwinder, and nothing is found in the process.
    with LLJIT(process_symbols=False, platform=True) as jit:
        jit.add_object(compiled("int f(void) { return 3; }"))
        function = jit.lookup("f")
        assert function() == 3
        assert has_frame(int(function))


@pytest.mark.serial("measures time")
def test_forgetting_many_frames_is_not_quadratic() -> None:
    sources = [compiled(f"int f{number}(void) {{ return {number}; }}") for number in range(20)]

    def seconds(count: int) -> float:
        """How long it takes to remove so many links, the first one first."""
        with LLJIT(platform=True) as jit:
            trackers = []
            for number in range(count):
                dylib = jit.create_jitdylib(f"lib{number}")
                trackers.append(dylib.create_resource_tracker())
                jit.add_object(sources[number % 20], trackers[-1])
                address = int(jit.lookup(f"f{number % 20}", dylib=dylib))
            # The unwinder sorts what it has when it is first asked.
            assert has_frame(address)
            start = time.perf_counter()
            for tracker in trackers:
                tracker.remove()
            return time.perf_counter() - start

    seconds(20)
    # Eight times as many: sixty-four times as long if it were.
    assert seconds(1600) < 8 * 4 * seconds(200)


_THROWING = """
int thrown(int number) { throw number; }
extern "C" int caught(int number) {
  try { return thrown(number); } catch (int found) { return found + 1; }
}
"""
_LINK_AND_CATCH = """
import sys
import jitlink
with open("/proc/self/maps") as file:
    assert any("libunwind.so.1" in line for line in file)
for number in range(50):
    with jitlink.load(sys.argv[1]) as library:
        assert library.caught(number) == number + 1
    with jitlink.LLJIT() as jit:
        jit.add_object(sys.argv[1])
        assert jit.lookup("caught")(number) == number + 1
print("all caught")
"""


def test_the_unwinder_of_llvm_in_place_of_libgcc() -> None:
    """It takes frames one by one, where libgcc's takes whole sections."""
    unwinder = require("libunwind.so.1")
    throwing = compile_c(_THROWING, "gcc", ("-O1", "-fPIC"), suffix=".cpp")
    command: list[str | Path] = [
        "env",
        f"LD_PRELOAD={unwinder}",
        sys.executable,
        "-c",
        _LINK_AND_CATCH,
        throwing,
    ]
    assert run(command) == "all caught\n"
