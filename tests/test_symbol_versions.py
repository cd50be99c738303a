"""Versions of symbols (`.symver`): definitions and references, also of the process."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Sequence
from itertools import permutations, product
from pathlib import Path

import pytest

import jitlink
from jitlink.errors import DuplicateDefinitionError, UndefinedSymbolError
from jitlink.executor import SelfExecutorProcessControl
from jitlink.executor.library_versions import versions_of
from jitlink.link import run_in_process
from jitlink.names.versions import VersionedName, split
from tests.tool.command import archive, spawn
from tests.toolchain import ToolError, compile_c, report_missing, require, run

SOURCES = {
    "both": """
int impl1(void) { return 1; }
int impl2(void) { return 2; }
__asm__(".symver impl1,vf@V1\\n.symver impl2,vf@@V2");
""",
    "three": 'int vf(void) { return 3; }\\n__asm__(".symver vf,vf@@@V3");'.replace("\\n", "\n"),
    "removed": 'int impl(void) { return 4; }\n__asm__(".symver impl,vf@@V2, remove");',
    "weak_default": """
__attribute__((weak)) int impl5(void) { return 5; }
__asm__(".symver impl5,vf@@V5, remove");
""",
    "data": 'int data = 40;\n__asm__(".symver data,vf@@@V2");',
    "plain": "int vf(void) { return 7; }",
    "weak": "__attribute__((weak)) int vf(void) { return 8; }",
    "user": "extern int vf(void);\nint main(void) { return vf(); }",
    "self": """
int impl9(void) { return 9; }
extern int vf(void);
__asm__(".symver impl9,vf@@V2");
int main(void) { return 10 * vf(); }
""",
    **{
        f"user{sign}{version}": f"""
extern int wanted(void);
__asm__(".symver wanted,vf{sign}{version}");
int main(void) {{ return wanted(); }}
"""
        for sign, version in product(("@", "@@@"), ("V1", "V2", "V3"))
    },
}
DEFINITIONS = ("both", "three", "removed", "weak_default", "plain", "weak")
USERS = [name for name in SOURCES if name.startswith("user")]


def compiled(name: str) -> Path:
    # The assembler of the pinned compiler does not know ``remove``.
    return compile_c(SOURCES[name], "gcc", ["-O1", "-fPIC"])


def native(inputs: Sequence[Path], place: Path) -> int | None:
    """The status of a static program, None if it cannot be linked."""
    try:
        run([require("gcc"), "-static", *inputs, "-o", place])
    except ToolError as error:
        if "undefined reference" in error.output or "multiple definition" in error.output:
            return None
        raise
    return subprocess.run([place], check=False).returncode


def by_load(inputs: Sequence[Path]) -> int | None:
    try:
        with jitlink.load(*inputs) as lib:
            return int(lib.main())
    except (UndefinedSymbolError, DuplicateDefinitionError):
        return None


def by_session(inputs: Sequence[Path]) -> int | None:
    with jitlink.LLJIT() as jit:
        try:
            for path in inputs:
                if path.suffix == ".a":
                    jit.add_archive(path)
                else:
                    jit.add_object(path)
            return int(jit.lookup("main")())
        except DuplicateDefinitionError:
            return None
        except jitlink.orc.FailedToMaterializeError as error:
            if isinstance(error.__cause__, UndefinedSymbolError):
                return None
            raise


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("definition", DEFINITIONS)
def test_as_in_a_static_link(definition: str, user: str, tmp_path: Path) -> None:
    inputs = [compiled(definition), compiled(user)]
    expected = native(inputs, tmp_path / "program")
    for order in (inputs, inputs[::-1]):
        assert by_load(order) == expected
        assert by_session(order) == expected
    library = archive(tmp_path / "library.a", inputs[0])
    assert by_load([inputs[1], library]) == expected
    assert by_session([inputs[1], library]) == expected
    done = spawn(*inputs)
    assert done.status == (1 if expected is None else expected)
    assert ("error" in done.err) == (expected is None)


@pytest.mark.parametrize(("first", "second"), list(permutations(DEFINITIONS, 2)))
def test_two_definitions(first: str, second: str, tmp_path: Path) -> None:
    inputs = [compiled(first), compiled(second), compiled("user")]
    expected = native(inputs, tmp_path / "program")
    assert by_load(inputs) == expected
    assert by_session(inputs) == expected


def test_an_object_that_refers_to_its_own_version(tmp_path: Path) -> None:
    inputs = [compiled("self")]
    assert native(inputs, tmp_path / "program") == 90
    assert by_load(inputs) == by_session(inputs) == spawn(*inputs).status == 90


def test_archives_in_order(tmp_path: Path) -> None:
    """The first archive that has the version; natively too, within a group."""
    user = compiled("user@V1")
    libraries = [archive(tmp_path / f"{n}.a", compiled(n)) for n in ("three", "both")]
    group = [user, *libraries]
    assert native(group, tmp_path / "program") == 1
    assert by_load(group) == by_session(group) == 1


def test_a_default_version_beside_a_plain_definition() -> None:
    """One definition, as for ld.lld and mold; GNU ld finds two."""
    path = compile_c('int vf(void) { return 5; }\n__asm__(".symver vf,vf@@V2");', "gcc", ["-O1"])
    for user in ("user", "user@V2"):
        inputs = [path, compiled(user)]
        assert by_load(inputs) == by_session(inputs) == 5
    other = """
