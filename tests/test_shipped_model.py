"""The model in the package, on the recordings in the repository, none of which it was trained on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pengi import weights
from pengi.audio.decode import load
from pengi.data.manifest import Clip, read_manifest
from pengi.encoders.yamnet import YamnetEncoder
from pengi.engine import METHODS, Pengi

RATE = 16_000
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
CLIPS = read_manifest(EXAMPLES / "manifest.jsonl")
FILES = [EXAMPLES / clip.audio for clip in CLIPS]
NEEDED = ("smollm2-135m-instruct", "whisper-tiny.en", "yamnet")


@pytest.fixture(scope="module")
def model() -> Pengi:
    missing = [name for name in NEEDED if weights.cached(name) is None]
    if missing:
        pytest.skip(f"frozen parts are not on this machine (pengi pull pengi-mini): {', '.join(missing)}")
    return Pengi.from_pretrained("pengi-mini", device="cpu")


def clip(name: str) -> Clip:
    return next(clip for clip in CLIPS if clip.audio == name)


def test_the_weights_in_the_package_are_small_enough_to_ship() -> None:
    folder = weights.resolve("pengi-mini", download=False)
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 25e6


def test_examples_are_told_apart_by_their_labels(model: Pengi) -> None:
    labels = ["dog barking", "church bells", "glass breaking", "rooster crowing", "siren", "french horn", "speech"]
    expected = [event if (event := clip.events[0]) in labels else "speech" for clip in CLIPS]
    found = [result.label for result in model.classify(FILES, labels)]
    right = sum(a == b for a, b in zip(found, expected, strict=True))
    assert right >= len(CLIPS) - 1, list(zip(expected, found, strict=True))


def test_yamnet_runs_once_for_its_tokens_and_its_classes(model: Pengi) -> None:
    """What is heard is what every encoder by itself gives of padded waveforms."""
    lengths = torch.tensor([30_000, 48_000])
    waveform = torch.rand(2, 48_000, generator=torch.Generator().manual_seed(0)) - 0.5
    waveform[0, 30_000:] = 0.0
    runs = []
    for module in model.model.modules():
        if isinstance(module, YamnetEncoder):
            module.conv[0].register_forward_hook(lambda *_: runs.append(1))
    heard = model.model.hear(waveform, lengths)
    assert len(runs) == 1
    for branch, (tokens, mask) in zip(model.model.branches, heard, strict=True):
        expected, real = branch.encoder(waveform, lengths)
        assert torch.equal(mask, real)
        torch.testing.assert_close(tokens, expected, rtol=0, atol=1e-5)


def test_a_spoken_word_is_understood(model: Pengi) -> None:
    answer = model.ask(EXAMPLES / "left.opus", "what word is spoken?")
    assert "left" in answer.text.lower()


def test_speech_is_told_from_other_sounds(model: Pengi) -> None:
    assert model.ask(EXAMPLES / "woman.opus", "is someone speaking?").text.lower().startswith("yes")
    assert model.ask(EXAMPLES / "dog.opus", "is someone speaking?").text.lower().startswith("no")


def test_a_batch_of_16_gives_the_same_texts_as_16_single_calls(model: Pengi) -> None:
    batch = (FILES * 2)[:16]
    question = "what do you hear?"
    assert [result.text for result in model.ask(batch, question)] == [model.ask(file, question).text for file in batch]
    together = model.describe(batch)
    for file, result in zip(batch, together, strict=True):
        assert_same_description(result, model.describe(file))


def assert_same_description(a: Any, b: Any) -> None:
    assert a.text == b.text
    assert [event.label for event in a.events] == [event.label for event in b.events]
    for one, other in zip(a.events, b.events, strict=True):
        assert math.isclose(one.confidence, other.confidence, abs_tol=1e-3)


@pytest.mark.parametrize("method", [method for method in METHODS if method != "match"])
def test_every_method_ranks_every_label(model: Pengi, method: str) -> None:
    result = model.classify(FILES[0], ["dog barking", "rain", "a very unlikely label"], method=method)
    assert sorted(score.label for score in result.scores) == ["a very unlikely label", "dog barking", "rain"]
    assert math.isclose(sum(score.probability for score in result.scores), 1.0, abs_tol=1e-4)


def test_a_timeline_covers_a_recording_without_gaps(model: Pengi) -> None:
    timeline = model.timeline(EXAMPLES / "woman.opus", window_s=2.0, hop_s=2.0)
    assert timeline.segments[0].start_s == 0.0
    for before, after in zip(timeline.segments, timeline.segments[1:], strict=False):
        assert before.end_s == after.start_s
    assert math.isclose(timeline.segments[-1].end_s, timeline.duration_s)


def test_a_sound_is_there_or_not(model: Pengi) -> None:
    files = [EXAMPLES / f"{name}.opus" for name in ("siren", "dog", "rooster")]
    for question, expected in (("is there a siren?", "yes no no"), ("do you hear a dog barking?", "no yes no")):
        assert [answer.text for answer in model.ask(files, question)] == expected.split(), question


def test_one_sound_comes_before_the_other(model: Pengi) -> None:
    dog, siren = (load(EXAMPLES / f"{name}.opus", RATE)[: 4 * RATE] for name in ("dog", "siren"))
    recordings = [(np.concatenate(parts), RATE) for parts in ((dog, siren), (siren, dog))]
    for question, expected in (
        ("do you hear a dog barking before a siren?", "yes no"),
        ("does a dog barking come after a siren?", "no yes"),
    ):
        assert [answer.text for answer in model.ask(recordings, question)] == expected.split(), question
