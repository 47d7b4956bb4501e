"""The LanceDB table behind a collection: a row for every window of every recording.

All rows of a recording are written, or replaced, in one transaction. So a reader sees a recording either in its old or
in its new state, and a writer that is killed leaves no partial recording.

Shape suffixes: N rows, V tags, D features.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from pengi.batching import batched
from pengi.data.recordings import is_url
from pengi.errors import InputError, PengiError, first_line, how_to_install, is_disk_full, reason

if TYPE_CHECKING:
    import pyarrow as pa

NAME, TAGS_NAME = "recordings", "tags"
INDEX_FORMAT = 2
TEXT, TAGS, AUDIO = "text_vector", "tags_vector", "audio_vector"
DOCUMENT = "document"
ANN_FROM_ROWS = 50_000
"""From this number of rows on, an approximate index is built; below it every vector is compared with the query."""
PROBED = 40
"""Number of partitions that an approximate search reads."""
REFINED = 5
"""An approximate search compares this many times the requested number of rows exactly."""
FRAGMENTS_BEFORE_COMPACTION = 64
KEPT_FOR = timedelta(hours=1)
"""How long a replaced state of the table can still be read."""
_PATHS_PER_STATEMENT = 200
_COPIES_PER_WRITE = 50  # recordings; of hours each, their vectors fill 100 MB
_KEY = b"pengi"
_SHOWN = ("path", "start_s", "end_s", "duration_s", "text", "tags")
_SOURCE_LINE = re.compile(r",? /\S+\.rs:\d+:\d+")
_FAILURES = (OSError, RuntimeError, ValueError)  # errors that LanceDB raises for internal failures


@dataclass(frozen=True)
class IndexInfo:
    """The model and settings of an index; stored in the table's schema."""

    model: str
    fingerprint: str
    """Hash of the weights and the configuration."""
    text_dim: int
    tags_dim: int
    """0 for a model without a tagger."""
    audio_dim: int
    format: int = INDEX_FORMAT

    @property
    def dims(self) -> dict[str, int]:
        """Number of features of each column of vectors."""
        dims = {TEXT: self.text_dim, TAGS: self.tags_dim, AUDIO: self.audio_dim}
        return {column: dim for column, dim in dims.items() if dim}


@dataclass(frozen=True, slots=True)
class Stamp:
    """The state of a recording's file when it was encoded."""

    size: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True)
class Window:
    """The stored data of a stretch of a recording."""

    start_s: float
    end_s: float
    duration_s: float
    text: str
    tags: tuple[str, ...]
    document: str
    """The text for full-text search: the generated text and the likeliest tags, even if they are improbable."""
    vectors: dict[str, NDArray[np.float32]]

    def to_row(self) -> dict[str, Any]:
        """Columns of the table."""
        return {name: value for name, value in vars(self).items() if name != "vectors"} | self.vectors


@dataclass(frozen=True)
class RankedWindow:
    """A row of one ranking."""

    path: str
    start_s: float
    end_s: float
    duration_s: float
    text: str
    tags: tuple[str, ...]

    @property
    def key(self) -> tuple[str, float]:
        """Identifies a window."""
        return self.path, self.start_s


P = ParamSpec("P")
R = TypeVar("R")


