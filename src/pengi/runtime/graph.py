"""A Llama model as ONNX graphs for onnxruntime, made from a model folder in Hugging Face layout.

Four graphs share one file of weights. Three turn embeddings and cached keys and values into hidden states:
``prefill.onnx`` for whole prefixes, ``step.onnx`` for one token a row, and ``extend.onnx`` for any number of tokens
after a cache, which onnxruntime's attention operator supports for a single row only. ``head.onnx`` turns selected
hidden states into logits. ``step.onnx`` and ``head.onnx`` round the inputs of matrix products to 8 bits, block by
block, which makes a step fast; the others do not.

A matrix product is one with 4-bit or 8-bit blocks (:mod:`pengi.runtime.blocks`) plus one of low rank in float32::

    y = x W' + (x [S | A]) [C | B]

S sums the inputs of each block and C holds the blocks' offsets. A and B are adapters (LoRA), which are not rounded.
Queries, keys and values are computed in one product, and so are the two branches of the feed-forward layer.

Inputs of ``prefill`` and ``step``: ``embeds`` float32[B, T, D]; ``lengths`` int32[B], the number of tokens of each row
after this call, minus one; ``total`` int32[], the number of tokens of the longest row after this call; ``key_{i}`` and
``value_{i}`` float32[B, heads, capacity, size]. Outputs: ``hidden`` float32[B, T, D]; ``new_key_{i}`` and
``new_value_{i}``, with the shape of the inputs, whose memory they may share.

Instead of ``lengths`` and ``total``, ``extend`` has ``positions`` int64[B, T] and ``bias`` float32[B, 1, T, capacity +
T], which is added to the attention scores. Its ``new_key_{i}`` and ``new_value_{i}`` are those of the T tokens alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from pengi.runtime.blocks import BLOCK, Blocks, quantise
from pengi.runtime.llama import EXTEND_FILE, HEAD_FILE, PREFILL_FILE, STEP_FILE, Adapter, LlamaShape

WEIGHTS_FILE = "weights.bin"

Array = NDArray[Any]
Dims = Sequence[str | int]
_Input = tuple[str, int, Dims]  # name, data type and dimensions

_MICROSOFT = "com.microsoft"
_MICROSOFT_NODES = (
    "GroupQueryAttention",
    "MatMulNBits",
    "QuickGelu",
    "RotaryEmbedding",
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

    shape = LlamaShape.read(folder)
    with (
        safe_open(folder / "model.safetensors", "numpy") as tensors,
        (target / WEIGHTS_FILE).open("wb") as file,
    ):
        source = _Source(tensors, adapters)
        weights = _Weights(file)
        fused = _decoder(shape, source, weights, _fused_attention, _interface(shape, _FUSED_INPUTS, "capacity"))
        masked = _decoder(shape, source, weights, _masked_attention, _interface(shape, _MASKED_INPUTS, "tokens"))
        head = _head(shape, source, weights)
    _save(fused, _FLOAT_INPUTS, target / PREFILL_FILE)
    _save(fused, _INT8_INPUTS, target / STEP_FILE)
    _save(masked, _FLOAT_INPUTS, target / EXTEND_FILE)
    _save(head, _INT8_INPUTS, target / HEAD_FILE)


class _Source:
    """Tensors of a model by name, and the adapters of its linear layers."""

    def __init__(self, tensors: Any, adapters: Mapping[str, Adapter]) -> None:
        self._tensors = tensors
        self._adapters = adapters
        self._matrices: dict[tuple[str, ...], tuple[Blocks, Adapter | None]] = {}

    def vector(self, name: str) -> NDArray[np.float32]:
        return np.asarray(self._tensors.get_tensor(f"{name}.weight"), dtype=np.float32)

    def matrix(self, *names: str) -> tuple[Blocks, Adapter | None]:
        """Linear layers with the same input as one matrix, and their adapters as one adapter; computed once."""
        if names not in self._matrices:
            self._matrices[names] = self._joined(names)
        return self._matrices[names]

    def _joined(self, names: Sequence[str]) -> tuple[Blocks, Adapter | None]:
        blocks = quantise(np.concatenate([self.vector(name) for name in names]))
        rows = np.cumsum([0, *(self._tensors.get_slice(f"{name}.weight").get_shape()[0] for name in names)])
        downs, ups = [], []
        for start, name in zip(rows, names, strict=False):
            if name in self._adapters:
                down_RK, up_NR = self._adapters[name]
                wide_NR = np.zeros((rows[-1], up_NR.shape[1]), np.float32)
                wide_NR[start : start + len(up_NR)] = up_NR
                downs.append(down_RK)
                ups.append(wide_NR)
        return blocks, (np.concatenate(downs), np.concatenate(ups, axis=1)) if downs else None


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

    def product(self, name: str, read: str, blocks: Blocks, adapter: Adapter | None = None) -> str:
        """A matrix product with the blocks, plus the one of low rank if there is an offset or an adapter."""
        rows, columns = blocks.shape
        constants = [self.constant(f"{name}.codes", blocks.codes), self.constant(f"{name}.scales", blocks.scales_NG)]
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
    shape: LlamaShape,
    source: _Source,
    weights: _Weights,
    attention: Callable[[_Graph, int, str, LlamaShape], str],
    interface: tuple[list[Any], list[Any]],
) -> _Graph:
    graph = _Graph(weights, *interface)
    for name, values in zip(_ROTATIONS, _rotations(shape), strict=True):
        graph.constant(name, values)
    residual = "embeds"
    scale = graph.constant("norm_0", source.vector("model.layers.0.input_layernorm"))
    normed = graph.node(
        "SimplifiedLayerNormalization",
        [residual, scale],
        "normed_0",
        epsilon=shape.norm_epsilon,
        axis=-1,
        stash_type=1,
    )
    for layer in range(shape.layers):
        path = f"model.layers.{layer}"
        read = [f"{path}.self_attn.{part}_proj" for part in "qkv"]
        queries = graph.product(f"{layer}.qkv", normed, *source.matrix(*read))
        attended = attention(graph, layer, queries, shape)
        output = graph.product(f"{layer}.out", attended, *source.matrix(f"{path}.self_attn.o_proj"))
        norm = source.vector(f"{path}.post_attention_layernorm")
        normed, residual = _add_and_norm(graph, f"{layer}.inner", residual, output, norm, shape)
        fed = _feed_forward(graph, layer, normed, source)
        following = f"model.layers.{layer + 1}.input_layernorm" if layer + 1 < shape.layers else "model.norm"
        last = layer + 1 == shape.layers
        normed, residual = _add_and_norm(
            graph, f"{layer}.outer", residual, fed, source.vector(following), shape, "hidden" if last else None
        )
    return graph


def _interface(shape: LlamaShape, own_inputs: Sequence[_Input], new: str) -> tuple[list[Any], list[Any]]:
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


def _fused_attention(graph: _Graph, layer: int, projected: str, shape: LlamaShape) -> str:
    return graph.node(
        "GroupQueryAttention",
        [projected, "", "", f"key_{layer}", f"value_{layer}", "lengths", "total", *_ROTATIONS],
        [f"{layer}.attended", f"new_key_{layer}", f"new_value_{layer}"],
        num_heads=shape.heads,
        kv_num_heads=shape.key_heads,
        do_rotary=1,
    )


def _masked_attention(graph: _Graph, layer: int, projected: str, shape: LlamaShape) -> str:
    """Attention with a bias. The heads that share a key head are rows of one product with its keys."""
    group, size = shape.heads // shape.key_heads, shape.head_size
    queries, keys = shape.heads * size, shape.key_heads * size
    sizes = graph.constant("projected_sizes", np.array([queries, keys, keys]))
    parts = [f"{layer}.{part}" for part in ("queries", "keys", "values")]
    graph.node("Split", [projected, sizes], parts, axis=-1)
    for part, heads in zip(parts[:2], (shape.heads, shape.key_heads), strict=True):
        graph.node(
            "RotaryEmbedding",
            [part, "positions", *_ROTATIONS],
            f"{part}.turned",
            num_heads=heads,
            rotary_embedding_dim=size,
        )

    def shaped(name: str, output: str, *dims: int) -> str:
        target = graph.constant("shape_" + "_".join(map(str, dims)), np.array(dims))
        return graph.node("Reshape", [name, target], output)

    def by_head(name: str, output: str) -> str:
        split = shaped(name, f"{output}.heads", 0, 0, shape.key_heads, size)
        return graph.node("Transpose", [split], output, perm=[0, 2, 1, 3])

    new_keys = by_head(f"{parts[1]}.turned", f"new_key_{layer}")
    new_values = by_head(parts[2], f"new_value_{layer}")
    all_keys = graph.node("Concat", [f"key_{layer}", new_keys], f"{layer}.all_keys", axis=2)
    all_values = graph.node("Concat", [f"value_{layer}", new_values], f"{layer}.all_values", axis=2)
    query = shaped(f"{parts[0]}.turned", f"{layer}.grouped_queries", 0, 0, shape.key_heads, group, size)
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


def _rotations(shape: LlamaShape) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosines and sines float32[positions, size / 2] of rotary embeddings (Su et al. 2021, equation 15)."""
    exponents = np.arange(0, shape.head_size, 2, dtype=np.float32) / np.float32(shape.head_size)
    frequencies = np.float32(1) / np.float32(shape.rope_theta) ** exponents
    angles = np.arange(shape.positions, dtype=np.float32)[:, None] * frequencies.astype(np.float32)
    return np.cos(angles), np.sin(angles)


