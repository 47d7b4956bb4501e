"""Searching: rankings fused, filters, modes, and what is refused in a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lancedb", reason="LanceDB is not installed (pengi[search])")

import lancedb
import pyarrow as pa
from torch import Tensor, from_numpy, stack

from helpers.retrieval import DIM, INFO, StubIndexer, update, vector_of, write_recordings
from pengi.errors import InputError
from pengi.retrieval import Collection
from pengi.retrieval import table as tables
from pengi.retrieval.table import TAGS, TEXT, IndexInfo, RecordingsTable

TEXTS = {
    "roof.wav": "rain falls on a tin roof\nrain and wind",
    "dog.wav": "a dog barks",
    "mixed.wav": "dogs bark in the rain\nsilence\nsilence",
}


class StubSentences:
    """Embeds a text as the stand-in for the model does."""

    dim = DIM

    def embed(self, texts: list[str]) -> Tensor:
        return stack([from_numpy(vector_of(text)) for text in texts])


@pytest.fixture(scope="module")
def location(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("collection")
    update(root / "index", write_recordings(root / "sounds", TEXTS), StubIndexer())
    return root / "index"


@pytest.fixture
def collection(location: Path) -> Collection:
    return Collection.open(location, text_encoder=StubSentences())  # type: ignore[arg-type]


def test_full_text_finds_words_in_all_their_forms(collection: Collection) -> None:
    hits = collection.search("barking dog", mode="text")
    assert [Path(hit.path).name for hit in hits] == ["dog.wav", "mixed.wav"]
    assert (hits[0].text, hits[0].start_s, hits[0].end_s, hits[0].duration_s) == ("a dog barks", 0.0, 10.0, 10.0)
    assert hits[0].score == 1.0 > hits[1].score
    assert hits[0].to_dict().keys() >= {"path", "start_s", "end_s", "text", "score"}


def test_hybrid_adds_up_the_ranks_of_both(collection: Collection) -> None:
    text = "rain and wind"
    words = [(hit.path, hit.start_s) for hit in collection.search(text, mode="text")]
    meaning = [(hit.path, hit.start_s) for hit in collection.search(text, mode="vector")]
    assert meaning[0][1] == 10.0
    assert len(meaning) == 6 > len(words)
    hits = collection.search(text)
    expected = {
        key: sum(11 / (10 + ranking.index(key) + 1) for ranking in (words, meaning) if key in ranking) / 2
        for key in meaning
    }
    assert {(hit.path, hit.start_s): hit.score for hit in hits} == pytest.approx(expected)
    assert hits[0].score == 1.0


def test_like_finds_what_sounds_the_same_and_combines_with_words(collection: Collection) -> None:
    sound = vector_of("sound of a dog barks")
    assert collection.search(like=sound)[0].text == "a dog barks"
    alone = [hit.text for hit in collection.search("rain falls on a tin roof", mode="vector")]
    both = [hit.text for hit in collection.search("rain falls on a tin roof", like=sound, mode="vector")]
    assert alone[0] == "rain falls on a tin roof"
    assert both.index("a dog barks") < alone.index("a dog barks")


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("duration_s > 25", {"mixed.wav"}),
        ("start_s = 0 AND duration_s < 15", {"dog.wav"}),
        ("array_has(tags, 'rain')", {"roof.wav"}),
        ("path LIKE '%/dog.wav'", {"dog.wav"}),
        ("  ", {"roof.wav", "dog.wav", "mixed.wav"}),
    ],
)
def test_filters(collection: Collection, where: str, expected: set[str]) -> None:
    hits = collection.search("rain dog", where=where)
    assert {Path(hit.path).name for hit in hits} == expected
    assert {Path(hit.path).name for hit in collection.search(like=np.ones(DIM, np.float32), where=where)} == expected


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("length > 5", "No field named length"),
        ("duration_s >", "an expression"),
        ("duration_s > 'long'", "Float64"),
        ("path", "boolean"),
        ("nonsense(path) = 1", "nonsense"),
    ],
)
@pytest.mark.parametrize("mode", ["text", "vector", "hybrid"])
def test_a_bad_filter_is_one_sentence(collection: Collection, where: str, said: str, mode: Any) -> None:
    with pytest.raises(InputError) as caught:
        collection.search("rain", where=where, mode=mode)
    message = str(caught.value)
    assert message.startswith(f"the filter '{where}' cannot be used: ")
    assert said in message
    assert "\n" not in message
    assert ".rs" not in message


def test_what_makes_no_query(collection: Collection) -> None:
    for arguments, said in (
        ({}, "nothing to search for"),
        ({"text": "  "}, "nothing to search for"),
        ({"text": "rain", "mode": "fuzzy"}, "no search mode 'fuzzy'"),
        ({"text": "rain", "limit": 0}, "at least 1"),
        ({"like": np.ones(DIM, np.float32), "mode": "text"}, "full text"),
        ({"like": np.ones(7, np.float32)}, "audio embeddings of 16 features"),
    ):
        with pytest.raises(InputError, match=said):
            collection.search(**arguments)


@pytest.mark.parametrize("text", ['"quoted', "a AND", "rain:*", "(", "'; DROP TABLE recordings; --", "🐶", "rain\x00"])
def test_any_words_are_a_query(collection: Collection, text: str) -> None:
    assert collection.search(text, limit=3)


def test_limit_beyond_the_usual_depth(tmp_path: Path) -> None:
    texts = "\n".join(f"rain number {number}" for number in range(150))
    update(tmp_path / "index", write_recordings(tmp_path / "sounds", {"long.wav": texts}), StubIndexer())
    assert len(Collection.open(tmp_path / "index").search("rain", mode="text", limit=140)) == 140


def test_a_missing_index_is_an_error_and_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no index at"):
        Collection.open(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_foreign_table_is_an_error(tmp_path: Path) -> None:
    lancedb.connect(tmp_path).create_table("recordings", pa.table({"path": ["x"]}))
    with pytest.raises(InputError, match="pengi index did not make"):
        Collection.open(tmp_path)


def test_another_sentence_encoder_is_an_error(location: Path) -> None:
    class Wider(StubSentences):
        dim = DIM + 1

    with pytest.raises(InputError, match="holds text embeddings of 16 features, and this sentence encoder gives 17"):
        Collection.open(location, text_encoder=Wider()).search("rain")  # type: ignore[arg-type]


def test_a_large_table_gets_approximate_indexes_that_find_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "ANN_FROM_ROWS", 600)
    info = IndexInfo("stub", "stub", text_dim=20, tags_dim=12, audio_dim=20)  # widths that are not whole bytes of bits
    tags_VD = np.random.default_rng(1).standard_normal((12, 20), dtype=np.float32)
    table = RecordingsTable.create(str(tmp_path), info, tags_VD)
    table.prepare()
    generator = np.random.default_rng(0)
    vectors = {name: generator.standard_normal((600, dim), dtype=np.float32) for name, dim in info.dims.items()}
    texts = [f"sound {number}" for number in range(600)]
    zeros, tags = np.zeros(600), [[""]] * 600
    columns = {"path": texts, "start_s": zeros, "end_s": zeros, "duration_s": zeros, "text": texts, "tags": tags}
    stamps = {"document": texts, "size": range(600), "mtime_ns": range(600), "sha256": texts}
    table.add_columns(columns | stamps | vectors)
    table.tidy(finished=True)
    reopened = RecordingsTable.open(str(tmp_path))
    assert reopened is not None
    assert {column for index in reopened._table.list_indices() for column in index.columns} == {"document", *info.dims}
    for name in (TEXT, TAGS):
        for row in (3, 500):
            near = vectors[name][row] + 0.01
            found = [item.path for item in reopened.by_vector(name, near, None, 100)]
            exact = [item.path for item in reopened.by_vector(name, near, None, 100, exact=True)]
            assert found[0] == exact[0] == f"sound {row}"
            assert len({*found[:10]} & {*exact[:10]}) >= 9
    assert np.array_equal(reopened.tag_vectors(), tags_VD)


def test_the_index_of_the_tests_is_of_the_stub(location: Path) -> None:
    assert Collection.open(location).info == INFO
