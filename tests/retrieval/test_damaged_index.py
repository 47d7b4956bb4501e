"""An index of which files are cut, overwritten or gone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("lancedb", reason="LanceDB is not installed (pengi[search])")

from helpers.retrieval import StubIndexer, update, vector_of, write_recordings
from pengi.errors import InputError
from pengi.retrieval.table import TEXT, RecordingsTable

DATA, TEXT_INDEX, MANIFEST = "data/*.lance", "_indices/*/*.lance", "_versions/*.manifest"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    write_recordings(folder / "sounds", {"dog.wav": "a dog barks\na cat meows", "rain.wav": "rain falls"})
    update(folder / "index", folder / "sounds", StubIndexer())
    return folder


@pytest.fixture
def index(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole / "index", tmp_path / "index"))


def damage(index: Path, pattern: str, kind: str) -> None:
    for file in (index / "recordings.lance").glob(pattern):
        content = file.read_bytes()
        if kind == "gone":
            file.unlink()
        else:
            file.write_bytes(content[: len(content) // 2] if kind == "cut" else b"overwritten" * 99)


def use(index: Path) -> None:
    table = RecordingsTable.open(str(index))
    assert table is not None
    table.by_words("dog", None, 5)
    table.by_vector(TEXT, vector_of("rain falls"), None, 5)


@pytest.mark.parametrize("kind", ["cut", "overwritten", "gone"])
@pytest.mark.parametrize("pattern", [DATA, TEXT_INDEX, MANIFEST])
def test_a_damaged_index_says_how_to_repair_it(index: Path, pattern: str, kind: str) -> None:
    damage(index, pattern, kind)
    if (pattern, kind) == (MANIFEST, "gone"):
        assert RecordingsTable.open(str(index)) is None
        return
    with pytest.raises(InputError) as caught:
        use(index)
    sentence = str(caught.value)
    assert sentence.startswith(f"the index '{index}' is damaged (")
    assert sentence.endswith(f"repair it with `pengi index DIR --db {index}`, and if that fails too, delete it first")
    assert ".rs:" not in sentence


def test_damage_that_lancedb_panics_at_is_a_sentence_too(index: Path) -> None:
    for file in (index / "recordings.lance").glob(MANIFEST):
        file.write_bytes(b"X" * 50 + file.read_bytes()[50:])
    with pytest.raises(InputError, match="is damaged"):
        use(index)


def test_a_damaged_index_of_the_text_is_made_again(whole: Path, index: Path) -> None:
    damage(index, TEXT_INDEX, "overwritten")
    indexer = StubIndexer()
    update(index, whole / "sounds", indexer)
    assert indexer.encoded == []
    table = RecordingsTable.open(str(index))
    assert table is not None
    assert [found.text for found in table.by_words("dog", None, 5)] == ["a dog barks"]


def test_updating_damaged_data_is_a_sentence(whole: Path, index: Path) -> None:
    damage(index, DATA, "cut")
    with pytest.raises(InputError, match="is damaged"):
        update(index, whole / "sounds", StubIndexer())


def test_a_filter_is_not_blamed_for_damage(index: Path) -> None:
    table = RecordingsTable.open(str(index))
    assert table is not None
    with pytest.raises(InputError, match="the filter 'nonsense = 1' cannot be used"):
        table.by_words("dog", "nonsense = 1", 5)
    damage(index, DATA, "gone")
    table = RecordingsTable.open(str(index))
    assert table is not None
    with pytest.raises(InputError, match="is damaged"):
        table.by_vector(TEXT, vector_of("rain falls"), "duration_s > 1", 5)


def test_the_command_says_one_sentence_and_the_library_nothing(index: Path) -> None:
    damage(index, "_indices/*/metadata.lance", "gone")
    command = [sys.executable, "-m", "pengi", "search", str(index), "dog", "--mode", "text"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: the index '{index}' is damaged (")
    assert len(result.stderr.splitlines()) == 1
