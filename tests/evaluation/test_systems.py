"""A tiny random model answers items: its replies are in order and equal those of its engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from helpers import CHAT, RATE, noise, tiny_model, tone
from helpers.evaluating import item
from pengi import Pengi, labelling
from pengi.checkpoint import model_hash
from pengi.decoding import DecodeOptions
from pengi.errors import PengiError
from pengi.evaluation import systems
from pengi.evaluation.items import Item
from pengi.evaluation.systems import BlindSystem, ModelSystem, Reply, TaggerSystem, file_hash

LABELS = ("dog", "rain on a roof", "wind")
ITEMS = [
    item("tone", "dog", labels=LABELS),
    replace(item("noise", "rain", labels=("yes", "no")), prompt="question: is it loud? answer:"),
    item("broken", "dog", labels=LABELS),
    item("low", "wind", labels=LABELS),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips")
    for name, samples in (("tone", tone(1.0, 900.0)), ("noise", noise(1.0, 1, 0.1)), ("low", tone(2.0, 100.0))):
        soundfile.write(path / f"{name}.wav", samples, RATE)
    (path / "broken.wav").write_text("not audio", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def engine() -> Pengi:
    return Pengi(tiny_model(), "tiny", torch.device("cpu"))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systems, "WRITE", DecodeOptions(beams=2, max_tokens=6))
    monkeypatch.setattr(labelling, "MATCH", DecodeOptions(beams=2, max_tokens=6))


def best(reply: Reply | PengiError, asked: Item) -> str:
    assert isinstance(reply, Reply)
    assert reply.scores is not None
    assert len(reply.scores) == len(asked.labels)
    return asked.labels[int(np.argmax(reply.scores))]


@pytest.mark.parametrize("mode", systems.CHOICES)
def test_label_scores_are_the_engines(engine: Pengi, folder: Path, mode: str) -> None:
    replies = ModelSystem(engine, "f").answer(ITEMS, folder, mode)
    assert isinstance(replies[2], PengiError)
    for index in (0, 1, 3):
        asked = ITEMS[index]
        own = engine.classify(folder / asked.audio, asked.labels, method=mode, prompt=asked.prompt)
        assert best(replies[index], asked) == own.label


def test_the_written_text_is_returned_with_the_scores(engine: Pengi, folder: Path) -> None:
    [matched, *_] = ModelSystem(engine, "f").answer(ITEMS, folder, "match")
    asked = ITEMS[0]
    own = engine.classify(folder / asked.audio, asked.labels, method="match", prompt=asked.prompt)
    assert isinstance(matched, Reply)
    assert matched.text == own.text
    assert dict(zip(asked.labels, np.exp(matched.scores or ()), strict=True)) == pytest.approx(
        {score.label: score.probability for score in own.scores},
        rel=1e-5,  # both are float32
    )
    [written] = ModelSystem(engine, "f").answer(ITEMS[:1], folder, "write")
    assert written == Reply(engine.generate(folder / "tone.wav", asked.prompt, options=systems.WRITE).text)


def test_the_blind_system_gets_silence_for_every_recording(engine: Pengi, folder: Path) -> None:
    blind, seeing = BlindSystem(engine, "f"), ModelSystem(engine, "f")
    first, second = (blind.answer([ITEMS[index]], folder, "likelihood")[0] for index in (0, 3))
    assert first == second
    assert first != seeing.answer([ITEMS[0]], folder, "likelihood")[0]
    assert blind.input_of(ITEMS[0], folder) == blind.input_of(ITEMS[3], folder)
    assert seeing.input_of(ITEMS[0], folder) != seeing.input_of(ITEMS[3], folder)


def test_the_taggers_scores_come_in_the_order_of_the_labels(folder: Path) -> None:
    tagger = TaggerSystem(lambda recordings, labels: [tuple(float(len(label)) for label in labels)] * len(recordings))
    assert tagger.answer([ITEMS[0]], folder, "match") == [Reply(scores=(3.0, 14.0, 4.0))]


def test_a_model_with_other_weights_has_another_hash(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"a")
    before = model_hash(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"b")
    assert model_hash(str(tmp_path)) != before


def test_a_file_that_cannot_be_read_still_has_a_key(tmp_path: Path) -> None:
    assert file_hash(tmp_path / "a.wav") != file_hash(tmp_path / "b.wav")


@pytest.mark.parametrize("form", [{}, CHAT], ids=["paper", "chat"])
def test_questions_are_answered_as_by_ask(form: dict[str, Any], folder: Path) -> None:
    engine = Pengi(tiny_model(**form), "tiny", torch.device("cpu"))
    asked = replace(item("tone", "dog"), prompt="what is it?", is_question=True)
    (reply,) = ModelSystem(engine, "x").answer([asked], folder, "write")
    assert isinstance(reply, Reply)
    assert reply.text == engine.ask(folder / "tone.wav", "what is it?", options=systems.ANSWER).text
