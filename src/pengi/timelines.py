"""Timelines: events of tags and of custom labels with their times, or windows that the language model names.

Shape suffixes: S samples, T frames, K tags.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Protocol, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pengi.audio.decode import AudioSource, stream
from pengi.audio.level import SILENCE_DB, sound_level_db
from pengi.audio.sources import ReadingOptions, Waveform
from pengi.audio.windows import sliding
from pengi.batching import batched
from pengi.conditioning.collect import frame_events
from pengi.conditioning.evidence import MIN_PAUSE_S
from pengi.conditioning.tagger import Tagger
from pengi.decoding import DecodeOptions, run
from pengi.encoding import MIN_SEGMENT_S, WINDOWS, RecordingEncoder
from pengi.errors import AudioError, InputError
from pengi.generation import TextGenerator, probability_of
from pengi.labelling import (
    LabelChooser,
    Threshold,
    checked_thresholds,
    named_tags,
    no_tag,
    silent_label,
    tags_and_others,
)
from pengi.results import SILENCE, Segment, Timeline
from pengi.templates import PROMPTS

TIMELINE = DecodeOptions(beams=1, max_tokens=24)
WINDOW_S, HOP_S = 5.0, 5.0
MIN_EVENT_PROBABILITY = 0.5  # that a tag reaches in an event
PART_S = 2.5
"""Length in seconds of the parts of a recording in which the language model looks for labels that are not tags."""
MAX_OTHER_LABELS = 16
"""Maximum number of labels that are not tags; the language model is asked about each of them in every part."""
ASKED_WINDOWS = 2
"""Windows in a batch for the language model; few, so that events appear early and other requests can run between."""

Progress = Callable[[float], None]
"""Called every few windows with the number of seconds that are read; an exception that it raises ends the work."""
Named = tuple[str, float]
"""A text about a window, and its confidence."""


class TimelineOptions(ReadingOptions, total=False):
    """Options of a timeline."""

    threshold: Threshold | None
    """Probability that an event has to reach, for all labels or for each; by default 0.5, or the threshold that
    fine-tuning chose for a tag. A tag's event lasts while its probability is at least a tenth of that."""
    labels: Sequence[str] | None
    """Detect only these labels, under the given names; by default all tags, and silence. A label that is not a tag is
    detected by the language model, in parts of about 2.5 s."""
    min_duration_s: float | None
    """Shorter events are left out; by default none."""
    merge_gap_s: float | None
    """Events of one label with a shorter pause between them are joined; 0.5 by default."""
    window_s: float | None
    """Length in seconds of the windows that the language model names one by one; 5 by default."""
    hop_s: float | None
    """Time from the start of one window to the start of the next, at most ``window_s``; 5 by default."""
    progress: Progress | None


@dataclass(frozen=True)
class TimelineReader:
    """Makes timelines of recordings of any length, in bounded memory."""

    encoder: RecordingEncoder
    reading: ReadingOptions
    progress: Progress
    remarks: tuple[str, ...] = field(default=(), kw_only=True)
    """Sentences about how labels are detected."""

    def segments(self, source: AudioSource, notes: list[str] | None = None) -> Iterator[Segment]:
        """The segments of one recording in order of their starts. A segment is yielded once it and all before it have
        ended. Sentences about the reading are added to ``notes``."""
        raise NotImplementedError(f"{type(self).__name__} does not implement segments")

    def read(self, source: AudioSource) -> Timeline:
        """The timeline of one recording."""
        notes: list[str] = []
        position = _Position(self.progress)
        segments = tuple(replace(self, progress=position.reach).segments(source, notes))
        return Timeline(segments, position.seconds, notes=tuple(notes))


class _Position:
    """The position up to which a recording is read."""

    def __init__(self, progress: Progress) -> None:
        self.seconds, self._progress = 0.0, progress

    def reach(self, seconds: float) -> None:
        self.seconds = seconds
        self._progress(seconds)


