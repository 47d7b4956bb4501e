"""The tagger: detects which tags are in a recording, and when.

A frame is one token of the first encoder (YAMNet: every 0.48 s), concatenated with the mean of the other encoders'
tokens at that time. The score of tag k in frame t is the sum of two linear scores,

    z_k(t) = head_k . mean(x around t) + stock_k . y(t) + b_k

of the tokens ``x`` of all encoders, averaged over :data:`CONTEXT_FRAMES` frames, and of the first encoder's token
``y``. ``head`` is fitted on labelled recordings; ``stock`` comes from the stock tagger. Pooling over time is close to
the maximum, so a short sound in a long recording still scores high. A scale and a shift for each tag turn scores into
calibrated log-odds.

How the scores are fitted is in :mod:`pengi.training.tagger`.

Shape suffixes: B recordings, T frames, K tags, D features of a frame, I features of one encoder,
U tokens of another encoder, M tags of AudioSet classes with kinds, J such classes, R rare tags or runs of frames,
x any leading dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pengi.conditioning.pooling import log_mean_exp
from pengi.conditioning.vocabulary import Vocabulary
from pengi.encoders.base import Masked

CONTEXT_FRAMES = 3
"""Number of frames in the mean around each frame. Scores are fitted on the mean of a whole recording's tokens, but with
more frames recordings of one sound were not tagged better, and fewer sounds in mixtures were detected."""


RARE_SHARE = 0.096
"""Share of a rare tag in the probability of its AudioSet class, estimated on training clips out of fold: the number of
clips with a rare tag, divided by the sum of the tag's probabilities without this factor."""


class Tagger(nn.Module):
    """Linear scores of tags.

    Args:
        vocabulary: K tags.
        dims: number of features of one token, for each encoder; the first encoder gives the frames.
    """

    scale_K: Tensor
    shift_K: Tensor

    def __init__(self, vocabulary: Vocabulary, dims: Sequence[int]) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.head = nn.Linear(sum(dims), len(vocabulary))
        self.stock = nn.Linear(dims[0], len(vocabulary), bias=False)
        self.register_buffer("scale_K", torch.ones(len(vocabulary)))
        self.register_buffer("shift_K", torch.zeros(len(vocabulary)))
        self.kinds = KindsOfClasses.of(vocabulary)
        self.requires_grad_(False)

    def forward(self, tokens: Sequence[Masked]) -> Masked:
        """Scores of every frame, ``float32[B, T, K]``, and the mask of real frames.

        Args:
            tokens: of each encoder, in the order of ``dims``.
        """
        frames_BTD, mask_BT = frames(tokens)
        return frame_scores(frames_BTD, mask_BT, self.head.weight, self.head.bias, self.stock.weight), mask_BT

    def log_odds(self, scores_xK: Tensor) -> Tensor:
        """Calibrated log-odds ``float32[..., K]`` of scores ``float32[..., K]``, of frames or of recordings."""
        return scores_xK * self.scale_K + self.shift_K

    def probability(self, scores_xK: Tensor) -> Tensor:
        """Probability ``float32[..., K]`` of each tag, from scores ``float32[..., K]`` of frames or of recordings.

        Tags that are kinds of one AudioSet class share its probability with one another and with kinds that are no
        tags: an animal sound is not a camel, a hyena and a dolphin at once, and mostly none of them. Rare kinds have a
        small, constant share, so that they are not detected by mistake.
        """
        return self.log_odds(scores_xK).sigmoid() * class_shares(scores_xK, self.kinds)

    def probabilities(self, scores_BTK: Tensor, mask_BT: Tensor) -> Tensor:
        """Probability that each tag is in the recording, ``float32[B, K]``, from the scores ``float32[B, T, K]`` of its
        frames."""
        return self.probability(log_mean_exp(scores_BTK, mask_BT))


