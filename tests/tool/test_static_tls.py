"""Static TLS that a process lacks: the command starts again with it, and libraries are told."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import jitlink
from jitlink.errors import StaticTLSError
from jitlink.executor import SelfExecutorProcessControl
from jitlink.link import run_in_process
from jitlink.memory import tls_glibc
from jitlink.memory.tls_glibc import tunables_for
from jitlink.tool.restart import VARIABLE
from tests.platform.programs import Build, objects
from tests.tool.command import Command, archive, spawn
from tests.toolchain import compile_c, require, run

FLAGS = ["-O1", "-fPIE", "-ftls-model=local-exec"]
SETTING = "glibc.rtld.optional_static_tls"
BLOCK = "volatile __thread char {name}[{size}] = {{1}};\n"
PROGRAM = (
    BLOCK.format(name="block", size=9000)
    + """
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
extern char **environ;
__attribute__((constructor)) static void begin(void) { puts("begin"); }
int main(int argc, char **argv) {
    char line[100], place[4096];
    for (int each = 1; each < argc; ++each)
        printf("%s\\n", argv[each]);
    while (fgets(line, sizeof line, stdin))
        printf("read %s", line);
    printf("in %s\\n", getcwd(place, sizeof place));
    for (char **each = environ; *each; ++each)
        if (*each[0] == 'G' || *each[0] == 'J')
            printf("%s\\n", *each);
    fflush(stdout);
    if (argc > 2)
        raise(SIGTERM);
    return 41 + block[0];
}
"""
)


def command(
    words: Sequence[str | Path],
    *,
    text: str = "",
    cwd: Path | None = None,
    **environment: str,
) -> tuple[int, str, str]:
    inherited = {n: v for n, v in os.environ.items() if n[0] not in "GJ"}
    done = subprocess.run(
        [sys.executable, "-m", "jitlink", *words],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**inherited, **environment},
    )
    return done.returncode, done.stdout, done.stderr


def shared(place: Path, source: str, *flags: str) -> Path:
    path = compile_c(source, "gcc", ["-O1", "-fPIC", *flags])
    run([require("gcc"), "-shared", path, "-o", place])
    return place


@pytest.fixture
def program() -> Path:
    return compile_c(PROGRAM, "gcc", FLAGS)


def test_it_is_as_if_there_had_been_one_process(program: Path, tmp_path: Path) -> None:
    words: list[str | Path] = [program, "-show-linked-files", "-args", "program", "an argument"]
    status, out, err = command(words, text="one\ntwo\n", cwd=tmp_path)
    assert (status, err) == (42, "")
    assert out.splitlines() == [
        f"Linking {program}", "begin", "an argument", "read one", "read two", f"in {tmp_path}",
    ]  # fmt: skip


def test_settings_are_kept(program: Path) -> None:
    given = "glibc.malloc.arena_max=2:glibc.rtld.optional_static_tls=600"
    status, out, err = command([program], GLIBC_TUNABLES=given)
    assert (status, err) == (42, "")
    assert out.splitlines()[2:] == [f"GLIBC_TUNABLES={given}"]


def test_signals(program: Path) -> None:
    status, _, err = command([program, "-args", "program", "1", "2"])
    assert (status, err) == (-15, "")


def test_several_jitdylibs_and_initialisers_in_sum() -> None:
    """Nothing runs before all of it is linked, what has initialisers too."""
    source = """
