"""Fetch one file of a published record, with resume: the record says how long it must be and what its MD5 is.

Zenodo's interface ``<host>/api/records/<number>`` answers with JSON whose ``files`` carry ``key`` (the file's name),
``size`` (bytes), ``checksum`` (``md5:<hex>``) and ``links.self`` (where the content is). An MD5 detects a damaged
file, but not a harmful one: its content is checked by the reader.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pengi.errors import WeightsError, unwritten
from pengi.progress import download_bar

TIMEOUT_S = 60.0
"""Longest silence of a server, in seconds."""
_CHUNK_BYTES = 1 << 20
_PARTIAL_CONTENT, _RANGE_NOT_SATISFIABLE = 206, 416


class RecordUnavailableError(WeightsError):
    """The record cannot be reached, refuses, or breaks off; the file may still be fetched by hand."""


@dataclass(frozen=True)
class RecordSource:
    """One file of a record; ``host`` is the scheme and name of the repository."""

    record: int
    key: str
    host: str = "https://zenodo.org"

    @property
    def page(self) -> str:
        """Where a person can download the file."""
        return f"{self.host}/records/{self.record}"

    @property
    def api(self) -> str:
        """Where a program can ask about the record."""
        return f"{self.host}/api/records/{self.record}"


@dataclass(frozen=True)
class RecordFile:
    """What a record says of a file."""

    url: str
    size: int
    """In bytes."""
    md5: str


def download(source: RecordSource, folder: Path) -> Path:
    """Fetch the file into ``folder``, going on where an earlier attempt was cut off; progress is a bar on stderr.

    A connection that is cut is taken up again for as long as each attempt brings something; what has arrived stays in
    ``<key>.partial`` for the next call. A file that is there already is not fetched again.

    Raises:
        RecordUnavailableError: if the record or the file cannot be fetched, or breaks off.
        WeightsError: if the file has another length or MD5 than the record says, another process is fetching it, or
            ``folder`` cannot be written.
    """
    target, partial = folder / source.key, folder / f"{source.key}.partial"
    if target.is_file():
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{source.key}.lock", timeout=0):
            file = look_up(source)
            _fetch(source, file, partial)
            _verify(source, file, partial)
            partial.replace(target)
    except Timeout as error:
        raise WeightsError(f"another process is fetching '{source.key}'; wait until it is done.") from error
    except OSError as error:
        raise WeightsError(unwritten(partial, error)) from error
    return target


def look_up(source: RecordSource) -> RecordFile:
    """What the record says of the file.

    Raises:
        RecordUnavailableError: if the record cannot be fetched, or answers in another form than the one above.
        WeightsError: if it lists no such file.
    """
    with _opened(source.api) as answer:
        content = b"".join(_received(answer))
    try:
        listed: dict[str, Any] = {file["key"]: file for file in json.loads(content)["files"]}
        entry = listed.get(source.key)
        file = entry and RecordFile(
            entry["links"]["self"], int(entry["size"]), entry["checksum"].removeprefix("md5:").lower()
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordUnavailableError(f"{source.api} answers in a form that is not understood") from error
    if file is None:
        raise WeightsError(f"{source.page} has no file '{source.key}', only {', '.join(sorted(listed)) or 'none'}.")
    # Nothing but the network is read, whatever an answer names.
    if not file.url.startswith(("https://", f"{source.host}/")):
        raise RecordUnavailableError(f"{source.api} answers in a form that is not understood")
    return file


def _fetch(source: RecordSource, file: RecordFile, partial: Path) -> None:
    """Bring ``partial`` to the file's full length, connection by connection."""
    with download_bar(source.key) as progressed:
        while (held := _size(partial)) != file.size:
            if held > file.size:
                partial.unlink()
                raise WeightsError(
                    f"'{source.key}' at {source.page} is longer than the {file.size} bytes that its record says."
                )
            _append(source, file, partial, held, progressed)
            if _size(partial) <= held:
                raise RecordUnavailableError(
                    f"'{source.key}' from {source.page} breaks off at {held} of {file.size} bytes, which are kept and "
                    "need not be fetched again"
                )


def _append(
    source: RecordSource, file: RecordFile, partial: Path, held: int, progressed: Callable[[int, int], None]
) -> None:
    """Append what one connection brings behind the ``held`` bytes."""
    with _opened(file.url, {"Range": f"bytes={held}-"} if held else {}) as answer:
        # A server that knows no ranges sends the file from its start again.
        arrived = held if answer.status == _PARTIAL_CONTENT else 0
        with partial.open("ab" if arrived else "wb") as out:
            for chunk in _received(answer):
                out.write(chunk)
                arrived += len(chunk)
                progressed(arrived, file.size)
                if arrived > file.size:
                    return


def _received(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """What arrives until the end or until the connection is cut; lengths and checksums decide which."""
    while True:
        try:
            chunk = answer.read1(_CHUNK_BYTES)
        except (OSError, http.client.HTTPException):
            return
        if not chunk:
            return
        yield chunk


def _verify(source: RecordSource, file: RecordFile, partial: Path) -> None:
    with partial.open("rb") as opened:
        # The record's own checksum; it guards against damage, not against an attacker.
        digest = hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if digest != file.md5:
        partial.unlink()
        raise WeightsError(
            f"'{source.key}' from {source.page} has MD5 {digest[:12]}… where its record says {file.md5[:12]}…; it was "
            "damaged on the way and is deleted, so fetch it again."
        )


@contextmanager
def _opened(url: str, headers: dict[str, str] | None = None) -> Iterator[http.client.HTTPResponse]:
    """An answer of the server; its refusal, silence or absence is an error that names it."""
    request = urllib.request.Request(url, headers={"User-Agent": "pengi", **(headers or {})})
    try:
        answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        with error:
            reason = "ends before it should" if error.code == _RANGE_NOT_SATISFIABLE else f"is refused ({error})"
        raise RecordUnavailableError(f"{url} {reason}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = str(getattr(error, "reason", error))
        raise RecordUnavailableError(f"{url} cannot be reached ({reason})") from error
    with answer:
        yield answer


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0
