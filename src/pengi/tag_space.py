"""Texts and recordings as vectors over the tags that a model detects, so that they can be compared.

The vector of a recording holds the probability of every tag. The vector of a text holds its similarity in meaning to
every tag, according to a sentence encoder. So a text is close to recordings whose detected tags have a similar meaning.

Shape suffixes: V tags, D features, N texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pengi.encoding import Encoded
from pengi.text_encoder import SHARPNESS, TextEncoder, sentence_vectors

SENTENCE_ENCODER = "all-minilm-l6-v2"


class TagSpace:
    """The space of a model's tags.

    Args:
        tags: their names.
        sentences: embeds names and texts.
    """

    def __init__(self, tags: Sequence[str], sentences: TextEncoder) -> None:
        self.tags, self._sentences = tuple(tags), sentences

    @cached_property
    def tags_VD(self) -> NDArray[np.float32]:
        """Sentence embeddings ``float32[V, D]`` of the tags."""
        return sentence_vectors(self._sentences, self.tags)

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Texts as vectors of length one, ``float32[N, V]``."""
        found = [over_tags(text_D, self.tags_VD)[0] for text_D in sentence_vectors(self._sentences, texts)]
        return of_length_one(np.stack(found))


def tag_probabilities(recording: Encoded, tags: Sequence[str]) -> NDArray[np.float32]:
    """The probability of every tag in a recording, ``float32[V]``; equal values for silence, which no text is close
    to."""
    detected = recording.evidence.tags if recording.evidence and not recording.is_silent else ()
    found = {tag.text: tag.probability for tag in detected}
    if not found:
        return np.full(len(tags), 1 / len(tags), dtype=np.float32)
    return np.array([found.get(tag, 0.0) for tag in tags], dtype=np.float32)


def over_tags(text_D: NDArray[np.float32], tags_VD: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """The weight of each tag for a text, ``float32[V]``: exp(20 * cosine), scaled to 1 for the nearest tag; and that
    tag's cosine."""
    cosine_V = tags_VD @ text_D
    nearest = float(cosine_V.max())
    weights_V: NDArray[np.float32] = np.exp(SHARPNESS * (cosine_V - nearest))
    return weights_V, nearest


def of_length_one(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors ``float32[..., D]`` scaled to length one."""
    scaled: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(1e-12)
    return scaled
