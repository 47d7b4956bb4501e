"""Batches, and batches that several items share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pengi.batching import batched, shared_batches
from pengi.errors import AudioError


def damaged() -> Iterator[int]:
    yield from range(3)
    raise AudioError("cut off")


def test_batches_keep_everything_in_order() -> None:
    assert list(batched(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(batched([], 2)) == []


def test_items_before_an_error_are_a_batch() -> None:
    batches = batched(damaged(), 2)
    assert [next(batches), next(batches)] == [[0, 1], [2]]
    with pytest.raises(AudioError, match="cut off"):
        next(batches)


def test_items_share_batches_and_end_with_the_batch_of_their_last_part() -> None:
    """Each letter is followed by its number of parts; an item without parts waits only for the parts before it."""
    items = ["a0", "b3", "c1", "d0", "e2", "f0"]
    found = list(shared_batches(items, lambda item: range(int(item[1])), 2))
    assert found == [
        ([], ["a0"]),
        ([("b3", 0), ("b3", 1)], []),
        ([("b3", 2), ("c1", 0)], ["b3"]),
        ([], ["c1"]),
        ([], ["d0"]),
        ([("e2", 0), ("e2", 1)], []),
        ([], ["e2"]),
        ([], ["f0"]),
    ]
    assert list(shared_batches(["a1", "b0"], lambda item: range(int(item[1])), 4)) == [([("a1", 0)], ["a1", "b0"])]
