"""``--format`` and ``--out``: results as files that other programs open."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from pengi.cli.console import exit_if_output_failed, print_note
from pengi.errors import InputError, PengiError

if TYPE_CHECKING:
    from pengi.exports import Export, Row, Target


@dataclass(frozen=True)
class OutputOptions:
    """Where rows go, and in which format."""

    panel: ClassVar = "Output"

    format: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT",
            help="Write rows in this format: csv, jsonl, parquet, audacity, raven, vtt, srt or rttm.",
            show_default="by the suffix of --out",
        ),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="File for the rows of all recordings, or folder for one file each. Settings are written beside them.",
            show_default="stdout",
        ),
    ] = None

    def target(self, *, as_json: bool) -> Target | None:
        """The target of rows; None if results are printed for people or as one JSON document.

        Raises:
            InputError: as :meth:`pengi.exports.Target.of`, or with ``--json``.
        """
        from pengi.exports import Target

        target = Target.of(self.format, self.out)
        if target is not None and as_json:
            raise InputError("--json prints one document, and --format and --out write rows; leave one of them out")
        if target is not None and target.path is not None and not target.is_folder:
            check_target(target.path)
        return target


@dataclass
class Output:
    """Writes the rows of a command's recordings, and collects information about each recording for the settings."""

    export: Export
    is_printed: bool = False
    """Whether rows go to standard output."""
    records: list[dict[str, Any]] = field(default_factory=list)

    def add(self, name: str, rows: Iterable[Row], duration_s: Callable[[], float]) -> None:
        """Write the rows of a recording; if there are none, print a note."""
        written = self.export.add(name, rows, duration_s)
        self.records.append({"path": name, "duration_s": round(duration_s(), 3), "rows": written})
        if not written:
            print_note(f"{name}: nothing was found")

    def add_result(self, name: str, result: Any) -> None:
        """Write the rows of a result."""
        from pengi.exports import rows_of

        self.add(name, rows_of(name, result), lambda: result.duration_s)

    def error(self, name: str, error: PengiError) -> None:
        """Store that a recording could not be read."""
        self.records.append({"path": name, "error": str(error)})


@contextmanager
def opened_output(
    target: Target | None, names: Sequence[str], settings: Mapping[str, Any], model: str | None = None
) -> Iterator[Output | None]:
    """Writes the rows of recordings, and at the end the settings; None without a target.

    Args:
        target: where rows go.
        names: of the recordings.
        settings: all that the results depend on besides the model.
        model: its name or folder.

    Raises:
        InputError: as :func:`pengi.exports.opened`.
    """
    if target is None:
        yield None
        return
    from pengi import __version__
    from pengi.checkpoint import model_hash
    from pengi.exports import opened, write_settings
    from pengi.writing import writing

    if target.is_folder and target.path is not None:
        # Before the work, since its results would be lost.
        with writing(target.path):
            target.path.mkdir(parents=True, exist_ok=True)
    with opened(target, names, _Stdout()) as export:
        output = Output(export, target.path is None)
        failed: typer.Exit | None = None
        try:
            yield output
        except typer.Exit as error:
            if export.is_empty and all("error" in record for record in output.records):
                raise  # no recording could be read: the files of an earlier run stay
            failed = error  # the rows of the others are written
    about = {} if model is None else {"model": model, "model_sha256": model_hash(model)}
    plain = {name: value for name, value in settings.items() if value is not None}
    write_settings(target, {"pengi": __version__, **about, "settings": plain, "recordings": output.records})
    if failed is not None:
        raise failed


def check_target(out: Path, suffix: str | None = None) -> None:
    """Check, before the work begins, that a file can be written.

    Raises:
        InputError: if the suffix is not ``suffix``, the path is a folder, or its folder is missing or not writable.
    """
    if suffix is not None and out.suffix != suffix:
        raise InputError(f"--out must end in {suffix}, and '{out}' does not")
    if out.is_dir():
        raise InputError(f"--out '{out}' is a folder; name a file")
    if not out.parent.is_dir():
        raise InputError(f"there is no folder '{out.parent}' to write '{out.name}' into")
    if not os.access(out.parent, os.W_OK):
        raise InputError(f"the folder '{out.parent}' cannot be written")


class _Stdout:
    """Standard output, which ends the command once its reader has closed it."""

    def write(self, text: str) -> int:
        return sys.stdout.write(text)

    def flush(self) -> None:
        exit_if_output_failed()
