"""Bringing an index up to date with a folder: what is new, changed, moved, untouched, gone, and what cannot be used.

A recording is the same while its size and time of change are; if not, its SHA-256 decides, so that a copied or restored
archive, whose times are new, is not heard again. A new path whose content the index knows takes over what was heard.

Work is written every few recordings. A run that is killed has lost at most the recordings since then, and the next one
goes on from what the index holds: there is no other state.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from pengi.audio.formats import FolderWalk, address_error
from pengi.data.recordings import is_url
from pengi.errors import AudioError, InputError, PengiError, reason
from pengi.retrieval.table import RecordingsTable, Stamp, Window

if TYPE_CHECKING:
    from pengi.retrieval.hearing import Hearing

ROWS_PER_WRITE = 256
SECONDS_PER_WRITE = 60.0
LOCK = "writing.lock"

Progress = Callable[[int, int], None]
"""Is told how many recordings are heard, and how many are to be."""


@dataclass
class Changes:
    """What an update did, in recordings."""

    added: int = 0
    changed: int = 0
    copied: int = 0
    """New paths whose content was in the index already: moved, renamed or copied recordings."""
    unchanged: int = 0
    removed: int = 0
    windows: int = 0
    """Windows that were heard."""
    passed_over: int = 0
    """Files of the folder that are no recordings."""
    failed: list[tuple[str, str]] = field(default_factory=list)
    """Paths that could not be used, and why, in a sentence."""

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON values."""
        counts = {name: value for name, value in vars(self).items() if name != "failed"}
        return counts | {"failed": [{"input": path, "error": error} for path, error in self.failed]}


@dataclass(frozen=True)
class Listing:
    """What a folder holds: absolute paths of recordings, sorted, and folders that cannot be read, with the reason."""

    folder: str
    recordings: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...]
    passed_over: int = 0
    """Files that are no recordings."""

    def answers_for(self, path: str) -> bool:
        """Whether a recording that is not listed is truly gone."""
        below = os.path.join(self.folder, "")  # noqa: PTH118
        return path.startswith(below) and not any(path.startswith(folder) for folder, _ in self.unreadable)


def recordings_below(folder: Path) -> Listing:
    """Recordings of a folder at any depth, as :class:`pengi.audio.formats.FolderWalk` finds them.

    Raises:
        InputError: if there is no such folder.
    """
    if not os.path.isdir(folder):  # noqa: PTH112 - pathlib fails in a folder that may not be entered
        raise InputError(address_error(str(folder)) or f"there is no folder '{folder}'")
    root = str(folder.resolve())
    walk = FolderWalk(root)
    found = list(walk)
    recordings = sorted(item.path for item in found if item.error is None)
    unreadable = tuple((item.path, item.error) for item in found if item.error is not None)
    return Listing(root, tuple(recordings), unreadable, walk.passed_over)


@contextmanager
def only_writer(location: str) -> Iterator[None]:
    """Held while an index is written, so that two updates do not hear the same recordings; freed even by a kill.

    An object store has no lock: there it is for the user to see to it that one process writes.

    Raises:
        InputError: if another process writes, or the folder cannot be made.
    """
    if is_url(location):
        yield
        return
    lock = FileLock(Path(location, LOCK), timeout=0)
    try:
        Path(location).mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise InputError(f"another process is writing the index '{location}'; wait until it is done") from error
    except OSError as error:
        raise InputError(f"no index can be written at '{location}': {reason(error)}") from error
    try:
        yield
    finally:
        lock.release()


