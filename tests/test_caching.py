"""What was computed recently is found again, within bounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers import RATE, noise, tiny_model
from helpers.chat import chat_pengi
from pengi.audio.sources import Waveform
from pengi.caching import RecentCache
from pengi.engine import Pengi


def test_what_was_not_used_for_longest_goes_first() -> None:
    cache: RecentCache[str] = RecentCache(10)
    for name in "abc":
        cache.put(name, name, 3)
    assert cache.get("a") == "a"
    cache.put("d", "d", 3)
    assert [cache.get(name) for name in "abcd"] == ["a", None, "c", "d"]


def test_a_value_that_is_put_again_counts_once_and_one_that_is_too_large_is_not_kept() -> None:
    cache: RecentCache[str] = RecentCache(10)
    for _ in range(5):
        cache.put("a", "a", 6)
    assert cache.get("a") == "a"
    cache.put("b", "b", 11)
    assert [cache.get(name) for name in "ab"] == ["a", None]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> tuple[Pengi, list[int]]:
    """An engine that keeps 10 MB, and the number of waveforms of each run of its encoders."""
    engine = Pengi(tiny_model(), "tiny", torch.device("cpu"))
    engine.keep_recent(10_000_000)
    runs: list[int] = []
    encode = engine.model.encode
    monkeypatch.setattr(engine.model, "encode", lambda rows, lengths: runs.append(len(rows)) or encode(rows, lengths))
    return engine, runs


def test_a_further_question_about_a_waveform_runs_no_encoder(engine: tuple[Pengi, list[int]]) -> None:
    pengi, runs = engine
    first = pengi.ask(Waveform(noise(1.0), RATE), "what is it?")
    assert pengi.ask(Waveform(noise(1.0).copy(), RATE), "what is it?") == first
    assert pengi.generate(Waveform(noise(1.0), RATE), "describe it").texts
    assert runs == [1]


@pytest.mark.parametrize("form", ["paper", "chat"])
def test_a_further_question_goes_on_from_what_was_read_of_the_recording(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = Waveform(noise(2.0), RATE)
    questions = ["what is it?", "is it loud?", "what is it?"]
    plain = chat_pengi() if form == "chat" else Pengi(tiny_model(), "tiny", torch.device("cpu"))
    expected = [plain.ask(clip, question) for question in questions]
    scores = plain.classify(clip, ["dog", "rain on a roof"], prompt="what?").scores
    plain.keep_recent(10_000_000)
    read: list[int] = []
    lm = plain.model.language_model
    prefill = lm.prefill_hidden
    monkeypatch.setattr(lm, "prefill_hidden", lambda *prefix: read.append(prefix[0].shape[1]) or prefill(*prefix))
    found = [plain.ask(clip, question) for question in questions]
    assert [answer.text for answer in found] == [answer.text for answer in expected]
    assert found[0] == found[2]
    assert [answer.confidence for answer in found] == pytest.approx(
        [answer.confidence for answer in expected], rel=1e-4
    )
    again = plain.classify(clip, ["dog", "rain on a roof"], prompt="what?").scores
    assert [score.probability for score in again] == pytest.approx([score.probability for score in scores], rel=1e-4)
    assert len(read) == 1


def test_of_a_batch_only_new_waveforms_are_encoded_and_answers_keep_their_order(
    engine: tuple[Pengi, list[int]],
) -> None:
    pengi, runs = engine
    clips = [Waveform(noise(1.0, seed=seed), RATE) for seed in range(3)]
    alone = pengi.embed(clips[1])
    together = pengi.embed(clips)
    np.testing.assert_array_equal(together[1], alone)
    assert sum(runs) == len(clips)
    assert len({vector.tobytes() for vector in together}) == 3


def test_another_rate_or_content_is_another_recording(engine: tuple[Pengi, list[int]]) -> None:
    pengi, runs = engine
    for samples, rate in ((noise(1.0), RATE), (noise(1.0), RATE // 2), (noise(1.0, seed=1), RATE)):
        pengi.embed(Waveform(samples, rate))
    assert runs == [1, 1, 1]


def test_nothing_is_kept_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    pengi = Pengi(tiny_model(), "tiny", torch.device("cpu"))
    runs: list[int] = []
    encode = pengi.model.encode
    monkeypatch.setattr(pengi.model, "encode", lambda rows, lengths: runs.append(len(rows)) or encode(rows, lengths))
    for _ in range(2):
        pengi.embed(Waveform(noise(1.0), RATE))
    assert runs == [1, 1]
