"""Results as files: ``--format`` and ``--out`` of commands, ``run --export`` and ``extract``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
import webvtt

from helpers.commands import complaint, invoke
from helpers.jobs import write_tone
from pengi.conditioning.transcript import Transcriber
from pengi.results import Transcript, TranscriptSegment

Command = Callable[..., Any]


@pytest.fixture(autouse=True)
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pengi.checkpoint.model_hash", lambda name: f"hash of {name}")


def test_a_timeline_is_written_with_its_settings_beside_it(pengi: Command, tone: Path, tmp_path: Path) -> None:
    out = tmp_path / "events.csv"
    result = pengi("timeline", tone, "--out", out, "--threshold", "0.25, siren=0.7", "--min-duration", 1)
    assert (result.exit_code, result.stdout) == (0, "")
    table = pandas.read_csv(out)
    assert table["path"].unique().tolist() == [str(tone)]
    assert table["label"].tolist() == ["A tone rings.", "Silence."]
    settings = json.loads((tmp_path / "events.csv.settings.json").read_text())
    assert settings["model_sha256"] == "hash of pengi-mini"
    assert settings["settings"] == {
        "command": "timeline",
        "threshold": {"*": 0.25, "siren": 0.7},
        "min_duration_s": 1.0,
        "partial": False,
    }
    assert settings["recordings"] == [{"path": str(tone), "duration_s": 3725.0, "rows": 2}]


def test_rows_are_printed_while_a_recording_is_read(pengi: Command, engine: Any, tone: Path) -> None:
    result = pengi("timeline", tone, "--format", "jsonl")
    assert "A tone rings." in engine.calls[1]["shown"]
    assert [json.loads(line)["end_s"] for line in result.stdout.splitlines()] == [65.0, 3725.0]


def test_every_recording_gets_a_file_and_a_bad_one_an_error(
    pengi: Command, tone: Path, bad_files: dict[str, Path], tmp_path: Path
) -> None:
    result = pengi("tags", tone, bad_files["text"], "--format", "audacity", "--out", tmp_path / "labels")
    assert result.exit_code == 2
    assert "1 of 2 files" in result.stderr
    assert (tmp_path / "labels/tone.txt").read_text() == "0.000000\t1.000000\ttone\n0.000000\t1.000000\tsiren\n"
    assert [file.name for file in (tmp_path / "labels").rglob("*.txt")] == ["tone.txt"]
    settings = json.loads((tmp_path / "labels/pengi-settings.json").read_text())
    assert [sorted(entry) for entry in settings["recordings"]] == [["duration_s", "path", "rows"], ["error", "path"]]


@pytest.mark.parametrize("command", ["tags", "timeline"])
def test_results_stay_if_no_recording_can_be_read(pengi: Command, tone: Path, tmp_path: Path, command: str) -> None:
    out, new = tmp_path / "kept.csv", tmp_path / "new.csv"
    assert pengi(command, tone, "--out", out).exit_code == 0
    before = {file.name: file.read_text() for file in tmp_path.glob("kept*")}
    assert len(before) == 2
    assert pengi(command, tmp_path / "typo.wav", "--out", out).exit_code == 2
    assert {file.name: file.read_text() for file in tmp_path.glob("kept*")} == before
    assert pengi(command, tmp_path / "typo.wav", "--out", new).exit_code == 2
    assert not list(tmp_path.glob("*new*"))


def test_a_picture_of_another_kind_is_refused_before_any_work(pengi: Command, tone: Path, tmp_path: Path) -> None:
    result = pengi("timeline", tone, "--plot", tmp_path / "plot.xyz")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--plot must end in .png, .svg or .pdf" in result.stderr


def test_where_nothing_is_found_a_note_says_so(pengi: Command, tone: Path, tmp_path: Path) -> None:
    found = pengi("tags", tone, "--threshold", 0.9, "--out", tmp_path / "tags.csv")
    assert (found.exit_code, found.stderr) == (0, f"{tone}: nothing was found\n")
    assert (tmp_path / "tags.csv").read_text() == "path,start_s,end_s,label,confidence\n"
    assert pengi("tags", tone, "--threshold", 0.9, "--out", tmp_path / "tags.txt").exit_code == 0
    assert not (tmp_path / "tags.txt").exists()


def test_tags_are_listed(pengi: Command, engine: Any, tone: Path) -> None:
    shown = pengi("tags", tone, "--top", 3, "--labels", "tone, siren").stdout
    rows = [row.split() for row in shown.splitlines()]
    assert rows == [["tone", "sure", "75.0%", "sound", "0.0-1.0", "s"], ["siren", "no", "0.4%", "sound"]]
    assert (engine.calls[0]["labels"], engine.calls[0]["top"]) == (["tone", "siren"], 3)
    assert json.loads(pengi("tags", tone, "--json").stdout)["tags"][0]["label"] == "tone"


def test_a_transcript_becomes_subtitles(
    pengi: Command, tone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Recogniser:
        def transcribe(self, source: Any, **_: Any) -> Transcript:
            return Transcript("Come here.", (TranscriptSegment(0.25, 0.75, "Come here."),), 1.0)

    monkeypatch.setattr(Transcriber, "from_pretrained", lambda device: Recogniser())
    assert pengi("transcribe", tone, "--device", "cpu", "--out", tmp_path / "a.vtt").exit_code == 0
    (cue,) = webvtt.read(tmp_path / "a.vtt")
    assert (cue.start, cue.end, cue.text) == ("00:00:00.250", "00:00:00.750", "Come here.")
    assert pengi("transcribe", tone, "--device", "cpu", "--format", "srt").stdout == (
        "1\n00:00:00,250 --> 00:00:00,750\nCome here.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["timeline", "x.wav", "--format", "cvs"], "there is no format 'cvs'; did you mean 'csv'?"),
        (["timeline", "x.wav", "--out", "events"], "choose the format of 'events' with --format"),
        (["timeline", "x.wav", "--out", "no/such/events.csv"], "there is no folder 'no/such'"),
        (["timeline", "x.wav", "--format", "parquet"], "name a file with --out"),
        (["timeline", "x.wav", "--format", "csv", "--json"], "--json prints one document"),
        (["timeline", "x.wav", "--threshold", "high"], "a number or LABEL=number"),
        (["tags", "x.wav", "--threshold", "siren=loud"], "a number or LABEL=number"),
        (["run", "x", "--task", "ask", "--question", "a?", "--out", "a.jsonl", "--export", "a.srt"], "needs times"),
        (
            ["run", "x", "--task", "embed", "--out", "a.jsonl", "--export", "a.csv"],
            "vectors cannot be written with --export",
        ),
        (["run", "x", "--task", "tags", "--out", "a.jsonl", "--format", "csv"], "--format needs --export"),
        (["extract", "none.csv", "--out", "review"], "there is no file 'none.csv'"),
    ],
)
def test_mistakes_are_said_before_any_work(pengi: Command, engine: Any, arguments: list[str], sentence: str) -> None:
    assert sentence in complaint(pengi(*arguments))
    assert engine.calls == []


def test_a_folder_that_cannot_be_made_is_said_before_any_work(
    pengi: Command, engine: Any, tone: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    message = complaint(pengi("timeline", tone, "--format", "srt", "--out", tmp_path / "file/subtitles"))
    assert f"'{tmp_path / 'file/subtitles'}' could not be written" in message
    assert engine.calls == []


def test_several_recordings_do_not_go_into_one_file_of_subtitles(pengi: Command, tone: Path, tmp_path: Path) -> None:
    message = complaint(pengi("timeline", tone, tone, "--out", tmp_path / "a.srt"))
    assert "'srt' holds one recording; give a folder with --out" in message


def test_labels_can_be_scored_by_themselves(pengi: Command, engine: Any, tone: Path) -> None:
    options = ["--none", "--multi-label", "--prompt", "you can hear {}"]
    shown = pengi("classify", tone, "--labels", "dog, rain", *options).stdout
    assert [line.split() for line in shown.splitlines()] == [
        ["share", "by", "itself"],
        ["dog", "50.0%", "87.5%"],
        ["rain", "50.0%", "87.5%"],
    ]
    pengi("classify", tone, "--labels", "dog, rain", "--none-threshold", 0.3)
    calls = [(call["none"], call["multi_label"], call["prompt"]) for call in engine.calls]
    assert calls == [(True, True, "you can hear {}"), (0.3, False, None)]


@pytest.mark.usefixtures("job_engine")
def test_a_job_is_exported_at_its_end(tmp_path: Path) -> None:
    (tmp_path / "sounds").mkdir()
    for index in range(2):
        write_tone(tmp_path / f"sounds/{index}.wav", 0.5)
    job = ("run", tmp_path / "sounds", "--task", "timeline")
    for out, export, format in (("a.jsonl", "a.selections.txt", []), ("b.parquet", "labels", ["--format", "srt"])):
        result = invoke(*job, "--out", tmp_path / out, "--export", tmp_path / export, *format)
        assert result.exit_code == 0, result.output
    table = pandas.read_csv(tmp_path / "a.selections.txt", sep="\t")
    assert table["Begin Time (s)"].tolist() == [0.0, 5.0, 9.0, 10.0, 15.0, 19.0]
    assert sorted(file.name for file in (tmp_path / "labels").iterdir()) == ["0.srt", "1.srt", "pengi-settings.json"]
    assert [cue.text for cue in webvtt.from_srt(tmp_path / "labels/0.srt")] == ["rain", "siren", "rain"]
    settings = json.loads((tmp_path / "a.selections.txt.settings.json").read_text())
    assert settings["settings"] == {"command": "run", "task": "timeline"}


@pytest.mark.usefixtures("job_engine")
def test_transcripts_of_a_job_become_subtitles(tmp_path: Path) -> None:
    write_tone(tmp_path / "a.wav", 0.5)
    rows, subtitles = tmp_path / "rows.jsonl", tmp_path / "a.srt"
    result = invoke("run", tmp_path / "*.wav", "--task", "transcribe", "--out", rows, "--export", subtitles)
    assert result.exit_code == 0, result.output
    (cue,) = webvtt.from_srt(subtitles)
    assert (cue.start, cue.end, cue.text) == ("00:00:00.012", "00:00:00.100", "Come here.")


def test_what_a_timeline_found_is_cut_out_for_a_review(pengi: Command, tone: Path, tmp_path: Path) -> None:
    events = tmp_path / "events.csv"
    events.write_text(f"path,start_s,end_s,label,confidence\n{tone.name},0.25,0.5,siren,0.9\n{tone},0,1,rain,0.2\n")
    result = pengi("extract", events, "--labels", "siren", "--padding", 0.1, "--out", tmp_path / "review")
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'review/review.csv'}: 1 clips\n")
    assert (tmp_path / "review/siren/tone_0.25-0.50.wav").is_file()
    again = complaint(pengi("extract", events, "--min-confidence", 0.95, "--out", tmp_path / "other", "--json"))
    assert "none of the 2 rows match the given labels and confidences" in again
