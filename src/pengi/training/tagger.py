"""Fits the tagger: a head on the mean of a recording's tokens, out-of-fold scores, and calibration.

Every group of tags has a separate head. It is fitted without the stock tagger, by the cross-entropy of a softmax over
the group's tags and "none of them". The stock tagger's scores are added afterwards with a weight for each group. A head
that is fitted together with the stock scores learns to compensate them, and generalises worse to recordings of other
sources. A tag that no clip has gets the average score of the group's trained tags.

A clip's out-of-fold scores come from a tagger that was fitted without clips of its group (recording, speaker, track).
The language model is trained with them, so that it sees the same mistakes as in inference. Calibration is fitted on
them.

Shape suffixes: N clips, F frames of all clips, D features, I features of the first encoder, K tags of the vocabulary,
J trained tags of one group.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pengi.conditioning.pooling import log_mean_exp, masked_mean
from pengi.conditioning.tagger import KindsOfClasses, class_shares, frame_scores
from pengi.conditioning.vocabulary import Vocabulary
from pengi.data.tagging import FOLDS, TagTargets
from pengi.encoders.base import Masked

log = logging.getLogger(__name__)

MIN_DEVIATION = 1e-3  # of a feature; limits the scaling of features that hardly vary
NO_CLASS = -6.0  # the stock logit of a tag without an AudioSet class: the usual logit of an absent class
MAX_CLIPS = 400  # maximum number of clips with the same single tag of a group
MAX_NONE_CLIPS = 1500  # maximum number of clips with no tag of a group
BATCH_CLIPS = 256  # clips that are scored at once
UNKNOWN = -1e4  # score of a tag in clips for which it is unknown


@dataclass(frozen=True)
class FitOptions:
    """How scores are fitted.

    Attributes:
        penalty: group -> weight of ``|w|^2``, which is added to the mean loss of a clip.
        stock: group -> weight of the stock tagger's scores; 1 if it is not named.
        columns: group -> (start, end) of the features that it reads; all if it is not named.
        iterations: of L-BFGS.
        folds: of the out-of-fold scores.
        seed: for the choice among clips with none of a group's tags.
    """

    penalty: Mapping[str, float] = field(default_factory=dict)
    stock: Mapping[str, float] = field(default_factory=dict)
    columns: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    iterations: int = 60
    folds: int = FOLDS
    seed: int = 0


DEFAULT_PENALTY = 0.01


@dataclass(frozen=True)
class Frames:
    """Frames of N clips, one clip after the other.

    Attributes:
        values_FD: tokens of all encoders side by side.
        starts_N: index of each clip's first frame, and F as the last value: ``int64[N + 1]``.
    """

    values_FD: Tensor
    starts_N: Tensor

    def batch(self, clips_B: Tensor) -> Masked:
        """Frames ``float32[B, T, D]`` of some clips, padded, and the mask of real ones."""
        counts_B = self.starts_N[clips_B + 1] - self.starts_N[clips_B]
        index_BT = self.starts_N[clips_B][:, None] + torch.arange(int(counts_B.max()))
        mask_BT = index_BT < self.starts_N[clips_B + 1][:, None]
        return self.values_FD[index_BT.clamp(max=len(self.values_FD) - 1)].float() * mask_BT[..., None], mask_BT

    def means(self, clips: NDArray[np.int64]) -> Tensor:
        """Mean frame of each of some clips, ``float32[B, D]``."""
        return torch.cat(
            [masked_mean(*self.batch(part_B)) for part_B in torch.split(torch.from_numpy(clips), BATCH_CLIPS)]
        )


@dataclass(frozen=True)
class Scores:
    """The weights that :func:`pengi.conditioning.tagger.frame_scores` scores frames with.

    Attributes:
        head_KD: weights of the averaged frames.
        bias_K: bias of the scores.
        stock_KI: weights of the first encoder's tokens.
    """

    head_KD: Tensor
    bias_K: Tensor
    stock_KI: Tensor

    def of_clips(self, frames: Frames, clips: NDArray[np.int64]) -> Tensor:
        """Scores of clips, pooled over time: ``float32[B, K]``."""
        rows = []
        for part_B in torch.split(torch.from_numpy(clips), BATCH_CLIPS):
            frames_BTD, mask_BT = frames.batch(part_B)
            scores_BTK = frame_scores(frames_BTD, mask_BT, self.head_KD, self.bias_K, self.stock_KI)
            rows.append(log_mean_exp(scores_BTK, mask_BT))
        return torch.cat(rows)


def stock_scores(vocabulary: Vocabulary, classes: Sequence[str], weight_CI: Tensor, bias_C: Tensor, dim: int) -> Scores:
    """The stock tagger's scores of a vocabulary.

    Args:
        vocabulary: K tags.
        classes: display names of the stock tagger's C classes.
        weight_CI: weights of its head, which reads the tokens of the first encoder.
        bias_C: bias of its head.
        dim: number of features of a frame, of all encoders.
    """
    stock_KI = torch.zeros(len(vocabulary), weight_CI.shape[1])
    bias_K = torch.full((len(vocabulary),), NO_CLASS)
    index = {name: number for number, name in enumerate(classes)}
    for row, tag in enumerate(vocabulary.tags):
        if tag.audioset in index:
            stock_KI[row] = weight_CI[index[tag.audioset]]
            bias_K[row] = bias_C[index[tag.audioset]]
    return Scores(torch.zeros(len(vocabulary), dim), bias_K, stock_KI)


def fit_scores(
    frames: Frames,
    stock: Scores,
    targets: TagTargets,
    vocabulary: Vocabulary,
    clips: NDArray[np.int64],
    options: FitOptions,
) -> Scores:
    """Fit the scores of every group on some clips. Scores are relative to the score of the group's "none of them"."""
    head_KD, bias_K, stock_KI = stock.head_KD.clone(), stock.bias_K.clone(), stock.stock_KI.clone()
    groups_K = np.array([tag.group for tag in vocabulary.tags])
    for group in vocabulary.groups:
        tags = np.flatnonzero(groups_K == group)
        used, trained = _clips_of_group(targets, tags, clips, options)
        if not len(trained):
            log.info("%s: %d tags, none of them in any clip", group, len(tags))
            continue
        columns = slice(*options.columns.get(group, (0, frames.values_FD.shape[1])))
        examples = _examples_of(frames.means(used)[:, columns], targets, tags[trained], used)
        found, loss = _minimised(examples, options.penalty.get(group, DEFAULT_PENALTY), options.iterations)
        head_JC = found.weight_JC / examples.deviation_C
        bias_J = found.bias_J - head_JC @ examples.mean_C - found.none
        # On standardised features, an average score is the bias.
        weight, absent = options.stock.get(group, 1.0), (found.bias_J - found.none).mean()
        stock_KI[tags] *= weight
        bias_K[tags] = weight * stock.bias_K[tags] + absent
        head_KD[tags[trained], columns] = head_JC
        bias_K[tags[trained]] += bias_J - absent
        log.info("%s: %d tags, %d trained on %d clips, loss %.3f", group, len(tags), len(trained), len(used), loss)
    return Scores(head_KD, bias_K, stock_KI)


