"""``pengi bench`` measures what a user waits for, as a table and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from helpers import CHAT, tiny_model
from helpers.commands import complaint, invoke
from pengi import checkpoint, timing


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    checkpoint.save(tiny_model(**{**CHAT, "tagger": None, "evidence": None}), folder, card="")
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that would have been started."""
    commands: list[list[str]] = []
    monkeypatch.setattr(timing, "_run", commands.append)
    return commands


def test_the_figures_as_json(model: Path, run: list[list[str]]) -> None:
    result = invoke("bench", "--model", model, "--quick", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    figures = {figure["name"]: figure for figure in report["figures"]}
    assert set(figures) >= {"start", "load", "describe", "ask", "describe batch", "timeline"}
    assert all(figure["value"] > 0 for figure in figures.values())
    assert report["machine"]["runtime"] == "torch"
    assert run[0][1:4] == ["-m", "pengi", "describe"]


def test_the_figures_as_a_table(model: Path, run: list[list[str]]) -> None:
    result = invoke("bench", "--model", model, "--quick")
    assert result.exit_code == 0, result.output
    assert "describing one recording of 10 s" in " ".join(result.stdout.split())


def test_a_model_that_is_not_there_is_one_sentence() -> None:
    assert "there is no model named 'nowhere'" in complaint(invoke("bench", "--model", "nowhere", "--quick"))


def test_clips_are_ten_seconds_and_differ() -> None:
    clips = timing.clips(40)
    assert {len(clip.samples) for clip in clips} == {160_000}
    assert len({np.asarray(clip.samples).tobytes() for clip in clips}) == 40
