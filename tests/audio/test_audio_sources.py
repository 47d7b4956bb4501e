"""What counts as a recording: every common form of samples in memory is read right, or one sentence says what to do."""

from __future__ import annotations

import functools
import io
import tempfile
import warnings
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

import helpers.audio
from pengi.audio.decode import load, probe
from pengi.audio.sources import Waveform, describe_source, listed
from pengi.errors import AudioError, InputError

RATE = 16_000
WAVE = (0.5 * np.sin(np.arange(800) / 5)).astype(np.float32)
INT16 = (WAVE * 2**15).astype(np.int16)


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    path = tmp_path / "wave.wav"
    soundfile.write(path, WAVE, RATE, subtype="FLOAT")
    return path


complaint = functools.partial(helpers.audio.complaint, errors=(AudioError, InputError))


class TestIntegers:
    @pytest.mark.parametrize(
        "wide",
        [
            lambda samples: samples.astype(np.int32),
            lambda samples: samples.astype(np.int64),
            lambda samples: samples.tolist(),
            lambda samples: torch.from_numpy(samples).long(),
            lambda samples: torch.from_numpy(samples).int(),
        ],
        ids=["int32", "int64", "list", "torch.long", "torch.int"],
    )
    def test_wide_integers_have_full_scale_at_2_to_the_31_unless_they_may_be_16_bit_samples(self, wide: Any) -> None:
        samples = (WAVE.astype(np.float64) * 2**31).astype(np.int64)
        np.testing.assert_allclose(load((wide(samples), RATE), RATE), WAVE, atol=1e-6)
        message = complaint((wide(INT16), RATE))
        assert "int16" in message
        assert "divide them by 2**31" in message
        np.testing.assert_array_equal(load((wide(np.zeros(100, np.int64)), RATE), RATE), np.zeros(100))

    def test_a_single_sample_beyond_16_bits_tells_the_scale(self) -> None:
        samples = INT16.astype(np.int32)
        samples[3] = 2**15
        np.testing.assert_allclose(load((samples, RATE), RATE), samples / 2**31, atol=1e-9)

    def test_64_bit_samples_and_wide_unsigned_ones_are_refused(self) -> None:
        assert "exceed 32 bits" in complaint((np.array([0, 2**40]), RATE))
        assert "floats in [-1, 1]" in complaint((np.array([0, 2**16], np.uint32), RATE))
        assert "real numbers" in complaint(([0, 2**100], RATE))


