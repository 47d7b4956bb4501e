"""Any recording to mono float32 at a rate: paths, bytes, file objects and arrays; formats are told by content.

libsndfile decodes what it can (WAV in all its encodings, FLAC, Ogg Vorbis and Opus, MP3, AIFF, ...), FFmpeg the rest
(AAC, MP4, WebM, ...). Channels are averaged; soxr resamples. ``stream`` holds one block at a time, so that a three-hour
file costs no more memory than a short one; ``load`` is ``stream`` put together.
"""

from __future__ import annotations

import io
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

import numpy as np
import soxr
from numpy.typing import NDArray

from pengi.audio import containers
from pengi.audio.formats import address_error
from pengi.audio.readers import ArrayReader, AvReader, Reader, SoundFileReader, UnreadableError
from pengi.audio.watched import WatchedFile
from pengi.errors import AudioError, InputError, PengiError, reason

AudioSource: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | tuple[Any, int]
"""A path; the content of a file; an open binary file, read from its start and left open; or ``(samples, rate)``.

``samples`` is a NumPy array or a torch tensor, ``[S]``, ``[C, S]`` or ``[S, C]``: of two axes the shorter one is the
channels, and of two equal ones the first. Integers are scaled to [-1, 1]. ``rate`` is in Hz.
"""

MIN_SAMPLE_RATE = 1_000
MAX_SAMPLE_RATE = 768_000
MAX_CHANNELS = 128
MAX_DURATION_S = 1_800.0
"""Longest audio that ``load`` puts into one array, in seconds: 115 MB at 16 kHz."""
BLOCK_S = 10.0
"""Seconds that are decoded at a time."""
MAX_BLOCK_VALUES = 2**24
"""Most samples, all channels counted, that are decoded at a time, whatever ``block_s`` and the rate: 64 MB."""


@dataclass(frozen=True)
class AudioInfo:
    """What a recording is, before any conversion."""

    duration_s: float
    sample_rate: int
    """In Hz."""
    channels: int
    format: str
    """Container and codec, e.g. ``wav pcm_16`` or ``mov aac``; ``array float32`` for samples in memory."""


def probe(source: AudioSource) -> AudioInfo:
    """Length, rate, channels and format of a recording.

    Only headers are read, unless the format does not state its length: then the whole is decoded, in bounded memory.

    Raises:
        AudioError: if the recording cannot be opened, is not audio, is cut off, is empty or is beyond the limits.
        InputError: if ``source`` is of no type that could hold audio.
    """
    name = describe_source(source)
    with _open(source, name) as reader:
        duration_s = reader.stated_duration_s
        if duration_s is None:
            blocks = reader.blocks(0, _block_samples(reader, BLOCK_S))
            duration_s = sum(len(block) for block in blocks) / reader.sample_rate
        if not duration_s:
            raise _no_samples(name)
        return AudioInfo(duration_s, reader.sample_rate, reader.channels, reader.format)


def stated_duration(source: AudioSource) -> float | None:
    """Length of a recording in seconds as its headers state it, None where only decoding tells.

    Raises:
        AudioError: if the recording cannot be opened, is not audio, is cut off or is beyond the limits.
        InputError: if ``source`` is of no type that could hold audio.
    """
    with _open(source, describe_source(source)) as reader:
        return reader.stated_duration_s


