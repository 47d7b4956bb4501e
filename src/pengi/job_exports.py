"""Converts rows of jobs to files in other formats, and reads tables of events.

:mod:`pengi.jobs` writes one row for each recording; here each of its events becomes a row of :mod:`pengi.exports`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pengi.data.arrow import arrow
from pengi.errors import InputError
from pengi.exports import COLUMNS, Row, Target, opened, rows_of_record

TASKS_WITH_TIMES = ("describe", "tags", "timeline", "transcribe")


def rows_of_job(task: str, row: Mapping[str, Any]) -> list[Row]:
    """The rows of one row of a job, see :mod:`pengi.jobs.tasks`; none of a recording that could not be read."""
    path, duration_s = row["input"], row.get("duration_s")
    if row["error"] is not None:
        return []
    if task in ("timeline", "transcribe", "tags"):
        return rows_of_record(path, row)
    start_s = None if duration_s is None else 0.0
    if task == "describe":
        return [Row(path, start_s, duration_s, row["text"])]
    scores = row["scores"] if task == "events" else row["scores"][:1]
    return [Row(path, start_s, duration_s, score["label"], score["score"]) for score in scores]


def export_job(out: Path, task: str, target: Target) -> None:
    """Write the rows of a job in another format.

    Args:
        out: the file of the job, ``.jsonl`` or ``.parquet``.
        task: of the job.
        target: where its rows go.

    Raises:
        InputError: as :func:`check_task` and :func:`opened`.
    """
    from pengi.jobs import tables
    from pengi.json_lines import JsonLines

    def rows() -> Iterator[dict[str, Any]]:
        written = tables.read_rows(out) if out.suffix == ".parquet" else JsonLines(out)
        # A recording with an error gets no file: a file without rows would mean that nothing was found.
        yield from (row for row in written if row is not None and not row["error"])

    check_task(task, target)
    names = [row["input"] for row in rows()] if target.is_folder or not target.format.holds_many else []
    with opened(target, names) as export:
        for row in rows():
            export.add(row["input"], rows_of_job(task, row), partial(_duration_s, row))


def check_task(task: str, target: Target) -> None:
    """Check that rows of a job can be written in a format.

    Raises:
        InputError: if they cannot.
    """
    if task == "embed":
        raise InputError("vectors cannot be written with --export; they are in the file of --out")
    if target.format.is_timed and task not in TASKS_WITH_TIMES:
        raise InputError(f"the format '{target.format.name}' needs times, which '{task}' does not give; use csv")


def _duration_s(row: Mapping[str, Any]) -> float:
    return row.get("duration_s") or 0.0


def read_rows(path: Path) -> list[Row]:
    """The rows of a CSV, JSON lines or Parquet file with the columns :data:`COLUMNS`, or with the rows of a job.

    Raises:
        InputError: if it cannot be read, or a row has no path, label or times.
    """
    try:
        found = list(_records(path))
    except FileNotFoundError as error:
        raise InputError(f"there is no file '{path}'") from error
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"'{path}' cannot be read as a table of events") from error
    rows: list[Row] = []
    for number, record in enumerate(found, start=1):
        try:
            rows += _table_rows(record)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"'{path}', row {number}: a row needs {', '.join(COLUMNS[:-1])}") from error
    return rows


def _records(path: Path) -> Iterator[dict[str, Any]]:
    suffix = path.suffix.lower()
    if suffix == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from csv.DictReader(file, strict=True)
    elif suffix == ".parquet":
        arrow()
        import pyarrow.parquet as pq

        yield from pq.read_table(path).to_pylist()
    elif suffix == ".jsonl":
        for line in path.read_text(encoding="utf-8").split("\n"):
            if line.strip():
                yield json.loads(line)
    else:
        raise InputError(f"a table of events ends in .csv, .jsonl or .parquet, and '{path}' does not")


def _table_rows(record: Mapping[str, Any]) -> list[Row]:
    for task, column in (("timeline", "segments"), ("transcribe", "transcript"), ("tags", "tags")):
        if column in record:
            return rows_of_job(task, record)
    confidence = record.get("confidence")
    return [
        Row(
            path=str(record["path"]),
            start_s=float(record["start_s"]),
            end_s=float(record["end_s"]),
            label=str(record["label"] or ""),
            confidence=float(confidence) if confidence not in (None, "") else None,
        )
    ]
