"""Simulates the evidence about a scene: tags, transcript and descriptors with realistic mistakes.

The tagger's mistakes are those on real clips: for each tag :class:`TagNoise` keeps the out-of-fold detections in clips
that have it. For each event of a scene one of these clips is drawn. So events are missed, confused and accompanied by
false alarms as often as in recordings, in the same combinations and at the same times relative to the event.

Answers still follow from the true scene, not from the simulated evidence; see :mod:`pengi.data.questions`.

Shape suffixes: N clips, K tags.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from pengi.conditioning.collect import MIN_KEPT
from pengi.conditioning.descriptors import (
    Course,
    bursts_sentence,
    level_sentence,
    note_sentence,
    pitch_sentence,
    tempo_sentence,
)
from pengi.conditioning.evidence import THROUGHOUT, DetectedTag, Evidence, separate_spans
from pengi.conditioning.notes import NOTE_NAMES
from pengi.conditioning.vocabulary import Vocabulary
from pengi.data.phrases import GENDERS, SPEAKING
from pengi.data.scenes import Scene, SceneEvent
from pengi.data.spoken import misheard, words_of
from pengi.data.tagging import GROUPS_OF_ATTRIBUTES, TagTargets

CLIPS_OF_A_TAG = 40
MIN_LIKE_PRESENT = 0.4
"""A tag that no clip has is taken from clips in which it has at least this probability and is not surely absent."""
POOLED = 400
FRAME_S = 0.48
JITTER_S = 0.25
WORD_ERRORS = (0.02, 0.05, 0.12)
# Change of a tag's log-odds in mixtures of several sounds, from its mean in recordings of one sound: with no other
# sound at the same time; with one that is 6 dB softer; by each further dB, up to 6 dB louder. The values are close to
# the means over composed training clips, out of fold (results/mixtures.json).
_AMONG_OTHERS, _MASKED, _MASKED_BY_DB = -1.0, -3.0, 0.12
_MISSED_NOTES, _WRONG_NOTES, _FALSE_NOTES = 0.1, 0.06, 0.04
_MIN_TEMPO_S = 6.0
_MIN_GAP_S = 0.12
_LEVEL_SLACK_DB = 3.0
_LOUDER_DB = 4.0
_LOUDER: tuple[Course, ...] = ("louder at the start", "louder in the middle", "louder at the end")
_INVENTED = ("you", "Thank you.", "Oh.", "Thanks for watching!", "Hmm.")
_INVENTS = 0.015
# Detections of these groups are properties of the clip that they come from. They are not added to a scene with a tag of
# the group; keywords are never added.
_EXCLUSIVE = frozenset({"speaker", "language", "instrument", "genre", "keyword"})
_SPEECH = "speech"
_SPEAKERS = {event: who.removeprefix("a ") for event, who in SPEAKING.items()} | GENDERS
_VOICES = {"man": (125.0, 22.0), "woman": (205.0, 28.0), "child": (290.0, 40.0)}
"""Mean and standard deviation of the pitch of voices in Hz (roughly, after Baken and Orlikoff 2000)."""

Spans = tuple[tuple[float, float], ...]
"""Start and end in seconds, in order of time."""


@dataclass(frozen=True)
class Detection:
    """The detection of one tag in a clip."""

    tag: int
    """Index of the tag."""
    probability: float
    spans: Spans = ()
    is_absent: bool = False
    """Whether it is known that the clip does not have the tag."""

    @property
    def extent(self) -> tuple[float, float] | None:
        """First start and last end in seconds; None if there are no times."""
        return (self.spans[0][0], self.spans[-1][1]) if self.spans else None


@dataclass(frozen=True)
class NoisyClip:
    """A clip that has a tag.

    Attributes:
        duration_s: its length in seconds.
        own: the detection of that tag.
        others: detected tags that the clip is not known to have.
    """

    duration_s: float
    own: Detection
    others: tuple[Detection, ...]


@dataclass(frozen=True)
class TagNoise:
    """What a tagger detects in clips whose tags are known.

    Attributes:
        tags: the tags' texts, K of them.
        clips: for each tag, clips that have it.
        pooled: probabilities of present tags, of all tags together; used for tags that no clip has.
    """

    tags: tuple[str, ...]
    clips: tuple[tuple[NoisyClip, ...], ...]
    pooled: tuple[float, ...]


def measure_noise(found: Sequence[Evidence], targets: TagTargets, vocabulary: Vocabulary) -> TagNoise:
    """The noise of a tagger.

    Args:
        found: its out-of-fold detections in N clips.
        targets: of the clips; clips of a large group, such as one voice, are drawn less often.
        vocabulary: K tags.
    """
    rng = np.random.default_rng(0)
    present_NK, known_NK, weight_N = targets.present_NK, targets.known_NK, targets.weights()
    index_of = {tag.text: index for index, tag in enumerate(vocabulary.tags)}
    detected = [{index_of[tag.text]: tag for tag in evidence.tags} for evidence in found]
    probabilities_NK = np.zeros(present_NK.shape, dtype=np.float32)
    for row, tags in enumerate(detected):
        probabilities_NK[row, list(tags)] = [tag.probability for tag in tags.values()]

    def detection(row: int, tag: int) -> Detection:
        spans = detected[row][tag].spans if tag in detected[row] else ()
        is_absent = bool(known_NK[row, tag] and not present_NK[row, tag])
        return Detection(tag, _rounded(probabilities_NK[row, tag]), spans, is_absent)

    @cache
    def others(row: int) -> tuple[Detection, ...]:
        return tuple(detection(row, tag) for tag in detected[row] if not present_NK[row, tag])

    clips = []
    for tag in range(len(vocabulary)):
        rows = np.flatnonzero(present_NK[:, tag])
        if not len(rows):
            rows = np.flatnonzero((probabilities_NK[:, tag] >= MIN_LIKE_PRESENT) & ~known_NK[:, tag])
        if len(rows) > CLIPS_OF_A_TAG:
            chances = weight_N[rows].astype(np.float64)
            rows = np.sort(rng.choice(rows, CLIPS_OF_A_TAG, replace=False, p=chances / chances.sum()))
        clips.append(
            tuple(
                NoisyClip(found[row].duration_s, detection(row, tag), tuple(o for o in others(row) if o.tag != tag))
                for row in rows.tolist()
            )
        )
    present = probabilities_NK[present_NK]
    pooled = rng.choice(present, min(POOLED, len(present)), replace=False) if len(present) else np.array([0.7])
    return TagNoise(
        tags=tuple(tag.text for tag in vocabulary.tags),
        clips=tuple(clips),
        pooled=tuple(_rounded(value) for value in pooled),
    )


def _rounded(probability: float) -> float:
    return round(float(probability), 6)


class Simulator:
    """Draws evidence about scenes.

    Args:
        vocabulary: the tags.
        noise: how a tagger of these tags errs.
    """

    def __init__(self, vocabulary: Vocabulary, noise: TagNoise) -> None:
        assert noise.tags == tuple(tag.text for tag in vocabulary.tags), "the noise was measured of other tags"
        self.vocabulary, self.noise = vocabulary, noise
        self._by_group = {
            (tag.group, name.casefold()): index
            for index, tag in reversed(list(enumerate(vocabulary.tags)))
            for name in (*tag.phrases, tag.text)
        }

    def evidence(self, scene: Scene, rng: random.Random) -> Evidence:
        """Simulated evidence about a scene."""
        found: dict[int, float] = {}
        spans: dict[int, list[tuple[float, float]]] = {}
        given = {GROUPS_OF_ATTRIBUTES[name] for name in scene.attributes if name in GROUPS_OF_ATTRIBUTES}
        for index, events in self._present(scene).items():
            masking = _masking(events, scene) if scene.is_timed else 0.0
            times = _jittered(events, scene.duration_s, rng)
            clip = self._like(index, rng)
            within, windows = (clip.own.extent or (0.0, clip.duration_s)), times
            if _is_one_event(scene):  # the scene corresponds to the whole clip
                within, windows = (0.0, clip.duration_s), [(0.0, scene.duration_s)]
                times = _moved(clip.own.spans, within, windows, scene.duration_s) or times
            found[index] = max(found.get(index, 0.0), _shifted(clip.own.probability, masking))
            spans[index] = times
            for other in clip.others:
                shifted = _shifted(other.probability, 0.5 * masking)
                moved = _moved(other.spans, within, windows, scene.duration_s)
                if moved and shifted > found.get(other.tag, 0.0) and self._may_join(other, given):
                    found[other.tag] = shifted
                    spans.setdefault(other.tag, moved)
        tags = [self._tag(index, found[index], spans[index]) for index in found if found[index] >= MIN_KEPT]
        return Evidence(
            duration_s=scene.duration_s,
            tags=tuple(sorted(tags, key=lambda tag: -tag.probability)),
            transcript=_recognised(scene, rng),
            descriptors=_described(scene, rng),
        )

    def _present(self, scene: Scene) -> dict[int, list[SceneEvent]]:
        """The tags that a scene has, each with its events."""
        present: dict[int, list[SceneEvent]] = {}
        spoken = []
        for event in scene.events:
            index = self.vocabulary.index(event.tag)
            if index is not None:
                present.setdefault(index, []).append(event)
            if _is_speech(event):
                spoken.append(event)
        if spoken and (index := self._by_group.get(("sound", _SPEECH))) is not None:
            present[index] = spoken
        for name, value in scene.attributes.items():
            group = GROUPS_OF_ATTRIBUTES.get(name)
            index = self._by_group.get((group, value.casefold())) if group else None
            if index is not None and index not in present:
                present[index] = spoken or list(scene.events)
        return present

    def _like(self, index: int, rng: random.Random) -> NoisyClip:
        """A random clip that has a tag; if there is none, an artificial one with the tag alone."""
        if not self.noise.clips[index]:
            return NoisyClip(1.0, Detection(index, rng.choice(self.noise.pooled)), ())
        return rng.choice(self.noise.clips[index])

    def _may_join(self, other: Detection, given: set[str]) -> bool:
        """Whether a further detection of an event's clip may be added without contradicting the scene."""
        group = self.vocabulary.tags[other.tag].group
        return other.is_absent or group not in _EXCLUSIVE or not (group in given or group == "keyword")

    def _tag(self, index: int, probability: float, times: list[tuple[float, float]]) -> DetectedTag:
        tag = self.vocabulary.tags[index]
        return DetectedTag(tag.text, tag.group, probability, tuple(times))


