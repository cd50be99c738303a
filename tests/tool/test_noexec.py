"""`-noexec` resolves what a run resolves, reports what a run reports, and runs nothing."""

from pathlib import Path

import pytest

from jitlink.executor import SelfExecutorProcessControl
from jitlink.memory import InProcessMemoryManager
from jitlink.memory.tls_glibc import PROCESS_TLS
from tests.tool.command import Command, archive, compile_to, spawn
from tests.toolchain import compile_c

CXX = """
struct Part { Part(); ~Part(); int value; };
Part::Part() : value(3) {}
Part::~Part() {}
static Part part;
int main() {
    try { throw 3; } catch (int) {}
    delete new int;
    return part.value - 3;
}
"""
EXITS = """
#include <pthread.h>
#include <stdlib.h>
static void nothing(void) {}
int main(void) { at_quick_exit(nothing); pthread_atfork(nothing, 0, 0); return atexit(nothing); }
"""
HANDLE = "extern void *__dso_handle; int main(void) { return &__dso_handle == 0; }"
DLOPEN = """
#include <dlfcn.h>
int main(void) { return dlopen("nothing", RTLD_NOW) != 0 || !dlsym(RTLD_DEFAULT, "main"); }
"""
IFUNC = """
static int zero(void) { return 0; }
static void *choose(void) { return zero; }
__attribute__((ifunc("choose"))) int f(void);
int main(void) { return f(); }
"""
TLS = "__thread int x = 3; static __thread int z; int main(void) { return x + z - 3; }"
UNDEFINED = "int nowhere(void); int main(void) { return nowhere(); }"
UNDEFINED_IN_CONSTRUCTOR = """
int nowhere(void);
__attribute__((constructor)) static void set(void) { nowhere(); }
int main(void) { return 0; }
"""
EXTERNAL_TLS = """
extern __thread int nowhere;
int *get(void) { return &nowhere; }
int main(void) { return 0; }
"""
NO_TLS = "extern __thread int environ; int main(void) { return environ; }"
SUPPORT = "__int128 f(__int128 a, __int128 b) { return a / b; } int main(void) { return 0; }"

RUN = {
    "exits": EXITS, "handle": HANDLE, "dlopen": DLOPEN, "ifunc": IFUNC, "tls": TLS,
    "undefined": UNDEFINED, "constructor": UNDEFINED_IN_CONSTRUCTOR, "external_tls": EXTERNAL_TLS,
    "no_tls": NO_TLS, "support": SUPPORT,
}  # fmt: skip
PREFIX = "jitlink: error: "


def compiled_cxx(place: Path, target: str = "x86_64-linux-gnu") -> Path:
    source = place.with_suffix(".cpp")
    source.write_text(CXX)
    flags = ("-O1", "-fPIC", "-fno-sanitize=all")
    place.write_bytes(compile_c(source, "zig", flags, target=target).read_bytes())
    return place


@pytest.mark.parametrize("name", RUN)
@pytest.mark.parametrize("flags", [("-fPIC",), ("-fno-pic",), ("-fPIE", "-fno-plt")])
def test_noexec_and_a_run_agree(name: str, flags: tuple[str, ...]) -> None:
    compile_to(Path("main.o"), RUN[name], "gcc", *flags)
    run, linked = spawn("main.o"), spawn("-noexec", "main.o")
    is_error = run.err.startswith(PREFIX)
    assert linked.status == (1 if is_error else 0), (run, linked)
    if is_error and "undefined symbol" in run.err:
        assert linked.err == run.err
    assert is_error == (name in {"undefined", "constructor", "external_tls", "no_tls"})


def test_objects_of_cxx(command: Command) -> None:
    compiled_cxx(Path("main.o"))
    assert spawn("main.o").status == 0
    assert command("-noexec", "main.o") == (0, "", "")


@pytest.mark.parametrize("target", ["aarch64-linux-gnu", "riscv64-linux-gnu"])
def test_code_for_other_processors(command: Command, target: str) -> None:
    compiled_cxx(Path("main.o"), target)
    assert command("-noexec", "main.o") == (0, "", "")
    for name in ("exits", "handle", "dlopen", "ifunc", "support", "tls"):
        object_file = compile_c(RUN[name], "zig", ("-O1", "-fPIC"), target=target)
        assert command("-noexec", object_file) == (0, "", ""), name
    object_file = compile_c(UNDEFINED, "zig", ("-O1", "-fPIC"), target=target)
    done = command("-noexec", object_file)
    assert done.status == 1
    assert done.err.startswith(f"{PREFIX}undefined symbol: nowhere (referenced by ")


LOCAL_EXEC = "static __thread int one = 1; int main(void) { return one - 1; }"


@pytest.mark.parametrize("model", ["global-dynamic", "initial-exec", "local-exec"])
@pytest.mark.parametrize(
    "target",
    ["aarch64-linux-gnu", "aarch64_be-linux-gnu", "riscv64-linux-gnu", "riscv32-linux-gnu"],
)
def test_thread_local_variables_of_other_processors(
    command: Command, target: str, model: str
) -> None:
    """Those of local exec code have offsets that the ABI allows."""
    flags = ("-O1", "-fPIC", f"-ftls-model={model}")
    object_file = compile_c(LOCAL_EXEC, "clang", flags, target=target)
    assert command("-noexec", object_file, "-phony-externals") == (0, "", "")


