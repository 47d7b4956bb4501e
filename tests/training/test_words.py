"""Fitting how much the logit of a class tells of each of its words."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from pengi.config import MapperConfig
from pengi.data.manifest import Clip
from pengi.mapper import WordsMapper
from pengi.training import words
from pengi.training.words import fit_words, right_words

# Of every kind of sound there is a class, and for it two words: the class's name, and a label. Clips are about labels
# only, and about those of the last kinds there is none. Some kinds have a second label, that no clip is about.
KINDS, KNOWN = 160, 140
LABELS = [f"label {kind}" for kind in range(KINDS)]
OTHERS = {f"other {kind}": kind for kind in range(4)}
WORDS = {f"{form} {kind}": kind for kind in range(KINDS) for form in ("name", "label")} | OTHERS
NAMED = frozenset([*LABELS, *OTHERS])
USUAL = torch.linspace(-8.0, -3.0, KINDS)
LOUD = 5.0
RARE, COMMON = "label 2", "label 3"
CLIPS = dict.fromkeys(LABELS[:KNOWN], 6) | {RARE: 1, COMMON: 60}


def hear(events: Collection[str], seed: int = 0, silent: Collection[str] = ()) -> Tensor:
    """Class logits of a clip about each event: its class is loud, but for some that are not heard at all."""
    logits = torch.randn(len(events), KINDS, generator=torch.Generator().manual_seed(seed)) + USUAL
    for row, event in enumerate(events):
        logits[row, WORDS[event]] += 0.0 if event in silent else LOUD
    return logits


def new_mapper(sharpness: float = 1.0) -> WordsMapper:
    config = MapperConfig(kind="words", tokens=2, words=WORDS, sharpness=sharpness)
    built = WordsMapper(config, KINDS, lambda text: torch.zeros(1, 3))
    built.standardise(hear(LABELS * 5, seed=1))
    return built


def about(*events: str, place: int = 0) -> Clip:
    return Clip(id=f"clip-{place}", audio="x.wav", split="train", events=events)


def fitted(
    clips: Mapping[str, int] = CLIPS,
    named: Collection[str] = NAMED,
    seed: int = 0,
    sharpness: float = 1.0,
    silent: Collection[str] = (),
) -> WordsMapper:
    """A mapper after so many clips about each word, all as likely to be drawn."""
    events = [event for event, count in clips.items() for _ in range(count)]
    built = new_mapper(sharpness)
    rows = [about(event, place=place) for place, event in enumerate(events)]
    fit_words(built, hear(events, silent=silent), rows, [1.0] * len(rows), named, seed)
    return built


@cache
def usual() -> WordsMapper:
    return fitted()


def likeliest(built: WordsMapper, events: Collection[str]) -> list[str]:
    return [built.words[place] for place in built.weighed(hear(events, seed=2)).argmax(1).tolist()]


def weights(built: WordsMapper, word: str) -> Tensor:
    """Scale and bias of a word."""
    place = built.words.index(word)
    return torch.stack([built.scale_V[place], built.bias_V[place]])


def pulled(built: WordsMapper, label: str) -> float:
    """How far its own clips pulled a label's weights away from those of the other label of its class."""
    return float((weights(built, label) - weights(built, label.replace("label", "other"))).norm())


def ahead(built: WordsMapper, kind: int) -> float:
    """By how much a label is likelier than its class's name where the class is as loud as it mostly is in its clips."""
    unusual = (LOUD + USUAL[kind] - built.mean_I[kind]) / built.deviation_I[kind]
    scale, bias = weights(built, f"label {kind}") - weights(built, f"name {kind}")
    return float(scale * unusual + bias)


@pytest.fixture
def shortly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "STEPS", 20)


def test_the_right_words_of_a_clip_share_it() -> None:
    clips = [about("rain", "siren"), about("thunder"), about("thunder", "rain"), about("rain", "wind", "siren")]
    third = 1 / 3
    expected = [[0.5, 0.5, 0], [0, 0, 0], [1, 0, 0], [third, third, third]]
    torch.testing.assert_close(right_words(["rain", "siren", "wind"], clips), torch.tensor(expected))
    assert right_words(["rain"], []).shape == (0, 1)


@pytest.mark.parametrize("labels", [LABELS[:KNOWN], LABELS[KNOWN:]], ids=["with clips", "without clips"])
def test_labels_are_likeliest_where_their_class_is_loud(labels: list[str]) -> None:
    """Those that no clip is about, too: what counts for all words counts for them."""
    heard = labels * 3
    said = likeliest(usual(), heard)
    assert sum(word == event for word, event in zip(said, heard, strict=True)) > 0.93 * len(heard)


