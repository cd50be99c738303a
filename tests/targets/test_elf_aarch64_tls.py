"""Every TLS relocation type of AArch64: accesses, run in an executor, reach one variable.

The oracle is the compiler's own access, and the same objects as the cross linker links them.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import jitlink
from jitlink.arch.aarch64 import AArch64EdgeKind as K
from jitlink.errors import FixupError, MisalignedTargetError, TargetOutOfRangeError, TLSError
from jitlink.executor import RemoteExecutorProcessControl
from jitlink.targets.elf_aarch64 import RELOCATIONS
from jitlink.targets.registry import create_link_graph
from tests.elf_files import ElfFile
from tests.executor.remote.foreign import executor_command
from tests.oracle.check import members, tls_relocations
from tests.toolchain import CROSS_ARCHIVES, compile_c, cross_compiler, require, run

TARGET = "aarch64-linux-gnu"
_ADD_TP = "mrs x1, tpidr_el0; add x0, x0, x1"
_GET_ADDRESS = "bl __tls_get_addr; nop"
_ADD_GOT = "adrp x1, _GLOBAL_OFFSET_TABLE_; add x1, x1, :lo12:_GLOBAL_OFFSET_TABLE_; add x0, x0, x1"
_CALL = f".tlsdesccall target; blr x1; {_ADD_TP}"
_OFFSET = "add x0, x0, :dtprel_hi12:target; add x0, x0, :dtprel_lo12_nc:target"


def _reloc(name: str, instruction: str) -> str:
    # GNU ld has the offset of a symbol in GOT entries of local dynamic, which are of its module.
    symbol = "base" if name.startswith("TLSLD_") and "DTPREL" not in name else "target"
    return f".reloc ., R_AARCH64_{name}, {symbol}; {instruction}"


_LOCAL = (
    f"{_reloc('TLSLD_ADR_PAGE21', 'adrp x0, 0')}; {_reloc('TLSLD_ADD_LO12_NC', 'add x0, x0, #0')}; "
    f"{_GET_ADDRESS}"
)


# Code that leaves the variable's address in x0.
ADDRESSES = {
    "descriptor": (
        "adrp x0, :tlsdesc:target; ldr x1, [x0, :tlsdesc_lo12:target]; "
        f"add x0, x0, :tlsdesc_lo12:target; {_CALL}"
    ),
    "descriptor near": (
        f"{_reloc('TLSDESC_LD_PREL19', 'ldr x1, 0')}; {_reloc('TLSDESC_ADR_PREL21', 'adr x0, 0')}; "
        f"{_CALL}"
    ),
    "descriptor by offset": (
        f"{_reloc('TLSDESC_OFF_G1', 'movz x0, #0, lsl #16')}; "
        f"{_reloc('TLSDESC_OFF_G0_NC', 'movk x0, #0')}; {_ADD_GOT}; "
        f"{_reloc('TLSDESC_LDR', 'ldr x1, [x0]')}; {_reloc('TLSDESC_ADD', 'add x0, x0, #0')}; "
        f"{_CALL}"
    ),
    "general dynamic": (
        f"{_reloc('TLSGD_ADR_PAGE21', 'adrp x0, 0')}; "
        f"{_reloc('TLSGD_ADD_LO12_NC', 'add x0, x0, #0')}; {_GET_ADDRESS}"
    ),
    "general dynamic near": f"{_reloc('TLSGD_ADR_PREL21', 'adr x0, 0')}; {_GET_ADDRESS}",
    "general dynamic by offset": (
        f"{_reloc('TLSGD_MOVW_G1', 'movz x0, #0, lsl #16')}; "
        f"{_reloc('TLSGD_MOVW_G0_NC', 'movk x0, #0')}; {_ADD_GOT}; {_GET_ADDRESS}"
    ),
    "local dynamic": f"{_LOCAL}; {_OFFSET}",
    "local dynamic by any symbol": f"{_LOCAL.replace('base', 'target')}; {_OFFSET}",
    "local dynamic near": f"{_reloc('TLSLD_ADR_PREL21', 'adr x0, 0')}; {_GET_ADDRESS}; {_OFFSET}",
    "local dynamic loaded": (
        # The first word of the pair is the module ID, the second is zero.
        f"sub sp, sp, #16; {_reloc('TLSLD_LD_PREL19', 'ldr x0, 0')}; stp x0, xzr, [sp]; "
        f"mov x0, sp; {_GET_ADDRESS}; add sp, sp, #16; {_OFFSET}"
    ),
    "local dynamic by offset": (
        f"{_reloc('TLSLD_MOVW_G1', 'movz x0, #0, lsl #16')}; "
        f"{_reloc('TLSLD_MOVW_G0_NC', 'movk x0, #0')}; {_ADD_GOT}; {_GET_ADDRESS}; {_OFFSET}"
    ),
    "offset of 12 bits": f"{_LOCAL}; add x0, x0, :dtprel_lo12:target",
    "offset moved": f"{_LOCAL}; movz x1, #:dtprel_g0:target; add x0, x0, x1",
    "offset moved in two parts": (
        f"{_LOCAL}; movz x1, #:dtprel_g1:target; movk x1, #:dtprel_g0_nc:target; add x0, x0, x1"
    ),
    "offset moved in three parts": (
        f"{_LOCAL}; movz x1, #:dtprel_g2:target; movk x1, #:dtprel_g1_nc:target; "
        "movk x1, #:dtprel_g0_nc:target; add x0, x0, x1"
    ),
    "initial exec": (f"adrp x0, :gottprel:target; ldr x0, [x0, :gottprel_lo12:target]; {_ADD_TP}"),
    "initial exec near": f"ldr x0, :gottprel:target; {_ADD_TP}",
    "initial exec by offset": (
        f"{_reloc('TLSIE_MOVW_GOTTPREL_G1', 'movz x0, #0, lsl #16')}; "
        f"{_reloc('TLSIE_MOVW_GOTTPREL_G0_NC', 'movk x0, #0')}; {_ADD_GOT}; ldr x0, [x0]; {_ADD_TP}"
    ),
    "local exec": (
        "mrs x0, tpidr_el0; add x0, x0, :tprel_hi12:target; add x0, x0, :tprel_lo12_nc:target"
    ),
    "local exec of 12 bits": "mrs x0, tpidr_el0; add x0, x0, :tprel_lo12:target",
    "local exec moved": f"movz x0, #:tprel_g0:target; {_ADD_TP}",
    "local exec moved in two parts": (
        f"movz x0, #:tprel_g1:target; movk x0, #:tprel_g0_nc:target; {_ADD_TP}"
    ),
    "local exec moved in three parts": (
        "movz x0, #:tprel_g2:target; movk x0, #:tprel_g1_nc:target; "
        f"movk x0, #:tprel_g0_nc:target; {_ADD_TP}"
    ),
}
# Loads of each size, from a base in x0: what they leave there.
_LOADS = {8: "ldrb w0", 16: "ldrh w0", 32: "ldr w0", 64: "ldr x0", 128: "ldr q0"}
VALUES = {
    f"load of {size} bits {name}{', in 12 bits' if is_checked else ''}": (
        f"{base}; {_reloc(f'{model}_LDST{size}_{rel}_LO12{tail}', f'{load}, [x0]')}"
        + ("; fmov x0, d0" if size == 128 else "")
    )
    for size, load in _LOADS.items()
    for is_checked, tail in ((True, ""), (False, "_NC"))
    for name, model, rel, base in (
        ("from the thread pointer", "TLSLE", "TPREL", "mrs x0, tpidr_el0"),
        ("from the block", "TLSLD", "DTPREL", _LOCAL),
    )
}
SHORT = (
    "offset of 12 bits", "offset moved", "local exec of 12 bits", "local exec moved",
)  # fmt: skip
FAR = {
    f"{name}, far": body.replace("target", "distant")
    for name, body in ADDRESSES.items()
    if name not in SHORT
}
"""The same for a variable whose offsets have more than 16 bits."""
VALUE = 0x1122_3344_5566_7788
SAVE, RESTORE = "stp x29, x30, [sp, #-16]!; mov x29, sp", "ldp x29, x30, [sp], #16; ret"


class Accesses(NamedTuple):
    """Accesses by name: the addresses of two variables, and values of one."""

    near: dict[str, str]
    far: dict[str, str]
    values: dict[str, str]

    @property
    def names(self) -> list[str]:
        """All names, in the order of the functions."""
        return [*self.near, *self.far, *self.values]


ALL = Accesses(ADDRESSES, FAR, VALUES)


def source(accesses: Accesses) -> str:
    bodies = [body for each in accesses for body in each.values()]
    functions = "".join(
        f".balign 4\nfunction{n}: {SAVE}; {body}; {RESTORE}\n" for n, body in enumerate(bodies)
    )
    table = "\n".join(f".quad function{n}" for n in range(len(bodies)))
    return f"""
    .text
{functions}
    .section .data.rel.ro, "aw"
    .balign 8
    .globl functions