def _feed_forward(graph: _Graph, layer: int, normed: str, source: _Source) -> str:
    path = f"model.layers.{layer}.mlp"
    both = graph.product(f"{layer}.up", normed, *source.matrix(f"{path}.gate_proj", f"{path}.up_proj"))
    graph.node("Split", [both], [f"{layer}.gate", f"{layer}.open"], axis=-1, num_outputs=2)
    # QuickGelu is x sigmoid(alpha x), which with alpha = 1 is SiLU.
    gate = graph.node("QuickGelu", [f"{layer}.gate"], f"{layer}.gated", alpha=1.0)
    inner = graph.node("Mul", [gate, f"{layer}.open"], f"{layer}.gated_open")
    return graph.product(f"{layer}.down", inner, *source.matrix(f"{path}.down_proj"))


def _add_and_norm(
    graph: _Graph,
    name: str,
    residual: str,
    change: str,
    scale: NDArray[np.float32],
    shape: LlamaShape,
    output: str | None = None,
) -> tuple[str, str]:
    """Names of the normed sum and of the sum itself."""
    normed, total = output or f"{name}.normed", f"{name}.residual"
    graph.node(
        "SkipSimplifiedLayerNormalization",
        [residual, change, graph.constant(f"{name}.norm", scale)],
        [normed, "", "", total],
        epsilon=shape.norm_epsilon,
    )
    return normed, total


def _head(shape: LlamaShape, source: _Source, weights: _Weights) -> _Graph:
    graph = _Graph(
        weights,
        [helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["rows", shape.width])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", shape.vocabulary])],
    )
    blocks, adapter = source.matrix("model.embed_tokens" if shape.tied else "lm_head")
    graph.product("head", "hidden", blocks, adapter)
    graph.nodes[-1].output[0] = "logits"
    return graph


def _save(graph: _Graph, level: int, file: Path) -> None:
    nodes = []
    for original in graph.nodes:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        if node.op_type == "MatMulNBits":
            node.attribute.append(helper.make_attribute("accuracy_level", level))
        nodes.append(node)
    made = helper.make_graph(nodes, "decoder", graph.inputs, graph.outputs, list(graph.constants.values()))
    model = helper.make_model(made, opset_imports=_OPSETS, ir_version=_IR_VERSION, producer_name="pengi")
    file.write_bytes(model.SerializeToString())