@dataclass(frozen=True)
class _Examples:
    """The clips that one group is fitted on: N of them, with C features and J trained tags.

    Attributes:
        x_NC: standardised features.
        unknown_NJ: True where it is not known whether a tag is there.
        target_NL: shares of the tags and of "none of them".
        weight_N: of each clip in the loss.
        mean_C: mean of the features before standardisation.
        deviation_C: standard deviation of the features before standardisation.
    """

    x_NC: Tensor
    unknown_NJ: Tensor
    target_NL: Tensor
    weight_N: Tensor
    mean_C: Tensor
    deviation_C: Tensor


def _examples_of(x_NC: Tensor, targets: TagTargets, tags: NDArray[np.int64], clips: NDArray[np.int64]) -> _Examples:
    mean_C = x_NC.mean(0)
    # A single clip has no deviation.
    deviation_C = (x_NC.std(0) if len(x_NC) > 1 else torch.ones_like(mean_C)).clamp(min=MIN_DEVIATION)
    target_NL, weight_N = _softmax_targets(torch.from_numpy(targets.present_NK[np.ix_(clips, tags)]))
    weight_N = weight_N * torch.from_numpy(targets.weights()[clips])
    weight_N = weight_N / weight_N.mean()
    unknown_NJ = ~torch.from_numpy(targets.known_NK[np.ix_(clips, tags)])
    return _Examples((x_NC - mean_C) / deviation_C, unknown_NJ, target_NL, weight_N, mean_C, deviation_C)


