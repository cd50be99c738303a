"""What code passes to host functions, and its unwind information, may be anything."""

import ctypes as c

import pytest

import jitlink
from jitlink.errors import ExecutorError
from jitlink.executor import EmulatedCrashError
from jitlink.executor.emulated.wrappers import call_wrapper
from tests.executor.emulated.machines import LITTLE, MACHINES, loaded

SOURCE = r"""
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
long put(unsigned long long size) { return write(1, "text", (size_t)size); }
int narrow(const char *format) { return snprintf(0, 0, format, 1.5); }
int narrow_by(int width, int precision) { return snprintf(0, 0, "%*.*f", width, precision, 1.5); }
long __jitlink_host_format(char *out, size_t capacity, size_t start, const char *how, double *);
long format(const char *how) {
  double value = 1.5;
  char out[8];
  return __jitlink_host_format(out, sizeof out, 0, how, &value);
}
double number(const char *text, int *used) {
  char *end;
  double value = strtod(text, &end);
  *used = (int)(end - text);
  return value;
}
"""


@pytest.mark.parametrize("machine", MACHINES)
def test_output_that_is_not_in_memory(machine: str) -> None:
    with loaded(SOURCE, machine) as (executor, lib):
        lib.put.argtypes = [c.c_uint64]
        for bits in (31, 40, 46, 62, 63):
            size = 1 << min(bits, 8 * executor.processor.machine.pointer_size - 1)
            with pytest.raises(EmulatedCrashError, match="a host function cannot access"):
                lib.put(size)


@pytest.mark.parametrize("machine", MACHINES)
def test_widths(machine: str) -> None:
    with loaded(SOURCE, machine) as (_, lib):
        lib.narrow_by.argtypes = [c.c_int32, c.c_int32]
        assert lib.narrow_by(5000, 4095) == 5000
        assert lib.narrow_by(0, 1 << 16) == (1 << 16) + 2
        for width, precision in ((1 << 30, 0), (0, (1 << 16) + 1), (0, (1 << 31) - 1)):
            with pytest.raises(EmulatedCrashError, match="printf: the conversion '%"):
                lib.narrow_by(width, precision)
        with pytest.raises(EmulatedCrashError, match="is not supported"):
            lib.narrow(b"%.99999999999a")


@pytest.mark.parametrize("how", [b"", b"%", b"%s", b"%(name)f", b"%f%f", b"f", b"%.f\xff"])
def test_conversions_of_no_number(how: bytes) -> None:
    with loaded(SOURCE, "aarch64") as (_, lib):
        with pytest.raises(EmulatedCrashError, match="is not supported"):
            lib.format(how)
        assert lib.format(b"%.f") == 1


@pytest.mark.parametrize("machine", LITTLE)
@pytest.mark.parametrize("blanks", [0, 120, 126, 127, 128, 5000])
def test_long_numbers(machine: str, blanks: int) -> None:
    with loaded(SOURCE, machine) as (_, lib):
        lib.number.restype = c.c_double
        for number, value in (("1e+5", 1e5), ("-infinity", float("-inf")), ("0x1.8p1", 3.0)):
            used = c.c_int32()
            text = (" " * blanks + number).encode()
            assert lib.number(text + b" x" * 500, jitlink.Out(used)) == value
            assert used.value == len(text)


UNWIND_INFORMATION = (
    "0x09, 0x06, 0xc8, 0x01",  # rbp is in register 200
    "0x0c, 0xc8, 0x01, 0x00",  # the CFA is in register 200
    "0x0b",  # a state is restored that was not saved
    "0x3f",  # an unknown instruction
    "0x2e" + ", 0xff" * 500,  # a number of many bytes, which does not end
    "0x05, 0x10" + ", 0xff" * 9 + ", 0x01",  # the return address is far away
)


@pytest.mark.parametrize("escape", UNWIND_INFORMATION)
def test_unwind_information(escape: str) -> None:
    source = f"""
    __asm__(".globl odd\\n.type odd, @function\\nodd: .cfi_startproc\\n.cfi_escape {escape}\\n"
            "ud2\\n.cfi_endproc\\n.size odd, .-odd");
    """
    with loaded(source, "x86_64") as (_, lib):
        with pytest.raises(EmulatedCrashError, match="SIGILL") as caught:
            lib.odd()
        assert caught.value.frames[0].symbol == "odd"


WRAPPERS = """
struct result { union { char *pointer; char bytes[8]; } value; unsigned long size; };
struct result large(void) { return (struct result){{(char *)large}, 1ul << 46}; }
struct result nowhere(void) { return (struct result){{(char *)8}, 0}; }
static char text[] = "\\xff is no UTF-8";
struct result odd(void) { return (struct result){{text}, 0}; }
"""


def test_results_of_wrapper_functions() -> None:
    with loaded(WRAPPERS, "riscv64") as (executor, lib):
        for name in ("large", "nowhere"):
            with pytest.raises(ExecutorError, match=r"cannot read \d+ bytes at "):
                call_wrapper(executor.calls, lib[name], b"", None)
        result = call_wrapper(executor.calls, lib["odd"], b"", None)
        assert result.out_of_band_error == "\ufffd is no UTF-8"
