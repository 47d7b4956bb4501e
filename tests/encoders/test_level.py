"""Levels: those of the samples in YAMNet's patches, of every clip alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pengi.audio.level import FLOOR_DB, rms_db
from pengi.encoders.level import LevelEncoder
from pengi.encoders.yamnet import PATCH_HOP_SAMPLES, PATCH_SAMPLES, YamnetEncoder

ENCODER = LevelEncoder()


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise that grows louder."""
    samples = round(seconds * ENCODER.sample_rate)
    return (np.random.default_rng(seed).uniform(-1, 1, samples) * np.linspace(0.001, 1, samples)).astype(np.float32)


def levels(*clips: np.ndarray) -> list[list[float]]:
    waveform = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(clip) for clip in clips], batch_first=True)
    tokens, mask = ENCODER(waveform, torch.tensor([len(clip) for clip in clips]))
    return [row[real][:, 0].tolist() for row, real in zip(tokens, mask, strict=True)]


@pytest.mark.parametrize("seconds", [0.3, 0.975, 1.0, 3.21, 10.0])
def test_a_patch_is_as_loud_as_its_samples(seconds: float) -> None:
    clip = noise(seconds)
    (found,) = levels(clip)
    starts = range(0, PATCH_HOP_SAMPLES * len(found), PATCH_HOP_SAMPLES)
    assert found == pytest.approx([rms_db(clip[start : start + PATCH_SAMPLES]) for start in starts], abs=1e-3)


def test_patches_are_those_of_yamnet() -> None:
    clips = [noise(0.5), noise(2.7), noise(5.0)]
    waveform = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(clip) for clip in clips], batch_first=True)
    lengths = torch.tensor([len(clip) for clip in clips])
    assert torch.equal(ENCODER(waveform, lengths)[1], YamnetEncoder.tiny()(waveform, lengths)[1])


def test_a_clip_is_as_loud_beside_longer_ones() -> None:
    short, long = noise(1.3), noise(4.0, seed=1)
    assert levels(short, long) == [pytest.approx(levels(short)[0]), pytest.approx(levels(long)[0])]


def test_silence_has_the_lowest_level() -> None:
    assert levels(np.zeros(16_000, np.float32)) == [pytest.approx([FLOOR_DB] * 2)]


def test_a_level_says_nothing_of_what_is_heard() -> None:
    assert not ENCODER.describes
    assert YamnetEncoder.tiny().describes
