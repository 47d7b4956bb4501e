"""The level of a waveform, and the level below which it is silence."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SILENCE_DB = -75.0
"""Recordings below this level are silent, in every task. In dBFS, RMS; 16-bit quantisation noise is near -98 dBFS."""
FLOOR_DB = -120.0
"""Lowest level that is ever reported, in dBFS."""
EDGE_SAMPLES = 512
"""Samples at each end that are ignored: after resampling, a constant offset rings at the ends."""


def rms_db(samples: NDArray[np.float32]) -> float:
    """Root-mean-square level of a waveform ``float32[S]`` in dB; 0 dB is a constant at full scale, and
    ``FLOOR_DB`` the lowest value."""
    mean_square = float(np.mean(np.square(samples, dtype=np.float64)))
    return max(FLOOR_DB, 10.0 * float(np.log10(max(mean_square, 1e-30))))


def without_offset(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """A waveform ``float32[S]`` minus its mean (DC)."""
    return samples - np.float32(np.mean(samples, dtype=np.float64))


def sound_level_db(samples: NDArray[np.float32]) -> float:
    """RMS level of a waveform ``float32[S]`` in dBFS, without its constant offset, which is inaudible."""
    inner = samples[EDGE_SAMPLES:-EDGE_SAMPLES]
    if len(samples) > 4 * EDGE_SAMPLES and 20.0 * np.log10(max(abs(float(inner.mean())), 1e-30)) > SILENCE_DB:
        return rms_db(without_offset(inner))
    return rms_db(without_offset(samples))
