"""The installed command over a tiny random model: every command that reads recordings, as a process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers import MAPPER
from helpers.commands import complaint, invoke
from pengi import checkpoint
from pengi.config import ModelConfig

TINY = {
    "name": "tiny",
    "audio": {"yamnet": {"encoder": "yamnet-tiny-random", "mapper": MAPPER}},
    "text": {"mapper": {"kind": "identity", "constants": 1}},
    "language_model": {"name": "tiny-random"},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder of a random model that is made in a moment and needs no download."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    checkpoint.save(checkpoint.create(ModelConfig.parse(TINY, "test")), folder, card="# tiny\n")
    return folder


def pengi(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pengi", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_json_of_good_and_bad_files(model: Path, tone: Path, bad_files: dict[str, Path]) -> None:
    """Nothing but JSON on stdout, nothing but sentences on stderr, whatever the libraries would like to say."""
    files = [tone, *bad_files.values(), tone]
    result = pengi("describe", *files, "--model", model, "--beams", 1, "--max-tokens", 4, "--json")
    found = json.loads(result.stdout)
    assert result.returncode == 2
    assert [entry["input"] for entry in found] == [str(file) for file in files]
    assert [sorted(entry) for entry in found[1:-1]] == [["error", "input"]] * len(bad_files)
    first, last = found[0], found[-1]
    assert first["text"] == last["text"]
    # Sums may be taken in another order, so the last digits of a confidence may differ.
    assert [event["label"] for event in first["events"]] == [event["label"] for event in last["events"]]
    for one, other in zip(first["events"], last["events"], strict=True):
        assert one["confidence"] == pytest.approx(other["confidence"], rel=1e-3, abs=1e-6)
    assert found[0]["duration_s"] == pytest.approx(1.0)
    assert len(result.stderr.splitlines()) == len(bad_files) + 1
    assert all(line.startswith("error: ") for line in result.stderr.splitlines())


def test_classify_then_embed(model: Path, tone: Path, tmp_path: Path) -> None:
    result = pengi("classify", tone, "--labels", "dog, rain, siren", "--top", 2, "--model", model, "--json")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    scores = json.loads(result.stdout)["scores"]
    assert len(scores) == 2
    assert scores[0]["probability"] >= scores[1]["probability"]
    out = tmp_path / "vectors.npz"
    assert pengi("embed", tone, "--model", model, "--out", out).returncode == 0
    with np.load(out) as arrays:
        assert arrays["embeddings"].dtype == np.float32
        assert np.linalg.norm(arrays["embeddings"], axis=1) == pytest.approx([1.0], abs=1e-5)


def test_a_folder_that_is_no_model_is_one_sentence(tone: Path, tmp_path: Path) -> None:
    assert complaint(invoke("describe", tone, "--model", tmp_path))
