"""Rows as a Parquet file (extra ``jobs``), read and written a few thousand at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pengi import writing
from pengi.data.arrow import arrow
from pengi.errors import InputError
from pengi.jobs.tasks import JOB_TASKS, ROW_COLUMNS
from pengi.json_lines import Row

ROWS_AT_ONCE = 2_000


def schema_of(task: str) -> Any:
    """The ``pyarrow.Schema`` of a task's rows."""
    pa = arrow()
    line = [("start_s", pa.float64()), ("end_s", pa.float64()), ("text", pa.string())]
    segment = pa.struct([*line, ("confidence", pa.float64())])
    span = pa.list_(pa.float64())
    tag = pa.struct(
        [("label", pa.string()), ("group", pa.string()), ("probability", pa.float64()), ("spans", pa.list_(span))]
    )
    types = {
        "input": pa.string(),
        "text": pa.string(),
        "scores": pa.list_(pa.struct([("label", pa.string()), ("score", pa.float64())])),
        "seconds": pa.float64(),
        "error": pa.string(),
        "notes": pa.list_(pa.string()),
        "duration_s": pa.float64(),
        "generated": pa.string(),
        "tags": pa.list_(tag),
        "vector": pa.list_(pa.float32()),
        "segments": pa.list_(segment),
        "transcript": pa.list_(pa.struct(line)),
    }
    return pa.schema([(name, types[name]) for name in ROW_COLUMNS + JOB_TASKS[task].columns])


def read_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """The rows of a file, or some of their columns.

    Raises:
        InputError: if it is not a Parquet file of a job.
    """
    pa = arrow()
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=None if columns is None else list(columns)):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"'{path}' cannot be read as a Parquet file; choose another file") from error


class ParquetRows:
    """A Parquet file that is being written."""

    def __init__(self, writer: Any, schema: Any) -> None:
        self._writer = writer
        self._schema = schema
        self._waiting: list[Row] = []

    def write(self, row: Row) -> None:
        """Add a row."""
        self._waiting.append(row)
        if len(self._waiting) == ROWS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Write the rows that were added."""
        self._writer.write_table(arrow().Table.from_pylist(self._waiting, schema=self._schema))
        self._waiting.clear()


@contextmanager
def parquet_rows(path: Path, schema: Any) -> Iterator[ParquetRows]:
    """A new Parquet file with the columns of a ``pyarrow.Schema``."""
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        rows = ParquetRows(writer, schema)
        yield rows
        rows.flush()


@contextmanager
def replacing_table(path: Path, task: str) -> Iterator[ParquetRows]:
    """A new table that replaces ``path`` at the end; after an error it is deleted. ``path`` may be read meanwhile.

    Raises:
        InputError: if ``pyarrow`` is not installed, or the file cannot be written.
    """
    schema = schema_of(task)
    with writing.replacing(path) as partial:
        with parquet_rows(partial, schema) as table:
            yield table
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
