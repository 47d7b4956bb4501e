"""A Llama or a GPT-2 as ONNX graphs for onnxruntime, made from a model folder in Hugging Face layout.

Four graphs share one file of weights. Three turn embeddings and cached keys and values into hidden states:
``prefill.onnx`` for whole prefixes, ``step.onnx`` for one token a row, and ``extend.onnx`` for any number of tokens
after a cache, which onnxruntime's attention operator supports for a single row only. ``head.onnx`` turns selected
hidden states into logits. ``step.onnx`` and ``head.onnx`` round the inputs of matrix products to 8 bits, block by
block, which makes a step fast. The others do so only where the matrix has 8-bit blocks: onnxruntime has no fast kernel
for those with float inputs (``benchmarks/speed.py`` measures both).

A matrix product is one with 4-bit or 8-bit blocks (:mod:`pengi.runtime.blocks`) plus one of low rank in float32::

    y = x W' + (x [S | A]) [C | B]

S sums the inputs of each block and C holds the blocks' offsets. A and B are adapters (LoRA), which are not rounded.
Queries, keys and values are computed in one product, and so are the two branches of a gated feed-forward layer.
:class:`pengi.runtime.architecture.Architecture` says in what the architectures differ.

Inputs of ``prefill`` and ``step``: ``embeds`` float32[B, T, D], with learned positions in them if the architecture has
such; ``lengths`` int32[B], the number of tokens of each row after this call, minus one; ``total`` int32[], the number
of tokens of the longest row after this call; ``key_{i}`` and ``value_{i}`` float32[B, heads, capacity, size]. Outputs:
``hidden`` float32[B, T, D]; ``new_key_{i}`` and ``new_value_{i}``, with the shape of the inputs, whose memory they may
share.

Instead of ``lengths`` and ``total``, ``extend`` has ``positions`` int64[B, T], for rotary embeddings, and ``bias``
float32[B, 1, T, capacity + T], which is added to the attention scores. Its ``new_key_{i}`` and ``new_value_{i}`` are
those of the T tokens alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from pengi.runtime.architecture import (
    EXTEND_FILE,
    HEAD_FILE,
    PREFILL_FILE,
    STEP_FILE,
    Adapter,
    Architecture,
    Shape,
    stored_name,
)
from pengi.runtime.blocks import BLOCK, Blocks, quantise

WEIGHTS_FILE = "weights.bin"

Array = NDArray[Any]
Dims = Sequence[str | int]
_Input = tuple[str, int, Dims]  # name, data type and dimensions

_MICROSOFT = "com.microsoft"
_MICROSOFT_NODES = (
    "FastGelu",
    "GroupQueryAttention",
    "MatMulNBits",
    "QuickGelu",
    "RotaryEmbedding",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
)
_OPSETS = (helper.make_opsetid("", 18), helper.make_opsetid(_MICROSOFT, 1))
_IR_VERSION = 10
_ROTATIONS = ("cosines", "sines")
_FUSED_INPUTS: list[_Input] = [
    ("lengths", TensorProto.INT32, ["rows"]),
    ("total", TensorProto.INT32, []),
]
_MASKED_INPUTS: list[_Input] = [
    ("positions", TensorProto.INT64, ["rows", "tokens"]),
    ("bias", TensorProto.FLOAT, ["rows", 1, "tokens", "all"]),
]
_FLOAT_INPUTS, _INT8_INPUTS = 0, 4  # accuracy levels of MatMulNBits
_ALIGNMENT = 64  # bytes
_MAX_INLINE_BYTES = 64  # size in bytes up to which a constant is stored in the graph's own file


def build(folder: Path, target: Path, adapters: Mapping[str, Adapter]) -> None:
    """Write the graphs and their weights.

    Args:
        folder: of the model.
        target: the folder for the graphs.
        adapters: by the name of the linear layer, e.g. ``model.layers.0.self_attn.q_proj``.
    """
    from safetensors import safe_open

    shape = Shape.read(folder)
    with (
        safe_open(folder / "model.safetensors", "numpy") as tensors,
        (target / WEIGHTS_FILE).open("wb") as file,
    ):
        source = _Source(tensors, adapters, shape.architecture)
        weights = _Weights(file)
        fused = _decoder(shape, source, weights, _fused_attention, _interface(shape, _FUSED_INPUTS, "capacity"))
        masked = _decoder(shape, source, weights, _masked_attention, _interface(shape, _MASKED_INPUTS, "tokens"))
        head = _head(shape, source, weights)
    _save(fused, _FLOAT_INPUTS, target / PREFILL_FILE)
    _save(fused, _INT8_INPUTS, target / STEP_FILE)
    _save(masked, _FLOAT_INPUTS, target / EXTEND_FILE)
    _save(head, _INT8_INPUTS, target / HEAD_FILE)


@dataclass(frozen=True)
class _Matrix:
    """What a matrix product multiplies by and adds."""

    blocks: Blocks
    adapter: Adapter | None
    bias_N: NDArray[np.float32] | None


class _Source:
    """Tensors of a model by name, and the adapters of its linear layers."""

    def __init__(self, tensors: Any, adapters: Mapping[str, Adapter], architecture: Architecture) -> None:
        self._tensors = tensors
        self._stored = set(tensors.keys())
        self._adapters = adapters
        self._architecture = architecture
        self._matrices: dict[tuple[str, ...], _Matrix] = {}

    def norm(self, name: str) -> list[NDArray[np.float32]]:
        """The scale of a norm, and its bias if it has one."""
        parts = ("weight", "bias") if self._architecture.biased else ("weight",)
        return [self._tensor(f"{name}.{part}") for part in parts]

    def matrix(self, *names: str) -> _Matrix:
        """Linear layers with the same input as one matrix, and their adapters as one adapter; computed once."""
        if names not in self._matrices:
            self._matrices[names] = self._joined(names)
        return self._matrices[names]

    def table(self, name: str) -> _Matrix:
        """An embedding table or an output layer as a matrix, which has neither biases nor adapters."""
        return _Matrix(quantise(self._tensor(f"{name}.weight")), None, None)

    def _joined(self, names: Sequence[str]) -> _Matrix:
        weights = [self._tensor(f"{name}.weight") for name in names]
        if self._architecture.transposed:
            weights = [weight.T for weight in weights]
        rows = np.cumsum([0, *map(len, weights)])
        downs, ups = [], []
        for start, name in zip(rows, names, strict=False):
            if name in self._adapters:
                down_RK, up_NR = self._adapters[name]
                wide_NR = np.zeros((rows[-1], up_NR.shape[1]), np.float32)
                wide_NR[start : start + len(up_NR)] = up_NR
                downs.append(down_RK)
                ups.append(wide_NR)
        adapter = (np.concatenate(downs), np.concatenate(ups, axis=1)) if downs else None
        biases = [self._tensor(f"{name}.bias") for name in names] if self._architecture.biased else []
        return _Matrix(quantise(np.concatenate(weights)), adapter, np.concatenate(biases) if biases else None)

    def _tensor(self, name: str) -> NDArray[np.float32]:
        return np.asarray(self._tensors.get_tensor(stored_name(name, self._stored)), dtype=np.float32)


class _Weights:
    """The file with the constants of all graphs."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._written: dict[str, TensorProto] = {}

    def add(self, name: str, values: Array) -> TensorProto:
        """The constant of this name; it is written once."""
        if name in self._written:
            return self._written[name]
        values = np.asarray(values, order="C")
        if values.nbytes <= _MAX_INLINE_BYTES:  # shapes, which onnxruntime reads with the graph
            return numpy_helper.from_array(values, name)
        self._file.write(b"\0" * (-self._file.tell() % _ALIGNMENT))
        tensor = TensorProto(
            name=name, dims=values.shape, data_type=helper.np_dtype_to_tensor_dtype(values.dtype), raw_data=b"-"
        )
        set_external_data(tensor, WEIGHTS_FILE, offset=self._file.tell(), length=values.nbytes)
        tensor.ClearField("raw_data")
        self._file.write(values.tobytes())
        self._written[name] = tensor
        return tensor


