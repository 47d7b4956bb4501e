from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pengi.evaluation.metrics import Outcome, accuracy, mean_recall, per_class, wilson_interval

OUTCOMES = [
    Outcome(("dog",), "dog"),
    Outcome(("dog",), "rain"),
    Outcome(("rain",), "rain"),
    Outcome(("rain", "wind"), "wind"),
    Outcome(("rain",), None),  # a clip that could not be used
]


def test_accuracy_counts_any_of_a_clips_answers() -> None:
    assert accuracy(OUTCOMES) == pytest.approx(3 / 5)


def test_per_class_counts_a_clip_under_each_of_its_answers() -> None:
    scores = per_class(OUTCOMES, ["dog", "rain", "siren", "wind"])
    assert {label: (score.n, score.correct) for label, score in scores.items()} == {
        "dog": (2, 1),
        "rain": (3, 2),
        "wind": (1, 1),
    }
    assert scores["rain"].accuracy == pytest.approx(2 / 3)
    assert mean_recall(list(scores.values())) == pytest.approx((1 / 2 + 2 / 3 + 1) / 3)


def test_wilson_interval_by_hand() -> None:
    # 8 of 10: centre (0.8 + 1.92073) / 1.384146 * ..., worked out in full with z = 1.959964.
    assert wilson_interval(8, 10) == pytest.approx((0.490162, 0.943318), abs=1e-6)


def test_wilson_interval_at_the_ends() -> None:
    low, high = wilson_interval(0, 20)
    assert low == 0.0
    assert high == pytest.approx(0.161125, abs=1e-6)
    assert wilson_interval(20, 20) == pytest.approx((1 - high, 1.0))


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_share_and_narrows_with_n(counts: tuple[int, int]) -> None:
    correct, n = counts
    low, high = wilson_interval(correct, n)
    assert 0 <= low <= correct / n + 1e-12
    assert correct / n - 1e-12 <= high <= 1
    wide, narrow = high - low, wilson_interval(4 * correct, 4 * n)
    assert narrow[1] - narrow[0] < wide
