"""The benchmark ``val-composed``: questions about composed recordings, as :mod:`pengi.data.compose` makes them."""

from __future__ import annotations

import random
import re
from collections import defaultdict

from pengi import templates
from pengi.data.compose import Composed
from pengi.evaluation.benchmarks import YES_NO
from pengi.evaluation.patterns import NO, YES, number
from pengi.evaluation.questions import SEED, LabelledClips, LabelNames, Question

_KINDS = {
    "count": r"how many",
    "loudness": r"loud|quieter|softer",
    "order": r"first|earlier|before|after|follow|comes right|later|last|order",
}
_YES_NO_FORMS = {
    "yes or no: exactly so many": r"exactly",
    "yes or no: one before the other": r" before |first and then| after ",
    "yes or no: together": r"same time|together",
    "yes or no: louder": r"louder",
}


def composed_questions(source: LabelledClips) -> list[Question]:
    """A yes/no question and another question about each composition, in the wordings of :mod:`pengi.templates`.

    A kind is drawn before a question of that kind, because otherwise most questions would be about order.
    """
    rng, names = random.Random(SEED), LabelNames(source.labels)
    chosen = []
    for example in source.composed():
        for yes_no in (True, False):
            by_form: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
            for pair in example.clip.qa:
                if (pair.answer in YES_NO) == yes_no:
                    by_form[_form(pair.question, pair.answer)].append((pair.question, pair.answer))
            if by_form:
                question, answer = rng.choice(by_form[rng.choice(sorted(by_form))])
                accepted = _composed(question, answer, example, names)
                chosen.append(Question(example.clip, _kind(question, answer), question, answer, (accepted,)))
    return chosen


def _kind(question: str, answer: str) -> str:
    if answer in YES_NO:
        return "yes or no"
    return next((kind for kind, words in _KINDS.items() if re.search(words, question)), "which sound")


def _form(question: str, answer: str) -> str:
    """The kind of a question, with the subject of a yes/no question, or with "named" if it offers a choice."""
    kind = _kind(question, answer)
    if kind == "yes or no":
        found = (form for form, words in _YES_NO_FORMS.items() if re.search(words, question))
        return next(found, "yes or no: there")
    return f"{kind}: named" if kind in ("order", "which sound") and " or " in question else kind


def _composed(question: str, answer: str, example: Composed, names: LabelNames) -> str:
    if answer in YES_NO:
        return YES if answer == templates.YES else NO
    if answer in templates.NUMBERS:
        return number(templates.NUMBERS.index(answer))
    named = [label for label in names.labels if re.search(rf"\b{re.escape(names.phrase(label))}\b", question)]
    # "an alarm" is not named by "an alarm clock ringing".
    named = [
        label for label in named if not any(names.phrase(label) in names.phrase(one) for one in named if one != label)
    ]
    right = next(label for label in example.clip.events if names.phrase(label) == answer)
    return names.one(right, sorted({*named, *example.clip.events}))
