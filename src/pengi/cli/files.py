"""Output files that appear whole or not at all, and are refused before the work rather than after it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pengi.errors import InputError, unwritten


def check_target(out: Path, suffix: str | None = None) -> None:
    """Refuse a file that could not be written.

    Raises:
        InputError: another suffix than ``suffix``, a folder in its place, or a folder that is missing or not writable.
    """
    if suffix is not None and out.suffix != suffix:
        raise InputError(f"--out must end in {suffix}, and '{out}' does not")
    if out.is_dir():
        raise InputError(f"--out '{out}' is a folder; name a file")
    if not out.parent.is_dir():
        raise InputError(f"there is no folder '{out.parent}' to write '{out.name}' into")
    if not os.access(out.parent, os.W_OK):
        raise InputError(f"the folder '{out.parent}' cannot be written")


@contextmanager
def written_whole(out: Path) -> Iterator[Path]:
    """A path beside ``out`` to write to; it takes the place of ``out`` if all goes well and is gone if not.

    Raises:
        InputError: if writing fails, on a full disk for example.
    """
    try:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.stem}-") as folder:
            partial = Path(folder, out.name)
            yield partial
            partial.replace(out)
    except OSError as error:
        raise InputError(unwritten(out, error)) from error
