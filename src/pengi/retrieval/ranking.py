"""Several rankings made one, by reciprocal rank fusion (Cormack, Clarke and Büttcher 2009).

BM25 scores and cosines of different vectors have nothing in common that could be added up, but their orders have:

    score(d) = sum over rankings r of  weight_r / (K + rank_r(d))        ranks from 1, rankings without d left out

divided by the most that can be had, so that 1 means first in every ranking.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import TypeVar

K = 10
"""Small against the paper's 60: being first in one ranking counts for more, which found more here (docs/search.md)."""

Key = TypeVar("Key", bound=Hashable)


def fused(rankings: Sequence[Sequence[Key]], weights: Sequence[float] | None = None, k: int = K) -> dict[Key, float]:
    """Scores in (0, 1] of everything that is in any ranking, the best first.

    Args:
        rankings: each the best first and without repetitions; an empty one still counts as one in which nothing is.
        weights: one for each ranking; all 1 if not given.
        k: the constant above.

    Returns:
        key -> score; equal scores stay in the order in which the rankings name them.
    """
    shares = [1.0] * len(rankings) if weights is None else weights
    scores: dict[Key, float] = defaultdict(float)
    for ranking, weight in zip(rankings, shares, strict=True):
        for rank, key in enumerate(ranking, start=1):
            scores[key] += weight / (k + rank)
    most = sum(shares) / (k + 1)
    return {key: score / most for key, score in sorted(scores.items(), key=lambda item: -item[1])}
