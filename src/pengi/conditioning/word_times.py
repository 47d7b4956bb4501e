"""Times of words, from the cross-attention of Whisper's decoder, and lines of a readable length.

Shape suffixes: H heads, T tokens, P encoder positions of 20 ms.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pengi.results import TranscriptWord

MAX_LINE = 84
"""Characters of a line: two rows of a subtitle."""
MIN_LINE_S = 1.0
"""A shorter sentence is joined with the next one."""
MAX_WORD_S = 1.0
"""Time beyond this is a pause before or after the word."""
_CLAUSE_COST = 0.25
"""Cost of a cut after a clause, relative to a cut between other words at the same distance from the middle."""
_FILTER = 7
"""Width of the median filter in positions, as in Whisper's own word times."""
_NO_END = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|St|Prof|[A-Z])\.$")
_SENTENCE_END = re.compile(r"[.?!][\"')\]]*$")
_CLAUSE_END = re.compile(r"[,;:][\"')\]]*$")


def first_positions(logits_HTP: Tensor) -> NDArray[np.int64]:
    """The first position of each token, ``int64[T]``, ascending; there must be at least T positions.

    Each position is assigned to one token so that the sum of the normalised attention is as high as possible. Silence
    before the first token is assigned to it.

    Args:
        logits_HTP: attention to the positions of the recording, before the softmax.
    """
    weight_HTP = logits_HTP.softmax(2)
    deviation_H1P, mean_H1P = torch.std_mean(weight_HTP, dim=1, keepdim=True, correction=0)
    weight_HTP = (weight_HTP - mean_H1P) / deviation_H1P.clamp(min=torch.finfo(torch.float32).tiny)
    padded_HTP = functional.pad(weight_HTP, (_FILTER // 2, _FILTER // 2), mode="replicate")
    score_TP = padded_HTP.unfold(2, _FILTER, 1).median(3).values.mean(0)
    return _best_path(score_TP.cpu().numpy())


def _best_path(score_TP: NDArray[np.float32]) -> NDArray[np.int64]:
    """First position of each row on the path with the highest sum. The path leads from the first row and position to
    the last ones; from one position to the next it stays in its row or moves to the next row."""
    tokens, positions = score_TP.shape
    best_T = np.full(tokens, -np.inf)
    best_T[0] = score_TP[0, 0]
    is_entered_PT = np.zeros((positions, tokens), np.bool_)
    for position in range(1, positions):
        from_last_T = np.concatenate([[-np.inf], best_T[:-1]])
        is_entered_PT[position] = from_last_T > best_T
        best_T = np.maximum(from_last_T, best_T) + score_TP[:, position]
    starts_T = np.zeros(tokens, np.int64)
    row = tokens - 1
    for position in range(positions - 1, 0, -1):
        if is_entered_PT[position, row]:
            starts_T[row] = position
            row -= 1
    return starts_T


def lines_of(words: Sequence[TranscriptWord]) -> list[list[TranscriptWord]]:
    """Words in lines: one for each sentence, and several for one that is longer than :data:`MAX_LINE`."""
    lines: list[list[TranscriptWord]] = []
    sentence: list[TranscriptWord] = []
    for word in words:
        sentence.append(word)
        is_end = _SENTENCE_END.search(word.text) and not _NO_END.search(word.text)
        if is_end and word.end_s - sentence[0].start_s >= MIN_LINE_S:
            lines += _short(sentence)
            sentence = []
    return lines + (_short(sentence) if sentence else [])


def _short(words: list[TranscriptWord]) -> list[list[TranscriptWord]]:
    """A sentence as lines of about the same length, which end after clauses where possible."""
    ends = np.cumsum([len(word.text) + 1 for word in words])
    if ends[-1] - 1 <= MAX_LINE or len(words) == 1:
        return [words]

    def cost(index: int) -> float:
        if _NO_END.search(words[index - 1].text):
            return float(ends[-1])
        is_clause = _CLAUSE_END.search(words[index - 1].text)
        return float(abs(ends[index - 1] - ends[-1] / 2)) * (_CLAUSE_COST if is_clause else 1.0)

    middle = min(range(1, len(words)), key=cost)
    return _short(words[:middle]) + _short(words[middle:])
