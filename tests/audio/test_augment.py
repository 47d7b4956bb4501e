from __future__ import annotations

import pytest
import torch

from pengi.audio.augment import spec_augment


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestSpecAugment:
    SHAPE = (16, 100, 64)

    def test_masks_are_stripes_within_their_widths(self) -> None:
        logmel = torch.randn(self.SHAPE, generator=seeded(1))
        before = logmel.clone()
        hidden = logmel != spec_augment(
            logmel, seeded(), time_masks=2, time_width=10, frequency_masks=1, frequency_width=5
        )
        hidden_T, hidden_M = hidden.all(dim=2), hidden.all(dim=1)
        assert torch.equal(hidden, hidden_T[:, :, None] | hidden_M[:, None, :])
        assert hidden_T.sum(dim=1).max() <= 20
        assert hidden_M.sum(dim=1).max() <= 5
        assert hidden_T.any()
        assert hidden_M.any()
        assert len({tuple(row.tolist()) for row in hidden_T}) > 10  # each example has its own
        assert torch.equal(logmel, before)

    def test_masks_reach_every_place(self) -> None:
        logmel = torch.randn(4000, 12, 1, generator=seeded(1))
        hidden = spec_augment(logmel, seeded(), time_masks=1, time_width=4, frequency_masks=0) != logmel
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
        masked = spec_augment(logmel, seeded(), time_width=5, frequency_width=2)
        masked[masked == logmel].sum().backward()
        assert logmel.grad is not None
        assert torch.equal(logmel.grad == 1, masked == logmel)
