"""What every executor does: this process, others however they are reached, emulated machines."""

import ctypes as c
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from jitlink import LLJIT, tasks
from jitlink.errors import ExecutorError
from jitlink.executor import Emulated, ExecutorProcessControl, SelfExecutorProcessControl
from jitlink.sps import ExecutorAddrRange
from tests.executor.remote.executors import FOREIGN, PIPES, SETTINGS, started
from tests.toolchain import HOST_TARGET, compile_c

SOURCE = r"""
#include <stdlib.h>
#include <string.h>
unsigned char u8s[3] = {1, 2, 255};
unsigned short u16s[3] = {1, 2, 65535};
unsigned u32s[3] = {1, 2, 4294967295u};
unsigned long u64s[3] = {1, 2, 18446744073709551615ul};
void *pointer = &u8s;
char text[] = "a text", empty[] = "", high[] = "\xff\x80";
const char constant[] = "constant";
char zeros[10000];
struct result { union { char *pointer; char bytes[8]; } value; size_t size; };
struct result echo(const char *data, size_t size) {
  struct result result = {{0}, size};
  char *place = result.value.bytes;
  if (size > sizeof result.value.bytes) place = result.value.pointer = malloc(size);
  memcpy(place, data, size);
  return result;
}
int number(void) { return -7; }
int twice(int x) { return 2 * x; }
int main(int argc, char **argv) {
  size_t size = 0;
  for (int i = 0; i < argc; ++i) size += strlen(argv[i]);
  return argc * 10 + (int)size + (argv[argc] == 0);
}
"""


class Code:
    """Code and data in an executor."""

    def __init__(self, jit: LLJIT) -> None:
        self.jit = jit
        self.executor: ExecutorProcessControl = jit.session.executor
        machine = self.executor.triple.partition("-")[0]
        target = HOST_TARGET if HOST_TARGET.startswith(machine) else f"{machine}-linux-gnu"
        jit.add_object(compile_c(SOURCE, "gcc", ("-O1", "-fPIC"), target=target))

    def __getitem__(self, name: str) -> int:
        return int(self.jit.lookup(name))


# What is written how does not depend on the transport.
PLACES = [None, *PIPES, *(s for s in SETTINGS if (s.transport, s.memory) == ("tcp", "generic"))]


# With pointers of 64 bits, for which the source is written.
EMULATED = ("x86_64", "aarch64", "riscv64")


@pytest.fixture(params=[*PLACES, *FOREIGN, *EMULATED], ids=str)
def code(request: pytest.FixtureRequest) -> Iterator[Code]:
    if request.param is None:
        with LLJIT(platform=False) as jit:
            yield Code(jit)
        return
    if isinstance(request.param, str):
        with (
            Emulated(request.param) as machine,
            LLJIT(executor=machine, platform=False) as jit,
        ):
            yield Code(jit)
        return
    with started(request.param) as executor, LLJIT(executor=executor, platform=False) as jit:
        yield Code(jit)


def is_read(code: Code) -> bool:
    """Whether the executor reads memory; LLVM 19's has no service for that, and says so."""
    if not code.executor.reads_memory:
        with pytest.raises(ExecutorError, match="LLVM 19 cannot read memory"):
            tasks.run(code.executor.read_integers(1, [code["u8s"]]))
    return code.executor.reads_memory


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_integers(code: Code, size: int) -> None:
    if not is_read(code):
        return
    place, most = code[f"u{8 * size}s"], (1 << 8 * size) - 1
    places = [place + n * size for n in range(3)]
    assert tasks.run(code.executor.read_integers(size, places)) == [1, 2, most]
    tasks.run(code.executor.write_integers(size, [(places[2], 5), (places[0], most)]))
    assert tasks.run(code.executor.read_integers(size, places[::-1])) == [5, 2, most]
    assert tasks.run(code.executor.read_integers(size, [])) == []
    for wrong in (-1, most + 1):
        with pytest.raises(ValueError, match=f"no unsigned integer of {size} bytes"):
            tasks.run(code.executor.write_integers(size, [(place, wrong)]))


def test_integers_of_other_sizes(code: Code) -> None:
    for size in (0, 3, 16):
        with pytest.raises(ValueError, match=f"no integers of {size} bytes"):
            tasks.run(code.executor.write_integers(size, [(code["u8s"], 1)]))
        with pytest.raises(ValueError, match=f"no integers of {size} bytes"):
            tasks.run(code.executor.read_integers(size, [code["u8s"]]))


def test_words(code: Code) -> None:
    word = code["text"]
    tasks.run(code.executor.write_words([(code["pointer"], word), (code["u64s"], 3)]))
    if is_read(code):
        places = [code["pointer"], code["u64s"]]
        assert tasks.run(code.executor.read_integers(8, places)) == [word, 3]


