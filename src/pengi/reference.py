"""What the official wrapper does differently from this package, each as a switch that is off by default.

The quirks are facts about Pengi's published code (``docs/reference.md`` says what each changes). With them a published
number can be derived again; without them clips are heard whole, answers do not depend on chance, and scores belong to
the texts beside them.

Shape suffixes: C channels, S samples.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pengi.audio.decode import AudioSource, load, load_channels, stream
from pengi.audio.windows import crop
from pengi.errors import InputError


@dataclass(frozen=True)
class ReferenceQuirks:
    """Which of the official wrapper's ways to follow; all are off by default.

    An engine takes them once (``Pengi.from_pretrained("pengi-base", quirks=ReferenceQuirks.all())``) and follows them
    in every call but ``timeline``.
    """

    raw_prompt_embedding: bool = False
    """The projected prompt embedding keeps its length on its way into m2, though training scaled it to length one."""
    random_crop: bool = False
    """Of a clip longer than the model's window only one window is heard, at a random place."""
    flat_channels: bool = False
    """A recording's channels are heard one after the other, as one long channel, instead of mixed down."""
    extra_text_by_character: bool = False
    """Of the extra text of the i-th recording of a call only the i-th character reaches the language model."""
    scores_out_of_order: bool = False
    """Texts are sorted by score and their scores are left in the order of the search."""
    stop_at_space: bool = False
    """A text ends at the first token of `` <|endoftext|>``, which for GPT-2 is a lone space, not at the end token."""
    keep_offset: bool = False
    """A constant offset (DC) of a recording reaches the encoders."""
    ask_about_silence: bool = False
    """The model is asked about recordings below the silence threshold, too."""
    reference_search: bool = False
    """Beams are searched as in ``DecodeOptions(search="reference")``, whatever the options of a call say."""
    crop_seed: int | None = None
    """Seed of ``random_crop``: the same seed and recording give the same place, alone and in a batch. None draws from
    the operating system, as the official wrapper does."""

    @classmethod
    def all(cls, crop_seed: int | None = None) -> Self:
        """The official wrapper's behaviour whole."""
        switches = {field.name: True for field in dataclasses.fields(cls) if field.name != "crop_seed"}
        return replace(cls(crop_seed=crop_seed), **switches)


def heard(
    source: AudioSource,
    rate: int,
    window: int,
    quirks: ReferenceQuirks,
    track: int | None = None,
    partial: bool = False,
    notes: list[str] | None = None,
) -> Iterator[NDArray[np.float32]]:
    """A recording in blocks ``float32[S]`` at ``rate`` Hz, as :func:`pengi.audio.decode.stream` or by the quirks.

    Args:
        source: the recording.
        rate: in Hz.
        window: samples that the model hears at once; of ``random_crop`` so many are left.
        quirks: ``flat_channels`` and ``random_crop`` matter here.
        track: as for :func:`pengi.audio.decode.load`.
        partial: as for :func:`pengi.audio.decode.load`.
        notes: gets the sentences about the reading added.

    Raises:
        AudioError, InputError: as for :func:`pengi.audio.decode.load`; also if channels are to be read apart and their
            number changes on the way.
    """
    if not (quirks.flat_channels or quirks.random_crop):
        yield from stream(source, rate, track=track, partial=partial, notes=notes)
        return
    if quirks.flat_channels:
        samples_S = load_channels(source, rate, track=track, partial=partial, notes=notes).reshape(-1)
    else:
        samples_S = load(source, rate, track=track, partial=partial, notes=notes)
    if quirks.random_crop:
        # The recording itself is part of the seed, so that recordings of one length are not all cut at one place.
        seed = None if quirks.crop_seed is None else [quirks.crop_seed, zlib.crc32(samples_S.tobytes())]
        samples_S = crop(samples_S, window, generator=np.random.default_rng(seed))
    yield samples_S


def extra_text(texts: Sequence[str], place: int, quirks: ReferenceQuirks) -> str:
    """What the language model reads of the extra text of the recording at ``place`` of a call.

    Raises:
        InputError: by character, if the text has none at that place.
    """
    text = texts[place]
    if not quirks.extra_text_by_character or not text:
        return text
    if place >= len(text):
        raise InputError(
            f"the extra text '{text}' is too short: of recording {place} the official wrapper takes character {place}, "
            "counted from 0; write a longer one or leave extra_text_by_character off"
        )
    return text[place]
