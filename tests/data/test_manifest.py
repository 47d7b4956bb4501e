"""Manifests and labels files: what is read, and mistakes with their line numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers import write_jsonl
from pengi.data.manifest import SPLITS, Clip, read_labels, read_manifest, written_row
from pengi.errors import ManifestError


def rows() -> list[dict[str, Any]]:
    return [{"id": f"clip-{number}", "audio": f"{number}.wav", "split": "train"} for number in (1, 2, 3)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Audio files named in the rows (their content does not matter here)."""
    for row in rows():
        (tmp_path / row["audio"]).write_bytes(b"RIFF")
    return tmp_path


def test_fields_defaults_and_free_extras(folder: Path) -> None:
    full = {
        "id": "clip-1", "audio": "1.wav", "split": "heldout", "group": "g", "source": "s", "license": "CC0-1.0",
        "ship": True, "duration_s": 2.5, "domain": "digit", "events": ["speech"],
        "attributes": {"digit": "seven", "midi": 69, "assembled": True},
        "qa": [{"question": "what?", "answer": "seven"}], "origin": "freesound:1", "weather": None,
    }  # fmt: skip
    first, second = read_manifest(write_jsonl(folder / "m.jsonl", [full, rows()[1]]))
    assert first.events == ("speech",)
    assert first.attributes == {"digit": "seven", "midi": 69, "assembled": True}
    assert first.qa[0].answer == "seven"
    assert first.ship
    assert (second.ship, second.duration_s, second.events, second.qa) == (False, None, (), ())


def test_blank_lines_do_not_count_but_keep_the_numbers(folder: Path) -> None:
    lines = [json.dumps(row) for row in rows()]
    path = folder / "m.jsonl"
    path.write_text(f"\n{lines[0]}\r\n\n{lines[1]}\n   \n{lines[2]}", encoding="utf-8", newline="")
    assert [clip.id for clip in read_manifest(path)] == ["clip-1", "clip-2", "clip-3"]
    path.write_text(f"\n{lines[0]}\n\n{{oops\n", encoding="utf-8")
    with pytest.raises(ManifestError, match="line 4: not valid JSON"):
        read_manifest(path)


@pytest.mark.parametrize("separator", ["\u2028", "\u0085"])
def test_separators_inside_a_string_end_no_line(folder: Path, separator: str) -> None:
    row = rows()[0] | {"source": f"one{separator}two"}
    (folder / "m.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_manifest(folder / "m.jsonl")[0].source == f"one{separator}two"


MISTAKES: dict[str, tuple[Callable[[list[dict[str, Any]]], Any], str]] = {
    "unknown split": (
        lambda rows: rows[1].update(split="training"),
        "line 2: field 'split': input should be 'train', ",
    ),
    "missing field": (lambda rows: rows[2].pop("audio"), "line 3: field 'audio': field required"),
    "empty id": (lambda rows: rows[0].update(id=""), "line 1: field 'id'"),
    "wrong type": (lambda rows: rows[1].update(events="rain"), "line 2: field 'events'"),
    "negative length": (lambda rows: rows[1].update(duration_s=-1), "line 2: field 'duration_s'"),
    "nested attribute": (lambda rows: rows[1].update(attributes={"a": []}), "line 2: field 'attributes"),
    "half a question": (lambda rows: rows[1].update(qa=[{"question": "what?"}]), "line 2: field 'qa.0.answer'"),
    "repeated id": (lambda rows: rows[2].update(id="clip-1"), "line 3: id 'clip-1' is already in line 1"),
    "missing audio": (lambda rows: rows[1].update(audio="gone.wav"), "line 2: no audio file at 'gone.wav'"),
    "no rows": (lambda rows: rows.clear(), "has no rows"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_carry_the_line_number(folder: Path, mistake: str) -> None:
    change, message = MISTAKES[mistake]
    changed = rows()
    change(changed)
    path = write_jsonl(folder / "m.jsonl", changed)
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("line", ["[1, 2]", '"text"', "null"])
def test_a_row_must_be_an_object(folder: Path, line: str) -> None:
    (folder / "m.jsonl").write_text(line + "\n", encoding="utf-8")
    with pytest.raises(ManifestError, match="line 1: a row must be a JSON object"):
        read_manifest(folder / "m.jsonl")


def test_a_manifest_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="there is no file"):
        read_manifest(tmp_path / "none.jsonl")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    for path, message in (
        (tmp_path, "cannot be read: is a directory"),
        (tmp_path / "binary.jsonl", "line 1: not valid JSON"),
        (tmp_path / "binary.jsonl" / "below", "cannot be read: not a directory"),
    ):
        with pytest.raises(ManifestError, match=message):
            read_manifest(path)


def test_bad_rows_are_skipped_up_to_a_share(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = folder / "m.jsonl"
    lines = [json.dumps(row) for row in rows()]
    path.write_text("\n".join([*lines, "{oops", lines[0]]) + "\n", encoding="utf-8")
    assert [clip.id for clip in read_manifest(path, max_bad_share=0.4)] == ["clip-1", "clip-2", "clip-3"]
    assert "line 4: not valid JSON" in caplog.text
    assert "id 'clip-1' is already in line 1" in caplog.text
    with pytest.raises(ManifestError, match=r"2 of 5 rows cannot be read; the first is '.*line 4'"):
        read_manifest(path, max_bad_share=0.3)


def test_a_written_row_is_read_back(folder: Path) -> None:
    full = Clip(
        id="clip-1", audio="1.wav", split="val", ship=True, redistribute=False, events=("rain",), corpus="mine",
        captions=("Rain – é.",), attributes={"midi": 69}, qa=({"question": "a?", "answer": "b"},), tags=("x",),
    )  # fmt: skip
    path = folder / "m.jsonl"
    path.write_text(written_row(full, recipe={"kind": "sounds"}), encoding="utf-8")
    assert read_manifest(path) == [full.model_copy(update={"corpus": ""})]
    assert json.loads(path.read_text(encoding="utf-8"))["recipe"] == {"kind": "sounds"}


def test_audio_files_are_not_checked_unless_they_are_needed(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "m.jsonl", rows())
    assert len(read_manifest(path, check_audio=False)) == 3
    with pytest.raises(ManifestError, match="line 1"):
        read_manifest(path)


def test_labels(tmp_path: Path) -> None:
    worded = {"label": "rain", "phrase": "rain falling", "sentence": "Rain falls."}
    path = write_jsonl(tmp_path / "labels.jsonl", [worded, {**worded, "label": "heavy rain", "audioset": "Rain"}])
    labels = read_labels(path)
    assert list(labels) == ["rain", "heavy rain"]
    assert (labels["rain"].audioset, labels["heavy rain"].audioset) == (None, "Rain")
    for extra, message in ((worded, "line 2: label 'rain' is already"), ({"label": "x"}, "line 2: field 'phrase'")):
        with pytest.raises(ManifestError, match=message):
            read_labels(write_jsonl(path, [worded, extra]))


def test_the_shared_manifest_is_whole(shared_data: Path) -> None:
    clips = read_manifest(shared_data / "manifest.jsonl", check_audio=False)
    labels = read_labels(shared_data / "labels.jsonl")
    assert {clip.split for clip in clips} <= set(SPLITS)
    assert {event for clip in clips for event in clip.events} <= labels.keys()
    groups = {split: {clip.group for clip in clips if clip.split == split} for split in SPLITS}
    assert not groups["train"] & groups["val"]
