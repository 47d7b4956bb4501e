"""Spectrogram front ends against an independent implementation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers.audio_utils import mel_filter_bank

from pengi.audio.logmel import magnitude_spectrogram, mel_filterbank_htk, mel_filterbank_slaney

YAMNET = (16_000, 512, 64, 125.0, 7500.0)
HTK = {"norm": None, "mel_scale": "kaldi", "triangularize_in_mel_space": True}
SLANEY = {"norm": "slaney", "mel_scale": "slaney"}


@pytest.mark.parametrize(
    ("filterbank", "options", "settings"),
    [
        (mel_filterbank_htk, HTK, YAMNET),
        (mel_filterbank_htk, HTK, (16_000, 512, 8, 0.0, 8000.0)),
        (mel_filterbank_slaney, SLANEY, (16_000, 400, 80, 0.0, 8000.0)),
        (mel_filterbank_slaney, SLANEY, (44_100, 1024, 64, 50.0, 8000.0)),
    ],
)
def test_filters_are_those_of_transformers(
    filterbank: Callable[..., torch.Tensor], options: dict[str, Any], settings: tuple[int, int, int, float, float]
) -> None:
    rate, n_fft, bands, low_hz, high_hz = settings
    expected = mel_filter_bank(n_fft // 2 + 1, bands, low_hz, high_hz, rate, **options)
    torch.testing.assert_close(filterbank(*settings), torch.from_numpy(expected).float(), rtol=0, atol=1e-8)


def test_yamnets_filters_cover_their_range_and_nothing_else() -> None:
    weights = mel_filterbank_htk(*YAMNET)
    hertz = torch.arange(257) * 16_000 / 512
    assert torch.equal(weights.any(1), (hertz > 125) & (hertz < 7500))
    assert ((weights >= 0) & (weights <= 1)).all()


@pytest.mark.parametrize("samples", [400, 559, 560, 3000])
def test_spectrogram_is_the_fourier_transform_of_windowed_frames(samples: int) -> None:
    waveform = np.random.default_rng(0).standard_normal(samples)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)  # periodic Hann
    starts = range(0, samples - 400 + 1, 160)
    expected = np.stack([np.abs(np.fft.rfft(waveform[start : start + 400] * window, 512)) for start in starts])
    hann = torch.hann_window(400, periodic=True)
    found = magnitude_spectrogram(torch.from_numpy(waveform).float()[None], hann, 512, 160)
    assert found.shape == (1, len(starts), 257)
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=0, atol=1e-4)


def test_the_front_end_is_differentiable() -> None:
    waveform = torch.randn(1, 1000, requires_grad=True)
    (magnitude_spectrogram(waveform, torch.hann_window(400), 512, 160) @ mel_filterbank_htk(*YAMNET)).sum().backward()
    assert waveform.grad is not None
    assert waveform.grad[0, :880].any()
    assert torch.isfinite(waveform.grad).all()
