"""The checks of a command: the rules in its files, evaluated and reported.

For each rule that fails there is a line as llvm-jitlink prints it, then the rule's position; for a
rule that cannot be evaluated also the line of the file, with a mark below the error.
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
    """A file whose rules do not all hold, or a file without rules.

    Attributes:
        file: the file.
    """

    def __init__(self, file: str) -> None:
        super().__init__(f"Some checks in {file} failed")
        self.file = file


class Checks(Plugin):
    """Files with rules about linked memory.

    Args:
        files: their paths.
        name: the name of the rules, before the colon.
        definitions: names and addresses of `-abs`.

    Attributes:
        linked: the links that the rules are about.
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
        """Add the passes that record a link."""
        self.linked.configure(graph, config)

    def run(self, write: Callable[[str], None]) -> None:
        """Evaluate the rules, file by file, up to the first file that fails.

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
        """The report about a rule that fails, as lines of text; empty if it holds."""
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
    """A message with printable lines."""
    return "\n".join(map(printable, message.split("\n")))


def _mark(rule: Rule, offset: int) -> str:
    """The position of a character of a rule, its line, and a mark below it."""
    line, column, text = rule.position(offset)
    before = printable(text[: column - 1].replace("\t", " "))
    cut = len(before) - len(before.lstrip())
    shown = (before + printable(text[column - 1 :].replace("\t", " "))).rstrip()[cut:]
    return (
        f"  at {printable(rule.file)}:{line}:{column}\n"
        f"    {shown}\n"
        f"    {' ' * (len(before) - cut)}^\n"
    )
