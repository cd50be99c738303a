"""The part of the C library that this process implements: output, exit, mathematics, and numbers.

The rest is C code (``runtime/emulated``), an archive of which members are linked when nothing else
defines what they do. It calls functions that begin with ``__jitlink_host_``; the others are those
of C's ``math.h`` for double.

Numbers are formatted and parsed by Python, whose conversions are exact, as those of glibc are.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jitlink.abi.callbacks import HostFunction, Parameters, PassedWords
from jitlink.executor.code_map import CodeMap
from jitlink.executor.emulated.calls import EmulatedCalls
from jitlink.executor.emulated.errors import EmulatedExitError
from jitlink.executor.emulated.machines import SIGABRT
from jitlink.executor.emulated.memory import EmulatedMemory, Pages
from jitlink.executor.emulated.tls import EmulatedTLS
from jitlink.graph import MemProt

WriteOutput = Callable[[int, bytes], object]
"""Takes a file descriptor, 1 or 2, and bytes."""
_HERE = os.path.abspath(__file__)  # noqa: PTH100
_RUNTIME = os.path.join(_HERE.rpartition("executor")[0], "runtime")  # noqa: PTH118

_NUMBER = re.compile(
    rb"[ \t\n\v\f\r]*([+-]?(?:0[xX](?:[0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)(?:[pP][+-]?\d+)?"
    rb"|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[iI][nN][fF](?:[iI][nN][iI][tT][yY])?|[nN][aA][nN]))"
)
"""What ``strtod`` converts."""
_MAY_GO_ON = re.compile(rb"[ \t\n\v\f\r]*[-+.\w]*")
"""What is no end of a number, where the text was cut."""
_FIRST_PIECE = 1 << 7
"""Characters that most numbers fit into: what follows a number may be very long."""
_CONVERSION = re.compile(r"%[-+ #0]*(\d*)(?:\.(\d*))?[aAeEfFgG]")
_LARGEST_WIDTH = 1 << 16
"""The largest width and precision of a floating-point conversion; C requires 4095 characters."""
_INT_MASK = (1 << 32) - 1
_Double = ctypes.c_double
_UNARY = ctypes.CFUNCTYPE(_Double, _Double)
_BINARY = ctypes.CFUNCTYPE(_Double, _Double, _Double)


class CLibrary:
    """The host functions of one machine; each gets an address when it is first looked up.

    Args:
        calls: makes them.
        memory: the machine's memory, from which the heap is allocated.
        heap_size: bytes of the heap.
        write: takes output.
        abi: the ABI of the part in C.
        code: what has been linked into the machine.
        tls: its thread-local storage.
    """

    def __init__(
        self,
        calls: EmulatedCalls,
        memory: EmulatedMemory,
        heap_size: int,
        write: WriteOutput,
        abi: str,
        code: CodeMap,
        tls: EmulatedTLS,
    ) -> None:
        self._calls, self._memory, self._heap_size = calls, memory, heap_size
        self._write_output, self._abi, self._code = write, abi, code
        self._heap: Pages | None = None
        # Functions that flush output.
        self._flushing: list[int] = []
        self._addresses: dict[str, int] = {}
        self._functions: Mapping[str, tuple[int, Callable[..., int | None]]] = {
            "__jitlink_host_write": (3, self._write),
            "__jitlink_host_exit": (1, self._exit),
            "__jitlink_host_abort": (0, self._abort),
            "__jitlink_host_at_end": (1, self._at_end),
            "__jitlink_host_heap": (1, self._obtain_heap),
            "__jitlink_host_format": (5, self._format),
            "__jitlink_host_parse": (2, self._parse),
            "__jitlink_host_narrow": (2, self._narrow),
            "__tls_get_addr": (1, tls.get_address),
        }

    def path(self, name: str) -> str:
        """The path of an archive for the machine and its ABI, which may not exist."""
        machine = self._calls.processor.machine.name
        return os.path.join(_RUNTIME, f"{machine}-{self._abi}", name)  # noqa: PTH118

    def address_of(self, name: str) -> int | None:
        """The address of a function; None if there is no such function."""
        address = self._addresses.get(name)
        if address is not None:
            return address
        if name in self._functions:
            address = self._calls.add_word_function(*self._functions[name])
        elif name in _MATHEMATICS:
            address = self._calls.add_host_function(self._mathematical(*_MATHEMATICS[name]))
        else:
            return None
        self._addresses[name] = address
        return address

    def _mathematical(self, prototype: Any, function: Callable[..., float]) -> HostFunction:  # noqa: ANN401
        parameters = Parameters(self._calls.convention, prototype)

        def call(words: PassedWords) -> Sequence[int]:
            data = parameters.read(*words)
            numbers = [ctypes.c_double.from_buffer_copy(each).value for each in data]
            return parameters.result_words(function(*numbers))

        return HostFunction(parameters.words, parameters.results, call)

    # Functions of integers and pointers

    def _write(self, descriptor: int, data: int, size: int) -> int:
        # An int: the upper half of its register may be anything.
        self._write_output(descriptor & _INT_MASK, self._calls.read(data, size))
        return size

    def _exit(self, status: int) -> int:
        # As a process's parent sees it.
        raise EmulatedExitError(status & 0xFF)

    def _abort(self) -> int:
        raise self._calls.crash(SIGABRT, "abort")

    def _at_end(self, function: int) -> None:
        if function not in self._flushing:
            self._flushing.append(function)

    def _obtain_heap(self, size: int) -> int:
        """The heap's address; its size goes to where `size` points to."""
        if self._heap is None:
            prot = MemProt.READ | MemProt.WRITE
            self._heap = self._memory.allocate(self._heap_size, prot)
            self._memory.protect(self._heap, prot)
        machine = self._calls.processor.machine
        word = self._heap.size.to_bytes(machine.pointer_size, machine.byte_order)
        self._calls.write(size, word)
        return self._heap.address

    def _format(self, out: int, capacity: int, start: int, conversion: int, value: int) -> int:
        """Format a double.

        Args:
            out: where characters go to, without a null.
            capacity: how many fit.
            start: the first character that is wanted.
            conversion: a string of the conversion, as in ``%-12.3f``.
            value: where the double is.

        Returns:
            How many characters there are.
        """
        how = self._calls.string_at(conversion).decode("ascii", "replace")
        parts = _CONVERSION.fullmatch(how)
        if parts is None or any(
            len(each) > 5 or int(each) > _LARGEST_WIDTH for each in parts.groups() if each
        ):
            cause = f"printf: the conversion {how[:64]!r} is not supported"
            raise self._calls.crash(SIGABRT, cause)
        text = format_double(how, self._double_at(value)).encode()
        self._calls.write(out, text[start : start + capacity])
        return len(text)

    def _parse(self, text: int, value: int) -> int:
        """Parse a double: stores it, and returns how many characters were used."""
        size = _FIRST_PIECE
        characters = self._calls.string_at(text, size)
        while len(characters) == size and _MAY_GO_ON.fullmatch(characters):
            size *= 8
            characters = self._calls.string_at(text, size)
        found = _NUMBER.match(characters)
        number, used = (0.0, 0) if found is None else (_parsed(found[1].decode()), found.end())
        order = self._calls.processor.machine.byte_order
        data = bytes(ctypes.c_double(number))
        self._calls.write(value, data if order == "little" else data[::-1])
        return used

    def _narrow(self, quadruple: int, value: int) -> None:
        """Store the double that is nearest to a binary128."""
        order = self._calls.processor.machine.byte_order
        bits = int.from_bytes(self._calls.read(quadruple, 16), order)
        data = bytes(ctypes.c_double(_double_of(bits)))
        self._calls.write(value, data if order == "little" else data[::-1])

    def _double_at(self, address: int) -> float:
        data = self._calls.read(address, 8)
        if self._calls.processor.machine.byte_order == "big":
            data = data[::-1]
        return ctypes.c_double.from_buffer_copy(data).value

    def flush(self) -> None:
        """Write what code has printed that is still in its buffers."""
        for function in self._flushing:
            # Code that was removed has no buffers any more.
            if self._code.describe([function]):
                self._calls.call_words(function, ())


