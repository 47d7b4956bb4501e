"""Scenes: what is known about the content of a recording. Answers of training questions follow from them.

A scene comes from a labelled clip (:func:`scene_of`), or is drawn without any audio (:mod:`pengi.data.drawing`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pengi import templates
from pengi.data.manifest import Clip
from pengi.data.phrases import Phrases
from pengi.data.tasks import COMPOSED_DOMAIN

DEFAULT_LENGTH_S = 5.0
LOUDER_DB = 6.0
"""Lowest difference in dB at which one of two sounds counts as louder."""


@dataclass(frozen=True)
class SceneEvent:
    """A sound: its start and end in seconds, and its loudness in dB relative to the other sounds."""

    tag: str
    start_s: float
    end_s: float
    level_db: float = 0.0


@dataclass(frozen=True)
class Scene:
    """What is known about the content of one recording.

    Attributes:
        duration_s: its length in seconds.
        events: all sounds that are known, in order of their starts; a tag may come several times.
        transcript: what is said; empty if nothing is, None if that is not known.
        attributes: such as instrument, pitch, genre, language, gender, keyword or digit.
        absent: tags that are certainly not there.
        captions: descriptions by people.
        qa: questions and answers of the manifest, or about what is said.
        metadata: title, tags and description.
        domain: of the manifest, such as "speech_qa"; empty where it is not known.
        is_timed: whether the times of the events are known; otherwise each lasts throughout.
        is_complete: whether there is no other sound.
        is_recorded: whether the scene is a recording; False for a drawn one.
    """

    duration_s: float
    events: tuple[SceneEvent, ...] = ()
    transcript: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    qa: tuple[tuple[str, str], ...] = ()
    metadata: str = ""
    domain: str = ""
    is_timed: bool = False
    is_complete: bool = False
    is_recorded: bool = False

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags of the events, each once, in order."""
        return tuple(dict.fromkeys(event.tag for event in self.events))

    def of(self, tag: str) -> tuple[SceneEvent, ...]:
        """The events of a tag, in order."""
        return tuple(event for event in self.events if event.tag == tag)


def scene_of(clip: Clip, phrases: Phrases) -> Scene:
    """The scene of a labelled clip.

    Composed clips have the times of each event (``Clip.times``); events of other clips last throughout. The composed
    clips' own questions are left out: the families ask the same from these times, in more wordings, and only if the
    evidence shows the answer.
    """
    length_s = clip.duration_s or DEFAULT_LENGTH_S
    events = tuple(SceneEvent(time.event, time.start_s, time.end_s, time.level_db) for time in clip.times)
    attributes = {name: str(value) for name, value in clip.attributes.items()}
    return Scene(
        duration_s=length_s,
        events=events or tuple(SceneEvent(event, 0.0, length_s) for event in clip.events),
        transcript=attributes.pop("transcript", None),
        attributes=attributes,
        absent=phrases.absent(clip.events, recorded=True) if clip.events else (),
        captions=clip.captions,
        qa=() if clip.domain == COMPOSED_DOMAIN else tuple((asked.question, asked.answer) for asked in clip.qa),
        metadata=templates.metadata_target(clip.tags, clip.title, clip.description),
        domain=clip.domain,
        is_timed=bool(events),
        is_complete=bool(events),
        is_recorded=True,
    )
