"""Reads one recording in blocks: its channels as float32 at its own rate.

Shape suffixes: C channels, S samples (frames of one sample per channel).

``SoundFileReader`` reads files with libsndfile, ``ArrayReader`` samples in memory; :mod:`pengi.audio.ffmpeg` has the
readers that use FFmpeg. A reader can be read once, from any sample on. ``decode`` checks that samples are finite and
rates are valid.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import IO, Any, Protocol

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from pengi.errors import AudioError

COUNT_SLACK_S = 0.1
"""A compressed file counts as cut off if it is shorter than stated by at least this, in seconds."""

_PIECE_SAMPLES = 8192  # read at a time: if reading fails, the samples of that piece are lost
_UNKNOWN_SAMPLES = 2**63 - 1  # libsndfile's SF_COUNT_MAX: a FLAC stream that does not state its length
# libsndfile seeks to the exact sample in these. Other encodings are decoded from the start: some cannot seek at all,
# others are off by some samples afterwards.
_SEEKABLE = {"PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"}


class Reader(Protocol):
    """One opened recording."""

    sample_rate: int
    """In Hz."""
    channels: int
    """Number of channels at the start; a stream may change it later."""
    format: str
    """Container and codec in lower case, e.g. ``wav pcm_16``."""
    stated_duration_s: float | None
    """Length in seconds as the file states it; None if only decoding can find it."""

    @property
    def notes(self) -> list[str]:
        """Sentences for the user about the reading; complete when ``blocks`` has ended."""
        ...

    def blocks(self, start: int, block_samples: int) -> Iterator[NDArray[np.float32]]:
        """Yield blocks ``float32[C, S]`` of about ``block_samples`` samples, none of them empty, from sample ``start``
        on.

        Raises:
            AudioError: if the recording is damaged or ends before its stated length.
        """
        ...

    def close(self) -> None: ...


class UnreadableError(Exception):
    """This decoder does not know the content; another one may."""


def as_float(samples: NDArray[Any]) -> NDArray[np.float32]:
    """Samples of any real type as float32; integers are scaled to [-1, 1), unsigned ones around their middle."""
    if samples.dtype.kind not in "iu":
        with np.errstate(over="ignore"):  # values beyond float32 become infinite, which is reported later
            return samples.astype(np.float32)
    half_range = 2.0 ** (8 * samples.dtype.itemsize - 1)
    middle = half_range if samples.dtype.kind == "u" else 0.0
    return ((samples.astype(np.float64) - middle) / half_range).astype(np.float32)


def without_first(blocks_CS: Iterator[NDArray[np.float32]], count: int) -> Iterator[NDArray[np.float32]]:
    """Blocks ``float32[..., S]`` without their first ``count`` samples."""
    for block_CS in blocks_CS:
        kept_CS = block_CS[..., count:]
        count = max(0, count - block_CS.shape[-1])
        if kept_CS.shape[-1]:
            yield kept_CS


def gathered(pieces_CS: Iterator[NDArray[np.float32]], block_samples: int) -> Iterator[NDArray[np.float32]]:
    """Join pieces ``float32[C, S]`` into blocks of at least ``block_samples``.

    Only the last block, and the last one before the number of channels changes, may be shorter. If reading fails, the
    pieces read so far are yielded before the error is raised.
    """
    held: list[NDArray[np.float32]] = []
    samples = 0
    try:
        for piece_CS in pieces_CS:
            if held and len(held[0]) != len(piece_CS):
                yield np.concatenate(held, axis=1)
                held, samples = [], 0
            held.append(piece_CS)
            samples += piece_CS.shape[1]
            if samples >= block_samples:
                yield np.concatenate(held, axis=1)
                held, samples = [], 0
    except AudioError:
        if held:
            yield np.concatenate(held, axis=1)
        raise
    if held:
        yield np.concatenate(held, axis=1)


def resampled(blocks: Iterator[NDArray[np.float32]], rate_in: int, rate_out: int) -> Iterator[NDArray[np.float32]]:
    """Resample blocks ``float32[S]`` or ``float32[C, S]`` of one recording; together they equal the recording resampled
    at once."""
    first = next(blocks, None)
    if first is None:
        return
    channels = len(first) if first.ndim > 1 else 1
    resampler = soxr.ResampleStream(rate_in, rate_out, channels, dtype="float32", quality="HQ")
    taken = 0
    for block in itertools.chain([first], blocks):
        taken += block.shape[-1]
        chunk = resampler.resample_chunk(np.ascontiguousarray(block.T)).T
        if chunk.shape[-1]:
            yield chunk
    # soxr rounds the length: without these zeros a clip of one or two samples could round to nothing.
    padding = np.zeros((max(0, math.ceil(rate_in / rate_out) - taken), *first.shape[:-1]), np.float32)
    chunk = resampler.resample_chunk(padding, last=True).T
    if chunk.shape[-1]:
        yield chunk


class ArrayReader:
    """Samples in memory, ``[C, S]`` of any real type."""

    def __init__(self, samples_CS: NDArray[Any], sample_rate: int) -> None:
        self._samples_CS = samples_CS
        self.sample_rate = sample_rate
        self.channels = len(samples_CS)
        self.format = f"array {samples_CS.dtype}"
        self.stated_duration_s: float | None = samples_CS.shape[1] / sample_rate
        self.notes: list[str] = []

    def blocks(self, start: int, block_samples: int) -> Iterator[NDArray[np.float32]]:
        for first in range(start, self._samples_CS.shape[1], block_samples):
            yield as_float(self._samples_CS[:, first : first + block_samples])

    def close(self) -> None:
        pass


class _ForwardSoundFile(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no type hints
    """A sound file read from front to back.

    After each read of a seekable file, soundfile seeks to where it already is, which some encodings cannot do.
    """

    def seekable(self) -> bool:
        return False


class SoundFileReader:
    """Reads files with libsndfile: WAV, FLAC, AIFF, W64, CAF, AU and more."""

    def __init__(self, file: IO[bytes], name: str, track: int | None) -> None:
        """Open ``file``, which has no name; ``name`` is what error messages call it.

        Raises:
            UnreadableError: if libsndfile does not know the content, or FFmpeg reads it better.
            AudioError: if there is no such track.
        """
        self._name = name
        try:
            self._file = _ForwardSoundFile(file)
        except soundfile.SoundFileError as error:
            raise UnreadableError from error
        # MPEG writes warnings to stderr; GSM in WAV decodes its padding as a loud click at the end.
        if self._file.subtype.startswith("MPEG") or (self._file.format, self._file.subtype) == ("WAV", "GSM610"):
            self._file.close()
            raise UnreadableError
        check_track(name, track, 1)
        self.sample_rate = int(self._file.samplerate)
        self.channels = int(self._file.channels)
        self.format = f"{self._file.format} {self._file.subtype}".lower()
        self.notes: list[str] = []
        stated = int(self._file.frames)
        self.stated_duration_s = None if stated == _UNKNOWN_SAMPLES else stated / self.sample_rate

    def blocks(self, start: int, block_samples: int) -> Iterator[NDArray[np.float32]]:
        if start < self._file.frames:
            yield from gathered(self._pieces(start, min(block_samples, _PIECE_SAMPLES)), block_samples)

    def _pieces(self, start: int, piece_samples: int) -> Iterator[NDArray[np.float32]]:
        position = 0
        try:
            if start and self._file.subtype in _SEEKABLE:
                position = self._file.seek(start)
            skipped = start - position
            while len(block_SC := self._file.read(piece_samples, dtype="float32", always_2d=True)):
                position += len(block_SC)
                if skipped < len(block_SC):
                    yield block_SC[skipped:].T
                skipped = max(0, skipped - len(block_SC))
        except soundfile.SoundFileError as error:
            raise broken(self._name, position / self.sample_rate) from error
        # Ogg states the time at the end of each page, and some encoders write a wrong one.
        stated_s = None if self._file.format == "OGG" else self.stated_duration_s
        check_count(self._name, stated_s, position / self.sample_rate)

    def close(self) -> None:
        self._file.close()


def check_track(name: str, track: int | None, tracks: int) -> None:
    """Check that a recording has a sound track.

    Raises:
        AudioError: if there is no such track.
    """
    if track is not None and not 1 <= track <= tracks:
        has = "1 sound track" if tracks == 1 else f"{tracks} sound tracks"
        raise AudioError(f"'{name}' has {has}, so there is no track {track}")


def check_count(name: str, stated_s: float | None, end_s: float) -> None:
    """Check that a recording is as long as it states.

    Raises:
        AudioError: if it is cut off.
    """
    if stated_s is not None and stated_s - end_s > COUNT_SLACK_S:
        raise AudioError(f"'{name}' is cut off: it should last {stated_s:.2f} s but ends at {end_s:.2f} s")


def broken(name: str, position_s: float) -> AudioError:
    """The error for a recording that cannot be decoded from some point on."""
    return AudioError(f"'{name}' is damaged or cut off: decoding fails after {position_s:.2f} s")
