"""Checkpoints: a folder with ``config.json``, ``model.safetensors`` (what is trained), ``README.md`` (model card) and,
for a model with a tagger, ``vocabulary.json``.

Frozen parts are not stored: the configuration names them and records the hash of the file they were made from. An
audio encoder with any trained layer is stored completely, so that it needs no other file. An imported checkpoint has
its language model and text encoder in subfolders, which it names relative to itself (``./language_model``). A model
that is fine-tuned from it and saved elsewhere names the same folders by their full path.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pengi import weights
from pengi.conditioning.vocabulary import VOCABULARY_FILE, Vocabulary
from pengi.config import CONFIG_FILE, AudioBranchConfig, LoraConfig, ModelConfig, read_json
from pengi.encoders import build_encoder, encoder_spec
from pengi.errors import CheckpointError, ConfigError, PengiError, WeightsError
from pengi.language_model import ADAPTER_MARK, LanguageModel
from pengi.model import PengiModel
from pengi.runtime import Runtime, unsupported
from pengi.runtime.decoder import OnnxLanguageModel
from pengi.text_encoder import SentenceEncoder, TextEncoder, text_encoder_from_folder
from pengi.weights import hub
from pengi.writing import replacing, writing

log = logging.getLogger(__name__)

WEIGHTS_FILE = "model.safetensors"
OWN_PART = "./"  # prefix of the name of a frozen part that is in the checkpoint's own folder
TINY_LANGUAGE_MODEL = "tiny-random"
TINY_TEXT_ENCODER = "tiny-random"
_STORED = ("audio.", "tagger.", "text_mapper.", "text_projection.")


def _folder(name: str, tiny: str) -> Path | None:
    if name == tiny:
        return None
    local = Path(name)
    return local if local.is_dir() else weights.resolve(name)


@dataclass(frozen=True)
class _LanguageModelLoader:
    """How to load the language model: its runtime, and adapters that are merged into it."""

    dtype: torch.dtype
    runtime: Runtime = "torch"
    lora: LoraConfig | None = None
    adapters: Mapping[str, Tensor] = field(default_factory=dict)
    adapters_file: Path | None = None

    def load(self, folder: Path | None) -> LanguageModel:
        """The language model of a folder, or the random one.

        Raises:
            CheckpointError: if the adapters do not fit.
        """
        try:
            return self._load(folder)
        except ConfigError as error:
            if self.lora is None:
                raise
            raise CheckpointError(f"'{self.adapters_file}': {error}") from error

    def _load(self, folder: Path | None) -> LanguageModel:
        if folder is not None and self.runtime != "torch":
            model = self._in_onnxruntime(folder)
            if model is not None:
                return model
        model = LanguageModel.from_folder(folder, self.dtype) if folder else LanguageModel.tiny()
        if self.lora is not None:
            model.merge_lora(self.lora, self.adapters)
        return model

    def _in_onnxruntime(self, folder: Path) -> LanguageModel | None:
        """The language model in onnxruntime; None if "auto" has to fall back to torch."""
        if self.runtime == "auto" and (self.dtype != torch.float32 or unsupported(folder) is not None):
            return None
        try:
            return OnnxLanguageModel.from_folder(folder, self.dtype, self.lora, self.adapters)
        except WeightsError as error:
            if self.runtime == "onnx":
                raise
            log.warning("%s; the language model runs in torch, which is slower", error)
            return None


def _build(config: ModelConfig, loader: _LanguageModelLoader, *, stock: bool) -> PengiModel:
    """Resolve every path first, then build, so that a missing download fails before any work is done."""
    language_model = _folder(config.language_model.name, TINY_LANGUAGE_MODEL)
    text_encoder = _folder(config.text.encoder, TINY_TEXT_ENCODER) if config.text.encoder else None
    branches = list(config.audio.values())
    stock_folders = _stock_folders(branches, stock=stock)
    with _naming_damage(language_model, text_encoder, *stock_folders):
        model = PengiModel(
            config.model_copy(update={"frozen_sha256": _frozen_hashes(config)}),
            [build_encoder(branch, folder) for branch, folder in zip(branches, stock_folders, strict=True)],
            _text_encoder(config, text_encoder),
            loader.load(language_model),
        )
    if config.language_model.lora is not None:  # last, so that other parts get the same random weights without it
        model.language_model.add_lora(config.language_model.lora)
    return model


@contextmanager
def _naming_damage(*folders: Path | None) -> Iterator[None]:
    """If loading fails because a file in one of the folders is damaged, raise an error that names the file."""
    try:
        yield
    except PengiError:
        raise
    except Exception as error:  # of any library that reads a part; raised again if no file is damaged
        for folder in filter(None, folders):
            for file in sorted(folder.iterdir()):
                if problem := weights.unreadable(file):
                    raise CheckpointError(f"'{file}' is damaged: {problem}") from error
        raise


def _stock_folders(audio: Sequence[AudioBranchConfig], *, stock: bool) -> list[Path | None]:
    """Folder of the stock weights of each branch's encoder; None for a trained encoder unless ``stock`` is set."""
    names = [encoder_spec(branch.encoder).weights if stock or not branch.trained else None for branch in audio]
    return [None if name is None else weights.resolve(name) for name in names]


