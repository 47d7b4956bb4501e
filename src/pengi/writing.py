"""Writes files and folders that appear complete or not at all; a failure is an error of one sentence."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pengi.errors import InputError, PengiError, is_disk_full, unwritten


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Turn any library's error about writing a file or folder into one sentence.

    Raises:
        InputError: if it cannot be written.
    """
    try:
        yield
    except PengiError:
        raise
    except Exception as error:
        # The error of torch.save has the file's error only as its context.
        for cause in (error, error.__context__):
            if isinstance(cause, OSError) or (isinstance(cause, Exception) and is_disk_full(cause)):
                raise InputError(unwritten(path, cause)) from error
        raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` with the same suffix; it replaces ``path`` on success and is deleted otherwise.

    Raises:
        InputError: as :func:`writing`.
    """
    # The name is random: threads, and containers that share a folder, may have the same process id.
    partial = path.with_name(f".{secrets.token_hex(4)}-{path.name}")
    with writing(path):
        try:
            yield partial
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """A lock for the one process that writes ``path``; if the process is killed, the lock is released.

    Args:
        path: of a file, which need not exist (its folder is made), or of an existing folder.
        wait: wait while another process writes it.

    Raises:
        InputError: if another process writes it and ``wait`` is not set, or as :func:`writing`.
    """
    file = path / ".lock" if path.is_dir() else path.with_name(f".{path.name}.lock")
    lock = FileLock(file, timeout=-1 if wait else 0)
    with writing(path):
        try:
            lock.acquire()
        except Timeout as error:
            raise InputError(f"another process is writing '{path}'; wait until it is done") from error
    try:
        yield
    finally:
        lock.release()


def append(path: Path, content: bytes) -> None:
    """Append to a file and flush it to the disk; if that fails, the file is as it was before.

    Raises:
        InputError: as :func:`writing`.
    """
    with writing(path), path.open("ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        try:
            remaining = memoryview(content)
            while remaining:
                remaining = remaining[file.write(remaining) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(before)
            raise


def printable(text: str) -> str:
    """A text that UTF-8 can encode: file names may be any bytes, and bytes that are not UTF-8 are written as
    ``\\xff``."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def check_new_folder(out: Path) -> None:
    """Check that a folder can be made, before the work whose results go there.

    Raises:
        InputError: if ``out`` exists already and is not an empty folder, or the folder that it is to be in cannot be
            made or written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"'{out}' already exists; choose a new folder")
    with writing(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(out.parent, os.W_OK):
        raise InputError(f"the folder '{out.parent}' cannot be written")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder, which becomes ``out`` on success and is deleted otherwise.

    Raises:
        InputError: if ``out`` exists already (an empty folder may), or as :func:`writing`.
    """
    check_new_folder(out)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as work:
            finished = Path(work, "finished")
            finished.mkdir()
            yield finished
            if out.is_dir():  # an empty folder, which not every system replaces
                out.rmdir()
            finished.replace(out)
