"""Finds and reads the recording of a manifest's row: a file or a member of a tar shard, local or in object storage.

A row's ``audio`` is a path relative to the manifest's folder, an absolute path, or a member of a tar file as
``shard-000000.tar#1536+88213``: the file, the offset of the member's content in it, and its size in bytes. The tar file
may be a URL that fsspec can open (``s3://...``); a row then needs one range request.
"""

from __future__ import annotations

import os
import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, cast

from pengi.errors import AudioError, InputError, reason
from pengi.hashes import file_sha256

_MEMBER = re.compile(r"(?P<tar>.+)#(?P<offset>\d+)\+(?P<size>\d+)")


def member(tar: str, offset: int, size: int) -> str:
    """The ``audio`` of a row whose recording is a member of a tar file."""
    return f"{tar}#{offset}+{size}"


def is_url(location: str) -> bool:
    """Whether a location is a URL, which fsspec opens, and not a path."""
    return "://" in location


def opened(location: str) -> AbstractContextManager[IO[bytes]]:
    """A path or URL, opened for reading.

    Raises:
        InputError: if it is a URL and fsspec is not installed, or cannot open it.
        OSError: if a path cannot be opened.
    """
    if not is_url(location):
        return Path(location).open("rb")
    try:
        import fsspec
    except ImportError as error:
        raise InputError(f"'{location}' needs fsspec; install it with: pip install fsspec") from error
    try:
        return cast("AbstractContextManager[IO[bytes]]", fsspec.open(location, "rb"))
    except (ImportError, ValueError) as error:  # the file system's package is missing, or the file system is unknown
        raise InputError(f"'{location}' cannot be opened: {error}") from error


def recording(root: Path, audio: str) -> Path | bytes:
    """The recording of a row as :func:`pengi.audio.decode.load` takes it: a path, or the content of a tar member.

    Raises:
        AudioError: if a tar member cannot be read.
        InputError: as :func:`opened`.
    """
    found = _MEMBER.fullmatch(audio)
    if not found:
        return root / audio
    tar = found["tar"] if is_url(found["tar"]) else str(root / found["tar"])
    size = int(found["size"])
    try:
        with opened(tar) as file:
            file.seek(int(found["offset"]))
            content = file.read(size)
    except InputError:
        raise
    except Exception as error:  # each file system of fsspec has errors of its own
        raise AudioError(f"'{audio}' cannot be read: {reason(error)}") from error
    if len(content) != size:
        raise AudioError(f"'{audio}' is cut off: the tar file ends before it")
    return content


def is_there(root: Path, audio: str) -> bool:
    """Whether the file of a row exists; a URL is assumed to exist."""
    found = _MEMBER.fullmatch(audio)
    location = found["tar"] if found else audio
    return is_url(location) or os.path.isfile(root / location)  # noqa: PTH113 - False without permission


def fingerprint(root: Path, audio: str) -> list[Any]:
    """JSON values that identify a recording: the SHA-256 of its file.

    A member of a tar file, which may be large, is identified by the file's name, size and modification time, and by the
    member's offset and size. A URL is identified by itself, a missing or unreadable file by its path.
    """
    found = _MEMBER.fullmatch(audio)
    location = found["tar"] if found else audio
    if is_url(location):
        return [audio]
    path = (root / location).resolve()
    if not os.path.isfile(path):  # noqa: PTH113 - as above
        return [str(path)]
    if found:
        status = path.stat()
        return [path.name, status.st_size, status.st_mtime_ns, found["offset"], found["size"]]
    try:
        return [file_sha256(path)]
    except OSError:  # it is counted as unreadable when it is decoded
        return [str(path)]
