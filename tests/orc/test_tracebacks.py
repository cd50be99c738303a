"""The first cause of a failure: message, class and traceback of what is raised for it."""

import ctypes
import logging
import pickle
import subprocess
import sys
import traceback
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

import pytest

import jitlink
from jitlink.errors import MissingFileError, UndefinedSymbolError
from jitlink.graph import LinkGraph
from jitlink.link import PassConfiguration
from jitlink.lljit import LLJIT
from jitlink.orc import (
    ExecutionSession,
    FailedToMaterializeError,
    Failure,
    IndirectStubsManager,
    JITDylib,
    LazyCallError,
    MaterializationResponsibility,
    Plugin,
    RedirectableSymbolManager,
    ReExports,
    UnsatisfiedDependenciesError,
)
from jitlink.orc.interface import JITDylibLookupFlags, LookupKind
from jitlink.orc.stubs import FunctionBody
from tests.orc.units import Unit
from tests.toolchain import compile_c

NEEDY = "int lacking(void); int call(void) { return lacking(); }"
USER = "int call(void); int top(void) { return call(); }"
CONSTRUCTOR = """
int lacking(void);
static int value;
__attribute__((constructor)) static void set(void) { value = lacking(); }
"""
MAIN = "int main(void) { return 0; }"
OPENER = """
#include <dlfcn.h>
#include <string.h>
static char text[200];
char *opened(void) { return dlopen("second", RTLD_NOW) ? 0 : strcpy(text, dlerror()); }
"""


def text_of(error: BaseException) -> list[str]:
    """What an interpreter prints."""
    return "".join(traceback.format_exception(error)).splitlines()


def by_lookup(jit: LLJIT) -> None:
    jit.add_object(compile_c(NEEDY))
    jit.lookup("call")


def by_dependant(jit: LLJIT) -> None:
    jit.add_object(compile_c(USER))
    jit.add_object(compile_c(NEEDY))
    jit.lookup("top")


def by_dependant_of_what_has_failed(jit: LLJIT) -> None:
    jit.add_object(compile_c(NEEDY))
    with pytest.raises(FailedToMaterializeError):
        jit.lookup("call")
    jit.add_object(compile_c(USER))
    jit.lookup("top")


def by_dependant_in_another_jitdylib(jit: LLJIT) -> None:
    library = jit.create_jitdylib("library")
    jit.add_object(compile_c(NEEDY), dylib=library)
    jit.main.add_to_link_order(library)
    jit.add_object(compile_c(USER))
    jit.lookup("top")


def by_coroutine(jit: LLJIT) -> None:
    jit.add_object(compile_c(NEEDY))

    async def find() -> None:
        await jit.session.lookup_async(jit.main, "call")

    jit.session.wait(find())


def by_initialiser(jit: LLJIT) -> None:
    jit.add_object(compile_c(CONSTRUCTOR))
    jit.initialize()


def by_program(jit: LLJIT) -> None:
    jit.add_object(compile_c(MAIN))
    jit.add_object(compile_c(CONSTRUCTOR))
    assert jit.platform is not None
    jit.platform.run_main(jit.main, jit.lookup("main"), ["program"])


def by_alias(jit: LLJIT) -> None:
    jit.main.define(ReExports({"nick": "lacking"}))
    jit.lookup("nick")


def by_redirection(jit: LLJIT) -> None:
    manager = RedirectableSymbolManager(IndirectStubsManager(jit.layer))
    jit.add_object(compile_c(NEEDY))
    manager.create(jit.main, {"step": 1})
    manager.redirect(jit.main, {"step": (jit.main, "call")})


def by_lazy_call(jit: LLJIT) -> None:
    bodies = jit.create_jitdylib("bodies")
    jit.add_object(compile_c(NEEDY), dylib=bodies)
    jit.session.error_handler = lambda _: None
    stubs = IndirectStubsManager(jit.layer)
    jit.main.define(stubs.unit({"call": FunctionBody(bodies, "call")}))
    jit.lookup("call")()


def by_load(jit: LLJIT) -> None:  # noqa: ARG001 - as the others
    jitlink.load(compile_c(NEEDY))


def by_harness(jit: LLJIT) -> None:  # noqa: ARG001
    jitlink.harness(compile_c(USER), compile_c(NEEDY))


