"""The recordings of a job: a folder, a pattern, a manifest, or a list on stdin.

The whole list is never in memory: a folder is walked, and a manifest and stdin are read line by line. For a pattern,
memory holds the names in one folder.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from pengi.audio.formats import STDIN, FolderWalk, address_error, is_regular
from pengi.data.manifest import Clip, json_row, numbered_lines, validated
from pengi.data.recordings import is_url
from pengi.errors import InputError, ManifestError


@dataclass(frozen=True)
class JobInput:
    """One recording of a job."""

    name: str
    """In a :class:`Listing`, the path inside the folder or manifest, which determines the shard. In the pipeline, the
    value of the column ``input``."""
    location: str
    """A location that :func:`pengi.data.recordings.recording` reads: a path, or a range of a tar file."""
    error: str | None = None
    """Why it cannot be used, if that is already known, for example because a folder cannot be listed."""


class Listing:
    """The recordings of a job. Each iteration reads the source again, so stdin can be iterated only once.

    Args:
        given: a folder, which is searched at any depth as :class:`pengi.audio.formats.FolderWalk` does; a manifest
            (``.jsonl``); a file; a pattern as of :mod:`glob`, ``**`` for any depth; ``-`` for paths on stdin, one a
            line.
        shard: part i of n, counted from 1. A recording's part depends only on its path inside the folder.
        limit: read only this number of recordings of the shard, from the start.
        stdin: the stream for ``-``.

    Raises:
        InputError: if nothing is there, or the shard or limit is out of range.
        ManifestError: for a bad row, with its line number.
    """

    def __init__(
        self,
        given: str,
        *,
        shard: tuple[int, int] = (1, 1),
        limit: int | None = None,
        stdin: IO[bytes] | None = None,
    ) -> None:
        part, parts = shard
        if not 1 <= part <= parts:
            raise InputError(f"there is no shard {part} of {parts}; shards are counted from 1, as in 1/{parts}")
        if limit is not None and limit < 1:
            raise InputError(f"the limit must be at least 1, not {limit}")
        address = address_error(given)
        if address is not None:
            raise InputError(address)
        self.given = given
        self.skipped = 0
        """Files of a folder that are not recordings; complete once the whole folder has been searched."""
        self._shard = shard
        self._limit = limit
        self._stdin = stdin
        if self.is_manifest:
            _check_manifest(Path(given))

    @property
    def is_stdin(self) -> bool:
        """Whether the paths come from stdin, which can be read only once."""
        return self.given == STDIN

    @property
    def is_shard(self) -> bool:
        """Whether it is one part of several. A part may have no recordings."""
        return self._shard[1] > 1

    @property
    def is_manifest(self) -> bool:
        """Whether rows of a manifest name the recordings."""
        return not self.is_stdin and self.given.endswith(".jsonl") and not os.path.isdir(self.given)  # noqa: PTH112

    def __iter__(self) -> Iterator[JobInput]:
        part, parts = self._shard
        chosen = (item for item in self._all() if parts == 1 or _digest(item.name) % parts == part - 1)
        return islice(chosen, self._limit)

    def count(self) -> int | None:
        """Number of recordings, where one that is listed twice counts twice; None for stdin."""
        return None if self.is_stdin else sum(1 for _ in self)

    def _all(self) -> Iterator[JobInput]:
        if self.is_stdin:
            return _from_lines(self._stdin or sys.stdin.buffer)
        path = Path(self.given)
        if os.path.isdir(path):  # noqa: PTH112 - pathlib fails in a folder that may not be entered
            return self._from_folder()
        if self.is_manifest:
            return _from_manifest(path)
        if _is_named(self.given):
            return iter([JobInput(path.name, self.given)])
        return _from_pattern(self.given)

    def _from_folder(self) -> Iterator[JobInput]:
        walk = FolderWalk(self.given)
        for found in walk:
            yield JobInput(os.path.relpath(found.path, self.given), found.path, found.error)
        self.skipped = walk.skipped


def _digest(text: str) -> int:
    content = hashlib.blake2b(os.fsencode(text), digest_size=8).digest()
    return int.from_bytes(content, "big")


def _from_lines(stream: IO[bytes]) -> Iterator[JobInput]:
    for line in stream:
        path = os.fsdecode(line.rstrip(b"\r\n"))
        if path.strip():
            yield JobInput(path, path)


def _is_named(given: str) -> bool:
    """Whether a name is that of a file, pipe or device rather than a pattern; also true if access to it is denied."""
    try:
        os.stat(given)  # noqa: PTH116 - as above
    except (OSError, ValueError) as error:
        return getattr(error, "errno", None) not in (None, errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
    return True


def _from_pattern(pattern: str) -> Iterator[JobInput]:
    nothing = True
    for path in glob.iglob(pattern, recursive=True):  # noqa: PTH207 - Path.glob takes no absolute patterns
        if is_regular(path):
            nothing = False
            yield JobInput(path, path)
    if nothing:
        raise InputError(f"there is no file or folder '{pattern}', and as a pattern it matches nothing")


def _from_manifest(path: Path) -> Iterator[JobInput]:
    root = path.parent
    for _, row in _rows(path):
        audio = row["audio"]
        yield JobInput(audio, audio if is_url(audio) else str(root / audio))


def _check_manifest(path: Path) -> None:
    """Check all rows before the work begins."""
    empty = True
    for origin, row in _rows(path):
        validated(Clip, row, origin)
        empty = False
    if empty:
        raise ManifestError(f"{path} has no rows")


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row with its file and line."""
    for number, line in numbered_lines(path):
        origin = f"{path}, line {number}"
        yield origin, json_row(line, origin)
