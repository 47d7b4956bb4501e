"""Quirks: the differences between the official wrapper and this package, each as a switch.

``docs/reference.md`` explains each of them. They are needed to reproduce published numbers. Without them whole
recordings are encoded, answers are deterministic, and each text has the right score.

Shape suffixes: S samples.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pengi.audio.decode import AudioSource, load
from pengi.audio.windows import crop
from pengi.errors import InputError


@dataclass(frozen=True)
class ReferenceQuirks:
    """Which quirks of the official wrapper to follow; all are off by default.

    They are set when an engine is made (:class:`pengi.official.OfficialPengi`) and apply to every call except
    ``timeline``.
    """

    raw_prompt_embedding: bool = False
    """The projected prompt embedding is not scaled to length one before m2, although it was in training."""
    random_crop: bool = False
    """Of a clip that is longer than the model's window only one window, at a random position, is encoded."""
    flat_channels: bool = False
    """The channels of a recording are concatenated instead of mixed down."""
    extra_text_by_character: bool = False
    """Only the i-th character of the extra text of the i-th recording of a call reaches the language model."""
    scores_out_of_order: bool = False
    """Texts are sorted by score, but their scores stay in the order of the search."""
    stop_at_space: bool = False
    """A text ends at the first token of `` <|endoftext|>`` (for GPT-2 a lone space) instead of the end token."""
    keep_offset: bool = False
    """A constant offset (DC) of a recording is not removed before the encoders."""
    ask_about_silence: bool = False
    """The model also answers about recordings below the silence threshold."""
    reference_search: bool = False
    """The search of :class:`pengi.official.ReferenceOptions` replaces that of a call's options."""
    crop_seed: int | None = None
    """Seed of ``random_crop``: the same seed and recording give the same position, alone and in a batch. None draws
    from the operating system, as the official wrapper does."""

    @classmethod
    def all(cls, crop_seed: int | None = None) -> Self:
        """The official wrapper's behaviour, with all quirks."""
        switches = {field.name: True for field in dataclasses.fields(cls) if field.name != "crop_seed"}
        return replace(cls(crop_seed=crop_seed), **switches)


def read(
    source: AudioSource,
    rate: int,
    window: int,
    quirks: ReferenceQuirks,
    *,
    track: int | None = None,
    partial: bool = False,
    notes: list[str] | None = None,
) -> NDArray[np.float32]:
    """A recording ``float32[S]`` at ``rate`` Hz as the official wrapper encodes it.

    Args:
        source: the recording.
        rate: in Hz.
        window: number of samples that the model encodes at once, and that ``random_crop`` keeps.
        quirks: ``flat_channels`` and ``random_crop`` matter here.
        track: as for :func:`pengi.audio.decode.load`.
        partial: as for :func:`pengi.audio.decode.load`.
        notes: a list to which sentences about the reading are added.

    Raises:
        AudioError, InputError: as :func:`pengi.audio.decode.load`.
    """
    mono = not quirks.flat_channels
    samples_S = load(source, rate, mono=mono, track=track, partial=partial, notes=notes).reshape(-1)
    if quirks.random_crop:
        # The recording is part of the seed, so that recordings of one length are not all cropped at the same position.
        seed = None if quirks.crop_seed is None else [quirks.crop_seed, zlib.crc32(samples_S.tobytes())]
        samples_S = crop(samples_S, window, generator=np.random.default_rng(seed))
    return samples_S


def by_character(texts: Sequence[str]) -> list[str]:
    """The i-th character of the i-th extra text, both counted from 0; an empty text stays empty.

    Raises:
        InputError: if a text is too short.
    """
    for index, text in enumerate(texts):
        if text and index >= len(text):
            raise InputError(
                f"the extra text '{text}' is too short: for recording {index} the official wrapper uses character "
                f"{index}, counted from 0; write a longer one or leave extra_text_by_character off"
            )
    return [text[index] if text else "" for index, text in enumerate(texts)]
