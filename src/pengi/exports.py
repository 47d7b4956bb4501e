"""Results as rows, and rows as files that other programs open: tables, label tracks, subtitles.

Results of every kind become rows with the same columns (:data:`COLUMNS`). :data:`FORMATS` lists the formats: the header
of a file, and how a row is written.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, astuple, dataclass, fields, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pengi.audio.formats import STDIN, without_audio_suffix
from pengi.data.arrow import arrow
from pengi.errors import InputError, no_such
from pengi.results import Tags, Timeline, Transcript
from pengi.writing import printable, replacing, writing

if TYPE_CHECKING:
    from pengi.jobs.tables import ParquetRows
    from pengi.retrieval import Hit

HIGHEST_HZ = 8_000
"""Upper edge of a selection in Raven; pengi-mini reads no higher frequencies."""
SETTINGS_FILE = "pengi-settings.json"


@dataclass(frozen=True)
class Row:
    """Something that was found in a stretch of a recording.

    Attributes:
        path: of the recording, as it was given.
        start_s: in seconds; None if the row is about the whole recording and its length is not known.
        end_s: in seconds, or None.
        label: an event, a tag, a sentence, or another text.
        confidence: in [0, 1], or a score; None if there is none.
    """

    path: str
    start_s: float | None
    end_s: float | None
    label: str
    confidence: float | None = None


COLUMNS = tuple(field.name for field in fields(Row))


class Text(Protocol):
    """A file, or another object, that text is written to."""

    def write(self, text: str, /) -> int: ...
    def flush(self) -> None: ...


def rows_of(path: str, result: Timeline | Tags | Transcript) -> list[Row]:
    """The rows of a result, in order of time; a tag has a row for each of its spans."""
    return rows_of_record(path, result.to_dict())


def rows_of_record(path: str, record: Mapping[str, Any]) -> list[Row]:
    """The rows of a result as JSON values, in order of time.

    Args:
        path: of the recording.
        record: a dictionary with ``tags`` and ``duration_s``, with ``segments``, or with ``transcript`` (the segments
            of a transcript, in the row of a job).
    """
    if "tags" in record:
        full_span = ((0.0, record.get("duration_s")),)
        found = [
            Row(path, start_s, end_s, tag["label"], tag["probability"])
            for tag in record["tags"]
            for start_s, end_s in tag["spans"] or full_span
        ]
    else:
        segments = record["segments"] if "segments" in record else record["transcript"]
        found = [segment_row(path, segment) for segment in segments]
    return _in_order(found)


def segment_row(path: str, segment: Mapping[str, Any]) -> Row:
    """The row of a segment of a timeline or transcript, given as JSON values."""
    return Row(path, segment["start_s"], segment["end_s"], segment["text"], segment.get("confidence"))


def rows_of_hits(hits: Iterable[Hit]) -> list[Row]:
    """The rows of a search, the best first."""
    return [Row(hit.path, hit.start_s, hit.end_s, hit.text, hit.score) for hit in hits]


def _in_order(rows: Iterable[Row]) -> list[Row]:
    """Rows sorted by start; rows that start together are sorted by confidence, the highest first."""
    return sorted(rows, key=lambda row: (row.start_s or 0.0, -(row.confidence or 0.0)))


@dataclass(frozen=True)
class Format:
    """How rows are written as text.

    Attributes:
        name: as on the command line.
        suffix: extension of its files.
        header: text above the rows. Without a header, a file without rows would be empty, and many programs take an
            empty file for a broken one; so it is not written.
        line: gives the text of a row; its other arguments are the row's number, from 1, and the total length in seconds
            of the recordings before it.
        holds_many: whether one file can hold the rows of several recordings.
        is_timed: whether a row needs times.
        is_ordered: whether rows must be in order of time; then none is written before all are known.
        is_text: whether it can be printed; rows of Parquet are written as columns, and not by ``line``.
    """

    name: str
    suffix: str
    header: str
    line: Callable[[Row, int, float], str]
    holds_many: bool = True
    is_timed: bool = True
    is_ordered: bool = True
    is_text: bool = True

    @property
    def keeps_empty(self) -> bool:
        """Whether programs can read a file without rows."""
        return bool(self.header) or not self.is_text


def _csv_line(values: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def _csv(row: Row, number: int, offset_s: float) -> str:
    return _csv_line(["" if value is None else value for value in astuple(row)])


def _json(row: Row, number: int, offset_s: float) -> str:
    return json.dumps(asdict(row), ensure_ascii=False, allow_nan=False) + "\n"


def _audacity(row: Row, number: int, offset_s: float) -> str:
    return f"{row.start_s:.6f}\t{row.end_s:.6f}\t{_one_line(row.label)}\n"


_RAVEN = (
    "Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)", "Begin Path",
    "File Offset (s)", "Label", "Confidence",
)  # fmt: skip


def _raven(row: Row, number: int, offset_s: float) -> str:
    assert row.start_s is not None
    assert row.end_s is not None
    times = (f"{offset_s + row.start_s:.3f}", f"{offset_s + row.end_s:.3f}")
    confidence = "" if row.confidence is None else f"{row.confidence:.4f}"
    values = (number, "Spectrogram 1", 1, *times, 0, HIGHEST_HZ, _one_line(row.path), f"{row.start_s:.3f}")
    return "\t".join(map(str, (*values, _one_line(row.label), confidence))) + "\n"


def _webvtt(row: Row, number: int, offset_s: float) -> str:
    text = _one_line(row.label).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"\n{_cue_times(row, '.')}\n{text}\n"


def _srt(row: Row, number: int, offset_s: float) -> str:
    gap = "" if number == 1 else "\n"
    return f"{gap}{number}\n{_cue_times(row, ',')}\n{_one_line(row.label).replace('-->', '->')}\n"


def _cue_times(row: Row, point: str) -> str:
    """Start and end of a cue, which is at least a millisecond long."""
    start = round(1_000 * (row.start_s or 0.0))
    end = max(round(1_000 * (row.end_s or 0.0)), start + 1)
    return f"{_cue_time(start, point)} --> {_cue_time(end, point)}"


def _cue_time(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1_000)
    return f"{seconds // 3_600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{point}{rest:03d}"


def _rttm(row: Row, number: int, offset_s: float) -> str:
    assert row.start_s is not None
    assert row.end_s is not None
    confidence = "<NA>" if row.confidence is None else f"{row.confidence:.4f}"
    file = _one_word(without_audio_suffix(os.path.basename(row.path)))  # noqa: PTH119 - a name may be any text
    times = f"{row.start_s:.3f} {row.end_s - row.start_s:.3f}"
    return f"SPEAKER {file} 1 {times} <NA> <NA> {_one_word(row.label)} {confidence} <NA>\n"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _one_word(text: str) -> str:
    return "_".join(text.split()) or "_"


FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        Format("csv", ".csv", _csv_line(COLUMNS), _csv, is_timed=False, is_ordered=False),
        Format("jsonl", ".jsonl", "", _json, is_timed=False, is_ordered=False),
        Format("parquet", ".parquet", "", _json, is_timed=False, is_ordered=False, is_text=False),
        Format("audacity", ".txt", "", _audacity, holds_many=False),
        Format("raven", ".selections.txt", "\t".join(_RAVEN) + "\n", _raven),
        Format("vtt", ".vtt", "WEBVTT\n", _webvtt, holds_many=False),
        Format("srt", ".srt", "", _srt, holds_many=False),
        Format("rttm", ".rttm", "", _rttm),
    )
}


@dataclass(frozen=True)
class Target:
    """Where rows go: a file, a folder with a file for each recording, or standard output.

    Attributes:
        format: of the files.
        path: of the file or the folder; None for standard output.
        is_folder: whether each recording gets a file of its own.
    """

    format: Format
    path: Path | None = None
    is_folder: bool = False

    @classmethod
    def of(cls, format: str | None, out: Path | None) -> Target | None:
        """The target that a user names; None if neither a format nor a file is given.

        A path that is an existing folder, or has no suffix, stands for a folder. If no format is given, the suffix of a
        file names it.

        Raises:
            InputError: for an unknown format, a suffix of no format, or a binary format without a file.
        """
        if format is not None and format not in FORMATS:
            raise InputError(no_such("format", format, FORMATS))
        if out is None:
            if format is not None and not FORMATS[format].is_text:
                raise InputError(f"'{format}' cannot be printed; name a file with --out")
            return None if format is None else cls(FORMATS[format])
        is_folder = out.is_dir() or not out.suffix
        if format is None:
            longest_first = sorted(FORMATS.values(), key=lambda known: -len(known.suffix))
            named = [known for known in longest_first if out.name.lower().endswith(known.suffix)]
            if is_folder or not named:
                raise InputError(f"choose the format of '{out}' with --format: {', '.join(FORMATS)}")
            return cls(named[0], out)
        return cls(FORMATS[format], out, is_folder)

    @property
    def settings_path(self) -> Path | None:
        """The file with the settings of the run; None for standard output."""
        if self.path is None:
            return None
        return self.path / SETTINGS_FILE if self.is_folder else self.path.with_name(f"{self.path.name}.settings.json")


class Export:
    """Writes the rows of recordings, one recording after the other; :func:`opened` makes it.

    Args:
        target: where they go.
        paths: all recordings, so that each gets a file name of its own in a folder.
        stdout: where rows go if there is no file.
        stack: closes what is opened.
    """

    def __init__(self, target: Target, paths: Sequence[str], stdout: Text | None, stack: ExitStack) -> None:
        self._target, self._stdout, self._stack = target, stdout, stack
        self._names = file_names(paths, target.format.suffix) if target.is_folder else {}
        self._file: _TextFile | _ParquetFile | None = None
        self._offset_s = 0.0

    def add(self, path: str, rows: Iterable[Row], duration_s: Callable[[], float] = lambda: 0.0) -> int:
        """Write the rows of a recording, each as soon as it is known if the format allows it.

        Args:
            path: of the recording.
            rows: its rows.
            duration_s: its length in seconds, called after the last row.

        Returns:
            The number of rows.
        """
        format = self._target.format
        found = iter(_in_order(rows) if format.is_ordered else rows)
        first = next(found, None)
        written = 0
        if first is not None:
            written = self._add(path, chain([first], found))
        elif self._target.is_folder:
            self._write_empty(self._file_of(path))
        self._offset_s += duration_s()
        return written

    def _add(self, path: str, rows: Iterator[Row]) -> int:
        if self._target.is_folder:
            file = self._file_of(path)
            with writing(file):
                file.parent.mkdir(parents=True, exist_ok=True)
            with ExitStack() as stack:
                return _written(self._open(file, stack), rows, 0.0)
        if self._file is None:
            self._file = self._open(self._target.path, self._stack)
        return _written(self._file, rows, self._offset_s)

    @property
    def is_empty(self) -> bool:
        """Whether no row was written to the only file."""
        return self._file is None

    def finish(self) -> None:
        """If no row was written, write a file with the header alone, or nothing if the format has no header."""
        if self._file is None and not self._target.is_folder:
            self._write_empty(self._target.path)

    def _file_of(self, path: str) -> Path:
        assert self._target.path is not None
        return self._target.path / self._names[path]

    def _open(self, path: Path | None, stack: ExitStack) -> _TextFile | _ParquetFile:
        if path is None:
            assert self._stdout is not None
            return _TextFile(self._target.format, self._stdout, at_once=True)
        partial = stack.enter_context(replacing(path))
        if not self._target.format.is_text:
            return stack.enter_context(_parquet_file(partial))
        file = stack.enter_context(partial.open("w", encoding="utf-8", errors="backslashreplace", newline=""))
        return _TextFile(self._target.format, file)

    def _write_empty(self, path: Path | None) -> None:
        """Write a file without rows; for a format without a header, remove the file of an earlier run instead."""
        if self._target.format.keeps_empty:
            if path is not None:
                with writing(path):
                    path.parent.mkdir(parents=True, exist_ok=True)
            with ExitStack() as stack:
                self._open(path, stack)
        elif path is not None:
            with writing(path):
                path.unlink(missing_ok=True)


@contextmanager
def opened(target: Target, paths: Sequence[str] = (), stdout: Text | None = None) -> Iterator[Export]:
    """An export to add recordings to; the files appear when the context ends without an error.

    Raises:
        InputError: for several recordings and a file that can hold only one, a package that is not installed, or a file
            that cannot be written.
    """
    if len(paths) > 1 and not (target.format.holds_many or target.is_folder):
        raise InputError(f"a file of the format '{target.format.name}' holds one recording; give a folder with --out")
    if not target.format.is_text:
        arrow()
    with ExitStack() as stack:
        export = Export(target, paths, stdout, stack)
        yield export
        export.finish()


class _TextFile:
    def __init__(self, format: Format, file: Text, *, at_once: bool = False) -> None:
        self._format, self._file, self._at_once, self._count = format, file, at_once, 0
        file.write(format.header)

    def write(self, row: Row, offset_s: float) -> None:
        self._count += 1
        self._file.write(self._format.line(row, self._count, offset_s))
        if self._at_once:
            self._file.flush()


class _ParquetFile:
    def __init__(self, rows: ParquetRows) -> None:
        self._rows = rows

    def write(self, row: Row, offset_s: float) -> None:
        self._rows.write(asdict(row))


@contextmanager
def _parquet_file(path: Path) -> Iterator[_ParquetFile]:
    pa = arrow()
    from pengi.jobs.tables import parquet_rows

    types = {"path": pa.string(), "label": pa.string()}
    schema = pa.schema([(name, types.get(name, pa.float64())) for name in COLUMNS])
    with parquet_rows(path, schema) as rows:
        yield _ParquetFile(rows)


def _written(file: _TextFile | _ParquetFile, rows: Iterable[Row], offset_s: float) -> int:
    count = 0
    for row in rows:
        file.write(_plain(row), offset_s)
        count += 1
    return count


def _plain(row: Row) -> Row:
    """The row with texts that UTF-8 can encode, and numbers without meaningless digits."""
    numbers = {"start_s": row.start_s, "end_s": row.end_s, "confidence": row.confidence}
    rounded = {name: None if value is None else round(value, 4) for name, value in numbers.items()}
    return replace(row, path=printable(row.path), label=printable(row.label), **rounded)


def file_names(paths: Sequence[str], suffix: str) -> dict[str, str]:
    """A file name for each recording, with its subfolders below the folder that all recordings share.

    The suffix replaces the recording's extension, unless two recordings differ only in their extension.
    """
    absolute = {path: os.path.abspath("stdin" if path == STDIN else path) for path in paths}  # noqa: PTH100
    if not absolute:
        return {}
    shared = os.path.commonpath([os.path.dirname(path) for path in absolute.values()])  # noqa: PTH120
    relative = {path: os.path.relpath(name, shared) for path, name in absolute.items()}
    stems = Counter(map(without_audio_suffix, relative.values()))
    return {
        path: (name if stems[without_audio_suffix(name)] > 1 else without_audio_suffix(name)) + suffix
        for path, name in relative.items()
    }


def write_settings(target: Target, settings: Mapping[str, Any]) -> None:
    """Write the settings of the rows to a separate file beside them; nothing for standard output.

    Raises:
        InputError: if it cannot be written.
    """
    path = target.settings_path
    if path is None:
        return
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        text = json.dumps(settings, ensure_ascii=False, allow_nan=False, indent=2)
        partial.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
