"""Composes new training examples from labelled recordings; captions and answers are true by construction.

Recordings are put one after another, repeated, or laid over a longer one, each at a random loudness. The questions
follow from how the example was made: what is in it and what is not, in which order, how often, how many kinds, which
is louder. Nothing is asked that the labels do not determine, see :mod:`pengi.data.label_overlap`.

An example is a function of the clips, the labels, the seed and its number. Its id contains the last two and a
fingerprint of the first two: ``composed-train-1f0c9a3e-0-000017``.

A training example is composed of recordings of one fold (:func:`pengi.data.tagging.folds_of`), and its group puts it
into the same fold, so that the tagger of that fold was fitted without any of its recordings.
"""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from pengi import templates
from pengi.audio.decode import load
from pengi.data import mixing
from pengi.data.examples import Rendered, write_examples
from pengi.data.label_overlap import holds_one_kind, may_hold
from pengi.data.manifest import Clip, EventTime, Label, QuestionAnswer
from pengi.data.recordings import recording
from pengi.data.scenes import LOUDER_DB
from pengi.data.tagging import FOLDS, folds_of, group_of
from pengi.data.tasks import COMPOSED_DOMAIN
from pengi.data.tolerance import MAX_BAD_SHARE
from pengi.errors import AudioError, InputError
from pengi.hashes import text_sha256

RULES = 2
"""Version of the rules below, part of the fingerprint. Raise it if they change, because old ids would otherwise give
other examples."""
MAX_S = 10.0
_MAX_PART_S, _MIN_PART_S = 4.0, 0.8
_MIN_BACKGROUND_S = 4.0
_REPEATABLE_S = 1.5
_MAX_COUNTED = 5
_COUNTED_PART_S = 1.2
_TRIES = 40
_ABSENT_TRIES = 20
# Categories that cannot be the background of words or notes, because they may contain further words or notes.
_NO_BACKGROUND = {
    "words": frozenset({"speech", "scene", "music"}),
    "notes": frozenset({"music", "instrument", "alarm"}),
}
_SINGLE_NOTES = frozenset({"", "arco", "staccato", "staccatissimo", "pizzicato", "tenuto", "vibrato", "non vibrato"})

CompositionKind = Literal["sounds", "words", "notes"]
K = TypeVar("K")


@dataclass(frozen=True)
class Excerpt:
    """The loudest ``length_s`` seconds of a recording, repeated ``times`` times, at ``level_db`` (see
    :func:`pengi.data.mixing.set_loudness`)."""

    clip: Clip
    length_s: float
    level_db: float
    times: int = 1


@dataclass(frozen=True)
class Composition:
    """How an example is made: parts in sequence, with silence before, between and after them, over a background."""

    kind: CompositionKind
    parts: tuple[Excerpt, ...]
    gaps_s: tuple[float, ...]
    background: Excerpt | None

    @property
    def all_parts(self) -> tuple[Excerpt, ...]:
        """The parts, then the background if there is one."""
        return self.parts if self.background is None else (*self.parts, self.background)


@dataclass(frozen=True)
class Composed:
    """An example: its row of a manifest, without a length until it is rendered, and its composition."""

    clip: Clip
    composition: Composition

    @property
    def id(self) -> str:
        """The clip's id, which identifies clips, labels, seed and number."""
        return self.clip.id


def compose(clips: Sequence[Clip], labels: Mapping[str, Label], seed: int, count: int) -> Iterator[Composed]:
    """The first ``count`` examples of a seed; see :class:`Composer`."""
    composer = Composer(clips, labels, seed)
    return (composer.example(number) for number in range(count))


