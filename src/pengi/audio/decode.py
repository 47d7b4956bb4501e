"""Decodes a recording to mono float32 at a sample rate: paths, bytes, file objects and arrays.

Formats are recognised by content. libsndfile decodes the formats that it decodes exactly (WAV in all its encodings,
FLAC, AIFF, W64, CAF, ...), FFmpeg the others (MP3, Ogg, AAC, MP4, WebM, ...). Channels are averaged, or the loudest is
used where they cancel each other out, and the mix is resampled. ``stream`` holds one block at a time, so a three-hour
file needs no more memory than a short one. ``load`` concatenates the blocks of ``stream``. Notes are sentences for the
user about the reading, such as which part was missing.
"""

from __future__ import annotations

import io
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from pengi.audio import bitstreams, containers
from pengi.audio.ffmpeg import open_with_ffmpeg
from pengi.audio.formats import address_error
from pengi.audio.mixing import CELL_S, MixDown
from pengi.audio.readers import (
    ArrayReader,
    Reader,
    SoundFileReader,
    UnreadableError,
    check_track,
    resampled,
    without_first,
)
from pengi.audio.sources import AudioSource as AudioSource
from pengi.audio.sources import Waveform, describe_source, no_samples, resolve
from pengi.audio.views import WatchedFile, view
from pengi.errors import AudioError, InputError, PengiError, reason

MIN_SAMPLE_RATE = 1_000
MAX_SAMPLE_RATE = 768_000
MAX_CHANNELS = 128
MAX_DURATION_S = 1_800.0
"""Longest audio that ``load`` returns, in seconds: 115 MB at 16 kHz."""
BLOCK_S = 10.0
"""Seconds that are decoded at a time."""
MAX_BLOCK_VALUES = 2**24
"""Maximum number of samples, over all channels, that are decoded at a time: 64 MB."""
_ONLY_FFMPEG = ("MP3", "AAC", "Ogg", "WebM or Matroska", "MP4")
"""Containers that libsndfile does not know, or does not read completely."""


@dataclass(frozen=True)
class AudioInfo:
    """Properties of a recording, before any conversion."""

    duration_s: float
    sample_rate: int
    """In Hz."""
    channels: int
    format: str
    """Container and codec, e.g. ``wav pcm_16`` or ``mov aac``; ``array float32`` for samples in memory."""
    notes: tuple[str, ...] = ()
    """Sentences about how the recording was read, for example about what was missing."""


def probe(source: AudioSource, *, track: int | None = None, partial: bool = False) -> AudioInfo:
    """Length, rate, channels and format of a recording.

    Only headers are read, unless the format does not state its length or ``partial`` is set: then the whole recording
    is decoded, in bounded memory.

    Raises:
        AudioError: if the recording cannot be opened, is not audio, is cut off, is empty or is beyond the limits.
        InputError: if ``source`` has an unsupported type.
    """
    with _open(source, track, partial) as opened:
        reader, notes = opened.reader, list[str]()
        duration_s = None if partial else reader.stated_duration_s
        if duration_s is None:
            duration_s = opened.decoded_s(notes)
        if not duration_s:
            raise no_samples(opened.name)
        notes += reader.notes
        return AudioInfo(duration_s, reader.sample_rate, reader.channels, reader.format, tuple(notes))


def stated_duration(source: AudioSource, *, track: int | None = None, partial: bool = False) -> float | None:
    """Length of a recording in seconds as its headers state it; None if it has to be decoded to find out.

    Raises:
        AudioError: if the recording cannot be opened, is not audio, is cut off or is beyond the limits.
        InputError: if ``source`` has an unsupported type.
    """
    with _open(source, track, partial) as opened:
        return opened.reader.stated_duration_s


def load(
    source: AudioSource,
    sample_rate: int,
    *,
    mono: bool = True,
    offset_s: float = 0.0,
    duration_s: float | None = None,
    track: int | None = None,
    partial: bool = False,
    notes: list[str] | None = None,
) -> NDArray[np.float32]:
    """Decode a recording, or ``duration_s`` seconds of it from ``offset_s`` on, at ``sample_rate`` Hz.

    The part is cut at the recording's own rate, before resampling. The result ends where the recording ends, so it may
    be shorter than ``duration_s``; it is never empty.

    Args:
        source: the recording.
        sample_rate: in Hz.
        mono: mix the channels down; otherwise they stay separate.
        offset_s: where to begin, in seconds.
        duration_s: maximum length in seconds; None for up to the end.
        track: which of several sound tracks, counted from 1; None is the default one.
        partial: read a damaged recording up to the damage, instead of refusing it.
        notes: a list to which sentences about the reading are added.

    Returns:
        ``float32[S]``, or ``float32[C, S]`` without ``mono``. Full scale is [-1, 1]; float recordings may exceed it.

    Raises:
        AudioError: if the recording cannot be opened, is not audio, is cut off or damaged, is empty, has samples that
            are not finite, is beyond the limits, ends before ``offset_s``, or is longer than ``MAX_DURATION_S``;
            without ``mono`` also if the number of channels changes.
        InputError: if ``source`` has an unsupported type, or a number is out of range.
    """
    too_long = (
        f"is longer than the {MAX_DURATION_S / 60:.0f} minutes that fit into memory at once;"
        " use the timeline, which reads window by window, or load a part of it"
    )
    request = _Request(sample_rate, offset_s, duration_s, BLOCK_S, MAX_DURATION_S, too_long, mono)
    with _open(source, track, partial) as opened:
        return np.concatenate(list(opened.blocks(request, notes)), axis=-1)


