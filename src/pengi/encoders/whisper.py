"""The frozen audio encoder of Whisper (Radford et al. 2022). Its tokens represent mainly what is said.

The original pads every clip to 30 s. Here only half a second of silence follows a clip. Later frames are set to zero
before the first convolution and masked in attention, so that a clip's tokens are the same alone and in a batch
with longer clips.

    a clip and a longer one   |<- clip ------->|<- silence ->| blanked |
    attention mask             1 1 1 1 1 1 1 1   1 1 1 1 1 1   0 0 0 0
    tokens are real            1 1 1 1 1 1 1 1   0 0 0 0 0 0   0 0 0 0

Shape suffixes: B clips, S samples, F log-mel frames, M mel bands, K frequency bins, P encoder positions (two frames
each), T audio tokens, D features, H heads, E features of a head.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from pengi.audio.logmel import mel_filterbank_slaney
from pengi.encoders.base import AudioEncoder, Augment, Masked

SAMPLE_RATE = 16_000  # Hz
N_FFT = 400  # samples: 25 ms
FRAME_HOP = 160  # samples: 10 ms
POSITION_HOP = 2 * FRAME_HOP  # samples: the second convolution halves the rate, 20 ms
POWER_FLOOR = 1e-10
DYNAMIC_RANGE = 8.0  # decades: 80 dB below the loudest point of a clip
SILENCE_AFTER = SAMPLE_RATE // 2  # samples of silence after a clip; in Whisper's training nearly every clip had some

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of one layer, ``float32[B, H, P, E]`` each."""


@dataclass(frozen=True)
class WhisperShape:
    """Sizes of the encoder; the defaults are those of ``tiny.en``."""

    mel_bands: int = 80
    width: int = 384
    layers: int = 4
    heads: int = 6
    hidden: int = 1536
    positions: int = 1500

    @classmethod
    def from_config(cls, file: Path) -> Self:
        """Read a ``WhisperConfig`` of the transformers library."""
        values = json.loads(file.read_text(encoding="utf-8"))
        return cls(
            mel_bands=values["num_mel_bins"],
            width=values["d_model"],
            layers=values["encoder_layers"],
            heads=values["encoder_attention_heads"],
            hidden=values["encoder_ffn_dim"],
            positions=values["max_source_positions"],
        )