class TestFloats:
    @pytest.mark.parametrize("samples", [INT16.astype(np.float32), INT16.astype(np.float64).tolist()])
    def test_unscaled_16_bit_samples_are_refused(self, samples: Any) -> None:
        assert "divide by 32768" in complaint((samples, RATE))

    def test_unscaled_32_bit_samples_are_refused(self) -> None:
        assert "divide by 2147483648" in complaint((WAVE * 2.0**31, RATE))
        assert "divide by 32768" in complaint((np.array([-9.0, 0.0]), RATE))

    def test_samples_a_little_above_full_scale_stay(self) -> None:
        np.testing.assert_array_equal(load((3 * WAVE, RATE), RATE), 3 * WAVE)
        np.testing.assert_array_equal(load((np.array([-8.0, 8.0], np.float32), RATE), RATE), [-8, 8])

    def test_float_files_and_decoded_samples_are_read_as_they_are(self, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "loud.wav", 20 * WAVE, RATE, subtype="FLOAT")
        np.testing.assert_array_equal(load(tmp_path / "loud.wav", RATE), 20 * WAVE)
        np.testing.assert_array_equal(load(Waveform(20 * WAVE, RATE), RATE), 20 * WAVE)

    def test_samples_that_are_not_finite_are_reported_with_their_time(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert "not finite" in complaint((np.array([0.0, np.inf]), RATE))
            assert "not finite" in complaint((np.full(4, np.nan), RATE))


class TestForms:
    @pytest.mark.parametrize(
        "source",
        [
            {"array": WAVE, "sampling_rate": RATE, "path": None},
            {"array": WAVE.tolist(), "sampling_rate": RATE},
            {"raw": WAVE, "sampling_rate": np.int64(RATE)},
            MappingProxyType({"array": WAVE, "sampling_rate": RATE}),
            SimpleNamespace(data=torch.from_numpy(WAVE)[None], sample_rate=RATE, pts_seconds=0.0),
            SimpleNamespace(get_all_samples=lambda: SimpleNamespace(data=WAVE[None], sample_rate=RATE)),
            (torch.from_numpy(WAVE).double(), RATE),
            (WAVE[None], RATE),
            (WAVE[None, None], RATE),
            (torch.from_numpy(WAVE)[None, None], torch.tensor([RATE])),
            (WAVE, np.array(RATE)),
            (WAVE, np.array([RATE])),
            (WAVE, np.int32(RATE)),
            (WAVE, np.float32(RATE)),
            (WAVE, torch.tensor(RATE)),
            (WAVE, float(RATE)),
        ],
    )  # fmt: skip
    def test_samples_with_their_rate(self, source: Any) -> None:
        assert listed(source) is None
        assert probe(source).channels == 1
        np.testing.assert_array_equal(load(source, RATE), WAVE)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half])
    def test_tensors_of_half_precision(self, dtype: torch.dtype) -> None:
        tensor = torch.from_numpy(WAVE).to(dtype)[None].requires_grad_()
        np.testing.assert_allclose(load((tensor, RATE), RATE), WAVE, atol=4e-3)

    def test_two_channels_of_a_data_set(self) -> None:
        stereo_CS = np.stack([WAVE, np.zeros_like(WAVE)])
        found = load({"array": stereo_CS, "sampling_rate": RATE}, RATE)
        np.testing.assert_array_equal(found, WAVE / 2)

    def test_files_of_a_data_set(self, wav: Path) -> None:
        content = wav.read_bytes()
        for source in ({"bytes": content, "path": "a.wav"}, {"bytes": None, "path": str(wav)}, {"path": wav}):
            np.testing.assert_array_equal(load(source, RATE), WAVE)
        assert describe_source({"bytes": b"", "path": "a.wav"}) == "a.wav"
        assert "'a.wav'" in complaint({"bytes": b"not audio", "path": "a.wav"})

    def test_a_file_object_that_can_only_be_read(self, wav: Path) -> None:
        np.testing.assert_array_equal(load(SimpleNamespace(read=io.BytesIO(wav.read_bytes()).read), RATE), WAVE)  # type: ignore[arg-type]

    def test_torchcodec(self, wav: Path) -> None:
        decoders = pytest.importorskip("torchcodec.decoders", exc_type=(ImportError, RuntimeError, OSError))
        decoder = decoders.AudioDecoder(str(wav))
        np.testing.assert_allclose(load(decoder, RATE), WAVE, atol=1e-6)
        np.testing.assert_allclose(load(decoder.get_all_samples(), RATE), WAVE, atol=1e-6)


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ((RATE, WAVE), "order (samples, rate)"),
            ((np.int64(RATE), INT16), "order (samples, rate)"),
            (WAVE, "(samples, rate)"),
            (torch.from_numpy(WAVE), "(samples, rate)"),
            ([0.1, 0.2], "(samples, rate)"),
            ((WAVE,), "tuple"),
            ((np.zeros((2, 3, 4)), RATE), "one or two axes"),
            ((np.zeros(10, complex), RATE), "real numbers"),
            ((WAVE, None), "number of Hz"),
            ((WAVE, "16000"), "number of Hz"),
            ((WAVE, True), "number of Hz"),
            ((WAVE, WAVE), "number of Hz"),
            ((WAVE, 16_000.5), "whole number"),
            (([[0.1, 0.2], [0.3]], RATE), "as long as the others"),
            ((["a", "b"], RATE), "real numbers"),
            (([0.1, None], RATE), "real numbers"),
            ((np.zeros((2, 1, 5)), RATE), "several recordings as a list"),
            ((np.zeros(5, bool), RATE), "real numbers"),
            ({"array": WAVE}, "'sampling_rate'"),
            ({"bytes": None, "path": None}, "'bytes' or 'path'"),
            ({"audio": {"array": WAVE, "sampling_rate": RATE}}, "this one has 'audio'"),
            ({}, "this one has nothing"),
            ({"bytes": "text"}, "'bytes' of a dictionary cannot be str"),
            (iter([]), "list(...)"),
            ({1, 2}, "not set"),
        ],
    )
    def test_by_one_sentence(self, source: Any, message: str) -> None:
        assert message in complaint(source)

    def test_tensors_without_plain_samples(self) -> None:
        for tensor in (torch.eye(20).to_sparse(), torch.zeros(20, device="meta")):
            with pytest.raises(InputError, match="holds no plain samples"):
                load((tensor, 16_000), 16_000)

    def test_a_closed_file(self, wav: Path) -> None:
        with wav.open("rb") as file:
            pass
        message = complaint(file)
        assert "closed" in message
        assert wav.name in message
        closed = io.BytesIO()
        closed.close()
        assert "closed" in complaint(closed)

    def test_files_that_are_no_binary_files(self) -> None:
        async def read(size: int = -1) -> bytes:
            return b""

        assert "binary mode" in complaint(io.StringIO("text"))
        assert "asynchronous" in complaint(SimpleNamespace(read=read))
        with tempfile.NamedTemporaryFile("w+") as file:
            file.write("text")
            assert "binary mode" in complaint(file)

    def test_a_decoder_that_fails(self) -> None:
        def fail() -> Any:
            raise RuntimeError("no audio stream\nat line 3")

        assert "no audio stream" in complaint(SimpleNamespace(get_all_samples=fail))


