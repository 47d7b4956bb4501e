"""A problem that a tiny model can learn: hums and hisses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import model_values, noise, tone, write_clips, write_jsonl
from helpers.training import write_recipe
from pengi.data.manifest import Clip
from pengi.data.measured import Measured
from pengi.encoders.yamnet import YamnetEncoder, YamnetTagger

WORDS = {"hum": ("a deep hum", "A machine hums."), "hiss": ("a hiss", "Something hisses.")}


@pytest.fixture(autouse=True)
def pengi_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Features are cached here; weights that a test needs must be found before."""
    home = tmp_path / "home"
    monkeypatch.setenv("PENGI_HOME", str(home))
    return home


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """The folder of a manifest and labels: 16 clips to train on (two of them not to be shipped), 8 of val."""
    clips: dict[str, Any] = {}
    for index in range(24):
        event = ("hum", "hiss")[index % 2]
        clips[f"{event}-{index}"] = (
            tone(0.5, 150.0 + 10 * index, 0.5) if event == "hum" else noise(0.5, index, 0.3),
            {
                "split": "train" if index < 16 else "val", "domain": "environment", "events": [event],
                "source": f"field-{index % 3}", "license": ("CC0-1.0", "CC-BY-4.0")[index % 2], "ship": index > 1,
            },
        )  # fmt: skip
    folder = tmp_path / "toy"
    write_clips(folder, clips)
    rows = [{"label": word, "phrase": phrase, "sentence": said} for word, (phrase, said) in WORDS.items()]
    write_jsonl(folder / "labels.jsonl", rows)
    return folder


@pytest.fixture
def recipe(toy: Path, tmp_path: Path) -> Path:
    """A recipe with dropout; every step is logged."""
    mapper = {"kind": "transformer", "constants": 4, "layers": 1, "heads": 4, "dropout": 0.1}
    branch = {"encoder": "yamnet-tiny-random", "frozen_layers": 2, "mapper": mapper}
    values = {
        "model": model_values(name="toy", audio={"yamnet": branch}),
        "data": {"manifest": str(toy / "manifest.jsonl"), "labels": str(toy / "labels.jsonl")},
        "training": {
            "max_steps": 6, "batch_size": 4, "questions_per_clip": 2, "warmup_steps": 2,
            "mapper_learning_rate": 0.01, "encoder_learning_rate": 0.001,
            "save_every": 3, "eval_every": 3, "eval_samples": 1, "log_every": 1,
        },
    }  # fmt: skip
    return write_recipe(tmp_path / "toy.yaml", values)


@pytest.fixture
def tiny_stock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny random stock tagger, and recordings in which nothing is said or measured."""

    def stock_tagger() -> YamnetTagger:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            tagger = YamnetTagger(YamnetEncoder.tiny(), ("Hum", "Hiss", "Speech", "Rain"))
        return tagger.eval().requires_grad_(False)

    def measure_clips(clips: Sequence[Clip], *_: object) -> dict[str, Measured]:
        return {clip.id: Measured("", ()) for clip in clips}

    monkeypatch.setattr("pengi.training.evidence.stock_tagger", stock_tagger)
    monkeypatch.setattr("pengi.training.evidence.measure_clips", measure_clips)
