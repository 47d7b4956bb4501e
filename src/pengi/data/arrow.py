"""The optional package that reads and writes Parquet files."""

from __future__ import annotations

from typing import Any

from pengi.errors import InputError, how_to_install


def arrow() -> Any:
    """The module ``pyarrow``.

    Raises:
        InputError: if it is not installed.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise InputError(f"this needs pyarrow; {how_to_install('jobs')}") from error
    return pyarrow
