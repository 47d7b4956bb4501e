"""An index as a file, read back with pandas and NumPy; and recordings of it that are alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lancedb", reason="LanceDB is not installed (pengi[search])")

import pandas as pd
from typer.testing import CliRunner

from helpers.retrieval import DIM, StubIndexer, update, vector_of, write_recordings
from pengi.cli import app
from pengi.errors import InputError
from pengi.retrieval import Collection
from pengi.retrieval.table import AUDIO, TEXT

TEXTS = {"roof.wav": "rain falls\nrain and wind", "dog.wav": "a dog barks", "copy.wav": "thunder\nrain falls"}


@pytest.fixture(scope="module")
def location(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("export")
    update(root / "index", write_recordings(root / "sounds", TEXTS), StubIndexer())
    return root / "index"


def test_a_parquet_file_has_a_row_for_each_window(location: Path, tmp_path: Path) -> None:
    assert Collection.open(location).export(tmp_path / "out.parquet") == 5
    table = pd.read_parquet(tmp_path / "out.parquet")
    row = table[table["text"] == "rain and wind"].iloc[0]
    assert (Path(row["path"]).name, row["start_s"], row["end_s"], row["duration_s"]) == ("roof.wav", 10.0, 20.0, 20.0)
    assert list(row["tags"]) == ["rain"]
    assert np.allclose(row[TEXT], vector_of("rain and wind"), atol=2e-3)
    assert len(row[AUDIO]) == DIM
    assert row[AUDIO].dtype == np.float32


def test_an_npz_file_has_an_array_for_each_column(location: Path, tmp_path: Path) -> None:
    Collection.open(location).export(tmp_path / "out.npz")
    arrays = np.load(tmp_path / "out.npz")
    assert arrays[AUDIO].shape == arrays[TEXT].shape == (5, DIM)
    position = arrays["text"].tolist().index("a dog barks")
    assert arrays["tags"][position] == "a"
    assert np.allclose(arrays[AUDIO][position], vector_of("sound of a dog barks"), atol=2e-3)


def test_the_command_exports_and_names_mistakes(location: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["export-index", str(location), "--out", str(tmp_path / "out.npz"), "--json"])
    assert result.exit_code == 0, result.stderr
    assert '"windows": 5' in result.stdout
    for out, said in (("out.csv", "ends in .parquet or .npz"), ("none/out.npz", "there is no folder")):
        result = CliRunner().invoke(app, ["export-index", str(location), "--out", str(tmp_path / out)])
        assert result.exit_code == 2
        assert said in result.stderr
    with pytest.raises(InputError, match="nothing in the index"):
        Collection.open(tmp_path / "new", create=True).export(tmp_path / "out.npz")


def test_recordings_that_share_a_window_are_a_pair(location: Path) -> None:
    ((first, second),) = Collection.open(location).similar_pairs(0.99)
    assert (Path(first).name, Path(second).name) == ("copy.wav", "roof.wav")
    assert Collection.open(location / "new", create=True).similar_pairs(0.5) == []


def test_silent_windows_make_no_pairs(tmp_path: Path) -> None:
    folder = write_recordings(tmp_path / "sounds", {"a.wav": "Silence. silence", "b.wav": "Silence. silence"})
    update(tmp_path / "index", folder, StubIndexer())
    assert Collection.open(tmp_path / "index").similar_pairs(0.5) == []