class _Graph:
    """Nodes and constants so far. Methods that add a node return the name of its output."""

    def __init__(self, weights: _Weights, inputs: list[Any], outputs: list[Any]) -> None:
        self._weights = weights
        self.constants: dict[str, TensorProto] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.inputs, self.outputs = inputs, outputs

    def constant(self, name: str, values: Array) -> str:
        if name not in self.constants:
            self.constants[name] = self._weights.add(name, values)
        return name

    def node(self, kind: str, inputs: Sequence[str], outputs: str | list[str], **attributes: Any) -> str:
        names = [outputs] if isinstance(outputs, str) else outputs
        domain = _MICROSOFT if kind in _MICROSOFT_NODES else ""
        self.nodes.append(helper.make_node(kind, inputs, names, name=names[0], domain=domain, **attributes))
        return names[0]

    def product(self, name: str, read: str, matrix: _Matrix) -> str:
        """A matrix product with the blocks, plus the one of low rank if there is an offset or an adapter."""
        blocks, adapter = matrix.blocks, matrix.adapter
        rows, columns = blocks.shape
        constants = [self.constant(f"{name}.codes", blocks.codes), self.constant(f"{name}.scales", blocks.scales_NG)]
        if matrix.bias_N is not None:
            constants += ["", "", self.constant(f"{name}.bias", matrix.bias_N)]
        main = self.node(
            "MatMulNBits", [read, *constants], f"{name}.main", K=columns, N=rows, bits=blocks.bits, block_size=BLOCK
        )
        downs, ups = [], []
        if blocks.offsets_NG is not None:
            downs.append(np.repeat(np.eye(columns // BLOCK, dtype=np.float32), BLOCK, axis=0))
            ups.append(blocks.offsets_NG.T)
        if adapter is not None:
            downs.append(adapter[0].T)
            ups.append(adapter[1].T)
        if not downs:
            return main
        down = f"block_sums_{columns}" if adapter is None else f"{name}.down"
        low = self.node("MatMul", [read, self.constant(down, np.concatenate(downs, axis=1))], f"{name}.low")
        beside = self.node("MatMul", [low, self.constant(f"{name}.up", np.concatenate(ups))], f"{name}.beside")
        return self.node("Add", [main, beside], f"{name}.sum")


def _decoder(
    shape: Shape,
    source: _Source,
    weights: _Weights,
    attention: Callable[[_Graph, int, str, Shape], str],
    interface: tuple[list[Any], list[Any]],
) -> _Graph:
    graph = _Graph(weights, *interface)
    names = shape.architecture
    if shape.rotary:
        for name, values in zip(_ROTATIONS, _rotations(shape), strict=True):
            graph.constant(name, values)
    residual = "embeds"
    paths = [names.layer.format(layer) for layer in range(shape.layers)]
    normed = _first_norm(graph, residual, source.norm(f"{paths[0]}.{names.norms[0]}"), shape)
    for layer, path in enumerate(paths):
        projected = graph.product(f"{layer}.qkv", normed, source.matrix(*(f"{path}.{part}" for part in names.qkv)))
        attended = attention(graph, layer, projected, shape)
        output = graph.product(f"{layer}.out", attended, source.matrix(f"{path}.{names.out}"))
        norm = source.norm(f"{path}.{names.norms[1]}")
        normed, residual = _add_and_norm(graph, f"{layer}.inner", residual, output, norm, shape)
        fed = _feed_forward(graph, layer, normed, source, names)
        last = layer + 1 == shape.layers
        norm = source.norm(names.last_norm if last else f"{paths[layer + 1]}.{names.norms[0]}")
        output_name = "hidden" if last else None
        normed, residual = _add_and_norm(graph, f"{layer}.outer", residual, fed, norm, shape, output_name)
    return graph


def _interface(shape: Shape, own_inputs: Sequence[_Input], new: str) -> tuple[list[Any], list[Any]]:
    """Inputs and outputs of a decoder; ``new`` names the length dimension of its output keys and values."""

    def cache(length: str) -> Dims:
        return ["rows", shape.key_heads, length, shape.head_size]

    hidden: Dims = ["rows", "tokens", shape.width]
    names = [f"{kind}_{layer}" for layer in range(shape.layers) for kind in ("key", "value")]
    values: list[_Input] = [("embeds", TensorProto.FLOAT, hidden), *own_inputs]
    values += [(name, TensorProto.FLOAT, cache("capacity")) for name in names]
    inputs = [helper.make_tensor_value_info(name, kind, dims) for name, kind, dims in values]
    outputs = [helper.make_tensor_value_info("hidden", TensorProto.FLOAT, hidden)]
    outputs += [helper.make_tensor_value_info(f"new_{name}", TensorProto.FLOAT, cache(new)) for name in names]
    return inputs, outputs


def _fused_attention(graph: _Graph, layer: int, projected: str, shape: Shape) -> str:
    return graph.node(
        "GroupQueryAttention",
        [
            *(projected, "", "", f"key_{layer}", f"value_{layer}", "lengths", "total"),
            *(_ROTATIONS if shape.rotary else ()),
        ],
        [f"{layer}.attended", f"new_key_{layer}", f"new_value_{layer}"],
        num_heads=shape.heads,
        kv_num_heads=shape.key_heads,
        do_rotary=int(shape.rotary),
    )


def _masked_attention(graph: _Graph, layer: int, projected: str, shape: Shape) -> str:
    """Attention with a bias. The heads that share a key head are rows of one product with its keys."""
    group, size = shape.heads // shape.key_heads, shape.head_size
    queries, keys = shape.heads * size, shape.key_heads * size
    sizes = graph.constant("projected_sizes", np.array([queries, keys, keys]))
    parts = [f"{layer}.{part}" for part in ("queries", "keys", "values")]
    graph.node("Split", [projected, sizes], parts, axis=-1)
    query, new_keys = (
        _turned(graph, part, heads, shape) for part, heads in zip(parts, (shape.heads, shape.key_heads), strict=False)
    )

    def shaped(name: str, output: str, *dims: int) -> str:
        target = graph.constant("shape_" + "_".join(map(str, dims)), np.array(dims))
        return graph.node("Reshape", [name, target], output)

    def by_head(name: str, output: str) -> str:
        split = shaped(name, f"{output}.heads", 0, 0, shape.key_heads, size)
        return graph.node("Transpose", [split], output, perm=[0, 2, 1, 3])

    new_keys = by_head(new_keys, f"new_key_{layer}")
    new_values = by_head(parts[2], f"new_value_{layer}")
    all_keys = graph.node("Concat", [f"key_{layer}", new_keys], f"{layer}.all_keys", axis=2)
    all_values = graph.node("Concat", [f"value_{layer}", new_values], f"{layer}.all_values", axis=2)
    query = shaped(query, f"{layer}.grouped_queries", 0, 0, shape.key_heads, group, size)
    query = graph.node("Transpose", [query], f"{layer}.grouped_queries_by_head", perm=[0, 2, 3, 1, 4])
    query = shaped(query, f"{layer}.grouped_queries_rows", 0, shape.key_heads, -1, size)
    keys_across = graph.node("Transpose", [all_keys], f"{layer}.keys_across", perm=[0, 1, 3, 2])
    scores = graph.node("MatMul", [query, keys_across], f"{layer}.scores")
    scores = graph.node(
        "Mul", [scores, graph.constant("score_scale", np.array(size**-0.5, np.float32))], f"{layer}.scaled"
    )
    like_bias = graph.node("Shape", ["bias"], f"{layer}.bias_shape")
    all_heads = graph.constant("heads", np.array([1, shape.heads, 1, 1]))
    like_scores = graph.node("Mul", [like_bias, all_heads], f"{layer}.scores_shape")
    scores = graph.node("Reshape", [scores, like_scores], f"{layer}.scores_by_head")
    biased = graph.node("Add", [scores, "bias"], f"{layer}.biased")
    shares = graph.node("Softmax", [biased], f"{layer}.shares", axis=-1)
    rows_of_shares = graph.node("Shape", [f"{layer}.scaled"], f"{layer}.share_rows_shape")
    shares = graph.node("Reshape", [shares, rows_of_shares], f"{layer}.share_rows")
    found = graph.node("MatMul", [shares, all_values], f"{layer}.found")
    query_shape = graph.node("Shape", [f"{layer}.grouped_queries_by_head"], f"{layer}.queries_shape")
    found = graph.node("Reshape", [found, query_shape], f"{layer}.found_by_head")
    found = graph.node("Transpose", [found], f"{layer}.found_by_token", perm=[0, 3, 1, 2, 4])
    return shaped(found, f"{layer}.attended", 0, 0, queries)


def _turned(graph: _Graph, part: str, heads: int, shape: Shape) -> str:
    """Queries or keys with rotary embeddings, if the architecture has them."""
    if not shape.rotary:
        return part
    return graph.node(
        "RotaryEmbedding",
        [part, "positions", *_ROTATIONS],
        f"{part}.turned",
        num_heads=heads,
        rotary_embedding_dim=shape.head_size,
    )


def _rotations(shape: Shape) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosines and sines float32[positions, size / 2] of rotary embeddings (Su et al. 2021, equation 15)."""
    exponents = np.arange(0, shape.head_size, 2, dtype=np.float32) / np.float32(shape.head_size)
    frequencies = np.float32(1) / np.float32(shape.rope_theta) ** exponents
    angles = np.arange(shape.positions, dtype=np.float32)[:, None] * frequencies.astype(np.float32)
    return np.cos(angles), np.sin(angles)


def _feed_forward(graph: _Graph, layer: int, normed: str, source: _Source, names: Architecture) -> str:
    path = names.layer.format(layer)
    inner = graph.product(f"{layer}.up", normed, source.matrix(*(f"{path}.{part}" for part in names.up)))
    if len(names.up) > 1:
        graph.node("Split", [inner], [f"{layer}.gate", f"{layer}.open"], axis=-1, num_outputs=2)
        # QuickGelu is x sigmoid(alpha x), which with alpha = 1 is SiLU.
        gate = graph.node("QuickGelu", [f"{layer}.gate"], f"{layer}.gated", alpha=1.0)
        inner = graph.node("Mul", [gate, f"{layer}.open"], f"{layer}.gated_open")
    else:
        inner = graph.node("FastGelu", [inner], f"{layer}.activated")
    return graph.product(f"{layer}.down", inner, source.matrix(f"{path}.{names.down}"))


_NORMS = {False: "SimplifiedLayerNormalization", True: "LayerNormalization"}  # by Architecture.biased


def _first_norm(graph: _Graph, residual: str, norm: Sequence[Array], shape: Shape) -> str:
    constants = _norm_constants(graph, "norm_0", norm)
    kind = _NORMS[shape.architecture.biased]
    return graph.node(kind, [residual, *constants], "normed_0", epsilon=shape.norm_epsilon, axis=-1, stash_type=1)


def _add_and_norm(
    graph: _Graph,
    name: str,
    residual: str,
    change: str,
    norm: Sequence[Array],
    shape: Shape,
    output: str | None = None,
) -> tuple[str, str]:
    """Names of the normed sum and of the sum itself."""
    normed, total = output or f"{name}.normed", f"{name}.residual"
    graph.node(
        f"Skip{_NORMS[shape.architecture.biased]}",
        [residual, change, *_norm_constants(graph, f"{name}.norm", norm)],
        [normed, "", "", total],
        epsilon=shape.norm_epsilon,
    )
    return normed, total


def _norm_constants(graph: _Graph, name: str, norm: Sequence[Array]) -> list[str]:
    return [graph.constant(part, values) for part, values in zip((name, f"{name}.bias"), norm, strict=False)]


def _head(shape: Shape, source: _Source, weights: _Weights) -> _Graph:
    graph = _Graph(
        weights,
        [helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["rows", shape.width])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", shape.vocabulary])],
    )
    graph.product("head", "hidden", source.table(shape.architecture.embeddings if shape.tied else "lm_head"))
    graph.nodes[-1].output[0] = "logits"
    return graph


def _save(graph: _Graph, level: int, file: Path) -> None:
    nodes = []
    for original in graph.nodes:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        if node.op_type == "MatMulNBits":
            bits = next(attribute.i for attribute in node.attribute if attribute.name == "bits")
            node.attribute.append(helper.make_attribute("accuracy_level", _INT8_INPUTS if bits == 8 else level))
        nodes.append(node)
    made = helper.make_graph(nodes, "decoder", graph.inputs, graph.outputs, list(graph.constants.values()))
    model = helper.make_model(made, opset_imports=_OPSETS, ir_version=_IR_VERSION, producer_name="pengi")
    file.write_bytes(model.SerializeToString())
