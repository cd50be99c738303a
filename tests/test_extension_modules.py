"""Extension modules from objects behave as those from shared libraries."""

from __future__ import annotations

import ctypes
import importlib
import importlib.machinery
import inspect
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import jitlink
from jitlink.extension_modules import LoadOptions
from tests.extension_sources import compile_extension, link_natively
from tests.toolchain import require, run, zig_command

ROOT = Path(__file__).parents[1]
SUFFIX = importlib.machinery.EXTENSION_SUFFIXES[0]


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package ``holder`` for modules; what is imported is forgotten afterwards."""
    directory = tmp_path / "holder"
    directory.mkdir()
    (directory / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    before, finders = set(sys.modules), list(sys.meta_path)
    yield directory
    for name in set(sys.modules) - before:
        if name.split(".")[0] in {"holder", "multi", "single", "grün"}:
            del sys.modules[name]
    # The finder stays, but what it finds is not to be found by other tests.
    sys.meta_path[:] = finders


DESCRIPTION = """
import importlib.util, inspect, json, pickle, sys
def described(module):
    function, spec = module.name, module.__spec__
    copied = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copied)
    return {
        "name": [module.__name__, module.name(), function.__module__, function.__qualname__],
        "error": [vars(module).get("Error", int).__module__],
        "doc": [module.__doc__, function.__doc__],
        "spec": [spec.name, spec.parent, spec.origin == module.__file__, spec.has_location,
                 spec.submodule_search_locations, spec.cached],
        "loader": [spec.loader is module.__loader__, spec.loader.is_package(spec.name),
                   spec.loader.get_source(spec.name), spec.loader.get_code(spec.name),
                   spec.loader.get_filename(spec.name) == module.__file__],
        "package": [module.__package__, getattr(sys.modules["holder"], spec.name[7:]) is module],
        "pickled": pickle.loads(pickle.dumps(function)) is function,
        "inspected": [inspect.getfile(module) == module.__file__,
                      inspect.getmodule(function) is module],
        "copied": [copied is module, copied.name(), sorted(vars(copied))],
        "reloaded": importlib.reload(module) is module,
        "names": sorted(vars(module)),
    }
