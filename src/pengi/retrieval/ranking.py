"""Reciprocal rank fusion of several rankings (Cormack, Clarke and Büttcher 2009).

BM25 scores and cosines of different vectors cannot be added, so their ranks are used:

    score(d) = sum over rankings r of  weight_r / (K + rank_r(d))        ranks from 1, rankings without d left out

divided by the largest possible sum, so that 1 means first in every ranking.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import TypeVar

K = 10
"""60 in the paper. With 10 a first rank counts more, which found more recordings here (docs/search.md)."""

Key = TypeVar("Key", bound=Hashable)


def reciprocal_rank_fusion(rankings: Sequence[Sequence[Key]], weights: Sequence[float]) -> dict[Key, float]:
    """Scores in (0, 1] of everything that is in any ranking, the best first.

    Args:
        rankings: each with the best first and without repetitions; empty ones also count in the largest possible sum.
        weights: one for each ranking.

    Returns:
        key -> score; keys with equal scores are in the order of the rankings.
    """
    scores: dict[Key, float] = defaultdict(float)
    for ranking, weight in zip(rankings, weights, strict=True):
        for rank, key in enumerate(ranking, start=1):
            scores[key] += weight / (K + rank)
    largest = sum(weights) / (K + 1)
    return {key: score / largest for key, score in sorted(scores.items(), key=lambda item: -item[1])}
