"""The options -check and -check-name: lookups, reports, exit status."""

import subprocess
import sys
from pathlib import Path

import pytest

from jitlink import tool
from tests.tool.command import Command, archive, compile_to, error, spawn
from tests.toolchain import compile_c

MAIN = """
	.globl	main, data
main:
	movl	$7, %eax
	retq
	.size	main, .-main
	.data
data:
	.quad	main, 5
	.size	data, .-data
"""
SLAB = ("-slab-allocate", "64Kb", "-slab-address", "0x10000000")


def _assemble(name: str, source: str, target: str = "x86_64-linux-gnu") -> Path:
    place = Path(name)
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(compile_c(source, suffix=".s", target=target).read_bytes())
    return place


def _rules(*rules: str, file: str = "rules", name: str = "jitlink-check") -> str:
    Path(file).write_text("".join(f"# {name}: {rule}\n" for rule in rules))
    return file


@pytest.fixture(autouse=True)
def _main() -> None:
    _assemble("main.o", MAIN)


def test_rules_that_hold_let_the_program_run(command: Command) -> None:
    rules = _rules("*{8}data = main", "decode_operand(main, 1) = 7", "next_pc(main) = main+5")
    assert command("main.o", "-check", rules) == (7, "", "")
    assert command("main.o", "-check", rules, "-noexec") == (0, "", "")
    assert spawn("main.o", "-check", rules) == (7, "", "")


def test_a_false_rule_is_shown_with_its_values_and_place(command: Command) -> None:
    Path("rules").write_text("\n\n  # jitlink-check: main = \\\n\n# jitlink-check: main+1 \n")
    assert command("main.o", *SLAB, "-noexec", "-check", "rules") == (
        1,
        "",
        (
            "Expression 'main =  main+1' is false: 0x10001000 != 0x10001001\n"
            "  at rules:3\n"
            "jitlink: error: Some checks in rules failed\n"
        ),
    )


def test_an_error_points_into_its_line(command: Command) -> None:
    text = (
        "# jitlink-check: (main +\t1)\\\n\t  # jitlink-check: + absent - (1 = 2 # and more\\\n\n\n"
    )
    Path("rules").write_text(text + "# jitlink-check: = 2")
    assert command("main.o", "-check", "rules") == (
        1,
        "",
        (
            "Error evaluating expression '(main +\\x091) + absent - (1 = 2 # and more = 2': No "
            "known address for symbol 'absent'\n"
            "  at rules:2:23\n"
            "    # jitlink-check: + absent - (1 = 2 # and more\\\n"
            "                       ^\n"
            "jitlink: error: Some checks in rules failed\n"
        ),
    )


def test_an_error_at_the_end_of_a_line(command: Command) -> None:
    done = command("main.o", "-check", _rules("main + "))
    assert done.err.splitlines()[1:4] == [
        "  at rules:1:24",
        "    # jitlink-check: main +",
        "                           ^",
    ]


def test_an_invalid_operand_is_shown_with_its_instruction(command: Command) -> None:
    done = command("main.o", "-check", _rules("decode_operand(main, 0) = 1"))
    assert done.err.startswith(
        "Error evaluating expression 'decode_operand(main, 0) = 1': Operand '0' of instruction "
        "'main' is not an immediate.\nInstruction is:\n  mov eax, 7\n  at rules:1:39\n"
    )


def test_nothing_runs_after_a_failure(command: Command) -> None:
    compile_to(Path("hello.o"), 'int puts(const char *); int main(void) { return puts("ran"); }')
    done = command("hello.o", "-check", _rules("1 = 2"))
    assert (done.status, done.out) == (1, "")


def test_files_in_order_up_to_the_first_that_fails(command: Command) -> None:
    files = [_rules(rule, file=f"rules{n}") for n, rule in enumerate(("1 = 1", "1 = 2", "1 = 3"))]
    words = [word for file in files for word in ("-check", file)]
    done = command("main.o", *words)
    assert done.err == (
        "Expression '1 = 2' is false: 0x1 != 0x2\n  at rules1:1\n"
        "jitlink: error: Some checks in rules1 failed\n"
    )


