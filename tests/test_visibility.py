"""The visibility of references: a hidden one hides the definition, as in GNU ld and ld.lld.

Objects define a function and refer to it with all visibilities. They are linked to a shared library
by other linkers, whose dynamic symbols are compared with what another JITDylib can see.
"""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import pytest

import jitlink
from jitlink.errors import DuplicateDefinitionError, UndefinedSymbolError
from jitlink.graph import Scope
from jitlink.input_reader import InputReader
from jitlink.inputs import open_input
from jitlink.orc import FailedToMaterializeError, JITDylibLookupFlags, JITSymbolFlags
from tests.toolchain import compile_c, require

VISIBILITIES = ("default", "protected", "hidden", "internal")
DEFINITION = """
    .text
    .globl shared
    .type shared, @function
    .{visibility} shared
    shared: movl $7, %eax
    ret
    .size shared, . - shared
"""
REFERENCE = """
    .text
    .globl user
    .type user, @function
    .{visibility} shared
    user: jmp shared@PLT
    .size user, . - user
"""
PAIRS = list(itertools.product(VISIBILITIES, repeat=2))
_EXPORTED = JITDylibLookupFlags.MATCH_EXPORTED_ONLY


def assembled(text: str, visibility: str) -> Path:
    chosen = "" if visibility == "default" else f".{visibility} shared"
    return compile_c(text.replace(".{visibility} shared", chosen), flags=[], suffix=".s")


def is_dynamic(linker: str, objects: list[Path], place: Path) -> bool:
    """Whether a shared library of objects exports the function."""
    library = place / "shared.so"
    subprocess.run([require(linker), "-shared", "-o", library, *objects], check=True)
    done = subprocess.run(
        [require("nm"), "-D", "--defined-only", library], capture_output=True, text=True, check=True
    )
    return "shared" in {line.split()[-1] for line in done.stdout.splitlines()}


def is_exported(jit: jitlink.LLJIT) -> bool:
    """Whether other JITDylibs see the function."""
    order = [(jit.main, _EXPORTED)]
    return "shared" in jit.session.lookup(order, {"shared": False})


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["definition first", "reference first"])
@pytest.mark.parametrize(("defined", "referred"), PAIRS, ids=[" ".join(pair) for pair in PAIRS])
def test_references_constrain_the_definition(
    defined: str, referred: str, order: tuple[int, int], tmp_path: Path
) -> None:
    both = [assembled(DEFINITION, defined), assembled(REFERENCE, referred)]
    objects = [both[number] for number in order]
    expected = is_dynamic("ld", objects, tmp_path)
    assert is_dynamic("ld.lld-22", objects, tmp_path) == expected
    for batched in (True, False):
        with jitlink.LLJIT() as jit:
            jit.layer.batch_objects = batched
            for path in objects:
                jit.add_object(path)
            assert jit.lookup("user")() == 7
            assert is_exported(jit) == expected
    with jitlink.LLJIT() as jit:
        jit.layer.add_objects(jit.main, [open_input(path) for path in objects])
        assert is_exported(jit) == expected
    reader = InputReader()
    reader.add([open_input(path) for path in objects])
    reader.resolver.finish()
    symbol = reader.target_graph.find_defined_symbol_by_name("shared")
    assert symbol is not None
    assert (symbol.scope == Scope.DEFAULT) == expected


WEAK = DEFINITION.replace(".globl", ".weak").replace("$7", "$8")
COMDAT = DEFINITION.replace(".text", '.section .text.shared,"axG",@progbits,shared,comdat')


