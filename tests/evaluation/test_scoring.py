from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from helpers.evaluating import item
from pengi.errors import InputError
from pengi.evaluation import captioning
from pengi.evaluation.benchmarks import BENCHMARKS, YES_NO, Benchmark
from pengi.evaluation.items import Item
from pengi.evaluation.scoring import chance, read_answers, reliability, score

CLASSIFY = BENCHMARKS["val-esc50"]
TAG = BENCHMARKS["fsd50k"]
QUESTION = BENCHMARKS["clotho-aqa-binary"]
ITEMS = [item("a", "dog"), item("b", "dog"), item("c", "rain", "wind"), item("d", "rain")]
ROWS: dict[str, dict[str, Any]] = {
    "a": {"id": "a", "scores": [0.0, -1.0, -2.0], "text": "Dog."},
    "b": {"id": "b", "scores": [-1.0, 0.0, -2.0], "text": "a dog"},
    "c": {"id": "c", "scores": [-2.0, -1.0, 0.0], "text": "wind"},
    "d": {"id": "d", "error": "'d.wav' is not audio"},
}


def result(asked: Benchmark, items: Sequence[Item], rows: dict[str, Any], mode: str) -> dict[str, Any]:
    return score(asked, read_answers(asked, items, rows, mode), mode)


def test_classification_by_hand() -> None:
    found = result(CLASSIFY, ITEMS, ROWS, "likelihood")
    assert (found["n"], found["errors"]) == (4, 1)
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(2 / 4)  # a and c; d could not be used
    low, high = found["metrics"]["accuracy"]["ci95"]
    assert low < 0.5 < high
    assert found["per_class"] == {
        "dog": {"n": 2, "correct": 1, "accuracy": 0.5},
        "rain": {"n": 2, "correct": 1, "accuracy": 0.5},  # c has two labels and counts under both
        "wind": {"n": 1, "correct": 1, "accuracy": 1.0},
    }
    assert found["mean_recall"] == pytest.approx((0.5 + 0.5 + 1.0) / 3)
    assert found["confusion"] == {
        "labels": ["(none)", "dog", "rain", "wind"],
        "counts": [[0, 0, 0, 0], [0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]],
    }
    expected = f1_score(
        ["dog", "dog", "wind", "rain"], ["dog", "rain", "wind", "(none)"],
        labels=["dog", "rain", "wind"], average="macro", zero_division=0.0,
    )  # fmt: skip
    assert found["metrics"]["macro_f1"]["value"] == pytest.approx(expected)


def test_an_id_with_a_number_sign_is_not_a_question_with_several_answers() -> None:
    found = result(CLASSIFY, [item("c#1", "rain", "wind")], {"c#1": ROWS["c"]}, "likelihood")
    assert found["metrics"]["accuracy"]["value"] == 1.0


def test_exact_text_must_be_a_label() -> None:
    found = result(CLASSIFY, ITEMS, ROWS, "exact")
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(2 / 4)  # "Dog." and "wind", not "a dog"


def test_map_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    labels = ("dog", "rain", "wind", "never")
    true = rng.random((20, 4)) < [0.3, 0.5, 0.2, 0.0]
    true[:, 0] |= ~true.any(1)
    scores = rng.normal(size=(20, 4))
    present = [[label for label, on in zip(labels, row, strict=True) if on] for row in true]
    items = [item(str(number), *answers, labels=labels) for number, answers in enumerate(present)]
    rows = {str(n): {"scores": row.tolist()} for n, row in enumerate(scores)}
    found = result(TAG, items, rows, "likelihood")["metrics"]["map"]
    expected = average_precision_score(true[:, :3], scores[:, :3], average="macro")
    assert found["value"] == pytest.approx(expected, abs=1e-12)
    assert chance(TAG, items)["map"]["value"] == pytest.approx(true[:, :3].mean())


def test_the_score_of_an_answer_is_the_share_of_people_who_gave_it() -> None:
    asked = [
        item("q#1", "yes", "no", "yes", labels=YES_NO),
        item("q#2", "no", "no", "no", labels=YES_NO),
    ]
    rows = {"q#1": {"scores": [0.0, -1.0], "text": "Yes, it is."}, "q#2": {"scores": [0.0, -1.0], "text": "no"}}
    assert result(QUESTION, asked, rows, "likelihood")["metrics"]["accuracy"]["value"] == pytest.approx(1 / 3)
    assert result(QUESTION, asked, rows, "exact")["metrics"]["accuracy"]["value"] == pytest.approx((2 / 3 + 1) / 2)
    assert chance(QUESTION, asked)["accuracy"]["value"] == 0.5


def test_free_text_is_compared_as_words() -> None:
    asked = BENCHMARKS["val-orders"]
    items = [item("q#1", "twelve ounce", labels=()), item("q#2", "coffee", labels=())]
    rows = {"q#1": {"text": "Twelve ounce."}, "q#2": {"text": "tea"}}
    found = result(asked, items, rows, "write")["metrics"]
    assert found["accuracy"]["value"] == 0.5
    assert found["similarity"]["value"] <= 1.0


def test_chance_of_several_right_answers() -> None:
    assert chance(CLASSIFY, ITEMS)["accuracy"]["value"] == pytest.approx((1 + 1 + 2 + 1) / 3 / 4)


def test_reliability_by_hand() -> None:
    """Two answers of confidence 0.9, one of them right; two of 0.6, both right."""
    sure, less = np.log([0.9, 0.1]), np.log([0.6, 0.4])
    found = reliability(np.stack([sure, sure, less, less]), np.array([1.0, 0.0, 1.0, 1.0]))
    assert [(part["n"], part["accuracy"]) for part in found["bins"]] == [(2, 1.0), (2, 0.5)]
    assert found["ece"] == pytest.approx((0.4 * 2 + 0.4 * 2) / 4)


def test_an_interval_does_not_collapse_where_all_answers_are_right() -> None:
    found = result(CLASSIFY, ITEMS[:1], ROWS, "likelihood")["metrics"]["accuracy"]
    assert found["value"] == 1.0
    assert found["ci95"] == pytest.approx([0.206549, 1.0], abs=1e-6)


def test_captions_and_their_retrieval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captioning.shutil, "which", lambda program: None)  # Java starts slowly
    asked = BENCHMARKS["clotho"]
    items = [item("a", "a dog barks", "barking", labels=()), item("b", "rain falls", labels=())]
    rows = {"a": {"text": "a dog barks"}, "b": {"text": "rain falls"}}
    found = result(asked, items, rows, "write")["metrics"]
    assert found["bleu_1"]["value"] == pytest.approx(1.0, abs=1e-6)
    assert found["t2a_r10"]["value"] == 1.0
    assert found["a2t_median_rank"]["value"] == 1.0
    assert found["spider"].get("not_run") or "value" in found["spider"]


def test_no_predictions_are_an_error() -> None:
    with pytest.raises(InputError, match="there are no predictions of val-esc50 in mode match"):
        read_answers(CLASSIFY, ITEMS, {}, "match")
