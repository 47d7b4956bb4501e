"""Reciprocal rank fusion, by hand."""

from __future__ import annotations

import pytest

from pengi.retrieval.ranking import fused


def test_three_rankings_by_hand() -> None:
    words, meaning, sound = ["a", "b", "c"], ["b", "d"], ["b", "a"]
    scores = fused([words, meaning, sound], k=10)
    most = 3 / 11
    expected = {
        "b": (1 / 12 + 1 / 11 + 1 / 11) / most,
        "a": (1 / 11 + 1 / 12) / most,
        "d": (1 / 12) / most,
        "c": (1 / 13) / most,
    }
    assert list(scores) == ["b", "a", "d", "c"]
    assert scores == pytest.approx(expected)


def test_first_everywhere_is_one_and_weights_count() -> None:
    assert fused([["a"], ["a", "b"]], [2.0, 0.5]) == pytest.approx({"a": 1.0, "b": 0.5 / 12 * 11 / 2.5})
    assert list(fused([["a"], ["b"]], [1.0, 2.0])) == ["b", "a"]


def test_equal_scores_keep_the_order_of_the_rankings() -> None:
    assert list(fused([["a", "b"], ["b", "a"]])) == ["a", "b"]
    assert list(fused([["y"], ["x"], []])) == ["y", "x"]


def test_a_ranking_of_no_weight_adds_only_its_keys() -> None:
    assert fused([["a"], ["b"]], [1.0, 0.0]) == {"a": 1.0, "b": 0.0}