def stream(
    source: AudioSource,
    sample_rate: int,
    *,
    block_s: float = BLOCK_S,
    offset_s: float = 0.0,
    duration_s: float | None = None,
    longest_s: float = math.inf,
    track: int | None = None,
    partial: bool = False,
    notes: list[str] | None = None,
) -> Iterator[NDArray[np.float32]]:
    """Yield what ``load`` would return in blocks ``float32[S]`` of about ``block_s`` seconds, none of them empty.

    Memory is bounded by the block, not by the recording, and the concatenated blocks equal the recording resampled at
    once. Errors are those of ``load``, with ``longest_s`` as the limit on the length. If the headers already state a
    longer recording (or requested part), it is refused before anything is decoded, otherwise as soon as the limit is
    passed. Errors are raised during iteration, and ``notes`` are complete at its end.
    """
    too_long = f"is longer than the {longest_s:g} seconds that are accepted"
    request = _Request(sample_rate, offset_s, duration_s, block_s, longest_s, too_long)
    with _open(source, track, partial) as opened:
        yield from opened.blocks(request, notes)


@dataclass(frozen=True)
class _Request:
    """What is read of a recording, and how."""

    sample_rate: int
    offset_s: float
    duration_s: float | None
    block_s: float
    longest_s: float
    too_long: str
    """What an error says after the recording's name if more than ``longest_s`` would be read."""
    mono: bool = True

    def __post_init__(self) -> None:
        if not MIN_SAMPLE_RATE <= self.sample_rate <= MAX_SAMPLE_RATE:
            raise InputError(
                f"cannot resample to {self.sample_rate} Hz; {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz work"
            )
        if not 0 <= self.offset_s < math.inf:
            raise InputError(f"the offset must be 0 s or later, not {self.offset_s} s")
        if self.duration_s is not None and not 0 < self.duration_s < math.inf:
            raise InputError(f"the duration must be positive, not {self.duration_s} s")
        if not 0 < self.block_s < math.inf:
            raise InputError(f"the block length must be positive, not {self.block_s} s")


