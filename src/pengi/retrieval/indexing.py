"""Turns recordings into rows: the text, the tags and the vectors of every window.

A window has a text (caption and events) and, if the model has a tagger, its likeliest tags and the probabilities of all
tags as a vector. A query is converted to a vector over the tags by similarity in meaning. So a clip is found by its
detected sounds even if its caption is wrong.

Shape suffixes: B windows, V tags, D features.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pengi.audio.sources import Waveform
from pengi.batching import shared_batches
from pengi.checkpoint import stored_tensors
from pengi.encoding import Encoded
from pengi.engine import Pengi
from pengi.errors import PengiError
from pengi.retrieval.table import AUDIO, TAGS, TEXT, IndexInfo, Window
from pengi.tag_space import over_tags, tag_probabilities
from pengi.text_encoder import TextEncoder, sentence_vectors

if TYPE_CHECKING:
    from pengi.results import Description

log = logging.getLogger(__name__)

WINDOWS_PER_CALL = 16
MAX_DOCUMENT_TAGS = 8
MIN_WINDOW_TAG_PROBABILITY = 0.05
MAX_TAGS_WEIGHT = 2.0
"""Weight of the ranking by tags if the query is a tag; a text ranking has weight 1."""


@dataclass
class _Recording:
    path: str
    windows: list[Window] = field(default_factory=list)
    error: PengiError | None = None


class Indexer:
    """Encodes recordings for an index, with a model and a sentence encoder."""

    def __init__(self, engine: Pengi, sentences: TextEncoder) -> None:
        self._engine = engine
        self._sentences = sentences

    @cached_property
    def info(self) -> IndexInfo:
        """The model and settings of the index."""
        return IndexInfo(
            model=self._engine.name,
            fingerprint=model_fingerprint(self._engine),
            text_dim=self._sentences.dim,
            tags_dim=len(self._tags),
            audio_dim=sum(branch.encoder.dim for branch in self._engine.model.branches.values()),
        )

    def tag_vectors(self) -> NDArray[np.float32] | None:
        """Sentence embeddings ``float32[V, D]`` of the model's tags; None without a tagger."""
        return sentence_vectors(self._sentences, self._tags) if self._tags else None

    def recordings(self, paths: Iterable[str]) -> Iterator[tuple[str, list[Window] | PengiError]]:
        """Every recording, in the order of ``paths``, with its windows, or with the error that makes it unusable.

        Windows of different recordings share calls of the model. Memory holds the texts and vectors of one recording,
        and the samples of two calls.
        """
        for batch, ended in shared_batches(map(_Recording, paths), self._cut, WINDOWS_PER_CALL):
            found = self._windows([window for _, window in batch]) if batch else []
            for (recording, _), window in zip(batch, found, strict=True):
                recording.windows.append(window)
            for recording in ended:
                yield recording.path, recording.error or _with_duration(recording.windows)

    def _cut(self, recording: _Recording) -> Iterator[tuple[float, NDArray[np.float32]]]:
        """Start in seconds and samples of each window of a recording, up to its end or to an error."""
        notes: list[str] = []
        try:
            yield from self._engine.windows(recording.path, notes=notes)
        except PengiError as error:
            recording.error = error
        for note in notes:
            log.info("%s", note)

    def _windows(self, samples: Sequence[tuple[float, NDArray[np.float32]]]) -> list[Window]:
        rate = self._engine.sample_rate
        encoded: list[Encoded] = self._engine.encode([Waveform(window_S, rate) for _, window_S in samples])
        described: list[Description] = self._engine.describe(encoded)
        texts = [_text(description) for description in described]
        vectors: list[dict[str, NDArray[np.float32]]] = [
            {TEXT: text_D, AUDIO: audio_D}
            for text_D, audio_D in zip(
                sentence_vectors(self._sentences, texts), self._engine.embed(encoded), strict=True
            )
        ]
        tags: list[dict[str, float]] = [{} for _ in samples]
        for index, clip in enumerate(encoded if self._tags else []):
            vectors[index][TAGS] = tag_probabilities(clip, self._tags)
            tags[index] = _likeliest(clip)
        windows = []
        for index, (start_s, window_S) in enumerate(samples):
            end_s = start_s + len(window_S) / rate
            shown = tuple(tag for tag, probability in tags[index].items() if probability >= MIN_WINDOW_TAG_PROBABILITY)
            document = ". ".join([texts[index], *tags[index]])
            windows.append(Window(start_s, end_s, end_s, texts[index], shown, document, vectors[index]))
        return windows

    @cached_property
    def _tags(self) -> tuple[str, ...]:
        """The tags of the model's tagger; empty without one."""
        tagger = self._engine.model.tagger
        return () if tagger is None else tuple(tag.text for tag in tagger.vocabulary.tags)


def _likeliest(clip: Encoded) -> dict[str, float]:
    """The likeliest tags of a window with their probabilities, the likeliest first; empty for silence."""
    detected = clip.evidence.tags if clip.evidence and not clip.is_silent else ()
    return {tag.text: tag.probability for tag in detected[:MAX_DOCUMENT_TAGS]}


def query_over_tags(query_D: NDArray[np.float32], tags_VD: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """The weights of the tags for a query, ``float32[V]``, and the weight of the ranking.

    The weight of a tag is exp(20 * cosine), scaled to 1 for the nearest tag. The weight of the ranking is 2 cos^4,
    where cos is the cosine of the nearest tag. So the ranking counts little for a query that is not similar to any tag,
    such as a person's name.
    """
    weights_V, nearest = over_tags(query_D, tags_VD)
    return weights_V, MAX_TAGS_WEIGHT * max(0.0, nearest) ** 4


def model_fingerprint(engine: Pengi) -> str:
    """SHA-256 of a model's trained tensors and of what its configuration says about the frozen ones."""
    # Names of parts are left out. They may be folders, and an imported model is the same in any folder.
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