class Composer:
    """Composes examples by number.

    Args:
        clips: labelled clips of one split; those with exactly one event are used.
        labels: wordings of their events.
        seed: another seed gives other examples.

    Raises:
        InputError: if the clips are of several splits, or have fewer than two different labels.
    """

    def __init__(self, clips: Sequence[Clip], labels: Mapping[str, Label], seed: int) -> None:
        splits = sorted({clip.split for clip in clips})
        if len(splits) > 1:
            raise InputError(f"examples are composed of clips of one split, not of {', '.join(splits)}")
        self.labels = labels
        self.seed = seed
        usable = sorted((clip for clip in clips if _usable(clip, labels)), key=lambda clip: clip.id)
        self._events = tuple(sorted({clip.events[0] for clip in usable}))
        self._in_folds = splits == ["train"]
        parts = _folded(usable) if self._in_folds else [usable]
        self._material = [_Material(part, labels) for part in parts if len({clip.events[0] for clip in part}) > 1]
        if not self._material:
            where = ", in one of the folds that training clips are put in by their groups" if self._in_folds else ""
            raise InputError(f"composing needs clips of at least two different sounds, with one event each{where}")
        self._prefix = f"composed-{splits[0]}-{_fingerprint(usable, labels, len(parts))}"

    def example(self, number: int) -> Composed:
        """The example of a number, 0 or more; the same every time."""
        rng = random.Random(f"{self._prefix}:{self.seed}:{number}")
        composition = self._material[number % len(self._material)].composition(rng)
        return Composed(self._clip(f"{self._prefix}-{self.seed}-{number:06d}", composition, rng), composition)

    @classmethod
    def find(cls, example_id: str, clips: Sequence[Clip], labels: Mapping[str, Label]) -> Composed:
        """The example of an id, given the clips and labels it was composed of.

        Raises:
            InputError: if it was composed of other clips or labels, or by other rules, or is no such id.
        """
        found = re.fullmatch(r"(composed-\w+-[0-9a-f]{8})-(\d+)-(\d{6,})", example_id)
        if not found:
            raise InputError(f"'{example_id}' is not the id of a composed example")
        composer = cls(clips, labels, int(found[2]))
        if composer._prefix != found[1]:
            raise InputError(
                f"'{example_id}' was not composed of these clips and labels, which make {composer._prefix}"
            )
        return composer.example(int(found[3]))

    def _label(self, clip: Clip) -> Label:
        return self.labels[clip.events[0]]

    def _clip(self, example_id: str, composition: Composition, rng: random.Random) -> Clip:
        used = [part.clip for part in composition.all_parts]
        events = tuple(dict.fromkeys(clip.events[0] for clip in used))
        clip = Clip(
            id=example_id,
            audio=f"audio/{example_id}.flac",
            split=used[0].split,
            group=group_of(used[0]) if self._in_folds else example_id,
            source=COMPOSED_DOMAIN,
            license=" AND ".join(sorted({clip.license for clip in used if clip.license})),
            ship=all(clip.ship for clip in used),
            redistribute=all(clip.redistribute for clip in used),
            domain=COMPOSED_DOMAIN,
            events=events,
            captions=self._captions(composition),
            attributes=self._attributes(composition),
        )
        return clip.model_copy(update={"qa": _Questions(composition, self.labels, self._events, rng).about(clip)})

    def _attributes(self, composition: Composition) -> dict[str, str]:
        """Number of words or notes, the words, and the number of kinds of sound, if it is certain."""
        found = {} if composition.kind == "sounds" else {"count": templates.NUMBERS[len(composition.parts)]}
        if composition.kind == "words":
            said = [part.clip.attributes for part in composition.parts]
            found["transcript"] = " ".join(str(known.get("keyword", known.get("digit"))) for known in said)
        kinds = _kinds([self._label(part.clip) for part in composition.all_parts])
        return found if kinds is None else {**found, "kinds": templates.NUMBERS[kinds]}

    def _captions(self, composition: Composition) -> tuple[str, ...]:
        first = self._label(composition.parts[0].clip)
        if composition.kind == "sounds":
            clauses = [self._clause(part) for part in composition.parts]
        else:
            phrase = first.phrase if composition.kind == "notes" else None
            clauses = [templates.counted_clause(composition.kind, len(composition.parts), phrase)]
        return templates.composed_captions(
            clauses, self._clause(composition.background) if composition.background else None
        )

    def _clause(self, part: Excerpt) -> str:
        label = self._label(part.clip)
        clause = templates.clause(label.sentence, label.phrase)
        return clause if part.times == 1 else templates.repeated(clause)


