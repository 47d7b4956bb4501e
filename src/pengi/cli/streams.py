"""stdout and stderr that accept any text and store their first failure.

A character that the encoding lacks becomes a question mark. Output that cannot be written, because a disk is full or a
pipe is closed, is discarded; :func:`output_failure` gives the reason.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any, TextIO


class _WatchedRaw(io.RawIOBase):
    """Writes bytes to the stream below until that fails, and then discards them."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream  # keeps the stream alive; if it were deleted, it would close the one below
        self._below = getattr(stream.buffer, "raw", stream.buffer)
        self.failure: OSError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return int(self._below.fileno())

    def isatty(self) -> bool:
        return bool(self._below.isatty())

    def write(self, content: Any) -> int | None:
        if self.failure is None:
            try:
                written: int | None = self._below.write(content)
                return written
            except OSError as error:
                self.failure = error
        return len(content)


def watch_output() -> None:
    """Wrap ``sys.stdout`` and ``sys.stderr`` as the module describes; a closed one becomes the null device."""
    sys.stdout, sys.stderr = _watched(sys.stdout), _watched(sys.stderr)


def output_failure() -> OSError | None:
    """The error with which writing to stdout failed; None if everything so far was written."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.failure if isinstance(raw, _WatchedRaw) else None


def _watched(stream: Any) -> io.TextIOWrapper:
    if stream is None:
        stream = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - it is open to the end
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_WatchedRaw(stream)),
        encoding=stream.encoding,
        errors="replace" if stream.errors in ("strict", "backslashreplace") else stream.errors,
        # With a pipe, stderr is not line-buffered but write-through, and write-through ends at the buffer below.
        line_buffering=stream.line_buffering or stream.write_through,
        write_through=stream.write_through,
    )


def can_encode(text: str, stream: TextIO) -> bool:
    """Whether a stream's encoding has every character of a text."""
    try:
        text.encode(stream.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def bar(share: float, columns: int, stream: TextIO) -> str:
    """A horizontal bar of characters that the stream's encoding has."""
    return ("█" if can_encode("█", stream) else "#") * round(share * columns)
