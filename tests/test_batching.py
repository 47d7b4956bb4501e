"""Batches, batches that several items share, and decoding ahead."""

from __future__ import annotations

import threading
from itertools import count

import pytest

from pengi.batching import batched, decode_ahead, shared_batches
from pengi.errors import AudioError


def test_batches_keep_everything_in_order_up_to_an_error() -> None:
    assert list(batched(range(5), 2)) == [[0, 1], [2, 3], [4]]
    batches = batched(decode_ahead(count(), whole_until_3, workers=2, ahead=4), 2)
    assert [next(batches), next(batches)] == [[0, 1], [2]]
    with pytest.raises(AudioError, match="cut off"):
        next(batches)


def test_items_share_batches_and_end_with_the_batch_of_their_last_part() -> None:
    """An item, here its number of parts, waits only for parts before it."""
    assert list(shared_batches([0, 3, 1, 0, 2], range, 2)) == [
        ([], [0]),
        ([(3, 0), (3, 1)], []),
        ([(3, 2), (1, 0)], [3]),
        ([], [1]),
        ([], [0]),
        ([(2, 0), (2, 1)], []),
        ([], [2]),
    ]
    assert list(shared_batches([1, 0], range, 4)) == [([(1, 0)], [1, 0])]


def whole_until_3(item: int) -> int:
    if item == 3:
        raise AudioError("cut off")
    return item


def test_decoded_items_keep_their_order_and_threads_end_when_it_is_closed() -> None:
    second, threads = threading.Event(), set()

    def decode(item: int) -> int:
        threads.add(threading.current_thread())
        if item == 1:
            second.set()
        return item if item or second.wait(10) else -1  # the first one waits for the second

    decoded = decode_ahead(count(), decode, workers=2, ahead=3)
    assert [next(decoded) for _ in range(4)] == [0, 1, 2, 3]
    decoded.close()
    assert len(threads) == 2
    assert not any(thread.is_alive() for thread in threads)
