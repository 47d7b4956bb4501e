"""Times of words by attention, and lines of a readable length."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pengi.conditioning.word_times import MAX_LINE, first_positions, lines_of
from pengi.results import TranscriptWord


def words(text: str, seconds: float = 0.4) -> list[TranscriptWord]:
    """The words of a text, one after the other."""
    return [TranscriptWord(word, index * seconds, (index + 1) * seconds) for index, word in enumerate(text.split())]


def texts(text: str, seconds: float = 0.4) -> list[str]:
    return [" ".join(word.text for word in line) for line in lines_of(words(text, seconds))]


def test_tokens_begin_where_they_are_attended_to() -> None:
    begins, ends = (0, 22, 60, 90), (22, 60, 90, 120)
    logits = torch.zeros(3, 4, 120)
    for token, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        logits[:, token, begin:end] = 4.0
    logits += 0.5 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(first_positions(logits), begins, atol=2)


def test_tokens_without_any_attention_still_come_in_order() -> None:
    first = first_positions(torch.zeros(2, 5, 9))
    assert (np.diff(first) > 0).all()
    assert first[-1] < 9


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("He came in. She was gone.", ["He came in.", "She was gone."]),
        ("Did Mr. Hale write it? Yes, he did.", ["Did Mr. Hale write it?", "Yes, he did."]),
        ("Yes. No. He came in.", ["Yes. No. He came in."]),
        ('He said "come in here." She came.', ['He said "come in here."', "She came."]),
        ("no end", ["no end"]),
        ("", []),
    ],
)
def test_a_line_is_a_sentence_that_is_not_too_short(text: str, lines: list[str]) -> None:
    assert texts(text) == lines


def test_long_sentences_are_cut_into_lines_behind_clauses() -> None:
    sentence = (
        "I do not think that you have done right in introducing such a man to us, without telling us what he had been "
        "before he came to live among the people of this quiet town."
    )
    found = texts(sentence)
    assert " ".join(found) == sentence
    assert found[0].endswith("to us,")
    assert all(len(line) <= MAX_LINE for line in found)


def test_a_title_stays_with_its_name_and_one_long_word_is_left_whole() -> None:
    cut = texts(" ".join(["word"] * 8) + " Mr. Hale " + " ".join(["word"] * 9))
    assert len(cut) == 2
    assert not cut[0].endswith("Mr.")
    assert texts("x" * 200) == ["x" * 200]