def timeline_reader(
    name: str,
    encoder: RecordingEncoder,
    chooser: LabelChooser,
    *,
    threshold: Threshold | None = None,
    labels: Sequence[str] | None = None,
    min_duration_s: float | None = None,
    merge_gap_s: float | None = None,
    window_s: float | None = None,
    hop_s: float | None = None,
    progress: Progress | None = None,
    **reading: Unpack[ReadingOptions],
) -> TimelineReader:
    """The reader for these options. It detects events of tags and labels. If windows are given, or nothing can be
    detected, it lets the language model name windows.

    Args:
        name: of the model, for errors.
        encoder: encodes windows.
        chooser: scores labels that are not tags; its generator names windows.
        threshold: this and all other options: see :class:`TimelineOptions`.

    Raises:
        InputError: for a window or hop that is not positive or leaves gaps; for options of events where windows are
            named; for a threshold, duration or gap out of range.
    """
    progress = progress or _ignore
    tagger = chooser.generator.model.tagger
    if window_s is None and hop_s is None and (tagger is not None or labels is not None):
        joining = Joining(
            MIN_PAUSE_S if merge_gap_s is None else merge_gap_s, 0.0 if min_duration_s is None else min_duration_s
        )
        detectors, silence, remarks = _detectors(encoder, chooser, labels, threshold)
        return EventTimelines(encoder, reading, progress, detectors, joining, silence, remarks=remarks)
    if not all(option is None for option in (threshold, labels, min_duration_s, merge_gap_s)):
        raise InputError(
            f"a threshold, labels, a shortest duration and a gap apply only to events; {_why_no_events(name, tagger)}"
        )
    window_s, hop_s = WINDOW_S if window_s is None else window_s, HOP_S if hop_s is None else hop_s
    if not 0 < hop_s <= window_s:
        raise InputError(f"hop ({hop_s} s) must be positive and no longer than window ({window_s} s)")
    if window_s > encoder.window_s:
        raise InputError(
            f"window ({window_s} s) is longer than the {encoder.window_s:g} s that '{name}' encodes at once"
        )
    return NamedTimelines(encoder, reading, progress, chooser.generator, window_s, hop_s)


def _why_no_events(name: str, tagger: Tagger | None) -> str:
    return f"'{name}' has no tagger and needs labels for them" if tagger is None else "leave out the window and the hop"


def _detectors(
    encoder: RecordingEncoder, chooser: LabelChooser, labels: Sequence[str] | None, threshold: Threshold | None
) -> tuple[tuple[Detector, ...], str | None, tuple[str, ...]]:
    """The detectors of the labels, the name of silence (None if it is not a label), and sentences about labels that are
    not tags."""
    tagger = chooser.generator.model.tagger
    others: list[str] = []
    named: dict[int, str] = {}
    silence: str | None = SILENCE
    if labels is not None:
        named, others = tags_and_others(tagger, labels)
        # Silence is measured by the level, without a model.
        silence = silent_label(others)
        others = [label for label in others if label != silence]
    elif tagger is not None:
        named = named_tags(tagger, None)
    tags = tagger.vocabulary.tags if tagger is not None else ()
    tag_thresholds = {name: value for index, name in named.items() if (value := tags[index].threshold) is not None}
    if len(others) > MAX_OTHER_LABELS:
        raise InputError(f"{len(others)} labels are not tags; the language model looks for at most {MAX_OTHER_LABELS}")
    thresholds = checked_thresholds(
        threshold, MIN_EVENT_PROBABILITY, [*named.values(), *others, *filter(None, [silence])], tag_thresholds
    )
    found: list[Detector] = []
    if tagger is not None and named:
        found.append(TagDetector(encoder, tagger, named, thresholds))
    if others:
        found.append(LabelDetector(encoder, chooser, others, thresholds))
    how = f"it is detected by the language model, in parts of about {PART_S:g} s"
    remarks = tuple(f"{no_tag(tagger, label)}; {how}" for label in others) if tagger is not None else ()
    return tuple(found), silence, remarks


def _ignore(_: float) -> None: ...


@dataclass(frozen=True)
class Joining:
    """Which events of one label are joined, and which are left out.

    Attributes:
        merge_gap_s: longest pause within an event, in seconds.
        min_duration_s: shortest event, in seconds.

    Raises:
        InputError: for a number that is negative or not finite.
    """

    merge_gap_s: float = MIN_PAUSE_S
    min_duration_s: float = 0.0

    def __post_init__(self) -> None:
        for what, seconds in (("gap", self.merge_gap_s), ("shortest duration", self.min_duration_s)):
            if not 0 <= seconds < math.inf:
                raise InputError(f"the {what} must be 0 seconds or more, not {seconds:g}")


