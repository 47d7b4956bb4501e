"""Draws what people say in scenes without audio, and questions about it.

The answer to a question such as "what is the speaker's name?" is a refusal if no name is said.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache

from pengi.config import Frozen
from pengi.data.tables import Texts, read_tables
from pengi.data.wordings import CANT_TELL, wording_tables
from pengi.templates import NUMBERS

_TRANSCRIPTS, _PLAIN = 0.15, 0.3
"""Shares of sentences: below the first a recording's sentence is taken, up to the second one without questions."""
_WORDINGS = 2
"""Maximum number of questions about each slot in the sentence."""
_REFUSED = 0.3
"""Ratio of unanswerable questions to answered ones."""
_OF_ORDERS = 1.5
_TRIES = 6
_CHOICE = re.compile(r"\[[^][()<>]*\]|\([^][()<>]*\)|<[^][()<>]*>")
_SLOT = re.compile(r"\{(\w+)\}")
_ASKING = re.compile(r"(?:(?:Hi|Hello), )?(?:[Cc]an|[Cc]ould|[Mm]ay) (?:I|we|you) [^.?]*\.$")
_VOWEL = re.compile(r"\b([Aa]) (?=[aeiouAEIOU]|8)(?!(?:one|uni|use)\b)")
_DIGITS = {str(number): word for number, word in enumerate(NUMBERS)}


class Topic(Frozen):
    """Sentences about a topic and questions about their slots, as ``assets/spoken_topics.yaml`` describes them."""

    sentences: Texts
    asked: dict[str, Texts]
    is_order: bool = False


class SpokenTables(Frozen):
    """The tables of ``assets/spoken_topics.yaml``, where each is described."""

    slots: dict[str, Texts]
    asked_of_orders: Texts
    asked_of_others: Texts
    topics: tuple[Topic, ...]
    plain: Texts


@cache
def spoken_tables() -> SpokenTables:
    """The tables of ``assets/spoken_topics.yaml``, with the slots that ``assets/wordings.yaml`` has, too."""
    words = wording_tables().words
    shared = {"city": words["city"], "city2": words["city"], "country": words["country"], "month": words["month"]}
    found = read_tables(SpokenTables, "spoken_topics.yaml")
    return found.model_copy(update={"slots": found.slots | shared})


@dataclass(frozen=True)
class Spoken:
    """Sentences that are said, and questions that they answer."""

    text: str
    qa: tuple[tuple[str, str], ...] = ()


def draw_spoken(rng: random.Random, transcripts: Sequence[str], sentences: int = 1) -> list[Spoken]:
    """Draw sentences: from real recordings, or generated, with or without questions that they answer.

    Generated sentences with questions differ in the kinds of their slots, so that each question is unambiguous.

    Args:
        rng: random generator.
        transcripts: English sentences of real recordings; may be empty.
        sentences: number of sentences.
    """
    used: set[str] = set()
    return [_sentence(rng, transcripts, used) for _ in range(sentences)]


def together(spoken: Sequence[Spoken]) -> Spoken:
    """Sentences joined into one text.

    A question is left out if two sentences answer it differently. If several sentences have questions, the unanswerable
    ones are left out.
    """
    several = sum(bool(one.qa) for one in spoken) > 1
    asked: dict[str, str | None] = {}
    for question, answer in (pair for one in spoken for pair in one.qa):
        if not (several and answer == CANT_TELL):
            asked[question] = answer if asked.get(question, answer) == answer else None
    text = " ".join(one.text for one in spoken)
    return Spoken(text, tuple((question, answer) for question, answer in asked.items() if answer is not None))


def _sentence(rng: random.Random, transcripts: Sequence[str], used: set[str]) -> Spoken:
    """A sentence; if generated, without slots of the kinds in ``used``. The kinds of its questions are added there."""
    draw = rng.random()
    if transcripts and draw < _TRANSCRIPTS:
        text = rng.choice(transcripts)
        return Spoken(text[:1].upper() + text[1:] + ("" if text[-1] in ".!?" else "."))
    topics = spoken_tables().topics
    for _ in range(_TRIES if draw >= _PLAIN else 0):
        topic = rng.choices(topics, [len(one.sentences) * (_OF_ORDERS if one.is_order else 1.0) for one in topics])[0]
        kinds = {_kind(name) for names in topic.asked for name in names.split()}
        if not used & kinds:
            used |= kinds
            return _about(topic, rng)
    fitting = [text for text in spoken_tables().plain if not used & {_kind(name) for name in _SLOT.findall(text)}]
    return Spoken(_filled(rng.choice(fitting), rng, {}))


def _kind(slot: str) -> str:
    """ "city2" -> "city"."""
    return {"weekday": "day", "light": "colour", "age": "number", "count": "number"}.get(slot, slot.rstrip("2"))


