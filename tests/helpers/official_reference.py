"""The official Pengi computed straight from the names in its state dict, for tests: plain, slow, and no code of pengi.

Windowed attention is computed over the whole map: two places see each other if they lie in one (shifted) window and the
shift did not bring them there from opposite edges.

Shape suffixes: B rows, S samples, F frames, M mel bands, T tokens, D features, H heads.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

StateDict = dict[str, Tensor]
HTSAT = "audio_encoder.base.htsat."


def log_mel(w: StateDict, waveform_BS: Tensor, hop: int) -> Tensor:
    """``float[B, F, M]`` in dB."""
    real, imaginary = (w[f"{HTSAT}spectrogram_extractor.stft.conv_{part}.weight"][:, 0] for part in ("real", "imag"))
    n_fft = real.shape[1]
    padded_BS = functional.pad(waveform_BS[:, None], (n_fft // 2, n_fft // 2), mode="reflect")[:, 0]
    frames = padded_BS.unfold(1, n_fft, hop)
    power = (frames @ real.T) ** 2 + (frames @ imaginary.T) ** 2
    return 10 * torch.log10((power @ w[f"{HTSAT}logmel_extractor.melW"]).clamp(min=1e-10))


def audio_map(w: StateDict, waveform_BS: Tensor, *, hop: int, side: int, heads: tuple[int, ...], window: int) -> Tensor:
    """The final map of HTS-AT ``float[B, rows, columns, D]``."""
    x = log_mel(w, waveform_BS, hop)
    mean, variance = w[f"{HTSAT}bn0.running_mean"], w[f"{HTSAT}bn0.running_var"]
    x = (x - mean) / (variance + 1e-5).sqrt() * w[f"{HTSAT}bn0.weight"] + w[f"{HTSAT}bn0.bias"]
    bands = x.shape[2]
    x = functional.interpolate(x[:, None], (side * side // bands, bands), mode="bicubic", align_corners=True)[:, 0]
    image = torch.cat([piece.transpose(1, 2) for piece in x.split(side, dim=1)], dim=1)
    patch = f"{HTSAT}patch_embed"
    x = functional.conv2d(image[:, None], w[f"{patch}.proj.weight"], w[f"{patch}.proj.bias"], stride=4)
    x = _norm(w, f"{patch}.norm", x.permute(0, 2, 3, 1))
    for stage, count in enumerate(heads):
        block = 0
        while f"{HTSAT}layers.{stage}.blocks.{block}.norm1.weight" in w:
            shift = window // 2 if block % 2 and x.shape[1] > window else 0
            x = _swin_block(w, f"{HTSAT}layers.{stage}.blocks.{block}", x, count, window, shift)
            block += 1
        if stage < len(heads) - 1:
            x = torch.cat([x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)], dim=-1)
            x = _norm(w, f"{HTSAT}layers.{stage}.downsample.norm", x)
            x = x @ w[f"{HTSAT}layers.{stage}.downsample.reduction.weight"].T
    return _norm(w, f"{HTSAT}norm", x)


def _swin_block(w: StateDict, name: str, x: Tensor, heads: int, window: int, shift: int) -> Tensor:
    rows, side, _, width = x.shape
    qkv = _linear(w, f"{name}.attn.qkv", _norm(w, f"{name}.norm1", x)).reshape(rows, side * side, 3, heads, -1)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    scores = q @ k.transpose(-1, -2) / math.sqrt(width // heads) + _window_bias(w, name, side, window, shift)
    mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape)
    x = x + _linear(w, f"{name}.attn.proj", mixed)
    hidden = functional.gelu(_linear(w, f"{name}.mlp.fc1", _norm(w, f"{name}.norm2", x)))
    return x + _linear(w, f"{name}.mlp.fc2", hidden)


def _window_bias(w: StateDict, name: str, side: int, window: int, shift: int) -> Tensor:
    """Position bias ``float[H, T, T]`` over the whole map, minus infinity where two places do not see each other."""
    position = (torch.arange(side) - shift) % side
    wrapped = position >= side - shift
    row, column = (grid.flatten() for grid in torch.meshgrid(position, position, indexing="ij"))
    row_wrapped, column_wrapped = (grid.flatten() for grid in torch.meshgrid(wrapped, wrapped, indexing="ij"))
    group = torch.stack([row // window, column // window, row_wrapped, column_wrapped], -1)
    together = (group[:, None] == group[None]).all(-1)
    down, right = row[:, None] - row[None], column[:, None] - column[None]
    index = (down + window - 1) * (2 * window - 1) + right + window - 1
    table = w[f"{name}.attn.relative_position_bias_table"]
    bias = table[index.where(together, torch.zeros_like(index))].permute(2, 0, 1)
    return bias.masked_fill(~together, -torch.inf)


def project(w: StateDict, name: str, x: Tensor) -> Tensor:
    """The projection in front of its normalisation."""
    straight = x @ w[f"{name}.linear1.weight"].T
    return _norm(w, f"{name}.layer_norm", straight + functional.gelu(straight) @ w[f"{name}.linear2.weight"].T)


def clip_pooled(w: StateDict, ids: list[int], heads: int) -> Tensor:
    """CLIP's text tower: its output ``float[1, D]`` at the last of ``ids``, the end token."""
    name = "caption_encoder.base"
    x = (
        w[f"{name}.embeddings.token_embedding.weight"][ids]
        + w[f"{name}.embeddings.position_embedding.weight"][: len(ids)]
    )
    x, layer = x[None], 0
    while f"{name}.encoder.layers.{layer}.layer_norm1.weight" in w:
        at = f"{name}.encoder.layers.{layer}"
        normed = _norm(w, f"{at}.layer_norm1", x)
        q, k, v = (_linear(w, f"{at}.self_attn.{part}_proj", normed) for part in "qkv")
        x = x + _linear(w, f"{at}.self_attn.out_proj", _attend(q, k, v, heads, causal=True))
        hidden = _linear(w, f"{at}.mlp.fc1", _norm(w, f"{at}.layer_norm2", x))
        x = x + _linear(w, f"{at}.mlp.fc2", hidden * torch.sigmoid(1.702 * hidden))
        layer += 1
    return _norm(w, f"{name}.final_layer_norm", x)[:, -1]


