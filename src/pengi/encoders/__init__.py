"""Audio encoders by name. A new one needs an entry in ``ENCODERS``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pengi.config import AudioBranchConfig
from pengi.encoders.base import AudioEncoder
from pengi.encoders.htsat import HtsatEncoder
from pengi.encoders.whisper import WhisperEncoder
from pengi.encoders.yamnet import YamnetEncoder
from pengi.errors import ConfigError, no_such

__all__ = ["ENCODERS", "AudioEncoder", "EncoderSpec", "build_encoder", "encoder_spec"]


@dataclass(frozen=True)
class EncoderSpec:
    """How an encoder is built.

    Attributes:
        empty: builds it with random weights, which a checkpoint replaces.
        weights: name of its stock weights in ``pengi.weights``; None if there are none.
        stock: builds it from the folder of its stock weights.
    """

    empty: Callable[[AudioBranchConfig], AudioEncoder]
    weights: str | None = None
    stock: Callable[[AudioBranchConfig, Path], AudioEncoder] | None = None


ENCODERS: dict[str, EncoderSpec] = {
    "yamnet": EncoderSpec(
        weights="yamnet",
        empty=lambda config: YamnetEncoder(config.frozen_layers),
        stock=lambda config, folder: YamnetEncoder.from_folder(folder, config.frozen_layers),
    ),
    "whisper-tiny.en": EncoderSpec(
        weights="whisper-tiny.en",
        empty=lambda config: WhisperEncoder(stride=config.pool),
        stock=lambda config, folder: WhisperEncoder.from_folder(folder, stride=config.pool),
    ),
    "htsat-tiny": EncoderSpec(empty=lambda config: HtsatEncoder()),
    "htsat-tiny-random": EncoderSpec(empty=lambda config: HtsatEncoder.tiny()),
    "yamnet-tiny-random": EncoderSpec(empty=lambda config: YamnetEncoder.tiny(config.frozen_layers)),
}


def encoder_spec(name: str) -> EncoderSpec:
    """The registered encoder of that name.

    Raises:
        ConfigError: for an unknown name.
    """
    if name not in ENCODERS:
        raise ConfigError(no_such("audio encoder", name, ENCODERS))
    return ENCODERS[name]


def build_encoder(config: AudioBranchConfig, stock_folder: Path | None) -> AudioEncoder:
    """An encoder with stock weights from ``stock_folder``; without a folder or stock weights, with random ones."""
    spec = encoder_spec(config.encoder)
    encoder = spec.empty(config) if stock_folder is None or spec.stock is None else spec.stock(config, stock_folder)
    if not config.trained:
        encoder.requires_grad_(False)
    return encoder
