"""For the tests of training: writes recipes, stops runs, and reads their logs and weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from pengi.data.loader import TrainingBatch
from pengi.training import train
from pengi.training.journal import LOG_FILE
from pengi.training.loop import Run
from pengi.training.waveforms import Live


def write_recipe(path: Path, values: Mapping[str, Any]) -> Path:
    """Write a recipe and return its path."""
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def train_until(recipe: Path, out: Path, step: int, stop: Callable[[], None], overrides: Sequence[str] = ()) -> None:
    """Train until ``stop`` is called before the update of a step, which must end the run as Ctrl-C does."""
    update = Run.update

    def stopped(run: Run, drawn: TrainingBatch, live: Live | None) -> float:
        if run.step == step:
            stop()
        return update(run, drawn, live)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Run, "update", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, overrides, out=out)


def lose_the_process() -> None:
    """End a run without a checkpoint of its last steps, see :func:`train_until`."""
    raise KeyboardInterrupt


def same_weights(one: Path, other: Path) -> bool:
    """Whether two checkpoints have the same trained weights."""
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def log_of(folder: Path, key: str) -> dict[int, float]:
    """What a run logged under a key, by step."""
    entries = [json.loads(line) for line in (folder / LOG_FILE).read_text(encoding="utf-8").splitlines()]
    found = [(entry["step"], entry[key]) for entry in entries if key in entry]
    assert len(dict(found)) == len(found), "a step was logged twice"
    return dict(found)
