"""A loaded model and a list of files: what every command that listens to recordings does with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import typer
from rich.text import Text

from pengi.cli.console import EXIT_USER, announced, progress, say, say_error, say_json
from pengi.errors import PengiError

if TYPE_CHECKING:
    from pengi.decoding import DecodeOptions
    from pengi.engine import Pengi

# Files per call of the engine: results of a long list appear, and its progress bar moves, this often.
FILES_PER_CALL = 16


class Result(Protocol):
    """What an engine returns for one recording."""

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values."""


R = TypeVar("R", bound=Result)
T = TypeVar("T")


def load_model(name: str, device: str) -> Pengi:
    """The engine; it and torch are imported here, not with the command line.

    Raises:
        PengiError: unknown model, incomplete checkpoint, unknown device, weights that cannot be fetched.
    """
    with announced(f"Loading {name}"):
        from pengi.engine import Pengi

        return Pengi.from_pretrained(name, device=device)


def decode_options(**given: int | float | None) -> DecodeOptions | None:
    """Options of a search from those the user gave; none means the model's own.

    Raises:
        InputError: if a value is out of range.
    """
    from pengi.decoding import DecodeOptions

    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return DecodeOptions(**chosen) if chosen else None


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Consecutive parts of at most ``size`` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def over_files(
    files: Sequence[Path],
    work: Callable[[list[Path]], Sequence[R | PengiError]],
    show: Callable[[R], None],
    *,
    as_json: bool,
) -> None:
    """Do ``work`` on all files and print what it gives; a bad file is an error entry and the rest goes on.

    JSON is one object for one file and one list, in the order of the files, for many; an entry is the result with the
    file's name as ``input``, or ``{"input": ..., "error": ...}``. Every error is a sentence on stderr as well.

    Raises:
        typer.Exit: with code 2 after all files if any failed.
    """
    entries: list[dict[str, Any]] = []
    failed = 0
    with progress("Listening", len(files) if len(files) > 1 else None) as waiting:
        for part in chunks(files, FILES_PER_CALL):
            outcomes = work(list(part))
            waiting.advance(len(part))
            with waiting.hidden():
                for file, outcome in zip(part, outcomes, strict=True):
                    if isinstance(outcome, PengiError):
                        failed += 1
                        say_error(sentence_about(file, outcome))
                        entries.append({"input": str(file), "error": str(outcome)})
                    elif as_json:
                        entries.append({"input": str(file), **outcome.to_dict()})
                    else:
                        if len(files) > 1:
                            say(Text(str(file), style="bold"))
                        show(outcome)
    if as_json:
        say_json(entries if len(files) > 1 else entries[0])
    finish(failed, len(files))


def sentence_about(file: Path, error: PengiError) -> str:
    """The message of an error, with the file's name if it does not say it itself."""
    message = str(error)
    return message if str(file) in message else f"{file}: {message}"


def finish(failed: int, total: int) -> None:
    """Exit with code 2 if any file failed."""
    if not failed:
        return
    if total > 1:
        say_error(f"{failed} of {total} files could not be used")
    raise typer.Exit(EXIT_USER)


def clock(seconds: float, *, tenths: bool) -> str:
    """A time as mm:ss, with tenths of a second if asked for, and hours if there are any."""
    total_tenths = math.floor(seconds * 10 + 0.5)
    minutes, rest = divmod(total_tenths, 600)
    hours, minutes = divmod(minutes, 60)
    second = f"{rest / 10:04.1f}" if tenths else f"{rest // 10:02d}"
    return f"{hours:d}:{minutes:02d}:{second}" if hours else f"{minutes:02d}:{second}"