def _double_of(bits: int) -> float:
    """The double that is nearest to a binary128, by its bits."""
    sign, exponent, fraction = bits >> 127, bits >> 112 & 0x7FFF, bits & ((1 << 112) - 1)
    if exponent == 0x7FFF:
        number = math.nan if fraction else math.inf
    else:
        mantissa = fraction if exponent == 0 else fraction | 1 << 112
        power = max(exponent, 1) - 16383 - 112
        try:
            # Integers are divided with one rounding.
            number = mantissa / (1 << -power) if power < 0 else float(mantissa << power)
        except OverflowError:
            number = math.inf if exponent > 16383 else 0.0
    return -number if sign else number


def _parsed(text: str) -> float:
    try:
        return float.fromhex(text) if "x" in text.lower() else float(text)
    except OverflowError:
        return -math.inf if text.startswith("-") else math.inf


def format_double(conversion: str, value: float) -> str:
    """What ``printf`` writes for a double.

    Args:
        conversion: flags, width, precision and one of ``aAeEfFgG``, with the per cent sign.
        value: the double.
    """
    kind = conversion[-1]
    if not math.isfinite(value):
        sign = "-" if math.copysign(1, value) < 0 else _plus(conversion)
        text = "nan" if math.isnan(value) else "inf"
        return _padded(
            conversion.replace("0", "", 1), sign + (text.upper() if kind.isupper() else text)
        )
    if kind in "aA":
        return _hexadecimal(conversion, value)
    return conversion % value


def _plus(conversion: str) -> str:
    flags = re.match(r"%([-+ #0]*)", conversion)
    found = flags[1] if flags else ""
    return "+" if "+" in found else " " if " " in found else ""


def _padded(conversion: str, text: str, *, zeros_after: int | None = None) -> str:
    parts = re.match(r"%([-+ #0]*)(\d*)", conversion)
    flags, width = (parts[1], int(parts[2] or 0)) if parts else ("", 0)
    if "-" in flags:
        return text.ljust(width)
    if "0" in flags and zeros_after is not None:
        return text[:zeros_after] + text[zeros_after:].rjust(width - zeros_after, "0")
    return text.rjust(width)


