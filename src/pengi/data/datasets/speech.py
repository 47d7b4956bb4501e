"""Voices: VocalSound, CREMA-D, RAVDESS, MELD, CMU-MOSI and MOSEI, MSP-Podcast, Speech Commands, LibriSpeech."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import ClassVar

from pengi.data.datasets.base import (
    Codes,
    DatasetRow,
    FolderDataset,
    Patterns,
    ProblemError,
    Record,
    Table,
    TableDataset,
    Tree,
    known,
    words,
)


class VocalSound(TableDataset):
    """VocalSound: ``datafiles/{tr,val,te}.json`` and ``audio_16k/*.wav``, 21,024 recordings of 6 voice sounds.

    Layout: YuanGongND/vocalsound, "Dataset Details" of its README. ``labels`` is the code of an AudioSet class, and
    ``wav`` a path on the authors' machine, of which only the name is used. The 44.1 kHz release has ``audio_44k``.
    """

    name, title = "vocalsound", "VocalSound"
    license, home = "CC-BY-SA-4.0", "https://github.com/YuanGongND/vocalsound"
    domain = "human"
    redistribute = True
    tables = tuple(
        Table(f"datafiles/{part}.json", split, ("wav", "labels"))
        for part, split in (("te", "test"), ("val", "val"), ("tr", "train"))
    )
    codes: ClassVar[Codes] = {
        "/m/01j3sz": "laughter",
        "/m/07plz5l": "sigh",
        "/m/01b_21": "cough",
        "/m/0dl9sf8": "throat clearing",
        "/m/01hsr_": "sneeze",
        "/m/07ppn3j": "sniff",
    }

    def row(self, record: Record, table: Table) -> DatasetRow:
        file = PurePosixPath(record["wav"]).name
        return DatasetRow(
            id=Path(file).stem,
            audio=(f"audio_16k/{file}", f"audio_44k/{file}"),
            names=(Path(file).stem,),
            events=(known(record["labels"], self.codes, "class"),),
            group=file.split("_")[0],
        )


class CremaD(FolderDataset):
    """CREMA-D: ``AudioWAV/<actor>_<sentence>_<emotion>_<level>.wav``, 7442 clips, 91 actors, 6 emotions.

    Layout: CheyneyComputerScience/CREMA-D. There is no official split.
    """

    name, title = "crema-d", "CREMA-D"
    license, home = "ODbL-1.0", "https://github.com/CheyneyComputerScience/CREMA-D"
    domain = "emotion"
    patterns: ClassVar[Patterns] = {"test": ("AudioWAV/*.wav",)}
    codes: ClassVar[Codes] = {
        "ANG": "angry",
        "DIS": "disgusted",
        "FEA": "fearful",
        "HAP": "happy",
        "NEU": "neutral",
        "SAD": "sad",
    }

    def parse(self, path: PurePosixPath, split: str) -> DatasetRow:
        actor, _, code, _ = _parts(path, 4, "_")
        return DatasetRow(path.stem, attributes={"emotion": known(code, self.codes, "emotion")}, group=actor)


class Ravdess(FolderDataset):
    """RAVDESS speech: ``Actor_<nn>/03-01-<emotion>-<intensity>-<statement>-<repetition>-<actor>.wav``, 1440 clips.

    Layout: ``Audio_Speech_Actors_01-24.zip`` of Zenodo 1188976. There is no official split.
    """

    name, title = "ravdess", "RAVDESS"
    license, home = "CC-BY-NC-SA-4.0", "https://zenodo.org/records/1188976"
    domain = "emotion"
    patterns: ClassVar[Patterns] = {"test": ("Actor_*/03-01-*.wav",)}
    codes: ClassVar[Codes] = {
        "01": "neutral",
        "02": "calm",
        "03": "happy",
        "04": "sad",
        "05": "angry",
        "06": "fearful",
        "07": "disgusted",
        "08": "surprised",
    }

    def parse(self, path: PurePosixPath, split: str) -> DatasetRow:
        _, _, code, _, _, _, actor = _parts(path, 7, "-")
        return DatasetRow(path.stem, attributes={"emotion": known(code, self.codes, "emotion")}, group=actor)