class _Questions:
    """Questions about one example; ``others`` are the labels that may be named as absent."""

    def __init__(
        self, composition: Composition, labels: Mapping[str, Label], others: Sequence[str], rng: random.Random
    ) -> None:
        self.composition, self.labels, self.others, self.rng = composition, labels, others, rng
        self.phrases = [self._label(part).phrase for part in composition.parts]
        self.background = self._label(composition.background).phrase if composition.background else None

    def _label(self, part: Excerpt) -> Label:
        return self.labels[part.clip.events[0]]

    def about(self, clip: Clip) -> tuple[QuestionAnswer, ...]:
        """All questions, each once; each kind of yes/no question has as many yes as no answers."""
        asked = {"presence": self._presence(clip), "loudness": self._loudness(), "number": self._kinds()}
        if self.background is not None:
            asked["background"] = [templates.throughout_question(self.rng, self.background)]
        if self.composition.kind != "sounds":
            asked["number"] += self._count(self.composition.kind, len(self.phrases), _MAX_COUNTED)
        elif len(self.phrases) > 1:
            asked["order"] = self._order()
            if self.background is None:
                asked["sequence"] = templates.sequence_questions(self.rng, self.phrases)
            else:
                asked["simultaneity"] = self._together(self.background)
        kinds = {pair: kind for kind, pairs in asked.items() for pair in pairs}
        return tuple(
            QuestionAnswer(question=question, answer=answer, kind=kind) for (question, answer), kind in kinds.items()
        )

    def _presence(self, clip: Clip) -> list[tuple[str, str]]:
        absent = self._absent(clip)
        if absent is None:
            return []
        present = self.labels[self.rng.choice(clip.events)].phrase
        return [
            templates.presence_question(self.rng, present, present=True),
            templates.presence_question(self.rng, absent.phrase, present=False),
            templates.choice_question(self.rng, present, absent.phrase),
        ]

    def _absent(self, clip: Clip) -> Label | None:
        """A label that the clip certainly does not have; None if a few tries find none."""
        for _ in range(_ABSENT_TRIES):
            other = self.labels[self.rng.choice(self.others)]
            held = any(may_hold(self.labels[event], other) for event in clip.events)
            if other.label not in clip.events and not held:
                return other
        return None

    def _order(self) -> list[tuple[str, str]]:
        asked = []
        for earlier, later in combinations(self.phrases, 2):
            asked += templates.before_questions(self.rng, earlier, later)
        return asked

    def _together(self, background: str) -> list[tuple[str, str]]:
        one, other = self.rng.sample(self.phrases, 2)
        return [
            templates.together_question(self.rng, one, background, together=True),
            templates.together_question(self.rng, one, other, together=False),
        ]

    def _loudness(self) -> list[tuple[str, str]]:
        """About the softest and the loudest sound, if they differ enough. Words and notes are not compared."""
        if self.composition.kind != "sounds":
            return []
        parts = sorted(self.composition.all_parts, key=lambda part: part.level_db)
        if parts[-1].level_db - parts[0].level_db < LOUDER_DB:
            return []
        return templates.louder_questions(self.rng, self._label(parts[-1]).phrase, self._label(parts[0]).phrase)

    def _kinds(self) -> list[tuple[str, str]]:
        kinds = _kinds([self._label(part) for part in self.composition.all_parts])
        return [] if kinds is None else self._count("kinds of sound", kinds, 4)

    def _count(self, things: str, count: int, max_count: int) -> list[tuple[str, str]]:
        wrong = self.rng.choice([number for number in range(1, max_count + 1) if number != count])
        return templates.count_questions(self.rng, things, count, wrong)


def _kinds(labels: Sequence[Label]) -> int | None:
    """Number of kinds of sound in recordings with these labels; None if one of them may contain several."""
    return len({label.label for label in labels}) if all(map(holds_one_kind, labels)) else None


