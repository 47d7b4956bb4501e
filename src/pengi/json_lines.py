"""A file of JSON lines that is only appended to, so that the process that writes it may be killed at any moment."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pengi.writing import append, replacing, writing

Row = dict[str, Any]
_BLOCK_BYTES = 1 << 16


class JsonLines:
    """Rows in the order in which they were written; an incomplete last line is ignored.

    A writer has to hold :func:`pengi.writing.locked`, and to call :meth:`mend` before the first row.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Iterator[Row | None]:
        """Every row, read from the disk as it is needed; None for a line that is not a JSON object."""
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield _parsed(line)

    def mend(self) -> None:
        """Remove a last line that was cut off.

        Raises:
            InputError: if the file cannot be written.
        """
        if not self.path.is_file():
            return
        with writing(self.path), self.path.open("r+b") as file:
            complete_bytes = _complete_bytes(file)
            if complete_bytes < file.seek(0, os.SEEK_END):
                file.truncate(complete_bytes)

    def append(self, rows: Iterable[Row]) -> None:
        """Add rows; they are on the disk when this returns.

        Raises:
            InputError: if the file cannot be written; it is then as it was before.
            ValueError: if a row holds a number that JSON does not have.
        """
        append(self.path, b"".join(map(_line, rows)))

    def rewrite(self, rows: Iterable[Row]) -> None:
        """Replace all rows by these, which may be read from the same file.

        Raises:
            InputError: if the file cannot be written.
        """
        with replacing(self.path) as partial, partial.open("wb") as file:
            file.writelines(map(_line, rows))
            file.flush()
            os.fsync(file.fileno())


def _line(row: Row) -> bytes:
    return (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _parsed(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _complete_bytes(file: BinaryIO) -> int:
    """Length of a file up to its last line end, read backwards from its end."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - _BLOCK_BYTES)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
