"""`jitlink`: links objects and archives in memory, and calls their main.

Every error is one line on standard error and exit status 1.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NoReturn

from jitlink.errors import JITLinkError, StaticTLSError
from jitlink.tool.options import CommandLine, expand, parse
from jitlink.tool.terminal import in_red, is_terminal

if TYPE_CHECKING:
    from jitlink.tool.session import CommandSession

_STATUS_MASK = 0xFF
_RESTART_VARIABLE = "JITLINK_STARTED_AGAIN"
"""`jitlink.tool.restart.VARIABLE`, which few commands import."""


class OutputError(JITLinkError):
    """Standard output cannot be written."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"cannot write to standard output: {error.strerror}")


def run() -> NoReturn:
    """Run the process's command, and end the process with its exit status."""
    status = main()
    if "ctypes" in sys.modules:
        # Every link has imported it; without one, `sys.exit` is as fast.
        from jitlink.tool.process_end import end_process  # noqa: PLC0415

        end_process(status)
    sys.exit(status)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: its words; by default those of this process. The command then owns the process:
            linked code stays in memory until the process ends, because exit handlers may call
            it, and signals end the process as they would end any program.

    Returns:
        The exit status: that of the program, modulo 256, or 1 after an error.
    """
    owns_process = argv is None
    restarts = 0
    if owns_process:
        if _RESTART_VARIABLE in os.environ:
            from jitlink.tool.restart import restore_environment  # noqa: PLC0415 - seldom needed

            restarts = restore_environment()
        _output.hold()
    try:
        line = parse(list(expand(sys.argv[1:] if argv is None else argv)))
        status = _execute(line, owns_process=owns_process, restarts=restarts)
        _flush()
    except JITLinkError as error:
        return _fail(str(error), owns_process=owns_process)
    except KeyboardInterrupt:
        return _fail("interrupted", owns_process=owns_process)
    except MemoryError:
        return _fail("out of memory", owns_process=owns_process)
    except Exception as error:  # noqa: BLE001 - internal errors are one line, too
        kind = type(error).__name__
        return _fail(f"internal error: {kind}: {error}", owns_process=owns_process)
    return status & _STATUS_MASK


def _execute(line: CommandLine, *, owns_process: bool, restarts: int) -> int:
    if line.help:
        from jitlink.tool.options.help_page import help_page  # noqa: PLC0415 - seldom needed

        _write(help_page())
        return 0
    if line.version:
        from jitlink import __version__  # noqa: PLC0415 - the package is above this module

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
        return _link_and_run(line, owns_process=owns_process, restarts=restarts)


def _symbolicate(line: CommandLine, path: str) -> int:
    from jitlink.tool.backtraces import Symbolicator  # noqa: PLC0415 - seldom needed

    symbolicator = Symbolicator.read(path)
    for each in line.inputs:
        if each.kind == "file":
            _write(symbolicator.file(each.name))
    return 0


def _link_and_run(line: CommandLine, *, owns_process: bool, restarts: int) -> int:
    if owns_process:
        # Imports leave no garbage; the collections that they trigger take 7 ms.
        gc.disable()
    # Only a link needs NumPy.
    with _without_threads_of_numpy(owns_process):
        from jitlink.tool.session import CommandSession  # noqa: PLC0415

    session = CommandSession(line, _write, _report_error)
    if owns_process:
        gc.freeze()
        gc.enable()
    try:
        with _starting_again(owns_process, restarts):
            with _progress(line, session):
                session.load()
                session.link()
            session.check(_write_error)
            if not line.noexec:
                session.link_initializers()
        status = 0
        if not line.noexec:
            _flush()
            if owns_process:
                from jitlink.tool.c_streams import restore_buffers  # noqa: PLC0415

                restore_buffers()
            with _signals_of_a_program(owns_process):
                status = session.run()
    finally:
        if owns_process and not line.is_out_of_process:
            session.keep()
        else:
            session.close()
    if session.times is not None:
        _write_error(session.times.table())
    return status


@contextmanager
def _starting_again(owns_process: bool, restarts: int) -> Iterator[None]:
    """Start the command again if a link lacks static TLS that a process can be started with."""
    try:
        yield
    except StaticTLSError as error:
        if owns_process:
            from jitlink.tool.restart import start_again  # noqa: PLC0415 - seldom needed

            start_again(error, restarts)
        raise


@contextmanager
def _progress(line: CommandLine, session: CommandSession) -> Iterator[None]:
    """Show a bar during a long link, if standard error is a terminal and no option prints text."""
    writers = (
        line.debug_only, line.show_linked_files, line.show_graphs, line.show_contents,
        line.show_initial_session, line.show_failures,
    )  # fmt: skip
    if any(writers) or not is_terminal(sys.stderr):
        yield
        return
    from jitlink.tool.progress import Progress  # noqa: PLC0415 - only on a terminal
    from jitlink.tool.terminal import ProgressBar  # noqa: PLC0415

    progress = Progress()
    session.watch(progress)
    with ProgressBar(sys.stderr, progress.state):
        yield


@contextmanager
def _without_threads_of_numpy(owns_process: bool) -> Iterator[None]:
    """Keep NumPy's OpenBLAS from starting threads, of which the linker has no use.

    A program expects to be the only thread of its process: others outlive `pthread_exit` in
    ``main``, and with them the system refuses new user namespaces. A number that the user has set
    is left.
    """
    name = "OPENBLAS_NUM_THREADS"
    if not owns_process or name in os.environ:
        yield
        return
    os.environ[name] = "1"
    try:
        yield
    finally:
        # The program, and what it executes, find the environment as it was.
        del os.environ[name]


@contextmanager
def _signals_of_a_program(owns_process: bool) -> Iterator[None]:
    """Restore the default actions of signals: Python handles one and ignores others."""
    if not owns_process:
        yield
        return
    # Not `signal`, which makes enumerations of its numbers: that takes as long as a link.
    import _signal as signal  # type: ignore[import-not-found] # noqa: PLC0415

    numbers = [getattr(signal, name) for name in ("SIGPIPE", "SIGXFSZ") if hasattr(signal, name)]
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
    """Write the logs of parts of the linker to standard error; ``jitlink`` selects all parts."""
    if not parts:
        yield
        return
    import logging  # noqa: PLC0415 - only with -debug-only

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    names = {part if part == "jitlink" else f"jitlink.{part}" for part in parts}
    # Records propagate to a logger's parents: without this they would be written twice.
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


class _Output:
    """Output of the command, held back as long as the command may start again."""

    def __init__(self) -> None:
        self._held: list[tuple[Callable[[str], None], str]] | None = None

    def hold(self) -> None:
        """Hold back what is written from now on."""
        self._held = []

    def write(self, write: Callable[[str], None], text: str) -> None:
        """Write by a function, now or later."""
        if self._held is None:
            write(text)
        else:
            self._held.append((write, text))

    def release(self) -> None:
        """Write what was held back, and from now on at once."""
        held, self._held = self._held or [], None
        for write, text in held:
            write(text)


_output = _Output()


def _write(text: str) -> None:
    """Write to standard output; see `_write_now`."""
    _output.write(_write_now, text)


def _write_now(text: str) -> None:
    """Write to standard output; characters that its encoding lacks are escaped.

    Raises:
        OutputError: it cannot be written.
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
    """Write to standard error; see `_write_error_now`."""
    _output.write(_write_error_now, text)


def _write_error_now(text: str) -> None:
    """Write to standard error; a failure cannot be reported anywhere, and is ignored."""
    with suppress(AttributeError, OSError, ValueError):
        sys.stderr.write(text)
        sys.stderr.flush()


def _flush() -> None:
    _output.release()
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        raise OutputError(error) from error


def _report_error(message: str) -> None:
    """Report an error in one line of standard error, after flushing standard output."""
    if not message.isprintable():
        from jitlink.graph.text import printable  # noqa: PLC0415 - only for odd names

        message = printable(message)
    with suppress(AttributeError, OSError, ValueError):
        sys.stdout.flush()
    _write_error(f"jitlink: {in_red('error:', sys.stderr)} {message}\n")


def _fail(message: str, *, owns_process: bool) -> int:
    """Report an error, and return the exit status of failure."""
    with suppress(OutputError):
        _output.release()
    _report_error(message)
    if owns_process:
        _drop_output()
    return 1


def _drop_output() -> None:
    """Redirect standard output if it cannot be flushed: else Python reports that at exit."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
