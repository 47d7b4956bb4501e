"""Variation for training: masks on spectrograms, always seeded.

Shape suffixes: B batch, T time frames, M mel bands, K masks.
"""

from __future__ import annotations

import torch
from torch import Tensor


def spec_augment(
    logmel_BTM: Tensor,
    generator: torch.Generator,
    *,
    time_masks: int = 2,
    time_width: int = 64,
    frequency_masks: int = 2,
    frequency_width: int = 8,
) -> Tensor:
    """Mask random stripes of each spectrogram of a batch (SpecAugment, Park et al. 2019, without time warping).

    Each mask is 0 to ``time_width`` frames or ``frequency_width`` bands wide and has a random position; every example
    gets different masks. Masked cells are set to the mean of their spectrogram, which is equivalent to the paper's
    zero. The default widths are those with which HTS-AT was trained.

    Args:
        logmel_BTM: log-mel spectrograms ``float32[B, T, M]``, left unchanged.
        generator: source of all random numbers.
        time_masks: masks over time per example.
        time_width: widest mask over time, in frames.
        frequency_masks: masks over frequency per example.
        frequency_width: widest mask over frequency, in mel bands.

    Returns:
        ``float32[B, T, M]``.
    """
    batch, frames, bands = logmel_BTM.shape
    masked_BT = _stripes(batch, frames, time_masks, time_width, generator)
    masked_BM = _stripes(batch, bands, frequency_masks, frequency_width, generator)
    masked_BTM = (masked_BT[:, :, None] | masked_BM[:, None, :]).to(logmel_BTM.device)
    return torch.where(masked_BTM, logmel_BTM.mean(dim=(1, 2), keepdim=True), logmel_BTM)


def _stripes(batch: int, size: int, masks: int, width: int, generator: torch.Generator) -> Tensor:
    """``bool[B, size]``, True inside any of each example's masks."""
    device = generator.device
    widths_BK = torch.randint(0, min(width, size) + 1, (batch, masks), generator=generator, device=device)
    positions_BK = torch.rand((batch, masks), generator=generator, device=device)
    starts_BK = (positions_BK * (size - widths_BK + 1)).long()
    position = torch.arange(size, device=device)
    inside = (position >= starts_BK[:, :, None]) & (position < (starts_BK + widths_BK)[:, :, None])
    return inside.any(dim=1)
