from __future__ import annotations

import numpy as np
import pytest

from pengi.audio.level import FLOOR_DB, rms_db


def test_known_levels() -> None:
    time = np.arange(16_000) / 16_000
    assert rms_db(np.ones(100, np.float32)) == pytest.approx(0)
    assert rms_db(np.full(100, 0.1, np.float32)) == pytest.approx(-20, abs=1e-4)
    assert rms_db(np.sin(2 * np.pi * 440 * time).astype(np.float32)) == pytest.approx(-3.01, abs=0.01)
    assert rms_db(np.zeros(100, np.float32)) == FLOOR_DB
