"""Tiny random models, synthetic recordings and manifests for tests; nothing here needs a download."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor

from pengi import checkpoint
from pengi.config import ModelConfig
from pengi.model import Batch, PengiModel

RATE = 16_000
MAPPER = {"kind": "transformer", "constants": 2, "layers": 1, "heads": 4}
TRANSFORMER = {"kind": "transformer", "tokens": 3, "constants": 4, "layers": 1, "heads": 4}


def model_values(**changes: Any) -> dict[str, Any]:
    """A tiny model's configuration as plain values; ``changes`` replace whole entries."""
    values: dict[str, Any] = {
        "name": "tiny",
        "audio": {"yamnet": {"encoder": "yamnet-tiny-random", "frozen_layers": 2, "mapper": MAPPER}},
        "text": {"mapper": {"kind": "identity", "constants": 1}},
        "language_model": {"name": "tiny-random", "target_prefix": " ", "target_tokens": 20},
    }
    return {**values, **changes}


SENTENCE_TEXT = {"encoder": "tiny-random", "mapper": {**TRANSFORMER, "input": "pooled"}}
"""The paper's text branch: a sentence embedding through the transformer mapper."""


CHAT: dict[str, Any] = {
    "audio": {"yamnet": {"encoder": "yamnet-tiny-random", "trained": False, "frozen_layers": 99}},
    "tagger": {"branches": ["yamnet"]},
    "evidence": {},
    "text": {"mapper": {"kind": "identity"}},
    "language_model": {"name": "tiny-random", "chat": True, "target_tokens": 60},
}
"""Evidence as text in a chat, without m1."""


def tiny_model(**changes: Any) -> PengiModel:
    """A tiny random model in evaluation mode, the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return checkpoint.create(ModelConfig.parse(model_values(**changes), "test")).eval()


def tone(seconds: float, hertz: float = 440.0, level: float = 0.3) -> NDArray[np.float32]:
    """A sine ``float32[S]`` at 16 kHz."""
    time_s = np.arange(round(seconds * RATE)) / RATE
    return (level * np.sin(2 * np.pi * hertz * time_s)).astype(np.float32)


def noise(seconds: float, seed: int = 0, level: float = 0.1) -> NDArray[np.float32]:
    """White noise ``float32[S]`` at 16 kHz."""
    return (level * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def ragged(waveforms: Iterable[NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
    """Waveforms zero-padded to one tensor ``[B, S]``, and their lengths."""
    rows = [torch.from_numpy(waveform) for waveform in waveforms]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows])


def padded(*clips: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`ragged`, of tensors."""
    return ragged([clip.numpy() for clip in clips])


def training_batch(
    model: PengiModel, waveforms: Iterable[NDArray[np.float32]], examples: Iterable[tuple[int, str, str]]
) -> Batch:
    """A batch of ``(clip, prompt, target)`` examples about the waveforms."""
    clips, prompts, targets = zip(*examples, strict=True)
    rows = ragged(waveforms)
    features = tuple(branch.encoder.features(*rows) for branch in model.branches.values())
    return Batch(features, torch.tensor(clips), prompts, targets)


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """JSON lines, as manifests and labels files have them."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_clips(
    folder: Path, clips: Mapping[str, tuple[NDArray[np.float32], Mapping[str, Any]]], name: str = "manifest.jsonl"
) -> Path:
    """Recordings ``<id>.wav`` and the manifest that lists them with their further fields."""
    folder.mkdir(parents=True, exist_ok=True)
    for clip_id, (samples, _) in clips.items():
        soundfile.write(folder / f"{clip_id}.wav", samples, RATE, subtype="FLOAT")
    rows = [{"id": clip_id, "audio": f"{clip_id}.wav", **fields} for clip_id, (_, fields) in clips.items()]
    return write_jsonl(folder / name, rows)
