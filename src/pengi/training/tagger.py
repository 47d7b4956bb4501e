"""Fits the tagger: linear scores shrunk towards the stock tagger's, out-of-fold scores, calibration.

The score of tag k in frame t is

    z_k(t) = a * stock_k(t) + w_k . x(t) + b_k

with the stock tagger's class logit ``stock_k`` (0 of tags without an AudioSet class), standardised tokens ``x`` and
fitted ``a``, ``w``, ``b``. Scores are pooled over time (:func:`pengi.conditioning.pooling.log_mean_exp`) and fitted by binary
cross-entropy over all tags that are known of a clip, plus ``penalty * |w|^2``. The sum over clips stands against one
penalty for each tag: the fewer clips a tag has, the nearer it stays to the stock tagger.

A clip's out-of-fold scores come from a tagger that saw no clip of its group (recording, speaker, track). The language
model is trained behind these, so that it meets the mistakes that it will meet in use, and calibration is fitted on
them.

Shape suffixes: N clips, F frames of all clips, D features, K tags.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

log = logging.getLogger(__name__)

MIN_DEVIATION = 1e-3  # of a feature; one that hardly changes is not blown up


@dataclass(frozen=True)
class FitOptions:
    """How scores are fitted."""

    penalty: float = 1e-4
    """Of the squared weights of one tag, relative to the mean loss of a clip."""
    passes: int = 20
    batch_clips: int = 256
    learning_rate: float = 0.003
    folds: int = 5
    seed: int = 0


@dataclass(frozen=True)
class Frames:
    """Frames of N clips, one clip behind the other.

    Attributes:
        values_FD: tokens of all encoders side by side.
        starts_N: index of each clip's first frame, and in the end F: ``int64[N + 1]``.
    """

    values_FD: Tensor
    starts_N: Tensor

    def of(self, clips_B: Tensor) -> tuple[Tensor, Tensor]:
        """Frames ``[G, D]`` of some clips and the row ``int64[G]`` of ``clips_B`` that each belongs to."""
        counts_B = self.starts_N[clips_B + 1] - self.starts_N[clips_B]
        row_G = torch.repeat_interleave(torch.arange(len(clips_B)), counts_B)
        first_B = counts_B.cumsum(0) - counts_B
        index_G = torch.arange(len(row_G)) - first_B[row_G] + self.starts_N[clips_B][row_G]
        return self.values_FD[index_G].float(), row_G


@dataclass(frozen=True)
class Scores:
    """A fitted linear map from frames (not standardised) to scores."""

    weight_KD: Tensor
    bias_K: Tensor

    def of(self, frames_FD: Tensor) -> Tensor:
        """``float32[F, K]``."""
        return functional.linear(frames_FD.float(), self.weight_KD, self.bias_K)


def pooled_rows(scores_GK: Tensor, row_G: Tensor, rows: int) -> Tensor:
    """Scores pooled over the frames of each clip, ``float32[B, K]``; as :func:`pengi.conditioning.pooling.log_mean_exp`."""
    index_GK = row_G[:, None].expand_as(scores_GK)
    high_BK = scores_GK.new_full((rows, scores_GK.shape[1]), -torch.inf).scatter_reduce(
        0, index_GK, scores_GK.detach(), "amax"
    )
    sums_BK = torch.zeros_like(high_BK).index_add(0, row_G, (scores_GK - high_BK[row_G]).exp())
    counts_B = torch.bincount(row_G, minlength=rows)
    return high_BK + sums_BK.log() - counts_B[:, None].log()


def fit_scores(
    frames: Frames,
    stock_DK: tuple[Tensor, Tensor],
    present_NK: NDArray[np.bool_],
    known_NK: NDArray[np.bool_],
    clips: NDArray[np.int64],
    options: FitOptions = FitOptions(),
) -> Scores:
    """Fit scores on some of the clips.

    Args:
        frames: of all N clips.
        stock_DK: weight ``[K, D]`` and bias ``[K]`` of the stock tagger on frames, zero for tags without a class.
        present_NK: whether each tag is in each clip.
        known_NK: whether that is known.
        clips: indices of the clips to fit on.
        options: how to fit.
    """
    trained_K = torch.from_numpy((present_NK & known_NK)[clips].any(0))
    stock_weight_KD, stock_bias_K = stock_DK
    chosen = torch.from_numpy(np.asarray(clips))
    sample_FD, _ = frames.of(chosen)
    mean_D, deviation_D = sample_FD.mean(0), sample_FD.std(0).clamp(min=MIN_DEVIATION)
    del sample_FD
    own = int(trained_K.sum())
    generator = torch.Generator().manual_seed(options.seed)
    scale = torch.ones((), requires_grad=True)
    weight_JD = torch.zeros(own, len(mean_D), requires_grad=True)
    share_J = torch.from_numpy(((present_NK & known_NK)[clips].sum(0) + 0.5) / (known_NK[clips].sum(0) + 1.0)).float()[
        trained_K
    ]
    has_class_J = stock_weight_KD[trained_K].abs().sum(1) > 0
    bias_J = torch.where(has_class_J, 0.0, share_J.logit()).requires_grad_()
    optimiser = torch.optim.Adam([scale, weight_JD, bias_J], lr=options.learning_rate)
    present, known = torch.from_numpy(present_NK), torch.from_numpy(known_NK)
    steps = options.passes * -(-len(chosen) // options.batch_clips)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, options.learning_rate, total_steps=steps, pct_start=0.1)
    stock_JD, stock_J = stock_weight_KD[trained_K], stock_bias_K[trained_K]
    for _ in range(options.passes):
        for batch_B in chosen[torch.randperm(len(chosen), generator=generator)].split(options.batch_clips):
            values_GD, row_G = frames.of(batch_B)
            scores_GJ = scale * functional.linear(values_GD, stock_JD, stock_J)
            scores_GJ = scores_GJ + functional.linear((values_GD - mean_D) / deviation_D, weight_JD, bias_J)
            pooled_BJ = pooled_rows(scores_GJ, row_G, len(batch_B))
            losses_BJ = functional.binary_cross_entropy_with_logits(
                pooled_BJ, present[batch_B][:, trained_K].float(), reduction="none"
            )
            loss = (losses_BJ * known[batch_B][:, trained_K]).sum(1).mean()
            loss = loss + options.penalty * weight_JD.square().sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    with torch.no_grad():
        weight_KD, bias_K = scale * stock_weight_KD, scale * stock_bias_K
        raw_JD = weight_JD / deviation_D
        weight_KD[trained_K] += raw_JD
        bias_K[trained_K] += bias_J - raw_JD @ mean_D
    log.info("stock scale %.2f, loss %.4f", float(scale), float(loss))
    return Scores(weight_KD.detach(), bias_K.detach())


def fold_of(group: str, folds: int) -> int:
    """The fold that holds all clips of a group; the same every time."""
    return zlib.crc32(group.encode()) % folds


def folds_of(groups: Sequence[str], folds: int) -> NDArray[np.int64]:
    """The fold of each clip, ``int64[N]``."""
    return np.array([fold_of(group, folds) for group in groups], dtype=np.int64)
