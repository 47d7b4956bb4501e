"""Suites, comparisons, probes and imports on the command line: their mistakes and their JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


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
def test_a_mistake_is_one_sentence(
    pengi: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = pengi("eval", *arguments)
    assert result.exit_code == 2, result.stderr
    assert sentence in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_import_of_a_dataset(pengi: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "AudioWAV").mkdir()
    (tmp_path / "AudioWAV" / "1001_DFA_ANG_XX.wav").write_bytes(b"RIFF")
    out = tmp_path / "m.jsonl"
    result = pengi("data", "import", "crema-d", "--root", tmp_path, "--out", out, "--json")
    said = json.loads(result.stdout)
    assert (said["manifest"], said["splits"], said["missing"]) == (str(out), {"test": 1}, 0)
    assert json.loads(out.read_text(encoding="utf-8"))["attributes"] == {"emotion": "angry"}
    missing = pengi("data", "import", "esc50", "--root", tmp_path, "--out", out)
    assert missing.exit_code == 2
    assert "there is no 'meta/esc50.csv'" in missing.stderr


def test_probe_without_labels_is_a_sentence(pengi: Callable[..., Any], tmp_path: Path, tone: Path) -> None:
    manifest = tmp_path / "m.jsonl"
    manifest.write_text(json.dumps({"id": "a", "audio": tone.name, "split": "val", "events": ["x"]}), encoding="utf-8")
    result = pengi("probe", "--manifest", manifest, "--task", "events")
    assert result.exit_code == 2
    assert "has 1 labels of events in split" in result.stderr
