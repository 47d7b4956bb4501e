"""Variation for training: masks on spectrograms (torch), level and mixing of waveforms (NumPy). Always seeded.

Shape suffixes: B batch, T time frames, M mel bands, K masks.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pengi.audio.level import FLOOR_DB, rms_db
from pengi.errors import InputError


def spec_augment(
    logmel_BTM: Tensor,
    generator: torch.Generator,
    *,
    time_masks: int = 2,
    time_width: int = 64,
    frequency_masks: int = 2,
    frequency_width: int = 8,
    value: float | None = None,
) -> Tensor:
    """Mask random stripes of each spectrogram of a batch (SpecAugment, Park et al. 2019, without time warping).

    Each mask is 0 to ``time_width`` frames or ``frequency_width`` bands wide and lies anywhere; every example gets its
    own. The default widths are those HTS-AT was trained with.

    Args:
        logmel_BTM: log-mel spectrograms ``float32[B, T, M]``, left unchanged.
        generator: where all randomness comes from.
        time_masks: masks over time per example.
        time_width: widest mask over time, in frames.
        frequency_masks: masks over frequency per example.
        frequency_width: widest mask over frequency, in mel bands.
        value: what masked cells become; None is the mean of their spectrogram, which the paper's zero amounts to.

    Returns:
        ``float32[B, T, M]``.
    """
    batch, frames, bands = logmel_BTM.shape
    masked_BT = _stripes(batch, frames, time_masks, time_width, generator)
    masked_BM = _stripes(batch, bands, frequency_masks, frequency_width, generator)
    masked_BTM = (masked_BT[:, :, None] | masked_BM[:, None, :]).to(logmel_BTM.device)
    if value is None:
        return torch.where(masked_BTM, logmel_BTM.mean(dim=(1, 2), keepdim=True), logmel_BTM)
    return logmel_BTM.masked_fill(masked_BTM, value)


def _stripes(batch: int, size: int, masks: int, width: int, generator: torch.Generator) -> Tensor:
    """``bool[B, size]``, True inside any of each example's masks."""
    device = generator.device
    widths_BK = torch.randint(0, min(width, size) + 1, (batch, masks), generator=generator, device=device)
    places_BK = torch.rand((batch, masks), generator=generator, device=device)
    starts_BK = (places_BK * (size - widths_BK + 1)).long()
    position = torch.arange(size, device=device)
    inside = (position >= starts_BK[:, :, None]) & (position < (starts_BK + widths_BK)[:, :, None])
    return inside.any(dim=1)


def gain_db(samples: NDArray[np.float32], gain: float) -> NDArray[np.float32]:
    """A waveform made louder by ``gain`` dB. Nothing is clipped."""
    return samples * np.float32(10.0 ** (gain / 20.0))


def random_gain_db(
    samples: NDArray[np.float32], generator: np.random.Generator, low: float, high: float
) -> NDArray[np.float32]:
    """A waveform made louder by a random gain between ``low`` and ``high`` dB. Nothing is clipped."""
    return gain_db(samples, generator.uniform(low, high))


def mix(foreground: NDArray[np.float32], background: NDArray[np.float32], snr_db: float) -> NDArray[np.float32]:
    """The sum of two waveforms ``float32[S]``, the first ``snr_db`` dB louder (RMS) than the second.

    The foreground keeps its level and the background is scaled. If either is at ``FLOOR_DB`` no level fits, and
    the background is added as it is. Nothing is clipped: the sum may exceed full scale.

    Raises:
        InputError: if the two differ in length; ``windows`` makes them equal.
    """
    if foreground.shape != background.shape:
        raise InputError(
            f"only waveforms of one length can be mixed, not {len(foreground)} and {len(background)} samples"
        )
    foreground_db, background_db = rms_db(foreground), rms_db(background)
    if FLOOR_DB in (foreground_db, background_db):
        return foreground + background
    return foreground + gain_db(background, foreground_db - snr_db - background_db)
