"""``pengi data compose`` and ``pengi data pack`` on the example recordings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers import write_jsonl
from helpers.commands import complaint, invoke
from pengi.data.manifest import read_labels, read_manifest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_examples_are_composed_into_a_new_folder(tmp_path: Path) -> None:
    clips = ("--manifest", EXAMPLES, "--split", "val")
    compose = ("data", "compose", *clips, "--count", 2, "--seed", 4, "--rate", 8000)
    wording = {"label": "siren", "phrase": "a siren", "sentence": "A siren wails.", "category": "vehicle"}
    labels = write_jsonl(tmp_path / "mine.jsonl", [wording])
    result = invoke(*compose, "--labels", labels, "--out", tmp_path / "new", "--json")
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    assert (said["examples"], said["seed"], said["split"]) == (2, 4, "val")
    clips = read_manifest(Path(said["manifest"]))
    assert [clip.id[-8:] for clip in clips] == ["4-000000", "4-000001"]
    assert all(clip.split == "val" and clip.ship for clip in clips)
    assert read_labels(tmp_path / "new" / "labels.jsonl")["siren"].phrase == "a siren"
    assert "already exists" in complaint(invoke(*compose, "--out", tmp_path / "new"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "train"], "there are no clips of split 'train'"),
        (["--split", "vall"], "there is no split 'vall'"),
    ],
)
def test_what_cannot_be_composed(tmp_path: Path, arguments: list[str], message: str) -> None:
    out = tmp_path / "new"
    result = invoke("data", "compose", "--manifest", EXAMPLES, "--count", 2, "--out", out, *arguments)
    assert message in complaint(result)
    assert not out.exists()


def test_shards_are_packed(tmp_path: Path) -> None:
    result = invoke("data", "pack", EXAMPLES, "--out", tmp_path / "packed", "--json")
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    assert said["shards"] == 1
    assert [clip.id for clip in read_manifest(Path(said["manifest"]))] == [
        clip.id for clip in read_manifest(EXAMPLES / "manifest.jsonl")
    ]
