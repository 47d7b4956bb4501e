"""Sound events and scenes: ESC-50, UrbanSound8K, FSD50K, AudioSet, DCASE 2017 task 4, TUT 2017, CochlScene, SESA."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import ClassVar

from pengi.data.datasets.base import (
    Codes,
    DatasetRow,
    FolderDataset,
    Patterns,
    Record,
    Table,
    TableDataset,
    Tree,
    fold,
    known,
    number,
    segment,
    words,
)


class Esc50(TableDataset):
    """ESC-50: ``meta/esc50.csv`` and ``audio/*.wav``, 2000 clips, 50 classes, 5 folds.

    Layout: the repository karolpiczak/ESC-50. A recording of Freesound (``src_file``) may have several clips, which are
    all in the same fold.
    """

    name, title = "esc50", "ESC-50"
    license, home = "CC-BY-NC-3.0", "https://github.com/karolpiczak/ESC-50"
    tables = (Table("meta/esc50.csv", columns=("filename", "fold", "category", "src_file")),)

    def row(self, record: Record, table: Table) -> DatasetRow:
        return DatasetRow(
            id=Path(record["filename"]).stem,
            audio=(f"audio/{record['filename']}",),
            names=(Path(record["filename"]).stem,),
            events=(words(record["category"]),),
            attributes={"fold": fold(record["fold"], 5)},
            group=record["src_file"],
        )


class UrbanSound8K(TableDataset):
    """UrbanSound8K: ``metadata/UrbanSound8K.csv`` and ``audio/fold1..10/*.wav``, 8732 clips, 10 classes.

    Layout: the archive of urbansounddataset.weebly.com (Zenodo 1203745); the copy on Kaggle has the table beside the
    folders ``fold1..10``. The clips of one recording (``fsID``) are all in the same fold, so the folds must not be
    changed.
    """

    name, title = "urbansound8k", "UrbanSound8K"
    license, home = "CC-BY-NC-3.0", "https://zenodo.org/records/1203745"
    tables = (
        Table(
            "metadata/UrbanSound8K.csv",
            columns=("slice_file_name", "fsID", "fold", "class"),
            others=("UrbanSound8K.csv",),
        ),
    )

    def row(self, record: Record, table: Table) -> DatasetRow:
        fold_number = fold(record["fold"], 10)
        return DatasetRow(
            id=Path(record["slice_file_name"]).stem,
            audio=(f"audio/fold{fold_number}/{record['slice_file_name']}",),
            names=(Path(record["slice_file_name"]).stem,),
            events=(words(record["class"]),),
            attributes={"fold": fold_number},
            group=record["fsID"],
        )


class Fsd50k(TableDataset):
    """FSD50K: ``FSD50K.ground_truth/{dev,eval}.csv`` and ``FSD50K.{dev,eval}_audio/*.wav``, 200 classes, several per
    clip.

    Layout: Zenodo 4060432. In ``dev.csv`` a fourth column distinguishes train and val.
    """

    name, title = "fsd50k", "FSD50K"
    license = "CC-BY-4.0 (compilation; clips CC0, CC-BY, CC-BY-NC, Sampling+)"
    home = "https://zenodo.org/records/4060432"
    tables = (
        Table("FSD50K.ground_truth/eval.csv", "test", ("fname", "labels"), folder="FSD50K.eval_audio"),
        Table("FSD50K.ground_truth/dev.csv", "train", ("fname", "labels", "split"), "FSD50K.dev_audio"),
    )

    def row(self, record: Record, table: Table) -> DatasetRow:
        return DatasetRow(
            id=record["fname"],
            audio=(f"{table.folder}/{record['fname']}.wav",),
            names=(f"{table.folder}/{record['fname']}",),
            split=known(record.get("split", table.split), {name: name for name in ("train", "val", "test")}, "split"),
            events=tuple(words(label) for label in record["labels"].split(",")),
        )


class AudioSet(TableDataset):
    """AudioSet: the published segment lists and ``class_labels_indices.csv``, 527 classes, several per clip.

    Layout of the lists: research.google.com/audioset. The recordings are not published; they are looked for in all
    folders under the names that the usual download scripts give, see :func:`~pengi.data.datasets.base.segment`.
    """

    name, title = "audioset", "AudioSet"
    license = "CC-BY-4.0 (labels only; videos: their owners)"
    home = "https://research.google.com/audioset/download.html"
    self_contained = False
    _columns = ("YTID", "start_seconds", "end_seconds", "positive_labels")
    tables = (
        Table("eval_segments.csv", "test", _columns, header=False, skip_spaces=True),
        Table("balanced_train_segments.csv", "train", _columns, header=False, skip_spaces=True),
        Table("unbalanced_train_segments.csv", "train", _columns, header=False, skip_spaces=True),
    )

    def rows(self, tree: Tree) -> Iterator[DatasetRow]:
        table = Table("class_labels_indices.csv", columns=("index", "mid", "display_name"))
        records = table.records(self.needed(tree, table.path), tree)
        self._classes = {record["mid"]: record["display_name"].lower() for _, record in records}
        yield from super().rows(tree)

    def row(self, record: Record, table: Table) -> DatasetRow:
        video, start = record["YTID"], number(record, "start_seconds")
        return DatasetRow(
            id=f"{video}_{start:g}",
            names=segment(video, start),
            events=tuple(known(mid, self._classes, "class") for mid in record["positive_labels"].split(",")),
            group=video,
        )


class Dcase2017Task4(TableDataset):
    """DCASE 2017 task 4: 17 sounds of vehicles and warnings, several per clip, with weak labels.

    Layout: the repository ankitshah009/Task-4-Large-scale-weakly-supervised-sound-event-detection-for-smart-cars.
    ``groundtruth_weak_label_testing_set.csv`` is tab-separated without a header: ``<id>_<start>_<end>.wav``, onset,
    offset, label, one line for each label. The literature tests on it; the evaluation set is heldout. The official
    script writes ``Y<id>_<start>_<end>.wav`` into ``testing_set_testing_set_audio_formatted_and_segmented_downloads``,
    and beside it if it does not run on Windows; recordings are looked for by that name in all folders.
    """

    name, title = "dcase2017-task4", "DCASE 2017 task 4"
    license = "Apache-2.0 (labels; videos: their owners)"
    home = "https://github.com/ankitshah009/Task-4-Large-scale-weakly-supervised-sound-event-detection-for-smart-cars"
    several_records = True
    tables = tuple(
        Table(
            f"{folder}groundtruth_weak_label_{part}_set.csv",
            split,
            ("file", "onset", "offset", "label"),
            header=False,
            delimiter="\t",
        )
        for folder, part, split in (
            ("", "testing", "test"),
            ("groundtruth_release/", "evaluation", "heldout"),
            ("", "training", "train"),
        )
    )

    def row(self, record: Record, table: Table) -> DatasetRow:
        stem = Path(record["file"]).stem
        return DatasetRow(
            id=stem,
            names=(f"Y{stem}", stem, *segment(stem[:11], number(record, "onset"))[:1]),
            events=(record["label"].strip().lower(),),
            group=stem[:11],
        )


class Tut2017(TableDataset):
    """TUT Acoustic Scenes 2017: lists of the evaluation and the development set, 15 scenes, clips of 10 s.

    Layout: Zenodo 1040168 (evaluation) and 400515 (development), both unpacked side by side. ``meta.txt`` is
    tab-separated without a header: file, scene, identifier of the recording. The evaluation set has
    ``evaluation_setup/evaluate.txt`` without the identifier, and ``map.txt`` with the file's name in the style of the
    development set, which begins with the identifier (``b020_90_100.wav``).
    """

    name, title = "tut2017", "TUT Acoustic Scenes 2017"
    license, home = "TUT non-commercial", "https://zenodo.org/records/1040168"
    domain = "scene"
    tables = tuple(
        Table(
            f"{folder}/meta.txt",
            split,
            ("file", "scene", "recording"),
            folder,
            header=False,
            delimiter="\t",
            others=(f"{folder}/evaluation_setup/evaluate.txt", f"{folder}/evaluate.txt"),
            optional=1,
        )
        for folder, split in (
            ("TUT-acoustic-scenes-2017-evaluation", "test"),
            ("TUT-acoustic-scenes-2017-development", "train"),
        )
    )
    _maps = tuple(f"TUT-acoustic-scenes-2017-evaluation/{folder}map.txt" for folder in ("evaluation_setup/", ""))
    codes: ClassVar[Codes] = {
        code: words(code).replace("/", " or ")
        for code in (
            "beach", "bus", "cafe/restaurant", "car", "city_center", "forest_path", "grocery_store", "home", "library",
            "metro_station", "office", "park", "residential_area", "train", "tram",
        )
    }  # fmt: skip

    def rows(self, tree: Tree) -> Iterator[DatasetRow]:
        file = tree.file(self._maps)
        pairs = [re.split(r"[\t,]", line) for line in (tree.lines(file) if file else ())]
        self._originals = {pair[0].strip(): pair[-1].strip() for pair in pairs}
        yield from super().rows(tree)

    def row(self, record: Record, table: Table) -> DatasetRow:
        file: str = record["file"]
        original = Path(self._originals.get(file, file)).stem
        named = original.split("_")[0] if "_" in original else ""
        return DatasetRow(
            id=f"{table.split}-{Path(file).stem}",
            audio=(f"{table.folder}/{file}",),
            names=(f"{table.folder}/{Path(file).stem}",),
            events=(known(record["scene"], self.codes, "scene"),),
            group=record["recording"] or named,
        )


class CochlScene(FolderDataset):
    """CochlScene: ``{Train,Val,Test}/<Scene>/*.wav``, 76,115 clips of 10 s, 13 scenes.

    Layout: the archive of Zenodo 7080122, as in code that reads it.
    """

    name, title = "cochlscene", "CochlScene"
    license, home = "CC-BY-SA-3.0", "https://zenodo.org/records/7080122"
    domain = "scene"
    patterns: ClassVar[Patterns] = {"test": ("Test/*/*.wav",), "val": ("Val/*/*.wav",), "train": ("Train/*/*.wav",)}
    codes: ClassVar[Codes] = {
        code: words(code)
        for code in (
            "Bus", "Cafe", "Car", "CrowdedIndoor", "Elevator", "Kitchen", "Park", "ResidentialArea", "Restaurant",
            "Restroom", "Street", "Subway", "SubwayStation",
        )
    }  # fmt: skip

    def parse(self, path: PurePosixPath, split: str) -> DatasetRow:
        scene = known(path.parent.name, self.codes, "scene")
        return DatasetRow(f"{split}-{path.parent.name}-{path.stem}", events=(scene,))


class Sesa(FolderDataset):
    """SESA, sound events for surveillance: ``{train,test}/<class>_<number>.wav``, 480 and 105 clips, 4 classes.

    Layout: Zenodo 3519845; the class is in front of the first underscore. ``casual`` (no threat) does not describe a
    sound, so the label is "everyday sound".
    """

    name, title = "sesa", "SESA"
    license, home = "CC-BY-4.0", "https://zenodo.org/records/3519845"
    redistribute = True
    patterns: ClassVar[Patterns] = {"test": ("test/*.wav",), "train": ("train/*.wav",)}
    codes: ClassVar[Codes] = {
        "casual": "everyday sound",
        "gunshot": "gunshot",
        "explosion": "explosion",
        "siren": "siren",
    }

    def parse(self, path: PurePosixPath, split: str) -> DatasetRow:
        label = known(path.stem.split("_")[0].lower(), self.codes, "class")
        return DatasetRow(f"{split}-{path.stem}", events=(label,))
