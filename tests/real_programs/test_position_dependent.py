"""Real archives and programs that are compiled without -fPIC, beside their native builds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.orc.units import IS_LONG
from tests.runtime_programs.building import link_native
from tests.runtime_programs.running import execute, linked_command, run_linked, run_native
from tests.toolchain import compile_c, require, run

SOURCES = Path(__file__).with_name("sources")
NO_PIC = ("-O1", "-fno-pic")

long_only = pytest.mark.skipif(not IS_LONG, reason="needs large packages; JITLINK_LONG=1 runs it")

PARALLEL = r"""
#include <omp.h>
#include <stdio.h>
int main(void) {
    int sum = 0;
    #pragma omp parallel for reduction(+ : sum) num_threads(4)
    for (int i = 0; i < 1000; i++) sum += i;
    fprintf(stderr, "%d\n", omp_get_max_threads() > 0);
    printf("%d\n", sum);
    return 0;
}
"""


@pytest.mark.parametrize("options", [(), ("-oop-executor",)], ids=["here", "there"])
def test_openmp(options: tuple[str, ...]) -> None:
    inputs = [compile_c(PARALLEL, "gcc", (*NO_PIC, "-fopenmp")), require("libgomp.a")]
    native = run_native(link_native("parallel.c", inputs, "-no-pie"))
    assert native == (0, "499500\n", "1\n")
    assert run_linked(inputs, options=options) == native


@long_only
@pytest.mark.parametrize("options", [(), ("-oop-executor",)], ids=["here", "there"])
def test_python_without_pic(options: tuple[str, ...]) -> None:
    libraries = [require(f"lib{each}.a") for each in ("python3.11", "expat", "z")]
    inputs = [compile_c(SOURCES / "python.c", "gcc", NO_PIC), *libraries]
    words = ("-no-pie", "-rdynamic", "-lm", "-ldl", "-lutil", "-lpthread")
    program = link_native("python.c", inputs, *words)
    arguments = ["-I", "-S", str(SOURCES / "python_script"), "x"]
    native = run_native(program, arguments)
    assert "RuntimeError: the end" in native.errors
    assert run_linked(inputs, arguments, options=options) == native


@long_only
@pytest.mark.parametrize("options", [(), ("-oop-executor",)], ids=["here", "there"])
def test_eight_codecs(options: tuple[str, ...]) -> None:
    libraries = [require(f"lib{each}.a") for each in ("avcodec", "swresample", "avutil")]
    inputs = [compile_c(SOURCES / "codecs.c", "gcc", NO_PIC), *libraries]
    # What the archives need is installed with the shared library.
    listed = run(["ldd", *libraries[0].parent.glob("lib*av*[cu]*.so.5[79]")])
    needed = sorted(set(re.findall(r"/\S+\.so\S*(?= \()", listed)))
    needed = [each for each in needed if not re.search("libav|libsw|ld-linux|/libc.so", each)]
    native = run_native(link_native("codecs.c", inputs, "-no-pie", *needed))
    assert len(native.output.splitlines()) == 8
    preloads = [word for each in needed for word in ("-preload", each)]
    assert execute([*linked_command(inputs, options)[:-2], *preloads]) == native


@long_only
def test_libunwind_links() -> None:
    command = linked_command([compile_c("int main(void) { return 0; }", "gcc", NO_PIC)])[:-2]
    words = ["-all_load", "-noexec", "-phony-externals", str(require("libunwind.a"))]
    assert execute([*command, *words]) == (0, "", "")
