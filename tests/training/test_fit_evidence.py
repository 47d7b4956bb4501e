"""Evidence about training clips: the tagger is fitted once, and clips are tagged out of fold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from helpers import CHAT, TRANSFORMER, noise, tiny_model, write_clips
from helpers.training import log_of, lose_the_process, same_weights, train_until, write_recipe
from pengi.conditioning.vocabulary import Tag, Vocabulary
from pengi.data.features import FeatureCache
from pengi.data.loader import Loader
from pengi.data.manifest import Clip
from pengi.data.measured import Measured
from pengi.data.scene_loader import StagedBatches
from pengi.data.tagging import FOLDS
from pengi.errors import ConfigError, ManifestError
from pengi.training import evidence as evidence_module
from pengi.training import train
from pengi.training.evidence import TrainingClips, collect_evidence, frames_of
from pengi.training.recipe import read_recipe
from pengi.training.setup import Setup, prepare
from pengi.training.state import STATE_FILE
from pengi.training.tagger import FittedTagger, fit_tagger

pytest.importorskip("peft", reason="LoRA needs peft (the extra 'train')")


@pytest.fixture
def chat(recipe: Path, tiny_stock: None) -> Path:
    """The toy problem for a model that reads evidence, with scenes among its batches."""
    values = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    branch = {"encoder": "yamnet-tiny-random", "trained": False, "frozen_layers": 99, "mapper": TRANSFORMER}
    lora = {"rank": 2, "top_layers": 1}
    values["model"] |= {
        "audio": {"yamnet": branch}, "tagger": {"branches": ["yamnet"]}, "evidence": {},
        "text": {"mapper": {"kind": "identity"}},
        "language_model": {"name": "tiny-random", "chat": True, "target_tokens": 30, "lora": lora},
    }  # fmt: skip
    values["data"]["scenes"] = {"steps": 2, "share": 0.5}
    values["tagger"] = {"penalty": {"sound": 0.001}, "stock": {"sound": 0.0}}
    return write_recipe(recipe.with_name("chat.yaml"), values)


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The arguments of every fit of a tagger."""
    calls: list[tuple[Any, ...]] = []

    def counted(*given: Any) -> FittedTagger:
        calls.append(given)
        return fit_tagger(*given)

    monkeypatch.setattr(evidence_module, "fit_tagger", counted)
    return calls


def clips_of(setup: Setup) -> Loader:
    loader = setup.loader
    if isinstance(loader, StagedBatches):
        loader = loader.clips
    assert isinstance(loader, Loader)
    return loader


def evidence_of(setup: Setup) -> dict[str, Any]:
    found = clips_of(setup).evidence
    assert found is not None
    return dict(found.by_clip)


