"""Recordings made on the fly, and the real ones where the shared data is at hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

SHARED_DATA = Path(__file__).resolve().parents[2] / "../shared/data"


@pytest.fixture
def write_av() -> Callable[..., Path]:
    """``write_av(path, samples, rate, codec, container, options)``: encode ``[C, S]`` or ``[S]`` with FFmpeg."""

    def write(
        path: Path,
        samples: NDArray[np.float32],
        rate: int,
        codec: str,
        container: str | None = None,
        options: dict[str, str] | None = None,
    ) -> Path:
        samples_CS = np.atleast_2d(samples).astype(np.float32)
        layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(samples_CS)]
        with av.open(str(path), "w", format=container, options=options or {}) as output:
            stream = output.add_stream(codec, rate=rate, layout=layout)
            stream.codec_context.open()  # only an opened encoder tells the container its delay
            frame = av.AudioFrame.from_ndarray(samples_CS, format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
            fitted = av.AudioResampler(stream.format, layout, rate, frame_size=stream.codec_context.frame_size)
            for piece in [*fitted.resample(frame), *fitted.resample(None)]:
                output.mux(stream.encode(piece))
            output.mux(stream.encode(None))
        return path

    return write


@pytest.fixture(scope="session")
def real_clips() -> list[tuple[Path, float]]:
    """Path and length in seconds of one real recording per domain."""
    manifest = SHARED_DATA / "manifest.jsonl"
    if not manifest.exists():
        pytest.skip("the shared recordings are not beside this checkout")
    clips: dict[str, tuple[Path, float]] = {}
    with manifest.open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            clips.setdefault(row["domain"], (SHARED_DATA / row["audio"], row["duration_s"]))
    return list(clips.values())
