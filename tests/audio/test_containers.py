from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helpers.audio import encoded
from pengi.audio.containers import SLACK_BYTES, container_of, corrected_sizes, missing_bytes

NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000).astype(np.float32)
EXPECTED_NAMES = {
    "wav": "WAV",
    "rf64": "WAV",
    "aiff": "AIFF",
    "au": "AU",
    "caf": "CAF",
    "w64": "W64",
    "ogg": "Ogg",
    "flac": "FLAC",
    "m4a": "MP4",
    "webm": "WebM or Matroska",
    "wma": "WMA or WMV",
}
MAGICS = [
    b"RIFF\0\0\0\0WAVE",
    b"RIFX\0\0\0\0WAVE",
    b"RF64\xff\xff\xff\xffWAVEds64",
    b"FORM\0\0\0\0AIFF",
    b".snd",
    b"dns.",
    b"caff\0\1\0\0",
    b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00",
    b"OggS\0",
    b"\x1a\x45\xdf\xa3",
    b"\0\0\0\x10ftypM4A ",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c",
]


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    return {kind: encoded(kind, NOISE) for kind in EXPECTED_NAMES}


@pytest.mark.parametrize("kind", EXPECTED_NAMES)
def test_whole_files_miss_nothing(kind: str, contents: dict[str, bytes]) -> None:
    file = io.BytesIO(contents[kind])
    assert container_of(file) == EXPECTED_NAMES[kind]
    assert missing_bytes(file) == 0
    assert corrected_sizes(file) == {}


@pytest.mark.parametrize("kind", EXPECTED_NAMES)
def test_trailing_bytes_are_no_cut(kind: str, contents: dict[str, bytes]) -> None:
    assert missing_bytes(io.BytesIO(contents[kind] + b"TAG" + bytes(125))) == 0
    assert missing_bytes(io.BytesIO(contents[kind] + b"\xff" * 1000)) == 0


@pytest.mark.parametrize("kind", ["wav", "rf64", "aiff", "au", "caf", "w64"])
def test_pcm_files_know_how_much_is_missing(kind: str, contents: dict[str, bytes]) -> None:
    content = contents[kind]
    for cut in (SLACK_BYTES + 1, 5_000, 20_000):
        assert missing_bytes(io.BytesIO(content[:-cut])) == cut
    assert missing_bytes(io.BytesIO(content[:-SLACK_BYTES])) == 0


def test_a_cut_in_the_data_of_asf_is_seen(contents: dict[str, bytes]) -> None:
    content = contents["wma"]
    assert missing_bytes(io.BytesIO(content[: len(content) * 2 // 3])) > 0


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_other_containers_see_any_cut(contents: dict[str, bytes], data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["ogg", "m4a", "webm"]))
    content = contents[kind]
    length = data.draw(st.integers(64, len(content) - 1))
    file = io.BytesIO(content[:length])
    # Without a whole header of the last box, the box before it is the end.
    box = content.rfind(b"moov") - 4
    at_a_boundary = content[length : length + 4] == b"OggS" or (kind == "m4a" and box <= length < box + 8)
    assert (missing_bytes(file) > 0) is not (at_a_boundary or _inside_a_page_mark(content, length))


def _inside_a_page_mark(content: bytes, length: int) -> bool:
    """Whether the cut left so little of a page that its five-byte mark is incomplete."""
    page = content.rfind(b"OggS\0", 0, length + 4)
    return page >= 0 and page > length - 5


def test_big_endian_and_unpadded_chunks() -> None:
    head = b"RIFX" + struct.pack(">I", 1000) + b"WAVE"
    odd_chunk = b"junk" + struct.pack(">I", 3) + b"abc\0"
    assert missing_bytes(io.BytesIO(head + odd_chunk + b"data" + struct.pack(">I", 1000) + bytes(1000))) == 0
    assert missing_bytes(io.BytesIO(head + odd_chunk + b"data" + struct.pack(">I", 1000) + bytes(500))) == 500


def test_empty_chunk_before_the_data_is_skipped() -> None:
    content = b"RIFF" + struct.pack("<I", 1000) + b"WAVE" + b"LIST" + struct.pack("<I", 0)
    assert missing_bytes(io.BytesIO(content + b"data" + struct.pack("<I", 1000) + bytes(400))) == 600


def test_open_sizes_promise_nothing() -> None:
    wave = b"RIFF\xff\xff\xff\xffWAVEdata" + struct.pack("<I", 0xFFFFFFFF) + bytes(100)
    assert missing_bytes(io.BytesIO(wave)) == 0
    assert missing_bytes(io.BytesIO(b"caff\0\1\0\0data" + b"\xff" * 8 + bytes(100))) == 0
    assert missing_bytes(io.BytesIO(b".snd" + struct.pack(">II", 24, 0xFFFFFFFF) + bytes(100))) == 0
    assert missing_bytes(io.BytesIO(b"\0\0\0\x10ftypM4A \0\0\0\0" + b"\0\0\0\0mdat" + bytes(100))) == 0
    ebml = b"\x1a\x45\xdf\xa3\x80" + b"\x18\x53\x80\x67" + b"\x01" + b"\xff" * 7
    assert missing_bytes(io.BytesIO(ebml + bytes(100))) == 0


def test_boxes_with_64_bit_sizes() -> None:
    head = b"\0\0\0\x10ftypM4A \0\0\0\0" + struct.pack(">I4sQ", 1, b"mdat", 16 + 1000)
    assert missing_bytes(io.BytesIO(head + bytes(1000))) == 0
    assert missing_bytes(io.BytesIO(head + bytes(900))) == 100


@settings(max_examples=300, deadline=None)
@given(magic=st.sampled_from(MAGICS), rest=st.binary(max_size=200))
@example(magic=b"caff\0\1\0\0", rest=b"desc" + b"\xff" * 7 + b"\xf4" + bytes(40))
@example(magic=b"\x1a\x45\xdf\xa3", rest=b"\x01" + b"\xfe" * 7 + bytes(40))
def test_any_content_gets_an_answer(tmp_path_factory: pytest.TempPathFactory, magic: bytes, rest: bytes) -> None:
    path: Path = tmp_path_factory.getbasetemp() / "any.bin"
    path.write_bytes(magic + rest)
    with path.open("rb") as file:  # a real file refuses to seek where a BytesIO does not
        reads: list[Callable[..., object]] = [container_of, missing_bytes, corrected_sizes]
        for read in reads:
            read(file)
        assert missing_bytes(file) >= 0


def test_a_stream_longer_than_its_placeholder_goes_on_to_the_end_of_the_file(tmp_path: Path) -> None:
    for placeholder, size in ((0x7FFFF000, 2_200_000_000), (0xFFFFFFFF, 4_400_000_000)):
        with (tmp_path / "long.wav").open("wb+") as file:
            file.write(b"RIFF" + struct.pack("<I", placeholder) + b"WAVEfmt " + struct.pack("<I", 16) + bytes(16))
            file.write(b"data" + struct.pack("<I", placeholder))
            file.truncate(size)
            fits = size < 1 << 32
            assert corrected_sizes(file) == {
                4: struct.pack("<I", size - 8 if fits else 0),
                40: struct.pack("<I", size - 44 if fits else 0),
            }
