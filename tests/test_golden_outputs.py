"""The comparison of outputs before and after a change, on a tiny model."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import soundfile
import torch

from helpers import RATE, noise, tiny_model, tone
from pengi import calls, checkpoint, timelines
from pengi.decoding import DecodeOptions

SCRIPT = runpy.run_path(str(Path(__file__).resolve().parents[1] / "benchmarks/golden_outputs.py"))
KINDS = ("describe", "ask", "classify", "timeline")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short texts, and the number of threads as it was."""
    for module, name in ((calls, "DESCRIBE"), (calls, "ANSWER"), (timelines, "TIMELINE")):
        monkeypatch.setattr(module, name, DecodeOptions(beams=2, max_tokens=4))
    threads = torch.get_num_threads()
    monkeypatch.setitem(SCRIPT["main"].__globals__, "THREADS", threads)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., int]:
    """The script on one example, three clips and a file that is no audio."""
    folder = tmp_path_factory.mktemp("golden")
    text = {"max_tokens": 100, "mapper": {"kind": "identity"}}
    checkpoint.save(tiny_model(text=text), folder / "model", card="# tiny\n")
    sounds = {"a": tone(1.0), "b": noise(1.0), "c": tone(1.0, 900.0), "d": noise(1.0, 1)}
    for name, samples in sounds.items():
        soundfile.write(folder / f"{name}.wav", samples, RATE)
    (folder / "e.wav").write_text("no audio", encoding="utf-8")
    splits = {"examples": {"a": "test"}, "data": {"a": "train", "b": "val", "c": "val", "d": "val", "e": "val"}}
    for kind, rows in splits.items():
        (folder / kind).mkdir()
        lines = [json.dumps({"id": name, "audio": f"../{name}.wav", "split": split}) for name, split in rows.items()]
        (folder / kind / "manifest.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    common = ["--model", folder / "model", "--examples", folder / "examples", "--data", folder / "data"]

    def script(*arguments: object) -> int:
        status: int = SCRIPT["main"]([str(argument) for argument in [*common, *arguments]])
        return status

    return script


def test_unchanged_code_gives_the_same_bytes(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--out", tmp_path / "before") == 0
    assert run("--out", tmp_path / "after", "--compare", tmp_path / "before") == 0
    assert capsys.readouterr().out == "".join(f"{kind}: 5 recordings, identical\n" for kind in KINDS)
    for kind in KINDS:
        content = (tmp_path / "before" / f"{kind}.json").read_bytes()
        assert content == (tmp_path / "after" / f"{kind}.json").read_bytes()
        answers = json.loads(content)
        assert list(answers) == ["examples/../a.wav", "b", "c", "d", "e"]
        assert "not audio" in answers["e"]["error"]


def test_the_first_differences_are_printed(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("--out", tmp_path, "--clips", 2)
    path = tmp_path / "ask.json"
    answers = json.loads(path.read_text(encoding="utf-8"))
    assert list(answers) == ["examples/../a.wav", "b", "d"]
    text = answers["b"]["text"]
    answers["b"]["text"] = "something else"
    del answers["d"]["question"]
    path.write_text(json.dumps(answers), encoding="utf-8")
    assert run("--compare", tmp_path, "--clips", 2) == 1
    printed = capsys.readouterr().out
    assert "describe: 3 recordings, identical" in printed
    assert "ask: 2 differences; the first:" in printed
    assert f'- b text:\n  before: "something else"\n  after:  {json.dumps(text, ensure_ascii=False)}\n' in printed
    assert '- d question:\n  before: "(absent)"\n' in printed


def test_there_must_be_something_to_write_or_to_compare_with(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, why in (((), "give --out, --compare or both"), (("--compare", tmp_path), "does not hold the files")):
        with pytest.raises(SystemExit):
            run(*arguments)
        assert why in capsys.readouterr().err
