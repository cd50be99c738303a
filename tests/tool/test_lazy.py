"""Lazy inputs of the command: the time of their links, the record of calls, and failures."""

from pathlib import Path

import pytest

from tests.tool.command import Command, Done, compile_to, error, spawn

MAIN = """
#include <stdio.h>
int first(void), second(void);
int main(int count, char **words) {
    puts("begin");
    fflush(stdout);
    int status = count > 1 ? second() : first();
    // Not a tail call, whose return address would be Python's.
    puts("end");
    return status;
}
"""


@pytest.fixture(autouse=True)
def _files(_here: None) -> None:
    compile_to(Path("main.o"), MAIN, "zig", "-fPIC")
    compile_to(Path("first.o"), "int first(void) { return 11; }")
    compile_to(Path("second.o"), "int second(void) { return 12; }")
    compile_to(Path("lacking.o"), "int lacking(void); int second(void) { return lacking(); }")


def test_lazy_objects_are_linked_while_the_program_runs() -> None:
    done = spawn("main.o", "-lazy", "first.o", "-lazy", "second.o", "-show-linked-files")
    assert done.status == 11
    # Python flushes its buffer at exit.
    assert sorted(done.out.splitlines()) == ["Linking first.o", "Linking main.o", "begin", "end"]


@pytest.mark.parametrize("graph_format", ["text", "json", "dot"])
def test_graphs_of_stubs(command: Command, graph_format: str) -> None:
    options = ("-show-graphs=stubs", f"-show-graphs-format={graph_format}")
    words = ("main.o", "-lazy", "first.o", "-lazy", "second.o")
    shown = command(*words, *options, "-noexec").out
    assert all(name in shown for name in ("<stubs>", "first", "second", "$__INDIRECT_STUBS"))
    assert "main.o" not in shown
    assert "<stubs>" not in command(*words[:1], "first.o", "second.o", *options, "-noexec").out


def test_functions_that_are_not_called_may_have_undefined_symbols(command: Command) -> None:
    words = ("main.o", "-lazy", "first.o", "-lazy", "lacking.o")
    assert command(*words).status == 11
    assert command(*words, "-speculate=simple").status == 11
    assert command(*words[:-2], "lacking.o").status == 1


def test_failed_call_of_a_program_is_reported_and_aborts() -> None:
    done = spawn("main.o", "-lazy", "first.o", "-lazy", "lacking.o", "-args", "x", "y")
    assert done.status == -6
    assert done.err == (
        "jitlink: error: second in main was called and could not be linked: "
        "undefined symbol: lacking (referenced by lacking.o)\n"
    )


def test_failed_entry_point_is_reported_once(command: Command) -> None:
    words = ("-lazy", "lacking.o", "-entry", "second")
    message = (
        "second in main was called and could not be linked: "
        "undefined symbol: lacking (referenced by lacking.o)"
    )
    assert command(*words) == error(message)
    assert spawn(*words) == error(message)


@pytest.mark.parametrize("threads", ["0", "1"])
def test_no_thread_speculates_if_there_is_none(command: Command, threads: str) -> None:
    text = """
    int usleep(unsigned), first(void), second(void);
    int (*functions[])(void) = {first, second};
    int main(void) { usleep(500000); return 0; }
    """
    compile_to(Path("wait.o"), text, "zig", "-fPIC")
    done = command(
        *("wait.o", "-lazy", "first.o", "-lazy", "second.o", "-speculate=simple"),
        *("-num-threads", threads, "-show-linked-files"),
    )
    lazy = [] if threads == "0" else ["Linking first.o", "Linking second.o"]
    assert (done.status, sorted(done.out.splitlines())) == (0, [*lazy, "Linking wait.o"])


@pytest.mark.parametrize("end", ["exit(3);", "_exit(3);", "abort();"])
def test_record_is_complete_however_the_program_ends(end: str) -> None:
    text = "#include <stdlib.h>\n#include <unistd.h>\nint first(void);"
    compile_to(Path("a.o"), f"{text} int main(void) {{ first(); first(); {end} }}", "zig", "-fPIC")
    words = ("-lazy", "a.o", "-lazy", "first.o", "-speculate=simple", "-record-lazy-execs")
    done = spawn(*words, "record")
    assert done.status == (-6 if "abort" in end else 3)
    assert Path("record").read_text() == "main, main$orc_fnbody\nmain, first$orc_fnbody\n"


def test_record_that_cannot_be_written_is_an_error_at_the_end(command: Command) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    words = ("main.o", "-lazy", "first.o", "second.o", "-speculate=simple")
    done = command(*words, "-record-lazy-execs=/dev/full")
    assert done == Done(
        1, "begin\nend\n", "jitlink: error: cannot write /dev/full: No space left on device\n"
    )


def test_symbol_table_that_cannot_be_written_fails_the_link(command: Command) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    assert command("main.o", "first.o", "second.o", "-write-symtab", "/dev/full") == error(
        "cannot write /dev/full: No space left on device"
    )
