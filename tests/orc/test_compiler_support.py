"""Functions of the compilers' support libraries, linked without being named."""

import ctypes
from collections.abc import Sequence
from pathlib import Path

import pytest

import jitlink
from jitlink import compilers
from jitlink.compilers import support_archives
from jitlink.errors import UndefinedSymbolError
from jitlink.executor import SelfExecutorProcessControl
from jitlink.lljit import LLJIT, LLJITBuilder
from jitlink.orc import FailedToMaterializeError
from jitlink.orc.compiler_support import COMPILER_SUPPORT
from tests.toolchain import compile_c, report_missing

DIVIDE = """
typedef unsigned __int128 wide;
unsigned long quotient(unsigned long high, unsigned long by) {
    return (unsigned long)(((wide)high << 64) / ((wide)by << 64));
}
unsigned long rest(unsigned long high, unsigned long by) {
    return (unsigned long)((((wide)high << 64) % ((wide)by << 64)) >> 64);
}
"""


@pytest.fixture
def support_library() -> None:
    """Skip the test if no compiler is installed, as `require` does."""
    if not support_archives("x86_64"):
        report_missing("a compiler's support library", "libgcc-12-dev")


needs_library = pytest.mark.usefixtures("support_library")


@pytest.fixture
def process_lacks_division(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide libgcc's symbols, which the process loads with the first exception if not before."""
    look_up = SelfExecutorProcessControl.lookup_symbols

    async def look_up_others(
        executor: SelfExecutorProcessControl, names: Sequence[str], dylib: int | None = None
    ) -> list[int | None]:
        found = await look_up(executor, names, dylib)
        hidden = {"__udivti3", "__umodti3"}
        return [None if n in hidden else at for n, at in zip(names, found, strict=True)]

    monkeypatch.setattr(SelfExecutorProcessControl, "lookup_symbols", look_up_others)


needs_lack = pytest.mark.usefixtures("process_lacks_division")


@needs_library
def test_wide_division_works_everywhere() -> None:
    divide = compile_c(DIVIDE, "zig")
    with jitlink.load(divide) as library:
        for name, expected in (("quotient", 14), ("rest", 2)):
            function = library.function(name)
            function.argtypes, function.restype = (ctypes.c_ulong,) * 2, ctypes.c_ulong
            assert function(100, 7) == expected


@needs_library
@needs_lack
def test_each_session_links_them_once() -> None:
    divide = compile_c(DIVIDE, "zig")
    with LLJIT() as jit:
        other = jit.create_jitdylib("other")
        jit.add_object(divide)
        jit.add_object(divide, dylib=other)
        assert jit.session.get_jitdylib_by_name(COMPILER_SUPPORT) is None
        jit.lookup("quotient")
        jit.lookup("quotient", dylib=other)
        support = jit.session.get_jitdylib_by_name(COMPILER_SUPPORT)
        assert support is not None
        address = jit.session.run(lambda: support.symbols["__udivti3"].addresses["__udivti3"])
        assert jit.lookup("__udivti3", dylib=support) == address


@needs_lack
def test_not_if_disabled_and_not_for_other_names() -> None:
    divide = compile_c(DIVIDE, "zig")
    with LLJITBuilder().set_compiler_support(False).create() as jit:
        jit.add_object(divide)
        with pytest.raises(FailedToMaterializeError) as caught:
            jit.lookup("quotient")
    cause = caught.value.__cause__
    assert isinstance(cause, UndefinedSymbolError)
    assert "__udivti3 is usually in libgcc" in str(cause)
    with LLJIT() as jit, pytest.raises(UndefinedSymbolError):
        jit.lookup("_Unwind_Find_FDE_of_nothing")


@needs_lack
def test_a_broken_library_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "libgcc.a"
    broken.write_bytes(b"!<arch>\n" + b"x" * 60)
    missing = tmp_path / "missing.a"
    monkeypatch.setattr(compilers, "support_archives", lambda _: [str(broken), str(missing)])
    with LLJIT() as jit:
        jit.add_object(compile_c(DIVIDE, "zig"))
        with pytest.raises(FailedToMaterializeError) as caught:
            jit.lookup("quotient")
        assert isinstance(caught.value.__cause__, UndefinedSymbolError)
