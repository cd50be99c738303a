"""The executor for this process."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest

from jitlink.errors import ExecutorError
from jitlink.executor import SelfExecutorProcessControl, self_process
from jitlink.executor.self_process import library_at
from jitlink.memory import InProcessMemoryManager, mapping
from jitlink.sps import WrapperFunctionResult
from tests.memory.graphs import drive
from tests.memory.wrapper_functions import wrapper_functions
from tests.toolchain import compile_c, run, zig_command


@pytest.fixture
def executor() -> SelfExecutorProcessControl:
    return SelfExecutorProcessControl()


@cache
def library() -> Path:
    """process_functions.c as a shared library."""
    source = Path(__file__).with_name("process_functions.c")
    compiled = compile_c(source, flags=("-fPIC",))
    linked = compiled.with_suffix(".so")
    if not linked.exists():
        unfinished = compiled.with_suffix(f".{os.getpid()}.so")
        run([*zig_command("cc"), "-shared", compiled, "-o", unfinished])
        unfinished.replace(linked)
    return linked


def address(executor: SelfExecutorProcessControl, name: str) -> int:
    handle = drive(executor.load_dylib(library()))
    (found,) = drive(executor.lookup_symbols([name], handle))
    assert found is not None
    return found


def test_attributes(executor: SelfExecutorProcessControl) -> None:
    assert executor.triple == f"{os.uname().machine}-unknown-linux-gnu"
    assert executor.page_size == os.sysconf("SC_PAGESIZE")
    assert isinstance(executor.memory_manager, InProcessMemoryManager)
    own = InProcessMemoryManager()
    assert SelfExecutorProcessControl(own).memory_manager is own


def test_shared_executor() -> None:
    shared = SelfExecutorProcessControl.shared()
    assert isinstance(shared, SelfExecutorProcessControl)
    assert SelfExecutorProcessControl.shared() is shared


def test_threads_share_one_executor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if another thread asks for it while it is created."""
    monkeypatch.setattr(self_process, "_shared", [])
    create, threads = SelfExecutorProcessControl.__init__, 4

    def slow(self: SelfExecutorProcessControl) -> None:
        # Meanwhile the others ask, too.
        time.sleep(0.1)
        create(self)

    monkeypatch.setattr(SelfExecutorProcessControl, "__init__", slow)
    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(lambda _: SelfExecutorProcessControl.shared(), range(threads))
        assert len(set(found)) == 1


# Lookups


def test_lookup_in_the_process(executor: SelfExecutorProcessControl) -> None:
    process = ctypes.CDLL(None)
    names = ["qsort", "no such symbol", "getenv", "", "environ", "qsort\0x", "qsort"]
    found = drive(executor.lookup_symbols(names))
    expected = [
        ctypes.addressof(ctypes.c_void_p.in_dll(process, name)) if name in dir_of_c else None
        for name in names
        for dir_of_c in [{"qsort", "getenv", "environ"}]
    ]
    assert found == expected
    assert drive(executor.lookup_symbols([])) == []


def test_names_may_be_any_bytes(executor: SelfExecutorProcessControl) -> None:
    assert drive(executor.lookup_symbols(["\udcff\udc80", "é"])) == [None, None]


def test_null_symbol_is_not_missing(executor: SelfExecutorProcessControl) -> None:
    handle = drive(executor.load_dylib(library()))
    names = ["missing", "null_symbol", "missing", "count", "null_symbol"]
    found = drive(executor.lookup_symbols(names, handle))
    assert found[:3] == [None, 0, None]
    assert found[3]
    assert found[4] == 0


def test_loaded_library_is_part_of_the_process(executor: SelfExecutorProcessControl) -> None:
    handle = drive(executor.load_dylib(library()))
    own = drive(executor.lookup_symbols(["print_arguments", "negate"], handle))
    assert all(own)
    assert drive(executor.lookup_symbols(["print_arguments", "negate"])) == own


def test_library_handle_does_not_search_the_process(
    executor: SelfExecutorProcessControl,
) -> None:
    handle = drive(executor.load_dylib(library()))
    assert drive(executor.lookup_symbols(["Py_GetVersion"], handle)) == [None]
    assert drive(executor.lookup_symbols(["Py_GetVersion"])) != [None]


@pytest.mark.parametrize("name", ["no/such/library.so", __file__, "", "a\0b"])
def test_library_that_cannot_be_loaded(executor: SelfExecutorProcessControl, name: str) -> None:
    with pytest.raises(ExecutorError, match="cannot load"):
        drive(executor.load_dylib(name))


def test_reason_that_a_library_cannot_be_loaded(executor: SelfExecutorProcessControl) -> None:
    with pytest.raises(ExecutorError, match=r"cannot load no-such.so: .*No such file"):
        drive(executor.load_dylib("no-such.so"))


# Calls


def test_main(executor: SelfExecutorProcessControl, capfd: pytest.CaptureFixture[str]) -> None:
    function = address(executor, "print_arguments")
    assert drive(executor.run_as_main(function, ["program"])) == 44
    assert drive(executor.run_as_main(function, ["program", "b c", "é\udcff"])) == -2
    drive(executor.run_as_main(function, []))
    captured = os.fsencode(capfd.readouterr().out)
    assert captured.startswith(b"[program][program][b c]")


def test_main_gets_arguments_byte_for_byte() -> None:
    output = run_main("print_arguments", ["p", "\udcff\udc80", "é"]).stdout
    assert output == b"before\n[p][\xff\x80][\xc3\xa9]after\n"


def run_main(name: str, argv: list[str]) -> subprocess.CompletedProcess[bytes]:
    program = f"""
from jitlink.executor import SelfExecutorProcessControl
from tests.memory.graphs import drive
executor = SelfExecutorProcessControl()
handle = drive(executor.load_dylib({str(library())!r}))
(function,) = drive(executor.lookup_symbols([{name!r}], handle))
print("before")
drive(executor.run_as_main(function, {argv!r}))
print("after")
"""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)


