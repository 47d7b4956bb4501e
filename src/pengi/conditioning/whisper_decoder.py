"""Whisper's text decoder (Radford et al. 2022) as a :class:`pengi.decoding.StepModel`; the encoder's states are its
prefix.

It is plain torch, because importing the model of ``transformers`` takes longer than transcribing a short recording.
Parameters have the names of its ``WhisperDecoder``.

Shape suffixes: B chunks, T tokens of one call, K tokens read so far, P encoder positions of 20 ms, D width,
V vocabulary, N rows, M hidden states.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from pengi.encoders.whisper import Attention, KeysValues

ALIGNMENT_HEADS = ((1, 0), (2, 0), (2, 5), (3, 0), (3, 1), (3, 2), (3, 3), (3, 4))
"""Layer and index of the heads of tiny.en whose attention follows the time of the words, as chosen by Whisper's
authors."""


@dataclass(frozen=True)
class DecoderShape:
    """Sizes of a decoder."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    hidden: int
    positions: int

    @classmethod
    def from_config(cls, file: Path) -> Self:
        """Read a ``WhisperConfig`` of the transformers library."""
        values = json.loads(file.read_text(encoding="utf-8"))
        return cls(
            vocabulary=values["vocab_size"],
            width=values["d_model"],
            layers=values["decoder_layers"],
            heads=values["decoder_attention_heads"],
            hidden=values["decoder_ffn_dim"],
            positions=values["max_target_positions"],
        )


@dataclass(frozen=True)
class WhisperState:
    """Keys and values that a decoder has computed so far, layer by layer."""

    read: tuple[KeysValues, ...]
    """Keys and values of its tokens; empty before the first."""
    audio: tuple[KeysValues, ...]
    """Keys and values of the encoder's states."""

    @property
    def count(self) -> int:
        """Number of tokens that were read."""
        return self.read[0][0].shape[2] if self.read else 0


def _embedding(number: int, width: int) -> nn.Embedding:
    """Embeddings whose weights are loaded later.

    Initialising weights on the device "meta" would make torch import its compiler, which takes 1.6 s.
    """
    return nn.Embedding(number, width, _weight=torch.empty(number, width))


