"""Randomly damaged files: each gives samples or one sentence, and neither hangs nor fills the memory."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from helpers.audio import damaged, muxed, written
from pengi.audio.decode import probe, stream
from pengi.errors import AudioError

RATE = 16_000
SOUND = np.random.default_rng(0).uniform(-0.4, 0.4, 3 * RATE // 2).astype(np.float32)
STEREO = np.stack([SOUND, SOUND[::-1]], axis=1)
FORMATS: dict[str, Callable[[], bytes]] = {
    "wav": lambda: written(STEREO, RATE, format="WAV", subtype="PCM_16"),
    "gsm": lambda: written(SOUND, 8_000, format="WAV", subtype="GSM610"),
    "aiff": lambda: written(SOUND, RATE, format="AIFF", subtype="PCM_24"),
    "w64": lambda: written(SOUND, RATE, format="W64", subtype="FLOAT"),
    "caf": lambda: written(SOUND, RATE, format="CAF", subtype="PCM_16"),
    "flac": lambda: written(STEREO, RATE, format="FLAC"),
    "mp3": lambda: written(STEREO, RATE, format="MP3"),
    "vorbis": lambda: written(SOUND, RATE, format="OGG", subtype="VORBIS") * 2,
    "opus": lambda: written(SOUND, RATE, format="OGG", subtype="OPUS") * 2,
    "aac": lambda: muxed([(0.0, SOUND)], "aac", "adts"),
    "m4a": lambda: muxed([(0.0, SOUND)], "aac", "mp4"),
    "webm": lambda: muxed([(0.0, SOUND)], "libopus", "webm"),
    "mkv": lambda: muxed([(0.5, SOUND)], "flac", "matroska", picture_s=1.0),
    "ts": lambda: muxed([(0.5, SOUND)], "mp2", "mpegts", picture_s=1.0),
    "ac3": lambda: muxed([(0.0, SOUND)], "ac3", "ac3", rate=48_000),
    "wv": lambda: muxed([(0.0, SOUND)], "wavpack", "wv"),
}
FILES_PER_FORMAT = 20
MAX_SECONDS_EACH = 20.0
MAX_SOUND_S = 1_300.0


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    def interrupt(*_: object) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def outcome(content: bytes, *, partial: bool) -> str:
    """What became of a file, once it was found to be as it must be."""
    try:
        with limited(MAX_SECONDS_EACH):
            samples = 0
            for block in stream(content, RATE, partial=partial):
                samples += len(block)
                assert np.isfinite(block).all()
                assert len(block) <= 11 * RATE
            info = probe(content, partial=partial)
    except AudioError as error:
        message = str(error)
        assert message.startswith("'audio in memory'")
        assert "\n" not in message
        assert len(message) < 250
        return "error"
    assert 0 < samples / RATE < MAX_SOUND_S
    assert info.duration_s > 0
    return "read"


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_give_samples_or_a_sentence(name: str) -> None:
    content = FORMATS[name]()
    random = np.random.default_rng(list(name.encode()))
    assert outcome(content, partial=False) == "read"
    for number in range(FILES_PER_FORMAT):
        outcome(damaged(content, random), partial=number % 2 == 1)
