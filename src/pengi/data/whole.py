"""Folders that appear whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pengi.errors import InputError, unwritten


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to write to, which becomes ``out`` if all goes well and is gone if not.

    Raises:
        InputError: if ``out`` exists already (an empty folder may), or cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"'{out}' exists already; name a new folder")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as work:
            finished = Path(work, "finished")
            finished.mkdir()
            yield finished
            finished.replace(out)
    except OSError as error:
        raise InputError(unwritten(out, error)) from error
