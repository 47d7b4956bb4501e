"""What is stored of a recording: with a tiny random model for the mechanics, with pengi-mini for the meaning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("lancedb", reason="LanceDB is not installed (pengi[search])")

import torch

from helpers import CHAT, RATE, noise, tiny_model, tone
from pengi.conditioning.evidence import DetectedTag, Evidence
from pengi.conditioning.vocabulary import Tag, Vocabulary
from pengi.encoding import Encoded
from pengi.engine import Pengi
from pengi.errors import InputError, PengiError
from pengi.retrieval import Collection
from pengi.retrieval.indexing import Indexer, model_fingerprint, query_over_tags
from pengi.retrieval.table import AUDIO, TAGS, TEXT
from pengi.text_encoder import SentenceEncoder

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def tiny() -> Pengi:
    return Pengi(tiny_model(), "tiny", torch.device("cpu"))


@pytest.fixture(scope="module")
def sentences() -> SentenceEncoder:
    return SentenceEncoder.tiny()


def write(path: Path, seconds: float, hertz: float = 440.0) -> str:
    soundfile.write(path, tone(seconds, hertz) + noise(seconds), RATE)
    return str(path)


def test_long_recordings_are_cut_into_windows(tiny: Pengi, sentences: SentenceEncoder, tmp_path: Path) -> None:
    long, short = write(tmp_path / "long.wav", 23.05), write(tmp_path / "short.wav", 1.5, 900.0)
    (tmp_path / "bad.wav").write_text("no audio", encoding="utf-8")
    bad = str(tmp_path / "bad.wav")
    found = dict(Indexer(tiny, sentences).recordings([long, bad, short]))
    assert list(found) == [long, bad, short]
    assert isinstance(found[bad], PengiError)
    windows = found[long]
    assert not isinstance(windows, PengiError)
    assert [(window.start_s, window.end_s) for window in windows] == [(0, 10), (10, 20), (20, pytest.approx(23.05))]
    assert [window.duration_s for window in windows] == pytest.approx([23.05] * 3)
    for window in windows:
        assert window.vectors[TEXT].shape == (sentences.dim,)
        assert np.linalg.norm(window.vectors[AUDIO]) == pytest.approx(1.0, abs=1e-5)


def test_more_windows_than_one_call_takes(
    tiny: Pengi, sentences: SentenceEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [write(tmp_path / f"{number}.wav", 10.0 * number + 2, 200.0 * number) for number in (1, 2, 3)]
    together = dict(Indexer(tiny, sentences).recordings(paths))
    monkeypatch.setattr("pengi.retrieval.indexing.WINDOWS_PER_CALL", 2)
    apart = dict(Indexer(tiny, sentences).recordings(paths))
    assert [len(windows) for windows in apart.values() if isinstance(windows, list)] == [2, 3, 4]
    for path in paths:
        one, other = together[path], apart[path]
        assert isinstance(one, list)
        assert isinstance(other, list)
        assert [window.text for window in one] == [window.text for window in other]
        for first, second in zip(one, other, strict=True):
            assert np.allclose(first.vectors[AUDIO], second.vectors[AUDIO], atol=1e-4)


def test_a_stored_vector_is_what_embed_gives(tiny: Pengi, sentences: SentenceEncoder, tmp_path: Path) -> None:
    path = write(tmp_path / "one.wav", 3.0)
    ((_, windows),) = Indexer(tiny, sentences).recordings([path])
    assert isinstance(windows, list)
    assert np.allclose(windows[0].vectors[AUDIO], tiny.embed(path), atol=1e-5)


def test_an_index_keeps_to_its_model(tiny: Pengi, sentences: SentenceEncoder, tmp_path: Path) -> None:
    (tmp_path / "sounds").mkdir()
    path = write(tmp_path / "sounds" / "one.wav", 1.0)
    collection = Collection.open(tmp_path / "index", create=True, engine=tiny, text_encoder=sentences)
    assert collection.search("anything") == []
    assert collection.update(tmp_path / "sounds", tiny).added == 1
    assert [hit.path for hit in collection.search(like=path)] == [path]
    other = tiny_model()
    with torch.no_grad():
        next(other.text_mapper.parameters()).add_(1.0)
    for name, said in (("tiny", "another version of 'tiny'"), ("big", "was made with 'tiny', and this is 'big'")):
        engine = Pengi(other, name, torch.device("cpu"))
        reopened = Collection.open(tmp_path / "index", engine=engine, text_encoder=sentences)
        with pytest.raises(InputError, match=said):
            reopened.update(tmp_path / "sounds", engine)
        with pytest.raises(InputError, match=said):
            reopened.search(like=path)
    assert model_fingerprint(tiny) == model_fingerprint(Pengi(tiny_model(), "renamed", torch.device("cpu")))


def test_an_empty_folder_does_not_empty_an_index(tiny: Pengi, sentences: SentenceEncoder, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="there are no recordings in"):
        Collection.open(tmp_path / "index", create=True, text_encoder=sentences).update(tmp_path / "empty", tiny)


def test_a_query_over_tags_by_hand() -> None:
    tags_VD = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], dtype=np.float32)
    weights_V, weight = query_over_tags(np.array([0.8, 0.6], dtype=np.float32), tags_VD)
    assert weights_V == pytest.approx(np.exp([20 * (0.8 - 0.96), 0.0, 20 * (0.6 - 0.96)]), rel=1e-4)
    assert weight == pytest.approx(2 * 0.96**4, rel=1e-4)
    assert query_over_tags(np.array([-1.0, 0.0], dtype=np.float32), tags_VD[:1])[1] == 0.0


def test_windows_have_the_tags_that_are_detected_in_them(
    sentences: SentenceEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(**CHAT)
    model.set_vocabulary(Vocabulary((Tag("rain", "sound"), Tag("dog", "sound"), Tag("harp", "instrument"))))
    engine = Pengi(model, "tiny", torch.device("cpu"))
    encode = engine.encode

    def detected(audio: Any) -> list[Encoded]:
        found = (DetectedTag("dog", "sound", 0.8), DetectedTag("harp", "instrument", 0.03))
        return [replace(one, evidence=Evidence(one.duration_s, found)) for one in encode(audio)]

    monkeypatch.setattr(engine, "encode", detected)
    encoder = Indexer(engine, sentences)
    assert encoder.info.tags_dim == 3
    vectors = encoder.tag_vectors()
    assert vectors is not None
    assert vectors.shape == (3, sentences.dim)
    silence = tmp_path / "silence.wav"
    soundfile.write(silence, np.zeros(RATE), RATE)
    ((_, windows), (_, silent)) = encoder.recordings([write(tmp_path / "one.wav", 1.0), str(silence)])
    assert isinstance(windows, list)
    assert isinstance(silent, list)
    assert windows[0].tags == ("dog",)
    assert windows[0].document.endswith("dog. harp")
    assert windows[0].vectors[TAGS] == pytest.approx([0.0, 0.8, 0.03])
    assert silent[0].tags == ()
    assert silent[0].vectors[TAGS] == pytest.approx([1 / 3] * 3)


def test_real_recordings_are_found_by_words_and_by_sound(tmp_path: Path, pengi_mini: Pengi) -> None:
    engine = pengi_mini
    collection = Collection.open(tmp_path / "index", create=True, engine=engine)
    changes = collection.add([EXAMPLES / f"{name}.opus" for name in ("dog", "siren", "church-bells")], engine)
    assert (changes.added, changes.failed) == (3, [])
    for query, name in (
        ("a barking dog", "dog"),
        ("an emergency vehicle", "siren"),
        ("bells of a church", "church-bells"),
    ):
        for mode in ("hybrid", "vector"):
            assert Path(collection.search(query, mode=mode)[0].path).stem == name, (query, mode)
    assert [Path(hit.path).stem for hit in collection.search(like=EXAMPLES / "siren.opus", limit=1)] == ["siren"]
    assert any("bell" in tag for hit in collection.search("church bells", limit=1) for tag in hit.tags)