functions:
{table}
    .section .tdata, "awT", @progbits
    .balign 16
    .type base, @tls_object
base:
    .zero 32
    .globl target
    .type target, @tls_object
    .size target, 16
target:
    .quad {VALUE}, 2
    .zero 0x12340
    .globl distant
    .type distant, @tls_object
    .size distant, 8
distant:
    .quad 3
"""


def check(accesses: Accesses) -> str:
    near = len(accesses.near)
    addresses = near + len(accesses.far)
    sizes = [name.split()[2] for name in accesses.values]
    return f"""
#include <pthread.h>
#include <stdio.h>
extern __thread long target, distant;
extern long (*const functions[])(void);
static const int sizes[] = {{{", ".join(sizes)}}};

/* The number of the first function with a wrong result; -1 if all are right. */
static void *check(void *unused) {{
  long n = 0;
  for (; n < {addresses}; n++)
    if (functions[n]() != (long)(n < {near} ? &target : &distant))
      return (void *)n;
  for (int value = 0; value < {len(sizes)}; value++, n++) {{
    int size = sizes[value];
    long mask = size < 64 ? (1l << size) - 1 : -1;
    if (functions[n]() != (target & mask))
      return (void *)n;
  }}
  return (void *)-1;
}}

int first_wrong(void) {{
  pthread_t thread;
  void *result = check(0);
  if ((long)result >= 0)
    return (int)(long)result;
  pthread_create(&thread, 0, check, 0);
  pthread_join(thread, &result);
  return (int)(long)result;
}}

