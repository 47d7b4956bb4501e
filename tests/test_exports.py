"""Files of results, read back by the programs' own readers or as their formats are specified."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pandas
import pytest
import webvtt
from pyannote.core import Segment as Stretch
from pyannote.database.util import load_rttm

from pengi import exports
from pengi.errors import InputError
from pengi.exports import COLUMNS, FORMATS, Row, Target, file_names, opened, rows_of
from pengi.job_exports import export_job, read_rows, rows_of_job
from pengi.results import Segment, Tags, TagScore, Timeline, Transcript, TranscriptSegment

NIGHT = "tapes/night, at sea.wav"
ROWS = [
    Row(NIGHT, 2.5, 4.0, "siren", 0.75),
    Row(NIGHT, 0.0, 3661.5, 'a "dog", barking\n<loudly> & --> long', 0.5),
]
EXPECTED = sorted(ROWS, key=lambda row: row.start_s or 0.0)


def written(format: str, out: Path, recordings: dict[str, list[Row]], duration_s: float = 10.0) -> Path:
    target = Target.of(format, out)
    assert target is not None
    with opened(target, list(recordings)) as export:
        for path, rows in recordings.items():
            export.add(path, iter(rows), lambda: duration_s)
    return out


@pytest.mark.parametrize(
    ("format", "read"),
    [
        ("csv", pandas.read_csv),
        ("jsonl", lambda path: pandas.read_json(path, lines=True)),
        ("parquet", pandas.read_parquet),
    ],
)
def test_pandas_reads_the_tables(tmp_path: Path, format: str, read: object) -> None:
    path = written(format, tmp_path / f"events.{format}", {NIGHT: ROWS})
    table = read(path)  # type: ignore[operator]
    assert tuple(table.columns) == COLUMNS
    assert [Row(*values) for values in table.itertuples(index=False)] == ROWS
    assert read_rows(path) == ROWS


def test_raven_reads_selections_whose_times_go_on_from_file_to_file(tmp_path: Path) -> None:
    other = Row("tapes/b.wav", 1.0, 2.0, "rain", None)
    path = written("raven", tmp_path / "all.selections.txt", {NIGHT: ROWS, "tapes/b.wav": [other]}, duration_s=4000)
    table = pandas.read_csv(path, sep="\t")
    assert list(table.columns[:7]) == [
        "Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)"
    ]  # fmt: skip
    assert table["Selection"].tolist() == [1, 2, 3]
    assert table["Begin Time (s)"].tolist() == [0.0, 2.5, 4001.0]
    assert table["File Offset (s)"].tolist() == [0.0, 2.5, 1.0]
    assert table["Begin Path"].tolist() == [NIGHT, NIGHT, "tapes/b.wav"]
    assert table["Label"].tolist()[1:] == ["siren", "rain"]
    assert (table["High Freq (Hz)"] > table["Low Freq (Hz)"]).all()


def test_audacity_reads_one_label_a_line(tmp_path: Path) -> None:
    path = written("audacity", tmp_path / "labels.txt", {NIGHT: ROWS})
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    assert [(float(start), float(end)) for start, end, _ in lines] == [(0.0, 3661.5), (2.5, 4.0)]
    assert [label for _, _, label in lines] == ['a "dog", barking <loudly> & --> long', "siren"]


def test_players_read_subtitles_in_order_of_time(tmp_path: Path) -> None:
    vtt = webvtt.read(written("vtt", tmp_path / "a.vtt", {NIGHT: ROWS}))
    assert [(cue.start, cue.end) for cue in vtt] == [
        ("00:00:00.000", "01:01:01.500"),
        ("00:00:02.500", "00:00:04.000"),
    ]
    assert vtt[0].raw_text == 'a "dog", barking &lt;loudly&gt; &amp; --&gt; long'
    srt = webvtt.from_srt(written("srt", tmp_path / "a.srt", {NIGHT: ROWS}))
    assert [cue.raw_text for cue in srt] == ['a "dog", barking <loudly> & -> long', "siren"]
    assert srt[0].end == "01:01:01.500"


def test_pyannote_reads_rttm_of_several_recordings(tmp_path: Path) -> None:
    path = written("rttm", tmp_path / "all.rttm", {NIGHT: ROWS[:1], "b c.wav": [Row("b c.wav", 1.0, 1.5, "rain")]})
    found = load_rttm(path)
    assert set(found) == {"night,_at_sea", "b_c"}
    assert [(segment, label) for segment, _, label in found["night,_at_sea"].itertracks(yield_label=True)] == [
        (Stretch(2.5, 4.0), "siren")
    ]


@pytest.mark.parametrize("format", FORMATS)
def test_where_nothing_was_found_there_is_a_table_without_rows_or_no_file(tmp_path: Path, format: str) -> None:
    file, folder = tmp_path / f"one{FORMATS[format].suffix}", tmp_path / "each"
    each = folder / f"a{FORMATS[format].suffix}"
    folder.mkdir()
    for stale in (file, each):
        stale.write_text("an earlier run")
    written(format, file, {"a.wav": []})
    written(format, folder, {"a.wav": []})
    for path in (file, each):
        if not FORMATS[format].keeps_empty:
            assert not path.exists()
        elif format == "vtt":
            assert list(webvtt.read(path)) == []
        else:
            readers = {"csv": pandas.read_csv, "parquet": pandas.read_parquet, "raven": pandas.read_table}
            assert len(readers[format](path)) == 0


def test_each_recording_gets_a_file_where_it_is_below_the_folder_that_all_share(tmp_path: Path) -> None:
    paths = ["tapes/a.wav", "tapes/a.mp3", "tapes/deep/b.flac"]
    assert file_names(paths, ".srt") == {
        "tapes/a.wav": "a.wav.srt",
        "tapes/a.mp3": "a.mp3.srt",
        "tapes/deep/b.flac": "deep/b.srt",
    }
    assert file_names(["-"], ".csv") == {"-": "stdin.csv"}
    written("csv", tmp_path / "out", {path: [Row(path, 0.0, 1.0, "rain", 0.5)] for path in paths})
    assert pandas.read_csv(tmp_path / "out/deep/b.csv")["path"].tolist() == ["tapes/deep/b.flac"]


def test_rows_are_written_while_they_are_found() -> None:
    out = io.StringIO()
    target = Target.of("csv", None)
    assert target is not None

    def rows() -> Iterator[Row]:
        yield ROWS[0]
        assert "siren" in out.getvalue()
        yield ROWS[1]

    with opened(target, [NIGHT], out) as export:
        assert export.add(NIGHT, rows()) == 2


def test_a_failure_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = written("csv", tmp_path / "events.csv", {NIGHT: ROWS})
    before = path.read_bytes()
    target = Target.of(None, path)
    assert target is not None

    def interrupted() -> Iterator[Row]:
        yield ROWS[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), opened(target, [NIGHT]) as export:
        export.add(NIGHT, interrupted())
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["events.csv"]


def test_suffixes_name_formats_and_mistakes_are_said(tmp_path: Path) -> None:
    suffixes = {"a.selections.txt": "raven", "a.txt": "audacity", "A.CSV": "csv", "a.vtt": "vtt"}
    for name, format in suffixes.items():
        target = Target.of(None, tmp_path / name)
        assert target is not None
        assert (target.format.name, target.is_folder) == (format, False)
    assert Target.of(None, None) is None
    with pytest.raises(InputError, match="there is no format 'ravn'; did you mean 'raven'"):
        Target.of("ravn", None)
    with pytest.raises(InputError, match="'parquet' cannot be printed; name a file with --out"):
        Target.of("parquet", None)
    with pytest.raises(InputError, match="choose the format of"):
        Target.of(None, tmp_path / "folder")
    with pytest.raises(InputError, match="'srt' holds one recording; give a folder"):
        written("srt", tmp_path / "a.srt", {"a.wav": [], "b.wav": []})


def test_results_of_every_kind_become_rows() -> None:
    timeline = Timeline((Segment(1.0, 2.0, "siren", 0.5), Segment(0.0, 5.0, "rain", 0.9)), 5.0)
    assert [row.label for row in rows_of("a", timeline)] == ["rain", "siren"]
    tags = Tags(
        (TagScore("rain", "sound", 0.9, "sure", ((0.0, 1.0), (3.0, 4.0))), TagScore("pop", "genre", 0.2, "")), 5
    )
    assert rows_of("a", tags) == [
        Row("a", 0.0, 1.0, "rain", 0.9),
        Row("a", 0.0, 5, "pop", 0.2),
        Row("a", 3.0, 4.0, "rain", 0.9),
    ]
    said = Transcript("hello", (TranscriptSegment(0.5, 1.0, "hello"),), 2.0)
    assert rows_of("a", said) == [Row("a", 0.5, 1.0, "hello")]


def test_rows_of_a_job_become_rows_and_so_does_its_file(tmp_path: Path) -> None:
    shared = {"input": "a.wav", "text": "x", "scores": [{"label": "rain", "score": 0.5}], "error": None}
    segment = {"start_s": 0.0, "end_s": 1.0, "text": "rain", "confidence": 0.5}
    timeline = {**shared, "duration_s": 5.0, "segments": [segment]}
    assert rows_of_job("timeline", timeline) == [Row("a.wav", 0.0, 1.0, "rain", 0.5)]
    assert rows_of_job("describe", {**shared, "duration_s": 5.0}) == [Row("a.wav", 0.0, 5.0, "x")]
    assert rows_of_job("classify", shared) == [Row("a.wav", None, None, "rain", 0.5)]
    assert rows_of_job("timeline", {**timeline, "error": "it is damaged"}) == []
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({**timeline, "input": f"{name}.wav", "error": error, "segments": []}) + "\n"
                            for name, error in (("a", None), ("b", "it is damaged"))))  # fmt: skip
    export_job(path, "timeline", Target(FORMATS["raven"], tmp_path / "labels", is_folder=True))
    assert [file.name for file in (tmp_path / "labels").iterdir()] == ["a.selections.txt"]
    path = tmp_path / "job.jsonl"
    path.write_text(json.dumps(timeline) + "\n")
    assert read_rows(path) == [Row("a.wav", 0.0, 1.0, "rain", 0.5)]


def test_settings_stand_beside_the_rows(tmp_path: Path) -> None:
    for out, beside in ((tmp_path / "a.csv", "a.csv.settings.json"), (tmp_path / "each", "each/pengi-settings.json")):
        target = Target.of("csv", out)
        assert target is not None
        exports.write_settings(target, {"model": "pengi-mini"})
        assert json.loads((tmp_path / beside).read_text()) == {"model": "pengi-mini"}


def test_a_table_without_times_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("path,label\na.wav,rain\n")
    with pytest.raises(InputError, match="row 1: a row needs path, start_s, end_s, label"):
        read_rows(tmp_path / "a.csv")
    with pytest.raises(InputError, match=r"ends in \.csv, \.jsonl or \.parquet"):
        read_rows(tmp_path / "a.txt")
