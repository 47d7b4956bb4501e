"""Texts and recordings in one space: that of the tags."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers import tiny_model
from helpers.chat import HUM, RAIN, VOCABULARY, WHISTLE, chat_pengi, joined
from pengi import Pengi
from pengi.errors import InputError
from pengi.tag_space import TagSpace, over_tags, tag_probabilities
from pengi.text_encoder import SentenceEncoder

PENGI = chat_pengi()
TAGS = [tag.text for tag in VOCABULARY.tags]


@pytest.fixture(autouse=True)
def tiny_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(PENGI), "_tag_space", TagSpace(TAGS, SentenceEncoder.tiny()))


def test_a_text_is_nearest_to_the_recording_of_its_tag() -> None:
    names = ["whistle", "hum", "rain"]
    clips = PENGI.embed([joined(WHISTLE), joined(HUM), joined(RAIN)], space="tags")
    assert all(
        vector.shape == (len(TAGS),) and np.linalg.norm(vector) == pytest.approx(1, abs=1e-5) for vector in clips
    )
    texts = PENGI.embed_text(names)
    cosine = PENGI.similarity(clips, texts)
    assert cosine.shape == (3, 3)
    assert cosine.argmax(1).tolist() == [0, 1, 2]
    assert PENGI.similarity(clips[0], PENGI.embed_text("whistle"))[0, 0] == pytest.approx(cosine[0, 0], abs=1e-5)


def test_a_text_over_tags_by_hand() -> None:
    tags_VD = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    weights_V, nearest = over_tags(np.array([0.8, 0.6], np.float32), tags_VD)
    assert nearest == pytest.approx(0.8)
    assert weights_V == pytest.approx([1.0, np.exp(20 * (0.6 - 0.8))])


def test_silence_is_near_to_no_text() -> None:
    silent = PENGI.encode(joined(np.zeros(16_000, np.float32)), for_text=False)
    assert tag_probabilities(silent, TAGS) == pytest.approx([1 / len(TAGS)] * len(TAGS))


def test_recordings_are_compared_by_their_sound() -> None:
    first, second, third = PENGI.embed([joined(RAIN), joined(RAIN), joined(WHISTLE)])
    assert PENGI.similarity(first, second)[0, 0] == pytest.approx(1, abs=1e-5)
    assert PENGI.similarity(first, third)[0, 0] < 1


def test_vectors_of_different_spaces_are_refused() -> None:
    with pytest.raises(InputError, match=r"texts are compared with embed\(audio, space='tags'\)"):
        PENGI.similarity(PENGI.embed(joined(RAIN)), PENGI.embed_text("rain"))
    with pytest.raises(InputError, match="compares vectors of one length"):
        PENGI.similarity([np.zeros(2), np.zeros(3)], np.zeros(2))


def test_what_makes_no_sense_is_said() -> None:
    with pytest.raises(InputError, match="there is no space 'words'"):
        PENGI.embed(joined(RAIN), space="words")  # type: ignore[call-overload]
    for texts in ("", [], ["rain", " "]):
        with pytest.raises(InputError, match="at least one text"):
            PENGI.embed_text(texts)


def test_a_model_without_a_tagger_has_no_such_space() -> None:
    plain = Pengi(tiny_model(), "plain", torch.device("cpu"))
    with pytest.raises(InputError, match="'plain' has no tagger"):
        plain.embed_text("rain")
    with pytest.raises(InputError, match="'plain' has no tagger"):
        plain.embed(joined(RAIN), space="tags")
