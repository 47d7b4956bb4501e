"""Rows that are only appended to: what a kill leaves, and what a full disk leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pengi.errors import InputError
from pengi.json_lines import JsonLines
from pengi.writing import locked

ROWS = [{"name": "a", "text": "line\u2028separator"}, {"name": "b", "text": "\u00fc"}, {"name": "c", "text": ""}]


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(0, 150))
def test_a_line_that_was_cut_off_is_no_row_and_is_removed(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    lines = JsonLines(tmp_path_factory.mktemp("cut") / "rows.jsonl")
    lines.append(ROWS)
    whole = lines.path.read_bytes()
    lines.path.write_bytes(whole[: max(0, len(whole) - cut)])
    left = list(lines)
    assert left == ROWS[: len(left)]
    lines.mend()
    assert list(lines) == left
    lines.append(ROWS[len(left) :])
    assert lines.path.read_bytes() == whole


def test_a_cut_off_line_longer_than_a_block_of_reading_is_removed(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "rows.jsonl")
    lines.append(ROWS)
    whole = lines.path.read_bytes()
    lines.path.write_bytes(whole + b'{"name": "' + b"x" * 200_000)
    lines.mend()
    assert lines.path.read_bytes() == whole


def test_a_line_that_is_not_an_object_is_none_and_the_others_are_rows(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "rows.jsonl")
    lines.path.write_bytes(b'{"a": 1}\n\xff\n["a"]\n\n{"b": 2}\n')
    assert list(lines) == [{"a": 1}, None, None, None, {"b": 2}]


def test_a_file_that_is_not_there_has_no_rows(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "rows.jsonl")
    lines.mend()
    assert list(lines) == []


def test_rows_are_rewritten_from_the_file_itself(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "rows.jsonl")
    lines.append(ROWS)
    lines.rewrite(row for row in lines if row is not None and row["name"] != "b")
    assert list(lines) == [ROWS[0], ROWS[2]]
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_number_that_json_does_not_have_is_not_written(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "rows.jsonl")
    lines.append(ROWS)
    with pytest.raises(ValueError, match="not JSON compliant"):
        lines.append([{"score": float("nan")}])
    assert list(lines) == ROWS


def test_only_one_process_writes_a_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with locked(path), pytest.raises(InputError, match="another process is writing"), locked(path):
        pass
    with locked(path):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="could not be written"), locked(tmp_path / "file" / "rows.jsonl"):
        pass
