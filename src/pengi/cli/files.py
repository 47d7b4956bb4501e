"""Checks output files before the work begins."""

from __future__ import annotations

import os
from pathlib import Path

from pengi.errors import InputError


def check_target(out: Path, suffix: str | None = None) -> None:
    """Check that a file can be written.

    Raises:
        InputError: if the suffix is not ``suffix``, the path is a folder, or its folder is missing or not writable.
    """
    if suffix is not None and out.suffix != suffix:
        raise InputError(f"--out must end in {suffix}, and '{out}' does not")
    if out.is_dir():
        raise InputError(f"--out '{out}' is a folder; name a file")
    if not out.parent.is_dir():
        raise InputError(f"there is no folder '{out.parent}' to write '{out.name}' into")
    if not os.access(out.parent, os.W_OK):
        raise InputError(f"the folder '{out.parent}' cannot be written")
