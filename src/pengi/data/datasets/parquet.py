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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import soundfile

from pengi.audio.formats import AUDIO_SUFFIXES
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
    files = _below(tree.root)
    audio = {file: _audio_column(_schema(file, adapter.name)) for file in files}
    holding = {file: column for file, column in audio.items() if column}
    return ParquetCopy(adapter, tree.root, holding, out) if holding else None


class ParquetCopy:
    """A dataset whose records and recordings are in Parquet files.

    Args:
        adapter: the dataset. If the columns are those of its published tables, the adapter reads them; otherwise
            columns are recognised by their usual names, see :class:`pengi.data.datasets.columns.Columns`.
        root: the folder of the dataset.
        files: its files, and the column with recordings of each.
        out: the manifest; the tar files are written to ``<its name>-recordings/`` beside it.
    """

    def __init__(self, adapter: Dataset, root: Path, files: Mapping[Path, str], out: Path) -> None:
        self._adapter, self._root, self._files = adapter, root, files
        self._folder = out.with_name(f"{out.stem}-recordings")
        self._stored: dict[str, dict[int, str]] = {}

    @property
    def parts(self) -> tuple[Part, ...]:
        """See :class:`pengi.data.datasets.base.Dataset`; the numbered files of a split are one part."""
        return tuple(dict.fromkeys(self._part(file) for file in self._files))

    def rows(self, tree: Tree) -> Iterator[DatasetRow]:
        """See :class:`pengi.data.datasets.base.Dataset`; the first path of a row is its file and its row number.

        All records are checked before the first row is yielded, because storing recordings may take hours.
        """
        yield from list(self._rows(tree))

    def _rows(self, tree: Tree) -> Iterator[DatasetRow]:
        for file, audio in self._files.items():
            part = self._part(file)
            read = self._reader(file, audio, part.split)
            for number, record in self._records(file, audio):
                where = f"{self._label(file)}, row {number + 1}"
                path = text_of(record.get("")).replace("\\", "/")
                with problems_of(self._adapter.name, where):
                    row = read(number, record, path)
                if row is None:
                    tree.unused[part.name] += 1
                    continue
                source = f"{self._label(file)}#{number}"
                beside = (path,) if path else ()
                names = (PurePosixPath(path).stem,) if path else ()
                yield replace(row, audio=(source, *beside), names=names, where=where, part=part.name, home=None)

    def recording(self, row: DatasetRow, tree: Tree) -> Path | str | None:
        """See :class:`pengi.data.datasets.base.Dataset`; a recording that is not in its Parquet file may lie beside it.

        Raises:
            ManifestError: if a file is damaged.
            InputError: if the recordings cannot be written.
        """
        label, _, number = row.audio[0].rpartition("#")
        if not self._stored:
            self._stored = {self._label(file): self._store(file) for file in track(list(self._files), "Parquet files")}
        return self._stored[label].get(int(number)) or tree.recording(row)

    def _label(self, file: Path) -> str:
        return file.relative_to(self._root).as_posix()

    def _part(self, file: Path) -> Part:
        stem = self._label(file).removesuffix(".parquet")
        named = [file.stem, *reversed(file.relative_to(self._root).parts[:-1])]
        words = (word for name in named for word in re.findall(r"[a-zA-Z]+", name)[:2])
        split = next(filter(None, map(split_of, words)), "train")
        return Part(split, (f"{_NUMBERED.sub('*', stem)}.parquet",))

    def _reader(self, file: Path, audio: str, split: str) -> Callable[[int, Record, str], DatasetRow | None]:
        """The function that turns a record of a file into a row."""
        adapter, names = self._adapter, self._descriptive_columns(file, audio)
        table = _table(adapter, names, split)
        if table is not None:
            assert isinstance(adapter, TableDataset)
            as_it_is = table.path.endswith(".json")
            return lambda number, record, path: adapter.row(record if as_it_is else _as_text(record), table)
        columns = Columns.of(tuple(names))
        if not columns.describe_recordings and isinstance(adapter, FolderDataset) and adapter.self_contained:
            return lambda number, record, path: adapter.parse(PurePosixPath(path), split)
        if not columns.describe_recordings:
            raise ManifestError(f"{adapter.name}: {self._why_nothing_is_known(file, audio)}")
        label = adapter.domain if adapter.domain in _LABEL_OF_DOMAIN else "events"
        stem = self._label(file).removesuffix(".parquet")

        def row(number: int, record: Record, path: str) -> DatasetRow:
            found = columns.row(record, f"{stem}-{number:06d}", label=label)
            return replace(found, split=found.split or split, group=found.group or PurePosixPath(path).stem)

        return row

    def _why_nothing_is_known(self, file: Path, audio: str) -> str:
        """Why nothing is known about the recordings of a file."""
        fields = [field for field in _schema(file, self._adapter.name) if field.name != audio]
        numbers = [field.name for field in fields if _is_number_of_class(field)]
        has = ", ".join(field.name for field in fields) or "nothing else"
        return (
            f"'{self._label(file)}' has no column that describes its recordings (such as 'caption', 'label', 'title' "
            f"or 'tags'); it has {has}{f', and the numbers in {numbers[0]} have no names' if numbers else ''}"
        )

    def _records(self, file: Path, audio: str) -> Iterator[tuple[int, Record]]:
        """Number and fields of each record; the field ``""`` is the original path of the recording."""
        schema = _schema(file, self._adapter.name)
        features = _features(schema)
        wanted = self._descriptive_columns(file, audio)
        path = _has_child(schema.field(audio).type, "path")
        columns = [*wanted, f"{audio}.path"] if path else wanted
        number = 0
        for batch in self._batches(file, _RECORDS_AT_ONCE, columns or None):
            with _damage(self._adapter.name, file):
                records = batch.to_pylist()
            for record in records:
                fields = {name: _named(record[name], features.get(name)) for name in wanted}
                yield number, {**fields, "": (record[audio] or {}).get("path") if path else None}
                number += 1

    def _store(self, file: Path) -> dict[int, str]:
        """Copy the recordings of a file unless that is already done; returns the location of each by its row number."""
        name = self._label(file).removesuffix(".parquet").replace("/", "-")
        tar = self._folder / f"{name}.tar"
        with writing(self._folder):
            self._folder.mkdir(exist_ok=True)
        if not (tar.is_file() and tar.stat().st_mtime >= file.stat().st_mtime):
            write_tar(tar, self._recordings(file))
        return {
            int(name.partition(".")[0]): member(f"{self._folder.name}/{tar.name}", offset, size)
            for name, (offset, size) in stretches(tar).items()
        }

    def _descriptive_columns(self, file: Path, audio: str) -> list[str]:
        """Columns of text and numbers, except class numbers without names."""
        schema = _schema(file, self._adapter.name)
        features = _features(schema)
        return [
            field.name
            for field in schema
            if field.name != audio
            and _is_readable(field.type)
            and ("names" in features.get(field.name, {}) or not _is_number_of_class(field))
        ]

    def _recordings(self, file: Path) -> Iterator[tuple[str, bytes]]:
        """Name and content of each recording in a file."""
        audio, number = self._files[file], -1
        for batch in self._batches(file, _RECORDINGS_AT_ONCE, [audio]):
            for value in batch.column(0):
                number += 1
                path, content = _content(value)
                if content:
                    suffix = PurePosixPath(path).suffix.lstrip(".").lower()
                    yield f"{number:09d}.{suffix if suffix in AUDIO_SUFFIXES else 'bin'}", content

    def _batches(self, file: Path, rows: int, columns: Sequence[str] | None) -> Iterator[Any]:
        arrow()
        import pyarrow.parquet as pq

        with _damage(self._adapter.name, file), pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20) as opened:
            yield from opened.iter_batches(rows, columns=columns, use_threads=False)


