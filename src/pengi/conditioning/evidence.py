"""Evidence: tags, transcript and measurements of a recording, and their text for the language model.

    Heard in 5 s: dog barking (sure, 1-2 and 3-4 s), wind (maybe, throughout). Instrument: clarinet (likely).
    Said: "Come here.". Level -23 dBFS, louder at the start. Note C4 (262 Hz).
    Asked about: dog barking (sure, 1-2 and 3-4 s), then siren (likely, 4-5 s), rain (no).

The first two lines are the same for every question; the most probable tags come first. The last line belongs to one
question. It lists the tags that the question names in the order in which they begin, and says whether each follows or
overlaps the one before, so that the language model need not compare times. For "what is heard first?" or "what comes
after the siren?" it begins with "In order" and lists the most probable tags.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from pengi.conditioning.vocabulary import Tag, Vocabulary
from pengi.config import EvidenceConfig

MAYBE = 0.1
"""Lowest probability at which an answer may name a tag that the question does not name."""
STRENGTHS = (
    (0.7, "sure"),
    (0.4, "likely"),
    (MAYBE, "maybe"),
    (0.03, "unlikely"),
    (0.008, "doubtful"),
    (0.002, "hardly"),
)
"""Lowest calibrated probability of each strength word. Most tags are rare, so a sound that a question names may be
present with a probability of only 0.01; therefore even such low values have different words."""
SOUND = "sound"
GROUPS = {
    SOUND: "Heard",
    "speaker": "Speaker",
    "keyword": "Word",
    "language": "Language",
    "instrument": "Instrument",
    "genre": "Genre",
}
"""Group of tags -> its name in the text, in the order of the text. Other groups follow, with capitalised names."""
THROUGHOUT = 0.85
"""A tag that covers at least this share of a recording is written as ``throughout``."""
MIN_TIMED_S = 2.0
"""Times are written only for longer recordings."""
DECIMALS_BELOW_S = 3.0
MAX_SPANS = 3
MAX_ALIKE = 3
"""Maximum number of tags of one group with the same times; more are written only if there is room left."""
MIN_PAUSE_S = 0.5
"""Spans of a tag with a shorter pause between them are merged; about one frame of the tagger."""
# Tags whose names mean something else in most questions: "in this file", "when does it run", "write a caption".
_OTHER_MEANINGS = frozenset(
    {"filing", "run", "tap", "roll", "hands", "inside", "outside", "scratch", "noise", "pulse", "echo", "writing"}
)
_OTHER_THAN_MUSIC = frozenset({"country", "song", "jingle"})
_ABOUT_WORDS = re.compile(
    r"\b(?:say|says|said|saying|words?|spoken|digits?|numbers?|mention(?:s|ed)?|commands?)\b", re.IGNORECASE
)
_ABOUT_ORDER = re.compile(
    r"\b(?:first|last|begin\w*|start\w*|opens|end(?:s|ed|ing)?|final\w*|closes|earl\w+|latest|initial\w*|after\w*|before"
    r"|next|follow\w*|preced\w*|then|order|sequence|finish\w*|conclu\w+)\b",
    re.IGNORECASE,
)
_WITHOUT_ORDER = frozenset({"keyword", "language"})
MAX_ORDERED = 8
"""Maximum number of tags in the line for a question about the order of sounds."""
MAX_ORDERED_ALIKE = 3
"""Maximum number of those that have the same group and times."""
OVERLAP_S = 0.3
"""Tags whose spans overlap by more than this are written as simultaneous."""


@dataclass(frozen=True, slots=True)
class DetectedTag:
    """A tag, its calibrated probability, and the stretches in which it is detected, in seconds."""

    text: str
    group: str
    probability: float
    spans: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Evidence:
    """Tags, transcript and measurements of one recording.

    Attributes:
        duration_s: its length in seconds.
        tags: of all groups, the most probable first; a tag that is missing is improbable.
        transcript: what is said; empty if nothing is, None if no transcriber ran.
        descriptors: finished sentences about level, pitch and tempo.
        is_tagged: whether a tagger ran; False for a model without one.
    """

    duration_s: float
    tags: tuple[DetectedTag, ...] = ()
    transcript: str | None = None
    descriptors: tuple[str, ...] = ()
    is_tagged: bool = True

    def written(self, config: EvidenceConfig) -> tuple[DetectedTag, ...]:
        """The tags that :func:`evidence_text` writes, the most probable first.

        Several tags may name one sound. Tags of the same group and times beyond the first :data:`MAX_ALIKE` are chosen
        last, so that they do not crowd out other sounds.
        """
        likely = sorted(
            (tag for tag in self.tags if tag.probability >= config.min_probability), key=lambda tag: -tag.probability
        )
        chosen, others = _without_alike(likely, self.duration_s, MAX_ALIKE)
        return tuple(sorted([*chosen, *others][: config.max_tags], key=lambda tag: -tag.probability))


def _without_alike(
    tags: Sequence[DetectedTag], duration_s: float, max_alike: int
) -> tuple[list[DetectedTag], list[DetectedTag]]:
    """Up to ``max_alike`` tags of each group and times, and the others."""
    alike: Counter[tuple[str, str]] = Counter()
    chosen: list[DetectedTag] = []
    others: list[DetectedTag] = []
    for tag in tags:
        key = (tag.group, spans_text(tag.spans, duration_s))
        alike[key] += 1
        (chosen if alike[key] <= max_alike else others).append(tag)
    return chosen, others


def strength(probability: float) -> str:
    """The word for a calibrated probability."""
    return next((word for lowest, word in STRENGTHS if probability >= lowest), "no")


def evidence_text(evidence: Evidence, config: EvidenceConfig) -> str:
    """The text that the language model reads about a recording."""
    groups: dict[str, list[str]] = {group: [] for group in GROUPS}
    for tag in evidence.written(config):
        groups.setdefault(tag.group, []).append(_detected(tag, evidence.duration_s))
    sounds = ", ".join(groups.pop(SOUND))
    others = [_listed(group, tags) for group, tags in groups.items() if tags]
    if evidence.is_tagged and not sounds and not others:
        sounds = "nothing clear"
    first = f"{GROUPS[SOUND]} in {seconds(evidence.duration_s)} s" + (f": {sounds}" if sounds else "")
    sentences = [f"{first}.", *others]
    if config.transcript and evidence.transcript is not None:
        sentences.append(f'Said: "{evidence.transcript}".' if evidence.transcript else "Nothing is said.")
    if config.descriptors:
        sentences += evidence.descriptors
    return " ".join(sentences)


def _listed(group: str, tags: Sequence[str]) -> str:
    return f"{GROUPS.get(group, group.capitalize())}: {', '.join(tags)}."


def queried_tags(
    evidence: Evidence, vocabulary: Vocabulary, prompt: str, labels: Sequence[str] = ()
) -> tuple[DetectedTag, ...]:
    """The tags that a prompt and labels name, each once; a tag that is not in the evidence has probability 0.

    If a prompt asks about an order and names at most one tag, the most probable tags are added. The result is sorted by
    the tags' first start; tags without times come last, in the order in which they are named. Keywords such as "no"
    and "on" count only if the text asks about words.
    """
    return _queried(evidence, vocabulary, prompt, labels)[0]


def _queried(
    evidence: Evidence, vocabulary: Vocabulary, prompt: str, labels: Sequence[str]
) -> tuple[tuple[DetectedTag, ...], bool]:
    """See :func:`queried_tags`; and whether the most probable tags were added."""
    detected = {tag.text: tag for tag in evidence.tags}
    named = [tag for text in (prompt, *labels) for tag in _named(vocabulary, text)]
    found = dict.fromkeys(detected.get(tag.text, DetectedTag(tag.text, tag.group, 0.0)) for tag in named)
    probable = _ordered(evidence) if len(found) < 2 and _ABOUT_ORDER.search(prompt) else ()
    return tuple(sorted(found | dict.fromkeys(probable), key=_onset)), bool(probable)


def _ordered(evidence: Evidence) -> Sequence[DetectedTag]:
    """The most probable tags with times, if there are several."""
    timed = [tag for tag in evidence.tags if tag.probability >= MAYBE and tag.spans and tag.group not in _WITHOUT_ORDER]
    if len(timed) < 2 or evidence.duration_s <= MIN_TIMED_S:
        return ()
    return _without_alike(timed, evidence.duration_s, MAX_ORDERED_ALIKE)[0][:MAX_ORDERED]


def _named(vocabulary: Vocabulary, text: str) -> list[Tag]:
    about_words = _ABOUT_WORDS.search(text) is not None
    ignored = _OTHER_MEANINGS | (frozenset() if "music" in text.casefold() else _OTHER_THAN_MUSIC)
    named = [vocabulary.tags[index] for index in vocabulary.find(text)]
    return [tag for tag in named if (about_words or tag.group != "keyword") and tag.text not in ignored]


def queried_prompt(evidence: Evidence, vocabulary: Vocabulary, prompt: str, labels: Sequence[str] = ()) -> str:
    """The prompt for the language model: the line about the tags that the prompt or a label names, then the prompt."""
    tags, is_order = _queried(evidence, vocabulary, prompt, labels)
    return queried_text(tags, evidence.duration_s, is_order) + prompt


def queried_text(tags: Sequence[DetectedTag], duration_s: float, is_order: bool = False) -> str:
    """The line about the tags that a prompt names, however improbable; empty if there are none.

    Args:
        tags: see :func:`queried_tags`.
        duration_s: length of the recording in seconds.
        is_order: whether these are the most probable tags, because the prompt asks about their order.
    """
    if not tags:
        return ""
    listed = _detected(tags[0], duration_s, 0.0)
    for earlier, later in pairwise(tags):
        listed += _relation(earlier, later, duration_s) + _detected(later, duration_s, 0.0)
    return f"{'In order' if is_order else 'Asked about'}: {listed}.\n"


def _relation(earlier: DetectedTag, later: DetectedTag, duration_s: float) -> str:
    """The text between two tags: says whether they overlap or follow one another, if times are written."""
    overlapping_s = overlap_s(earlier.spans, later.spans)
    if overlapping_s is None or duration_s <= MIN_TIMED_S:
        return ", "
    return ", together with " if overlapping_s > OVERLAP_S else ", then "


def overlap_s(spans: Sequence[tuple[float, float]], others: Sequence[tuple[float, float]]) -> float | None:
    """The longest overlap of a span of each tag in seconds; if none overlap, minus the shortest pause between them.
    None if one of the tags has no spans."""
    if not spans or not others:
        return None
    return max(
        min(end_s, other_end_s) - max(start_s, other_start_s)
        for start_s, end_s in spans
        for other_start_s, other_end_s in others
    )


def _onset(tag: DetectedTag) -> float:
    """Start of a tag in seconds; infinity for a tag without times."""
    return tag.spans[0][0] if tag.spans else math.inf


def seconds(duration_s: float) -> str:
    """A length as it is written: whole seconds, or one decimal below :data:`DECIMALS_BELOW_S`."""
    return f"{duration_s:.1f}" if duration_s < DECIMALS_BELOW_S else f"{duration_s:.0f}"


def _detected(tag: DetectedTag, duration_s: float, min_timed: float = MAYBE) -> str:
    """``dog barking (sure, 0-1 and 3-4 s)``; times are written if the probability is at least ``min_timed``."""
    when = spans_text(tag.spans, duration_s) if tag.probability >= min_timed else ""
    return f"{tag.text} ({strength(tag.probability)}{', ' + when if when else ''})"


def spans_text(spans: Sequence[tuple[float, float]], duration_s: float) -> str:
    """``0-1 and 3-4 s``, ``throughout``, or empty if there are no spans or the recording is too short for times.

    Args:
        spans: start and end in seconds, in order, without overlap.
        duration_s: length of the recording in seconds.
    """
    if not spans or duration_s <= MIN_TIMED_S:
        return ""
    if sum(end_s - start_s for start_s, end_s in spans) >= THROUGHOUT * duration_s:
        return "throughout"
    times = [_span(start_s, end_s, duration_s) for start_s, end_s in separate_spans(spans)]
    times = list(dict.fromkeys(times))
    more = len(times) - MAX_SPANS
    if more > 0:
        return f"{', '.join(times[:MAX_SPANS])} s and {more} more"
    return " and ".join(filter(None, [", ".join(times[:-1]), times[-1]])) + " s"


def separate_spans(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Merge spans with a pause of at most :data:`MIN_PAUSE_S` between them; they must be in order of time."""
    separate: list[tuple[float, float]] = []
    for start_s, end_s in spans:
        if separate and start_s <= separate[-1][1] + MIN_PAUSE_S:
            separate[-1] = (separate[-1][0], max(end_s, separate[-1][1]))
        else:
            separate.append((start_s, end_s))
    return separate


def _span(start_s: float, end_s: float, duration_s: float) -> str:
    if duration_s < DECIMALS_BELOW_S:
        return f"{start_s:.1f}-{end_s:.1f}"
    first = min(int(start_s + 0.5), max(0, int(duration_s + 0.5) - 1))
    return f"{first}-{max(first + 1, int(end_s + 0.5))}"
