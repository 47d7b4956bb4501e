from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from helpers.commands import complaint, invoke
from pengi import checkpoint, weights
from pengi.runtime import RUNTIME_ENV

MODEL = {
    "name": "pengi-test",
    "audio": {
        "yamnet": {"encoder": "yamnet", "trained": True, "mapper": {"kind": "transformer"}},
        "whisper": {"encoder": "whisper-tiny.en", "trained": False, "mapper": {"kind": "transformer"}},
    },
    "text": {"mapper": {"kind": "identity"}},
    "language_model": {"name": "smollm2-135m-instruct"},
}


def test_pulling_a_model_fetches_the_frozen_parts_it_builds_on_and_builds_its_graphs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trained encoder is in the model's own file; language model and frozen encoder are not."""
    folder = tmp_path / "pengi-test"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(MODEL), encoding="utf-8")
    pulled: list[str] = []

    def pull(name: str) -> Path:
        pulled.append(name)
        return folder if name == "pengi-test" else tmp_path.parent / name

    monkeypatch.setattr(weights, "ASSETS", tmp_path)
    monkeypatch.setattr(weights, "pull", pull)
    prepared: list[tuple[Path, str]] = []
    monkeypatch.setattr(checkpoint, "load", lambda folder, runtime: prepared.append((folder, runtime)))
    monkeypatch.setenv(RUNTIME_ENV, "auto")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    result = invoke("pull", "pengi-test", "--json")
    assert result.exit_code == 0, result.stderr
    assert pulled == ["pengi-test", "smollm2-135m-instruct", "whisper-tiny.en"]
    assert prepared == [(folder, "auto")]
    assert set(json.loads(result.stdout)["parts"]) == {"smollm2-135m-instruct", "whisper-tiny.en"}


def test_verification_names_damaged_files_and_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENGI_HOME", str(tmp_path))
    folder = tmp_path / "weights" / "yamnet-v1"
    folder.mkdir(parents=True)
    for name in ("classes.json", "source.json"):
        (folder / name).write_text("[]")
    result = invoke("models", "--verify", "--json")
    assert (result.exit_code, [row["error"] for row in json.loads(result.stdout)]) == (0, [None, None])
    (folder / "classes.json").write_text("{}")
    result = invoke("models", "--verify", "--json")
    assert result.exit_code == 2
    bad = {"name": "yamnet", "file": str(folder / "classes.json"), "error": "its content has changed"}
    assert bad in json.loads(result.stdout)
    assert result.stderr == "error: 'yamnet' is damaged; fetch it again with `pengi pull yamnet`\n"
    result = invoke("models", "--verify")
    assert "its content has changed" in result.stdout
    assert "as it was fetched" in result.stdout


def test_pulling_a_part_fetches_that_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "pull", lambda name: tmp_path / name)
    result = invoke("pull", "yamnet")
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'yamnet'}\n")


def test_licences_of_all_weights_and_of_what_they_were_trained_on() -> None:
    result = invoke("models", "--licenses", "--json")
    assert result.exit_code == 0, result.stderr
    entries = {entry["name"]: entry for entry in json.loads(result.stdout)}
    assert {"pengi-mini", "yamnet", "whisper-tiny.en", "smollm2-135m-instruct", "all-minilm-l6-v2"} <= set(entries)
    assert entries["yamnet"]["licence"] == "Apache-2.0"
    assert entries["yamnet"]["origin"].startswith("https://github.com/tensorflow/models")
    assert entries["whisper-tiny.en"]["licence"] == "MIT"
    assert {"CC0-1.0", "CC-BY-4.0", "CC-BY-SA-3.0"} <= set(entries["pengi-mini"]["training_data"])
    table = invoke("models", "--licenses").stdout
    assert "pengi-mini: the code is MIT. The weights were trained on recordings under " in " ".join(table.split())
    assert "whoever redistributes the weights decides" in " ".join(table.split())


def test_all_tags_of_a_model_are_listed_by_group() -> None:
    listed = invoke("tags", "--list", "--json")
    tags = {tag["label"]: tag for tag in json.loads(listed.stdout)}
    assert tags["dog barking"]["group"] == "sound"
    shown = invoke("tags", "--list")
    assert shown.exit_code == 0, shown.stderr
    sounds = [label for label, tag in tags.items() if tag["group"] == "sound"]
    assert f"sound ({len(sounds)})\n" in shown.stdout


def test_tags_need_recordings_or_the_list() -> None:
    assert "give the recordings, or --list" in complaint(invoke("tags"))