def test_functions_of_another_processors_support_library(command: Command) -> None:
    source = "long double f(long double x) { return x * x; } int main(void) { return 0; }"
    atomic = "int g(int *p) { return __atomic_fetch_add(p, 1, __ATOMIC_SEQ_CST); }"
    flags = ("-O1", "-moutline-atomics")
    object_file = compile_c(source + atomic, "zig", flags, target="aarch64-linux-gnu")
    assert command("-noexec", object_file) == (0, "", "")


@pytest.mark.parametrize("flags", [("-fPIC",), ("-fno-pic",), ("-fPIC", "-mtls-dialect=gnu2")])
@pytest.mark.parametrize("options", [(), ("-noexec",)])
def test_phony_thread_local_externals(flags: tuple[str, ...], options: tuple[str, ...]) -> None:
    compile_to(Path("main.o"), EXTERNAL_TLS, "gcc", *flags)
    assert spawn("-phony-externals", *options, "main.o") == (0, "", "")


def test_members_that_refer_to_a_librarys_thread_local_variables(command: Command) -> None:
    # `errno` itself has a version of its own; this is the C++ library's.
    source = "extern __thread void *_ZSt15__once_callable; void *get(void) { return "
    compile_to(Path("once.o"), source + "_ZSt15__once_callable; }", "gcc", "-fPIC")
    archive(Path("libonce.a"), Path("once.o"))
    assert command("-noexec", "-all_load", "-phony-externals", "libonce.a") == (0, "", "")


def test_static_tls_has_no_limit(command: Command) -> None:
    source = "static __thread char b[1 << 20]; int main(void) { return b[5]; }"
    compile_to(Path("main.o"), source, "gcc", "-fPIC", "-ftls-model=initial-exec")
    run = spawn("main.o")
    assert "bytes of static TLS" in run.err or run.status == 0
    assert command("-noexec", "main.o") == (0, "", "")


def test_thread_local_variables_of_several_links(command: Command) -> None:
    flags = ("-fPIC", "-ftls-model=initial-exec")
    compile_to(Path("main.o"), "extern __thread int x; int main(void) { return x; }", "gcc", *flags)
    compile_to(Path("x.o"), "__thread int x = 3;", "gcc", *flags)
    assert command("-noexec", "main.o", "-lx", "-jd", "x", "x.o") == (0, "", "")


def test_variables_of_another_link_stay_together(command: Command) -> None:
    flags = ("-fPIC", "-ftls-model=initial-exec", "-fcf-protection=none")
    source = """
    extern __thread int x, y;
    int x_of(void) { return x; }
    int y_of(void) { return y; }
    int main(void) { return x_of() + y_of(); }
    """
    compile_to(Path("main.o"), source, "gcc", *flags)
    compile_to(Path("x.o"), "__thread int x = 3, y = 4;", "gcc", "-fPIC")
    words = ["main.o", "-lx", "-jd", "x", "x.o", "-check", "rules"]
    x, y = (f"(*{{8}}(next_pc({f}) + decode_operand({f}, 4)))" for f in ("x_of", "y_of"))
    Path("rules").write_text(f"# jitlink-check: {x} - {y} = x - y\n")
    assert command("-noexec", *words) == (0, "", "")
    assert spawn(*words) == (7, "", "")


def test_nothing_runs_and_nothing_is_loaded(command: Command) -> None:
    source = """
    #include <stdlib.h>
    __thread int x = 1;
    static int zero(void) { return x; }
    static void *choose(void) { abort(); return zero; }
    __attribute__((ifunc("choose"))) int f(void);
    __attribute__((constructor)) static void set(void) { abort(); }
    int main(void) { return f(); }
    """
    compile_to(Path("main.o"), source, "gcc", "-fPIC")
    count = PROCESS_TLS.count
    assert command("-noexec", "main.o") == (0, "", "")
    assert PROCESS_TLS.count == count


def test_the_objects_of_initialisers_are_linked(command: Command) -> None:
    compile_to(Path("main.o"), "int main(void) { return 0; }", "gcc")
    source = "int v; __attribute__((constructor)) static void set(void) { v = 1; }"
    compile_to(Path("set.o"), source, "gcc")
    done = command("-noexec", "-show-linked-files", "main.o", "set.o")
    assert done == (0, "Linking main.o\nLinking set.o\n", "")


def test_aliases_of_names_of_the_platform(command: Command) -> None:
    compile_to(Path("main.o"), "int later(void (*)(void)); int main(void) { return later(0); }")
    assert command("-noexec", "main.o", "-alias", "later=atexit") == (0, "", "")


def test_the_process_manager_goes_on_to_run_actions() -> None:
    manager = SelfExecutorProcessControl.shared().memory_manager
    assert isinstance(manager, InProcessMemoryManager)
    assert manager.runs_code
    assert manager.tls is PROCESS_TLS
