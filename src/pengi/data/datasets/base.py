"""Base classes of the datasets: read a dataset's annotation, and turn it into rows of a manifest.

A dataset is one small class. It names its files as they are when the published archives are unpacked, and turns one
record of an annotation file (or one recording's path) into a :class:`DatasetRow`. This module finds, reads and checks
files, and raises the errors.
"""

from __future__ import annotations

import csv
import json
import os
import re
import stat
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from pengi.audio.formats import has_audio_suffix, without_audio_suffix
from pengi.errors import ManifestError

Record = Mapping[str, Any]
Codes = Mapping[str, str]
"""A dataset's codes and their meanings in words."""
Patterns = Mapping[str, tuple[str, ...]]
"""Globs of each split."""
_DEPTH = 2
"""Number of levels below the given folder at which a dataset's own top folder is looked for."""
_MAX_LISTED_CODES = 20
"""An error about an unknown code lists the known codes if there are at most this many."""
_SEGMENT = re.compile(r"Y?([\w-]{11})(?:[_-](\d+(?:\.\d+)?)(?:[_-]\d+(?:\.\d+)?)?)?", re.ASCII)
"""Name of a piece of a YouTube video: ``[Y]<id>[_<start>[_<end>]]``."""
# Some fields of CSV files (biographies) are longer than Python's default limit of 131,072 characters.
csv.field_size_limit(1 << 24)


class ProblemError(ValueError):
    """An error in one record; the reader adds the file and the line."""


@dataclass(frozen=True)
class DatasetRow:
    """One recording with its labels.

    Attributes:
        id: unique within the dataset.
        audio: paths below ``home``; the first that exists is used.
        names: file names without extension; if no path of ``audio`` exists, these names are looked for in all folders.
            ``test/103549`` is looked for only below folders whose name begins with ``test``, and ``103549_*`` matches a
            file that begins with that number. For pieces of YouTube videos see :func:`segment`.
        split: if it is empty, tables, folders and Parquet files fill in the split of the row's part.
        choices: the options of a multiple-choice question, the right one among them.
        license: of this recording, if it is known.
        duration_s: length of the whole recording in seconds, if it is known.
        where: the file and line of the row, for messages.
        part: name of the :class:`Part` the row belongs to.
        home: the folder that ``audio`` starts from; by default the folder of the dataset.
    """

    id: str
    audio: tuple[str, ...] = ()
    split: str = ""
    events: tuple[str, ...] = ()
    attributes: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    group: str = ""
    captions: tuple[str, ...] = ()
    qa: tuple[tuple[str, str], ...] = ()
    choices: tuple[str, ...] = ()
    title: str = ""
    tags: tuple[str, ...] = ()
    description: str = ""
    license: str = ""
    duration_s: float | None = None
    names: tuple[str, ...] = ()
    where: str = ""
    part: str = ""
    home: Path | None = None

    def merged(self, other: DatasetRow) -> DatasetRow:
        """This row, merged with a further record about the same recording."""
        return replace(
            self,
            audio=tuple(dict.fromkeys(self.audio + other.audio)),
            names=tuple(dict.fromkeys(self.names + other.names)),
            events=tuple(dict.fromkeys(self.events + other.events)),
            captions=self.captions + other.captions,
            qa=self.qa + other.qa,
            title=self.title or other.title,
            tags=tuple(dict.fromkeys(self.tags + other.tags)),
            description=self.description or other.description,
            license=self.license or other.license,
        )


