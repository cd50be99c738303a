"""A JITDylib with every feature is created and removed repeatedly, and leaves nothing behind.

250 times by default, 5,000 times with JITLINK_LONG=1 in the environment.
"""

from __future__ import annotations

import ctypes
import gc
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from jitlink.lljit import LLJIT
from tests.toolchain import compile_c, require

pytestmark = pytest.mark.serial("counts threads, mappings and resident memory")

ROUNDS = 5000 if os.environ.get("JITLINK_LONG") == "1" else 250
# Until allocators and caches have reached their size.
_FIRST_ROUNDS = 100
_RESIDENT_LIMIT = 2 << 20

SOURCE = r"""
#include <cstdlib>
#include <dlfcn.h>
#include <pthread.h>
#include <stdexcept>
#include <string>

struct Counted {
  std::string *text = new std::string(100, 'x');
  ~Counted() { delete text; }
};
static Counted object;
inline Counted shared;
thread_local Counted of_thread;
static thread_local int plain = 5;
static thread_local char zeroes[3000];
static int handled;
static int chosen_one() { return 1; }
extern "C" int (*resolve())() { return chosen_one; }
extern "C" int chosen() __attribute__((ifunc("resolve")));

static void at_exit() { ++handled; }
__attribute__((constructor)) static void begin() { plain += 0; }
__attribute__((destructor)) static void finish() { ++handled; }

static int thrown(int number) {
  Counted guard;
  if (number)
    throw std::out_of_range(std::to_string(number));
  return 0;
}
static Counted &guarded() {
  static Counted counted;
  return counted;
}
static void *run(void *) {
  zeroes[2999]++;
  plain++;
  int length = static_cast<int>(of_thread.text->size() + guarded().text->size());
  try {
    thrown(length);
  } catch (const std::exception &error) {
    length += std::string(error.what()).size();
  }
  return reinterpret_cast<void *>(static_cast<long>(length + zeroes[2999] + plain));
}
extern "C" long work() {
  pthread_t thread;
  void *result;
  atexit(at_exit);
  pthread_create(&thread, nullptr, run, nullptr);
  pthread_join(thread, &result);
  void *own = dlopen(nullptr, RTLD_NOW);
  long found = dlsym(own, "work") != nullptr;
  dlclose(own);
  return reinterpret_cast<long>(result) + reinterpret_cast<long>(run(nullptr)) + chosen() + found;
}
"""
# Two runs of 2 texts of 100, 3 digits, zeroes[2999] and `plain`; then `chosen` and `found`.
RESULT = 2 * (200 + 3 + 1 + 6) + 2


class Resources(NamedTuple):
    """The resources of this process."""

    resident: int
    mappings: int
    free_key: int
    threads: int


def _resources() -> Resources:
    gc.collect()
    c = ctypes.CDLL(None)
    key = ctypes.c_uint()
    assert c.pthread_key_create(ctypes.byref(key), None) == 0
    c.pthread_key_delete(key)
    status = Path("/proc/self/statm").read_text().split()
    mappings = Path("/proc/self/maps").read_text().count("\n")
    threads = len(list(Path("/proc/self/task").iterdir()))
    return Resources(int(status[1]) * os.sysconf("SC_PAGESIZE"), mappings, key.value, threads)


def _has_frame(address: int) -> bool:
    """Whether the unwinder finds a function's frame."""
    find = ctypes.CDLL("libgcc_s.so.1")["_Unwind_Find_FDE"]
    find.restype = ctypes.c_void_p
    find.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
    bases = (ctypes.c_void_p * 3)()
    return find(address + 1, bases) is not None


def test_a_jitdylib_with_every_feature_leaves_nothing_behind() -> None:
    require("g++")
    path = compile_c(SOURCE, "gcc", ("-O1", "-fPIC", "-std=c++17"), suffix=".cpp")
    address = 0
    # One thread exists before the code that it calls, and outlives it.
    with LLJIT(platform=True) as jit, ThreadPoolExecutor(1) as older:

        def once(number: int) -> None:
            nonlocal address
            dylib = jit.create_jitdylib(f"library {number}")
            jit.add_object(path, dylib=dylib)
            jit.initialize(dylib)
            work = jit.lookup("work", dylib=dylib)
            work.restype = ctypes.c_long
            assert work() == RESULT
            assert older.submit(work).result() == RESULT
            address = int(work)
            assert _has_frame(address)
            if number % 2:
                jit.deinitialize(dylib)
            jit.session.remove_jitdylib(dylib)
            assert not _has_frame(address)

        for number in range(_FIRST_ROUNDS):
            once(number)
        before = _resources()
        for number in range(ROUNDS):
            once(number)
        after = _resources()
    assert after.resident - before.resident < _RESIDENT_LIMIT
    assert after.mappings - before.mappings < 16
    assert (after.free_key, after.threads) == (before.free_key, before.threads)
