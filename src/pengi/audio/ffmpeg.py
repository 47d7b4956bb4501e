"""Reads recordings with FFmpeg: MP3, Ogg, AAC, MP4, Matroska and WebM, MPEG-TS, the sound of videos and more.

Frames are placed by their time stamps if the container has them: a pause between packets becomes silence, and so does
the time before sound that starts after the picture. Raw streams have no time stamps. Their undecodable parts become
silence, whose length is estimated from the number of bytes.

Shape suffixes: C channels, S samples.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pengi.audio import bitstreams
from pengi.audio.readers import (
    Reader,
    SoundFileReader,
    UnreadableError,
    as_float,
    broken,
    check_count,
    check_track,
    gathered,
    resampled,
    without_first,
)
from pengi.audio.views import view
from pengi.errors import AudioError

if TYPE_CHECKING:
    import av

SEEK_LEAD_S = 0.5
"""Seconds that are decoded and discarded before a seek position: a lossy codec needs earlier frames to settle."""
STAMP_SLACK_S = 0.1
"""Smaller deviations of time stamps are rounding or jitter, not a gap."""
MAX_UNSTATED_GAP_S = 600.0
"""Silence that time stamps may add to a recording that does not state its length; a larger jump is not a pause."""
MAX_SILENT_TAIL_S = 1.0
"""If the sound ends earlier than the length that its container states by more than this, there is a note."""
_MAX_BAD_PACKETS = 8
"""A recording is refused once bad packets outnumber good ones by more than this."""
_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"Xing", b"Info", b"VBRI", b"LAME")  # bytes that are not lost sound
_CHUNK_BYTES = 4096
_MP3_PADDING_S = 0.3  # padding by encoders around the sound, at the lowest rate
# FFmpeg must read only the given bytes: a playlist or session description could name files and hosts.
_AV_OPTIONS = {"protocol_whitelist": "none"}


@dataclass(frozen=True)
class _Demuxer:
    """Properties of a container; by default its packets follow each other, and a bad packet is an error."""

    stamped: bool = False
    """Its packets carry time stamps."""
    from_zero: bool = False
    """Its time starts at 0, not at the first packet."""
    stream_length: bool = False
    """It states the length of the stream."""
    container_length: bool = False
    """It states the total length, counted from time 0."""
    resumes: bool = False
    """Decoding continues after damage."""
    counted: bool = False
    """It states the exact number of samples, so a file with fewer samples is cut off."""
    max_frame_bytes: int | None = None
    """Longest frame of a raw stream; a longer packet holds bytes that belong to no frame."""


_BARE = _Demuxer(resumes=True, max_frame_bytes=8192)
_EXACT = _Demuxer(stream_length=True, counted=True)
_DEMUXERS = {
    "mov": _Demuxer(stamped=True, from_zero=True, stream_length=True),
    "matroska": _Demuxer(stamped=True, from_zero=True, container_length=True),
    "flv": _Demuxer(stamped=True, from_zero=True),
    "nut": _Demuxer(stamped=True, from_zero=True),
    "asf": _Demuxer(stamped=True),
    "ogg": _Demuxer(stamped=True, stream_length=True, resumes=True),
    "mpegts": _Demuxer(stamped=True, resumes=True),
    "mpeg": _Demuxer(stamped=True, resumes=True),
    "mp3": _Demuxer(resumes=True, max_frame_bytes=1800),
    "aac": _BARE,
    "ac3": _BARE,
    "eac3": _BARE,
    "dts": _BARE,
    "wv": _EXACT,
    "tta": _EXACT,
    "ape": _EXACT,
}


class Clock:
    """Computes the silence before each frame from its time stamp, or from the length of lost packets before it."""

    def __init__(self, sample_rate: int, end_s: float | None) -> None:
        self._rate = sample_rate
        self._end_s = end_s
        self._shift_s = 0.0  # sum of the jumps of time stamps backwards or too far ahead
        self._unstated_s = 0.0
        self.position = 0.0
        """In samples."""
        self.missing: list[tuple[float, float]] = []
        """Start and length of missing parts in the middle, in seconds."""
        self.jumps: list[tuple[float, float]] = []

    @property
    def position_s(self) -> float:
        """Position in seconds."""
        return self.position / self._rate

    def silence_before(self, stamp_s: float | None, lost_s: float) -> int:
        """Samples of silence to insert before a frame."""
        gap_s = lost_s if stamp_s is None else stamp_s - self._shift_s - self.position_s
        if stamp_s is not None and abs(gap_s) <= STAMP_SLACK_S:
            return 0
        if gap_s <= 0 or not self._is_credible(gap_s):
            self._shift_s += gap_s
            if gap_s > 0:
                self.jumps.append((self.position_s, gap_s))
            return 0
        if self.position:
            self.missing.append((self.position_s, gap_s))
        return round(gap_s * self._rate)

    def _is_credible(self, gap_s: float) -> bool:
        """Whether a gap is a pause; otherwise the clock is wrong or was set anew."""
        if self._end_s is not None:
            return self.position_s + gap_s <= self._end_s + STAMP_SLACK_S
        if self._unstated_s + gap_s > MAX_UNSTATED_GAP_S:
            return False
        self._unstated_s += gap_s
        return True


class AvReader:
    """One sound track, decoded by FFmpeg."""

    def __init__(self, file: IO[bytes], name: str, track: int | None, begins_s: float = 0.0) -> None:
        """Open ``file``, which has no name; ``name`` is what error messages call it.

        Args:
            file: a seekable file.
            name: of the recording.
            track: which sound track, counted from 1; None is the default one.
            begins_s: where in the recording the file begins, if it is a part of one.

        Raises:
            UnreadableError: if FFmpeg does not know the content.
            AudioError: if the content has no sound, no such track, or its first samples cannot be decoded.
        """
        import av  # the import takes a sixth of a second, which common formats do not need

        self._file = file
        self._name = name
        self._av = av
        self._begins_s = begins_s
        self._clock = Clock(1, None)  # until the sample rate is known
        self._notes: list[str] = []
        # Before FFmpeg opens the file, since that moves its position.
        self._counted_s = bitstreams.mp3_stated_s(file)
        file.seek(0)
        try:
            self._container = av.open(file, "r", options=_AV_OPTIONS, metadata_errors="replace")
        except av.FFmpegError as error:
            raise UnreadableError from error
        with ExitStack() as on_failure:
            on_failure.callback(self._container.close)
            self._open_track(track)
            self._open_decoder()
            on_failure.pop_all()

    def _open_track(self, track: int | None) -> None:
        tracks = self._container.streams.audio
        if not tracks:
            raise AudioError(f"'{self._name}' has no sound: it is {self._container.format.long_name}")
        check_track(self._name, track, len(tracks))
        marked = [stream for stream in tracks if stream.disposition & self._av.stream.Disposition.default]
        best = self._container.streams.best("audio")
        if track is not None:
            self._stream = tracks[track - 1]
        elif len(marked) == 1 or not isinstance(best, self._av.AudioStream):
            self._stream = (marked or tracks)[0]
        else:
            self._stream = best
        if track is None and len(tracks) > 1:
            number = 1 + [stream.index for stream in tracks].index(self._stream.index)
            self._notes.append(f"'{self._name}' has {len(tracks)} sound tracks; track {number} is read")

    def _open_decoder(self) -> None:
        container = self._container.format.name.split(",")[0]
        self._demuxer = _DEMUXERS.get(container, _Demuxer())
        self._codec: Any = self._stream.codec_context
        self.format = f"{container} {self._codec.name}"
        packets: Iterator[av.Packet[Any]] = self._container.demux(self._stream)
        if container == "aac":
            # FFmpeg's own reader of raw AAC skips damage without an error.
            self._codec = self._av.CodecContext.create(self._codec.name, "r")
            packets = self._parsed()
        self._lost_s = 0.0  # in packets that could not be decoded since the last frame
        self._frames = self._decode(packets)
        # Only a decoded frame has the true rate and channels (HE-AAC states half of its rate).
        self._first = next(self._frames, None)
        self.sample_rate = self._first.sample_rate if self._first else self._stream.sample_rate
        self.channels = self._first.layout.nb_channels if self._first else self._stream.channels
        self._origin_s = self._time_origin_s()
        self.stated_duration_s, self._min_duration_s = self._stated()
        self._clock = Clock(max(1, self.sample_rate), self.stated_duration_s)

    @property
    def drops_its_start(self) -> bool:
        """Whether FFmpeg omits the first samples, as it does for Vorbis in a single Ogg page."""
        first = self._first
        return self.format == "ogg vorbis" and first is not None and bool(first.pts) and not self._stream.start_time

    @property
    def notes(self) -> list[str]:
        """Sentences about tracks, and about the parts that are missing so far."""
        notes = list(self._notes)
        total_s = sum(length_s for _, length_s in self._clock.missing)
        if round(total_s, 2) > 0:
            first_s = self._begins_s + self._clock.missing[0][0]
            notes.append(
                f"{total_s:.2f} s of '{self._name}' are missing, the first at {first_s:.2f} s; they are read as silence"
            )
        if self._clock.jumps:
            at_s, length_s = self._clock.jumps[0]
            notes.append(
                f"the time stamps of '{self._name}' jump by {length_s:.0f} s at {self._begins_s + at_s:.2f} s, which is"
                " not read as silence"
            )
        return notes

    def _time_origin_s(self) -> float:
        """The time stamp at which the recording begins."""
        start_s = (self._container.start_time or 0) / self._av.time_base
        if not self._demuxer.from_zero or start_s > self._length_s():
            return start_s  # a start that is later than the length of the sound is the clock of a broadcast
        return 0.0

    def _length_s(self) -> float:
        """Length of the sound alone as the container states it; 0 if it does not."""
        if self._demuxer.container_length:
            return ((self._container.duration or 0) - (self._container.start_time or 0)) / self._av.time_base
        if self._stream.duration and self._stream.time_base:
            return float(self._stream.duration * self._stream.time_base)
        return 0.0

    def _stated(self) -> tuple[float | None, float | None]:
        """The length that the container states, and the minimum length that must be decoded, else the file is cut off;
        each in seconds, or None if it is unknown."""
        length_s = self._length_s() or None
        if self.format.startswith("mp3 "):
            if self._counted_s is None or length_s is None:
                return None, None
            # FFmpeg's length is an estimate where a second file follows the first.
            is_whole = abs(length_s - self._counted_s) <= _MP3_PADDING_S
            return (length_s, length_s) if is_whole else (None, self._counted_s - _MP3_PADDING_S)
        if self._demuxer.container_length:
            return self._container_length_s(), None
        if not self._demuxer.stream_length or length_s is None:
            return None, None
        start_s = float((self._stream.start_time or 0) * (self._stream.time_base or 0))
        if self.format.startswith("ogg "):
            # An Ogg stream that does not start at 0 was cut out of a longer one.
            return (None if start_s else length_s - self._codec.delay / self.sample_rate), None
        return start_s - self._origin_s + length_s, length_s if self._demuxer.counted else None

    def _container_length_s(self) -> float | None:
        """The length of the track in a container that states a common length for all tracks."""
        if not self._container.duration:
            return None
        if len(self._container.streams) > 1:
            written = self._stream.metadata.get("DURATION", "").split(":")
            try:
                hours, minutes, seconds = map(float, written)
            except ValueError:
                return None
            return 3600 * hours + 60 * minutes + seconds - self._origin_s
        return self._container.duration / self._av.time_base - self._origin_s

    def blocks(self, start: int, block_samples: int) -> Iterator[NDArray[np.float32]]:
        if self._first is None:
            return
        frames = self._frames_near(start)
        pieces = at_rate(self._placed(frames), self.sample_rate)
        yield from gathered(without_first(pieces, start - round(self._clock.position)), block_samples)
        check_count(self._name, self._min_duration_s, self._clock.position_s)
        stated_s = self.stated_duration_s
        if stated_s is not None and stated_s - self._clock.position_s > MAX_SILENT_TAIL_S:
            self._notes.append(
                f"'{self._name}' should last {self._begins_s + stated_s:.2f} s, but its sound ends at"
                f" {self._begins_s + self._clock.position_s:.2f} s"
            )

    def _frames_near(self, start: int) -> Iterator[av.AudioFrame]:
        """Frames that begin at or before sample ``start``; the clock stands at the first.

        Seeking is exact only in MP4, whose time stamps have the resolution of samples; in other containers everything
        before ``start`` is decoded.
        """
        assert self._first is not None
        base = self._stream.time_base
        target = start - round(SEEK_LEAD_S * self.sample_rate)
        exact = self.format.startswith("mov ") and base == Fraction(1, self.sample_rate)
        origin = round(self._origin_s * self.sample_rate)
        if not exact or self._first.pts is None or target <= max(0, self._first.pts - origin):
            return itertools.chain([self._first], self._frames)
        try:
            self._container.seek(origin + target, stream=self._stream)
        except self._av.FFmpegError as error:
            raise broken(self._name, 0.0) from error
        frames = self._decode(self._container.demux(self._stream))
        landed = next(frames, None)
        if landed is None:
            return iter(())
        assert landed.pts is not None  # the index of an MP4 file has a time for every packet
        self._clock.position = landed.pts - origin
        return itertools.chain([landed], frames)

    def _placed(self, frames: Iterator[av.AudioFrame]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Rate and samples of the frames, and silence in the gaps between them."""
        for frame in frames:
            samples_CS = self._samples(frame)
            stamp_s = None
            # FFmpeg computes the times of frames with the initial rate, which is wrong after the rate has changed.
            dated = self._demuxer.stamped and frame.sample_rate == self.sample_rate
            if dated and frame.pts is not None and frame.time_base:
                stamp_s = float(frame.pts * frame.time_base) - self._origin_s
            silence = self._clock.silence_before(stamp_s, self._lost_s)
            self._lost_s = 0.0
            self._clock.position += silence
            while silence > 0:
                yield self.sample_rate, np.zeros((len(samples_CS), min(silence, self.sample_rate)), np.float32)
                silence -= self.sample_rate
            self._clock.position += samples_CS.shape[1] * self.sample_rate / frame.sample_rate
            yield frame.sample_rate, samples_CS

    def _parsed(self) -> Iterator[av.Packet[Any]]:
        """Packets of a bare stream: one for each frame, and separate ones for the bytes between frames."""
        self._file.seek(0)
        while chunk := self._file.read(_CHUNK_BYTES):
            yield from self._codec.parse(chunk)
        yield from self._codec.parse(b"")
        yield self._av.Packet(0)  # empty: the end

    def _decode(self, packets: Iterator[av.Packet[Any]]) -> Iterator[av.AudioFrame]:
        """Decoded frames, from the current position of the container.

        If the last packet of a raw stream cannot be decoded, the stream was cut inside that packet. If another packet
        cannot be decoded, the file is damaged; some formats continue after the damage.
        """
        bad_packet: Exception | None = None
        good = bad = decoded_bytes = lost_bytes = 0
        decoded_s = 0.0
        try:
            for packet in packets:
                if bad_packet is not None and packet.size and not self._demuxer.resumes:
                    raise bad_packet
                try:
                    frames = self._codec.decode(packet)
                except self._av.FFmpegError as error:
                    bad_packet = error
                    bad += 1
                    lost_bytes += 0 if _holds_tag(packet) else packet.size
                    if bad > good + _MAX_BAD_PACKETS:
                        raise
                    continue
                for frame in frames:
                    if lost_bytes and decoded_bytes:
                        self._lost_s = lost_bytes * decoded_s / decoded_bytes
                    lost_bytes = 0
                    decoded_s += frame.samples / max(1, frame.sample_rate)
                    yield frame
                good += bool(frames)
                frame_bytes = min(packet.size, self._demuxer.max_frame_bytes or packet.size)
                decoded_bytes += frame_bytes
                if packet.size > frame_bytes and not _holds_tag(packet):
                    lost_bytes += packet.size - frame_bytes
            if bad_packet is not None and not good:
                raise bad_packet
        except self._av.FFmpegError as error:
            raise broken(self._name, self._begins_s + self._clock.position_s) from error

    def _samples(self, frame: av.AudioFrame) -> NDArray[np.float32]:
        samples = frame.to_ndarray()
        if not frame.format.is_planar:
            samples = samples.reshape(-1, frame.layout.nb_channels).T
        return as_float(samples)

    def close(self) -> None:
        self._container.close()


