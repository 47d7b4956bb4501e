"""Block-wise access to one recording: mono float32 at the recording's own rate, whatever holds it.

Shape suffixes: C channels, S samples (frames of one sample per channel).

``SoundFileReader`` serves what libsndfile decodes, ``AvReader`` what FFmpeg does, ``ArrayReader`` samples in memory.
A reader is read once, from a sample onwards. Whether samples are finite and rates are sane is checked by ``decode``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from pengi.errors import AudioError

if TYPE_CHECKING:
    import av

COUNT_SLACK_S = 0.1
"""A compressed file that delivers fewer samples than it states is cut off, unless it is short by less than this."""

SEEK_LEAD_S = 0.5
"""Seconds decoded and thrown away before a position that was sought: a lossy codec needs its past to settle."""

_UNKNOWN_SAMPLES = 2**63 - 1  # libsndfile's SF_COUNT_MAX: a FLAC stream that does not state its length
# FFmpeg must read the given bytes and nothing else: a playlist or session description could name files and hosts.
_AV_OPTIONS = {"protocol_whitelist": "none"}


class Reader(Protocol):
    """One opened recording."""

    sample_rate: int
    """Samples per second and channel, in Hz."""
    channels: int
    format: str
    """Container and codec in lower case, e.g. ``wav pcm_16``."""
    stated_duration_s: float | None
    """Length in seconds as the file states it; None where only decoding tells."""

    def blocks(self, start: int, block_samples: int) -> Iterator[NDArray[np.float32]]:
        """Yield ``float32[S]`` blocks, none empty, none much longer than ``block_samples``, from sample ``start`` on.

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
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is reported as such
            return samples.astype(np.float32)
    half_range = 2.0 ** (8 * samples.dtype.itemsize - 1)
    middle = half_range if samples.dtype.kind == "u" else 0.0
    return ((samples.astype(np.float64) - middle) / half_range).astype(np.float32)