def _is_speech(event: SceneEvent) -> bool:
    return event.tag == _SPEECH or event.tag.endswith(" speaking")


def _is_one_event(scene: Scene) -> bool:
    """Whether a scene is one event and hardly anything else."""
    return len(scene.events) == 1 and (scene.events[0].end_s - scene.events[0].start_s >= THROUGHOUT * scene.duration_s)


def _shifted(probability: float, log_odds: float) -> float:
    probability = min(max(probability, 1e-6), 1.0 - 1e-6)
    return 1.0 / (1.0 + math.exp(-math.log(probability / (1.0 - probability)) - log_odds))


def _masking(events: Sequence[SceneEvent], scene: Scene) -> float:
    """Change of a tag's log-odds, at most 0, because of the other events of a scene."""
    loudest = max(events, key=lambda event: event.level_db)
    over = [
        other.level_db
        for other in scene.events
        if other.tag != loudest.tag and other.start_s < loudest.end_s - 0.2 and other.end_s > loudest.start_s + 0.2
    ]
    if over:
        return _MASKED - _MASKED_BY_DB * min(max(max(over) - loudest.level_db + 6.0, 0.0), 12.0)
    return _AMONG_OTHERS if len(scene.tags) > 1 else 0.0


def _jittered(events: Sequence[SceneEvent], duration_s: float, rng: random.Random) -> list[tuple[float, float]]:
    """Times at which events are detected: slightly shifted, on the grid of the tagger's frames, close ones merged."""
    times: list[tuple[float, float]] = []
    for event in sorted(events, key=lambda event: event.start_s):
        start_s = max(0.0, _on_grid(event.start_s + rng.gauss(0.0, JITTER_S)))
        end_s = min(duration_s, max(_on_grid(event.end_s + rng.gauss(0.0, JITTER_S)), start_s + FRAME_S))
        if end_s <= start_s:
            continue
        if times and start_s <= times[-1][1] + FRAME_S / 2:
            times[-1] = (times[-1][0], max(end_s, times[-1][1]))
        else:
            times.append((start_s, end_s))
    return times


