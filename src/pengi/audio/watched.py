"""Files whose read errors are stored, since decoders in C lose them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import IO, TypeVar

T = TypeVar("T")


class WatchedFile:
    """A binary file that stores its first error instead of raising it.

    An exception in a decoder's callback is printed and lost, and then the file seems to be shorter than it is. After an
    error nothing more is read. The code that opened the file checks ``failure`` once the decoder has returned.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._position = 0
        self.failure: Exception | None = None

    def read(self, size: int = -1) -> bytes:
        return self._watched(self._file.read, size) or b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._moved(self._watched(self._file.seek, offset, whence))

    def tell(self) -> int:
        return self._moved(self._watched(self._file.tell))

    def _moved(self, position: int | None) -> int:
        self._position = self._position if position is None else position
        return self._position

    def _watched(self, call: Callable[..., T], *arguments: int) -> T | None:
        if self.failure is not None:
            return None
        try:
            return call(*arguments)
        except Exception as error:  # noqa: BLE001 - a file object of any kind may raise anything
            self.failure = error
            return None
