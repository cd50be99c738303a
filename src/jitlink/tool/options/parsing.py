"""Parses the words of a command by the table of options."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from jitlink.tool.options.command_line import (
    CommandLine,
    CommandLineError,
    Form,
    Option,
)
from jitlink.tool.options.table import OPTIONS
from jitlink.tool.options.values import add_input

_BY_NAME = {option.name: option for option in OPTIONS}
_JOINED = [option for option in OPTIONS if option.form is Form.JOINED]
_add_file = add_input("file")


def parse(words: Sequence[str]) -> CommandLine:
    """Parse a command.

    Args:
        words: its words, without the program's name.

    Raises:
        CommandLineError: an option is unknown, lacks its value or has an invalid one, or
            options exclude each other.
    """
    line = CommandLine()
    rest = iter(words)
    for word in rest:
        if word == "--":
            for each in rest:
                _add_file(line, each)
        elif word.startswith("-") and word != "-":
            _take_option(line, word, rest)
        else:
            _add_file(line, word)
    if not line.help and not line.version:
        _check(line)
    return line


def _take_option(line: CommandLine, word: str, rest: Iterator[str]) -> None:
    """Store one option with the words after it that belong to it."""
    option, value = _find(word)
    if option.form is Form.REST:
        _take_all(line, option, rest)
        return
    if option.form is Form.FILES:
        _take_files(line, option, rest)
        return
    if value is None:
        value = _value_after(option, rest)
    line.given.append((option.name, value))
    try:
        option.store(line, value)
    except ValueError as error:
        raise CommandLineError(str(error), option=option.name) from error


def _take_files(line: CommandLine, option: Option, rest: Iterator[str]) -> None:
    """Store the files of an option, and the option that ends their list."""
    for word in rest:
        named = _BY_NAME.get(word.removeprefix("-").removeprefix("-"))
        if word == "--":
            _take_all(line, option, rest)
        elif named is None or not word.startswith("-"):
            _take_all(line, option, [word])
        elif named.form is Form.REST:
            _take_option(line, word, rest)
        else:
            message = f"takes the words that follow it as files; {word} must stand before it"
            raise CommandLineError(message, option=option.name)


def _take_all(line: CommandLine, option: Option, words: Iterable[str]) -> None:
    """Store words as values of an option."""
    for word in words:
        option.store(line, word)
        line.given.append((option.name, word))


def _value_after(option: Option, rest: Iterator[str]) -> str:
    """The value of an option whose own word has none."""
    if option.form is Form.FLAG:
        return "true"
    if option.form is Form.OPTIONAL:
        return ""
    value = next(rest, None)
    if value is None:
        raise CommandLineError(f"needs a value: {option.usage}", option=option.name)
    return value


def _find(word: str) -> tuple[Option, str | None]:
    """The option that a word names, and the value in the same word, or None."""
    body = word.removeprefix("-").removeprefix("-")
    name, equals, value = body.partition("=")
    option = _BY_NAME.get(name)
    if option is not None:
        if equals and option.form in {Form.REST, Form.FILES}:
            raise CommandLineError("takes the words that follow it", option=name)
        return option, value if equals else None
    for option in _JOINED:
        if body.startswith(option.name):
            return option, body[len(option.name) :]
    raise _unknown(name)


def _unknown(name: str) -> CommandLineError:
    # Imported only for a misspelt option.
    from jitlink.names.spelling import closest_spelling  # noqa: PLC0415

    close = closest_spelling(name, _BY_NAME, 0.6)
    advice = f"did you mean -{close}?" if close else "-help lists all options"
    return CommandLineError(f"unknown option -{name}; {advice}")


# Checks of options in combination


def _check(line: CommandLine) -> None:
    if not line.inputs:
        raise CommandLineError("no input files; -help says how the command is used")
    if line.next_is_lazy:
        raise CommandLineError("no input follows that could be linked lazily", option="lazy")
    if line.show_graphs is None and line.show_graphs_format != "text":
        raise CommandLineError(
            "nothing is printed without -show-graphs", option="show-graphs-format"
        )
    if line.slab_size is None:
        _refuse_given(
            "there is no slab without -slab-allocate",
            {"slab-address": line.slab_address, "slab-page-size": line.slab_page_size},
        )
    if line.executor_address is None:
        _refuse_given(
            "nothing is connected to without -oop-executor-connect",
            {
                "oop-token-file": line.executor_token_file,
                "oop-tls-ca": line.executor_authority,
                "oop-tls-cert": line.executor_certificate,
            },
        )
    _check_speculation(line)
    _warn(line)


def _refuse_given(reason: str, values: Mapping[str, object]) -> None:
    for option, value in values.items():
        if value is not None:
            raise CommandLineError(reason, option=option)


def _check_speculation(line: CommandLine) -> None:
    if line.speculate != "none" and not any(each.is_lazy for each in line.inputs):
        line.warnings.append("-speculate has no effect: no input is -lazy")
        line.speculate = "none"
    if line.speculate == "none":
        # As in LLVM, the speculator records the calls.
        for option, file in (
            ("speculate-order", line.speculate_order),
            ("record-lazy-execs", line.record_lazy_execs),
        ):
            if file is not None:
                line.warnings.append(f"-{option} has no effect: nothing speculates")
        line.speculate_order = line.record_lazy_execs = None


def _warn(line: CommandLine) -> None:
    """Warn about options that another one leaves without effect."""
    if line.noexec:
        for option, value in (
            ("args", line.arguments),
            ("rdynamic", line.rdynamic),
            ("symbol-file", line.symbol_file),
        ):
            if value:
                line.warnings.append(f"-{option} has no effect with -noexec")
    if line.symbolicate_with is not None and line.write_symtab is not None:
        line.warnings.append("-write-symtab has no effect with -symbolicate-with")