def test_buffers(code: Code) -> None:
    if not is_read(code):
        return
    place = code["zeros"]
    large = bytes(n % 251 for n in range(9000))
    tasks.run(
        code.executor.write_buffers([(place + 3, b"abc"), (place + 500, large), (place, b"")])
    )
    ranges = [(place, place + 8), (place + 500, place + 9500), (place, place)]
    found = tasks.run(code.executor.read_buffers([ExecutorAddrRange(*each) for each in ranges]))
    assert found == [b"\0\0\0abc\0\0", large, b""]
    assert tasks.run(code.executor.read_memory(place + 4, 2)) == b"bc"
    tasks.run(code.executor.write_memory(place + 4, bytearray(b"xy")))
    assert tasks.run(code.executor.read_memory(place + 3, 4)) == b"axy\0"


def test_strings(code: Code) -> None:
    if not is_read(code):
        return
    names = ["text", "empty", "high", "constant"]
    found = tasks.run(code.executor.read_strings([code[name] for name in names]))
    assert found == [b"a text", b"", b"\xff\x80", b"constant"]
    place, long = code["zeros"], b"x" * 5000
    tasks.run(code.executor.write_memory(place + 1, long))
    assert tasks.run(code.executor.read_strings([place + 1, place, place + 5000])) == [
        *(long, b"", b"x")
    ]


@pytest.mark.parametrize("address", [-1, 1 << 64])
def test_what_is_no_address(code: Code, address: int) -> None:
    executor = code.executor
    with pytest.raises(ExecutorError):
        tasks.run(executor.write_memory(address, b"content"))
    with pytest.raises(ExecutorError):
        tasks.run(executor.read_memory(address, 8))
    with pytest.raises(ExecutorError):
        tasks.run(executor.write_integers(4, [(address, 1)]))
    assert executor.is_alive


def test_wrapper_functions(code: Code) -> None:
    for size in (0, 1, 8, 9, 100_000):
        data = bytes(n % 256 for n in range(size))
        assert tasks.run(code.executor.call_wrapper(code["echo"], data)).data == data


def test_functions_of_fixed_types(code: Code) -> None:
    executor = code.executor
    assert tasks.run(executor.run_as_void_function(code["number"])) == -7
    assert tasks.run(executor.run_as_int_function(code["twice"], -21)) == -42
    assert (
        tasks.run(executor.run_as_main(code["main"], ["prog", "", "a b", "\udcff"])) == 40 + 8 + 1
    )
    with pytest.raises(ValueError, match="does not fit a C int"):
        tasks.run(executor.run_as_int_function(code["twice"], 1 << 31))
    with pytest.raises(ValueError, match="null character"):
        tasks.run(executor.run_as_main(code["main"], ["a\0b"]))


def test_libraries(code: Code) -> None:
    executor = code.executor
    if isinstance(executor, Emulated):
        with pytest.raises(ExecutorError, match=r"cannot load 'libm\.so\.6': .*no dynamic linker"):
            tasks.run(executor.load_dylib("libm.so.6"))
        with pytest.raises(ExecutorError, match="1 is no handle"):
            tasks.run(executor.lookup_symbols(["cos"], 1))
        (cosine, missing) = tasks.run(executor.lookup_symbols(["cos", "a\0b"]))
        assert cosine is not None
        assert missing is None
        assert tasks.run(executor.lookup_symbols(["cos"])) == [cosine]
        return
    names = ["malloc", "no such symbol", "", "with\0null", "free"]
    first = tasks.run(executor.lookup_symbols(names))
    assert [address is None for address in first] == [False, True, True, True, False]
    library = tasks.run(executor.load_dylib("libm.so.6"))
    root, missing = tasks.run(executor.lookup_symbols(["cbrtl", "jitlink_has_no_such"], library))
    assert root is not None
    assert missing is None
    # What is loaded is searched from now on.
    assert tasks.run(executor.lookup_symbols(["cbrtl"])) == [root]
    with pytest.raises(ExecutorError, match=r"/nothing\.so: .*cannot open shared object"):
        tasks.run(executor.load_dylib("/nothing.so"))
    for path in ("libno-such-library.so", "", "a\0b"):
        with pytest.raises(ExecutorError, match="cannot load"):
            tasks.run(executor.load_dylib(path))


def test_calls_of_python(code: Code, tmp_path: Path) -> None:
    source = tmp_path / "call.c"
    source.write_text("int python(int); int call(int x) { return python(x) + 1; }")
    jit, mock = code.jit, Mock(side_effect=lambda x: 10 * x)
    jit.define({"python": (mock, c.CFUNCTYPE(c.c_int, c.c_int))})
    machine = code.executor.triple.partition("-")[0]
    target = HOST_TARGET if HOST_TARGET.startswith(machine) else f"{machine}-linux-gnu"
    jit.add_object(compile_c(source, "gcc", ("-O1", "-fPIC"), target=target))
    function = jit.lookup("call")
    results: list[int] = []
    threads = [threading.Thread(target=lambda n=n: results.append(function(n))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(results) == [10 * n + 1 for n in range(8)]
    assert mock.call_count == 8


def test_what_it_says_of_itself(code: Code) -> None:
    executor = code.executor
    assert executor.is_alive
    assert executor.page_size % 4096 == 0
    assert executor.runs(executor.triple)
    assert executor.is_this_process == isinstance(executor, SelfExecutorProcessControl)
    is_direct = executor.is_this_process or executor.direct_calls is not None
    assert is_direct == (executor.dispatch is None)
