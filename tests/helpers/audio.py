"""Recordings made on the fly, as the content of files, and what is said about those that cannot be read."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from pengi.audio.decode import load
from pengi.errors import AudioError, PengiError

RATE = 16_000
_FRAGMENTED = {"movflags": "frag_keyframe+empty_moov", "frag_duration": "300000"}
"""Options of an MP4 file whose index is spread over the file."""
_MUXED = {
    "m4a": ("aac", "ipod"),
    "mp4": ("aac", "mp4"),
    "fragmented mp4": ("aac", "mp4"),
    "webm": ("libopus", "webm"),
    "mkv": ("aac", "matroska"),
    "wma": ("wmav2", "asf"),
}
"""Codec and container of the formats that FFmpeg writes."""


def complaint(
    source: Any,
    read: Callable[[Any], object] = lambda source: load(source, RATE),
    errors: type[PengiError] | tuple[type[PengiError], ...] = AudioError,
) -> str:
    """The message of the error that reading ``source`` raises, found to be one short sentence."""
    with pytest.raises(errors) as caught:
        read(source)
    message = str(caught.value)
    assert 0 < len(message) < 250
    assert "\n" not in message
    if isinstance(source, Path):
        assert source.name in message
    return message


def written(samples: NDArray[np.floating], rate: int, **kind: str) -> bytes:
    """A file that libsndfile writes."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **kind)
    return file.getvalue()


def encoded(kind: str, samples: NDArray[np.float32]) -> bytes:
    """A mono file of a format that is named by its usual suffix."""
    if kind in _MUXED:
        return muxed([(0.0, samples)], *_MUXED[kind], options=_FRAGMENTED if "fragmented" in kind else None)
    return written(samples, RATE, **({"format": "OGG", "subtype": "OPUS"} if kind == "opus" else {"format": kind}))


def muxed(
    pieces: Sequence[tuple[float, NDArray[np.float32]]],
    codec: str,
    container: str,
    *,
    rate: int = RATE,
    picture_s: float = 0.0,
    options: dict[str, str] | None = None,
) -> bytes:
    """A file of FFmpeg in which each piece of sound, ``[S]`` or ``[C, S]``, begins at a time in seconds, with a picture
    of some length and options of the container."""
    file = io.BytesIO()
    layout = {1: "mono", 6: "5.1"}[len(np.atleast_2d(pieces[0][1]))]
    with av.open(file, "w", format=container, options=options or {}) as output:
        picture = output.add_stream("mpeg4", rate=10) if picture_s else None
        sound = output.add_stream(codec, rate=rate, layout=layout)
        if codec == "wmav2":
            sound.codec_context.bit_rate = 32_000  # its default is beyond what it can encode
        sound.codec_context.open()  # only an opened encoder tells the container its delay
        if picture is not None:
            picture.width = picture.height = 32
            for number in range(round(10 * picture_s)):
                image = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))
                image.pts, image.time_base = number, Fraction(1, 10)
                output.mux(picture.encode(image))
            output.mux(picture.encode(None))
        for start_s, samples in pieces:
            frame = av.AudioFrame.from_ndarray(np.atleast_2d(samples), format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, round(start_s * rate), Fraction(1, rate)
            fitted = av.AudioResampler(sound.format, layout, rate, frame_size=sound.codec_context.frame_size or 1024)
            for part in [*fitted.resample(frame), *fitted.resample(None)]:
                output.mux(sound.encode(part))
        output.mux(sound.encode(None))
    return file.getvalue()


def damaged(content: bytes, random: np.random.Generator) -> bytes:
    """A file with one of the usual accidents, or several of them; headers are hit as often as the rest."""
    for _ in range(random.integers(1, 4)):
        size = len(content)
        at = int(random.integers(size if random.random() < 0.6 else min(size, 200)))
        span = int(random.integers(1, 1 + min(size, int(random.choice([2, 16, 400, 4000])))))
        kind = random.integers(5)
        if kind == 0:
            content = content[: max(1, at)]
        elif kind == 1:
            content = content[:at] + random.bytes(span) + content[at + span :]
        elif kind == 2:
            content = content[:at] + bytes(span) + content[at + span :]
        elif kind == 3:
            content = content[:at] + random.bytes(span) + content[at:]
        else:
            content = content[:at] + content[at + span :] or b"\0"
    return content
