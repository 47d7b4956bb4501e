"""Copies of a dataset in Parquet, as on the Hugging Face hub: one column holds recordings, the others describe them.

A recording in a Parquet file is part of a compressed column, so it cannot be read alone. Therefore the recordings of
each Parquet file are copied, unchanged, into one tar file beside the manifest. The rows of the manifest point into it
as into any shard (:mod:`pengi.data.shards`). That needs the same disk space again, memory for one row group, and few
files. Each tar file appears complete or not at all, and an existing one is used again, so an interrupted import
continues.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import soundfile

from pengi.audio.formats import AUDIO_SUFFIXES, without_audio_suffix
from pengi.data.arrow import arrow
from pengi.data.datasets.base import (
    Dataset,
    DatasetRow,
    FolderDataset,
    Part,
    Record,
    Table,
    TableDataset,
    Tree,
    problems_of,
)
from pengi.data.datasets.columns import Columns, split_of, text_of
from pengi.data.recordings import member
from pengi.data.shards import stretches, write_tar
from pengi.errors import ManifestError
from pengi.progress import track
from pengi.writing import writing

_DEPTH = 4
_RECORDINGS_AT_ONCE = 8
_RECORDS_AT_ONCE = 1_000
_NUMBERED = re.compile(r"-\d+-of-\d+.*|(?<=/)\d+$|^\d+$")
_AUDIO_NAMES = frozenset({"audio", "wav", "flac", "mp3", "sound", "file", "recording"})
_LABEL_OF_DOMAIN = frozenset({"keyword", "digit", "emotion", "gender", "language", "instrument"})
"""Domains in which the label of a dataset is the attribute of that name."""


def copy_in_parquet(adapter: Dataset, tree: Tree, out: Path) -> ParquetCopy | None:
    """The copy of a dataset in Parquet below a folder, if there is one.

    Raises:
        InputError: if ``pyarrow`` is not installed.
        ManifestError: if a file is damaged.
    """
    files = [file for path in _below(tree.root) if (file := _ParquetFile(path, tree)).audio]
    return ParquetCopy(adapter, files, out) if files else None


class ParquetCopy:
    """A dataset whose records and recordings are in Parquet files.

    Args:
        adapter: the dataset. If the columns are those of its published tables, the adapter reads them; otherwise
            columns are recognised by their usual names, see :class:`pengi.data.datasets.columns.Columns`.
        files: its files.
        out: the manifest; the tar files are written to ``<its name>-recordings/`` beside it.
    """

    def __init__(self, adapter: Dataset, files: Sequence[_ParquetFile], out: Path) -> None:
        self._adapter, self._files = adapter, files
        self._folder = out.with_name(f"{out.stem}-recordings")
        self._stored: dict[str, dict[int, str]] = {}

    @property
    def parts(self) -> tuple[Part, ...]:
        """See :class:`pengi.data.datasets.base.Dataset`; the numbered files of a split are one part."""
        return tuple(dict.fromkeys(file.part for file in self._files))

    def rows(self, tree: Tree) -> Iterator[DatasetRow]:
        """See :class:`pengi.data.datasets.base.Dataset`; the first path of a row is its file and its row number.

        All records are checked before the first row is yielded, because storing recordings may take hours.
        """
        yield from list(self._rows(tree))

    def _rows(self, tree: Tree) -> Iterator[DatasetRow]:
        for file in self._files:
            part, table = file.part, _table(self._adapter, file)
            for number, (path, record) in enumerate(file.records()):
                where = f"{file.label}, row {number + 1}"
                with problems_of(self._adapter.name, where):
                    row = self._row(file, table, f"{file.stem}-{number:06d}", record, path)
                if row is None:
                    tree.unused[part.name] += 1
                    continue
                name = path or Columns.of(file.columns).cell("audio", record)
                yield replace(
                    row,
                    audio=(f"{file.label}#{number}", *([path] if path else [])),
                    names=(without_audio_suffix(PurePosixPath(name).name),) if name else (),
                    split=row.split or (table.split if table else part.split),
                    where=where,
                    part=part.name,
                    home=None,
                )

    def _row(self, file: _ParquetFile, table: Table | None, id: str, record: Record, path: str) -> DatasetRow | None:
        """The row of a record, read by the adapter if the file has the columns of a published table."""
        adapter = self._adapter
        if table is not None:
            assert isinstance(adapter, TableDataset)
            return adapter.row(record if table.path.endswith(".json") else _as_text(record), table)
        columns = Columns.of(file.columns)
        if columns.describe_recordings:
            label = adapter.domain if adapter.domain in _LABEL_OF_DOMAIN else "events"
            row = columns.row(record, id, label=label)
            return replace(row, group=row.group or PurePosixPath(path).stem)
        if isinstance(adapter, FolderDataset) and adapter.self_contained:
            return adapter.parse(PurePosixPath(path), file.part.split)
        raise ManifestError(f"{adapter.name}: {file.why_nothing_is_known()}")

    def recording(self, row: DatasetRow, tree: Tree) -> Path | str | None:
        """See :class:`pengi.data.datasets.base.Dataset`; a recording that is not in its Parquet file may lie beside it.

        Raises:
            ManifestError: if a file is damaged.
            InputError: if the recordings cannot be written.
        """
        label, _, number = row.audio[0].rpartition("#")
        if not self._stored:
            self._stored = {file.label: self._store(file) for file in track(self._files, "Parquet files")}
        return self._stored[label].get(int(number)) or tree.recording(row)

    def _store(self, file: _ParquetFile) -> dict[int, str]:
        """Copy the recordings of a file unless that is already done; returns the location of each by its row number."""
        tar = self._folder / f"{file.stem.replace('/', '-')}.tar"
        with writing(self._folder):
            self._folder.mkdir(exist_ok=True)
        if not (tar.is_file() and tar.stat().st_mtime >= file.path.stat().st_mtime):
            write_tar(tar, file.recordings())
        return {
            int(name.partition(".")[0]): member(f"{self._folder.name}/{tar.name}", offset, size)
            for name, (offset, size) in stretches(tar).items()
        }


class _ParquetFile:
    """A Parquet file, which may have a column with recordings.

    Attributes:
        label: its path below the folder of the dataset.
        stem: the label without its extension.
        part: the part of the dataset that it belongs to.
        audio: the column with recordings; empty if there is none.
        columns: columns of text and numbers, except class numbers without names.

    Raises:
        InputError: if ``pyarrow`` is not installed.
        ManifestError: if it is damaged; also raised while it is read.
    """

    def __init__(self, path: Path, tree: Tree) -> None:
        arrow()
        import pyarrow.parquet as pq

        self.path, self._dataset = path, tree.name
        self.label = path.relative_to(tree.root).as_posix()
        self.stem = self.label.removesuffix(".parquet")
        self.part = Part(_split_named(self.stem), (f"{_NUMBERED.sub('*', self.stem)}.parquet",))
        with self._damage():
            self._schema = pq.read_schema(path)
        self._features = _features(self._schema)
        self.audio = _audio_column(self._schema, self._features)
        self.columns = tuple(
            field.name
            for field in self._schema
            if field.name != self.audio
            and _is_readable(field.type)
            and ("names" in self._features.get(field.name, {}) or not _is_number_of_class(field))
        )

    def records(self) -> Iterator[tuple[str, Record]]:
        """Original path of the recording, or an empty text, and fields of each record."""
        has_path = _has_child(self._schema.field(self.audio).type, "path")
        columns = [*self.columns, *([f"{self.audio}.path"] if has_path else [])]
        for batch in self._batches(_RECORDS_AT_ONCE, columns or None):
            with self._damage():
                records = batch.to_pylist()
            for record in records:
                path = (record[self.audio] or {}).get("path") if has_path else None
                fields = {name: _named(record[name], self._features.get(name)) for name in self.columns}
                yield text_of(path).replace("\\", "/"), fields

    def recordings(self) -> Iterator[tuple[str, bytes]]:
        """Name and content of each recording."""
        values = (value for batch in self._batches(_RECORDINGS_AT_ONCE, [self.audio]) for value in batch.column(0))
        for number, value in enumerate(values):
            path, content = _content(value)
            if content:
                suffix = PurePosixPath(path).suffix.lstrip(".").lower()
                yield f"{number:09d}.{suffix if suffix in AUDIO_SUFFIXES else 'bin'}", content

    def why_nothing_is_known(self) -> str:
        """Why nothing is known about the recordings."""
        fields = [field for field in self._schema if field.name != self.audio]
        numbers = [field.name for field in fields if _is_number_of_class(field)]
        has = ", ".join(field.name for field in fields) or "nothing else"
        return (
            f"'{self.label}' has no column that describes its recordings (such as 'caption', 'label', 'title' "
            f"or 'tags'); it has {has}{f', and the numbers in {numbers[0]} have no names' if numbers else ''}"
        )

    def _batches(self, rows: int, columns: Sequence[str] | None) -> Iterator[Any]:
        import pyarrow.parquet as pq

        with self._damage(), pq.ParquetFile(self.path, pre_buffer=False, buffer_size=1 << 20) as opened:
            yield from opened.iter_batches(rows, columns=columns, use_threads=False)

    @contextmanager
    def _damage(self) -> Iterator[None]:
        """Turn failures to read the file into one sentence."""
        try:
            yield
        except (arrow().ArrowException, OSError, UnicodeDecodeError) as error:
            with self.path.open("rb") as opened:
                pointer = opened.read(16) == b"version https://"
            hint = "it is only Git's pointer to the file: run 'git lfs pull'" if pointer else "fetch it again"
            raise ManifestError(f"{self._dataset}: '{self.path}' cannot be read as a Parquet file; {hint}") from error


def _below(root: Path) -> list[Path]:
    """Visible Parquet files in a folder, up to four levels below it."""
    found = []
    for folder, folders, files in os.walk(root, followlinks=True):
        depth = len(Path(folder).relative_to(root).parts)
        folders[:] = [] if depth == _DEPTH else sorted(name for name in folders if not name.startswith("."))
        found += [Path(folder, name) for name in sorted(files) if name.endswith(".parquet") and name[0] != "."]
    return found


def _split_named(stem: str) -> str:
    """The split that a file or one of its folders is named after, the innermost first; ``train`` if none is."""
    words = (word for name in reversed(stem.split("/")) for word in re.findall(r"[a-zA-Z]+", name)[:2])
    return next(filter(None, map(split_of, words)), "train")


def _audio_column(schema: Any, features: Mapping[str, Any]) -> str:
    """The column with recordings; empty if there is none."""
    holding = [
        field.name
        for field in schema
        if _is_any(field.type, "binary", "large_binary")
        or _has_child(field.type, "bytes")
        or (_has_child(field.type, "array") and _has_child(field.type, "sampling_rate"))
    ]
    stated = [name for name in holding if features.get(name, {}).get("_type") == "Audio"]
    return next(iter(stated or [name for name in holding if name.lower() in _AUDIO_NAMES]), "")


def _table(adapter: Dataset, file: _ParquetFile) -> Table | None:
    """The published table with the columns of a file; if there are several, the one of its split, and of the folder in
    its name."""
    if not isinstance(adapter, TableDataset) or not adapter.self_contained:
        return None
    fitting = [
        table for table in adapter.tables if table.header and table.columns and {*table.columns} <= {*file.columns}
    ]
    return max(
        fitting,
        key=lambda table: (table.split == file.part.split, bool(table.folder) and table.folder in file.stem),
        default=None,
    )


def _features(schema: Any) -> dict[str, Any]:
    """The metadata about columns that the ``datasets`` library writes; empty for files of other programs."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"].items()
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}
    sequences = {name: {"feature": feature[0]} for name, feature in features if isinstance(feature, list) and feature}
    return sequences | {name: feature for name, feature in features if isinstance(feature, dict)}


