"""Spectrogram front ends as differentiable torch functions, units stated.

Shape suffixes: B clips, S samples, F frames, W samples of a window, K frequency bins, M mel bands.
"""

from __future__ import annotations

import torch
from torch import Tensor


def hz_to_mel_htk(frequency_hz: Tensor) -> Tensor:
    """HTK mel scale: ``1127 ln(1 + f / 700)``."""
    return 1127.0 * torch.log1p(frequency_hz / 700.0)


def mel_filterbank_htk(sample_rate: int, n_fft: int, bands: int, low_hz: float, high_hz: float) -> Tensor:
    """Triangular filters ``float32[K, M]`` whose slopes are straight on the mel axis.

    This is TensorFlow's ``linear_to_mel_weight_matrix``, on which YAMNet was trained: unlike the usual filterbanks the
    triangles are linear in mel, not in Hz. The constant (0 Hz) bin, never above the lowest edge, is in no band.
    """
    bins_mel = hz_to_mel_htk(torch.linspace(0.0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64))[:, None]
    limits = hz_to_mel_htk(torch.tensor([low_hz, high_hz], dtype=torch.float64))
    edges = torch.linspace(float(limits[0]), float(limits[1]), bands + 2, dtype=torch.float64)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins_mel - lower) / (centre - lower)
    falling = (upper - bins_mel) / (upper - centre)
    return torch.minimum(rising, falling).clamp(min=0.0).float()


def magnitude_spectrogram(waveform_BS: Tensor, window: Tensor, n_fft: int, hop: int) -> Tensor:
    """Magnitudes ``float32[B, F, K]`` of uncentred frames of ``len(window)`` samples, zero-padded to ``n_fft``."""
    frames_BFW = waveform_BS.unfold(-1, window.numel(), hop)
    magnitude_BFK: Tensor = torch.fft.rfft(frames_BFW * window, n=n_fft).abs()
    return magnitude_BFK
