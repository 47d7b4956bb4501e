"""From recordings to rows: the text, the tags and the vectors of every window.

A window gets a text (caption and events) and, where the model has a tagger, its likeliest tags and a vector of the
probabilities of all of them. A query is compared with that vector through the tags that are nearest in meaning. So a
clip is found by what is detected in it even where its caption is wrong.

Shape suffixes: B windows, V tags, D features.
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

from pengi.audio.sources import Waveform
from pengi.checkpoint import stored_tensors
from pengi.encoding import Encoded
from pengi.engine import Pengi
from pengi.errors import PengiError
from pengi.retrieval.table import AUDIO, TAGS, TEXT, About, Window

if TYPE_CHECKING:
    from pengi.results import Description
    from pengi.text_encoder import TextEncoder

log = logging.getLogger(__name__)

WINDOWS_PER_CALL = 16
MAX_DOCUMENT_TAGS = 8
MIN_TAG_PROBABILITY = 0.05
SHARPNESS = 20.0
"""Of a query over the tags: their weights are exp(20 * cosine)."""
MOST_TRUST = 2.0
"""Weight of the ranking by tags where the query is one of them; a text ranking has 1."""


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
            tags_dim=len(self._tags),
            audio_dim=sum(branch.encoder.dim for branch in self._engine.model.branches.values()),
        )

    def tag_vectors(self) -> NDArray[np.float32] | None:
        """Sentence embeddings ``float32[V, D]`` of the tags that the model knows, if it knows any."""
        return sentence_vectors(self._sentences, self._tags) if self._tags else None

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
        tags: list[dict[str, float]] = [{} for _ in waiting]
        for index, recording in enumerate(encoded if self._tags else []):
            probability_V, tags[index] = self._detected(recording)
            # Of silence there is no tag: equal probabilities are near to no query.
            silent = not tags[index]
            vectors[index][TAGS] = np.full_like(probability_V, 1 / len(probability_V)) if silent else probability_V
        windows = []
        for place, (_, start_s, window_S) in enumerate(waiting):
            end_s = start_s + len(window_S) / rate
            shown = tuple(tag for tag, probability in tags[place].items() if probability >= MIN_TAG_PROBABILITY)
            document = ". ".join([texts[place], *tags[place]])
            windows.append(Window(start_s, end_s, end_s, texts[place], shown, document, vectors[place]))
        return windows

    @cached_property
    def _tags(self) -> tuple[str, ...]:
        """The tags of the model's tagger; none without one."""
        tagger = self._engine.model.tagger
        return () if tagger is None else tuple(tag.text for tag in tagger.vocabulary.tags)

    def _detected(self, recording: Encoded) -> tuple[NDArray[np.float32], dict[str, float]]:
        """The probability of every tag in a window, ``float32[V]``, and the likeliest tags, the likeliest first."""
        detected = recording.evidence.tags if recording.evidence and not recording.is_silent else ()
        found = {tag.text: tag.probability for tag in detected}
        probability_V = np.array([found.get(tag, 0.0) for tag in self._tags], dtype=np.float32)
        return probability_V, dict(list(found.items())[:MAX_DOCUMENT_TAGS])


def sentence_vectors(sentences: TextEncoder, texts: Sequence[str]) -> NDArray[np.float32]:
    """Embeddings of length one, ``float32[N, D]``."""
    vectors_ND: NDArray[np.float32] = torch.nn.functional.normalize(sentences.embed(texts), dim=-1).cpu().numpy()
    return vectors_ND


def query_over_tags(query_D: NDArray[np.float32], tags_VD: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """How much a query means each tag, ``float32[V]``: exp(20 * cosine), the nearest tag 1; and how far to trust it.

    Trust is 2 cos^4 of the nearest tag: for a name there is no tag, and the nearest one would only disturb the text.
    """
    cosine_V = tags_VD @ query_D
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
