"""How loud a recording is, moment by moment: what encoders that hear what sounds mostly leave out.

Shape suffixes: B clips, S samples, T patches.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pengi.audio.level import FLOOR_DB
from pengi.encoders.base import AudioEncoder, Augment
from pengi.encoders.yamnet import PATCH_HOP_SAMPLES, PATCH_SAMPLES, SAMPLE_RATE, YamnetEncoder, patch_counts


class LevelEncoder(AudioEncoder):
    """One token of one number per patch of YAMNet's: the root-mean-square level in dB, 0 dB a constant at full scale.

    It has no weights. Of the last patch only what lies within the clip counts.
    """

    sample_rate = SAMPLE_RATE
    token_s = YamnetEncoder.token_s
    dim = 1
    describes = False

    @torch.no_grad()
    def features(self, waveform_BS: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """Levels ``float32[B, T, 1]`` of every patch, ``FLOOR_DB`` at least."""
        counts_B = patch_counts(lengths_B)
        most = int(counts_B.max())
        samples = PATCH_SAMPLES + (most - 1) * PATCH_HOP_SAMPLES
        padded_BS = functional.pad(waveform_BS, (0, max(0, samples - waveform_BS.shape[1])))[:, :samples]
        energy_BT = padded_BS.square().unfold(1, PATCH_SAMPLES, PATCH_HOP_SAMPLES).sum(-1)
        patches_T = torch.arange(most, device=waveform_BS.device)
        heard_BT = (lengths_B[:, None] - patches_T * PATCH_HOP_SAMPLES).clamp(1, PATCH_SAMPLES)
        level_BT = 10.0 * (energy_BT / heard_BT).clamp(min=10.0 ** (FLOOR_DB / 10.0)).log10()
        mask_BT = patches_T < counts_B[:, None]
        return level_BT[..., None].masked_fill(~mask_BT[..., None], 0.0), mask_BT

    def tokens(self, features_BTx: Tensor, mask_BT: Tensor, augment: Augment | None = None) -> Tensor:
        """The features as they are; ``augment`` has nothing to work on."""
        return features_BTx.masked_fill(~mask_BT[..., None], 0.0)
