"""Tasks: each turns a labelled clip into training pairs and an evaluation question, so a prompt is written once."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pengi import templates
from pengi.data.hearing import HEARD_WITH as HEARD_WITH
from pengi.data.hearing import holds_voices, may_hold
from pengi.data.manifest import Clip, Label
from pengi.errors import ConfigError, no_such

SPEECH_DOMAINS = frozenset({"keyword", "digit", "language", "gender", "emotion", "speech_qa"})
MUSIC_DOMAINS = frozenset({"music", "instrument"})
SOUND_DOMAINS = frozenset({"environment", "animal", "human", "sfx", "scene"})
SPEECH_EVENT = "speech"
COMPOSED_DOMAIN = "composed"
"""Of clips that are several recordings in one, see :mod:`pengi.data.compose`."""

QUESTION_SHARE = 0.35
OWN_QUESTIONS = 0.7
"""Share of a clip's own questions among all that are asked about it, if it has any."""
_TRIES = 20


@dataclass(frozen=True)
class Pair:
    """One training example about a clip."""

    task: str
    prompt: str
    target: str


@dataclass(frozen=True)
class Question:
    """One evaluation example about a clip: any of the answers is right (of events all are, of captions each is)."""

    task: str
    prompt: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Wording:
    """How labels are worded; ``others`` are the labels that questions may name as absent."""

    labels: Mapping[str, Label]
    others: tuple[str, ...] = ()

    def phrase(self, label: str) -> str:
        """Completes "the sound of ..."."""
        return self.labels[label].phrase

    def sentence(self, label: str) -> str:
        """A plain caption."""
        return self.labels[label].sentence

    def absent(self, clip: Clip, rng: random.Random) -> str | None:
        """A label that the clip surely does not have; none if a few tries find none."""
        own = [self.labels[event] for event in clip.events]
        for _ in range(_TRIES if self.others else 0):
            other = self.labels[rng.choice(self.others)]
            if other.label not in clip.events and not any(may_hold(label, other) for label in own):
                return other.label
        return None

    def speaks(self, clip: Clip) -> bool | None:
        """Whether someone speaks in a clip; none if its labels leave it open."""
        own = [self.labels[event] for event in clip.events]
        if clip.domain in SPEECH_DOMAINS or any(label.category == "speech" for label in own):
            return True
        if not own or clip.domain not in SOUND_DOMAINS | MUSIC_DOMAINS or any(map(holds_voices, own)):
            return None
        return False


class Family(Protocol):
    """A task family of the paper, or one beyond it in the same style."""

    @property
    def name(self) -> str: ...

    def pair(self, clip: Clip, wording: Wording, rng: random.Random) -> Pair | None:
        """A randomly worded training pair; none if the clip is not of this task."""
        ...

    def questions(self, clip: Clip, wording: Wording) -> tuple[Question, ...]:
        """What an evaluation asks about the clip, with the canonical prompt."""
        ...


@dataclass(frozen=True)
class Task:
    """A closed-set task: one prompt, and the right answers of a clip (none if the clip is not of this task)."""

    name: str
    answers: Callable[[Clip], tuple[str, ...]]

    @property
    def prompt(self) -> str:
        """The canonical prompt, as the engine and the evaluation ask it."""
        return templates.PROMPTS[self.name][0]

    def pair(self, clip: Clip, wording: Wording, rng: random.Random) -> Pair | None:
        """See :class:`Family`; several answers come in random order."""
        answers = self.answers(clip)
        if not answers:
            return None
        target = templates.events_target(rng.sample(answers, len(answers)))
        return Pair(self.name, rng.choice(templates.PROMPTS[self.name]), target)

    def questions(self, clip: Clip, wording: Wording) -> tuple[Question, ...]:
        """See :class:`Family`."""
        answers = self.answers(clip)
        return (Question(self.name, self.prompt, answers),) if answers else ()


@dataclass(frozen=True)
class TextTask:
    """A task whose answer is a text that is made from several things known about a clip.

    ``texts`` are all texts that would be right, ``drawn`` orders what has no order of its own.
    """

    name: str
    texts: Callable[[Clip, Wording, random.Random | None], tuple[str, ...]]

    @property
    def prompt(self) -> str:
        """The canonical prompt."""
        return templates.PROMPTS[self.name][0]

    def pair(self, clip: Clip, wording: Wording, rng: random.Random) -> Pair | None:
        """See :class:`Family`."""
        texts = self.texts(clip, wording, rng)
        return Pair(self.name, rng.choice(templates.PROMPTS[self.name]), rng.choice(texts)) if texts else None

    def questions(self, clip: Clip, wording: Wording) -> tuple[Question, ...]:
        """See :class:`Family`."""
        texts = self.texts(clip, wording, None)
        return (Question(self.name, self.prompt, texts),) if texts else ()


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
        for name in (
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
    },
}


def _attributes(clip: Clip) -> dict[str, str]:
    return {name: str(value) for name, value in clip.attributes.items()}


def _shuffled(items: tuple[str, ...], rng: random.Random | None) -> tuple[str, ...]:
    return items if rng is None else tuple(rng.sample(items, len(items)))