def class_shares(scores_xK: Tensor, kinds: KindsOfClasses) -> Tensor:
    """Share ``float32[..., K]`` of each tag in the probability of its AudioSet class, 1 for tags that are not kinds of
    a class.

    The share is a softmax over the scores of the class's kinds and of the class itself, which represents all its other
    kinds. A rare kind has the share :data:`RARE_SHARE`.
    """
    shares_xK = torch.ones_like(scores_xK)
    shares_xK[..., kinds.rare_R.to(scores_xK.device)] = RARE_SHARE
    index_M, class_M = kinds.index_M.to(scores_xK.device), kinds.class_M.to(scores_xK.device)
    if not len(index_M):
        return shares_xK
    scores_xM = scores_xK[..., index_M]
    shape = (*scores_xM.shape[:-1], int(class_M.max()) + 1)
    # Each class has its own maximum: relative to that of another class, all its exponentials could be zero.
    highest_xJ = scores_xM.new_full(shape, -torch.inf).scatter_reduce(
        -1, class_M.expand_as(scores_xM), scores_xM, "amax"
    )
    above_xM = scores_xM - highest_xJ[..., class_M]
    totals_xJ = scores_xM.new_zeros(shape).index_add(-1, class_M, above_xM.exp())
    shares_xM = above_xM.exp() / totals_xJ[..., class_M]
    is_kind_M = kinds.is_kind_M.to(scores_xK.device)
    return shares_xK.index_copy(-1, index_M[is_kind_M], shares_xM[..., is_kind_M])


@dataclass(frozen=True)
class KindsOfClasses:
    """The AudioSet classes of which a vocabulary has kinds: "raccoon chattering" of "Wild animals".

    Attributes:
        index_M: ``int64[M]``: tags that are kinds of a class, and tags that mean a class with kinds; no rare tags.
        class_M: ``int64[M]``: number of the class.
        is_kind_M: ``bool[M]``: whether the tag is a kind of the class.
        rare_R: ``int64[R]``: rare tags.
    """

    index_M: Tensor
    class_M: Tensor
    is_kind_M: Tensor
    rare_R: Tensor

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> Self:
        """The classes of a vocabulary. If several tags mean a class, the first one represents it."""
        kinds: dict[str, list[int]] = {}
        means: dict[str, int] = {}
        for index, tag in enumerate(vocabulary.tags):
            if tag.audioset is not None and tag.is_class:
                means.setdefault(tag.audioset, index)
            elif tag.audioset is not None and not tag.is_rare:
                kinds.setdefault(tag.audioset, []).append(index)
        rows = [
            (index, number, is_kind)
            for number, (name, of_class) in enumerate(kinds.items())
            for is_kind, indices in ((True, of_class), (False, [means[name]] if name in means else []))
            for index in indices
        ]
        return cls(
            torch.tensor([index for index, _, _ in rows], dtype=torch.int64),
            torch.tensor([number for _, number, _ in rows], dtype=torch.int64),
            torch.tensor([is_kind for _, _, is_kind in rows], dtype=torch.bool),
            torch.tensor([index for index, tag in enumerate(vocabulary.tags) if tag.is_rare], dtype=torch.int64),
        )


def frame_scores(frames_BTD: Tensor, mask_BT: Tensor, head_KD: Tensor, bias_K: Tensor, stock_KI: Tensor) -> Tensor:
    """Scores of every frame, ``float32[B, T, K]``: ``head_KD`` weights the mean of the frames around it,
    ``stock_KI`` the first encoder's token of the frame alone."""
    stock_BTI = frames_BTD[..., : stock_KI.shape[1]]
    head_BTK = running_mean(functional.linear(frames_BTD, head_KD, bias_K), mask_BT, CONTEXT_FRAMES)
    return head_BTK + functional.linear(stock_BTI, stock_KI)


