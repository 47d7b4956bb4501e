"""The warm start: words of a clip's aspects, the loss that draws a prefix to them, and what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from pengi.data.manifest import Clip
from pengi.errors import ConfigError
from pengi.language_model import LanguageModel
from pengi.training.align import (
    NONE,
    alignment_loss,
    alignment_weights,
    aspect_loss,
    aspect_value,
    build_aspect,
    build_goals,
)
from pengi.training.loop import Run
from pengi.training.recipe import read_recipe
from pengi.training.setup import prepare

LM = LanguageModel.tiny()


def clip(**fields: Any) -> Clip:
    return Clip(**{"id": "clip", "audio": "x.wav", "split": "train", **fields})


DOG = clip(domain="animal", events=["dog barking", "rain"])
SEVEN = clip(domain="digit", events=["speech"], attributes={"digit": "seven", "language": "english"})
LEFT = clip(domain="keyword", events=["speech"], attributes={"keyword": "left"})


@pytest.mark.parametrize(
    ("aspect", "values"),
    [
        ("event", ["dog barking", "speech", "speech"]),
        ("kind", ["another sound", "speech", "speech"]),
        ("word", [NONE, "seven", "left"]),
        ("language", [NONE, "english", NONE]),
        ("pitch", [NONE, NONE, NONE]),
    ],
)
def test_the_words_for_an_aspect(aspect: str, values: list[str]) -> None:
    assert [aspect_value(aspect, clip) for clip in (DOG, SEVEN, LEFT)] == values


def test_an_aspect_lies_where_the_language_model_has_its_words() -> None:
    aspect = build_aspect("word", 0, [DOG, SEVEN, LEFT], ["gong"], LM)
    assert list(aspect.place_of) == ["gong", "left", NONE, "seven"]
    expected = LM.embed(torch.tensor(LM.encode(" seven"))).mean(0)
    found = aspect.target_VD[aspect.place_of["seven"]]
    torch.testing.assert_close(functional.cosine_similarity(found, expected, dim=0), torch.tensor(1.0))
    torch.testing.assert_close(aspect.target_VD.norm(dim=-1), aspect.target_VD[0].norm().expand(4))
    assert not aspect.target_VD.requires_grad


def test_the_loss_is_least_at_the_right_words() -> None:
    aspect = build_aspect("word", 0, [SEVEN, LEFT], [], LM)
    seven, left, none = (aspect.target_VD[aspect.place_of[value]] for value in ("seven", "left", NONE))
    right = float(aspect_loss(aspect, ["seven", "left"], torch.stack([seven, left])))
    longer = float(aspect_loss(aspect, ["seven", "left"], torch.stack([seven, 2 * left])))
    swapped = float(aspect_loss(aspect, ["seven", "left"], torch.stack([left, seven])))
    assert right < longer < swapped
    # A clip that has no value for the aspect counts a tenth.
    both = float(aspect_loss(aspect, ["seven", NONE], torch.stack([seven, seven])))
    alone = float(aspect_loss(aspect, [NONE], seven[None]))
    assert both == pytest.approx((float(aspect_loss(aspect, ["seven"], seven[None])) + 0.1 * alone) / 1.1, rel=1e-4)
    assert float(aspect_loss(aspect, [NONE], none[None])) < alone


def test_a_branch_is_not_asked_about_clips_it_does_not_hear() -> None:
    aspects = [[build_aspect("word", 0, [SEVEN, LEFT], [], LM)], [build_aspect("language", 0, [SEVEN], [], LM)]]
    prefixes = [torch.randn(2, 3, LM.dim) for _ in range(2)]
    places = torch.ones(2, 3, dtype=torch.bool)

    def loss(heard: list[list[bool]]) -> torch.Tensor:
        tokens = [(torch.randn(2, 1, 4), torch.tensor(mask)[:, None]) for mask in heard]
        return alignment_loss(aspects, [SEVEN, LEFT], tokens, [(prefix, places) for prefix in prefixes])

    one = aspect_loss(aspects[0][0], ["left"], prefixes[0][1:, 0])
    torch.testing.assert_close(loss([[False, True], [False, False]]), one)
    other = aspect_loss(aspects[1][0], ["english", NONE], prefixes[1][:, 0])
    torch.testing.assert_close(loss([[False, True], [True, True]]), one + other)
    assert float(loss([[False, False], [False, False]])) == 0.0


def test_parts_count_with_their_share() -> None:
    """The loss of two clips is that of each alone, by the weights of what it was divided by."""
    goals = [[build_aspect("word", 0, [SEVEN, LEFT], [], LM)], [build_aspect("language", 0, [SEVEN], [], LM)]]
    prefixes = [torch.randn(2, 3, LM.dim) for _ in range(2)]
    masks = torch.ones(2, 1, dtype=torch.bool)

    def loss(rows: list[int], shares: list[float] | None = None) -> torch.Tensor:
        tokens = [(torch.randn(len(rows), 1, 4), masks[rows])] * 2
        mapped = [(prefix[rows], torch.ones(len(rows), 3, dtype=torch.bool)) for prefix in prefixes]
        return alignment_loss(goals, [(SEVEN, LEFT)[row] for row in rows], tokens, mapped, shares)

    total = alignment_weights(goals, [SEVEN, LEFT], [[0, 1], [0, 1]])
    assert total == pytest.approx([2.0, 1.1])
    parts = [alignment_weights(goals, [clip], [[0], [0]]) for clip in (SEVEN, LEFT)]
    shares = [[weight / whole for weight, whole in zip(part, total, strict=True)] for part in parts]
    torch.testing.assert_close(loss([0], shares[0]) + loss([1], shares[1]), loss([0, 1]))
    assert alignment_weights(goals, [SEVEN, LEFT], [[1], []]) == [1.0, 0.0]


@pytest.mark.parametrize(
    ("aspects", "message"),
    [
        ("[[event], [kind]]", "alignment.aspects needs one list for each of the 1 audio branches"),
        ("[[evnet]]", "no training clip has anything for the aspect 'evnet'"),
        ("[[event, kind, event, kind, event]]", "alignment names 5 aspects for a prefix of 4 places"),
    ],
)
def test_aspects_that_do_not_fit(recipe: Path, tmp_path: Path, aspects: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Run(prepare(read_recipe(recipe, [f"alignment.aspects={aspects}"])), tmp_path).finish()


def test_a_branch_of_words_has_no_aspects(recipe: Path, tmp_path: Path) -> None:
    """Its words and how much each counts are fitted before."""
    words = (
        "model.audio.0={encoder: yamnet-tiny-random, trained: false, frozen_layers: 99, mapper: {kind: words, "
        "tokens: 2, words: {hum: 0, hiss: 1}}}"
    )
    with pytest.raises(ConfigError, match="must be empty for a branch that tells its classes in words"):
        Run(prepare(read_recipe(recipe, [words])), tmp_path)
    assert not Run(prepare(read_recipe(recipe, [words, "alignment.aspects=[[]]"])), tmp_path).phase.aligning


def test_the_last_places_tell_what_the_clips_have(recipe: Path) -> None:
    """Counted from the end; an aspect that no clip has anything for takes no place."""
    setup = prepare(read_recipe(recipe, ["alignment.aspects=[]", "alignment.last=[event, word, kind]"]))
    assert setup.recipe.alignment is not None
    ((event, kind),) = build_goals(setup.recipe.alignment, setup.model, setup.loader)  # type: ignore[misc]
    assert (event.name, event.place) == ("event", -2)
    assert (kind.name, kind.place) == ("kind", -1)
    prefix = torch.randn(2, 4, LM.dim)
    heard = torch.ones(2, 1, dtype=torch.bool)
    clips = list(setup.train_clips[:2])
    loss = alignment_loss([[event]], clips, [(torch.randn(2, 1, 4), heard)], [(prefix, heard.expand(2, 4))])
    torch.testing.assert_close(loss, aspect_loss(event, [clip.events[0] for clip in clips], prefix[:, 2]))


def test_without_anything_to_tell_there_is_no_warm_start(recipe: Path, tmp_path: Path) -> None:
    nothing = ["alignment.aspects=[]", "alignment.last=[pitch]"]
    assert not Run(prepare(read_recipe(recipe, nothing)), tmp_path).phase.aligning
    with pytest.raises(ConfigError, match="alignment needs aspects, or last"):
        Run(prepare(read_recipe(recipe, ["alignment.aspects=[]"])), tmp_path)


def test_the_warm_start_brings_prefixes_to_the_words(recipe: Path, tmp_path: Path) -> None:
    """After it, the place of the event lies nearer to the clip's own event than to the other."""
    setup = prepare(read_recipe(recipe, ["alignment.steps=60", "alignment.lr=0.003", "training.token_dropout=0"]))
    run = Run(setup, tmp_path)
    with run.journal:
        run.align()
    ((aspect,),) = build_goals(setup.recipe.alignment, setup.model, setup.loader)  # type: ignore[arg-type]
    setup.model.eval()
    right = total = 0
    for drawn in setup.validation:
        with torch.no_grad():
            ((prefix, _),) = setup.model.map_audio(setup.model.audio_tokens(drawn.batch.features))
        cosine = functional.normalize(prefix[:, 0], dim=-1) @ functional.normalize(aspect.target_VD, dim=-1).T
        values = [list(aspect.place_of)[place] for place in cosine.argmax(1).tolist()]
        right += sum(value == clip.events[0] for value, clip in zip(values, drawn.clips, strict=True))
        total += len(values)
    assert total == 8
    assert right >= 7
