"""Which models onnxruntime can run, and the sizes that are known before their graphs are built. Imports no onnx."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pengi.runtime.blocks import BLOCK

PREFILL_FILE, EXTEND_FILE, STEP_FILE, HEAD_FILE = "prefill.onnx", "extend.onnx", "step.onnx", "head.onnx"
FORMAT = 1
"""Part of the key that names a folder of graphs. Raise it whenever :mod:`pengi.runtime.graph` writes other graphs."""

Adapter = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Adapter of one linear layer: down float32[R, K], and up float32[N, R] with the scale alpha / rank in it."""


@dataclass(frozen=True)
class LlamaShape:
    """The values of a Llama's ``config.json`` that its graphs depend on."""

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

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the ``config.json`` of a Llama's folder."""
        config = _config(folder)
        heads = config["num_attention_heads"]
        return cls(
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


def unsupported(folder: Path) -> str | None:
    """Why no graphs can be made of the model in a folder; None if they can."""
    config = _config(folder)
    if config.get("model_type") != "llama":
        return f"it is a '{config.get('model_type')}', not a Llama"
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        return "its rotary embeddings are scaled"
    if config.get("hidden_act", "silu") != "silu" or config.get("attention_bias") or config.get("mlp_bias"):
        return "its layers have biases or another activation than SiLU"
    shape = LlamaShape.read(folder)
    if shape.end_id is None or not (folder / "model.safetensors").is_file():
        return "it names no end token, or its weights are not one safetensors file"
    if shape.width % BLOCK or shape.inner % BLOCK or shape.heads * shape.head_size % BLOCK or shape.head_size % 16:
        return f"its widths are not multiples of {BLOCK}"
    return None


def linear_layers(shape: LlamaShape) -> dict[str, tuple[int, int]]:
    """(outputs, inputs) of every linear layer that may have an adapter, by its name."""
    queries, keys = shape.heads * shape.head_size, shape.key_heads * shape.head_size
    sizes = {
        "self_attn.q_proj": (queries, shape.width),
        "self_attn.k_proj": (keys, shape.width),
        "self_attn.v_proj": (keys, shape.width),
        "self_attn.o_proj": (shape.width, queries),
        "mlp.gate_proj": (shape.inner, shape.width),
        "mlp.up_proj": (shape.inner, shape.width),
        "mlp.down_proj": (shape.width, shape.inner),
    }
    return {f"model.layers.{layer}.{name}": size for layer in range(shape.layers) for name, size in sizes.items()}


def _config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config
