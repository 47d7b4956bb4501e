# A string is also a sequence of strings, so mypy finds that overloads for a text and for a list of texts overlap.
# mypy: disable-error-code="overload-overlap"
"""The methods of the engine that compare vectors of recordings and texts.

Shape suffixes: N and M vectors, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import overload

import numpy as np
from numpy.typing import NDArray

from pengi import weights
from pengi.audio.sources import listed
from pengi.calls import Parts, Vector, tag_names
from pengi.errors import InputError, checked_text
from pengi.tag_space import SENTENCE_ENCODER, TagSpace, of_length_one
from pengi.text_encoder import SentenceEncoder


class SimilarityMixin:
    """Methods of :class:`pengi.engine.Pengi` about vectors."""

    _parts: Parts

    @overload
    def embed_text(self, texts: str) -> Vector: ...
    @overload
    def embed_text(self, texts: Sequence[str]) -> list[Vector]: ...
    def embed_text(self, texts: str | Sequence[str]) -> Vector | list[Vector]:
        """One vector for a text, ``float32[D]`` of length 1, to compare with :meth:`pengi.engine.Pengi.embed` in the
        space "tags".

        No text encoder was trained together with audio. The vector says how similar in meaning the text is to each tag
        that the model detects. So it represents sounds that tags describe, and hardly anything else.

        Args:
            texts: one, or a list.

        Raises:
            InputError: for a text that is empty or not valid, or a model without a tagger.
            WeightsError: if the sentence encoder cannot be fetched.
        """
        given = listed(texts)
        words = [checked_text(text, "each text").strip() for text in ([texts] if given is None else given)]
        if not words or not all(words):
            raise InputError("give at least one text, and no empty ones")
        vectors = list(self._tag_space.texts(words))
        return vectors if given is not None else vectors[0]

    @staticmethod
    def similarity(first: Vector | Sequence[Vector], second: Vector | Sequence[Vector]) -> NDArray[np.float32]:
        """The cosine of every vector in ``first`` with every vector in ``second``, ``float32[N, M]``.

        Args:
            first: a vector of :meth:`pengi.engine.Pengi.embed` or :meth:`embed_text`, or several.
            second: as ``first``.

        Raises:
            InputError: if the vectors are of different spaces, or not vectors.
        """
        try:
            first_ND, second_MD = (np.atleast_2d(np.asarray(vectors, dtype=np.float32)) for vectors in (first, second))
        except (TypeError, ValueError) as error:
            raise InputError("similarity compares vectors of one length, as embed and embed_text give them") from error
        if first_ND.shape[1] != second_MD.shape[1]:
            raise InputError(
                f"vectors of {first_ND.shape[1]} and {second_MD.shape[1]} features cannot be compared; texts are "
                "compared with embed(audio, space='tags')"
            )
        cosine_NM: NDArray[np.float32] = of_length_one(first_ND) @ of_length_one(second_MD).T
        return cosine_NM

    @cached_property
    def _tag_space(self) -> TagSpace:
        return TagSpace(tag_names(self._parts), SentenceEncoder.from_folder(weights.resolve(SENTENCE_ENCODER)))