#include <stdio.h>
{block}
int {name}_value(void) {{ return {name}[0]; }}
__attribute__((constructor)) static void begin(void) {{ puts("{name}"); }}
"""
    names = ("first", "second", "third")
    parts = [
        compile_c(source.format(name=n, block=BLOCK.format(name=n, size=3000)), "gcc", FLAGS)
        for n in names
    ]
    main = compile_c(
        "int first_value(void);\nint main(void) { return 6 + first_value(); }", "gcc", FLAGS
    )
    words: list[str | Path] = [main, "-lfirst", parts[1], "-jd", "first", parts[0], parts[2]]
    status, out, err = command(words)
    assert (status, err) == (7, ""), err
    assert sorted(out.splitlines()) == sorted(names)
    assert out.splitlines()[-1] == "second"


def test_inputs_that_cannot_be_read_again(program: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jitlink", "/dev/stdin"],
        input=program.read_bytes(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"start the process with GLIBC_TUNABLES={SETTING}=".encode() in done.stderr


def test_files_of_the_program_and_outputs(program: Path) -> None:
    """The command has read nothing from them."""
    for words in (["-args", "program", "/dev/stdin"], ["-map", "/dev/null"]):
        status, out, err = command([program, *words], text="a line\n")
        assert (status, err) == (42, "")
        assert "read a line" in out


def test_it_does_not_start_again_for_ever(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "8")
    done = spawn(program)
    status, out, err = done
    assert (status, out) == (1, "")
    assert f"GLIBC_TUNABLES={SETTING}=8192" in err
    # An alignment that no surplus has.
    source = BLOCK.format(name="block", size=9000).replace("volatile", "_Alignas(4096) volatile")
    aligned = compile_c(source + "int main(void) { return block[0]; }", "gcc", FLAGS)
    status, out, err = command([aligned])
    assert (status, out) == (1, "")
    assert "aligned to 4096" in err
    assert "GLIBC_TUNABLES" not in err


def test_a_command_within_a_process_fails(program: Path, command_here: Command) -> None:
    done = command_here(program)
    assert done.status == 1
    assert "bytes of static TLS" in done.err


@pytest.fixture
def command_here(capfd: pytest.CaptureFixture[str]) -> Command:
    from tests.tool.command import in_process  # noqa: PLC0415 - only here

    return in_process(capfd)


LIBRARY = BLOCK.format(name="mine", size=5000) + "int value(void) { return mine[0]; }\n"


def test_a_shared_library_that_needs_static_tls(tmp_path: Path) -> None:
    library = shared(tmp_path / "libmine.so", LIBRARY, "-ftls-model=initial-exec")
    main = compile_c(
        BLOCK.format(name="block", size=5000)
        + "int value(void);\nint main(void) { return 7 * value() * block[0]; }",
        "gcc",
        FLAGS,
    )
    ways: list[list[str | Path]] = [
        [main, f"-L{tmp_path}", "-lmine"],
        [main, "-preload", library, f"-L{tmp_path}", "-lmine"],
    ]
    for words in ways:
        assert command(words) == (7, "", "")
    with pytest.raises(StaticTLSError) as caught:
        run_in_process(SelfExecutorProcessControl.shared().load_dylib(library))
    error = caught.value
    assert (error.library, error.size) == (str(library), 5000)
    assert error.tunables is not None
    assert 0 < error.surplus < 5000
    assert f"shared library {library} needs 5000 bytes of static TLS" in str(error)


def test_a_library_is_told_the_number(program: Path) -> None:
    with pytest.raises(StaticTLSError) as caught:
        jitlink.load(program)
    error = caught.value
    assert error.size >= 9000
    assert f"{error.surplus} bytes are left" in str(error)
    assert f"GLIBC_TUNABLES={error.tunables}" in str(error)
    assert error.tunables is not None
    code = f"import jitlink; raise SystemExit(jitlink.load({str(program)!r}).main(1, 0, 0))"
    for value, status in ((error.tunables, 42), (f"{SETTING}=513", 1)):
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            env={**os.environ, "GLIBC_TUNABLES": value},
        )
        assert done.returncode == status


@pytest.mark.parametrize(
    ("given", "extra", "expected"),
    [
        ("", 1, f"{SETTING}=1024"),
        ("", 512, f"{SETTING}=1024"),
        ("", 513, f"{SETTING}=2048"),
        (f"{SETTING}=0x1000", 1, f"{SETTING}=8192"),
        (f"{SETTING}=010000", 1, f"{SETTING}=8192"),
        (f"a.b=1:{SETTING}=1:c.d=x:{SETTING}=4096", 1, f"a.b=1:c.d=x:{SETTING}=8192"),
        (f"{SETTING}=many:e.f=2", 10, f"e.f=2:{SETTING}=1024"),
    ],
)
def test_tunables(given: str, extra: int, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_glibc, "_tunables_at_start", lambda: given)
    assert tunables_for(extra) == expected


def test_older_c_libraries_have_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ((2, 32), ()):
        monkeypatch.setattr(tls_glibc, "glibc_version", lambda version=version: version)
        assert tunables_for(1) is None


# Real libraries


def test_jemalloc(tmp_path: Path) -> None:
    library = require("libjemalloc.a")
    source = """
#define _GNU_SOURCE
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
extern int mallctl(const char *, void *, size_t *, void *, size_t);
int main(void) {
    char *text, *copy = strdup("hello"), *path = realpath("/usr/bin/..", 0);
    if (asprintf(&text, "%s %s", copy, path) < 0)
        return 1;
    puts(text);
    unsigned arena = ~0u;
    size_t size = sizeof arena;
    printf("%d %d\\n", malloc_usable_size(copy) >= 6, mallctl("arenas.lookup", &arena, &size,
                                                           &text, sizeof text));
    path = realloc(path, 10000);
    free(text), free(copy), free(path);
    return 0;
}
"""
    user = compile_c(source, "gcc", ["-O1", "-fPIE"])
    place = tmp_path / "program"
    run([require("gcc"), "-static", user, library, "-lm", "-lpthread", "-lstdc++", "-o", place])
    native = run([place])
    assert spawn(user, library) == (0, native, "")
    allocator_program = objects(
        "allocator.c", Build("gcc", ("-O0", "-fPIC", "-fno-builtin", "-D_GNU_SOURCE", "-w")), 1
    )
    owns = compile_c(
        "int is_own(void *p) { return 1; } int allocations(void) { return 99; }", "gcc"
    )
    run([require("gcc"), "-static", *allocator_program, owns, library, "-lm", "-lpthread",
         "-lstdc++", "-o", place])  # fmt: skip
    assert spawn(*allocator_program, owns, library) == (0, run([place]), "")


@pytest.mark.parametrize("linked", ["archives", "names"])
def test_fortran_with_openmp(linked: str, tmp_path: Path) -> None:
    compiler = require("gfortran-12")
    source = tmp_path / "sum.f90"
    source.write_text("""
program sums
  integer :: each, total
  total = 0
  !$omp parallel do reduction(+:total)
  do each = 1, 100
    total = total + each
  end do
  print *, total
end program
""")
    user, place = tmp_path / "sum.o", tmp_path / "program"
    run([compiler, "-fopenmp", "-O1", "-fPIE", "-c", source, "-o", user])
    run([compiler, "-fopenmp", user, "-o", place])
    libraries: list[str | Path] = ["-lgfortran", "-lgomp", "-lquadmath"]
    if linked == "archives":
        names = ("libgfortran.a", "libgomp.a", "libquadmath.a")
        libraries = [require(name) for name in names]
    assert spawn(user, *libraries) == (0, run([place]), "")


def test_an_archive(tmp_path: Path) -> None:
    source = BLOCK.format(name="block", size=9000) + "int f(void) { return block[0] + 2; }"
    library = archive(tmp_path / "library.a", compile_c(source, "gcc", FLAGS))
    main = compile_c("int f(void);\nint main(void) { return f(); }", "gcc", FLAGS)
    assert command([main, library]) == (3, "", "")