def _moved(
    spans: Spans, within: tuple[float, float], windows: Sequence[tuple[float, float]], duration_s: float
) -> list[tuple[float, float]]:
    """Spans of a clip, moved into a scene.

    The stretch ``within`` of the clip is mapped linearly to each window of the scene. Times outside it keep their
    distance to it in seconds. So tags that are detected by mistake often have other times than the event, as in
    recordings.

    Args:
        spans: start and end in the clip, in seconds.
        within: start and end of a stretch of the clip.
        windows: stretches of the scene.
        duration_s: length of the scene.
    """
    moved = []
    for window in windows:
        for start_s, end_s in spans:
            first_s, last_s = (_on_grid(_shifted_time(time_s, within, window)) for time_s in (start_s, end_s))
            inside = max(0.0, first_s), min(duration_s, max(last_s, first_s + FRAME_S))
            if inside[0] < inside[1]:
                moved.append(inside)
    return separate_spans(sorted(moved))


def _shifted_time(time_s: float, within: tuple[float, float], window: tuple[float, float]) -> float:
    (first_s, last_s), (start_s, end_s) = within, window
    if time_s < first_s:
        return start_s - (first_s - time_s)
    if time_s > last_s:
        return end_s + (time_s - last_s)
    return start_s + (time_s - first_s) / (last_s - first_s) * (end_s - start_s)


