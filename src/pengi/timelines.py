"""What happens when: events that a tagger detects, or windows that a language model names.

Shape suffixes: S samples, T frames, K tags.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pengi.audio.decode import AudioSource, stream
from pengi.audio.level import SILENCE_DB, sound_level_db
from pengi.audio.sources import ReadingOptions, Waveform
from pengi.audio.windows import sliding
from pengi.conditioning.collect import frame_events
from pengi.conditioning.evidence import MIN_PAUSE_S
from pengi.conditioning.tagger import Tagger
from pengi.decoding import DecodeOptions
from pengi.encoding import MIN_SEGMENT_S, WINDOWS, RecordingEncoder, batched
from pengi.errors import InputError
from pengi.generation import TextGenerator, probability_of
from pengi.labelling import checked_threshold, named_tags
from pengi.results import SILENCE, Segment, Timeline
from pengi.templates import PROMPTS

TIMELINE = DecodeOptions(beams=1, max_tokens=24)
WINDOW_S, HOP_S = 5.0, 5.0
MIN_FRAME_PROBABILITY = 0.5  # of a tag in a stretch

Progress = Callable[[float], None]
"""Called every few windows with the seconds that are read; what it raises ends the work."""
Named = tuple[str, float]
"""A text about a window, and its confidence."""


class TimelineOptions(ReadingOptions, total=False):
    """Options of a timeline."""

    threshold: float | None
    """Lowest probability of a tag in a stretch; 0.5 if not given."""
    labels: Sequence[str] | None
    """Only these tags, called so; all if not given."""
    window_s: float | None
    """Length of the windows that are named on their own, in seconds; 5 if not given."""
    hop_s: float | None
    """Time from the start of one to the start of the next, at most ``window_s``; 5 if not given."""
    progress: Progress | None


@dataclass(frozen=True)
class TimelineReader:
    """Reads what happens when in recordings of any length, in bounded memory."""

    encoder: RecordingEncoder
    reading: ReadingOptions
    progress: Progress

    def segments(self, source: AudioSource, notes: list[str] | None = None) -> Iterator[Segment]:
        """The segments of one recording, each as soon as it has ended; ``notes`` gets sentences about the reading."""
        raise NotImplementedError(f"{type(self).__name__} reads no segments")

    def read(self, source: AudioSource) -> Timeline:
        """The timeline of one recording."""
        notes: list[str] = []
        position = _Position(self.progress)
        segments = in_order(replace(self, progress=position.reach).segments(source, notes))
        return Timeline(tuple(segments), position.seconds, notes=tuple(notes))


class _Position:
    """How far a recording is read."""

    def __init__(self, progress: Progress) -> None:
        self.seconds, self._progress = 0.0, progress

    def reach(self, seconds: float) -> None:
        self.seconds = seconds
        self._progress(seconds)


def timeline_reader(
    name: str,
    encoder: RecordingEncoder,
    generator: TextGenerator,
    *,
    threshold: float | None = None,
    labels: Sequence[str] | None = None,
    window_s: float | None = None,
    hop_s: float | None = None,
    progress: Progress | None = None,
    **reading: Unpack[ReadingOptions],
) -> TimelineReader:
    """What reads timelines: by the tags of the model's tagger, or, without one or with windows, by naming windows.

    Args:
        name: of the model, for errors.
        encoder: encodes windows.
        generator: names windows.
        threshold: this and the others are :class:`TimelineOptions`.

    Raises:
        InputError: for a window or hop that is not positive or leaves gaps; for a threshold or labels where windows are
            named, and for a label that is none of the model's tags.
    """
    progress = progress or _ignore
    tagger = generator.model.tagger
    if tagger is not None and window_s is None and hop_s is None:
        named, lowest = named_tags(tagger, labels), checked_threshold(threshold, MIN_FRAME_PROBABILITY)
        return TagTimelines(encoder, reading, progress, tagger, named, lowest)
    if threshold is not None or labels is not None:
        why = "goes without windows" if tagger is not None else f"'{name}' does not have"
        raise InputError(f"a threshold or labels need the tagger, which {why}")
    window_s, hop_s = WINDOW_S if window_s is None else window_s, HOP_S if hop_s is None else hop_s
    if not 0 < hop_s <= window_s:
        raise InputError(f"hop ({hop_s} s) must be positive and no longer than window ({window_s} s)")
    if window_s > encoder.window_s:
        raise InputError(
            f"window ({window_s} s) is longer than the {encoder.window_s:g} s that '{name}' encodes at once"
        )
    return NamedTimelines(encoder, reading, progress, generator, window_s, hop_s)


def _ignore(_: float) -> None: ...


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


@dataclass(frozen=True)
class TagTimelines(TimelineReader):
    """Stretches in which tags are detected; they may overlap."""

    tagger: Tagger
    labels: Mapping[int, str]
    """Index of each tag that is looked for -> what it is called."""
    threshold: float
    """Lowest probability of a frame."""

    def segments(self, source: AudioSource, notes: list[str] | None = None) -> Iterator[Segment]:
        """See :class:`TimelineReader`."""
        joiner = EventJoiner()
        for batch in batched(self.encoder.windows(source, notes=notes, **self.reading), WINDOWS):
            scores = self.encoder.tag_scores(self.encoder.tokens([window_S for _, window_S in batch]))
            end_s = 0.0
            for (start_s, window_S), scores_TK in zip(batch, scores, strict=True):
                end_s = start_s + len(window_S) / self.encoder.sample_rate
                yield from map(_rounded, joiner.add(self._events(start_s, window_S, scores_TK), end_s))
            self.progress(end_s)
        yield from map(_rounded, joiner.finish())

    def _events(self, start_s: float, window_S: NDArray[np.float32], scores_TK: Tensor) -> list[Segment]:
        """What is detected in a window."""
        length_s = len(window_S) / self.encoder.sample_rate
        if sound_level_db(window_S) < SILENCE_DB:
            return [Segment(start_s, start_s + length_s, SILENCE, 1.0)]
        threshold_K = torch.full((len(self.tagger.vocabulary),), torch.inf)
        threshold_K[list(self.labels)] = self.threshold
        probability_TK = self.tagger.probability(scores_TK).float().cpu()
        return [
            Segment(start_s + event.start_s, start_s + event.end_s, self.labels[event.index], event.probability)
            for event in frame_events(probability_TK, threshold_K, self.encoder.frame_s, length_s)
        ]


def _rounded(segment: Segment) -> Segment:
    return replace(segment, start_s=round(segment.start_s, 2), end_s=round(segment.end_s, 2))


@dataclass(frozen=True)
class NamedTimelines(TimelineReader):
    """Windows that the language model names one by one; of those that follow each other with one name, one stretch."""

    generator: TextGenerator
    window_s: float
    hop_s: float

    def segments(self, source: AudioSource, notes: list[str] | None = None) -> Iterator[Segment]:
        """See :class:`TimelineReader`; a segment has ended as soon as the next one begins."""
        rate = self.encoder.sample_rate
        blocks = stream(source, rate, notes=notes, **self.reading)
        windows = sliding(blocks, round(self.window_s * rate), round(self.hop_s * rate))
        last: Segment | None = None
        for batch in batched(windows, WINDOWS):
            named = self.name([window_S for _, window_S in batch])
            for (start, window_S), (text, confidence) in zip(batch, named, strict=True):
                # Samples are added, not seconds: the end of one window is then the start of the next to the last digit.
                start_s, end_s = start / rate, (start + len(window_S)) / rate
                if last is not None and len(window_S) < MIN_SEGMENT_S * rate:
                    last = replace(last, end_s=end_s)
                    continue
                finished, last = _joined(last, Segment(start_s, end_s, text, confidence))
                if finished is not None:
                    yield finished
            self.progress((batch[-1][0] + len(batch[-1][1])) / rate)
        if last is not None:
            yield last

    @torch.inference_mode()
    def name(self, windows: Sequence[NDArray[np.float32]]) -> list[Named]:
        """The events in each window; the model is not asked about silent windows."""
        named = [(SILENCE, 1.0)] * len(windows)
        loud = [index for index, window_S in enumerate(windows) if sound_level_db(window_S) >= SILENCE_DB]
        if not loud:
            return named
        rate = self.encoder.sample_rate
        encoded = self.encoder.encode([Waveform(windows[index], rate) for index in loud])
        prompts = [PROMPTS["events"][0]] * len(loud)
        for index, beams in zip(loud, self.generator.generate(encoded, prompts, TIMELINE), strict=True):
            named[index] = (self.generator.text(beams[0]), probability_of(beams[0]))
        return named


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