def _text_encoder(config: ModelConfig, folder: Path | None) -> TextEncoder | None:
    if config.text.encoder is None:
        return None
    return text_encoder_from_folder(folder, config.text.max_tokens) if folder else SentenceEncoder.tiny()


def _frozen_hashes(config: ModelConfig) -> dict[str, str]:
    """SHA-256 of each frozen part on this machine, by name; folders and random parts are left out."""
    encoders = [encoder_spec(branch.encoder).weights for branch in config.audio.values() if not branch.trained]
    fetched = [
        name
        for name in (config.language_model.name, config.text.encoder, *encoders)
        if name and name not in (TINY_LANGUAGE_MODEL, TINY_TEXT_ENCODER) and not Path(name).is_dir()
    ]
    return {name: str(weights.provenance(name)["weights_sha256"]) for name in dict.fromkeys(fetched)}


def create(config: ModelConfig, lm_dtype: torch.dtype = torch.float32) -> PengiModel:
    """A model to train: stock encoders, fresh mappers.

    Raises:
        ConfigError, WeightsError: for unknown names and weights that cannot be fetched.
    """
    return _build(config, _LanguageModelLoader(lm_dtype), stock=True)


def stored_tensors(model: PengiModel) -> dict[str, Tensor]:
    """What a checkpoint holds, by name: mappers, projections, the tagger, trained encoders, LoRA's adapters."""
    branches = enumerate(model.config.audio.values())
    frozen = tuple(f"audio.{index}.encoder." for index, branch in branches if not branch.trained)
    return {
        name: tensor
        for name, tensor in model.state_dict().items()
        if (name.startswith(_STORED) and not name.startswith(frozen))
        or (name.startswith("language_model.") and ADAPTER_MARK in name)
    }


def save(model: PengiModel, folder: Path, *, card: str, dtype: torch.dtype = torch.float32) -> None:
    """Write a checkpoint; each file appears complete or not at all.

    Args:
        model: what to store.
        folder: created if it does not exist.
        card: text of the model card (Markdown).
        dtype: of the stored floating-point tensors.

    Raises:
        CheckpointError: if adapters were merged into the language model, which a checkpoint does not hold.
        InputError: if the folder cannot be written.
    """
    if model.language_model.merged:
        raise CheckpointError("this model's adapters are merged; load it with to_train=True to store it again")
    tensors = {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous().cpu()
        for name, tensor in stored_tensors(model).items()
    }
    config = model.config.model_dump_json(indent=2, exclude_defaults=True) + "\n"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / WEIGHTS_FILE) as partial:
        save_file(tensors, partial, metadata={"format": "pt", "model": model.config.name})
    texts = {CONFIG_FILE: config, "README.md": card}
    if model.tagger is not None:
        texts[VOCABULARY_FILE] = json.dumps(model.tagger.vocabulary.to_json(), ensure_ascii=False, indent=1) + "\n"
    for name, text in texts.items():
        with replacing(folder / name) as partial:
            partial.write_text(text, encoding="utf-8")


def model_folder(name_or_path: str | Path, *, revision: str | None = None, local_files_only: bool = False) -> Path:
    """The folder of a model: a path to a checkpoint, a name that `pengi models` lists, or "user/model" of the hub.

    Args:
        name_or_path: see above.
        revision: see :func:`pengi.weights.hub.fetch`.
        local_files_only: see :func:`pengi.weights.hub.fetch`.

    Raises:
        CheckpointError: if there is no folder at a path, the name is that of a part that models are built from, or a
            revision is given for a model that is not from the hub.
        WeightsError: for an unknown name, a published model that is not on this machine, and what cannot be fetched.
    """
    folder = Path(name_or_path)
    if not folder.is_dir() and hub.is_repository(str(name_or_path)):
        return hub.fetch(str(name_or_path), revision=revision, local_files_only=local_files_only)
    if revision is not None:
        raise CheckpointError(f"'{name_or_path}' is not a repository of the Hugging Face hub, so it has no revision")
    if folder.is_dir():
        return folder
    if len(folder.parts) > 1:
        raise CheckpointError(f"no model folder at '{folder}'")
    name = str(name_or_path)
    if name in weights.part_names():
        raise CheckpointError(
            f"'{name}' is a part that models are built from, not a model; models are {', '.join(weights.model_names())}"
        )
    return weights.resolve(name)


