from __future__ import annotations

import io
import json
import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from helpers.audio import muxed
from pengi.audio import decode
from pengi.audio.decode import load, probe, stream
from pengi.errors import AudioError, InputError

# file name -> how soundfile writes it, with the largest error of a sample (None: lossy, compared by correlation)
SOUNDFILE_FORMATS: dict[str, tuple[dict[str, str], float | None]] = {
    "pcm16.wav": ({"subtype": "PCM_16"}, 1e-4),
    "pcm24.wav": ({"subtype": "PCM_24"}, 1e-6),
    "unsigned8.wav": ({"subtype": "PCM_U8"}, 1e-2),
    "float.wav": ({"subtype": "FLOAT"}, 1e-6),
    "double.wav": ({"subtype": "DOUBLE"}, 1e-6),
    "alaw.wav": ({"subtype": "ALAW"}, 2e-2),
    "ulaw.wav": ({"subtype": "ULAW"}, 2e-2),
    "adpcm.wav": ({"subtype": "IMA_ADPCM"}, None),
    "big.rf64": ({"format": "RF64"}, 1e-4),
    "sony.w64": ({}, 1e-4),
    "pcm16.aiff": ({}, 1e-4),
    "pcm16.au": ({}, 1e-4),
    "pcm16.caf": ({}, 1e-4),
    "flac16.flac": ({}, 1e-4),
    "flac24.flac": ({"subtype": "PCM_24"}, 1e-6),
    "vorbis.ogg": ({}, None),
    "voice.opus": ({"format": "OGG", "subtype": "OPUS"}, None),
    "layer3.mp3": ({}, None),
}
# file name -> codec, container and container options
AV_FORMATS: dict[str, tuple[str, str, dict[str, str]]] = {
    "aac.m4a": ("aac", "ipod", {}),
    "alac.m4a": ("alac", "ipod", {}),
    "aac.mp4": ("aac", "mp4", {}),
    "fragmented.mp4": ("aac", "mp4", {"movflags": "frag_keyframe+empty_moov", "frag_duration": "500000"}),
    "bare.aac": ("aac", "adts", {}),
    "opus.webm": ("libopus", "webm", {}),
    "live.webm": ("libopus", "webm", {"live": "1"}),
    "opus.mp4": ("libopus", "mp4", {}),
    "aac.mkv": ("aac", "matroska", {}),
    "aac.ts": ("aac", "mpegts", {}),
    "ac3.mp4": ("ac3", "mp4", {}),
}
RATE = 48_000  # the one rate that all of these codecs know


def chirp(seconds: float, rate: int = RATE) -> NDArray[np.float32]:
    """A tone that rises from 200 to 1200 Hz per two seconds: each moment sounds different, and no codec minds it."""
    time = np.arange(round(seconds * rate)) / rate
    return (0.4 * np.sin(2 * np.pi * (200 + 250 * time) * time)).astype(np.float32)


def lag_and_correlation(decoded: NDArray[np.float32], truth: NDArray[np.float32]) -> tuple[int, float]:
    """By how many samples ``decoded`` is late, and how alike the two are then."""
    size = 2 ** int(np.ceil(np.log2(len(decoded) + len(truth))))
    products = np.fft.irfft(np.fft.rfft(decoded, size) * np.fft.rfft(truth, size).conj())
    lag = int(products.argmax())
    lag -= size if lag > size // 2 else 0
    return lag, float(products.max() / (np.linalg.norm(decoded) * np.linalg.norm(truth)))


@pytest.fixture
def recording(tmp_path: Path) -> Callable[..., Path]:
    """``recording(name, samples)``: write ``samples`` (48 kHz) in one of the formats above."""

    def write(name: str, samples: NDArray[np.float32]) -> Path:
        path = tmp_path / name
        if name in AV_FORMATS:
            codec, container, options = AV_FORMATS[name]
            path.write_bytes(muxed([(0.0, samples)], codec, container, rate=RATE, options=options))
        else:
            soundfile.write(path, samples, RATE, **SOUNDFILE_FORMATS[name][0])
        return path

    return write