PATHS: tuple[Callable[[LLJIT], None], ...] = (
    by_lookup, by_dependant, by_dependant_of_what_has_failed, by_dependant_in_another_jitdylib,
    by_coroutine, by_initialiser, by_program, by_alias, by_redirection, by_lazy_call, by_load,
    by_harness,
)  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_every_path_raises_the_first_cause(path: Callable[[LLJIT], None]) -> None:
    with LLJIT() as jit, pytest.raises(UndefinedSymbolError) as caught:
        path(jit)
    error = caught.value
    assert error.names == ("lacking",)
    assert "undefined symbol: lacking (referenced by " in str(error)
    if not isinstance(error, LazyCallError):
        assert str(error).startswith("undefined symbol: lacking")
    printed = text_of(error)
    assert sum("Error: " in line for line in printed) == 1 + (error.__cause__ is not None)
    frames = [line for line in printed if line.startswith("  File ")]
    assert len([line for line in frames if "/jitlink/" in line]) <= 5
    # The frames of the link are not there, nor those of the loop and its tasks.
    assert not any(f"/{name}.py" in line for line in frames for name in ("link", "tasks", "driver"))


def test_a_program_sees_the_first_cause_in_dlerror() -> None:
    with LLJIT() as jit:
        jit.add_object(compile_c(CONSTRUCTOR), dylib=jit.create_jitdylib("second"))
        jit.add_object(compile_c(OPENER))
        opened = jit.lookup("opened")
        opened.restype = ctypes.c_char_p
        assert opened().startswith(b"undefined symbol: lacking (referenced by ")


