"""Downloads one file of a published record, with resume; the record states its length and its MD5.

Zenodo's interface ``<host>/api/records/<number>`` answers with JSON whose ``files`` carry ``key`` (the file's name),
``size`` (bytes), ``checksum`` (``md5:<hex>``) and ``links.self`` (where the content is). An MD5 detects damage, but not
an attack, so the content has to be checked when it is read.
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

from pengi.errors import InputError, WeightsError, unwritten
from pengi.progress import download_bar
from pengi.writing import locked

TIMEOUT_S = 60.0
"""Maximum time without data from the server, in seconds."""
_CHUNK_BYTES = 1 << 20
_PARTIAL_CONTENT, _RANGE_NOT_SATISFIABLE = 206, 416


class RecordUnavailableError(WeightsError):
    """The record cannot be reached, refuses the request, or the download breaks off; the file may be downloaded by
    hand."""


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
    """The entry of a file in a record."""

    url: str
    size: int
    """In bytes."""
    md5: str


def download(source: RecordSource, folder: Path) -> Path:
    """Download the file to ``folder``, or resume an earlier download, with a progress bar on stderr.

    A lost connection is opened again as long as each attempt brings data. Received data stay in ``<key>.partial`` for
    the next call. An existing file is not downloaded again.

    Raises:
        RecordUnavailableError: if the record or the file cannot be fetched, or breaks off.
        WeightsError: if the file has another length or MD5 than the record says, another process is writing it, or
            ``folder`` cannot be written.
    """
    target, partial = folder / source.key, folder / f"{source.key}.partial"
    if target.is_file():
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(target):
            file = look_up(source)
            _fetch(source, file, partial)
            _verify(source, file, partial)
            partial.replace(target)
    except InputError as error:
        raise WeightsError(str(error)) from error
    except OSError as error:
        raise WeightsError(unwritten(partial, error)) from error
    return target


def look_up(source: RecordSource) -> RecordFile:
    """The entry of the file in the record.

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
        raise RecordUnavailableError(f"{source.api} returned a response that is not understood") from error
    if file is None:
        raise WeightsError(f"{source.page} has no file '{source.key}', only {', '.join(sorted(listed)) or 'none'}.")
    # The answer must not name a local file.
    if not file.url.startswith(("https://", f"{source.host}/")):
        raise RecordUnavailableError(f"{source.api} returned a response that is not understood")
    return file


def _fetch(source: RecordSource, file: RecordFile, partial: Path) -> None:
    """Download to ``partial`` until it has the full length, with as many connections as needed."""
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
    """Append the data of one connection after the ``held`` bytes."""
    with _opened(file.url, {"Range": f"bytes={held}-"} if held else {}) as answer:
        # A server without range requests sends the file from its start again.
        arrived = held if answer.status == _PARTIAL_CONTENT else 0
        with partial.open("ab" if arrived else "wb") as out:
            for chunk in _received(answer):
                out.write(chunk)
                arrived += len(chunk)
                progressed(arrived, file.size)
                if arrived > file.size:
                    return


def _received(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """The data until the end, or until the connection is lost; the length and the checksum show which it was."""
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
        # The record's own checksum; it protects against damage, not against an attacker.
        digest = hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if digest != file.md5:
        partial.unlink()
        raise WeightsError(
            f"'{source.key}' from {source.page} has MD5 {digest[:12]}… where its record says {file.md5[:12]}…; it was "
            "damaged on the way and is deleted, so fetch it again."
        )


@contextmanager
def _opened(url: str, headers: dict[str, str] | None = None) -> Iterator[http.client.HTTPResponse]:
    """The response of a server; a refusal, a timeout or a failed connection is an error that names the server."""
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
