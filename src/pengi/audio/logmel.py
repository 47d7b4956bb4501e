"""Spectrogram front ends as differentiable torch functions.

Shape suffixes: B clips, S samples, F frames, W samples of a window, K frequency bins, M mel bands.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MEL_AT_1_KHZ = 15.0
_MEL_PER_LOG = 27.0 / math.log(6.4)


def hz_to_mel_htk(frequency_hz: Tensor) -> Tensor:
    """HTK mel scale: ``1127 ln(1 + f / 700)``."""
    return 1127.0 * torch.log1p(frequency_hz / 700.0)


def mel_filterbank_htk(sample_rate: int, n_fft: int, bands: int, low_hz: float, high_hz: float) -> Tensor:
    """Triangular filters ``float32[K, M]`` whose slopes are linear on the mel scale.

    This is TensorFlow's ``linear_to_mel_weight_matrix``, with which YAMNet was trained. Unlike in the usual
    filterbanks, the triangles are linear in mel, not in Hz. The bin at 0 Hz is in no band.
    """
    bins_mel = hz_to_mel_htk(torch.linspace(0.0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64))[:, None]
    limits = hz_to_mel_htk(torch.tensor([low_hz, high_hz], dtype=torch.float64))
    edges_mel = torch.linspace(float(limits[0]), float(limits[1]), bands + 2, dtype=torch.float64)
    return _triangles(bins_mel, edges_mel).float()


def mel_filterbank_slaney(sample_rate: int, n_fft: int, bands: int, low_hz: float, high_hz: float) -> Tensor:
    """Triangular filters ``float32[K, M]`` of equal area, evenly spaced on Slaney's mel scale.

    These are the filters of librosa and Whisper; their slopes are linear in Hz.
    """
    bins_hz = torch.linspace(0.0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)[:, None]
    low_mel, high_mel = hz_to_mel_slaney(torch.tensor([low_hz, high_hz], dtype=torch.float64)).tolist()
    edges_hz = mel_to_hz_slaney(torch.linspace(low_mel, high_mel, bands + 2, dtype=torch.float64))
    return (_triangles(bins_hz, edges_hz) * 2.0 / (edges_hz[2:] - edges_hz[:-2])).float()


def _triangles(bins: Tensor, edges: Tensor) -> Tensor:
    """Filters ``[K, M]`` that rise from one edge to the next and fall to the one after it; ``bins`` is ``[K, 1]``."""
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins - lower) / (centre - lower)
    falling = (upper - bins) / (upper - centre)
    return torch.minimum(rising, falling).clamp(min=0.0)


def hz_to_mel_slaney(frequency_hz: Tensor) -> Tensor:
    """Slaney's mel scale: linear up to 1 kHz (15 mel), logarithmic above it, 27 mel for a factor of 6.4."""
    above = _MEL_AT_1_KHZ + torch.log(frequency_hz.clamp(min=1e-3) / 1000.0) * _MEL_PER_LOG
    return torch.where(frequency_hz < 1000.0, frequency_hz * _MEL_AT_1_KHZ / 1000.0, above)


def mel_to_hz_slaney(mel: Tensor) -> Tensor:
    """The inverse of :func:`hz_to_mel_slaney`."""
    above = 1000.0 * torch.exp((mel - _MEL_AT_1_KHZ) / _MEL_PER_LOG)
    return torch.where(mel < _MEL_AT_1_KHZ, mel * 1000.0 / _MEL_AT_1_KHZ, above)


def magnitude_spectrogram(waveform_BS: Tensor, window: Tensor, n_fft: int, hop: int) -> Tensor:
    """Magnitudes ``float32[B, F, K]`` of uncentred frames of ``len(window)`` samples, zero-padded to ``n_fft``."""
    frames_BFW = waveform_BS.unfold(-1, window.numel(), hop)
    magnitude_BFK: Tensor = torch.fft.rfft(frames_BFW * window, n=n_fft).abs()
    return magnitude_BFK