class WhisperEncoder(AudioEncoder):
    """Each token is the mean of ``stride`` encoder positions of 20 ms; a clip may last 30 s at most.

    Nothing in it is trained: ``features`` computes the tokens, ``tokens`` returns them. Parameters are named as in the
    ``WhisperEncoder`` of the transformers library.

    Args:
        shape: sizes of the encoder.
        stride: number of positions of a token.
    """

    sample_rate = SAMPLE_RATE
    window: Tensor
    mel: Tensor

    def __init__(self, shape: WhisperShape = WhisperShape(), stride: int = 8) -> None:
        super().__init__()
        assert stride * POSITION_HOP <= SILENCE_AFTER, "a clip's last token would reach beyond its attention mask"
        self.dim = shape.width
        self.stride = stride
        self.token_s = stride * POSITION_HOP / SAMPLE_RATE
        self.max_samples = shape.positions * POSITION_HOP
        self.conv1 = nn.Conv1d(shape.mel_bands, shape.width, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(shape.width, shape.width, kernel_size=3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(shape.positions, shape.width)
        self.layers = nn.ModuleList(_Layer(shape) for _ in range(shape.layers))
        self.layer_norm = nn.LayerNorm(shape.width)
        mel_KM = mel_filterbank_slaney(SAMPLE_RATE, N_FFT, shape.mel_bands, 0.0, SAMPLE_RATE / 2)
        self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)
        self.register_buffer("mel", mel_KM.T.contiguous(), persistent=False)
        self.requires_grad_(False)

    @classmethod
    def from_folder(cls, folder: Path, stride: int = 8) -> Self:
        """Stock weights from a folder of :func:`pengi.weights.resolve`."""
        encoder = cls(WhisperShape.from_config(folder / "config.json"), stride)
        prefix = "model.encoder."
        stored = load_file(folder / "model.safetensors").items()
        tensors = {name.removeprefix(prefix): tensor for name, tensor in stored if name.startswith(prefix)}
        encoder.load_state_dict({name: tensors[name] for name in encoder.state_dict()})
        return encoder

    @classmethod
    def tiny(cls, stride: int = 8) -> Self:
        """The same architecture, a thousand times smaller, with random weights: for tests."""
        return cls(WhisperShape(mel_bands=16, width=16, layers=2, heads=2, hidden=32, positions=600), stride)

    def log_mel(self, waveform_BS: Tensor) -> Tensor:
        """``float32[B, M, S / 160]``: log10 of mel power, within 80 dB of a clip's maximum, scaled to about -1..1.5.

        S is a multiple of 160. Frames are centred; silence follows the last sample.
        """
        padded_BS = functional.pad(waveform_BS[:, None], (N_FFT // 2, 0), mode="reflect")[:, 0]
        padded_BS = functional.pad(padded_BS, (0, N_FFT // 2))
        spectrum_BKF = torch.stft(padded_BS, N_FFT, FRAME_HOP, window=self.window, center=False, return_complex=True)
        power_BKF = spectrum_BKF[..., : waveform_BS.shape[1] // FRAME_HOP].abs() ** 2
        decades_BMF = torch.log10((self.mel @ power_BKF).clamp(min=POWER_FLOOR))
        loudest_B11 = decades_BMF.amax(dim=(1, 2), keepdim=True)
        return (torch.maximum(decades_BMF, loudest_B11 - DYNAMIC_RANGE) + 4.0) / 4.0

    @torch.no_grad()
    def features(self, waveform_BS: Tensor, lengths_B: Tensor) -> Masked:
        """See :class:`AudioEncoder`: the finished tokens ``[B, T, D]``."""
        assert int(lengths_B.max()) <= self.max_samples, "Whisper encodes 30 s at most"
        counts_B = self._position_counts(lengths_B)
        samples = int(counts_B.max()) * POSITION_HOP
        waveform_BS = functional.pad(waveform_BS, (0, max(samples - waveform_BS.shape[1], 0)))[:, :samples]
        return self._pooled(self._encode(self.log_mel(waveform_BS), counts_B), lengths_B)

    @torch.no_grad()
    def positions(self, waveform_BS: Tensor) -> Tensor:
        """Encoder states for Whisper's decoder, ``float32[B, S / 320, D]``, one for each 20 ms; S is a multiple of 320.

        No position is masked, so the silence after the speech must be part of the waveform.
        """
        counts_B = torch.full((len(waveform_BS),), waveform_BS.shape[1] // POSITION_HOP, device=waveform_BS.device)
        return self._encode(self.log_mel(waveform_BS), counts_B)

    def _pooled(self, positions_BPD: Tensor, lengths_B: Tensor) -> Masked:
        """Tokens of encoder positions, and which of them are real."""
        token_samples = self.stride * POSITION_HOP
        counts_B = lengths_B.clamp(min=1).add(token_samples - 1) // token_samples
        # With ceil_mode a shorter last group is averaged over the positions that it has.
        tokens_BTD = functional.avg_pool1d(positions_BPD.transpose(1, 2), self.stride, ceil_mode=True).transpose(1, 2)
        mask_BT = torch.arange(int(counts_B.max()), device=positions_BPD.device) < counts_B[:, None]
        return tokens_BTD[:, : mask_BT.shape[1]] * mask_BT[..., None], mask_BT

    def tokens(self, features_BTx: Tensor, mask_BT: Tensor, augment: Augment | None = None) -> Tensor:
        """See :class:`AudioEncoder`; there is no trained part and no spectrogram left to augment."""
        return features_BTx * mask_BT[..., None]

    def _position_counts(self, lengths_B: Tensor) -> Tensor:
        """Positions of the clip and the silence after it, ``int64[B]``; a clip of 30 s leaves no room for silence."""
        samples_B = (lengths_B + SILENCE_AFTER).clamp(max=self.max_samples)
        return (samples_B + POSITION_HOP - 1) // POSITION_HOP

    def _encode(self, log_mel_BMF: Tensor, counts_B: Tensor) -> Tensor:
        """Encoder positions ``float32[B, P, D]`` after the last layer and its norm; those after the first ``counts_B``
        are masked."""
        mask_BP = torch.arange(log_mel_BMF.shape[2] // 2, device=log_mel_BMF.device) < counts_B[:, None]
        mask_B1F = mask_BP.repeat_interleave(2, dim=1)[:, None]
        x_BDF = functional.gelu(self.conv1(log_mel_BMF * mask_B1F))
        # Position p comes from frames 2p - 1 to 2p + 1, so the last unmasked one needs no masked frame.
        x_BDP = functional.gelu(self.conv2(x_BDF))
        x_BPD = x_BDP.transpose(1, 2) + self.embed_positions.weight[: mask_BP.shape[1]]
        attention_mask_B11P = None if bool(mask_BP.all()) else mask_BP[:, None, None]
        for layer in self.layers:
            x_BPD = layer(x_BPD, attention_mask_B11P)
        encoded_BPD: Tensor = self.layer_norm(x_BPD)
        return encoded_BPD


class _Layer(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, shape: WhisperShape) -> None:
        super().__init__()
        self.self_attn = Attention(shape.width, shape.heads)
        self.self_attn_layer_norm = nn.LayerNorm(shape.width)
        self.fc1 = nn.Linear(shape.width, shape.hidden)
        self.fc2 = nn.Linear(shape.hidden, shape.width)
        self.final_layer_norm = nn.LayerNorm(shape.width)

    def forward(self, x_BPD: Tensor, attention_mask_B11P: Tensor | None) -> Tensor:
        normed_BPD = self.self_attn_layer_norm(x_BPD)
        x_BPD = x_BPD + self.self_attn(normed_BPD, self.self_attn.keys_values(normed_BPD), attention_mask_B11P)
        out_BPD: Tensor = x_BPD + self.fc2(functional.gelu(self.fc1(self.final_layer_norm(x_BPD))))
        return out_BPD


class Attention(nn.Module):
    """Attention of Whisper's encoder and decoder; parameters are named as in the transformers library.

    Args:
        width: features of a position.
        heads: number of heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def keys_values(self, x_BPD: Tensor) -> KeysValues:
        """Keys and values of hidden states ``float32[B, P, D]``."""
        return self._split(self.k_proj(x_BPD)), self._split(self.v_proj(x_BPD))

    def forward(self, x_BPD: Tensor, keys_values: KeysValues, attention_mask: Tensor | None = None) -> Tensor:
        """Attend from ``x_BPD`` to keys and values: ``float32[B, P, D]``. ``attention_mask`` is True where attention is
        allowed."""
        queries_BHPE = self._split(self.q_proj(x_BPD))
        mixed = functional.scaled_dot_product_attention(queries_BHPE, *keys_values, attn_mask=attention_mask)
        out_BPD: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out_BPD

    def logits(self, x_BPD: Tensor, keys_values: KeysValues) -> Tensor:
        """Attention scores before the softmax over the Q positions of the keys: ``float32[B, heads, P, Q]``."""
        queries_BHPE, (keys_BHQE, _) = self._split(self.q_proj(x_BPD)), keys_values
        return queries_BHPE @ keys_BHQE.transpose(2, 3) / math.sqrt(queries_BHPE.shape[-1])

    def _split(self, x_BPD: Tensor) -> Tensor:
        return x_BPD.view(*x_BPD.shape[:2], self.heads, -1).transpose(1, 2)
