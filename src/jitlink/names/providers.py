"""Which library usually defines a name: a table for the advice in error messages.

A `Provider` row applies to all names that its pattern matches in full; the first matching row
takes precedence. Rows with `is_support` are for support functions that compilers call
implicitly, and that a static library beside the compiler defines.
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

from jitlink.names.shared_libraries import CXX_RUN_TIME, UNWINDER


class Provider(NamedTuple):
    """Names of one kind.

    Attributes:
        pattern: a regular expression that matches such names in full.
        where: the library that usually defines them, as the end of a sentence that begins with
            "is usually in".
        is_support: whether the compilers' support libraries define them.
    """

    pattern: str
    where: str
    is_support: bool = False


_SUPPORT = "libgcc or compiler-rt's builtins, which are beside the compiler"
_INTEGER, _FLOAT = "[sdt]i", "[hbsdxt]f"
_SUPPORT_ROWS = tuple(
    Provider(pattern, _SUPPORT, is_support=True)
    for pattern in (
        rf"__(u?(div|mod|divmod)|mul|(add|sub|mul)[vo]|(ash[lr]|lshr)){_INTEGER}[34]",
        rf"__(neg|negv|absv|clz|ctz|ffs|parity|popcount|bswap|u?cmp){_INTEGER}2",
        rf"__(add|sub|mul|div){_FLOAT}3|__powi{_FLOAT}2",
        rf"__(neg|eq|ne|lt|le|gt|ge|cmp|unord){_FLOAT}2",
        r"__(mul|div)[hsdxt]c3",
        rf"__(fix|fixuns){_FLOAT}{_INTEGER}|__(float|floatun|floatuns){_INTEGER}{_FLOAT}",
        rf"__(extend|trunc){_FLOAT}{_FLOAT}2",
        r"__gnu_(h2f|f2h)_ieee|__clear_cache|__enable_execute_stack",
        r"__cpu_(model|features2|indicator_init)",
        r"__(aarch64|arm)_(cas|swp|ldadd|ldclr|ldeor|ldset)[0-9]+_(relax|acq|rel|acq_rel|sync)",
        r"__riscv_(save|restore)_[0-9]+",
        r"__(addtf|subtf|multf|divtf)3_resms|__bid_.*|__dpd_.*",
        r"__emutls_get_address",
    )
)

_MATHEMATICS = (
    "(a?(sin|cos|tan)h?|atan2|exp[2m]?1?0?|log(2|10|1p|b)?|pow|sqrt|cbrt|hypot|fma|fmod|"
    "remainder|ceil|floor|trunc|l?l?r(ound|int)|nearbyint|ldexp|frexp|modf|scalbl?n|erfc?|"
    "[lt]gamma|fdim|f(max|min|abs)|copysign|nan|nextafter|sincos)"
)
"""Functions on floating-point numbers, without the suffix for their type."""

PROVIDERS: tuple[Provider, ...] = (
    *_SUPPORT_ROWS,
    Provider(r"__(generic_)?morestack\w*|__splitstack_\w+", "libgcc.a, which is beside gcc"),
    Provider(rf"({'|'.join(UNWINDER)}).*", "libgcc_s or libunwind (-lgcc_s)"),
    # The C library has these three.
    Provider(rf"(?!__cxa_(finalize|atexit|thread_atexit))({'|'.join(CXX_RUN_TIME)}).*",
             "the C++ run-time library, libstdc++ or libc++abi (-lstdc++)"),
    Provider(r"_Z(TI|TS|TV)[NK]*(St|10__cxxabiv1).*|_ZN10__cxxabiv1.*|_Zn[wa].*|_Zd[la].*",
             "the C++ run-time library, libstdc++ or libc++abi (-lstdc++)"),
    Provider(r"_Z\w*NK?St3__1.*", "LLVM's C++ library, libc++ (-lc++)"),
    Provider(r"_ZNK?(St|9__gnu_cxx|S[absiod]).*|_ZSt.*|_ZGVN?St.*",
             "the C++ library, libstdc++ (-lstdc++)"),
    Provider(r"__atomic_.*", "libatomic (-latomic)"),
    Provider(r"__cilkrts_.*", "Intel's libcilkrts"),
    Provider(r"(GOMP|omp)_.*|__kmpc_.*", "the OpenMP run-time library, libgomp or libomp"),
    Provider(r"_gfortran_.*", "the Fortran run-time library (-lgfortran)"),
    Provider(r"_Fortran(A|F)\w*", "LLVM's Fortran run-time library (-lFortranRuntime)"),
    Provider(rf"(__)?quadmath_\w+|strtoflt128|c?{_MATHEMATICS}q", "libquadmath (-lquadmath)"),
    Provider(r"__asan_.*|__interceptor_.*", "AddressSanitizer's run-time library, libasan, which "
             "the process must be started with"),
    Provider(r"__ubsan_.*", "UndefinedBehaviorSanitizer's run-time library (-lubsan)"),
    Provider(r"__tsan_.*", "ThreadSanitizer's run-time library, libtsan, which the process must "
             "be started with"),
    Provider(r"__msan_.*", "MemorySanitizer's run-time library, which the process must be "
             "started with"),
    Provider(r"__sanitizer_.*", "the sanitizers' run-time libraries"),
    Provider(r"__gcov_.*", "gcc's coverage library, libgcov (-lgcov)"),
    Provider(r"__llvm_profile_.*|__llvm_gcov.*", "compiler-rt's profile library"),
    Provider(r"__orc_rt_.*", "LLVM's ORC run-time library, liborc_rt"),
    Provider(r"__stack_chk_fail_local", "libssp_nonshared (-lssp_nonshared)"),
    Provider(r"__rust_.*|rust_(begin|eh|panic).*|_ZN(4core|5alloc|3std)\d.*17h[0-9a-f]{16}E",
             "Rust's standard library, libstd"),
    Provider(r"objc_.*|__objc_.*|_OBJC_.*", "the Objective-C run-time library, libobjc (-lobjc)"),
    Provider(r"swift_.*", "the Swift run-time library, libswiftCore"),
    Provider(r"_?_?go\w*\.\w+|runtime\.\w+", "the Go run-time library, libgo"),
    Provider(r"pthread_.*|sem_(init|wait|post|destroy|open)", "the threads library (-lpthread)"),
    Provider(r"(timer|mq|aio|shm)_\w+|clock_\w+", "librt (-lrt)"),
    Provider(r"dl(open|sym|close|error|addr|iterate_phdr|info|mopen)\w*", "libdl (-ldl)"),
    Provider(rf"{_MATHEMATICS}[fl]?", "the mathematics library (-lm)"),
    Provider(r"_ZGV[a-zA-Z]N\d+v+_\w+", "the vector mathematics library (-lmvec)"),
    Provider(r"Py[A-Z_]\w*|_Py\w+", "Python itself"),
    Provider(r"cu[A-Z]\w+|cuda[A-Z]\w+", "the CUDA libraries"),
    Provider(r"(in|de)flate\w*|crc32|adler32|gz\w+", "zlib (-lz)"),
    Provider(r"cblas_\w+|[sdcz](gemm|axpy|dot|scal)_", "a BLAS library (-lblas)"),
)  # fmt: skip


@functools.cache
def _patterns() -> list[tuple[re.Pattern[str], Provider]]:
    return [(re.compile(row.pattern), row) for row in PROVIDERS]


def usual_provider(name: str) -> Provider | None:
    """The first row that matches a name, or None."""
    return next((row for pattern, row in _patterns() if pattern.fullmatch(name)), None)


@functools.cache
def _support_pattern() -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{row.pattern})" for row in _SUPPORT_ROWS))


def is_compiler_support(name: str) -> bool:
    """Whether the compilers' support libraries usually define a name."""
    return name.startswith("__") and _support_pattern().fullmatch(name) is not None
