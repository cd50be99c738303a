"""The importer finds the objects of extension modules in build trees."""

from __future__ import annotations

import importlib
import importlib.machinery
import json
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import jitlink
from jitlink.build_trees.ninja import NinjaTree
from tests.extension_sources import compile_extension, compile_value
from tests.toolchain import compile_c, run, zig_command

SUFFIX = importlib.machinery.EXTENSION_SUFFIXES[0]
TEMP = f"temp.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project of two packages; what is imported is forgotten afterwards."""
    root = tmp_path / "project"
    for package in ("first", "second"):
        place(root / "src" / package / "__init__.py", b"")
    place(root / "pyproject.toml", b"")
    monkeypatch.syspath_prepend(root / "src")
    before, finders = set(sys.modules), list(sys.meta_path)
    yield root
    for name in set(sys.modules) - before:
        if name.split(".")[0] in {"first", "second", "other", "_value", "_größe"}:
            del sys.modules[name]
    sys.meta_path[:] = finders


def place(path: Path, content: bytes | Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Path):
        shutil.copy(content, path)
    else:
        path.write_bytes(content)
    return path


def linked_files(module: ModuleType, root: Path) -> list[str]:
    loader = module.__loader__
    assert isinstance(loader, importlib.machinery.ExtensionFileLoader)
    library: jitlink.Library = vars(loader)["_library"]
    return [name.removeprefix(f"{root}/") for name in library.linked_files]


# Trees of setuptools


def test_objects_are_linked_as_members_of_an_archive(project: Path) -> None:
    temp = project / "build" / TEMP
    place(temp / "src/first/_value.o", compile_extension("value.c", "-DFUNCTION=direct"))
    place(temp / "src/second/_value.o", compile_extension("value.c", "-DFUNCTION=value"))
    direct = "int value(void); int direct(void) { return value() + 1; }"
    place(temp / "lib/direct.o", compile_c(direct, flags=("-O1", "-fPIC")))
    place(temp / "lib/value.o", compile_value(41))
    place(temp / "lib/unused.o", compile_value(1, "unused"))
    importer = jitlink.install_importer(project / "build")
    first, second = (importlib.import_module(f"{name}._value") for name in ("first", "second"))
    assert (first.value, second.value) == (42, 41)
    assert linked_files(first, temp) == ["src/first/_value.o", "lib/direct.o", "lib/value.o"]
    assert linked_files(second, temp) == ["src/second/_value.o", "lib/value.o"]
    assert first.__file__ == str(temp / "src/first/_value.o")
    # A module that is linked already, as for `importlib.reload`.
    again = importer.find_spec("first._value", [str(project / "src/first")])
    assert again is not None
    assert first.__spec__ is not None
    assert again.loader is first.__spec__.loader


def test_static_libraries_of_the_tree(project: Path) -> None:
    temp = project / "build" / TEMP
    place(temp / "src/first/_value.o", compile_extension("value.c"))
    member = place(project / "value.o", compile_value(5))
    run([*zig_command("ar"), "rcs", temp / "libvalue.a", member])
    jitlink.install_importer(project / "build")
    module = importlib.import_module("first._value")
    assert module.value == 5
    assert linked_files(module, temp) == ["src/first/_value.o", "libvalue.a(value.o)"]


def test_sources_outside_of_the_package(project: Path, tmp_path: Path) -> None:
    """As one module of that name is built, it is the project's; not other projects'."""
    temp = project / "build" / TEMP
    place(temp / "csrc/bindings.o", compile_extension("value.c"))
    place(temp / "csrc/value.o", compile_value(6))
    importer = jitlink.install_importer(project / "build")
    assert importer.find_spec("first._value", [str(project / "src/first")]) is not None
    assert importer.find_spec("other._value", [str(tmp_path / "elsewhere/other")]) is None
    installed = project / ".venv/lib/site-packages/other"
    assert importer.find_spec("other._value", [str(installed)]) is None
    assert importer.find_spec("first._nothing", [str(project / "src/first")]) is None
    assert importlib.import_module("_value").value == 6


def test_a_directory_of_objects(project: Path) -> None:
    place(project / "objects/first/first._value.o", compile_extension("value.c"))
    place(project / "objects/value.o", compile_value(7))
    jitlink.install_importer(project / "objects")
    assert importlib.import_module("first._value").value == 7


def test_names_that_are_not_ascii(project: Path) -> None:
    """An underscore of the name is not told apart from the hyphen of its punycode."""
    place(project / "objects/value.o", compile_value(4))
    compiled = compile_extension("value.c", "-DPREFIX=PyInitU_", "-DNAME=_gre_xna1l")
    place(project / "objects/module.o", compiled)
    jitlink.install_importer(project / "objects")
    assert importlib.import_module("_größe").value == 4


