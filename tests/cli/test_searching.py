"""``pengi index`` and ``pengi search`` as they are typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile

pytest.importorskip("lancedb", reason="LanceDB is not installed (pengi[search])")

import torch

from helpers import RATE, noise, tiny_model, tone
from helpers.commands import complaint, invoke
from pengi.engine import Pengi
from pengi.errors import InputError
from pengi.text_encoder import SentenceEncoder


@pytest.fixture
def pengi(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run a command line with a tiny random model in place of every trained one."""
    engine = Pengi(tiny_model(), "tiny", torch.device("cpu"))

    def load(name: str, device: str = "auto") -> Pengi:
        if name == "nonsense":
            raise InputError("there is no model named 'nonsense'")
        return engine

    monkeypatch.setattr("pengi.cli.searching.load_model", load)
    monkeypatch.setattr(Pengi, "from_pretrained", staticmethod(load))
    monkeypatch.setattr(SentenceEncoder, "from_folder", lambda folder: SentenceEncoder.tiny())
    monkeypatch.setattr("pengi.weights.resolve", lambda name: Path(name))
    return invoke


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    folder = tmp_path / "sounds"
    folder.mkdir()
    soundfile.write(folder / "low.wav", tone(2.0, 200.0), RATE)
    soundfile.write(folder / "long.wav", noise(12.5), RATE)
    return folder


def test_index_and_search(pengi: Callable[..., Any], sounds: Path, tmp_path: Path) -> None:
    db = tmp_path / "index"
    made = pengi("index", sounds, "--db", db)
    assert (made.exit_code, made.stdout) == (0, "2 new; 3 windows in the index\n"), made.stderr
    again = json.loads(pengi("index", sounds, "--db", db, "--json").stdout)
    assert (again["unchanged"], again["added"], again["windows_in_all"], again["failed"]) == (2, 0, 3, [])
    hits = json.loads(pengi("search", db, "a sound", "--like", sounds / "low.wav", "--json").stdout)
    assert len(hits) == 3
    assert hits[0].keys() >= {"path", "start_s", "end_s", "text", "score"}
    piped = pengi("search", db, "a sound", "--like", "-", "--json", stdin=(sounds / "low.wav").read_bytes())
    assert json.loads(piped.stdout) == hits
    filtered = json.loads(pengi("search", db, "a sound", "--filter", "start_s >= 10", "--json").stdout)
    assert [(Path(hit["path"]).name, hit["start_s"], hit["end_s"]) for hit in filtered] == [("long.wav", 10.0, 12.5)]
    shown = pengi("search", db, "a sound", "--limit", 1, "--mode", "vector", "--filter", "start_s >= 10")
    assert shown.exit_code == 0
    assert "00:10.0 - 00:12.5" in shown.stdout
    assert str(sounds / "long.wav") in shown.stdout


def test_bad_files_are_errors_and_the_rest_goes_on(pengi: Callable[..., Any], sounds: Path, tmp_path: Path) -> None:
    (sounds / "bad.wav").write_text("no audio", encoding="utf-8")
    result = pengi("index", sounds, "--db", tmp_path / "index")
    assert (result.exit_code, result.stdout) == (2, "2 new, 1 unusable; 3 windows in the index\n")
    assert str(sounds / "bad.wav") in result.stderr
    assert result.stderr.count("error: ") == 1


def test_mistakes_are_one_sentence(pengi: Callable[..., Any], sounds: Path, tmp_path: Path) -> None:
    db = tmp_path / "index"
    assert pengi("index", sounds, "--db", db).exit_code == 0
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for arguments, said in (
        (("search", tmp_path / "nowhere", "rain"), "there is no index at"),
        (("search", db), "nothing to search for"),
        (("search", db, "rain", "--mode", "fuzzy"), "no search mode 'fuzzy'"),
        (("search", db, "rain", "--filter", "length > 5"), "the filter 'length > 5' cannot be used"),
        (("search", db, "--like", tmp_path / "none.wav"), "none.wav"),
        (("index", tmp_path / "nowhere", "--db", db), "there is no folder"),
        (("index", sounds, "--db", tmp_path / "file"), "could not be written: file exists"),
        (("index", sounds, "--db", db, "--model", "nonsense"), "no model named"),
    ):
        assert said in complaint(pengi(*arguments))


def test_nothing_found_is_a_note(pengi: Callable[..., Any], sounds: Path, tmp_path: Path) -> None:
    pengi("index", sounds, "--db", tmp_path / "index")
    result = pengi("search", tmp_path / "index", "rain", "--filter", "duration_s > 1000")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "nothing was found\n")
    assert pengi("search", tmp_path / "index", "rain", "--filter", "duration_s > 1000", "--json").stdout == "[]\n"
