"""Collections with titles, tags and descriptions: FMA, WavText5K, MACS, SoundDescs, WavCaps, FreeSound, FindSounds.

Their texts train "generate metadata" (the paper's auxiliary task) and captions. Nothing else is known about the content
of a recording, so most have no domain, and questions are made only from the texts.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import ClassVar

import yaml

from pengi.audio.formats import has_audio_suffix, without_audio_suffix
from pengi.data.datasets.base import (
    Codes,
    Dataset,
    DatasetRow,
    Part,
    ProblemError,
    Record,
    Table,
    TableDataset,
    Tree,
    keyed_records,
    known,
    matching,
    problems_of,
    words,
)
from pengi.data.datasets.columns import Columns, items_of, plain, text_of, texts_of, title_of, words_of_genre
from pengi.errors import ManifestError


class Fma(Dataset):
    """FMA: ``fma_metadata/{tracks,genres}.csv`` and ``fma_{small,medium,large,full}/000/000002.mp3``.

    Layout: mdeff/fma. ``tracks.csv`` has two header lines (``track``, ``album``, ``artist`` or ``set``, and the field)
    and a third that only names the index. The genre is the track's top genre, else the top genre that all its genres
    share; its genres and tags become the tags. The language of a track is not used, since it is "en" even for
    instrumental music. All tracks of an artist are in the same split.
    """

    name, title = "fma", "FMA"
    license, home = "CC (each track has its own)", "https://github.com/mdeff/fma"
    domain = "music"
    _tracks = Part("train", ("fma_metadata/tracks.csv", "tracks.csv"))
    _genres = Part("train", ("fma_metadata/genres.csv", "genres.csv"))
    _columns = ("track.title", "track.genre_top", "track.genres", "track.tags", "track.license", "track.information",
                "artist.id", "set.split")  # fmt: skip
    _splits: ClassVar[Codes] = {"training": "train", "validation": "val", "test": "test"}

    @property
    def parts(self) -> tuple[Part, ...]:
        return (self._tracks,)

    def rows(self, tree: Tree) -> Iterator[DatasetRow]:
        file = self.needed(tree, *self._tracks.patterns)
        genres = self._genre_table(tree)
        for where, record in _two_header_lines(file, tree, self._columns):
            with problems_of(self.name, where):
                row = self._row(record, genres)
            yield replace(row, where=where, part=self._tracks.name, home=tree.home(self._tracks.patterns))

    def _genre_table(self, tree: Tree) -> dict[str, tuple[str, str]]:
        """Name of each genre, and the number of its top genre."""
        file = tree.file(self._genres.patterns)
        if file is None:
            return {}
        table = Table(self._genres.name, columns=("genre_id", "title", "top_level"))
        return {
            record["genre_id"]: (words_of_genre(record["title"]), record["top_level"])
            for _, record in table.records(file, tree)
        }

    def _row(self, record: Record, genres: Mapping[str, tuple[str, str]]) -> DatasetRow:
        if not record["track_id"].isdecimal():
            raise ProblemError(f"track_id '{record['track_id']}' is not a number")
        stem = f"{int(record['track_id']):06d}"
        named = [genres[number] for number in items_of(record["track.genres"]) if number in genres]
        tops = {genres[top][0] for _, top in named if top in genres}
        genre = words_of_genre(record["track.genre_top"]) or (tops.pop() if len(tops) == 1 else "")
        tags = [plain(tag) for tag in items_of(record["track.tags"])]
        return DatasetRow(
            id=str(int(stem)),
            names=(*(f"fma_{size}/{stem}" for size in ("small", "medium", "large", "full")), stem),
            split=known(record["set.split"], self._splits, "split"),
            attributes={"genre": genre} if genre else {},
            group=record["artist.id"],
            title=plain(record["track.title"]),
            tags=tuple(dict.fromkeys([*filter(None, [genre]), *(name for name, _ in named), *filter(None, tags)])),
            description=plain(record["track.information"]),
            license=record["track.license"],
        )


def _two_header_lines(file: Path, tree: Tree, columns: tuple[str, ...]) -> Iterator[tuple[str, Record]]:
    """Location and fields of each record of a table with two header lines, whose columns are named like
    ``track.title``."""
    label = os.path.relpath(file, tree.root)
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.reader(lines)
            upper, lower = next(reader, []), next(reader, [])
            names = ["track_id", *(".".join(pair) for pair in list(zip(upper, lower, strict=False))[1:])]
            for column in columns:
                if column not in names:
                    raise ManifestError(f"{tree.name}: {label} has no '{column}' in its two header lines")
            for cells in reader:
                if cells and cells[0] == "track_id":
                    continue
                where = f"{label}, line {reader.line_num}"
                if len(cells) != len(names):
                    raise ManifestError(
                        f"{tree.name}: {where}: {len(cells)} fields, but there are {len(names)} columns"
                    )
                yield where, dict(zip(names, cells, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{tree.name}: '{file}' cannot be read: {error}") from error


class WavText5K(TableDataset):
    """WavText5K: ``WavText5K.csv`` with title, description and tags of 4,505 recordings, and the recordings.

    Layout: microsoft/WavText5K. Its script puts the recordings into ``<rate>/download`` and, resampled, into
    ``<rate>/audios``; they are looked for in all folders. Tags are written as a Python list.
    """

    name, title = "wavtext5k", "WavText5K"
    license = "research use (recordings: the terms of BigSoundBank and SoundBible)"
    home = "https://github.com/microsoft/WavText5K"
    domain = ""
    several_records = True
    tables = (Table("WavText5K.csv", "train", ("title", "description", "fname", "tags")),)

    def row(self, record: Record, table: Table) -> DatasetRow:
        stem = _stem(record["fname"])
        return DatasetRow(
            id=stem,
            names=(stem,),
            split=table.split,
            title=plain(text_of(record["title"])),
            tags=tuple(dict.fromkeys(map(plain, items_of(record["tags"])))),
            description=plain(text_of(record["description"])),
        )


class Macs(Dataset):
    """MACS: ``MACS.yaml`` with two to five sentences and tags for 3,930 recordings of 10 s of airports, squares, parks.

    Layout: Zenodo 5114771; the recordings are those of TAU Urban Acoustic Scenes 2019, development (Zenodo 2589280),
    and are looked for in all folders. ``MACS_competence.csv`` (annotator and a number from 0 to 1, tabs) orders the
    sentences, the most competent annotator's first, and weights the votes for tags: a tag is used if the annotators who
    chose it have more than half of the total competence. Without that file all annotators have the same weight.
    """

    name, title = "macs", "MACS"
    license = "Tampere University non-commercial (captions); TUT non-commercial (recordings)"
    home = "https://zenodo.org/records/5114771"
    domain = ""
    _annotations = Part("train", ("MACS.yaml",))

    @property
    def parts(self) -> tuple[Part, ...]:
        return (self._annotations,)

    def rows(self, tree: Tree) -> Iterator[DatasetRow]:
        file = self.needed(tree, *self._annotations.patterns)
        competence = self._competence(tree)
        try:
            content = yaml.load(file.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())
            raise ManifestError(f"{self.name}: '{file}' cannot be read: {reason}") from error
        records = content.get("files") if isinstance(content, dict) else None
        if not isinstance(records, list):
            raise ManifestError(f"{self.name}: '{file}' has no list 'files'")
        for number, record in enumerate(records, start=1):
            where = f"{os.path.relpath(file, tree.root)}, record {number}"
            with problems_of(self.name, where):
                row = self._row(record, competence)
            yield replace(row, where=where, part=self._annotations.name, home=tree.home(self._annotations.patterns))

    def _competence(self, tree: Tree) -> dict[str, float]:
        file = tree.file(("MACS_competence.csv",))
        if file is None:
            return {}
        table = Table("MACS_competence.csv", columns=("annotator_id", "competence"), header=False, delimiter="\t")
        found = {}
        for where, record in table.records(file, tree):
            try:
                found[record["annotator_id"]] = float(record["competence"])
            except ValueError as error:
                raise ManifestError(
                    f"{self.name}: {where}: competence '{record['competence']}' is not a number"
                ) from error
        return found

    @staticmethod
    def _row(record: Record, competence: Mapping[str, float]) -> DatasetRow:
        weighted = [(competence.get(str(each["annotator_id"]), 1.0), each) for each in record["annotations"]]
        weighted.sort(key=lambda pair: -pair[0])
        votes: defaultdict[str, float] = defaultdict(float)
        for weight, each in weighted:
            for tag in dict.fromkeys(texts_of(each.get("tags"))):
                votes[words(tag)] += weight
        total = sum(weight for weight, _ in weighted)
        tags = tuple(tag for tag, weight in votes.items() if weight > total / 2)
        stem = _stem(record["filename"])
        return DatasetRow(
            id=stem,
            names=(stem,),
            split="train",
            events=tags,
            group="-".join(stem.split("-")[:3]),  # scene, city and location
            captions=tuple(filter(None, (plain(text_of(each["sentence"])) for _, each in weighted))),
            tags=tags,
        )


class SoundDescs(Dataset):
    """SoundDescs: 32,979 BBC sound effects with a description and categories, and their split.

    Layout: akoepke/audio-retrieval-benchmark (``{train,val,test}_list.txt``, recordings as ``<id>/<id>.wav`` or
    ``<id>.wav``). Its descriptions are a pickle, which can run any code when it is loaded and so is never loaded. The
    same descriptions are in the BBC's own list ``BBCSoundEffects.csv`` (``location, description, category``), in
    WavCaps' ``bbc_final.json``, or in a ``descriptions.json`` or ``.csv`` that you made (``id``, ``description``).
    Without the lists all recordings are for training; with them only the listed ones are used.
    """

    name, title = "sounddescs", "SoundDescs"
    license, home = "RemArc (BBC, non-commercial)", "https://github.com/akoepke/audio-retrieval-benchmark"
    domain = ""
    _texts = ("descriptions.json", "descriptions.csv", "sounddescs_data/descriptions.json", "BBCSoundEffects.csv",
              "bbc_final.json", "json_files/BBC_Sound_Effects/bbc_final.json")  # fmt: skip
    _pickles = ("descriptions.pkl", "sounddescs_data/descriptions.pkl")
    _lists = tuple(
        Part(split, (f"{split}_list.txt", f"data/SoundDescs/{split}_list.txt")) for split in ("test", "val", "train")
    )

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part("train", self._texts), *self._lists)

    def rows(self, tree: Tree) -> Iterator[DatasetRow]:
        if tree.file(self._texts) is None and tree.file(self._pickles) is not None:
            raise ManifestError(
                f"{self.name}: descriptions.pkl is a pickle, which can run any code when it is loaded and so is never "
                "loaded; put the BBC's list BBCSoundEffects.csv or WavCaps' bbc_final.json beside it"
            )
        file = self.needed(tree, *self._texts)
        parts = {id: part for part in self._lists for id in self._listed(tree, part)}
        everything = Part("train", self._texts)
        for where, record in _records(file, tree):
            columns = Columns.of(tuple(record))
            id = _stem(next(iter(columns.cells("audio", record)), "")).lower()
            if not id or (parts and id not in parts):
                tree.unused[everything.name] += 1
                continue
            part = parts.get(id, everything)
            with problems_of(self.name, where):
                tags = items_of(record.get("category", record.get("categories")))
            yield DatasetRow(
                id=id,
                names=(id, id.upper()),
                split=part.split,
                tags=tuple(dict.fromkeys(map(plain, tags))),
                description=plain(text_of(record.get("description", record.get("value")))),
                where=where,
                part=part.name,
            )

    @staticmethod
    def _listed(tree: Tree, part: Part) -> list[str]:
        file = tree.file(part.patterns)
        return [] if file is None else [line.strip().lower() for line in tree.lines(file)]


class WavCaps(TableDataset):
    """WavCaps: 403,050 recordings of four sources with captions that a language model wrote.

    Layout: the Hugging Face copy cvssp/WavCaps: ``json_files/<source>/*_final.json``, and the unpacked archives, which
    end in a folder ``<source>_flac``; a folder ``<source>`` is also read. Recordings that the published lists
    (``json_files/blacklist``) find in the test parts of AudioCaps and Clotho, or in UrbanSound8K, ESC-50 and VGGSound,
    are heldout, so that no model trains on them.
    """

    name, title = "wavcaps", "WavCaps"
    license = "academic use only (clips: AudioSet, BBC RemArc, Freesound, SoundBible)"
    home = "https://huggingface.co/datasets/cvssp/WavCaps"
    domain = ""
    tables = tuple(
        Table(
            f"json_files/{source}/{short}_final.json",
            "train",
            ("id", "caption"),
            folder=source,
            others=(f"json_files/{short}_final.json", f"{short}_final.json", *more),
        )
        for source, short, *more in (
            ("AudioSet_SL", "as"),
            ("BBC_Sound_Effects", "bbc"),
            ("FreeSound", "fsd", "json_files/FreeSound/fsd_final_2s.json"),
            ("SoundBible", "sb"),
        )
    )
    _blacklists = ("blacklist_exclude_test_ac.json", "blacklist_exclude_ub8k_esc50_vggsound.json")
    _heldout: frozenset[tuple[str, str]] = frozenset()

    def rows(self, tree: Tree) -> Iterator[DatasetRow]:
        self._heldout = frozenset(id for name in self._blacklists for id in self._listed(tree, name))
        yield from super().rows(tree)

    def _listed(self, tree: Tree, name: str) -> Iterator[tuple[str, str]]:
        file = tree.file((f"json_files/blacklist/{name}", f"blacklist/{name}", name))
        if file is None:
            return
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            for source, ids in content.items():
                yield from ((source, _stem(str(id))) for id in ids)
        except (ValueError, AttributeError, TypeError) as error:
            raise ManifestError(f"{self.name}: '{file}' is not a list of ids for each source") from error

    def row(self, record: Record, table: Table) -> DatasetRow:
        stem = _stem(str(record["id"]))
        source = table.folder
        # FreeSound and SoundBible use the same numbers, so only the folder distinguishes their recordings.
        plainly = (stem,) if source in ("AudioSet_SL", "BBC_Sound_Effects") else ()
        duration = record.get("duration")
        return DatasetRow(
            id=f"{source}/{stem}",
            names=(f"{source}/{stem}", *plainly),
            split="heldout" if (source.removesuffix("_SL"), stem) in self._heldout else table.split,
            group=stem.removeprefix("Y") if source == "AudioSet_SL" else f"{source.lower()}:{stem}",
            captions=tuple(filter(None, [plain(text_of(record["caption"]))])),
            title=title_of(text_of(record.get("title", record.get("file_name")))),
            tags=tuple(dict.fromkeys(plain(tag) for tag in items_of(record.get("tags", record.get("category"))))),
            description=plain(text_of(record.get("description"))),
            duration_s=duration if isinstance(duration, int | float) and duration > 0 else None,
        )


class MetadataTable(Dataset):
    """Recordings in a folder, and a table that describes them: CSV, TSV, JSON, JSON lines or Parquet.

    The table is in the folder itself or in one below it (such as ``train/metadata.csv``); several tables are read one
    after the other. One column names the recording (``file``, ``filename``, ``fname``, ``path``, ``audio``, ``id`` ...:
    a path, or a name with or without its extension, in any folder); ``title``, ``tags``, ``description``, ``caption``,
    ``label``, ``license``, ``split`` and their usual other names are understood, see
    :mod:`pengi.data.datasets.columns`. If no split is named, about a fifth becomes ``val``, the same recordings every
    time.
    """

    name, title = "table", "a table of recordings"
    license, home = "none stated", "docs/data.md"
    domain = ""
    several_records = True
    spaced_tags: ClassVar[bool] = False

    def rows(self, tree: Tree) -> Iterator[DatasetRow]:
        used = False
        for file in _table_files(tree.root):
            for row in self._rows(file, tree):
                used = True
                yield row
        if not used:
            raise ManifestError(
                f"{self.name}: there is no '*.csv', '*.tsv', '*.json' or '*.jsonl' in '{tree.root}' with a column that "
                f"names recordings (such as 'filename' or 'id') and one that describes them (such as 'title', 'tags', "
                f"'description', 'caption' or 'label'); see {self.home}"
            )

    def _rows(self, file: Path, tree: Tree) -> Iterator[DatasetRow]:
        label = file.relative_to(tree.root).as_posix()
        folder = label.rpartition("/")[0]
        for where, record in _records(file, tree):
            columns = Columns.of(tuple(record))
            if not columns.by_field["audio"]:
                return  # another kind of table
            if not columns.describe_recordings:
                tree.unused[label] += 1
                continue
            cells = columns.cells("audio", record)
            names = [stem for cell in cells if (stem := _stem(cell))]
            id = f"{folder}/{cells[0]}".removeprefix("/") if cells else where
            with problems_of(self.name, where):
                row = columns.row(record, id, spaced_tags=self.spaced_tags)
            yield replace(
                row,
                audio=tuple(cell.replace("\\", "/") for cell in cells if has_audio_suffix(cell)),
                names=tuple(dict.fromkeys([*names, *map(self.other_name, names)])),
                split=row.split or _split_by_hash(row.group or id),
                where=where,
                part=label,
                home=file.parent,
            )

    @staticmethod
    def other_name(stem: str) -> str:
        """Another name by which a recording may be found."""
        return stem


class FreeSound(MetadataTable):
    """FreeSound: recordings and a table as :class:`MetadataTable` reads it, with one record for each sound.

    Columns are those of Freesound's own interface: ``id``, ``name``, ``tags`` (blanks between them, or a list),
    ``description``, ``license``. A recording is found as ``<id>.*`` or ``<id>__<user>__<name>.*``, as the site names
    its downloads.
    """

    name, title = "freesound", "FreeSound"
    license, home = "CC (each sound has its own)", "https://freesound.org"
    spaced_tags = True

    @staticmethod
    def other_name(stem: str) -> str:
        return f"{stem}_*" if stem.isdecimal() else stem


class FindSounds(MetadataTable):
    """FindSounds: recordings that the search engine found, and a table of them as :class:`MetadataTable` reads it."""

    name, title = "findsounds", "FindSounds"
    license, home = "none stated (recordings: the sites they are from)", "https://www.findsounds.com"


def _table_files(root: Path) -> list[Path]:
    """The tables in a folder and, except for JSON, in the folders below it."""
    patterns = [f"{folders}*.{suffix}" for folders in ("", "*/", "*/*/") for suffix in ("csv", "tsv", "jsonl")]
    return sorted(file for pattern in ("*.json", *patterns) for file in matching(root, pattern))


def _records(file: Path, tree: Tree) -> Iterator[tuple[str, Record]]:
    """Location (file and line) and fields of each record of a table of any kind."""
    if file.suffix in (".json", ".jsonl"):
        yield from _json_records(file, tree)
        return
    with file.open(encoding="utf-8-sig", errors="replace") as lines:
        header = lines.readline()
    delimiter = max(",;\t", key=header.count)
    yield from Table(file.name, delimiter=delimiter).records(file, tree)


def _json_records(file: Path, tree: Tree) -> Iterator[tuple[str, Record]]:
    """Location (file and number) and fields of each record of a list, an object or JSON lines; a plain text becomes the
    field ``value``."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        lines = [json.loads(line) for line in text.split("\n") if line.strip()] if file.suffix == ".jsonl" else None
        content = json.loads(text) if lines is None else lines
    except ValueError as error:  # raised for invalid JSON and invalid UTF-8
        raise ManifestError(f"{tree.name}: '{file}' cannot be read: {error}") from error
    for number, (key, record) in enumerate(keyed_records(content), start=1):
        fields = record if isinstance(record, dict) else {"value": record}
        yield f"{os.path.relpath(file, tree.root)}, record {number}", {"key": key, **fields}


def _stem(name: str) -> str:
    """A file's name without folders and without an audio extension."""
    return without_audio_suffix(PureWindowsPath(PurePosixPath(name.strip()).name).name)


def _split_by_hash(unit: str) -> str:
    return "val" if hashlib.sha256(unit.encode()).digest()[0] % 5 == 0 else "train"
