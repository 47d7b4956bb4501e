"""Collections with titles, tags and descriptions: FMA, WavText5K, MACS, SoundDescs, WavCaps, FreeSound, FindSounds.

Their texts train "generate metadata" (the paper's auxiliary task) and captions. Nothing else is known about the content
of a recording, so most have no domain, and questions are made only from the texts.
"""

from __future__ import annotations

import csv
import hashlib
import json
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
    known,
    matching,
    number,
    problems_of,
    words,
)
from pengi.data.datasets.columns import Columns, items_of, plain, text_of, texts_of, title_of, words_of_genre
from pengi.errors import ManifestError


class _Tracks(Table):
    """A table with two header lines, whose columns are named like ``track.title``."""

    def read(self, path: Path) -> Iterator[tuple[str, Record]]:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.reader(lines)
            upper, lower = next(reader, []), next(reader, [])
            names = ["track_id", *map(".".join, zip(upper[1:], lower[1:], strict=False))]
            for column in self.columns:
                if column not in names:
                    raise ProblemError(f"no '{column}' in its two header lines")
            for cells in reader:
                if cells and cells[0] == "track_id":  # the third line
                    continue
                if len(cells) != len(names):
                    raise ProblemError(
                        f"line {reader.line_num}: {len(cells)} fields, but there are {len(names)} columns"
                    )
                yield f"line {reader.line_num}", dict(zip(names, cells, strict=True))


class Fma(TableDataset):
    """FMA: ``fma_metadata/{tracks,genres}.csv`` and ``fma_{small,medium,large,full}/000/000002.mp3``.

    Layout: mdeff/fma. ``tracks.csv`` has two header lines (``track``, ``album``, ``artist`` or ``set``, and the field)
    and a third that only names the index. The genre is the track's top genre, else the top genre that all its genres
    share; its genres and tags become the tags. The language of a track is not used, since it is "en" even for
    instrumental music. All tracks of an artist are in the same split.
    """

    name, title = "fma", "FMA"
    license, home = "CC (each track has its own)", "https://github.com/mdeff/fma"
    domain = "music"
    self_contained = False
    tables = (
        _Tracks(
            "fma_metadata/tracks.csv",
            "train",
            columns=("track.title", "track.genre_top", "track.genres", "track.tags", "track.license",
                     "track.information", "artist.id", "set.split"),
            others=("tracks.csv",),
        ),
    )  # fmt: skip
    _genre_table = Table("fma_metadata/genres.csv", columns=("genre_id", "title", "top_level"), others=("genres.csv",))
    _splits: ClassVar[Codes] = {"training": "train", "validation": "val", "test": "test"}
    # Number of each genre -> its name and the number of its top genre.
    _genres: Mapping[str, tuple[str, str]] = {}

    def rows(self, tree: Tree) -> Iterator[DatasetRow]:
        file = tree.file(self._genre_table.part.patterns)
        self._genres = {
            record["genre_id"]: (words_of_genre(record["title"]), record["top_level"])
            for _, record in (self._genre_table.records(file, tree) if file else ())
        }
        yield from super().rows(tree)

    def row(self, record: Record, table: Table) -> DatasetRow:
        if not record["track_id"].isdecimal():
            raise ProblemError(f"track_id '{record['track_id']}' is not a number")
        stem = f"{int(record['track_id']):06d}"
        named = [self._genres[genre] for genre in items_of(record["track.genres"]) if genre in self._genres]
        tops = {self._genres[top][0] for _, top in named if top in self._genres}
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
            title=plain(text_of(record["title"])),
            tags=tuple(dict.fromkeys(map(plain, items_of(record["tags"])))),
            description=plain(text_of(record["description"])),
        )


class _YamlTable(Table):
    """A YAML file with a list ``files`` of records."""

    def read(self, path: Path) -> Iterator[tuple[str, Record]]:
        try:
            content = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except yaml.YAMLError as error:
            raise ValueError(" ".join(str(error).split())) from error
        records = content.get("files") if isinstance(content, dict) else None
        if not isinstance(records, list):
            raise ValueError("it has no list 'files'")
        for index, record in enumerate(records, start=1):
            yield f"record {index}", record


