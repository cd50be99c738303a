"""Every TLS relocation type, linked and compared with the psABI's formula.

The types are written by number into the slot of an object, as in `test_elf_x86_64`. The address
of a thread's TLS block comes from the C library's dlinfo, which links do not use.
"""

import ctypes
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from jitlink.arch.x86_64 import X86_64EdgeKind as K
from jitlink.errors import FixupError, TLSError
from jitlink.memory.tls_glibc import PROCESS_TLS, instance_address
from jitlink.targets.elf_x86_64 import RELOCATIONS
from tests.elf_files import ElfFile
from tests.linking import Linked, Linker, read_graph
from tests.toolchain import compile_c

ADDEND = 4
SLOT = 16
NUMBERS = {row.name: row.number for row in RELOCATIONS}
RTLD_DI_TLS_MODID, RTLD_DI_TLS_DATA = 9, 10

SOURCE = f"""
    .section .tdata, "awT", @progbits
    .balign 32
    .quad 1
    .globl target
    .type target, @tls_object
target:
    .quad 2, 3
    .size target, . - target
    .text
    .globl thread_pointer, call_descriptor
thread_pointer:
    mov %fs:0, %rax
    ret
call_descriptor:
    mov %rdi, %rax
    jmp *(%rax)
    .data
    .balign 16
    .globl first, slot, ordinary
first:
    .zero {SLOT}
slot:
    .quad target@tpoff + {ADDEND}
    .zero {SLOT - 8}
    .zero {SLOT}
ordinary:
    .quad 0
"""


class Result(NamedTuple):
    """A slot after a link, and what formulas refer to.

    Attributes:
        linked: the link.
        value: what the slot has, as a signed number.
        module: ID of the module that has the target.
        tls_block: address of the calling thread's TLS block of that module.
        offset: the target's offset in the TLS block.
        thread_pointer: the calling thread's.
    """

    linked: Linked
    value: int
    module: int
    tls_block: int
    offset: int
    thread_pointer: int

    @property
    def entry(self) -> int:
        """Address of the GOT entry that the slot refers to."""
        return self.linked.address("slot") + self.value - ADDEND

    def words(self, count: int) -> list[int]:
        return list((ctypes.c_int64 * count).from_address(self.entry))

    @property
    def tpoff(self) -> int:
        """Offset of the calling thread's instance from the thread pointer."""
        return self.tls_block + self.offset - self.thread_pointer

    @property
    def tlsdesc_result(self) -> int:
        """What the function of the TLS descriptor in the GOT entry returns."""
        function = self.linked.function("call_descriptor", ctypes.c_int64, ctypes.c_uint64)
        return function(self.entry)


FORMULAS: dict[str, tuple[int, Callable[[Result], bool]]] = {
    "R_X86_64_DTPMOD64": (8, lambda r: r.value == r.module + ADDEND),
    "R_X86_64_DTPOFF64": (8, lambda r: r.value == r.offset + ADDEND),
    "R_X86_64_DTPOFF32": (4, lambda r: r.value == r.offset + ADDEND),
    "R_X86_64_TPOFF64": (8, lambda r: r.value == r.tpoff + ADDEND),
    "R_X86_64_TPOFF32": (4, lambda r: r.value == r.tpoff + ADDEND),
    "R_X86_64_TLSGD": (4, lambda r: r.words(2) == [r.module, r.offset]),
    "R_X86_64_TLSLD": (4, lambda r: r.words(2) == [r.module, 0]),
    **{
        f"R_X86_64_{code}GOTTPOFF": (4, lambda r: r.words(1) == [r.tpoff])
        for code in ("", "CODE_4_", "CODE_5_", "CODE_6_")
    },
    **{
        f"R_X86_64_{code}GOTPC32_TLSDESC": (4, lambda r: r.tlsdesc_result == r.tpoff)
        for code in ("", "CODE_4_", "CODE_5_", "CODE_6_")
    },
}
STATIC_TLS = {name for name in FORMULAS if "TPOFF" in name and "DTPOFF" not in name}


@pytest.fixture
def linker() -> Iterator[Linker]:
    before = PROCESS_TLS.count
    with Linker() as made:
        yield made
    assert PROCESS_TLS.count == before


