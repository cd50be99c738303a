"""The reports of a link, compared with llvm-jitlink's."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.tool.command import Command, archive, compile_to
from tests.tool.facts import OWN_SYMBOLS, facts_of
from tests.toolchain import CompilerName

MAIN = """
#include <stdio.h>
#include <stdlib.h>
int work(int);
extern int shared;
static int calls[100];
static const char *const names[] = {"a", "bc"};
static int local(int x) { return x + calls[x]; }
int (*table[])(int) = {local, work, abs};
int exported_but_unused(void) { return 2; }
int main(int argc, char **argv) {
    printf("%s %d %d\\n", names[argc & 1], table[argc & 1](argc), shared);
    return work(argc);
}
"""
WORK = """
#include <string.h>
int deeper(int);
int shared = 3;
int common;
__attribute__((weak)) int weak(int x) { return x; }
static int unused(void) { return 1; }
int work(int x) { return deeper(x) + weak(x) + (int)strlen("four") + common; }
"""
DEEPER = "int deeper(int x) { static int state = 5; return state += x; }"
UNNEEDED = "int missing(void); int unneeded(void) { return missing(); }"

FLAGS = ((), ("-O0",), ("-ffunction-sections", "-fdata-sections"), ("-O2", "-fPIC"))


@pytest.mark.parametrize("flags", FLAGS, ids=" ".join)
def test_same_facts_as_llvm_jitlink(
    command: Command, compiler: CompilerName, flags: tuple[str, ...], llvm_jitlink: Path
) -> None:
    for name, text in (("main", MAIN), ("work", WORK), ("deeper", DEEPER), ("no", UNNEEDED)):
        compile_to(Path(f"{name}.o"), text, compiler, *flags)
    archive(Path("liblower.a"), Path("no.o"), Path("deeper.o"))
    words = ["main.o", "work.o", "no.o", "-L.", "-llower"]
    words += ["-noexec", "-show-addrs", "-show-linked-files"]
    done = command(*words)
    assert (done.status, done.err) == (0, "")
    peer = subprocess.run([llvm_jitlink, *words], capture_output=True, text=True, check=True)
    own = {"work", "shared", "deeper", "weak", "table", "common"}
    ours, theirs = facts_of(done.out, own), facts_of(peer.stdout, own)
    assert ours.linked == {"main.o", "work.o", "./liblower.a(deeper.o)"}
    assert ours == theirs


def test_facts_are_found_in_the_output(command: Command) -> None:
    compile_to(Path("main.o"), MAIN, "zig")
    compile_to(Path("work.o"), WORK + DEEPER, "zig")
    facts = facts_of(command("main.o", "work.o", "-noexec", "-show-addrs").out, set())
    assert {"main", "work", "shared", "deeper", "exported_but_unused"} < {
        s[0] for s in facts.symbols
    }
    assert "unused" not in {s[0] for s in facts.symbols}
    assert ("main.o", "GOT", "printf") in facts.entries
    assert ("work.o", "Stubs", "printf") not in facts.entries
    assert ("work.o", ".bss", 4, "zero-fill") in facts.sections or any(
        (file, name) == ("work.o", ".common") for file, name, _, _ in facts.sections
    )


def test_addresses_are_those_of_the_program(command: Command) -> None:
    text = """
    #include <stdio.h>
    int data = 5, zero[3];
    int main(void) { printf("%p %p %p\\n", (void *)main, (void *)&data, (void *)zero); return 0; }
    """
    compile_to(Path("a.o"), text, "zig", "-fPIC")
    lines = command("a.o", "-show-addrs").out.splitlines()
    said = {
        m[1]: int(m[2], 16)
        for m in (re.match(r'  "(\w+)" target addr = (\w+)', n) for n in lines)
        if m
    }
    assert [said["main"], said["data"], said["zero"]] == [int(n, 16) for n in lines[-1].split()]


def test_absolute_symbols_are_listed(command: Command) -> None:
    compile_to(Path("a.o"), "extern char here[]; char *f(void) { return here; }", "zig", "-fPIC")
    words = ("-abs", "here=0x123", "-alias", "g=f", "-entry", "g", "-noexec", "-show-addrs")
    out = command("a.o", *words).out
    assert '  "here" target addr = 0x0000000000000123, zero-fill: 0 bytes\n' in out
    assert len(re.findall(r'  "f" target addr = (\w+),', out)) == 1


def test_graphs_of_matching_objects_are_shown_as_llvm_jitlink_does(
    command: Command, llvm_jitlink: Path
) -> None:
    compile_to(Path("main.o"), MAIN, "zig")
    compile_to(Path("work.o"), WORK + DEEPER, "zig")
    words = ["main.o", "work.o", "-noexec", "-show-graphs", "^w.*o$"]
    done = command(*words)
    peer = subprocess.run([llvm_jitlink, *words], capture_output=True, text=True, check=True)
    for out in (done.out, peer.stdout):
        assert out.startswith(
            'Link graph "work.o" post-fixup:\nLinkGraph "work.o" (triple = x86_64-'
        )
        assert out.count("LinkGraph") == 1
    assert _graph_facts(done.out) == _graph_facts(peer.stdout)


def _graph_facts(out: str) -> dict[str, set[str]]:
    """Sections with blocks, named symbols with their properties, and kinds of edges."""
    sections = re.findall(r"^section ([^$:]+):\n\n  block", out, re.MULTILINE)
    symbols = re.findall(r": (size: .*?(?:live|dead))  -   (\w+)$", out, re.MULTILINE)
    targets = re.findall(r"kind = (\w+), target = (\w+)$", out, re.MULTILINE)
    return {
        "sections": set(sections),
        "symbols": {" ".join(each) for each in symbols if each[1] not in OWN_SYMBOLS},
        # llvm-jitlink has a graph, and a GOT, for each object.
        "edges": {" ".join(each) for each in targets if each[0].startswith("Branch")},
    }


def test_graphs_show_got_entries_with_their_users(command: Command) -> None:
    user = 'int puts(const char *); int %s(void) { return puts(""); }'
    compile_to(
        Path("main.o"), "int other(void); " + user % "one" + "int main(void) { return other(); }"
    )
    compile_to(Path("other.o"), "int other(void) { return 4; }")
    out = command("main.o", "other.o", "-show-graphs", ".", "-noexec").out
    main_graph, other_graph = out.split('Link graph "other.o"')
    assert "section $__GOT:" in main_graph
    assert "target = puts\n" in main_graph
    assert "$__" not in other_graph
    assert other_graph.endswith("External symbols:\n  none\n")


def test_graphs_of_objects_that_are_not_linked_are_not_shown(command: Command) -> None:
    compile_to(Path("main.o"), "int main(void) { return 0; }")
    compile_to(Path("no.o"), UNNEEDED)
    assert command("main.o", "no.o", "-show-graphs", "no").out == ""


def test_linked_files_are_named_even_if_the_link_fails(command: Command) -> None:
    compile_to(Path("main.o"), "int missing(void); int main(void) { return missing(); }")
    done = command("main.o", "-show-linked-files")
    assert done.out == "Linking main.o\n"
    assert "undefined symbol: missing" in done.err


def test_line_feeds_in_names_are_escaped(command: Command) -> None:
    compile_to(
        Path("a.o"), "int two_lines(void) { return 1; } int main(void) { return two_lines(); }"
    )
    Path("a.o").write_bytes(Path("a.o").read_bytes().replace(b"two_lines", b"two\nlines"))
    out = command("a.o", "-show-addrs", "-noexec").out
    assert '  "two\\x0alines" target addr' in out
