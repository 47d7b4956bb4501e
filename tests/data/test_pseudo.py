"""Pseudo-labels: words for AudioSet's classes, tags, and embeddings moved to a class."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pengi import weights
from pengi.data import pseudo
from pengi.data.manifest import Label
from pengi.data.pseudo import ClassDirections, class_labels, class_vocabulary, class_words, tags_of
from pengi.encoders.yamnet import YamnetEncoder, YamnetTagger

YAMNET = weights.cached("yamnet")
CLASSES = ("Bark", "Rain", "Siren, alarm", "Baby cry, infant cry")


def directions(weight: Tensor, bias: Tensor) -> ClassDirections:
    tagger = YamnetTagger(YamnetEncoder.tiny(), tuple(map(str, range(len(weight)))))
    tagger.head = torch.nn.Linear(weight.shape[1], len(weight))
    with torch.no_grad():
        tagger.head.weight.copy_(weight)
        tagger.head.bias.copy_(bias)
    return ClassDirections(tagger)


def like_yamnet(seed: int) -> tuple[ClassDirections, Tensor]:
    """Mostly negative weights and sparse embeddings, as the real ones are."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(5, 64, generator=generator) - 1.0
    weight[:, 0] = 0.3  # some feature speaks for every class
    tokens = torch.rand(6, 64, generator=generator) * (torch.rand(6, 64, generator=generator) < 0.1)
    return directions(weight, torch.full((5,), -5.0)), tokens


@pytest.mark.parametrize(
    ("name", "words"),
    [("Bark", "bark"), ("Baby cry, infant cry", "baby cry"), ("Toot (horn)", "toot"), ("Rain", "rain")],
)
def test_class_words(name: str, words: str) -> None:
    assert class_words(name) == words


def named(name: str, audioset: str, category: str = "sound") -> Label:
    return Label(label=name, phrase=f"a {name}", sentence=f"A {name}.", audioset=audioset, category=category)


def by_name(*labels: Label) -> dict[str, Label]:
    return {label.label: label for label in labels}


def test_a_class_is_called_what_the_labels_call_it() -> None:
    known = by_name(*(named(name, "Bark") for name in ("dog barking", "fox", "barking")), named("rain", "Rain"))
    chosen = class_labels(CLASSES, known)
    assert list(chosen) == list(CLASSES)
    assert chosen["Bark"] is known["barking"]  # the nearest in letters
    assert chosen["Rain"] is known["rain"]
    assert chosen["Siren, alarm"].label == chosen["Siren, alarm"].phrase == "siren"


def test_a_class_is_not_called_what_is_only_one_kind_of_it() -> None:
    """Or any animal would be told as a hyena, and any bird as a penguin."""
    wide = [named("hyena calling", "Animal"), named("zebra calling", "Animal"), named("penguin braying", "Bird")]
    known = by_name(*wide, named("glass breaking", "Shatter"))
    classes = ("Animal", "Bird", "Shatter")
    assert [label.label for label in class_labels(classes, known).values()] == ["animal", "bird", "glass breaking"]
    assert class_vocabulary(classes, known) == {"animal": 0, "bird": 1, "glass breaking": 2}
    few, enough = {"zebra calling": pseudo.FEWEST_CLIPS - 1}, {"zebra calling": pseudo.FEWEST_CLIPS}
    assert "zebra calling" not in class_vocabulary(classes, known, few)
    assert class_vocabulary(classes, known, enough)["zebra calling"] == 0


def test_every_label_that_says_its_class_has_a_word_and_speech_has_one() -> None:
    labels = by_name(
        named("dog barking", "Bark"),
        named("fox barking", "Bark"),
        named("speech", "Speech", "speech"),
        named("coffee order", "Speech", "speech"),
        named("thunder", "Thunder"),
    )
    found = class_vocabulary(("Bark", "Rain", "Speech"), labels, {"coffee order": 300})
    assert found == {"dog barking": 0, "fox barking": 0, "rain": 1, "speech": 2}