def load(
    source: AudioSource, sample_rate: int, *, offset_s: float = 0.0, duration_s: float | None = None
) -> NDArray[np.float32]:
    """Decode a recording, or ``duration_s`` seconds of it from ``offset_s`` on, to mono at ``sample_rate`` Hz.

    The cut is made on the recording's own samples and comes before resampling. What reaches beyond the end is left
    away, so that the result may be shorter than ``duration_s``; it is never empty.

    Returns:
        ``float32[S]``, at full scale in [-1, 1]; float recordings may exceed it.

    Raises:
        AudioError: if the recording cannot be opened, is not audio, is cut off or damaged, is empty, has samples that
            are not finite, is beyond the limits, ends before ``offset_s``, or is longer than ``MAX_DURATION_S``.
        InputError: if ``source`` is of no type that could hold audio or a number makes no sense.
    """
    name = describe_source(source)
    _check_request(sample_rate, offset_s, duration_s, BLOCK_S)
    with _open(source, name) as reader:
        remaining_s = math.inf if reader.stated_duration_s is None else reader.stated_duration_s - offset_s
        wanted_s = min(remaining_s, math.inf if duration_s is None else duration_s)
        if MAX_DURATION_S < wanted_s < math.inf:
            raise _too_long(name)
        blocks: list[NDArray[np.float32]] = []
        loaded = 0
        for block in _resampled_blocks(reader, name, sample_rate, offset_s, duration_s, BLOCK_S):
            blocks.append(block)
            loaded += len(block)
            if loaded - 1 > MAX_DURATION_S * sample_rate:  # resampling may round up to one sample more
                raise _too_long(name)
        return np.concatenate(blocks)


def stream(
    source: AudioSource,
    sample_rate: int,
    *,
    block_s: float = BLOCK_S,
    offset_s: float = 0.0,
    duration_s: float | None = None,
    longest_s: float = math.inf,
) -> Iterator[NDArray[np.float32]]:
    """Yield what ``load`` would return in blocks ``float32[S]`` of about ``block_s`` seconds, none of them empty.

    Memory is bounded by the block, not by the recording, and the blocks put together equal the recording resampled at
    once. Errors are those of ``load``, but its limit on length is replaced by ``longest_s``: a recording, or the part
    asked for, that states to be longer is refused before anything is decoded, and one that turns out to be longer as
    soon as it does. Errors are raised while iterating.
    """
    name = describe_source(source)
    _check_request(sample_rate, offset_s, duration_s, block_s)
    with _open(source, name) as reader:
        if min(_stated_s(reader, offset_s), math.inf if duration_s is None else duration_s) > longest_s:
            raise _longer_than(name, longest_s)
        streamed = 0
        for block in _resampled_blocks(reader, name, sample_rate, offset_s, duration_s, block_s):
            streamed += len(block)
            if streamed - 1 > longest_s * sample_rate:  # resampling may round up to one sample more
                raise _longer_than(name, longest_s)
            yield block


def describe_source(source: AudioSource) -> str:
    """Short name of a source for messages: its path as given, or what it is."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "audio in memory"
    if isinstance(source, tuple):
        return "audio array"
    name = getattr(source, "name", None)
    return name if isinstance(name, str) and name else "audio stream"


@contextmanager
def _open(source: AudioSource, name: str) -> Iterator[Reader]:
    """A reader for any source; what was opened here is closed at the end, a caller's own file stays open."""
    with ExitStack() as stack:
        if isinstance(source, tuple):
            reader: Reader = _array_reader(source, name)
        else:
            file = stack.enter_context(_opened(source, name))
            _check_whole(file, name)
            reader = _file_reader(file, name)
        stack.callback(reader.close)
        if not MIN_SAMPLE_RATE <= reader.sample_rate <= MAX_SAMPLE_RATE:
            raise AudioError(
                f"'{name}' has a sample rate of {reader.sample_rate} Hz;"
                f" {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz can be read"
            )
        if not 1 <= reader.channels <= MAX_CHANNELS:
            raise AudioError(f"'{name}' has {reader.channels} channels; at most {MAX_CHANNELS} can be read")
        yield reader