def _with_database_errors(
    method: Callable[Concatenate[RecordingsTable, P], R],
) -> Callable[Concatenate[RecordingsTable, P], R]:
    """Let a method of a table turn errors of LanceDB into sentences, see :func:`_database_errors`."""

    @functools.wraps(method)
    def run(self: RecordingsTable, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with _database_errors(self.location):
            return method(self, *args, **kwargs)

    return run


@contextmanager
def _database_errors(location: str) -> Iterator[None]:
    """Turn an error of LanceDB into a sentence that says what to do."""
    try:
        yield
    except PengiError:
        raise
    except Exception as error:  # LanceDB has no class for its errors; `_is_failure` recognises them
        if is_disk_full(error) or not _is_failure(error):
            raise
        raise _unusable(location, error) from error


class RecordingsTable:
    """The table of one index. A recording is written completely or not at all, and any number of processes may read
    while one writes."""

    def __init__(self, database: Any, table: Any, info: IndexInfo) -> None:
        self.location = str(database.uri)
        self._database = database
        self._table = table
        self.info = info

    @classmethod
    def open(cls, location: str) -> RecordingsTable | None:
        """The index at a folder or an object store's URI; None if there is none.

        Raises:
            InputError: if LanceDB is missing, the location cannot be reached, or it is not an index of this kind.
        """
        if not is_url(location) and not Path(location, f"{NAME}.lance").is_dir():
            return None
        database = _connect(location)
        try:
            table = database.open_table(NAME)
        except Exception as error:  # LanceDB has no class for its errors; `_is_failure` recognises them
            if not _is_failure(error):
                raise
            if "not found" in str(error).lower():  # also if its creation was interrupted
                return None
            raise _unusable(location, error) from error
        stored = (table.schema.metadata or {}).get(_KEY)
        if stored is None:
            raise InputError(f"'{location}' holds a table '{NAME}' that pengi index did not make")
        try:
            values = json.loads(stored)
            if values.get("format") != INDEX_FORMAT:
                raise InputError(f"'{location}' was made by another version of pengi; index the recordings again")
            return cls(database, table, IndexInfo(**{field.name: values[field.name] for field in fields(IndexInfo)}))
        except (ValueError, KeyError, AttributeError) as error:
            raise _unusable(location, error) from error

    @classmethod
    def create(cls, location: str, info: IndexInfo, tags_VD: NDArray[np.float32] | None = None) -> RecordingsTable:
        """A new, empty index.

        Args:
            location: a folder or an object store's URI.
            info: its model and settings.
            tags_VD: sentence embeddings of the tags of ``tags_vector``.

        Raises:
            InputError: if LanceDB is missing or the location cannot be written.
        """
        import pyarrow as pa

        try:
            database = _connect(location)
            if tags_VD is not None:  # first, so that an index never lacks them
                vectors = _fixed_size_lists(tags_VD.astype(np.float32), tags_VD.shape[1])
                database.drop_table(TAGS_NAME, ignore_missing=True)
                database.create_table(TAGS_NAME, data=pa.table({"vector": vectors}))
            table = database.create_table(NAME, schema=_schema(info), exist_ok=True)
        except _FAILURES as error:
            raise InputError(f"no index can be written at '{location}': {_sentence(error)}") from error
        return cls(database, table, info)

    @_with_database_errors
    def prepare(self) -> None:
        """Build the full-text index if it is missing or damaged; called before writing."""
        from lancedb.index import FTS

        if not self._is_text_searchable():
            self._table.create_index(DOCUMENT, config=FTS(), replace=True)

    @_with_database_errors
    def tag_vectors(self) -> NDArray[np.float32]:
        """Sentence embeddings of the tags of ``tags_vector``, ``float32[V, D]``."""
        column = self._database.open_table(TAGS_NAME).to_arrow()["vector"].combine_chunks()
        values: NDArray[np.float32] = column.flatten().to_numpy().reshape(self.info.tags_dim, self.info.text_dim)
        return values

    @_with_database_errors
    def count(self) -> int:
        """Number of windows in the index."""
        return int(self._table.count_rows())

    @_with_database_errors
    def stamps(self) -> dict[str, Stamp]:
        """The stamp of every recording in the index, by path."""
        known = {}
        first_windows = self._table.search().where("start_s = 0").select(["path", "size", "mtime_ns", "sha256"])
        for batch in first_windows.to_batches(8192):
            for row in batch.to_pylist():
                known[row["path"]] = Stamp(row["size"], row["mtime_ns"], row["sha256"])
        return known

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All windows with these columns, a few thousand at a time.

        Raises:
            InputError: if the index is damaged, while iterating.
        """
        with _database_errors(self.location):
            yield from self._table.search().select(list(columns)).to_batches(8192)

    @_with_database_errors
    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write recordings that are not in the index."""
        if rows:
            self.add_columns(_columns(rows))

    @_with_database_errors
    def add_columns(self, columns: Mapping[str, Sequence[Any] | NDArray[Any]]) -> None:
        """As :meth:`add`, for rows that are given column by column."""
        self._table.add(self._arrow(columns))

    @_with_database_errors
    def replace(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replace the rows of recordings, in one transaction."""
        if rows:
            self._replace(self._arrow(_columns(rows)))

    @_with_database_errors
    def copy(self, copies: Sequence[tuple[str, str, Stamp]]) -> None:
        """Copy the rows of recordings to new paths with the same content, given as (path in the index, new path,
        stamp).

        Existing rows of the new paths are replaced.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        for part in batched(copies, _COPIES_PER_WRITE):
            stored = self._table.search().where(_is_one_of(source for source, _, _ in part)).to_arrow()
            taken = []
            for source, path, stamp in part:
                rows = stored.filter(pc.field("path") == source)
                for name, value in {"path": path, **asdict(stamp)}.items():
                    column = rows.schema.get_field_index(name)
                    rows = rows.set_column(column, rows.schema.field(name), pa.array([value] * len(rows)))
                taken.append(rows)
            self._replace(pa.concat_tables(taken))

    @_with_database_errors
    def restamp(self, stamps: Mapping[str, Stamp]) -> None:
        """Store new times of recordings whose content is the same."""
        import pyarrow as pa

        if stamps:
            columns = {"path": list(stamps), "mtime_ns": [stamp.mtime_ns for stamp in stamps.values()]}
            self._table.merge_insert("path").when_matched_update_all().execute(pa.table(columns))

    @_with_database_errors
    def delete(self, paths: Iterable[str]) -> None:
        """Remove recordings."""
        for part in batched(paths, _PATHS_PER_STATEMENT):
            self._table.delete(_is_one_of(part))

    @_with_database_errors
    def tidy(self, *, finished: bool) -> None:
        """Merge small fragments and update the indexes; if the run is not ``finished``, only if there are many
        fragments."""
        fragments = self._table.stats()["fragment_stats"]["num_small_fragments"]
        if finished or fragments >= FRAGMENTS_BEFORE_COMPACTION:
            self._index_vectors()
            self._table.optimize(cleanup_older_than=KEPT_FOR)

    @_with_database_errors
    def by_words(self, text: str, where: str | None, limit: int) -> list[RankedWindow]:
        """Windows by BM25 of their generated text, the best first.

        Raises:
            InputError: for a filter that is not valid.
        """
        if not self._is_indexed(DOCUMENT):  # a first update was interrupted before it wrote anything
            return []
        return self._run(lambda: self._text_query(text), where, limit, "_score")

    @_with_database_errors
    def by_vector(
        self, column: str, vector_D: NDArray[np.floating[Any]], where: str | None, limit: int, *, exact: bool = False
    ) -> list[RankedWindow]:
        """Windows by the cosine of a vector, the nearest first; ``exact`` compares all windows.

        Raises:
            InputError: for a filter that is not valid.
        """
        padded = np.pad(vector_D.astype(np.float32), (0, _stored_dim(len(vector_D)) - len(vector_D)))

        def query() -> Any:
            nearest = self._table.search(padded, vector_column_name=column).distance_type("cosine")
            return nearest.bypass_vector_index() if exact else nearest.nprobes(PROBED).refine_factor(REFINED)

        return self._run(query, where, limit, "_distance")

    def _run(self, query: Callable[[], Any], where: str | None, limit: int, score: str) -> list[RankedWindow]:
        filtered = query() if where is None else query().where(where, prefilter=True)
        try:
            rows = filtered.select([*_SHOWN, score]).limit(limit).to_list()
        except _FAILURES as error:
            if where is None:
                raise
            query().select([*_SHOWN, score]).limit(limit).to_list()  # also fails if the filter is not the cause
            raise InputError(f"the filter '{where}' cannot be used: {_sentence(error)}") from error
        return [RankedWindow(**{name: row[name] for name in _SHOWN} | {"tags": tuple(row["tags"])}) for row in rows]

    def _index_vectors(self) -> None:
        """Build approximate indexes for the vectors of a table that has become large."""
        from lancedb.index import IvfRq

        if self.count() >= ANN_FROM_ROWS:
            for column in self.info.dims:
                if not self._is_indexed(column):
                    # RaBitQ needs no codebook: built many times faster than product quantisation, with equal recall.
                    self._table.create_index(column, config=IvfRq(distance_type="cosine"))

    def _text_query(self, text: str) -> Any:
        return self._table.search(text, query_type="fts", fts_columns=DOCUMENT)

    def _is_text_searchable(self) -> bool:
        """Whether there is an index of the text, and it can be read."""
        if not self._is_indexed(DOCUMENT):
            return False
        some = self._table.search().select([DOCUMENT]).limit(1).to_list()
        try:
            self._text_query(some[0][DOCUMENT] if some else "a").limit(1).to_list()
        except _FAILURES:
            return False
        return True

    def _is_indexed(self, column: str) -> bool:
        return any(column in index.columns for index in self._table.list_indices())

    def _replace(self, rows: pa.Table) -> None:
        (
            self._table.merge_insert(["path", "start_s"])
            .when_matched_update_all()
            .when_not_matched_insert_all()
            .when_not_matched_by_source_delete(_is_one_of(rows["path"].unique().to_pylist()))
            .execute(rows)
        )

    def _arrow(self, columns: Mapping[str, Sequence[Any] | NDArray[Any]]) -> pa.Table:
        import pyarrow as pa

        schema = _schema(self.info)
        vectors = {
            name: _fixed_size_lists(np.asarray(columns[name]).astype(np.float16), _stored_dim(dim))
            for name, dim in self.info.dims.items()
        }
        return pa.table({name: vectors.get(name, columns[name]) for name in schema.names}, schema=schema)


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def _schema(info: IndexInfo) -> pa.Schema:
    import pyarrow as pa

    columns = [
        ("path", pa.string()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("duration_s", pa.float64()),
        ("text", pa.string()),
        ("tags", pa.list_(pa.string())),
        (DOCUMENT, pa.string()),
        *((name, pa.list_(pa.float16(), _stored_dim(dim))) for name, dim in info.dims.items()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("sha256", pa.string()),
    ]
    return pa.schema(columns, metadata={_KEY: json.dumps(asdict(info))})


def _stored_dim(dim: int) -> int:
    """The size of a stored vector: a multiple of 8, which the approximate index requires; vectors are padded with
    zeros."""
    return -(-dim // 8) * 8


def _fixed_size_lists(vectors_ND: NDArray[Any], dim: int) -> pa.Array:
    import pyarrow as pa

    padded_ND = np.pad(vectors_ND, ((0, 0), (0, dim - vectors_ND.shape[1])))
    return pa.FixedSizeListArray.from_arrays(pa.array(padded_ND.reshape(-1)), dim)


def _connect(location: str) -> Any:
    os.environ.setdefault("LANCEDB_LOG", "off")  # its errors say what is damaged
    try:
        import lancedb
    except ImportError as error:
        raise InputError(f"an index needs lancedb; {how_to_install('search')}") from error
    try:
        # Every query sees the newest state of the table.
        return lancedb.connect(location, read_consistency_interval=timedelta(0))
    except _FAILURES as error:
        raise InputError(f"'{location}' cannot hold an index: {_sentence(error)}") from error


def _is_one_of(paths: Iterable[str]) -> str:
    quoted = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
    return f"path IN ({quoted})"


def _is_failure(error: Exception) -> bool:
    """Whether LanceDB raised the error. A panic inside it, which damage may cause, has a class that cannot be
    imported."""
    return isinstance(error, _FAILURES) or type(error).__name__ == "RustPanic"


def _unusable(location: str, error: Exception) -> InputError:
    """The error for an index that LanceDB cannot work with."""
    why = _sentence(error)
    if is_url(location) or isinstance(error, PermissionError) or "permission denied" in why.lower():
        return InputError(f"the index '{location}' cannot be used: {why}")
    return InputError(
        f"the index '{location}' is damaged ({why}); repair it with `pengi index DIR --db {location}`, and if that "
        "fails too, delete it first"
    )


def _sentence(error: Exception) -> str:
    """The first line of LanceDB's error, without the line number of its source."""
    if is_disk_full(error):
        return reason(error)
    text = _SOURCE_LINE.sub("", first_line(error))
    for noise in ("Invalid input, ", "lance error: ", "LanceError(IO): "):
        text = text.removeprefix(noise)
    return text
