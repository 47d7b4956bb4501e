"""Detects tags in a stream as they happen, in memory that does not grow.

The stream is cut into overlapping windows. A tag begins once it is detected in several consecutive windows, so that
single errors do not count. It ends with the first window in which it is not detected.

Shape suffixes: S samples, K tags.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from pengi.audio.level import SILENCE_DB, sound_level_db
from pengi.audio.windows import sliding
from pengi.errors import InputError
from pengi.labelling import checked_thresholds, named_tags
from pengi.results import Result

if TYPE_CHECKING:
    from pengi.conditioning.tagger import Tagger
    from pengi.encoding import RecordingEncoder

WINDOW_S, HOP_S = 2.0, 1.0
THRESHOLD = 0.5
MIN_HITS = 2


@dataclass(frozen=True)
class WatchOptions:
    """What counts as detected.

    Attributes:
        labels: detect only these tags, under the given names; all if None.
        threshold: lowest probability of a tag in a window.
        thresholds: thresholds of single labels.
        min_hits: number of consecutive windows in which a tag has to be detected.
        window_s: length of a window, in seconds.
        hop_s: time from one window to the next, in seconds; at most ``window_s``.

    Raises:
        InputError: if a value is out of range.
    """

    labels: Sequence[str] | None = None
    threshold: float = THRESHOLD
    thresholds: Mapping[str, float] = field(default_factory=dict)
    min_hits: int = MIN_HITS
    window_s: float = WINDOW_S
    hop_s: float = HOP_S

    def __post_init__(self) -> None:
        for value in (self.threshold, *self.thresholds.values()):
            checked_thresholds(value, THRESHOLD, ())
        if self.min_hits < 1:
            raise InputError(f"min_hits must be at least 1, not {self.min_hits}")
        if not 0 < self.hop_s <= self.window_s:
            raise InputError(f"hop ({self.hop_s} s) must be positive and no longer than window ({self.window_s} s)")


@dataclass(frozen=True)
class Detection(Result):
    """A tag that begins or ends.

    Attributes:
        state: "start" when it counts as detected, "end" when it is over.
        label: of the tag.
        start_s: where the first window with the tag begins, in seconds from the start of the stream.
        end_s: where the last window with the tag so far ends.
        probability: the highest probability so far.
    """

    state: Literal["start", "end"]
    label: str
    start_s: float
    end_s: float
    probability: float


@dataclass(frozen=True)
class Moment:
    """One window of a stream.

    Attributes:
        end_s: where the window ends, in seconds from the start of the stream.
        level_db: of the window, in dBFS.
        present: the current tags with their probability in this window, the likeliest first.
        detections: tags that begin or end with this window.
    """

    end_s: float
    level_db: float
    present: tuple[tuple[str, float], ...]
    detections: tuple[Detection, ...]


@dataclass(frozen=True)
class _Run:
    """Consecutive windows in which a tag is detected."""

    start_s: float
    end_s: float
    hits: int
    probability: float

    def detection(self, state: Literal["start", "end"], label: str) -> Detection:
        return Detection(state, label, round(self.start_s, 2), round(self.end_s, 2), round(self.probability, 4))


class Watcher:
    """Detects tags in a stream.

    Args:
        encoder: encodes windows.
        tagger: detects tags.
        options: what counts as detected.

    Raises:
        InputError: for a label that is not one of the tags.
    """

    def __init__(self, encoder: RecordingEncoder, tagger: Tagger, options: WatchOptions) -> None:
        self._encoder, self._tagger, self._options = encoder, tagger, options
        self._labels = named_tags(tagger, options.labels)
        self._threshold_K = torch.full((len(tagger.vocabulary),), torch.inf)
        self._threshold_K[list(self._labels)] = options.threshold
        if options.thresholds:
            for index, label in named_tags(tagger, list(options.thresholds)).items():
                if index not in self._labels:
                    raise InputError(f"a threshold is given for '{label}', which is not one of the labels")
                self._threshold_K[index] = options.thresholds[label]
        self._runs: dict[int, _Run] = {}

    def watch(self, blocks: Iterable[NDArray[np.float32]]) -> Iterator[Moment]:
        """The windows of a stream, each as soon as it has ended; the last moment ends the tags that are still present.

        Args:
            blocks: the stream, ``float32[S]`` at the rate of the encoder.
        """
        rate = self._encoder.sample_rate
        window, hop = (round(length_s * rate) for length_s in (self._options.window_s, self._options.hop_s))
        end_s, level_db = 0.0, SILENCE_DB
        for start, window_S in sliding(blocks, window, hop):
            start_s, end_s = start / rate, (start + len(window_S)) / rate
            level_db = sound_level_db(window_S)
            found = self._detected(window_S) if level_db >= SILENCE_DB else {}
            detections = self._advance(found, start_s, end_s)
            present = [(self._labels[index], value) for index, value in found.items() if self._has_begun(index)]
            present.sort(key=lambda tag: -tag[1])
            yield Moment(end_s, level_db, tuple(present), detections)
        if ended := self._advance({}, end_s, end_s):
            yield Moment(end_s, level_db, (), ended)

    def _detected(self, window_S: NDArray[np.float32]) -> dict[int, float]:
        """The tags in a window, by index, with their probability."""
        (scores_TK,) = self._encoder.tag_scores(self._encoder.tokens([window_S]))
        mask_1T = torch.ones(1, len(scores_TK), dtype=torch.bool, device=scores_TK.device)
        probability_K = self._tagger.probabilities(scores_TK[None], mask_1T)[0].float().cpu()
        indices = (probability_K >= self._threshold_K).nonzero().flatten().tolist()
        return {index: float(probability_K[index]) for index in indices}

    def _advance(self, found: Mapping[int, float], start_s: float, end_s: float) -> tuple[Detection, ...]:
        """Process one window, and return the tags that end or begin with it."""
        over = [index for index in self._runs if index not in found]
        ended = [self._runs[index].detection("end", self._labels[index]) for index in over if self._has_begun(index)]
        for index in over:
            del self._runs[index]
        begun = []
        for index, probability in found.items():
            before = self._runs.get(index, _Run(start_s, end_s, 0, 0.0))
            run = _Run(before.start_s, end_s, before.hits + 1, max(before.probability, probability))
            self._runs[index] = run
            if run.hits == self._options.min_hits:
                begun.append(run.detection("start", self._labels[index]))
        return (*ended, *sorted(begun, key=lambda detection: -detection.probability))

    def _has_begun(self, index: int) -> bool:
        return self._runs[index].hits >= self._options.min_hits


def file_arrivals(
    listing: Iterable[Mapping[str, tuple[int, int]]], known: Mapping[str, tuple[int, int]]
) -> Iterator[dict[str, tuple[int, int]]]:
    """For each listing of a folder, the files that are new and complete: path -> size and modification time.

    A file is complete once its size and modification time are the same in two consecutive listings. Memory holds the
    two newest listings.

    Args:
        listing: path -> size in bytes and modification time, one mapping for each time that the folder is listed.
        known: files that are not new.
    """
    done, before = dict(known), dict(known)
    for now in listing:
        done = {path: done[path] for path in now if path in done}
        stable = sorted(path for path, state in now.items() if before.get(path) == state and done.get(path) != state)
        arrived = {path: now[path] for path in stable}
        done |= arrived
        before = dict(now)
        yield arrived
