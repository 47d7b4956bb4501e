"""What ``decode`` says about recordings that are missing, broken or absurd: one sentence that names the file."""

from __future__ import annotations

import io
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from helpers.audio import complaint, encoded, muxed
from pengi.audio.decode import MAX_CHANNELS, load, probe, stream
from pengi.audio.ffmpeg import Clock
from pengi.errors import AudioError

NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, 32_000).astype(np.float32)
RATE = 16_000
FLAC = encoded("flac", NOISE)


def wav(
    data: bytes, *, rate: int = RATE, channels: int = 1, riff_size: int | None = None, data_size: int | None = None
) -> bytes:
    """A 16-bit WAV file; the two sizes may lie."""
    riff_size = 36 + len(data) if riff_size is None else riff_size
    data_size = len(data) if data_size is None else data_size
    layout = struct.pack("<IHHIIHH", 16, 1, channels, rate, rate * channels * 2 & 0xFFFFFFFF, channels * 2, 16)
    return b"RIFF" + struct.pack("<I", riff_size) + b"WAVEfmt " + layout + b"data" + struct.pack("<I", data_size) + data


def without_length(flac: bytes) -> bytes:
    """A FLAC stream that does not state its length."""
    return flac[:21] + bytes([flac[21] & 0xF0, 0, 0, 0, 0]) + flac[26:]  # the 36 bits of the number of samples


def ogg_checksum(page: bytes) -> int:
    """CRC-32 of an Ogg page (RFC 3533: polynomial 04c11db7, no reflection, no inversion)."""
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1) ^ (0x104C11DB7 if crc & 0x80000000 else 0)
    return crc


class TestFilesThatCannotBeOpened:
    def test_missing(self, tmp_path: Path) -> None:
        assert complaint(tmp_path / "nowhere.wav") == f"there is no file '{tmp_path / 'nowhere.wav'}'"
        assert "no file" in complaint(tmp_path / "nowhere.wav", probe)

    def test_folder(self, tmp_path: Path) -> None:
        assert "is a folder" in complaint(tmp_path)

    def test_permission_denied(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)  # an administrator may read any file
        assert "permission denied" in complaint(tmp_path / "secret.wav")

    def test_impossible_path(self) -> None:
        assert "cannot be read: embedded null byte" in complaint("null\0byte.wav")


class TestContentThatIsNotAudio:
    @pytest.mark.parametrize(
        "content",
        [
            b"These are only words.\n" * 100,
            b"<!DOCTYPE html><html><body><h1>404 Not Found</h1></body></html>" * 20,
            b'{"audio": "none"}' * 100,
            b"a",
            bytes(4000),
            b"\xff" * 4000,
            b"PK\x03\x04" + bytes(400),
            b"%PDF-1.7\n" + b"stream " * 100,
            np.random.default_rng(3).bytes(20_000),
        ],
        ids=["text", "html", "json", "letter", "zeros", "ones", "zip", "pdf", "random"],
    )
    def test_renamed_to_wav(self, content: bytes, tmp_path: Path) -> None:
        path = tmp_path / "innocent.wav"
        path.write_bytes(content)
        assert "not audio" in complaint(path)
        assert "not audio" in complaint(path, probe)
        assert "not audio" in complaint(content)

    def test_picture(self, tmp_path: Path) -> None:
        path = tmp_path / "picture.wav"
        path.write_bytes(
            bytes.fromhex("89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489") + bytes(60)
        )
        assert "not audio" in complaint(path) or "no sound" in complaint(path)

    def test_video_without_sound(self, tmp_path: Path) -> None:
        import av

        path = tmp_path / "silent.mp4"
        with av.open(str(path), "w") as output:
            stream = output.add_stream("mpeg4", rate=10)
            stream.width = stream.height = 32
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))
            output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
        assert "has no sound" in complaint(path)

    @pytest.mark.parametrize(
        "playlist",
        [
            "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9.0,\n{path}\n#EXT-X-ENDLIST\n",
            "ffconcat version 1.0\nfile '{path}'\n",
            "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
        ],
        ids=["hls", "concat", "sdp"],
    )
    def test_playlist_opens_neither_files_nor_sockets(self, playlist: str, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "private.wav", NOISE, RATE)
        path = tmp_path / "list.wav"
        path.write_text(playlist.format(path=tmp_path / "private.wav"))
        began = time.monotonic()
        assert "not audio" in complaint(path)
        assert time.monotonic() - began < 5  # a socket would be waited for

    def test_known_container_with_garbage(self, tmp_path: Path) -> None:
        path = tmp_path / "broken.flac"
        path.write_bytes(b"fLaC" + bytes(1000))
        assert "looks like FLAC" in complaint(path)


