"""A small manifest of tones: two sources, three tasks, one clip with two events, one that cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import soundfile

from helpers import RATE, tone
from helpers.evaluating import write_manifest
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
    for number, clip in enumerate(CLIPS):
        soundfile.write(tmp_path / f"{clip['id']}.wav", tone(0.5, 300.0 + 200 * number), RATE)
    (tmp_path / "broken.wav").write_text("not audio", encoding="utf-8")
    return write_manifest(tmp_path / "manifest.jsonl", CLIPS)
