"""Batches in stages, and what drawn scenes are drawn from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pengi.conditioning.vocabulary import Tag, Vocabulary
from pengi.data.drawing import Sources, read_captions, sources_of
from pengi.data.loader import BatchSource, TrainingBatch
from pengi.data.manifest import Clip
from pengi.data.scene_loader import StagedBatches
from pengi.errors import ManifestError
from pengi.model import Batch


class Named(BatchSource):
    """Batches whose prompt is their source and step."""

    def __init__(self, name: str) -> None:
        self.name = name

    def batch(self, step: int) -> TrainingBatch:
        return TrainingBatch(Batch((), torch.zeros(1), (f"{self.name} {step}",), ("",)), (), ())


def staged(seed: int = 0) -> StagedBatches:
    return StagedBatches(Named("scenes"), Named("clips"), steps=10, share=0.25, seed=seed)


def prompts(source: BatchSource, start: int, stop: int, workers: int = 0) -> list[str]:
    return [drawn.batch.prompts[0] for drawn in source.batches(start, stop, workers)]


def test_scenes_are_drawn_alone_at_first_and_then_in_their_share() -> None:
    found = prompts(staged(), 0, 810)
    assert found[:10] == [f"scenes {step}" for step in range(10)]
    assert sum(prompt.startswith("scenes") for prompt in found[10:]) / 800 == pytest.approx(0.25, abs=0.04)
    assert [int(prompt.split()[1]) for prompt in found] == list(range(810))


def test_stages_are_a_function_of_the_seed_and_the_step() -> None:
    whole = prompts(staged(), 0, 60)
    assert prompts(staged(), 30, 60) == whole[30:]
    assert prompts(staged(), 0, 60, workers=2) == whole
    assert prompts(staged(seed=1), 0, 60) != whole


def clip(**attributes: Any) -> Clip:
    return Clip(id="clip", audio="a.wav", split="train", attributes=attributes)


def test_scenes_are_drawn_from_what_the_training_clips_say() -> None:
    clips = [
        clip(transcript="Good morning.", language="English"),
        clip(transcript="Guten Morgen.", language="German"),
        clip(transcript="Hello."),
        clip(keyword="stop"),
        clip(digit="three"),
        clip(instrument="harp", pitch="C4"),
        clip(instrument="unknown", pitch="C4"),
        clip(instrument="drum"),
    ]
    found = sources_of(clips, ["A dog barks."], Vocabulary((Tag("harp", "instrument"),)))
    assert found == Sources(
        captions=("A dog barks.",),
        transcripts=("Good morning.", "Hello."),
        languages=("German",),
        keywords=("stop", "three"),
        pitched=("harp",),
    )


def test_where_clips_say_nothing_scenes_have_what_there_usually_is() -> None:
    assert sources_of([clip()], (), Vocabulary(())) == Sources()


def test_captions_are_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "captions.jsonl"
    path.write_text('{"text": "A dog barks.", "id": 3}\n\n{"text": "Rain\\u2028falls."}\n', encoding="utf-8")
    assert read_captions(path) == ("A dog barks.", "Rain\u2028falls.")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"text": "cut', "not valid JSON"),
        ("[1]", "must be a JSON object"),
        ('{"text": null}', "field 'text'"),
        ('{"caption": "A dog barks."}', "field 'text'"),
    ],
)
def test_a_mistake_in_captions_has_its_line(line: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "captions.jsonl"
    path.write_text('{"text": "A dog barks."}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(ManifestError, match=f"line 2: .*{why}"):
        read_captions(path)


def test_captions_that_are_not_there_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="there is no file"):
        read_captions(tmp_path / "nowhere.jsonl")