@pytest.mark.parametrize("other", [WEAK, COMDAT], ids=["weak", "comdat"])
@pytest.mark.parametrize("hidden", [0, 1])
@pytest.mark.parametrize("apart", [False, True])
def test_other_definitions_constrain_the_one_that_prevails(
    other: str, hidden: int, apart: bool, tmp_path: Path
) -> None:
    first = COMDAT if other is COMDAT else DEFINITION
    visibilities = ["hidden" if number == hidden else "default" for number in range(2)]
    objects = [assembled(t, v) for t, v in zip((first, other), visibilities, strict=True)]
    objects.append(assembled(REFERENCE, "default"))
    assert not is_dynamic("ld", objects, tmp_path)
    with jitlink.LLJIT() as jit:
        if apart:
            for path in objects:
                jit.add_object(path)
        else:
            jit.layer.add_objects(jit.main, [open_input(path) for path in objects])
        assert jit.lookup("user")() == 7
        assert not is_exported(jit)


def test_objects_that_are_linked_apart() -> None:
    """What was linked stays linked; a hidden reference that comes later hides from then on."""
    caller = "int shared(void); int caller(void) { return shared() + 1; }"
    with jitlink.LLJIT(process_symbols=False) as jit:
        other = jit.create_jitdylib("other")
        other.add_to_link_order(jit.main)
        jit.add_object(assembled(DEFINITION, "default"))
        jit.add_object(compile_c(caller, flags=["-O1", "-fPIC"]), dylib=other)
        assert jit.lookup("caller", dylib=other)() == 8
        jit.add_object(assembled(REFERENCE, "hidden"))
        assert not is_exported(jit)
        assert jit.lookup("user")() == 7
        assert jit.lookup("caller", dylib=other)() == 8
        later = caller.replace("caller", "later")
        jit.add_object(compile_c(later, flags=["-O1", "-fPIC"]), dylib=other)
        with pytest.raises(FailedToMaterializeError) as caught:
            jit.lookup("later", dylib=other)
        assert isinstance(caught.value.reason, UndefinedSymbolError)


@pytest.mark.parametrize("transferred", [False, True])
def test_a_removed_reference_constrains_nothing(*, transferred: bool) -> None:
    definition, reference = assembled(DEFINITION, "default"), assembled(REFERENCE, "hidden")
    with jitlink.LLJIT() as jit:
        first, second = (jit.create_resource_tracker() for _ in range(2))
        jit.add_object(reference, tracker=first)
        jit.add_object(definition, tracker=second)
        assert not is_exported(jit)
        if transferred:
            first.transfer_to(second)
        else:
            first.remove()
            # What was hidden stays so.
            assert not is_exported(jit)
        second.remove()
        jit.add_object(definition)
        assert is_exported(jit)


def test_references_of_two_trackers_constrain_together() -> None:
    with jitlink.LLJIT() as jit:
        trackers = [jit.create_resource_tracker() for _ in range(2)]
        for number, tracker in enumerate(trackers):
            text = REFERENCE.replace("user", f"user{number}")
            jit.add_object(assembled(text, "hidden"), tracker=tracker)
        trackers[0].remove()
        jit.add_object(assembled(DEFINITION, "default"))
        assert not is_exported(jit)


def test_an_object_that_is_refused_constrains_nothing() -> None:
    other = "    .text\n    .globl other\nother: ret\n"
    with jitlink.LLJIT() as jit:
        jit.add_object(assembled(COMDAT + other, "default"))
        with pytest.raises(DuplicateDefinitionError):
            jit.add_object(assembled(COMDAT + other, "hidden"))
        assert is_exported(jit)


def test_archive_members_and_given_definitions(tmp_path: Path) -> None:
    """References of members count, too; addresses that are defined are constrained as well."""
    archive = tmp_path / "lib.a"
    subprocess.run([require("ar"), "rcs", archive, assembled(REFERENCE, "hidden")], check=True)
    main = compile_c("int user(void); int run(void) { return user(); }", flags=["-fPIC"])
    with jitlink.LLJIT() as jit:
        jit.add_archive(archive)
        jit.add_object(main)
        jit.define({"shared": 0})
        assert is_exported(jit)
        jit.lookup("run")
        assert not is_exported(jit)
        flags = jit.session.lookup_flags(jit.main, "shared")["shared"]
        assert not flags & JITSymbolFlags.EXPORTED
        assert flags & JITSymbolFlags.ABSOLUTE
