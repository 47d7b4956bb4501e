"""How people ask about recordings: the wordings of each kind of question, and words to fill them with.

They are in ``assets/wordings.yaml``.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import cache

from pengi import templates
from pengi.config import Frozen
from pengi.data.tables import Texts, read_tables
from pengi.errors import no_such

CANT_TELL, NOTHING_SAID, NOTHING_CLEAR = templates.CANT_TELL, templates.NOTHING_SAID, templates.NOTHING_CLEAR
NOBODY = "nobody"
NONE = "none"
NONE_OF_THESE = "none of these"
NEITHER = "neither"


class Unanswerable(Frozen):
    """Questions that no recording can answer, and patterns of speech that may answer them after all."""

    questions: Texts
    said_words: Texts = ()
    said_patterns: Texts = ()


class WordingTables(Frozen):
    """The tables of ``assets/wordings.yaml``, where each is described."""

    questions: dict[str, Texts]
    unanswerable: dict[str, Unanswerable]
    sound_answers: dict[str, str]
    words: dict[str, Texts]


@cache
def wording_tables() -> WordingTables:
    """The tables of ``assets/wordings.yaml``."""
    return read_tables(WordingTables, "wordings.yaml")


def wordings(kind: str) -> Texts:
    """The wordings of a kind of question.

    Raises:
        KeyError: if ``assets/wordings.yaml`` has no such kind.
    """
    questions = wording_tables().questions
    if kind not in questions:
        raise KeyError(no_such("kind of question", kind, questions))
    return questions[kind]


@cache
def said_answer(kind: str) -> re.Pattern[str] | None:
    """What in speech may answer a kind of unanswerable question; None if speech cannot."""
    found = wording_tables().unanswerable[kind]
    if not found.said_words:
        return None
    return re.compile("|".join([*found.said_patterns, rf"(?i:\b({'|'.join(found.said_words)})\b)"]))


def as_typed(question: str, rng: random.Random) -> str:
    """A question as people type it: with or without a capital and a question mark."""
    draw = rng.random()
    if draw < 0.45:
        return question
    if draw < 0.75:
        return question[:1].upper() + question[1:]
    bare = question.removesuffix("?").rstrip() if question.endswith("?") else question
    if draw < 0.87:
        return bare
    if draw < 0.95 or not question.endswith("?"):
        return bare[:1].upper() + bare[1:]
    return f"{question} {rng.choice(('please', 'thanks', 'Answer briefly.', 'Thank you!'))}"


def filled(question: str, things: Sequence[str], rng: random.Random) -> str:
    """An unanswerable question with its slots filled.

    Args:
        question: the wording.
        things: values of ``{thing}``, such as "the dog"; if empty, words for any scene.
        rng: random generator.
    """
    words = wording_tables().words
    slots = {
        "city": rng.choice(words["city"]),
        "city2": rng.choice(words["city"]),
        "country": rng.choice(words["country"]),
        "person": rng.choice(words["person"]),
        "month": rng.choice(words["month"]),
        "month2": rng.choice(words["month"]),
        "topic": rng.choice(words["topic"]),
        "year": rng.randint(1900, 2030),
        "age": rng.randint(5, 90),
        "a": rng.randint(2, 999),
        "b": rng.randint(2, 99),
        "thing": rng.choice(list(things) or words["thing"]),
    }
    return question.format(**slots)
