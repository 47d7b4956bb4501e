"""A cache of recent results with a maximum size in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

V = TypeVar("V")


class RecentCache(Generic[V]):
    """Values by key; beyond ``max_bytes`` the least recently used ones are dropped. It is thread-safe.

    Args:
        max_bytes: maximum size of all values together. A larger value is not stored.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._values: OrderedDict[str, tuple[V, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[RecentCache[V]], tuple[int]]:
        """A copy is empty: a lock cannot be copied."""
        return type(self), (self.max_bytes,)

    def get(self, key: str) -> V | None:
        """The value of a key, if it is still there."""
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            self._values.move_to_end(key)
            return found[0]

    def put(self, key: str, value: V, size: int) -> None:
        """Store a value of ``size`` bytes."""
        with self._lock:
            self._bytes -= self._values.pop(key, (None, 0))[1]
            if size > self.max_bytes:
                return
            self._values[key] = (value, size)
            self._bytes += size
            while self._bytes > self.max_bytes:
                _, (_, dropped) = self._values.popitem(last=False)
                self._bytes -= dropped
