"""The file of a job: torn lines, other jobs' files, names, parts of a Parquet file, memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.jobs import rows_of
from pengi.errors import InputError
from pengi.jobs.ledger import Ledger, NameSet
from pengi.jobs.tasks import Job

JOB = Job("describe")
SETTINGS = JOB.settings()


def row(name: str, error: str | None = None) -> dict[str, Any]:
    return {"input": name, "text": None if error else "x", "scores": [], "seconds": 0.1, "error": error,
            "duration_s": None}  # fmt: skip


def write(out: Path, *names: str, finish: bool = True, error: str | None = None) -> None:
    with Ledger.opened(out, SETTINGS, {}) as ledger:
        new = [name for name in names if ledger.claim(name)]
        ledger.append([row(name, error) for name in new])
        if finish:
            ledger.finish()


def inputs(path: Path) -> list[str]:
    return [entry["input"] for entry in rows_of(path)]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(0, 400))
def test_a_line_that_was_cut_off_is_removed_and_asked_again(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    out = tmp_path_factory.mktemp("cut") / "rows.jsonl"
    write(out, "a.wav", "b.wav", "c.wav")
    whole = out.read_bytes()
    out.write_bytes(whole[: max(0, len(whole) - cut)])
    write(out, "a.wav", "b.wav", "c.wav", "d.wav")
    assert sorted(inputs(out)) == ["a.wav", "b.wav", "c.wav", "d.wav"]
    assert out.read_bytes().startswith(whole[: max(0, len(whole) - cut)].rpartition(b"\n")[0])


def test_parquet_rows_wait_in_a_journal(tmp_path: Path) -> None:
    out = tmp_path / "rows.parquet"
    write(out, "a.wav", "b.wav", finish=False)
    assert not out.exists()
    write(out, "b.wav", "c.wav")
    assert inputs(out) == ["a.wav", "b.wav", "c.wav"]
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["rows.parquet", "rows.parquet.job.json"]
    write(out, "c.wav", "d.wav")
    assert inputs(out) == ["a.wav", "b.wav", "c.wav", "d.wav"]


def test_a_kill_between_the_parquet_file_and_its_journal(tmp_path: Path) -> None:
    """The rows were added, but the journal is still there: they must not be added twice."""
    out = tmp_path / "rows.parquet"
    write(out, "a.wav", "b.wav", finish=False)
    journal = tmp_path / "rows.parquet.rows.jsonl"
    lines = journal.read_bytes()
    write(out, "a.wav")
    journal.write_bytes(lines)
    with Ledger.opened(out, SETTINGS, {}) as ledger:
        assert ledger.rows == 2
        assert [ledger.claim(name) for name in ("a.wav", "b.wav", "c.wav")] == [False, False, True]
        ledger.append([row("c.wav")])
        ledger.finish()
    assert inputs(out) == ["a.wav", "b.wav", "c.wav"]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_errors_are_dropped_before_they_are_tried_again(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"rows{suffix}"
    write(out, "bad.wav", error="'bad.wav' is empty")
    write(out, "good.wav")
    with Ledger.opened(out, SETTINGS, {}, retry_errors=True) as ledger:
        assert (ledger.rows, ledger.failed) == (1, 0)
        assert [ledger.claim(name) for name in ("bad.wav", "good.wav")] == [True, False]
        ledger.append([row("bad.wav")])
        ledger.finish()
    assert sorted(inputs(out)) == ["bad.wav", "good.wav"]


def test_one_recording_has_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "rows.jsonl"
    (tmp_path / "deep").mkdir()
    with Ledger.opened(out, SETTINGS, {}) as ledger:
        names = [ledger.name_of(name) for name in ("./deep/a.wav", "deep//a.wav", "x/../deep/a.wav")]
        assert names == ["deep/a.wav"] * 3
        assert ledger.claim(names[0])
        assert not ledger.claim(ledger.name_of(str(tmp_path / "deep/a.wav")))
        assert ledger.claim(ledger.name_of("s3://bucket//a.wav"))
        ledger.append([row("deep/a.wav")])
    monkeypatch.chdir(tmp_path / "deep")
    with Ledger.opened(out, SETTINGS, {}) as ledger:
        assert ledger.name_of("a.wav") == "deep/a.wav"
        assert not ledger.claim(ledger.name_of("a.wav"))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"task": "events"}, 'started with task "describe", not task "events"'),
        ({**SETTINGS, "beams": 1}, "started with no 'beams', not beams 1"),
        ({**SETTINGS, "model_sha256": "b" * 64}, ", not the model bbbbbbbbbbbb;"),
    ],
)
def test_rows_of_another_job_are_refused(tmp_path: Path, other: dict[str, Any], message: str) -> None:
    out = tmp_path / "rows.jsonl"
    write(out, "a.wav")
    before = out.read_bytes()
    with pytest.raises(InputError, match=message), Ledger.opened(out, other, {}):
        pass
    assert out.read_bytes() == before


def test_files_that_are_of_no_job(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    out.write_text("mine\n", encoding="utf-8")
    with pytest.raises(InputError, match="choose another file"), Ledger.opened(out, SETTINGS, {}):
        pass
    (tmp_path / "rows.jsonl.job.json").write_text(json.dumps({"settings": SETTINGS, "folder": "/"}), encoding="utf-8")
    with pytest.raises(InputError, match=r"line 1, is not a row of a job"), Ledger.opened(out, SETTINGS, {}):
        pass
    assert out.read_text(encoding="utf-8") == "mine\n"
    with (
        pytest.raises(InputError, match=r"ends in \.jsonl or \.parquet"),
        Ledger.opened(tmp_path / "x.csv", SETTINGS, {}),
    ):
        pass
    (tmp_path / "y.parquet").write_bytes(b"PAR1")
    (tmp_path / "y.parquet.job.json").write_text(json.dumps({"settings": SETTINGS, "folder": "/"}), encoding="utf-8")
    with (
        pytest.raises(InputError, match="cannot be read as a Parquet file"),
        Ledger.opened(tmp_path / "y.parquet", SETTINGS, {}),
    ):
        pass


def test_a_new_job_leaves_nothing_behind_before_its_first_row(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    with Ledger.opened(out, SETTINGS, {}):
        pass
    assert not list(tmp_path.glob("[!.]*"))
    with Ledger.opened(out, {"task": "embed"}, {}) as ledger:
        ledger.finish()
    assert out.read_bytes() == b""


def test_two_runs_do_not_write_at_once(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    with (
        Ledger.opened(out, SETTINGS, {}),
        pytest.raises(InputError, match="another process is writing"),
        Ledger.opened(out, SETTINGS, {}),
    ):
        pass


def test_many_names_take_little_memory() -> None:
    """200,000 names, of 40 MB as a Python set, on the disk but for the cache."""
    import resource

    names = NameSet()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert all(names.add(f"{index:0100d}.wav") for index in range(200_000))
    assert not any(names.add(f"{index:0100d}.wav") for index in range(0, 200_000, 999))
    names.close()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 25_000  # kB
