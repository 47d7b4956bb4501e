from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pengi.evaluation.statistics import bootstrap, mcnemar, mean_of, paired_bootstrap, wilson_interval

ALONE = [str(number) for number in range(100)]
HALF = [1.0, 0.0] * 50


def test_interval_of_a_share_is_that_of_the_binomial() -> None:
    """For independent items the bootstrap of a share is near p +- 1.96 sqrt(p (1 - p) / n)."""
    found = bootstrap(mean_of(HALF), ALONE)
    assert found.value == 0.5
    assert (found.low, found.high) == pytest.approx((0.402, 0.598), abs=0.02)


def test_the_same_seed_gives_the_same_interval() -> None:
    assert bootstrap(mean_of(HALF), ALONE) == bootstrap(mean_of(HALF), ALONE)


def test_groups_are_drawn_whole() -> None:
    """Ten recordings of ten clips each, all right or all wrong, have a wider interval than a hundred recordings."""
    values = np.repeat([1.0, 0.0] * 5, 10)
    together = bootstrap(mean_of(values), [str(number // 10) for number in range(100)])
    alone = bootstrap(mean_of(values), ALONE)
    assert together.high - together.low > 2.5 * (alone.high - alone.low)


def test_one_group_has_no_width() -> None:
    found = bootstrap(mean_of([1.0, 0.0]), ["a", "a"])
    assert found.low == found.high == found.value == 0.5


def test_a_run_does_not_differ_from_itself() -> None:
    found = paired_bootstrap(mean_of(HALF), mean_of(HALF), ALONE)
    assert (found.value, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_pairing_finds_a_small_steady_gain() -> None:
    better = [1.0] * 10 + HALF[10:]  # five more right, none lost
    found = paired_bootstrap(mean_of(HALF), mean_of(better), ALONE)
    assert found.value == pytest.approx(0.05)
    assert found.low > 0
    assert found.p < 0.05


def test_mcnemar_by_hand() -> None:
    """One lost and nine gained: 2 * (C(10, 0) + C(10, 1)) / 2 ** 10."""
    first = [True] + [False] * 9 + [True] * 5
    second = [False] + [True] * 9 + [True] * 5
    assert mcnemar(first, second) == pytest.approx(2 * 11 / 1024)
    assert mcnemar(first, first) == 1.0


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
