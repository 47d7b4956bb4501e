"""The official wrapper's quirks, one by one, where they change audio or extra text."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from helpers import RATE, noise, tone
from pengi.audio.decode import load
from pengi.errors import AudioError, InputError
from pengi.official.quirks import ReferenceQuirks, by_character, read

WINDOW = RATE
FLAT = ReferenceQuirks(flat_channels=True)
CROP = ReferenceQuirks(random_crop=True, crop_seed=1)


def encoded(source: Any, quirks: ReferenceQuirks, rate: int = RATE) -> NDArray[np.float32]:
    return read(source, rate, WINDOW, quirks)


def test_all_quirks_are_off_by_default_and_all_can_be_on() -> None:
    switches = [field.name for field in dataclasses.fields(ReferenceQuirks) if field.name != "crop_seed"]
    assert len(switches) == 9
    assert not any(getattr(ReferenceQuirks(), name) for name in switches)
    assert all(getattr(ReferenceQuirks.all(), name) for name in switches)
    assert (ReferenceQuirks.all().crop_seed, ReferenceQuirks.all(crop_seed=3).crop_seed) == (None, 3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        ReferenceQuirks().random_crop = True  # type: ignore[misc]


def test_without_quirks_a_recording_is_read_whole_and_mixed_down(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([tone(3.0), noise(3.0)], 1), RATE, subtype="FLOAT")
    np.testing.assert_array_equal(encoded(path, ReferenceQuirks()), load(path, RATE))


def test_channels_are_read_one_after_the_other_whatever_holds_them(tmp_path: Path) -> None:
    left, right = tone(1.3), noise(1.3)
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([left, right], 1), RATE, subtype="FLOAT")
    expected = np.concatenate([left, right])
    with path.open("rb") as file:
        file.seek(7)
        sources: list[Any] = [path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), file]
        sources += [(np.stack([left, right]), RATE), (np.stack([left, right], 1), RATE)]
        sources += [(torch.from_numpy(np.stack([left, right])), RATE)]
        for source in sources:
            np.testing.assert_array_equal(encoded(source, FLAT), expected)
    integers = (np.stack([left, right]) * 32767).astype(np.int16)
    np.testing.assert_allclose(encoded((integers, RATE), FLAT), expected, atol=1e-4)


def test_each_channel_is_resampled_on_its_own() -> None:
    samples_CS = np.stack([tone(1.0), tone(1.0, 660.0)])
    found = encoded((samples_CS, RATE), FLAT, rate=8_000)
    expected = [load((samples_S, RATE), 8_000) for samples_S in samples_CS]
    np.testing.assert_array_equal(found, np.concatenate(expected))


def test_a_mono_recording_is_read_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "mono.flac"
    soundfile.write(path, tone(1.0), RATE)
    np.testing.assert_array_equal(encoded(path, FLAT), load(path, RATE))


def test_unreadable_recordings_are_refused(bad_files: dict[str, Path]) -> None:
    for path in bad_files.values():
        with pytest.raises(AudioError):
            encoded(path, ReferenceQuirks.all())
    for nonsense in (None, 3, io.StringIO("text")):
        with pytest.raises(InputError):
            encoded(nonsense, FLAT)
    with pytest.raises(AudioError, match="not finite"):
        encoded((np.array([[0.1, np.nan], [0.1, 0.1]], np.float32), RATE), FLAT)


def test_channels_of_a_format_that_ffmpeg_decodes_are_read_apart(tmp_path: Path) -> None:
    import av

    path = tmp_path / "stereo.mka"
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("pcm_f32le", rate=RATE, layout="stereo")
        channels_CS = np.stack([tone(1.0), noise(1.0)]).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(channels_CS.T.reshape(1, -1).copy(), format="flt", layout="stereo")
        frame.rate = RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    np.testing.assert_allclose(encoded(path, FLAT), channels_CS.reshape(-1), atol=1e-6)


def test_a_long_clip_is_cut_at_a_place_that_seed_and_recording_decide() -> None:
    samples = np.arange(10 * WINDOW, dtype=np.float32) / (10 * WINDOW)
    cut = encoded((samples, RATE), CROP)
    assert len(cut) == WINDOW
    start = round(float(cut[0]) * len(samples))
    np.testing.assert_array_equal(cut, samples[start : start + WINDOW])
    np.testing.assert_array_equal(encoded((samples, RATE), CROP), cut)
    other_seed = dataclasses.replace(CROP, crop_seed=2)
    assert encoded((samples, RATE), other_seed)[0] != cut[0]
    assert encoded((1.0 - samples, RATE), CROP)[0] != 1.0 - cut[0]
    unseeded = {float(encoded((samples, RATE), ReferenceQuirks(random_crop=True))[0]) for _ in range(5)}
    assert len(unseeded) > 1


def test_a_short_clip_is_not_cut() -> None:
    samples = noise(1.0)[: WINDOW - 1]
    np.testing.assert_array_equal(encoded((samples, RATE), ReferenceQuirks.all()), samples)


def test_channels_are_laid_out_before_the_cut() -> None:
    """Two seconds of each channel: only one window in three of the cut can hold both."""
    samples_CS = np.stack([np.full(2 * WINDOW, 0.25, np.float32), np.full(2 * WINDOW, -0.25, np.float32)])
    cuts = [
        encoded((samples_CS, RATE), ReferenceQuirks(random_crop=True, flat_channels=True, crop_seed=seed))
        for seed in range(20)
    ]
    assert all(len(cut) == WINDOW for cut in cuts)
    assert {(float(cut.min()), float(cut.max())) for cut in cuts} >= {(0.25, 0.25), (-0.25, -0.25)}


def test_extra_text_by_character_is_one_character_of_each() -> None:
    assert by_character(["rain", "wind", ""]) == ["r", "i", ""]
    with pytest.raises(
        InputError, match="the extra text 'b' is too short: for recording 1 the official wrapper uses character 1"
    ):
        by_character(["a", "b"])
