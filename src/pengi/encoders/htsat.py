"""HTS-AT tiny, the audio encoder of the Pengi paper: a Swin transformer over a folded log-mel spectrogram.

The spectrogram is resized in time to four times the side of a square image, and cut into four pieces, which are stacked
with their bands as rows (Chen et al. 2022, figure 2). So time runs along the rows of one piece after the other:

    frames 0 ........ 1023                 piece 0: 64 bands x frames   0..255
    64 bands                      ->       piece 1: 64 bands x frames 256..511
                                           piece 2, piece 3 likewise: 256 x 256

In the final 8 x 8 map every piece has 2 rows (frequencies) and 8 columns (times). Tokens are sorted by time; the two
frequencies of one time are adjacent. The mean of the tokens is the paper's pooled vector.

The Swin layers are those of the CLAP model in the transformers library.

Shape suffixes: B clips, S samples, F frames, K frequency bins, M mel bands, T audio tokens, G frames in the features of
one token, D features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from pengi.audio.logmel import mel_filterbank_slaney
from pengi.encoders.base import AudioEncoder, Augment, Masked

# CLAP is imported only when an encoder is built, because the import is slow.
if TYPE_CHECKING:
    from transformers import ClapAudioConfig

POWER_FLOOR = 1e-10


@dataclass(frozen=True)
class HtsatShape:
    """Sizes of the front end and of the network; the defaults are those of the official Pengi.

    ``mel_rate`` is the sample rate (Hz) that the filterbank is computed for. The official front end has a filterbank
    for 32 kHz with audio of 44.1 kHz, so its bands are higher than 50 to 14,000 Hz by the ratio of the two rates.
    """

    sample_rate: int = 44_100  # Hz
    clip_samples: int = 308_700  # 7 s
    n_fft: int = 1024  # samples; also the length of the window
    hop: int = 320  # samples
    mel_bands: int = 64
    mel_rate: int = 32_000  # Hz
    low_hz: float = 50.0
    high_hz: float = 14_000.0
    side: int = 256  # of the folded image, in pixels
    patch: int = 4
    width: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (4, 8, 16, 32)
    window: int = 8
    classes: int = 527
    drop_path: float = 0.1  # stochastic depth in training, as Swin and HTS-AT have it

    @property
    def frames(self) -> int:
        """Frames of a clip's spectrogram."""
        return self.clip_samples // self.hop + 1

    @property
    def pieces(self) -> int:
        """Pieces that the spectrogram is folded into."""
        return self.side // self.mel_bands

    @property
    def map_side(self) -> int:
        """Side of the final map of tokens."""
        return self.side // (self.patch << len(self.depths) - 1)

    @property
    def dim(self) -> int:
        """Features of a token."""
        return self.width << len(self.depths) - 1


TINY = HtsatShape(
    sample_rate=16_000,
    clip_samples=32_000,
    n_fft=256,
    hop=160,
    mel_bands=16,
    side=64,
    width=8,
    depths=(2, 2, 2),
    heads=(1, 2, 4),
    window=4,
    classes=5,
)


