"""Pictures of recordings of any length, in bounded memory: the outline of the waveform and a log-mel spectrogram.

Both are drawn from the sound as pengi-mini reads it, mono at 16 kHz. They have the same number of columns, about the
width of a screen, so that they line up.

Shape suffixes: C columns, S samples, N windows in a column, W samples of a window, F frames, K frequency bins, M bands.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pengi.audio.decode import AudioSource, stream
from pengi.audio.logmel import hz_to_mel_htk, magnitude_spectrogram, mel_filterbank_htk

RATE = 16_000
"""Sample rate of pengi-mini, in Hz."""
IMAGE_COLUMNS = 900
SHORTEST_COLUMN = 64
"""Minimum number of samples of a column; very short recordings get fewer columns."""
WINDOW = 640
N_FFT = 2048
BANDS = 96
LOW_HZ, HIGH_HZ = 50.0, 8_000.0
RANGE_DB = 70.0
"""Range of the spectrogram below its loudest point, in dB."""
FRAMES_IN_COLUMN = 4
"""Maximum number of windows that are read for one column of a long recording."""
COLUMNS_PER_BATCH = 64
"""Columns that are computed at a time."""
FREQUENCY_TICKS_HZ = (125, 500, 1_000, 2_000, 4_000, 8_000)
TIME_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200)
MAX_TIME_TICKS = 8
INK = ("#faf9f5", "#dfeae4", "#a9cfc9", "#5d9fa6", "#2a6480", "#142a4a")
"""Colours from silent to loud in even steps of lightness; inverted they are used on a dark page."""


@dataclass(frozen=True)
class Picture:
    """Waveform and spectrogram of a recording."""

    duration_s: float
    low_C: NDArray[np.float32]
    """Lowest sample of each column."""
    high_C: NDArray[np.float32]
    """Highest sample of each column."""
    level_MC: NDArray[np.float32]
    """Log-mel levels in dB relative to the loudest, 0 to -``RANGE_DB``; low bands first."""

    @property
    def peak(self) -> float:
        """The largest absolute value of a sample, and at least 0.0001."""
        return max(float(np.abs(self.low_C).max()), float(np.abs(self.high_C).max()), 1e-4)


def draw(source: AudioSource, duration_s: float) -> Picture:
    """The picture of a whole recording.

    Args:
        source: the recording.
        duration_s: its length as ``decode.probe`` gives it; it determines how much sound is in a column.

    Raises:
        AudioError: if the recording cannot be decoded.
    """
    hop = max(SHORTEST_COLUMN, math.ceil(duration_s * RATE / IMAGE_COLUMNS))
    filters_KM = mel_filterbank_htk(RATE, N_FFT, BANDS, LOW_HZ, HIGH_HZ)
    lows, highs, powers = [], [], []
    samples = 0
    for columns_CS, windows_CNW, count in _columns(source, hop):
        lows.append(columns_CS.min(1))
        highs.append(columns_CS.max(1))
        powers.append(_mel_power(windows_CNW, filters_KM))
        samples += count
    power_CM = torch.cat(powers)
    level_CM = 10 * torch.log10(power_CM / power_CM.max().clamp(min=1e-10) + 1e-10)
    level_MC = level_CM.clamp(min=-RANGE_DB).T.contiguous().numpy()
    return Picture(samples / RATE, np.concatenate(lows), np.concatenate(highs), level_MC)


def spectrogram_png(picture: Picture) -> str:
    """The spectrogram as a data URI: one pixel a column and band, low bands at the bottom."""
    from PIL import Image  # installed with Gradio

    index_MC = np.round((picture.level_MC[::-1] / RANGE_DB + 1) * 255).astype(np.uint8)
    image = Image.fromarray(index_MC)
    image.putpalette(ink_colours(256).ravel().tolist())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def waveform_path(picture: Picture, height: int) -> str:
    """The waveform as an SVG path, ``len(low_C)`` wide and ``height`` high, scaled to the loudest sample."""
    half = height / 2
    # A minimum height everywhere, so that silence is a line and not a gap.
    top_C = half - np.maximum(picture.high_C / picture.peak * half, 0.5)
    bottom_C = half - np.minimum(picture.low_C / picture.peak * half, -0.5)
    there = [f"{index} {y:.1f}" for index, y in enumerate(top_C)]
    back = [f"{index} {y:.1f}" for index, y in reversed(list(enumerate(bottom_C)))]
    return "M" + "L".join(there + back) + "Z"


def time_ticks(duration_s: float) -> list[float]:
    """Round times in seconds from 0 on, at most ``MAX_TIME_TICKS`` + 1."""
    step = next((step for step in TIME_STEPS_S if duration_s / step <= MAX_TIME_TICKS), TIME_STEPS_S[-1])
    return [round(index * step, 3) for index in range(int(duration_s / step + 1e-6) + 1)]


def time_unit(duration_s: float) -> str:
    """The unit of :func:`time_label`: seconds, minutes and seconds, or hours and minutes."""
    return "s" if duration_s < 60 else "min" if duration_s < 3_600 else "h"


def time_label(time_s: float, duration_s: float) -> str:
    """The label of a time on the axis of a recording, such as ``2.5``, ``1:30`` or, in hours, ``2:15``."""
    unit = time_unit(duration_s)
    if unit == "s":
        return f"{time_s:g}"
    whole = int(time_s if unit == "min" else time_s // 60)
    return f"{whole // 60}:{whole % 60:02d}"


def frequency_ticks() -> list[tuple[int, float]]:
    """Frequencies in Hz and their positions on the mel axis, from 0 to 1."""
    edges = hz_to_mel_htk(torch.tensor([LOW_HZ, HIGH_HZ], dtype=torch.float64))
    ticks = hz_to_mel_htk(torch.tensor(FREQUENCY_TICKS_HZ, dtype=torch.float64))
    heights = ((ticks - edges[0]) / (edges[1] - edges[0])).tolist()
    return list(zip(FREQUENCY_TICKS_HZ, heights, strict=True))


def _columns(source: AudioSource, hop: int) -> Iterator[tuple[NDArray[np.float32], Tensor, int]]:
    """Batches of columns: their samples ``[C, S]``, windows ``[C, N, W]``, and how many samples are new.

    If columns are shorter than a window, windows begin at the columns and extend beyond them.
    """
    reach = max(0, WINDOW - hop)
    buffer = np.zeros(0, np.float32)
    for block in stream(source, RATE):
        buffer = np.concatenate([buffer, block])
        while len(buffer) >= COLUMNS_PER_BATCH * hop + reach:
            yield *_framed(buffer[: COLUMNS_PER_BATCH * hop + reach], COLUMNS_PER_BATCH, hop), COLUMNS_PER_BATCH * hop
            buffer = buffer[COLUMNS_PER_BATCH * hop :]
    while len(buffer):
        count = min(len(buffer), COLUMNS_PER_BATCH * hop)
        columns = math.ceil(count / hop)
        whole = buffer[: columns * hop + reach]
        yield *_framed(np.pad(whole, (0, columns * hop + reach - len(whole))), columns, hop), count
        buffer = buffer[count:]


def _framed(samples_S: NDArray[np.float32], columns: int, hop: int) -> tuple[NDArray[np.float32], Tensor]:
    columns_CS = samples_S[: columns * hop].reshape(columns, hop)
    if hop <= WINDOW:
        return columns_CS, torch.from_numpy(samples_S.copy()).unfold(0, WINDOW, hop)[:columns, None]
    starts = np.linspace(0, hop - WINDOW, min(FRAMES_IN_COLUMN, hop // WINDOW)).astype(int)
    return columns_CS, torch.from_numpy(np.stack([columns_CS[:, at : at + WINDOW] for at in starts], axis=1))


def _mel_power(windows_CNW: Tensor, filters_KM: Tensor) -> Tensor:
    """Mean mel power of the windows of each column, ``float32[C, M]``."""
    magnitude_CNFK = magnitude_spectrogram(windows_CNW, torch.hann_window(WINDOW), N_FFT, WINDOW)
    return (magnitude_CNFK.square() @ filters_KM).mean(dim=(1, 2))


def ink_colours(count: int) -> NDArray[np.int_]:
    """Colours from silent to loud, between those of :data:`INK`: red, green and blue from 0 to 255, ``[count, 3]``."""
    stops = np.array([[int(colour[index : index + 2], 16) for index in (1, 3, 5)] for colour in INK])
    at = np.linspace(0, len(INK) - 1, count)
    channels = [np.interp(at, np.arange(len(INK)), stops[:, channel]) for channel in range(3)]
    return np.round(np.stack(channels, axis=1)).astype(int)
