"""YAMNet (MobileNet v1 trained on AudioSet) in PyTorch, its log-mel front end included.

The constants (window, hop, bands, offset, patch, layers) are those of the original TensorFlow release. Batch
normalisation is folded into the convolutions, as in the ONNX file that the weights come from.

Shape suffixes: B clips, S samples, F frames, M mel bands, T patches (audio tokens), D features, N patches of all clips,
C channels, H height (time) and W width (frequency) of a feature map.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from pengi.audio.logmel import magnitude_spectrogram, mel_filterbank_htk
from pengi.encoders.base import AudioEncoder, Augment, Masked

SAMPLE_RATE = 16_000  # Hz
FRAME = 400  # samples: 25 ms
FRAME_HOP = 160  # samples: 10 ms
N_FFT = 512
MEL_BANDS = 64
MEL_LOW_HZ, MEL_HIGH_HZ = 125.0, 7500.0
LOG_OFFSET = 0.001
PATCH_FRAMES = 96  # 0.96 s
PATCH_HOP_FRAMES = 48  # 0.48 s
PATCH_SAMPLES = FRAME + (PATCH_FRAMES - 1) * FRAME_HOP
PATCH_HOP_SAMPLES = PATCH_HOP_FRAMES * FRAME_HOP
PATCHES_AT_ONCE = 24
"""Number of patches whose feature maps fit into the processor's cache. All patches of a batch at once would take three
times as long."""

# (output channels, stride) of the 13 depthwise-separable blocks after the first convolution.
BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip


def _convolutions(first_channels: int, blocks: tuple[tuple[int, int], ...]) -> nn.ModuleList:
    """The convolutions in the order in which they run: one full, then depthwise and pointwise in turn."""
    convolutions = [nn.Conv2d(1, first_channels, 3, stride=2)]
    channels = first_channels
    for width, stride in blocks:
        convolutions.append(nn.Conv2d(channels, channels, 3, stride=stride, groups=channels))
        convolutions.append(nn.Conv2d(channels, width, 1))
        channels = width
    return nn.ModuleList(convolutions)


def patch_counts(lengths_B: Tensor) -> Tensor:
    """Numbers of patches ``int64[B]`` of clips with these numbers of samples: one or more, enough for all samples."""
    extra = (lengths_B - PATCH_SAMPLES).clamp(min=0)
    return 1 + (extra + PATCH_HOP_SAMPLES - 1) // PATCH_HOP_SAMPLES


class YamnetEncoder(AudioEncoder):
    """One token of 1024 features per patch of 0.96 s, every 0.48 s; a shorter clip is zero-padded to one patch."""

    sample_rate = SAMPLE_RATE
    token_s = PATCH_HOP_SAMPLES / SAMPLE_RATE
    window: Tensor
    mel_KM: Tensor

    def __init__(
        self, frozen_convs: int = 0, first_channels: int = 32, blocks: tuple[tuple[int, int], ...] = BLOCKS
    ) -> None:
        """``frozen_convs``: number of first convolutions, which are never trained and belong to ``features``."""
        super().__init__()
        self.dim = blocks[-1][0]
        self.conv = _convolutions(first_channels, blocks)
        self.frozen_convs = frozen_convs
        for convolution in self.conv[:frozen_convs]:
            convolution.requires_grad_(False)
        self.register_buffer("window", torch.hann_window(FRAME, periodic=True), persistent=False)
        mel_KM = mel_filterbank_htk(SAMPLE_RATE, N_FFT, MEL_BANDS, MEL_LOW_HZ, MEL_HIGH_HZ)
        self.register_buffer("mel_KM", mel_KM, persistent=False)

    @classmethod
    def from_folder(cls, folder: Path, frozen_convs: int = 0) -> Self:
        """Stock AudioSet weights from a folder of :func:`pengi.weights.resolve`."""
        encoder = cls(frozen_convs)
        run = encoder.state_dict().keys()
        tensors = load_file(folder / "model.safetensors")
        encoder.load_state_dict({name: value for name, value in tensors.items() if name in run})
        return encoder

    @classmethod
    def tiny(cls, frozen_convs: int = 0) -> YamnetEncoder:
        """The same architecture, a thousand times smaller, with random weights, the same every time: for tests."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return cls(frozen_convs, first_channels=4, blocks=((8, 2), (16, 2), (16, 2)))

    def log_mel(self, waveform_BS: Tensor) -> Tensor:
        """``float32[B, F, M]``: natural logarithm of mel magnitudes plus 0.001, a frame every 10 ms."""
        magnitude_BFK = magnitude_spectrogram(waveform_BS, self.window, N_FFT, FRAME_HOP)
        return torch.log(magnitude_BFK @ self.mel_KM + LOG_OFFSET)

    @torch.no_grad()
    def features(self, waveform_BS: Tensor, lengths_B: Tensor) -> Masked:
        """See :class:`AudioEncoder`: log-mel patches ``[B, T, 96, 64]`` if no convolution is frozen, finished tokens
        ``[B, T, 1024]`` if all are, otherwise the maps after the frozen ones ``[B, T, C, H, W]``."""
        patches_BTFM, mask_BT = self._patches(waveform_BS, lengths_B)
        if not self.frozen_convs:
            return patches_BTFM, mask_BT
        maps_NCHW = self._convolve(patches_BTFM[mask_BT][:, None], self.conv[: self.frozen_convs])
        return _scatter(self._pooled(maps_NCHW) if self._all_frozen else maps_NCHW, mask_BT), mask_BT

    def _patches(self, waveform_BS: Tensor, lengths_B: Tensor) -> Masked:
        """Log-mel patches ``float32[B, T, 96, 64]``, and which of them are real."""
        counts_B = patch_counts(lengths_B)
        count = int(counts_B.max())
        samples = PATCH_SAMPLES + (count - 1) * PATCH_HOP_SAMPLES
        if waveform_BS.shape[1] < samples:
            waveform_BS = functional.pad(waveform_BS, (0, samples - waveform_BS.shape[1]))
        log_mel_BFM = self.log_mel(waveform_BS[:, :samples])
        patches_BTFM = log_mel_BFM.unfold(1, PATCH_FRAMES, PATCH_HOP_FRAMES).transpose(2, 3)
        return patches_BTFM, torch.arange(count, device=waveform_BS.device) < counts_B[:, None]

    def _pooled(self, maps_NCHW: Tensor) -> Tensor:
        """Tokens ``float32[N, D]`` of the last convolution's maps."""
        return maps_NCHW.mean(dim=(2, 3))

    def tokens(self, features_BTx: Tensor, mask_BT: Tensor, augment: Augment | None = None) -> Tensor:
        """See :class:`AudioEncoder`; ``augment`` applies where the features are log-mel patches."""
        if self._all_frozen:
            return features_BTx * mask_BT[..., None]
        x = features_BTx[mask_BT]
        if not self.frozen_convs:
            x = (augment(x) if augment is not None else x)[:, None]
        return _scatter(self._pooled(self._convolve(x, self.conv[self.frozen_convs :])), mask_BT)

    @property
    def _all_frozen(self) -> bool:
        return self.frozen_convs >= len(self.conv)

    @staticmethod
    def _convolve(x: Tensor, convolutions: nn.ModuleList) -> Tensor:
        # In parts of about the same size: torch has other kernels for a single patch, with other rounding.
        parts = x.tensor_split(max(-(-len(x) // PATCHES_AT_ONCE), 1))
        return torch.cat([_in_turn(part, convolutions) for part in parts])


def _in_turn(x: Tensor, convolutions: nn.ModuleList) -> Tensor:
    """Maps after convolutions. Each map keeps the memory format of its convolution's output, because another one would
    change the rounding of sums."""
    x = x.contiguous(memory_format=torch.channels_last)
    for convolution in convolutions:
        x = _convolved(x, convolution).relu_()
    return x


def _convolved(x: Tensor, convolution: nn.Module) -> Tensor:
    """A convolution with TensorFlow's "same" padding: the larger part of an odd padding is at the bottom and the
    right."""
    assert isinstance(convolution, nn.Conv2d)
    kernel, stride = convolution.kernel_size[0], convolution.stride[0]
    pads = [max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in x.shape[2:]]
    if any(pad % 2 for pad in pads):
        height, width = pads
        x = functional.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        pads = [0, 0]
    # Padding within the convolution saves a copy of the map.
    both_sides = [pad // 2 for pad in pads]
    return functional.conv2d(x, convolution.weight, convolution.bias, stride, both_sides, 1, convolution.groups)


def _scatter(values_Nx: Tensor, mask_BT: Tensor) -> Tensor:
    """Put the N values back where the mask is True; zeros elsewhere."""
    out_BTx = values_Nx.new_zeros(*mask_BT.shape, *values_Nx.shape[1:])
    out_BTx[mask_BT] = values_Nx
    return out_BTx


class YamnetTagger(nn.Module):
    """Stock YAMNet with its 521-class AudioSet head."""

    def __init__(self, encoder: YamnetEncoder, classes: tuple[str, ...]) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.dim, len(classes))
        self.classes = classes

    @classmethod
    def from_folder(cls, folder: Path, encoder: YamnetEncoder | None = None) -> YamnetTagger:
        """Load head, class names and, if none is given, the encoder from a folder of :func:`pengi.weights.resolve`."""
        classes = tuple(json.loads((folder / "classes.json").read_text(encoding="utf-8")))
        tagger = cls(encoder or YamnetEncoder.from_folder(folder), classes)
        tensors = load_file(folder / "model.safetensors")
        tagger.head.load_state_dict({"weight": tensors["head.weight"], "bias": tensors["head.bias"]})
        return tagger.eval().requires_grad_(False)

    def forward(self, waveform_BS: Tensor, lengths_B: Tensor) -> Masked:
        """Class logits of every patch, ``float32[B, T, 521]``, and the mask of real patches ``bool[B, T]``."""
        tokens_BTD, mask_BT = self.encoder(waveform_BS, lengths_B)
        return self.head(tokens_BTD), mask_BT