def rewritten(toy: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path = toy / "manifest.jsonl"
    rows = [change(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_the_tagger_is_fitted_and_every_clip_has_evidence(chat: Path) -> None:
    setup = prepare(read_recipe(chat))
    found = evidence_of(setup)
    assert len(found) == 24
    for clip in (clip for batch in setup.validation for clip in batch.clips):
        (event,) = clip.events
        assert found[clip.id].tags[0].text == event
        assert found[clip.id].duration_s == pytest.approx(0.5, abs=0.05)
    assert {tag.text for tag in setup.model.tagger.vocabulary.tags} >= {"hum", "hiss", "rain", "man"}


def test_a_resumed_run_has_the_same_tagger_evidence_and_batches(chat: Path, fits: list[tuple[Any, ...]]) -> None:
    first, second = prepare(read_recipe(chat)), prepare(read_recipe(chat))
    assert len(fits) == 1
    assert evidence_of(first) == evidence_of(second)
    torch.testing.assert_close(first.model.tagger.state_dict(), second.model.tagger.state_dict(), rtol=0, atol=0)
    for step in range(6):
        one, other = first.loader.batch(step), second.loader.batch(step)
        assert one.batch.evidence == other.batch.evidence
        assert one.batch.prompts == other.batch.prompts
        assert one.batch.targets == other.batch.targets
        assert bool(one.batch.features) == (one.clips[0].audio != "none")


def test_training_clips_are_tagged_by_a_tagger_that_did_not_see_them(
    chat: Path, toy: Path, fits: list[tuple[Any, ...]]
) -> None:
    """One clip is labelled wrongly; a tagger that was fitted on it would detect the wrong label."""
    rewritten(toy, lambda row: row | {"events": ["hum"] if row["id"] == "hiss-5" else row["events"]})
    setup = prepare(read_recipe(chat))
    fold_N = fits[0][4]
    assert set(fold_N) == set(range(FOLDS))
    assert evidence_of(setup)["hiss-5"].tags[0].text == "hiss"


def test_the_tagger_is_fitted_again_if_anything_differs_that_it_depends_on(
    chat: Path, toy: Path, fits: list[tuple[Any, ...]]
) -> None:
    prepare(read_recipe(chat))
    prepare(read_recipe(chat, ["training.seed=1", "data.scenes.share=0"]))
    assert len(fits) == 1
    prepare(read_recipe(chat, ["tagger.penalty={sound: 1.0}"]))
    assert len(fits) == 2
    labels = toy / "labels.jsonl"
    rows = [json.loads(line) for line in labels.read_text(encoding="utf-8").splitlines()]
    labels.write_text("".join(json.dumps(row | {"category": "human"}) + "\n" for row in rows), encoding="utf-8")
    prepare(read_recipe(chat))  # the category changes which targets are known
    assert len(fits) == 3


def test_the_tagger_is_fitted_again_if_the_cached_one_is_damaged(
    chat: Path, pengi_home: Path, fits: list[tuple[Any, ...]]
) -> None:
    first = evidence_of(prepare(read_recipe(chat)))
    (kept,) = pengi_home.rglob("tagger-*.safetensors")
    kept.write_bytes(kept.read_bytes()[:100])
    assert evidence_of(prepare(read_recipe(chat))) == first
    assert len(fits) == 2
    prepare(read_recipe(chat))
    assert len(fits) == 2


def test_composed_clips_have_evidence_but_the_tagger_is_not_fitted_on_them(
    chat: Path, toy: Path, fits: list[tuple[Any, ...]]
) -> None:
    rewritten(toy, lambda row: row | ({"domain": "composed"} if row["id"] == "hum-2" else {}))
    setup = prepare(read_recipe(chat))
    assert "hum-2" in evidence_of(setup)
    assert len(fits[0][4]) == 15


def test_clips_of_several_manifests_have_evidence(chat: Path, toy: Path, tmp_path: Path) -> None:
    more = write_clips(
        tmp_path / "more", {"hiss-5": (noise(0.5, 99, 0.3), {"split": "train", "events": ["hiss"], "domain": "more"})}
    )
    mixture = f"{{field: {{manifest: {toy / 'manifest.jsonl'}}}, more: {{manifest: {more}}}}}"
    setup = prepare(read_recipe(chat, ["data.manifest=null", f"data.mixture={mixture}"]))
    found = evidence_of(setup)
    assert len(found) == 25
    assert {"field/hiss-5", "more/hiss-5"} <= found.keys()


def test_clips_that_were_not_measured_are_left_out(chat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def some(clips: list[Clip], *_: object) -> dict[str, Measured]:
        return {clip.id: Measured("hm", ("Level.",)) for clip in clips if clip.id != "hum-4"}

    monkeypatch.setattr("pengi.training.evidence.measure_clips", some)
    setup = prepare(read_recipe(chat))
    found = evidence_of(setup)
    assert len(found) == 23
    assert (found["hum-2"].transcript, found["hum-2"].descriptors) == ("hm", ("Level.",))
    assert "hum-4" not in {clip.id for clip in clips_of(setup).clips}


def test_a_model_without_a_tagger_has_evidence_without_tags(chat: Path, fits: list[tuple[Any, ...]]) -> None:
    setup = prepare(read_recipe(chat, ["model.tagger=null", "data.scenes=null"]))
    found = evidence_of(setup)
    assert len(found) == 24
    assert all(not known.tags and not known.is_tagged and known.transcript == "" for known in found.values())
    assert not fits
    assert setup.loader.batch(0).batch.evidence is not None


def test_finetuning_keeps_the_tagger_of_its_checkpoint(chat: Path, tmp_path: Path, fits: list[tuple[Any, ...]]) -> None:
    base = train(chat, ["training.max_steps=1"], out=tmp_path / "base")
    values = yaml.safe_load(chat.read_text(encoding="utf-8"))
    del values["model"], values["tagger"], values["data"]["scenes"]
    values["finetune"] = {"checkpoint": str(base), "name": "tuned"}
    values["training"]["max_steps"] = 1
    path = write_recipe(tmp_path / "tune.yaml", values)
    assert len(evidence_of(prepare(read_recipe(path)))) == 24
    tuned = train(path, out=tmp_path / "tuned")
    assert len(fits) == 1
    before, after = load_file(base / "model.safetensors"), load_file(tuned / "model.safetensors")
    names = [name for name in before if name.startswith("tagger.")]
    assert len(names) == 5
    assert all(torch.equal(before[name], after[name]) for name in names)
    assert Vocabulary.read(base) == Vocabulary.read(tuned)
    with pytest.raises(ConfigError, match="needs a new model"):
        prepare(read_recipe(path, ["data.scenes={steps: 1}"]))


def test_a_resumed_run_repeats_an_uninterrupted_one(chat: Path, tmp_path: Path) -> None:
    overrides = ["training.max_steps=4", "training.save_every=2", "training.eval_every=4"]
    whole = train(chat, overrides, out=tmp_path / "whole")
    parts = tmp_path / "parts"
    train_until(chat, parts, 3, lose_the_process, overrides)
    assert (parts / STATE_FILE).is_file()
    train(chat, overrides, resume=True, out=parts)
    assert log_of(parts, "loss") == log_of(whole, "loss")
    assert same_weights(whole, parts)


def test_a_run_is_not_resumed_with_clips_that_have_other_tags(chat: Path, toy: Path, tmp_path: Path) -> None:
    train(chat, ["training.max_steps=1"], out=tmp_path / "run")
    rewritten(toy, lambda row: row | {"attributes": {"language": "Dutch"}})
    with pytest.raises(ConfigError, match="clips or labels that give other tags"):
        train(chat, ["training.max_steps=1"], resume=True, out=tmp_path / "run")


@pytest.mark.parametrize(
    ("overrides", "error"),
    [
        (["tagger.penalty={sounds: 0.1}"], "there is no group of tags 'sounds'; did you mean 'sound'"),
        (["tagger.branch={sound: whisper}"], "tagger.branch names 'whisper' for 'sound'"),
        (["training.augment={crop: random}"], "training.augment.crop must be start for a model with evidence"),
        (["model.evidence=null", "data.scenes=null"], "a tagger is fitted for a model with evidence only"),
        (["model.audio.yamnet.encoder=htsat-tiny-random"], "must begin with a yamnet branch, and 'yamnet' is not one"),
        (["model.tagger=null"], "data.scenes needs a new model with evidence and a tagger"),
        (["data.scenes.captions=nowhere.jsonl"], "there is no file 'nowhere.jsonl'"),
    ],
)
def test_mistakes_are_named_before_anything_is_computed(
    chat: Path, overrides: list[str], error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pengi.training.setup.cached_branches", None)
    with pytest.raises((ConfigError, ManifestError), match=error):
        prepare(read_recipe(chat, overrides))


def test_many_clips_are_scored_as_each_alone(chat: Path) -> None:
    setup = prepare(read_recipe(chat))
    part = TrainingClips(setup.train_clips, {"yamnet": clips_of(setup).caches[0]})
    measured = {clip.id: Measured("", ()) for clip in setup.train_clips}
    together = collect_evidence(setup.model, part, measured)
    for clip in setup.train_clips[:4]:
        alone = collect_evidence(setup.model, TrainingClips([clip], part.caches), measured)[clip.id]
        assert [tag.text for tag in alone.tags] == [tag.text for tag in together[clip.id].tags]
        probabilities = [tag.probability for tag in alone.tags]
        assert probabilities == pytest.approx([tag.probability for tag in together[clip.id].tags], abs=1e-5)


def test_evidence_about_a_long_clip_is_about_the_window_that_is_encoded() -> None:
    model = tiny_model(**CHAT)
    model.set_vocabulary(Vocabulary((Tag("rain", "sound"),)))
    model.tagger.head.bias.fill_(5.0)
    window_s = model.config.audio["yamnet"].window_s
    values = np.zeros((10, model.branches["yamnet"].encoder.dim), dtype=np.float16)
    cache = FeatureCache((values,), {"long": (0, 0, 10), "short": (0, 0, 3)})
    clips = [
        Clip(id="long", audio="a.wav", split="train", duration_s=10 * window_s),
        Clip(id="short", audio="b.wav", split="train"),
    ]
    part = TrainingClips(clips, {"yamnet": cache})
    found = collect_evidence(model, part, {clip.id: Measured("", ()) for clip in clips})
    assert found["long"].duration_s == window_s
    assert found["long"].tags[0].spans == ((0.0, window_s),)
    assert found["short"].duration_s == pytest.approx(3 * 0.48)
    frames = frames_of(model, part)
    assert frames.starts_N.tolist() == [0, 10, 13]
