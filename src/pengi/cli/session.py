"""The common work of commands that read recordings: load the model, process the files, print results and errors."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import typer
from rich.text import Text

from pengi.audio.formats import STDIN
from pengi.batching import batched
from pengi.cli.console import EXIT_USER, announced, print_error, print_json, print_note, print_text, progress
from pengi.cli.inputs import InputFile, InputFiles, InputSource
from pengi.cli.options import AUTO
from pengi.errors import PengiError

if TYPE_CHECKING:
    from pengi.cli.exporting import Output
    from pengi.engine import Pengi
    from pengi.results import RecordingResult

# Files in one call of the engine, after which results are shown and the progress bar moves.
FILES_PER_CALL = 16


R = TypeVar("R", bound="RecordingResult")
T = TypeVar("T")


def load_model(name: str, device: str, *, generates: bool = False) -> Pengi:
    """Load the engine. It is imported here with torch, so that other commands start quickly.

    Args:
        name: of the model.
        device: as ``--device`` says.
        generates: whether the command always generates text; then the language model is loaded in parallel.

    Raises:
        PengiError: for an unknown model or device, an incomplete checkpoint, or weights that cannot be fetched.
    """
    with announced(f"Loading {name}"), _without_garbage_collection():
        if generates and _is_cpu(device):
            from pengi.runtime.sessions import open_ahead

            open_ahead()
        from pengi.engine import Pengi

        return Pengi.from_pretrained(name, device=device)


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Turn off garbage collection: it takes a tenth of the loading time and finds nothing among the imported
    objects."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _is_cpu(device: str) -> bool:
    """Whether the language model will probably run in onnxruntime; a guess without importing torch."""
    from pengi.runtime import RUNTIME_ENV

    if os.environ.get(RUNTIME_ENV) == "torch" or sys.platform == "darwin":
        return False
    return device == "cpu" or (device == AUTO and not any(map(shutil.which, ("nvidia-smi", "rocm-smi"))))


class Report:
    """The output of a command: results of each recording on stdout, errors on stderr, JSON at the end.

    JSON is one object for a single file, and a list in the order of the files for several. An entry is the result with
    the file's name as ``input``, or ``{"input": ..., "error": ...}``. Every error is also printed as a sentence on
    stderr. With an ``output``, rows are written there instead. Notes in ``printed`` are not printed again.
    """

    def __init__(
        self, recordings: InputFiles, *, as_json: bool, output: Output | None = None, printed: Collection[str] = ()
    ) -> None:
        self._recordings = recordings
        self._as_json = as_json
        self._output = output
        self._printed = printed
        self._entries: list[dict[str, object]] = []
        self._failed = 0

    def heading(self, name: str) -> None:
        """Print the name of a recording above its results, if there are several recordings."""
        if self._recordings.many and not self._as_json:
            print_text(Text(name, style="bold"))

    def result(self, name: str, result: RecordingResult) -> None:
        """Store a result for JSON, and print its notes on stderr."""
        for note in result.notes:
            if note not in self._printed:
                print_note(with_name(name, note))
        if self._as_json:
            self._entries.append({"input": name, **result.to_dict()})

    def error(self, name: str, error: PengiError) -> None:
        """Print an error, and store it for JSON."""
        self._failed += 1
        print_error(with_name(name, error))
        if self._output is not None:
            self._output.error(name, error)
        if self._as_json:
            self._entries.append({"input": name, "error": str(error)})

    def close(self) -> None:
        """Print the JSON if it was requested.

        Raises:
            typer.Exit: with code 2 if any recording failed.
        """
        if self._as_json:
            print_json(self._entries if self._recordings.many else self._entries[0])
        finish(self._failed, len(self._recordings.items))


def over_files(
    recordings: InputFiles,
    work: Callable[[list[InputSource]], Sequence[R | PengiError]],
    show: Callable[[R], None],
    *,
    as_json: bool,
    output: Output | None = None,
    introduce: Callable[[InputFile], None] | None = None,
) -> None:
    """Apply ``work`` to all recordings, and print the results or write their rows to ``output``. A bad recording gives
    an error entry, and the others are processed. ``introduce`` prints something above the result of a recording.

    Raises:
        typer.Exit: with code 2 after all recordings if any failed.
    """
    report = Report(recordings, as_json=as_json, output=output)
    with progress("Reading", len(recordings.items) if len(recordings.items) > 1 else None) as waiting:
        for part in batched(recordings.items, FILES_PER_CALL):
            outcomes = outcomes_of(part, work)
            waiting.advance(len(part))
            with waiting.hidden():
                for recording, outcome in zip(part, outcomes, strict=True):
                    if isinstance(outcome, PengiError):
                        report.error(recording.name, outcome)
                        continue
                    report.result(recording.name, outcome)
                    if output is not None:
                        output.add_result(recording.name, outcome)
                    elif not as_json:
                        report.heading(recording.name)
                        if introduce is not None:
                            introduce(recording)
                        show(outcome)
    report.close()


def outcomes_of(part: Sequence[InputFile], work: Callable[[list[InputSource]], Sequence[T]]) -> list[T | PengiError]:
    """The result of ``work`` for each recording, or its error if that is already known."""
    readable = [recording.source for recording in part if recording.error is None]
    results = iter(work(readable) if readable else ())
    return [next(results) if recording.error is None else recording.error for recording in part]


def with_name(name: str, sentence: object) -> str:
    """An error or a note, with the file's name in front if it does not contain it."""
    message = str(sentence)
    return message if name in message or name == STDIN else f"{name}: {message}"


def finish(failed: int, total: int) -> None:
    """Exit with code 2 if any file failed."""
    if not failed:
        return
    if total > 1:
        print_error(f"{failed} of {total} files could not be used")
    raise typer.Exit(EXIT_USER)