def _on_grid(time_s: float) -> float:
    return round(round(time_s / FRAME_S) * FRAME_S, 2)


def _recognised(scene: Scene, rng: random.Random) -> str | None:
    """Simulated transcript of an English transcriber; for other languages a wrong or an empty one."""
    if not any(map(_is_speech, scene.events)):
        return rng.choice(_INVENTED) if rng.random() < _INVENTS else ""
    if scene.attributes.get("language", "English") != "English":
        return "" if rng.random() < 0.4 else misheard(rng.choice(_INVENTED) + " " + rng.choice(_INVENTED), 0.5, rng)
    if not scene.transcript:
        return None if scene.transcript is None else ""
    if len(words_of(scene.transcript)) == 1:  # single words are often missed
        word = f"{scene.transcript[:1].upper()}{scene.transcript[1:]}."
        draw = rng.random()
        return "" if draw < 0.3 else word if draw < 0.65 else misheard(word, 1.0, rng)
    return misheard(scene.transcript, rng.choice(WORD_ERRORS), rng) if rng.random() < 0.6 else scene.transcript


def _described(scene: Scene, rng: random.Random) -> tuple[str, ...]:
    """Simulated descriptors: level, bursts, notes or pitch, and tempo."""
    sentences = [level_sentence(_level_db(scene, rng), _course(scene, rng))]
    if bursts := _bursts(scene, rng):
        sentences.append(bursts_sentence(bursts))
    if notes := _notes(scene, rng):
        sentences.append(note_sentence(notes, _hz(notes[0]) if len(notes) == 1 else None))
    elif (pitch := _moving_pitch(scene, rng)) is not None:
        sentences.append(pitch_sentence(pitch))
    if "genre" in scene.attributes and scene.duration_s >= _MIN_TEMPO_S and rng.random() < 0.5:
        sentences.append(tempo_sentence(rng.uniform(60.0, 180.0)))
    return tuple(sentences)


def _moving_pitch(scene: Scene, rng: random.Random) -> float | None:
    """Pitch of the speaker's voice in Hz; without one speaker None, or sometimes a random pitch."""
    speakers = {_SPEAKERS[event.tag] for event in scene.events if event.tag in _SPEAKERS}
    speakers |= {_SPEAKERS[name] for name in (scene.attributes.get("gender", ""),) if name in _SPEAKERS}
    if len(speakers) == 1 and rng.random() < 0.9:
        middle, spread = _VOICES[speakers.pop()]
        return max(70.0, rng.gauss(middle, spread))
    return math.exp(rng.uniform(math.log(80.0), math.log(1500.0))) if rng.random() < 0.25 else None


