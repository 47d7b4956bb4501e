"""Mixes recordings into one waveform: trims, cuts, normalizes loudness, concatenates and adds backgrounds.

Pure functions over mono waveforms ``float32[S]``; every level is in dB.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pengi.errors import AudioError

Samples = NDArray[np.float32]

REFERENCE_DB = -26.0
"""Loudness of a part at level 0 dB."""
PEAK = 0.95
_FRAME_S = 0.02
_AUDIBLE_DB = 45.0  # below the loudest frame; softer frames at the start and the end are trimmed
_LOUDNESS_RANGE_DB = 20.0  # below the loudest frame; softer frames do not count in the loudness
_FADE_S = 0.01
_LONGEST_PAUSE_S = 0.1


def loudness_db(samples: Samples, rate: int) -> float:
    """Loudness of a waveform in dB: mean power of its B-weighted frames without the soft ones.

    B-weighting (ANSI S1.4) follows the ear's sensitivity at moderate levels: a bass drum and a triangle of the same
    power are not equally loud.

    Raises:
        AudioError: if the waveform is silent.
    """
    power_F = _frame_power(_weighted(samples, rate), rate)
    loudest = float(power_F.max())
    if loudest < 1e-12:
        raise AudioError("the recording is silent")
    return 10.0 * float(np.log10(power_F[power_F >= loudest * 10 ** (-_LOUDNESS_RANGE_DB / 10)].mean()))


def trim_silence(samples: Samples, rate: int) -> Samples:
    """The waveform without the near-silence before and after it."""
    power_F = _frame_power(samples, rate)
    sounding = np.flatnonzero(power_F >= power_F.max() * 10 ** (-_AUDIBLE_DB / 10))
    frame = _frame(rate)
    return samples[sounding[0] * frame : (sounding[-1] + 1) * frame]


def shorten_pauses(samples: Samples, rate: int) -> Samples:
    """The waveform with every pause in it cut down to a tenth of a second."""
    power_F = _frame_power(samples, rate)
    silent_F = power_F < power_F.max() * 10 ** (-_AUDIBLE_DB / 10)
    # Number of silent frames in a row up to and including each frame.
    position_F = np.arange(len(silent_F))
    silent_for_F = position_F - np.maximum.accumulate(np.where(silent_F, -1, position_F))
    kept_F = silent_for_F * _FRAME_S <= _LONGEST_PAUSE_S
    return samples[np.repeat(kept_F, _frame(rate))[: len(samples)]]


def loudest_excerpt(samples: Samples, length: int, rate: int) -> Samples:
    """The stretch of at most ``length`` samples with the most (B-weighted) energy."""
    if len(samples) <= length:
        return samples
    energy = np.cumsum(np.square(_weighted(samples, rate), dtype=np.float64))
    start = int(np.argmax(energy[length - 1 :] - np.concatenate([[0.0], energy[:-length]])))
    return samples[start : start + length]


def set_loudness(samples: Samples, rate: int, level_db: float) -> Samples:
    """The waveform at a loudness of ``REFERENCE_DB + level_db``, faded in and out against clicks. Nothing is clipped.

    Raises:
        AudioError: if the waveform is silent.
    """
    faded = _faded(samples, rate)
    gain_db = REFERENCE_DB + level_db - loudness_db(faded, rate)
    return faded * np.float32(10 ** (gain_db / 20))


def concatenate(parts: list[Samples], gaps_s: tuple[float, ...], rate: int) -> Samples:
    """Silence and parts in turn; ``gaps_s`` are the lengths of the silence before each part and after the last."""
    assert len(gaps_s) == len(parts) + 1
    gaps = [np.zeros(round(gap_s * rate), dtype=np.float32) for gap_s in gaps_s]
    pieces = [gaps[0]]
    for part, gap in zip(parts, gaps[1:], strict=True):
        pieces += [part, gap]
    return np.concatenate(pieces)


def add_background(foreground: Samples, background: Samples) -> Samples:
    """The sum, as long as the foreground; a shorter background is repeated, a longer one is cut."""
    return foreground + np.resize(background, len(foreground))


def limit_peak(samples: Samples) -> Samples:
    """The waveform, scaled down to a peak of ``PEAK`` if its peak is higher."""
    peak = float(np.abs(samples).max())
    return samples if peak <= PEAK else samples * np.float32(PEAK / peak)


def _frame(rate: int) -> int:
    return max(1, round(_FRAME_S * rate))


def _frame_power(samples: Samples, rate: int) -> NDArray[np.float64]:
    """Mean square of each frame, the last one padded."""
    frame = _frame(rate)
    padded = np.pad(samples, (0, -len(samples) % frame)).reshape(-1, frame)
    power_F: NDArray[np.float64] = np.square(padded, dtype=np.float64).mean(1)
    return power_F


def _weighted(samples: Samples, rate: int) -> Samples:
    """B-weighted, 0 dB at 1 kHz; the response's formula is that of ANSI S1.4."""
    spectrum = np.fft.rfft(samples)
    squared = np.square(np.fft.rfftfreq(len(samples), 1 / rate))
    response = 12194.0**2 * squared**1.5 / ((squared + 20.6**2) * np.sqrt(squared + 158.5**2) * (squared + 12194.0**2))
    weighted: Samples = np.fft.irfft(spectrum * response * 1.0197, len(samples)).astype(np.float32)
    return weighted


def _faded(samples: Samples, rate: int) -> Samples:
    length = min(round(_FADE_S * rate), len(samples) // 2)
    if not length:
        return samples
    ramp = np.linspace(0.0, 1.0, length, dtype=np.float32)
    return np.concatenate([samples[:length] * ramp, samples[length:-length], samples[-length:] * ramp[::-1]])
