"""Which of two definitions of a name prevails: the same everywhere, and as in other linkers.

Two objects define ``value`` in all possible ways, in both orders. The program is linked by
GNU ld, by ld.lld, by `jitlink.load`, in sessions that link objects together or one by one, and by
the command. Where the two linkers agree, jitlink agrees with them; where they do not, with GNU ld.
"""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import jitlink
from jitlink.errors import JITLinkError
from jitlink.orc import FailedToMaterializeError
from jitlink.tool.main import main
from tests.toolchain import compile_c, require

DATA = """
    .globl value
    .type value, @object
    .size value, 4
    value: .long {0}
"""
SECTION = "    .data\n"
COMDAT = '    .section .data.value,"awG",@progbits,value,comdat\n'
LINKONCE = '    .section .gnu.linkonce.d.value,"aw",@progbits\n'
WEAK = "    .weak value\n"
ABSOLUTE = "    value = {0}\n"
DEFINITIONS = {
    "strong": SECTION + DATA,
    "weak": SECTION + DATA.replace(".globl", ".weak"),
    "common": "    .comm value, 4, 4\n",
    "large common": "    .comm value, 32, 32\n",
    "comdat": COMDAT + DATA,
    "weak comdat": COMDAT + DATA.replace(".globl", ".weak"),
    "linkonce": LINKONCE + DATA,
    "weak linkonce": LINKONCE + DATA.replace(".globl", ".weak"),
    "hidden": SECTION + "    .hidden value" + DATA,
    "weak hidden": SECTION + "    .hidden value" + DATA.replace(".globl", ".weak"),
    "unique": SECTION + DATA.replace("@object", "@gnu_unique_object"),
    "absolute": "    .globl value\n" + ABSOLUTE,
    "weak absolute": WEAK + ABSOLUTE,
    "external": "    .data\n    .quad value\n",
}
FIRST, SECOND = 11, 22
MAIN = """
extern int value;
int main(void) {
    long address = (long)&value;
    return address < 4096 ? (int)address : value;
}
"""
START = """
    .globl _start
_start:
    andq $-16, %rsp
    call main
    movl %eax, %edi
    movl $60, %eax
    syscall
"""
DUPLICATE, UNDEFINED = "duplicate definition", "undefined symbol"
PAIRS = list(itertools.product(DEFINITIONS, repeat=2))


def assembled(text: str) -> Path:
    return compile_c(text, flags=[], suffix=".s")


def objects_of(*kinds: str) -> list[Path]:
    texts = [DEFINITIONS[kind].format(n) for kind, n in zip(kinds, (FIRST, SECOND), strict=True)]
    return [assembled(text) for text in texts]


def main_object() -> Path:
    return compile_c(MAIN, flags=["-O1", "-fPIC"])


Outcome = int | str
"""The result of ``main``, or why the link failed."""

_REASONS = {
    "multiple definition": DUPLICATE,
    "duplicate symbol": DUPLICATE,
    "duplicate definition of symbol value": DUPLICATE,
    "undefined reference to `value'": UNDEFINED,
    "undefined symbol: value": UNDEFINED,
}


def reason_in(message: str) -> str:
    found = [reason for text, reason in _REASONS.items() if text in message]
    return found[0] if found else message


def by_linker(linker: Path, inputs: list[Path], place: Path) -> Outcome:
    program = place / linker.name
    done = subprocess.run(
        [linker, "-static", "-o", program, assembled(START), "-(", *inputs, "-)"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return reason_in(done.stderr)
    return subprocess.run([program], check=False).returncode


def outcome(link: Callable[[], int]) -> Outcome:
    try:
        return link()
    except JITLinkError as error:
        return reason_in(
            str(error.reason if isinstance(error, FailedToMaterializeError) else error)
        )


def by_load(objects: list[Path]) -> Outcome:
    def link() -> int:
        with jitlink.load(*objects, main_object()) as library:
            status: int = library.main()
            return status

    return outcome(link)


def by_session(objects: list[Path], *, batched: bool) -> Outcome:
    def link() -> int:
        with jitlink.LLJIT() as jit:
            jit.layer.batch_objects = batched
            for path in (*objects, main_object()):
                jit.add_object(path)
            status: int = jit.lookup("main")()
            return status

    return outcome(link)


def by_command(objects: list[Path], capture: pytest.CaptureFixture[str]) -> Outcome:
    capture.readouterr()
    status = main([*map(str, objects), str(main_object())])
    printed = capture.readouterr().err
    return reason_in(printed) if printed else status


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=[" ".join(pair) for pair in PAIRS])
def test_the_same_definition_prevails_everywhere(
    first: str, second: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    objects = objects_of(first, second)
    inputs = [*objects, main_object()]
    gnu, lld = (by_linker(require(name), inputs, tmp_path) for name in ("ld", "ld.lld-22"))
    answers = {
        "load": by_load(objects),
        "session": by_session(objects, batched=True),
        "session, one by one": by_session(objects, batched=False),
        "command": by_command(objects, capsys),
    }
    assert set(answers.values()) == {gnu}, (gnu, lld)
