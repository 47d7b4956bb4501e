"""Imports a published checkpoint: every entry is mapped and checked; the result is written completely or not at all.

Shape suffixes: K frequency bins, W samples of a window.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from pengi import checkpoint
from pengi.config import CONFIG_FILE
from pengi.encoders.htsat import HtsatEncoder, mel_filterbank
from pengi.errors import CheckpointError, InputError
from pengi.hashes import file_sha256
from pengi.model import PengiModel
from pengi.official import keys
from pengi.official.architectures import (
    ARCHITECTURES,
    LANGUAGE_MODEL_FOLDER,
    TEXT_ENCODER_FOLDER,
    Architecture,
    empty_model,
    parameter_counts,
)
from pengi.official.files import read_state_dict
from pengi.official.keys import PublishedTensor
from pengi.official.vocabularies import TOKENIZER_FILE, find_tokenizers
from pengi.writing import check_new_folder, new_folder

log = logging.getLogger(__name__)

AUTO = "auto"
KERNEL_TOLERANCE = 1e-5  # relative to the largest value; allows for rounding and another order of summation


@dataclass(frozen=True)
class OfficialFiles:
    """A published checkpoint: the file, and its tensors by name."""

    path: Path
    tensors: Mapping[str, Tensor]


def import_official(
    path: Path,
    out: Path,
    *,
    config: str = AUTO,
    tokenizers: Path | None = None,
    architectures: Mapping[str, Architecture] = ARCHITECTURES,
) -> Path:
    """Convert a published checkpoint to a folder that :func:`pengi.checkpoint.load` reads; nothing in it is executed.

    Args:
        path: the ``.pth`` file.
        out: the folder to write; it must not exist, or be empty.
        config: "base", "base-no-text-enc", or "auto" to recognise it by the names of the entries.
        tokenizers: folder with ``gpt2/tokenizer.json`` and, for "base", ``clip-vit-base-patch16/tokenizer.json``;
            with None they are fetched from the Hugging Face hub.
        architectures: the models that ``config`` chooses from, "base" and "base-no-text-enc".

    Returns:
        ``out``.

    Raises:
        CheckpointError: if the file is not a complete checkpoint of that architecture.
        WeightsError: if the tokenizers cannot be fetched, or are not those of the models.
        InputError: for an unknown ``config``, or if ``out`` exists already.
    """
    if config not in (AUTO, *architectures):
        raise InputError(f"unknown configuration '{config}'; choose one of {', '.join((AUTO, *architectures))}")
    check_new_folder(out)
    tensors = read_state_dict(path)
    chosen = architectures[_recognised(tensors, path) if config == AUTO else config]
    found = find_tokenizers(chosen, tokenizers)
    model = empty_model(chosen, found)
    # A checkpoint need not have the counter of BatchNorm's batches.
    published = OfficialFiles(path, {keys.BATCH_COUNTER: torch.tensor(0), **tensors})
    plan = _plan(model)
    _check(model, published, plan)
    _write(model, chosen, published, plan, found, out)
    return out


def _recognised(tensors: Mapping[str, Tensor], path: Path) -> str:
    if not any(name.startswith(keys.HTSAT) for name in tensors):
        example = f"'{min(tensors)}' is one of its entries" if tensors else "it holds no entries"
        raise CheckpointError(f"'{path}' is not a published Pengi checkpoint but another model: {example}")
    return "base" if any(name.startswith("caption_encoder.") for name in tensors) else "base-no-text-enc"


TensorPlan = dict[str, dict[str, tuple[PublishedTensor, Tensor]]]
"""Folder of a weights file ("" for the checkpoint itself) -> name of each tensor -> its source, and the model's tensor
(mostly without memory), whose shape and type it must have."""


def _plan(model: PengiModel) -> TensorPlan:
    plan: TensorPlan = {
        "": {name: (keys.source_of(name), tensor) for name, tensor in checkpoint.stored_tensors(model).items()},
        LANGUAGE_MODEL_FOLDER: {
            name: (PublishedTensor(keys.GPT2 + name), tensor)
            for name, tensor in model.language_model.model.state_dict().items()
            if keys.GPT2 + name != keys.OUTPUT_EMBEDDINGS
        },
    }
    if model.text_encoder is not None:
        plan[TEXT_ENCODER_FOLDER] = {
            name: (PublishedTensor(keys.CLIP + name), tensor)
            for name, tensor in model.text_encoder.model.state_dict().items()
        }
    return plan


def _check(model: PengiModel, published: OfficialFiles, plan: TensorPlan) -> None:
    """Check that every entry of the plan exists, has the right shape and type and is finite, and that no other entries
    exist.

    Raises:
        CheckpointError: with the name of the first wrong entry.
    """
    path, tensors = published.path, published.tensors
    used: set[str] = set()
    for source, target in (entry for entries in plan.values() for entry in entries.values()):
        if source.name not in used:
            _check_entry(published, source.name, target, source.parts)
            used.add(source.name)
    for name, expected in _computed(model):
        _check_entry(published, name, expected)
        if float((tensors[name] - expected).abs().max()) > KERNEL_TOLERANCE * float(expected.abs().max()):
            raise CheckpointError(f"'{path}': '{name}' is not what this architecture computes; it is another model")
        used.add(name)
    _check_entry(published, keys.OUTPUT_EMBEDDINGS, tensors[keys.INPUT_EMBEDDINGS])
    if not torch.equal(tensors[keys.OUTPUT_EMBEDDINGS], tensors[keys.INPUT_EMBEDDINGS]):
        raise CheckpointError(
            f"'{path}': '{keys.OUTPUT_EMBEDDINGS}' differs from the input embeddings, which GPT-2 shares"
        )
    for name in sorted(tensors.keys() - used - {keys.OUTPUT_EMBEDDINGS}):
        if not keys.is_dropped(name, text_encoder=model.text_encoder is not None):
            raise CheckpointError(f"'{path}' has '{name}', which {model.config.name} does not explain")
    _compare_filterbank(model, tensors[keys.MEL_FILTERBANK])


def _check_entry(published: OfficialFiles, name: str, target: Tensor, parts: int = 1) -> None:
    """Check that an entry has the shape of ``parts`` times ``target`` and the same type, and is finite."""
    path, tensors = published.path, published.tensors
    if name not in tensors:
        raise CheckpointError(f"'{path}' lacks '{name}'")
    tensor, shape = tensors[name], list(target.shape)
    if parts > 1:
        shape[0] *= parts
    if list(tensor.shape) != shape:
        raise CheckpointError(f"'{path}': '{name}' has shape {list(tensor.shape)} instead of {shape}")
    if tensor.dtype != target.dtype:
        kinds = (str(kind).removeprefix("torch.") for kind in (tensor.dtype, target.dtype))
        raise CheckpointError(f"'{path}': '{name}' holds {' instead of '.join(kinds)}")
    if not bool(torch.isfinite(tensor).all()):
        raise CheckpointError(f"'{path}': '{name}' holds values that are not finite")


def _encoder(model: PengiModel) -> HtsatEncoder:
    encoder = model.branches["htsat"].encoder
    assert isinstance(encoder, HtsatEncoder)
    return encoder


def _computed(model: PengiModel) -> Iterator[tuple[str, Tensor]]:
    """Name and expected value of the entries that follow from the architecture."""
    encoder = _encoder(model)
    yield keys.STFT_REAL, _stft_kernel(encoder.shape.n_fft, torch.cos)
    yield keys.STFT_IMAGINARY, -_stft_kernel(encoder.shape.n_fft, torch.sin)
    for name, buffer in encoder.swin.state_dict().items():
        if name.endswith("relative_position_index"):
            yield keys.source_of(f"audio.0.encoder.swin.{name}").name, buffer
    stages: Any = encoder.swin.layers
    for index, stage in enumerate(stages):
        height, width = encoder.swin.input_resolutions[index]
        for position, block in enumerate(stage.blocks):
            # A feature map of a single window is not shifted.
            if block.shift_size and min(height, width) > block.window_size:
                mask = block.get_attn_mask(height, width, torch.float32, torch.device("cpu"))
                yield keys.shift_mask_name(index, position), mask


def _stft_kernel(n_fft: int, wave: Callable[[Tensor], Tensor]) -> Tensor:
    """``wave(2 pi k n / N)`` under a periodic Hann window, ``float32[K, 1, W]``."""
    index_W = torch.arange(n_fft)
    # Reduced to less than a full turn while it is an integer, so that the angle is exact.
    turns_KW = torch.outer(torch.arange(n_fft // 2 + 1), index_W) % n_fft
    hann_W = torch.hann_window(n_fft, dtype=torch.float64)
    return (wave(turns_KW * (2 * math.pi / n_fft)) * hann_W)[:, None].float()


def _compare_filterbank(model: PengiModel, filters_KM: Tensor) -> None:
    computed_KM = mel_filterbank(_encoder(model).shape)
    difference = float((filters_KM - computed_KM).abs().max() / computed_KM.max())
    if difference > KERNEL_TOLERANCE:
        log.warning(
            "the checkpoint's mel filterbank differs from the computed one by up to %.2g of its maximum; "
            "the checkpoint's is used",
            difference,
        )


def _write(
    model: PengiModel,
    chosen: Architecture,
    published: OfficialFiles,
    plan: TensorPlan,
    tokenizers: Mapping[str, Tokenizer],
    out: Path,
) -> None:
    """Write everything to a folder beside ``out``, which is then renamed to ``out``."""
    digest = file_sha256(published.path)
    configs = {LANGUAGE_MODEL_FOLDER: chosen.language_model, TEXT_ENCODER_FOLDER: chosen.text_encoder}
    with new_folder(out) as finished:
        for folder, entries in plan.items():
            (finished / folder).mkdir(exist_ok=True)
            save_file(
                {name: _part(published.tensors[source.name], source) for name, (source, _) in entries.items()},
                finished / folder / checkpoint.WEIGHTS_FILE,
                metadata={"format": "pt"},
            )
        for folder, tokenizer in tokenizers.items():
            tokenizer.save(str(finished / folder / TOKENIZER_FILE))
            part_config = configs[folder]
            assert part_config is not None
            part_config.to_json_file(finished / folder / CONFIG_FILE)
        frozen = {checkpoint.OWN_PART + folder: digest for folder in tokenizers}
        config = chosen.model.model_copy(update={"frozen_sha256": frozen})
        (finished / CONFIG_FILE).write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (finished / "README.md").write_text(_card(model, published.path, digest), encoding="utf-8")


def _part(tensor: Tensor, source: PublishedTensor) -> Tensor:
    part = tensor.chunk(source.parts)[source.part] if source.parts > 1 else tensor
    return part.detach().contiguous()


def _card(model: PengiModel, path: Path, digest: str) -> str:
    total, trained = parameter_counts(model)
    prompt = "CLIP ViT-B/16 text tower" if model.text_encoder else "none: GPT-2's token embeddings of the prompt"
    return f"""# {model.config.name}

The model of "Pengi: An Audio Language Model for Audio Tasks" (Deshmukh, Elizalde, Singh, Wang; NeurIPS 2023), converted
from the checkpoint that its authors published. No value was changed.

| | |
|---|---|
| made from | `{path.name}`, SHA-256 `{digest}` |
| audio encoder | HTS-AT tiny; 7 s of 44.1 kHz audio |
| text encoder | {prompt} |
| language model | GPT-2 base, frozen; in `{LANGUAGE_MODEL_FOLDER}/` |
| parameters | {total / 1e6:.1f} M, of which {trained / 1e6:.1f} M are trained |

`config.json` describes the architecture, `model.safetensors` holds what is trained. Licence and terms of use are those
of the published checkpoint and of the parts in it.
"""
