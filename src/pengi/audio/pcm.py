"""Reads raw PCM from a pipe: samples without a header, as ``arecord -t raw`` or ``ffmpeg -f s16le`` write them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

from pengi.audio.containers import container_of
from pengi.audio.readers import resampled
from pengi.errors import InputError

ENCODINGS = {"s16le": "<i2", "s32le": "<i4", "f32le": "<f4"}
BLOCK_S = 0.25
"""Length of the blocks that are read, in seconds."""


@dataclass(frozen=True)
class PcmFormat:
    """How samples are written.

    Attributes:
        rate: in Hz.
        channels: number of interleaved channels, which are averaged.
        encoding: one of :data:`ENCODINGS`.

    Raises:
        InputError: if a value is out of range.
    """

    rate: int = 16_000
    channels: int = 1
    encoding: str = "s16le"

    def __post_init__(self) -> None:
        if self.encoding not in ENCODINGS:
            raise InputError(f"there is no encoding '{self.encoding}'; choose one of {', '.join(ENCODINGS)}")
        if not 1_000 <= self.rate <= 768_000:
            raise InputError(f"the rate must be from 1000 to 768000 Hz, not {self.rate}")
        if not 1 <= self.channels <= 64:
            raise InputError(f"there can be 1 to 64 channels, not {self.channels}")


def pcm_blocks(file: IO[bytes], given: PcmFormat, rate: int) -> Iterator[NDArray[np.float32]]:
    """Blocks ``float32[S]`` of a mono waveform, as they arrive from a pipe.

    An incomplete frame at the end is dropped. Samples that are not finite count as 0.

    Args:
        file: open for reading, in binary mode.
        given: how the samples are written.
        rate: of the blocks, in Hz.

    Raises:
        InputError: if the pipe holds a file, whose header and compressed audio would be read as noise.
    """
    blocks = _mono_blocks(file, given)
    return blocks if given.rate == rate else resampled(blocks, given.rate, rate)


def _mono_blocks(file: IO[bytes], given: PcmFormat) -> Iterator[NDArray[np.float32]]:
    """Blocks ``float32[S]`` at the rate of the input."""
    kind = np.dtype(ENCODINGS[given.encoding])
    frame = kind.itemsize * given.channels
    full_scale = 1.0 if kind.kind == "f" else float(-np.iinfo(kind).min)
    rest, is_first = b"", True
    while data := file.read(round(BLOCK_S * given.rate) * frame):
        # Loud samples may look like a bare MPEG frame, which begins with 0xff.
        if is_first and data[0] != 0xFF and (name := container_of(io.BytesIO(data))):
            raise InputError(f"the input is {name}, not raw samples; arecord -t raw and ffmpeg -f s16le write those")
        is_first = False
        data = rest + data
        whole = len(data) - len(data) % frame
        data, rest = data[:whole], data[whole:]
        frames = np.frombuffer(data, kind).reshape(-1, given.channels).astype(np.float64).mean(1) / full_scale
        yield np.nan_to_num(frames, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32)
