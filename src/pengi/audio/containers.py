"""The length that the header of an audio file states, and whether the file is that long.

Most decoders read a truncated file without an error: to them a WAV file that lost its second half is a shorter WAV
file. The containers below state their length, so a truncated file can be recognised. FLAC and MP3 state a number of
samples, not of bytes, so samples are counted while decoding (see ``readers``). Raw streams (ADTS, MPEG-TS, MP3 without
a Xing header) state no length, so a truncation cannot be detected; the same holds for an Ogg stream that is cut exactly
between two pages.

A program that writes to a pipe cannot fill in a length afterwards. It leaves a placeholder, and the data go on to the
end of the file; :func:`corrected_sizes` computes the correct fields of such a header.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple

from pengi.audio.bitstreams import OGG_HEADER_BYTES, read_at

SLACK_BYTES = 128
"""Writers of PCM files miscount by up to the size of a header: a file counts as cut off only if more is missing."""

_HEAD_BYTES = 16
_OGG_PAGE_BYTES = OGG_HEADER_BYTES + 255 + 255 * 255  # RFC 3533: header, segment table, segments
_SEGMENT_ID = b"\x18\x53\x80\x67"
_W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_ASF_HEADER = b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c"
_ASF_DATA = b"\x36\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c"
_MAGICS = {
    b".snd": "AU",
    b"dns.": "AU",
    b"caff": "CAF",
    b"OggS": "Ogg",
    b"fLaC": "FLAC",
    b"\x1a\x45\xdf\xa3": "WebM or Matroska",
}
_MP4_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"styp", b"wide", b"free", b"skip")
_MP4_MEDIA_BOXES = (b"ftyp", b"moov", b"moof", b"mdat")

# A writer that cannot seek back leaves one of these where it does not know the size (ffmpeg, sox, GStreamer, arecord).
_PLACEHOLDERS = (
    range(1),
    range(0x7F00_0000, 0x7F00_1000),
    range(0x7FFF_0000, 0x8000_0001),
    range(0xFFFF_0000, 0x1_0000_0000),
    range(1 << 62, 1 << 64),
)
MAX_32_BIT_SIZE = 0xFFFF_FFFF


class _Chunk(NamedTuple):
    kind: bytes
    start: int
    """Offset of the content, in bytes."""
    length: int
    """Bytes of content that the chunk's header states."""


def container_of(file: IO[bytes]) -> str | None:
    """Name of the container by the first bytes of ``file``, or None.

    A name does not mean that the rest can be read.
    """
    head = read_at(file, 0, _HEAD_BYTES)
    magic = head[:4]
    if magic in _MAGICS:
        return _MAGICS[magic]
    if magic in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return "WAV"
    if magic == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "AIFF"
    if head == _W64_RIFF:
        return "W64"
    if head == _ASF_HEADER:
        return "WMA or WMV"
    if head[4:8] in _MP4_FIRST_BOXES:
        return "MP4"
    if magic[:3] == b"ID3" or _is_frame_sync(magic, mask=0xE6, pattern=0xE2):  # any MPEG version, layer III
        return "MP3"
    return "AAC" if _is_frame_sync(magic, mask=0xF6, pattern=0xF0) else None


def is_mpeg(file: IO[bytes]) -> bool:
    """Whether ``file`` begins with a frame of MPEG audio, of any layer."""
    return _is_frame_sync(read_at(file, 0, 2), mask=0xE0, pattern=0xE0)


def missing_bytes(file: IO[bytes]) -> int:
    """Number of bytes by which ``file`` is shorter than its header states; 0 if it is complete or states no length."""
    kind = container_of(file)
    size = file.seek(0, os.SEEK_END)
    if kind in _SIZES:
        end = _data_end(_chunks_of(kind, file), b"SSND" if kind == "AIFF" else b"data", size)
    else:
        end = _ENDS[kind](file, size) if kind in _ENDS else 0
    return max(0, end - size)


def corrected_sizes(file: IO[bytes]) -> dict[int, bytes]:
    """Corrected size fields of a header whose writer could not seek back: offset -> bytes.

    Empty if the sizes are known. A size of 0 is a placeholder if the file is larger than its header accounts for;
    otherwise the file has no sound. A size that does not fit into 32 bits is 0.
    """
    kind = container_of(file)
    if kind not in _SIZES:
        return {}
    size = file.seek(0, os.SEEK_END)
    chunks: dict[bytes, _Chunk] = {}
    for chunk in _chunks_of(kind, file):
        chunks[chunk.kind] = chunk
        if chunk.kind in (b"data", b"SSND"):
            return _SIZES[kind](file, chunks, size) if _is_open(kind, file, chunk, size) else {}
        if chunk.length < 0 or chunk.start + chunk.length > size:
            break
    return {}