def mix_down(samples_CS: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of all channels: ``float32[C, S]`` to ``float32[S]``."""
    if len(samples_CS) == 1:
        return samples_CS.reshape(-1)
    return np.asarray(np.mean(samples_CS, axis=0, dtype=np.float64), dtype=np.float32)


class _Nameless:
    """A binary file without its name, from which decoders would guess the format before they look at the content."""

    def __init__(self, file: IO[bytes]) -> None:
        self.read = file.read
        self.seek = file.seek
        self.tell = file.tell


class ArrayReader:
    """Samples in memory, ``[C, S]`` of any real type."""

    def __init__(self, samples_CS: NDArray[Any], sample_rate: int) -> None:
        self._samples_CS = samples_CS
        self.sample_rate = sample_rate
        self.channels = len(samples_CS)
        self.format = f"array {samples_CS.dtype}"
        self.stated_duration_s: float | None = samples_CS.shape[1] / sample_rate

    def blocks(self, start: int, block_samples: int) -> Iterator[NDArray[np.float32]]:
        for first in range(start, self._samples_CS.shape[1], block_samples):
            yield mix_down(as_float(self._samples_CS[:, first : first + block_samples]))

    def close(self) -> None:
        pass


class _ForwardSoundFile(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no type hints
    """A sound file read from front to back.

    After each read of a seekable file, soundfile seeks to where it already is. MP3 frames borrow bits from the frames
    before them, and libmpg123 loses those in a seek: each read would begin with a gap.
    """

    def seekable(self) -> bool:
        return False


class SoundFileReader:
    """What libsndfile reads: WAV, FLAC, Ogg Vorbis and Opus, MP3, AIFF and more."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        """Open ``file``; ``name`` is what error messages call it.

        Raises:
            UnreadableError: if libsndfile does not know the content.
        """
        self._name = name
        try:
            self._file = _ForwardSoundFile(_Nameless(file))
        except soundfile.SoundFileError as error:
            raise UnreadableError from error
        self.sample_rate = int(self._file.samplerate)
        self.channels = int(self._file.channels)
        self.format = f"{self._file.format} {self._file.subtype}".lower()
        stated = int(self._file.frames)
        self.stated_duration_s = None if stated == _UNKNOWN_SAMPLES else stated / self.sample_rate

    def blocks(self, start: int, block_samples: int) -> Iterator[NDArray[np.float32]]:
        if start >= self._file.frames:
            return
        position = 0
        try:
            if self._file.format != "MP3":  # of MP3, see above, what comes before ``start`` is decoded
                position = self._file.seek(start)
            while len(block_SC := self._file.read(block_samples, dtype="float32", always_2d=True)):
                skipped = max(0, start - position)
                position += len(block_SC)
                if skipped < len(block_SC):
                    yield mix_down(block_SC[skipped:].T)
        except soundfile.SoundFileError as error:
            raise _broken(self._name, position / self.sample_rate) from error
        end_s = position / self.sample_rate
        # Ogg states no number of samples but the time at the end of each page, and encoders exist that get it wrong.
        counted_s = None if self._file.format == "OGG" else self.stated_duration_s
        if counted_s is not None and counted_s - end_s > COUNT_SLACK_S:
            raise AudioError(f"'{self._name}' is cut off: it should last {counted_s:.2f} s but ends at {end_s:.2f} s")

    def close(self) -> None:
        self._file.close()


class AvReader:
    """What FFmpeg reads: AAC in MP4 or alone, WebM, the sound of videos and more."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        """Open ``file``; ``name`` is what error messages call it.

        Raises:
            UnreadableError: if FFmpeg does not know the content.
            AudioError: if the content has no sound or its first samples cannot be decoded.
        """
        import av  # a sixth of a second that the common formats need not pay

        self._name = name
        self._av = av
        try:
            self._container = av.open(_Nameless(file), "r", options=_AV_OPTIONS, metadata_errors="replace")
        except av.FFmpegError as error:
            raise UnreadableError from error
        try:
            self._open_stream()
        except BaseException:
            self._container.close()
            raise

    def _open_stream(self) -> None:
        if not self._container.streams.audio:
            raise AudioError(f"'{self._name}' has no sound: it is {self._container.format.long_name}")
        best = self._container.streams.best("audio")
        stream = best if isinstance(best, self._av.AudioStream) else self._container.streams.audio[0]
        self._stream = stream
        self._frames = self._decode()
        # Only a decoded frame tells the true rate and channels (HE-AAC states half its rate).
        self._first = next(self._frames, None)
        self.sample_rate = self._first.sample_rate if self._first else stream.sample_rate
        self.channels = self._first.layout.nb_channels if self._first else stream.channels
        self.format = f"{self._container.format.name.split(',')[0]} {stream.codec_context.name}"
        self.stated_duration_s = self._stated_duration_s()

    def _stated_duration_s(self) -> float | None:
        """The length that MP4 and Matroska state; elsewhere FFmpeg guesses it from the bit rate."""
        if "mov" in self._container.format.name and self._stream.duration and self._stream.time_base:
            return float(self._stream.duration * self._stream.time_base)
        if "matroska" in self._container.format.name and self._container.duration:
            return float(self._container.duration / self._av.time_base)
        return None

    def blocks(self, start: int, block_samples: int) -> Iterator[NDArray[np.float32]]:
        frames, position = self._frames_near(start)
        parts: list[NDArray[np.float32]] = []
        held = 0
        for frame in frames:
            mono_S = self._mono(frame)
            skipped = max(0, start - position)
            position += len(mono_S)
            if skipped >= len(mono_S):
                continue
            parts.append(mono_S[skipped:])
            held += len(parts[-1])
            if held >= block_samples:
                yield np.concatenate(parts)
                parts, held = [], 0
        if parts:
            yield np.concatenate(parts)

    def _frames_near(self, start: int) -> tuple[Iterator[av.AudioFrame], int]:
        """Frames that begin at or before sample ``start``, and the position of the first.

        Only the time stamps of MP4 name single samples, and only then is seeking exact; elsewhere everything before
        ``start`` is decoded.
        """
        if self._first is None:
            return iter(()), 0
        target = start - round(SEEK_LEAD_S * self.sample_rate)
        exact = "mov" in self._container.format.name and self._stream.time_base == Fraction(1, self.sample_rate)
        if target <= 0 or not exact or self._first.pts is None:
            return itertools.chain([self._first], self._frames), 0
        try:
            self._container.seek(self._first.pts + target, stream=self._stream)
        except self._av.FFmpegError as error:
            raise _broken(self._name, 0.0) from error
        frames = self._decode()
        landed = next(frames, None)
        if landed is None:
            return iter(()), 0
        assert landed.pts is not None  # the index of an MP4 file dates every packet
        return itertools.chain([landed], frames), landed.pts - self._first.pts

    def _decode(self) -> Iterator[av.AudioFrame]:
        """Decoded frames, from where the container stands.

        A last packet that does not decode is how a bare stream ends that was cut inside it; one with more behind it is
        damage.
        """
        bad_packet: Exception | None = None
        decoded_s: float | None = None
        try:
            for packet in self._container.demux(self._stream):
                if bad_packet is not None and packet.size:
                    raise bad_packet
                try:
                    frames = self._stream.decode(packet)
                except self._av.InvalidDataError as error:
                    bad_packet = error
                    continue
                for frame in frames:
                    decoded_s = frame.time or decoded_s or 0.0
                    yield frame
            if bad_packet is not None and decoded_s is None:
                raise bad_packet
        except self._av.FFmpegError as error:
            raise _broken(self._name, decoded_s or 0.0) from error

    def _mono(self, frame: av.AudioFrame) -> NDArray[np.float32]:
        if frame.sample_rate != self.sample_rate:
            raise AudioError(
                f"'{self._name}' changes its sample rate from {self.sample_rate} to {frame.sample_rate} Hz on the way;"
                " convert it to one rate first"
            )
        samples = frame.to_ndarray()
        if not frame.format.is_planar:
            samples = samples.reshape(-1, frame.layout.nb_channels).T
        return mix_down(as_float(samples))

    def close(self) -> None:
        self._container.close()


def _broken(name: str, position_s: float) -> AudioError:
    return AudioError(f"'{name}' is damaged or cut off: decoding fails after {position_s:.2f} s")
