"""Stores the recordings that visitors of the page have open. A secret token names each; space and time are limited.

A file reaches the store only once it is known to be audio, so that nothing else is ever served from it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import soundfile

from pengi.audio.decode import AudioInfo, probe, stream
from pengi.errors import AudioError, InputError

PLAYABLE = {
    "wav pcm_u8": "audio/wav",
    "wav pcm_16": "audio/wav",
    "wav pcm_24": "audio/wav",
    "wav float": "audio/wav",
    "flac pcm_16": "audio/flac",
    "flac pcm_24": "audio/flac",
    "ogg vorbis": "audio/ogg",
    "ogg opus": "audio/ogg",
    "mp3 mpeg_layer_iii": "audio/mpeg",
    "mov aac": "audio/mp4",
    "matroska opus": "audio/webm",
}
"""Formats that every current browser plays, with their media types; a copy is made of other recordings."""
COPY_RATE = 44_100
"""Sample rate of copies for browsers, in Hz."""


@dataclass(frozen=True)
class StoreLimits:
    """Limits for the visitors of the page."""

    upload_bytes: int = 100 * 2**20
    """Largest file that can be uploaded."""
    duration_s: float = 3_600.0
    """Longest recording that is accepted, in seconds."""
    store_bytes: int = 2 * 2**30
    """Maximum size of the recordings of all visitors, in bytes; beyond it the least recently used ones are removed."""
    max_idle_s: float = 3_600.0
    """How long an unused recording is kept, in seconds."""


@dataclass(frozen=True)
class StoredRecording:
    """A recording in the store."""

    token: str
    name: str
    path: Path
    """The file that the model reads."""
    playable: Path
    """The file that browsers play: the recording itself, or a copy."""
    media_type: str
    info: AudioInfo
    own: tuple[Path, ...] = ()
    """Files that are deleted with it."""

    def size(self) -> int:
        """Its size in the store, in bytes."""
        return sum(path.stat().st_size for path in self.own)


@dataclass
class _Stored:
    recording: StoredRecording
    size: int
    used: float


class UploadStore:
    """Recordings by token.

    Args:
        limits: limits on space, time and length.
        clock: a monotonic clock in seconds.
    """

    def __init__(self, limits: StoreLimits | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits or StoreLimits()
        self._clock = clock
        self._temporary = tempfile.TemporaryDirectory(prefix="pengi-page-", ignore_cleanup_errors=True)
        self.folder = Path(self._temporary.name)
        self.uploads = self.folder / "uploads"
        self.uploads.mkdir()
        self._stored: dict[str, _Stored] = {}
        self._lock = threading.Lock()

    def add(self, upload: Path) -> StoredRecording:
        """Put an uploaded file in the store; the upload itself can then be deleted.

        Raises:
            AudioError: if it is not audio or longer than the limit.
        """
        info = self._checked(upload)
        token = secrets.token_urlsafe(24)
        kept = self.folder / token
        try:
            os.link(upload, kept)
        except OSError:  # the folder is on another file system, or links are not supported
            shutil.copyfile(upload, kept)
        return self._store(token, upload.name, kept, info, (kept,))

    def add_in_place(self, path: Path) -> StoredRecording:
        """Add a file that stays where it is, such as one of the operator's collection.

        Raises:
            AudioError: if it no longer exists, is not audio, or is longer than the limit.
        """
        return self._store(secrets.token_urlsafe(24), path.name, path, self._checked(path), ())

    def get(self, token: str | None) -> StoredRecording:
        """The recording of a token.

        Raises:
            InputError: if there is none, or it was removed.
        """
        with self._lock:
            self._evict()
            stored = self._stored.get(token or "")
            if stored is None:
                raise InputError("this recording is no longer kept here; please load it again")
            stored.used = self._clock()
            return stored.recording

    def __contains__(self, token: str) -> bool:
        """Whether a recording is still in the store."""
        with self._lock:
            return token in self._stored

    def discard(self, token: str | None) -> None:
        """Remove a recording, if it is there, with its files."""
        with self._lock:
            self._drop(token or "")

    def _checked(self, path: Path) -> AudioInfo:
        try:
            info = probe(path)
        except AudioError as error:
            raise AudioError(public(str(error), path, path.name)) from error
        if info.duration_s > self.limits.duration_s:
            raise AudioError(
                f"'{path.name}' lasts {info.duration_s / 60:.0f} minutes;"
                f" at most {self.limits.duration_s / 60:.0f} are accepted here"
            )
        return info

    def _store(self, token: str, name: str, path: Path, info: AudioInfo, own: tuple[Path, ...]) -> StoredRecording:
        playable, media_type = path, PLAYABLE.get(info.format)
        if media_type is None:
            playable, media_type = self.folder / f"{token}.mp3", "audio/mpeg"
            own = (*own, playable)
            try:
                _write_copy(path, playable)
            except AudioError as error:
                for file in own:
                    file.unlink(missing_ok=True)
                raise AudioError(public(str(error), path, name)) from error
        recording = StoredRecording(token, name, path, playable, media_type, info, own)
        with self._lock:
            self._stored[token] = _Stored(recording, recording.size(), self._clock())
            self._evict(keep=token)
        return recording

    def _evict(self, keep: str = "") -> None:
        """Remove recordings that were unused for too long, then the least recently used ones until the rest fits."""
        now = self._clock()
        for token in [token for token, stored in self._stored.items() if now - stored.used > self.limits.max_idle_s]:
            self._drop(token)
        taken = sum(stored.size for stored in self._stored.values())
        for token in sorted(self._stored, key=lambda token: self._stored[token].used):
            if taken <= self.limits.store_bytes:
                return
            if token != keep and self._stored[token].size:
                taken -= self._stored[token].size
                self._drop(token)

    def _drop(self, token: str) -> None:
        stored = self._stored.pop(token, None)
        for path in stored.recording.own if stored else ():
            path.unlink(missing_ok=True)


def public(message: str, path: Path, name: str) -> str:
    """A message without the folder of a file on this machine."""
    return message.replace(str(path), name)


def make_room(folder: Path, needed: int, limit: int) -> bool:
    """Delete the oldest files in ``folder`` until ``needed`` more bytes fit into ``limit``; returns whether they do."""
    files = []
    for path in folder.rglob("*"):
        try:
            status = path.stat()
        except FileNotFoundError:  # deleted by another request at this moment
            continue
        if path.is_file():
            files.append((status.st_mtime, status.st_size, path))
    taken = sum(size for _, size, _ in files)
    for _, size, path in sorted(files, key=lambda file: file[0]):
        if taken + needed <= limit:
            break
        path.unlink(missing_ok=True)
        taken -= size
    return taken + needed <= limit


def _write_copy(path: Path, copy: Path) -> None:
    with soundfile.SoundFile(copy, "w", COPY_RATE, 1, format="MP3", subtype="MPEG_LAYER_III") as file:
        for block in stream(path, COPY_RATE):
            file.write(block)