class TestFormats:
    @pytest.mark.parametrize("name", SOUNDFILE_FORMATS)
    def test_libsndfile_formats(self, name: str, recording: Callable[..., Path]) -> None:
        truth = chirp(1.5)
        path = recording(name, truth)
        info = probe(path)
        assert (info.sample_rate, info.channels) == (RATE, 1)
        assert info.duration_s == pytest.approx(1.5, abs=0.05)
        decoded = load(path, RATE)
        assert decoded.dtype == np.float32
        tolerance = SOUNDFILE_FORMATS[name][1]
        if tolerance is None:
            lag, correlation = lag_and_correlation(decoded, truth)
            assert lag == 0
            assert correlation > 0.99
        else:
            np.testing.assert_allclose(decoded, truth, atol=tolerance)

    @pytest.mark.parametrize("name", AV_FORMATS)
    def test_ffmpeg_formats(self, name: str, recording: Callable[..., Path]) -> None:
        truth = chirp(1.5)
        path = recording(name, truth)
        info = probe(path)
        assert (info.sample_rate, info.channels) == (RATE, 1)
        assert info.duration_s == pytest.approx(1.5, abs=0.1)
        decoded = load(path, RATE)
        assert decoded.dtype == np.float32
        assert len(decoded) == pytest.approx(len(truth), abs=0.05 * RATE)
        lag, correlation = lag_and_correlation(decoded, truth)
        states_delay = name in ("aac.m4a", "alac.m4a", "opus.webm")
        assert abs(lag) <= (0 if states_delay else 2048)  # a bare stream keeps the encoder's delay
        assert correlation > 0.98

    def test_format_is_named(self, recording: Callable[..., Path]) -> None:
        assert probe(recording("flac24.flac", chirp(0.1))).format == "flac pcm_24"
        assert probe(recording("aac.m4a", chirp(0.1))).format == "mov aac"

    @pytest.mark.parametrize("name", ["pcm16.wav", "flac16.flac", "layer3.mp3", "aac.m4a", "opus.webm"])
    @pytest.mark.parametrize("disguise", ["x.wav", "x.mp3", "x.m4a", "x.raw", "x.txt", "x"])
    def test_extension_is_irrelevant(self, name: str, disguise: str, recording: Callable[..., Path]) -> None:
        path = recording(name, chirp(0.3))
        truth = load(path, 16_000)
        disguised = path.rename(path.with_name(disguise))
        np.testing.assert_array_equal(load(disguised, 16_000), truth)

    def test_sound_of_a_five_one_video_file_is_averaged(self) -> None:
        channels_CS = np.stack([chirp(1.0) * gain for gain in (0.9, -0.3, 0.6, 0.0, 0.3, 0.3)])
        content = muxed([(0.0, channels_CS)], "alac", "ipod", rate=RATE)
        assert probe(content).channels == 6
        np.testing.assert_allclose(load(content, RATE), channels_CS.mean(axis=0), atol=1e-3)


class TestSources:
    @pytest.fixture
    def wav(self, tmp_path: Path) -> Path:
        soundfile.write(tmp_path / "sound.wav", chirp(0.5), RATE, subtype="FLOAT")
        return tmp_path / "sound.wav"

    def test_paths_and_bytes(self, wav: Path) -> None:
        truth = chirp(0.5)
        content = wav.read_bytes()
        for source in (wav, str(wav), content, bytearray(content), memoryview(content), io.BytesIO(content)):
            np.testing.assert_array_equal(load(source, RATE), truth)

    @pytest.mark.parametrize("name", ["float.wav", "aac.m4a"])
    def test_open_file_is_read_from_its_start_and_stays_open(self, name: str, recording: Callable[..., Path]) -> None:
        path = recording(name, chirp(0.5))
        with path.open("rb") as file:
            file.seek(1000)
            assert probe(file) == probe(path)
            np.testing.assert_array_equal(load(file, RATE), load(path, RATE))
            assert not file.closed

    def test_a_name_on_a_file_object_decides_nothing(self, wav: Path) -> None:
        file = io.BytesIO(wav.read_bytes())
        file.name = "headerless.raw"
        np.testing.assert_array_equal(load(file, RATE), chirp(0.5))

    def test_pipe(self, wav: Path) -> None:
        soundfile.write(wav, chirp(0.1), RATE, subtype="FLOAT")  # fits the pipe's buffer: no second thread is needed
        read_end, write_end = os.pipe()
        with os.fdopen(write_end, "wb") as file:
            file.write(wav.read_bytes())
        with os.fdopen(read_end, "rb") as file:
            np.testing.assert_array_equal(load(file, RATE), chirp(0.1))

    def test_names(self, wav: Path) -> None:
        assert decode.describe_source(wav) == str(wav)
        assert decode.describe_source("a/b.wav") == "a/b.wav"
        assert decode.describe_source(b"1234") == "audio in memory"
        assert decode.describe_source((np.zeros(3), 16_000)) == "audio array"
        assert decode.describe_source(io.BytesIO()) == "audio stream"
        with wav.open("rb") as file:
            assert decode.describe_source(file) == str(wav)