class ChainReader:
    """Reads the links of an Ogg file one after the other, at the sample rate of the first."""

    def __init__(self, file: IO[bytes], links: list[int], name: str, track: int | None) -> None:
        """Open the first link; errors are those of :class:`AvReader`."""
        self._file = file
        self._bounds: list[tuple[int, int | None]] = list(zip(links, [*links[1:], None], strict=True))
        self._name = name
        self._track = track
        self._readers = [_open_part(view(file, *self._bounds[0]), name, track)]
        self.sample_rate = self._readers[0].sample_rate
        self.channels = self._readers[0].channels
        self.format = self._readers[0].format
        self.stated_duration_s: float | None = None

    @property
    def notes(self) -> list[str]:
        """The notes of all links so far."""
        return list(dict.fromkeys(note for reader in self._readers for note in reader.notes))

    def blocks(self, start: int, block_samples: int) -> Iterator[NDArray[np.float32]]:
        blocks_CS = at_rate(self._pieces(block_samples), self.sample_rate)
        return gathered(without_first(blocks_CS, start), block_samples)

    def _pieces(self, block_samples: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        position_s = 0.0
        for number, bounds in enumerate(self._bounds):
            if number:
                self._readers[-1].close()
                try:
                    self._readers.append(_open_part(view(self._file, *bounds), self._name, self._track, position_s))
                except UnreadableError as error:
                    raise broken(self._name, position_s) from error
            reader = self._readers[-1]
            for block_CS in reader.blocks(0, block_samples):
                yield reader.sample_rate, block_CS
                position_s += block_CS.shape[1] / reader.sample_rate

    def close(self) -> None:
        self._readers[-1].close()


def _open_part(file: IO[bytes], name: str, track: int | None, begins_s: float = 0.0) -> Reader:
    """A reader for a file, or for one link of it."""
    reader = AvReader(file, name, track, begins_s)
    if not reader.drops_its_start:
        return reader
    reader.close()
    file.seek(0)
    return SoundFileReader(file, name, track)


def open_with_ffmpeg(file: IO[bytes], name: str, track: int | None) -> Reader:
    """A reader for a file in a format of FFmpeg; errors are those of :class:`AvReader`."""
    file.seek(0)
    links = bitstreams.ogg_links(file) if file.read(4) == b"OggS" else []
    file.seek(0)
    return ChainReader(file, links, name, track) if len(links) > 1 else _open_part(file, name, track)


def at_rate(pieces: Iterator[tuple[int, NDArray[np.float32]]], rate: int) -> Iterator[NDArray[np.float32]]:
    """Resample pieces ``float32[C, S]`` of changing rates to one rate."""
    for (own_rate, _), run in itertools.groupby(pieces, key=lambda piece: (piece[0], len(piece[1]))):
        blocks_CS = (samples_CS for _, samples_CS in run)
        yield from blocks_CS if own_rate == rate else resampled(blocks_CS, own_rate, rate)


def _holds_tag(packet: av.Packet[Any]) -> bool:
    """Whether a packet holds a tag rather than an audio frame."""
    content = bytes(packet)
    return any(tag in content for tag in _TAGS)
