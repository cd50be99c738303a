"""Sections that are both writable and executable are refused by name, or mapped so."""

from __future__ import annotations

import ctypes
import errno
import subprocess
from pathlib import Path

import pytest

import jitlink
from jitlink.errors import AllocationError, WritableCodeError
from jitlink.lljit import LLJIT, LLJITBuilder
from jitlink.memory import mapping
from jitlink.memory.mapping import mapped_ranges
from tests.tool.command import archive, spawn
from tests.toolchain import compile_c, require, run

CHANGES_ITSELF = """
    .section patch, "awx", @progbits
    .globl number
    .type number, @function
number:
    .byte 0xb8
value:
    .long 1
    ret
    .text
    .globl change
change:
    mov %edi, value(%rip)
    ret
    .globl main
main:
    push %rbx
    call number
    mov %eax, %ebx
    mov $41, %edi
    call change
    call number
    add %ebx, %eax
    pop %rbx
    ret
    .section .note.GNU-stack, "", @progbits
"""


@pytest.fixture
def path() -> Path:
    return compile_c(CHANGES_ITSELF, suffix=".s")


def writable_code() -> set[int]:
    return {each.start for each in mapped_ranges() if each.permissions.startswith("rwx")}


def test_as_natively(path: Path, tmp_path: Path) -> None:
    program = tmp_path / "program"
    run([require("gcc"), path, "-o", program])
    native = subprocess.run([program], check=False).returncode
    assert spawn("-writable-code", path) == (native, "", "")
    library = archive(tmp_path / "library.a", path)
    assert spawn("-writable-code", library) == (native, "", "")


def test_the_command_refuses(path: Path) -> None:
    message = (
        f"in graph {path} ({path}), sections are both writable and executable: patch; "
        "-writable-code (writable_code=True in Python) maps them so"
    )
    done = spawn(path)
    assert (done.status, done.out) == (1, "")
    assert message in done.err
    assert spawn("-noexec", path).status == 1
    assert spawn("-noexec", "-writable-code", path) == (0, "", "")


def test_libraries(path: Path, tmp_path: Path) -> None:
    before = writable_code()
    with pytest.raises(WritableCodeError) as caught:
        jitlink.load(path)
    assert (caught.value.sections, caught.value.files) == (("patch",), (str(path),))
    assert writable_code() == before
    with jitlink.load(path, writable_code=True) as lib:
        assert lib.number() == 1
        lib.change(7)
        assert lib.number() == 7
        assert writable_code() != before
        with pytest.raises(WritableCodeError):
            jitlink.load(path)
    assert writable_code() == before
    alone = archive(tmp_path / "library.a", path)
    with jitlink.load(alone, writable_code=True) as lib:
        assert lib.main() == 42
    with jitlink.load(alone) as lib, pytest.raises(WritableCodeError):
        lib.main()
    with jitlink.harness(path, writable_code=True) as tested:
        assert tested.main() == 42


def test_sessions(path: Path) -> None:
    for jit in (LLJIT(writable_code=True), LLJITBuilder().set_writable_code(True).create()):
        with jit:
            jit.add_object(path)
            assert jit.lookup("main")() == 42
    with LLJIT() as jit:
        jit.add_object(path)
        with pytest.raises(jitlink.orc.FailedToMaterializeError) as caught:
            jit.lookup("main")
        assert isinstance(caught.value.__cause__, WritableCodeError)


def test_a_system_that_forbids_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As SELinux does without execmem."""
    protect = mapping._mprotect

    def refuse(address: int, size: int, protection: int) -> int:
        if protection & 6 == 6:
            ctypes.set_errno(errno.EACCES)
            return -1
        return int(protect(address, size, protection))

    monkeypatch.setattr(mapping, "_mprotect", refuse)
    with pytest.raises(AllocationError, match=r"cannot protect .* Permission denied: .*execmem"):
        jitlink.load(path, writable_code=True)
    plain = compile_c("int f(void) { return 3; }")
    with jitlink.load(plain, writable_code=True) as lib:
        assert lib.f() == 3