class Macs(TableDataset):
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
    tables = (_YamlTable("MACS.yaml", "train"),)
    _competence: Mapping[str, float] = {}

    def rows(self, tree: Tree) -> Iterator[DatasetRow]:
        table = Table("MACS_competence.csv", columns=("annotator_id", "competence"), header=False, delimiter="\t")
        file = tree.file((table.path,))
        competence: dict[str, float] = {}
        for where, record in table.records(file, tree) if file else ():
            with problems_of(self.name, where):
                competence[record["annotator_id"]] = number(record, "competence")
        self._competence = competence
        yield from super().rows(tree)

    def row(self, record: Record, table: Table) -> DatasetRow:
        weighted = [(self._competence.get(str(each["annotator_id"]), 1.0), each) for each in record["annotations"]]
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
    _texts = Part(
        "train",
        ("descriptions.json", "descriptions.csv", "sounddescs_data/descriptions.json", "BBCSoundEffects.csv",
         "bbc_final.json", "json_files/BBC_Sound_Effects/bbc_final.json"),
    )  # fmt: skip
    _pickles = ("descriptions.pkl", "sounddescs_data/descriptions.pkl")
    _lists = tuple(
        Part(split, (f"{split}_list.txt", f"data/SoundDescs/{split}_list.txt")) for split in ("test", "val", "train")
    )

    @property
    def parts(self) -> tuple[Part, ...]:
        return (self._texts, *self._lists)

    def rows(self, tree: Tree) -> Iterator[DatasetRow]:
        if tree.file(self._texts.patterns) is None and tree.file(self._pickles) is not None:
            raise ManifestError(
                f"{self.name}: descriptions.pkl is a pickle, which can run any code when it is loaded and so is never "
                "loaded; put the BBC's list BBCSoundEffects.csv or WavCaps' bbc_final.json beside it"
            )
        file = self.needed(tree, *self._texts.patterns)
        parts = {id: part for part in self._lists for id in self._listed(tree, part)}
        for where, record in Table(file.name, delimiter="").records(file, tree):
            columns = Columns.of(tuple(record))
            id = _stem(columns.cell("audio", record)).lower()
            if not id or (parts and id not in parts):
                tree.unused[self._texts.name] += 1
                continue
            part = parts.get(id, self._texts)
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
    are heldout, so that no model trains on them. The source of a recording is ignored here, because copies of the
    dataset may not name it.
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

    def heldout(self, tree: Tree) -> frozenset[str]:
        return frozenset(stem for name in self._blacklists for stem in self._listed(tree, name))

    def _listed(self, tree: Tree, name: str) -> Iterator[str]:
        file = tree.file((f"json_files/blacklist/{name}", f"blacklist/{name}", name))
        if file is None:
            return
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            for ids in content.values():
                yield from (_stem(str(id)) for id in ids)
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
            group=stem.removeprefix("Y") if source == "AudioSet_SL" else f"{source.lower()}:{stem}",
            captions=tuple(filter(None, [plain(text_of(record["caption"]))])),
            title=title_of(text_of(record.get("title", record.get("file_name")))),
            tags=tuple(dict.fromkeys(plain(tag) for tag in items_of(record.get("tags", record.get("category"))))),
            description=plain(text_of(record.get("description"))),
            duration_s=duration if isinstance(duration, int | float) and duration > 0 else None,
        )


class MetadataTable(Dataset):
    """Recordings in a folder, and a table that describes them: CSV, TSV, JSON, JSON lines or Parquet.

    The table is in the folder itself or up to two levels below it (such as ``train/metadata.csv``), a JSON file only in
    the folder itself; several tables are read one after the other. One column names the recording (``file``,
    ``filename``, ``fname``, ``path``, ``audio``, ``id`` ...: a path, or a name with or without its extension, in any
    folder); ``title``, ``tags``, ``description``, ``caption``, ``label``, ``license``, ``split`` and their usual other
    names are understood, see :mod:`pengi.data.datasets.columns`. If no split is named, about a fifth becomes ``val``,
    the same recordings every time.
    """

    name, title = "table", "a table of recordings"
    license, home = "none stated", "docs/data.md"
    domain = ""
    several_records = True
    spaced_tags: ClassVar[bool] = False
    """Whether the tags of a cell are separated by spaces."""
    named_by_number: ClassVar[bool] = False
    """Whether the name of a recording may begin with its number, as in ``<id>__<user>__<name>.wav``."""

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
        for where, record in Table(file.name, delimiter="").records(file, tree):
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
            numbered = [f"{name}_*" for name in names if name.isdecimal()] if self.named_by_number else []
            yield replace(
                row,
                audio=tuple(cell.replace("\\", "/") for cell in cells if has_audio_suffix(cell)),
                names=tuple(dict.fromkeys([*names, *numbered])),
                split=row.split or _split_by_hash(row.group or id),
                where=where,
                part=label,
                home=file.parent,
            )


class FreeSound(MetadataTable):
    """FreeSound: recordings and a table as :class:`MetadataTable` reads it, with one record for each sound.

    Columns are those of Freesound's own interface: ``id``, ``name``, ``tags`` (blanks between them, or a list),
    ``description``, ``license``. A recording is found as ``<id>.*`` or ``<id>__<user>__<name>.*``, as the site names
    its downloads.
    """

    name, title = "freesound", "FreeSound"
    license, home = "CC (each sound has its own)", "https://freesound.org"
    spaced_tags = True
    named_by_number = True


class FindSounds(MetadataTable):
    """FindSounds: recordings that the search engine found, and a table of them as :class:`MetadataTable` reads it."""

    name, title = "findsounds", "FindSounds"
    license, home = "none stated (recordings: the sites they are from)", "https://www.findsounds.com"


def _table_files(root: Path) -> list[Path]:
    """The tables in a folder and, except for JSON, in the folders below it."""
    patterns = [f"{folders}*.{suffix}" for folders in ("", "*/", "*/*/") for suffix in ("csv", "tsv", "jsonl")]
    return sorted(file for pattern in ("*.json", *patterns) for file in matching(root, pattern))


def _stem(name: str) -> str:
    """A file's name without folders and without an audio extension."""
    return without_audio_suffix(PureWindowsPath(PurePosixPath(name.strip()).name).name)


def _split_by_hash(unit: str) -> str:
    return "val" if hashlib.sha256(unit.encode()).digest()[0] % 5 == 0 else "train"
