from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pengi.audio.augment import gain_db, mix, random_gain_db, spec_augment
from pengi.audio.level import FLOOR_DB, rms_db
from pengi.errors import InputError


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestSpecAugment:
    SHAPE = (16, 100, 64)

    def test_masks_are_stripes_within_their_widths(self) -> None:
        logmel = torch.ones(self.SHAPE)
        masked = spec_augment(
            logmel, seeded(), time_masks=2, time_width=10, frequency_masks=1, frequency_width=5, value=0.0
        )
        hidden = masked == 0
        hidden_T, hidden_M = hidden.all(dim=2), hidden.all(dim=1)
        assert torch.equal(hidden, hidden_T[:, :, None] | hidden_M[:, None, :])
        assert hidden_T.sum(dim=1).max() <= 20
        assert hidden_M.sum(dim=1).max() <= 5
        assert hidden_T.any()
        assert hidden_M.any()
        assert len({tuple(row.tolist()) for row in hidden_T}) > 10  # each example has its own
        assert torch.equal(logmel, torch.ones(self.SHAPE))

    def test_masks_reach_every_place(self) -> None:
        logmel = torch.ones(4000, 12, 1)
        hidden = spec_augment(logmel, seeded(), time_masks=1, time_width=4, frequency_masks=0, value=0.0) == 0
        share_T = hidden.float().mean(dim=(0, 2))
        assert share_T.min() > 0.05
        assert float(share_T[0]) == pytest.approx(float(share_T[-1]), abs=0.02)
        assert set(hidden.sum(dim=1).flatten().tolist()) == {0, 1, 2, 3, 4}

    def test_default_value_is_each_spectrograms_mean(self) -> None:
        logmel = torch.randn(self.SHAPE, generator=seeded(1)) + torch.arange(16.0)[:, None, None]
        masked = spec_augment(logmel, seeded())
        changed = masked != logmel
        assert changed.any()
        means = logmel.mean(dim=(1, 2), keepdim=True).expand(self.SHAPE)
        torch.testing.assert_close(masked[changed], means[changed])

    def test_is_seeded(self) -> None:
        logmel = torch.randn(self.SHAPE, generator=seeded(1))
        assert torch.equal(spec_augment(logmel, seeded(7)), spec_augment(logmel, seeded(7)))
        assert not torch.equal(spec_augment(logmel, seeded(7)), spec_augment(logmel, seeded(8)))

    def test_no_masks_change_nothing_and_wide_ones_fit(self) -> None:
        logmel = torch.randn(2, 5, 3, generator=seeded(1))
        assert torch.equal(spec_augment(logmel, seeded(), time_masks=0, frequency_masks=0), logmel)
        assert spec_augment(logmel, seeded(), time_width=50, frequency_width=50).shape == logmel.shape

    def test_gradient_flows_through_what_is_visible(self) -> None:
        logmel = torch.randn(2, 20, 8, generator=seeded(1), requires_grad=True)
        masked = spec_augment(logmel, seeded(), time_width=5, frequency_width=2, value=0.0)
        masked.sum().backward()
        assert logmel.grad is not None
        assert torch.equal(logmel.grad == 0, masked == 0)


class TestLevels:
    def test_known_levels(self) -> None:
        time = np.arange(16_000) / 16_000
        assert rms_db(np.ones(100, np.float32)) == pytest.approx(0)
        assert rms_db(np.full(100, 0.1, np.float32)) == pytest.approx(-20, abs=1e-4)
        assert rms_db(np.sin(2 * np.pi * 440 * time).astype(np.float32)) == pytest.approx(-3.01, abs=0.01)
        assert rms_db(np.zeros(100, np.float32)) == FLOOR_DB

    @settings(deadline=None)
    @given(gain=st.floats(-60, 20))
    def test_gain_shifts_the_level(self, gain: float) -> None:
        samples = np.random.default_rng(0).uniform(-0.5, 0.5, 1000).astype(np.float32)
        louder = gain_db(samples, gain)
        assert louder.dtype == np.float32
        assert rms_db(louder) - rms_db(samples) == pytest.approx(gain, abs=1e-3)

    def test_random_gain_is_seeded_and_in_range(self) -> None:
        samples = np.ones(100, np.float32)
        generator = np.random.default_rng(0)
        gains = [rms_db(random_gain_db(samples, generator, -12, 6)) for _ in range(200)]
        assert -12 <= min(gains) < -10
        assert 4 < max(gains) <= 6
        assert rms_db(random_gain_db(samples, np.random.default_rng(0), -12, 6)) == gains[0]


class TestMix:
    @settings(deadline=None)
    @given(snr_db=st.floats(-30, 30), level=st.floats(0.001, 1))
    def test_ratio_is_as_asked_and_the_foreground_stays(self, snr_db: float, level: float) -> None:
        generator = np.random.default_rng(0)
        foreground = generator.uniform(-0.5, 0.5, 4000).astype(np.float32)
        background = (level * generator.uniform(-0.5, 0.5, 4000)).astype(np.float32)
        mixture = mix(foreground, background, snr_db)
        assert mixture.dtype == np.float32
        assert rms_db(foreground) - rms_db(mixture - foreground) == pytest.approx(snr_db, abs=0.01)

    def test_silence_has_no_level_to_match(self) -> None:
        noise = np.full(10, 0.1, np.float32)
        np.testing.assert_array_equal(mix(noise, np.zeros(10, np.float32), 10), noise)
        np.testing.assert_array_equal(mix(np.zeros(10, np.float32), noise, 10), noise)
        assert math.isfinite(rms_db(mix(np.zeros(10, np.float32), np.zeros(10, np.float32), 0)))

    def test_lengths_must_agree(self) -> None:
        with pytest.raises(InputError, match="10 and 11 samples"):
            mix(np.zeros(10, np.float32), np.zeros(11, np.float32), 0)