def test_exit_in_main_ends_the_process() -> None:
    done = run_main("leave", ["a", "b"])
    assert (done.returncode, done.stdout, done.stderr) == (12, b"before\nleaving", b"")


def test_output_without_standard_output(
    executor: SelfExecutorProcessControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert drive(executor.run_as_void_function(address(executor, "count"))) > 0


def test_arguments_outlive_the_call(executor: SelfExecutorProcessControl) -> None:
    keep, read = address(executor, "keep_arguments"), address(executor, "read_kept")
    assert drive(executor.run_as_main(keep, ["program", "kept"])) == 2
    for _ in range(100):
        drive(executor.run_as_main(address(executor, "print_arguments"), ["other"] * 3))
    assert drive(executor.run_as_void_function(read)) == ord("k")


def test_main_refuses_null_characters(executor: SelfExecutorProcessControl) -> None:
    with pytest.raises(ValueError, match="null character"):
        drive(executor.run_as_main(1, ["program", "a\0b"]))


def test_functions(executor: SelfExecutorProcessControl) -> None:
    function = address(executor, "count")
    first = drive(executor.run_as_void_function(function))
    assert drive(executor.run_as_void_function(function)) == first + 1
    negate = address(executor, "negate")
    assert drive(executor.run_as_int_function(negate, 5)) == -5
    assert drive(executor.run_as_int_function(negate, -(2**31) + 1)) == 2**31 - 1
    with pytest.raises(ValueError, match="does not fit a C int"):
        drive(executor.run_as_int_function(negate, 1 << 31))


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 5000])
def test_wrapper_results(executor: SelfExecutorProcessControl, size: int) -> None:
    echo = wrapper_functions().address("echo")
    arguments = bytes(number % 251 for number in range(size))
    assert drive(executor.call_wrapper(echo, arguments)) == WrapperFunctionResult(arguments)


def test_wrapper_out_of_band_error(executor: SelfExecutorProcessControl) -> None:
    functions = wrapper_functions()
    result = drive(executor.call_wrapper(functions.address("fail_out_of_band"), b"why"))
    assert result == WrapperFunctionResult(out_of_band_error="why")
    assert functions.called() == "why"


# Memory


def test_memory(executor: SelfExecutorProcessControl) -> None:
    buffer = ctypes.create_string_buffer(b"content", 5000)
    place = ctypes.addressof(buffer)
    assert drive(executor.read_memory(place, 5000)) == b"content".ljust(5000, b"\0")
    drive(executor.write_memory(place + 1, memoryview(b"abc")))
    assert buffer.value == b"cabcent"
    assert drive(executor.read_memory(place, 0)) == b""
    drive(executor.write_memory(place, b""))


Access = Callable[[pytest.MonkeyPatch], None]


def _use_system_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the system's call as it is."""


def _lack_system_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_process, "_C", None)


def _forbid_system_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> int:
        ctypes.set_errno(errno.EPERM)
        return -1

    forbidding = SimpleNamespace(process_vm_readv=refuse, process_vm_writev=refuse)
    monkeypatch.setattr(self_process, "_C", forbidding)


every_access = pytest.mark.parametrize(
    "access", [_use_system_call, _lack_system_call, _forbid_system_call]
)


@every_access
def test_memory_that_cannot_be_accessed(
    executor: SelfExecutorProcessControl, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    access(monkeypatch)
    place = mapping.reserve(3 * mapping.PAGE_SIZE)
    assert place is not None
    mapping.map_zeroed(place, mapping.PAGE_SIZE, mapping.PAGE_SIZE)
    end = place + mapping.PAGE_SIZE
    assert drive(executor.read_memory(end - 4, 4)) == bytes(4)
    with pytest.raises(ExecutorError, match=f"cannot read 0x8 bytes at {end - 4:#x}: Bad address"):
        drive(executor.read_memory(end - 4, 8))
    with pytest.raises(ExecutorError, match="cannot write 0x8 bytes"):
        drive(executor.write_memory(end - 4, b"12345678"))
    mapping.protect(place, mapping.PAGE_SIZE, 1)
    with pytest.raises(ExecutorError, match="cannot write 0x1 bytes"):
        drive(executor.write_memory(place, b"1"))
    mapping.release(place, 3 * mapping.PAGE_SIZE)


@every_access
@pytest.mark.parametrize(("place", "size"), [(-1, 1), ((1 << 64) - 1, 2), (1, 1 << 62), (0, 1)])
def test_memory_outside_the_address_space(
    executor: SelfExecutorProcessControl,
    place: int,
    size: int,
    access: Access,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    access(monkeypatch)
    with pytest.raises(ExecutorError, match="cannot read"):
        drive(executor.read_memory(place, size))


@every_access
def test_more_memory_than_a_pipe_holds(
    executor: SelfExecutorProcessControl, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    access(monkeypatch)
    content = random.Random(1).randbytes(300_001)
    buffer = ctypes.create_string_buffer(len(content))
    place = ctypes.addressof(buffer)
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    drive(executor.write_memory(place, content))
    assert drive(executor.read_memory(place, len(content))) == content
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def test_library_at_an_address() -> None:
    # No function of the program, which may have a canonical PLT entry.
    address = ctypes.cast(ctypes.CDLL(None)["hsearch"], ctypes.c_void_p).value
    assert address is not None
    assert re.search(r"libc[.-]|musl", library_at(address) or "")
    assert library_at(8) is None
    buffer = ctypes.create_string_buffer(8)
    assert library_at(ctypes.addressof(buffer)) is None
