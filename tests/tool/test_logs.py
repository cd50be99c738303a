"""Logs: their parts, their order, and that disabled ones cost nothing."""

import logging
import re
from pathlib import Path

import pytest

import jitlink
from jitlink import link_log
from jitlink.graph import LinkGraph
from tests.tool.command import Command, archive, compile_to
from tests.toolchain import compile_c

MAIN = """
int puts(const char *); int lower(int); int maybe(void) __attribute__((weak));
int table[20];
int main(void) { puts(""); return lower(table[1]) + (maybe ? maybe() : 0); }
"""


@pytest.fixture
def words() -> tuple[str | Path, ...]:
    """A command that links an object and a member of an archive."""
    compile_to(Path("main.o"), MAIN, "gcc")
    compile_to(Path("lower.o"), "int lower(int x) { return x; }", "gcc")
    return ("main.o", archive(Path("liblower.a"), Path("lower.o")), "-noexec")


def _logs(text: str) -> dict[str, list[str]]:
    """Messages by logger."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, _, message = line.partition(": ")
        assert re.fullmatch(r"jitlink\.[a-z]+", name), line
        found.setdefault(name, []).append(message)
    return found


def test_all_parts_log_a_link(command: Command, words: tuple[str | Path, ...]) -> None:
    done = command(*words, "-debug-only=jitlink")
    assert done.status == 0
    logs = _logs(done.err)
    assert logs.keys() == {f"jitlink.{name}" for name in ("formats", "link", "memory", "orc")}
    size = Path("main.o").stat().st_size
    assert any(line.startswith(f"main.o: read {size} bytes") for line in logs["jitlink.formats"])
    _in_order(
        [line for line in logs["jitlink.link"] if line.startswith("main.o")],
        [
            r"main.o: begins \(objects: 1, sections: \d+, blocks: \d+, bytes: \d+, .*\)",
            r"main.o: pruned \(blocks: \d+, .*, externals: 3\)",
            r"main.o: added GOT entries: \d+, PLT stubs: \d+",
            r"main.o: external puts is at 0x[0-9a-f]+",
            r"main.o: external maybe is null: it has no definition",
            r"main.o: fixups: .*\d+ Delta32.*",
            r"main.o: finalized",
        ],
    )
    _in_order(
        logs["jitlink.orc"],
        [
            r"creating JITDylib main",
            r"caller looks up in main: main",
            r"members extracted for main: liblower.a\(lower.o\)",
            r"materializing main.o \(symbols: 2\)",
            r"main.o looks up in main, <platform>, <process symbols>: .*puts.*",
            r"StaticLibraryGenerator of main defines: nothing",
            r"DynamicLibraryGenerator of <process symbols> defines: puts",
            r"materialized main.o.*",
        ],
    )
    segments = [line for line in logs["jitlink.memory"] if "segment" in line]
    assert any("RW-" in line and "80 of zeros" in line for line in segments)
    assert any(line.startswith("protected: 0x1000 bytes at 0x") for line in logs["jitlink.memory"])
    assert any(line.startswith("freed: ") for line in logs["jitlink.memory"])


def _in_order(lines: list[str], patterns: list[str]) -> None:
    rest = iter(lines)
    for pattern in patterns:
        assert any(re.fullmatch(pattern, line) for line in rest), (pattern, lines)


@pytest.mark.parametrize("parts", ["link", "orc", "memory", "formats", "link,memory"])
def test_one_part_alone(command: Command, words: tuple[str | Path, ...], parts: str) -> None:
    logs = _logs(command(*words, "-debug-only", parts).err)
    assert logs.keys() == {f"jitlink.{part}" for part in parts.split(",")}


def test_logs_are_off_again_afterwards(command: Command, words: tuple[str | Path, ...]) -> None:
    assert command(*words, "-debug-only=jitlink").err
    assert command(*words).err == ""
    assert not logging.getLogger("jitlink").handlers


def test_a_failed_link_and_a_removal_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "jitlink")
    with pytest.raises(jitlink.UndefinedSymbolError):
        jitlink.load(compile_c("int f(void); int g(void) { return f(); }"))
    messages = [record.getMessage() for record in caplog.records]
    assert any("failed: undefined symbol: f" in message for message in messages)
    assert any(message.startswith("abandoned: ") for message in messages)
    caplog.clear()
    jitlink.load(compile_c("int f(void) { return 1; }")).close()
    messages = [record.getMessage() for record in caplog.records]
    assert any(message.startswith("removing JITDylib ") for message in messages)
    assert any(message.startswith("freed: ") for message in messages)


def test_nothing_is_counted_for_disabled_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(graph: LinkGraph) -> str:
        raise AssertionError(graph)

    monkeypatch.setattr(link_log, "_size", fail)
    monkeypatch.setattr("jitlink.orc.lookup.listed", fail)
    assert not link_log.is_on()
    with jitlink.load(compile_c("int f(void) { return 1; }")) as library:
        assert library.f() == 1
