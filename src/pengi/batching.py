"""Feeds a model: items in batches, and batches that several items share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from pengi.errors import PengiError

T = TypeVar("T")
P = TypeVar("P")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Items in lists of ``size``; the last one may be shorter. If ``items`` raises a :class:`PengiError`, the items
    before it are yielded first."""
    batch: list[T] = []
    try:
        for item in items:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
    except PengiError:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def shared_batches(
    items: Iterable[T], parts_of: Callable[[T], Iterable[P]], size: int
) -> Iterator[tuple[list[tuple[T, P]], list[T]]]:
    """The parts of items, such as the windows of recordings, in batches of ``size`` that different items share.

    Yields:
        a batch of parts with their items, and the items that have no parts after this batch. Both are in order. A batch
        is empty if an item without parts ends when no other part waits.
    """
    batch: list[tuple[T, P]] = []
    ended: list[T] = []
    for item in items:
        for part in parts_of(item):
            batch.append((item, part))
            if len(batch) == size:
                yield batch, ended
                batch, ended = [], []
        ended.append(item)
        if not batch:
            yield batch, ended
            batch, ended = [], []
    if batch:
        yield batch, ended
