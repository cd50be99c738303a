"""The checks of a command: the rules in its files, evaluated and reported.

For each rule that fails there is a line as llvm-jitlink has it, then where the rule stands; for
one that has no value also the line of the file, with a mark below what is to blame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from jitlink.errors import JITLinkError
from jitlink.graph import LinkGraph
from jitlink.graph.text import printable
from jitlink.link import PassConfiguration
from jitlink.orc import MaterializationResponsibility, Plugin
from jitlink.tool.check.expressions import ExpressionError, evaluate
from jitlink.tool.check.linked import LinkedFiles
from jitlink.tool.check.rules import Rule, read_rules

_ERROR = "Error evaluating expression"


class CheckFailedError(JITLinkError):
    """Rules of a file that do not hold, or a file without rules.

    Attributes:
        file: the file.
    """

    def __init__(self, file: str) -> None:
        super().__init__(f"Some checks in {file} failed")
        self.file = file


class Checks(Plugin):
    """Files with rules about what is linked.

    Args:
        files: their paths.
        name: what the lines with rules begin with.
        definitions: names and addresses that the command defines.

    Attributes:
        linked: what the rules are about.
    """

    def __init__(
        self, files: Sequence[str], name: str, definitions: Iterable[tuple[str, int]] = ()
    ) -> None:
        self.linked = LinkedFiles(definitions)
        self._files = tuple(files)
        self._name = name

    def modify_pass_config(
        self,
        responsibility: MaterializationResponsibility,  # noqa: ARG002 - part of the interface
        graph: LinkGraph,
        config: PassConfiguration,
    ) -> None:
        """Add what is needed to the passes of a link."""
        self.linked.configure(graph, config)

    def run(self, write: Callable[[str], None]) -> None:
        """Evaluate all rules, file by file up to the first that fails.

        Args:
            write: takes the reports.

        Raises:
            CheckFailedError: a file failed.
            InputError: a file cannot be read.
        """
        for file in self._files:
            reports = [self.report(rule) for rule in read_rules(file, self._name)]
            for report in reports:
                write(report)
            if not reports or any(reports):
                raise CheckFailedError(file)

    def report(self, rule: Rule) -> str:
        """What is wrong with a rule, as lines of text; nothing if it holds."""
        text = printable(rule.text)
        try:
            values = evaluate(rule.text, self.linked)
        except ExpressionError as error:
            return f"{_ERROR} '{text}': {_lines(str(error))}\n{_mark(rule, error.offset)}"
        if values.left == values.right:
            return ""
        position = rule.position()
        return (
            f"Expression '{text}' is false: {values.left:#x} != {values.right:#x}\n"
            f"  at {printable(rule.file)}:{position.line}\n"
        )


def _lines(message: str) -> str:
    """A message whose lines can be printed."""
    return "\n".join(map(printable, message.split("\n")))


def _mark(rule: Rule, offset: int) -> str:
    """Where a character of a rule stands, its line, and a mark below it."""
    line, column, text = rule.position(offset)
    before = printable(text[: column - 1].replace("\t", " "))
    cut = len(before) - len(before.lstrip())
    shown = (before + printable(text[column - 1 :].replace("\t", " "))).rstrip()[cut:]
    return (
        f"  at {printable(rule.file)}:{line}:{column}\n"
        f"    {shown}\n"
        f"    {' ' * (len(before) - cut)}^\n"
    )
