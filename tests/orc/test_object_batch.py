"""What is known of an object that was read as records is what is known of its graph."""

from collections.abc import Sequence

import pytest

from jitlink.formats.archive import Archive
from jitlink.graph import LinkGraph
from jitlink.graph.columns import Int64Array
from jitlink.inputs import InputFile, open_input
from jitlink.orc.interface import JITSymbolFlags
from jitlink.orc.object_batch import ObjectBatch, SmallObjectBatch, read_batch
from tests.formats.test_elf_small import compiled
from tests.toolchain import compile_c, require


def knowledge(batch: ObjectBatch) -> dict[str, object]:
    """All that sessions ask of one object, without serial numbers."""
    return {
        "definitions": batch.definitions,
        "comdats": batch.comdats,
        "hidden": batch.hidden_references,
        "references": batch.references,
        "strong": batch.strong_references,
        "undefined": batch.undefined(),
        "commons": batch.commons,
        "initializers": list(batch.initializers),
        "elements": batch.elements,
        "use": batch.set_use(0),
        "limit": batch._address_limit,
    }


def is_small(file: InputFile) -> bool:
    """Whether an object is read as records; checks what is known of it."""
    batch = read_batch([file], None)
    if isinstance(batch, SmallObjectBatch):
        assert knowledge(batch) == knowledge(ObjectBatch([file]))
    return isinstance(batch, SmallObjectBatch)


def test_what_compilers_write() -> None:
    small = {name: is_small(open_input(data)) for name, data in compiled().items()}
    # Initialisers and linker sets concern other objects.
    assert not any(is_one for name, is_one in small.items() if "arrays" in name)
    assert all(small[f"gcc {name}"] for name in ("function", "data", "template"))


@pytest.mark.parametrize("name", ["libc.a", "libLLVMOrcJIT.a"])
def test_members_of_archives(name: str) -> None:
    members = Archive(memoryview(require(name).read_bytes()), name).members()
    files = [InputFile(each.name, each.data) for each in members if each.data is not None]
    assert sum(map(is_small, files[::3])) > len(files) // 100


def test_an_object_with_absolute_addresses_limits_those_of_its_dylib() -> None:
    path = compile_c("int x; int *f(void) { return &x; }", "gcc", ["-O1", "-fno-pie"])
    assert not is_small(open_input(path))


def test_definitions_that_have_flags() -> None:
    text = """
    .globl strong; .weak weak; .hidden hidden; .globl hidden, number
    strong: weak: hidden: nop
    .type callable, @function; .globl callable; callable: ret
    number = 5
    .section .text.group, "axG", @progbits, group, comdat
    .globl grouped; grouped: nop
    """
    batch = read_batch([open_input(compile_c(text, "gcc", suffix=".s"))], None)
    assert isinstance(batch, SmallObjectBatch)
    assert batch.definitions == [
        {
            "strong": JITSymbolFlags.EXPORTED,
            "weak": JITSymbolFlags.EXPORTED | JITSymbolFlags.WEAK,
            "hidden": JITSymbolFlags.NONE,
            "callable": JITSymbolFlags.EXPORTED | JITSymbolFlags.CALLABLE,
            "number": JITSymbolFlags.EXPORTED | JITSymbolFlags.ABSOLUTE,
            "grouped": JITSymbolFlags.EXPORTED | JITSymbolFlags.COMDAT,
        }
    ]


class NoRules:
    """Change nothing."""

    def apply(self, graph: LinkGraph, files: Sequence[InputFile], bounds: Int64Array) -> None:
        """See SymbolRules."""


def test_rules_are_applied_to_the_graph_of_an_object() -> None:
    file = open_input(compiled()["gcc function"])
    assert is_small(file)
    assert not isinstance(read_batch([file], NoRules()), SmallObjectBatch)