class _Material:
    """The clips that examples are composed of: those of one fold, or all."""

    def __init__(self, clips: Sequence[Clip], labels: Mapping[str, Label]) -> None:
        self._labels = labels
        self._sounds = _Pool(clips, labels)
        self._backgrounds = _Pool([clip for clip in clips if (clip.duration_s or 0.0) >= _MIN_BACKGROUND_S], labels)
        self._words = _groups([clip for clip in clips if _is_word(clip)], lambda clip: "")
        self._notes = _groups([clip for clip in clips if _is_note(clip)], lambda clip: clip.events[0])

    def composition(self, rng: random.Random) -> Composition:
        """Draw how an example is made."""
        chances: dict[CompositionKind, float] = {
            "sounds": 0.8,
            "words": 0.1 if self._words else 0.0,
            "notes": 0.1 if self._notes else 0.0,
        }
        kind = rng.choices(list(chances), list(chances.values()))[0]
        parts = self._sound_parts(rng) if kind == "sounds" else self._counted_parts(kind, rng)
        background = self._background(kind, parts, rng)
        ends = (rng.uniform(0.1, 0.5), rng.uniform(0.1, 0.5))
        gaps_s = (ends[0], *(rng.uniform(0.15, 0.6) for _ in parts[1:]), ends[1])
        return Composition(kind, parts, gaps_s, background)

    def _sound_parts(self, rng: random.Random) -> tuple[Excerpt, ...]:
        wanted = rng.choices((1, 2, 3), (0.3, 0.45, 0.25))[0]
        chosen: list[Clip] = []
        while len(chosen) < wanted and (clip := self._fitting(self._sounds, chosen, rng)):
            chosen.append(clip)
        room_s = (MAX_S - 0.6 * (len(chosen) + 1)) / len(chosen)
        parts = []
        for clip in chosen:
            short = (clip.duration_s or MAX_S) <= _REPEATABLE_S
            times = rng.choice((2, 3)) if short and rng.random() < 0.2 else 1
            length_s = min(rng.uniform(_MIN_PART_S, _MAX_PART_S), room_s / times)
            parts.append(Excerpt(clip, round(length_s, 3), round(rng.uniform(-9.0, 0.0), 1), times))
        return tuple(parts)

    def _counted_parts(self, kind: CompositionKind, rng: random.Random) -> tuple[Excerpt, ...]:
        groups = self._words if kind == "words" else self._notes
        clips = groups[rng.choice(sorted(groups))]
        count = rng.randint(1, min(_MAX_COUNTED, len(clips)))
        return tuple(
            Excerpt(clip, _COUNTED_PART_S, round(rng.uniform(-2.0, 0.0), 1)) for clip in rng.sample(clips, count)
        )

    def _background(self, kind: CompositionKind, parts: tuple[Excerpt, ...], rng: random.Random) -> Excerpt | None:
        if not self._backgrounds.by_category or rng.random() > (0.65 if len(parts) == 1 else 0.4):
            return None
        clip = self._fitting(self._backgrounds, [part.clip for part in parts], rng)
        if clip is None or self._labels[clip.events[0]].category in _NO_BACKGROUND.get(kind, ()):
            return None
        softest_db = min(part.level_db for part in parts)
        # Words and notes have to stay audible one by one.
        relative_db = rng.uniform(-12.0, -3.0) if kind in _NO_BACKGROUND else rng.uniform(-12.0, 7.0)
        return Excerpt(clip, MAX_S, round(softest_db + relative_db, 1))

    def _fitting(self, pool: _Pool, chosen: Sequence[Clip], rng: random.Random) -> Clip | None:
        """A clip that certainly contains none of the chosen sounds, and whose sound no chosen clip contains."""
        for _ in range(_TRIES):
            clip = pool.draw(rng)
            pairs = [(self._labels[clip.events[0]], self._labels[other.events[0]]) for other in chosen]
            if not any(may_hold(one, other) or may_hold(other, one) for one, other in pairs):
                return clip
        return None


class _Pool:
    """Clips by category and label, drawn so that rare labels come as often as frequent ones."""

    def __init__(self, clips: Sequence[Clip], labels: Mapping[str, Label]) -> None:
        by_label = _groups(clips, lambda clip: clip.events[0])
        self.by_category = _groups(sorted(by_label), lambda name: labels[name].category)
        self._clips = by_label
        self._categories = sorted(self.by_category)
        self._chances = [len(self.by_category[category]) ** 0.5 for category in self._categories]

    def draw(self, rng: random.Random) -> Clip:
        """Draw a category, weighted by the square root of its number of labels, then one of its labels and a clip."""
        category = rng.choices(self._categories, self._chances)[0]
        return rng.choice(self._clips[rng.choice(self.by_category[category])])


