"""Collections: recordings that are encoded once, then searched by words, by meaning and by sound.

    collection = Collection.open("sounds.index", create=True)
    collection.update("sounds", Pengi.from_pretrained("pengi-mini"))
    for hit in collection.search("rain on a tin roof", where="duration_s > 5"):
        print(hit.path, hit.start_s, hit.text, hit.score)

A text query gives up to three rankings: BM25 over the generated text, the sentence embedding of that text, and the
probabilities of the tags that are nearest to the query. A recording as a query gives one, by audio embedding. The
rankings are combined by reciprocal rank fusion.

Shape suffixes: D features, V tags.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from pengi.audio.formats import no_recordings
from pengi.audio.sources import AudioSource
from pengi.calls import SILENT_CAPTION
from pengi.data.recordings import is_url
from pengi.errors import InputError, no_such
from pengi.retrieval.ranking import reciprocal_rank_fusion
from pengi.retrieval.table import AUDIO, TAGS, TEXT, IndexInfo, RankedWindow, RecordingsTable
from pengi.tag_space import SENTENCE_ENCODER, of_length_one
from pengi.writing import writing

if TYPE_CHECKING:
    from pengi.engine import Pengi
    from pengi.retrieval.updating import Changes, UpdateProgress
    from pengi.text_encoder import TextEncoder

SearchMode = Literal["hybrid", "text", "vector"]
SEARCH_MODES: tuple[SearchMode, ...] = ("hybrid", "text", "vector")
WINDOWS_AT_ONCE = 1_000
"""Number of windows that are compared with all others at a time."""
CANDIDATES = 100
"""Number of rows that each ranking contributes; more if more hits are requested."""


@dataclass(frozen=True)
class Hit:
    """A stretch of a recording that a search found."""

    path: str
    start_s: float
    end_s: float
    text: str
    """The generated caption and events."""
    score: float
    """1 if every ranking puts it first; comparable only within one search."""
    duration_s: float
    """Length of the whole recording, in seconds."""
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
            path: its folder or address.
            create: whether the index may be missing; then the first update makes it.
            engine: encodes queries that are recordings; by default the model of the index, loaded when needed.
            text_encoder: embeds queries; all-MiniLM-L6-v2 unless given.
            device: where a model that is loaded runs, as for :meth:`pengi.Pengi.from_pretrained`.

        Raises:
            InputError: if there is no index, it is of another version of this package, or LanceDB is not installed.
        """
        given = os.fspath(path)
        location = given if is_url(given) else str(Path(given).absolute())
        table = RecordingsTable.open(location)
        if table is None and not create:
            raise InputError(f"there is no index at '{given}'; make one with: pengi index DIR --db {given}")
        return cls(location, table, engine, text_encoder, device)

    def __len__(self) -> int:
        """Number of windows in the index."""
        return 0 if self._table is None else self._table.count()

    @property
    def info(self) -> IndexInfo | None:
        """The model and settings of the index; None before the first update."""
        return None if self._table is None else self._table.info

    def search(
        self,
        text: str | None = None,
        like: AudioSource | NDArray[np.float32] | None = None,
        where: str | None = None,
        limit: int = 10,
        mode: SearchMode = "hybrid",
    ) -> list[Hit]:
        """Find stretches of recordings, the best first.

        Args:
            text: plain words.
            like: a recording, as :class:`pengi.Pengi` takes it, that the hits should sound like; or its vector from
                ``embed`` of the same model. Text and recording may be combined.
            where: an SQL expression over path, start_s, end_s, duration_s, text and tags that hits must meet, such as
                ``duration_s > 5 AND array_has(tags, 'rain')``.
            limit: maximum number of hits.
            mode: "text" by full text alone, "vector" by embeddings alone, "hybrid" by both.

        Raises:
            InputError: for an empty query, an unknown mode, a bad filter or limit, or an index that was made with
                another model.
            AudioError: if the recording cannot be read.
        """
        text, where = (text or "").strip(), (where or "").strip() or None
        _check_query(text, like, limit, mode)
        table = self._table
        if table is None:
            return []
        depth = max(CANDIDATES, limit)
        rankings: list[tuple[float, list[RankedWindow]]] = []
        if text and mode != "vector":
            rankings.append((1.0, table.by_words(text, where, depth)))
        if text and mode != "text":
            rankings += self._by_meaning(table, text, where, depth)
        if like is not None:
            rankings.append((1.0, table.by_vector(AUDIO, self._audio_vector(like), where, depth)))
        rows = {row.key: row for _, ranking in rankings for row in ranking}
        scores = reciprocal_rank_fusion(
            [[row.key for row in ranking] for _, ranking in rankings], [weight for weight, _ in rankings]
        )
        return [Hit(**vars(rows[key]), score=score) for key, score in list(scores.items())[:limit]]

    def similar_pairs(self, threshold: float) -> list[tuple[str, str]]:
        """Pairs of recordings that sound alike: a window of one and a window of the other have audio embeddings with at
        least this cosine.

        They may be copies, which :func:`pengi.comparing.verified` checks. Silent windows are ignored.
        Memory holds the audio embeddings of all windows.

        Returns:
            Sorted pairs of paths, in a sorted list.
        """
        table = self._table
        if table is None:
            return []
        from pengi.retrieval.exporting import vectors_of

        paths: list[str] = []
        parts = [np.zeros((0, table.info.audio_dim), np.float32)]
        for batch in table.batches(["path", "text", AUDIO]):
            sounding = [not text.startswith(SILENT_CAPTION) for text in batch["text"].to_pylist()]
            paths += [path for path, sounds in zip(batch["path"].to_pylist(), sounding, strict=True) if sounds]
            parts.append(vectors_of(batch[AUDIO], table.info.audio_dim)[sounding])
        vectors_ND = of_length_one(np.concatenate(parts))
        found: set[tuple[str, str]] = set()
        for start in range(0, len(paths), WINDOWS_AT_ONCE):
            cosine = vectors_ND[start : start + WINDOWS_AT_ONCE] @ vectors_ND.T
            for row, other in zip(*np.nonzero(cosine >= threshold), strict=True):
                if paths[start + row] < paths[other]:
                    found.add((paths[start + row], paths[other]))
        return sorted(found)

    def export(self, out: str | os.PathLike[str]) -> int:
        """Write all windows with their vectors to a ``.parquet`` or ``.npz`` file, and return their number; see
        :func:`pengi.retrieval.exporting.export`.

        Raises:
            InputError: for an index that is empty, another suffix, or a file that cannot be written.
        """
        if self._table is None:
            raise InputError(f"there is nothing in the index '{self.location}' to export")
        from pengi.retrieval.exporting import export

        return export(self._table, Path(out))

    def update(self, folder: str | os.PathLike[str], engine: Pengi, progress: UpdateProgress | None = None) -> Changes:
        """Make the index agree with a folder: encode what is new or changed, remove what is gone.

        Recordings of other folders stay in the index. A recording that cannot be used is counted as failed, and the
        other recordings are processed. If the process is killed, the same call continues where it stopped.

        Args:
            folder: its recordings, at any depth.
            engine: encodes the recordings; all updates of an index need the same model.
            progress: see :data:`pengi.retrieval.updating.UpdateProgress`.

        Raises:
            InputError: for a missing folder, a folder without recordings, another model than before, or if another
                process is writing.
        """
        from pengi.retrieval.updating import recordings_below

        contents = recordings_below(Path(folder))
        if not contents.recordings:
            raise InputError(
                f"{no_recordings(folder, contents.skipped)}; the index keeps what it has of this folder, in case a "
                "disk is not mounted"
            )
        changes = self._update(contents.recordings, engine, contents.covers, progress)
        changes.failed += contents.unreadable
        changes.skipped = contents.skipped
        return changes

    def add(
        self, recordings: Sequence[str | os.PathLike[str]], engine: Pengi, progress: UpdateProgress | None = None
    ) -> Changes:
        """As :meth:`update`, for single recordings; nothing is removed.

        Raises:
            InputError: for another model than before, or if another process is writing.
        """
        paths = sorted({str(Path(recording).resolve()) for recording in recordings})
        return self._update(paths, engine, lambda path: False, progress)

    def _update(
        self, paths: Sequence[str], engine: Pengi, is_removed: Callable[[str], bool], progress: UpdateProgress | None
    ) -> Changes:
        from pengi.retrieval.indexing import Indexer
        from pengi.retrieval.updating import Update, only_writer

        indexer = Indexer(engine, self._sentences)
        with only_writer(self.location), writing(self.location):
            table = self._table or RecordingsTable.open(self.location)
            if table is None:
                table = RecordingsTable.create(self.location, indexer.info, indexer.tag_vectors())
            _check_model(self.location, table.info, engine)
            self._table = table
            return Update(table, indexer, progress).run(paths, is_removed)

    def _by_meaning(
        self, table: RecordingsTable, text: str, where: str | None, depth: int
    ) -> list[tuple[float, list[RankedWindow]]]:
        """Rankings of a text by embeddings, with the weight of each."""
        from pengi.retrieval.indexing import query_over_tags
        from pengi.text_encoder import sentence_vectors

        query_D = sentence_vectors(self._sentences, [text])[0]
        rankings = [(1.0, table.by_vector(TEXT, query_D, where, depth))]
        if table.info.tags_dim:
            weights_V, tags_weight = query_over_tags(query_D, self._tags_VD)
            rankings.append((tags_weight, table.by_vector(TAGS, weights_V, where, depth)))
        return rankings

    def _audio_vector(self, like: AudioSource | NDArray[np.float32]) -> NDArray[np.float32]:
        assert self._table is not None
        info = self._table.info
        vector_D = like if isinstance(like, np.ndarray) else self._query_engine.embed(like)
        if vector_D.shape != (info.audio_dim,):
            raise InputError(
                f"the index '{self.location}' holds audio embeddings of {info.audio_dim} features ('{info.model}'), "
                f"and this one has {'x'.join(map(str, vector_D.shape))}"
            )
        return vector_D

    @cached_property
    def _query_engine(self) -> Pengi:
        """The model that encodes recordings as queries, which is the model of the index."""
        from pengi.engine import Pengi

        assert self._table is not None
        engine = self._engine or Pengi.from_pretrained(self._table.info.model, device=self._device)
        _check_model(self.location, self._table.info, engine)
        return engine

    @cached_property
    def _sentences(self) -> TextEncoder:
        from pengi import weights
        from pengi.text_encoder import SentenceEncoder

        encoder = self._given_encoder or SentenceEncoder.from_folder(weights.resolve(SENTENCE_ENCODER))
        if self._table is not None and self._table.info.text_dim != encoder.dim:
            raise InputError(
                f"the index '{self.location}' holds text embeddings of {self._table.info.text_dim} features, and this "
                f"sentence encoder gives {encoder.dim}; index the recordings again"
            )
        return encoder

    @cached_property
    def _tags_VD(self) -> NDArray[np.float32]:
        assert self._table is not None
        return self._table.tag_vectors()


def _check_query(text: str, like: object, limit: int, mode: str) -> None:
    if mode not in SEARCH_MODES:
        raise InputError(no_such("search mode", mode, SEARCH_MODES))
    if limit < 1:
        raise InputError(f"the limit must be at least 1, not {limit}")
    if not text and like is None:
        raise InputError("there is nothing to search for: give words, a recording, or both")
    if mode == "text" and like is not None:
        raise InputError("a recording cannot be found by full text; choose the mode 'hybrid' or 'vector'")


def _check_model(location: str, index: IndexInfo, engine: Pengi) -> None:
    from pengi.retrieval.indexing import model_fingerprint

    if index.fingerprint == model_fingerprint(engine):
        return
    if index.model != engine.name:
        raise InputError(f"the index '{location}' was made with '{index.model}', and this is '{engine.name}'")
    raise InputError(
        f"the index '{location}' was made with another version of '{index.model}'; index the recordings again"
    )