int vf(void) { return 1; }
int impl(void) { return 2; }
__asm__(".symver impl,vf@@V2");
"""
    with pytest.raises(DuplicateDefinitionError, match="vf"):
        jitlink.load(compile_c(other, "gcc", ["-O1"]))


def test_names_of_a_library() -> None:
    with jitlink.load(compiled("both")) as lib:
        assert lib.vf() == 2
        assert lib["vf"] == lib["vf@V2"] == lib["impl2"]
        assert lib["vf@V1"] == lib["impl1"]
        assert {"vf", "vf@V1", "vf@V2"} <= set(lib.exports)
        assert "vf@@V2" not in lib.exports
    with jitlink.LLJIT() as jit:
        jit.add_object(compiled("both"))
        assert [jit.lookup(name)() for name in ("vf@V1", "vf", "vf@V2")] == [1, 2, 2]
    with jitlink.load(compiled("data")) as lib:
        assert lib.variable("vf@V2", ctypes.c_int).value == 40
        assert lib["vf"] == lib["vf@V2"]


def test_several_objects_of_a_session_with_versions_each() -> None:
    """Each has definitions of its own, though they are read together."""
    sources = [
        f'int impl{n}(void) {{ return {n}; }}\n__asm__(".symver impl{n},f{n}@@V{n}, remove");'
        for n in range(3)
    ]
    paths = [compile_c(source, "gcc", ["-O1"]) for source in sources]
    with jitlink.LLJIT() as jit:
        files = [jitlink.inputs.open_input(path) for path in paths]
        jit.layer.add_objects(jit.main, files)
        assert [jit.lookup(f"f{n}@V{n}")() for n in (2, 0, 1)] == [2, 0, 1]
        assert [jit.lookup(f"f{n}")() for n in range(3)] == [0, 1, 2]
    with jitlink.load(*paths) as lib:
        assert [lib[f"f{n}"] == lib[f"f{n}@V{n}"] for n in range(3)] == [True] * 3
        assert [getattr(lib, f"f{n}")() for n in range(3)] == [0, 1, 2]


# Versions of the process

COPY = """
extern void *copy(void *, const void *, unsigned long);
__asm__(".symver copy,memcpy@{version}");
void *place(void) {{ return (void *)copy; }}
int main(void) {{
    char text[4] = "";
    copy(text, "abc", 4);
    return text[1];
}}
"""


def test_a_version_of_the_process(tmp_path: Path) -> None:
    libc = ctypes.CDLL(None)
    libc.dlvsym.restype = ctypes.c_void_p
    libc.dlvsym.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p]
    for version in ("GLIBC_2.2.5", "GLIBC_2.14"):
        path = compile_c(COPY.format(version=version), "gcc", ["-O1", "-fPIC"])
        program = tmp_path / "program"
        run([require("gcc"), path, "-o", program])
        assert subprocess.run([program], check=False).returncode == ord("b")
        assert spawn(path).status == ord("b")
        with jitlink.load(path) as lib:
            lib.place.restype = ctypes.c_void_p
            assert lib.place() == libc.dlvsym(None, b"memcpy", version.encode())
            assert lib.main() == ord("b")


def test_a_version_that_nothing_has() -> None:
    path = compile_c(COPY.format(version="GLIBC_9.9"), "gcc", ["-O1", "-fPIC"])
    message = (
        r"undefined symbol: memcpy@GLIBC_9\.9 \(referenced by .*\); "
        r"memcpy has the versions GLIBC_2\.\d.*, GLIBC_2\.\d"
    )
    with pytest.raises(UndefinedSymbolError, match=message) as caught:
        jitlink.load(path)
    assert set(caught.value.versions["memcpy@GLIBC_9.9"]) == {"GLIBC_2.2.5", "GLIBC_2.14"}
    with pytest.raises(UndefinedSymbolError, match=r"vf has the versions V1, V2$"):
        jitlink.load(compiled("both"), compiled("user@V3"))
    with pytest.raises(UndefinedSymbolError, match=r"vf has the version V3$"):
        jitlink.load(compiled("three"), compiled("user@V1"))
    with pytest.raises(UndefinedSymbolError, match=r"no version of vf exists$"):
        jitlink.load(compiled("plain"), compiled("user@V1"))
    weak = COPY.replace("extern", "extern __attribute__((weak))").format(version="GLIBC_9.9")
    with jitlink.load(compile_c(weak, "gcc", ["-O1", "-fPIC"])) as lib:
        lib.place.restype = ctypes.c_void_p
        assert lib.place() is None


def test_a_definition_of_the_program_takes_precedence_over_the_process() -> None:
    own = """
