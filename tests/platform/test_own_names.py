"""Names that the platform provides, defined by a program: the program's definitions prevail."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import jitlink
from jitlink.runtime import EXPORTS, PER_DYLIB_FUNCTIONS
from tests.tool.command import spawn
from tests.toolchain import compile_c, run

NAMES = sorted({*EXPORTS, *PER_DYLIB_FUNCTIONS} - {n for n in EXPORTS if "__jitlink" in n})
BINDINGS = {
    "strong": "",
    "weak": "__attribute__((weak)) ",
    "hidden": '__attribute__((visibility("hidden"))) ',
}
FUNCTION = "{binding}int {name}(void) {{ return 42; }}"
CALLER = "int {name}(void); int f(void) {{ return {name}(); }} int main(void) {{ return f(); }}"
FLAGS = ["-O1", "-fPIC", "-fno-builtin"]

HANDLE = """
#include <stdio.h>
#include <stdlib.h>
{binding}void *__dso_handle = 0;
extern int __cxa_atexit(void (*)(void *), void *, void *);
static void bye(void) {{ puts("bye"); fflush(stdout); }}
static void handler(void *text) {{ puts(text); }}
__attribute__((constructor)) static void begin(void) {{ puts("begin"); }}
int f(void) {{
    __cxa_atexit(handler, "handler", &__dso_handle);
    return atexit(bye);
}}
int main(void) {{ return f(); }}
"""
PRINTED = ["begin", "bye", "handler"]


def sources(name: str, binding: str, *, apart: bool) -> list[Path]:
    texts = [
        FUNCTION.format(binding=BINDINGS[binding], name=name),
        CALLER.format(name=name),
    ]
    return [compile_c(text, flags=FLAGS) for text in (texts if apart else ["\n".join(texts)])]


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("binding", BINDINGS)
@pytest.mark.parametrize("name", NAMES)
def test_functions(name: str, binding: str, *, apart: bool) -> None:
    objects = sources(name, binding, apart=apart)
    with jitlink.load(*objects) as lib:
        assert lib.f() == 42
    with jitlink.LLJIT() as jit:
        for path in objects:
            jit.add_object(path)
        assert jit.lookup("f")() == 42


@pytest.mark.parametrize("binding", BINDINGS)
def test_the_handle(binding: str, tmp_path: Path) -> None:
    """As natively with -nostartfiles, where nothing else defines it."""
    path = compile_c(HANDLE.format(binding=BINDINGS[binding]), flags=FLAGS)
    done = spawn(path)
    assert (done.status, done.out.split(), done.err) == (0, PRINTED, "")
    script = tmp_path / "loads.py"
    script.write_text(f"import jitlink; lib = jitlink.load({str(path)!r}); assert lib.f() == 0\n")
    assert run([sys.executable, script]).split() == PRINTED


def test_the_handle_is_registered_once_for_a_jitdylib() -> None:
    path = compile_c(HANDLE.format(binding=""), flags=FLAGS)
    other = compile_c(
        "#include <stdlib.h>\nint g(void) { return atexit((void (*)(void))abs); }", flags=FLAGS
    )
    with jitlink.LLJIT() as jit:
        tracker = jit.create_resource_tracker()
        jit.add_object(path, tracker)
        jit.add_object(other)
        assert (jit.lookup("f")(), jit.lookup("g")()) == (0, 0)
        jit.remove(tracker)
        jit.add_object(path)
        assert jit.lookup("f")() == 0


def test_crt_files_of_the_compiler(gcc: Path) -> None:
    """What build systems hand in for shared libraries; frame_dummy and the like run."""
    names = ("crtbeginS.o", "crtendS.o")
    crt = [Path(run([gcc, f"-print-file-name={name}"]).strip()) for name in names]
    main = compile_c("int main(void) { return 7; }", flags=FLAGS)
    assert spawn(crt[0], main, crt[1]).status == 7
    with jitlink.load(crt[0], main, crt[1]) as lib:
        assert lib.main() == 7
