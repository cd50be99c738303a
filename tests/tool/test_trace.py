"""Traces of symbols, for each reason why a definition holds."""

import re
from pathlib import Path

import pytest

from tests.tool.command import Command, archive, compile_to

STRONG = "int f(void) { return 1; }"
WEAK = "__attribute__((weak)) int f(void) { return 2; }"
MAIN = "int f(void); int main(void) { return f(); }"


def _trace(command: Command, *words: str | Path, name: str = "f") -> tuple[list[str], str]:
    """The trace of a symbol, without addresses, and its last line: which definition holds."""
    lines = command(*words, "-noexec", "-trace-symbol", name).out.splitlines()
    assert lines[0].startswith(f"Symbol {name}")
    return [line[2:] for line in lines[1:-1]], lines[-1][2:]


@pytest.fixture(autouse=True)
def _objects() -> None:
    for name, text in {
        "main": MAIN, "strong": STRONG, "weak": WEAK, "weaker": WEAK,
        "optional": "int f(void) __attribute__((weak)); int main(void) { return f ? f() : 0; }",
    }.items():  # fmt: skip
        compile_to(Path(f"{name}.o"), text, "gcc", "-fcommon")


def test_a_strong_definition_overrides_a_weak_one(command: Command) -> None:
    lines, outcome = _trace(command, "main.o", "weak.o", "strong.o")
    assert lines[0].startswith("defined in weak.o: weak, ")
    assert lines[1].startswith("defined in strong.o: strong, ")
    assert lines[2:] == ["referred to by main.o"]
    assert outcome.startswith("holds: strong.o, at 0x")
    assert outcome.endswith(": strong, before 1 weak")


def test_first_of_weak_ones(command: Command) -> None:
    _, outcome = _trace(command, "main.o", "weaker.o", "weak.o")
    assert outcome.startswith("holds: weaker.o, at 0x")
    assert outcome.endswith(": the first of 2 weak definitions, in order of the command")


def test_common_definitions_share_the_largest_size(command: Command) -> None:
    for size in (4, 9):
        compile_to(Path(f"c{size}.o"), f"int f[{size}];", "gcc", "-fcommon")
    compile_to(Path("user.o"), "extern int f[]; int main(void) { return f[2]; }", "gcc")
    lines, outcome = _trace(command, "user.o", "c4.o", "c9.o")
    assert lines[0].startswith("defined in c4.o: common, 16 bytes")
    assert outcome.endswith(": common, before 1 common, with the size of the largest")


def test_archive_members_that_are_read_and_that_are_not(command: Command) -> None:
    first = archive(Path("libfirst.a"), Path("strong.o"))
    second = archive(Path("libsecond.a"), Path("weak.o"))
    lines, outcome = _trace(command, "main.o", first, second)
    assert [line.partition(";")[2] for line in lines[:2]] == [
        "",
        " not read: nothing that is missing needs it",
    ]
    assert lines[0].startswith("defined in libfirst.a(strong.o): strong, ")
    assert lines[0].endswith(": read for f, wanted by main.o")
    assert outcome.endswith(": the only one that was read")


def test_symbols_of_the_process_and_undefined_ones(command: Command) -> None:
    compile_to(Path("main.o"), 'int puts(const char *); int main(void) { return puts(""); }')
    lines, outcome = _trace(command, "main.o", name="puts")
    assert lines == ["referred to by main.o"]
    assert "/libc" in outcome
    assert outcome.endswith(": no input that is linked defines it")
    lines, outcome = _trace(command, "optional.o")
    assert lines == ["referred to weakly by optional.o"]
    assert outcome == "holds: null: it is undefined, and all references are weak"
    lines, outcome = _trace(command, "optional.o", name="_ZN3foo3barEv")
    assert lines == ["referred to by no other object"]
    assert outcome == "holds: none: undefined symbol: _ZN3foo3barEv (foo::bar())"


def test_definitions_of_the_command(command: Command) -> None:
    lines, outcome = _trace(command, "main.o", "-abs", "f=0x123")
    assert lines == ["defined by -abs as 0x123", "referred to by main.o"]
    assert outcome == "holds: -abs, at 0x123: the command comes before the process"
    lines, outcome = _trace(command, "main.o", "-alias", "f=abs")
    assert lines[0] == "defined by -alias as abs"
    assert outcome.startswith("holds: -alias, at 0x")
    _, outcome = _trace(command, "main.o", "-phony-externals")
    assert outcome.startswith("holds: an unused address, 0x")