def _groups(items: Sequence[K], key: Callable[[K], str]) -> dict[str, list[K]]:
    groups: defaultdict[str, list[K]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(groups)


def _usable(clip: Clip, labels: Mapping[str, Label]) -> bool:
    """Whether the clip has exactly one label, which is also true of excerpts; questions about speech need all of it."""
    return len(clip.events) == 1 and clip.events[0] in labels and clip.domain not in (COMPOSED_DOMAIN, "speech_qa")


def _is_word(clip: Clip) -> bool:
    """Whether the clip is one spoken word."""
    word = str(clip.attributes.get("keyword", clip.attributes.get("digit", "")))
    return clip.domain in ("keyword", "digit") and len(word.split()) == 1


def _is_note(clip: Clip) -> bool:
    """Whether the clip is one note: of a known pitch, and not trilled, rolled or part of a phrase."""
    attributes = clip.attributes
    return (
        "pitch" in attributes
        and attributes.get("note_length") != "phrase"
        and str(attributes.get("articulation", "")) in _SINGLE_NOTES
    )


def _folded(clips: Sequence[Clip]) -> list[list[Clip]]:
    """The clips of each fold, in order."""
    fold_N = folds_of([group_of(clip) for clip in clips])
    return [[clip for clip, fold in zip(clips, fold_N, strict=True) if fold == wanted] for wanted in range(FOLDS)]


def _fingerprint(clips: Sequence[Clip], labels: Mapping[str, Label], folds: int) -> str:
    """A hash of everything that the examples depend on, except the seed."""
    parts: list[Any] = [RULES] if folds == 1 else [RULES, folds, [group_of(clip) for clip in clips]]
    for clip in clips:
        parts.append([clip.id, clip.domain, clip.events, clip.duration_s, sorted(map(str, clip.attributes.items()))])
    used = sorted({clip.events[0] for clip in clips})
    parts += [labels[name].model_dump() for name in used]
    return text_sha256(json.dumps(parts))[:8]


def render(example: Composed, audio_root: Path, rate: int) -> Rendered:
    """The waveform of an example, and the times of each of its sounds.

    Args:
        example: whose clips' recordings are read.
        audio_root: the folder of the manifest that the clips are from.
        rate: in Hz.

    Returns:
        ``float32[S]`` within full scale, about ``MAX_S`` seconds at most, and the field ``times``.

    Raises:
        AudioError: if a recording cannot be read or is silent.
    """
    composition = example.composition
    parts = [np.tile(_rendered(part, audio_root, rate), part.times) for part in composition.parts]
    samples = mixing.concatenate(parts, composition.gaps_s, rate)
    times = _times(composition, [len(part) / rate for part in parts], len(samples) / rate)
    if composition.background is not None:
        samples = mixing.add_background(samples, _rendered(composition.background, audio_root, rate, len(samples)))
    return Rendered(mixing.limit_peak(samples), {"times": times})


def _times(composition: Composition, lengths_s: Sequence[float], whole_s: float) -> tuple[EventTime, ...]:
    """The times of the parts, one for each repetition, and of the background, which lasts throughout."""
    times = [_time(composition.background, 0.0, whole_s)] if composition.background else []
    start_s = 0.0
    for part, gap_s, length_s in zip(composition.parts, composition.gaps_s, lengths_s, strict=False):
        start_s += gap_s
        for _ in range(part.times):
            times.append(_time(part, start_s, start_s + length_s / part.times))
            start_s += length_s / part.times
    return tuple(times)


def _time(part: Excerpt, start_s: float, end_s: float) -> EventTime:
    return EventTime(
        event=part.clip.events[0], start_s=round(start_s, 3), end_s=round(end_s, 3), level_db=part.level_db
    )


def _rendered(part: Excerpt, audio_root: Path, rate: int, background_of: int | None = None) -> NDArray[np.float32]:
    """A part at its length and loudness; with ``background_of``, without pauses and with at most that many samples."""
    whole = mixing.trim_silence(load(recording(audio_root, part.clip.audio), rate), rate)
    if background_of is None:
        cut = mixing.loudest_excerpt(whole, round(part.length_s * rate), rate)
    else:
        # A sound in a pause of the background would not be "at the same time".
        cut = mixing.loudest_excerpt(mixing.shorten_pauses(whole, rate), background_of, rate)
    try:
        return mixing.set_loudness(cut, rate, part.level_db)
    except AudioError as error:
        raise AudioError(f"'{part.clip.audio}': {error}") from error


def write_composed(
    clips: Sequence[Clip],
    labels: Mapping[str, Label],
    audio_root: Path,
    out: Path,
    *,
    count: int,
    seed: int,
    rate: int = 16_000,
    workers: int = 1,
    max_bad_share: float = MAX_BAD_SHARE,
) -> Path:
    """Write examples as a corpus: ``manifest.jsonl``, ``labels.jsonl`` and FLAC files in ``audio``.

    Args:
        clips, labels, seed: as for :class:`Composer`.
        audio_root: the folder of the clips' manifest.
        out: a new folder; it appears complete or not at all.
        count: number of examples.
        rate: of the files, in Hz.
        workers: processes that mix; their number changes nothing.
        max_bad_share: share of the examples whose recordings may be unreadable; they are logged and left out.

    Returns:
        The manifest.

    Raises:
        InputError: as :class:`Composer`, or if ``out`` exists or cannot be written.
        ManifestError: if more examples fail than may, or all of them.
    """
    return write_examples(
        list(compose(clips, labels, seed, count)),
        partial(render, audio_root=audio_root, rate=rate),
        [labels[name] for name in sorted(labels)],
        out,
        rate=rate,
        workers=workers,
        max_bad_share=max_bad_share,
        extras=lambda example: {"recipe": composition_row(example.composition)},
    )


def composition_row(composition: Composition) -> dict[str, Any]:
    """A composition as a manifest shows it, next to the example's own fields."""

    def row(part: Excerpt) -> dict[str, Any]:
        values = {"id": part.clip.id, "length_s": part.length_s, "level_db": part.level_db}
        return values | ({"times": part.times} if part.times > 1 else {})

    return {
        "kind": composition.kind,
        "parts": [row(part) for part in composition.parts],
        "gaps_s": [round(gap_s, 3) for gap_s in composition.gaps_s],
        "background": row(composition.background) if composition.background else None,
    }
