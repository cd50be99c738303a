"""Demangling of C++ and Rust names.

C++ names are demangled by ``__cxa_demangle`` of the C++ run-time library, libstdc++'s or LLVM's.
Without one they stay mangled. Rust's legacy names have the form of C++ names, with a hash as the
last part; they are demangled here.

Quirks: names of Rust's v0 scheme, which begin with ``_R``, stay mangled.

Names are untrusted input. A short one can expand to a text of any length, through substitutions
that repeat earlier parts; names with more of them than programs have are not demangled.

Specification: Itanium C++ ABI, 5.1 "External Names", and its ``__cxa_demangle``; for Rust
`rustc_symbol_mangling::legacy`.
"""

from __future__ import annotations

import ctypes
import functools
import re
from collections.abc import Callable

_LONGEST = 4096
_MOST_REPETITIONS = 48
"""A repetition multiplies the text's length by at most 1.45, so this bounds its size."""
_REPETITION = re.compile(r"[ST][0-9A-Z]*_|Dp")
_RUST = re.compile(r"_ZN([A-Za-z0-9_.$]+)E(?:\.[A-Za-z0-9_.]+)?")
_NUMBER = re.compile(r"[1-9][0-9]{0,3}")
_HASH = re.compile(r"h[0-9a-f]{16}")
_RUST_CODES = {
    "SP": "@", "BP": "*", "RF": "&", "LT": "<", "GT": ">", "LP": "(", "RP": ")", "C": ",",
}  # fmt: skip
_RUNTIMES = ("libstdc++.so.6", "libc++abi.so.1", "libc++.so.1")


def demangled(name: str) -> str | None:
    """A mangled name as source text; None if it is not mangled or cannot be demangled."""
    if not name.startswith("_Z") or len(name) > _LONGEST or "\0" in name:
        return None
    return _rust(name) or _cplusplus(name)


def with_source_name(name: str) -> str:
    """A name, followed by its demangled form in parentheses if there is one."""
    source = demangled(name)
    return name if source is None else f"{name} ({source})"


def _rust(name: str) -> str | None:
    match = _RUST.fullmatch(name)
    parts = None if match is None else _identifiers(match[1])
    if not parts or len(parts) < 2 or not _HASH.fullmatch(parts[-1]):
        return None
    return "::".join(map(_rust_identifier, parts[:-1]))


def _identifiers(text: str) -> list[str] | None:
    """The identifiers in a sequence of them, each preceded by its length."""
    parts, position = [], 0
    while position < len(text):
        number = _NUMBER.match(text, position)
        if number is None:
            return None
        position = number.end() + int(number[0])
        if position > len(text):
            return None
        parts.append(text[number.end() : position])
    return parts


def _rust_identifier(text: str) -> str:
    # Rust puts an underscore before an identifier that begins with an escape.
    text = text.removeprefix("_") if text.startswith("_$") else text
    return re.sub(r"\$([A-Za-z0-9]+)\$|\.\.", _rust_code, text)


def _rust_code(match: re.Match[str]) -> str:
    code = match[1]
    if code is None:
        return "::"
    if re.fullmatch(r"u[0-9a-f]{1,5}", code):
        return chr(int(code[1:], 16))
    return _RUST_CODES.get(code, match[0])


def _cplusplus(name: str) -> str | None:
    demangle = _runtime_function()
    if demangle is None or len(_REPETITION.findall(name)) > _MOST_REPETITIONS:
        return None
    # Optimisers append suffixes that are not part of the mangling.
    mangled, _, suffix = name.partition(".")
    status = ctypes.c_int(-1)
    text = demangle(mangled.encode("utf-8", "surrogateescape"), None, None, ctypes.byref(status))
    if not text:
        return None
    try:
        source = ctypes.string_at(text).decode("utf-8", "surrogateescape")
    finally:
        _free()(text)
    if status.value:
        return None
    return f"{source} [.{suffix}]" if suffix else source


@functools.cache
def _runtime_function() -> Callable[..., int | None] | None:
    """``__cxa_demangle`` of the process or of a library that can be loaded, or None."""
    for library in (None, *_RUNTIMES):
        try:
            function = ctypes.CDLL(library)["__cxa_demangle"]
        except (OSError, AttributeError):
            continue
        pointer = ctypes.c_void_p
        function.argtypes = (ctypes.c_char_p, pointer, pointer, pointer)
        function.restype = pointer
        return function
    return None


@functools.cache
def _free() -> Callable[[int], None]:
    function = ctypes.CDLL(None)["free"]
    function.argtypes = (ctypes.c_void_p,)
    function.restype = None
    return function