def test_names_of_rules(command: Command) -> None:
    rules = _rules("1 = 2", name="my rules")
    assert command("main.o", "-check", rules, "-check-name", "other", "-check-name=my rules") == (
        1,
        "",
        (
            "Expression '1 = 2' is false: 0x1 != 0x2\n  at rules:1\n"
            "jitlink: error: Some checks in rules failed\n"
        ),
    )
    done = command("main.o", "-check", rules)
    assert done == (1, "", "jitlink: error: Some checks in rules failed\n")


def test_files_that_cannot_be_read(command: Command) -> None:
    done = command("main.o", "-check", "none")
    assert done == (1, "", "jitlink: error: none: No such file or directory\n")
    assert command("main.o", "-check", ".").err == "jitlink: error: .: Is a directory\n"


def test_odd_names_are_escaped(command: Command) -> None:
    Path("rules").write_bytes(b"# jitlink-check: \xff\x1b = 1\n")
    done = command("main.o", "-check", "rules")
    assert done.err.splitlines() == [
        (
            "Error evaluating expression '\\xff\\x1b = 1': Encountered unexpected token '\\xff' "
            "while parsing subexpression '\\xff\\x1b' expected '(', '*', identifier, or number"
        ),
        "  at rules:1:18",
        "    # jitlink-check: \\xff\\x1b = 1",
        "                     ^",
        "jitlink: error: Some checks in rules failed",
    ]


def test_files_must_have_distinct_names(command: Command) -> None:
    _assemble("main.o", MAIN + "\t.quad\tother\n")
    _assemble("folder/main.o", "\t.globl other\nother: ret\n")
    words = ("main.o", "folder/main.o", "-noexec")
    assert command(*words).status == 0
    assert command(*words, "-check", _rules("1 = 1")) == error(
        'when -check is passed, file names must be distinct (duplicate: "main.o")'
    )


def test_members_of_archives_with_and_without_number(command: Command) -> None:
    _assemble("main.o", MAIN + "\t.quad\tother\n")
    _assemble("other.o", "\t.globl other\nother: ret\n")
    _assemble("first.o", "\t.globl first\nfirst: ret\n")
    Path("lib").mkdir()
    archive(Path("lib/libx.a"), Path("first.o"), Path("other.o"))
    rules = _rules(
        "section_addr(libx.a[1](other.o), .text) = other",
        "section_addr(libx.a(other.o), .text) = other",
    )
    assert command("main.o", "-Llib", "-lx", "-noexec", "-check", rules) == (0, "", "")
    for name in ("libx.a[0](other.o)", "libx.a[1](first.o)", "libx.a", "other.o", "main.o[0]()"):
        done = command(
            "main.o", "-Llib", "-lx", "-check", _rules(f"section_addr({name}, .text) = 1")
        )
        assert f'RTDyldChecker: file "{name}" not recognized\n' in done.err


def test_loads_end_where_memory_does(command: Command) -> None:
    """Loads read only linked memory, never other memory of this process."""
    for rule, address in (
        ("*{8}(data + 16) = 0", 0x10000010),
        ("*{8}(data + 12) = 0", 0x10000010),
        ("*{1}(data - 1) = 0", 0xFFFFFFF),
        ("*{8}(0-8) = 0", (1 << 64) - 8),
        ("*{8}(1) = 0", 1),
        ("*{4}data & 0xff = 0", 0),
    ):
        done = command("main.o", *SLAB, "-noexec", "-check", _rules(rule))
        if address:
            assert f"': Nothing was linked at {address:#x}\n" in done.err
        else:
            # The address is 0, and a load from 0 gives 0.
            assert done == (0, "", "")


def test_loads_across_zero_fill(command: Command) -> None:
    source = MAIN + "\t.bss\n\t.globl zeros\nzeros: .zero 64\n"
    _assemble("main.o", source)
    rules = _rules(
        "*{8}(zeros + 56) = 0", "*{8}zeros = 0", "*{8}(data + 12) = 0", "zeros = data+16"
    )
    assert command("main.o", *SLAB, "-noexec", "-check", rules) == (0, "", "")


