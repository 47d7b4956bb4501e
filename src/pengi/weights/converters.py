"""Converts published model files to the layout that this package loads: ``config.json`` and ``model.safetensors``.

Each converter reads files from one folder and writes converted ones to another. It runs once, when a model is put into
the cache. Tensors are float32. Nothing in the files is executed.
"""

from __future__ import annotations

import csv
import json
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import gguf
    import onnx

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.json"
CLASSES_FILE = "classes.json"

Tensors = dict[str, NDArray[np.float32]]


def copy_files(source: Path, target: Path) -> None:
    """Copy all files unchanged: the publication already has the right layout."""
    for file in source.iterdir():
        if file.is_file():
            shutil.copyfile(file, target / file.name)


def _write(target: Path, tensors: Tensors, config: dict[str, Any] | None = None) -> None:
    from safetensors.numpy import save_file

    # Safetensors writes the buffer of an array without regard to its strides.
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, target / WEIGHTS_FILE)
    if config is not None:
        _write_json(target / CONFIG_FILE, config)


def _write_json(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


# ---- Llama in GGUF ---------------------------------------------------------------------------------------------------

_LLAMA_OUTSIDE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LLAMA_IN_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GGUF_CONTROL_TOKEN = 3


def llama_from_gguf(source: Path, target: Path) -> None:
    """Convert a Llama model and its byte-level BPE tokenizer from the only ``*.gguf`` file in ``source``.

    Quantised tensors are dequantised to float32. The result is what ``transformers`` loads as ``LlamaForCausalLM``.
    """
    import gguf

    reader = gguf.GGUFReader(_only(source.glob("*.gguf")))
    metadata: dict[str, Any] = {key: field.contents() for key, field in reader.fields.items()}
    _write(target, dict(_llama_tensors(reader, metadata)), _llama_config(reader, metadata))
    _llama_tokenizer(metadata).save(str(target / TOKENIZER_FILE))
    _write_json(target / "tokenizer_config.json", _llama_tokenizer_config(metadata))


def _llama_tensors(reader: gguf.GGUFReader, metadata: dict[str, Any]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    import gguf

    heads = {"attn_q": metadata["llama.attention.head_count"], "attn_k": metadata["llama.attention.head_count_kv"]}
    for tensor in reader.tensors:
        weight = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
        if tensor.name in _LLAMA_OUTSIDE:
            yield _LLAMA_OUTSIDE[tensor.name], weight
            continue
        _, layer, part, _ = tensor.name.split(".")
        if part in heads:
            weight = _halves_from_pairs(weight, heads[part])
        yield f"model.layers.{layer}.{_LLAMA_IN_LAYER[part]}.weight", weight


def _halves_from_pairs(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Undo the row order in which GGUF stores query and key projections, float32[heads * size, D].

    Rotary embeddings turn pairs of dimensions. In GGUF the two dimensions of a pair are neighbouring rows of a head (0,
    1); in the Hugging Face layout they are half a head apart (0, size / 2).
    """
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def _llama_config(reader: gguf.GGUFReader, metadata: dict[str, Any]) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": metadata["llama.embedding_length"],
        "intermediate_size": metadata["llama.feed_forward_length"],
        "num_hidden_layers": metadata["llama.block_count"],
        "num_attention_heads": metadata["llama.attention.head_count"],
        "num_key_value_heads": metadata["llama.attention.head_count_kv"],
        "max_position_embeddings": metadata["llama.context_length"],
        "rope_parameters": {"rope_type": "default", "rope_theta": metadata["llama.rope.freq_base"]},
        # GGUF stores a float32; its shortest decimal form is the original number.
        "rms_norm_eps": float(str(np.float32(metadata["llama.attention.layer_norm_rms_epsilon"]))),
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        "tie_word_embeddings": all(tensor.name != "output.weight" for tensor in reader.tensors),
        "bos_token_id": metadata["tokenizer.ggml.bos_token_id"],
        "eos_token_id": metadata["tokenizer.ggml.eos_token_id"],
        "pad_token_id": metadata["tokenizer.ggml.padding_token_id"],
        "dtype": "float32",
    }


def _llama_tokenizer(metadata: dict[str, Any]) -> Any:
    """Byte-level BPE as in SmolLM: every digit is split off, then GPT-2's byte-level splitting applies."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    flavour = metadata["tokenizer.ggml.pre"]
    assert flavour == "smollm", f"no pre-tokenizer is known for '{flavour}'"
    tokens = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = metadata["tokenizer.ggml.token_type"]
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _GGUF_CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return tokenizer


def _llama_tokenizer_config(metadata: dict[str, Any]) -> dict[str, Any]:
    tokens = metadata["tokenizer.ggml.tokens"]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokens[metadata["tokenizer.ggml.bos_token_id"]],
        "eos_token": tokens[metadata["tokenizer.ggml.eos_token_id"]],
        "unk_token": tokens[metadata["tokenizer.ggml.unknown_token_id"]],
        "pad_token": tokens[metadata["tokenizer.ggml.padding_token_id"]],
        "model_max_length": metadata["llama.context_length"],
        "clean_up_tokenization_spaces": False,
        "chat_template": metadata["tokenizer.chat_template"],
    }


# ---- YAMNet in ONNX --------------------------------------------------------------------------------------------------


def yamnet_from_onnx(source: Path, target: Path) -> None:
    """Convert YAMNet from a zip with an ONNX graph and its class map, ``*.onnx.zip`` and ``*.csv`` in ``source``.

    Keys: ``conv.{i}.weight`` and ``conv.{i}.bias`` for the convolutions in graph order, ``head.weight`` float32[521,
    1024] and ``head.bias``. ``classes.json`` is the list of the classes' display names in the order of the head.
    """
    import onnx

    with tempfile.TemporaryDirectory(dir=source) as unpacked:
        with zipfile.ZipFile(_only(source.glob("*.onnx.zip"))) as archive:
            archive.extractall(unpacked)
        graph = onnx.load(_only(Path(unpacked).rglob("*.onnx"))).graph
    _write(target, _onnx_layers(graph))
    with _only(source.glob("*.csv")).open(encoding="utf-8", newline="") as rows:
        _write_json(target / CLASSES_FILE, [row["display_name"] for row in csv.DictReader(rows)])


def _onnx_layers(graph: onnx.GraphProto) -> Tensors:
    from onnx import numpy_helper

    constants = {constant.name: constant for constant in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}

    def weight_behind(name: str) -> NDArray[np.float32]:
        # The stored weight is float32; the graph passes it through QuantizeLinear and DequantizeLinear before use.
        while name not in constants:
            name = producers[name].input[0]
        return numpy_helper.to_array(constants[name]).astype(np.float32, copy=False)

    tensors: Tensors = {}
    convolutions = 0
    for node in graph.node:
        if node.op_type == "Conv":
            layer = f"conv.{convolutions}"
            convolutions += 1
        elif node.op_type == "Gemm":
            layer = "head"
        else:
            continue
        tensors[f"{layer}.weight"], tensors[f"{layer}.bias"] = map(weight_behind, node.input[1:3])
    return tensors


# ---- Whisper in CTranslate2 ------------------------------------------------------------------------------------------

_CT2_BINARY_VERSION = 6
_CT2_DTYPES = ("<f4", "<i1", "<i2", "<i4", "<f2")
_CT2_PARAMETERS = {"gamma": "weight", "beta": "bias", "weight": "weight", "bias": "bias"}
# Modules of a layer by their CTranslate2 name; several names mean that one linear layer stacks these modules.
_WHISPER_IN_LAYER: dict[str, tuple[str, ...]] = {
    "self_attention/layer_norm": ("self_attn_layer_norm",),
    "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention/linear_1": ("self_attn.out_proj",),
    "attention/layer_norm": ("encoder_attn_layer_norm",),
    "attention/linear_0": ("encoder_attn.q_proj",),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "attention/linear_2": ("encoder_attn.out_proj",),
    "ffn/layer_norm": ("final_layer_norm",),
    "ffn/linear_0": ("fc1",),
    "ffn/linear_1": ("fc2",),
}


def whisper_from_ctranslate2(source: Path, target: Path) -> None:
    """Convert Whisper from ``model.bin``, ``tokenizer.json`` and ``config.json`` of CTranslate2 in ``source``.

    Tensors have the keys of ``transformers``' ``WhisperForConditionalGeneration``, and ``config.json`` is its
    ``WhisperConfig``; ``generation_config.json`` lists the tokens that a transcript never contains.
    """
    with (source / "model.bin").open("rb") as file:
        variables = dict(_ct2_variables(file))
    tensors = {
        f"model.{side}.{name}": tensor
        for side in ("encoder", "decoder")
        for name, tensor in _whisper_tensors(variables, side)
    }
    _write(target, tensors, _whisper_config(tensors, heads=int(variables["encoder/num_heads"])))
    shutil.copyfile(source / TOKENIZER_FILE, target / TOKENIZER_FILE)
    stated = json.loads((source / CONFIG_FILE).read_text(encoding="utf-8"))
    _write_json(
        target / "generation_config.json",
        {"suppress_tokens": stated["suppress_ids"], "begin_suppress_tokens": stated["suppress_ids_begin"]},
    )


def _ct2_variables(file: BinaryIO) -> Iterator[tuple[str, NDArray[Any]]]:
    """Read the variables of a CTranslate2 ``model.bin``, all integers little-endian.

    ``u32`` binary version, string name of the specification, ``u32`` revision, ``u32`` number of variables; then for
    each a string name, ``u8`` rank, ``u32`` for every dimension, ``u8`` data type, ``u32`` bytes, and the values. A
    string is a ``u16`` length, the bytes and a zero, which the length includes. Aliases follow; only the decoder has
    some.
    """

    def read(layout: str) -> tuple[Any, ...]:
        return struct.unpack(f"<{layout}", file.read(struct.calcsize(f"<{layout}")))

    def read_string() -> str:
        (length,) = read("H")
        return file.read(length).rstrip(b"\0").decode()

    (version,) = read("I")
    assert version == _CT2_BINARY_VERSION, f"CTranslate2 binary version {version}"
    read_string()
    _, count = read("II")
    for _ in range(count):
        name = read_string()
        (rank,) = read("B")
        shape = read(f"{rank}I")
        dtype, size = read("BI")
        yield name, np.frombuffer(file.read(size), dtype=_CT2_DTYPES[dtype]).reshape(shape)


def _whisper_tensors(variables: dict[str, NDArray[Any]], side: str) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Tensors of the encoder or the decoder, with names relative to it."""
    yield "embed_positions.weight", variables[f"{side}/position_encodings/encodings"].astype(np.float32)
    for name, value in variables.items():
        scope, _, parameter = name.removeprefix(f"{side}/").rpartition("/")
        if not name.startswith(f"{side}/") or parameter not in _CT2_PARAMETERS:
            continue
        key, weight = _CT2_PARAMETERS[parameter], value.astype(np.float32)
        if not scope.startswith("layer_") or scope == "layer_norm":
            yield f"{'embed_tokens' if scope == 'embeddings' else scope}.{key}", weight
            continue
        layer, _, part = scope.partition("/")
        yield from _split_modules(f"layers.{layer.removeprefix('layer_')}", _WHISPER_IN_LAYER[part], key, weight)


def _split_modules(
    prefix: str, modules: tuple[str, ...], key: str, stacked: NDArray[np.float32]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The parameters of each module. CTranslate2 adds a bias of zeros to keys, which Whisper does not have."""
    for module, weight in zip(modules, np.split(stacked, len(modules)), strict=True):
        if key == "bias" and module.endswith("k_proj"):
            assert not weight.any(), f"{prefix}.{module} has a bias"
        else:
            yield f"{prefix}.{module}.{key}", weight


def _whisper_config(tensors: Tensors, heads: int) -> dict[str, Any]:
    def layers(side: str) -> int:
        return sum(name.startswith(f"model.{side}.") and name.endswith(".fc1.weight") for name in tensors)

    positions, width = tensors["model.encoder.embed_positions.weight"].shape
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "activation_function": "gelu",
        "d_model": width,
        "encoder_layers": layers("encoder"),
        "decoder_layers": layers("decoder"),
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "encoder_ffn_dim": tensors["model.encoder.layers.0.fc1.weight"].shape[0],
        "decoder_ffn_dim": tensors["model.decoder.layers.0.fc1.weight"].shape[0],
        "max_source_positions": positions,
        "max_target_positions": tensors["model.decoder.embed_positions.weight"].shape[0],
        "num_mel_bins": tensors["model.encoder.conv1.weight"].shape[1],
        "vocab_size": tensors["model.decoder.embed_tokens.weight"].shape[0],
        "tie_word_embeddings": True,
        "dtype": "float32",
    }


def _only(files: Iterator[Path]) -> Path:
    (file,) = files
    return file
