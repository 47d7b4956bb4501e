"""A small manifest of tones: two sources, three tasks, one clip with two events, one that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from pengi.evaluation import systems
from pengi.text_encoder import SentenceEncoder

CLIPS: list[dict[str, Any]] = [
    {"id": "dog-1", "source": "field", "split": "val", "events": ["dog barking"]},
    {"id": "dog-2", "source": "field", "split": "val", "events": ["dog barking"]},
    {"id": "rain-1", "source": "field", "split": "val", "events": ["rain"]},
    {"id": "both", "source": "field", "split": "val", "events": ["rain", "wind"]},
    {"id": "broken", "source": "field", "split": "val", "events": ["rain"]},
    {"id": "train-1", "source": "field", "split": "train", "events": ["siren"]},
    {
        "id": "seven", "source": "voices", "split": "val", "domain": "digit", "events": ["speech"],
        "attributes": {"digit": "seven"},
    },
]  # fmt: skip


@pytest.fixture(autouse=True)
def tiny_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny random encoder in place of the stock sentence encoder."""
    encoder = SentenceEncoder.tiny()
    monkeypatch.setattr(systems, "sentence_encoder", lambda: encoder)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rows = []
    for number, clip in enumerate(CLIPS):
        name = f"{clip['id']}.wav"
        time_s = np.arange(8_000) / 16_000
        soundfile.write(tmp_path / name, 0.3 * np.sin(2 * np.pi * (300 + 200 * number) * time_s), 16_000)
        rows.append({"audio": name, **clip})
    (tmp_path / "broken.wav").write_text("not audio", encoding="utf-8")
    path = tmp_path / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