def _captions(clip: Clip, wording: Wording, rng: random.Random | None) -> tuple[str, ...]:
    if clip.captions or not clip.events:
        return clip.captions
    sentences = [wording.sentence(event) for event in _shuffled(clip.events, rng)]
    attributes = _attributes(clip)
    if clip.events != (SPEECH_EVENT,):  # what else is known says more than the language
        attributes.pop("language", None)
    return (templates.caption_target(sentences, attributes),)


def _metadata(clip: Clip, wording: Wording, rng: random.Random | None) -> tuple[str, ...]:
    text = templates.metadata_target(_shuffled(clip.tags, rng), clip.title, clip.description)
    return (text,) if text else ()


def _note(clip: Clip, wording: Wording, rng: random.Random | None) -> tuple[str, ...]:
    attributes = _attributes(clip)
    if "instrument" not in attributes:
        return ()
    if "qualities" in attributes:
        attributes["qualities"] = ", ".join(_shuffled(templates.split_events(attributes["qualities"]), rng))
    return (templates.note_target(attributes),)


def _music(clip: Clip, wording: Wording, rng: random.Random | None) -> tuple[str, ...]:
    text = templates.music_target(_attributes(clip)) if clip.domain == "music" else ""
    return (text,) if text else ()


def labels_of(clips: Iterable[Clip], known: Mapping[str, Label]) -> dict[str, Label]:
    """The wording of every event label of the clips; a label that nobody has worded is its own phrase."""
    events = sorted({event for clip in clips for event in clip.events} - known.keys())
    plain = {name: Label(label=name, phrase=name, sentence=f"The sound of {name}.") for name in events}
    return {**known, **plain}


def kind_of(clip: Clip) -> str:
    """Speech, music or another sound, from the clip's domain; or several sounds, if it was composed."""
    if clip.domain in SPEECH_DOMAINS:
        return "speech"
    if clip.domain == COMPOSED_DOMAIN:
        return "several sounds"
    return "music" if clip.domain in MUSIC_DOMAINS else "another sound"


@dataclass(frozen=True)
class QuestionTask:
    """Audio question answering: the questions that come with a clip, and questions that its labels answer.

    Of a clip's own questions the kind is drawn first, so that one kind may have many of them without being asked more
    often. With ``kinds`` only these are asked, by those weights; questions that say no kind have a weight of 1.
    ``own`` is their share among all questions about a clip that has any; at 1 no others are asked, of any clip.
    """

    kinds: Mapping[str, float] | None = None
    own: float = OWN_QUESTIONS
    name: str = field(default="question", init=False)

    def pair(self, clip: Clip, wording: Wording, rng: random.Random) -> Pair | None:
        """See :class:`Family`."""
        drawn = self.draw(clip, wording, rng)
        return None if drawn is None else Pair(self.name, templates.question_prompt(drawn[0], rng), drawn[1])

    def questions(self, clip: Clip, wording: Wording) -> tuple[Question, ...]:
        """The questions that come with the clip, each with every answer given to it."""
        answers: dict[str, dict[str, None]] = {}
        for asked in clip.qa:
            answers.setdefault(asked.question, {})[asked.answer] = None
        return tuple(Question(self.name, templates.question_prompt(asked), tuple(answers[asked])) for asked in answers)

    def draw(self, clip: Clip, wording: Wording, rng: random.Random) -> tuple[str, str] | None:
        """A question without its prompt, and its answer; none if nothing is known about the clip."""
        own = self._own(clip, rng)
        if self.own == 1.0 or (own is not None and rng.random() < self.own):
            return own
        drawn = self._about_kind(clip, wording, rng)
        if clip.events:
            drawn.append(templates.what_question(rng, [wording.phrase(event) for event in _shuffled(clip.events, rng)]))
            drawn += self._about_labels(clip, wording, rng)
        for name, value in clip.attributes.items():
            pair = templates.attribute_question(rng, name, str(value))
            # Twice, because what is special about a clip teaches more than the general questions.
            drawn += [pair, pair] if pair else []
        return rng.choice(drawn) if drawn else own

    def _own(self, clip: Clip, rng: random.Random) -> tuple[str, str] | None:
        """One of the questions that come with the clip."""
        by_kind: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for asked in clip.qa:
            if self._weight(asked.kind):
                by_kind[asked.kind].append((asked.question, asked.answer))
        if not by_kind:
            return None
        kind = rng.choices(list(by_kind), [self._weight(kind) for kind in by_kind])[0]
        return rng.choice(by_kind[kind])

    def _weight(self, kind: str) -> float:
        return 1.0 if self.kinds is None or not kind else self.kinds.get(kind, 0.0)

    @staticmethod
    def _about_kind(clip: Clip, wording: Wording, rng: random.Random) -> list[tuple[str, str]]:
        known = clip.domain in SPEECH_DOMAINS | MUSIC_DOMAINS | SOUND_DOMAINS
        drawn = [templates.kind_question(rng, kind_of(clip))] if known else []
        speaks = wording.speaks(clip)
        return drawn if speaks is None else [*drawn, templates.speech_question(rng, speaks)]

    @staticmethod
    def _about_labels(clip: Clip, wording: Wording, rng: random.Random) -> list[tuple[str, str]]:
        """Presence and choice, which need a second label that the clip surely does not have."""
        own = wording.phrase(rng.choice(clip.events))
        other = wording.absent(clip, rng)
        if other is None:
            return [templates.presence_question(rng, own, present=True)]
        present = rng.random() < 0.5
        return [
            templates.presence_question(rng, own if present else wording.phrase(other), present),
            templates.choice_question(rng, own, wording.phrase(other)),
        ]