"""


@pytest.mark.parametrize("name", ["single", "multi"])
def test_a_module_is_described_as_natively(name: str, package: Path, tmp_path: Path) -> None:
    compiled = compile_extension(f"{name}.c")
    link_natively(package / f"{name}{SUFFIX}", compiled)
    native = f"import holder.{name} as module"
    linked = f"import jitlink; module = jitlink.import_module('holder.{name}', {str(compiled)!r})"
    outcomes = []
    for statement in (native, linked):
        code = f"{DESCRIPTION}\n{statement}\nprint(json.dumps(described(module)))"
        outcomes.append(json.loads(run_python(code, tmp_path)))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0]["name"][0] == f"holder.{name}"


def run_python(code: str, path: Path) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(path), str(ROOT / "src")])}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_options_are_those_of_load() -> None:
    keywords = inspect.getfullargspec(jitlink.load).kwonlyargs
    assert list(LoadOptions.__annotations__) == [each for each in keywords if each != "executor"]


def test_initialisers_run_before_the_module_with_the_interpreter_lock() -> None:
    module = jitlink.import_module("holder.multi", compile_extension("multi.c"))
    assert (module.initialisers, module.lock_held) == (1, 1)
    assert sys.modules["holder.multi"] is module


def test_a_name_that_is_not_ascii() -> None:
    assert jitlink.import_module("grün", compile_extension("multi.c")).name() == "grün"


def test_two_modules_of_one_object() -> None:
    compiled = compile_extension("multi.c")
    modules = [jitlink.import_module(f"holder.{name}", compiled) for name in ("multi", "other")]
    assert [module.name() for module in modules] == ["holder.multi", "holder.other"]
    # Each has code of its own, and its own spelling of the path.
    assert modules[0].__file__ != modules[1].__file__
    assert [compiled.samefile(str(module.__file__)) for module in modules] == [True, True]


def test_once_imported_a_module_is_found_by_the_import_statement() -> None:
    compiled = compile_extension("multi.c")
    first = jitlink.import_module("holder.multi", compiled)
    assert jitlink.import_module("holder.multi", compiled) is first
    del sys.modules["holder.multi"]
    again = importlib.import_module("holder.multi")
    assert again is not first
    # As natively, the library is not loaded again.
    assert again.initialisers == 1
    assert importlib.reload(again) is again


def test_a_name_is_not_taken_over() -> None:
    jitlink.import_module("holder.multi", compile_extension("multi.c"))
    with pytest.raises(jitlink.ExtensionModuleError, match=r"in sys\.modules already"):
        jitlink.import_module("holder.multi", compile_extension("multi.c", "-DOTHER"))
    with pytest.raises(jitlink.ExtensionModuleError, match=r"in sys\.modules already"):
        jitlink.import_module("holder", compile_extension("multi.c"))


def test_bytes_and_archives(tmp_path: Path) -> None:
    compiled = compile_extension("multi.c")
    module = jitlink.import_module("holder.multi", compiled.read_bytes())
    assert not hasattr(module, "__file__")
    assert module.__spec__ is not None
    assert not module.__spec__.has_location
    assert module.name() == "holder.multi"
    archive = tmp_path / "libmulti.a"
    run([*zig_command("ar"), "rcs", archive, compiled])
    module = jitlink.import_module("holder.other", archive)
    assert module.__file__ == str(archive)
    assert inspect.getfile(module) == str(archive)


def test_a_package(package: Path) -> None:
    (package / "inner.py").write_text("from holder.multi import name")
    module = jitlink.import_module(
        "holder.multi", compile_extension("multi.c"), submodule_search_locations=[str(package)]
    )
    assert module.__package__ == "holder.multi"
    assert importlib.import_module("holder.multi.inner").name is module.name
    assert pickle.loads(pickle.dumps(module.name)) is module.name


def test_threads_import_a_module_once() -> None:
    compiled = compile_extension("multi.c")
    found: list[object] = []

    def work() -> None:
        found.append(jitlink.import_module("holder.multi", compiled))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


def test_an_attempt_that_fails_does_not_change_what_was_imported(package: Path) -> None:
    compiled, locations = compile_extension("multi.c"), [str(package)]
    jitlink.import_module("holder.multi", compiled, submodule_search_locations=locations)
    del sys.modules["holder.multi"]
    with pytest.raises(jitlink.ExtensionModuleError):
        jitlink.import_module("holder.multi", b"", submodule_search_locations=["/elsewhere"])
    assert importlib.import_module("holder.multi").__path__ == locations


def test_a_missing_init_function() -> None:
    compiled = compile_extension("multi.c")
    with pytest.raises(jitlink.MissingInitFunctionError) as caught:
        jitlink.import_module("holder.missing", compiled)
    error = caught.value
    assert isinstance(error, ImportError)
    assert error.name == "holder.missing"
    assert error.path is not None
    assert compiled.samefile(error.path)
    assert error.function == "PyInit_missing"
    assert error.defined == ("PyInitU_grn_ioa", "PyInit_multi", "PyInit_other")
    assert str(error) == (
        "cannot import holder.missing from objects: no object defines PyInit_missing; "
        "they define PyInitU_grn_ioa, PyInit_multi, PyInit_other"
    )
    # Nothing is left of the attempt.
    assert "holder.missing" not in sys.modules
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("holder.missing")


def test_a_missing_init_function_in_archives_that_define_others_twice(tmp_path: Path) -> None:
    archives = [tmp_path / "libone.a", tmp_path / "libtwo.a"]
    for archive in archives:
        run([*zig_command("ar"), "rcs", archive, compile_extension("multi.c")])
    with pytest.raises(jitlink.MissingInitFunctionError) as caught:
        jitlink.import_module("holder.missing", *archives)
    assert caught.value.defined == ("PyInitU_grn_ioa", "PyInit_multi", "PyInit_other")


def test_what_cannot_be_linked_is_an_import_error(tmp_path: Path) -> None:
    compiled = compile_extension("failing.c")
    with pytest.raises(jitlink.ExtensionModuleError, match="undefined symbol: not_defined") as one:
        jitlink.import_module("holder.undefined", compiled)
    assert isinstance(one.value.__cause__, jitlink.UndefinedSymbolError)
    with pytest.raises(ImportError, match="No such file"):
        jitlink.import_module("holder.undefined", tmp_path / "missing.o")
    with pytest.raises(ImportError, match="no object defines PyInit_undefined"):
        jitlink.import_module("holder.undefined")
    with pytest.raises(ImportError, match="there is no shared library nowhere"):
        jitlink.import_module("holder.undefined", compiled, libraries=["nowhere"])
    with pytest.raises(ModuleNotFoundError, match="No module named 'nopackage'"):
        jitlink.import_module("nopackage.undefined", compiled)
    # A definition makes up for it, and the attempts before are forgotten.
    given = {"not_defined_anywhere": (lambda: 7, ctypes.CFUNCTYPE(ctypes.c_int))}
    with pytest.raises(SystemError, match="did not return an extension module"):
        jitlink.import_module("holder.undefined", compiled, definitions=given)


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("raises", ValueError, "raised by the module"),
        ("silent", SystemError, "initialization of silent failed without raising an exception"),
        ("unreported", SystemError, "initialization of unreported raised unreported exception"),
    ],
)
def test_init_functions_that_fail(name: str, error: type[Exception], text: str) -> None:
    inputs = [compile_extension("failing.c")]
    for _ in range(2):
        with pytest.raises(error, match=text):
            jitlink.import_module(
                f"holder.{name}", *inputs, definitions={"not_defined_anywhere": 0}
            )
        assert f"holder.{name}" not in sys.modules


def test_what_runs_when_the_process_ends(tmp_path: Path, package: Path) -> None:
    require("libz.a")  # Its package has what the native link needs, too.
    compiled = compile_extension("at_exit.c")
    library = link_natively(package / f"at_exit{SUFFIX}", compiled, Path("-lz"))
    linked = f"jitlink.import_module('holder.at_exit', {str(compiled)!r}, libraries=['z'])"
    python = "import atexit; atexit.register(print, 'atexit of Python', flush=True)\n"
    native = run_python(f"{python}import holder.at_exit", tmp_path)
    assert run_python(f"{python}import jitlink; {linked}", tmp_path) == native
    assert native.splitlines()[:2] == ["atexit of Python", "interpreter finalised"]
    assert sorted(native.splitlines()[2:]) == ["exit handler", "finaliser"]
    assert library.exists()