def test_what_is_ambiguous_is_an_error_until_modules_says_it(project: Path) -> None:
    temp = project / "build" / TEMP
    place(temp / "one/_value.o", compile_extension("value.c"))
    place(temp / "two/_value.o", compile_extension("value.c"))
    with (
        jitlink.install_importer(project / "build"),
        pytest.raises(ImportError, match=r"has a module _value in .*one.* and in .*two") as e,
    ):
        importlib.import_module("first._value")
    assert isinstance(e.value, jitlink.ExtensionModuleError)
    (temp / "two/_value.o").unlink()
    place(temp / "one/value.o", compile_value(1))
    place(temp / "two/value.o", compile_value(2))
    with (
        jitlink.install_importer(project / "build"),
        pytest.raises(ImportError, match=r"has value, which .*_value\.o refers to, in .*one"),
    ):
        importlib.import_module("first._value")
    modules = {"first._value": [f"{TEMP}/one/_value.o", f"{TEMP}/two/value.o"]}
    with jitlink.install_importer(project / "build", modules=modules) as importer:
        assert importlib.import_module("first._value").value == 2
    assert importer not in sys.meta_path
    importer.remove()


def test_objects_that_cannot_be_read_are_named_when_needed(project: Path) -> None:
    temp = project / "build" / TEMP
    place(temp / "src/first/_value.o", b"PyInit__value\0, but no object")
    with (
        jitlink.install_importer(project / "build"),
        pytest.raises(jitlink.ExtensionModuleError, match=r"_value\.o: "),
    ):
        importlib.import_module("first._value")
    place(temp / "src/first/_value.o", compile_extension("value.c"))
    place(temp / "src/first/broken.o", b"broken")
    with (
        jitlink.install_importer(project / "build"),
        pytest.raises(jitlink.ExtensionModuleError, match="undefined symbol: value"),
    ):
        importlib.import_module("first._value")


def test_builds_for_other_interpreters_only(project: Path) -> None:
    place(project / "build/temp.linux-x86_64-cpython-39/src/first/_value.o", b"")
    with pytest.raises(jitlink.JITLinkError, match=r"no objects for Python 3\.\d+: temp\.linux"):
        jitlink.install_importer(project / "build")
    with pytest.raises(FileNotFoundError):
        jitlink.install_importer(project / "missing")


def test_a_compiled_package_has_its_python_files(project: Path) -> None:
    temp = project / "build" / TEMP
    place(temp / "src/first.o", compile_extension("value.c", "-DNAME=first"))
    place(temp / "value.o", compile_value(8))
    place(project / "src/first/inner.py", b"from first import value")
    jitlink.install_importer(project / "build")
    first = importlib.import_module("first")
    assert list(first.__path__) == [str(project / "src/first")]
    assert importlib.import_module("first.inner").value == 8


# Trees of Ninja

MESON = f"""# This is the build file for project "demo"
ninja_required_version = 1.8.2

rule c_LINKER
 command = cc $ARGS -o $out $in $LINK_ARGS

rule STATIC_LINKER
 command = rm -f $out && ar $LINK_ARGS $out $in

build src/libvalue.a: STATIC_LINKER src/libvalue.a.p/value.c.o
 LINK_ARGS = csrDT

build src/_value{SUFFIX}: c_LINKER src/_value{SUFFIX}.p/my$ value.c.o $
  | src/libvalue.a || order
 LINK_ARGS = -Wl,--as-needed -shared -fPIC -Wl,--start-group src/libvalue.a -lm -Wl,--end-group

build src/_tool: c_LINKER src/_tool.p/tool.c.o
"""

CMAKE = f"""cmake_ninja_workdir = /elsewhere/
objects = CMakeFiles/_value.dir
build libvalue.a: C_STATIC_LIBRARY_LINKER__value CMakeFiles/value.dir/value.c.o
  LANGUAGE_COMPILE_FLAGS = -O1
build _value{SUFFIX}: CXX_MODULE_LIBRARY_LINKER___value $objects/my$ value.c.o | libvalue.a $
    /usr/lib/libm.so.6 || libvalue.a
  LINK_FLAGS = -shared
  LINK_LIBRARIES = WHOLE -lm
  TARGET_FILE = _value{SUFFIX}
"""