def _is_open(kind: str, file: IO[bytes], data: _Chunk, size: int) -> bool:
    """Whether the size of the data chunk is a placeholder."""
    if not _is_placeholder(data.length) or data.start >= size:
        return False
    if data.length < 0 or (data.length and data.start + data.length > size):
        return True
    # The placeholder is 0, or the file is longer than the placeholder.
    if kind in ("AU", "CAF"):  # they do not state the size of the whole file
        return kind == "AU"
    if kind == "W64":
        whole = _integer(read_at(file, 16, 8))
    else:
        whole = 8 + _integer(read_at(file, 4, 4), kind == "AIFF" or read_at(file, 0, 4) == b"RIFX")
    return whole < size or _is_placeholder(whole - 8)


def _riff_sizes(file: IO[bytes], chunks: dict[bytes, _Chunk], size: int) -> dict[int, bytes]:
    data = chunks[b"data"]
    if b"ds64" in chunks:
        sizes = struct.pack("<QQQ", size - 8, size - data.start, 0)
        return {chunks[b"ds64"].start: sizes}
    order = ">" if read_at(file, 0, 4) == b"RIFX" else "<"
    return {4: _packed(order, size - 8), data.start - 4: _packed(order, size - data.start)}


def _aiff_sizes(file: IO[bytes], chunks: dict[bytes, _Chunk], size: int) -> dict[int, bytes]:
    sizes = {4: _packed(">", size - 8), chunks[b"SSND"].start - 4: _packed(">", size - chunks[b"SSND"].start)}
    if b"COMM" in chunks:
        channels, _, bits = struct.unpack(">HIH", read_at(file, chunks[b"COMM"].start, 8).ljust(8, b"\0"))
        frame_bytes = max(1, channels * -(-bits // 8))
        sizes[chunks[b"COMM"].start + 2] = _packed(">", (size - chunks[b"SSND"].start - 8) // frame_bytes)
    return sizes


def _w64_sizes(_file: IO[bytes], chunks: dict[bytes, _Chunk], size: int) -> dict[int, bytes]:
    data = chunks[b"data"]
    return {16: struct.pack("<Q", size), data.start - 8: struct.pack("<Q", size - data.start + 24)}


def _au_sizes(file: IO[bytes], chunks: dict[bytes, _Chunk], size: int) -> dict[int, bytes]:
    return {8: _packed(">" if read_at(file, 0, 4) == b".snd" else "<", size - chunks[b"data"].start)}


def _caf_sizes(_file: IO[bytes], chunks: dict[bytes, _Chunk], size: int) -> dict[int, bytes]:
    return {chunks[b"data"].start - 8: struct.pack(">Q", size - chunks[b"data"].start)}


_SIZES: dict[str, Callable[[IO[bytes], dict[bytes, _Chunk], int], dict[int, bytes]]] = {
    "WAV": _riff_sizes,
    "AIFF": _aiff_sizes,
    "W64": _w64_sizes,
    "AU": _au_sizes,
    "CAF": _caf_sizes,
}


def _packed(order: str, value: int) -> bytes:
    return struct.pack(f"{order}I", value if value <= MAX_32_BIT_SIZE else 0)


def _is_frame_sync(magic: bytes, mask: int, pattern: int) -> bool:
    """Whether an MPEG frame header starts here: its first eight bits are set, ``mask`` selects which follow."""
    return len(magic) > 1 and magic[0] == 0xFF and magic[1] & mask == pattern


def _chunks_of(kind: str, file: IO[bytes]) -> Iterator[_Chunk]:
    """Chunks of a WAV, AIFF, W64, AU or CAF file."""
    if kind == "WAV":
        return _riff_chunks(file)
    if kind == "AIFF":
        return _chunks(file, 12, lambda field: _integer(field, big_endian=True), padding=2)
    if kind == "CAF":
        return _chunks(file, 8, lambda field: int.from_bytes(field, "big", signed=True), size_bytes=8)
    if kind == "AU":
        head = read_at(file, 0, 12)
        big_endian = head[:4] == b".snd"
        return iter([_Chunk(b"data", _integer(head[4:8], big_endian), _integer(head[8:12], big_endian))])
    # A W64 chunk counts its own 24-byte header and is named by a GUID that starts with the RIFF name.
    chunks = _chunks(file, 40, lambda field: max(0, _integer(field) - 24), kind_bytes=16, size_bytes=8, padding=8)
    return (chunk._replace(kind=chunk.kind[:4]) for chunk in chunks)


def _riff_chunks(file: IO[bytes]) -> Iterator[_Chunk]:
    """Chunks of a RIFF, RIFX (big-endian) or RF64/BW64 file (EBU Tech 3306: 64-bit data size in the ds64 chunk)."""
    big_endian = read_at(file, 0, 4) == b"RIFX"
    data_length = 0
    for chunk in _chunks(file, 12, lambda field: _integer(field, big_endian), padding=2):
        if chunk.kind == b"ds64":
            data_length = _integer(read_at(file, chunk.start + 8, 8))
        if chunk.kind == b"data" and data_length:
            yield chunk._replace(length=data_length)
        else:
            yield chunk


def _ogg_end(file: IO[bytes], size: int) -> int:
    """Where the last page of an Ogg file (RFC 3533, section 6) ends."""
    tail_start = max(0, size - _OGG_PAGE_BYTES)
    tail = read_at(file, tail_start, _OGG_PAGE_BYTES)
    page = tail.rfind(b"OggS\x00")
    if page < 0:
        return 0
    header = tail[page : page + OGG_HEADER_BYTES]
    if len(header) < OGG_HEADER_BYTES:
        return tail_start + page + OGG_HEADER_BYTES
    table = page + OGG_HEADER_BYTES
    return tail_start + table + header[26] + sum(tail[table : table + header[26]])


def _mp4_end(file: IO[bytes], size: int) -> int:
    """End of the first box that is longer than the file (ISO/IEC 14496-12, section 4.2); 0 if there is none."""
    offset = 0
    while len(head := read_at(file, offset, 16)) >= 8:
        length, kind = _integer(head[:4], big_endian=True), head[4:8]
        if length == 1:
            length = _integer(head[8:16], big_endian=True)
        if length < 8:  # 0: the box runs to the end of the file
            return 0
        offset += length
        if offset > size:
            return offset if kind in _MP4_MEDIA_BOXES else 0
    return 0


def _asf_end(file: IO[bytes], size: int) -> int:
    """Where the data object of an ASF file ends; a live recording states no size, or the size of an empty data
    object."""
    objects = _chunks(file, 0, lambda field: _integer(field) - 24, kind_bytes=16, size_bytes=8)
    return _data_end(objects, _ASF_DATA, size)


def _ebml_end(file: IO[bytes], size: int) -> int:
    """Where the segment of a Matroska file (RFC 8794, RFC 9559) ends; a live recording does not state it."""
    header_bytes, width = _ebml_size(read_at(file, 4, 8))
    segment = 4 + width + (header_bytes or 0)
    if segment > size or read_at(file, segment, 4) != _SEGMENT_ID:
        return 0
    segment_bytes, width = _ebml_size(read_at(file, segment + 4, 8))
    return 0 if segment_bytes is None else segment + 4 + width + segment_bytes


_ENDS = {"Ogg": _ogg_end, "MP4": _mp4_end, "WMA or WMV": _asf_end, "WebM or Matroska": _ebml_end}
"""Functions that find where the file ends according to its header; 0 if it does not say so."""


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
    while len(header := read_at(file, offset, header_bytes)) == header_bytes:
        chunk = _Chunk(header[:kind_bytes], offset + header_bytes, size_of(header[kind_bytes:]))
        yield chunk
        offset = chunk.start + chunk.length + -chunk.length % padding


def _data_end(chunks: Iterator[_Chunk], data_kind: bytes, size: int) -> int:
    """Where the data chunk ends, or an earlier chunk that exceeds the file; 0 if it is complete or its size is
    unknown."""
    for chunk in chunks:
        is_data = chunk.kind == data_kind
        if chunk.length < 0 or (is_data and _is_placeholder(chunk.length)):
            return 0
        end = chunk.start + chunk.length
        if is_data or end > size:
            return end if end > size + SLACK_BYTES else 0
    return 0


def _is_placeholder(length: int) -> bool:
    """Whether a size stands for "unknown"; CAF uses a negative one."""
    return length < 0 or any(length in placeholders for placeholders in _PLACEHOLDERS)


def _integer(field: bytes, big_endian: bool = False) -> int:
    return int.from_bytes(field, "big" if big_endian else "little")