class TestArrays:
    def test_shorter_axis_is_the_channels(self) -> None:
        stereo_CS = np.stack([chirp(0.1), -0.5 * chirp(0.1)])
        for samples in (stereo_CS, stereo_CS.T, torch.from_numpy(stereo_CS), torch.from_numpy(stereo_CS.T.copy())):
            assert probe((samples, RATE)) == decode.AudioInfo(0.1, RATE, 2, "array float32")
            np.testing.assert_allclose(load((samples, RATE), RATE), stereo_CS.mean(axis=0), atol=1e-7)

    def test_equal_axes_are_channels_first(self) -> None:
        np.testing.assert_array_equal(load((np.array([[0.0, 1.0], [0.5, 0.5]]), RATE), RATE), [0.25, 0.75])

    @pytest.mark.parametrize(
        ("dtype", "low", "middle", "high"),
        [
            ("uint8", 0, 128, 255),
            ("int8", -128, 0, 127),
            ("int16", -(2**15), 0, 2**15 - 1),
            ("uint16", 0, 2**15, 2**16 - 1),
            ("int32", -(2**31), 0, 2**31 - 1),
            ("int64", -(2**31), 0, 2**31 - 1),
        ],
    )
    def test_integers_are_scaled(self, dtype: str, low: int, middle: int, high: int) -> None:
        decoded = load((np.array([low, middle, high], dtype=dtype), 16_000), 16_000)
        np.testing.assert_allclose(decoded, [-1, 0, 1], atol=0.01)
        assert decoded[0] == -1
        assert decoded[1] == 0

    def test_the_callers_array_is_not_shared(self) -> None:
        samples = chirp(0.1)
        next(iter(stream((samples, RATE), RATE)))[:] = 0
        np.testing.assert_array_equal(samples, chirp(0.1))

    @pytest.mark.parametrize("rate", [0, -16_000, 999, 10**9, float("nan"), 16_000.5])
    def test_absurd_rate(self, rate: float) -> None:
        with pytest.raises(AudioError, match="sample rate"):
            load((np.zeros(10), rate), 16_000)  # type: ignore[arg-type]

    @pytest.mark.parametrize("shape", [(0,), (0, 2), (2, 0)])
    def test_empty(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(AudioError, match="no audio samples"):
            load((np.zeros(shape), 16_000), 16_000)


class TestMixDown:
    @pytest.mark.parametrize("channels", [2, 3, 6, 8, 64])
    def test_is_the_mean_of_all_channels(self, channels: int, tmp_path: Path) -> None:
        samples_SC = np.random.default_rng(channels).uniform(-1, 1, (4000, channels)).astype(np.float32)
        soundfile.write(tmp_path / "many.wav", samples_SC, RATE, subtype="FLOAT")
        np.testing.assert_allclose(load(tmp_path / "many.wav", RATE), samples_SC.mean(axis=1), atol=1e-6)


class TestResampling:
    @pytest.mark.parametrize(("rate_in", "rate_out"), [(44_100, 16_000), (8_000, 16_000), (48_000, 32_000)])
    def test_tone_keeps_its_pitch_level_and_length(self, rate_in: int, rate_out: int) -> None:
        time = np.arange(rate_in) / rate_in
        resampled = load((np.sin(2 * np.pi * 1000 * time), rate_in), rate_out)
        assert len(resampled) == rate_out
        spectrum = np.abs(np.fft.rfft(resampled)) / (rate_out / 2)
        assert int(spectrum.argmax()) == 1000
        assert spectrum[1000] == pytest.approx(1, abs=0.01)

    @settings(max_examples=30, deadline=None)
    @given(
        length=st.integers(1, 20_000),
        rates=st.sampled_from(
            [(44_100, 16_000), (48_000, 16_000), (8_000, 44_100), (22_050, 32_000), (16_000, 16_000)]
        ),
        block_s=st.floats(0.001, 0.5),
    )
    def test_blocks_together_equal_one_shot(self, length: int, rates: tuple[int, int], block_s: float) -> None:
        rate_in, rate_out = rates
        samples = np.random.default_rng(length).uniform(-1, 1, length).astype(np.float32)
        blocks = list(stream((samples, rate_in), rate_out, block_s=block_s))
        assert all(len(block) for block in blocks)
        whole = soxr.resample(samples, rate_in, rate_out, quality="HQ")
        if len(whole):
            np.testing.assert_allclose(np.concatenate(blocks), whole, atol=1e-6)
        else:
            assert sum(map(len, blocks)) == 1

    @pytest.mark.parametrize("name", ["pcm16.wav", "vorbis.ogg", "voice.opus", "layer3.mp3", "aac.m4a", "opus.webm"])
    def test_block_length_is_irrelevant_to_every_decoder(self, name: str, recording: Callable[..., Path]) -> None:
        path = recording(name, chirp(2.0))
        whole = load(path, 16_000)
        for block_s in (0.01, 0.3):
            np.testing.assert_allclose(np.concatenate(list(stream(path, 16_000, block_s=block_s))), whole, atol=1e-6)


class TestParts:
    @pytest.mark.parametrize("name", [*SOUNDFILE_FORMATS, *AV_FORMATS])
    @pytest.mark.parametrize(("offset_s", "duration_s"), [(0.0, 0.25), (0.123456, 0.2), (1.23456, 0.3), (1.9, None)])
    def test_part_equals_slice_of_the_whole(
        self, name: str, offset_s: float, duration_s: float | None, recording: Callable[..., Path]
    ) -> None:
        path = recording(name, chirp(2.0))
        whole = load(path, RATE)
        part = load(path, RATE, offset_s=offset_s, duration_s=duration_s)
        start = round(offset_s * RATE)
        end = None if duration_s is None else start + round(duration_s * RATE)
        # AAC may fill bands with noise that differs each time; a tone that is off by a sample differs by 0.01 and more.
        np.testing.assert_allclose(part, whole[start:end], atol=5e-3)

    @pytest.mark.parametrize("name", ["float.wav", "flac16.flac", "alac.m4a"])
    def test_seeking_does_not_read_what_comes_before(self, name: str, recording: Callable[..., Path]) -> None:
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, 30 * RATE).astype(np.float32)
        content = recording(name, noise).read_bytes()
        file = CountingFile(content)
        load(file, RATE, offset_s=28.0, duration_s=0.1)
        assert file.bytes_read < len(content) / 4

    def test_duration_beyond_the_end_gives_what_there_is(self) -> None:
        assert len(load((chirp(1.0), RATE), RATE, offset_s=0.75, duration_s=10)) == RATE // 4

    @pytest.mark.parametrize("name", ["float.wav", "aac.m4a", "opus.webm"])
    def test_offset_beyond_the_end(self, name: str, recording: Callable[..., Path]) -> None:
        with pytest.raises(AudioError, match=r"ends before 5\.00 s"):
            load(recording(name, chirp(1.0)), 16_000, offset_s=5.0)

    @pytest.mark.parametrize(
        "arguments",
        [{"offset_s": -1.0}, {"offset_s": float("nan")}, {"duration_s": 0.0}, {"duration_s": float("inf")}],
    )
    def test_senseless_numbers(self, arguments: dict[str, float]) -> None:
        with pytest.raises(InputError):
            load((chirp(0.1), RATE), 16_000, **arguments)

    def test_senseless_target_rate_and_block(self) -> None:
        with pytest.raises(InputError, match="resample"):
            load((chirp(0.1), RATE), 0)
        with pytest.raises(InputError, match="block"):
            next(stream((chirp(0.1), RATE), 16_000, block_s=0))


