"""Updates an index: finds new, changed, moved, unchanged and deleted recordings of a folder, and unusable ones.

A recording is unchanged if its size and modification time are; otherwise its SHA-256 decides. So copied or restored
recordings, whose times are new, are not encoded again. A new path gets the rows of a recording with the same content.

Rows are written every few recordings. A run that is killed loses only the rows after the last write, and the next run
continues from the index: there is no other state.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pengi.audio.formats import FolderWalk, address_error
from pengi.data.recordings import is_url
from pengi.errors import AudioError, InputError, PengiError, reason
from pengi.hashes import file_sha256
from pengi.retrieval.table import RecordingsTable, Stamp, Window
from pengi.writing import locked, writing

if TYPE_CHECKING:
    from pengi.retrieval.indexing import Indexer

ROWS_PER_WRITE = 256
SECONDS_PER_WRITE = 60.0

UpdateProgress = Callable[[int, int], None]
"""Called with the number of finished recordings, and the number of all recordings to encode."""


@dataclass
class Changes:
    """The numbers of recordings that an update added, changed, copied and so on."""

    added: int = 0
    changed: int = 0
    copied: int = 0
    """New paths whose content was already in the index: moved, renamed or copied recordings."""
    unchanged: int = 0
    removed: int = 0
    windows: int = 0
    """Windows that were encoded."""
    skipped: int = 0
    """Files of the folder that are not recordings."""
    failed: list[tuple[str, str]] = field(default_factory=list)
    """Paths that could not be used, each with a sentence that says why."""

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON values."""
        counts = {name: value for name, value in vars(self).items() if name != "failed"}
        return counts | {"failed": [{"input": path, "error": error} for path, error in self.failed]}


@dataclass(frozen=True)
class FolderContents:
    """Absolute paths of a folder's recordings, sorted, and subfolders that cannot be read, with the reason."""

    folder: str
    recordings: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...]
    skipped: int = 0
    """Files that are not recordings."""

    def covers(self, path: str) -> bool:
        """Whether a path that was not found counts as deleted: it is in this folder, and not in a subfolder that cannot
        be read."""
        below = os.path.join(self.folder, "")  # noqa: PTH118
        return path.startswith(below) and not any(path.startswith(folder) for folder, _ in self.unreadable)


def recordings_below(folder: Path) -> FolderContents:
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
    return FolderContents(root, tuple(recordings), unreadable, walk.skipped)


@contextmanager
def only_writer(location: str) -> Iterator[None]:
    """A lock for writing an index, so that two updates do not encode the same recordings. If the process is killed, it
    is released.

    An object store has no lock, so the user has to make sure that only one process writes.

    Raises:
        InputError: if another process is writing, or the folder cannot be made.
    """
    if is_url(location):
        yield
        return
    with writing(location):
        Path(location).mkdir(parents=True, exist_ok=True)
    with locked(Path(location)):
        yield


class Update:
    """One run over a list of recordings."""

    def __init__(self, table: RecordingsTable, indexer: Indexer, progress: UpdateProgress | None = None) -> None:
        self._table = table
        self._indexer = indexer
        self._progress = progress or (lambda done, total: None)
        self.changes = Changes()

    def run(self, paths: Sequence[str], is_removed: Callable[[str], bool]) -> Changes:
        """Index ``paths``, and remove other recordings of the index if ``is_removed`` is true for their path."""
        self._table.prepare()
        known = self._table.stamps()
        wanted = set(paths)
        # Rows of moved recordings are copied from the old paths before those are removed.
        to_index = self._without_encoding(paths, known)
        removed = [path for path in known if path not in wanted and is_removed(path)]
        self._table.delete(removed)
        self.changes.removed = len(removed)
        self._encode(to_index, known)
        self._table.tidy(finished=True)
        return self.changes

    def _without_encoding(self, paths: Sequence[str], known: dict[str, Stamp]) -> list[str]:
        """Handle all recordings that need no encoding, and return the others."""
        sizes = {stamp.size for stamp in known.values()}
        path_of = {stamp.sha256: path for path, stamp in known.items()}
        to_index: list[str] = []
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
                # A file's content is only read if a recording of the same size is known.
                stamp = _stamp(path) if size in sizes else None
            except PengiError as error:
                self._count_failed(path, error)
                unusable += [path] if path in known else []
                continue
            if stamp is None or stamp.sha256 not in path_of:
                to_index.append(path)
            elif before is not None and stamp.sha256 == before.sha256:
                restamped[path] = replace(before, mtime_ns=mtime_ns)
                self.changes.unchanged += 1
            else:
                copies.append((path_of[stamp.sha256], path, stamp))
        # Rows that will be replaced cannot be copied, so recordings that swapped names are encoded again.
        replaced = {path for _, path, _ in copies}
        to_index += [path for source, path, _ in copies if source in replaced]
        copies = [entry for entry in copies if entry[0] not in replaced]
        self._table.restamp(restamped)
        self._table.copy(copies)
        self._table.delete(unusable)
        self.changes.copied = len(copies)
        return to_index

    def _encode(self, paths: Sequence[str], known: dict[str, Stamp]) -> None:
        new: list[dict[str, Any]] = []
        renewed: list[dict[str, Any]] = []
        written = time.monotonic()
        for done, (path, stamp, outcome) in enumerate(self._encoded(paths), start=1):
            if isinstance(outcome, PengiError):
                self._count_failed(path, outcome)
                # Its rows in the index describe its earlier content.
                self._table.delete([path] if path in known else [])
            else:
                rows = [window.to_row() | {"path": path, **asdict(stamp)} for window in outcome]
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

    def _count_failed(self, path: str, error: PengiError) -> None:
        """Count a recording that cannot be used."""
        self.changes.failed.append((path.encode("utf-8", "backslashreplace").decode(), str(error)))

    def _encoded(self, paths: Sequence[str]) -> Iterator[tuple[str, Stamp, list[Window] | PengiError]]:
        """Every recording with its stamp before encoding, so that the next update notices a change during encoding."""
        stamps: dict[str, Stamp | PengiError] = {}
        for path, outcome in self._indexer.recordings(_noting_stamps(paths, stamps)):
            stamp = stamps.pop(path)
            if isinstance(stamp, PengiError):
                yield path, Stamp(0, 0, ""), stamp
            else:
                yield path, stamp, outcome


def _status(path: str) -> tuple[int, int]:
    """Size in bytes and modification time in nanoseconds."""
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
        return Stamp(size, mtime_ns, file_sha256(Path(path)))
    except OSError as error:
        raise AudioError(f"it cannot be read ({reason(error)})") from error


def _noting_stamps(paths: Iterable[str], stamps: dict[str, Stamp | PengiError]) -> Iterator[str]:
    """Yield the paths. The stamp of each, or the error of reading it, is stored in ``stamps`` first."""
    for path in paths:
        try:
            stamps[path] = _stamp(path)
        except PengiError as error:
            stamps[path] = error
        yield path
