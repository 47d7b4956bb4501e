"""Feeds a model: items in batches, batches that several items share, and items that threads decode ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
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


def decode_ahead(items: Iterable[T], decode: Callable[[T], P], *, workers: int, ahead: int) -> Generator[P]:
    """What ``decode`` gives for each item, in order; the ``ahead`` next items are decoded by threads in the meantime.

    Items are taken in the caller's thread. An error of an item that should not end the others has to be a value that
    ``decode`` returns. When the generator is closed, threads finish what they have begun.
    """
    waiting = iter(items)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        decoded: deque[Future[P]] = deque(pool.submit(decode, item) for item in islice(waiting, ahead))
        while decoded:
            decoded.extend(pool.submit(decode, item) for item in islice(waiting, 1))
            yield decoded.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