class CountingFile(io.BytesIO):
    bytes_read = 0

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        self.bytes_read += len(content)
        return content


class TestShortClips:
    @pytest.mark.parametrize("name", ["pcm16.wav", "flac16.flac", "vorbis.ogg", "layer3.mp3", "aac.m4a", "opus.webm"])
    def test_twenty_milliseconds(self, name: str, recording: Callable[..., Path]) -> None:
        decoded = load(recording(name, chirp(0.02)), 16_000)
        assert len(decoded) >= 320
        assert np.abs(decoded).max() > 0.05

    @pytest.mark.parametrize("name", ["pcm16.wav", "flac16.flac", "pcm16.aiff", "alac.m4a"])
    def test_one_sample(self, name: str, recording: Callable[..., Path]) -> None:
        path = recording(name, np.array([0.5], np.float32))
        assert probe(path).duration_s == pytest.approx(1 / RATE)
        np.testing.assert_allclose(load(path, RATE), [0.5], atol=1e-4)
        assert len(load(path, 8_000)) == 1

    @settings(max_examples=40, deadline=None)
    @given(length=st.integers(1, 12), rate_in=st.sampled_from([8_000, 44_100, 768_000]))
    def test_no_clip_resamples_to_nothing(self, length: int, rate_in: int) -> None:
        assert len(load((np.ones(length), rate_in), 8_000)) >= 1