@dataclass(frozen=True)
class _Opened:
    """A recording that is being read."""

    reader: Reader
    name: str
    partial: bool
    missing_bytes: int
    """The number of bytes that are known to be missing."""

    def decoded_s(self, notes: list[str]) -> float:
        """Length in seconds, found by decoding; with ``partial`` up to any damage."""
        blocks_CS = self.reader.blocks(0, _block_samples(self.reader, BLOCK_S))
        if self.partial:
            blocks_CS = self._until_damage(blocks_CS, 0, notes)
        samples: int = sum(block_CS.shape[1] for block_CS in blocks_CS)
        return samples / self.reader.sample_rate

    def blocks(self, request: _Request, notes: list[str] | None) -> Iterator[NDArray[np.float32]]:
        """Blocks ``float32[S]``, or ``float32[C, S]`` without ``mono``, at the requested sample rate."""
        if self._stated_s(request) > request.longest_s:
            raise AudioError(f"'{self.name}' {request.too_long}")
        reader, rate = self.reader, request.sample_rate
        found: list[str] = []
        start = round(request.offset_s * reader.sample_rate)
        mix = MixDown(max(1, min(round(CELL_S * reader.sample_rate), MAX_BLOCK_VALUES // reader.channels)))
        # Whether channels cancel is decided for complete stretches, so that a part equals a slice of the whole
        # recording.
        first = start if reader.channels == 1 else start - start % mix.cell
        blocks = reader.blocks(first, _block_samples(reader, request.block_s))
        blocks = mix.blocks(blocks, first) if request.mono else blocks
        blocks = _split(without_first(blocks, start - first), _block_samples(reader, request.block_s))
        if request.duration_s is not None:
            blocks = _first_samples(blocks, max(1, round(request.duration_s * reader.sample_rate)))
        blocks = _checked(blocks, reader, self.name, start)
        if self.partial:
            blocks = self._until_damage(blocks, start, found)
        if not request.mono:
            blocks = _same_channels(blocks, self.name)
        blocks = blocks if reader.sample_rate == rate else resampled(blocks, reader.sample_rate, rate)
        samples = 0
        for block in blocks:
            samples += block.shape[-1]
            if samples - 1 > request.longest_s * rate:  # resampling may round up to one sample more
                raise AudioError(f"'{self.name}' {request.too_long}")
            yield block
        if notes is not None:
            notes += [*reader.notes, *found, *_cancelled(mix, reader, self.name)]

    def _stated_s(self, request: _Request) -> float:
        """Seconds that will be read according to the headers; 0 if they do not state it."""
        stated_s = self.reader.stated_duration_s
        if stated_s is None or self.partial:
            return 0.0
        return min(stated_s - request.offset_s, math.inf if request.duration_s is None else request.duration_s)

    def _until_damage(
        self, blocks: Iterator[NDArray[np.float32]], start: int, notes: list[str]
    ) -> Iterator[NDArray[np.float32]]:
        position = start
        try:
            for block in blocks:
                position += block.shape[-1]
                yield block
            if not self.missing_bytes:
                return
        except AudioError:
            if position == start:
                raise
        notes.append(
            f"only the first {position / self.reader.sample_rate:.2f} s of '{self.name}' were read; the recording "
            "is damaged or cut off there"
        )


def _cancelled(mix: MixDown, reader: Reader, name: str) -> list[str]:
    """The note on channels that cancel each other out."""
    if not mix.cancelled:
        return []
    samples = sum(end - start for start, end in mix.cancelled)
    first_s = mix.cancelled[0][0] / reader.sample_rate
    return [
        f"the channels of '{name}' cancel each other out in {samples / reader.sample_rate:.2f} s of it, the first at"
        f" {first_s:.2f} s; the loudest channel is used there instead of their mean"
    ]


@contextmanager
def _open(source: AudioSource, track: int | None, partial: bool) -> Iterator[_Opened]:
    """Open a recording from any source. Files that are opened here are closed at the end; a caller's own file stays
    open."""
    name = describe_source(source)
    plain = resolve(source)
    if track is not None and (isinstance(track, bool) or not isinstance(track, int)):
        raise InputError(f"track must be a whole number, counted from 1, not {track!r}")
    with ExitStack() as stack:
        missing = 0
        if isinstance(plain, Waveform):
            check_track(name, track, 1)
            reader: Reader = ArrayReader(np.atleast_2d(plain.samples), plain.sample_rate)
        else:
            file = stack.enter_context(_opened(plain, name))
            content = view(file, bitstreams.id3_bytes(file))  # tags at the start hide the format from most decoders
            missing = _missing_bytes(content, name, partial)
            reader = _file_reader(content, name, track)
        stack.callback(reader.close)
        if not MIN_SAMPLE_RATE <= reader.sample_rate <= MAX_SAMPLE_RATE:
            raise AudioError(
                f"'{name}' has a sample rate of {reader.sample_rate} Hz;"
                f" {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz can be read"
            )
        if not 1 <= reader.channels <= MAX_CHANNELS:
            raise AudioError(f"'{name}' has {reader.channels} channels; at most {MAX_CHANNELS} can be read")
        yield _Opened(reader, name, partial, missing)


@contextmanager
def _opened(
    source: str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes], name: str
) -> Iterator[IO[bytes]]:
    """A seekable binary file. Any failure until it is closed is raised as an :class:`AudioError`."""
    with ExitStack() as stack:
        if isinstance(source, (bytes, bytearray, memoryview)):
            file: IO[bytes] = io.BytesIO(source)
        elif isinstance(source, (str, os.PathLike)):
            file = stack.enter_context(_open_path(Path(source), name))
        else:
            file = source
        watched = WatchedFile(file)
        try:
            yield cast("IO[bytes]", watched) if file.seekable() else stack.enter_context(_spooled(watched, name))
        except Exception as error:
            # Decoding libraries and file objects raise other classes of errors.
            if watched.failure is None and isinstance(error, PengiError):
                raise
            raise _unread(name, watched.failure or error) from error
        if watched.failure is not None:
            raise _unread(name, watched.failure)


@contextmanager
def _spooled(file: WatchedFile, name: str) -> Iterator[IO[bytes]]:
    """A seekable copy of a file that cannot seek, such as a pipe."""
    try:
        with tempfile.TemporaryFile() as spool:
            shutil.copyfileobj(file, spool)
            yield spool
    except OSError as error:
        raise AudioError(f"'{name}' cannot be kept in '{tempfile.gettempdir()}': {reason(error)}") from error


def _unread(name: str, error: Exception) -> AudioError:
    """The error for a file that fails while it is read, whether because of the file, its disk or its decoder."""
    why = reason(error) if isinstance(error, OSError) else f"{type(error).__name__}: {reason(error)}"
    return AudioError(f"'{name}' cannot be read: {why}")


def _open_path(path: Path, name: str) -> IO[bytes]:
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise AudioError(address_error(name) or f"there is no file '{name}'") from error
    except IsADirectoryError as error:
        if not name:  # which pathlib takes for the current folder
            raise AudioError("the name of a recording is empty") from error
        raise AudioError(f"'{name}' is a folder, not a recording") from error
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        raise AudioError(f"'{name}' cannot be read: {reason(error)}") from error


def _missing_bytes(file: IO[bytes], name: str, partial: bool) -> int:
    """The number of bytes that are missing at the end of a file, which is an error without ``partial``."""
    if file.seek(0, os.SEEK_END) == 0:
        raise AudioError(f"'{name}' is empty (0 bytes)")
    missing = containers.missing_bytes(file)
    if missing and not partial:
        raise AudioError(f"'{name}' is cut off: its header promises {missing} more bytes than the file has")
    return missing


def _file_reader(file: IO[bytes], name: str, track: int | None) -> Reader:
    """The first reader that can read the content of ``file``."""
    container = containers.container_of(file)
    sizes = containers.corrected_sizes(file)
    is_large = file.seek(0, os.SEEK_END) > containers.MAX_32_BIT_SIZE
    if sizes and is_large and container == "AIFF":
        raise AudioError(f"'{name}' is larger than an AIFF file can be; convert it to FLAC or W64 first")
    # Only FFmpeg reads a WAV stream that is longer than its header can state; libsndfile uses libmpg123 for MPEG.
    only_ffmpeg = container in _ONLY_FFMPEG or (sizes and is_large) or containers.is_mpeg(file)
    openers: tuple[Callable[[IO[bytes], str, int | None], Reader], ...] = (SoundFileReader, open_with_ffmpeg)
    for opener in openers[1:] if only_ffmpeg else openers:
        try:
            return opener(view(file, patches=sizes), name, track)
        except UnreadableError:
            continue
    if container is None:
        raise AudioError(f"'{name}' is not audio in any format that can be read")
    raise AudioError(
        f"'{name}' looks like {container} but cannot be read: it is damaged, cut off or in an unsupported variant"
    )


def _block_samples(reader: Reader, block_s: float) -> int:
    return max(1, min(round(block_s * reader.sample_rate), MAX_BLOCK_VALUES // reader.channels))


def _same_channels(blocks_CS: Iterator[NDArray[np.float32]], name: str) -> Iterator[NDArray[np.float32]]:
    """The blocks, unchanged; it is an error if one has another number of channels than the first."""
    channels = 0
    for block_CS in blocks_CS:
        channels = channels or len(block_CS)
        if len(block_CS) != channels:
            raise AudioError(
                f"'{name}' changes its number of channels partway through; convert it to WAV or FLAC first"
            )
        yield block_CS


def _split(blocks: Iterator[NDArray[np.float32]], block_samples: int) -> Iterator[NDArray[np.float32]]:
    for block in blocks:
        for first in range(0, block.shape[-1], block_samples):
            yield block[..., first : first + block_samples]


def _first_samples(blocks: Iterator[NDArray[np.float32]], count: int) -> Iterator[NDArray[np.float32]]:
    for block in blocks:
        yield block[..., :count]
        count -= block.shape[-1]
        if count <= 0:
            return


def _checked(
    blocks: Iterator[NDArray[np.float32]], reader: Reader, name: str, start: int
) -> Iterator[NDArray[np.float32]]:
    """The blocks, unchanged; it is an error if a sample is not finite or if there is none."""
    position = start
    for block in blocks:
        finite = np.isfinite(block).reshape(-1, block.shape[-1]).all(axis=0)
        if not finite.all():
            good = int(finite.argmin())
            if good:
                yield block[..., :good]
            bad_s = (position + good) / reader.sample_rate
            raise AudioError(f"'{name}' has samples that are not finite numbers, the first at {bad_s:.3f} s")
        position += block.shape[-1]
        yield block
    if position > start:
        return
    if start == 0:
        raise no_samples(name)
    raise AudioError(f"'{name}' ends before {start / reader.sample_rate:.2f} s, where reading should start")