def test_meson(project: Path) -> None:
    build = project / "build"
    place(build / "build.ninja", MESON.encode())
    place(build / f"src/_value{SUFFIX}.p/my value.c.o", compile_extension("value.c"))
    place(build / "src/libvalue.a.p/value.c.o", compile_value(9))
    member = build / "src/libvalue.a.p/value.c.o"
    run([*zig_command("ar"), "rcsT", build / "src/libvalue.a", member])
    output = f"{build}/src/_value{SUFFIX}"
    plan = {"targets": {output: {"destination": f"{{py_platlib}}/second/_value{SUFFIX}"}}}
    place(build / "meson-info/intro-install_plan.json", json.dumps(plan).encode())
    importer = jitlink.install_importer(build)
    # It is known to be of another package.
    assert importer.find_spec("first._value", [str(project / "src/first")]) is None
    module = importlib.import_module("second._value")
    assert module.value == 9
    assert linked_files(module, build)[0] == f"src/_value{SUFFIX}.p/my value.c.o"


@pytest.mark.parametrize("is_whole", [False, True])
def test_cmake(project: Path, is_whole: bool) -> None:
    build = project / "build"
    words = "-Wl,--whole-archive libvalue.a -Wl,--no-whole-archive" if is_whole else "libvalue.a"
    place(build / "build.ninja", CMAKE.replace("WHOLE", words).encode())
    place(build / "CMakeFiles/_value.dir/my value.c.o", compile_extension("value.c"))
    place(build / "CMakeFiles/value.dir/value.c.o", compile_value(10))
    run([*zig_command("ar"), "rcs", build / "libvalue.a", build / "CMakeFiles/value.dir/value.c.o"])
    script = f'''file(INSTALL DESTINATION "${{CMAKE_INSTALL_PREFIX}}/second" TYPE MODULE FILES
      "{build}/_value{SUFFIX}")'''
    place(build / "cmake_install.cmake", script.encode())
    jitlink.install_importer(build)
    module = importlib.import_module("second._value")
    assert module.value == 10
    member = "CMakeFiles/value.dir/value.c.o" if is_whole else "libvalue.a(value.c.o)"
    assert linked_files(module, build) == ["CMakeFiles/_value.dir/my value.c.o", member]


def test_objects_that_were_not_built(project: Path) -> None:
    place(project / "build/build.ninja", MESON.encode())
    jitlink.install_importer(project / "build")
    with pytest.raises(ImportError, match=r"my value\.c\.o: No such file"):
        importlib.import_module("first._value")


def test_words_of_a_build_file(project: Path) -> None:
    text = f"""
a = b
c = ${{a}}/$a$$
build ${{c}}x$:y$ z{SUFFIX} | implicit: rule in/$a.o in.c | no.o |@ no.o
  LINK_ARGS = -L$a -lfound -lnowhere "/with space/libz.so.1" libpython3.so -lm -Wl,x -Dy=libq.so
build broken{SUFFIX}
build: :
"""
    place(project / "build/build.ninja", text.encode())
    place(project / "build/b/libfound.so", b"")
    (module,) = NinjaTree(str(project / "build")).modules("b$x:y z")
    assert module.directories == ("b",)
    files, libraries = module.inputs()
    assert files == [f"{project}/build/in/b.o"]
    assert libraries == [f"{project}/build/b/libfound.so", "/with space/libz.so.1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"build x{SUFFIX}: rule a.o\n  LINK_ARGS = -lm '-Wl,open\n", r"link x\..*quotation"),
        (f"build x{SUFFIX}: rule a.o\n  LINK_ARGS = -lnull\0\n", "null character"),
    ],
)
def test_malformed_build_files(project: Path, text: str, message: str) -> None:
    file = place(project / "build/build.ninja", text.encode())
    with pytest.raises(jitlink.InputError, match=message) as caught:
        NinjaTree(str(project / "build")).modules("x")
    assert caught.value.file == str(file)


def test_malformed_records_of_an_installation(project: Path) -> None:
    """They are as good as none; their size does not matter."""
    build = project / "build"
    place(build / "build.ninja", f"build x{SUFFIX}: rule a.o\n".encode())
    place(build / "meson-info/intro-install_plan.json", b"[" * 1_000_000)
    place(build / "cmake_install.cmake", b'file(INSTALL DESTINATION "a" FILES "b" FILES ' * 50_000)
    (module,) = NinjaTree(str(build)).modules("x")
    assert module.package is None


def test_parentheses_in_a_record_of_an_installation(project: Path) -> None:
    build = project / "build (1)"
    place(build / "build.ninja", f"build x{SUFFIX}: rule a.o\n".encode())
    script = f'file(INSTALL DESTINATION "/usr/second" TYPE MODULE FILES "{build}/x{SUFFIX}")'
    place(build / "cmake_install.cmake", script.encode())
    (module,) = NinjaTree(str(build)).modules("x")
    assert module.directories == ("usr", "second")
