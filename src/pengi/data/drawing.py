"""Draws random scenes without audio, from captions that people wrote or from the tags of a vocabulary.

A scene is a function of the seed and its number.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from pengi.conditioning.vocabulary import Tag, Vocabulary, word_stems
from pengi.data.manifest import Clip, json_row, numbered_lines
from pengi.data.phrases import GENDERS, SPEAKING, Phrases, tag_tables
from pengi.data.scenes import Scene, SceneEvent
from pengi.data.spoken import draw_spoken, together, words_of
from pengi.errors import ManifestError

_TRIES = 40
ENGLISH = "English"
_FOREGROUND = frozenset({"animal", "human", "household", "impact", "weapon", "alarm", "vehicle", "nature", "tools"})
_GENDERS = {f"{who} speaking": gender for gender, who in GENDERS.items()}
_WORDS_PER_S = 2.6
_NOTES = tuple(
    f"{name}{octave}"
    for octave in range(2, 7)
    for name in ["C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"]
)
_MAX_CAPTION_WORDS = 20
_THEN = re.compile(r"\b(?:and then|then|followed by|and finally)\b", re.IGNORECASE)
_SPEAKS = re.compile(r"\b(?:speak|talk|speech|convers|narrat|sa(?:ys|id))", re.IGNORECASE)
_HUMAN = re.compile(
    r"\b(?:people|person|someone|voice|crowd|men|women|kids|children|boys?|girls?|adults?|sing|vocal)", re.IGNORECASE
)
# Word stems of captions about properties that evidence does not show.
_UNSHOWN = frozenset(
    word_stems(
        "loudly loud softly quietly quiet faintly faint distant distance far nearby near close away "
        "background foreground outside inside outdoors indoors repeatedly several multiple many few small "
        "large big tiny heavy old young elderly adult teenage deep high low pitched fast slow slowly "
        "quickly rapidly rhythmically happily angrily excited sad happy microphone camera room street field "
        "park kitchen car's someone's various different other another same more two three four five group "
        "pair medium suddenly continuously intermittently occasionally briefly again eventually finally "
        "ongoing lightly gently heavily foreign language spanish english russian german french asian native "
        "past passes by approaches up down"
    )
)
_FUNCTION_WORDS = frozenset(
    word_stems(
        "a an the and or of in on at to with as while is are was be being it its his her their some sound "
        "sounds noise noises can heard hear then followed finally by after before there during from over "
        "into for that which this together occurs occur speaks talks speaking talking male female going "
        "goes plays playing present makes making made place taking it's someone something person"
    )
)


@dataclass(frozen=True)
class Sources:
    """What scenes are drawn from.

    Attributes:
        captions: that people wrote about recordings.
        transcripts: English sentences.
        languages: other languages that may be spoken.
        keywords: single words that may be said.
        pitched: instruments that play notes.
    """

    captions: tuple[str, ...] = ()
    transcripts: tuple[str, ...] = ()
    languages: tuple[str, ...] = ("French", "German", "Spanish", "Italian", "Russian")
    keywords: tuple[str, ...] = ("yes", "no", "stop", "go", "left", "right")
    pitched: tuple[str, ...] = ("piano", "violin", "flute", "guitar")


def read_captions(path: Path) -> tuple[str, ...]:
    """Descriptions of recordings, one JSON object a line with the field ``text``.

    Raises:
        ManifestError: if the file is missing or a line is no such object.
    """
    captions = []
    for number, line in numbered_lines(path):
        origin = f"{path}, line {number}"
        text = json_row(line, origin).get("text")
        if not isinstance(text, str):
            raise ManifestError(f"{origin}: the field 'text' must be a text")
        captions.append(text)
    return tuple(captions)


def sources_of(clips: Sequence[Clip], captions: Sequence[str], vocabulary: Vocabulary) -> Sources:
    """What scenes are drawn from, given the training clips."""

    def values(*names: str) -> tuple[str, ...]:
        found = {str(clip.attributes[name]) for clip in clips for name in names if name in clip.attributes}
        return tuple(sorted(found))

    transcripts = {
        str(clip.attributes["transcript"])
        for clip in clips
        if "transcript" in clip.attributes and clip.attributes.get("language", ENGLISH) == ENGLISH
    }
    pitched = {
        str(clip.attributes["instrument"]) for clip in clips if {"pitch", "instrument"} <= clip.attributes.keys()
    }
    default = Sources()
    return Sources(
        captions=tuple(captions),
        transcripts=tuple(sorted(transcripts)),
        languages=tuple(name for name in values("language") if name != ENGLISH) or default.languages,
        keywords=values("keyword", "digit") or default.keywords,
        pitched=tuple(sorted(name for name in pitched if vocabulary.index(name) is not None)) or default.pitched,
    )


@dataclass
class _Layout:
    """Events in sequence, and the end of the last one."""

    events: list[SceneEvent] = field(default_factory=list)
    end_s: float = 0.0

    def add(self, tag: str, gap_s: float, length_s: float, level_db: float) -> None:
        start_s = self.end_s + gap_s
        self.end_s = start_s + length_s
        self.events.append(SceneEvent(tag, round(start_s, 2), round(self.end_s, 2), round(level_db, 1)))


class SceneDrawer:
    """Draws scenes by number.

    Args:
        phrases: wordings of tags.
        vocabulary: the tags; rare ones are not drawn.
        sources: captions, transcripts and words.
        seed: another one gives other scenes.
    """

    def __init__(self, phrases: Phrases, vocabulary: Vocabulary, sources: Sources, seed: int = 0) -> None:
        self.phrases, self.vocabulary, self.sources, self.seed = phrases, vocabulary, sources, seed
        self._by_category: dict[str, list[str]] = {}
        for tag in phrases.askable:
            if (index := vocabulary.index(tag)) is not None and not vocabulary.tags[index].is_rare:
                self._by_category.setdefault(phrases.category(tag), []).append(tag)
        continuous = tag_tables().continuous
        self._continuous = sorted(tag for tags in self._by_category.values() for tag in tags if tag in continuous)
        self._pitched = [tag for tag in self._by_category.get("instrument", ()) if tag in sources.pitched]
        self._speakers = [tag for tag in SPEAKING if vocabulary.index(tag) is not None]
        kinds: dict[Callable[[random.Random], Scene | None], float] = {
            self._captioned: 0.2 if sources.captions else 0.0,
            self._sounds: 0.34,
            self._speech: 0.26 if self._speakers else 0.0,
            self._music: 0.06 if "music" in self._by_category else 0.0,
            self._notes: 0.07 if "instrument" in self._by_category else 0.0,
            self._word: 0.04,
            self._empty: 0.03,
        }
        self._kinds, self._weights = list(kinds), list(kinds.values())

    def scene(self, number: int) -> Scene:
        """The scene of a number, 0 or more; the same every time."""
        rng = random.Random(f"scene:{self.seed}:{number}")
        while True:
            scene = rng.choices(self._kinds, self._weights)[0](rng)
            if scene is not None:
                return scene

    def _draw(self, rng: random.Random, categories: frozenset[str], beside: Sequence[str]) -> str | None:
        """A tag of the given categories that certainly neither contains a tag of ``beside`` nor is part of one; None if
        a few tries find none."""
        names = [name for name in self._by_category if name in categories]
        weights = [len(self._by_category[name]) ** 0.5 for name in names]
        for _ in range(_TRIES if names else 0):
            tag = rng.choice(self._by_category[rng.choices(names, weights)[0]])
            if self._fits(tag, beside):
                return tag
        return None

    def _fits(self, tag: str, beside: Sequence[str]) -> bool:
        return not any(self.phrases.may_hold(tag, other) or self.phrases.may_hold(other, tag) for other in beside)

    def _sounds(self, rng: random.Random) -> Scene | None:
        """One to five sounds one after another, over one another, repeated, or over a background."""
        tags: list[str] = []
        wanted = rng.choices((1, 2, 3, 4, 5), (0.3, 0.3, 0.22, 0.11, 0.07))[0]
        categories = _FOREGROUND | ({"instrument", "music", "scene"} if rng.random() < 0.2 else frozenset())
        while len(tags) < wanted and (tag := self._draw(rng, categories, tags)):
            tags.append(tag)
        if not tags:
            return None
        if len(tags) == 1 and rng.random() < 0.5:
            length_s = round(rng.uniform(0.4, 12.0), 2)
            return self._finished([SceneEvent(tags[0], 0.0, length_s)], length_s, tags)
        slow = rng.choices((1.0, 3.0, 12.0), (0.65, 0.22, 0.13))[0]  # some scenes last minutes
        layout = _Layout()
        repeated = rng.choice(tags) if rng.random() < 0.25 else None
        for tag in tags:
            times = rng.randint(2, 5) if tag == repeated else 1
            lasting = slow if tag in tag_tables().continuous else 1.0
            length_s = rng.uniform(0.4, 1.5) if times > 1 else rng.uniform(0.6, 4.0) * lasting
            level_db = rng.uniform(-12.0, 0.0)
            for _ in range(times):
                layout.add(
                    tag,
                    rng.uniform(0.6, 1.6) * slow if layout.events else rng.uniform(0.0, 1.0) * slow,
                    length_s,
                    level_db,
                )
        events, length = layout.events, layout.end_s + rng.uniform(0.0, 1.0) * slow
        if len(tags) > 1 and repeated is None and rng.random() < 0.25:
            events = [_moved(event, rng, length) for event in events]
        return self._finished(self._with_background(rng, events, length, tags), length, tags)

    def _with_background(
        self, rng: random.Random, events: list[SceneEvent], length_s: float, tags: list[str]
    ) -> list[SceneEvent]:
        if length_s < 3.0 or not self._continuous or rng.random() > 0.4:
            return events
        tag = rng.choice(self._continuous)
        if not self._fits(tag, tags):
            return events
        tags.append(tag)
        return [SceneEvent(tag, 0.0, round(length_s, 2), round(rng.uniform(-18.0, -3.0), 1)), *events]

    def _finished(self, events: Sequence[SceneEvent], length_s: float, tags: Sequence[str]) -> Scene:
        voices = any(self.phrases.holds_voices(tag) for tag in tags)
        return Scene(
            duration_s=round(length_s, 2),
            events=tuple(sorted(events, key=lambda event: (event.start_s, event.tag))),
            transcript=None if voices else "",
            absent=self.phrases.absent(tags),
            is_timed=True,
            is_complete=True,
        )

    def _speech(self, rng: random.Random) -> Scene | None:
        """One or two people who say something, alone or with other sounds."""
        speakers = rng.sample(self._speakers, min(len(self._speakers), 2 if rng.random() < 0.25 else 1))
        foreign = len(speakers) == 1 and rng.random() < 0.15
        sentences = rng.choices((1, 2, 3, 5), (0.6, 0.25, 0.1, 0.05))[0]
        whole = draw_spoken(rng, self.sources.transcripts, sentences * len(speakers))
        said = [whole[sentences * index :][:sentences] for index in range(len(speakers))]
        layout = _Layout()
        before = self._draw(rng, _FOREGROUND - {"human"}, speakers) if rng.random() < 0.2 else None
        tags = [*speakers]
        if before is not None:
            layout.add(before, rng.uniform(0.0, 0.5), rng.uniform(0.5, 3.0), rng.uniform(-10.0, 0.0))
            tags.append(before)
        for speaker, spoken in zip(speakers, said, strict=True):
            length_s = 0.4 + len(words_of(together(spoken).text)) / _WORDS_PER_S
            layout.add(speaker, rng.uniform(0.1, 0.8), length_s, rng.uniform(-4.0, 0.0))
        after = self._draw(rng, _FOREGROUND - {"human"}, tags) if rng.random() < 0.2 else None
        if after is not None:
            layout.add(after, rng.uniform(0.2, 1.0), rng.uniform(0.5, 3.0), rng.uniform(-10.0, 0.0))
            tags.append(after)
        length_s = layout.end_s + rng.uniform(0.0, 0.6)
        scene = self._finished(self._with_background(rng, layout.events, length_s, tags), length_s, tags)
        attributes = {"gender": _GENDERS[speakers[0]]} if len(speakers) == 1 and speakers[0] in _GENDERS else {}
        attributes["language"] = rng.choice(self.sources.languages) if foreign else "English"
        if foreign:
            return replace(scene, transcript=None, attributes=attributes)
        story = together(whole)
        return replace(scene, transcript=story.text, attributes=attributes, qa=story.qa)

    def _word(self, rng: random.Random) -> Scene | None:
        """A single word."""
        word = rng.choice(self.sources.keywords)
        speaker = rng.choice(self._speakers) if self._speakers else "speech"
        name = (
            "digit"
            if word in ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
            else "keyword"
        )
        length_s = round(rng.uniform(0.5, 2.5), 2)
        attributes = {name: word, "language": "English"} | (
            {"gender": _GENDERS[speaker]} if speaker in _GENDERS else {}
        )
        scene = self._finished([SceneEvent(speaker, 0.0, length_s)], length_s, [speaker])
        return replace(scene, transcript=word, attributes=attributes, is_timed=False)

    def _music(self, rng: random.Random) -> Scene | None:
        """A piece of music of a genre, alone or with another sound."""
        genre = rng.choice(self._by_category["music"])
        tags, length_s = [genre], round(rng.uniform(3.0, 30.0), 2)
        events = [SceneEvent(genre, 0.0, length_s)]
        other = self._draw(rng, _FOREGROUND, tags) if rng.random() < 0.15 else None
        if other is not None:
            start_s = rng.uniform(0.0, length_s / 2)
            events.append(SceneEvent(other, round(start_s, 2), round(start_s + rng.uniform(0.5, 3.0), 2), -6.0))
            tags.append(other)
        scene = self._finished(events, max(length_s, events[-1].end_s), tags)
        return replace(scene, attributes={"genre": genre.removesuffix(" music")}, transcript=None)

    def _notes(self, rng: random.Random) -> Scene | None:
        """One or more notes on an instrument."""
        instrument = rng.choice(self._by_category["instrument"])
        if instrument not in self._pitched and rng.random() < 0.7:
            return None
        count = rng.choices((1, 2, 3, 4, 5), (0.5, 0.15, 0.15, 0.1, 0.1))[0]
        notes = rng.sample(_NOTES, count)
        layout = _Layout()
        for _ in notes:
            layout.add(instrument, rng.uniform(0.0, 0.4), rng.uniform(0.4, 2.5), rng.uniform(-3.0, 0.0))
        length_s = layout.end_s + rng.uniform(0.0, 0.5)
        scene = self._finished(layout.events, length_s, [instrument])
        pitched = {}
        if instrument in self._pitched:
            pitched = {"pitch": notes[0]} if count == 1 else {"notes": ", ".join(notes)}
        return replace(scene, attributes={"instrument": instrument} | pitched)

    def _empty(self, rng: random.Random) -> Scene | None:
        """Near-silence, or a hiss without other sounds."""
        return Scene(
            duration_s=round(rng.uniform(1.0, 20.0), 2),
            transcript="",
            absent=self.phrases.absent(()),
            is_timed=True,
            is_complete=True,
        )

    @cached_property
    def _usable_captions(self) -> list[str]:
        return [text for text in self.sources.captions if self._says_only_tags(text)]

    def _captioned(self, rng: random.Random) -> Scene | None:
        """The scene of a random caption that describes nothing besides its tags."""
        return self.captioned(rng.choice(self._usable_captions), rng) if self._usable_captions else None

    def _says_only_tags(self, text: str) -> bool:
        stems = frozenset(word_stems(text))
        if len(text.split()) > _MAX_CAPTION_WORDS or stems & _UNSHOWN:
            return False
        found = [index for index in self.vocabulary.find(text) if self._is_sound(self.vocabulary.tags[index])]
        return stems <= _FUNCTION_WORDS.union(*(self._stems_of[index] for index in found))

    @cached_property
    def _stems_of(self) -> list[frozenset[str]]:
        """Word stems of all names of each tag and of its sentence, such as the "wails" of sirens."""
        worded = self.phrases.worded
        names = [
            (
                tag.text,
                *tag.phrases,
                *(tag.audioset or "").split(","),
                worded[tag.text].sentence if tag.text in worded else "",
            )
            for tag in self.vocabulary.tags
        ]
        return [frozenset(stem for name in of_tag for stem in word_stems(name)) for of_tag in names]

    @staticmethod
    def _is_sound(tag: Tag) -> bool:
        return tag.group not in ("keyword", "language") and tag.text not in tag_tables().vague and not tag.is_rare

    def captioned(self, text: str, rng: random.Random) -> Scene | None:
        """The scene of a caption; None if a part of the caption names no tag."""
        parts = [self._tags_of(part) for part in _THEN.split(text)]
        if not all(parts):
            return None
        layout = _Layout()
        timed = len(parts) > 1
        for tags in parts:
            start_s, length_s = layout.end_s, rng.uniform(1.5, 6.0) if timed else rng.uniform(5.0, 10.0)
            for tag in tags:
                layout.end_s = start_s
                layout.add(tag, 0.0, length_s, 0.0)
        tags = [tag for part in parts for tag in part]
        known = all(self.phrases.category(tag) for tag in tags)
        voices = any(self.phrases.holds_voices(tag) for tag in tags) or bool(
            _SPEAKS.search(text) or _HUMAN.search(text)
        )
        return Scene(
            duration_s=round(layout.end_s, 2),
            events=tuple(layout.events),
            transcript=None if voices else "",
            absent=self.phrases.absent(tags) if known else (),
            captions=(text.rstrip(" .") + ".",),
            is_timed=timed and len(set(tags)) == len(tags),
        )

    def _tags_of(self, text: str) -> list[str]:
        """The tags that a part of a caption names, as events."""
        tags = []
        for index in self.vocabulary.find(text):
            tag = self.vocabulary.tags[index]
            if tag.group == "speaker":
                if not _SPEAKS.search(text):
                    return []
                tags.append({"man": "man speaking", "woman": "woman speaking"}.get(tag.text, "child speaking"))
            elif self._is_sound(tag):
                tags.append(tag.text)
        if _SPEAKS.search(text) and not any(tag == "speech" or tag.endswith(" speaking") for tag in tags):
            tags.append("speech")  # it is not known who speaks
        return tags


def _moved(event: SceneEvent, rng: random.Random, length_s: float) -> SceneEvent:
    """An event at another, random time of the recording."""
    start_s = rng.uniform(0.0, max(0.0, length_s - (event.end_s - event.start_s)))
    return replace(
        event, start_s=round(start_s, 2), end_s=round(min(length_s, start_s + event.end_s - event.start_s), 2)
    )
