"""``pengi data compose`` and ``pengi data pack`` on the example recordings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from helpers import write_jsonl
from pengi.cli import app
from pengi.data.manifest import read_labels, read_manifest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def compose(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["data", "compose", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_examples_are_composed_into_a_new_folder(tmp_path: Path) -> None:
    arguments = ("--manifest", str(EXAMPLES), "--split", "val", "--count", "2", "--seed", "4", "--rate", "8000")
    wording = {"label": "siren", "phrase": "a siren", "sentence": "A siren wails.", "category": "vehicle"}
    labels = write_jsonl(tmp_path / "mine.jsonl", [wording])
    code, stdout, stderr = compose(*arguments, "--labels", str(labels), "--out", str(tmp_path / "new"), "--json")
    assert code == 0, stderr
    said = json.loads(stdout)
    assert (said["examples"], said["seed"], said["split"]) == (2, 4, "val")
    clips = read_manifest(Path(said["manifest"]))
    assert [clip.id[-8:] for clip in clips] == ["4-000000", "4-000001"]
    assert all(clip.split == "val" and clip.ship for clip in clips)
    assert read_labels(tmp_path / "new" / "labels.jsonl")["siren"].phrase == "a siren"
    code, _, stderr = compose(*arguments, "--out", str(tmp_path / "new"))
    assert code == 2
    assert "already exists" in stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "train"], "there are no clips of split 'train'"),
        (["--split", "vall"], "there is no split 'vall'"),
    ],
)
def test_what_cannot_be_composed(tmp_path: Path, arguments: list[str], message: str) -> None:
    out = tmp_path / "new"
    code, stdout, stderr = compose("--manifest", str(EXAMPLES), "--count", "2", "--out", str(out), *arguments)
    assert (code, stdout) == (2, "")
    assert message in " ".join(stderr.split())
    assert not out.exists()


def test_shards_are_packed(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["data", "pack", str(EXAMPLES), "--out", str(tmp_path / "packed"), "--json"])
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    assert said["shards"] == 1
    assert [clip.id for clip in read_manifest(Path(said["manifest"]))] == [
        clip.id for clip in read_manifest(EXAMPLES / "manifest.jsonl")
    ]
