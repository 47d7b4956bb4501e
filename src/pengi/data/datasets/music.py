"""Music and instruments: GTZAN genres and music/speech, NSynth, Beijing Opera, Medley-solos-DB."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import ClassVar

from pengi.conditioning.notes import note_name
from pengi.data.datasets.base import (
    Codes,
    DatasetRow,
    FolderDataset,
    Patterns,
    Record,
    Table,
    TableDataset,
    known,
    number,
    words,
)

_NSYNTH_FIELDS = (
    "instrument_family_str",
    "instrument_source_str",
    "instrument_str",
    "qualities_str",
    "pitch",
    "velocity",
)


class GtzanGenres(FolderDataset):
    """GTZAN genre collection: ``genres/<genre>/<genre>.<number>.{wav,au}``, 1000 clips of 30 s, 10 genres.

    Layout: the original ``genres.tar.gz``; the copy on Kaggle calls the folder ``Data/genres_original``. There is no
    official split, and the collection has repeated and mislabelled tracks (Sturm 2013).
    """

    name, title = "gtzan", "GTZAN genre collection"
    license, home = "none stated; research use", "http://marsyas.info/downloads/datasets.html"
    domain = "music"
    patterns: ClassVar[Patterns] = {
        "test": tuple(f"{folder}/*/*.{suffix}" for suffix in ("wav", "au") for folder in ("genres", "genres_original"))
    }
    codes: ClassVar[Codes] = {
        genre: genre.replace("hiphop", "hip hop")
        for genre in ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
    }

    def parse(self, path: PurePosixPath, split: str) -> DatasetRow:
        genre = known(path.parent.name, self.codes, "genre")
        return DatasetRow(path.stem, attributes={"genre": genre})


class GtzanMusicSpeech(FolderDataset):
    """GTZAN music/speech collection: ``{music_wav,speech_wav}/*.wav``, 64 clips of 30 s each.

    Layout: ``music_speech.tar.gz``.
    """

    name, title = "gtzan-music-speech", "GTZAN music/speech"
    license, home = "none stated; research use", "http://marsyas.info/downloads/datasets.html"
    domain = "music"
    patterns: ClassVar[Patterns] = {"test": ("*_wav/*.wav",)}
    codes: ClassVar[Codes] = {"music_wav": "music", "speech_wav": "speech"}

    def parse(self, path: PurePosixPath, split: str) -> DatasetRow:
        label = known(path.parent.name, self.codes, "folder")
        return DatasetRow(f"{label}-{path.stem}", events=(label,))


class NSynth(TableDataset):
    """NSynth: ``nsynth-{test,valid,train}/examples.json`` and ``audio/<note>.wav``, single notes of 4 s.

    Layout: magenta.tensorflow.org/datasets/nsynth. The test part has 10 of the 11 families (no synth lead). A note has
    any number of the 10 qualities, often none. Pitch is a MIDI number, written here as a name (69 is A4); velocity is
    MIDI's, one of 25, 50, 75, 100 and 127.
    """

    name, title = "nsynth", "NSynth"
    license, home = "CC-BY-4.0", "https://magenta.tensorflow.org/datasets/nsynth"
    domain = "instrument"
    redistribute = True
    tables = tuple(
        Table(f"nsynth-{part}/examples.json", split, _NSYNTH_FIELDS, f"nsynth-{part}/audio")
        for part, split in (("test", "test"), ("valid", "val"), ("train", "train"))
    )

    def row(self, record: Record, table: Table) -> DatasetRow:
        midi = int(number(record, "pitch"))
        note = record.get("note_str", record["key"])
        qualities = ", ".join(words(quality) for quality in record["qualities_str"])
        return DatasetRow(
            id=note,
            audio=(f"{table.folder}/{note}.wav",),
            names=(note,),
            attributes={
                "instrument": words(record["instrument_family_str"]),
                "source": words(record["instrument_source_str"]),
                **({"qualities": qualities} if qualities else {}),
                "pitch": note_name(midi),
                "midi": midi,
                "velocity": int(number(record, "velocity")),
            },
            group=record["instrument_str"],
        )


class BeijingOpera(FolderDataset):
    """Beijing Opera percussion: 236 single strokes of four instruments, the instrument in the file's name.

    The recordings are Freesound's, as CompMusic collected them (compmusic.upf.edu/bo-perc-dataset): the pinyin name is
    between the last underscore and a hyphen (``..._bangu-1.wav``). This was seen in code that reads the files, not in
    the archive; a folder named after the instrument is also read.
    """

    name, title = "beijing-opera", "Beijing Opera percussion"
    license, home = "CC-BY (Freesound)", "https://compmusic.upf.edu/bo-perc-dataset"
    domain = "instrument"
    redistribute = True
    patterns: ClassVar[Patterns] = {"test": ("*.wav", "*/*.wav")}
    codes: ClassVar[Codes] = {
        "bangu": "clapper-drum",
        "naobo": "cymbals",
        "daluo": "large gong",
        "xiaoluo": "small gong",
    }

    def parse(self, path: PurePosixPath, split: str) -> DatasetRow:
        folder, stem = path.parent.name.lower(), path.stem.split("_")[-1].split("-")[0].lower()
        label = known(folder if folder in self.codes else stem, self.codes, "instrument")
        return DatasetRow("-".join(path.with_suffix("").parts), attributes={"instrument": label})


class MedleySolos(TableDataset):
    """Medley-solos-DB: ``Medley-solos-DB_metadata.csv`` and 21,571 clips of 3 s, 8 instruments.

    Layout: Zenodo 3464194; files are ``Medley-solos-DB_<subset>-<instrument_id>_<uuid4>.wav``. The table is published
    beside the archive, which has no folder of its own.
    """

    name, title = "medley-solos-db", "Medley-solos-DB"
    license, home = "CC-BY-4.0", "https://zenodo.org/records/3464194"
    domain = "instrument"
    redistribute = True
    tables = (
        Table("Medley-solos-DB_metadata.csv", columns=("subset", "instrument", "instrument_id", "song_id", "uuid4")),
    )
    _splits: ClassVar[Codes] = {"test": "test", "training": "train", "validation": "val"}

    def row(self, record: Record, table: Table) -> DatasetRow:
        name = f"Medley-solos-DB_{record['subset']}-{record['instrument_id']}_{record['uuid4']}.wav"
        return DatasetRow(
            id=record["uuid4"],
            audio=(f"audio/{name}", name),
            names=(Path(name).stem,),
            split=known(record["subset"], self._splits, "subset"),
            attributes={"instrument": words(record["instrument"])},
            group=record["song_id"],
        )