def _about(topic: Topic, rng: random.Random) -> Spoken:
    """A sentence of a topic, with questions about its slots and a few unanswerable ones about other slots."""
    slots: dict[str, str] = {}
    text = _filled(_expanded(rng.choice(topic.sentences), rng), rng, slots).replace("..", ".")
    if _ASKING.match(text):
        text = text.removesuffix(".") + "?"
    said = {names: answer for names in topic.asked if (answer := _answer(names.split(), slots, text)) is not None}
    known = {wording for names in said for wording in topic.asked[names]}
    qa = {}
    for names, answer in said.items():
        is_only = [_kind(name) for name in slots].count(_kind(names.split()[-1])) == 1
        fitting = [
            wording
            for wording in topic.asked[names]
            if set(_SLOT.findall(wording)) <= slots.keys() and (is_only or wording.endswith("?"))
        ]
        for wording in rng.sample(fitting, min(_WORDINGS, len(fitting))):
            qa[_worded(wording, topic, rng, slots)] = answer
    others = [other for other in spoken_tables().topics if other.is_order != topic.is_order]
    open_ones = [
        (wording, about)
        for about in (topic, rng.choice(others))
        for names, wordings in about.asked.items()
        if not {_kind(name) for name in names.split()} & {_kind(name) for name in slots}
        for wording in wordings
        if wording not in known and set(_SLOT.findall(wording)) <= (slots.keys() if about is topic else set())
    ]
    count = min(len(open_ones), int(_REFUSED * len(qa) + rng.random()))
    for wording, about in rng.sample(open_ones, count):
        qa.setdefault(_worded(wording, about, rng, slots), CANT_TELL)
    return Spoken(text, tuple(qa.items()))


def _answer(names: Sequence[str], slots: Mapping[str, str], text: str) -> str | None:
    """The value of the last slot, preceded by the values of the others if the text has them directly before it; None if
    the slot is not filled."""
    if names[-1] not in slots:
        return None
    answer = slots[names[-1]]
    for name in reversed(names[:-1]):
        longer = [f"{slots.get(name, '')}{joint}{answer}" for joint in (" ", " at ")]
        answer = next((both for both in longer if name in slots and both.casefold() in text.casefold()), answer)
    return answer.removesuffix(" of")


def _worded(wording: str, topic: Topic, rng: random.Random, slots: dict[str, str]) -> str:
    """A question with its slots filled; a noun is first put into one of the questions for nouns."""
    if not wording.endswith("?"):
        asked = spoken_tables().asked_of_orders if topic.is_order else spoken_tables().asked_of_others
        wording = rng.choice(asked).replace("{n}", wording)
    return _filled(wording, rng, slots, capital=False)


def _expanded(text: str, rng: random.Random) -> str:
    """A text with random choices for ``[...]``, ``(...)`` and ``<...>``, see ``assets/spoken_topics.yaml``."""
    while found := _CHOICE.search(text):
        options = found[0][1:-1].split("|")
        if found[0][0] == "<":
            some = rng.sample(options, rng.randint(1, len(options)))
            chosen = " and ".join(filter(None, [", ".join(some[:-1]), some[-1]]))
        else:
            chosen = rng.choice(options) if found[0][0] == "(" or rng.random() < 0.5 else ""
        text = text[: found.start()] + chosen + text[found.end() :]
    return re.sub(r" +(?=[,.?! ])", "", text).strip()


def _filled(text: str, rng: random.Random, slots: dict[str, str], *, capital: bool = True) -> str:
    """A text with its slots filled; their values are added to ``slots``."""
    for name in _SLOT.findall(text):
        if name not in slots:
            known = spoken_tables().slots[name]
            values = (_filled(rng.choice(known), rng, {}, capital=False) for _ in range(_TRIES))
            slots[name] = next((value for value in values if value not in slots.values()), known[0])
    filled = _VOWEL.sub(r"\1n ", text.format(**slots))
    return filled[:1].upper() + filled[1:] if capital else filled


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation, digits as words."""
    return [_DIGITS.get(word, word) for word in re.findall(r"[\w']+", text.casefold())]


def as_read(answer: str, truth: str, transcript: str) -> str:
    """The part of a transcript that corresponds to an answer; empty if it is missing.

    Args:
        answer: some of the words of ``truth``, in their order.
        truth: what was said.
        transcript: the output of a speech recogniser.
    """
    if answer.casefold() in transcript.casefold():
        return answer
    wanted, said, written = words_of(answer), words_of(truth), words_of(transcript)
    starts = [start for start in range(len(said)) if said[start : start + len(wanted)] == wanted]
    if not starts:
        return ""
    blocks = SequenceMatcher(None, said, written, autojunk=False).get_matching_blocks()
    start, end = starts[0], starts[0] + len(wanted)
    first = max((block.b + min(block.size, start - block.a) for block in blocks if block.a < start), default=0)
    last = min(
        (block.b + max(0, end - block.a) for block in blocks if block.a + block.size > end), default=len(written)
    )
    spans = [found.span() for found in re.finditer(r"[\w']+", transcript)][first:last]
    return transcript[spans[0][0] : spans[-1][1]] if spans else ""


def misheard(text: str, rate: float, rng: random.Random) -> str:
    """A text with about a share ``rate`` of its words dropped or changed, as by a speech recogniser."""
    words = []
    for word in text.split():
        draw = rng.random()
        if draw < rate / 4:
            continue
        words.append(_changed(word, rng) if draw < rate else word)
    return " ".join(words)


def _changed(word: str, rng: random.Random) -> str:
    """A word without its last letter or with one other vowel; for a short word another one."""
    if len(word) < 4 or rng.random() < 0.5:
        return rng.choice(("the", "a", "and", "it", "to", "is")) if len(word) < 4 else word[:-1]
    return re.sub(r"[aeiou]", lambda _: rng.choice("aeiou"), word, count=1)


MAX_WORD_ERRORS = 0.34
"""Largest share of wrong words in a transcript that still counts as right."""


def is_near(truth: str, transcript: str) -> bool:
    """Whether a transcript is right except for at most the share :data:`MAX_WORD_ERRORS` of the words."""
    said, written = words_of(truth), words_of(transcript)
    right = sum(block.size for block in SequenceMatcher(None, said, written, autojunk=False).get_matching_blocks())
    return max(len(said), len(written)) - right <= MAX_WORD_ERRORS * len(said)
