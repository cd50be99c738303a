"""Advice about names, compared with the libraries that define them."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jitlink.compilers import support_archives
from jitlink.names.providers import PROVIDERS, is_compiler_support, usual_provider
from tests.toolchain import report_missing, require

EXPECTED = {
    "__udivti3": "libgcc",
    "_Unwind_Resume": "libgcc_s",
    "__cxa_throw": "libstdc++",
    "__gxx_personality_v0": "libstdc++",
    "_ZSt4cout": "libstdc++",
    "_ZNSt6vectorIiSaIiEE9push_backERKi": "libstdc++",
    "_ZNSt3__14coutE": "libc++",
    "_Znwm": "libstdc++",
    "pthread_create": "-lpthread",
    "sqrtf": "-lm",
    "cos": "-lm",
    "__atomic_load_16": "libatomic",
    "_gfortran_st_write": "-lgfortran",
    "__orc_rt_log_error": "liborc_rt",
    "__asan_init": "libasan",
    "__ubsan_handle_add_overflow": "-lubsan",
    "__gcov_init": "-lgcov",
    "__emutls_get_address": "libgcc",
    "__rust_alloc": "libstd",
    "_ZN4core9panicking5panic17h0123456789abcdefE": "libstd",
    "GOMP_parallel": "libgomp",
    "dlopen": "-ldl",
    "clock_gettime": "-lrt",
    "__clzti2": "libgcc",
    "__addtf3": "libgcc",
    "__letf2": "libgcc",
    "__multc3": "libgcc",
    "__fixunstfti": "libgcc",
    "__extendhfsf2": "libgcc",
    "__clear_cache": "libgcc",
    "__cpu_model": "libgcc",
    "__aarch64_ldadd4_acq_rel": "libgcc",
    "__riscv_save_12": "libgcc",
    "__bid_adddd3": "libgcc",
    "__morestack": "libgcc.a",
    "__cilkrts_enter_frame_1": "libcilkrts",
    "_FortranAioBeginExternalListOutput": "-lFortranRuntime",
    "quadmath_snprintf": "-lquadmath",
    "sqrtq": "-lquadmath",
    "__tsan_init": "libtsan",
    "__msan_init": "MemorySanitizer",
    "__sanitizer_print_stack_trace": "sanitizers",
    "__llvm_profile_runtime": "compiler-rt's profile library",
    "__stack_chk_fail_local": "libssp_nonshared",
    "objc_msgSend": "libobjc",
    "swift_retain": "libswiftCore",
    "runtime.gopanic": "libgo",
    "_ZGVbN4v_sinf": "-lmvec",
    "PyLong_FromLong": "Python",
    "cudaMalloc": "CUDA",
    "deflateInit_": "zlib",
    "cblas_dgemm": "BLAS",
}


@pytest.mark.parametrize("name", EXPECTED)
def test_names_are_known(name: str) -> None:
    provider = usual_provider(name)
    assert provider is not None
    assert EXPECTED[name] in provider.where


@pytest.mark.parametrize(
    "name", ["main", "helper", "", "add", "sqlite3_open", "cosmos", "_ZN3fooE"]
)
def test_names_of_programs_are_not(name: str) -> None:
    assert usual_provider(name) is None


def test_every_row_is_the_first_for_some_name() -> None:
    assert {usual_provider(name) for name in EXPECTED} == set(PROVIDERS)


def _exported(path: Path) -> Iterator[str]:
    words: list[str | Path] = ["nm", "--defined-only", "--extern-only", "--format=posix", path]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines():
        if " T " in line:
            yield line.split()[0]


def test_most_of_libquadmath_is_covered() -> None:
    require("nm")
    names = set(_exported(require("libquadmath.a")))
    known = {name for name in names if "quadmath" in str(usual_provider(name))}
    assert len(known) > 0.75 * len(names), sorted(names - known)


def test_the_support_libraries_are_covered() -> None:
    """Most of the arithmetic functions of the compilers' support libraries must be known."""
    require("nm")
    archives = support_archives("x86_64")
    if not archives:
        report_missing("a compiler's support library", "libgcc-12-dev")
    for path in archives:
        names = set(_exported(Path(path)))
        arithmetic = {
            n for n in names if re.fullmatch(r"__\w*([sdt]i|[hbsdxt]f|[sdxt]c)\w*[234]", n)
        }
        known = {n for n in arithmetic if is_compiler_support(n)}
        assert len(known) > 0.9 * len(arithmetic), sorted(arithmetic - known)
