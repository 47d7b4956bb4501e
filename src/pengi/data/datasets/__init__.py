"""Adapters from the layouts in which datasets are published to our manifest."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pengi.data.datasets import environment, language, music, speech
from pengi.data.datasets.base import Dataset, Row
from pengi.errors import InputError, ManifestError, no_such

__all__ = ["DATASETS", "Dataset", "Imported", "Row", "dataset", "import_dataset"]

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
    )
}


@dataclass(frozen=True)
class Imported:
    """What an import wrote: clips of each split, and how many recordings of an incomplete dataset are not here."""

    manifest: Path
    splits: dict[str, int]
    missing: int


def dataset(name: str) -> Dataset:
    """The adapter of a dataset.

    Raises:
        InputError: for an unknown name; the nearest one is named.
    """
    if name not in DATASETS:
        raise InputError(no_such("dataset", name, DATASETS))
    return DATASETS[name]


def import_dataset(name: str, root: Path, out: Path) -> Imported:
    """Write a manifest of the dataset that lies at ``root``; its recordings stay where they are.

    Raises:
        InputError: unknown dataset, or ``root`` is no folder.
        ManifestError: the dataset is not in its published layout; one sentence says what is missing or wrong where.
    """
    adapter = dataset(name)
    if not root.is_dir():
        raise InputError(f"there is no folder '{root}' with {adapter.title}; get it from {adapter.home}")
    found = list(_with_audio(adapter, root, _checked(adapter, root)))
    here = [(row, audio) for row, audio in found if audio is not None]
    if not here:
        raise ManifestError(f"{name}: none of the {len(found)} recordings is in '{root}'")
    folder = out.resolve().parent
    lines = (json.dumps(_line(adapter, row, audio, folder), ensure_ascii=False) for row, audio in here)
    _write(out, lines)
    return Imported(out, dict(Counter(row.split for row, _ in here)), len(found) - len(here))


def _checked(adapter: Dataset, root: Path) -> list[Row]:
    """The rows with each id once; records about one recording are put together where the dataset has such."""
    rows: dict[str, Row] = {}
    for row in adapter.rows(root):
        if row.id not in rows:
            rows[row.id] = row
        elif adapter.several_records:
            rows[row.id] = rows[row.id].merged(row)
        else:
            raise ManifestError(f"{adapter.name}: {row.where}: '{row.id}' stands already in {rows[row.id].where}")
    if not rows:
        raise ManifestError(f"{adapter.name}: '{root}' has no records")
    return list(rows.values())


def _with_audio(adapter: Dataset, root: Path, rows: Iterable[Row]) -> Iterator[tuple[Row, Path | None]]:
    """Each row with the path of its recording, none where that may be missing and is."""
    for row in rows:
        audio = next((root / path for path in row.audio if (root / path).is_file()), None)
        if audio is None and not adapter.incomplete:
            raise ManifestError(f"{adapter.name}: {row.where}: there is no recording at '{row.audio[0]}' in '{root}'")
        yield row, audio


def _line(adapter: Dataset, row: Row, audio: Path, folder: Path) -> dict[str, Any]:
    line: dict[str, Any] = {
        "id": f"{adapter.name}:{row.id}",
        "audio": Path(os.path.relpath(audio.resolve(), folder)).as_posix(),
        "source": adapter.name,
        "split": row.split,
        "group": row.group,
        "license": adapter.license,
        "ship": False,
        "redistribute": adapter.redistribute,
        "origin": f"{adapter.title}: {audio.name}",
        "domain": adapter.domain,
        "events": list(row.events),
        "attributes": dict(row.attributes),
    }
    if row.captions:
        line["captions"] = list(row.captions)
    if row.qa:
        line["qa"] = [{"question": question, "answer": answer} for question, answer in row.qa]
    if row.choices:
        line["choices"] = list(row.choices)
    return line


def _write(out: Path, lines: Iterable[str]) -> None:
    """The file appears whole or not at all."""
    try:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.stem}-") as work:
            partial = Path(work, out.name)
            with partial.open("w", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines)
            partial.replace(out)
    except OSError as error:
        raise InputError(f"'{out}' could not be written: {error.strerror or error}") from error
