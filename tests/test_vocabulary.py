"""Words in what users write, and what is known of labels when only some of them are such words."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pengi.errors import ConfigError
from pengi.vocabulary import LEAST_SHARE, Vocabulary, exclusive_log_shares, tag_log_shares

WORDS = ["dog", "dog barking", "rain", "siren", "snoring"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("is there a siren?", ["siren"]),
        ("Is it RAINING?", ["rain"]),
        ("do dogs bark, or is a dog here?", ["dog barking", "dog"]),
        ("does the dog barking come before the rain and the rain before sirens?", ["dog barking", "rain", "siren"]),
        ("is someone asleep?", ["snoring"]),
        ("sirens, rain, a dog, snores", ["siren", "rain", "dog"]),
        ("what is heard?", []),
        ("", []),
    ],
)
def test_words_are_found_in_any_form_the_longest_first(text: str, found: list[str]) -> None:
    vocabulary = Vocabulary(WORDS, {"someone asleep": "snoring"})
    assert [WORDS[place] for place in vocabulary.mentioned(text, 3)] == found


def test_a_phrase_stands_for_a_word_that_there_is() -> None:
    with pytest.raises(ConfigError, match="siren"):
        Vocabulary(["siren", "rain"], {"an alarm": "sirens"})


def shares(*rows: list[float]) -> Tensor:
    return torch.tensor(rows)


def of(*values: float) -> list[float]:
    return pytest.approx([math.log(value) for value in values], abs=1e-5)  # type: ignore[no-any-return]


def none(*shares: float) -> Tensor:
    """Shares of "none of the words"."""
    return torch.tensor(shares)


def test_labels_that_are_words_have_their_shares() -> None:
    """What other words have is nobody's: one of the labels is right."""
    assert exclusive_log_shares(shares([0.5, 0.2, 0.3]), [2, 0], none(0.0))[0].tolist() == of(0.3, 0.5)
    assert exclusive_log_shares(shares([0.5, 0.2, 0.3]), [2, 0, 2], none(0.0))[0].tolist() == of(0.3, 0.5, 0.3)


def test_what_no_label_is_heard_of_goes_to_those_that_are_no_words() -> None:
    assert exclusive_log_shares(shares([0.5, 0.2, 0.3]), [0, None, None], none(0.0))[0].tolist() == of(0.5, 0.25, 0.25)
    assert exclusive_log_shares(shares([0.0, 0.2, 0.8]), [2, None], none(0.0))[0].tolist() == of(0.8, 0.2)


def test_where_none_of_the_words_is_there_labels_are_alike() -> None:
    found = exclusive_log_shares(shares([0.0, 0.0], [0.3, 0.1]), [0, 1], none(1.0, 0.6))
    assert found[0].tolist() == of(0.5, 0.5)
    assert found[1].tolist() == of(0.6, 0.4)
    # "None of the words" is no other word.
    assert exclusive_log_shares(shares([0.3, 0.1]), [0, None], none(0.6))[0].tolist() == of(0.6, 0.4)


def test_labels_that_are_no_words_are_all_alike_and_nothing_is_ruled_out() -> None:
    assert exclusive_log_shares(shares([0.9, 0.1]), [None, None], none(0.0))[0].tolist() == [0.0, 0.0]
    assert exclusive_log_shares(shares([1.0, 0.0]), [0, 1], none(0.0))[0].tolist() == of(1.0, LEAST_SHARE)


def test_of_words_heard_at_once_a_label_that_is_none_counts_as_the_others_do_on_average() -> None:
    """However much other words have, it gains nothing by it."""
    log_shares = shares([0.4, 0.1, 0.5], [0.0, 1e-9, 1.0]).log()
    found = tag_log_shares(log_shares, [1, None, 0])
    assert found[0].tolist() == of(0.1, 0.2, 0.4)
    assert found[1].tolist() == of(LEAST_SHARE, LEAST_SHARE, LEAST_SHARE)
    assert tag_log_shares(log_shares, [None, None])[0].tolist() == [0.0, 0.0]
