"""Each file of the suite has the same verdict from the command and from llvm-jitlink."""

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conformance.cases import FILES, ROOT, TARGETS, build, read_case
from tests.tool.command import in_process
from tests.tool.facts import facts_of

_REPORT = re.compile(
    r"^(?:Expression|(Error) evaluating expression) '(.*)'(?: is false|: )", re.MULTILINE
)


class Verdict(NamedTuple):
    """The result of a command.

    Attributes:
        status: its exit status.
        rules: the rules that fail, and whether they could not be evaluated.
    """

    status: int
    rules: list[tuple[str, bool]]


def _verdict(status: int, output: str) -> Verdict:
    rules = [(rule, error == "Error") for error, rule in _REPORT.findall(output)]
    return Verdict(status, rules)


# The facts that llvm-jitlink shows differently: it has a graph for each object, and so GOT entries
# and stubs for symbols of another object; it takes the first symbol of a section for its start, and
# the size of RISC-V code before relaxation; its encapsulation symbols have content.
_OTHER_FACTS = {
    "comdat": ["entries"],
    "two_files_call": ["entries"],
    "difference_uleb128": ["sections"],
    "relaxed_alignment": ["sections"],
    "relaxed_call": ["sections"],
    "section_first_symbol": ["sections"],
    "weak_overridden": ["sections"],
    "section_start_stop": ["symbols"],
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_same_verdict_as_llvm_jitlink(
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    llvm_jitlink: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    case = read_case(path)
    words = [*case.options, "-check", path.name, "-show-addrs", "-show-linked-files", *build(case)]
    done = in_process(capfd)(*words)
    # With threads, llvm-jitlink may check before everything is linked.
    command: list[str | Path] = [llvm_jitlink, "-num-threads=0", *words]
    peer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert peer.returncode == case.status, peer.stderr
    assert done.status == case.status, done.err
    assert _verdict(done.status, done.err) == _verdict(peer.returncode, peer.stderr)
    if case.status == 0:
        ours, theirs = facts_of(done.out)._asdict(), facts_of(peer.stdout)._asdict()
        different = [name for name, facts in ours.items() if facts != theirs[name]]
        assert different == _OTHER_FACTS.get(path.stem, [])


def test_every_directory_is_a_target() -> None:
    assert {path.parent.name for path in FILES} == set(TARGETS)
    assert all(path.suffix == ".s" for path in ROOT.glob("*/*") if path.parent.name in TARGETS)
