"""Which clips a run prepares, and what it adds to the configuration of a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers import model_values, tiny_model
from pengi.config import ModelConfig
from pengi.data.manifest import Label
from pengi.errors import ConfigError
from pengi.training.recipe import read_recipe
from pengi.training.setup import _check_patches, _with_phrases, prepare


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
