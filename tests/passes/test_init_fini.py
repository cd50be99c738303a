"""Code in ``.init`` and ``.fini`` becomes functions, called in the order of a native program."""

import ctypes
import subprocess
from pathlib import Path

import pytest

from jitlink.errors import UnsupportedObjectError
from jitlink.graph import MemProt
from jitlink.lljit import LLJIT
from jitlink.passes.init_fini import init_fini_sections, lower_init_fini
from jitlink.targets.registry import target_of_triple
from tests.tool.command import spawn
from tests.toolchain import MACHINE, compile_c, require, run

SOURCE = r"""
#include <stdio.h>
#include <stdlib.h>
/* Floating-point arguments make the C library use the stack's alignment. */
#define SAY(what) void say_{name}_##what(void) {{ printf("%.1f " #what " {name}\n", 1.5); }}
SAY(init) SAY(fini)
__attribute__((constructor)) static void begin(void) {{ puts("constructor {name}"); }}
__attribute__((destructor)) static void end(void) {{ puts("destructor {name}"); }}
__attribute__((destructor(200))) static void late(void) {{ puts("destructor 200 {name}"); }}
__asm__(".section .init,\"ax\",@progbits\n"
        "    {call} say_{name}_init\n    {jump} 1f\n    {trap}\n1:\n"
        ".section .fini,\"ax\",@progbits\n    {call} say_{name}_fini\n.text");
{main}
"""
INSTRUCTIONS = {
    "x86_64": {"call": "call", "jump": "jmp", "trap": "ud2"},
    "aarch64": {"call": "bl", "jump": "b", "trap": "udf #0"},
}.get(MACHINE, {})
pytestmark = pytest.mark.machine("x86_64", "aarch64")
MAIN = 'void leave(void) { puts("exit handler"); } int main(void) { return atexit(leave) + 5; }'


def objects(*flags: str) -> list[Path]:
    mains = {"one": MAIN, "two": ""}
    sources = [SOURCE.format(name=n, main=m, **INSTRUCTIONS) for n, m in mains.items()]
    return [compile_c(source, "gcc", flags) for source in sources]


@pytest.mark.parametrize("flags", [("-fPIC", "-O2"), ("-fno-pic", "-O0")], ids=str)
def test_order_is_that_of_a_native_program(flags: tuple[str, ...], tmp_path: Path) -> None:
    files, program = objects(*flags), tmp_path / "native"
    run([require("gcc"), "-no-pie" if "-fno-pic" in flags else "-pie", *files, "-o", program])
    native = subprocess.run([program], capture_output=True, text=True, check=False)
    done = spawn(*files)
    assert (done.status, done.err) == (native.returncode, "")
    assert done.out == native.stdout
    assert len(done.out.splitlines()) == 11


def test_unreferenced_objects_with_init_code_are_linked() -> None:
    source = """
    int called;
    void call(void) { called += 1; }
    __asm__(".section .init,\\"ax\\",@progbits\\n CALL call\\n.text");
    """.replace("CALL", INSTRUCTIONS["call"])
    with LLJIT() as jit:
        jit.add_object(compile_c("int unrelated;", "gcc", ("-fPIC",)))
        jit.add_object(compile_c(source, "gcc", ("-fPIC",)))
        jit.initialize()
        jit.initialize()
        assert ctypes.c_int.from_address(jit.lookup("called")).value == 1


def test_other_architectures_refuse_init_code() -> None:
    target = target_of_triple("riscv64-linux")
    graph = target.new_graph("g")
    graph.origins.append("0.o")
    section = graph.create_section(".init", MemProt.READ | MemProt.EXEC)
    block = graph.create_content_block(section, bytes(4), 0, 4)
    graph.block_table.origin[block.row] = 0
    assert list(init_fini_sections(graph)) == [section]
    with pytest.raises(UnsupportedObjectError, match=r"^0\.o: section \.init holds") as raised:
        lower_init_fini(graph, target.crti_crtn)
    assert raised.value.file == "0.o"
