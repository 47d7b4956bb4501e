"""Collects the tags of a recording from the tagger's scores, window by window, in bounded memory.

Shape suffixes: T frames, K tags.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pengi.conditioning.evidence import DetectedTag, separate_spans
from pengi.conditioning.tagger import Tagger, runs_above, seconds_of

MIN_KEPT = 0.002
"""Tags whose probability stays below this in every window of a recording are not kept as evidence."""
LASTING_SHARE = 0.1
"""An event of a tag lasts while its probability is at least this share of the threshold that it reaches. Without it,
sounds begin late and fall into pieces (`benchmarks/timeline.py`)."""
SHARE_OF_HIGHEST = 0.5
"""A tag is detected in the frames of a window in which its probability is at least this share of its highest one."""


def detected_tags(scores_TK: Tensor, tagger: Tagger, frame_s: float, duration_s: float) -> tuple[DetectedTag, ...]:
    """The tags of a recording that fits into one window, and their times; the most probable tag first.

    Args:
        scores_TK: the tagger's scores of every frame of the recording, ``float32[T, K]``.
        tagger: has the tags and the calibration of their scores.
        frame_s: time from one frame to the next, in seconds.
        duration_s: length of the recording, in seconds.
    """
    collector = TagCollector(tagger, frame_s)
    collector.add(scores_TK, 0.0, duration_s)
    return collector.tags()


@dataclass(frozen=True)
class TagEvent:
    """A stretch in which a tag is detected, in seconds, and the tag's highest probability in it."""

    index: int
    start_s: float
    end_s: float
    probability: float


def frame_events(probability_TK: Tensor, threshold_K: Tensor, frame_s: float, duration_s: float) -> Iterator[TagEvent]:
    """Runs of frames in which a tag's probability reaches its threshold and stays above :data:`LASTING_SHARE` of it
    (hysteresis), tag by tag, each in order of time.

    Args:
        probability_TK: calibrated probabilities of every frame of one window.
        threshold_K: lowest probability of the most probable frame in an event of the tag.
        frame_s: time from one frame to the next, in seconds.
        duration_s: length of the window, in seconds.
    """
    reaches_K = probability_TK.amax(0) >= threshold_K
    runs_R3 = runs_above(probability_TK, torch.where(reaches_K, LASTING_SHARE * threshold_K, torch.inf))
    seconds_R2 = seconds_of(runs_R3, len(probability_TK), frame_s, duration_s)
    for (index, first, last), (start_s, end_s) in zip(runs_R3.tolist(), seconds_R2.tolist(), strict=True):
        probability = float(probability_TK[first : last + 1, index].max())
        if probability >= threshold_K[index] and end_s > start_s:
            yield TagEvent(index, round(start_s, 2), round(end_s, 2), probability)


class TagCollector:
    """Collects the tags of one recording of any length.

    A tag's probability is that of its most probable window; tags below :data:`MIN_KEPT` in every window are left out.
    Times come from the windows in which the tag has at least half of that probability. Improbable tags also have times,
    because a question may name them. Spans with a very short pause between them are merged.

    Args:
        tagger: has the tags and the calibration of their scores.
        frame_s: time from one frame to the next, in seconds.
    """

    def __init__(self, tagger: Tagger, frame_s: float) -> None:
        self._tagger, self._frame_s = tagger, frame_s
        self.probability_K = torch.zeros(len(tagger.vocabulary))
        """Highest probability of every tag in any window so far, ``float32[K]``, on the CPU."""
        self._pooled_K = torch.full((len(tagger.vocabulary),), -math.inf)
        self._frames = 0
        # Of each tag: probability in the window, start and end in seconds.
        self._spans: dict[int, list[tuple[float, float, float]]] = defaultdict(list)

    def add(self, scores_TK: Tensor, start_s: float, duration_s: float) -> None:
        """Collect the next window of a recording.

        Args:
            scores_TK: the tagger's scores of every frame, ``float32[T, K]``.
            start_s: where the window begins in the recording, in seconds.
            duration_s: length of the window, in seconds.
        """
        mask_1T = torch.ones(1, len(scores_TK), dtype=torch.bool, device=scores_TK.device)
        probability_K: Tensor = self._tagger.probabilities(scores_TK[None], mask_1T)[0].float().cpu()
        self.probability_K = torch.maximum(self.probability_K, probability_K)
        self._pooled_K = torch.logaddexp(self._pooled_K, scores_TK.float().logsumexp(0).cpu())
        self._frames += len(scores_TK)
        frame_TK = self._tagger.probability(scores_TK).float().cpu()
        threshold_K = SHARE_OF_HIGHEST * frame_TK.amax(0)
        # Probabilities only rise, so what is left out now would be left out in the end.
        threshold_K[probability_K < (SHARE_OF_HIGHEST * self.probability_K).clamp(min=MIN_KEPT)] = math.inf
        runs_R3 = runs_above(frame_TK, threshold_K)
        seconds_R2 = start_s + seconds_of(runs_R3, len(frame_TK), self._frame_s, duration_s)
        probabilities = probability_K.tolist()
        for index, (first_s, last_s) in zip(runs_R3[:, 0].tolist(), seconds_R2.tolist(), strict=True):
            if last_s > first_s:
                self._spans[index].append((probabilities[index], round(first_s, 2), round(last_s, 2)))

    def log_odds_K(self) -> Tensor:
        """Calibrated log-odds of every tag in the recording so far, pooled over all frames: ``float32[K]``."""
        pooled_K = self._pooled_K - math.log(self._frames) if self._frames else torch.zeros_like(self._pooled_K)
        return self._tagger.log_odds(pooled_K.to(self._tagger.scale_K.device)).float().cpu()

    def tags(self) -> tuple[DetectedTag, ...]:
        """The tags so far, the most probable first."""
        kept = (self.probability_K >= MIN_KEPT).nonzero().flatten().tolist()
        kept.sort(key=lambda index: -float(self.probability_K[index]))
        return tuple(self.tag(index) for index in kept)

    def tag(self, index: int) -> DetectedTag:
        """The probability and the times of one tag so far, even if :meth:`tags` leaves it out."""
        tag, probability = self._tagger.vocabulary.tags[index], float(self.probability_K[index])
        lowest = SHARE_OF_HIGHEST * probability
        spans = [(start_s, end_s) for found, start_s, end_s in self._spans[index] if found >= lowest]
        return DetectedTag(tag.text, tag.group, probability, tuple(separate_spans(spans)))
