"""Compares two recordings: whether they are copies of one recording, and what differs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from pengi.audio.decode import stream
from pengi.audio.matching import Match, band_energies, match
from pengi.audio.sources import AudioSource
from pengi.calls import MIN_TAG_PROBABILITY
from pengi.encoding import Encoded
from pengi.errors import PengiError
from pengi.results import Result

if TYPE_CHECKING:
    from pengi.engine import Pengi

RATE = 16_000
MIN_DIFFERENCE = 0.2
"""Minimum difference in probability of a tag that counts as different."""
MAX_TAGS = 10
Verdict = Literal["same", "part", "different"]


@dataclass(frozen=True)
class TagPair(Result):
    """A tag, and its probability in the first and in the second recording."""

    label: str
    first: float
    second: float


@dataclass(frozen=True)
class Side(Result):
    """One of the two recordings: length in seconds, level in dBFS, and transcript ("" without speech)."""

    duration_s: float
    level_db: float
    transcript: str | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison(Result):
    """The result of comparing two recordings.

    Attributes:
        verdict: "same" for two copies of one recording, even if the level or the format differs, a little is missing or
            one is padded with silence; "part" if one is an excerpt of the other; otherwise "different".
        correlation: of the two spectrograms at the best offset, from -1 to 1; mostly above 0.7 for copies, and below
            0.4 for other recordings.
        offset_s: where the second begins in the first, in seconds; negative if it begins earlier. Meaningless if the
            verdict is "different".
        overlap_s: length of the overlap at that offset, in seconds, without silent padding of the recordings.
        similarity: cosine of the embeddings. It is high for recordings that sound alike, even if they are different
            recordings; 0 if one is silent.
        first: the first recording.
        second: the second recording.
        shared_tags: tags that both have, the likeliest first.
        differing_tags: tags whose probabilities differ, the greatest difference first.
    """

    verdict: Verdict
    correlation: float
    offset_s: float
    overlap_s: float
    similarity: float
    first: Side
    second: Side
    shared_tags: tuple[TagPair, ...]
    differing_tags: tuple[TagPair, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about how the recordings were read."""
        return self.first.notes + self.second.notes


def compare(engine: Pengi, first: AudioSource, second: AudioSource) -> Comparison:
    """Compare two recordings.

    Args:
        engine: encodes them.
        first: a recording; it is read twice, so it must not be a pipe.
        second: another one.

    Raises:
        AudioError, InputError: if one cannot be read.
    """
    encoded = engine.encode([first, second])
    # Silence is not compared: its embedding is similar to that of any quiet recording.
    is_silent = any(item.is_silent for item in encoded)
    similarity = 0.0 if is_silent else float(np.dot(*engine.embed(encoded)))
    one_TB, other_TB = fingerprint(first), fingerprint(second)
    found = match(one_TB, other_TB)
    shared, differing = _tags(encoded)
    return Comparison(
        # Nothing can be matched in silence, which is still the same as itself.
        verdict="same" if np.array_equal(one_TB, other_TB) else _verdict(found),
        correlation=round(found.correlation, 4),
        offset_s=round(found.offset_s, 2),
        overlap_s=round(found.overlap_s, 2),
        similarity=round(similarity, 4),
        first=_side(encoded[0]),
        second=_side(encoded[1]),
        shared_tags=shared,
        differing_tags=differing,
    )


def fingerprint(source: AudioSource) -> NDArray[np.float32]:
    """The band energies by which copies of a recording are recognised, ``float32[T, B]``; see
    :mod:`pengi.audio.matching`."""
    return band_energies(stream(source, RATE), RATE)


def _verdict(found: Match) -> Verdict:
    if not found.is_copy:
        return "different"
    return "same" if found.shared * found.overlap_s >= 0.85 * found.longer_s else "part"


def _side(recording: Encoded) -> Side:
    transcript = None if recording.evidence is None else recording.evidence.transcript
    return Side(recording.duration_s, round(recording.level_db, 1), transcript, recording.notes)


def _tags(encoded: Sequence[Encoded]) -> tuple[tuple[TagPair, ...], tuple[TagPair, ...]]:
    """Tags that both recordings have, and tags that differ."""
    first, second = (
        {tag.text: tag.probability for tag in (item.evidence.tags if item.evidence and not item.is_silent else ())}
        for item in encoded
    )
    pairs = [TagPair(label, round(first.get(label, 0), 4), round(second.get(label, 0), 4)) for label in first | second]
    pairs = [pair for pair in pairs if max(pair.first, pair.second) >= MIN_TAG_PROBABILITY]
    shared = [pair for pair in pairs if min(pair.first, pair.second) >= MIN_TAG_PROBABILITY]
    differing = [pair for pair in pairs if abs(pair.first - pair.second) >= MIN_DIFFERENCE]
    shared.sort(key=lambda pair: -min(pair.first, pair.second))
    differing.sort(key=lambda pair: -abs(pair.first - pair.second))
    return tuple(shared[:MAX_TAGS]), tuple(differing[:MAX_TAGS])


@dataclass(frozen=True)
class Duplicate(Result):
    """Two recordings of an index that are copies of each other, or one of which is an excerpt of the other.

    Attributes:
        first: path of one.
        second: path of the other.
        correlation: see :class:`Comparison`.
        offset_s: where the second begins in the first, in seconds.
        overlap_s: length of the overlap at that offset, in seconds.
    """

    first: str
    second: str
    correlation: float
    offset_s: float
    overlap_s: float


def verified(pairs: Sequence[tuple[str, str]]) -> Iterator[Duplicate | tuple[str, PengiError]]:
    """Yield the pairs of paths that are copies, and each path that can no longer be read, with its error.

    Args:
        pairs: sorted by their first path, whose fingerprint is computed once.
    """
    unreadable: set[str] = set()
    kept: dict[str, NDArray[np.float32]] = {}
    for pair in pairs:
        kept = {path: kept[path] for path in pair if path in kept}
        for path in pair:
            if path not in kept and path not in unreadable:
                try:
                    kept[path] = fingerprint(path)
                except PengiError as error:
                    unreadable.add(path)
                    yield path, error
        if unreadable.isdisjoint(pair):
            found = match(kept[pair[0]], kept[pair[1]])
            if found.is_copy:
                times = (round(found.offset_s, 2), round(found.overlap_s, 2))
                yield Duplicate(*pair, round(found.correlation, 4), *times)