class EventJoiner:
    """Joins events of one label that touch across windows, or have a short pause between them.

    Events are given in order of their starts: an event that has ended is held back until all that began before it have
    ended.
    """

    def __init__(self, joining: Joining) -> None:
        self._joining = joining
        self._open: dict[str, Segment] = {}
        self._ended: list[Segment] = []

    def add(self, events: Iterable[Segment], end_s: float) -> list[Segment]:
        """Add the events of the next window, which ends at ``end_s``, and return the events that are complete now."""
        gap_s = self._joining.merge_gap_s
        for event in events:
            last = self._open.get(event.text)
            if last is not None and event.start_s <= last.end_s + gap_s:
                confidence = max(last.confidence, event.confidence)
                event = replace(event, start_s=last.start_s, confidence=confidence)
            elif last is not None:
                self._ended.append(last)
            self._open[event.text] = event
        for label, last in list(self._open.items()):
            if last.end_s < end_s - gap_s:
                self._ended.append(self._open.pop(label))
        return self._before(min((event.start_s for event in self._open.values()), default=math.inf))

    def finish(self) -> list[Segment]:
        """The remaining events, after the last window."""
        self._ended += self._open.values()
        self._open.clear()
        return self._before(math.inf)

    def _before(self, start_s: float) -> list[Segment]:
        """Remove and return the ended events that begin before ``start_s``."""
        complete = [event for event in self._ended if event.start_s < start_s]
        self._ended = [event for event in self._ended if event.start_s >= start_s]
        rounded = map(_rounded, complete)
        return in_order(event for event in rounded if event.end_s - event.start_s >= self._joining.min_duration_s)


def in_order(segments: Iterable[Segment]) -> list[Segment]:
    """Segments sorted by start; segments that start together are sorted by confidence, the highest first."""
    return sorted(segments, key=lambda segment: (segment.start_s, -segment.confidence))


class Detector(Protocol):
    """Detects events in windows."""

    def events(self, windows: Sequence[NDArray[np.float32]]) -> list[list[Segment]]:
        """The events of each window, in seconds from its start; the events of one label are in order of time."""


@dataclass(frozen=True)
class EventTimelines(TimelineReader):
    """Timelines of detected events, which may overlap."""

    detectors: tuple[Detector, ...]
    joining: Joining
    silence: str | None = SILENCE
    """The label of silent windows; None if silence is not an event."""

    def segments(self, source: AudioSource, notes: list[str] | None = None) -> Iterator[Segment]:
        """See :class:`TimelineReader`."""
        if notes is not None:
            notes += self.remarks
        joiner = EventJoiner(self.joining)
        rate = self.encoder.sample_rate
        is_asked = any(isinstance(detector, LabelDetector) for detector in self.detectors)
        count = ASKED_WINDOWS if is_asked else WINDOWS
        try:
            for batch in batched(self.encoder.windows(source, notes=notes, **self.reading), count):
                end_s = 0.0
                found = self._events([window_S for _, window_S in batch])
                for (start_s, window_S), events in zip(batch, found, strict=True):
                    end_s = start_s + len(window_S) / rate
                    moved = [
                        replace(each, start_s=start_s + each.start_s, end_s=start_s + each.end_s) for each in events
                    ]
                    yield from joiner.add(moved, end_s)
                self.progress(end_s)
        except AudioError:
            yield from joiner.finish()
            raise
        yield from joiner.finish()

    def _events(self, windows: Sequence[NDArray[np.float32]]) -> list[list[Segment]]:
        """The events of each window; nothing is detected in silent windows."""
        rate = self.encoder.sample_rate
        found: list[list[Segment]] = [[] for _ in windows]
        if self.silence is not None:
            found = [[Segment(0.0, len(window_S) / rate, self.silence, 1.0)] for window_S in windows]
        loud = [index for index, window_S in enumerate(windows) if sound_level_db(window_S) >= SILENCE_DB]
        for index in loud:
            found[index] = []
        for detector in self.detectors if loud else ():
            for index, events in zip(loud, detector.events([windows[index] for index in loud]), strict=True):
                found[index] += events
        return found


