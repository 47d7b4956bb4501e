"""From recordings to rows: what a model hears in every window, in words and as vectors.

A window gets a text (caption and events), and where the model tells sounds as classes in words (encoder role "words")
their shares: the likeliest are its tags, and all of them are a vector. A query is compared with that vector through the
words: it stands for the words that are nearest in meaning. So a clip is found by what the model heard even where its
caption came out wrong.

Shape suffixes: B windows, V words, D features.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pengi.audio.sources import Waveform
from pengi.checkpoint import stored_tensors
from pengi.engine import Encoded, Pengi
from pengi.errors import PengiError
from pengi.mapper import WordsMapper
from pengi.retrieval.table import AUDIO, TEXT, WORDS, About, Window

if TYPE_CHECKING:
    from pengi.results import Description
    from pengi.text_encoder import TextEncoder

log = logging.getLogger(__name__)

WINDOWS_PER_CALL = 16
MOST_TAGS = 8
TAG_FLOOR = 0.02
"""Words of a smaller share are no tags."""
SHARPNESS = 20.0
"""Of a query over the words: their weights are exp(20 * cosine)."""
MOST_TRUST = 2.0
"""Weight of the ranking by words where the query is one of them; a text ranking has 1."""


class Hearing:
    """A model and a sentence encoder that listen to recordings for an index."""

    def __init__(self, engine: Pengi, sentences: TextEncoder) -> None:
        self._engine = engine
        self._sentences = sentences

    @cached_property
    def about(self) -> About:
        """What an index made here is made with."""
        return About(
            model=self._engine.name,
            fingerprint=fingerprint(self._engine),
            text_dim=self._sentences.dim,
            words_dim=0 if self._mapper is None else len(self._mapper.words),
            audio_dim=sum(branch.encoder.dim for branch in self._engine.model.branches if branch.encoder.describes),
        )

    def words(self) -> NDArray[np.float32] | None:
        """Sentence embeddings ``float32[V, D]`` of the words that the model tells classes in, if it does."""
        return None if self._mapper is None else sentence_vectors(self._sentences, self._mapper.words)

    def recordings(self, paths: Iterable[str]) -> Iterator[tuple[str, list[Window] | PengiError]]:
        """Every recording, in the order of ``paths``, with its windows, or with the error that makes it unusable.

        Windows of different recordings are heard together; memory holds the texts and vectors of one recording, and the
        samples of one call.
        """
        open_parts: dict[str, list[Window]] = {}
        waiting: list[tuple[str, float, NDArray[np.float32]]] = []
        ended: list[tuple[str, PengiError | None]] = []

        def finish() -> Iterator[tuple[str, list[Window] | PengiError]]:
            for (path, *_), window in zip(waiting, self._windows(waiting), strict=True):
                open_parts.setdefault(path, []).append(window)
            waiting.clear()
            for path, error in ended:
                windows = open_parts.pop(path, [])
                yield path, error if error is not None else _with_duration(windows)
            ended.clear()

        for path in paths:
            error = None
            notes: list[str] = []
            try:
                for start_s, window_S in self._engine.windows(path, notes=notes):
                    waiting.append((path, start_s, window_S))
                    if len(waiting) == WINDOWS_PER_CALL:
                        yield from finish()
            except PengiError as problem:
                error = problem
            for note in notes:
                log.info("%s", note)
            ended.append((path, error))
            if not waiting:
                yield from finish()
        yield from finish()

    def _windows(self, waiting: Sequence[tuple[str, float, NDArray[np.float32]]]) -> list[Window]:
        if not waiting:
            return []
        rate = self._engine.sample_rate
        encoded: list[Encoded] = self._engine.encode([Waveform(window_S, rate) for _, _, window_S in waiting])
        described: list[Description] = self._engine.describe(encoded)
        texts = [_text(description) for description in described]
        vectors: list[dict[str, NDArray[np.float32]]] = [
            {TEXT: text_D, AUDIO: audio_D}
            for text_D, audio_D in zip(
                sentence_vectors(self._sentences, texts), self._engine.embed(encoded), strict=True
            )
        ]
        words: list[dict[str, float]] = [{} for _ in waiting]
        if self._mapper is not None:
            for place, share_V in enumerate(self._shares(encoded)):
                heard = not encoded[place].is_silent
                # Of silence the shares mean nothing: equal ones are near to no query.
                vectors[place][WORDS] = share_V if heard else np.full_like(share_V, 1 / len(share_V))
                words[place] = self._likeliest(share_V) if heard else {}
        windows = []
        for place, (_, start_s, window_S) in enumerate(waiting):
            end_s = start_s + len(window_S) / rate
            tags = tuple(word for word, share in words[place].items() if share >= TAG_FLOOR)
            document = ". ".join([texts[place], *words[place]])
            windows.append(Window(start_s, end_s, end_s, texts[place], tags, document, vectors[place]))
        return windows

    @cached_property
    def _spoken(self) -> tuple[int, WordsMapper] | None:
        """The branch that tells classes in words."""
        for place, branch in enumerate(self._engine.model.branches):
            if isinstance(branch.mapper, WordsMapper):
                return place, branch.mapper
        return None

    @property
    def _mapper(self) -> WordsMapper | None:
        return None if self._spoken is None else self._spoken[1]

    @torch.inference_mode()
    def _shares(self, encoded: Sequence[Encoded]) -> NDArray[np.float32]:
        """Share of every word in each window, ``float32[B, V]``: the softmax that the language model is told of."""
        assert self._spoken is not None
        branch, mapper = self._spoken
        rows: list[Tensor] = []
        for recording in encoded:
            tokens_1TI = recording.tokens[branch][None]
            mask_1T = torch.ones(tokens_1TI.shape[:2], dtype=torch.bool, device=tokens_1TI.device)
            rows.append(mapper.word_logits(tokens_1TI, mask_1T).softmax(-1)[0])
        shares_BV: NDArray[np.float32] = torch.stack(rows).float().cpu().numpy()
        return shares_BV

    def _likeliest(self, share_V: NDArray[np.float32]) -> dict[str, float]:
        """The words of the largest shares, the likeliest first."""
        assert self._mapper is not None
        best = np.argsort(-share_V, kind="stable")[:MOST_TAGS]
        return {self._mapper.words[word]: float(share_V[word]) for word in best}


def sentence_vectors(sentences: TextEncoder, texts: Sequence[str]) -> NDArray[np.float32]:
    """Embeddings of length one, ``float32[N, D]``."""
    vectors_ND: NDArray[np.float32] = torch.nn.functional.normalize(sentences.embed(texts), dim=-1).cpu().numpy()
    return vectors_ND


def query_over_words(query_D: NDArray[np.float32], words_VD: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """How much a query means each word, ``float32[V]``: exp(20 * cosine), the nearest word 1; and how far to trust it.

    Trust is 2 cos^4 of the nearest word: a name or a digit has no word among the classes, and what the nearest one
    says about it would only disturb the text.
    """
    cosine_V = words_VD @ query_D
    nearest = float(cosine_V.max())
    weights_V: NDArray[np.float32] = np.exp(SHARPNESS * (cosine_V - nearest))
    return weights_V, MOST_TRUST * max(0.0, nearest) ** 4


def fingerprint(engine: Pengi) -> str:
    """SHA-256 of a model's trained tensors and of what its configuration says about the frozen ones."""
    # Without names of parts, which may be folders: an imported model is the same wherever it lies.
    paths: Any = {"name": True, "text": {"encoder"}, "language_model": {"name"}}
    digest = hashlib.sha256(engine.model.config.model_dump_json(exclude=paths).encode())
    for name, tensor in sorted(stored_tensors(engine.model).items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _text(description: Description) -> str:
    """Caption and events: "A dog barks outside. Dog barking, wind." """
    events = ", ".join(event.label for event in description.events)
    return f"{description.text.rstrip('.')}. {events}" if events else description.text


def _with_duration(windows: list[Window]) -> list[Window]:
    return [replace(window, duration_s=windows[-1].end_s) for window in windows]
