"""Collecting tags from the tagger's scores."""

from __future__ import annotations

import pytest
import torch

from pengi.conditioning.collect import TagCollector, detected_tags, frame_events
from pengi.conditioning.tagger import Tagger
from pengi.conditioning.vocabulary import Tag, Vocabulary

FRAME_S = 0.5
VOCABULARY = Vocabulary((Tag("rain", "sound"), Tag("dog barking", "sound"), Tag("piano", "instrument")))
NEVER = [-12.0] * 10


@pytest.fixture
def tagger() -> Tagger:
    return Tagger(VOCABULARY, [4])


def scores(*tags: list[float]) -> torch.Tensor:
    return torch.tensor(tags).T


def test_a_tag_has_its_probability_and_the_stretches_where_it_is(tagger: Tagger) -> None:
    bark = [4.0, 4.0, -6.0, -6.0, -6.0, -6.0, -6.0, 4.0, -6.0, -6.0]
    rain, dog = detected_tags(scores([5.0] * 10, bark, NEVER), tagger, FRAME_S, 5.5)
    assert (rain.text, rain.group, rain.spans) == ("rain", "sound", ((0.0, 5.5),))
    assert rain.probability == pytest.approx(1 / (1 + torch.exp(torch.tensor(-5.0)).item()), abs=1e-4)
    assert dog.text == "dog barking"
    assert dog.spans == ((0.0, 1.25), (3.75, 4.25))
    assert 0.9 < dog.probability < rain.probability


def test_improbable_tags_are_left_out_and_calibration_counts(tagger: Tagger) -> None:
    assert detected_tags(scores(NEVER, NEVER, NEVER), tagger, FRAME_S, 5.5) == ()
    tagger.shift_K[2] = 12.0
    (piano,) = detected_tags(scores(NEVER, NEVER, NEVER), tagger, FRAME_S, 5.5)
    assert (piano.text, piano.probability) == ("piano", pytest.approx(0.5))


def test_a_tag_of_long_recordings_is_as_probable_as_in_its_best_window_and_spans_go_on(tagger: Tagger) -> None:
    collector = TagCollector(tagger, FRAME_S)
    for start_s, logit in ((0.0, -9.0), (5.0, 6.0), (10.0, 5.0), (15.0, -1.0)):
        collector.add(scores([logit] * 10, NEVER, NEVER), start_s, 5.0)
    (rain,) = collector.tags()
    assert rain.probability == pytest.approx(0.9975, abs=1e-3)
    assert rain.spans == ((5.0, 15.0),)


def test_what_is_asked_for_is_known_however_improbable(tagger: Tagger) -> None:
    collector = TagCollector(tagger, FRAME_S)
    collector.add(scores(NEVER, NEVER, NEVER), 0.0, 5.0)
    assert collector.tag(1).text == "dog barking"
    assert collector.tag(1).probability < 0.001
    assert collector.tag(1).spans == ()


def test_one_frame_between_does_not_part_an_event_and_two_do(tagger: Tagger) -> None:
    bark = [4.0, -6.0, 4.0, 4.0, -6.0, -6.0, 3.0, -6.0, -6.0, -6.0]
    (dog,) = detected_tags(scores(NEVER, bark, NEVER), tagger, FRAME_S, 5.5)
    assert dog.spans == ((0.0, 2.25), (3.25, 3.75))


def test_every_event_has_its_own_probability() -> None:
    probability_TK = torch.tensor([[0.9, 0.0], [0.01, 0.0], [0.01, 0.0], [0.6, 0.2]])
    events = list(frame_events(probability_TK, torch.tensor([0.5, 0.5]), FRAME_S, 2.5))
    assert [(event.index, event.start_s, event.end_s) for event in events] == [(0, 0.0, 0.75), (0, 1.75, 2.5)]
    assert [event.probability for event in events] == pytest.approx([0.9, 0.6])


def test_an_event_lasts_while_it_is_a_tenth_as_probable_as_it_has_to_become() -> None:
    probability_TK = torch.tensor([[0.06], [0.8], [0.05], [0.07], [0.01], [0.01], [0.3]])
    (event,) = frame_events(probability_TK, torch.tensor([0.5]), FRAME_S, 4.0)
    assert (event.start_s, event.end_s, event.probability) == (0.0, 2.25, pytest.approx(0.8))
