"""Wrappers of files for decoders: a range of bytes with corrected header fields, and a file that stores read errors."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from typing import IO, TypeVar

T = TypeVar("T")


class FileView(io.RawIOBase):
    """A read-only view of a range of a seekable binary file. Several views of one file may be read in turn.

    A view has no name, since decoders would guess the format from it before they look at the content. Closing a view
    leaves the file open.
    """

    def __init__(
        self, file: IO[bytes], start: int = 0, end: int | None = None, patches: Mapping[int, bytes] | None = None
    ) -> None:
        """``patches`` maps offsets of the view to the bytes that replace those of the file."""
        self._file = file
        self._start = start
        self._size = max(0, (file.seek(0, os.SEEK_END) if end is None else end) - start)
        self._patches = dict(patches or {})
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # typeshed has a private buffer type
        count = max(0, min(len(buffer), self._size - self._position))
        if not count:
            return 0
        self._file.seek(self._start + self._position)
        content = self._file.read(count)
        buffer[: len(content)] = content
        for offset, patch in self._patches.items():
            first = max(offset, self._position)
            last = min(offset + len(patch), self._position + len(content))
            if first < last:
                buffer[first - self._position : last - self._position] = patch[first - offset : last - offset]
        self._position += len(content)
        return len(content)


def view(
    file: IO[bytes], start: int = 0, end: int | None = None, patches: Mapping[int, bytes] | None = None
) -> IO[bytes]:
    """A buffered :class:`FileView`."""
    return io.BufferedReader(FileView(file, start, end, patches))


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
