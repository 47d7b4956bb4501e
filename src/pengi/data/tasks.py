"""Tasks: each turns a labelled clip into training pairs and an evaluation question, so a prompt is written once."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pengi import templates
from pengi.data.manifest import Clip, Label

SPEECH_DOMAINS = frozenset({"keyword", "digit", "language", "gender", "emotion", "speech_qa"})
QUESTION_SHARE = 0.35
MUSIC_DOMAINS = frozenset({"music", "instrument"})
# Categories of sounds that may well be heard beside a sound of a category, although the clip's labels do not say so.
HEARD_WITH = {
    "speech": frozenset({"speech"}),
    "music": frozenset({"music", "instrument"}),
    "scene": frozenset({"scene", "speech", "human", "vehicle", "nature", "animal"}),
}


@dataclass(frozen=True)
class Pair:
    """One training example about a clip."""

    task: str
    prompt: str
    target: str


@dataclass(frozen=True)
class Task:
    """A closed-set task: one prompt, and the right answers of a clip (none if the clip is not of this task)."""

    name: str
    answers: Callable[[Clip], tuple[str, ...]]

    @property
    def prompt(self) -> str:
        """The canonical prompt, as the engine and the evaluation ask it."""
        return templates.PROMPTS[self.name][0]


def _attribute(name: str) -> Callable[[Clip], tuple[str, ...]]:
    def answers(clip: Clip) -> tuple[str, ...]:
        value = clip.attributes.get(name)
        return () if value is None else (str(value),)

    return answers


TASKS: dict[str, Task] = {
    "events": Task("events", lambda clip: clip.events),
    "scene": Task("scene", lambda clip: clip.events if clip.domain == "scene" else ()),
    **{
        name: Task(name, _attribute(name))
        for name in ("digit", "keyword", "gender", "language", "instrument", "emotion", "genre")
    },
}


def labels_of(clips: Iterable[Clip], known: Mapping[str, Label]) -> dict[str, Label]:
    """The wording of every event label of the clips; a label that nobody has worded is its own phrase."""
    events = {event for clip in clips for event in clip.events} - known.keys()
    plain = {event: Label(label=event, phrase=event, sentence=f"The sound of {event}.") for event in sorted(events)}
    return {**known, **plain}


def kind_of(clip: Clip) -> str:
    """Speech, music or another sound, from the clip's domain."""
    if clip.domain in SPEECH_DOMAINS:
        return "speech"
    return "music" if clip.domain in MUSIC_DOMAINS else "another sound"


class PairMaker:
    """Draws training pairs for clips.

    Args:
        labels: how each label is said in words; see :func:`labels_of` where there is no labels file.
        tags: AudioSet tags of a clip by its id, the surest first (pseudo-labels), for "generate metadata".
        others: labels that questions may name as absent, all if not given. Without their AudioSet class and category
            nothing tells whether "animal" is absent where a dog barks.
    """

    def __init__(
        self,
        labels: Mapping[str, Label],
        tags: Mapping[str, tuple[str, ...]] | None = None,
        others: Iterable[str] | None = None,
    ) -> None:
        self.labels = labels
        self.tags = tags or {}
        self._others = sorted(labels if others is None else others)

    def phrase(self, label: str) -> str:
        """Completes "the sound of ..."."""
        return self.labels[label].phrase

    def sentence(self, label: str) -> str:
        """A plain caption."""
        return self.labels[label].sentence

    def draw(self, clip: Clip, rng: random.Random, count: int) -> list[Pair]:
        """Up to ``count`` different pairs: mostly the clip's closed tasks, and questions about it."""
        closed = self._closed(clip, rng)
        weights = [self._weight(pair.task) for pair in closed]
        drawn: dict[tuple[str, str], Pair] = {}
        for _ in range(4 * count):
            if len(drawn) == count:
                break
            ask = not closed or rng.random() < QUESTION_SHARE
            pair = self._question(clip, rng) if ask else rng.choices(closed, weights)[0]
            drawn.setdefault((pair.prompt, pair.target), pair)
        return list(drawn.values())

    @staticmethod
    def _weight(task: str) -> float:
        return {"metadata": 0.5, "caption": 1.0, "events": 2.0}.get(task, 2.0)

    def _closed(self, clip: Clip, rng: random.Random) -> list[Pair]:
        """One pair for each task that fits the clip."""
        attributes = {name: str(value) for name, value in clip.attributes.items()}
        events = rng.sample(clip.events, len(clip.events))
        targets: dict[str, str] = {}
        if events:
            targets["events"] = templates.events_target(events)
            targets["caption"] = templates.caption_target([self.sentence(event) for event in events], attributes)
        if clip.id in self.tags:
            targets["metadata"] = templates.metadata_target(self.tags[clip.id])
        if "instrument" in attributes:
            targets["note"] = templates.note_target(attributes)
        for name, task in TASKS.items():
            answers = task.answers(clip)
            if name not in targets and answers:
                targets[name] = answers[0]
        return [Pair(name, rng.choice(templates.PROMPTS[name]), target) for name, target in targets.items()]

    def _question(self, clip: Clip, rng: random.Random) -> Pair:
        question, answer = self._draw_question(clip, rng)
        return Pair("question", templates.question_prompt(question), answer)

    def _draw_question(self, clip: Clip, rng: random.Random) -> tuple[str, str]:
        if clip.qa and rng.random() < 0.7:
            asked = rng.choice(clip.qa)
            return asked.question, asked.answer
        kind = kind_of(clip)
        asked_pairs = [templates.kind_question(rng, kind), templates.speech_question(rng, kind == "speech")]
        if clip.events:
            asked_pairs.append(templates.what_question(rng, [self.phrase(event) for event in clip.events]))
            asked_pairs += self._label_questions(clip, rng)
        for name, value in clip.attributes.items():
            pair = templates.attribute_question(rng, name, str(value))
            # Twice, because what is special about a clip teaches more than the general questions.
            asked_pairs += [pair, pair] if pair else []
        return rng.choice(asked_pairs)

    def _label_questions(self, clip: Clip, rng: random.Random) -> list[tuple[str, str]]:
        """Presence and choice, which need a second label that the clip surely does not have."""
        own = self.phrase(rng.choice(clip.events))
        other = self._other(clip, rng)
        if other is None:
            return [templates.presence_question(rng, own, present=True)]
        present = rng.random() < 0.5
        return [
            templates.presence_question(rng, own if present else self.phrase(other), present),
            templates.choice_question(rng, own, self.phrase(other)),
        ]

    def _other(self, clip: Clip, rng: random.Random) -> str | None:
        """A label of another kind of sound than all of the clip's events; none if a few tries find none."""
        own = [self.labels[event] for event in clip.events]
        audioset = {label.audioset for label in own if label.audioset}
        beside = {category for label in own for category in HEARD_WITH.get(label.category, ())}
        for _ in range(20):
            other = self.labels[rng.choice(self._others)]
            same_kind = other.audioset in audioset or other.category in beside
            if other.label not in clip.events and not same_kind:
                return other.label
        return None