@dataclass(frozen=True)
class _Parameters:
    """The fitted parameters of one group: those of the tags' scores, and the constant score of "none of them"."""

    weight_JC: Tensor
    bias_J: Tensor
    none: Tensor

    def loss(self, examples: _Examples, penalty: float) -> Tensor:
        """Mean cross-entropy of the clips, and the penalty."""
        scores_NJ = functional.linear(examples.x_NC, self.weight_JC, self.bias_J)
        clips = len(examples.weight_N)
        all_NL = torch.cat([scores_NJ.masked_fill(examples.unknown_NJ, UNKNOWN), self.none.expand(clips, 1)], 1)
        entropy = -(examples.target_NL * all_NL.log_softmax(1)).sum(1) @ examples.weight_N / clips
        return entropy + penalty * self.weight_JC.square().sum()


def _minimised(examples: _Examples, penalty: float, iterations: int) -> tuple[_Parameters, float]:
    """The parameters with the lowest loss, and that loss."""
    tags, features = examples.unknown_NJ.shape[1], examples.x_NC.shape[1]
    values = [torch.zeros(tags, features), torch.zeros(tags), torch.zeros(())]
    found = _Parameters(*values)
    optimiser = torch.optim.LBFGS(
        [value.requires_grad_() for value in values], max_iter=iterations, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = found.loss(examples, penalty)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    found = _Parameters(*(value.detach() for value in values))
    return found, float(found.loss(examples, penalty))


def _clips_of_group(
    targets: TagTargets, tags: NDArray[np.int64], clips: NDArray[np.int64], options: FitOptions
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The clips to fit a group on, and which of its tags any of them has."""
    present_NK = targets.present_NK[np.ix_(clips, tags)]
    known_N = targets.known_NK[np.ix_(clips, tags)].mean(1) > 0.5
    order = np.random.default_rng(options.seed).permutation(len(clips))
    count_N = present_NK.sum(1)
    chosen = [order[count_N[order] > 1], order[(count_N[order] == 0) & known_N[order]][:MAX_NONE_CLIPS]]
    only = order[count_N[order] == 1]
    for tag in range(len(tags)):
        chosen.append(only[present_NK[only, tag]][:MAX_CLIPS])
    return np.sort(clips[np.concatenate(chosen)]), np.flatnonzero(present_NK.any(0))


def _softmax_targets(present_NJ: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of a clip's tags and of "none", ``float32[N, J + 1]``, and the weight of each clip.

    The total weight of a tag is the square root of its number of clips, so rare tags are overweighted.
    """
    none_N1 = ~present_NJ.any(1, keepdim=True)
    target_NL = torch.cat([present_NJ, none_N1], 1).float()
    target_NL = target_NL / target_NL.sum(1, keepdim=True)
    counts_L = target_NL.sum(0).clamp(min=0.5)
    weight_N = (target_NL / counts_L.sqrt()).sum(1)
    return target_NL, weight_N


@dataclass(frozen=True)
class FittedTagger:
    """A tagger's scores, and those of every fold.

    Attributes:
        scores: fitted on all training clips.
        folds: scores for each fold, fitted on the clips outside it.
        scale_K: calibration: log-odds are ``scale * score + shift``.
        shift_K: calibration.
    """

    scores: Scores
    folds: tuple[Scores, ...]
    scale_K: Tensor
    shift_K: Tensor


def fit_tagger(
    frames: Frames,
    stock: Scores,
    targets: TagTargets,
    vocabulary: Vocabulary,
    fold_N: NDArray[np.int64],
    options: FitOptions,
) -> FittedTagger:
    """Fit scores on all clips and without each fold, and calibrate them out of fold.

    Args:
        frames: of N training clips.
        stock: the stock tagger's scores.
        targets: of the clips.
        vocabulary: K tags.
        fold_N: fold of each clip.
        options: how to fit.
    """
    everything = np.arange(len(fold_N))
    whole = fit_scores(frames, stock, targets, vocabulary, everything, options)
    folds = []
    for fold in range(options.folds):
        outside = everything[fold_N != fold]
        if len(outside) == len(everything):
            folds.append(whole)
            continue
        log.info("calibration: fold %d of %d, fitted on the others", fold + 1, options.folds)
        folds.append(fit_scores(frames, stock, targets, vocabulary, outside, options))
    scale_K, shift_K = calibrate(out_of_fold_scores(frames, folds, fold_N), targets, vocabulary)
    return FittedTagger(whole, tuple(folds), scale_K, shift_K)


def out_of_fold_scores(frames: Frames, folds: Sequence[Scores], fold_N: NDArray[np.int64]) -> Tensor:
    """Scores ``float32[N, K]`` of training clips, each by the scores of its fold, which were fitted without it."""
    found_NK = torch.empty(len(fold_N), len(folds[0].bias_K))
    for fold, scores in enumerate(folds):
        inside = np.flatnonzero(fold_N == fold)
        if len(inside):
            found_NK[torch.from_numpy(inside)] = scores.of_clips(frames, inside)
    return found_NK


def calibrate(pooled_NK: Tensor, targets: TagTargets, vocabulary: Vocabulary) -> tuple[Tensor, Tensor]:
    """Scale and shift of each tag's score, ``float32[K]`` each, by Platt scaling.

    They minimise the cross-entropy of the probabilities of :meth:`Tagger.probability` over known targets. All tags of a
    group share them, so calibration does not change their order.
    """
    scale_K, shift_K = torch.ones(len(vocabulary)), torch.zeros(len(vocabulary))
    groups_K = np.array([tag.group for tag in vocabulary.tags])
    there_K = (targets.present_NK & targets.known_NK).any(0)
    shares_NK = class_shares(pooled_NK, KindsOfClasses.of(vocabulary))
    for group in vocabulary.groups:
        tags = np.flatnonzero((groups_K == group) & there_K)
        if len(tags):
            known_NJ, present_NJ = (
                torch.from_numpy(values[:, tags]) for values in (targets.known_NK, targets.present_NK)
            )
            weight_NJ = torch.from_numpy(targets.weights())[:, None].expand(known_NJ.shape)
            scores_M, shares_M = pooled_NK[:, tags][known_NJ], shares_NK[:, tags][known_NJ]
            found = _platt(scores_M, shares_M, present_NJ[known_NJ].float(), weight_NJ[known_NJ])
            scale_K[groups_K == group], shift_K[groups_K == group] = found
    return scale_K, shift_K


def _platt(scores_M: Tensor, shares_M: Tensor, present_M: Tensor, weight_M: Tensor) -> tuple[float, float]:
    """Positive scale, and shift. A tag's probability is ``shares_M`` times the sigmoid of the scaled score."""
    both = torch.zeros(2, requires_grad=True)
    optimiser = torch.optim.LBFGS([both], max_iter=50, line_search_fn="strong_wolfe")
    share_M, others_M = shares_M.clamp(min=1e-6).log(), (1.0 - shares_M).clamp(min=1e-12).log()

    def closure() -> Tensor:
        optimiser.zero_grad()
        odds_M = both[0].exp() * scores_M + both[1]
        there_M = share_M + functional.logsigmoid(odds_M)
        # If the tag is absent, there is another tag of its class, or none.
        absent_M = torch.logaddexp(others_M, share_M + functional.logsigmoid(-odds_M))
        loss = -(weight_M * torch.where(present_M > 0, there_M, absent_M)).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return float(both[0].detach().exp()), float(both[1].detach())
