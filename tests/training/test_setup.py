"""Which clips a run prepares, and what it adds to the configuration of a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from helpers import model_values, tiny_model, write_jsonl
from pengi import checkpoint
from pengi.config import ModelConfig
from pengi.data.manifest import Label
from pengi.data.pseudo import FEWEST_CLIPS
from pengi.encoders.yamnet import YamnetEncoder, YamnetTagger
from pengi.errors import ConfigError
from pengi.mapper import WordsMapper
from pengi.model import PengiModel
from pengi.training.recipe import read_recipe
from pengi.training.setup import _check_patches, _with_phrases, prepare

Rows = list[dict[str, Any]]


@pytest.fixture
def two_domains(toy: Path, recipe: Path) -> Path:
    """The toy problem with every third clip of another domain."""
    manifest = toy / "manifest.jsonl"
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    for row in rows[::3]:
        row["domain"] = "sfx"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return recipe


@pytest.mark.parametrize("shares", ["{environment: 1}", "{environment: 2, sfx: 0}"])
def test_clips_that_are_never_drawn_are_not_heard(two_domains: Path, shares: str) -> None:
    setup = prepare(read_recipe(two_domains, [f"data.domains={shares}"]))
    assert {clip.domain for clip in setup.train_clips} == {"environment"}
    assert setup.loader.caches[0].spans.keys() == {clip.id for clip in setup.train_clips}
    assert {clip.domain for clip in setup.loader.batch(0).clips} == {"environment"}
    assert {clip.domain for clip in setup.held_out.clips} == {"environment", "sfx"}


def test_a_share_for_a_domain_that_no_clip_has_is_refused(two_domains: Path) -> None:
    with pytest.raises(ConfigError, match="animal"):
        prepare(read_recipe(two_domains, ["data.domains={environment: 1, animal: 0}"]))


def test_prompts_may_mention_words_by_the_phrases_of_labels_and_speech_by_those_of_its_kinds() -> None:
    labels = {
        name: Label(label=name, phrase=phrase, sentence="A sound.", category=category)
        for name, phrase, category in [
            ("snoring", "someone snoring", "human"),
            ("speech", "a person speaking", "speech"),
            ("man speaking", "a man speaking", "speech"),
            ("slurping", "someone slurping", "human"),
        ]
    }
    branch = {"encoder": "yamnet-tiny-random", "mapper": {"kind": "words", "words": {"snoring": 0, "speech": 1}}}
    config = ModelConfig.parse(model_values(audio=[branch], mentions={"branch": 0}), "test")
    found = _with_phrases(config, labels).mentions
    assert found is not None
    expected = {"someone snoring": "snoring", "a person speaking": "speech", "a man speaking": "speech"}
    assert found.phrases == expected
    named = config.model_copy(update={"mentions": found.model_copy(update={"phrases": {"a nap": "snoring"}})})
    assert _with_phrases(named, labels) == named


def test_a_clip_is_moved_to_a_class_in_the_same_patches_for_both_branches() -> None:
    sound = {"encoder": "yamnet-tiny-random", "trained": False, "mapper": {"kind": "none"}}
    words = {"encoder": "yamnet-tiny-random", "mapper": {"kind": "words", "tokens": 1, "words": {"hum": 0}}}
    _check_patches(tiny_model(audio=[sound, words]))
    with pytest.raises(ConfigError, match="first branch's window_s, 10"):
        _check_patches(tiny_model(audio=[sound, words | {"window_s": 5.0}]))


# The tiny encoder's outputs stand for the logits of 16 classes.
CLASSES = ("Hum", "Hiss", "Shatter", "Animal", *(f"Class {place}" for place in range(4, 16)))
LABELS = [
    {"label": "hum", "phrase": "a deep hum", "sentence": "A machine hums.", "audioset": "Hum"},
    {"label": "hissing", "phrase": "a hiss", "sentence": "Something hisses.", "audioset": "Hiss"},
    {"label": "glass breaking", "phrase": "a shattering glass", "sentence": "Glass breaks.", "audioset": "Shatter"},
    {"label": "zebra calling", "phrase": "a zebra", "sentence": "A zebra calls.", "audioset": "Animal"},
    {"label": "hyena calling", "phrase": "a hyena", "sentence": "A hyena calls.", "audioset": "Animal"},
]
FIRST_WORDS = {"hum": 0, "hiss": 1, "a siren": 2}


@pytest.fixture
def with_words(recipe: Path, toy: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy problem with a branch of words, beside which the words of prompts are told, and what probes hear."""
    tagger = YamnetTagger(YamnetEncoder.tiny(), CLASSES)
    monkeypatch.setattr("pengi.training.setup._tagger", lambda *_: tagger)
    monkeypatch.setattr("pengi.training.facts.STEPS", 5)  # what the probes hear is of no matter here
    values = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    words = {"kind": "words", "tokens": 2, "words": FIRST_WORDS}
    values["model"]["audio"][0].update(trained=False, frozen_layers=99, mapper=words)
    values["model"] |= {"mentions": {"branch": 0}, "facts": {"branches": [0], "attributes": ["event"], "told": 1}}
    values["alignment"] = None
    recipe.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return recipe


def edited(toy: Path, change: Callable[[Rows], Rows]) -> None:
    """Change the rows of the toy problem's manifest."""
    manifest = toy / "manifest.jsonl"
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    write_jsonl(manifest, change(rows))


def words_of(model: PengiModel) -> WordsMapper:
    mapper = model.branches[0].mapper
    assert isinstance(mapper, WordsMapper)
    return mapper


def same(one: WordsMapper, other: WordsMapper) -> dict[str, bool]:
    """Which weights of two mappers are the same."""
    others = other.state_dict()
    return {name: torch.equal(value, others[name]) for name, value in one.state_dict().items()}


