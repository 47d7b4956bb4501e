"""Reads tables of words from the package's assets. Their order matters: words are drawn by their position."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml

from pengi.config import Frozen

ASSETS = Path(__file__).resolve().parents[1] / "assets"
Texts = tuple[str, ...]
TablesT = TypeVar("TablesT", bound=Frozen)


def read_tables(kind: type[TablesT], name: str) -> TablesT:
    """The tables of the YAML file ``name`` in the package's assets.

    Raises:
        ConfigError: for the first table that is unknown, missing or of another form, such as a ``no`` without quotes.
    """
    return kind.parse(yaml.safe_load((ASSETS / name).read_text(encoding="utf-8")), name)
