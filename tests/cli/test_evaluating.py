"""``pengi eval`` and ``pengi probe``: reports and mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.commands import complaint
from pengi.evaluation.systems import ModelSystem, Systems

KEYS = {
    "task", "source", "split", "method", "labels", "n", "accuracy", "ci95", "per_class", "model", "prompt", "errors",
}  # fmt: skip


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in engine has no weights to be known by."""
    about = {"name": "tiny", "sha256": "0" * 64, "device": "cpu"}
    monkeypatch.setattr(Systems, "of_engine", lambda engine: Systems(ModelSystem(engine, "tiny"), None, None, about))


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
    settings = [report[name] for name in ("task", "source", "split", "method")]
    assert settings == ["events", None, "val", "likelihood"]
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


def test_eval_with_labels_from_a_file_and_the_run_in_a_folder(pengi: Callable[..., Any], manifest: Path) -> None:
    labels, out = manifest.parent / "labels.txt", manifest.parent / "run"
    labels.write_text("rain\nthunder\n", encoding="utf-8")
    arguments = ["eval", "--manifest", manifest, "--task", "events", "--labels-file", labels, "--out", out, "--json"]
    report = json.loads(pengi(*arguments).stdout)
    assert (report["n"], report["left_out"], report["labels"]) == (2, 2, ["rain", "thunder"])
    lines = (out / "predictions/events@0/model.likelihood.jsonl").read_text(encoding="utf-8").splitlines()
    assert [(row["id"], "error" in row) for row in map(json.loads, lines)] == [("b", False), ("d", True)]
    assert (out / "report.html").is_file()


def test_eval_again_asks_nothing_again(pengi: Callable[..., Any], engine: Any, manifest: Path) -> None:
    arguments = ["eval", "--manifest", manifest, "--task", "events", "--out", manifest.parent / "run", "--json"]
    first = json.loads(pengi(*arguments).stdout)
    engine.calls.clear()
    assert json.loads(pengi(*arguments).stdout)["per_class"] == first["per_class"]
    assert engine.calls == []


def test_a_mistake_in_the_manifest_is_found_before_the_model_is_loaded(
    pengi: Callable[..., Any], manifest: Path
) -> None:
    result = pengi("eval", "--manifest", manifest, "--task", "events", "--split", "test", "--model", "nonsense")
    assert "no clip of split 'test' has events; it is in val (field)" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--task", "event"], "there is no task 'event'"),
        (["--task", "digit"], "no clip of split 'val' has digit"),
        (["--task", "events", "--source", "studio"], "of source 'studio' has events; it is in val (field)"),
        (["--task", "events", "--method", "guess"], "there is no method 'guess'"),
        (
            ["--task", "events", "--method", "yamnet-match-mean"],
            "there is no method 'yamnet-match-mean'; did you mean 'yamnet-match'?",
        ),
        (["--task", "events", "--labels-file", "none.txt"], "no labels file"),
        (["--task", "events", "--out", "p.jsonl"], "name a folder, which gets the predictions and a report"),
        (
            ["--task", "events", "--modes", "generate"],
            "--modes needs --suite; with --task, name one mode with --method",
        ),
        (["--task", "events", "--model", "nonsense"], "there is no model named 'nonsense'"),
        (["--task", "events", "--manifest", "none.jsonl"], "there is no file 'none.jsonl'"),
    ],
)
def test_a_mistake_is_one_sentence(
    pengi: Callable[..., Any], manifest: Path, arguments: list[str], sentence: str
) -> None:
    assert sentence in complaint(pengi("eval", "--manifest", manifest, *arguments))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "name the clips and the task with --manifest and --task, or a suite with --suite"),
        (
            ["--suite", "everything", "--out", "run"],
            "there is no suite 'everything'; choose one of paper, local, quick",
        ),
        (["--suite", "quick"], "name a folder for the run with --out"),
        (["--suite", "quick", "--task", "events", "--out", "run"], "--task and --suite cannot be combined"),
        (["--suite", "quick", "--shard", "one", "--out", "run"], "--shard must be I/N, such as 1/4"),
        (["--suite", "quick", "--shard", "5/4", "--out", "run"], "there is no shard 5 of 4"),
        (["--suite", "quick", "--modes", "guess", "--out", "run"], "there is no mode 'guess'"),
        (["--suite", "quick", "--report-audio", "me", "--out", "run"], "--report-audio must be one of free, all, none"),
        (["--benchmark", "esc-50", "--out", "run"], "there is no benchmark 'esc-50'; did you mean 'esc50'?"),
        (["compare", "a", "b"], "'a' is not an evaluation run"),
    ],
)
def test_a_mistake_in_a_suite_or_a_comparison_is_one_sentence(
    pengi: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sentence in complaint(pengi("eval", *arguments))


def test_probe_without_labels_is_a_sentence(pengi: Callable[..., Any], tmp_path: Path, tone: Path) -> None:
    manifest = tmp_path / "m.jsonl"
    manifest.write_text(json.dumps({"id": "a", "audio": tone.name, "split": "val", "events": ["x"]}), encoding="utf-8")
    message = complaint(pengi("probe", "--manifest", manifest, "--task", "events"))
    assert "has 1 labels of events in split" in message
