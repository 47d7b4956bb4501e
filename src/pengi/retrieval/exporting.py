"""Exports an index as a file: its windows with texts, tags and vectors, for NumPy, pandas and other readers of Parquet.

Shape suffixes: N windows, D features.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pengi.data.arrow import arrow
from pengi.errors import InputError
from pengi.retrieval.table import RecordingsTable
from pengi.writing import replacing

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".parquet", ".npz")
PLAIN = ("path", "start_s", "end_s", "duration_s", "text", "tags")


def export(table: RecordingsTable, out: Path) -> int:
    """Write all windows of an index, and return their number.

    A Parquet file has a row for each window; its vectors are lists of float32. An ``.npz`` file has an array for each
    column; vectors are ``float32[N, D]``, tags are joined by commas. It is assembled in memory.

    Raises:
        InputError: for another suffix, a file that cannot be written, or a damaged index.
    """
    if out.suffix not in SUFFIXES:
        raise InputError(f"an index is exported to a file that ends in {' or '.join(SUFFIXES)}, and '{out}' does not")
    with replacing(out) as partial:
        return _write_parquet(table, partial) if out.suffix == ".parquet" else _write_npz(table, partial)


def _batches(table: RecordingsTable) -> Iterator[tuple[pa.RecordBatch, dict[str, NDArray[np.float32]]]]:
    """Windows, and their vectors ``float32[N, D]`` by column."""
    for batch in table.batches([*PLAIN, *table.info.dims]):
        yield batch, {name: vectors_of(batch[name], dim) for name, dim in table.info.dims.items()}


def vectors_of(column: pa.Array, dim: int) -> NDArray[np.float32]:
    """Vectors ``float32[N, D]`` of a column, without their padding of zeros."""
    stored = column.type.list_size
    values: NDArray[np.float32] = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, stored)[:, :dim]
    return values.astype(np.float32)


def _write_parquet(table: RecordingsTable, out: Path) -> int:
    pa = arrow()
    import pyarrow.parquet as pq

    vectors = [(name, pa.list_(pa.float32())) for name in table.info.dims]
    times = [(name, pa.float64()) for name in ("start_s", "end_s", "duration_s")]
    texts = [("text", pa.string()), ("tags", pa.list_(pa.string()))]
    schema = pa.schema([("path", pa.string()), *times, *texts, *vectors])
    count = 0
    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        for batch, found in _batches(table):
            columns = {name: batch[name] for name in PLAIN} | {name: list(rows) for name, rows in found.items()}
            writer.write_table(pa.table(columns, schema=schema))
            count += batch.num_rows
    return count


def _write_npz(table: RecordingsTable, out: Path) -> int:
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in (*PLAIN, *table.info.dims)}
    for batch, found in _batches(table):
        for name in PLAIN:
            values = batch[name].to_pylist()
            parts[name].append(np.array([", ".join(tags) for tags in values] if name == "tags" else values))
        for name, rows in found.items():
            parts[name].append(rows)
    arrays = {name: np.concatenate(values) if values else np.zeros(0) for name, values in parts.items()}
    save: Any = np.savez_compressed
    with out.open("wb") as file:
        save(file, **arrays)
    return len(arrays["path"])