class Series:
    """What pandas and polars have in common."""

    def __init__(self, values: list[Any]) -> None:
        self._values = values

    def to_numpy(self) -> NDArray[Any]:
        return np.array(self._values, dtype=object)

    def __iter__(self) -> Any:
        return iter(self._values)


class TestLists:
    @pytest.mark.parametrize(
        "make",
        [list, tuple, lambda paths: np.array(paths), lambda paths: np.array(paths, dtype=object), Series],
        ids=["list", "tuple", "array of strings", "array of objects", "series"],
    )
    def test_paths(self, make: Any) -> None:
        assert listed(make(["a.wav", "b.wav"])) == ["a.wav", "b.wav"]

    def test_pandas(self) -> None:
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame({"path": ["a.wav", "b.wav"]})
        assert listed(frame["path"]) == ["a.wav", "b.wav"]
        assert listed(frame["path"][frame["path"] == "b.wav"]) == ["b.wav"]
        assert listed(frame) is None
        assert "not DataFrame" in complaint(frame)

    def test_recordings_of_a_data_set(self) -> None:
        rows = [{"array": WAVE, "sampling_rate": RATE}] * 2
        assert listed(rows) == rows
        assert listed(((WAVE, RATE), (WAVE, RATE))) == [(WAVE, RATE)] * 2

    @pytest.mark.parametrize(
        "one", ["a.wav", b"a", Path("a.wav"), (WAVE, RATE), (RATE, WAVE), WAVE, [0.1, 0.2], io.BytesIO(), 3, None]
    )
    def test_what_is_no_list(self, one: Any) -> None:
        assert listed(one) is None

    def test_an_empty_list_is_a_list(self) -> None:
        assert listed([]) == []
        assert listed(()) == []

    def test_samples_without_their_rate_are_refused(self) -> None:
        with pytest.raises(InputError, match="samples need their sample rate"):
            load(WAVE, RATE)
