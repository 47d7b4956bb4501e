"""What the header of an audio file promises, and whether the file holds it.

Most decoders read a file that was cut off without a word: a WAV file that lost its second half is a shorter WAV file to
them. The containers below say how long they are, so a cut can be told from an end. FLAC and MP3 state a number of
samples, not of bytes; for them the decoder counts (see ``readers``). Bare streams (ADTS, MPEG-TS, MP3 without a Xing
header) promise nothing and end where they end, as does an Ogg stream cut exactly between two of its pages.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple

SLACK_BYTES = 128
"""Writers of PCM files miscount by as much as a header: only when more than this is missing is it called a cut."""

_HEAD_BYTES = 16
_OGG_HEADER_BYTES = 27
_OGG_PAGE_BYTES = _OGG_HEADER_BYTES + 255 + 255 * 255  # RFC 3533: header, segment table, segments
_EBML_ID = b"\x1a\x45\xdf\xa3"
_SEGMENT_ID = b"\x18\x53\x80\x67"
_W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_MP4_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"styp", b"wide", b"free", b"skip")
_MP4_MEDIA_BOXES = (b"ftyp", b"moov", b"moof", b"mdat")

# A writer that cannot seek back leaves one of these where it does not know the size (ffmpeg, sox, GStreamer, arecord).
_PLACEHOLDERS_32 = (range(1), range(0x7FFF_0000, 0x8000_0001), range(0xFFFF_0000, 0x1_0000_0000))


class _Chunk(NamedTuple):
    kind: bytes
    start: int
    """Offset of the content, in bytes."""
    length: int
    """Bytes of content that the chunk's header states."""


def container_of(file: IO[bytes]) -> str | None:
    """Name of the container that the first bytes of ``file`` belong to, or None.

    A name is no promise that the rest can be read.
    """
    return _recognise(_read_at(file, 0, _HEAD_BYTES))[0]


def missing_bytes(file: IO[bytes]) -> int:
    """Number of bytes that the header of ``file`` promises beyond its end; 0 if it is whole or promises nothing."""
    promised_end = _recognise(_read_at(file, 0, _HEAD_BYTES))[1]
    size = file.seek(0, os.SEEK_END)
    return max(0, promised_end(file, size) - size)


def is_unfinished_wav(file: IO[bytes]) -> bool:
    """Whether ``file`` is a WAV stream whose header still says "no data", although data follows.

    The RIFF size tells it from a finished file with an empty data chunk: that one accounts for the whole file.
    """
    size = file.seek(0, os.SEEK_END)
    head = _read_at(file, 0, _HEAD_BYTES)
    if _recognise(head)[0] != "WAV":
        return False
    riff_size = int.from_bytes(head[4:8], "little")
    data_is_open = any(chunk.kind == b"data" and _is_placeholder(chunk.length) for chunk in _riff_chunks(file))
    return data_is_open and (8 + riff_size < size or _is_placeholder(riff_size))


def _recognise(head: bytes) -> tuple[str | None, Callable[[IO[bytes], int], int]]:
    """Container name, and the function that finds where its header says the file ends (0 where it does not say)."""
    magic = head[:4]
    if magic in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return "WAV", _riff_end
    if magic == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "AIFF", _aiff_end
    if magic in (b".snd", b"dns."):
        return "AU", _au_end
    if magic == b"caff":
        return "CAF", _caf_end
    if head == _W64_RIFF:
        return "W64", _w64_end
    if magic == b"OggS":
        return "Ogg", _ogg_end
    if magic == _EBML_ID:
        return "WebM or Matroska", _ebml_end
    if head[4:8] in _MP4_FIRST_BOXES:
        return "MP4", _mp4_end
    if magic == b"fLaC":
        return "FLAC", _no_promise
    if magic[:3] == b"ID3" or _is_frame_sync(magic, mask=0xE6, pattern=0xE2):  # any MPEG version, layer III
        return "MP3", _no_promise
    if _is_frame_sync(magic, mask=0xF6, pattern=0xF0):
        return "AAC", _no_promise
    return None, _no_promise


def _is_frame_sync(magic: bytes, mask: int, pattern: int) -> bool:
    """Whether an MPEG frame header starts here: its first eight bits are set, ``mask`` selects which follow."""
    return len(magic) > 1 and magic[0] == 0xFF and magic[1] & mask == pattern


def _no_promise(_file: IO[bytes], _size: int) -> int:
    return 0


def _riff_end(file: IO[bytes], size: int) -> int:
    return _data_end(_riff_chunks(file), b"data", size)


def _riff_chunks(file: IO[bytes]) -> Iterator[_Chunk]:
    """Chunks of a RIFF, RIFX (big-endian) or RF64/BW64 file (EBU Tech 3306: 64-bit data size in the ds64 chunk)."""
    big_endian = _read_at(file, 0, 4) == b"RIFX"
    data_length = 0
    for chunk in _chunks(file, 12, lambda field: _integer(field, big_endian), padding=2):
        if chunk.kind == b"ds64":
            data_length = _integer(_read_at(file, chunk.start + 8, 8))
        if chunk.kind == b"data" and data_length:
            yield chunk._replace(length=data_length)
        else:
            yield chunk


