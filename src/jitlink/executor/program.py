"""What a process gets when it starts as a program: its arguments, its environment and its name.

The kernel places on the stack of a new process, at ascending addresses, the number of arguments,
pointers to them, a null, pointers to the environment, a null, and the auxiliary vector. Code finds
the environment behind ``argv``, and the auxiliary vector behind the environment.

Specification: System V ABI, AMD64 supplement, 3.4.1, "Initial Stack and Register State".
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Sequence

from jitlink.executor.control import PlacedArguments
from jitlink.host import c_library

_C = c_library()
_Word = ctypes.c_size_t
_WORD = ctypes.sizeof(_Word)
_ALIGNMENT = 16
_AT_IGNORE, _AT_LIMIT = 1, 64


class ArgumentBlock:
    """Arguments, environment and auxiliary vector in one block of memory that is never freed.

    Args:
        argv: the arguments.
        environment: the environment, each ``NAME=value``.

    Attributes:
        placed: where they are.
    """

    def __init__(self, argv: Sequence[bytes], environment: Sequence[bytes]) -> None:
        self._argv, self._environment = list(argv), list(environment)
        auxiliary = _auxiliary_vector()
        count = 1 + len(argv) + 1 + len(environment) + 1 + len(auxiliary)
        strings = [text + b"\0" for text in (*argv, *environment)]
        size = count * _WORD + sum(map(len, strings))
        self._memory = (ctypes.c_char * (size + _ALIGNMENT))()
        start = -(-ctypes.addressof(self._memory) // _ALIGNMENT) * _ALIGNMENT
        pointers, place = [], start + count * _WORD
        for text in strings:
            pointers.append(place)
            place += len(text)
        split = len(argv)
        words = [split, *pointers[:split], 0, *pointers[split:], 0, *auxiliary]
        ctypes.memmove(start, (_Word * count)(*words), count * _WORD)
        ctypes.memmove(start + count * _WORD, b"".join(strings), size - count * _WORD)
        self._image = self._memory.raw
        first = start + _WORD
        self.placed = PlacedArguments(split, first, first + (split + 1) * _WORD)

    def holds(self, argv: Sequence[bytes], environment: Sequence[bytes]) -> bool:
        """Whether it holds just these, and a program that got them has changed nothing."""
        return (
            self._argv == argv
            and self._environment == environment
            and self._memory.raw == self._image
        )


# Never collected: threads and exit handlers of a program may use one when it has ended.
_blocks: list[ArgumentBlock] = []


def place(argv: Sequence[str]) -> PlacedArguments:
    """Place arguments and the environment of this process in a block, the last one if it fits.

    Raises:
        ValueError: an argument contains a null character.
    """
    encoded = [argument.encode("utf-8", "surrogateescape") for argument in argv]
    if any(b"\0" in argument for argument in encoded):
        raise ValueError("an argument contains a null character")
    environment = _environment()
    block = _blocks[-1] if _blocks else None
    if block is None or not block.holds(encoded, environment):
        # Complete before it is listed: other threads read it there.
        block = ArgumentBlock(encoded, environment)
        _blocks.append(block)
    return block.placed


@functools.cache
def _environ() -> ctypes._Pointer[ctypes.c_char_p]:
    return ctypes.POINTER(ctypes.c_char_p).in_dll(_C, "environ")


def _environment() -> list[bytes]:
    found: list[bytes] = []
    if environment_address():
        while (text := _environ()[len(found)]) is not None:
            found.append(text)
    return found


def environment_address() -> int:
    """Address of the process's environment, which code that changes it may move."""
    return ctypes.c_void_p.from_address(ctypes.addressof(_environ())).value or 0


def set_environment(address: int) -> None:
    """Make an array of pointers to ``NAME=value`` the process's environment."""
    ctypes.c_void_p.from_address(ctypes.addressof(_environ())).value = address


@functools.cache
def _auxiliary_vector() -> tuple[int, ...]:
    """The process's auxiliary vector, as words, with the entry that ends it."""
    try:
        with open("/proc/self/auxv", "rb") as file:  # noqa: PTH123 - pathlib is slow to import
            data = file.read()
    except OSError:
        data = b""
    if data and len(data) % (2 * _WORD) == 0:
        return tuple((_Word * (len(data) // _WORD)).from_buffer_copy(data))
    return (*_known_auxiliary_values(), 0, 0)


def _known_auxiliary_values() -> list[int]:
    """What the C library returns of the auxiliary vector, for processes that cannot read it."""
    function = getattr(_C, "getauxval", None)
    if function is None:
        return []
    function.argtypes, function.restype = (ctypes.c_ulong,), ctypes.c_ulong
    found: list[int] = []
    for tag in range(_AT_IGNORE + 1, _AT_LIMIT):
        ctypes.set_errno(0)
        value = function(tag)
        if value or not ctypes.get_errno():
            found += [tag, value]
    return found


# Never collected either.
_names: list[ctypes.Array[ctypes.c_char]] = []


class ProgramName:
    """The process's name in messages of the C library, such as those of ``assert``."""

    _NAMES = ("program_invocation_name", "program_invocation_short_name")

    def __init__(self) -> None:
        try:
            self._variables = [ctypes.c_void_p.in_dll(_C, name) for name in self._NAMES]
        except ValueError:
            # Not every C library has them.
            self._variables = []
        self._saved: list[list[int | None]] = []

    def enter(self, arguments: PlacedArguments, name: str | None) -> None:
        """Name the process by the first argument, or if there is none by a name, until `leave`."""
        self._saved.append([variable.value for variable in self._variables])
        if not self._variables or not (arguments.argc or name):
            return
        if arguments.argc:
            address = _Word.from_address(arguments.argv).value
        else:
            _names.append(ctypes.create_string_buffer(os.fsencode(name or "")))
            address = ctypes.addressof(_names[-1])
        text = ctypes.string_at(address)
        full, short = self._variables
        full.value, short.value = address, address + text.rfind(b"/") + 1

    def leave(self) -> None:
        """Restore the names that the last `enter` has replaced."""
        for variable, value in zip(self._variables, self._saved.pop(), strict=True):
            variable.value = value