@dataclass(frozen=True)
class Part:
    """An annotation file, or the recordings of a split, that a dataset may have.

    Attributes:
        patterns: paths or globs; the first that matches is used.
    """

    split: str
    patterns: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of the part in messages: its path as published."""
        return self.patterns[0]


class Tree:
    """Finds the files in the folder of a dataset.

    Files whose name begins with a dot (such as ``._*`` of macOS) and empty recordings are ignored.

    Attributes:
        name: of the dataset, for messages.
        root: the folder.
        unused: number of records of each part without anything that a task uses.
    """

    def __init__(self, name: str, root: Path) -> None:
        self.name, self.root = name, root
        self.unused: Counter[str] = Counter()
        self._homes: dict[tuple[str, ...], Path | None] = {}
        self._levels = [[root]]

    def home(self, patterns: Sequence[str]) -> Path | None:
        """The folder that a part's patterns start from.

        It is the root, or the only folder at most two levels below it that matches (archives unpack into a folder of
        their own), or the parent of the root if the root is the first folder of the patterns.

        Raises:
            ManifestError: if several folders of the same level match.
        """
        key = tuple(patterns)
        if key not in self._homes:
            self._homes[key] = self._find_home(key)
        return self._homes[key]

    def _find_home(self, patterns: tuple[str, ...]) -> Path | None:
        for depth in range(_DEPTH + 1):
            having = [folder for folder in self._level(depth) if _has(folder, patterns)]
            if len(having) > 1:
                names = "', '".join(folder.relative_to(self.root).as_posix() for folder in having)
                raise ManifestError(
                    f"{self.name}: '{patterns[0]}' is in several folders of '{self.root}' ('{names}'); name one of them"
                )
            if having:
                return having[0]
        root = self.root.resolve()
        inside = [pattern for pattern in patterns if "/" in pattern and pattern.split("/")[0] == root.name]
        return root.parent if _has(root.parent, inside) else None

    def _level(self, depth: int) -> list[Path]:
        """The folders ``depth`` levels below the root; each level is read once."""
        while depth >= len(self._levels):
            entries = (entry for folder in self._levels[-1] for entry in os.scandir(folder))
            self._levels.append(
                sorted(Path(entry) for entry in entries if _is_visible(entry.name) and Path(entry).is_dir())
            )
        return self._levels[depth]

    def file(self, patterns: Sequence[str]) -> Path | None:
        """The first file of a part that exists."""
        home = self.home(patterns)
        return None if home is None else next(file for pattern in patterns for file in matching(home, pattern))

    def lines(self, file: Path) -> list[str]:
        """The non-blank lines of a text file.

        Raises:
            ManifestError: if it is not text in UTF-8.
        """
        try:
            return [line for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        except UnicodeDecodeError as error:
            raise ManifestError(f"{self.name}: '{file}' cannot be read: {error}") from error

    def recording(self, row: DatasetRow) -> Path | None:
        """The file of a row's recording; None if it is missing or empty."""
        homes = dict.fromkeys((row.home or self.root, self.root))
        paths = (home / path for path in row.audio for home in homes)
        named = (Path(path) for name in row.names for path in self._named(name))
        return next(filter(_has_content, chain(paths, named)), None)

    def _named(self, name: str) -> Iterator[str]:
        folder, _, stem = unicodedata.normalize("NFC", name).rpartition("/")
        for path in self._by_name.get(stem, ()):
            if not folder or any(part.startswith(folder) for part in Path(path).relative_to(self.root).parts[:-1]):
                yield path

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        """Audio files by their names; if several have the same name, wav and flac files come first."""
        found: dict[str, list[str]] = defaultdict(list)
        seen: set[str] = set()
        for where, folders, files in os.walk(self.root, followlinks=True):
            folder = Path(where)
            real = os.path.realpath(folder)
            folders[:] = [] if real in seen else sorted(filter(_is_visible, folders))
            seen.add(real)
            for file in sorted(filter(_is_visible, files), key=_lossless_first):
                if has_audio_suffix(file):
                    for name in _names(without_audio_suffix(file)):
                        found[name].append(str(folder / file))
        return found


