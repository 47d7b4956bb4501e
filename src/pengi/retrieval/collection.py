"""Collections: recordings that were listened to once, and are searched by words, by meaning and by sound.

    collection = Collection.open("sounds.index", create=True)
    collection.update("sounds", Pengi.from_pretrained("pengi-mini"))
    for hit in collection.search("rain on a tin roof", where="duration_s > 5"):
        print(hit.path, hit.start_s, hit.text, hit.score)

A text query makes up to three rankings: BM25 over the generated text, the sentence embedding of that text, and the
tags that the model detects, reached through those that are nearest to the query. A recording as a query makes one,
by audio embedding. They become one by reciprocal rank fusion.

Shape suffixes: D features, V tags.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from pengi.audio.formats import no_recordings
from pengi.data.recordings import is_url
from pengi.errors import InputError
from pengi.retrieval.ranking import fused
from pengi.retrieval.table import AUDIO, TAGS, TEXT, About, Found, RecordingsTable
from pengi.writing import writing

if TYPE_CHECKING:
    from pengi.engine import Pengi
    from pengi.retrieval.updating import Changes, Progress
    from pengi.text_encoder import TextEncoder

Mode = Literal["hybrid", "text", "vector"]
MODES: tuple[Mode, ...] = ("hybrid", "text", "vector")
SENTENCE_ENCODER = "all-minilm-l6-v2"
CANDIDATES = 100
"""Rows that each ranking contributes, unless more are asked for."""


@dataclass(frozen=True)
class Hit:
    """A stretch of a recording that a search found."""

    path: str
    start_s: float
    end_s: float
    text: str
    """What the model wrote about it: caption and events."""
    score: float
    """1 where every ranking puts it first; only comparable within one search."""
    duration_s: float
    """Of the whole recording."""
    tags: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON values; times in seconds."""
        return asdict(self) | {"tags": list(self.tags)}


