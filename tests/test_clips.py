"""Events cut out of recordings for a review, and the review read by a training."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas
import pytest
import soundfile

from pengi.clips import Choice, cut, extract
from pengi.data.sources import manifest_of
from pengi.errors import AudioError, InputError
from pengi.exports import Row

RATE = 22_050
COUNT_S = np.linspace(-1, 1, 10 * RATE, dtype=np.float32)
"""A recording in which every sample has another value."""


@pytest.fixture
def night(tmp_path: Path) -> str:
    path = tmp_path / "night.wav"
    soundfile.write(path, COUNT_S, RATE, "PCM_16")
    return str(path)


def rows(recording: str) -> list[Row]:
    return [
        Row(recording, 1.0, 2.0, "siren", 0.9),
        Row(recording, 1.5, 3.0, "dog/barking", 0.6),
        Row(recording, 9.5, 10.0, "siren", 0.3),
        Row(recording, 0.0, 10.0, "silence", 1.0),
    ]


def test_clips_hold_the_event_and_its_padding(tmp_path: Path, night: str) -> None:
    found = extract(rows(night), tmp_path / "review", Choice(padding_s=0.5))
    assert [name for name, _ in found.clips] == [
        "siren/night_1.00-2.00.wav",
        "dog_barking/night_1.50-3.00.wav",
        "siren/night_9.50-10.00.wav",
    ]
    for (name, _), (start_s, end_s) in zip(found.clips, [(0.5, 2.5), (1.0, 3.5), (9.0, 10.0)], strict=True):
        samples, rate = soundfile.read(tmp_path / "review" / name, dtype="float32")
        assert rate == RATE
        np.testing.assert_allclose(samples, COUNT_S[round(start_s * RATE) : round(end_s * RATE)], atol=1e-4)


def test_a_corrected_review_is_read_by_a_training(tmp_path: Path, night: str) -> None:
    extract(rows(night), tmp_path / "review", Choice())
    path = tmp_path / "review/review.csv"
    table = pandas.read_csv(path)
    assert table["recording"].unique().tolist() == [night]
    assert table[["label", "confidence", "start_s", "end_s"]].values.tolist()[1] == ["dog/barking", 0.6, 1.5, 3.0]
    table.loc[1, "label"] = "fox; owl"
    table.drop(index=2).to_csv(path, index=False)
    clips = manifest_of(path).clips
    assert [(clip.audio, clip.events) for clip in clips] == [
        ("siren/night_1.00-2.00.wav", ("siren",)),
        ("dog_barking/night_1.50-3.00.wav", ("fox", "owl")),
    ]


def test_clips_of_one_of_many_recordings_stay_in_one_split(tmp_path: Path) -> None:
    found = []
    for number in range(5):
        soundfile.write(tmp_path / f"{number}.wav", COUNT_S, RATE, "PCM_16")
        found += rows(f"{number}.wav")
    extract(found, tmp_path / "review", Choice(), [tmp_path])
    clips = manifest_of(tmp_path / "review/review.csv").clips
    assert {clip.group for clip in clips} == {f"{number}.wav" for number in range(5)}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (Choice(labels=("siren",)), [0, 2]),
        (Choice(labels=("silence",)), [3]),
        (Choice(min_confidence=0.5), [0, 1]),
        (Choice(max_confidence=0.6), [1, 2]),
        (Choice(limit=1), [0, 1]),
        (Choice(), [0, 1, 2]),
    ],
)
def test_labels_confidences_and_numbers_choose(choice: Choice, expected: list[int]) -> None:
    given = rows("a.wav")
    assert choice.chosen(given) == [given[index] for index in expected]


def test_a_recording_that_is_missing_is_one_error(tmp_path: Path, night: str) -> None:
    found = extract([*rows(night), *rows("gone.wav")], tmp_path / "review", Choice())
    assert len(found.clips) == 3
    assert list(found.errors) == ["gone.wav"]
    with pytest.raises(AudioError, match=r"no recording at 'gone.wav'; run the command where the table was made"):
        extract(rows("gone.wav"), tmp_path / "other", Choice())
    assert not (tmp_path / "other").exists()


def test_mistakes_are_said(tmp_path: Path, night: str) -> None:
    with pytest.raises(InputError, match="none of the 4 rows match the given labels and confidences"):
        extract(rows(night), tmp_path / "review", Choice(labels=("owl",)))
    with pytest.raises(InputError, match="padding must be 0 seconds or more"):
        Choice(padding_s=-1)
    with pytest.raises(InputError, match=r"the lowest confidence 0.9 is above the highest confidence 0.5"):
        Choice(min_confidence=0.9, max_confidence=0.5)
    with pytest.raises(InputError, match="limit must be 1"):
        Choice(limit=0)


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_stretches_do_not_depend_on_blocks(block: int) -> None:
    wave = np.arange(100, dtype=np.float32)
    edges = [*range(0, 100, block), 100]
    blocks = [wave[start:end] for start, end in pairwise(edges)]
    spans = [(10, 30), (0, 5), (20, 25), (95, 200), (300, 310), (40, 41)]
    found = dict(cut(blocks, spans))
    assert set(found) == {0, 1, 2, 3, 5}
    for index, samples in found.items():
        np.testing.assert_array_equal(samples, wave[slice(*spans[index])])