FAMILIES: dict[str, Family] = {
    "caption": TextTask("caption", _captions),
    "metadata": TextTask("metadata", _metadata),
    "music": TextTask("music", _music),
    "note": TextTask("note", _note),
    **TASKS,
    "question": QuestionTask(),
}
"""All tasks: the paper's eight families (captions, events, metadata, scenes, questions, emotion and sentiment, music,
notes) and those of speech and music in the same style."""

_DEFAULT_WEIGHTS = {"metadata": 0.5, "caption": 1.0, "music": 0.5}


class PairMaker:
    """Draws training pairs for clips.

    Args:
        labels: how each label is said in words; see :func:`labels_of` where there is no labels file.
        weights: how often each task is drawn relative to the others, where a clip has several; tasks that are not
            named are not drawn. All of them, questions about a third of the time, if not given.
        questions: how often each kind of question is drawn of those that come with a clip; see :class:`QuestionTask`.
        own_questions: share of these among all questions.

    Raises:
        ConfigError: for weights of unknown tasks, negative ones, or none above zero.
    """

    def __init__(
        self,
        labels: Mapping[str, Label],
        weights: Mapping[str, float] | None = None,
        questions: Mapping[str, float] | None = None,
        own_questions: float = OWN_QUESTIONS,
    ) -> None:
        self.wording = Wording(labels, tuple(sorted(labels)))
        if weights is not None:
            _check_tasks(weights)
        self._weights = weights
        self._families: dict[str, Family] = {**FAMILIES, "question": QuestionTask(questions, own_questions)}

    def draw(self, clip: Clip, rng: random.Random, count: int) -> list[Pair]:
        """Up to ``count`` different pairs: mostly the clip's closed tasks, and questions about it."""
        pairs = {name: family.pair(clip, self.wording, rng) for name, family in self._asked()}
        fitting = {name: pair for name, pair in pairs.items() if pair is not None}
        chances = self._chances(list(fitting))
        drawn: dict[tuple[str, str], Pair] = {}
        for _ in range(4 * count if fitting else 0):
            if len(drawn) == count:
                break
            name = rng.choices(list(fitting), chances)[0]
            # Questions are drawn anew each time; another wording of a closed task would be nothing new.
            pair = self._families[name].pair(clip, self.wording, rng) if name == "question" else fitting[name]
            if pair is not None:
                drawn.setdefault((pair.prompt, pair.target), pair)
        return list(drawn.values())

    def fits(self, clip: Clip) -> bool:
        """Whether any of the tasks can be asked about a clip."""
        rng = random.Random(0)
        return any(family.pair(clip, self.wording, rng) is not None for _, family in self._asked())

    def _asked(self) -> list[tuple[str, Family]]:
        return [(name, family) for name, family in self._families.items() if self._weight(name)]

    def _weight(self, task: str) -> float:
        return _DEFAULT_WEIGHTS.get(task, 2.0) if self._weights is None else self._weights.get(task, 0.0)

    def _chances(self, names: list[str]) -> list[float]:
        chances = [self._weight(name) for name in names]
        if self._weights is None and "question" in names and len(names) > 1:
            place = names.index("question")
            rest = sum(chances) - chances[place]
            chances[place] = rest * QUESTION_SHARE / (1.0 - QUESTION_SHARE)
        return chances


def check_kinds(weights: Mapping[str, float], clips: Iterable[Clip]) -> None:
    """Check weights of kinds of questions, see :class:`QuestionTask`, against the clips that are to bring them.

    Raises:
        ConfigError: for a kind that no question of theirs is of, or a negative weight.
    """
    kinds = {asked.kind: None for clip in clips for asked in clip.qa if asked.kind}
    if weights and not kinds:
        raise ConfigError("data.questions needs clips with questions that say their kind, such as composed ones")
    _check_weights("kind of question", weights, kinds)


def _check_weights(what: str, weights: Mapping[str, float], known: Iterable[str]) -> None:
    names = list(known)
    for name, weight in weights.items():
        if name not in names:
            raise ConfigError(no_such(what, name, names))
        if not weight >= 0:
            raise ConfigError(f"the weight of the {what} '{name}' must be 0 or more, not {weight}")


def _check_tasks(weights: Mapping[str, float]) -> None:
    _check_weights("task", weights, FAMILIES)
    if not any(weights.values()):
        raise ConfigError("every task has a weight of 0, so there is nothing to train on")