def _hexadecimal(conversion: str, value: float) -> str:
    """The conversions ``a`` and ``A``, as glibc carries them out: the first digit is 1, or 0."""
    precision = re.search(r"\.(\d*)", conversion)
    mantissa, exponent = math.frexp(abs(value))
    # The first digit and 52 bits.
    number, exponent = int(mantissa * (1 << 53)), exponent - 1
    if exponent < -1022:
        number, exponent = number >> (-1022 - exponent), -1022
    if not value:
        number = exponent = 0
    digits = 13
    if precision is not None and int(precision[1] or 0) < digits:
        wanted = int(precision[1] or 0)
        shift = 4 * (digits - wanted)
        half, rest = 1 << (shift - 1), number & ((1 << shift) - 1)
        number >>= shift
        number += rest > half or (rest == half and number & 1)
        digits = wanted
    first, rest = number >> 4 * digits, number & ((1 << 4 * digits) - 1)
    text = f"{rest:0{digits}x}" if digits else ""
    text = text.rstrip("0") if precision is None else text.ljust(int(precision[1] or 0), "0")
    point = "." if text or "#" in conversion else ""
    sign = "-" if math.copysign(1, value) < 0 else _plus(conversion)
    found = f"{sign}0x{first:x}{point}{text}p{exponent:+d}"
    found = _padded(conversion, found, zeros_after=len(sign) + 2)
    return found.upper() if conversion.endswith("A") else found


def _checked(function: Callable[..., float]) -> Callable[..., float]:
    """A function of `math` with the results of C where Python raises an exception."""

    def call(*arguments: float) -> float:
        try:
            return function(*arguments)
        except OverflowError:
            return math.inf
        except ValueError:
            return math.nan

    return call


def _log(function: Callable[[float], float], pole: float = 0.0) -> Callable[[float], float]:
    checked = _checked(function)
    return lambda x: -math.inf if x == pole else checked(x)


def _power(x: float, y: float) -> float:
    is_odd = y % 2 == 1 if math.isfinite(y) else False
    try:
        return math.pow(x, y)
    except OverflowError:
        return -math.inf if x < 0 and is_odd else math.inf
    except ValueError:
        if x == 0:
            return math.copysign(math.inf, x) if is_odd else math.inf
        return math.nan


def _rounded(function: Callable[[float], int]) -> Callable[[float], float]:
    """A function to an integral value, which keeps the sign of zero."""

    def call(x: float) -> float:
        if not math.isfinite(x):
            return x
        return math.copysign(float(function(x)), x)

    return call


def _half_away(x: float) -> int:
    number = math.floor(abs(x))
    return number + (abs(x) - number >= 0.5)


def _gamma(x: float) -> float:
    if x == 0:
        return math.copysign(math.inf, x)
    return _checked(math.gamma)(x)


def _log_gamma(x: float) -> float:
    return math.inf if x <= 0 and x == math.floor(x) else _checked(math.lgamma)(x)


def _inverse_hyperbolic_tangent(x: float) -> float:
    return math.copysign(math.inf, x) if abs(x) == 1 else _checked(math.atanh)(x)


def _exponential(x: float, base: float) -> float:
    return _power(base, x)


_MATHEMATICS: Mapping[str, tuple[Any, Callable[..., float]]] = {
    **{
        name: (_UNARY, _checked(getattr(math, name)))
        for name in (
            "acos", "asin", "asinh", "acosh", "atan", "cbrt", "cos", "cosh", "erf", "erfc", "exp",
            "expm1", "sin", "sqrt", "tan", "tanh",
        )
    },
    "sinh": (_UNARY, lambda x: math.copysign(abs(_checked(math.sinh)(x)), x)),
    "atanh": (_UNARY, _inverse_hyperbolic_tangent),
    "exp2": (_UNARY, lambda x: _exponential(x, 2.0)),
    "exp10": (_UNARY, lambda x: _exponential(x, 10.0)),
    "log": (_UNARY, _log(math.log)),
    "log2": (_UNARY, _log(math.log2)),
    "log10": (_UNARY, _log(math.log10)),
    "log1p": (_UNARY, _log(math.log1p, -1.0)),
    "tgamma": (_UNARY, _gamma),
    "lgamma": (_UNARY, _log_gamma),
    "floor": (_UNARY, _rounded(math.floor)),
    "ceil": (_UNARY, _rounded(math.ceil)),
    "trunc": (_UNARY, _rounded(math.trunc)),
    "rint": (_UNARY, _rounded(round)),
    "nearbyint": (_UNARY, _rounded(round)),
    "round": (_UNARY, _rounded(_half_away)),
    "pow": (_BINARY, _power),
    "fmod": (_BINARY, _checked(math.fmod)),
    "remainder": (_BINARY, _checked(math.remainder)),
    "atan2": (_BINARY, math.atan2),
    "hypot": (_BINARY, _checked(math.hypot)),
    "nextafter": (_BINARY, math.nextafter),
}  # fmt: skip
"""Functions of ``math.h`` for double; those that need no more than bits are in C."""