def test_debug_sections_are_not_known(command: Command) -> None:
    source = MAIN + '\t.section .debug_x,"",@progbits\n\t.globl info\ninfo: .quad main\n'
    _assemble("main.o", source)
    done = command("main.o", "-noexec", "-check", _rules("section_addr(main.o, .debug_x) = 1"))
    assert 'no section ".debug_x" registered for file "main.o"' in done.err


def test_byte_order_of_loads(command: Command) -> None:
    source = (
        "\t.globl main, data\nmain: ret\n\t.size main, 4\n\t.data\ndata: .quad 0x1122334455667788\n"
    )
    _assemble("big.o", source, "aarch64_be-linux-musl")
    rules = _rules("*{2}data = 0x1122", "*{8}data = 0x1122334455667788", "next_pc(main) = main+4")
    assert command("big.o", "-noexec", "-check", rules) == (0, "", "")


def test_addresses_without_content_hold_no_instruction(command: Command) -> None:
    rules = _rules("next_pc(absolute) = 1")
    done = command("main.o", "-noexec", "-abs", "absolute=5", "-check", rules)
    assert "Couldn't decode instruction at 'absolute'" in done.err


LOCALS = """
	.globl	main
main:
	movq	local@GOTPCREL(%rip), %rax
	retq
	.size	main, .-main
	.section	.rodata,"a"
local:
	.long	42
"""


@pytest.mark.parametrize("place", [(), ("-slab-allocate", "64Kb", "-slab-address", "0x0")])
def test_local_symbols_and_address_zero(command: Command, place: tuple[str, ...]) -> None:
    _assemble("locals.o", LOCALS)
    rules = _rules(
        "*{4}local = 42",
        "*{8}got_addr(locals.o, local) = local",
        "decode_operand(main, 4) = local - next_pc(main)",
        "*{4}absolute = 0",
    )
    options = ("-noexec", *place, "-abs", "absolute=5", "-check", rules)
    assert command("locals.o", *options) == (0, "", "")
    code = "\n.globl other\nother: nop\n.size other, .-other\n"
    _assemble("zero.o", MAIN.replace(".data", '.section .rodata,"a"') + code)
    rules = _rules("next_pc(main) = main+5")
    assert command("zero.o", *options[:-1], rules) == (0, "", "")


def test_loads_of_absolute_symbols_are_relaxed(command: Command) -> None:
    load = "\t.globl {0}\n{0}: adrp x0, :got:at_{0}\n ldr x0, [x0, :got_lo12:at_{0}]\n ret\n"
    source = "".join(load.format(name) + f"\t.size\t{name}, .-{name}\n" for name in ("near", "far"))
    _assemble("loads.o", source, "aarch64-linux-gnu")
    rules = _rules(
        "*{4}near = 0xd503201f",
        "decode_operand(near + 4, 1) = at_near - (near + 4)",
        "decode_operand(far + 4, 2) = got_addr(loads.o, at_far)[11:3]",
    )
    places = ("-abs", "at_near=0x10008010", "-abs", "at_far=0x7fff00000000")
    done = command("loads.o", *SLAB, *places, "-noexec", "-entry", "near", "-check", rules)
    assert done == (0, "", "")


def test_a_global_symbol_precedes_local_ones(command: Command) -> None:
    _assemble("a.o", LOCALS.replace("main", "other").replace("local", "data"))
    _assemble("b.o", "	.globl	use\nuse:\n	callq	other\n	callq	main\n")
    options = ("-noexec", "-entry", "use", "-check", _rules("*{8}data = main"))
    assert command("a.o", "main.o", "b.o", *options) == (0, "", "")


def test_checks_are_imported_only_with_the_option() -> None:
    code = (
        "import sys; from jitlink.tool.main import main; main(['main.o', '-noexec']); "
        "print([n for n in sys.modules if 'tool.check' in n or n == 'capstone'])"
    )
    Path("program.py").write_text(code)
    source = Path(tool.__path__[0]).parents[1]
    done = subprocess.run(
        [sys.executable, "program.py"],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(source)},
    )
    assert done.stdout == "[]\n"