def test_tags_are_the_sure_classes_in_order() -> None:
    logits = torch.full((4, 8), -9.0)
    logits[:, 2], logits[:, 5], logits[0, 1] = 2.0, 1.0, 9.0
    classes = ("A", "Rain", "Wind, breeze", "D", "E", "Dog (big)", "G", "H")
    # A class in one of four patches counts a quarter: 0.25 is above the threshold.
    assert tags_of(logits, classes) == ("wind", "dog", "rain")
    logits[0, 1] = -9.0
    assert tags_of(logits, classes) == ("wind", "dog")
    assert tags_of(torch.full((1, 8), -9.0), classes) == ()
    assert len(tags_of(torch.full((1, 8), 9.0), tuple("ABCDEFGH"))) == pseudo.MOST_TAGS
    assert tags_of(torch.full((1, 6), 9.0), ("Dog, a", "Dog, b", "Dog", "X", "Y", "Z")).count("dog") == 1


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.integers(0, 4), st.floats(-3, 6))
def test_moved_embeddings_reach_the_logit_and_stay_possible(seed: int, index: int, logit: float) -> None:
    moves, tokens = like_yamnet(seed)
    before = tokens.clone()
    moved = moves.move(tokens, index, logit)
    assert torch.equal(tokens, before)
    assert (moved >= 0).all()
    reached = moved @ moves.weight_CD[index] + moves.bias_C[index]
    was = tokens @ moves.weight_CD[index] + moves.bias_C[index]
    torch.testing.assert_close(reached, was.clamp(min=logit), rtol=0, atol=1e-2)
    assert torch.equal(moved[was >= logit], tokens[was >= logit])


def test_the_move_is_the_shortest() -> None:
    """The nearest point of a half-space and an orthant is ``max(x + t w, 0)`` for one ``t``: a bisection finds it."""
    moves, tokens = like_yamnet(1)
    weight, bias = moves.weight_CD[3], moves.bias_C[3]
    low, high = torch.zeros(len(tokens), 1), torch.full((len(tokens), 1), 1e4)
    for _ in range(80):
        middle = (low + high) / 2
        above = ((tokens + middle * weight).clamp(min=0) @ weight + bias)[:, None] > 2.0
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    torch.testing.assert_close(moves.move(tokens, 3, 2.0), (tokens + high * weight).clamp(min=0), rtol=1e-3, atol=1e-3)


def test_moves_are_as_exact_under_autocast_as_without() -> None:
    moves, tokens = like_yamnet(2)
    expected = moves.move(tokens, 0, 3.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(moves.move(tokens, 0, 3.0), expected)


def test_a_drawn_example_moves_one_stretch_of_at_least_half() -> None:
    moves, tokens = like_yamnet(3)
    lengths = set()
    for seed in range(60):
        moved = moves.draw(tokens, 2, torch.Generator().manual_seed(seed))
        changed = (moved != tokens).any(1).nonzero().flatten().tolist()
        assert 3 <= len(changed) <= 6
        assert changed == list(range(changed[0], changed[-1] + 1))
        logits = moved[changed] @ moves.weight_CD[2] + moves.bias_C[2]
        assert (logits - logits[0]).abs().max() < 1e-2
        assert pseudo.LOWEST_LOGIT - 1e-2 <= float(logits[0]) <= pseudo.HIGHEST_LOGIT + 1e-2
        lengths.add(len(changed))
        assert torch.equal(moved, moves.draw(tokens, 2, torch.Generator().manual_seed(seed)))
    assert lengths == {3, 4, 5, 6}
    assert moves.draw(tokens[:1], 2, torch.Generator().manual_seed(0)).shape == (1, 64)


@pytest.mark.skipif(YAMNET is None, reason="YAMNet's weights are not on this machine (pengi pull yamnet)")
def test_every_audioset_class_can_be_reached_and_then_leads_with_few_beside_it() -> None:
    assert YAMNET is not None
    tagger = YamnetTagger.from_folder(YAMNET)
    moves = ClassDirections(tagger)
    silence, _ = tagger.encoder(torch.zeros(1, 16_000), torch.tensor([16_000]))
    for index in range(0, len(tagger.classes), 20):
        moved = moves.move(silence[0], index, 3.0)
        logits = tagger.head(moved)
        torch.testing.assert_close(logits[:, index], torch.full((len(moved),), 3.0), rtol=0, atol=0.05)
        assert int((logits[0] > 3.05).sum()) <= 3  # but for wider classes, such as "Music" above "Harp"
