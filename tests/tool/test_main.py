"""The command from a user's view: the program, the output, the exit status."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jitlink import __version__
from jitlink.executor import SelfExecutorProcessControl
from jitlink.memory import InProcessMemoryManager
from jitlink.tool.main import main
from jitlink.tool.session import CommandSession
from tests.tool.command import (
    Command,
    Done,
    archive,
    compile_to,
    error,
    shared_library,
    spawn,
)
from tests.toolchain import CompilerName

HELLO = """
#include <stdio.h>
int main(void) { puts("hello"); return 0; }
"""
ARGUMENTS = """
#include <stdio.h>
int main(int argc, char **argv) {
    for (int i = 0; i < argc; i++)
        printf("%d: %s\\n", i, argv[i]);
    return argv[argc] == NULL ? 40 + argc : 1;
}
"""
CALLER = """
int helper(int);
int main(void) { return helper(4); }
"""
HELPER = """
int helper(int x) { return x * 2; }
int other(void) { return 1; }
"""
NEEDY = "int undefined(void); int needy(void) { return undefined(); }"


@pytest.fixture
def caller() -> Path:
    return compile_to(Path("caller.o"), CALLER)


@pytest.fixture
def helper() -> Path:
    return compile_to(Path("helper.o"), HELPER)


# Running


def test_hello(command: Command, compiler: CompilerName) -> None:
    compile_to(Path("hello.o"), HELLO, compiler)
    assert command("hello.o") == Done(0, "hello\n", "")
    assert spawn("hello.o") == Done(0, "hello\n", "")


def test_module_and_script_are_the_same_command() -> None:
    script = Path(sys.executable).parent / "jitlink"
    if not script.exists():
        pytest.skip("jitlink is not installed")
    done = subprocess.run([script, "-version"], capture_output=True, text=True, check=True)
    assert done.stdout == spawn("-version").out == f"jitlink {__version__}\n"


def test_arguments_are_all_that_main_gets(command: Command) -> None:
    # As with llvm-jitlink, argv[0] is the first argument, not the program's name.
    compile_to(Path("a.o"), ARGUMENTS)
    assert command("a.o") == Done(40, "", "")
    assert command("a.o", "-args") == Done(40, "", "")
    assert command("a.o", "-args", "x", "y z", "-noexec") == Done(
        43, "0: x\n1: y z\n2: -noexec\n", ""
    )
    assert command("a.o", "--args", "ä\t") == Done(41, "0: ä\t\n", "")


@pytest.mark.parametrize(("value", "status"), [(0, 0), (7, 7), (300, 44), (-1, 255)])
def test_exit_status_is_that_of_main(command: Command, value: int, status: int) -> None:
    compile_to(Path("a.o"), f"int main(void) {{ return {value}; }}")
    assert command("a.o").status == status
    assert spawn("a.o").status == status


def test_entry_point_may_be_named(command: Command, caller: Path, helper: Path) -> None:
    assert command(caller, helper).status == 8
    assert command(caller, helper, "-entry", "other").status == 1
    assert command(helper, "-entry=other").status == 1


def test_noexec_links_and_does_not_run(command: Command, caller: Path, helper: Path) -> None:
    assert command("-noexec", caller, helper) == Done(0, "", "")
    assert command("-noexec=false", caller, helper).status == 8
    assert command("-noexec", caller).status == 1


@pytest.mark.parametrize("words", [("-entry", "nothing"), ("-entry", "nothing", "-noexec")])
def test_entry_point_must_be_defined(
    command: Command, caller: Path, helper: Path, words: tuple[str, ...]
) -> None:
    assert command(caller, helper, *words) == error(
        "no input defines nothing, the function to call; -entry names another one"
    )


def test_program_that_calls_exit_loses_no_output() -> None:
    text = """
    #include <stdio.h>
    #include <stdlib.h>
    int main(void) { printf("no line feed"); exit(5); }
    """
    compile_to(Path("a.o"), text)
    assert spawn("a.o") == Done(5, "no line feed", "")


def test_exit_handlers_run_after_main() -> None:
    text = """
    #include <stdio.h>
    int on_exit(void (*handler)(int, void *), void *);
    static void say(int status, void *text) { printf("%d %s\\n", status, (char *)text); }
    int main(void) { on_exit(say, "bye"); return 3; }
    """
    compile_to(Path("a.o"), text)
    assert spawn("a.o") == Done(3, "3 bye\n", "")


def test_program_may_start_threads_and_read_its_input() -> None:
    text = """
    #include <pthread.h>
    #include <stdio.h>
    static void *run(void *unused) { char line[9]; puts(fgets(line, 9, stdin)); return unused; }
    int main(void) {
        pthread_t thread;
        pthread_create(&thread, NULL, run, NULL);
        return pthread_join(thread, NULL);
    }
    """
    compile_to(Path("a.o"), text, "zig", "-fPIC")
    words = [sys.executable, "-m", "jitlink", "a.o"]
    done = subprocess.run(words, input="line\n", capture_output=True, text=True, check=False)
    assert Done(done.returncode, done.stdout, done.stderr) == Done(0, "line\n\n", "")


def test_output_of_command_and_program_keep_their_order() -> None:
    compile_to(Path("hello.o"), HELLO)
    done = spawn("hello.o", "-show-linked-files", "-show-addrs")
    assert done.out.startswith("Linking hello.o\nRegistered addresses:\n")
    assert done.out.endswith("\nhello\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_program(number: signal.Signals) -> None:
    text = """
    #include <unistd.h>
    int main(void) { write(1, "up", 2); for (;;) pause(); }
    """
    compile_to(Path("a.o"), text)
    words = [sys.executable, "-m", "jitlink", "a.o"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(2) == b"up"
        process.send_signal(number)
        assert process.communicate(timeout=60) == (b"", b"")
        assert process.returncode == -number


def test_program_dies_of_a_closed_pipe_like_any_other() -> None:
    compile_to(Path("a.o"), '#include <stdio.h>\nint main(void) { for (;;) puts("y"); }')
    words = [sys.executable, "-m", "jitlink", "a.o"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"y\n"
        process.stdout.close()
        assert process.wait(timeout=60) == -signal.SIGPIPE


# Inputs


def test_unneeded_objects_are_not_linked(command: Command, caller: Path, helper: Path) -> None:
    compile_to(Path("needy.o"), NEEDY)
    done = command(caller, "needy.o", helper, "-show-linked-files")
    assert done == Done(8, "Linking caller.o\nLinking helper.o\n", "")


def test_archive_members_are_linked_when_needed(
    command: Command, caller: Path, helper: Path
) -> None:
    library = archive(Path("lib.a"), compile_to(Path("needy.o"), NEEDY), helper)
    done = command(caller, library, "-show-linked-files")
    assert done == Done(8, "Linking caller.o\nLinking lib.a(helper.o)\n", "")


def test_members_that_members_need_are_linked(command: Command, caller: Path) -> None:
    lower = compile_to(Path("lower.o"), "int lower(int x) { return x + 1; }")
    upper = compile_to(Path("upper.o"), "int lower(int); int helper(int x) { return lower(x); }")
    # Order does not matter, neither of archives nor within one.
    first, second = archive(Path("first.a"), lower), archive(Path("second.a"), upper)
    assert command(first, second, caller).status == 5
    assert command(archive(Path("both.a"), lower, upper), caller).status == 5


def test_first_archive_that_defines_a_name_holds(
    command: Command, caller: Path, helper: Path
) -> None:
    other = archive(Path("other.a"), compile_to(Path("o.o"), "int helper(int x) { return x; }"))
    library = archive(Path("lib.a"), helper)
    assert command(caller, other, library).status == 4
    assert command(caller, library, other, library).status == 8


def test_all_load_extracts_unneeded_members(command: Command, caller: Path, helper: Path) -> None:
    library = archive(Path("lib.a"), compile_to(Path("again.o"), "int helper(int x) { return x; }"))
    assert command(caller, helper, library).status == 8
    assert command(caller, helper, library, "-all_load") == error(
        "duplicate definition of symbol helper: in helper.o and in lib.a(again.o)"
    )


def test_main_may_be_in_an_archive(command: Command, caller: Path, helper: Path) -> None:
    library = archive(Path("lib.a"), caller, helper)
    assert command(library).status == 8
    assert command(library, "-entry", "other").status == 1


def test_static_libraries(command: Command, caller: Path, helper: Path) -> None:
    archive(Path("libstatic.a"), helper)
    for words in (("-L.", "-lstatic"), ("-lstatic", "-L", "."), ("-l", "static", "-L=.")):
        assert command(caller, *words).status == 8


# Shared libraries stay loaded, so these commands have a process of their own.


def test_shared_libraries(caller: Path, helper: Path) -> None:
    shared_library(Path("libshared.so"), "int helper(int x) { return x + 100; }")
    assert spawn(caller, "-L.", "-lshared").status == 104
    assert spawn(caller, "libshared.so").status == 104
    # Objects precede shared libraries, whatever their order in the command.
    archive(Path("libstatic.a"), helper)
    assert spawn(caller, "-L.", "-lshared", "-lstatic").status == 8


def test_shared_library_comes_before_the_process() -> None:
    compile_to(Path("a.o"), "int toupper(int); int main(void) { return toupper('a'); }")
    assert spawn("a.o").status == ord("A")
    shared_library(Path("libupper.so"), "int toupper(int x) { return x + 5; }")
    assert spawn("a.o", "-L.", "-lupper").status == ord("f")


def test_libraries_of_the_c_library_may_be_named() -> None:
    compile_to(
        Path("a.o"), "double cbrt(double); int main(int c, char **v) { return cbrt(c * 27); }"
    )
    assert spawn("a.o", "-lc", "-lm", "-lpthread", "-args", "x").status == 3


def test_response_file(command: Command, caller: Path, helper: Path) -> None:
    Path("words").write_text(f"{caller} '{helper}' -show-linked-files")
    assert command("@words") == Done(8, "Linking caller.o\nLinking helper.o\n", "")
    assert command("@missing") == error("@missing: No such file or directory")


# Symbols


def test_abs_defines_an_address(command: Command, caller: Path, helper: Path) -> None:
    text = "extern char place[]; int main(void) { return (int)((unsigned long)place >> 40); }"
    compile_to(Path("a.o"), text, "zig", "-fPIC")
    assert command("a.o", "-abs", "place=0x120000000000").status == 0x12
    assert command(caller, helper, "-abs", "helper=1") == error(
        "duplicate definition of symbol helper: in helper.o and in an -abs option"
    )
    # An archive is not searched for absolute symbols, nor for symbols that are defined earlier.
    library = archive(Path("lib.a"), helper)
    assert command(caller, library, "-abs=helper=1", "-noexec", "-show-linked-files") == Done(
        0, "Linking caller.o\n", ""
    )
    main_library = archive(Path("main.a"), caller)
    assert command(main_library, "-abs=helper=1", "-noexec").status == 0


def test_aliases_of_one_missing_name_are_counted_as_referrers(command: Command) -> None:
    for name in ("p", "q"):
        compile_to(
            Path(f"{name}.o"), f"int {name}(void); int use_{name}(void) {{ return {name}(); }}"
        )
    compile_to(
        Path("m.o"), "int use_p(void), use_q(void); int main(void) { return use_p() + use_q(); }"
    )
    assert command("m.o", "p.o", "q.o", "-alias", "p=missing", "-alias", "q=missing") == error(
        "undefined symbol: missing (referenced by alias p and 1 more)"
    )


def test_archives_without_the_entry_point(command: Command, helper: Path) -> None:
    assert command(archive(Path("l.a"), helper)) == error(
        "no input defines main, the function to call; -entry names another one"
    )


def test_alias_is_another_name(command: Command, caller: Path, helper: Path) -> None:
    assert command(helper, "-alias", "main=other").status == 1
    assert command(caller, "-alias", "helper=abs").status == 4
    assert command(caller, archive(Path("l.a"), helper), "-alias", "helper=other").status == 1
    assert command(caller, helper, "-alias", "unused=missing").status == 8
    assert command(caller, "-alias", "helper=missing") == error(
        "undefined symbol: missing (referenced by alias helper)"
    )
    assert command(caller, helper, "-alias", "main=other") == error(
        "duplicate definition of symbol main: in caller.o and in an -alias option"
    )


def test_phony_externals_let_anything_link(command: Command, caller: Path) -> None:
    assert command(caller, "-noexec").status == 1
    assert command(caller, "-noexec", "-phony-externals") == Done(0, "", "")


def test_without_entry_point_everything_is_linked(command: Command, helper: Path) -> None:
    compile_to(Path("needy.o"), NEEDY)
    words = ("-noexec", "-phony-externals", "-show-linked-files", helper, "needy.o")
    assert command(*words) == Done(0, "Linking helper.o\nLinking needy.o\n", "")


def test_undefined_symbols_are_reported_with_their_referrers(
    command: Command, caller: Path
) -> None:
    assert command(caller) == error("undefined symbol: helper (referenced by caller.o)")
    text = """
    extern int far_data; int far(void); int needy(void);
    int main(void) { return far() + needy(); }
    int *get(void) { return &far_data; }
    """
    compile_to(Path("many.o"), text, "zig", "-fPIC")
    library = archive(Path("lib.a"), compile_to(Path("needy.o"), NEEDY + " int far(void);"))
    done = command("many.o", library)
    assert done.status == 1
    assert done.err.startswith("jitlink: error: undefined symbols: ")
    for part in ("far (referenced by many.o)", "far_data (referenced by many.o)"):
        assert part in done.err
    assert command("many.o", library, "-abs", "far=1", "-abs", "far_data=1") == error(
        "undefined symbol: undefined (referenced by lib.a(needy.o))"
    )


def test_duplicate_definitions_name_both(command: Command, caller: Path, helper: Path) -> None:
    compile_to(Path("again.o"), "int helper(int x) { return x; }")
    assert command(caller, helper, "again.o") == error(
        "duplicate definition of symbol helper: in helper.o and in again.o"
    )


# Slabs


def test_slab_runs_where_it_is(command: Command, caller: Path, helper: Path) -> None:
    assert command(caller, helper, "-slab-allocate", "100Kb").status == 8
    address = _free_address()
    words = ("-slab-allocate", "1Mb", "-slab-address", hex(address))
    done = command(caller, helper, *words, "-show-addrs")
    assert done.status == 8
    assert f"{address:#018x}" in done.out


def _free_address() -> int:
    # Far from where the system maps programs and libraries, and below the stack.
    return 0x1234_0000_0000


def test_slab_elsewhere_is_linked_but_not_run(command: Command, caller: Path, helper: Path) -> None:
    words = (caller, helper, "-slab-allocate=1Mb", "-slab-address=0xffff800000000000")
    done = command(*words, "-noexec", "-show-addrs")
    assert done.status == 0
    assert '"main" target addr = 0xffff8' in done.out
    assert command(*words) == error(
        "code linked for a slab at 0xffff800000000000 with pages of 4096 bytes cannot run in this "
        "process; -noexec links it without running it"
    )
    small_pages = command(caller, helper, "-slab-allocate=1Mb", "-slab-page-size=64", "-noexec")
    assert small_pages.status == 0


def test_slab_may_be_too_small_or_impossible(command: Command, caller: Path, helper: Path) -> None:
    done = command(caller, helper, "-slab-allocate", "4Kb")
    assert (done.status, done.out) == (1, "")
    assert "the slab of 0x1000 bytes" in done.err
    assert "bytes are free" in done.err
    assert command(caller, "-slab-allocate=1Mb", "-slab-address=0x123") == error(
        "slab address 0x123 is not a multiple of 0x1000"
    )
    assert command(caller, "-slab-allocate=1Mb", "-slab-page-size=48") == error(
        "page size 48 is not a power of two"
    )
    assert command(caller, "-slab-allocate=8000000000Gb").status == 1


# Times and logs


def test_times_go_to_standard_error(command: Command, caller: Path, helper: Path) -> None:
    status, out, err = command(caller, helper, "-show-times")
    assert (status, out) == (8, "")
    for phase in ("load/add object files", "link object files", "execute jitlink'd code"):
        assert f"time to {phase}\n" in err
    assert "execute" not in command(caller, helper, "-show-times", "-noexec").err


def test_logs_are_disabled_again_after_the_command(
    command: Command, caller: Path, helper: Path
) -> None:
    for parts in ("jitlink", "link", "jitlink,link", "nothing,link"):
        done = command(caller, helper, "-debug-only", parts)
        assert (done.status, done.out) == (8, "")
        lines = done.err.splitlines()
        assert "jitlink.link: caller.o: finalized" in lines
        assert len(set(lines)) == len(lines)
    assert command(caller, helper, "-debug-only=nothing").err == ""
    assert command(caller, helper).err == ""


def test_help_is_printed_without_importing_numpy() -> None:
    done = spawn("-help")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("Usage: jitlink ")
    code = "from jitlink.tool.main import main; main(['-help'])"
    check = f"{code}; import sys; sys.exit('numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], stdout=subprocess.DEVNULL, check=True)


# Errors


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Root, who may read everything, is another user until the end of the with statement."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_unreadable_file(command: Command, caller: Path) -> None:
    # What the command imports, root may read only.
    assert command("nothing.o") == error("nothing.o: No such file or directory")
    Path.cwd().chmod(0o755)
    caller.chmod(0)
    with ordinary_user():
        assert command(caller) == error("caller.o: Permission denied")


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (MemoryError(), "out of memory"),
        (RuntimeError("two\nlines"), "internal error: RuntimeError: two\\x0alines"),
    ],
)
def test_every_exception_is_one_line(
    command: Command,
    caller: Path,
    monkeypatch: pytest.MonkeyPatch,
    raised: BaseException,
    message: str,
) -> None:
    def fail(_: CommandSession) -> None:
        raise raised

    monkeypatch.setattr(CommandSession, "load", fail)
    assert command(caller) == error(message)


def test_log_has_the_traceback_of_an_internal_error(
    command: Command, caller: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CommandSession, "load", lambda _: 1 // 0)
    done = command(caller, "-debug-only=jitlink")
    assert "Traceback" in done.err
    assert done.err.endswith(
        "error: internal error: ZeroDivisionError: integer division or modulo by zero\n"
    )


@pytest.mark.parametrize("target", ["pipe", "/dev/full"])
def test_output_that_cannot_be_written_is_an_error(caller: Path, helper: Path, target: str) -> None:
    if target == "pipe":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        if not Path(target).exists():
            pytest.skip(f"no {target}")
        writer = os.open(target, os.O_WRONLY)
    words = [sys.executable, "-m", "jitlink", "-show-addrs", str(caller), str(helper)]
    done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    reason = "Broken pipe" if target == "pipe" else "No space left on device"
    assert done.returncode == 1
    assert done.stderr == f"jitlink: error: cannot write to standard output: {reason}\n"


def test_closed_output_streams_are_ignored(caller: Path, helper: Path) -> None:
    words = f'"$0" -m jitlink -show-addrs {caller} {helper} >&- 2>&-'
    done = subprocess.run(["/bin/sh", "-c", words, sys.executable], check=False)
    assert done.returncode == 8


def test_odd_characters_do_not_stop_output() -> None:
    compile_to(Path("grün.o"), HELLO)
    words = [sys.executable, "-m", "jitlink", "-show-linked-files", "grün.o"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(words, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"Linking gr\\xfcn.o\nhello\n")


def test_no_memory_is_left_in_this_process(command: Command, caller: Path, helper: Path) -> None:
    manager = SelfExecutorProcessControl.shared().memory_manager
    assert isinstance(manager, InProcessMemoryManager)
    before = manager.finalized_count
    handler = signal.getsignal(signal.SIGINT)
    assert command(caller, helper).status == 8
    assert command(caller).status == 1
    assert command(caller, helper, "-noexec").status == 0
    assert manager.finalized_count == before
    assert signal.getsignal(signal.SIGINT) is handler


def test_main_returns_the_status() -> None:
    assert main(["-version"]) == 0
    assert main([]) == 1
