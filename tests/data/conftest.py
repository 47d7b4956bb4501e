"""A cache of features that no other test shares."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def pengi_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Features are cached here; weights that a test needs must be found before."""
    home = tmp_path / "home"
    monkeypatch.setenv("PENGI_HOME", str(home))
    return home