int main(void) {{
  printf("%d\\n", first_wrong());
  return 0;
}}
"""


def objects(accesses: Accesses) -> list[Path]:
    assembled = compile_c(source(accesses), "clang", suffix=".s", target=TARGET)
    return [assembled, compile_c(check(accesses), "gcc", ("-O1", "-fPIC"), target=TARGET)]


def test_every_type_is_used() -> None:
    (first, _) = objects(ALL)
    elf = ElfFile(first)
    used = {each["type"] for each in elf.relocations(elf.find(".rela.text"))}
    assert used >= {row.number for row in RELOCATIONS if 512 <= row.number < 574}


def test_all_accesses_reach_the_variable_of_the_calling_thread() -> None:
    # The C library has little static TLS for modules that are loaded later.
    command = ["env", "GLIBC_TUNABLES=glibc.rtld.optional_static_tls=200000"]
    command += executor_command(TARGET)
    with (
        RemoteExecutorProcessControl.launch(command, timeout=60) as executor,
        jitlink.load(*objects(ALL), executor=executor) as library,
    ):
        wrong = library.first_wrong()
        assert wrong == -1, ALL.names[wrong]


@pytest.mark.parametrize("name", CROSS_ARCHIVES[TARGET])
def test_objects_of_real_archives_have_no_relocation_that_is_refused(name: str) -> None:
    archive = require(f"{TARGET}/{name}")
    found = 0
    for member in members(archive):
        if tls_relocations(member.data):
            create_link_graph(member.data, member.name)
            found += 1
    assert found or name in {"libgcc.a", "libm.a"}


def _known(linker: str) -> Accesses:
    """The accesses that another linker links; it refuses others, or fails an assertion."""
    static = ("descriptor", "initial exec", "local exec", "load")
    dynamic = ("general dynamic", "local dynamic", "offset")
    beginnings, unknown = {
        "lld": (static, ("near", "by offset", "from the block", "12 bits")),
        "ld": (dynamic, ("near", "by offset", "loaded", "any symbol")),
    }[linker]
    return Accesses(
        *(
            {
                name: body
                for name, body in each.items()
                if name.startswith(beginnings) and not any(word in name for word in unknown)
            }
            for each in ALL
        )
    )


def test_lld_links_them_to_the_same(tmp_path: Path) -> None:
    accesses = _known("lld")
    assert len(accesses.names) == 16
    program = tmp_path / "program"
    (tmp_path / "ld.lld").symlink_to(require("ld.lld-22"))
    flags = [f"-B{tmp_path}", "-fuse-ld=lld", "-pie"]
    run([require(cross_compiler(TARGET)), *flags, *objects(accesses), "-o", program])
    command = [*executor_command(TARGET)[:-1], str(program)]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"-1\n"


def test_gnu_ld_links_them_to_the_same(tmp_path: Path) -> None:
    """In a shared object, since it changes them in programs."""
    accesses = _known("ld")
    assert len(accesses.names) == 10
    library, program = tmp_path / "libaccesses.so", tmp_path / "program"
    compiler = require(cross_compiler(TARGET))
    run([compiler, "-shared", *objects(accesses), "-o", library])
    run([compiler, library, f"-Wl,-rpath,{tmp_path}", "-o", program])
    command = [*executor_command(TARGET)[:-1], str(program)]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"-1\n"


LIMITS = {
    "add x0, x0, :tprel_hi12:target": (K.TPOFF_HIGH12, (0, (1 << 24) - 1)),
    "add x0, x0, :tprel_lo12:target": (K.TPOFF_LOW12, (0, (1 << 12) - 1)),
    "ldr x0, [x0, :tprel_lo12:target]": (K.TPOFF_LOW12_SHIFT3, (0, (1 << 12) - 1)),
    "movz x0, #:tprel_g0:target": (K.MOVE_WIDE16_TPOFF_G0, (-(1 << 16), (1 << 16) - 1)),
    "movk x0, #:tprel_g0:target": (K.MOVE_KEEP16_TPOFF_G0, (-(1 << 16), (1 << 16) - 1)),
    "movz x0, #:tprel_g1:target": (K.MOVE_WIDE16_TPOFF_G1, (-(1 << 32), (1 << 32) - 1)),
    "movz x0, #:tprel_g2:target": (K.MOVE_WIDE16_TPOFF_G2, (-(1 << 48), (1 << 48) - 1)),
    "add x0, x0, :dtprel_hi12:target": (K.DTPOFF_HIGH12, (0, (1 << 24) - 1)),
    "add x0, x0, :dtprel_lo12:target": (K.DTPOFF_LOW12, (0, (1 << 12) - 1)),
    "ldrb w0, [x0, :dtprel_lo12:target]": (K.DTPOFF_LOW12, (0, (1 << 12) - 1)),
    "movz x0, #:dtprel_g0:target": (K.MOVE_WIDE16_DTPOFF_G0, (-(1 << 16), (1 << 16) - 1)),
    "movz x0, #:dtprel_g1:target": (K.MOVE_WIDE16_DTPOFF_G1, (-(1 << 32), (1 << 32) - 1)),
    "movz x0, #:dtprel_g2:target": (K.MOVE_WIDE16_DTPOFF_G2, (-(1 << 48), (1 << 48) - 1)),
}


@pytest.fixture(scope="module")
def executor() -> Iterator[RemoteExecutorProcessControl]:
    with RemoteExecutorProcessControl.launch(executor_command(TARGET), timeout=60) as executor:
        yield executor


def _line(line: str, variable: str = ".quad 0") -> Path:
    text = f"""
    .text
    .globl f