@contextmanager
def _opened(
    source: str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes], name: str
) -> Iterator[IO[bytes]]:
    """A seekable binary file. Whatever goes wrong with it until it is closed is an :class:`AudioError`."""
    with ExitStack() as stack:
        if isinstance(source, (bytes, bytearray, memoryview)):
            file: IO[bytes] = io.BytesIO(source)
        elif isinstance(source, (str, os.PathLike)):
            file = stack.enter_context(_open_path(Path(source), name))
        elif hasattr(source, "read") and not isinstance(source, io.TextIOBase):
            file = source
        else:
            raise InputError(
                "audio must be a path, bytes, a file opened in binary mode or a tuple (samples, rate),"
                f" not {type(source).__name__}"
            )
        watched = WatchedFile(file)
        try:
            yield cast("IO[bytes]", watched) if file.seekable() else stack.enter_context(_spooled(watched, name))
        except Exception as error:
            if watched.failure is None and isinstance(error, PengiError):
                raise
            raise _unread(name, watched.failure or error) from error
        if watched.failure is not None:
            raise _unread(name, watched.failure)


@contextmanager
def _spooled(file: WatchedFile, name: str) -> Iterator[IO[bytes]]:
    """A seekable copy of what cannot seek, such as a pipe."""
    try:
        with tempfile.TemporaryFile() as spool:
            shutil.copyfileobj(file, spool)
            yield spool
    except OSError as error:
        raise AudioError(f"'{name}' cannot be kept in '{tempfile.gettempdir()}': {reason(error)}") from error


def _unread(name: str, error: Exception) -> AudioError:
    """The error for a file that fails while it is read, whoever is to blame: the file, its disk or its decoder."""
    why = reason(error) if isinstance(error, OSError) else f"{type(error).__name__}: {reason(error)}"
    return AudioError(f"'{name}' cannot be read: {why}")


def _open_path(path: Path, name: str) -> IO[bytes]:
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise AudioError(address_error(name) or f"there is no file '{name}'") from error
    except IsADirectoryError as error:
        raise AudioError(f"'{name}' is a folder, not a recording") from error
    except PermissionError as error:
        raise AudioError(f"'{name}' may not be read: permission denied") from error
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        raise AudioError(f"'{name}' cannot be opened: {reason(error)}") from error


def _check_whole(file: IO[bytes], name: str) -> None:
    if file.seek(0, os.SEEK_END) == 0:
        raise AudioError(f"'{name}' is empty (0 bytes)")
    missing = containers.missing_bytes(file)
    if missing:
        raise AudioError(f"'{name}' is cut off: its header promises {missing} bytes more than there are")


def _file_reader(file: IO[bytes], name: str) -> Reader:
    """The first reader that knows the content of ``file``."""
    # FFmpeg reads a WAV stream without a length to its end, libsndfile takes it for empty.
    classes = (AvReader,) if containers.is_unfinished_wav(file) else (SoundFileReader, AvReader)
    for reader_class in classes:
        file.seek(0)
        try:
            return reader_class(file, name)
        except UnreadableError:
            continue
    container = containers.container_of(file)
    if container is None:
        raise AudioError(f"'{name}' is not audio in any format that can be read")
    raise AudioError(f"'{name}' looks like {container} but cannot be read: it is damaged, cut off or of a rare kind")


def _array_reader(source: tuple[Any, ...], name: str) -> ArrayReader:
    if len(source) != 2 or np.ndim(source[1]) != 0:
        raise InputError("an audio array is given with its sample rate, as a tuple (samples, rate)")
    samples, rate = source
    if hasattr(samples, "detach"):  # a torch tensor, perhaps of a type that NumPy lacks; this module needs no torch
        samples = (samples.float() if samples.is_floating_point() else samples).detach().cpu().numpy()
    samples = np.asarray(samples)
    if samples.dtype.kind not in "fiu" or samples.ndim not in (1, 2):
        raise InputError(
            f"audio samples must be real numbers with one or two axes, not {samples.dtype} of shape {samples.shape}"
        )
    if not samples.size:
        raise _no_samples(name)
    if not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE or rate != int(rate):
        raise AudioError(
            f"'{name}' has a sample rate of {rate} Hz; whole numbers from {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} work"
        )
    samples = np.atleast_2d(samples)
    return ArrayReader(samples if samples.shape[0] <= samples.shape[1] else samples.T, int(rate))


