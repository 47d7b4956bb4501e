"""Kinds of files that are easily read wrongly, made on the fly: each is read to its end, at the right times."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.audio import encoded, muxed, written
from pengi.audio.decode import MAX_DURATION_S, load, probe, stream
from pengi.errors import AudioError

RATE = 16_000
SWEEP = (0.3 * np.sin(np.cumsum(np.linspace(0.05, 0.5, 3 * RATE)))).astype(np.float32)


def onset_s(samples: NDArray[np.float32], after_s: float = 0.0, rate: int = RATE) -> float:
    """When the first sound behind a time begins."""
    first = round(after_s * rate)
    return (first + int((np.abs(samples[first:]) > 0.1).argmax())) / rate


class TestMp3:
    @staticmethod
    def without_xing(content: bytes) -> bytes:
        """Without the first frame, which holds the header."""
        second = content.find(content[:2], 4)
        return content[second:]

    @pytest.fixture
    def variable(self) -> bytes:
        """Three seconds of noise, which need many bits, and nine of silence, at a variable bit rate."""
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, 3 * RATE).astype(np.float32)
        samples = np.concatenate([noise, np.zeros(9 * RATE, np.float32)])
        return written(samples, RATE, format="MP3", bitrate_mode="VARIABLE", compression_level=0.5)

    def test_variable_bit_rate_without_a_header_is_read_to_the_end(self, variable: bytes) -> None:
        assert probe(variable).duration_s == pytest.approx(12.0, abs=1e-3)
        bare = self.without_xing(variable)
        assert b"Xing" not in bare
        assert probe(bare).duration_s == pytest.approx(12.0, abs=0.2)
        assert len(load(bare, RATE)) / RATE == pytest.approx(12.0, abs=0.2)
        assert len(load(bare, RATE, duration_s=2 * MAX_DURATION_S)) == len(load(bare, RATE))

    def test_a_file_that_states_its_frames_and_lacks_some_is_cut_off(self, variable: bytes) -> None:
        for content in (variable, written(SWEEP, RATE, format="MP3")):
            with pytest.raises(AudioError, match="is cut off: it should last"):
                load(content[: len(content) * 2 // 3], RATE)

    @pytest.mark.parametrize("between", [b"", b"TAG" + bytes(125), b"ID3\x04\0\0\0\0\x40\0" + bytes(8192)])
    def test_one_file_behind_the_other_is_read_whatever_its_rate(self, between: bytes) -> None:
        first, second = (written(SWEEP, rate, format="MP3") for rate in (RATE, 48_000))
        notes: list[str] = []
        samples = load(first + between + second, RATE, notes=notes)
        assert len(samples) / RATE == pytest.approx(3.0 + 1.0, abs=0.15)
        assert np.abs(samples[-RATE // 2 :]).max() > 0.2
        assert notes == []

    def test_damage_becomes_silence_of_about_its_length_where_no_length_is_stated(self) -> None:
        noise = np.random.default_rng(0).uniform(-0.3, 0.3, 12 * RATE)
        content = bytearray(self.without_xing(written(noise, RATE, format="MP3")))
        middle = len(content) // 2
        content[middle : middle + 3000] = bytes(3000)
        notes: list[str] = []
        samples = load(bytes(content), RATE, notes=notes)
        assert len(samples) / RATE == pytest.approx(12.0, abs=0.3)
        assert "are missing" in notes[0]

    def test_libmpg123_writes_nothing_to_stderr(self, tmp_path: Path) -> None:
        content = written(SWEEP, RATE, format="MP3")
        damaged = bytearray(content)
        damaged[2000:2600] = b"\xff\xfb\x90" * 200
        for number, data in enumerate([content, damaged, content[:3000], b"\xff\xfb" + bytes(3000), content + b"junk"]):
            (tmp_path / f"{number}.mp3").write_bytes(data)
        script = (
            "import sys\nfrom pengi.audio.decode import load\nfrom pengi.errors import AudioError\n"
            "for path in sys.argv[1:]:\n    try:\n        load(path, 16000)\n    except AudioError:\n        pass\n"
        )
        command = [sys.executable, "-c", script, *map(str, sorted(tmp_path.iterdir()))]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        assert (done.stdout, done.stderr) == ("", "")


class TestChainedOgg:
    @pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
    def test_all_links_are_read_whatever_their_rate_and_channels(self, subtype: str) -> None:
        links = [
            written(SWEEP, RATE, format="OGG", subtype=subtype),
            written(np.stack([SWEEP, SWEEP], 1), 24_000, format="OGG", subtype=subtype),
            written(SWEEP, 8_000, format="OGG", subtype=subtype),
        ]
        content = b"".join(links)
        info = probe(content)
        expected_s = 3.0 + 2.0 + 6.0
        assert info.duration_s == pytest.approx(expected_s, abs=0.01)
        whole = load(content, RATE)
        assert len(whole) / RATE == pytest.approx(expected_s, abs=0.01)
        np.testing.assert_allclose(whole[: 3 * RATE - 200], load(links[0], RATE)[: 3 * RATE - 200], atol=1e-3)
        np.testing.assert_array_equal(np.concatenate(list(stream(content, RATE, block_s=0.7))), whole)
        own = load(content, info.sample_rate)
        part = load(content, info.sample_rate, offset_s=4.0, duration_s=2.0)
        np.testing.assert_array_equal(part, own[4 * info.sample_rate : 6 * info.sample_rate])

    def test_a_lost_page_is_silence_of_its_length(self) -> None:
        content = written(np.tile(SWEEP, 3), RATE, format="OGG", subtype="OPUS")
        page = content.find(b"OggS", len(content) // 2)
        following = content.find(b"OggS", page + 4)
        notes: list[str] = []
        samples = load(content[:page] + content[following:], RATE, notes=notes)
        assert len(samples) / RATE == pytest.approx(9.0, abs=0.01)
        assert "1.00 s of 'audio in memory' are missing" in notes[0]

    def test_a_damaged_second_link_is_an_error_and_a_part_can_be_read(self) -> None:
        first = written(SWEEP, RATE, format="OGG", subtype="VORBIS")
        second = bytearray(first)
        second[58:200] = bytes(142)
        with pytest.raises(AudioError, match=r"decoding fails after 3\.00 s"):
            load(first + second, RATE)
        notes: list[str] = []
        assert len(load(first + second, RATE, partial=True, notes=notes)) == 3 * RATE
        assert "only the first 3.00 s" in notes[0]


class TestCodecsWithoutASeek:
    @pytest.mark.parametrize(
        ("container", "subtype"),
        [
            *(("WAV", "GSM610"), ("AIFF", "GSM610"), ("W64", "GSM610"), ("WAV", "G721_32"), ("AU", "G721_32")),
            *(("AU", "G723_24"), ("AU", "G723_40"), ("WAV", "NMS_ADPCM_16"), ("WAV", "NMS_ADPCM_24")),
            *(("WAV", "NMS_ADPCM_32"), ("XI", "DPCM_16"), ("XI", "DPCM_8")),
        ],
    )
    def test_are_read_from_any_point(self, container: str, subtype: str) -> None:
        tone = (0.4 * np.sin(np.arange(24_000) * 0.3)).astype(np.float32)
        content = written(tone, 44_100 if container == "XI" else 8_000, format=container, subtype=subtype)
        info = probe(content)
        whole = load(content, info.sample_rate)
        assert len(whole) == pytest.approx(24_000, abs=330)
        assert np.corrcoef(whole[500:23_000], tone[500:23_000])[0, 1] > 0.8
        part = load(content, info.sample_rate, offset_s=0.25, duration_s=0.1)
        start = round(0.25 * info.sample_rate)
        np.testing.assert_array_equal(part, whole[start : start + len(part)])


class TestPlaceholderSizes:
    """Files whose writer could not seek back: the sound goes on to the end of the file, whatever the header says."""

    @staticmethod
    def piped(content: bytes, kind: str, size: int) -> bytes:
        patched = bytearray(content)
        if kind in ("AIFF", "AIFC"):
            data = content.find(b"SSND")
            patched[4:8] = patched[data + 4 : data + 8] = struct.pack(">I", size)
            comm = content.find(b"COMM") + 10
            patched[comm : comm + 4] = struct.pack(">I", 0)
        elif kind == "W64":
            data = content.find(b"data")
            patched[16:24] = patched[data + 16 : data + 24] = struct.pack("<Q", size)
        elif kind == "RF64":
            sizes = content.find(b"ds64") + 8
            patched[sizes : sizes + 24] = struct.pack("<QQQ", size, size, 0)
        elif kind == "AU":
            patched[8:12] = struct.pack(">I", size)
        return bytes(patched)

    @pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
    @pytest.mark.parametrize(
        ("kind", "size"),
        [
            *(("AIFF", 0), ("AIFF", 0xFFFFFFFF), ("AIFF", 0x7F000008), ("AIFC", 0x80000000)),
            *(("W64", 0), ("W64", 2**63 - 1), ("W64", 2**64 - 1), ("RF64", 0), ("RF64", 2**64 - 1)),
            *(("AU", 0), ("AU", 0xFFFFFFFF)),
        ],
    )
    def test_are_read_to_the_end(self, kind: str, size: int, subtype: str) -> None:
        container = {"AIFC": "AIFF"}.get(kind, kind)
        options = {"endian": "LITTLE"} if kind == "AIFC" and subtype != "FLOAT" else {}
        content = self.piped(written(SWEEP, RATE, format=container, subtype=subtype, **options), kind, size)
        assert probe(content).duration_s == pytest.approx(3.0, abs=0.001)
        np.testing.assert_allclose(load(content, RATE)[: len(SWEEP)], SWEEP, atol=1e-4)

    @pytest.mark.parametrize("container", ["AIFF", "W64", "RF64", "AU", "CAF", "WAV"])
    def test_a_cut_is_still_a_cut(self, container: str) -> None:
        content = written(SWEEP, RATE, format=container, subtype="PCM_16")
        with pytest.raises(AudioError, match="is cut off"):
            load(content[: len(content) // 2], RATE)
        notes: list[str] = []
        samples = load(content[: len(content) // 2], RATE, partial=True, notes=notes)
        assert len(samples) / RATE == pytest.approx(1.5, abs=0.1)
        assert f"only the first {len(samples) / RATE:.2f} s" in notes[0]


class TestTimeStamps:
    GAP = ((0.0, SWEEP[: 3 * RATE // 2]), (6.5, SWEEP[3 * RATE // 2 :]))

    @pytest.mark.parametrize(
        ("codec", "container", "rate"),
        [
            *(("libopus", "webm", RATE), ("aac", "matroska", RATE), ("flac", "matroska", RATE)),
            *(("pcm_s16le", "matroska", RATE), ("aac", "mp4", RATE), ("aac", "mov", RATE), ("aac", "mpegts", RATE)),
            *(("mp2", "mpegts", RATE), ("aac", "flv", RATE)),
        ],
    )
    def test_a_pause_between_packets_is_silence(self, codec: str, container: str, rate: int) -> None:
        content = muxed(self.GAP, codec, container, rate=rate)
        notes: list[str] = []
        samples = load(content, RATE, notes=notes)
        assert len(samples) / RATE == pytest.approx(8.0, abs=0.12)
        assert probe(content).duration_s == pytest.approx(8.0, abs=0.12)
        assert np.abs(samples[round(1.75 * RATE) : round(6.3 * RATE)]).max() == 0
        assert onset_s(samples, 2.0) == pytest.approx(6.5, abs=0.1)
        assert "s of 'audio in memory' are missing" in notes[0]
        np.testing.assert_array_equal(np.concatenate(list(stream(content, RATE, block_s=0.4))), samples)
        part = load(content, RATE, offset_s=6.0, duration_s=1.0)
        assert onset_s(part) == pytest.approx(0.5, abs=0.1)

    @pytest.mark.parametrize(
        ("codec", "container"),
        [("aac", "matroska"), ("aac", "mp4"), ("aac", "mov"), ("aac", "mpegts"), ("ac3", "mpegts"), ("mp2", "mpeg")],
    )
    def test_sound_that_starts_behind_the_picture_starts_late(self, codec: str, container: str) -> None:
        content = muxed([(0.95, np.tile(SWEEP, 2)[: 4 * RATE])], codec, container, rate=48_000, picture_s=4.0)
        samples = load(content, RATE)
        assert onset_s(samples) == pytest.approx(0.95, abs=0.05)
        assert len(samples) / RATE == pytest.approx(0.95 + 4 / 3, abs=0.1)
        assert probe(content).duration_s == pytest.approx(len(samples) / RATE, abs=0.1)
        assert onset_s(load(content, RATE, offset_s=0.5, duration_s=1.0)) == pytest.approx(0.45, abs=0.05)

    @pytest.mark.parametrize(("codec", "container"), [("aac", "matroska"), ("libopus", "webm"), ("aac", "mp4")])
    def test_sound_alone_may_start_late_too(self, codec: str, container: str) -> None:
        content = muxed([(2.0, SWEEP)], codec, container)
        assert onset_s(load(content, RATE)) == pytest.approx(2.0, abs=0.1)
        assert probe(content).duration_s == pytest.approx(5.0, abs=0.1)

    def test_a_clock_that_starts_at_an_hour_is_no_hour_of_silence(self) -> None:
        for container in ("matroska", "mp4", "mpegts"):
            assert len(load(muxed([(3600.0, SWEEP)], "aac", container), RATE)) / RATE == pytest.approx(3.0, abs=0.1)

    def test_a_jump_of_hours_in_a_stream_is_no_silence_and_is_said(self) -> None:
        content = muxed([(0.0, SWEEP), (7200.0, SWEEP)], "mp2", "mpegts")
        notes: list[str] = []
        assert len(load(content, RATE, notes=notes)) / RATE == pytest.approx(6.0, abs=0.1)
        assert "the time stamps of 'audio in memory' jump by 7197 s at 3.0" in notes[0]

    @pytest.mark.parametrize("container", ["adts", "mpegts"])
    @pytest.mark.parametrize("damage", ["zeros", "noise", "gone"])
    def test_lost_packets_are_gaps_and_not_the_end(self, container: str, damage: str) -> None:
        noise = np.random.default_rng(0).uniform(-0.3, 0.3, 12 * RATE).astype(np.float32)
        content = muxed([(0.0, noise)], "aac", container)
        first, count = len(content) // 2 // 188 * 188, 188 * 20
        other = {"zeros": bytes(count), "noise": np.random.default_rng(1).bytes(count), "gone": b""}[damage]
        notes: list[str] = []
        samples = load(content[:first] + other + content[first + count :], RATE, notes=notes)
        gone = damage == "gone" and container == "adts"  # nothing is left then that tells how long it was
        assert len(samples) / RATE == pytest.approx(11.7 if gone else 12.0, abs=0.25)
        assert gone or "are missing" in notes[0]


class TestChannelsThatCancel:
    LOUD = np.random.default_rng(0).uniform(-0.5, 0.5, 44 * RATE).astype(np.float32)

    def test_the_loudest_channel_is_used_where_the_mean_is_silent(self) -> None:
        samples_CS = np.stack([self.LOUD, self.LOUD])
        samples_CS[1, 10 * RATE : 30 * RATE] *= -1.2
        notes: list[str] = []
        content = written(samples_CS.T, RATE, format="WAV", subtype="FLOAT")
        mixed = load(content, RATE, notes=notes)
        expected = self.LOUD.copy()
        expected[10 * RATE : 30 * RATE] *= -1.2
        mean_differs = 0.2 / 2 * 0.29 / (1.2 * 0.29)  # the mean is 10 % of the loudest: 21.6 dB below it
        assert mean_differs < 0.1
        np.testing.assert_allclose(mixed, expected, atol=1e-6)
        assert "cancel each other out in 20.00 s of it, the first at 10.00 s" in notes[0]

    @pytest.mark.parametrize("block_s", [0.1, 3.7, 60.0])
    def test_however_it_is_read_the_same_is_used(self, block_s: float) -> None:
        samples_CS = np.stack([self.LOUD, self.LOUD])
        samples_CS[1, 7 * RATE : 33 * RATE] *= -1
        whole = load((samples_CS, RATE), RATE)
        np.testing.assert_array_equal(np.concatenate(list(stream((samples_CS, RATE), RATE, block_s=block_s))), whole)
        for start_s in (0, 6.5, 12.3, 31.0, 40.1):
            part = load((samples_CS, RATE), RATE, offset_s=start_s, duration_s=block_s)
            start = round(start_s * RATE)
            np.testing.assert_array_equal(part, whole[start : start + len(part)])

    def test_channels_that_do_not_cancel_are_averaged_and_nothing_is_said(self) -> None:
        other = np.random.default_rng(1).uniform(-0.5, 0.5, len(self.LOUD)).astype(np.float32)
        for samples_CS in (np.stack([self.LOUD, other]), np.stack([self.LOUD, 0 * other])):
            notes: list[str] = []
            np.testing.assert_allclose(load((samples_CS, RATE), RATE, notes=notes), samples_CS.mean(0), atol=1e-6)
            assert notes == []

    def test_channels_can_be_read_apart(self) -> None:
        samples_CS = np.stack([SWEEP, -SWEEP])
        np.testing.assert_array_equal(load((samples_CS, RATE), RATE, mono=False), samples_CS)
        assert load((samples_CS, RATE), 8_000, mono=False).shape == (2, len(SWEEP) // 2)
        part_CS = load((samples_CS, RATE), RATE, mono=False, offset_s=0.5, duration_s=1.0)
        np.testing.assert_array_equal(part_CS, samples_CS[:, RATE // 2 : 3 * RATE // 2])

    def test_channels_whose_number_changes_cannot_be_read_apart(self) -> None:
        both = written(SWEEP, RATE, format="MP3") + written(np.stack([SWEEP, SWEEP], 1), RATE, format="MP3")
        assert len(load(both, RATE)) / RATE == pytest.approx(2 * len(SWEEP) / RATE, abs=0.2)
        for partial in (False, True):
            with pytest.raises(AudioError, match="changes its number of channels partway through"):
                load(both, RATE, mono=False, partial=partial)


class TestPartial:
    def test_damage_is_refused_unless_a_part_is_enough(self) -> None:
        content = bytearray(written(np.random.default_rng(0).uniform(-0.5, 0.5, 10 * RATE), RATE, format="FLAC"))
        content[len(content) // 2 : len(content) // 2 + 2000] = bytes(2000)
        with pytest.raises(AudioError, match="damaged or cut off"):
            load(bytes(content), RATE)
        notes: list[str] = []
        samples = load(bytes(content), RATE, partial=True, notes=notes)
        assert 2.0 < len(samples) / RATE < 5.5
        assert notes == [
            f"only the first {len(samples) / RATE:.2f} s of 'audio in memory' were read; the recording "
            "is damaged or cut off there"
        ]
        info = probe(bytes(content), partial=True)
        assert info.duration_s == pytest.approx(len(samples) / RATE)
        assert info.notes == tuple(notes)

    @pytest.mark.parametrize("kind", ["fragmented mp4", "webm", "opus"])
    def test_a_download_that_broke_off_is_read_as_far_as_it_goes(self, kind: str) -> None:
        content = encoded(kind, np.tile(SWEEP, 4))
        content = content[: len(content) * 2 // 3]
        with pytest.raises(AudioError, match="cut off"):
            load(content, RATE)
        notes: list[str] = []
        samples = load(content, RATE, partial=True, notes=notes)
        assert 5.0 < len(samples) / RATE < 9.0
        assert f"only the first {len(samples) / RATE:.2f} s of 'audio in memory' were read" in notes[-1]

    def test_samples_that_are_no_numbers_end_a_part(self) -> None:
        samples = SWEEP.copy()
        samples[RATE:] = np.nan
        np.testing.assert_array_equal(load((samples, RATE), RATE, partial=True), SWEEP[:RATE])

    def test_where_nothing_can_be_read_it_is_still_an_error(self) -> None:
        for content in (b"", b"RIFF", written(SWEEP, RATE, format="FLAC")[:50], b"no audio at all" * 100):
            with pytest.raises(AudioError):
                load(content, RATE, partial=True)

    def test_a_whole_recording_has_no_notes(self) -> None:
        notes: list[str] = []
        np.testing.assert_array_equal(load((SWEEP, RATE), RATE, partial=True, notes=notes), SWEEP)
        assert notes == []


def test_sound_that_ends_before_the_stated_length_has_a_note() -> None:
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 12 * RATE).astype(np.float32)
    content = bytearray(muxed([(0.0, sound)], "libopus", "matroska", rate=48_000))
    middle = content.rfind(b"\x1f\x43\xb6\x75") if content.count(b"\x1f\x43\xb6\x75") > 1 else len(content) // 2
    content[middle:] = bytes(len(content) - middle)
    notes: list[str] = []
    samples = load(bytes(content), RATE, notes=notes)
    assert len(samples) / RATE < 3.0
    assert notes == [f"'audio in memory' should last 4.01 s, but its sound ends at {len(samples) / RATE:.2f} s"]


@pytest.mark.parametrize("seconds", [3.0, 2.96])
def test_gsm_in_wav_ends_with_the_sound_rather_than_with_a_click(seconds: float) -> None:
    content = written(np.zeros(round(8_000 * seconds)), 8_000, format="WAV", subtype="GSM610")
    samples = load(content, 8_000)
    assert len(samples) / 8_000 == pytest.approx(seconds, abs=0.02)
    assert np.abs(samples).max() < 0.01


def test_transport_streams_whose_rate_changes_follow_each_other() -> None:
    streams = [muxed([(0.0, SWEEP)], "aac", "mpegts", rate=rate) for rate in (RATE, 48_000, RATE)]
    notes: list[str] = []
    samples = load(b"".join(streams), RATE, notes=notes)
    assert len(samples) / RATE == pytest.approx(3.0 + 1.0 + 3.0, abs=0.3)
    assert notes == []


@pytest.mark.parametrize(
    ("codec", "container"),
    [("ac3", "ac3"), ("eac3", "eac3"), ("wavpack", "wv"), ("flac", "flac"), ("aac", "adts"), ("tta", "tta")],
)
def test_id3_tags_in_front_are_skipped(codec: str, container: str) -> None:
    content = muxed([(0.0, SWEEP)], codec, container, rate=48_000)
    tag = b"ID3\x04\0\0" + bytes([0, 0, 40, 0]) + bytes(40 * 128)
    np.testing.assert_allclose(load(tag + tag + content, RATE), load(content, RATE), atol=1e-6)
    assert probe(tag + content) == probe(content)


@pytest.mark.parametrize(
    ("codec", "container"),
    [
        *(("wavpack", "wv"), ("tta", "tta"), ("flac", "matroska"), ("pcm_f32le", "mov"), ("pcm_s16le", "avi")),
        *(("pcm_s16le", "nut"), ("pcm_s24le", "matroska"), ("alac", "mp4")),
    ],
)
def test_exact_codecs_give_every_sample_and_nothing_else(codec: str, container: str) -> None:
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 12 * RATE).astype(np.float32)
    content = muxed([(0.0, sound)], codec, container, rate=48_000)
    notes: list[str] = []
    samples = load(content, 48_000, notes=notes)
    np.testing.assert_allclose(samples, sound, atol=5e-3)  # some encoders take the 8-bit format that they name first
    assert probe(content).duration_s == pytest.approx(4.0, abs=0.001)
    assert notes == []
