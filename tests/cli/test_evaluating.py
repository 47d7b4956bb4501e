from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

KEYS = {
    "task",
    "source",
    "split",
    "method",
    "labels",
    "n",
    "accuracy",
    "ci95",
    "per_class",
    "model",
    "prompt",
    "errors",
}


@pytest.fixture
def manifest(tone: Path) -> Path:
    """Three clips that the stand-in engine gives the first label each, and one that is not audio."""
    folder = tone.parent
    rows = []
    for name, event in (("a", "bell"), ("b", "rain"), ("c", "bell")):
        (folder / f"{name}.wav").write_bytes(tone.read_bytes())
        rows.append({"id": name, "audio": f"{name}.wav", "source": "field", "split": "val", "events": [event]})
    (folder / "d.wav").write_text("text", encoding="utf-8")
    rows.append({"id": "d", "audio": "d.wav", "source": "field", "split": "val", "events": ["rain"]})
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_eval_prints_one_report(pengi: Callable[..., Any], engine: Any, manifest: Path) -> None:
    result = pengi("eval", "--manifest", manifest, "--task", "events", "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert set(report) >= KEYS
    assert (report["task"], report["source"], report["split"], report["method"]) == (
        "events",
        None,
        "val",
        "likelihood",
    )
    assert (report["n"], report["accuracy"], report["labels"]) == (4, 0.5, ["bell", "rain"])
    assert report["per_class"]["bell"] == {"n": 2, "correct": 2, "accuracy": 1.0}
    assert [error["id"] for error in report["errors"]] == ["d"]
    assert engine.calls[0]["prompt"] == report["prompt"]
    assert isinstance(report["prompt"], str)


def test_eval_for_people(pengi: Callable[..., Any], manifest: Path) -> None:
    result = pengi("eval", "--manifest", manifest, "--task", "events", "--source", "field")
    assert "accuracy 0.500" in result.stdout
    assert "2 of 4 clips" in result.stdout
    assert "1 clip could not be used" in result.stderr


def test_eval_with_labels_from_a_file_and_predictions(pengi: Callable[..., Any], manifest: Path) -> None:
    labels, out = manifest.parent / "labels.txt", manifest.parent / "predictions.jsonl"
    labels.write_text("rain\nthunder\n", encoding="utf-8")
    report = json.loads(
        pengi("eval", "--manifest", manifest, "--task", "events", "--labels", labels, "--out", out, "--json").stdout
    )
    assert (report["n"], report["left_out"], report["labels"]) == (2, 2, ["rain", "thunder"])
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [(row["id"], row["prediction"], row["correct"]) for row in rows] == [("b", "rain", True), ("d", None, False)]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--task", "event"], "there is no task 'event'"),
        (["--task", "digit"], "no clip of split 'val' has task 'digit'"),
        (["--task", "events", "--source", "studio"], "sources that have it are field"),
        (["--task", "events", "--method", "guess"], "there is no method 'guess'"),
        (["--task", "events", "--method", "yamnet-match-max"], "there is no baseline 'yamnet-match-max'"),
        (["--task", "events", "--labels", "none.txt"], "no labels file"),
        (["--task", "events", "--out", "no/such/p.jsonl"], "there is no folder"),
        (["--task", "events", "--manifest", "none.jsonl"], "no manifest at 'none.jsonl'"),
    ],
)
def test_a_mistake_is_one_sentence(
    pengi: Callable[..., Any], manifest: Path, arguments: list[str], sentence: str
) -> None:
    result = pengi("eval", "--manifest", manifest, *arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""
