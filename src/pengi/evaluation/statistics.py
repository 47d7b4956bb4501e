"""Bootstrap confidence intervals, and the significance of a difference between two runs.

Items of one recording, speaker or track are not independent, so whole groups are resampled, not items.

Shape suffixes: N items, G groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
SEED = 0
Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""

Indices = NDArray[np.intp]
Metric = Callable[[Indices], float]
"""Computes a metric over the items with these indices; an index may occur several times."""


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, Any]:
        """The value and its interval as they are in ``results.json``."""
        return {"value": self.value, "ci95": [self.low, self.high]}


@dataclass(frozen=True)
class Difference(Interval):
    """The difference between two runs over the same items, second minus first.

    Attributes:
        p: two-sided p-value: twice the share of resamples in which the difference has the other sign.
    """

    p: float


def bootstrap(metric: Metric, groups: Sequence[str], resamples: int = RESAMPLES) -> Interval:
    """Value of a metric over all items, and its percentile bootstrap over groups (Efron 1979), the same every time."""
    values_R = _resampled(metric, groups, resamples)
    low, high = np.nanpercentile(values_R, [2.5, 97.5])
    return Interval(metric(np.arange(len(groups))), float(low), float(high))


def share_right(credit: Sequence[float] | NDArray[Any], groups: Sequence[str]) -> Interval:
    """The mean of the answers' scores, 0 to 1, with its interval by :func:`bootstrap`.

    If all answers are right, or all are wrong, the bootstrap interval would have no width, so it is Wilson's over
    groups.
    """
    found = bootstrap(mean_of(credit), groups)
    if found.value not in (0.0, 1.0):
        return found
    independent = len(set(groups))
    return Interval(found.value, *wilson_interval(round(found.value) * independent, independent))


def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """95 % confidence interval of a proportion (Wilson, 1927); unlike resampling it does not collapse at 0 and 1."""
    share, z = correct / n, Z_95
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def paired_bootstrap(first: Metric, second: Metric, groups: Sequence[str], resamples: int = RESAMPLES) -> Difference:
    """The difference between two runs, with the same resamples for both."""
    differences_R = _resampled(lambda indices: second(indices) - first(indices), groups, resamples)
    low, high = np.nanpercentile(differences_R, [2.5, 97.5])
    side = min((differences_R <= 0).sum(), (differences_R >= 0).sum())
    everyone = np.arange(len(groups))
    p = min(1.0, 2 * (int(side) + 1) / (resamples + 1))  # never 0, which no number of resamples can show
    return Difference(second(everyone) - first(everyone), float(low), float(high), p)


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """The p-value of the exact McNemar test (1947) on the right and wrong answers of two runs."""
    from scipy.stats import binomtest

    gained = sum(now and not before for before, now in zip(first, second, strict=True))
    lost = sum(before and not now for before, now in zip(first, second, strict=True))
    return 1.0 if gained + lost == 0 else float(binomtest(gained, gained + lost).pvalue)


def mean_of(values: Sequence[float] | NDArray[Any]) -> Metric:
    """A metric that is the mean of the items' values."""
    values_N = np.asarray(values, dtype=np.float64)
    return lambda indices: float(values_N[indices].mean())


def _resampled(metric: Metric, groups: Sequence[str], resamples: int) -> NDArray[np.float64]:
    _, group_N = np.unique(np.asarray(groups), return_inverse=True)
    order_N = np.argsort(group_N, kind="stable")
    members = np.split(order_N, np.cumsum(np.bincount(group_N))[:-1])
    rng = np.random.default_rng(SEED)
    drawn = (rng.integers(0, len(members), len(members)) for _ in range(resamples))
    return np.array([metric(np.concatenate([members[group] for group in groups_G])) for groups_G in drawn])
