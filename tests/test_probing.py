"""Probes on a stand-in encoder whose embeddings say the answer, or do not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.evaluating import write_manifest
from pengi import probing
from pengi.errors import AudioError, InputError
from pengi.probing import probe, probe_data

LABELS = ("dog", "rain", "wind")


@pytest.fixture(autouse=True)
def small_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "HEADS", (probing.Head("L1", ()), probing.Head("L3", (64, 64))))


class Telling:
    """Embeds ``dog-3.wav`` near a point of its own for "dog"; with ``noise`` only, it says nothing."""

    name = "telling"

    def __init__(self, noise: bool = False) -> None:
        self.fingerprint = f"telling-{noise}".ljust(64)
        self._noise = noise
        self.encoded: list[str] = []

    def embed(self, recordings: Sequence[Path]) -> list[Any]:
        self.encoded += [recording.name for recording in recordings]
        return [self._embed(recording) for recording in recordings]

    def _embed(self, recording: Path) -> Any:
        if recording.stem == "dog-0":
            return AudioError("'dog-0.wav' is not audio")
        number = sum(map(ord, recording.stem))
        vector_D = np.random.default_rng(number).normal(size=16).astype(np.float32)
        if not self._noise:
            vector_D[LABELS.index(recording.stem.split("-")[0])] += 6.0
        return vector_D


def rows(count: int, **fields: Any) -> list[dict[str, object]]:
    return [{"id": f"{label}-{number}", "events": [label], **fields} for label in LABELS for number in range(count)]


def clips(tmp_path: Path, written: list[dict[str, object]]) -> Path:
    for row in written:
        (tmp_path / f"{row['id']}.wav").write_text(str(row["id"]), encoding="utf-8")
    return write_manifest(tmp_path / "m.jsonl", written)


def test_both_heads_read_what_is_there_and_nothing_else(tmp_path: Path) -> None:
    data = probe_data(clips(tmp_path, rows(20)), "events", split="val")
    assert data.scheme == "5 folds, groups kept together"
    good, bad = probe(Telling(), data, tmp_path / "cache"), probe(Telling(noise=True), data, tmp_path / "cache")
    assert [(found.head, found.n, len(found.folds)) for found in good] == [("L1", 59, 5), ("L3", 59, 5)]
    assert all(found.accuracy > 0.9 for found in good)
    assert all(found.accuracy < 0.65 for found in bad)
    assert good[0].ci95[0] <= good[0].accuracy <= good[0].ci95[1]


def test_a_recording_is_heard_once(tmp_path: Path) -> None:
    data = probe_data(clips(tmp_path, rows(10)), "events", split="val")
    encoder = Telling()
    first = probe(encoder, data, tmp_path / "cache")
    assert len(encoder.encoded) == 30
    assert probe(encoder, data, tmp_path / "cache") == first
    assert encoder.encoded[30:] == ["dog-0.wav"]  # only the one that cannot be used is tried again


def test_groups_are_never_on_both_sides(tmp_path: Path) -> None:
    written = [{**row, "group": f"g{position % 12}"} for position, row in enumerate(rows(12))]
    data = probe_data(clips(tmp_path, written), "events", split="val", folds=4)
    groups = np.array(data.groups)
    for learn, test in data.parts:
        assert not set(groups[learn]) & set(groups[test])
    assert sorted(np.concatenate([test for _, test in data.parts])) == list(range(36))


def test_own_folds_come_first_and_then_the_training_split(tmp_path: Path) -> None:
    with_folds = [{**row, "attributes": {"fold": position % 3 + 1}} for position, row in enumerate(rows(9))]
    data = probe_data(clips(tmp_path, with_folds), "events", split="val")
    assert (data.scheme, len(data.parts)) == ("3 own folds", 3)
    trained = [{**row, "split": "train" if position % 2 else "val"} for position, row in enumerate(rows(10))]
    data = probe_data(clips(tmp_path, trained), "events", split="val")
    [(learn, test)] = data.parts
    assert (data.scheme, len(learn), len(test)) == ("training split against test split", 15, 15)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"field": "digit", "split": "val"}, "has 0 labels of digit in split 'val'; 2 are needed"),
        ({"field": "events", "split": "val", "folds": 50}, "30 groups of recordings cannot be split into 50 folds"),
    ],
)
def test_what_cannot_be_probed_is_a_sentence(tmp_path: Path, asked: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        probe_data(clips(tmp_path, rows(10)), **asked)


def test_stock_yamnet_tells_sounds_apart(shared_data: Path, tmp_path: Path) -> None:
    """Five classes of ESC-50 that sound nothing alike, few clips: far above chance."""
    chosen = {"siren", "rain", "laughter", "snoring", "church bells"}
    lines = (shared_data / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    kept = [row for row in map(json.loads, lines) if row["source"] == "esc50-fold4" and set(row["events"]) <= chosen]
    for row in kept:
        row["audio"] = str((shared_data / row["audio"]).resolve())
    manifest = write_manifest(tmp_path / "m.jsonl", kept)
    data = probe_data(manifest, "events", split="val", folds=3)
    l1, _ = probe(probing.encoder_by_name("yamnet"), data, tmp_path / "cache")
    assert l1.accuracy > 0.7