def _named(value: Any, feature: object) -> Any:
    """A value with the names of its classes instead of their numbers."""
    if not isinstance(feature, dict):
        return value
    if isinstance(value, list):
        return [_named(each, feature.get("feature")) for each in value]
    names = feature.get("names")
    if names and isinstance(value, int):
        return names[value] if 0 <= value < len(names) else None
    return value


def _as_text(record: Record) -> Record:
    """A record with texts as in a CSV file."""
    return {
        name: ",".join(map(text_of, value)) if isinstance(value, list) else text_of(value)
        for name, value in record.items()
    }


def _content(value: Any) -> tuple[str, bytes]:
    """Path and content of a recording; the content is empty if there is none."""
    if not value.is_valid:
        return "", b""
    if not arrow().types.is_struct(value.type):
        return "", value.as_py()
    if "bytes" in value:
        return text_of(value["path"].as_py()) if "path" in value else "", value["bytes"].as_py() or b""
    samples, rate = value["array"], value["sampling_rate"].as_py()
    if not (samples.is_valid and len(samples) and rate):
        return "", b""
    written = io.BytesIO()
    soundfile.write(written, samples.values.to_numpy(), rate, format="WAV", subtype="FLOAT")
    return "samples.wav", written.getvalue()


def _has_child(type_: Any, name: str) -> bool:
    return bool(arrow().types.is_struct(type_)) and type_.get_field_index(name) >= 0


def _is_readable(type_: Any) -> bool:
    """Whether a column is text, numbers or lists of text or whole numbers, but no vectors or images."""
    types = arrow().types
    if types.is_list(type_) or types.is_large_list(type_):
        return _is_any(type_.value_type, "string", "large_string", "integer")
    return _is_any(type_, "string", "large_string", "integer", "floating", "boolean", "dictionary", "null")


def _is_number_of_class(field: Any) -> bool:
    return _is_any(field.type, "integer") and bool(Columns.of((field.name,)).by_field["events"])


def _is_any(type_: Any, *kinds: str) -> bool:
    return any(getattr(arrow().types, f"is_{kind}")(type_) for kind in kinds)
