"""Tables of words in the package's assets."""

from __future__ import annotations

from pathlib import Path

import pytest

from pengi.config import Frozen
from pengi.data import tables
from pengi.data.tables import Texts, read_tables
from pengi.errors import ConfigError


class Answers(Frozen):
    short: Texts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('short: ["yes", no]', r"answers\.yaml: 'short\.1': input should be a valid string"),
        ('short: ["yes"]\nshrt: ["no"]', "unknown key 'shrt'; did you mean 'short'"),
    ],
)
def test_a_wrong_table_is_named(text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ASSETS", tmp_path)
    (tmp_path / "answers.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_tables(Answers, "answers.yaml")