def mapped(w: StateDict, name: str, x: Tensor, heads: int = 8) -> Tensor:
    """A mapping network: of vectors ``float[B, I]`` through its linear layer, of tokens ``float[B, T, D]`` without."""
    constants = w[f"{name}.prefix_const"]
    if x.dim() == 2:
        x = _linear(w, f"{name}.linear", x).reshape(len(x), *constants.shape)
    x = torch.cat([x, constants.expand(len(x), -1, -1)], 1)
    layer = 0
    while f"{name}.transformer.layers.{layer}.norm1.weight" in w:
        at = f"{name}.transformer.layers.{layer}"
        normed = _norm(w, f"{at}.norm1", x)
        k, v = (normed @ w[f"{at}.attn.to_keys_values.weight"].T).chunk(2, -1)
        q = normed @ w[f"{at}.attn.to_queries.weight"].T
        x = x + _linear(w, f"{at}.attn.project", _attend(q, k, v, heads, causal=False))
        x = x + _linear(w, f"{at}.mlp.fc2", _linear(w, f"{at}.mlp.fc1", _norm(w, f"{at}.norm2", x)).relu())
        layer += 1
    return x[:, -len(constants) :]


def token_embeddings(w: StateDict, ids: list[int]) -> Tensor:
    """GPT-2's input embeddings ``float[T, D]``."""
    return w["caption_decoder.gpt.transformer.wte.weight"][ids]


def logits(w: StateDict, embeddings_BTD: Tensor, heads: int) -> Tensor:
    """GPT-2's logits behind every place."""
    name = "caption_decoder.gpt.transformer"
    x = embeddings_BTD + w[f"{name}.wpe.weight"][: embeddings_BTD.shape[1]]
    layer = 0
    while f"{name}.h.{layer}.ln_1.weight" in w:
        at = f"{name}.h.{layer}"
        q, k, v = _conv1d(w, f"{at}.attn.c_attn", _norm(w, f"{at}.ln_1", x)).chunk(3, -1)
        x = x + _conv1d(w, f"{at}.attn.c_proj", _attend(q, k, v, heads, causal=True))
        hidden = functional.gelu(_conv1d(w, f"{at}.mlp.c_fc", _norm(w, f"{at}.ln_2", x)), approximate="tanh")
        x = x + _conv1d(w, f"{at}.mlp.c_proj", hidden)
        layer += 1
    return _norm(w, f"{name}.ln_f", x) @ w["caption_decoder.gpt.lm_head.weight"].T


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int, *, causal: bool) -> Tensor:
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -torch.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def _linear(w: StateDict, name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def _conv1d(w: StateDict, name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"] + w[f"{name}.bias"]


def _norm(w: StateDict, name: str, x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)
