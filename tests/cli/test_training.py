from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import pengi.training
from helpers.commands import complaint, invoke
from pengi.errors import ConfigError


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the training was called with."""
    made: list[tuple[Any, ...]] = []

    def train(recipe: Path, overrides: Sequence[str] = (), *, resume: bool = False, out: Path | None = None) -> Path:
        if "training.stepps=3" in overrides:
            raise ConfigError("unknown key 'training.stepps'; did you mean 'steps'?")
        made.append((recipe, tuple(overrides), resume, out))
        return Path("runs/mini")

    monkeypatch.setattr(pengi.training, "train", train)
    return made


def test_train_passes_its_arguments_on(calls: list[tuple[Any, ...]]) -> None:
    result = invoke("train", "mini.yaml", "--set", "training.max_steps=3", "--set", "training.seed=1")
    assert (result.exit_code, result.stdout) == (0, "runs/mini\n")
    invoke("train", "mini.yaml", "--resume", "--out", "there")
    assert calls == [
        (Path("mini.yaml"), ("training.max_steps=3", "training.seed=1"), False, None),
        (Path("mini.yaml"), (), True, Path("there")),
    ]


def test_train_as_json(calls: list[tuple[Any, ...]]) -> None:
    assert json.loads(invoke("train", "mini.yaml", "--json").stdout) == {"checkpoint": "runs/mini"}


def test_a_mistake_in_a_setting_is_one_sentence(calls: list[tuple[Any, ...]]) -> None:
    message = complaint(invoke("train", "mini.yaml", "--set", "training.stepps=3"))
    assert message == "error: unknown key 'training.stepps'; did you mean 'steps'?"
    assert calls == []


def test_a_missing_recipe_is_one_sentence() -> None:
    assert "none.yaml" in complaint(invoke("train", "none.yaml"))