def _check_request(sample_rate: int, offset_s: float, duration_s: float | None, block_s: float) -> None:
    if not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
        raise InputError(f"cannot resample to {sample_rate} Hz; {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz work")
    if not 0 <= offset_s < math.inf:
        raise InputError(f"the offset must be 0 s or later, not {offset_s} s")
    if duration_s is not None and not 0 < duration_s < math.inf:
        raise InputError(f"the duration must be positive, not {duration_s} s")
    if not 0 < block_s < math.inf:
        raise InputError(f"the block length must be positive, not {block_s} s")


def _resampled_blocks(
    reader: Reader, name: str, sample_rate: int, offset_s: float, duration_s: float | None, block_s: float
) -> Iterator[NDArray[np.float32]]:
    start = round(offset_s * reader.sample_rate)
    blocks = reader.blocks(start, _block_samples(reader, block_s))
    if duration_s is not None:
        blocks = _first_samples(blocks, max(1, round(duration_s * reader.sample_rate)))
    blocks = _checked(blocks, reader, name, start)
    if reader.sample_rate == sample_rate:
        return blocks
    return _resampled(blocks, reader.sample_rate, sample_rate)


def _block_samples(reader: Reader, block_s: float) -> int:
    return max(1, min(round(block_s * reader.sample_rate), MAX_BLOCK_VALUES // reader.channels))


def _first_samples(blocks: Iterator[NDArray[np.float32]], count: int) -> Iterator[NDArray[np.float32]]:
    for block in blocks:
        yield block[:count]
        count -= len(block)
        if count <= 0:
            return


def _checked(
    blocks: Iterator[NDArray[np.float32]], reader: Reader, name: str, start: int
) -> Iterator[NDArray[np.float32]]:
    """The blocks themselves, once their samples are known to be finite and at least one is known to exist."""
    position = start
    for block in blocks:
        finite = np.isfinite(block)
        if not finite.all():
            bad_s = (position + int(finite.argmin())) / reader.sample_rate
            raise AudioError(f"'{name}' has samples that are not finite numbers, the first at {bad_s:.3f} s")
        position += len(block)
        yield block
    if position > start:
        return
    if start == 0:
        raise _no_samples(name)
    raise AudioError(f"'{name}' ends before {start / reader.sample_rate:.2f} s, where reading should start")


def _resampled(blocks: Iterator[NDArray[np.float32]], rate_in: int, rate_out: int) -> Iterator[NDArray[np.float32]]:
    resampler = soxr.ResampleStream(rate_in, rate_out, 1, dtype="float32", quality="HQ")
    taken = 0
    for block in blocks:
        taken += len(block)
        resampled = resampler.resample_chunk(block)
        if len(resampled):
            yield resampled
    # soxr rounds the length: without these zeros a clip of one or two samples could round to nothing.
    padding = np.zeros(max(0, math.ceil(rate_in / rate_out) - taken), np.float32)
    resampled = resampler.resample_chunk(padding, last=True)
    if len(resampled):
        yield resampled


def _stated_s(reader: Reader, offset_s: float) -> float:
    """Seconds from the offset to the end as the file states it; 0 where only decoding tells."""
    return 0.0 if reader.stated_duration_s is None else reader.stated_duration_s - offset_s


def _no_samples(name: str) -> AudioError:
    return AudioError(f"'{name}' holds no audio samples")


def _longer_than(name: str, longest_s: float) -> AudioError:
    return AudioError(f"'{name}' is longer than the {longest_s:g} seconds that are accepted")


def _too_long(name: str) -> AudioError:
    return AudioError(
        f"'{name}' is longer than the {MAX_DURATION_S / 60:.0f} minutes that fit into memory at once;"
        " use the timeline, which reads window by window, or load a part of it"
    )
