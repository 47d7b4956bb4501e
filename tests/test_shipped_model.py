"""The model in the package, on the recordings in the repository, none of which it was trained on."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pengi import weights
from pengi.audio.decode import load
from pengi.data.manifest import Clip, read_manifest
from pengi.engine import Pengi
from pengi.labelling import METHODS

RATE = 16_000
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
CLIPS = read_manifest(EXAMPLES / "manifest.jsonl")
FILES = [EXAMPLES / clip.audio for clip in CLIPS]


def clip(name: str) -> Clip:
    return next(clip for clip in CLIPS if clip.audio == name)


def test_the_weights_in_the_package_are_small_enough_to_ship() -> None:
    folder = weights.resolve("pengi-mini", download=False)
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 25e6


def test_examples_get_their_own_labels(pengi_mini: Pengi) -> None:
    labels = ["dog barking", "church bells", "glass breaking", "rooster crowing", "siren", "french horn", "speech"]
    expected = [event if (event := clip.events[0]) in labels else "speech" for clip in CLIPS]
    found = [result.label for result in pengi_mini.classify(FILES, labels)]
    right = sum(a == b for a, b in zip(found, expected, strict=True))
    assert right >= len(CLIPS) - 1, list(zip(expected, found, strict=True))


def test_a_spoken_word_is_understood(pengi_mini: Pengi) -> None:
    answer = pengi_mini.ask(EXAMPLES / "left.opus", "what word is spoken?")
    assert "left" in answer.text.lower()


def test_speech_is_distinguished_from_other_sounds(pengi_mini: Pengi) -> None:
    assert pengi_mini.ask(EXAMPLES / "woman.opus", "is someone speaking?").text.lower().startswith("yes")
    assert pengi_mini.ask(EXAMPLES / "dog.opus", "is someone speaking?").text.lower().startswith("no")


def test_a_batch_of_16_gives_the_same_texts_as_16_single_calls(pengi_mini: Pengi) -> None:
    batch = (FILES * 2)[:16]
    question = "what do you hear?"
    together = [result.text for result in pengi_mini.ask(batch, question)]
    assert together == [pengi_mini.ask(file, question).text for file in batch]
    for file, result in zip(batch, pengi_mini.describe(batch), strict=True):
        assert_same_description(result, pengi_mini.describe(file))


@pytest.mark.usefixtures("pengi_mini")  # it skips where the frozen parts are not there
def test_a_description_needs_neither_transformers_nor_the_compiler_of_torch() -> None:
    code = (
        "import sys; from pengi import Pengi; "
        f"Pengi.from_pretrained('pengi-mini').describe({str(EXAMPLES / 'dog.opus')!r}); "
        "print([name for name in ('transformers', 'torch._dynamo', 'sympy', 'scipy') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def assert_same_description(a: Any, b: Any) -> None:
    assert a.text == b.text
    assert [event.label for event in a.events] == [event.label for event in b.events]
    for one, other in zip(a.events, b.events, strict=True):
        assert math.isclose(one.confidence, other.confidence, abs_tol=1e-3)


@pytest.mark.parametrize("method", [method for method in METHODS if method != "match"])
def test_every_method_ranks_every_label(pengi_mini: Pengi, method: str) -> None:
    result = pengi_mini.classify(FILES[0], ["dog barking", "rain", "a very unlikely label"], method=method)
    assert sorted(score.label for score in result.scores) == ["a very unlikely label", "dog barking", "rain"]
    assert math.isclose(sum(score.probability for score in result.scores), 1.0, abs_tol=1e-4)


def test_a_timeline_covers_a_recording_without_gaps(pengi_mini: Pengi) -> None:
    timeline = pengi_mini.timeline(EXAMPLES / "woman.opus", window_s=2.0, hop_s=2.0)
    assert timeline.segments[0].start_s == 0.0
    for before, after in zip(timeline.segments, timeline.segments[1:], strict=False):
        assert before.end_s == after.start_s
    assert math.isclose(timeline.segments[-1].end_s, timeline.duration_s)


def test_a_sound_is_there_or_not(pengi_mini: Pengi) -> None:
    files = [EXAMPLES / f"{name}.opus" for name in ("siren", "dog", "rooster")]
    for question, expected in (("is there a siren?", "yes no no"), ("do you hear a dog barking?", "no yes no")):
        assert [answer.text for answer in pengi_mini.ask(files, question)] == expected.split(), question


@pytest.mark.xfail(strict=True, reason="3,000 steps did not teach the order of two sounds; the model card says so")
def test_one_sound_comes_before_the_other(pengi_mini: Pengi) -> None:
    dog, siren = (load(EXAMPLES / f"{name}.opus", RATE)[: 4 * RATE] for name in ("dog", "siren"))
    recordings = [(np.concatenate(parts), RATE) for parts in ((dog, siren), (siren, dog))]
    for question, expected in (
        ("do you hear a dog barking before a siren?", "yes no"),
        ("does a dog barking come after a siren?", "no yes"),
    ):
        assert [answer.text for answer in pengi_mini.ask(recordings, question)] == expected.split(), question