class Faulty(Plugin):
    """Raises what it is given, in a pass."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def modify_pass_config(
        self,
        responsibility: MaterializationResponsibility,  # noqa: ARG002
        graph: LinkGraph,  # noqa: ARG002
        config: PassConfiguration,
    ) -> None:
        def fail(graph: LinkGraph) -> None:  # noqa: ARG001
            raise self._error

        config.post_prune.append(fail)


@pytest.mark.parametrize(
    ("given", "is_derived"),
    [
        (ValueError("intended"), True),
        (OSError(2, "No such thing", "a.txt"), True),
        (MissingFileError("intended", file="a.txt"), True),
        # They would mean to `hasattr` and to mappings that something does not exist.
        (KeyError("intended"), False),
        (AttributeError("intended"), False),
    ],
)
def test_exceptions_of_plugins_and_of_generators(given: Exception, is_derived: bool) -> None:
    with LLJIT() as jit:
        jit.layer.add_plugin(Faulty(given))
        jit.add_object(compile_c(MAIN))
        with pytest.raises(FailedToMaterializeError) as caught:
            jit.lookup("main")
    error = caught.value
    assert error.reason is error.__cause__ is given
    assert isinstance(error, type(given)) == is_derived
    if isinstance(given, OSError):
        assert isinstance(error, OSError)
        assert (error.errno, error.filename) == (given.errno, given.filename)
    if not isinstance(given, jitlink.JITLinkError):
        assert f" failed with {type(given).__name__}: " in str(error)
    # The cause begins where the user's code does.
    frames = [line for line in text_of(given) if line.startswith("  File ")]
    assert len(frames) == 1
    assert "in fail" in frames[0]


class FaultyGenerator:
    """Raises an exception for one name."""

    async def try_to_generate(
        self,
        kind: LookupKind,  # noqa: ARG002
        dylib: JITDylib,  # noqa: ARG002
        flags: JITDylibLookupFlags,  # noqa: ARG002
        names: Mapping[str, bool],
    ) -> None:
        if "call" in names:
            raise ValueError("intended")


@pytest.mark.parametrize("name", ["call", "top"])
def test_exceptions_of_generators(name: str) -> None:
    with LLJIT() as jit:
        jit.main.add_generator(FaultyGenerator())
        jit.add_object(compile_c(USER))
        with pytest.raises(ValueError, match="intended") as caught:
            jit.lookup(name)
    assert isinstance(caught.value, FailedToMaterializeError) == (name == "top")


def test_a_script_prints_the_call_and_one_cause(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import jitlink\n"
        f"jit = jitlink.LLJIT()\njit.add_object({str(compile_c(CONSTRUCTOR))!r})\n"
        "try:\n    jit.initialize()\nexcept jitlink.UndefinedSymbolError:\n    jit.initialize()\n"
        f"jit.add_object({str(compile_c(NEEDY))!r})\njit.lookup('call')\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    printed = done.stderr.splitlines()
    assert len(printed) <= 20
    assert printed[0].startswith("jitlink.errors.UndefinedSymbolError: undefined symbol: lacking")
    assert f'  File "{script}", line 9, in <module>' in printed
    assert printed[-2].startswith(
        "jitlink.orc.errors.FailedToMaterializeError: undefined symbol: lacking"
    )
    assert printed[-1].endswith("failed, and with it call in main")


def test_the_log_keeps_tracebacks_complete(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "jitlink.orc")
    with LLJIT() as jit, pytest.raises(UndefinedSymbolError) as caught:
        by_lookup(jit)
    assert any("/link_context.py" in line for line in text_of(caught.value))


def test_a_fault_of_the_linker_keeps_its_traceback() -> None:
    with ExecutionSession() as session:
        code = compile("def fail():\n    raise RuntimeError('a fault')", "x.py", "exec")
        space: dict[str, object] = {"__name__": "jitlink.some"}
        exec(code, space)
        with pytest.raises(RuntimeError, match="a fault") as caught:
            session.run(space["fail"])  # type: ignore[arg-type]
    assert any('"x.py"' in line for line in text_of(caught.value))
    assert any("/driver.py" in line for line in text_of(caught.value))


def test_a_failure_keeps_nothing_of_the_frames_that_it_has_left() -> None:
    class Kept:
        """Stands for a graph."""

    references: list[weakref.ref[Kept]] = []

    class Failing(Unit):
        async def materialize(self, responsibility: MaterializationResponsibility) -> None:
            kept = Kept()
            references.append(weakref.ref(kept))
            raise ValueError(str(responsibility))

    with ExecutionSession() as session:
        main = session.create_jitdylib("main")
        main.define(Failing("f"))
        with pytest.raises(FailedToMaterializeError) as caught:
            session.lookup(main, "f")
        assert isinstance(caught.value.reason, ValueError)
        assert [reference() for reference in references] == [None]


def test_failures_can_be_pickled_and_shown() -> None:
    cause = UndefinedSymbolError(["f"], referrers={"f": ["a.o"]})
    error = FailedToMaterializeError({"main": ["g"]}, failure=Failure("a.o", cause))
    again = pickle.loads(pickle.dumps(error))
    for each in (error, again, error.copy()):
        assert each.symbols == {"main": ("g",)}
        assert isinstance(each, UndefinedSymbolError)
        assert each.names == ("f",)
        assert str(each) == "undefined symbol: f (referenced by a.o)"
        assert each.__notes__ == ["a.o failed, and with it g in main"]
    assert repr(error).startswith("FailedToMaterializeError('undefined symbol: f")
    assert str(FailedToMaterializeError({"main": ["g"]})) == "failed to materialize g in main"


def test_classes_that_cannot_be_derived_from() -> None:
    class Final(Exception):  # noqa: N818
        def __init_subclass__(cls) -> None:
            raise TypeError("final")

    cause = Final("intended")
    error = FailedToMaterializeError({"main": ["g"]}, failure=Failure("a.o", cause))
    assert type(error) is FailedToMaterializeError
    assert str(error) == "a.o failed with Final: intended"

    class Demanding(Exception):  # noqa: N818
        def __new__(cls, text: str, _more: int) -> Self:
            return super().__new__(cls, text)

    demanding = Demanding("intended", 1)
    assert "Demanding" in str(FailedToMaterializeError({}, failure=Failure("a.o", demanding)))
    for other in (SystemExit(1), StopIteration()):
        assert type(FailedToMaterializeError({}, failure=Failure("a.o", other))) is type(error)


def test_unsatisfied_dependencies_lead_to_the_first_failure() -> None:
    with ExecutionSession() as session:
        main = session.create_jitdylib("main")
        main.define(Unit("bad", error=ValueError("intended"), name="bad.o"))
        main.define(Unit("user", ["bad"], name="user.o"))
        with pytest.raises(ValueError, match=r"bad\.o failed with ValueError: intended") as caught:
            session.lookup(main, "user")
    assert isinstance(caught.value, FailedToMaterializeError)
    assert not isinstance(caught.value, UnsatisfiedDependenciesError)
    assert caught.value.failure is not None
    assert caught.value.failure.unit == "bad.o"