FITTED = ("mean_I", "deviation_I", "scale_V", "bias_V")


def test_words_are_fitted_on_the_training_clips(with_words: Path) -> None:
    """Whose classes are whatever an untrained encoder hears: all the same they tell hums from hisses."""
    setup = prepare(read_recipe(with_words))
    mapper = words_of(setup.model)
    (cache,) = setup.loader.caches
    logits = torch.cat([mapper.word_logits(*cache.batch([clip.id])) for clip in setup.train_clips])
    assert mapper.words[:2] == ("hum", "hiss")
    said = [mapper.words[place] for place in logits[:, :2].argmax(1).tolist()]
    assert sum(word in clip.events for word, clip in zip(said, setup.train_clips, strict=True)) >= 14
    again = words_of(prepare(read_recipe(with_words)).model)
    assert all(same(mapper, again).values())
    other = words_of(prepare(read_recipe(with_words, ["training.seed=1"])).model)
    assert not same(mapper, other)["bias_V"]


@pytest.mark.parametrize("shares", [{}, {"environment": 1.0, "composed": 2.0}], ids=["no shares", "shares"])
def test_words_are_fitted_without_clips_that_are_several_recordings(
    with_words: Path, toy: Path, shares: dict[str, float]
) -> None:
    without = {domain: share for domain, share in shares.items() if domain != "composed"}
    alone = words_of(prepare(read_recipe(with_words, [f"data.domains={json.dumps(without or None)}"])).model)
    edited(toy, lambda rows: rows + [row | {"id": f"both-{row['id']}", "domain": "composed"} for row in rows[:6]])
    setup = prepare(read_recipe(with_words, [f"data.domains={json.dumps(shares or None)}"]))
    assert any(clip.domain == "composed" for clip in setup.train_clips)
    assert all(same(words_of(setup.model), alone)[name] for name in FITTED)


def refitting(with_words: Path, base: PengiModel, **changes: Any) -> Path:
    """The recipe, gone on with from a model, whose fitted parts are fitted anew."""
    checkpoint.save(base, with_words.parent / "base", card="")
    values = yaml.safe_load(with_words.read_text(encoding="utf-8"))
    del values["model"], values["alignment"]
    values["finetune"] = {"checkpoint": str(with_words.parent / "base"), "name": "again", "refit": True}
    values["data"] |= changes
    path = with_words.with_name("again.yaml")
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path


@pytest.fixture
def base(with_words: Path) -> PengiModel:
    """A model as after some training: what it learned by it is no longer what a new model has."""
    model = prepare(read_recipe(with_words)).model
    torch.manual_seed(7)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.startswith(("audio.0.mapper.", "mentions.")):
                value.add_(torch.randn_like(value) * 0.1)
    return model


def test_a_model_that_goes_on_has_its_words_anew(with_words: Path, toy: Path, base: PengiModel, tmp_path: Path) -> None:
    """Those of the labels as they are by now, fitted on the clips as they are by now; what training taught stays."""
    write_jsonl(toy / "labels.jsonl", LABELS)

    def of_zebras(rows: Rows) -> Rows:
        hums = [row for row in rows if row["split"] == "train" and row["events"] == ["hum"]]
        for row in hums[:FEWEST_CLIPS]:
            row["events"] = ["zebra calling"]
        return rows

    edited(toy, of_zebras)
    setup = prepare(read_recipe(refitting(with_words, base)))
    mapper = words_of(setup.model)
    classes = {f"class {place}": place for place in range(4, 16)}
    expected = {"hum": 0, "hissing": 1, "glass breaking": 2, "animal": 3, "zebra calling": 3, **classes}
    assert dict(zip(mapper.words, mapper.classes_V.tolist(), strict=True)) == expected
    assert setup.model.config.audio[0].mapper.words == expected
    assert setup.model.config.mentions is not None
    phrases = {"a deep hum": "hum", "a hiss": "hissing", "a shattering glass": "glass breaking"}
    assert setup.model.config.mentions.phrases == {**phrases, "a zebra": "zebra calling"}
    assert not torch.equal(mapper.scale_V, torch.ones(len(expected)))
    assert mapper.bias_V.any()
    kept, now = dict(base.named_parameters()), dict(setup.model.named_parameters())
    taught = [name for name in kept if name.startswith(("audio.0.mapper.", "mentions."))]
    assert len(taught) == 4
    assert all(torch.equal(now[name], kept[name]) for name in taught)
    checkpoint.save(setup.model, tmp_path / "saved", card="")
    saved = checkpoint.load(tmp_path / "saved")
    assert saved.config == setup.model.config
    assert all(same(words_of(saved), mapper).values())


def test_without_labels_the_words_stay_and_are_fitted_anew(with_words: Path, toy: Path, base: PengiModel) -> None:
    # The clips are not those that the words were fitted on.
    edited(toy, lambda rows: rows[4:])
    mapper = words_of(prepare(read_recipe(refitting(with_words, base, labels=None))).model)
    assert mapper.words == tuple(FIRST_WORDS)
    found = same(mapper, words_of(base))
    assert {name for name, alike in found.items() if not alike} == set(FITTED)


def test_unless_they_are_to_be_fitted_anew_words_stay_as_they_are(
    with_words: Path, toy: Path, base: PengiModel
) -> None:
    write_jsonl(toy / "labels.jsonl", LABELS)
    edited(toy, lambda rows: rows[4:])
    setup = prepare(read_recipe(refitting(with_words, base), ["finetune.refit=false"]))
    assert all(same(words_of(setup.model), words_of(base)).values())
    assert setup.model.config.mentions == base.config.mentions
