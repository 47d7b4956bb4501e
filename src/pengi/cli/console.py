"""Output and exit codes of the commands: results on stdout, errors and progress on stderr.

Exit codes: 0 done; 1 an error of this program; 2 a mistake in the arguments or files, also if only one of many files
failed, or the results could not be written; 130 interrupted; 141 the reader of a pipe closed it.
"""

from __future__ import annotations

import functools
import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from pengi.cli.groups import expanded
from pengi.cli.streams import can_encode, output_failure, watch_output
from pengi.errors import PengiError, first_line, is_disk_full, reason, unwritten
from pengi.progress import bar_on_stderr, stderr

EXIT_INTERNAL = 1
EXIT_USER = 2
EXIT_INTERRUPTED = 130
EXIT_CLOSED_PIPE = 141
# A pipe or a file has no width, so tables are not limited to 80 columns there.
_UNLIMITED_COLUMNS = 10_000


def run_app(app: Callable[[], None]) -> NoReturn:
    """Run the command line as a process. It ends with an exit code, also if stdout or stderr cannot be written."""
    watch_output()
    code: Any = 0
    try:
        app()
    except SystemExit as ended:
        code = ended.code
    failure = output_failure()
    if isinstance(failure, BrokenPipeError):
        print_error("the output was closed before all of it was written")
        code = EXIT_CLOSED_PIPE
    elif failure is not None:
        print_error(f"the output could not be written: {reason(failure)}")
        code = EXIT_USER
    sys.exit(code)


def exit_if_output_failed() -> None:
    """End the command if its results could not be written."""
    if output_failure() is not None:
        raise typer.Exit(EXIT_USER)


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose errors become one sentence on stderr and an exit code; ``--debug`` also shows the traceback.

    For its options see :mod:`pengi.cli.groups`.
    """
    command = expanded(command)

    @functools.wraps(command)
    def run(**options: Any) -> None:
        debug = options["debug"]
        _log_to_stderr(debug)
        try:
            command(**options)
        except (typer.Exit, typer.Abort):
            raise
        except KeyboardInterrupt as error:
            raise typer.Exit(EXIT_INTERRUPTED) from error
        except Exception as error:
            if debug:
                traceback.print_exc()
            sentence = _users_mistake(error)
            if sentence is None:
                hint = "" if debug else "; run it again with --debug for the traceback"
                print_error(f"internal error ({type(error).__name__}: {first_line(error)}){hint}")
                raise typer.Exit(EXIT_INTERNAL) from error
            print_error(sentence)
            raise typer.Exit(EXIT_USER) from error

    return run


def _users_mistake(error: Exception) -> str | None:
    """The message of an error in the arguments or files; None for an error of this program."""
    if isinstance(error, PengiError):
        return str(error)
    file = getattr(error, "filename", None)
    if is_disk_full(error):
        return unwritten(file, error) if file else reason(error)
    if isinstance(error, OSError) and file:
        return f"'{file}' cannot be used: {reason(error)}"
    return None


def print_text(*renderables: RenderableType) -> None:
    """Print results for people on stdout; lines are wrapped only if stdout is a terminal."""
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = _UNLIMITED_COLUMNS
    for renderable in renderables:
        console.print(renderable)
    exit_if_output_failed()


def print_json(value: object) -> None:
    """Print one JSON document on stdout."""
    sys.stdout.write(_as_json(value, indent=2) + "\n")
    exit_if_output_failed()


def print_result(value: object, text: str, *, as_json: bool) -> None:
    """Print a result on stdout: as one JSON document, or as a line for people."""
    if as_json:
        print_json(value)
    else:
        print_text(Text(text))


def print_json_line(value: object) -> None:
    """Print one JSON object as a line on stdout and flush it, for programs that read results as they arrive."""
    sys.stdout.write(_as_json(value) + "\n")
    sys.stdout.flush()
    exit_if_output_failed()


def _as_json(value: object, indent: int | None = None) -> str:
    """JSON text; characters that the encoding of stdout lacks are escaped."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    return text if can_encode(text, sys.stdout) else json.dumps(value, allow_nan=False, indent=indent)


def print_error(sentence: str) -> None:
    """Print one sentence on stderr."""
    stderr().print(Text.assemble(("error: ", "bold red"), sentence), soft_wrap=True)


def print_note(sentence: str) -> None:
    """Print a remark on stderr."""
    stderr().print(Text(sentence, style="dim"), soft_wrap=True)


@contextmanager
def announced(label: str) -> Iterator[None]:
    """Show ``label`` on stderr, if it is a terminal, while the context is active.

    The line is not redrawn: other output, such as the bar of a download, replaces it.
    """
    if sys.stderr.isatty():
        sys.stderr.write(f"{label} …\r")
        sys.stderr.flush()
    try:
        yield
    finally:
        if sys.stderr.isatty():
            sys.stderr.write("\x1b[2K")
            sys.stderr.flush()


class Waiting:
    """A progress bar on a terminal's stderr; it is not shown inside :meth:`hidden`."""

    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar = bar
        self._task = task

    def advance(self, count: int) -> None:
        self._bar.advance(self._task, count)

    def reach(self, done: float, total: float | None, text: str = "") -> None:
        """Set the bar to ``done``, with a total that may be unknown; ``text`` is shown after it."""
        self._bar.update(self._task, completed=done, total=total, text=text)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Hide the bar while results are printed: stdout and stderr may be the same terminal."""
        self._bar.stop()
        try:
            yield
        finally:
            self._bar.start()


@contextmanager
def progress(label: str, total: int | None = None) -> Iterator[Waiting]:
    """A bar (without ``total`` a spinner) on stderr, if it is a terminal."""
    columns = [BarColumn(), MofNCompleteColumn()] if total is not None else [SpinnerColumn()]
    with _bar(label, total, [*columns, TimeElapsedColumn()]) as waiting:
        yield waiting


@contextmanager
def percentage(label: str) -> Iterator[Waiting]:
    """A bar with a percentage and the text of :meth:`Waiting.reach`; without a total only the text."""
    columns = [BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[text]}", markup=False)]
    with _bar(label, None, columns) as waiting:
        yield waiting


@contextmanager
def _bar(label: str, total: int | None, columns: Sequence[ProgressColumn]) -> Iterator[Waiting]:
    with bar_on_stderr(*columns) as bar:
        yield Waiting(bar, bar.add_task(label, total=total, text=""))


def _log_to_stderr(debug: bool) -> None:
    """Print the log of the package: messages of progress, and all others with ``--debug``."""
    log = logging.getLogger("pengi")
    log.setLevel(logging.DEBUG if debug else logging.INFO)
    if not log.handlers:
        log.addHandler(_StderrHandler())


class _StderrHandler(logging.Handler):
    """Writes to the current ``sys.stderr``, since an earlier one may be closed."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)  # noqa: T201
