"""The results of the engine: frozen dataclasses that can be converted to JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

T = TypeVar("T")

SILENCE = "silence"
"""The event and the label of a silent recording."""
NONE_DETECTED = "The recording is silent: none of the labels is detected."
"""The text of a :class:`Classification` of silence if no label means silence."""
NONE_OF_THESE = "none of these"
"""The label of a recording for which none of the given labels is right."""


@dataclass(frozen=True)
class Result:
    """Base class of the results."""

    def to_dict(self) -> dict[str, object]:
        """The record as JSON values; times in seconds, confidences and probabilities in [0, 1]."""
        return asdict(self)


class RecordingResult(Result):
    """Base class of the results about one recording. It is not a dataclass, so that ``notes`` is the last field of
    each."""

    notes: tuple[str, ...]
    """Sentences about how the recording was read, such as which part of it is missing."""

    def to_dict(self) -> dict[str, object]:
        """See :class:`Result`; ``notes`` and ``explanation`` are left out if there are none."""
        optional = ("notes", "explanation")
        return {name: value for name, value in super().to_dict().items() if name not in optional or value}


@dataclass(frozen=True)
class TagScore(Result):
    """A tag of a recording.

    Attributes:
        label: its name.
        group: the kind of tag, such as "sound", "instrument" or "language".
        probability: the calibrated probability that it is in the recording; for a long recording, in its best part.
        strength: the word that the language model reads for the probability: "sure", "likely", "maybe", "unlikely",
            "doubtful", "hardly" or "no".
        spans: when it is detected, start and end in seconds; empty if it is not detected.
    """

    label: str
    group: str
    probability: float
    strength: str
    spans: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Explanation(Result):
    """What an answer is based on.

    Attributes:
        tags: the tags that the language model read, the likeliest first, and then the tags that the prompt names.
        transcript: what is said; empty if nothing is said, None if the recording was not transcribed.
        descriptors: sentences about measured properties.
        prompt: the text that the language model read, with "[audio: 8 embeddings]" in place of the audio prefix; None
            if the language model was not asked.
    """

    tags: tuple[TagScore, ...] = ()
    transcript: str | None = None
    descriptors: tuple[str, ...] = ()
    prompt: str | None = None


@dataclass(frozen=True)
class Event:
    """A sound event and its probability; without a tagger, the probability that the model names it."""

    label: str
    confidence: float


@dataclass(frozen=True)
class Description(RecordingResult):
    """A caption, and the sound events, the most probable first."""

    text: str
    events: tuple[Event, ...]
    duration_s: float
    explanation: Explanation | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer(RecordingResult):
    """The answer to a question, with the probability of exactly this wording."""

    question: str
    text: str
    confidence: float
    explanation: Explanation | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScoredText:
    """A text and its mean natural log-probability per token, including the stop token."""

    text: str
    score: float


@dataclass(frozen=True)
class Generation(RecordingResult):
    """The texts that the model generates after a prompt, one for each beam, the best first."""

    prompt: str
    texts: tuple[ScoredText, ...]
    explanation: Explanation | None = None
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The best text."""
        return self.texts[0].text


@dataclass(frozen=True)
class LabelScore:
    """A label and its share among the labels asked for.

    Attributes:
        label: as it was given.
        probability: its share; those of all labels add up to 1.
        independent: the probability that it is there, independent of the other labels; None if not requested.
    """

    label: str
    probability: float
    independent: float | None = None


@dataclass(frozen=True)
class Classification(RecordingResult):
    """Labels, the best first.

    ``text`` is the generated text if the method generates one, and ``prompt`` the prompt for the labels if the language
    model was asked.

    If the recording is silent, a label that means silence has the probability 1. Without such a label all
    probabilities are 0, and ``detected`` is False.
    """

    method: str
    scores: tuple[LabelScore, ...]
    text: str | None = None
    detected: bool = True
    prompt: str | None = None
    explanation: Explanation | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """See :class:`RecordingResult`; ``prompt`` and ``independent`` are left out if there are none."""
        scores = [{name: value for name, value in asdict(score).items() if value is not None} for score in self.scores]
        found = super().to_dict() | {"scores": scores}
        return {name: value for name, value in found.items() if name != "prompt" or value}

    @property
    def label(self) -> str:
        """The best label, or "silence" if none is detected."""
        return self.scores[0].label if self.detected else SILENCE


@dataclass(frozen=True)
class Tags(RecordingResult):
    """Tags of a recording, the likeliest first."""

    tags: tuple[TagScore, ...]
    duration_s: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Segment(Result):
    """A stretch of a recording in which one thing is detected. Segments of a timeline may overlap."""

    start_s: float
    end_s: float
    text: str
    confidence: float


@dataclass(frozen=True)
class Timeline(RecordingResult):
    """The segments of a recording, in order of time."""

    segments: tuple[Segment, ...]
    duration_s: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TranscriptWord(Result):
    """A word and when it is said."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class TranscriptSegment(Result):
    """What is said in a stretch of a recording."""

    start_s: float
    end_s: float
    text: str
    words: tuple[TranscriptWord, ...] = ()


@dataclass(frozen=True)
class Transcript(RecordingResult):
    """A transcript; without segments and with an empty text if nobody speaks."""

    text: str
    segments: tuple[TranscriptSegment, ...]
    duration_s: float
    notes: tuple[str, ...] = ()


def with_notes(result: T, notes: Iterable[str]) -> T:
    """A result with further notes; anything that is not a :class:`RecordingResult`, such as a vector, is returned
    unchanged."""
    said = tuple(notes)
    if said and isinstance(result, RecordingResult):
        answer: Any = result  # a dataclass, as every subclass is
        noted: T = replace(answer, notes=result.notes + said)
        return noted
    return result
