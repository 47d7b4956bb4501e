"""Fitting the tagger: heads beside the stock tagger, out of fold, calibrated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pengi.conditioning.pooling import log_mean_exp
from pengi.conditioning.tagger import Tagger
from pengi.conditioning.vocabulary import Tag, Vocabulary
from pengi.data.manifest import Clip
from pengi.data.tagging import TagTargets, folds_of, group_of
from pengi.training.tagger import (
    NO_CLASS,
    FitOptions,
    FittedTagger,
    Frames,
    Scores,
    calibrate,
    fit_scores,
    fit_tagger,
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
EVERY_CLIP = np.arange(CLIPS)
Problem = tuple[Frames, TagTargets]
OPTIONS = FitOptions({"sound": 0.001}, folds=3)


@pytest.fixture
def stock() -> Scores:
    """Reads one feature for each tag, but confuses rain with dogs."""
    stock_KI = torch.eye(len(VOCABULARY))[[1, 0, 2, 3, 4]]
    return Scores(torch.zeros(len(VOCABULARY), DIM), torch.full((len(VOCABULARY),), -3.0), stock_KI)


@pytest.fixture
def problem() -> Problem:
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


def fitted_on_all(stock: Scores, problem: Problem, options: FitOptions = OPTIONS) -> Scores:
    """Scores that are fitted on all clips of a problem."""
    frames, targets = problem
    return fit_scores(frames, stock, targets, VOCABULARY, EVERY_CLIP, options)


def test_frames_of_clips_are_padded() -> None:
    frames = Frames(torch.arange(6.0)[:, None].half(), torch.tensor([0, 2, 3, 6]))
    values_BTD, mask_BT = frames.batch(torch.tensor([2, 0]))
    assert values_BTD[..., 0].tolist() == [[3.0, 4.0, 5.0], [0.0, 1.0, 0.0]]
    assert mask_BT.tolist() == [[True, True, True], [True, True, False]]
    assert frames.means(np.array([2, 1, 0])).tolist() == [[4.0], [2.0], [0.5]]


def test_clips_are_scored_as_the_tagger_scores_them(stock: Scores, problem: Problem) -> None:
    frames, _ = problem
    fitted = fitted_on_all(stock, problem)
    tagger = Tagger(VOCABULARY, [len(VOCABULARY), 1])
    tagger.head.weight.copy_(fitted.head_KD)
    tagger.head.bias.copy_(fitted.bias_K)
    tagger.stock.weight.copy_(fitted.stock_KI)
    values_BTD, mask_BT = frames.batch(torch.arange(3))
    scores_BTK, _ = tagger([(values_BTD[..., :5], mask_BT), (values_BTD[..., 5:], mask_BT)])
    pooled_BK = log_mean_exp(scores_BTK, mask_BT)
    # Tokens of the second encoder are spread anew over the frames.
    torch.testing.assert_close(pooled_BK, fitted.of_clips(frames, np.arange(3)), atol=0.05, rtol=0.0)


def test_tags_without_a_class_have_a_low_score() -> None:
    vocabulary = Vocabulary(
        (
            Tag("animal", "sound", (), "Animal"),
            Tag("hyena calling", "sound", (), "Animal"),
            Tag("thing", "sound"),
            Tag("other", "sound", (), "Unknown class"),
        )
    )
    weight_CI = torch.tensor([[1.0, 2.0]])
    found = stock_scores(vocabulary, ["Animal"], weight_CI, torch.tensor([0.5]), dim=3)
    assert found.stock_KI.tolist() == [[1.0, 2.0]] * 2 + [[0.0] * 2] * 2
    assert found.head_KD.tolist() == [[0.0] * 3] * 4
    assert found.bias_K.tolist() == [0.5, 0.5, NO_CLASS, NO_CLASS]


def test_tags_of_the_clips_are_learned(stock: Scores, problem: Problem) -> None:
    frames, targets = problem
    fitted = fitted_on_all(stock, problem)
    best_N = fitted.of_clips(frames, EVERY_CLIP)[:, :2].argmax(1).numpy()
    labelled = targets.present_NK.any(1)
    assert (best_N == targets.present_NK[:, :2].argmax(1))[labelled].all()
    confused_N = stock.of_clips(frames, EVERY_CLIP)[:, :2].argmax(1).numpy()
    assert (confused_N != best_N)[labelled].all()


def test_a_strong_penalty_leaves_little_but_the_stock_tagger(stock: Scores, problem: Problem) -> None:
    def strength(penalty: float) -> float:
        options = FitOptions({"sound": penalty})
        return float(fitted_on_all(stock, problem, options).head_KD.norm())

    assert strength(1e4) < 1e-2 < strength(1.0) < strength(0.001)


def test_stock_scores_are_added_with_the_weight_of_their_group(stock: Scores, problem: Problem) -> None:
    options = replace(OPTIONS, stock={"sound": 0.5})
    one = fitted_on_all(stock, problem)
    half = fitted_on_all(stock, problem, options)
    torch.testing.assert_close(half.stock_KI[:3], one.stock_KI[:3] / 2)
    torch.testing.assert_close(half.head_KD, one.head_KD)
    torch.testing.assert_close((one.bias_K - half.bias_K)[:3], stock.bias_K[:3] / 2)


def test_a_tag_that_no_clip_has_is_scored_as_an_absent_one(stock: Scores, problem: Problem) -> None:
    """No clip has wind: its score is the average of the scores of dogs and rain."""
    frames, targets = problem
    options = replace(OPTIONS, stock={"sound": 0.0})
    fitted = fitted_on_all(stock, problem, options)
    used = np.flatnonzero(targets.present_NK.any(1))
    scores_NK = frames.means(EVERY_CLIP) @ fitted.head_KD.T + fitted.bias_K
    assert float(scores_NK[:, 2].std()) < 1e-5
    assert float(scores_NK[:, 2].mean()) == pytest.approx(float(scores_NK[:, :2].mean()), abs=0.05)
    assert (scores_NK[used, 2] < scores_NK[used][:, :2].amax(1)).all()


def test_a_group_that_no_clip_has_keeps_the_stock_scores(stock: Scores, problem: Problem) -> None:
    frames, targets = problem
    fitted = fit_tagger(frames, stock, targets, VOCABULARY, EVERY_CLIP % 3, OPTIONS)
    for scores in (fitted.scores, *fitted.folds):
        torch.testing.assert_close(scores.head_KD[3:], stock.head_KD[3:])
        torch.testing.assert_close(scores.stock_KI[3:], stock.stock_KI[3:])
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
    assert torch.isfinite(fitted.head_KD).all()
    assert torch.isfinite(fitted.bias_K).all()


def test_groups_read_only_the_features_that_they_are_given(stock: Scores, problem: Problem) -> None:
    options = replace(OPTIONS, columns={"sound": (1, 3)})
    fitted = fitted_on_all(stock, problem, options)
    assert fitted.head_KD[:2, 1:3].abs().min() > 0
    assert not fitted.head_KD[:2, [0, 3, 4, 5]].any()


def test_unknown_targets_do_not_count(stock: Scores, problem: Problem) -> None:
    """Clips of dogs sound like rain too; if rain is unknown there, they do not count as clips without rain."""
    frames, targets = problem
    dogs, rain = (np.flatnonzero(targets.present_NK[:, tag]) for tag in (0, 1))
    values_FD = frames.values_FD.clone()
    values_FD[dogs * FRAMES, 1] += 5.0
    frames = replace(frames, values_FD=values_FD)
    known_NK = targets.known_NK.copy()
    known_NK[dogs, 1] = False

    def difference(known_NK: NDArray[np.bool_]) -> float:
        fitted = fitted_on_all(stock, (frames, TagTargets(targets.present_NK, known_NK)))
        return float(fitted.of_clips(frames, rain)[:, 1].mean() - fitted.of_clips(frames, dogs)[:, 1].mean())

    assert difference(known_NK) < difference(targets.known_NK) - 0.5


def test_a_clip_is_scored_by_a_tagger_that_did_not_see_it(stock: Scores, problem: Problem) -> None:
    """With random labels, a tagger is right about the clips that it was fitted on only."""
    frames, _ = problem
    noise = Frames(torch.randn(CLIPS * FRAMES, 40, generator=torch.Generator().manual_seed(1)), frames.starts_N)
    stock = replace(stock, head_KD=torch.zeros(len(VOCABULARY), 40), stock_KI=torch.zeros_like(stock.stock_KI))
    present_NK = np.zeros((CLIPS, len(VOCABULARY)), dtype=np.bool_)
    present_NK[EVERY_CLIP, np.random.default_rng(1).integers(0, 2, CLIPS)] = True
    targets = TagTargets(present_NK, np.ones_like(present_NK))
    fold_N = EVERY_CLIP % 3
    options = FitOptions({"sound": 1e-5}, folds=3)
    fitted = fit_tagger(noise, stock, targets, VOCABULARY, fold_N, options)

    def right(scores_NK: NDArray[np.float32]) -> float:
        return float((scores_NK[:, :2].argmax(1) == present_NK[:, :2].argmax(1)).mean())

    inside = fitted.scores.of_clips(noise, EVERY_CLIP).numpy()
    outside = np.stack([fitted.folds[fold_N[n]].of_clips(noise, np.array([n]))[0].numpy() for n in range(CLIPS)])
    assert right(inside) > 0.7
    assert right(outside) < right(inside) - 0.1


def test_a_fold_without_clips_has_the_scores_of_all(stock: Scores, problem: Problem) -> None:
    frames, targets = problem
    fitted = fit_tagger(frames, stock, targets, VOCABULARY, EVERY_CLIP % 2, OPTIONS)
    assert len(fitted.folds) == 3
    torch.testing.assert_close(fitted.folds[2].head_KD, fitted.scores.head_KD)


def test_calibrated_probabilities_are_as_often_right_as_they_say() -> None:
    rng = np.random.default_rng(0)
    log_odds_N = rng.normal(-1.0, 2.0, 4000)
    present_N = rng.random(4000) < 1 / (1 + np.exp(-log_odds_N))
    pooled_NK = torch.from_numpy((log_odds_N / 3 + 2).astype(np.float32))[:, None].expand(-1, len(VOCABULARY))
    present_NK = np.repeat(present_N[:, None], len(VOCABULARY), 1)
    present_NK[:, 3:] &= rng.random((4000, 2)) < 0.01
    scale_K, shift_K = calibrate(pooled_NK, TagTargets(present_NK, np.ones_like(present_NK)), VOCABULARY)
    assert scale_K[:3].tolist() == pytest.approx([3.0] * 3, rel=0.1)
    assert shift_K[:3].tolist() == pytest.approx([-6.0] * 3, rel=0.1)
    assert scale_K[3] == scale_K[4] != scale_K[0]


def test_probabilities_of_tags_that_share_a_class_are_calibrated_as_they_are_used() -> None:
    """Three animals sound alike, and half of the time one of them is there: each has a sixth of the probability."""
    names = ("camel", "hyena", "zebra")
    vocabulary = Vocabulary(tuple(Tag(name, "sound", (), "Animal") for name in names))
    rng = np.random.default_rng(0)
    pooled_NK = torch.from_numpy(rng.normal(0.0, 0.1, (3000, 1)).astype(np.float32)).expand(-1, 3)
    present_NK = np.zeros((3000, 3), dtype=np.bool_)
    present_NK[np.arange(1500), rng.integers(0, 3, 1500)] = True
    tagger = Tagger(vocabulary, [1])
    scale_K, shift_K = calibrate(pooled_NK, TagTargets(present_NK, np.ones_like(present_NK)), vocabulary)
    tagger.scale_K.copy_(scale_K)
    tagger.shift_K.copy_(shift_K)
    assert tagger.probability(pooled_NK).mean(0).tolist() == pytest.approx([1 / 6] * 3, abs=0.01)


def test_scales_are_positive_even_where_scores_mislead() -> None:
    present_NK = np.zeros((40, len(VOCABULARY)), dtype=np.bool_)
    present_NK[:20] = True
    pooled_NK = torch.linspace(-1.0, 1.0, 40)[:, None].expand(-1, len(VOCABULARY))
    scale_K, _ = calibrate(pooled_NK, TagTargets(present_NK, np.ones_like(present_NK)), VOCABULARY)
    assert (scale_K > 0).all()


def test_clips_with_a_larger_weight_decide(stock: Scores, problem: Problem) -> None:
    """The same clips twice with contrary labels: those with the larger weight win."""
    frames, targets = problem
    twice = Frames(frames.values_FD.repeat(2, 1), torch.arange(0, 2 * CLIPS * FRAMES + 1, FRAMES))
    present_NK = np.concatenate([targets.present_NK, targets.present_NK[:, [1, 0, 2, 3, 4]]])
    weight_N = np.repeat(np.array([1.0, 0.1], dtype=np.float32), CLIPS)
    weighted = TagTargets(present_NK, np.ones_like(present_NK), weight_N)
    fitted = fit_scores(
        twice, stock, weighted, VOCABULARY, np.arange(2 * CLIPS), replace(OPTIONS, stock={"sound": 0.0})
    )
    labelled = np.flatnonzero(targets.present_NK.any(1))
    best_N = fitted.of_clips(twice, labelled)[:, :2].argmax(1).numpy()
    assert (best_N == targets.present_NK[labelled, :2].argmax(1)).all()


@pytest.mark.parametrize("group", ["a", "", "München"])
def test_clips_of_a_group_are_in_one_fold_whatever_manifest_they_are_in(group: str) -> None:
    alone = Clip(id="x", audio="x.wav", split="train", group=group)
    grouped = {"group": f"field/{group}"} if group else {}
    in_mixture = alone.model_copy(update={"id": "field/x", "corpus": "field", **grouped})
    assert folds_of([group_of(alone)], 5) == folds_of([group_of(in_mixture)], 5)
    assert group_of(alone) == (group or "x")


def test_folds_are_the_same_every_time() -> None:
    assert folds_of(["a", "b", "c", "d"], 5).tolist() == folds_of(["a", "b", "c", "d"], 5).tolist()
    assert set(folds_of([str(number) for number in range(200)], 5).tolist()) == set(range(5))


def test_fitting_does_not_change_the_stock_scores(stock: Scores, problem: Problem) -> None:
    frames, targets = problem
    before = stock.stock_KI.clone()
    fitted: FittedTagger = fit_tagger(frames, stock, targets, VOCABULARY, EVERY_CLIP % 3, OPTIONS)
    assert torch.equal(stock.stock_KI, before)
    assert not fitted.scores.head_KD.requires_grad
