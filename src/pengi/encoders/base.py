"""The interface of audio encoders: from waveforms to short sequences of audio tokens.

An encoder has two parts. ``features`` is frozen (a spectrogram, or the first layers of a network), so training computes
it once per clip and caches it; ``tokens`` contains the trained layers.

Shape suffixes: B clips, S samples, T audio tokens, D features of a token.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

Masked = tuple[Tensor, Tensor]
"""A padded sequence ``[B, T, ...]`` and its mask ``bool[B, T]``."""

Augment = Callable[[Tensor], Tensor]
"""Changes log-mel spectrograms ``float32[N, frames, bands]`` (SpecAugment); used in training only."""


class AudioEncoder(nn.Module):
    """Base of the audio encoders.

    Attributes:
        sample_rate: rate of the waveforms it takes, in Hz.
        dim: features of one audio token.
        token_s: time from one audio token to the next, in seconds.
    """

    sample_rate: int
    dim: int
    token_s: float

    def features(self, waveform_BS: Tensor, lengths_B: Tensor) -> Masked:
        """The frozen part.

        Args:
            waveform_BS: ``float32[B, S]`` at ``sample_rate``, each row zero-padded on the right.
            lengths_B: ``int64[B]``, true number of samples of each row, at least 1.

        Returns:
            Features ``float32[B, T, ...]`` and the mask ``bool[B, T]``, True where a token is real. The result of a
            row does not depend on the other rows.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement features")

    def tokens(self, features_BTx: Tensor, mask_BT: Tensor, augment: Augment | None = None) -> Tensor:
        """The trained part: audio tokens ``float32[B, T, D]``, zero where the mask is False."""
        raise NotImplementedError(f"{type(self).__name__} does not implement tokens")

    def forward(self, waveform_BS: Tensor, lengths_B: Tensor) -> Masked:
        """Tokens ``float32[B, T, D]`` and mask ``bool[B, T]`` of clips; arguments as for :meth:`features`."""
        features_BTx, mask_BT = self.features(waveform_BS, lengths_B)
        return self.tokens(features_BTx, mask_BT), mask_BT