class TestNothingInside:
    def test_zero_bytes(self, tmp_path: Path) -> None:
        (tmp_path / "empty.wav").touch()
        assert "is empty (0 bytes)" in complaint(tmp_path / "empty.wav")
        assert "is empty" in complaint(b"")
        assert "is empty" in complaint(io.BytesIO(), probe)

    @pytest.mark.parametrize("name", ["none.wav", "none.aiff", "none.au", "none.caf", "none.w64"])
    def test_zero_samples(self, name: str, tmp_path: Path) -> None:
        soundfile.write(tmp_path / name, np.zeros(0), RATE)
        assert "no audio samples" in complaint(tmp_path / name)
        assert "no audio samples" in complaint(tmp_path / name, probe)

    def test_zero_samples_before_other_chunks(self) -> None:
        content = wav(b"", riff_size=36 + 12) + b"LIST" + struct.pack("<I", 4) + b"INFO"
        assert "no audio samples" in complaint(content)


class TestCutOff:
    @pytest.mark.parametrize("fraction", [0.05, 0.3, 0.5, 0.7, 0.85])
    @pytest.mark.parametrize(
        "kind",
        [
            *("wav", "aiff", "au", "caf", "w64", "rf64", "flac", "ogg", "opus", "mp3"),
            *("m4a", "mp4", "fragmented mp4", "webm", "mkv"),
        ],
    )
    def test_every_format_that_states_its_length(self, kind: str, fraction: float) -> None:
        content = encoded(kind, NOISE)
        load(content, RATE)
        cut = content[: int(fraction * len(content))]
        assert "cut off" in complaint(cut)
        assert "cut off" in complaint(cut, lambda source: list(stream(source, RATE, block_s=0.1)))

    def test_bare_streams_end_where_they_end(self) -> None:
        content = muxed([(0.0, NOISE)], "aac", "adts")
        whole = load(content, RATE)
        half = load(content[: len(content) // 2], RATE)
        assert 0.3 < len(half) / len(whole) < 0.7
        np.testing.assert_allclose(half[:2000], whole[:2000], atol=1e-5)

    def test_ogg_whose_last_time_stamp_is_wrong_is_read_all_the_same(self) -> None:
        content = bytearray(encoded("opus", NOISE))
        truth = load(bytes(content), RATE)
        page = content.rfind(b"OggS")
        (end,) = struct.unpack_from("<q", content, page + 6)
        struct.pack_into("<qIII", content, page + 6, end + 48_000, *struct.unpack_from("<II", content, page + 14), 0)
        struct.pack_into("<I", content, page + 22, ogg_checksum(content[page:]))
        assert probe(bytes(content)).duration_s == pytest.approx(3.0)
        # What the encoder padded the end with is then kept, and the resampler's last samples see it.
        common = len(truth) - 200
        np.testing.assert_allclose(load(bytes(content), RATE)[:common], truth[:common], atol=1e-4)

    def test_damage_in_the_middle_is_no_end(self) -> None:
        content = bytearray(muxed([(0.0, NOISE)], "alac", "ipod"))
        content[len(content) // 2 : len(content) // 2 + 3000] = b"\xff" * 3000
        assert "damaged" in complaint(bytes(content))

    def test_part_before_the_cut_is_no_excuse_where_the_header_knows(self) -> None:
        content = wav(bytes(32_000), data_size=64_000)
        with pytest.raises(AudioError, match="32000 more bytes"):
            load(content, RATE, duration_s=0.1)


class TestUnfinishedHeaders:
    """WAV files whose writer could not seek back: whole recordings, whatever the header says."""

    DATA = (NOISE * 32_768).astype("<i2").tobytes()

    @pytest.mark.parametrize(
        ("riff_size", "data_size"),
        [
            (0xFFFFFFFF, 0xFFFFFFFF),  # ffmpeg
            (0x7FFFF024, 0x7FFFF000),  # sox
            (0x7FFF0024, 0x7FFF0000),  # GStreamer
            (0x80000024, 0x80000000),  # arecord
            (0, 0),
            (36, 0),
            (8, 0),
            (0xFFFFFFFF, 0),
        ],
    )
    def test_are_read_to_the_end(self, riff_size: int, data_size: int) -> None:
        content = wav(self.DATA, riff_size=riff_size, data_size=data_size)
        assert probe(content).duration_s == pytest.approx(2.0)
        np.testing.assert_allclose(load(content, RATE), NOISE, atol=1e-4)

    def test_sizes_off_by_a_header_are_forgiven(self) -> None:
        assert len(load(wav(self.DATA, data_size=len(self.DATA) + 44), RATE)) == len(NOISE)

    @pytest.mark.parametrize("block_s", [0.1, 10.0])
    def test_flac_stream_without_a_length(self, block_s: float) -> None:
        content = without_length(FLAC)
        assert probe(content).duration_s == 2.0
        np.testing.assert_allclose(np.concatenate(list(stream(content, RATE, block_s=block_s))), NOISE, atol=1e-4)


class TestSamplesThatAreNoNumbers:
    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("channel", [0, 1])
    def test_in_a_file(self, bad: float, channel: int, tmp_path: Path) -> None:
        samples_SC = np.stack([NOISE, NOISE], axis=1)
        samples_SC[24_000, channel] = bad
        soundfile.write(tmp_path / "bad.wav", samples_SC, RATE, subtype="FLOAT")
        assert complaint(tmp_path / "bad.wav").endswith("not finite numbers, the first at 1.500 s")
        assert len(load(tmp_path / "bad.wav", RATE, duration_s=1.5)) == 24_000

    def test_in_an_array_and_in_a_later_block(self) -> None:
        samples = np.tile(NOISE, 10)
        samples[200_000] = np.nan
        assert "12.500 s" in complaint((samples, RATE))

    def test_position_counts_from_the_start_of_the_file(self) -> None:
        samples = NOISE.copy()
        samples[24_000] = np.nan
        with pytest.raises(AudioError, match=r"1\.500 s"):
            load((samples, RATE), RATE, offset_s=1.0)

    def test_double_precision_beyond_float(self) -> None:
        assert "not finite" in complaint((np.array([0.0, 1e300]), RATE))


class TestAbsurdHeaders:
    @pytest.mark.parametrize("rate", [1, 999, 768_001, 10**9])
    def test_sample_rate(self, rate: int) -> None:
        assert f"sample rate of {rate} Hz" in complaint(wav(bytes(2000), rate=rate))
        assert f"sample rate of {rate} Hz" in complaint(wav(bytes(2000), rate=rate), probe)

    @pytest.mark.parametrize("rate", [1_000, 8_000, 192_000, 768_000])
    def test_unusual_sample_rates_are_fine(self, rate: int) -> None:
        assert len(load(wav(bytes(2 * rate), rate=rate), RATE)) == RATE

    def test_rate_of_zero(self) -> None:
        assert "looks like WAV but cannot be read" in complaint(wav(bytes(2000), rate=0))

    def test_channels(self) -> None:
        assert f"500 channels; at most {MAX_CHANNELS}" in complaint(wav(bytes(6000), channels=500))
        assert "500 channels" in complaint((np.zeros((500, 600)), RATE))
        assert "damaged" in complaint(wav(bytes(2000), channels=0))


class TestTooLong:
    def test_stated_length_is_refused_before_anything_is_decoded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pengi.audio.readers.SoundFileReader.blocks", None)
        with pytest.raises(AudioError, match=r"longer than the 1\.5 seconds that are accepted"):
            list(stream(FLAC, RATE, longest_s=1.5))

    @pytest.mark.parametrize("rate", [RATE, 44_100])
    def test_unstated_length_is_refused_once_it_shows(self, rate: int) -> None:
        blocks = stream(without_length(FLAC), rate, block_s=0.1, longest_s=1.0)
        lengths: list[int] = []
        with pytest.raises(AudioError, match="longer than the 1 seconds"):
            lengths.extend(map(len, blocks))
        assert 0.5 * rate < sum(lengths) <= rate + 1

    def test_exactly_the_limit_and_a_part_within_it_are_fine(self) -> None:
        for rate in (RATE, 11_025, 48_000):
            assert sum(map(len, stream((NOISE, RATE), rate, longest_s=2.0))) == pytest.approx(2 * rate, abs=1)
        assert sum(map(len, stream((NOISE, RATE), RATE, longest_s=1.0, offset_s=1.0))) == RATE
        assert sum(map(len, stream((NOISE, RATE), RATE, longest_s=0.5, duration_s=0.5))) == RATE // 2
        with pytest.raises(AudioError, match="longer"):
            list(stream((NOISE, RATE), RATE, longest_s=0.5, duration_s=0.6))


def test_one_bad_file_leaves_nothing_open(tmp_path: Path) -> None:
    path = tmp_path / "text.wav"
    path.write_text("no audio")
    opened: list[io.BufferedReader] = []
    original = Path.open

    def remember(self: Path, *arguments: str) -> io.BufferedReader:
        opened.append(original(self, *arguments))  # type: ignore[arg-type]
        return opened[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", remember)
        complaint(path)
    assert [file.closed for file in opened] == [True]


def test_a_clock_that_jumped_once_still_shows_pauses() -> None:
    clock = Clock(1000, end_s=None)
    clock.position = 1000
    assert clock.silence_before(stamp_s=5000.0, lost_s=0.0) == 0
    assert clock.jumps == [(1.0, 4999.0)]
    clock.position = 2000
    assert clock.silence_before(stamp_s=5004.0, lost_s=0.0) == 3000
