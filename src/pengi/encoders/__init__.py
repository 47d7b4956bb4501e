"""Audio encoders by name. A new one is registered with one entry in ``ENCODERS``."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pengi.config import AudioBranchConfig
from pengi.encoders.base import AudioEncoder
from pengi.encoders.htsat import HtsatEncoder
from pengi.encoders.level import LevelEncoder
from pengi.encoders.whisper import WhisperEncoder
from pengi.encoders.yamnet import YamnetClasses, YamnetEncoder, YamnetInnerEncoder, YamnetTagger
from pengi.errors import ConfigError

__all__ = ["ENCODERS", "AudioEncoder", "EncoderSpec", "Role", "build_encoder", "encoder_spec"]


Role = Literal["sound", "speech", "words", "level"]
"""What an encoder is there for: sounds of any kind, speech, sounds as classes that have words, or how loud it is."""


@dataclass(frozen=True)
class EncoderSpec:
    """How an encoder is built: empty, or from the folder of its stock weights (a name of ``pengi.weights``)."""

    weights: str | None
    empty: Callable[[AudioBranchConfig], AudioEncoder]
    stock: Callable[[AudioBranchConfig, Path], AudioEncoder] | None = None
    role: Role = "sound"
    revision: int = 0
    """Of its features: kept ones of another revision are not taken for its own."""


def _never_trained(config: AudioBranchConfig) -> AudioEncoder:
    raise ConfigError(f"the encoder '{config.encoder}' is always frozen; say trained: false")


ENCODERS: dict[str, EncoderSpec] = {
    "yamnet": EncoderSpec(
        weights="yamnet",
        empty=lambda config: YamnetEncoder(config.frozen_layers),
        stock=lambda config, folder: YamnetEncoder.from_folder(folder, config.frozen_layers),
    ),
    "yamnet-conv17": EncoderSpec(
        weights="yamnet",
        empty=lambda config: YamnetInnerEncoder(17),
        stock=lambda config, folder: YamnetInnerEncoder.from_folder(folder, 17),
    ),
    "whisper-tiny.en": EncoderSpec(
        weights="whisper-tiny.en",
        empty=lambda config: WhisperEncoder(stride=config.pool),
        stock=lambda config, folder: WhisperEncoder.from_folder(folder, stride=config.pool),
        role="speech",
    ),
    "whisper-tiny.en-layer2": EncoderSpec(
        weights="whisper-tiny.en",
        empty=lambda config: WhisperEncoder(stride=config.pool, layers=2),
        stock=lambda config, folder: WhisperEncoder.from_folder(folder, stride=config.pool, layers=2),
        role="speech",
    ),
    "yamnet-classes": EncoderSpec(
        weights="yamnet",
        empty=_never_trained,
        stock=lambda config, folder: YamnetClasses(YamnetTagger.from_folder(folder)),
        role="words",
        revision=1,
    ),
    "level": EncoderSpec(
        weights=None,
        empty=lambda config: LevelEncoder(),
        role="level",
    ),
    "htsat-tiny": EncoderSpec(
        weights=None,
        empty=lambda config: HtsatEncoder(),
    ),
    "htsat-tiny-random": EncoderSpec(
        weights=None,
        empty=lambda config: HtsatEncoder.tiny(),
    ),
    "yamnet-tiny-random": EncoderSpec(
        weights=None,
        empty=lambda config: YamnetEncoder.tiny(config.frozen_layers),
    ),
}


def encoder_spec(name: str) -> EncoderSpec:
    """The registered encoder of that name.

    Raises:
        ConfigError: for an unknown name, with the nearest known one.
    """
    if name not in ENCODERS:
        near = difflib.get_close_matches(name, ENCODERS, n=1, cutoff=0.0)[0]
        raise ConfigError(f"unknown audio encoder '{name}'; did you mean '{near}'?")
    return ENCODERS[name]


def build_encoder(config: AudioBranchConfig, stock_folder: Path | None) -> AudioEncoder:
    """An encoder with stock weights from ``stock_folder``, or an empty one to be filled from a checkpoint."""
    spec = encoder_spec(config.encoder)
    encoder = spec.empty(config) if stock_folder is None or spec.stock is None else spec.stock(config, stock_folder)
    if not config.trained:
        encoder.requires_grad_(False)
    return encoder
