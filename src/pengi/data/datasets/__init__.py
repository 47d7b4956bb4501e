"""Adapters that convert datasets in their published layouts to our manifest."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from pengi.data.datasets import collections, environment, language, music, speech
from pengi.data.datasets.base import Dataset, DatasetRow, Part, Tree
from pengi.data.datasets.parquet import ParquetCopy, copy_in_parquet
from pengi.errors import InputError, ManifestError, no_such, reason
from pengi.writing import replacing

__all__ = ["DATASETS", "Dataset", "DatasetRow", "Imported", "ImportedPart", "dataset", "import_dataset"]

_EXAMPLES = 3

DATASETS: dict[str, Dataset] = {
    adapter.name: adapter
    for adapter in (
        environment.Esc50(),
        environment.UrbanSound8K(),
        environment.Fsd50k(),
        environment.AudioSet(),
        environment.Dcase2017Task4(),
        environment.Tut2017(),
        environment.CochlScene(),
        environment.Sesa(),
        music.GtzanGenres(),
        music.GtzanMusicSpeech(),
        music.NSynth(),
        music.BeijingOpera(),
        music.MedleySolos(),
        speech.VocalSound(),
        speech.CremaD(),
        speech.Ravdess(),
        speech.Meld(),
        speech.CmuMosi(),
        speech.CmuMosei(),
        speech.MspPodcast(),
        speech.SpeechCommands(),
        speech.LibriSpeechGender(),
        language.AudioCaps(),
        language.Clotho(),
        language.ClothoAqa(),
        language.Mmau(),
        collections.Fma(),
        collections.WavText5K(),
        collections.Macs(),
        collections.SoundDescs(),
        collections.WavCaps(),
        collections.FreeSound(),
        collections.FindSounds(),
        collections.MetadataTable(),
    )
}


@dataclass(frozen=True)
class ImportedPart:
    """The result of importing an annotation file, or the recordings of a split.

    Attributes:
        name: its path below the dataset's folder, as found or as published.
        split: of its recordings; an annotation file may name another split for some of them.
        found: whether it is there.
        clips: number of recordings in the manifest.
        missing: number of recordings that are missing or empty.
        unused: number of records without anything that a task uses, such as clips on which annotators did not agree.
    """

    name: str
    split: str
    found: bool
    clips: int = 0
    missing: int = 0
    unused: int = 0


@dataclass(frozen=True)
class Imported:
    """The result of an import.

    Attributes:
        splits: number of clips in each split.
        missing: number of recordings that are missing or empty.
        parts: all parts that the dataset may have.
        examples: the first missing recordings, at most three.
    """

    manifest: Path
    splits: dict[str, int]
    missing: int
    parts: tuple[ImportedPart, ...] = ()
    examples: tuple[str, ...] = ()


def dataset(name: str) -> Dataset:
    """The adapter of a dataset.

    Raises:
        InputError: for an unknown name; the nearest one is named.
    """
    if name not in DATASETS:
        raise InputError(no_such("dataset", name, DATASETS))
    return DATASETS[name]


def import_dataset(name: str, root: Path, out: Path) -> Imported:
    """Write a manifest of the dataset in ``root``; its recordings stay where they are.

    Recordings in Parquet files are copied to tar files beside the manifest, see :mod:`pengi.data.datasets.parquet`.

    All parts that are there are imported, and the result lists the missing ones.

    Args:
        name: of the dataset.
        root: the folder in which it is unpacked, or a folder that contains it.
        out: the manifest, JSON lines.

    Raises:
        InputError: for an unknown dataset, or if ``root`` is not a folder.
        ManifestError: if nothing of the dataset is there, or its annotation is malformed; the message says what is
            wrong and where.
    """
    adapter = dataset(name)
    if not root.is_dir():
        raise InputError(f"there is no folder '{root}' with {adapter.title}; get it from {adapter.home}")
    tree = Tree(name, root)
    try:
        source = copy_in_parquet(adapter, tree, out) or adapter
        if source.parts and not any(tree.home(part.patterns) for part in source.parts):
            raise adapter.missing(source.parts[0].name, root)
        here, missing, examples = _with_audio(adapter, source, tree)
        clips = Counter(row.part for row, _ in here)
        # Tables that are not known in advance, but were found in the folder, are also parts.
        known = {part.name for part in source.parts}
        others = (Part("train", (name,)) for name in {**clips, **missing} if name not in known)
        parts = tuple(_part(part, tree, clips, missing) for part in (*source.parts, *others))
    except OSError as error:
        raise ManifestError(f"{name}: '{error.filename}' cannot be read: {reason(error)}") from error
    folder = out.resolve().parent
    lines = (json.dumps(_line(adapter, row, audio, folder), ensure_ascii=False) for row, audio in here)
    _write(out, lines)
    return Imported(out, dict(Counter(row.split for row, _ in here)), missing.total(), parts, examples)


def _with_audio(
    adapter: Dataset, source: Dataset | ParquetCopy, tree: Tree
) -> tuple[list[tuple[DatasetRow, Path | str]], Counter[str], tuple[str, ...]]:
    """The rows whose recordings are there, the number of missing recordings of each part, and the first of these."""
    here: list[tuple[DatasetRow, Path | str]] = []
    missing, examples = Counter[str](), list[str]()
    heldout = adapter.heldout(tree)
    for row in _rows(adapter, source.rows(tree)):
        if heldout & {PurePosixPath(name).name for name in (row.id, *row.names)}:
            row = replace(row, split="heldout")
        audio = source.recording(row, tree)
        if audio is not None:
            here.append((row, audio))
            continue
        missing[row.part] += 1
        if len(examples) < _EXAMPLES:
            examples.append(row.audio[0] if row.audio else row.id)
    if not here and not missing:
        raise ManifestError(f"{adapter.name}: '{tree.root}' has no records")
    if not here:
        count = missing.total()
        raise ManifestError(
            f"{adapter.name}: none of the {count} recordings is in '{tree.root}'; "
            f"the first missing one is '{examples[0]}'"
        )
    return here, missing, tuple(examples)


def _rows(adapter: Dataset, rows: Iterator[DatasetRow]) -> Iterator[DatasetRow]:
    """The rows, each id once; if the dataset has several records about one recording, they are merged."""
    if adapter.several_records:
        merged: dict[str, DatasetRow] = {}
        for row in rows:
            merged[row.id] = merged[row.id].merged(row) if row.id in merged else row
        rows = iter(merged.values())
    origins: dict[str, str] = {}
    for row in rows:
        if row.id in origins:
            raise ManifestError(f"{adapter.name}: {row.where}: '{row.id}' is already in {origins[row.id]}")
        origins[row.id] = row.where
        yield row


def _part(part: Part, tree: Tree, clips: Counter[str], missing: Counter[str]) -> ImportedPart:
    found = tree.home(part.patterns) is not None
    file = tree.file(part.patterns) if found and "*" not in part.name else None
    return ImportedPart(
        part.name if file is None else Path(os.path.relpath(file, tree.root)).as_posix(),
        part.split,
        found,
        clips[part.name],
        missing[part.name],
        tree.unused[part.name],
    )


def _line(adapter: Dataset, row: DatasetRow, audio: Path | str, folder: Path) -> dict[str, Any]:
    line = {
        "id": f"{adapter.name}:{row.id}",
        "audio": audio if isinstance(audio, str) else Path(os.path.relpath(audio.resolve(), folder)).as_posix(),
        "source": adapter.name,
        "split": row.split,
        "group": row.group,
        "license": row.license or adapter.license,
        "ship": False,
        "redistribute": adapter.redistribute,
        "origin": f"{adapter.title}: {row.audio[0] if isinstance(audio, str) else audio.name}",
        "domain": adapter.domain,
        "events": list(row.events),
        "attributes": dict(row.attributes),
    }
    optional = {
        "captions": list(row.captions),
        "title": row.title,
        "tags": list(row.tags),
        "description": row.description,
        "duration_s": row.duration_s,
        "qa": [{"question": question, "answer": answer} for question, answer in row.qa],
        "choices": list(row.choices),
    }
    return line | {field: value for field, value in optional.items() if value}


def _write(out: Path, lines: Iterable[str]) -> None:
    with replacing(out) as partial, partial.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
