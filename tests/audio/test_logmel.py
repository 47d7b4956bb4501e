"""Spectrogram front ends against the formulas they come from."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers.audio_utils import mel_filter_bank

from pengi.audio.logmel import (
    hz_to_mel_htk,
    hz_to_mel_slaney,
    magnitude_spectrogram,
    mel_filterbank_htk,
    mel_filterbank_slaney,
    mel_to_hz_slaney,
)

YAMNET = (16_000, 512, 64, 125.0, 7500.0)


def mel(hertz: float) -> float:
    """As TensorFlow's ``mel_ops``: 1127 ln(1 + f / 700)."""
    return 1127.0 * math.log(1.0 + hertz / 700.0)


def tensorflow_weight(k: int, band: int) -> float:
    """One entry of ``tf.signal.linear_to_mel_weight_matrix`` with YAMNet's settings, step by step."""
    low, high, bands = mel(125.0), mel(7500.0), 64
    edges = [low + (high - low) * index / (bands + 1) for index in range(bands + 2)]
    bin_mel = mel(k * 16_000 / 512)
    lower_slope = (bin_mel - edges[band]) / (edges[band + 1] - edges[band])
    upper_slope = (edges[band + 2] - bin_mel) / (edges[band + 2] - edges[band + 1])
    return 0.0 if k == 0 else max(0.0, min(lower_slope, upper_slope))


def test_the_mel_scale() -> None:
    # 700 Hz is 1127 ln 2, and 1000 Hz is 1000 mel but for rounding of the constant.
    expected = torch.tensor([0.0, 781.1769, 999.9907])
    torch.testing.assert_close(hz_to_mel_htk(torch.tensor([0.0, 700.0, 1000.0])), expected, rtol=0, atol=1e-3)


def test_filterbank_values_by_hand() -> None:
    """Bin 5 is 156.25 Hz or 226.99 mel. Edges lie every 39.41 mel from 185.17 (125 Hz) on, so the bin lies above the
    centre of band 0 (224.58) by 2.41 mel: 0.939 of band 0 is left, and 0.061 of band 1 has begun."""
    weights = mel_filterbank_htk(*YAMNET)
    assert weights.shape == (257, 64)
    spacing = (mel(7500) - mel(125)) / 65
    share = (mel(156.25) - mel(125)) / spacing - 1
    assert weights[5, 0].item() == pytest.approx(1 - share, abs=1e-5)
    assert weights[5, 1].item() == pytest.approx(share, abs=1e-5)
    assert not weights[5, 2:].any()


def test_filterbank_is_tensorflows() -> None:
    expected = [[tensorflow_weight(k, band) for band in range(64)] for k in range(257)]
    torch.testing.assert_close(mel_filterbank_htk(*YAMNET), torch.tensor(expected), rtol=0, atol=1e-5)


def test_filterbank_covers_its_range_and_nothing_else() -> None:
    weights = mel_filterbank_htk(*YAMNET)
    hertz = torch.arange(257) * 16_000 / 512
    inside = (hertz > 125) & (hertz < 7500)
    assert torch.equal(weights.any(1), inside)
    assert (weights >= 0).all()
    assert (weights <= 1).all()
    assert not mel_filterbank_htk(16_000, 512, 8, 0.0, 8000.0)[0].any()


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


def test_a_tone_shows_in_its_bin() -> None:
    waveform = torch.sin(2 * torch.pi * 1000.0 * torch.arange(16_000) / 16_000)[None]
    spectrum = magnitude_spectrogram(waveform, torch.hann_window(400), 512, 160)
    assert (spectrum.argmax(-1) == 32).all()  # 1000 Hz / (16000 / 512)


def test_the_front_end_is_differentiable() -> None:
    waveform = torch.randn(1, 1000, requires_grad=True)
    (magnitude_spectrogram(waveform, torch.hann_window(400), 512, 160) @ mel_filterbank_htk(*YAMNET)).sum().backward()
    assert waveform.grad is not None
    assert waveform.grad[0, :880].any()
    assert torch.isfinite(waveform.grad).all()


def test_slaneys_mel_scale_is_linear_to_1_khz_and_logarithmic_above() -> None:
    frequency = torch.tensor([0.0, 200.0, 1000.0, 6400.0])
    torch.testing.assert_close(hz_to_mel_slaney(frequency), torch.tensor([0.0, 3.0, 15.0, 42.0]), rtol=0, atol=1e-4)
    torch.testing.assert_close(mel_to_hz_slaney(hz_to_mel_slaney(frequency)), frequency, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("rate", "n_fft", "bands", "low_hz"), [(16_000, 400, 80, 0.0), (44_100, 1024, 64, 50.0)])
def test_slaneys_filters_are_those_of_the_library(rate: int, n_fft: int, bands: int, low_hz: float) -> None:
    expected = mel_filter_bank(n_fft // 2 + 1, bands, low_hz, 8000.0, rate, norm="slaney", mel_scale="slaney")
    found = mel_filterbank_slaney(rate, n_fft, bands, low_hz, 8000.0)
    torch.testing.assert_close(found, torch.from_numpy(expected).float(), rtol=0, atol=1e-8)