@pytest.mark.usefixtures("shortly")
def test_labels_without_clips_have_only_what_counts_for_all() -> None:
    """Of how usual their class is, and how much it varies, and of nothing else."""
    built = fitted()
    unmet = torch.tensor([built.words.index(label) for label in [*LABELS[KNOWN:], *OTHERS]])
    met = torch.tensor([built.words.index(label) for label in LABELS[:KNOWN]])
    means_V, deviations_V = built.mean_I[built.classes_V], built.deviation_I[built.classes_V]
    known = torch.stack([torch.ones(len(WORDS)), means_V, deviations_V], 1)
    found = torch.stack([built.scale_V, built.bias_V], 1)
    own = (found - known @ torch.linalg.lstsq(known[unmet], found[unmet]).solution).abs()
    assert own[unmet].max() < 1e-4
    assert own[met].amax(1).min() > 1e-3


def test_labels_are_preferred_to_the_names_of_their_classes_since_clips_are_about_labels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of classes that no clip is of, too, since it is known which words are labels."""
    assert min(ahead(usual(), kind) for kind in range(KINDS)) > 0.3
    monkeypatch.setattr(words, "STEPS", 20)
    alike = fitted(named=())
    torch.testing.assert_close(weights(alike, LABELS[-1]), weights(alike, f"name {KINDS - 1}"))
    assert ahead(alike, 0) > 0


def test_few_clips_pull_a_word_less_than_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where all of a word's clips say that its class's logit is not what tells it."""
    few, many = "label 0", "label 1"
    clips = CLIPS | {few: 1, many: 60}
    found = fitted(clips, silent=[few, many])
    assert pulled(found, few) < 0.7 * pulled(found, many)
    monkeypatch.setattr(words, "HELD", 0.0)
    free = fitted(clips, silent=[few, many])
    assert pulled(found, few) < 0.7 * pulled(free, few)


def test_words_that_few_clips_are_about_are_not_held_for_unlikely(monkeypatch: pytest.MonkeyPatch) -> None:
    both = torch.zeros(1, KINDS) + USUAL
    both[:, [WORDS[RARE], WORDS[COMMON]]] += LOUD

    def behind(built: WordsMapper) -> float:
        scores_V = built.weighed(both)[0]
        return float(scores_V[built.words.index(COMMON)] - scores_V[built.words.index(RARE)])

    adjusted = behind(usual())
    assert adjusted < 0.5 * math.log(CLIPS[COMMON] / CLIPS[RARE])
    monkeypatch.setattr(words, "LOGIT_ADJUSTMENT", 0.0)
    assert adjusted < behind(fitted()) - 0.5


@pytest.mark.usefixtures("shortly")
def test_the_same_seed_gives_the_same_weights() -> None:
    first, second, other = fitted(), fitted(), fitted(seed=1)
    assert torch.equal(first.scale_V, second.scale_V)
    assert torch.equal(first.bias_V, second.bias_V)
    assert not torch.equal(first.bias_V, other.bias_V)


@pytest.mark.usefixtures("shortly")
def test_only_scales_and_biases_are_fitted_and_biases_have_no_height() -> None:
    before, built = new_mapper(), fitted()
    for name, value in before.state_dict().items():
        assert torch.equal(built.state_dict()[name], value) is (name not in ("scale_V", "bias_V"))
    assert float(built.bias_V.mean()) == pytest.approx(0.0, abs=1e-5)
    assert not any(value.requires_grad for value in (built.scale_V, built.bias_V))


@pytest.mark.usefixtures("shortly")
def test_what_is_fitted_is_what_comes_out_however_sharp_the_shares_are() -> None:
    logits = hear(LABELS)
    torch.testing.assert_close(fitted(sharpness=4.0).weighed(logits), fitted().weighed(logits))


@pytest.mark.usefixtures("shortly")
def test_clips_count_by_how_often_they_are_drawn() -> None:
    """One that never is counts nothing, and its word is one that no clip is about."""
    events = ["label 0"] * 5 + ["label 1"] * 5
    rows = [about(event, place=place) for place, event in enumerate(events)]
    built, other = new_mapper(), new_mapper()
    for mapper, seed in ((built, 0), (other, 7)):
        logits = torch.cat([hear(events[:5]), hear(events[5:], seed)])
        fit_words(mapper, logits, rows, [3.0] * 5 + [0.0] * 5, NAMED, 0)
    assert torch.equal(built.scale_V, other.scale_V)
    assert torch.equal(built.bias_V, other.bias_V)
    assert pulled(built, "label 0") > 0.01
    assert pulled(built, "label 1") == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ("clips", "chance"),
    [({"thunder": 3}, 1.0), ({"label 0": 3}, 0.0), ({}, 1.0)],
    ids=["about other things", "never drawn", "none"],
)
def test_without_clips_about_words_the_mapper_is_left_as_it_is(clips: dict[str, int], chance: float) -> None:
    built = new_mapper()
    before: dict[str, Any] = {name: value.clone() for name, value in built.state_dict().items()}
    rows = [about(event) for event, count in clips.items() for _ in range(count)]
    fit_words(built, torch.zeros(len(rows), KINDS), rows, [chance] * len(rows), NAMED, 0)
    assert all(torch.equal(value, before[name]) for name, value in built.state_dict().items())