class Meld(TableDataset):
    """MELD: ``{test,dev,train}_sent_emo.csv`` and a video of every utterance, 7 emotions and 3 sentiments.

    Layout: MELD.Raw of affective-meld.github.io, its inner archives unpacked where they are. Depending on how they were
    unpacked, tables and folders are beside each other or in ``test``, ``dev`` and ``train``. A few videos are known to
    be missing or broken. The sound track is read from the video.
    """

    name, title = "meld", "MELD"
    license, home = "GPL-3.0", "https://affective-meld.github.io"
    domain = "emotion"
    tables = tuple(
        Table(
            f"{part}_sent_emo.csv",
            split,
            ("Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID"),
            folder,
            others=(f"{part}/{part}_sent_emo.csv",),
        )
        for part, split, folder in (
            ("test", "test", "output_repeated_splits_test"),
            ("dev", "val", "dev_splits_complete"),
            ("train", "train", "train_splits"),
        )
    )
    codes: ClassVar[Codes] = {
        "anger": "angry",
        "disgust": "disgusted",
        "fear": "fearful",
        "joy": "happy",
        "neutral": "neutral",
        "sadness": "sad",
        "surprise": "surprised",
    }

    def row(self, record: Record, table: Table) -> DatasetRow:
        file = f"dia{record['Dialogue_ID']}_utt{record['Utterance_ID']}.mp4"
        part = table.path.partition("_")[0]
        return DatasetRow(
            id=f"{part}-{Path(file).stem}",
            audio=(f"{table.folder}/{file}", f"{part}/{table.folder}/{file}"),
            names=(f"{table.folder}/{Path(file).stem}",),
            attributes={
                "emotion": known(record["Emotion"], self.codes, "emotion"),
                "sentiment": record["Sentiment"],
            },
            group=f"{part}-{record['Dialogue_ID']}",
        )


class CmuMosi(TableDataset):
    """CMU-MOSI: ``label.csv`` and ``Raw/<video_id>/<clip_id>.mp4``, spoken opinions with their sentiment.

    Layout: the copy of thuiar/MMSA, which is the usual one (CMU's own release has its labels in HDF5 sequences).
    ``annotation`` is Positive, Negative or Neutral.
    """

    name, title = "cmu-mosi", "CMU-MOSI"
    license, home = "none stated; research use", "https://github.com/thuiar/MMSA"
    domain = "emotion"
    tables = (Table("label.csv", columns=("video_id", "clip_id", "annotation", "mode")),)
    codes: ClassVar[Codes] = {label: label for label in ("positive", "neutral", "negative")}
    _splits: ClassVar[Codes] = {"test": "test", "valid": "val", "train": "train"}

    def row(self, record: Record, table: Table) -> DatasetRow:
        return DatasetRow(
            id=f"{record['video_id']}-{record['clip_id']}",
            audio=(f"Raw/{record['video_id']}/{record['clip_id']}.mp4",),
            names=(f"{record['video_id']}/{record['clip_id']}",),
            split=known(record["mode"], self._splits, "mode"),
            attributes={"sentiment": known(record["annotation"].lower(), self.codes, "annotation")},
            group=record["video_id"],
        )


class CmuMosei(CmuMosi):
    """CMU-MOSEI, in the same layout as :class:`CmuMosi`."""

    name, title = "cmu-mosei", "CMU-MOSEI"


class MspPodcast(TableDataset):
    """MSP-Podcast: ``Labels/labels_consensus.csv`` and ``Audios/*.wav``; clips without a consensus are left out.

    Layout: the releases of the MSP lab, under its licence; those before 1.11 spell the table ``labels_concensus.csv``.
    ``Test1`` is the test split of the literature; Test2 and Test3 are heldout. Clips of unknown speakers are treated as
    clips of different speakers.
    """

    name, title = "msp-podcast", "MSP-Podcast"
    license = "academic licence of the MSP lab"
    home = "https://ecs.utdallas.edu/research/researchlabs/msp-lab/MSP-Podcast.html"
    domain = "emotion"
    tables = (
        Table(
            "Labels/labels_consensus.csv",
            columns=("FileName", "EmoClass", "SpkrID", "Split_Set"),
            others=("Labels/labels_concensus.csv", "labels_consensus.csv", "labels_concensus.csv"),
        ),
    )
    _splits: ClassVar[Codes] = {
        "Test1": "test",
        "Test2": "heldout",
        "Test3": "heldout",
        "Development": "val",
        "Validation": "val",
        "Train": "train",
    }
    codes: ClassVar[Codes] = {
        "A": "angry",
        "S": "sad",
        "H": "happy",
        "U": "surprised",
        "F": "fearful",
        "D": "disgusted",
        "C": "contemptuous",
        "N": "neutral",
    }

    def row(self, record: Record, table: Table) -> DatasetRow | None:
        if record["EmoClass"] in ("O", "X"):  # another emotion, no agreement
            return None
        clip = Path(record["FileName"]).stem
        return DatasetRow(
            id=clip,
            audio=(f"Audios/{record['FileName']}", f"Audio/{record['FileName']}"),
            names=(clip,),
            split=known(record["Split_Set"], self._splits, "Split_Set"),
            attributes={"emotion": known(record["EmoClass"], self.codes, "EmoClass")},
            group=clip if record["SpkrID"].strip().lower() in ("", "unknown") else record["SpkrID"],
        )