class Collection:
    """An index of recordings. Searching is safe from several threads and processes, also while one process updates."""

    def __init__(
        self,
        location: str,
        table: RecordingsTable | None,
        engine: Pengi | None = None,
        text_encoder: TextEncoder | None = None,
        device: str = "auto",
    ) -> None:
        self.location = location
        self._table = table
        self._engine = engine
        self._given_encoder = text_encoder
        self._device = device

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        create: bool = False,
        engine: Pengi | None = None,
        text_encoder: TextEncoder | None = None,
        device: str = "auto",
    ) -> Self:
        """An index in a folder, or in an object store (``s3://bucket/index``).

        Args:
            path: where it is.
            create: whether it may be missing; then the first update makes it.
            engine: hears the recordings that are queries; if not given, the model that the index was made with is
                loaded when the first one comes.
            text_encoder: embeds queries; all-MiniLM-L6-v2 unless given.
            device: where a model that is loaded runs, as for :meth:`pengi.Pengi.from_pretrained`.

        Raises:
            InputError: no index there, one of another version of this package, or LanceDB is not installed.
        """
        given = os.fspath(path)
        location = given if is_url(given) else str(Path(given).absolute())
        table = RecordingsTable.open(location)
        if table is None and not create:
            raise InputError(f"there is no index at '{given}'; make one with: pengi index DIR --db {given}")
        return cls(location, table, engine, text_encoder, device)

    def __len__(self) -> int:
        """Windows in the index."""
        return 0 if self._table is None else self._table.count()

    @property
    def about(self) -> About | None:
        """What the index was made with; None before the first update."""
        return None if self._table is None else self._table.about

    def search(
        self,
        text: str | None = None,
        like: Any = None,
        where: str | None = None,
        limit: int = 10,
        mode: Mode = "hybrid",
    ) -> list[Hit]:
        """Find stretches of recordings, the best first.

        Args:
            text: plain words.
            like: a recording, as :class:`pengi.Pengi` takes it, that the hits should sound like; or what ``embed`` of
                the same model gave for it. Text and recording may be combined.
            where: an SQL expression over path, start_s, end_s, duration_s, text and tags that hits must meet, such as
                ``duration_s > 5 AND array_has(tags, 'rain')``.
            limit: at most so many hits.
            mode: "text" by full text alone, "vector" by embeddings alone, "hybrid" by both.

        Raises:
            InputError: nothing to search for, an unknown mode, a bad filter or limit, or an index that was made with
                another model.
            AudioError: if the recording cannot be read.
        """
        text, where = (text or "").strip(), (where or "").strip() or None
        _check_query(text, like, limit, mode)
        table = self._table
        if table is None:
            return []
        depth = max(CANDIDATES, limit)
        rankings: list[tuple[float, list[Found]]] = []
        if text and mode != "vector":
            rankings.append((1.0, table.by_words(text, where, depth)))
        if text and mode != "text":
            rankings += self._by_meaning(table, text, where, depth)
        if like is not None:
            rankings.append((1.0, table.by_vector(AUDIO, self._audio_vector(like), where, depth)))
        rows = {row.key: row for _, ranking in rankings for row in ranking}
        scores = fused([[row.key for row in ranking] for _, ranking in rankings], [weight for weight, _ in rankings])
        return [Hit(**vars(rows[key]), score=score) for key, score in list(scores.items())[:limit]]

    def update(self, folder: str | os.PathLike[str], engine: Pengi, progress: Progress | None = None) -> Changes:
        """Make the index agree with a folder: hear what is new or changed, forget what is gone.

        Recordings that the index knows from other folders stay. A recording that cannot be used is counted and told,
        and the rest goes on. Killed at any moment, the same call goes on where the last one was.

        Args:
            folder: its recordings, at any depth.
            engine: listens; the same model for the whole life of an index.
            progress: is told how many recordings are heard, and how many are to be.

        Raises:
            InputError: no such folder, a folder in which all recordings are gone, another model than before, or
                another process is writing.
        """
        from pengi.retrieval.updating import recordings_below

        listing = recordings_below(Path(folder))
        if not listing.recordings:
            raise InputError(
                f"{no_recordings(folder, listing.passed_over)}; the index keeps what it has of this folder, in case a "
                "disk is not mounted"
            )
        changes = self._update(listing.recordings, engine, listing.answers_for, progress)
        changes.failed += listing.unreadable
        changes.passed_over = listing.passed_over
        return changes

    def add(
        self, recordings: Sequence[str | os.PathLike[str]], engine: Pengi, progress: Progress | None = None
    ) -> Changes:
        """As :meth:`update`, for single recordings; nothing is forgotten.

        Raises:
            InputError: another model than before, or another process is writing.
        """
        paths = sorted({str(Path(recording).resolve()) for recording in recordings})
        return self._update(paths, engine, lambda path: False, progress)

    def _update(self, paths: Sequence[str], engine: Pengi, gone: Any, progress: Progress | None) -> Changes:
        from pengi.retrieval.hearing import Hearing
        from pengi.retrieval.updating import Update, only_writer

        hearing = Hearing(engine, self._sentences)
        with only_writer(self.location), writing(self.location):
            table = self._table or RecordingsTable.open(self.location)
            if table is None:
                table = RecordingsTable.create(self.location, hearing.about, hearing.tag_vectors())
            _check_model(self.location, table.about, engine)
            self._table = table
            return Update(table, hearing, progress).run(paths, gone)

    def _by_meaning(
        self, table: RecordingsTable, text: str, where: str | None, depth: int
    ) -> list[tuple[float, list[Found]]]:
        """Rankings of a text by embeddings, with their weights."""
        from pengi.retrieval.hearing import query_over_tags, sentence_vectors

        query_D = sentence_vectors(self._sentences, [text])[0]
        rankings = [(1.0, table.by_vector(TEXT, query_D, where, depth))]
        if table.about.tags_dim:
            weights_V, trust = query_over_tags(query_D, self._tags_VD)
            rankings.append((trust, table.by_vector(TAGS, weights_V, where, depth)))
        return rankings

    def _audio_vector(self, like: Any) -> NDArray[np.float32]:
        assert self._table is not None
        about = self._table.about
        if not isinstance(like, np.ndarray):
            like = self._listener.embed(like)
        if like.shape != (about.audio_dim,):
            raise InputError(
                f"the index '{self.location}' holds audio embeddings of {about.audio_dim} features ('{about.model}'), "
                f"and this one has {'x'.join(map(str, like.shape))}"
            )
        vector_D: NDArray[np.float32] = like
        return vector_D

    @cached_property
    def _listener(self) -> Pengi:
        """The model that hears recordings that are queries: the one that the index was made with."""
        from pengi.engine import Pengi

        assert self._table is not None
        engine = self._engine or Pengi.from_pretrained(self._table.about.model, device=self._device)
        _check_model(self.location, self._table.about, engine)
        return engine

    @cached_property
    def _sentences(self) -> TextEncoder:
        from pengi import weights
        from pengi.text_encoder import SentenceEncoder

        encoder = self._given_encoder or SentenceEncoder.from_folder(weights.resolve(SENTENCE_ENCODER))
        if self._table is not None and self._table.about.text_dim != encoder.dim:
            raise InputError(
                f"the index '{self.location}' holds text embeddings of {self._table.about.text_dim} features, and this "
                f"sentence encoder gives {encoder.dim}; index the recordings anew"
            )
        return encoder

    @cached_property
    def _tags_VD(self) -> NDArray[np.float32]:
        assert self._table is not None
        return self._table.tag_vectors()


def _check_query(text: str, like: Any, limit: int, mode: str) -> None:
    if mode not in MODES:
        raise InputError(f"there is no search mode '{mode}'; choose one of {', '.join(MODES)}")
    if limit < 1:
        raise InputError(f"the limit must be at least 1, not {limit}")
    if not text and like is None:
        raise InputError("there is nothing to search for: give words, a recording, or both")
    if mode == "text" and like is not None:
        raise InputError("a recording cannot be found by full text; leave the mode 'text' away")


def _check_model(location: str, index: About, engine: Pengi) -> None:
    from pengi.retrieval.hearing import fingerprint

    if index.fingerprint == fingerprint(engine):
        return
    if index.model != engine.name:
        raise InputError(f"the index '{location}' was made with '{index.model}', and this is '{engine.name}'")
    raise InputError(
        f"the index '{location}' was made with another version of '{index.model}'; index the recordings anew"
    )
