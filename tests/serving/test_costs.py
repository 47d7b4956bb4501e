"""What a request costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from pengi.decoding import DecodeOptions
from pengi.serving import queries
from pengi.serving.costs import Cost, cost_of
from pengi.serving.queries import Query


class Words:
    """Counts words, and has a tag for dogs if it has a tagger."""

    def __init__(self, *, has_tagger: bool = True) -> None:
        self.has_tagger = has_tagger

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def labels_without_tag(self, labels: Sequence[str]) -> list[str]:
        return [label for label in labels if label != "dog" or not self.has_tagger]


@pytest.mark.parametrize(
    ("query", "cost"),
    [
        (queries.embed(), Cost(100)),
        (queries.tags(labels=["dog"]), Cost(100)),
        (queries.transcribe(), Cost(100)),
        (queries.ask("who is it?"), Cost(200, 3, 30)),
        (queries.ask("who?", options=DecodeOptions(beams=2, max_tokens=200)), Cost(200, 1, 400)),
        (queries.describe(), Cost(200, 0, 120)),
        (queries.classify(["dog"], none=True), Cost(100)),
        (queries.classify(["dog"], method="likelihood"), Cost(100)),
        (queries.classify(["dog", "dog"], method="generate"), Cost(200, 2)),
        (queries.classify(["dog", "red car"], prompt="this is"), Cost(200, 5)),
        (queries.classify(["dog", "red car", "tram"], multi_label=True), Cost(200, 4 + 4 + 3)),
        (queries.timeline(), Cost(100)),
        (queries.timeline(labels=["dog"]), Cost(100)),
        (queries.timeline(labels=["dog", "tram"]), Cost(500, 4 * 3)),
        (queries.timeline(window_s=4.0, hop_s=2.0), Cost(600, 0, 120)),
        (queries.timeline(window_s=8.0), Cost(300, 0, 48)),
        (queries.timeline(window_s=8.0, hop_s=0.0), Cost(300, 0, 48)),
    ],
)
def test_the_cost_of_ten_seconds(query: Query[Any], cost: Cost) -> None:
    assert cost_of(query, 10.0, Words()) == cost


def test_no_request_is_free() -> None:
    assert cost_of(queries.embed(), 0.01, Words()) == Cost(1)


def test_without_a_tagger_the_language_model_does_more() -> None:
    assert cost_of(queries.classify(["dog"]), 10.0, Words(has_tagger=False)) == Cost(200, 1)
    assert cost_of(queries.timeline(), 10.0, Words(has_tagger=False)) == Cost(300, 0, 48)