def slot_object(number: int, source: str = SOURCE) -> bytes:
    """The object with a relocation type in its slot."""
    elf = ElfFile(compile_c(source, suffix=".s"))
    section = elf.find(".rela.data")
    records = elf.relocations(section)
    (slot,) = [n for n, record in enumerate(records) if record["addend"] == ADDEND]
    return bytes(elf.set_relocation(section, slot, type=number))


def referring(target: str, number: int) -> bytes:
    """An object whose slot refers to a variable, with a relocation type."""
    _, _, code = SOURCE.partition("    .text\n")
    return slot_object(number, "    .text\n" + code.replace("target@", f"{target}@"))


def result(linked: Linked, width: int, address: int) -> Result:
    # Nothing beside the field is written.
    assert linked.read("first", SLOT) == bytes(SLOT)
    assert linked.read("slot", SLOT)[width:] == bytes(SLOT - width)
    found = PROCESS_TLS.find(address)
    assert found is not None
    block, offset = found
    module, tls_block = (
        dlinfo(block.handle, each) for each in (RTLD_DI_TLS_MODID, RTLD_DI_TLS_DATA)
    )
    value = linked.integer("slot", width, signed=True)
    return Result(linked, value, module, tls_block, offset, linked.function("thread_pointer")())


def dlinfo(handle: int, request: int) -> int:
    function = ctypes.CDLL(None).dlinfo
    result = ctypes.c_size_t()
    if request == RTLD_DI_TLS_DATA:
        # A thread has a TLS block only once it has used it.
        instance_address(dlinfo(handle, RTLD_DI_TLS_MODID), 0)
    assert function(ctypes.c_void_p(handle), request, ctypes.byref(result)) == 0
    return result.value


def test_every_type_is_linked_or_only_a_dynamic_linkers() -> None:
    names = {n for n in NUMBERS if "TLS" in n or "TPOFF" in n or "DTPMOD" in n}
    assert names == {*FORMULAS, "R_X86_64_TLSDESC_CALL", "R_X86_64_TLSDESC"}


@pytest.mark.parametrize("name", FORMULAS)
def test_formula_with_a_variable_of_the_graph(linker: Linker, name: str) -> None:
    width, formula = FORMULAS[name]
    linked = linker.link(slot_object(NUMBERS[name]))
    found = result(linked, width, linked.address("target"))
    assert formula(found)
    assert found.tls_block % 32 == 0
    assert list((ctypes.c_int64 * 3).from_address(found.tls_block)) == [1, 2, 3]


@pytest.mark.parametrize("name", [name for name in FORMULAS if "DTP" not in name])
def test_formula_with_a_variable_of_another_link(linker: Linker, name: str) -> None:
    width, formula = FORMULAS[name]
    other = linker.link(compile_c(SOURCE.replace("slot", "other_slot"), suffix=".s"))
    address = other.address("target")
    linked = linker.link(referring("target", NUMBERS[name]), externals={"target": address})
    if name == "R_X86_64_TLSLD":
        # This one is about the TLS module of the code, whatever the variable.
        found = result(linked, width, address)
        assert found.words(2)[0] not in {0, found.module}
    else:
        assert formula(result(linked, width, address))


@pytest.mark.parametrize("name", ["R_X86_64_DTPOFF32", "R_X86_64_DTPOFF64"])
def test_offsets_of_variables_of_another_link(linker: Linker, name: str) -> None:
    """They count from the TLS block of the code's own link, whose address they are added to."""
    other = linker.link(compile_c(SOURCE, suffix=".s"))
    address = other.address("target")
    source = SOURCE.replace("target@", "variable@")
    linked = linker.link(slot_object(NUMBERS[name], source), externals={"variable": address})
    there = result(linked, FORMULAS[name][0], address)
    here = result(linked, FORMULAS[name][0], linked.address("target"))
    assert here.tls_block + there.value == there.tls_block + there.offset + ADDEND


