"""Labels of a user's recordings become tags of a trained model; its other tags do not change."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from helpers import CHAT, RATE, TRANSFORMER, noise, tiny_model, tone
from helpers.training import write_recipe
from pengi import Pengi, checkpoint
from pengi.conditioning.vocabulary import Tag, Vocabulary
from pengi.data.manifest import Clip
from pengi.errors import ConfigError, InputError
from pengi.training import train
from pengi.training.label_report import NOTHING, LabelReport
from pengi.training.new_tags import best_threshold, label_targets, new_labels

OLD = Vocabulary((Tag("rain", "sound", ("rain falling",)), Tag("speech", "sound"), Tag("stop", "keyword")))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A checkpoint with a tagger."""
    branch = {**CHAT["audio"]["yamnet"], "mapper": TRANSFORMER}
    model = tiny_model(**{**CHAT, "audio": {"yamnet": branch}})
    model.set_vocabulary(OLD)
    assert model.tagger is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model.tagger.head.weight.copy_(torch.randn_like(model.tagger.head.weight))
    checkpoint.save(model, tmp_path / "base", card="# base\n", dtype=torch.float16)
    return tmp_path / "base"


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """Recordings of two new sounds, one of them also together with a known one, and of neither."""
    folder = tmp_path / "sounds"
    for number in range(10):
        waves = {
            "low_buzz": tone(1.0, 150.0 + 5 * number, 0.4),
            "hiss": noise(1.0, number, 0.3),
            "hiss,rain": noise(1.0, 100 + number, 0.2),
            "background": tone(1.0, 2500.0 + 50 * number, 0.4),
            "-hiss": tone(1.0, 2000.0 + 50 * number, 0.2),
        }
        for label, samples in waves.items():
            (folder / label).mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / label / f"{number}.wav", samples, RATE)
    return folder


@pytest.fixture
def recipe(base: Path, sounds: Path, tmp_path: Path) -> Path:
    values = {
        "finetune": {"checkpoint": str(base), "name": "mine"},
        "data": {"manifest": str(sounds)},
        "training": {"max_steps": 0, "mapper_learning_rate": 0.001, "batch_size": 4, "eval_every": 2, "save_every": 2},
    }
    return write_recipe(tmp_path / "own.yaml", values)


def test_labels_become_tags_and_nothing_else_changes(recipe: Path, base: Path, tmp_path: Path) -> None:
    out = train(recipe, out=tmp_path / "mine")
    before, after = Pengi.from_pretrained(base, device="cpu"), Pengi.from_pretrained(out, device="cpu")
    clip = (tone(1.0, 172.0, 0.4), RATE)
    new = {tag.label: tag.probability for tag in after.tags(clip, threshold=0.0).tags}
    old = {tag.label: tag.probability for tag in before.tags(clip, threshold=0.0).tags}
    assert set(new) - set(old) == {"low buzz", "hiss"}
    for label, probability in old.items():
        assert new[label] == pytest.approx(probability, abs=1e-6)
    assert new["low buzz"] > 0.5 > new["hiss"]
    hiss = {tag.label: tag.probability for tag in after.tags((noise(1.0, 55, 0.3), RATE), threshold=0.0).tags}
    assert hiss["hiss"] > 0.5 > hiss["low buzz"]
    stored, was = load_file(out / "model.safetensors"), load_file(base / "model.safetensors")
    assert stored.keys() == was.keys()
    for name, value in was.items():
        assert torch.equal(stored[name][: len(value)], value.to(stored[name].dtype)), name


def test_timeline_classify_and_ask_use_the_new_labels(recipe: Path, tmp_path: Path) -> None:
    pengi = Pengi.from_pretrained(train(recipe, out=tmp_path / "mine"), device="cpu")
    audio = (tone(3.0, 172.0, 0.4), RATE)
    events = pengi.timeline(audio, labels=["low buzz", "hiss"]).segments
    assert [event.text for event in events] == ["low buzz"]
    assert events[0].end_s - events[0].start_s > 2.0
    assert pengi.classify(audio, ["low buzz", "rain"], none=True).label == "low buzz"
    assert "low buzz" in pengi.ask(audio, "what is it?", explain=True).explanation.prompt
    vocabulary = pengi.model.tagger.vocabulary  # type: ignore[union-attr]
    assert all(0.1 <= (tag.threshold or 0.0) <= 0.9 for tag in vocabulary.tags[-2:])
    assert [tag.threshold for tag in vocabulary.tags[:3]] == [None, None, None]


