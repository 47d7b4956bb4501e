"""The paper's two models: sizes, configurations and parameter counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from tokenizers import Tokenizer
from transformers import CLIPTextConfig, CLIPTextModel, GPT2Config, GPT2LMHeadModel

from pengi.checkpoint import OWN_PART
from pengi.config import AudioBranchConfig, LanguageModelConfig, ModelConfig, ProjectionConfig, TransformerMapperConfig
from pengi.config import TextBranchConfig as TextConfig
from pengi.encoders import build_encoder
from pengi.encoders.htsat import HtsatEncoder
from pengi.language_model import LanguageModel
from pengi.model import PengiModel
from pengi.text_encoder import ClipTextEncoder

LANGUAGE_MODEL_FOLDER = "language_model"
TEXT_ENCODER_FOLDER = "text_encoder"
END_OF_TEXT = "<|endoftext|>"
START_OF_TEXT = "<|startoftext|>"


@dataclass(frozen=True)
class Architecture:
    """Configurations of a model of the paper's kind and of its frozen parts; ``text_encoder`` may be None."""

    model: ModelConfig
    language_model: GPT2Config
    text_encoder: CLIPTextConfig | None = None


def architecture(
    name: str,
    encoder: str,
    language_model: dict[str, Any],
    text_encoder: dict[str, Any] | None,
    *,
    projection: int = 1024,
    prefix_tokens: int = 40,
    window_s: float = 7.0,
) -> Architecture:
    """A model of the paper's kind with parts of these sizes, given as keys of ``GPT2Config`` and ``CLIPTextConfig``."""
    clip = None if text_encoder is None else CLIPTextConfig(**text_encoder)

    def mapper(reads: Literal["pooled", "sequence"]) -> TransformerMapperConfig:
        return TransformerMapperConfig(kind="transformer", tokens=prefix_tokens, input=reads)

    if clip is None:
        # The official code appends a space and the end token, pads with token 0, and does not mask the padding.
        text = TextConfig(
            max_tokens=prefix_tokens, suffix=f" {END_OF_TEXT}", pad_token=0, mapper=mapper("sequence")
        )  # fmt: skip
    else:
        text = TextConfig(
            encoder=OWN_PART + TEXT_ENCODER_FOLDER,
            max_tokens=prefix_tokens,
            projection=ProjectionConfig(width=projection, inner=clip.projection_dim),
            mapper=mapper("pooled"),
        )
    audio = AudioBranchConfig(
        encoder=encoder,
        window_s=window_s,
        max_tokens=64,
        projection=ProjectionConfig(width=projection),
        mapper=mapper("pooled"),
    )
    language = LanguageModelConfig(name=OWN_PART + LANGUAGE_MODEL_FOLDER, target_tokens=77)
    model = ModelConfig(name=name, audio={"htsat": audio}, text=text, language_model=language)
    return Architecture(model, GPT2Config(**language_model), clip)


CLIP_VIT_B_16 = {"bos_token_id": 49_406, "eos_token_id": 49_407, "pad_token_id": 49_407}
"""The text tower's sizes are the defaults of ``CLIPTextConfig``: 512 features, 12 layers, 8 heads, 49,408 tokens."""

ARCHITECTURES = {
    "base": architecture("pengi-base", "htsat-tiny", {}, CLIP_VIT_B_16),
    "base-no-text-enc": architecture("pengi-base-no-text-enc", "htsat-tiny", {}, None),
}


def empty_model(chosen: Architecture, tokenizers: dict[str, Tokenizer]) -> PengiModel:
    """The model with its parameters on torch's ``meta`` device, except for the audio encoder, which is real."""
    encoders = [build_encoder(branch, None) for branch in chosen.model.audio.values()]
    with torch.device("meta"):
        end_id = chosen.language_model.eos_token_id
        assert isinstance(end_id, int)
        language_model = LanguageModel(
            GPT2LMHeadModel(chosen.language_model), tokenizers[LANGUAGE_MODEL_FOLDER], end_id
        )
        text_encoder = None
        if chosen.text_encoder is not None:
            text_encoder = ClipTextEncoder(
                CLIPTextModel(chosen.text_encoder), tokenizers[TEXT_ENCODER_FOLDER], chosen.model.text.max_tokens
            )
        return PengiModel(chosen.model, encoders, text_encoder, language_model)


def parameter_counts(model: PengiModel) -> tuple[int, int]:
    """Number of all parameters and of the trained ones, counted as in the paper: 323.4 M and 134.8 M.

    The official code keeps the STFT kernels and the mel filterbank as parameters that are never trained (1.1 M). Here
    an FFT replaces the kernels; they are counted nevertheless.
    """
    parameters = list(model.parameters())
    total = sum(parameter.numel() for parameter in parameters)
    for branch in model.branches.values():
        if isinstance(branch.encoder, HtsatEncoder):
            shape = branch.encoder.shape
            bins = shape.n_fft // 2 + 1
            total += 2 * bins * shape.n_fft + bins * shape.mel_bands
    return total, sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
