"""Copies of datasets in Parquet, written as the ``datasets`` library writes them."""

from __future__ import annotations

import io
import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from pengi.audio.decode import load
from pengi.data.datasets import import_dataset
from pengi.data.manifest import read_manifest
from pengi.data.phrases import Phrases
from pengi.data.questions import QuestionMaker
from pengi.data.recordings import recording
from pengi.data.tasks import labels_of
from pengi.errors import InputError, ManifestError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

AUDIO_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
Records = list[dict[str, Any]]


def sound(frequency: int = 440, format: str = "WAV") -> bytes:
    written = io.BytesIO()
    samples = 0.5 * np.sin(2 * np.pi * frequency * np.arange(1600) / 16_000)
    soundfile.write(written, samples, 16_000, format=format)
    return written.getvalue()


def embedded(path: str | None = "a.wav", content: bytes | None = None) -> dict[str, Any]:
    return {"bytes": sound() if content is None else content, "path": path}


def write(path: Path, records: Records, classes: dict[str, Any] | None = None) -> Path:
    """Records as a Parquet file; ``classes`` are features of the ``datasets`` library."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(records)
    if "audio" in records[0] and isinstance(records[0]["audio"], dict) and "bytes" in records[0]["audio"]:
        index = table.schema.get_field_index("audio")
        column = pa.array([record["audio"] for record in records], AUDIO_TYPE)
        table = table.set_column(index, pa.field("audio", AUDIO_TYPE), column)
    features = {"audio": {"sampling_rate": 16_000, "_type": "Audio"}, **(classes or {})}
    info = {"info": {"features": features}}
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(info)}), path, row_group_size=2)
    return path


def imported(tmp_path: Path, name: str = "table") -> Records:
    out = tmp_path / "m.jsonl"
    import_dataset(name, tmp_path / "copy", out)
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


ESC50: Records = [
    {"filename": "1-100032-A-0.wav", "fold": 1, "target": 0, "category": "dog", "esc10": True, "src_file": 100032,
     "take": "A", "audio": embedded("1-100032-A-0.wav", sound(440))},
    {"filename": "5-9032-A-0.wav", "fold": 5, "target": 12, "category": "crackling_fire", "esc10": False,
     "src_file": 9032, "take": "A", "audio": embedded("5-9032-A-0.wav", sound(880))},
    {"filename": "5-9032-B-0.wav", "fold": 5, "target": 12, "category": "crackling_fire", "esc10": False,
     "src_file": 9032, "take": "B", "audio": embedded("5-9032-B-0.wav", sound(990, "FLAC"))},
]  # fmt: skip


def test_a_copy_of_esc50_becomes_the_rows_of_the_published_dataset(tmp_path: Path) -> None:
    write(tmp_path / "copy/data/train-00000-of-00002.parquet", ESC50[:2])
    write(tmp_path / "copy/data/train-00001-of-00002.parquet", ESC50[2:])
    rows = imported(tmp_path, "esc50")
    assert [(row["id"], row["events"], row["attributes"], row["group"], row["split"]) for row in rows] == [
        ("esc50:1-100032-A-0", ["dog"], {"fold": 1}, "100032", "test"),
        ("esc50:5-9032-A-0", ["crackling fire"], {"fold": 5}, "9032", "test"),
        ("esc50:5-9032-B-0", ["crackling fire"], {"fold": 5}, "9032", "test"),
    ]
    assert {row["license"] for row in rows} == {"CC-BY-NC-3.0"}
    clips = read_manifest(tmp_path / "m.jsonl")
    contents = [recording(tmp_path, clip.audio) for clip in clips]
    assert contents == [record["audio"]["bytes"] for record in ESC50]
    assert all(len(load(content, 16_000)) == 1600 for content in contents)


def test_numbers_of_classes_get_their_names_and_files_their_splits(tmp_path: Path) -> None:
    classes = {
        "label": {"names": ["church_bell", "siren"], "_type": "ClassLabel"},
        "tags": {"feature": {"names": ["indoor", "outdoor"], "_type": "ClassLabel"}, "_type": "Sequence"},
    }
    for split, label, tags in (("train", 1, [1, 0]), ("validation", 0, [0]), ("test", -1, [1])):
        record = {"audio": embedded(f"{split}.wav"), "label": label, "tags": tags, "caption": "A bell\nrings."}
        write(tmp_path / f"copy/data/{split}-00000-of-00001-ab12.parquet", [record], classes)
    rows = {row["split"]: row for row in imported(tmp_path)}
    assert rows.keys() == {"train", "val", "test"}
    assert (rows["train"]["events"], rows["train"]["tags"]) == (["siren"], ["outdoor", "indoor"])
    assert (rows["val"]["events"], rows["val"]["tags"], rows["val"]["captions"]) == (
        ["church bell"], ["indoor"], ["A bell rings."],
    )  # fmt: skip
    assert rows["test"]["events"] == []


def test_rows_of_a_copy_train_captions_and_metadata(tmp_path: Path) -> None:
    record = {"audio": embedded(), "text": "A dog barks.", "title": "Dog", "keywords": "dog;bark"}
    write(tmp_path / "copy/default/partial-train/0000.parquet", [record])
    imported(tmp_path)
    clips = read_manifest(tmp_path / "m.jsonl")
    tasks = {"caption": 1.0, "metadata": 1.0}
    drawn = QuestionMaker(Phrases(labels_of(clips, {})), weights=tasks).about(clips[0], random.Random(0), 4)
    assert {pair.task: pair.target.split(";")[0] for pair in drawn} == {
        "caption": "A dog barks.",
        "metadata": "title: Dog",
    }


def test_captions_of_one_recording_are_put_together_as_in_audiocaps(tmp_path: Path) -> None:
    captions = ["Constant rattling.", "A rocket flies by."]
    records = [
        {"audiocap_id": 103549 + number, "youtube_id": "7fmOlUlwoNg", "start_time": 20, "caption": caption,
         "audio": embedded("7fmOlUlwoNg.wav")}
        for number, caption in enumerate(captions)
    ]  # fmt: skip
    write(tmp_path / "copy/data/validation-00000-of-00001.parquet", records)
    rows = imported(tmp_path, "audiocaps")
    assert [(row["id"], row["split"], row["captions"]) for row in rows] == [
        ("audiocaps:7fmOlUlwoNg_20", "val", captions)
    ]


@pytest.mark.parametrize("columns", [("id", "caption"), ("id", "text"), ("", "text")])
def test_blacklists_of_wavcaps_hold_out_recordings_of_a_copy(tmp_path: Path, columns: tuple[str, str]) -> None:
    lists = tmp_path / "copy/json_files/blacklist"
    lists.mkdir(parents=True)
    (lists / "blacklist_exclude_test_ac.json").write_text('{"AudioSet": ["Y7fmOlUlwoNg.wav"], "FreeSound": []}')
    (lists / "blacklist_exclude_ub8k_esc50_vggsound.json").write_text('{"AudioSet": [], "FreeSound": ["2219.wav"]}')
    id_column, text = columns
    for source, *ids in (("AudioSet_SL", "Yb0RFKhbpFJA", "Y7fmOlUlwoNg"), ("FreeSound", "7", "2219")):
        records: Records = [
            {
                **({id_column: id} if id_column else {}),
                text: "Wind blows.",
                "audio": embedded(None if id_column else f"{id}.flac", sound()),
            }
            for id in ids
        ]
        write(tmp_path / f"copy/{source}/train-00000-of-00001.parquet", records)
    rows = imported(tmp_path, "wavcaps")
    assert [row["split"] for row in rows] == ["train", "heldout", "train", "heldout"]
    if text == "caption":
        assert [row["id"] for row in rows][-1] == "wavcaps:FreeSound/2219"


@pytest.mark.parametrize(
    ("name", "column", "classes", "attributes"),
    [
        ("gtzan", "genre", ["blues", "hiphop"], {"genre": "hiphop"}),
        ("speech-commands", "label", ["backward", "left"], {"keyword": "left"}),
        ("crema-d", "label", ["anger", "happy"], {"emotion": "happy"}),
    ],
)
def test_the_label_of_a_copy_is_the_attribute_of_its_dataset(
    tmp_path: Path, name: str, column: str, classes: list[str], attributes: dict[str, str]
) -> None:
    features = {column: {"names": classes, "_type": "ClassLabel"}}
    write(tmp_path / "copy/train.parquet", [{"audio": embedded("0a7c2a8d_nohash_0.wav"), column: 1}], features)
    (row,) = imported(tmp_path, name)
    assert (row["attributes"], row["events"], row["split"]) == (attributes, [], "train")


def test_names_of_recordings_say_what_a_copy_of_a_folder_dataset_does_not(tmp_path: Path) -> None:
    write(tmp_path / "copy/train.parquet", [{"audio": embedded("1001_DFA_ANG_XX.wav")}])
    (row,) = imported(tmp_path, "crema-d")
    assert (row["id"], row["attributes"]) == ("crema-d:1001_DFA_ANG_XX", {"emotion": "angry"})


def test_rows_without_a_recording_are_counted_and_files_beside_are_found(tmp_path: Path) -> None:
    records: Records = [
        {"audio": embedded("a.wav"), "title": "A"},
        {"audio": None, "title": "B"},
        {"audio": embedded("c.wav", b""), "title": "C"},
        {"audio": {"bytes": None, "path": "/elsewhere/d.wav"}, "title": "D"},
    ]
    write(tmp_path / "copy/train.parquet", records)
    (tmp_path / "copy/sounds").mkdir()
    (tmp_path / "copy/sounds/d.wav").write_bytes(sound())
    found = import_dataset("table", tmp_path / "copy", tmp_path / "m.jsonl")
    assert (found.splits, found.missing) == ({"train": 2}, 2)
    assert [(part.name, part.clips, part.missing) for part in found.parts] == [("train.parquet", 2, 2)]
    assert [clip.title for clip in read_manifest(tmp_path / "m.jsonl")] == ["A", "D"]


def test_samples_instead_of_files_are_written_as_wav(tmp_path: Path) -> None:
    samples = [0.0, 0.25, -0.5]
    write(tmp_path / "copy/train.parquet", [{"audio": {"array": samples, "sampling_rate": 16_000}, "title": "A"}])
    (row,) = imported(tmp_path)
    assert load(recording(tmp_path, row["audio"]), 16_000).tolist() == samples


def test_an_import_that_was_stopped_goes_on_and_a_newer_file_is_read_again(tmp_path: Path) -> None:
    first = write(tmp_path / "copy/data/train-00000-of-00002.parquet", ESC50[:2])
    second = write(tmp_path / "copy/data/train-00001-of-00002.parquet", ESC50[2:])
    complete = second.read_bytes()
    second.write_bytes(complete[:-100] + bytes(92) + complete[-8:])
    with pytest.raises(ManifestError, match=r"train-00001-of-00002\.parquet' cannot be read as a Parquet file"):
        imported(tmp_path, "esc50")
    assert not (tmp_path / "m.jsonl").exists()
    second.write_bytes(complete)
    imported(tmp_path, "esc50")
    tars = sorted((tmp_path / "m-recordings").iterdir())
    assert [tar.name for tar in tars] == ["data-train-00000-of-00002.tar", "data-train-00001-of-00002.tar"]
    before = [tar.stat().st_ino for tar in tars]
    newer = tars[0].stat().st_mtime + 10
    os.utime(first, (newer, newer))
    rows = imported(tmp_path, "esc50")
    after = [tar.stat().st_ino for tar in tars]
    assert (after[0] != before[0], after[1] == before[1]) == (True, True)
    assert recording(tmp_path, rows[0]["audio"]) == ESC50[0]["audio"]["bytes"]


def test_a_failure_to_write_leaves_no_half_written_file(tmp_path: Path) -> None:
    write(tmp_path / "copy/train.parquet", ESC50)
    (tmp_path / "m-recordings").write_text("a file where the folder is to be")
    with pytest.raises(InputError, match=r"m-recordings' could not be written"):
        imported(tmp_path, "esc50")
    assert not (tmp_path / "m.jsonl").exists()


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ({"length": 3}, "train.parquet' has no column that describes its recordings .* it has length"),
        (
            {"label": 3},
            "no column that describes its recordings .* it has label, and the numbers in label have no names",
        ),
        ({"title": "A", "split": "later"}, "train.parquet, row 1: split 'later' is unknown"),
    ],
)
def test_a_mistake_in_a_copy_gets_one_clear_sentence(tmp_path: Path, record: dict[str, Any], sentence: str) -> None:
    write(tmp_path / "copy/train.parquet", [{"audio": embedded(), **record}])
    with pytest.raises(ManifestError, match=sentence):
        imported(tmp_path)


def test_a_wrong_value_in_a_copy_of_a_known_dataset_names_file_and_row(tmp_path: Path) -> None:
    write(tmp_path / "copy/train-0.parquet", ESC50[1:])
    write(tmp_path / "copy/train-1.parquet", [{**ESC50[0], "fold": 7}])
    with pytest.raises(ManifestError, match=r"esc50: train-1\.parquet, row 1: fold '7' is unknown"):
        imported(tmp_path, "esc50")
    assert not (tmp_path / "m-recordings").exists()  # nothing is copied in vain


def test_a_pointer_of_git_lfs_says_how_to_get_the_file(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/train.parquet").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ManifestError, match="only Git's pointer to the file: run 'git lfs pull'"):
        imported(tmp_path)


def test_hidden_files_and_tables_without_recordings_are_skipped(tmp_path: Path) -> None:
    write(tmp_path / "copy/train.parquet", ESC50)
    pq.write_table(pa.table({"feature": [[0.5, 0.25]]}), tmp_path / "copy/features.parquet")
    (tmp_path / "copy/._train.parquet").write_bytes(b"junk")
    assert len(imported(tmp_path, "esc50")) == 3