def test_the_report_has_thresholds_confusions_and_the_worst_clips(
    recipe: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pengi")
    out = train(recipe, out=tmp_path / "mine")
    text = (out / "report.md").read_text(encoding="utf-8")
    assert f"the worst clips are in {out / 'report.md'}" in caplog.text
    assert re.search(r"low buzz: detected from 0\.\d\d on; precision \d\.\d\d, recall", caplog.text)
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "- training: new tags only, see report.md" in card
    assert "| not named | 40 | not named |" in card
    assert "On 10 held-out clips" in text
    assert "| label | clips | threshold | precision | recall | F1 |" in text
    assert f"|  | hiss | low buzz | {NOTHING} |" in text
    assert "### The 10 worst clips" in text
    assert "low_buzz/" in text


def test_a_run_that_trains_the_language_model_adds_tags_too(recipe: Path, tmp_path: Path, tiny_stock: None) -> None:
    pytest.importorskip("peft", reason="LoRA needs peft (the extra 'train')")
    out = train(recipe, ["training.max_steps=2", "training.warmup_steps=1"], out=tmp_path / "mine")
    assert "## Labels" in (out / "report.md").read_text(encoding="utf-8")
    assert {tag.text for tag in Vocabulary.read(out).tags} >= {"low buzz", "hiss", "rain"}


def test_a_finished_run_is_left_as_it_is_when_it_is_resumed(
    recipe: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pengi")
    out = train(recipe, resume=True, out=tmp_path / "mine")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert train(recipe, resume=True, out=out) == out
    assert f"the run in '{out}' is finished" in caplog.text
    for settings in (["training.seed=1"], ["training.max_steps=2", "training.warmup_steps=1"]):
        with pytest.raises(ConfigError, match="belongs to a run with other settings; choose another folder"):
            train(recipe, settings, resume=True, out=out)
    with pytest.raises(ConfigError, match="already contains a run"):
        train(recipe, out=out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_impossible_runs_are_errors(recipe: Path, base: Path, tmp_path: Path) -> None:
    known = tmp_path / "known/rain"
    known.mkdir(parents=True)
    for number in range(3):
        soundfile.write(known / f"{number}.wav", noise(1.0, number), RATE)
    with pytest.raises(ConfigError, match="no label of the clips is new to the tagger"):
        train(recipe, [f"data.manifest={known.parent}"], out=tmp_path / "mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a").write_text("")
    with pytest.raises(InputError, match="already exists"):
        train(recipe, out=tmp_path / "full")


def clip(**fields: object) -> Clip:
    return Clip.model_validate({"id": str(fields), "audio": "a.wav", "split": "train", **fields})


def test_targets_of_clips_with_and_without_labels() -> None:
    clips = [
        clip(events=["hiss", "buzz"]),
        clip(events=["rain"]),
        clip(),
        clip(absent=["hiss"]),
        clip(captions=["A dog barks."]),
    ]
    targets = label_targets(clips, ["buzz", "hiss"])
    assert targets.present_NK.tolist() == [[True, True], *[[False, False]] * 4]
    assert targets.known_NK.tolist() == [[True, True], [True, True], [True, True], [False, True], [False, False]]


def test_labels_are_new_if_no_tag_but_a_spoken_word_has_their_name() -> None:
    events = [["rain falling"], ["buzz"], ["stop sign"], ["once"], ["stop sign", "buzz"], ["the speech"], ["stop"]]
    assert new_labels(OLD, [clip(events=each) for each in events]) == ["buzz", "stop sign"]


def test_the_best_threshold_is_between_two_probabilities() -> None:
    def best(values: list[float], present: list[bool], known: list[bool] | None = None) -> float:
        return best_threshold(np.array(values, np.float32), np.array(present), np.array(known or [True] * len(values)))

    assert best([0.9, 0.8, 0.1], [True, True, False]) == pytest.approx(0.5)
    assert best([0.9, 0.8, 0.7], [True, True, False]) == pytest.approx(0.75)
    assert best([0.3, 0.2, 0.1], [True, True, False]) == pytest.approx(0.15)
    assert best([0.3, 0.2, 0.9], [True, True, False], [True, True, False]) == pytest.approx(0.1)
    assert best([0.5], [False]) == pytest.approx(0.5, abs=0.3)


def report_on(clips: list[Clip], probability: NDArray[np.float32]) -> LabelReport:
    return LabelReport(("a", "b"), clips, probability, label_targets(clips, ["a", "b"]), {"a": 0.5, "b": 0.5}, "clips")


def test_confusions_count_each_true_label_and_the_worst_come_first() -> None:
    clips = [clip(events=["a"]), clip(events=["a", "b"]), clip(), clip(events=["b"])]
    probability = np.array([[0.2, 0.9], [0.8, 0.7], [0.6, 0.1], [0.1, 0.2]], np.float32)
    report = report_on(clips, probability)
    assert report.confusions() == {("a", "b"): 1, ("a", "a"): 1, ("b", "b"): 1, (NOTHING, "a"): 1, ("b", NOTHING): 1}
    assert report.worst() == [0, 3, 2, 1]


def test_a_confusion_is_the_most_probable_label_also_if_the_true_one_is_detected() -> None:
    clips = [clip(events=["a"]), clip(absent=["a"])]
    probability = np.array([[0.6, 1.0], [0.1, 0.9]], np.float32)
    report = report_on(clips, probability)
    assert report.confusions() == {("a", "b"): 1, (NOTHING, NOTHING): 1}