@dataclass(frozen=True)
class TagDetector:
    """Detects tags, frame by frame."""

    encoder: RecordingEncoder
    tagger: Tagger
    labels: Mapping[int, str]
    """Index of each tag that is looked for -> the name of its events."""
    thresholds: Mapping[str, float]
    """Label -> probability that an event has to reach in a frame."""

    def events(self, windows: Sequence[NDArray[np.float32]]) -> list[list[Segment]]:
        """See :class:`Detector`."""
        scores = self.encoder.tag_scores(self.encoder.tokens(windows))
        return [self._events(window_S, scores_TK) for window_S, scores_TK in zip(windows, scores, strict=True)]

    def _events(self, window_S: NDArray[np.float32], scores_TK: Tensor) -> list[Segment]:
        threshold_K = torch.full((len(self.tagger.vocabulary),), torch.inf)
        for index, label in self.labels.items():
            threshold_K[index] = self.thresholds[label]
        probability_TK = self.tagger.probability(scores_TK).float().cpu()
        length_s = len(window_S) / self.encoder.sample_rate
        return [
            Segment(event.start_s, event.end_s, self.labels[event.index], event.probability)
            for event in frame_events(probability_TK, threshold_K, self.encoder.frame_s, length_s)
        ]


@dataclass(frozen=True)
class LabelDetector:
    """Detects labels that are not tags, by their likelihood in parts of about :data:`PART_S` seconds."""

    encoder: RecordingEncoder
    chooser: LabelChooser
    labels: Sequence[str]
    thresholds: Mapping[str, float]
    """Label -> lowest probability in a part."""

    def events(self, windows: Sequence[NDArray[np.float32]]) -> list[list[Segment]]:
        """See :class:`Detector`."""
        found: list[list[Segment]] = [[] for _ in windows]
        parts = [(index, *part) for index, window_S in enumerate(windows) for part in self._parts(window_S)]
        rate = self.encoder.sample_rate
        encoded = self.encoder.encode([Waveform(part_S, rate) for _, _, part_S in parts])
        presence_BL = self.chooser.presence(encoded, self.labels)
        for (index, start_s, part_S), presence_L in zip(parts, presence_BL.tolist(), strict=True):
            for label, probability in zip(self.labels, presence_L, strict=True):
                if probability >= self.thresholds[label]:
                    found[index].append(Segment(start_s, start_s + len(part_S) / rate, label, probability))
        return found

    def _parts(self, window_S: NDArray[np.float32]) -> list[tuple[float, NDArray[np.float32]]]:
        """Start in seconds and samples of the parts of a window that are not silent; all parts have about the same
        length."""
        rate = self.encoder.sample_rate
        count = max(1, round(len(window_S) / (PART_S * rate)))
        edges = [round(len(window_S) * edge / count) for edge in range(count + 1)]
        parts = [(start, window_S[start:end]) for start, end in pairwise(edges)]
        return [(start / rate, part_S) for start, part_S in parts if sound_level_db(part_S) >= SILENCE_DB]


def _rounded(segment: Segment) -> Segment:
    return replace(segment, start_s=round(segment.start_s, 2), end_s=round(segment.end_s, 2))


@dataclass(frozen=True)
class NamedTimelines(TimelineReader):
    """Timelines of windows that the language model names one by one; consecutive windows with the same name are
    joined."""

    generator: TextGenerator
    window_s: float
    hop_s: float

    def segments(self, source: AudioSource, notes: list[str] | None = None) -> Iterator[Segment]:
        """See :class:`TimelineReader`; a segment ends where the next one begins."""
        rate = self.encoder.sample_rate
        blocks = stream(source, rate, notes=notes, **self.reading)
        windows = sliding(blocks, round(self.window_s * rate), round(self.hop_s * rate))
        last: Segment | None = None
        for batch in batched(windows, WINDOWS):
            named = self.name([window_S for _, window_S in batch])
            for (start, window_S), (text, confidence) in zip(batch, named, strict=True):
                # Computed from samples, so that the end of one window is exactly the start of the next.
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
        found = run(self.generator.generate(encoded, prompts, TIMELINE))
        for index, beams in zip(loud, found, strict=True):
            named[index] = (self.generator.text(beams[0]), probability_of(beams[0]))
        return named


def _joined(last: Segment | None, new: Segment) -> tuple[Segment | None, Segment]:
    """The segment that has ended, if the new one differs from it, and the segment that may still become longer.

    If windows overlap, the later one wins.
    """
    if last is None:
        return None, new
    last = replace(last, end_s=min(last.end_s, new.start_s))
    if last.text != new.text:
        return last, new
    spans = (last.end_s - last.start_s, new.end_s - new.start_s)
    confidence = (last.confidence * spans[0] + new.confidence * spans[1]) / max(sum(spans), 1e-9)
    return None, Segment(last.start_s, new.end_s, last.text, confidence)
