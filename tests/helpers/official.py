"""Official-format checkpoints without the trained weights: rebuilt by the rule of ``../shared/official/README.md``.

``rule_state_dict`` gives the weights that the golden values were computed with, ``golden`` the values themselves. What
the architecture computes on its own (STFT kernels, shift masks, ...) is computed here from its definition.

Shape suffixes: K frequency bins, W samples of a window, N shifted windows, T tokens of a window.
"""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

from pengi.official import Architecture, import_official
from pengi.official.architectures import architecture

FOLDER = Path(__file__).resolve().parents[3] / "shared/official"
VARIANTS = ("base", "base_no_text_enc")

# A model of the same kind, a thousand times smaller, for 2 s at 16 kHz: ``htsat-tiny-random`` and what fits it.
TINY_GPT2 = {"vocab_size": 60, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
TINY_CLIP = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
TINY_PROJECTION = 24
TINY_PREFIX = 6
TINY_SECONDS = 2.0

Row = tuple[str, list[int], str, str]


def need_shared() -> Path:
    """The folder of golden values; a test that asks for it is skipped where it is not."""
    if not (FOLDER / "golden.npz").is_file():
        pytest.skip("the official model's golden values (../shared/official beside the repository) are not here")
    return FOLDER


def golden(variant: str) -> dict[str, Tensor]:
    """Golden arrays of a variant by their names without its prefix, and the inputs that both variants share."""
    arrays = np.load(need_shared() / "golden.npz")
    names = {name.removeprefix(f"{variant}/"): name for name in arrays.files}
    return {
        short: torch.from_numpy(arrays[name].astype(np.float32) if arrays[name].dtype == np.float16 else arrays[name])
        for short, name in names.items()
        if "/" not in short
    }


def listing(variant: str) -> list[Row]:
    """The rows ``(name, shape, dtype, how)`` of the official state dict, in its order."""
    rows = json.loads((need_shared() / f"state_dict_{variant}.json").read_text(encoding="utf-8"))
    return [(name, shape, dtype, how) for name, shape, dtype, how in rows]


def rule_state_dict(variant: str) -> dict[str, Tensor]:
    """The official-format state dict of a variant, ``"base"`` (1.3 GB) or ``"base_no_text_enc"``."""
    return state_dict_from(listing(variant))


def state_dict_from(rows: list[Row]) -> dict[str, Tensor]:
    """A state dict by the rule; ``rows`` as of :func:`listing`."""
    tensors: dict[str, Tensor] = {}
    for name, shape, dtype, how in rows:
        if how == "tied":
            tensors[name] = tensors[name.replace("lm_head.weight", "transformer.wte.weight")]
        else:
            values = filled(name, tuple(shape)) if how == "filled" else kept(name, tuple(shape))
            tensors[name] = torch.from_numpy(values)
        assert list(tensors[name].shape) == shape, name
        assert str(tensors[name].dtype) == f"torch.{dtype}", name
    return tensors


def write_pth(state_dict: dict[str, Tensor], path: Path, *, prefix: str = "") -> Path:
    """Save a state dict as the authors published theirs; ``prefix`` stands before every name, e.g. ``module.``."""
    torch.save({"model": {prefix + name: tensor for name, tensor in state_dict.items()}}, path)
    return path


def filled(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The rule for one entry."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    z = generator.standard_normal(size=shape or (1,), dtype=np.float32).reshape(shape)
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "running_var":
        return 1 + np.float32(0.1) * np.abs(z)
    if len(shape) <= 1:
        return 1 + np.float32(0.1) * z if leaf == "weight" else np.float32(0.02) * z
    return z * np.float32(_scale(name, shape))


def _scale(name: str, shape: tuple[int, ...]) -> float:
    if name.endswith("wte.weight"):
        return 0.08
    if name.endswith(("token_embedding.weight", "prefix_const")):
        return 0.3
    if name.endswith(("wpe.weight", "position_embedding.weight", "relative_position_bias_table")):
        return 0.1
    if ".gpt.transformer.h." in name:
        return float(1 / np.sqrt(shape[0]))
    return float(1 / np.sqrt(np.prod(shape[1:])))


def kept(name: str, shape: tuple[int, ...]) -> NDArray[np.float32] | NDArray[np.int64]:
    """What the architecture itself puts there, from its definition."""
    if name.endswith(("conv_real.weight", "conv_imag.weight")):
        return stft_kernel(shape[2], imaginary="imag" in name)
    if name.endswith("melW"):
        # Slaney's filterbank as librosa has it, for 32 kHz whatever the audio's rate.
        bank = mel_filter_bank(shape[0], shape[1], 50.0, 14_000.0, 32_000, norm="slaney", mel_scale="slaney")
        return np.asarray(bank, dtype=np.float32)
    if name.endswith("relative_position_index"):
        return relative_position_index(round(shape[0] ** 0.5))
    if name.endswith("attn_mask"):
        window = round(shape[1] ** 0.5)
        return shift_mask(round(shape[0] ** 0.5) * window, window)
    if name.endswith("num_batches_tracked"):
        return np.zeros((), dtype=np.int64)
    assert name.endswith("c_attn.bias"), name
    return np.zeros(shape, dtype=np.float32)


def stft_kernel(n_fft: int, *, imaginary: bool) -> NDArray[np.float32]:
    """One part of ``exp(-2 pi i k n / N)`` under a periodic Hann window, ``float32[K, 1, W]``."""
    n_W = np.arange(n_fft)
    k_K = np.arange(n_fft // 2 + 1)
    # k * n is reduced modulo N, so that the angles stay small and exact.
    angle_KW = -2 * np.pi * (np.outer(k_K, n_W) % n_fft) / n_fft
    hann_W = 0.5 - 0.5 * np.cos(2 * np.pi * n_W / n_fft)
    kernel_KW = (np.sin(angle_KW) if imaginary else np.cos(angle_KW)) * hann_W
    return np.asarray(kernel_KW[:, None], dtype=np.float32)


def relative_position_index(window: int) -> NDArray[np.int64]:
    """Row of the bias table for each pair of places in a window, ``int64[T, T]`` (Swin transformer)."""
    positions = np.stack(np.meshgrid(np.arange(window), np.arange(window), indexing="ij"), -1).reshape(-1, 2)
    offset = positions[:, None] - positions[None] + window - 1
    return np.asarray(offset[..., 0] * (2 * window - 1) + offset[..., 1], dtype=np.int64)


def shift_mask(side: int, window: int) -> NDArray[np.float32]:
    """-100 between places that only the cyclic shift by half a window made neighbours, ``float32[N, T, T]``."""
    band = np.zeros(side, dtype=np.int64)
    band[-window:] = 1
    band[-(window // 2) :] = 2
    region = band[:, None] * 3 + band[None]
    windows = region.reshape(side // window, window, side // window, window).transpose(0, 2, 1, 3)
    flat_NT = windows.reshape(-1, window * window)
    return np.where(flat_NT[:, :, None] != flat_NT[:, None], np.float32(-100), np.float32(0))


@functools.cache
def imported(variant: str) -> Path:
    """The folder that the importer makes of a variant's rule-made checkpoint (0.9 or 1.3 GB), once in a process."""
    folder = Path(tempfile.mkdtemp(prefix="pengi-official-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    published = write_pth(rule_state_dict(variant), folder / "published.pth", prefix="module.")
    import_official(published, folder / variant, tokenizers=write_tokenizers(folder / "tokenizers"))
    published.unlink()
    return folder / variant


def tiny_architectures() -> dict[str, Architecture]:
    """The paper's two models in tiny, as the importer chooses from."""
    ends = {"eos_token_id": TINY_GPT2["vocab_size"] - 1, "bos_token_id": TINY_GPT2["vocab_size"] - 1}
    size = TINY_CLIP["vocab_size"]
    clip = {**TINY_CLIP, "num_attention_heads": 2, "projection_dim": 16}
    clip |= {"bos_token_id": size - 2, "eos_token_id": size - 1, "pad_token_id": size - 1}
    sizes = {"projection": TINY_PROJECTION, "prefix_tokens": TINY_PREFIX, "window_s": TINY_SECONDS}
    return {
        name: architecture(f"tiny-{name}", "htsat-tiny-random", {**TINY_GPT2, **ends}, text_encoder, **sizes)
        for name, text_encoder in (("base", clip), ("base-no-text-enc", None))
    }


def tiny_state_dict(variant: str = "base") -> dict[str, Tensor]:
    """An official-format state dict of the tiny model, by the same rule."""
    return state_dict_from(list(_tiny_listing(variant)))


def write_tiny_tokenizers(folder: Path) -> Path:
    """Stand-in tokenizers of the tiny model."""
    return write_tokenizers(folder, gpt2=TINY_GPT2["vocab_size"], clip=TINY_CLIP["vocab_size"])


def _tiny_listing(variant: str) -> Iterator[Row]:
    clip = variant == "base"
    entries = [*_tiny_htsat(), *_projection("audio_encoder.projection", 32, TINY_PROJECTION)]
    if clip:
        entries += _tiny_clip()
        entries += [("caption_encoder.clip_text_projection.weight", [16, 16])]
        entries += _projection("caption_encoder.projection", 16, TINY_PROJECTION)
    entries += _tiny_gpt2()
    entries += _tiny_mapper("caption_decoder.audio_project")
    entries += _tiny_mapper("caption_decoder.text_project")  # with its linear layer in both forms, as published
    for name, shape in entries:
        made = name.endswith(("relative_position_index", "attn_mask", "melW", "tracked", "c_attn.bias"))
        how = "tied" if "lm_head" in name else "kept" if made or "stft" in name else "filled"
        yield name, shape, "int64" if name.endswith(("_index", "tracked")) else "float32", how


Entries = list[tuple[str, list[int]]]


def _tiny_htsat() -> Entries:
    entries: Entries = [
        ("spectrogram_extractor.stft.conv_real.weight", [129, 1, 256]),
        ("spectrogram_extractor.stft.conv_imag.weight", [129, 1, 256]),
        ("logmel_extractor.melW", [129, 16]),
        *((f"bn0.{leaf}", [16]) for leaf in ("weight", "bias", "running_mean", "running_var")),
        ("bn0.num_batches_tracked", []),
        ("patch_embed.proj.weight", [8, 1, 4, 4]),
        ("patch_embed.proj.bias", [8]),
        *_norm("patch_embed.norm", 8),
    ]
    for stage, (side, width, heads) in enumerate(((16, 8, 1), (8, 16, 2), (4, 32, 4))):
        for block in range(2):
            entries += _tiny_swin_block(f"layers.{stage}.blocks.{block}", side if block else 0, width, heads)
        if stage < 2:
            entries += _norm(f"layers.{stage}.downsample.norm", 4 * width)
            entries += [(f"layers.{stage}.downsample.reduction.weight", [2 * width, 4 * width])]
    entries += [*_norm("norm", 32), ("tscam_conv.weight", [5, 32, 1, 3]), ("tscam_conv.bias", [5])]
    entries += _linear("head", 5, 5)
    return [(f"audio_encoder.base.htsat.{name}", shape) for name, shape in entries]


def _tiny_swin_block(name: str, shifted_side: int, width: int, heads: int) -> Entries:
    masked = shifted_side > 4  # a map of one window is not shifted
    return [
        *([(f"{name}.attn_mask", [(shifted_side // 4) ** 2, 16, 16])] if masked else []),
        *_norm(f"{name}.norm1", width),
        (f"{name}.attn.relative_position_bias_table", [49, heads]),
        (f"{name}.attn.relative_position_index", [16, 16]),
        *_linear(f"{name}.attn.qkv", width, 3 * width),
        *_linear(f"{name}.attn.proj", width, width),
        *_norm(f"{name}.norm2", width),
        *_linear(f"{name}.mlp.fc1", width, 4 * width),
        *_linear(f"{name}.mlp.fc2", 4 * width, width),
    ]


def _tiny_clip() -> Entries:
    entries: Entries = [
        ("embeddings.token_embedding.weight", [50, 16]),
        ("embeddings.position_embedding.weight", [77, 16]),
        *_norm("final_layer_norm", 16),
    ]
    for layer in range(2):
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            entries += _linear(f"encoder.layers.{layer}.self_attn.{part}", 16, 16)
        entries += _norm(f"encoder.layers.{layer}.layer_norm1", 16) + _norm(f"encoder.layers.{layer}.layer_norm2", 16)
        entries += _linear(f"encoder.layers.{layer}.mlp.fc1", 16, 32)
        entries += _linear(f"encoder.layers.{layer}.mlp.fc2", 32, 16)
    return [(f"caption_encoder.base.{name}", shape) for name, shape in entries]


def _tiny_gpt2() -> Entries:
    entries: Entries = [("transformer.wte.weight", [60, 32]), ("transformer.wpe.weight", [128, 32])]
    for layer in range(2):
        h = f"transformer.h.{layer}"
        entries += _norm(f"{h}.ln_1", 32) + _norm(f"{h}.ln_2", 32)
        for part, rows, columns in (
            ("attn.c_attn", 32, 96),
            ("attn.c_proj", 32, 32),
            ("mlp.c_fc", 32, 128),
            ("mlp.c_proj", 128, 32),
        ):
            entries += [(f"{h}.{part}.weight", [rows, columns]), (f"{h}.{part}.bias", [columns])]
    entries += [*_norm("transformer.ln_f", 32), ("lm_head.weight", [60, 32])]
    return [(f"caption_decoder.gpt.{name}", shape) for name, shape in entries]


def _tiny_mapper(name: str) -> Entries:
    entries: Entries = [(f"{name}.prefix_const", [TINY_PREFIX, 32])]
    for layer in range(4):
        block = f"{name}.transformer.layers.{layer}"
        entries += [*_norm(f"{block}.norm1", 32), *_norm(f"{block}.norm2", 32)]
        entries += [(f"{block}.attn.to_queries.weight", [32, 32]), (f"{block}.attn.to_keys_values.weight", [64, 32])]
        entries += _linear(f"{block}.attn.project", 32, 32)
        entries += [*_linear(f"{block}.mlp.fc1", 32, 64), *_linear(f"{block}.mlp.fc2", 64, 32)]
    return entries + _linear(f"{name}.linear", TINY_PROJECTION, TINY_PREFIX * 32)


def _projection(name: str, rows: int, columns: int) -> Entries:
    weights: Entries = [(f"{name}.linear1.weight", [columns, rows]), (f"{name}.linear2.weight", [columns, columns])]
    return weights + _norm(f"{name}.layer_norm", columns)


def _linear(name: str, rows: int, columns: int) -> Entries:
    return [(f"{name}.weight", [columns, rows]), (f"{name}.bias", [columns])]


def _norm(name: str, width: int) -> Entries:
    return [(f"{name}.weight", [width]), (f"{name}.bias", [width])]


def write_tokenizers(folder: Path, *, gpt2: int = 50_257, clip: int = 49_408) -> Path:
    """Stand-ins for the tokenizers of GPT-2 and CLIP with as many tokens: ``t7`` is token 7, the ends are the last."""
    for name, size, ends in (
        ("gpt2", gpt2, ["<|endoftext|>"]),
        ("clip-vit-base-patch16", clip, ["<|startoftext|>", "<|endoftext|>"]),
    ):
        words = [f"t{index}" for index in range(size - len(ends))]
        vocabulary = {word: index for index, word in enumerate([*words, *ends])}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="t0"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer.add_special_tokens(ends)
        if len(ends) == 2:
            pairs = [(end, vocabulary[end]) for end in ends]
            tokenizer.post_processor = processors.TemplateProcessing(
                single=f"{ends[0]} $A {ends[1]}", special_tokens=pairs
            )
        (folder / name).mkdir(parents=True, exist_ok=True)
        tokenizer.save(str(folder / name / "tokenizer.json"))
    return folder


def text_of(ids: Tensor) -> str:
    """What a stand-in tokenizer reads as these ids."""
    return " ".join(f"t{index}" for index in ids.tolist())