def test_an_object_to_which_nothing_leads(command: Command) -> None:
    compile_to(Path("main.o"), "int main(void) { return 0; }")
    lines, outcome = _trace(command, "main.o", "strong.o")
    assert lines[0].endswith("; not linked")
    assert outcome == "holds: none: nothing that was linked needs it"


def test_failed_links_are_traced_too(command: Command) -> None:
    done = command("main.o", "-trace-symbol", "f")
    assert done.status == 1
    assert done.err == "jitlink: error: undefined symbol: f (referenced by main.o)\n"
    assert "referred to by main.o; not linked\n" in done.out
    compile_to(Path("again.o"), STRONG)
    done = command("main.o", "strong.o", "again.o", "-trace-symbol", "f")
    assert (
        done.err == "jitlink: error: duplicate definition of symbol f: in strong.o and in again.o\n"
    )
    assert "defined in strong.o: strong" in done.out
    assert "defined in again.o: strong" in done.out


def test_repeated_symbols_are_traced_once(command: Command) -> None:
    words = ("-noexec", "-trace-symbol", "f", "-trace-symbol=main", "-trace-symbol", "f")
    out = command("main.o", "strong.o", *words).out
    assert [line for line in out.splitlines() if line.startswith("Symbol")] == [
        "Symbol f",
        "Symbol main",
    ]


def test_inputs_that_cannot_be_read_do_not_hide_the_error(command: Command) -> None:
    Path("bad.o").write_bytes(Path("strong.o").read_bytes()[:-20])
    words = ("-trace-symbol", "f", "-noexec")
    plain = command("main.o", "bad.o", "-noexec")
    assert plain.status == 1
    done = command("main.o", "bad.o", *words)
    assert done.err == plain.err
    assert done.out.startswith("Symbol f\n  referred to by main.o")
    library = archive(Path("libf.a"), Path("strong.o"))
    library.write_bytes(library.read_bytes()[:-30])
    done = command("main.o", library, *words)
    assert done.err == command("main.o", library, "-noexec").err


def test_each_dylib_has_its_trace(command: Command) -> None:
    Path("other.o").write_bytes(Path("strong.o").read_bytes())
    words = "main.o -lone -ltwo -jd one strong.o -jd two other.o -abs g=1 -noexec"
    traces = [word for name in ("f", "g", "h") for word in ("-trace-symbol", name)]
    done = command(*words.split(), *traces)
    assert (done.status, done.err) == (0, "")
    found = dict(re.findall(r"^Symbol (.*)\n((?:  .*\n)+)", done.out, re.MULTILINE))
    places = ["f in JITDylib main", "f in JITDylib one", "f in JITDylib two"]
    assert list(found) == [*places, "g in JITDylib two", "h in JITDylib main"]
    main, one, two, absolute, undefined = ([*each.splitlines()] for each in found.values())
    assert main[0] == "  referred to by main.o"
    assert re.fullmatch(
        r"  holds: JITDylib one, at 0x.*: no input that is linked in JITDylib main defines it",
        main[1],
    )
    assert one[-1].startswith("  holds: strong.o, at 0x")
    assert two[0].endswith("; not linked")
    assert two[-1] == "  holds: none: nothing that was linked needs it"
    assert absolute[0] == "  defined by -abs as 0x1"
    assert undefined[-1] == "  holds: none: undefined symbol: h"


def test_a_lazy_function_is_a_stub_until_it_is_called(command: Command) -> None:
    lines, outcome = _trace(command, "main.o", "-lazy", "strong.o")
    assert lines[0].endswith("; not linked")
    assert re.fullmatch(
        r"holds: a stub, at 0x[0-9a-f]+: a call of it links the definition", outcome
    )


def test_a_map_that_fails_does_not_repeat_the_trace(command: Command) -> None:
    done = command("main.o", "strong.o", "-noexec", "-trace-symbol", "f", "-map", "no/place")
    assert done.out.count("Symbol f\n") == 1
    assert done.err == "jitlink: error: cannot write no/place: No such file or directory\n"
