"""Random rules, evaluated by the command and by llvm-jitlink: equal values, or equal errors.

With JITLINK_LONG=1 there are 5,000.
"""

import os
import re
import subprocess
from pathlib import Path

from tests.tool.check.random_rules import RuleMaker
from tests.tool.command import Command
from tests.toolchain import compile_c

COUNT = 5000 if os.environ.get("JITLINK_LONG") == "1" else 200
OBJECT = """
	.globl	main, text, data, zeros
main:
	callq	far
	movq	far@GOTPCREL(%rip), %rax
	retq
	.size	main, .-main
text:
	addq	$-5, %rcx
	retq
	.size	text, .-text
	.zero	16
	.data
data:
	.quad	0x1122334455667788, 0x99aabbccddeeff00, main
	.size	data, .-data
	.bss
zeros:
	.zero	16
	.size	zeros, .-zeros
"""
OPTIONS = (
    "-noexec", "-slab-allocate", "64Kb", "-slab-page-size", "4096", "-slab-address", "0x10000000",
    "-abs", "far=0x7fff00001000", "-abs", "absolute=0x123456789",
)  # fmt: skip
_FALSE = re.compile(r"^Expression '(.*)' is false: (0x\w+ != 0x\w+)$", re.MULTILINE)
_ERROR = re.compile(r"^Error evaluating expression '(.*?)': (.*)$", re.MULTILINE)
# Errors here, arbitrary values there.
_NO_NUMBER = re.compile(r"'.*' is not a number|Number '.*' does not fit 64 bits")


def _outcomes(output: str) -> dict[str, str]:
    """The output for each rule that fails; for errors the first line."""
    return dict([*_FALSE.findall(output), *_ERROR.findall(output)])


def test_same_values_and_errors_as_llvm_jitlink(command: Command, llvm_jitlink: Path) -> None:
    Path("a.o").write_bytes(compile_c(OBJECT, suffix=".s").read_bytes())
    maker = RuleMaker(22)
    rules = list(dict.fromkeys(maker.rule() for _ in range(COUNT * 2)))[:COUNT]
    assert len(rules) == COUNT
    Path("rules").write_text("".join(f"# jitlink-check: {rule}\n" for rule in rules))
    done = command(*OPTIONS, "-check", "rules", "a.o")
    words: list[str | Path] = [llvm_jitlink, *OPTIONS, "-check", "rules", "a.o"]
    peer = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.status, peer.returncode) == (1, 1), peer.stderr[-2000:]
    # Tabs are escaped where rules are shown.
    ours = _outcomes(done.err.replace("\\x09", "\t"))
    theirs = _outcomes(peer.stderr)
    arbitrary = {rule for rule, outcome in ours.items() if _NO_NUMBER.match(outcome)}
    compared = [rule for rule in rules if rule not in arbitrary]
    differences = [
        f"{rule}\n  {ours.get(rule)}\n  {theirs.get(rule)}"
        for rule in compared
        if ours.get(rule) != theirs.get(rule)
    ]
    assert not differences, "\n".join(differences)
    # The rules are of all kinds.
    assert len(arbitrary) < COUNT // 20
    values = [rule for rule in compared if re.match("0x", ours.get(rule, ""))]
    errors = [rule for rule in compared if re.match("[A-Z]", ours.get(rule, ""))]
    assert len(values) > COUNT // 3
    assert len(errors) > COUNT // 8