def _aiff_end(file: IO[bytes], size: int) -> int:
    chunks = _chunks(file, 12, lambda field: _integer(field, big_endian=True), padding=2)
    return _data_end(chunks, b"SSND", size)


def _caf_end(file: IO[bytes], size: int) -> int:
    chunks = _chunks(file, 8, lambda field: int.from_bytes(field, "big", signed=True), size_bytes=8)
    return _data_end(chunks, b"data", size)


def _w64_end(file: IO[bytes], size: int) -> int:
    # A W64 chunk counts its own 24-byte header and is named by a GUID that starts with the RIFF name.
    chunks = _chunks(file, 40, lambda field: max(0, _integer(field) - 24), kind_bytes=16, size_bytes=8, padding=8)
    return _data_end((chunk._replace(kind=chunk.kind[:4]) for chunk in chunks), b"data", size)


def _au_end(file: IO[bytes], size: int) -> int:
    head = _read_at(file, 0, 12)
    big_endian = head[:4] == b".snd"
    data = _Chunk(b"data", start=_integer(head[4:8], big_endian), length=_integer(head[8:12], big_endian))
    return _data_end(iter([data]), b"data", size)


def _ogg_end(file: IO[bytes], size: int) -> int:
    """Where the last page of an Ogg file (RFC 3533, section 6) ends."""
    tail_start = max(0, size - _OGG_PAGE_BYTES)
    tail = _read_at(file, tail_start, _OGG_PAGE_BYTES)
    page = tail.rfind(b"OggS\x00")
    if page < 0:
        return 0
    header = tail[page : page + _OGG_HEADER_BYTES]
    if len(header) < _OGG_HEADER_BYTES:
        return tail_start + page + _OGG_HEADER_BYTES
    table = page + _OGG_HEADER_BYTES
    return tail_start + table + header[26] + sum(tail[table : table + header[26]])


def _mp4_end(file: IO[bytes], size: int) -> int:
    """Where the first box that leaves an ISO base media file (ISO/IEC 14496-12, section 4.2) ends."""
    offset = 0
    while len(head := _read_at(file, offset, 16)) >= 8:
        length, kind = _integer(head[:4], big_endian=True), head[4:8]
        if length == 1:
            length = _integer(head[8:16], big_endian=True)
        if length < 8:  # 0: the box runs to the end of the file
            return 0
        offset += length
        if offset > size:
            return offset if kind in _MP4_MEDIA_BOXES else 0
    return 0


def _ebml_end(file: IO[bytes], size: int) -> int:
    """Where the segment of a Matroska file (RFC 8794, RFC 9559) ends; a live recording leaves that open."""
    header_bytes, width = _ebml_size(_read_at(file, 4, 8))
    segment = 4 + width + (header_bytes or 0)
    if segment > size or _read_at(file, segment, 4) != _SEGMENT_ID:
        return 0
    segment_bytes, width = _ebml_size(_read_at(file, segment + 4, 8))
    return 0 if segment_bytes is None else segment + 4 + width + segment_bytes


def _ebml_size(field: bytes) -> tuple[int | None, int]:
    """Value and width in bytes of a variable-length size; all value bits set means unknown."""
    if not field or not field[0]:
        return None, 1
    width = 9 - field[0].bit_length()
    value_bits = 7 * width
    value = _integer(field[:width], big_endian=True) & ((1 << value_bits) - 1)
    return (None if value == (1 << value_bits) - 1 else value), width


def _chunks(
    file: IO[bytes],
    offset: int,
    size_of: Callable[[bytes], int],
    *,
    kind_bytes: int = 4,
    size_bytes: int = 4,
    padding: int = 1,
) -> Iterator[_Chunk]:
    """Chunks (kind, size, content) from ``offset`` to the end of the file; ``size_of`` reads the size field."""
    header_bytes = kind_bytes + size_bytes
    while len(header := _read_at(file, offset, header_bytes)) == header_bytes:
        chunk = _Chunk(header[:kind_bytes], offset + header_bytes, size_of(header[kind_bytes:]))
        yield chunk
        offset = chunk.start + chunk.length + -chunk.length % padding


def _data_end(chunks: Iterator[_Chunk], data_kind: bytes, size: int) -> int:
    """Where the data chunk, or a chunk before it that leaves the file, ends; 0 if it is whole or its size is open.

    A negative size is CAF's way to leave it open.
    """
    for chunk in chunks:
        is_data = chunk.kind == data_kind
        if chunk.length < 0 or (is_data and _is_placeholder(chunk.length)):
            return 0
        end = chunk.start + chunk.length
        if is_data or end > size:
            return end if end > size + SLACK_BYTES else 0
    return 0


def _is_placeholder(length: int) -> bool:
    """Whether a size field of 32 bits says "unknown" rather than a length."""
    return any(length in placeholders for placeholders in _PLACEHOLDERS_32)


def _integer(field: bytes, big_endian: bool = False) -> int:
    return int.from_bytes(field, "big" if big_endian else "little")


def _read_at(file: IO[bytes], offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)
