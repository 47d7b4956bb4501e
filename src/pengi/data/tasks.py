"""Closed tasks: each asks about a clip with the prompt of its name in :data:`pengi.templates.PROMPTS`.

The right answers are labels of the clip (:func:`answers_of`). A :class:`Pair` is one training example.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pengi.data.manifest import Clip, Label

SPEECH_DOMAINS = frozenset({"keyword", "digit", "language", "gender", "emotion", "speech_qa"})
MUSIC_DOMAINS = frozenset({"music", "instrument"})
SOUND_DOMAINS = frozenset({"environment", "animal", "human", "sfx", "scene"})
COMPOSED_DOMAIN = "composed"
"""Domain of clips that are composed of several recordings, see :mod:`pengi.data.compose`."""
ATTRIBUTE_TASKS = (
    "digit",
    "keyword",
    "gender",
    "language",
    "instrument",
    "velocity",
    "emotion",
    "genre",
    "sentiment",
)
"""Closed tasks whose right answer is the attribute of that name."""
CLOSED_TASKS = ("events", "scene", *ATTRIBUTE_TASKS)


@dataclass(frozen=True)
class Pair:
    """One training example about a clip."""

    task: str
    prompt: str
    target: str


def answers_of(clip: Clip, field: str) -> tuple[str, ...]:
    """The labels of a clip in a field: "events", "scene", or an attribute (``"a*"`` if its value lists several)."""
    if field == "events":
        return clip.events
    if field == "scene":
        return clip.events if clip.domain == "scene" else ()
    value = clip.attributes.get(field.rstrip("*"))
    if value is None or value == "":
        return ()
    return tuple(str(value).split(", ")) if field.endswith("*") else (str(value),)


def labels_of(clips: Iterable[Clip], known: Mapping[str, Label]) -> dict[str, Label]:
    """The wording of every event label of the clips; a label without a wording is its own phrase."""
    events = sorted({event for clip in clips for event in clip.events} - known.keys())
    plain = {name: Label(label=name, phrase=name, sentence=f"The sound of {name}.") for name in events}
    return {**known, **plain}
