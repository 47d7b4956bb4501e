"""Accuracy over clips, overall and per class, with a confidence interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""


@dataclass(frozen=True)
class Outcome:
    """One clip: every answer that counts as right, and the label that was chosen (None if the clip gave none)."""

    answers: tuple[str, ...]
    prediction: str | None

    @property
    def correct(self) -> bool:
        return self.prediction in self.answers


@dataclass(frozen=True)
class ClassScore:
    """The clips that have a label among their answers, and on how many of them the prediction was right."""

    n: int
    correct: int

    @property
    def accuracy(self) -> float:
        """Recall of the class."""
        return self.correct / self.n


def accuracy(outcomes: Sequence[Outcome]) -> float:
    """Share of clips whose prediction is one of their answers."""
    return sum(outcome.correct for outcome in outcomes) / len(outcomes)


def per_class(outcomes: Sequence[Outcome], labels: Sequence[str]) -> dict[str, ClassScore]:
    """Scores of the labels that any clip has, in the order of ``labels``.

    A clip with several answers counts under each of them, and as right under each if its prediction is any of them, as
    it does in :func:`accuracy`.
    """
    scores = {}
    for label in labels:
        having = [outcome for outcome in outcomes if label in outcome.answers]
        if having:
            scores[label] = ClassScore(len(having), sum(outcome.correct for outcome in having))
    return scores


def mean_recall(scores: Sequence[ClassScore]) -> float:
    """Mean over classes of their recall (balanced accuracy): frequent classes weigh no more than rare ones."""
    return sum(score.accuracy for score in scores) / len(scores)


def wilson_interval(correct: int, n: int, z: float = Z_95) -> tuple[float, float]:
    """Confidence interval of a proportion (Wilson, 1927); unlike resampling it does not collapse at 0 and 1."""
    share = correct / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)
