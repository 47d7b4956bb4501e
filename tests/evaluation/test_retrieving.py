from __future__ import annotations

import numpy as np
import pytest

from pengi.evaluation.retrieving import average_precision_at, best_ranks, recall_at, retrieval_ranks

# Three recordings along the axes; two captions of the first, one each of the others.
TEXTS = np.eye(3, dtype=np.float32)
CAPTIONS = np.array(
    [[0.9, 0.3, 0.1], [0.2, 0.8, 0.1], [0.1, 0.7, 0.6], [0.5, 0.4, 0.3]],
    dtype=np.float32,
)
OWNER = [0, 0, 1, 2]


def test_ranks_by_hand() -> None:
    t2a, a2t = retrieval_ranks(TEXTS, CAPTIONS, OWNER)
    # Caption 0 is nearest to its recording; 1 has one in front of it; 2 is nearest; 3 has both others in front.
    assert t2a.tolist() == [1, 2, 1, 3]
    # First column 0.9 0.2 0.1 0.5: own captions first and third. Second: own 0.7 behind 0.8. Third: own 0.3 behind 0.6.
    assert [ranks.tolist() for ranks in a2t] == [[1, 3], [2], [2]]


def test_metrics_by_hand() -> None:
    t2a, a2t = retrieval_ranks(TEXTS, CAPTIONS, OWNER)
    assert recall_at(t2a, 1).mean() == pytest.approx(2 / 4)
    assert recall_at(t2a, 2).mean() == pytest.approx(3 / 4)
    assert average_precision_at(t2a).mean() == pytest.approx((1 + 1 / 2 + 1 + 1 / 3) / 4)
    assert recall_at(a2t, 1).mean() == pytest.approx(1 / 3)
    assert average_precision_at(a2t).mean() == pytest.approx(((1 + 2 / 3) / 2 + 1 / 2 + 1 / 2) / 3)
    assert np.median(best_ranks(t2a)) == 1.5


def test_results_after_the_cut_do_not_count() -> None:
    assert average_precision_at([np.array([11])]).tolist() == [0.0]
    assert average_precision_at([np.array([1, 11])]).tolist() == [0.5]


def test_recordings_with_equal_texts_rank_before_the_right_one() -> None:
    same = np.ones((4, 1), dtype=np.float32)
    t2a, _ = retrieval_ranks(same, same, [0, 1, 2, 3])
    assert t2a.tolist() == [4, 4, 4, 4]