class SpeechCommands(FolderDataset):
    """Speech Commands v2: ``<word>/<speaker>_nohash_<take>.wav``, 35 words; two lists name the test and val files.

    Layout: ``speech_commands_v0.02.tar.gz``; files that are in neither ``testing_list.txt`` nor ``validation_list.txt``
    are for training.
    """

    name, title = "speech-commands", "Speech Commands v2"
    license, home = "CC-BY-4.0", "https://www.tensorflow.org/datasets/catalog/speech_commands"
    self_contained = False
    domain = "keyword"
    redistribute = True
    patterns: ClassVar[Patterns] = {"train": ("[a-z]*/*_nohash_*.wav",)}
    _lists: ClassVar[Codes] = {"test": "testing_list.txt", "val": "validation_list.txt"}

    def rows(self, tree: Tree) -> Iterator[DatasetRow]:
        self._split_of: dict[str, str] = {}
        for split, name in self._lists.items():
            lines = tree.lines(self.needed(tree, name))
            self._split_of.update(dict.fromkeys(map(str.strip, lines), split))
        yield from super().rows(tree)

    def parse(self, path: PurePosixPath, split: str) -> DatasetRow:
        return DatasetRow(
            id=f"{path.parent.name}-{path.stem}",
            split=self._split_of.get(str(path), split),
            attributes={"keyword": words(path.parent.name)},
            group=path.stem.split("_")[0],
        )


class LibriSpeechGender(FolderDataset):
    """LibriSpeech, the reader's gender: ``SPEAKERS.TXT`` and ``<part>/<speaker>/<chapter>/*.flac``.

    Layout: openslr.org/12, the folder ``LibriSpeech``. In ``SPEAKERS.TXT`` comments begin with ``;``, and the fields
    id, sex, part, minutes and name are separated by bars. The test parts are the benchmark.
    """

    name, title = "librispeech-gender", "LibriSpeech (gender)"
    license, home = "CC-BY-4.0", "https://www.openslr.org/12"
    self_contained = False
    domain = "gender"
    redistribute = True
    patterns: ClassVar[Patterns] = {
        split: tuple(f"{part}*/*/*/*.flac" for part in parts)
        for split, parts in {"test": ("test-",), "val": ("dev-",), "train": ("train-",)}.items()
    }
    codes: ClassVar[Codes] = {"F": "female", "M": "male"}

    def rows(self, tree: Tree) -> Iterator[DatasetRow]:
        lines = tree.lines(self.needed(tree, "SPEAKERS.TXT"))
        fields = (line.split("|") for line in lines if "|" in line and line[0] != ";")
        self._sex_of = {speaker.strip(): sex.strip() for speaker, sex, *_ in fields}
        yield from super().rows(tree)

    def parse(self, path: PurePosixPath, split: str) -> DatasetRow:
        speaker = path.parts[-3]
        if speaker not in self._sex_of:
            raise ProblemError(f"speaker '{speaker}' is not in SPEAKERS.TXT")
        gender = known(self._sex_of[speaker], self.codes, "sex")
        return DatasetRow(path.stem, attributes={"gender": gender}, group=speaker)


def _parts(path: PurePosixPath, count: int, separator: str) -> list[str]:
    parts = path.stem.split(separator)
    if len(parts) != count:
        raise ProblemError(f"the name must have {count} parts between '{separator}'")
    return parts