def running_mean(values_BTK: Tensor, mask_BT: Tensor, width: int) -> Tensor:
    """Means over up to ``width`` (odd) real frames, centred on each; zeros where a frame is not real."""
    mask_BT1 = mask_BT[..., None].to(values_BTK.dtype)
    both_BTL = torch.cat([values_BTK * mask_BT1, mask_BT1], 2).mT
    summed_BTL = functional.avg_pool1d(both_BTL, width, stride=1, padding=width // 2).mT
    return summed_BTL[..., :-1] / summed_BTL[..., -1:].clamp(min=1e-6) * mask_BT1


def frames(tokens: Sequence[Masked]) -> Masked:
    """Tokens of all encoders side by side, ``float32[B, T, D]``, one row for each token of the first encoder.

    Every encoder's tokens are spread evenly over the recording. A frame has the mean of the tokens that overlap it.
    """
    (first_BTI, mask_BT), *others = tokens
    parts = [first_BTI.float()]
    for other_BTI, other_BT in others:
        parts.append(_aligned(other_BTI.float(), other_BT, mask_BT))
    return torch.cat(parts, 2) * mask_BT[..., None], mask_BT


def _aligned(tokens_BUI: Tensor, tokens_BU: Tensor, frames_BT: Tensor) -> Tensor:
    """Means of the tokens in each frame, ``float32[B, T, I]``; neighbouring frames overlap by half."""
    rows = []
    for row_UI, row_U, row_T in zip(tokens_BUI, tokens_BU, frames_BT, strict=True):
        count = int(row_T.sum())
        known_UI = row_UI[row_U]
        if not count or not len(known_UI):
            rows.append(row_UI.new_zeros(len(row_T), row_UI.shape[1]))
            continue
        # A frame is the mean of two halves and shares one with each neighbour, as YAMNet's patches overlap by half.
        halves_HI = functional.adaptive_avg_pool1d(known_UI.T[None], count + 1)[0].T
        both_TI = (halves_HI[:-1] + halves_HI[1:]) / 2
        rows.append(functional.pad(both_TI, (0, 0, 0, len(row_T) - count)))
    return torch.stack(rows)


def runs_above(probability_TK: Tensor, threshold_K: Tensor) -> NDArray[np.int64]:
    """Runs of frames in which a tag's probability is at least its threshold, ``int64[R, 3]``: index of the tag, first
    and last frame.

    They come tag by tag, each in order of time. A single frame below the threshold does not end a run: frames overlap
    by half, so that it does not show a gap.
    """
    above_KT = (probability_TK >= threshold_K).numpy().T
    if above_KT.shape[1] > 2:
        above_KT[:, 1:-1] |= above_KT[:, :-2] & above_KT[:, 2:]
    padded_KT = np.pad(above_KT, ((0, 0), (1, 1)))
    index_R, first_R = np.nonzero(above_KT & ~padded_KT[:, :-2])
    _, last_R = np.nonzero(above_KT & ~padded_KT[:, 2:])
    return np.stack([index_R, first_R, last_R], 1)


def seconds_of(runs_R3: NDArray[np.int64], frames: int, frame_s: float, duration_s: float) -> NDArray[np.float64]:
    """Start and end of runs of frames in seconds, ``float64[R, 2]``.

    A frame stands for ``frame_s`` seconds around its middle. The first one also covers the time before, and the last
    one the time after. A run of frames behind the end has no length.

    Args:
        runs_R3: see :func:`runs_above`.
        frames: number of frames.
        frame_s: time from one frame to the next, in seconds.
        duration_s: length of the audio that the frames cover, in seconds.
    """
    _, first_R, last_R = runs_R3.T
    starts_R = np.where(first_R == 0, 0.0, (first_R + 0.5) * frame_s)
    ends_R = np.where(last_R == frames - 1, duration_s, (last_R + 1.5) * frame_s)
    seconds_R2: NDArray[np.float64] = np.stack([starts_R, ends_R], 1).clip(max=duration_s)
    return seconds_R2