class TestLongRecordings:
    RATE = 8_000

    @pytest.fixture
    def hour(self, tmp_path: Path) -> Path:
        """One hour of 16-bit silence with a click at the start of each minute, in a file with holes."""
        path = tmp_path / "hour.wav"
        data_bytes = 3600 * self.RATE * 2
        with path.open("wb") as file:
            file.write(b"RIFF" + struct.pack("<I", 36 + data_bytes) + b"WAVEfmt ")
            file.write(struct.pack("<IHHIIHH", 16, 1, 1, self.RATE, 2 * self.RATE, 2, 16))
            file.write(b"data" + struct.pack("<I", data_bytes))
            for minute in range(60):
                file.seek(44 + minute * 60 * self.RATE * 2)
                file.write(struct.pack("<h", 20_000))
            file.truncate(44 + data_bytes)
        return path

    def test_an_hour_streams_in_the_memory_of_a_block(self, hour: Path) -> None:
        tracemalloc.start()
        samples = clicks = longest = 0
        for block in stream(hour, 16_000):
            samples += len(block)
            longest = max(longest, len(block))
            clicks += int((block > 0.5).any())
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert samples == 3600 * 16_000
        assert clicks == 60
        assert longest < 11 * 16_000
        assert peak_bytes < 6e6  # the hour itself would be 230 MB

    def test_ffmpeg_formats_stream_too(self) -> None:
        content = muxed([(0.0, np.zeros(300 * 16_000, np.float32))], "aac", "ipod", rate=16_000)
        tracemalloc.start()
        samples = sum(map(len, stream(content, 16_000, block_s=1.0)))
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert samples == pytest.approx(300 * 16_000, abs=2048)
        assert peak_bytes < 3e6  # whole: 19 MB

    def test_parts_of_an_hour_load_but_not_the_whole(self, hour: Path) -> None:
        assert probe(hour).duration_s == 3600
        assert load(hour, self.RATE, offset_s=3540.0, duration_s=1.0)[0] > 0.5
        with pytest.raises(AudioError, match=r"30 minutes.*timeline"):
            load(hour, self.RATE)
        with pytest.raises(AudioError, match="timeline"):
            load(hour, self.RATE, duration_s=2000.0)
        assert len(load(hour, self.RATE, offset_s=1800.0)) == 1800 * self.RATE

    def test_limit_holds_where_no_length_is_stated(
        self, recording: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = recording("bare.aac", chirp(3.0))
        monkeypatch.setattr(decode, "MAX_DURATION_S", 2.0)
        with pytest.raises(AudioError, match="timeline"):
            load(path, 16_000)
        assert len(load(path, 16_000, duration_s=2.0)) == 32_000

    def test_block_is_bounded_whatever_is_asked(self) -> None:
        class Reader:
            sample_rate = 768_000
            channels = 128

        assert decode._block_samples(Reader(), 3600.0) * 128 <= decode.MAX_BLOCK_VALUES  # type: ignore[arg-type]


def test_real_recordings(shared_data: Path) -> None:
    """One of each domain."""
    lines = (shared_data / "manifest.jsonl").read_text(encoding="utf-8").split("\n")
    clips = {row["domain"]: row for row in map(json.loads, filter(None, lines))}
    for row in clips.values():
        path, duration_s = shared_data / row["audio"], row["duration_s"]
        info = probe(path)
        assert (info.sample_rate, info.channels, info.format) == (48_000, 1, "ogg opus")
        assert info.duration_s == pytest.approx(duration_s, abs=0.01)
        samples = load(path, 16_000)
        assert len(samples) == pytest.approx(duration_s * 16_000, abs=200)
        assert 1e-4 < np.sqrt(np.mean(samples**2)) < 1
        np.testing.assert_allclose(np.concatenate(list(stream(path, 16_000, block_s=0.7))), samples, atol=1e-6)