def _level_db(scene: Scene, rng: random.Random) -> float:
    return rng.uniform(-72.0, -52.0) if not scene.events else min(-6.0, rng.gauss(-26.0, 9.0))


def _course(scene: Scene, rng: random.Random) -> Course | None:
    """How the level changes, by the levels of the events; random for a scene without times."""
    if scene.duration_s < 1.0:
        return None
    if not scene.is_timed:
        return rng.choice((None, None, None, "steady", "fading", *_LOUDER))
    ninth_s = scene.duration_s / 9
    levels = []
    for part in range(9):
        there = [
            event.level_db
            for event in scene.events
            if event.start_s < (part + 0.75) * ninth_s and event.end_s > (part + 0.25) * ninth_s
        ]
        levels.append(max(there, default=-40.0) + rng.gauss(0.0, 1.0))
    if max(levels) - min(levels) < 3.0 + _LEVEL_SLACK_DB:
        return "steady"
    thirds = [max(levels[start : start + 3]) for start in (0, 3, 6)]
    loudest = thirds.index(max(thirds))
    return _LOUDER[loudest] if thirds[loudest] - sorted(thirds)[1] >= _LOUDER_DB else None


def _bursts(scene: Scene, rng: random.Random) -> list[tuple[float, float]]:
    """Separate bursts as (start, end) in seconds, several for some long sounds; none if a sound covers others."""
    lasting = [event for event in scene.events if event.end_s - event.start_s > 0.8 * scene.duration_s]
    if not scene.is_timed or not scene.events or (lasting and len(scene.events) > 1) or rng.random() < 0.3:
        return []
    bursts: list[tuple[float, float]] = []
    for event in scene.events:
        length_s = event.end_s - event.start_s
        if length_s > 1.5 and rng.random() < 0.5:  # a longer sound may have pauses of its own
            parts = rng.randint(2, 2 + int(length_s))
            step_s = length_s / parts
            bursts += [(event.start_s + step_s * part, event.start_s + step_s * (part + 0.7)) for part in range(parts)]
        elif bursts and event.start_s < bursts[-1][1] + _MIN_GAP_S:
            bursts[-1] = (bursts[-1][0], max(event.end_s, bursts[-1][1]))
        else:
            bursts.append((event.start_s, event.end_s))
    return sorted(bursts)


def _notes(scene: Scene, rng: random.Random) -> list[str]:
    """The notes as they are measured; sometimes one is missed, wrong, or found where none is played."""
    notes = scene.attributes.get("notes", scene.attributes.get("pitch", ""))
    if not notes:
        return [f"{rng.choice(NOTE_NAMES)}{rng.randint(3, 6)}"] if scene.events and rng.random() < _FALSE_NOTES else []
    return [] if rng.random() < _MISSED_NOTES else [_measured(_sharp(note), rng) for note in notes.split(", ")]


def _sharp(note: str) -> str:
    """A note as measurements name it: "F#4" for "Gb4"."""
    return f"{NOTE_NAMES[NOTE_NAMES.index(note[0]) - 1]}{note[2:]}" if note[1] == "b" else note


def _measured(note: str, rng: random.Random) -> str:
    """A note as it is measured, sometimes an octave or a semitone off."""
    if rng.random() >= _WRONG_NOTES:
        return note
    name, octave = note[:-1], int(note[-1])
    if rng.random() < 0.5:
        return f"{name}{octave + rng.choice((-1, 1))}"
    return f"{NOTE_NAMES[(NOTE_NAMES.index(name) + rng.choice((-1, 1))) % len(NOTE_NAMES)]}{octave}"


def _hz(note: str) -> float:
    """Pitch of a note; A4 is 440 Hz."""
    semitones = NOTE_NAMES.index(note[:-1]) + 12 * (int(note[-1]) + 1) - 69
    return float(440.0 * 2.0 ** (semitones / 12))
