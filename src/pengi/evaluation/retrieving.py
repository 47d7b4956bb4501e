"""Retrieval as in the paper: every recording is indexed by its generated text.

A query (a caption) is compared with these texts in a sentence encoder's space. The same similarities rank the captions
for a recording.

Shape suffixes: N recordings, M captions, D features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CUT = 10


def retrieval_ranks(
    texts_ND: NDArray[np.float32], captions_MD: NDArray[np.float32], owner_M: Sequence[int]
) -> tuple[NDArray[np.intp], list[NDArray[np.intp]]]:
    """Ranks, from 1, of the right results.

    Args:
        texts_ND: embeddings of the recordings' texts, of length one.
        captions_MD: embeddings of the captions, of length one.
        owner_M: the index of each caption's recording.

    Returns:
        The rank of each caption's recording, and the ranks of each recording's captions, the best first. Ties are
        ranked before the right result, so equal texts have no advantage.
    """
    similarity_MN = captions_MD @ texts_ND.T
    owner = np.asarray(owner_M)
    right_M = similarity_MN[np.arange(len(owner)), owner]
    text_to_audio_M = (similarity_MN >= right_M[:, None]).sum(1)
    audio_to_text = []
    for recording in range(len(texts_ND)):
        similarity_M = similarity_MN[:, recording]
        right = np.flatnonzero(owner == recording)
        others = np.delete(similarity_M, right)
        best_first = np.sort(similarity_M[right])[::-1]
        ranks = [int((others >= value).sum()) + number for number, value in enumerate(best_first, start=1)]
        audio_to_text.append(np.array(ranks, dtype=np.intp))
    return text_to_audio_M, audio_to_text


def recall_at(ranks: Sequence[NDArray[np.intp]] | NDArray[np.intp], k: int) -> NDArray[np.float64]:
    """For each query, whether a right result is among the first ``k``."""
    return (best_ranks(ranks) <= k).astype(np.float64)


def average_precision_at(ranks: Sequence[NDArray[np.intp]] | NDArray[np.intp]) -> NDArray[np.float64]:
    """For each query the average precision over the first ``CUT`` results (mean of the precision at each right one)."""
    values = []
    for rank in ranks:
        ranked = np.sort(np.atleast_1d(rank))
        precisions = [number / position for number, position in enumerate(ranked, start=1) if position <= CUT]
        values.append(sum(precisions) / min(CUT, len(ranked)))
    return np.array(values)


def best_ranks(ranks: Sequence[NDArray[np.intp]] | NDArray[np.intp]) -> NDArray[np.float64]:
    """For each query the rank of the first right result."""
    return np.array([float(np.min(rank)) for rank in ranks])
