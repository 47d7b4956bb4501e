"""Fitting the tagger: shrunk towards the stock tagger, out of fold, calibrated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pengi.conditioning.pooling import log_mean_exp
from pengi.conditioning.vocabulary import Tag, Vocabulary
from pengi.data.manifest import Clip
from pengi.data.tagging import TagTargets
from pengi.training.tagger import (
    NO_CLASS,
    FitOptions,
    FittedTagger,
    Frames,
    Scores,
    calibrate,
    fit_scores,
    fit_tagger,
    folds_of,
    group_of,
    pooled_rows,
    stock_scores,
)

VOCABULARY = Vocabulary(
    (
        Tag("dog", "sound", (), "Dog"),
        Tag("rain", "sound", (), "Rain"),
        Tag("wind", "sound", (), "Wind"),
        Tag("flute", "instrument", (), "Flute"),
        Tag("harp", "instrument", (), "Harp"),
    )
)
CLIPS, FRAMES = 60, 4
DIM = len(VOCABULARY) + 1
OPTIONS = FitOptions({"sound": 0.001}, folds=3)


@pytest.fixture
def stock() -> Scores:
    """A feature for each tag, of which it knows nothing yet: rain it confuses with dogs."""
    weight_KD = torch.eye(len(VOCABULARY), DIM)
    return Scores(weight_KD[[1, 0, 2, 3, 4]], torch.full((len(VOCABULARY),), -3.0))


@pytest.fixture
def problem() -> tuple[Frames, TagTargets]:
    """Clips of dogs, rain or neither; in one frame the feature of the tag is high."""
    rng = np.random.default_rng(0)
    values_NTD = rng.normal(0.0, 0.3, (CLIPS, FRAMES, DIM)).astype(np.float32)
    present_NK = np.zeros((CLIPS, len(VOCABULARY)), dtype=np.bool_)
    for row in range(CLIPS):
        if row % 3 < 2:
            values_NTD[row, row % FRAMES, row % 3] += 5.0
            present_NK[row, row % 3] = True
    values_FD = torch.from_numpy(values_NTD.reshape(-1, DIM)).half()
    frames = Frames(values_FD, torch.arange(0, CLIPS * FRAMES + 1, FRAMES))
    return frames, TagTargets(present_NK, np.ones_like(present_NK))


def test_frames_of_clips_know_their_rows() -> None:
    frames = Frames(torch.arange(6.0)[:, None].half(), torch.tensor([0, 2, 3, 6]))
    values_GD, row_G = frames.of(torch.tensor([2, 0]))
    assert values_GD[:, 0].tolist() == [3.0, 4.0, 5.0, 0.0, 1.0]
    assert row_G.tolist() == [0, 0, 0, 1, 1]


def test_rows_are_pooled_as_the_tagger_pools_them() -> None:
    torch.manual_seed(0)
    scores_GK = torch.randn(5, 3)
    pooled_BK = pooled_rows(scores_GK, torch.tensor([0, 0, 0, 1, 1]), 2)
    for row, part in enumerate((scores_GK[:3], scores_GK[3:])):
        torch.testing.assert_close(pooled_BK[row], log_mean_exp(part[None], torch.ones(1, len(part)).bool())[0])


def test_tags_without_a_class_have_a_low_score() -> None:
    vocabulary = Vocabulary(
        (
            Tag("animal", "sound", (), "Animal"),
            Tag("hyena calling", "sound", (), "Animal"),
            Tag("thing", "sound"),
            Tag("other", "sound", (), "Unknown class"),
        )
    )
    weight_CD = torch.tensor([[1.0, 2.0]])
    found = stock_scores(vocabulary, ["Animal"], weight_CD, torch.tensor([0.5]), dim=3)
    assert found.weight_KD.tolist() == [[1.0, 2.0, 0.0]] * 2 + [[0.0] * 3] * 2
    assert found.bias_K.tolist() == [0.5, 0.5, NO_CLASS, NO_CLASS]


def test_what_clips_show_is_learned(stock: Scores, problem: tuple[Frames, TagTargets]) -> None:
    frames, targets = problem
    everything = np.arange(CLIPS)
    fitted = fit_scores(frames, stock, targets, VOCABULARY, everything, OPTIONS)
    best_N = fitted.of_clips(frames, everything)[:, :2].argmax(1).numpy()
    labelled = targets.present_NK.any(1)
    assert (best_N == targets.present_NK[:, :2].argmax(1))[labelled].all()
    confused_N = stock.of_clips(frames, everything)[:, :2].argmax(1).numpy()
    assert (confused_N != best_N)[labelled].all()


def test_a_strong_penalty_keeps_tags_near_the_stock_tagger(stock: Scores, problem: tuple[Frames, TagTargets]) -> None:
    frames, targets = problem

    def distance(penalty: float) -> float:
        options = FitOptions({"sound": penalty})
        fitted = fit_scores(frames, stock, targets, VOCABULARY, np.arange(CLIPS), options)
        scale = fitted.weight_KD[2, 2]  # wind, which no clip has, shows the weight of the stock tagger
        return float((fitted.weight_KD[:2] - scale * stock.weight_KD[:2]).norm())

    assert distance(1e4) < 1e-2 < distance(1.0) < distance(0.001)


def test_a_group_that_no_clip_has_keeps_the_stock_scores(stock: Scores, problem: tuple[Frames, TagTargets]) -> None:
    frames, targets = problem
    fitted = fit_tagger(frames, stock, targets, VOCABULARY, np.arange(CLIPS) % 3, OPTIONS)
    for scores in (fitted.scores, *fitted.folds):
        torch.testing.assert_close(scores.weight_KD[3:], stock.weight_KD[3:])
        torch.testing.assert_close(scores.bias_K[3:], stock.bias_K[3:])
    assert fitted.scale_K[3:].tolist() == [1.0, 1.0]
    assert fitted.shift_K[3:].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("clips", [[], [0]], ids=["no clip", "one clip of one frame"])
def test_few_clips_give_finite_scores(clips: list[int], stock: Scores) -> None:
    frames = Frames(torch.ones(1, DIM).half(), torch.tensor([0, 1]))
    present_NK = np.zeros((1, len(VOCABULARY)), dtype=np.bool_)
    present_NK[0, 0] = True
    targets = TagTargets(present_NK, np.ones_like(present_NK))
    fitted = fit_scores(frames, stock, targets, VOCABULARY, np.array(clips, dtype=np.int64), OPTIONS)
    assert torch.isfinite(fitted.weight_KD).all()
    assert torch.isfinite(fitted.bias_K).all()


def test_groups_read_only_the_features_that_they_are_given(stock: Scores, problem: tuple[Frames, TagTargets]) -> None:
    frames, targets = problem
    options = replace(OPTIONS, columns={"sound": (1, 3)})
    fitted = fit_scores(frames, stock, targets, VOCABULARY, np.arange(CLIPS), options)
    own_KD = fitted.weight_KD - fitted.weight_KD[2, 2] * stock.weight_KD
    assert own_KD[:2, 1:3].abs().min() > 0
    assert own_KD[:2, [0, 3, 4, 5]].abs().max() < 1e-6


def test_what_is_not_known_teaches_nothing(stock: Scores, problem: tuple[Frames, TagTargets]) -> None:
    """Dogs bark in rain here: where it is not known that it rains, rain is scored as where it does."""
    frames, targets = problem
    dogs, rain = (np.flatnonzero(targets.present_NK[:, tag]) for tag in (0, 1))
    values_FD = frames.values_FD.clone()
    values_FD[dogs * FRAMES, 1] += 5.0
    frames = replace(frames, values_FD=values_FD)
    known_NK = targets.known_NK.copy()
    known_NK[dogs, 1] = False

    def difference(known_NK: NDArray[np.bool_]) -> float:
        found = TagTargets(targets.present_NK, known_NK)
        fitted = fit_scores(frames, stock, found, VOCABULARY, np.arange(CLIPS), OPTIONS)
        return float(fitted.of_clips(frames, rain)[:, 1].mean() - fitted.of_clips(frames, dogs)[:, 1].mean())

    assert difference(known_NK) < difference(targets.known_NK) - 0.5


def test_a_clip_is_scored_by_a_tagger_that_did_not_see_it(stock: Scores, problem: tuple[Frames, TagTargets]) -> None:
    """With labels by chance a tagger knows the clips that it was fitted on, and no others."""
    frames, _ = problem
    noise = Frames(torch.randn(CLIPS * FRAMES, DIM, generator=torch.Generator().manual_seed(1)), frames.starts_N)
    present_NK = np.zeros((CLIPS, len(VOCABULARY)), dtype=np.bool_)
    present_NK[np.arange(CLIPS), np.random.default_rng(1).integers(0, 2, CLIPS)] = True
    targets = TagTargets(present_NK, np.ones_like(present_NK))
    fold_N = np.arange(CLIPS) % 3
    options = FitOptions({"sound": 1e-5}, folds=3)
    fitted = fit_tagger(noise, stock, targets, VOCABULARY, fold_N, options)

    def right(scores_NK: NDArray[np.float32]) -> float:
        return float((scores_NK[:, :2].argmax(1) == present_NK[:, :2].argmax(1)).mean())

    inside = fitted.scores.of_clips(noise, np.arange(CLIPS)).numpy()
    outside = np.stack([fitted.folds[fold_N[n]].of_clips(noise, np.array([n]))[0].numpy() for n in range(CLIPS)])
    assert right(inside) > 0.7
    assert right(outside) < right(inside) - 0.1


def test_a_fold_without_clips_has_the_scores_of_all(stock: Scores, problem: tuple[Frames, TagTargets]) -> None:
    frames, targets = problem
    fitted = fit_tagger(frames, stock, targets, VOCABULARY, np.arange(CLIPS) % 2, OPTIONS)
    assert len(fitted.folds) == 3
    torch.testing.assert_close(fitted.folds[2].weight_KD, fitted.scores.weight_KD)


def test_calibrated_probabilities_are_as_often_right_as_they_say() -> None:
    rng = np.random.default_rng(0)
    log_odds_N = rng.normal(-1.0, 2.0, 4000)
    present_N = rng.random(4000) < 1 / (1 + np.exp(-log_odds_N))
    pooled_NK = torch.from_numpy((log_odds_N / 3 + 2).astype(np.float32))[:, None].expand(-1, len(VOCABULARY))
    present_NK = np.repeat(present_N[:, None], len(VOCABULARY), 1)
    present_NK[:, 1:] &= rng.random((4000, 4)) < 0.01  # of few clips: these share what they have
    scale_K, shift_K = calibrate(pooled_NK, TagTargets(present_NK, np.ones_like(present_NK)), VOCABULARY)
    assert scale_K[0].item() == pytest.approx(3.0, rel=0.1)
    assert shift_K[0].item() == pytest.approx(-6.0, rel=0.1)
    assert len({*scale_K[1:3].tolist()}) == len({*scale_K[3:].tolist()}) == 1
    assert scale_K[1] != scale_K[0]


@pytest.mark.parametrize("group", ["a", "", "München"])
def test_clips_of_a_group_are_in_one_fold_whatever_manifest_they_are_in(group: str) -> None:
    alone = Clip(id="x", audio="x.wav", split="train", group=group)
    in_mixture = alone.model_copy(update={"corpus": "field", "group": f"field/{group}" if group else ""})
    assert folds_of([group_of(alone)], 5) == folds_of([group_of(in_mixture)], 5)
    assert group_of(alone) == (group or "x")


def test_folds_are_the_same_every_time() -> None:
    assert folds_of(["a", "b", "c", "d"], 5).tolist() == folds_of(["a", "b", "c", "d"], 5).tolist()
    assert set(folds_of([str(number) for number in range(200)], 5).tolist()) == set(range(5))


def test_nothing_was_fitted_in_place(stock: Scores, problem: tuple[Frames, TagTargets]) -> None:
    frames, targets = problem
    before = stock.weight_KD.clone()
    fitted: FittedTagger = fit_tagger(frames, stock, targets, VOCABULARY, np.arange(CLIPS) % 3, OPTIONS)
    assert torch.equal(stock.weight_KD, before)
    assert not fitted.scores.weight_KD.requires_grad