void *mine(void *to, const void *from, unsigned long size) {
    ((char *)to)[1] = 'm';
    return to;
}
__asm__(".symver mine,memcpy@GLIBC_2.2.5");
"""
    user = compile_c(COPY.format(version="GLIBC_2.2.5"), "gcc", ["-O1", "-fPIC"])
    assert by_load([compile_c(own, "gcc", ["-O1", "-fPIC", "-w"]), user]) == ord("m")


def test_lookups_of_an_executor() -> None:
    executor = SelfExecutorProcessControl()
    names = ["memcpy@GLIBC_2.2.5", "memcpy@GLIBC_9.9", "memcpy", "@", "memcpy@", "@GLIBC_2.2.5"]
    found = run_in_process(executor.lookup_symbols(names))
    assert [address is not None for address in found] == [True, False, True, False, False, False]
    assert "GLIBC_2.2.5" in run_in_process(executor.symbol_versions("memcpy"))
    assert run_in_process(executor.symbol_versions("no such symbol")) == []


def test_dlvsym_of_a_program() -> None:
    source = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>
int impl1(void) { return 1; }
int impl2(void) { return 2; }
__asm__(".symver impl1,vf@V1\\n.symver impl2,vf@@V2");
static int call(void *function) { return function ? ((int (*)(void))function)() : 0; }
int main(void) {
    void *self = dlopen(0, RTLD_NOW), *libc = dlopen("libc.so.6", RTLD_NOW);
    int sum = call(dlvsym(self, "vf", "V1")) + 10 * call(dlvsym(RTLD_DEFAULT, "vf", "V2"));
    sum += 100 * (dlvsym(RTLD_NEXT, "memcpy", "GLIBC_2.2.5") ==
                  dlvsym(libc, "memcpy", "GLIBC_2.2.5"));
    if (dlvsym(self, "vf", "V3") || !strstr(dlerror(), "vf@V3"))
        return 1;
    return sum;
}
"""
    assert spawn(compile_c(source, "gcc", ["-O1", "-fPIC"])).status == 121


def test_malformed_libraries_have_no_versions(tmp_path: Path) -> None:
    libc = Path("/lib/x86_64-linux-gnu/libc.so.6")
    if not libc.exists():
        report_missing(str(libc), "libc6")
    data = libc.read_bytes()
    path = tmp_path / "library.so"
    far = b"\xff" * 8  # More than an offset can be.
    malformed = [b"", data[:64], data[: len(data) // 2], b"#!" + data, data[:40] + far * 3]
    for content in (*malformed, data[:40] + far + data[48:]):
        path.write_bytes(content)
        assert versions_of(str(path), "memcpy") == []
    assert versions_of(str(tmp_path / "missing.so"), "memcpy") == []


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("f@V", VersionedName("f", "V", False)),
        ("f@@V", VersionedName("f", "V", True)),
        ("f@@@V", VersionedName("f", "@V", True)),
        ("f", None),
        ("f@", None),
        ("f@@", None),
        ("@V", None),
        ("", None),
        ("?f@@YAHXZ", None),
    ],
)
def test_parts_of_names(name: str, parts: VersionedName | None) -> None:
    assert split(name) == parts
    if parts is not None:
        assert parts.of_version.startswith("f@")
