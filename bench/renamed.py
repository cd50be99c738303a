"""Objects of one function each: copies of one that a compiler wrote, with other names and values.

The function returns its value plus the results of its callees. Names have the same length as those
that they replace, so that nothing else of the object changes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

_VALUE = 0x13572468


def source(callees: int) -> str:
    """C source of the original, whose function calls so many others."""
    names = [_original(number) for number in range(1, callees + 1)]
    declared = "".join(f"int {name}(void);\n" for name in names)
    total = " + ".join([hex(_VALUE), *(f"{name}()" for name in names)])
    return f"{declared}int {_original(0)}(void) {{ return {total}; }}\n"


def _original(number: int) -> str:
    return f"q{number:05}"


def name(number: int) -> str:
    """The name of function `number`, of at most five digits."""
    return f"F{number:05}"


def renamed(original: bytes, number: int, callees: Sequence[int] = (), value: int = 0) -> bytes:
    """The object that defines function `number`, with that value.

    Raises ValueError if the compiler has not written each name, and the value, exactly once.
    """
    replaced = [(struct.pack("<I", _VALUE), struct.pack("<I", value))]
    replaced += [
        (_original(index).encode(), name(new).encode())
        for index, new in enumerate((number, *callees))
    ]
    for old, new in replaced:
        if (found := original.count(old)) != 1:
            raise ValueError(f"the object has {old!r} {found} times, not once")
        original = original.replace(old, new)
    return original