f:  {line}
    .section .tdata, "awT", @progbits
    .balign 16
    .globl target
    .type target, @tls_object
target:
    {variable}
"""
    return compile_c(text, "clang", suffix=".s", target=TARGET)


@pytest.mark.parametrize("line", LIMITS)
def test_offsets_out_of_range_are_refused_with_the_limits(
    line: str, executor: RemoteExecutorProcessControl
) -> None:
    kind, limits = LIMITS[line]
    far = line.replace("target", f"target + {1 << 49}")
    with pytest.raises(TargetOutOfRangeError) as caught:
        jitlink.load(_line(far), executor=executor).close()
    error = caught.value
    assert (error.kind, error.target) == (str(kind), "target")
    assert (error.low, error.high) == limits


# Of checked offsets in the thread's own block, ld.lld links those; the thread pointer is 16 bytes
# before the variable.
@pytest.mark.parametrize(
    "line", [each for each in LIMITS if ":tprel_" in each and "lo12" not in each]
)
def test_the_limits_are_those_of_lld(line: str, tmp_path: Path) -> None:
    low, high = LIMITS[line][1]
    for value, fits in ((low, True), (high, True), (low - 1, False), (high + 1, False)):
        linked = _line(line.replace("target", f"target + {value - 16}"))
        command = [
            str(require("ld.lld-22")),
            "-e",
            "f",
            str(linked),
            "-o",
            str(tmp_path / "program"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == fits, (value, done.stderr)
        assert fits or f"is not in [{low}, {high}]" in done.stderr


@pytest.mark.parametrize("model", ["tprel", "dtprel"])
def test_misaligned_offsets_are_refused(model: str, executor: RemoteExecutorProcessControl) -> None:
    line = f"ldr x0, [x0, :{model}_lo12_nc:target + 4]"
    with pytest.raises(MisalignedTargetError) as caught:
        jitlink.load(_line(line), executor=executor).close()
    assert (caught.value.alignment, caught.value.value & 7) == (8, 4)


def test_variables_and_accesses_must_both_be_thread_local(
    executor: RemoteExecutorProcessControl,
) -> None:
    with pytest.raises(FixupError, match="has a thread-local variable for its target"):
        jitlink.load(_line("adrp x0, target"), executor=executor).close()
    ordinary = "adrp x0, :gottprel:f; ldr x0, [x0, :gottprel_lo12:f]"
    with pytest.raises((FixupError, TLSError), match="thread-local variable"):
        jitlink.load(_line(ordinary), executor=executor).close()


def test_more_static_tls_than_there_is(executor: RemoteExecutorProcessControl) -> None:
    line = "adrp x0, :gottprel:target; ldr x0, [x0, :gottprel_lo12:target]"
    with pytest.raises(TLSError, match="static TLS"):
        jitlink.load(_line(line, ".zero 100000"), executor=executor).close()
    with jitlink.load(_line(line, ".zero 64"), executor=executor):
        pass


def test_a_variable_of_another_link_and_of_a_library(
    executor: RemoteExecutorProcessControl,
) -> None:
    """With TLS descriptors, and what is older."""
    first = "__thread int shared = 5; int *place(void) { return &shared; }"
    second = """
    #include <errno.h>
    #include <unistd.h>
    extern __thread int shared;
    int add(int by) { return shared += by; }
    int fails(void) { errno = 0; close(-1); return errno; }
    """
    for dialect in ("desc", "trad"):
        flags = ("-O1", "-fPIC", f"-mtls-dialect={dialect}")
        objects = [compile_c(each, "gcc", flags, target=TARGET) for each in (first, second)]
        with (
            jitlink.load(objects[0], executor=executor) as one,
            jitlink.load(
                objects[1], executor=executor, definitions={"shared": one.exports["shared"]}
            ) as other,
        ):
            assert [other.add(2), other.add(3)] == [7, 10]
            assert other.fails() == 9
