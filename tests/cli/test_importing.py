"""``pengi data import``: published datasets, one's own recordings, and what its help names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers.commands import complaint
from pengi.data.datasets import DATASETS


def test_the_help_names_every_dataset(pengi: Callable[..., Any]) -> None:
    said = pengi("data", "import", "--help").stdout
    words = {word.strip(",.:") for word in said.split()}
    assert DATASETS.keys() <= words


def test_a_table_of_recordings_says_what_was_found_and_what_not(pengi: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own/bark.wav").write_bytes(b"RIFF")
    (tmp_path / "own/sounds.csv").write_text("file,title,split\nbark.wav,A dog,train\ngone.wav,Gone,train\n")
    out = tmp_path / "m.jsonl"
    result = pengi("data", "import", "table", "--root", tmp_path / "own", "--out", out)
    assert "found: sounds.csv (1 clip, 1 missing)" in result.stdout
    assert "1 recording, such as gone.wav" in result.stdout.replace("\n", " ")
    assert [json.loads(line)["title"] for line in out.read_text(encoding="utf-8").splitlines()] == ["A dog"]


def test_a_published_dataset(pengi: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "AudioWAV").mkdir()
    (tmp_path / "AudioWAV" / "1001_DFA_ANG_XX.wav").write_bytes(b"RIFF")
    out = tmp_path / "m.jsonl"
    result = pengi("data", "import", "crema-d", "--root", tmp_path, "--out", out, "--json")
    said = json.loads(result.stdout)
    assert (said["manifest"], said["splits"], said["missing"]) == (str(out), {"test": 1}, 0)
    assert json.loads(out.read_text(encoding="utf-8"))["attributes"] == {"emotion": "angry"}
    missing = complaint(pengi("data", "import", "esc50", "--root", tmp_path, "--out", out))
    assert "there is no 'meta/esc50.csv'" in missing
