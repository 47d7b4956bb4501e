"""Maps every entry of a published state dict to a tensor of this package, or drops it if it is not needed.

official                                       here
audio_encoder.base.htsat.*                     audio.0.encoder.*  (the Swin layers as transformers' CLAP names them)
audio_encoder.projection.*                     audio.0.projection.*
caption_encoder.base.*                         text_encoder/
caption_encoder.clip_text_projection           text_projection.inner
caption_encoder.projection.*                   text_projection.*
caption_decoder.gpt.*                          language_model/
caption_decoder.audio_project.*                audio.0.mapper.*
caption_decoder.text_project.*                 text_mapper.*
"""

from __future__ import annotations

import re
from dataclasses import dataclass

HTSAT = "audio_encoder.base.htsat."
STFT_REAL = f"{HTSAT}spectrogram_extractor.stft.conv_real.weight"
STFT_IMAGINARY = f"{HTSAT}spectrogram_extractor.stft.conv_imag.weight"
MEL_FILTERBANK = f"{HTSAT}logmel_extractor.melW"
GPT2 = "caption_decoder.gpt."
CLIP = "caption_encoder.base."
OUTPUT_EMBEDDINGS = f"{GPT2}lm_head.weight"
INPUT_EMBEDDINGS = f"{GPT2}transformer.wte.weight"
BATCH_COUNTER = f"{HTSAT}bn0.num_batches_tracked"

_PREFIXES = (
    ("audio.0.encoder.swin.", HTSAT),
    ("audio.0.encoder.", HTSAT),
    ("audio.0.projection.", "audio_encoder.projection."),
    ("audio.0.mapper.", "caption_decoder.audio_project."),
    ("text_projection.inner.", "caption_encoder.clip_text_projection."),
    ("text_projection.", "caption_encoder.projection."),
    ("text_mapper.", "caption_decoder.text_project."),
)
_SWIN = (
    ("batch_norm.", "bn0."),
    (".attention.self.", ".attn."),
    (".attention.output.dense.", ".attn.proj."),
    (".layernorm_before.", ".norm1."),
    (".layernorm_after.", ".norm2."),
    (".intermediate.dense.", ".mlp.fc1."),
    (".output.dense.", ".mlp.fc2."),
)
_QUERY_KEY_VALUE = ("query", "key", "value")

# GPT-2's causal masks and CLIP's position ids, which newer versions of transformers compute and do not store.
_DROPPED_BUFFERS = re.compile(
    r"caption_decoder\.gpt\.transformer\.h\.\d+\.attn\.(bias|masked_bias)"
    r"|caption_encoder\.base\.embeddings\.position_ids"
)
# The official model without a text encoder has a linear layer in m2 that it does not use.
_UNUSED_LINEAR = re.compile(r"caption_decoder\.text_project\.linear\.(weight|bias)")


@dataclass(frozen=True)
class PublishedTensor:
    """The source of a tensor: an official entry, or part number ``part`` (from 0) of its ``parts`` equal parts."""

    name: str
    part: int = 0
    parts: int = 1


def source_of(name: str) -> PublishedTensor:
    """The official entry for a tensor of ``model.safetensors``."""
    ours, theirs = next(pair for pair in _PREFIXES if name.startswith(pair[0]))
    rest = name.removeprefix(ours)
    if ours.endswith("swin."):
        return _swin_source(theirs, rest)
    if ours.endswith("mapper."):
        return PublishedTensor(theirs + _mapper_name(rest))
    if ours.endswith("projection."):
        return PublishedTensor(theirs + (f"layer_{rest}" if rest.startswith("norm.") else rest))
    return PublishedTensor(MEL_FILTERBANK if rest == "mel_KM" else theirs + rest)


def is_dropped(name: str, *, text_encoder: bool) -> bool:
    """Whether a known entry is not needed: a buffer that is computed here, or an unused layer."""
    return bool(_DROPPED_BUFFERS.fullmatch(name)) or (not text_encoder and bool(_UNUSED_LINEAR.fullmatch(name)))


def shift_mask_name(stage: int, block: int) -> str:
    """The entry that holds the attention mask of a block of shifted windows."""
    return f"{HTSAT}layers.{stage}.blocks.{block}.attn_mask"


def _swin_source(prefix: str, rest: str) -> PublishedTensor:
    for part, kind in enumerate(_QUERY_KEY_VALUE):
        if f".attention.self.{kind}." in rest:
            name = rest.replace(f".attention.self.{kind}.", ".attn.qkv.")
            return PublishedTensor(prefix + name, part, len(_QUERY_KEY_VALUE))
    for ours, theirs in _SWIN:
        rest = rest.replace(ours, theirs)
    return PublishedTensor(prefix + rest)


def _mapper_name(rest: str) -> str:
    if rest == "constants_CW":
        return "prefix_const"
    rest = re.sub(r"\.(to_queries|to_keys_values|project)\.", r".attn.\1.", rest)
    rest = re.sub(r"\.(fc1|fc2)\.", r".mlp.\1.", rest)
    return f"transformer.{rest}" if rest.startswith("layers.") else rest
