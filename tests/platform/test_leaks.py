"""Opening and closing leaves nothing behind."""

from __future__ import annotations

import ctypes
import gc
import os
from pathlib import Path

import pytest

from jitlink.lljit import LLJIT
from tests.platform.jits import NotingJIT, compiled, noting_jit
from tests.toolchain import compile_c, require

pytestmark = pytest.mark.serial("counts mappings and resident memory")

ROUNDS = 5000 if os.environ.get("JITLINK_LONG") == "1" else 1000

SOURCE = """
#include <cstdlib>
#include <stdexcept>
extern "C" int __cxa_thread_atexit(void (*)(void *), void *, void *);
extern "C" void *__dso_handle;
static int count;
static void again(void *) { ++count; }
struct Object {
  int *memory = new int(3);
  ~Object() { delete memory; }
};
static Object object;
static void at_exit() { ++count; }
__attribute__((destructor)) static void finish() { ++count; }
extern "C" int work() {
  atexit(at_exit);
  __cxa_thread_atexit(again, &count, &__dso_handle);
  try {
    throw std::runtime_error("x");
  } catch (const std::exception &error) {
    return *object.memory + error.what()[0] - 'x';
  }
}
"""


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def _mappings() -> int:
    return len(Path("/proc/self/maps").read_text().splitlines())


def _free_key() -> int:
    """The key that ``pthread_key_create`` returns next."""
    c = ctypes.CDLL(None)
    key = ctypes.c_uint()
    assert c.pthread_key_create(ctypes.byref(key), None) == 0
    c.pthread_key_delete(key)
    return int(key.value)


def test_many_jitdylibs_with_all_features() -> None:
    require("g++")
    path = compile_c(SOURCE, "gcc", ("-O1", "-fPIC"), suffix=".cpp")
    with LLJIT(platform=True) as jit:

        def once(number: int) -> None:
            dylib = jit.create_jitdylib(f"lib{number}")
            jit.add_object(path, dylib=dylib)
            jit.initialize(dylib)
            assert jit.lookup("work", dylib=dylib)() == 3
            if number % 2:
                jit.deinitialize(dylib)
            jit.session.remove_jitdylib(dylib)

        for number in range(300):
            once(number)
        gc.collect()
        before = _resident(), _mappings(), _free_key()
        for number in range(ROUNDS):
            once(number)
        gc.collect()
        after = _resident(), _mappings(), _free_key()
    assert after[0] - before[0] < 2 << 20
    assert after[1] - before[1] < 16
    assert after[2] == before[2]


def test_whole_jits_100_times() -> None:
    def once() -> None:
        with noting_jit() as jit:
            jit.add_object(compiled("BEGIN(begin) { note(1); } END(end) { note(2); }"))
            jit.initialize()
            assert isinstance(jit, NotingJIT)

    for _ in range(20):
        once()
    gc.collect()
    before = _resident(), _mappings(), _free_key()
    for _ in range(100):
        once()
    gc.collect()
    after = _resident(), _mappings(), _free_key()
    assert after[0] - before[0] < 1 << 20
    assert after[1] - before[1] < 16
    assert after[2] == before[2]
