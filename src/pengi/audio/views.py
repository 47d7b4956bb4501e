"""A view of a file for a decoder: without a name, limited to a range of bytes, with corrected header fields."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import IO


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
