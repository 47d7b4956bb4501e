"""The architectures that onnxruntime can run, and what is known of a model before its graphs are built. Imports no
onnx."""

from __future__ import annotations

import json
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pengi.runtime.blocks import BLOCK

PREFILL_FILE, EXTEND_FILE, STEP_FILE, HEAD_FILE = "prefill.onnx", "extend.onnx", "step.onnx", "head.onnx"
FORMAT = 2
"""Part of the key that names a folder of graphs. Raise it whenever :mod:`pengi.runtime.graph` writes other graphs."""

Adapter = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Adapter of one linear layer: down float32[R, K], and up float32[N, R] with the scale alpha / rank in it."""


@dataclass(frozen=True)
class Architecture:
    """How the layers of a family of models compute, and the names of their tensors in Hugging Face layout."""

    layer: str
    """Path of a layer; the names in it follow."""
    qkv: tuple[str, ...]
    """The matrices of queries, keys and values, or the one matrix of all three."""
    out: str
    up: tuple[str, ...]
    """The first matrices of the feed-forward layer: gate (with SiLU) and up, or a single one (with GELU)."""
    down: str
    norms: tuple[str, str]
    """Before attention and before the feed-forward layer."""
    last_norm: str
    embeddings: str
    positions: str | None
    """The table of learned positions, which are added to the input embeddings; None for rotary embeddings."""
    biased: bool
    """Whether matrix products add a bias, and norms are LayerNorm with a bias; else norms are RMSNorm."""
    transposed: bool
    """Whether the layers' matrices are stored as [inputs, outputs]."""


LLAMA = Architecture(
    layer="model.layers.{}",
    qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    out="self_attn.o_proj",
    up=("mlp.gate_proj", "mlp.up_proj"),
    down="mlp.down_proj",
    norms=("input_layernorm", "post_attention_layernorm"),
    last_norm="model.norm",
    embeddings="model.embed_tokens",
    positions=None,
    biased=False,
    transposed=False,
)
GPT2 = Architecture(
    layer="transformer.h.{}",
    qkv=("attn.c_attn",),
    out="attn.c_proj",
    up=("mlp.c_fc",),
    down="mlp.c_proj",
    norms=("ln_1", "ln_2"),
    last_norm="transformer.ln_f",
    embeddings="transformer.wte",
    positions="transformer.wpe",
    biased=True,
    transposed=True,
)


@dataclass(frozen=True)
class Shape:
    """The values of a model's ``config.json`` that its graphs depend on."""

    architecture: Architecture
    layers: int
    width: int
    inner: int
    heads: int
    key_heads: int
    head_size: int
    vocabulary: int
    positions: int
    rope_theta: float
    norm_epsilon: float
    tied: bool
    end_id: int | list[int] | None

    @property
    def rotary(self) -> bool:
        """Whether queries and keys have rotary embeddings."""
        return self.architecture.positions is None

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the ``config.json`` of the folder of a supported model."""
        config = _config(folder)
        return cls._gpt2(config) if config["model_type"] == "gpt2" else cls._llama(config)

    @classmethod
    def _llama(cls, config: dict[str, Any]) -> Self:
        heads = config["num_attention_heads"]
        return cls(
            architecture=LLAMA,
            layers=config["num_hidden_layers"],
            width=config["hidden_size"],
            inner=config["intermediate_size"],
            heads=heads,
            key_heads=config.get("num_key_value_heads") or heads,
            head_size=config.get("head_dim") or config["hidden_size"] // heads,
            vocabulary=config["vocab_size"],
            positions=config.get("max_position_embeddings", 2048),
            rope_theta=(config.get("rope_parameters") or config).get("rope_theta", 10_000.0),
            norm_epsilon=config.get("rms_norm_eps", 1e-6),
            tied=config.get("tie_word_embeddings", False),
            end_id=config.get("eos_token_id"),
        )

    @classmethod
    def _gpt2(cls, config: dict[str, Any]) -> Self:
        width, heads = config["n_embd"], config["n_head"]
        return cls(
            architecture=GPT2,
            layers=config["n_layer"],
            width=width,
            inner=config.get("n_inner") or 4 * width,
            heads=heads,
            key_heads=heads,
            head_size=width // heads,
            vocabulary=config["vocab_size"],
            positions=config["n_positions"],
            rope_theta=0.0,
            norm_epsilon=config.get("layer_norm_epsilon", 1e-5),
            tied=config.get("tie_word_embeddings", True),
            end_id=config.get("eos_token_id"),
        )


def unsupported(folder: Path) -> str | None:
    """Why no graphs can be made of the model in a folder; None if they can."""
    config = _config(folder)
    family = config.get("model_type")
    if family not in ("llama", "gpt2"):
        return f"it is a '{family}', neither a Llama nor a GPT-2"
    reason = _unlike_llama(config) if family == "llama" else _unlike_gpt2(config)
    if reason is not None:
        return reason
    shape = Shape.read(folder)
    if shape.end_id is None or not (folder / "model.safetensors").is_file():
        return "it names no end token, or its weights are not one safetensors file"
    if shape.width % BLOCK or shape.inner % BLOCK or shape.heads * shape.head_size % BLOCK or shape.head_size % 16:
        return f"its widths are not multiples of {BLOCK}, or the size of its heads is not one of 16"
    return None


def _unlike_llama(config: dict[str, Any]) -> str | None:
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        return "its rotary embeddings are scaled"
    if config.get("hidden_act", "silu") != "silu" or config.get("attention_bias") or config.get("mlp_bias"):
        return "its layers have biases or another activation than SiLU"
    return None


def _unlike_gpt2(config: dict[str, Any]) -> str | None:
    if config.get("activation_function", "gelu_new") != "gelu_new":
        return "its layers have another activation than GELU by its tanh approximation"
    if not config.get("scale_attn_weights", True) or config.get("scale_attn_by_inverse_layer_idx"):
        return "its attention scores are scaled in another way than by the size of a head"
    return None


def linear_layers(shape: Shape) -> dict[str, tuple[int, int]]:
    """(outputs, inputs) of every linear layer that may have an adapter, by its name."""
    names = shape.architecture
    queries, keys = shape.heads * shape.head_size, shape.key_heads * shape.head_size
    outputs = [queries, keys, keys] if len(names.qkv) > 1 else [queries + 2 * keys]
    sizes = {name: (count, shape.width) for name, count in zip(names.qkv, outputs, strict=True)}
    sizes |= dict.fromkeys(names.up, (shape.inner, shape.width))
    sizes |= {names.out: (shape.width, queries), names.down: (shape.width, shape.inner)}
    layers = map(names.layer.format, range(shape.layers))
    return {f"{layer}.{name}": size for layer in layers for name, size in sizes.items()}


def stored_name(name: str, stored: Container[str]) -> str:
    """The name of a tensor in a file, which may hold a model without its head and so without the first part of the
    names."""
    return name if name in stored else name.partition(".")[2]


def _config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config
