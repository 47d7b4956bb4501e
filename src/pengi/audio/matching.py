"""Finds out whether two waveforms are copies of one recording, even if re-encoded, made louder, filtered or cut.

Both waveforms are converted to log-energies of frequency bands over time. The mean of each band is subtracted, so that
gain and filters do not matter. Then the mean of each frame is subtracted, so that two sounds do not look alike only
because they begin and end together. The normalised cross-correlation gives the offset at which the two match best. At
this offset each second is compared separately: in copies nearly all seconds match, in other recordings of the same kind
of sound hardly any, since their details differ.

Shape suffixes: S samples, T frames, B bands, L offsets.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FRAME_S, WINDOW_FRAMES = 0.02, 4
"""Time from one frame to the next, and length of a window in frames; long windows let copies begin between frames."""
LOW_HZ, HIGH_HZ, BANDS = 150.0, 4_000.0, 24
"""Range of the bands; lossy formats change higher frequencies."""
DYNAMIC_RANGE_DB = 50.0
"""Dynamic range below the loudest frame of a band. Lower levels are clipped, since lossy formats change them, too."""
PADDING_DB = -80.0
"""Below this level relative to the loudest frame, the ends of a recording are padding and are not compared."""
MIN_OVERLAP_S = 2.0
MIN_OVERLAP = 0.5
"""Minimum overlap, as a share of the shorter recording. It is also at least :data:`MIN_OVERLAP_S`, or all of a shorter
recording."""
PART_S = 1.0
"""Length of the parts that are compared separately, in seconds."""
MIN_PART_CORRELATION = 0.5
"""Minimum correlation of a part that matches."""
MIN_SHARED, MIN_CORRELATION = 0.5, 0.5
"""For two copies: minimum share of the parts that match, and minimum correlation of the complete overlap."""
MIN_SHORT_CORRELATION = 0.6
"""Minimum correlation of overlaps shorter than :data:`MIN_OVERLAP_S`; higher, since short sounds of a kind are more
alike."""
ACTIVE_DB = 30.0
"""Parts that are softer than the loudest part by more than this are ignored, since they contain too little. So are
parts that are below the dynamic range of their recording: silence is like all other silence."""


@dataclass(frozen=True)
class Match:
    """How well two waveforms match at the best offset.

    Attributes:
        correlation: from -1 to 1; 0 where there is nothing to compare.
        offset_s: where the second one begins in the first, in seconds; negative if it begins earlier.
        overlap_s: length of the overlap at that offset, in seconds, without padding.
        shared: share of the parts of the overlap that match, from 0 to 1.
        longer_s: length of the longer one, in seconds, without padding.
    """

    correlation: float
    offset_s: float
    overlap_s: float
    shared: float
    longer_s: float

    @property
    def is_copy(self) -> bool:
        """Whether the two are copies of one recording, at least in parts."""
        needed = MIN_CORRELATION if self.overlap_s >= MIN_OVERLAP_S else MIN_SHORT_CORRELATION
        return self.shared >= MIN_SHARED and self.correlation >= needed


NOTHING = Match(0.0, 0.0, 0.0, 0.0, 0.0)


def band_energies(blocks: Iterable[NDArray[np.float32]], rate: int) -> NDArray[np.float32]:
    """Energy of the bands over time, ``float32[T, B]``, in dB.

    Args:
        blocks: a waveform in blocks ``float32[S]``.
        rate: in Hz.
    """
    hop = round(FRAME_S * rate)
    window = WINDOW_FRAMES * hop
    edges = np.geomspace(LOW_HZ, min(HIGH_HZ, rate / 2), BANDS + 1) * window / rate
    bins = np.unique(edges.round().astype(int))
    weights_W = np.hanning(window).astype(np.float32)
    rest = np.zeros(0, np.float32)
    found = [np.zeros((0, len(bins) - 1), np.float32)]
    for block in blocks:
        samples = np.concatenate([rest, block])
        frames = max(0, len(samples) // hop - WINDOW_FRAMES + 1)
        if frames:
            framed = np.lib.stride_tricks.sliding_window_view(samples, window)[: frames * hop : hop]
            power = np.abs(np.fft.rfft(framed * weights_W)) ** 2
            energy = np.add.reduceat(power[:, : bins[-1]], bins[:-1], axis=1)
            found.append((10 * np.log10(energy + 1e-12)).astype(np.float32))
        rest = samples[frames * hop :]
    return np.concatenate(found)


def match(first_TB: NDArray[np.float32], second_TB: NDArray[np.float32]) -> Match:
    """The best match of two waveforms, given as :func:`band_energies`."""
    first_start, first_TB = _without_padding(first_TB)
    second_start, second_TB = _without_padding(second_TB)
    first, second = _centred(first_TB), _centred(second_TB)
    shorter = min(len(first), len(second))
    needed = max(MIN_OVERLAP * shorter, min(MIN_OVERLAP_S / FRAME_S, shorter), 1)
    if not shorter:
        return NOTHING
    size = 1 << (len(first) + len(second) - 2).bit_length()
    product = sum(_correlated(first[:, band], second[:, band], size) for band in range(first.shape[1]))
    offsets = np.arange(-len(second) + 1, len(first))
    starts, ends = np.maximum(offsets, 0), np.minimum(offsets + len(second), len(first))
    power = _energy(first, starts, ends) * _energy(second, starts - offsets, ends - offsets)
    usable = (ends - starts >= needed) & (power > 1e-6 * (power.max() or 1.0))
    if not usable.any():
        return NOTHING
    correlation = np.where(usable, np.asarray(product)[offsets] / np.sqrt(np.maximum(power, 1e-12)), -1.0)
    best = int(correlation.argmax())
    start, end, offset = int(starts[best]), int(ends[best]), int(offsets[best])
    levels = np.minimum(_levels(first_TB)[start:end], _levels(second_TB)[start - offset : end - offset])
    shared = _shared(first[start:end], second[start - offset : end - offset], levels)
    return Match(
        correlation=float(correlation[best].clip(-1, 1)),
        offset_s=(offset + first_start - second_start) * FRAME_S,
        overlap_s=(end - start) * FRAME_S,
        shared=shared,
        longer_s=max(len(first), len(second)) * FRAME_S,
    )


def _without_padding(energy_TB: NDArray[np.float32]) -> tuple[int, NDArray[np.float32]]:
    """The first frame that is not padding, and the frames from there to the last one. They are at least
    :data:`PART_S` long, since shorter sounds cannot be told apart."""
    if not len(energy_TB):
        return 0, energy_TB
    sounding = np.flatnonzero(_levels(energy_TB) >= PADDING_DB)
    part = round(PART_S / FRAME_S)
    end = max(int(sounding[-1]) + 1, min(int(sounding[0]) + part, len(energy_TB)))
    start = min(int(sounding[0]), max(end - part, 0))
    return start, energy_TB[start:end]


def _shared(first_TB: NDArray[np.float64], second_TB: NDArray[np.float64], level_T: NDArray[np.float32]) -> float:
    """The share of parts that match; 0 if all of them are silent."""
    length = round(PART_S / FRAME_S)
    count = max(1, len(first_TB) // length)
    parts = list(zip(*(np.array_split(rows, count) for rows in (first_TB, second_TB, level_T)), strict=True))
    softest = max(max(float(level.max()) for _, _, level in parts) - ACTIVE_DB, -DYNAMIC_RANGE_DB)
    active = [(one, other) for one, other, level in parts if level.max() >= softest]
    fits = [_correlation(one, other) >= MIN_PART_CORRELATION for one, other in active]
    return sum(fits) / len(fits) if fits else 0.0


def _levels(energy_TB: NDArray[np.float32]) -> NDArray[np.float32]:
    """Level of each frame, in dB relative to the loudest one."""
    level_T: NDArray[np.float32] = energy_TB.max(1) - energy_TB.max()
    return level_T


def _correlation(first_TB: NDArray[np.float64], second_TB: NDArray[np.float64]) -> float:
    power = float((first_TB**2).sum() * (second_TB**2).sum())
    return float((first_TB * second_TB).sum()) / power**0.5 if power > 0 else 0.0


def _centred(energy_TB: NDArray[np.float32]) -> NDArray[np.float64]:
    """Band energies, clipped to the dynamic range; each band, and then each frame, is shifted to mean 0."""
    if not len(energy_TB):
        return energy_TB.astype(np.float64)
    kept_TB = np.maximum(energy_TB.astype(np.float64), energy_TB.max(0) - DYNAMIC_RANGE_DB)
    kept_TB -= kept_TB.mean(0)
    centred: NDArray[np.float64] = kept_TB - kept_TB.mean(1, keepdims=True)
    return centred


def _correlated(first_T: NDArray[np.float64], second_T: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Sum of the products over time at every offset of the second in the first; negative offsets are indexed from the
    end."""
    spectrum = np.fft.rfft(first_T, size) * np.conj(np.fft.rfft(second_T, size))
    return np.fft.irfft(spectrum, size)


def _energy(
    centred_TB: NDArray[np.float64], starts_L: NDArray[np.int64], ends_L: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Energy between two frames, at every offset."""
    sums = np.concatenate([[0.0], np.cumsum((centred_TB**2).sum(1))])
    energy: NDArray[np.float64] = sums[ends_L] - sums[starts_L]
    return energy