class Update:
    """One run over a list of recordings."""

    def __init__(self, table: RecordingsTable, hearing: Hearing, progress: Progress | None = None) -> None:
        self._table = table
        self._hearing = hearing
        self._progress = progress or (lambda done, total: None)
        self.changes = Changes()

    def run(self, paths: Sequence[str], gone: Callable[[str], bool]) -> Changes:
        """Index ``paths``; of what else the index holds, that for which ``gone`` says so is removed."""
        self._table.prepare()
        known = self._table.stamps()
        wanted = set(paths)
        # Moved recordings are taken over from their old paths before these go.
        to_hear = self._sort_out(paths, known)
        removed = [path for path in known if path not in wanted and gone(path)]
        self._table.delete(removed)
        self.changes.removed = len(removed)
        self._hear(to_hear, known)
        self._table.tidy(finished=True)
        return self.changes

    def _sort_out(self, paths: Sequence[str], known: dict[str, Stamp]) -> list[str]:
        """Deal with all that need not be heard, and give the rest."""
        sizes = {stamp.size for stamp in known.values()}
        path_of = {stamp.sha256: path for path, stamp in known.items()}
        to_hear: list[str] = []
        restamped: dict[str, Stamp] = {}
        copies: list[tuple[str, str, Stamp]] = []
        unusable: list[str] = []
        for path in paths:
            before = known.get(path)
            try:
                size, mtime_ns = _status(path)
                if before is not None and (before.size, before.mtime_ns) == (size, mtime_ns):
                    self.changes.unchanged += 1
                    continue
                # Content is only read where something known could be the same.
                stamp = _stamp(path) if size in sizes else None
            except PengiError as error:
                self._note(path, error)
                unusable += [path] if path in known else []
                continue
            if stamp is None or stamp.sha256 not in path_of:
                to_hear.append(path)
            elif before is not None and stamp.sha256 == before.sha256:
                restamped[path] = replace(before, mtime_ns=mtime_ns)
                self.changes.unchanged += 1
            else:
                copies.append((path_of[stamp.sha256], path, stamp))
        # What is itself replaced cannot be taken over by another: recordings that swapped names are heard again.
        replaced = {path for _, path, _ in copies}
        to_hear += [path for source, path, _ in copies if source in replaced]
        copies = [entry for entry in copies if entry[0] not in replaced]
        self._table.restamp(restamped)
        self._table.copy(copies)
        self._table.delete(unusable)
        self.changes.copied = len(copies)
        return to_hear

    def _hear(self, paths: Sequence[str], known: dict[str, Stamp]) -> None:
        new: list[dict[str, Any]] = []
        renewed: list[dict[str, Any]] = []
        written = time.monotonic()
        for done, (path, stamp, outcome) in enumerate(self._heard(paths), start=1):
            if isinstance(outcome, PengiError):
                self._note(path, outcome)
                # What the index holds of it is of another content.
                self._table.delete([path] if path in known else [])
            else:
                rows = [window.to_row() | _stamped(path, stamp) for window in outcome]
                (renewed if path in known else new).extend(rows)
                self.changes.windows += len(rows)
                self.changes.added += path not in known
                self.changes.changed += path in known
            if len(new) + len(renewed) >= ROWS_PER_WRITE or time.monotonic() - written > SECONDS_PER_WRITE:
                self._write(new, renewed)
                new, renewed, written = [], [], time.monotonic()
            self._progress(done, len(paths))
        self._write(new, renewed)

    def _write(self, new: list[dict[str, Any]], renewed: list[dict[str, Any]]) -> None:
        self._table.add(new)
        self._table.replace(renewed)
        self._table.tidy(finished=False)

    def _note(self, path: str, error: PengiError) -> None:
        """Count a recording that cannot be used."""
        self.changes.failed.append((path.encode("utf-8", "backslashreplace").decode(), str(error)))

    def _heard(self, paths: Sequence[str]) -> Iterator[tuple[str, Stamp, list[Window] | PengiError]]:
        """Every recording with its stamp from before it was heard: a change meanwhile is found by the next update."""
        stamps: dict[str, Stamp | PengiError] = {}

        def stamped() -> Iterator[str]:
            for path in paths:
                try:
                    stamps[path] = _stamp(path)
                except PengiError as error:
                    stamps[path] = error
                yield path

        for path, outcome in self._hearing.recordings(stamped()):
            stamp = stamps.pop(path)
            if isinstance(stamp, PengiError):
                yield path, Stamp(0, 0, ""), stamp
            else:
                yield path, stamp, outcome


def _status(path: str) -> tuple[int, int]:
    """Size in bytes and time of change in nanoseconds."""
    try:
        path.encode()
        status = Path(path).stat()
    except UnicodeEncodeError as error:
        raise AudioError("its name is not valid UTF-8; rename it") from error
    except OSError as error:
        raise AudioError(f"it cannot be read ({reason(error)})") from error
    return status.st_size, status.st_mtime_ns


def _stamp(path: str) -> Stamp:
    size, mtime_ns = _status(path)
    try:
        with Path(path).open("rb") as file:
            return Stamp(size, mtime_ns, hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise AudioError(f"it cannot be read ({reason(error)})") from error


def _stamped(path: str, stamp: Stamp) -> dict[str, Any]:
    return {"path": path, **asdict(stamp)}
