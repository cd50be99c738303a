"""`jitlink`: links the objects and archives that it is given in memory, and calls their main.

Whatever goes wrong is one line on standard error and exit status 1.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NoReturn

from jitlink.errors import JITLinkError
from jitlink.tool.options.command_line import CommandLine
from jitlink.tool.options.parsing import parse
from jitlink.tool.options.response_files import expand
from jitlink.tool.terminal import in_red, is_terminal

if TYPE_CHECKING:
    from jitlink.tool.session import CommandSession

_STATUS_MASK = 0xFF


class OutputError(JITLinkError):
    """Standard output does not take what is written."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"cannot write to standard output: {error.strerror}")


def run() -> NoReturn:
    """Be the process's command: run it, and end the process with its exit status."""
    status = main()
    if "ctypes" in sys.modules:
        # Whatever links has imported it; help, say, does not take so long.
        from jitlink.tool.process_end import end_process  # noqa: PLC0415

        end_process(status)
    sys.exit(status)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: its words; by default those that this process was started with. The process is
            then the command's: linked code stays in memory until it ends, because exit
            handlers may call it, and signals end it as they would end any program.

    Returns:
        The exit status: that of the program, modulo 256, or 1 after an error.
    """
    owns_process = argv is None
    try:
        line = parse(list(expand(sys.argv[1:] if argv is None else argv)))
        status = _obey(line, owns_process=owns_process)
        _flush()
    except JITLinkError as error:
        return _fail(str(error), owns_process=owns_process)
    except KeyboardInterrupt:
        return _fail("interrupted", owns_process=owns_process)
    except MemoryError:
        return _fail("out of memory", owns_process=owns_process)
    except Exception as error:  # noqa: BLE001 - users get a sentence, also for a mistake of ours
        kind = type(error).__name__
        return _fail(f"internal error: {kind}: {error}", owns_process=owns_process)
    return status & _STATUS_MASK


def _obey(line: CommandLine, *, owns_process: bool) -> int:
    if line.help:
        from jitlink.tool.options.help_page import help_page  # noqa: PLC0415 - seldom needed

        _write(help_page())
        return 0
    if line.version:
        from jitlink import __version__  # noqa: PLC0415 - it is the top of all imports

        _write(f"jitlink {__version__}\n")
        return 0
    if line.print_options:
        from jitlink.tool.options.help_page import options_page  # noqa: PLC0415 - seldom needed

        _write(options_page(line))
    for warning in line.warnings:
        _write_error(f"jitlink: warning: {warning}\n")
    if line.symbolicate_with is not None:
        return _symbolicate(line, line.symbolicate_with)
    with _logs(line.debug_only):
        return _link_and_run(line, owns_process=owns_process)


def _symbolicate(line: CommandLine, path: str) -> int:
    from jitlink.tool.backtraces import Symbolicator  # noqa: PLC0415 - seldom needed

    symbolicator = Symbolicator.read(path)
    for each in line.inputs:
        if each.kind == "file":
            _write(symbolicator.file(each.name))
    return 0


def _link_and_run(line: CommandLine, *, owns_process: bool) -> int:
    if owns_process:
        # Nothing that is imported is garbage; to look for some takes 7 ms.
        gc.disable()
    # What needs NumPy is imported only by those who link.
    from jitlink.tool.session import CommandSession  # noqa: PLC0415

    program = CommandSession(line, _write, _report_error)
    if owns_process:
        gc.freeze()
        gc.enable()
    try:
        with _progress(line, program):
            program.load()
            program.link()
        program.check(_write_error)
        status = 0
        if not line.noexec:
            _flush()
            with _signals_of_a_program(owns_process):
                status = program.run()
    finally:
        if owns_process:
            program.keep()
        else:
            program.close()
    if program.times is not None:
        _write_error(program.times.table())
    return status


@contextmanager
def _progress(line: CommandLine, program: CommandSession) -> Iterator[None]:
    """Show a bar while a long link goes on, if standard error is a terminal and has no text."""
    writers = (
        line.debug_only, line.show_linked_files, line.show_graphs, line.show_contents,
        line.show_initial_session, line.show_failures,
    )  # fmt: skip
    if any(writers) or not is_terminal(sys.stderr):
        yield
        return
    from jitlink.tool.progress import Progress  # noqa: PLC0415 - only for those who look
    from jitlink.tool.terminal import ProgressBar  # noqa: PLC0415

    progress = Progress()
    program.watch(progress)
    with ProgressBar(sys.stderr, progress.state):
        yield


@contextmanager
def _signals_of_a_program(owns_process: bool) -> Iterator[None]:
    """Let signals do what they do to any program: Python catches one and ignores others."""
    if not owns_process:
        yield
        return
    import signal  # noqa: PLC0415 - only for those who run something

    numbers = [signal.SIGPIPE, signal.SIGXFSZ]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        numbers.append(signal.SIGINT)
    handlers = [(number, signal.signal(number, signal.SIG_DFL)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in handlers:
            signal.signal(number, handler)


@contextmanager
def _logs(parts: Sequence[str]) -> Iterator[None]:
    """Write the logs of parts of the linker to standard error, of all for ``jitlink``."""
    if not parts:
        yield
        return
    import logging  # noqa: PLC0415 - only for those who want logs

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    names = {part if part == "jitlink" else f"jitlink.{part}" for part in parts}
    # Records reach a logger's parents too: each is to be written once.
    loggers = [logging.getLogger(name) for name in names if not names & _parents(name)]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
        logger.addHandler(handler)
    try:
        yield
    except Exception:
        logging.getLogger("jitlink.tool").debug("failed", exc_info=True)
        raise
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
            logger.removeHandler(handler)


def _parents(name: str) -> set[str]:
    """The loggers above one."""
    parts = name.split(".")
    return {".".join(parts[:length]) for length in range(1, len(parts))}


# Output


def _write(text: str) -> None:
    """Write to standard output, what its encoding lacks as escapes.

    Raises:
        OutputError: that is not possible.
    """
    stream = sys.stdout
    if stream is None or not text:
        return
    encoding = stream.encoding or "utf-8"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    except OSError as error:
        raise OutputError(error) from error


def _write_error(text: str) -> None:
    """Write to standard error; if that is not possible there is nobody to tell."""
    with suppress(AttributeError, OSError, ValueError):
        sys.stderr.write(text)
        sys.stderr.flush()


def _flush() -> None:
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        raise OutputError(error) from error


def _report_error(message: str) -> None:
    """Say, in one line of standard error, what is wrong, behind what was written before."""
    if not message.isprintable():
        from jitlink.graph.text import printable  # noqa: PLC0415 - only for odd names

        message = printable(message)
    with suppress(AttributeError, OSError, ValueError):
        sys.stdout.flush()
    _write_error(f"jitlink: {in_red('error:', sys.stderr)} {message}\n")


def _fail(message: str, *, owns_process: bool) -> int:
    """Say what is wrong; the exit status of failure."""
    _report_error(message)
    if owns_process:
        _drop_output()
    return 1


def _drop_output() -> None:
    """Have Python not complain at exit about output that nobody takes."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