def push(
    folder: Path, repo: str, *, private: bool = False, revision: str | None = None, message: str | None = None
) -> str:
    """Upload a checkpoint to the Hugging Face hub; see :func:`pengi.weights.hub.push`.

    Raises:
        CheckpointError, ConfigError: if it is not a checkpoint, or names a part by a folder of this machine.
        WeightsError: if the hub refuses, or cannot be reached.
    """
    config = read_json(ModelConfig, folder / CONFIG_FILE)
    if not (folder / WEIGHTS_FILE).is_file():
        raise CheckpointError(f"the checkpoint '{folder}' has no {WEIGHTS_FILE}")
    for name in (config.language_model.name, config.text.encoder):
        if name is not None and Path(name).is_absolute():
            raise CheckpointError(f"the checkpoint needs '{name}', a folder on this machine that others do not have")
    return hub.push(folder, repo, private=private, revision=revision, message=message)


def load(
    folder: Path, lm_dtype: torch.dtype = torch.float32, *, to_train: bool = False, runtime: Runtime = "torch"
) -> PengiModel:
    """Read a checkpoint folder.

    Args:
        folder: of the checkpoint.
        lm_dtype: of the language model.
        to_train: keep LoRA's adapters separate, which needs peft; else they are merged into the language model.
        runtime: "torch", "onnx" (onnxruntime: on the CPU, in float32, not to train), or "auto": onnxruntime where it
            can run the language model.

    Raises:
        CheckpointError: if a file is missing or malformed, or its tensors do not fit the configuration.
        ConfigError, WeightsError: as for :func:`create`; also if the vocabulary is missing or damaged.
    """
    if not folder.is_dir():
        raise CheckpointError(f"no checkpoint folder at '{folder}'")
    config = _with_full_paths(read_json(ModelConfig, folder / CONFIG_FILE), folder)
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise CheckpointError(f"the checkpoint '{folder}' has no {WEIGHTS_FILE}")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"'{path}' is not a readable safetensors file ({error})") from error
    loader = _LanguageModelLoader(lm_dtype, "torch" if to_train else runtime)
    if config.language_model.lora is not None and not to_train:
        adapters = {name: tensors.pop(name) for name in list(tensors) if ADAPTER_MARK in name}
        adapters = {name.removeprefix("language_model."): tensor for name, tensor in adapters.items()}
        loader = replace(loader, lora=config.language_model.lora, adapters=adapters, adapters_file=path)
        alone = config.language_model.model_copy(update={"lora": None})
        config = config.model_copy(update={"language_model": alone})
    model = _build(config, loader, stock=False)
    if config.tagger is not None:
        model.set_vocabulary(Vocabulary.read(folder))
    _fill(model, tensors, path)
    for name, recorded in config.frozen_sha256.items():
        if model.config.frozen_sha256.get(name, recorded) != recorded:
            log.warning("'%s' is not the version that '%s' was trained with; answers may differ", name, folder)
    return model.eval()


def model_hash(name_or_path: str | Path) -> str:
    """SHA-256 of a model's configuration, trained weights and vocabulary, which identifies the model.

    Raises:
        WeightsError: for a name that cannot be found.
        CheckpointError: if it is not a model, or a file is missing.
    """
    folder = model_folder(name_or_path)
    digest = hashlib.sha256()
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        try:
            digest.update((folder / name).read_bytes())
        except FileNotFoundError as error:
            raise CheckpointError(f"the checkpoint '{folder}' has no {name}") from error
    if (folder / VOCABULARY_FILE).is_file():
        digest.update((folder / VOCABULARY_FILE).read_bytes())
    return digest.hexdigest()


def _with_full_paths(config: ModelConfig, folder: Path) -> ModelConfig:
    """The configuration with the full path of each frozen part that is in the checkpoint's own folder."""

    def full_path(name: str) -> str:
        if not name.startswith(OWN_PART):
            return name
        part = folder / name.removeprefix(OWN_PART)
        if not part.is_dir():
            raise CheckpointError(f"the checkpoint '{folder}' lacks its folder '{part.name}'")
        return str(part.resolve())

    text, language_model = config.text, config.language_model
    if text.encoder is not None:
        text = text.model_copy(update={"encoder": full_path(text.encoder)})
    language_model = language_model.model_copy(update={"name": full_path(language_model.name)})
    return config.model_copy(update={"text": text, "language_model": language_model})


def _fill(model: PengiModel, tensors: dict[str, Tensor], path: Path) -> None:
    expected = stored_tensors(model)
    missing, unknown = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or unknown:
        what = f"lacks '{missing[0]}'" if missing else f"has '{unknown[0]}', which its configuration does not explain"
        raise CheckpointError(f"'{path}' {what} ({len(missing)} missing, {len(unknown)} unknown tensors)")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            shapes = f"{list(tensor.shape)} instead of {list(expected[name].shape)}"
            raise CheckpointError(f"'{path}': tensor '{name}' has shape {shapes}")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"'{path}': tensor '{name}' holds values that are not finite")
    model.load_state_dict(tensors, strict=False)
