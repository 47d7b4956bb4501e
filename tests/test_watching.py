"""Streams: what begins and ends, raw samples, and files that come into a folder."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from helpers import RATE, tiny_model
from helpers.chat import HUM, RAIN, WHISTLE, chat_pengi
from pengi import Pengi
from pengi.audio.pcm import PcmFormat, pcm_blocks
from pengi.cli import app, watching
from pengi.errors import InputError
from pengi.watching import Detection, WatchOptions, file_arrivals

PENGI = chat_pengi()
SILENCE = np.zeros(5 * RATE, np.float32)


def detections(*parts: NDArray[np.float32], **options: Any) -> list[Detection]:
    blocks = np.array_split(np.concatenate(parts), 37)
    return [found for moment in PENGI.watch(blocks, WatchOptions(**options)) for found in moment.detections]


def summary(found: list[Detection]) -> list[tuple[str, str, float, float]]:
    return [(detection.state, detection.label, detection.start_s, detection.end_s) for detection in found]


def test_a_tag_begins_and_ends() -> None:
    assert summary(detections(SILENCE, RAIN, SILENCE, WHISTLE)) == [
        ("start", "rain", 4.0, 7.0),
        ("end", "rain", 4.0, 11.0),
        ("start", "whistle", 14.0, 17.0),
        ("end", "whistle", 14.0, 20.0),
    ]


def test_a_single_window_is_no_event() -> None:
    short = WHISTLE[: RATE // 2]
    windows: dict[str, Any] = {"window_s": 1.0, "hop_s": 1.0, "labels": ["whistle"]}
    assert detections(SILENCE, short, SILENCE, **windows) == []
    assert [found.state for found in detections(SILENCE, short, SILENCE, min_hits=1, **windows)] == ["start", "end"]


def test_labels_and_their_thresholds() -> None:
    assert {found.label for found in detections(RAIN, HUM, labels=["hum"])} == {"hum"}
    assert {found.label for found in detections(RAIN, HUM, thresholds={"hum": 0.9999})} == {"rain"}
    assert {found.label for found in detections(RAIN, HUM, threshold=0.9999, thresholds={"hum": 0.5})} == {"hum"}


def test_moments_have_the_level_and_what_goes_on() -> None:
    moments = list(PENGI.watch([SILENCE, RAIN]))
    assert moments[0].level_db < -75
    assert moments[-2].level_db == pytest.approx(-14, abs=0.5)
    assert [label for label, _ in moments[-2].present] == ["rain"]
    assert watching.meter_line(moments[-2]).startswith(" -14.")
    assert "rain 100%" in watching.meter_line(moments[-2])


def test_memory_does_not_grow() -> None:
    def stream() -> Iterator[NDArray[np.float32]]:
        for _ in range(60):
            yield WHISTLE
            yield SILENCE

    options = WatchOptions(window_s=5.0, hop_s=5.0, min_hits=1)
    tracemalloc.start()
    peaks = []
    for number, _ in enumerate(PENGI.watch(stream(), options)):
        if number in (20, 110):
            peaks.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert peaks[1] < peaks[0] + 500_000


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"threshold": 2.0}, "threshold must be a probability"),
        ({"thresholds": {"rain": -1.0}}, "threshold must be a probability"),
        ({"min_hits": 0}, "min_hits"),
        ({"hop_s": 3.0}, "hop"),
        ({"labels": ["zzz"]}, "there is no tag 'zzz'"),
        ({"labels": ["hum"], "thresholds": {"rain": 0.5}}, "'rain', which is not one of the labels"),
    ],
)
def test_what_makes_no_sense_is_said(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        PENGI.watch([], WatchOptions(**options))


def test_a_model_without_a_tagger_cannot_watch() -> None:
    with pytest.raises(InputError, match="'plain' has no tagger"):
        Pengi(tiny_model(), "plain", torch.device("cpu")).watch([])


@pytest.mark.parametrize(
    ("encoding", "kind", "scale"), [("s16le", "<i2", 2**15), ("s32le", "<i4", 2**31), ("f32le", "<f4", 1)]
)
def test_raw_samples_are_read_as_they_are_written(encoding: str, kind: str, scale: int) -> None:
    left = 0.5 * np.sin(np.arange(RATE) / 20)
    data = (np.stack([left, 0 * left], 1) * scale).astype(kind).tobytes() + b"\0"  # a frame is cut
    found = np.concatenate(list(pcm_blocks(io.BytesIO(data), PcmFormat(RATE, 2, encoding), RATE)))
    assert found == pytest.approx(left / 2, abs=1e-4)
    assert found.dtype == np.float32


def test_raw_samples_of_another_rate_are_resampled() -> None:
    data = (np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000) * 20_000).astype("<i2").tobytes()
    found = np.concatenate(list(pcm_blocks(io.BytesIO(data), PcmFormat(48_000), RATE)))
    assert len(found) == pytest.approx(RATE, abs=2)
    assert int(np.abs(np.fft.rfft(found[:RATE])).argmax()) == pytest.approx(440, abs=1)


@pytest.mark.parametrize(("head", "name"), [(b"RIFF\0\0\0\0WAVEfmt ", "WAV"), (b"ID3\4" + bytes(12), "MP3")])
def test_a_file_is_not_taken_for_raw_samples(head: bytes, name: str) -> None:
    with pytest.raises(InputError, match=f"the input is {name}, not raw samples"):
        list(pcm_blocks(io.BytesIO(head + bytes(1000)), PcmFormat(), RATE))
    loud = np.full(1000, -5, "<i2")  # begins as a bare MPEG frame does
    assert len(np.concatenate(list(pcm_blocks(io.BytesIO(loud.tobytes()), PcmFormat(), RATE)))) == 1000


def test_samples_that_are_not_finite_count_as_nothing() -> None:
    data = np.array([np.nan, np.inf, 0.5], "<f4").tobytes()
    assert np.concatenate(list(pcm_blocks(io.BytesIO(data), PcmFormat(RATE, 1, "f32le"), RATE))).tolist() == [0, 0, 0.5]


@pytest.mark.parametrize("values", [{"encoding": "mp3"}, {"rate": 10}, {"channels": 0}])
def test_a_format_that_makes_no_sense_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        PcmFormat(**values)


def test_a_file_has_arrived_when_it_does_not_grow_any_more() -> None:
    old, growing, grown, other = (1, 1), (5, 2), (9, 3), (7, 4)
    listings = [
        {"old": old},
        {"old": old, "new": growing},
        {"old": old, "new": grown},
        {"old": old, "new": grown, "other": other},
        {"new": grown, "other": other},
        {"new": growing, "other": other},
        {"new": growing},
    ]
    arrived = [{}, {}, {}, {"new": grown}, {"other": other}, {}, {"new": growing}]
    assert list(file_arrivals(listings, {"old": old})) == arrived


def test_the_command_prints_lines_of_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "load_model", lambda name, device: PENGI)
    samples = (np.concatenate([SILENCE, WHISTLE]) * 2**15).astype("<i2").tobytes()
    result = CliRunner().invoke(
        app, ["watch", "-", "--threshold", "0.5, whistle=0.3", "--threshold", "0.6"], input=samples
    )
    assert result.exit_code == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(line["state"], line["label"], line["start_s"]) for line in lines] == [
        ("start", "whistle", 4.0),
        ("end", "whistle", 4.0),
    ]
    assert all(line["time"].endswith("+00:00") for line in lines)
    empty = CliRunner().invoke(app, ["watch", "-"], input=b"")
    assert (empty.exit_code, empty.stdout) == (0, "")
    assert empty.stderr == "standard input was empty\n"


def test_the_command_watches_a_folder_and_goes_on_after_a_bad_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "old.wav").write_bytes(b"old")

    def listings(folder: str) -> Iterator[dict[str, tuple[int, int]]]:
        soundfile.write(tmp_path / "whistle.wav", WHISTLE, RATE)
        (tmp_path / "bad.wav").write_bytes(b"no audio")
        for _ in range(2):
            yield watching._listing(folder)

    monkeypatch.setattr(watching, "load_model", lambda name, device: PENGI)
    monkeypatch.setattr(watching, "listings", listings)
    result = CliRunner().invoke(app, ["watch", str(tmp_path)])
    assert result.exit_code == 0, result.stderr
    bad, start, end = (json.loads(line) for line in result.stdout.splitlines())
    assert bad["input"] == str(tmp_path / "bad.wav")
    assert bad["error"]
    assert (start["input"], start["label"], start["state"]) == (str(tmp_path / "whistle.wav"), "whistle", "start")
    assert (end["state"], end["end_s"]) == ("end", 5.0)


def test_a_file_that_grows_while_another_is_read_is_read_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "whistle.wav"

    def listings(folder: str) -> Iterator[dict[str, tuple[int, int]]]:
        path.write_bytes(b"the beginning")
        growing = watching._listing(folder)
        soundfile.write(path, WHISTLE, RATE)
        yield from [growing, growing, *[watching._listing(folder)] * 2]

    monkeypatch.setattr(watching, "load_model", lambda name, device: PENGI)
    monkeypatch.setattr(watching, "listings", listings)
    result = CliRunner().invoke(app, ["watch", str(tmp_path)])
    assert [json.loads(line)["state"] for line in result.stdout.splitlines()] == ["start", "end"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no-such-folder"], "there is no folder 'no-such-folder'"),
        (["-", "--threshold", "0.5, rain=loud"], "--threshold must be a number or LABEL=number"),
        (["-", "--encoding", "mp3"], "there is no encoding 'mp3'"),
    ],
)
def test_mistakes_are_a_sentence(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["watch", *arguments])
    assert result.exit_code == 2
    assert said in result.stderr