class HtsatEncoder(AudioEncoder):
    """Encodes 7 s as 64 tokens of 768 features; a shorter clip is repeated to that length, a longer one is cut.

    ``features`` computes the log-mel spectrogram in dB, ``tokens`` everything after it.
    """

    mel_KM: Tensor
    window: Tensor

    def __init__(self, shape: HtsatShape = HtsatShape()) -> None:
        from transformers import ClapAudioModel

        super().__init__()
        self.shape = shape
        self.sample_rate = shape.sample_rate
        self.dim = shape.dim
        self.token_count = shape.map_side**2
        self.token_s = shape.clip_samples / shape.sample_rate / self.token_count
        # The filterbank is stored, because a published checkpoint contains one.
        self.register_buffer("mel_KM", mel_filterbank(shape))
        self.register_buffer("window", torch.hann_window(shape.n_fft), persistent=False)
        self.swin = ClapAudioModel(_swin_config(shape)).audio_encoder
        # The AudioSet classifier of the pre-training is not used. It is here because the published checkpoints contain
        # it and the paper's parameter count includes it.
        rows_of_a_piece = shape.map_side // shape.pieces
        self.tscam_conv = nn.Conv2d(shape.dim, shape.classes, (rows_of_a_piece, 3), padding=(0, 1))
        self.head = nn.Linear(shape.classes, shape.classes)

    @classmethod
    def tiny(cls) -> HtsatEncoder:
        """The same architecture for 16 kHz and 2 s, a thousand times smaller, with random weights: for tests."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return cls(TINY)

    def log_mel(self, waveform_BS: Tensor) -> Tensor:
        """Mel power ``float32[B, F, M]`` in dB, at least -100, of centred frames with reflected ends."""
        spectrum_BKF = torch.stft(
            waveform_BS,
            self.shape.n_fft,
            self.shape.hop,
            window=self.window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        power_BFK = (spectrum_BKF.real.square() + spectrum_BKF.imag.square()).mT
        return 10.0 * torch.log10((power_BFK @ self.mel_KM).clamp(min=POWER_FLOOR))

    @torch.no_grad()
    def features(self, waveform_BS: Tensor, lengths_B: Tensor) -> Masked:
        """See :class:`AudioEncoder`: the spectrogram ``[B, T, G, M]``, zeros after its last frame."""
        log_mel_BFM = self.log_mel(self._clips(waveform_BS, lengths_B))
        frames = self.shape.side * self.shape.pieces
        padded_BFM = functional.pad(log_mel_BFM, (0, 0, 0, frames - self.shape.frames))
        mask_BT = torch.ones(len(waveform_BS), self.token_count, dtype=torch.bool, device=waveform_BS.device)
        return padded_BFM.view(len(padded_BFM), self.token_count, -1, self.shape.mel_bands), mask_BT

    def tokens(self, features_BTx: Tensor, mask_BT: Tensor, augment: Augment | None = None) -> Tensor:
        """See :class:`AudioEncoder`; ``augment`` gets the spectrogram after its BatchNorm, as in HTS-AT."""
        x = features_BTx.flatten(1, 2)[:, : self.shape.frames]
        x = self.swin.batch_norm(x.mT[..., None])[..., 0].mT
        if augment is not None:
            x = augment(x)
        x = self.swin.patch_embed(self._fold(x))
        for stage, resolution in zip(self.swin.layers, self.swin.input_resolutions, strict=True):
            x = stage(x, resolution)[0]
        tokens_BTD: Tensor = self._in_time(self.swin.norm(x))
        return tokens_BTD * mask_BT[..., None]

    def _clips(self, waveform_BS: Tensor, lengths_B: Tensor) -> Tensor:
        """Every row repeated or cut to one clip's length."""
        position_S = torch.arange(self.shape.clip_samples, device=waveform_BS.device)
        return waveform_BS.gather(1, position_S % lengths_B[:, None].to(position_S))

    def _fold(self, x: Tensor) -> Tensor:
        """``[B, F, M]`` resized in time and folded to an image ``[B, 1, side, side]``."""
        x = _bicubic(x[:, None], (self.shape.side * self.shape.pieces, self.shape.mel_bands))
        image: Tensor = self.swin.reshape_mel2img(x)  # type: ignore[no-untyped-call]
        return image

    def _in_time(self, map_BTD: Tensor) -> Tensor:
        side, pieces = self.shape.map_side, self.shape.pieces
        rows = map_BTD.view(len(map_BTD), pieces, side // pieces, side, -1)
        return rows.transpose(2, 3).flatten(1, 3)


def mel_filterbank(shape: HtsatShape) -> Tensor:
    """The mel filterbank ``float32[K, M]``: Slaney's triangular filters of equal area."""
    return mel_filterbank_slaney(shape.mel_rate, shape.n_fft, shape.mel_bands, shape.low_hz, shape.high_hz)


def _bicubic(x: Tensor, size: tuple[int, int]) -> Tensor:
    # Apple's MPS has no kernel for bicubic interpolation.
    device = x.device
    if device.type == "mps":
        x = x.cpu()
    return functional.interpolate(x, size, mode="bicubic", align_corners=True).to(device)


def _swin_config(shape: HtsatShape) -> ClapAudioConfig:
    from transformers import ClapAudioConfig

    return ClapAudioConfig(
        window_size=shape.window,
        num_mel_bins=shape.mel_bands,
        spec_size=shape.side,
        patch_size=shape.patch,
        patch_stride=[shape.patch, shape.patch],
        hidden_size=shape.dim,
        patch_embeds_hidden_size=shape.width,
        depths=list(shape.depths),
        num_attention_heads=list(shape.heads),
        num_hidden_layers=len(shape.depths),
        hidden_dropout_prob=0.0,
        drop_path_rate=shape.drop_path,
    )
