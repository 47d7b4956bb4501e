"""What happens when: events that a tagger detects, or windows that a language model names.

Shape suffixes: S samples, T frames, K tags.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from pengi.audio.level import SILENCE_DB, sound_level_db
from pengi.conditioning.collect import frame_events
from pengi.conditioning.evidence import MIN_PAUSE_S
from pengi.conditioning.tagger import Tagger
from pengi.encoding import MIN_SEGMENT_S, WINDOWS, RecordingEncoder, batched
from pengi.results import SILENCE, Segment

Windows = Iterable[tuple[float, NDArray[np.float32]]]
"""Starts in seconds, and ``float32[S]``."""


class EventJoiner:
    """Joins events of one label that touch across windows."""

    def __init__(self) -> None:
        self._open: dict[str, Segment] = {}

    def add(self, events: Iterable[Segment], end_s: float) -> list[Segment]:
        """Add the events of the next window, which ends at ``end_s``: the events that have ended, in order of time."""
        ended = []
        for event in events:
            last = self._open.get(event.text)
            if last is not None and event.start_s <= last.end_s + MIN_PAUSE_S:
                confidence = max(last.confidence, event.confidence)
                event = replace(event, start_s=last.start_s, confidence=confidence)
            elif last is not None:
                ended.append(last)
            self._open[event.text] = event
        for label, last in list(self._open.items()):
            if last.end_s < end_s - MIN_PAUSE_S:
                ended.append(self._open.pop(label))
        return in_order(ended)

    def finish(self) -> list[Segment]:
        """The events that last to the end."""
        return in_order(self._open.values())


def in_order(segments: Iterable[Segment]) -> list[Segment]:
    """Segments by their start; of those that start together the surest first."""
    return sorted(segments, key=lambda segment: (segment.start_s, -segment.confidence))


def detected_segments(
    windows: Windows,
    encoder: RecordingEncoder,
    tagger: Tagger,
    labels: Mapping[int, str],
    threshold: float,
    progress: Callable[[float], None],
) -> Iterator[Segment]:
    """Stretches in which tags are detected, each once it has ended.

    Args:
        windows: the recording.
        encoder: encodes windows.
        tagger: scores them.
        labels: index of each tag that is looked for -> what it is called.
        threshold: lowest probability of a frame.
        progress: called after every batch of windows with the seconds that are read.
    """
    joiner = EventJoiner()
    threshold_K = torch.full((len(tagger.vocabulary),), torch.inf)
    threshold_K[list(labels)] = threshold
    for batch in batched(windows, WINDOWS):
        scores = encoder.tag_scores(encoder.tokens([window_S for _, window_S in batch]))
        end_s = 0.0
        for (start_s, window_S), scores_TK in zip(batch, scores, strict=True):
            length_s = len(window_S) / encoder.sample_rate
            end_s = start_s + length_s
            if sound_level_db(window_S) < SILENCE_DB:
                events = [Segment(start_s, end_s, SILENCE, 1.0)]
            else:
                probability_TK = tagger.probability(scores_TK).float().cpu()
                events = [
                    Segment(start_s + event.start_s, start_s + event.end_s, labels[event.index], event.probability)
                    for event in frame_events(probability_TK, threshold_K, encoder.frame_s, length_s)
                ]
            yield from map(_rounded, joiner.add(events, end_s))
        progress(end_s)
    yield from map(_rounded, joiner.finish())


def _rounded(segment: Segment) -> Segment:
    return replace(segment, start_s=round(segment.start_s, 2), end_s=round(segment.end_s, 2))


def named_segments(
    windows: Iterable[tuple[int, NDArray[np.float32]]],
    name: Callable[[Sequence[NDArray[np.float32]]], list[tuple[str, float]]],
    rate: int,
    progress: Callable[[float], None],
) -> Iterator[Segment]:
    """Stretches that are named one by one, each as soon as the next one begins.

    Args:
        windows: first sample, and ``float32[S]``.
        name: gives text and confidence of each window.
        rate: in Hz.
        progress: called after every batch of windows with the seconds that are read.
    """
    last: Segment | None = None
    for batch in batched(windows, WINDOWS):
        for (start, window_S), (text, confidence) in zip(batch, name([w for _, w in batch]), strict=True):
            # Samples are added, not seconds: the end of one window is then the start of the next to the last digit.
            start_s, end_s = start / rate, (start + len(window_S)) / rate
            if last is not None and len(window_S) < MIN_SEGMENT_S * rate:
                last = replace(last, end_s=end_s)
                continue
            finished, last = _joined(last, Segment(start_s, end_s, text, confidence))
            if finished is not None:
                yield finished
        progress((batch[-1][0] + len(batch[-1][1])) / rate)
    if last is not None:
        yield last


def _joined(last: Segment | None, new: Segment) -> tuple[Segment | None, Segment]:
    """The segment that ends where the next one begins, if the two differ, and the one that may still become longer.

    Where windows overlap the later one wins.
    """
    if last is None:
        return None, new
    last = replace(last, end_s=min(last.end_s, new.start_s))
    if last.text != new.text:
        return last, new
    spans = (last.end_s - last.start_s, new.end_s - new.start_s)
    confidence = (last.confidence * spans[0] + new.confidence * spans[1]) / max(sum(spans), 1e-9)
    return None, Segment(last.start_s, new.end_s, last.text, confidence)
