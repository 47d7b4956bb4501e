"""What a request costs, in tokens. The queue, the limits and the usage of OpenAI's protocol count the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pengi.calls import ANSWER, DESCRIBE
from pengi.labelling import METHODS
from pengi.serving.queries import Query
from pengi.templates import is_there
from pengi.timelines import HOP_S, PART_S, TIMELINE

TOKENS_PER_S = 10
"""Tokens of a second of audio, as in OpenAI's API: encoding it takes about as long as that many tokens."""
READING_TOKENS = 100
"""Tokens for each time that the language model reads what is known about a recording, or about a part of it."""
SEARCHES = {"describe": DESCRIBE, "ask": ANSWER}
"""The default search of a method."""


class TokenCounter(Protocol):
    """The methods of :class:`pengi.engine.Pengi` that a cost depends on."""

    @property
    def has_tagger(self) -> bool: ...

    def count_tokens(self, text: str) -> int: ...

    def labels_without_tag(self, labels: Sequence[str]) -> list[str]: ...


@dataclass(frozen=True)
class Cost:
    """The tokens of a request, which are about in proportion to the time that the model takes."""

    audio: int = 0
    text: int = 0
    """Of the question, or of the prompt and the labels that are scored."""
    generated: int = 0
    """At most, of all beams."""

    @property
    def prompt(self) -> int:
        """Tokens that are read."""
        return self.audio + self.text

    @property
    def total(self) -> int:
        """All tokens."""
        return self.prompt + self.generated


def cost_of(query: Query[Any], seconds: float, counter: TokenCounter) -> Cost:
    """The cost of a query about a recording of ``seconds``.

    Raises:
        InputError: if a label is not a valid text, or there are none.
    """
    readings, text, generated = 0.0, 0, 0
    options: dict[str, Any] = dict(query.options)
    others: list[str] = []
    if query.method in ("classify", "timeline") and "labels" in options:
        others = counter.labels_without_tag(options["labels"])
    if query.method in SEARCHES:
        search = options.get("options", SEARCHES[query.method])
        readings, text = 1, counter.count_tokens(query.question)
        generated = search.beams * search.max_tokens
    elif query.method == "classify" and (others or options.get("method", METHODS[0]) != METHODS[0]):
        readings, text = 1, sum(map(counter.count_tokens, (options.get("prompt", ""), *options["labels"])))
        if {"none", "multi_label"} & options.keys():
            text += _questions(others, counter)
    elif query.method == "timeline" and others:
        readings = seconds / PART_S
        text = round(readings * _questions(others, counter))
    elif query.method == "timeline" and ({"window_s", "hop_s"} & options.keys() or not counter.has_tagger):
        readings = seconds / (options.get("hop_s") or HOP_S)  # the engine refuses 0
        generated = round(readings * TIMELINE.max_tokens)
    # At least 1: requests that cost nothing would come before all others for ever.
    return Cost(max(1, round(seconds * TOKENS_PER_S + readings * READING_TOKENS)), text, generated)


def _questions(labels: Sequence[str], counter: TokenCounter) -> int:
    """Tokens of the questions whether each label is present."""
    return sum(counter.count_tokens(is_there(label)) for label in labels)
