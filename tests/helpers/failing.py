"""Files, disks and writers that fail."""

from __future__ import annotations

import io
import os


class FailingFile(io.BytesIO):
    """A file that answers as a disk does of which a part cannot be read."""

    def __init__(self, content: bytes, good_bytes: int, error: Exception, method: str = "read") -> None:
        super().__init__(content)
        self._good_bytes, self._error, self._method = good_bytes, error, method

    def read(self, size: int | None = -1) -> bytes:
        content = super().read(size)
        if self._method == "read" and self.tell() > self._good_bytes:
            raise self._error
        return content

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if self._method == "seek":
            raise self._error
        return super().seek(offset, whence)