class Dataset(ABC):
    """Base of the datasets.

    Attributes:
        name: as ``pengi data import`` takes it.
        license: of the recordings, as an SPDX identifier if there is one.
        home: where to get the dataset.
        codes: the label of each code that the dataset uses; empty if it has no fixed label set.
        redistribute: whether the recordings may be redistributed, e.g. inside a report.
        several_records: whether an annotation file may have several records about one recording.
        self_contained: whether a record has all information about its recording, so that records can also be read from
            another kind of file.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    license: ClassVar[str]
    home: ClassVar[str]
    domain: ClassVar[str] = "environment"
    codes: ClassVar[Codes] = {}
    redistribute: ClassVar[bool] = False
    several_records: ClassVar[bool] = False
    self_contained: ClassVar[bool] = True

    @property
    def labels(self) -> tuple[str, ...]:
        """The complete label set, of which the rows may contain only a part; empty if the dataset defines none."""
        return tuple(self.codes.values())

    @property
    def parts(self) -> tuple[Part, ...]:
        """All parts that the dataset may have. An import uses those that exist and reports the others."""
        return ()

    @abstractmethod
    def rows(self, tree: Tree) -> Iterator[DatasetRow]:
        """All records of the parts that exist, in the dataset's order.

        Raises:
            ManifestError: if a column is missing or a record is malformed.
        """

    def heldout(self, tree: Tree) -> frozenset[str]:
        """Names, without extension, of recordings that published lists exclude from training; their split is heldout.

        Raises:
            ManifestError: if a list is malformed.
        """
        return frozenset()

    def recording(self, row: DatasetRow, tree: Tree) -> Path | str | None:
        """The file of a row's recording, or its location in a tar file relative to the manifest; None if it is missing.

        Raises:
            ManifestError: if a file with recordings is damaged.
        """
        return tree.recording(row)

    def missing(self, path: str, root: Path) -> ManifestError:
        """The error about a missing file of the dataset."""
        return ManifestError(
            f"{self.name}: there is no '{path}' in '{root}'; unpack {self.title} there ({self.home}) with its folders "
            "as they are"
        )

    def needed(self, tree: Tree, *paths: str) -> Path:
        """The first of ``paths`` that exists, for a file that the dataset cannot do without.

        Raises:
            ManifestError: if it is missing.
        """
        file = tree.file(paths)
        if file is None:
            raise self.missing(paths[0], tree.root)
        return file


@dataclass(frozen=True)
class Table:
    """One annotation file: text with delimiters (CSV), JSON, or JSON lines.

    JSON may be a list of records, an object ``{"data": [...]}``, or an object of records, whose keys become the field
    ``key``. If no columns are required, a record may also be a plain value, which becomes the field ``value``.

    Attributes:
        path: below the dataset's root, as published.
        split: of its recordings.
        columns: required fields; for a file without a header, all of its fields in their order.
        folder: folder of its recordings, for use by ``row``.
        delimiter: of the fields in a line; if empty, the most frequent of comma, semicolon and tab in the first line.
        others: other paths at which the file is often stored.
        optional: number of the last ``columns`` that a file without a header may lack.
        skip_spaces: whether spaces after a delimiter are not part of the field.
    """

    path: str
    split: str = "test"
    columns: tuple[str, ...] = ()
    folder: str = ""
    header: bool = True
    delimiter: str = ","
    others: tuple[str, ...] = ()
    optional: int = 0
    skip_spaces: bool = False

    @property
    def part(self) -> Part:
        """The table as a part of its dataset."""
        return Part(self.split, (self.path, *self.others))

    def records(self, file: Path, tree: Tree) -> Iterator[tuple[str, Record]]:
        """Location (file and line) and fields of every record.

        Raises:
            ManifestError: if the file cannot be read, lacks a column, or has a line with too many or too few fields.
        """
        label = os.path.relpath(file, tree.root)
        needed = self.columns[: len(self.columns) - self.optional]
        try:
            for origin, record in self.read(file):
                absent = [column for column in needed if record.get(column) is None]
                if absent:
                    raise ManifestError(
                        f"{tree.name}: {label}, {origin} has no '{absent[0]}'; it has {_fields(record)}"
                    )
                yield f"{label}, {origin}", record
        except ProblemError as problem:
            raise ManifestError(f"{tree.name}: {label}, {problem}") from problem
        except (ValueError, csv.Error) as error:  # ValueError: invalid JSON or invalid UTF-8
            raise ManifestError(f"{tree.name}: '{file}' cannot be read: {error}") from error

    def read(self, path: Path) -> Iterator[tuple[str, Record]]:
        """Location (line or number) and fields of every record; a subclass may read another format.

        Raises:
            ProblemError: if a record is malformed.
            ValueError: if the file is.
            csv.Error: if the file is.
        """
        return self._json(path) if path.suffix in (".json", ".jsonl") else self._csv(path)

    def _csv(self, path: Path) -> Iterator[tuple[str, Record]]:
        with path.open(encoding="utf-8-sig", newline="") as file:
            names = None if self.header else list(self.columns)
            delimiter = self.delimiter or max(",;\t", key=file.readline().count)
            file.seek(0)
            reader = csv.DictReader(file, names, delimiter=delimiter, skipinitialspace=self.skip_spaces)
            for record in reader:
                fields = list(record.values())
                first = str(fields[0]).strip()
                # Skip comments at the start, and a header that somebody has added.
                if not self.header and (first.startswith("#") or first.lower() == self.columns[0].lower()):
                    continue
                if None in record:
                    raise ProblemError(f"line {reader.line_num}: more fields than there are columns")
                if None in fields[: len(fields) - self.optional]:
                    raise ProblemError(f"line {reader.line_num}: fewer fields than there are columns")
                yield f"line {reader.line_num}", record

    def _json(self, path: Path) -> Iterator[tuple[str, Record]]:
        text = path.read_text(encoding="utf-8-sig")
        lines = [json.loads(line) for line in text.split("\n") if line.strip()] if path.suffix == ".jsonl" else None
        content = json.loads(text) if lines is None else lines
        if self.columns and not isinstance(content, dict | list):
            raise ProblemError("not a list of records")
        for number, (key, record) in enumerate(_keyed_records(content), start=1):
            if self.columns and not isinstance(record, dict):
                raise ProblemError(f"record {number} is not an object with fields")
            fields = record if isinstance(record, dict) else {"value": record}
            yield f"record {number}", {"key": key, **fields}


def _keyed_records(content: Any) -> Iterable[tuple[str, Any]]:
    """Key and value of each record of JSON: a list (keys are numbers from 1), ``{"data": [...]}`` or an object of
    records; none of other values."""
    if isinstance(content, dict) and isinstance(content.get("data"), list):
        content = content["data"]
    if isinstance(content, dict):
        return content.items()
    return ((str(number), record) for number, record in enumerate(content if isinstance(content, list) else (), 1))


@contextmanager
def problems_of(name: str, where: str) -> Iterator[None]:
    """Turn problems with a record into errors that name the file and the line.

    Raises:
        ManifestError: if the record is malformed.
    """
    try:
        yield
    except ProblemError as problem:
        raise ManifestError(f"{name}: {where}: {' '.join(str(problem).split())}") from problem
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ManifestError(f"{name}: {where}: a field is not as published: {error}") from error


class TableDataset(Dataset):
    """A dataset described by annotation files with one record a line."""

    tables: ClassVar[tuple[Table, ...]]

    @property
    def parts(self) -> tuple[Part, ...]:
        return tuple(table.part for table in self.tables)

    @abstractmethod
    def row(self, record: Record, table: Table) -> DatasetRow | None:
        """The row of a record; None for a record that no task uses.

        Raises:
            ProblemError: for a value that the dataset cannot have.
        """

    def rows(self, tree: Tree) -> Iterator[DatasetRow]:
        for table in self.tables:
            part = table.part
            file = tree.file(part.patterns)
            if file is None:
                continue
            for where, record in table.records(file, tree):
                with problems_of(self.name, where):
                    row = self.row(record, table)
                if row is None:
                    tree.unused[part.name] += 1
                else:
                    split = row.split or part.split
                    yield replace(row, split=split, where=where, part=part.name, home=tree.home(part.patterns))


class FolderDataset(Dataset):
    """A dataset whose annotation is in the names of its folders and files.

    Attributes:
        patterns: globs of each split. All matching files below one folder are used. If files differ only in their
            extension, the one that matches the first glob is used.
    """

    patterns: ClassVar[Patterns]

    @property
    def parts(self) -> tuple[Part, ...]:
        return tuple(Part(split, globs) for split, globs in self.patterns.items())

    @abstractmethod
    def parse(self, path: PurePosixPath, split: str) -> DatasetRow | None:
        """The row of a recording at ``path`` below the dataset's folder, without its path; None for a recording that
        no task uses.

        Raises:
            ProblemError: for a name that the dataset cannot have.
        """

    def rows(self, tree: Tree) -> Iterator[DatasetRow]:
        for part in self.parts:
            home = tree.home(part.patterns)
            if home is None:
                continue
            files: dict[Path, list[str]] = defaultdict(list)
            for pattern in part.patterns:
                for file in matching(home, pattern):
                    files[file.with_suffix("")].append(file.relative_to(home).as_posix())
            for _, audio in sorted(files.items()):
                where = audio[0]
                with problems_of(self.name, f"'{where}'"):
                    row = self.parse(PurePosixPath(where), part.split)
                if row is None:
                    tree.unused[part.name] += 1
                else:
                    split = row.split or part.split
                    yield replace(row, audio=tuple(audio), split=split, where=where, part=part.name, home=home)


def _has(folder: Path, patterns: Sequence[str]) -> bool:
    return any(True for pattern in patterns for _ in matching(folder, pattern))


def matching(folder: Path, pattern: str) -> Iterator[Path]:
    """Visible files below a folder that match a path or a glob, in any order."""
    if "*" not in pattern:
        files = (path for path in (folder / pattern,) if path.is_file())
    else:
        files = (path for path in folder.glob(pattern) if path.is_file())
    return (file for file in files if all(map(_is_visible, file.relative_to(folder).parts)))


def segment(video: str, start: float) -> tuple[str, ...]:
    """Possible names of the piece of a YouTube video that begins at ``start`` seconds.

    They cover the names that download scripts use: with or without ``Y`` before the video's id; with the start, start
    and end, or neither; in seconds or milliseconds.
    """
    return (f"{video}@{start:g}", f"{video}@{start * 1000:g}", f"{video}@")


def _names(stem: str) -> Iterator[str]:
    """The names by which a file is found."""
    stem = stem.rpartition("\\")[2]  # scripts for Windows put folders into the name on other systems
    stem = unicodedata.normalize("NFC", stem)  # macOS decomposes accents
    yield stem
    number, mark, _ = stem.partition("_")
    if mark and number.isdecimal():
        yield f"{number}_*"
    found = _SEGMENT.fullmatch(stem)
    if found:
        yield f"{found[1]}@{float(found[2]):g}" if found[2] else f"{found[1]}@"


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def _has_content(path: Path) -> bool:
    """Whether a file exists and is not empty; a name that the file system refuses does not exist."""
    try:
        status = path.stat()
    except (OSError, ValueError):  # ValueError: a null byte
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size > 0


def _lossless_first(file: str) -> tuple[bool, str]:
    return not file.lower().endswith((".wav", ".flac")), file


def words(label: str) -> str:
    """A label as words: ``Crackling_fire`` and ``CrowdedIndoor`` become ``crackling fire`` and ``crowded indoor``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label.replace("_", " ")).strip().lower()


def known(code: str, meanings: Codes, what: str) -> str:
    """The meaning of a code.

    Raises:
        ProblemError: for an unknown code.
    """
    if code not in meanings:
        names = f"has {', '.join(meanings)}" if len(meanings) <= _MAX_LISTED_CODES else f"has {len(meanings)} others"
        raise ProblemError(f"{what} '{code}' is unknown; the dataset {names}")
    return meanings[code]


def fold(value: str, folds: int) -> int:
    """The number of a fold.

    Raises:
        ProblemError: unless it is 1 to ``folds``.
    """
    if not (value.isdecimal() and 1 <= int(value) <= folds):
        raise ProblemError(f"fold '{value}' is unknown; the dataset has folds 1 to {folds}")
    return int(value)


def number(record: Record, field: str) -> float:
    """A field as a number.

    Raises:
        ProblemError: if it is not a number.
    """
    try:
        return float(record[field])
    except (TypeError, ValueError) as error:
        raise ProblemError(f"{field} '{record[field]}' is not a number") from error


def _fields(record: Record) -> str:
    return ", ".join(str(key) for key in record if key != "key") or "nothing"