class WhisperDecoder(nn.Module):
    """The decoder and its tokenizer.

    Args:
        shape: its sizes.
        tokenizer: its tokenizer.
        suppressed: tokens that are never written.
        suppressed_first: further tokens that are not written at the beginning.
        alignment_heads: see :data:`ALIGNMENT_HEADS`.
    """

    def __init__(
        self,
        shape: DecoderShape,
        tokenizer: Tokenizer,
        suppressed: Sequence[int] = (),
        suppressed_first: Sequence[int] = (),
        alignment_heads: Sequence[tuple[int, int]] = ALIGNMENT_HEADS,
    ) -> None:
        super().__init__()
        self.embed_tokens = _embedding(shape.vocabulary, shape.width)
        self.embed_positions = _embedding(shape.positions, shape.width)
        self.layers = nn.ModuleList(_Layer(shape) for _ in range(shape.layers))
        self.layer_norm = nn.LayerNorm(shape.width)
        self.tokenizer = tokenizer
        self._suppressed = list(suppressed)
        self._suppressed_first = list(suppressed_first)
        self._alignment_heads = tuple(alignment_heads)
        self._prompt = [self._id("<|startoftranscript|>"), self._id("<|notimestamps|>")]
        self.requires_grad_(False)

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Stock weights from a folder of :func:`pengi.weights.resolve`."""
        generation = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
        with torch.device("meta"):
            decoder = cls(
                DecoderShape.from_config(folder / "config.json"),
                Tokenizer.from_file(str(folder / "tokenizer.json")),
                generation["suppress_tokens"],
                generation["begin_suppress_tokens"],
            )
        prefix = "model.decoder."
        stored = load_file(folder / "model.safetensors").items()
        tensors = {name.removeprefix(prefix): tensor for name, tensor in stored if name.startswith(prefix)}
        decoder.load_state_dict(tensors, assign=True)
        return decoder.requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.embed_tokens.weight.device

    @property
    def end_id(self) -> int:
        """The token that ends a text."""
        return self._id("<|endoftext|>")

    def _id(self, token: str) -> int:
        number: int | None = self.tokenizer.token_to_id(token)
        assert number is not None, f"Whisper's tokenizer has no {token}"
        return number

    def prefill(self, audio_BPD: Tensor, mask_BP: Tensor) -> tuple[Tensor, WhisperState]:
        """Read the encoder's states and the start of a transcript: logits float32[B, V] of the next token, and a state.

        ``mask_BP`` must be True everywhere: the decoder reads all positions.
        """
        assert bool(mask_BP.all()), "chunks of one batch have the same number of positions"
        ids_BT = torch.tensor([self._prompt] * len(audio_BPD), device=audio_BPD.device)
        audio = tuple(layer.encoder_attn.keys_values(audio_BPD) for layer in self._layers)
        hidden_BTD, state = self.advance(ids_BT, WhisperState((), audio))
        logits_BV = self.logits(hidden_BTD[:, -1])
        logits_BV[:, self._suppressed_first] = -torch.inf
        return logits_BV, state

    def step(self, ids_NT: Tensor, state: WhisperState) -> tuple[Tensor, WhisperState]:
        """Read further tokens int64[N, T]: logits float32[N, T, V] after each, and the state that follows."""
        hidden_NTD, state = self.advance(ids_NT, state)
        return self.logits(hidden_NTD), state

    def advance(self, ids_NT: Tensor, state: WhisperState) -> tuple[Tensor, WhisperState]:
        """As :meth:`step`, but returns hidden states float32[N, T, D] instead of logits."""
        count, tokens = state.count, ids_NT.shape[1]
        hidden_NTD = self.embed_tokens(ids_NT) + self.embed_positions.weight[count : count + tokens]
        attention_mask_TK = None
        if tokens > 1:
            attention_mask_TK = torch.ones(tokens, count + tokens, dtype=torch.bool, device=ids_NT.device).tril(count)
        read = []
        for index, (layer, audio) in enumerate(zip(self._layers, state.audio, strict=True)):
            hidden_NTD, keys_values = layer(
                hidden_NTD, state.read[index] if state.read else None, audio, attention_mask_TK
            )
            read.append(keys_values)
        hidden_NTD = self.layer_norm(hidden_NTD)
        return hidden_NTD, WhisperState(tuple(read), state.audio)

    def logits(self, hidden_MD: Tensor) -> Tensor:
        """Logits float32[..., V] of hidden states; minus infinity for suppressed tokens."""
        logits_MV = functional.linear(hidden_MD, self.embed_tokens.weight).float()
        logits_MV[..., self._suppressed] = -torch.inf
        return logits_MV

    def attention(self, audio_1PD: Tensor, ids: Sequence[int]) -> Tensor:
        """Logits ``float32[H, T + 1, P]`` of the cross-attention in ``alignment_heads`` while a text is written.

        Args:
            audio_1PD: the encoder's states.
            ids: T tokens of the text. Each has one row of the result; the last row belongs to the end of the text.
        """
        tokens = torch.tensor([[*self._prompt, *ids]], device=audio_1PD.device)
        hidden_1TD = self.embed_tokens(tokens) + self.embed_positions.weight[: tokens.shape[1]]
        attention_mask_TT = torch.ones(
            tokens.shape[1], tokens.shape[1], dtype=torch.bool, device=audio_1PD.device
        ).tril()
        rows = []
        for index, layer in enumerate(self._layers):
            audio = layer.encoder_attn.keys_values(audio_1PD)
            hidden_1TD, _ = layer.read_tokens(hidden_1TD, None, attention_mask_TT)
            logits_1HTP = layer.encoder_attn.logits(layer.encoder_attn_layer_norm(hidden_1TD), audio)
            rows += [logits_1HTP[0, head] for at, head in self._alignment_heads if at == index]
            hidden_1TD = layer.read_audio(hidden_1TD, audio)
        # A position reads one token and writes the next.
        return torch.stack(rows)[:, len(self._prompt) - 1 :]

    def select(self, state: WhisperState, index_N: Tensor) -> WhisperState:
        """The state of the given rows, which may repeat."""

        def rows(layers: tuple[KeysValues, ...]) -> tuple[KeysValues, ...]:
            return tuple((keys[index_N], values[index_N]) for keys, values in layers)

        return WhisperState(rows(state.read), rows(state.audio))

    @property
    def _layers(self) -> list[_Layer]:
        return [layer for layer in self.layers if isinstance(layer, _Layer)]


class _Layer(nn.Module):
    """A pre-norm transformer layer that reads its own tokens and the encoder's states."""

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.self_attn = Attention(shape.width, shape.heads)
        self.self_attn_layer_norm = nn.LayerNorm(shape.width)
        self.encoder_attn = Attention(shape.width, shape.heads)
        self.encoder_attn_layer_norm = nn.LayerNorm(shape.width)
        self.fc1 = nn.Linear(shape.width, shape.hidden)
        self.fc2 = nn.Linear(shape.hidden, shape.width)
        self.final_layer_norm = nn.LayerNorm(shape.width)

    def forward(
        self, x_NTD: Tensor, read: KeysValues | None, audio: KeysValues, attention_mask_TK: Tensor | None
    ) -> tuple[Tensor, KeysValues]:
        """Hidden states, and keys and values of all tokens so far."""
        x_NTD, read = self.read_tokens(x_NTD, read, attention_mask_TK)
        return self.read_audio(x_NTD, audio), read

    def read_tokens(
        self, x_NTD: Tensor, read: KeysValues | None, attention_mask_TK: Tensor | None
    ) -> tuple[Tensor, KeysValues]:
        """The first half of the layer: hidden states, and keys and values of all tokens so far."""
        normed_NTD = self.self_attn_layer_norm(x_NTD)
        new = self.self_attn.keys_values(normed_NTD)
        read = new if read is None else (torch.cat([read[0], new[0]], 2), torch.cat([read[1], new[1]], 2))
        return x_NTD + self.self_attn(normed_NTD, read, attention_mask_TK), read

    def read_audio(self, x_NTD: Tensor, audio: KeysValues) -> Tensor:
        """The second half of the layer: attention to the encoder's states, and the feed-forward part."""
        x_NTD = x_NTD + self.encoder_attn(self.encoder_attn_layer_norm(x_NTD), audio)
        out_NTD: Tensor = x_NTD + self.fc2(functional.gelu(self.fc1(self.final_layer_norm(x_NTD))))
        return out_NTD