def _below(root: Path) -> list[Path]:
    """Visible Parquet files in a folder, up to four levels below it."""
    found = []
    for folder, folders, files in os.walk(root, followlinks=True):
        depth = len(Path(folder).relative_to(root).parts)
        folders[:] = [] if depth == _DEPTH else sorted(name for name in folders if not name.startswith("."))
        found += [Path(folder, name) for name in sorted(files) if name.endswith(".parquet") and name[0] != "."]
    return found


@contextmanager
def _damage(name: str, file: Path) -> Iterator[None]:
    """Turn failures to read a file into one sentence."""
    try:
        yield
    except (arrow().ArrowException, OSError, UnicodeDecodeError) as error:
        with file.open("rb") as opened:
            pointer = opened.read(16) == b"version https://"
        hint = "it is only Git's pointer to the file: run 'git lfs pull'" if pointer else "fetch it again"
        raise ManifestError(f"{name}: '{file}' cannot be read as a Parquet file; {hint}") from error


def _schema(file: Path, name: str) -> Any:
    arrow()
    import pyarrow.parquet as pq

    with _damage(name, file):
        return pq.read_schema(file)


def _audio_column(schema: Any) -> str:
    """The column with recordings; empty if there is none."""
    features = _features(schema)
    holding = [
        field.name
        for field in schema
        if _is_any(field.type, "binary", "large_binary")
        or _has_child(field.type, "bytes")
        or (_has_child(field.type, "array") and _has_child(field.type, "sampling_rate"))
    ]
    stated = [name for name in holding if features.get(name, {}).get("_type") == "Audio"]
    return next(iter(stated or [name for name in holding if name.lower() in _AUDIO_NAMES]), "")


def _table(adapter: Dataset, names: Sequence[str], split: str) -> Table | None:
    """The published table with these columns; if there are several, the one of the split."""
    if not isinstance(adapter, TableDataset) or not adapter.self_contained:
        return None
    fitting = [table for table in adapter.tables if table.header and table.columns and {*table.columns} <= {*names}]
    return next((table for table in fitting if table.split == split), next(iter(fitting), None))


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
