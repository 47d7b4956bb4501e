"""Reads parts of a stream that are needed before decoding: ID3 tags, the frame count of MP3, the links of Ogg."""

from __future__ import annotations

import os
from typing import IO

_ID3_HEADER_BYTES = 10
OGG_HEADER_BYTES = 27
_SEARCH_BYTES = 65_536
_MP3_RATES = (44_100, 48_000, 32_000)


def id3_bytes(file: IO[bytes]) -> int:
    """Length of the ID3v2 tags at the start of a file; taggers put them in front of any format."""
    end = 0
    while (header := read_at(file, end, _ID3_HEADER_BYTES))[:3] == b"ID3" and len(header) == _ID3_HEADER_BYTES:
        if any(byte & 0x80 for byte in header[6:10]) or 0xFF in header[3:5]:
            break
        size = sum(byte << shift for byte, shift in zip(header[6:10], (21, 14, 7, 0), strict=True))
        end += _ID3_HEADER_BYTES + size + (_ID3_HEADER_BYTES if header[5] & 0x10 else 0)  # a footer repeats the header
    return end


def mp3_stated_s(file: IO[bytes]) -> float | None:
    """Length of an MP3 file in seconds, from the frame count in its Xing, Info or VBRI header; None without a header.

    The count includes the padding that an encoder adds before and after the sound.
    """
    head = read_at(file, 0, 256)
    if len(head) < 64 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:  # layer III of any MPEG version
        return None
    version, rate_index = head[1] >> 3 & 3, head[2] >> 2 & 3
    if version == 1 or rate_index == 3:
        return None
    is_mpeg1, is_mono = version == 3, head[3] >> 6 == 3
    rate = _MP3_RATES[rate_index] >> (0 if is_mpeg1 else 1 if version == 2 else 2)
    side_info_bytes = {(True, False): 32, (True, True): 17, (False, False): 17, (False, True): 9}[is_mpeg1, is_mono]
    xing = 4 + side_info_bytes
    if head[xing : xing + 4] in (b"Xing", b"Info") and head[xing + 7] & 1:
        frames = int.from_bytes(head[xing + 8 : xing + 12], "big")
    elif head[36:40] == b"VBRI":
        frames = int.from_bytes(head[50:54], "big")
    else:
        return None
    return frames * (1152 if is_mpeg1 else 576) / rate if frames else None


def ogg_links(file: IO[bytes]) -> list[int]:
    """Offsets at which the links of an Ogg file start. Links are streams that follow each other, as in recorded radio.

    All streams of a link begin at its start (RFC 3533, section 4).
    """
    links: list[int] = []
    offset, in_heads = 0, False
    while True:
        header = read_at(file, offset, OGG_HEADER_BYTES + 255)
        if len(header) < OGG_HEADER_BYTES:
            return links or [0]
        if header[:5] != b"OggS\0":
            offset = _next_page(file, offset + 1)
            continue
        is_head = bool(header[5] & 2) and header[18:22] == bytes(4) and header[6:14] in (bytes(8), b"\xff" * 8)
        if is_head and not in_heads:
            links.append(offset)
        in_heads = is_head
        table = header[OGG_HEADER_BYTES : OGG_HEADER_BYTES + header[26]]
        offset += OGG_HEADER_BYTES + header[26] + sum(table)


def _next_page(file: IO[bytes], offset: int) -> int:
    """Offset of the next page of an Ogg file; the end of the file if there is none."""
    while chunk := read_at(file, offset, _SEARCH_BYTES):
        found = chunk.find(b"OggS\0")
        if found >= 0:
            return offset + found
        if len(chunk) < _SEARCH_BYTES:
            break
        offset += _SEARCH_BYTES - 4  # the mark may be split between two chunks
    return file.seek(0, os.SEEK_END)


def read_at(file: IO[bytes], offset: int, count: int) -> bytes:
    """``count`` bytes from ``offset`` on, fewer at the end of the file."""
    file.seek(offset)
    return file.read(count)