def test_calls_through_tls_descriptors_change_nothing(linker: Linker) -> None:
    linked = linker.link(slot_object(NUMBERS["R_X86_64_TLSDESC_CALL"]))
    assert linked.read("slot", SLOT) == bytes(SLOT)


@pytest.mark.parametrize("name", FORMULAS)
def test_static_tls_is_used_only_where_code_requires_it(linker: Linker, name: str) -> None:
    linked = linker.link(slot_object(NUMBERS[name]))
    found = PROCESS_TLS.find(linked.address("target"))
    assert found is not None
    assert (found[0].tp_offset is not None) == (name in STATIC_TLS)


# Wrong inputs


@pytest.mark.parametrize("name", FORMULAS)
def test_targets_that_are_not_thread_local(linker: Linker, name: str) -> None:
    with pytest.raises(FixupError, match="its target is not a thread-local variable") as caught:
        linker.link(referring("ordinary", NUMBERS[name]))
    assert (caught.value.section, caught.value.target) == (".data", "ordinary")
    assert caught.value.offset == SLOT


@pytest.mark.parametrize("name", [name for name in FORMULAS if name not in {
    "R_X86_64_TLSLD", "R_X86_64_DTPMOD64"}])  # fmt: skip
def test_external_targets_that_are_not_thread_local(linker: Linker, name: str) -> None:
    variable = ctypes.c_int64(5)
    externals = {"target": ctypes.addressof(variable)}
    with pytest.raises(TLSError, match="target") as caught:
        linker.link(referring("target", NUMBERS[name]), externals=externals)
    assert caught.value.objects == ("<memory 0>",)


ORDINARY = [
    row.name
    for row in RELOCATIONS
    if row.kind is not None and row.name not in FORMULAS and "GOTPC" not in row.name
    if "SIZE" not in row.name
]


@pytest.mark.parametrize("name", [*ORDINARY, "R_X86_64_GOTPCREL"])
def test_ordinary_relocations_against_thread_local_variables(linker: Linker, name: str) -> None:
    with pytest.raises(FixupError, match="is not of a TLS kind"):
        linker.link(slot_object(NUMBERS[name]))


@pytest.mark.parametrize("name", ["R_X86_64_64", "R_X86_64_PC32", "R_X86_64_GOTPCREL"])
def test_ordinary_relocations_against_another_links_thread_local_variables(
    linker: Linker, name: str
) -> None:
    other = linker.link(compile_c(SOURCE, suffix=".s"))
    with pytest.raises(FixupError, match="is not of a TLS kind"):
        linker.link(
            referring("target", NUMBERS[name]), externals={"target": other.address("target")}
        )


def test_the_size_of_a_thread_local_variable_is_its_size(linker: Linker) -> None:
    linked = linker.link(slot_object(NUMBERS["R_X86_64_SIZE32"]))
    assert linked.integer("slot", 4) == 16 + ADDEND


def test_variables_that_are_no_longer_linked(linker: Linker) -> None:
    with Linker() as other:
        address = other.link(compile_c(SOURCE, suffix=".s")).address("target")
    with pytest.raises(TLSError, match="target does not exist"):
        linker.link(referring("target", NUMBERS["R_X86_64_TLSGD"]), externals={"target": address})


@pytest.mark.parametrize(
    ("name", "kinds"),
    [("R_X86_64_DTPOFF64", [K.DTPOFF64]), ("R_X86_64_TPOFF32", [K.TPOFF32])],
)
def test_debug_information_has_offsets_in_the_tls_block(
    linker: Linker, name: str, kinds: list[K]
) -> None:
    elf = ElfFile(slot_object(NUMBERS[name]))
    elf.set_section(elf.find(".data"), flags=0)
    graph = read_graph(bytes(elf))
    section = graph.find_section_by_name(".data")
    assert section is not None
    assert [edge.kind for block in section.blocks for edge in block.edges] == kinds
    linked = linker.link(bytes(elf))
    section = linked.graph.find_section_by_name(".data")
    assert section is not None
    (block,) = section.blocks
    content = bytes(block.content)[SLOT : SLOT + 8]
    offset = linked.address("target") % 32 + ADDEND
    assert int.from_bytes(content, "little") == (offset if "DTPOFF" in name else 0)
