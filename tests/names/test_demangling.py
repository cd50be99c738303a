"""Demangled names, compared with the output of c++filt."""

import ctypes
import subprocess
import time

import pytest

from jitlink.names import demangling
from jitlink.names.demangling import demangled, with_source_name
from tests.toolchain import require

CPLUSPLUS = (
    "_ZN3foo3barEv",
    "_ZNSt6vectorIiSaIiEE9push_backERKi",
    "_ZTV7Derived",
    "_ZN12_GLOBAL__N_16hiddenEPKc",
    "_Z3addILi3EEiv",
    "_ZZ4mainE5count",
)


_HASH = "h0123456789abcdef"


def _rust_name(*parts: str) -> str:
    return "_ZN" + "".join(f"{len(part)}{part}" for part in (*parts, _HASH)) + "E"


@pytest.mark.parametrize("name", CPLUSPLUS)
def test_cplusplus_names_are_what_cxxfilt_says(name: str) -> None:
    output = subprocess.run([require("c++filt"), name], capture_output=True, text=True, check=True)
    assert demangled(name) == output.stdout.strip()
    assert with_source_name(name) == f"{name} ({output.stdout.strip()})"


@pytest.mark.parametrize(
    ("parts", "source"),
    [
        (("core", "fmt", "Formatter", "write_str"), "core::fmt::Formatter::write_str"),
        (
            ("_$LT$alloc..string..String$u20$as$u20$core..fmt..Display$GT$", "fmt"),
            "<alloc::string::String as core::fmt::Display>::fmt",
        ),
        (("a", "$RF$$u5b$T$u5d$$C$$BP$mut"), "a::&[T],*mut"),
        (("a", "$unknown$b"), "a::$unknown$b"),
    ],
)
def test_legacy_rust_names(parts: tuple[str, ...], source: str) -> None:
    assert demangled(_rust_name(*parts)) == source
    assert demangled(f"{_rust_name(*parts)}.llvm.42") == source


@pytest.mark.parametrize(
    "parts",
    [
        ("core", "fmt", "Formatter", "write_str"),
        ("_$LT$alloc..string..String$u20$as$u20$core..fmt..Display$GT$", "fmt"),
        ("r", "Point$LT$T$GT$", "get"),
        ("a", "$RF$$u5b$T$u5d$$C$$BP$mut"),
    ],
)
def test_rust_names_are_what_cxxfilt_says(parts: tuple[str, ...]) -> None:
    name = _rust_name(*parts)
    output = subprocess.run([require("c++filt"), name], capture_output=True, text=True, check=True)
    # The hash is left out, as in Rust's own messages.
    assert f"{demangled(name)}::{_HASH}" == output.stdout.strip()


@pytest.mark.parametrize(
    "name",
    [
        "main", "", "_Z", "_ZN", "_Znope", "_ZN3fooE17", "_RNvC6_123foo3bar", "_ZN99foo3barEv",
        "_Z" + "1a" * 4000, "_ZN" + "1a" * 500 + "!", "_Z\udcff1f", "_Z1f\0v",
    ],
)  # fmt: skip
def test_other_names_stay_as_they_are(name: str) -> None:
    assert demangled(name) is None
    assert with_source_name(name) == name


@pytest.mark.serial("measures time")
def test_a_short_name_cannot_expand_to_an_endless_text() -> None:
    # Each argument list repeats the one before it twice.
    name, before = "_Z1f1tIiiE", ("S0_", "S0_")
    for level in range(60):
        name += f"S_I{before[0]}{before[1]}E"
        number = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
        digits = number[level + 1] if level < 35 else f"1{number[level - 35]}"
        before = (f"S{digits}_", f"S{digits}_")
    started = time.perf_counter()
    assert demangled(name) is None
    assert time.perf_counter() - started < 1


def test_without_a_cplusplus_library_names_stay_mangled(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str | None) -> ctypes.CDLL:
        raise OSError(f"no {name}")

    monkeypatch.setattr(ctypes, "CDLL", fail)
    demangling._runtime_function.cache_clear()
    try:
        assert demangled("_ZN3foo3barEv") is None
        assert demangled(_rust_name("a", "b")) == "a::b"
    finally:
        demangling._runtime_function.cache_clear()
