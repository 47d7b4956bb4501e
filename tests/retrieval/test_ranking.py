"""Reciprocal rank fusion, by hand."""

from __future__ import annotations

import pytest

from pengi.retrieval.ranking import reciprocal_rank_fusion


def test_three_rankings_by_hand() -> None:
    words, meaning, sound = ["a", "b", "c"], ["b", "d"], ["b", "a"]
    scores = reciprocal_rank_fusion([words, meaning, sound], [1.0, 1.0, 1.0])
    largest = 3 / 11
    expected = {
        "b": (1 / 12 + 1 / 11 + 1 / 11) / largest,
        "a": (1 / 11 + 1 / 12) / largest,
        "d": (1 / 12) / largest,
        "c": (1 / 13) / largest,
    }
    assert list(scores) == ["b", "a", "d", "c"]
    assert scores == pytest.approx(expected)


def test_first_everywhere_is_one_and_weights_count() -> None:
    assert reciprocal_rank_fusion([["a"], ["a", "b"]], [2.0, 0.5]) == pytest.approx(
        {"a": 1.0, "b": 0.5 / 12 * 11 / 2.5}
    )
    assert list(reciprocal_rank_fusion([["a"], ["b"]], [1.0, 2.0])) == ["b", "a"]


def test_equal_scores_keep_the_order_of_the_rankings() -> None:
    assert list(reciprocal_rank_fusion([["a", "b"], ["b", "a"]], [1.0, 1.0])) == ["a", "b"]
    assert list(reciprocal_rank_fusion([["y"], ["x"], []], [1.0, 1.0, 1.0])) == ["y", "x"]


def test_a_ranking_of_no_weight_adds_only_its_keys() -> None:
    assert reciprocal_rank_fusion([["a"], ["b"]], [1.0, 0.0]) == {"a": 1.0, "b": 0.0}
