"""Recordings made on the fly, as the content of files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

RATE = 16_000


def written(samples: NDArray[np.floating], rate: int, **kind: str) -> bytes:
    """A file that libsndfile writes."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **kind)
    return file.getvalue()


def muxed(
    pieces: Sequence[tuple[float, NDArray[np.float32]]],
    codec: str,
    container: str,
    *,
    rate: int = RATE,
    picture_s: float = 0.0,
) -> bytes:
    """A file in which each piece of sound begins at a time in seconds, with a picture of some length."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        picture = output.add_stream("mpeg4", rate=10) if picture_s else None
        sound = output.add_stream(codec, rate=rate, layout="mono")
        sound.codec_context.open()
        if picture is not None:
            picture.width = picture.height = 32
            for number in range(round(10 * picture_s)):
                image = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))
                image.pts, image.time_base = number, Fraction(1, 10)
                output.mux(picture.encode(image))
            output.mux(picture.encode(None))
        for start_s, samples in pieces:
            frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, round(start_s * rate), Fraction(1, rate)
            fitted = av.AudioResampler(sound.format, "mono", rate, frame_size=sound.codec_context.frame_size or 1024)
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
