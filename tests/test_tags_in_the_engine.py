"""Tags, timelines of tags, labels chosen by tags, and explanations, with a tiny chat model."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from helpers import tiny_model
from helpers.chat import HUM, RAIN, SPEECH, WHISTLE, Recogniser, chat_pengi, joined
from pengi import Pengi, labelling
from pengi.errors import AudioError, InputError
from pengi.labelling import LabelChooser, fused
from pengi.results import Event, Segment, TagScore
from pengi.timelines import EventJoiner, Joining

pytestmark = pytest.mark.usefixtures("short_texts")

PENGI = chat_pengi()
SILENCE = joined(np.zeros(5 * 16_000, np.float32))
TWO = joined(RAIN, WHISTLE)


@pytest.fixture
def no_language_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def prefill(*_: Any) -> Any:
        raise AssertionError("the language model was run")

    monkeypatch.setattr(type(PENGI.model.language_model), "prefill", prefill)


@pytest.mark.usefixtures("no_language_model")
class TestTags:
    def test_tags_have_a_group_a_probability_and_times(self) -> None:
        found = PENGI.tags(TWO)
        assert found.duration_s == 10.0
        assert {(tag.label, tag.group, tag.strength) for tag in found.tags} == {
            ("rain", "sound", "sure"),
            ("whistle", "sound", "sure"),
        }
        rain = next(tag for tag in found.tags if tag.label == "rain")
        assert rain.probability > 0.9
        assert rain.spans == ((0.0, pytest.approx(5.0, abs=0.5)),)
        json.dumps(found.to_dict(), allow_nan=False)

    def test_thresholds_numbers_and_labels_choose(self) -> None:
        assert len(PENGI.tags(TWO, threshold=0.0).tags) == 7
        assert len(PENGI.tags(TWO, threshold=0.0, top=3).tags) == 3
        assert PENGI.tags(TWO, threshold=0.9999).tags == ()
        named = PENGI.tags(TWO, labels=["a flute", "A whistle blowing"]).tags
        assert [(tag.label, tag.strength) for tag in named] == [("A whistle blowing", "sure"), ("a flute", "hardly")]
        assert [tag.label for tag in PENGI.tags(TWO, labels=["flute", "rain"], threshold=0.5).tags] == ["rain"]

    def test_a_list_gives_a_list_and_bad_ones_their_errors(self) -> None:
        one, bad, silent = PENGI.tags([TWO, b"no audio", SILENCE], on_error="return")
        assert one == PENGI.tags(TWO)
        assert "no audio" in str(bad) or "cannot" in str(bad) or "not" in str(bad)
        assert silent.tags == (TagScore("silence", "sound", 1.0, "sure", ((0.0, 5.0),)),)
        assert [(tag.label, tag.probability) for tag in PENGI.tags(SILENCE, labels=["rain"]).tags] == [("rain", 0.0)]

    def test_what_makes_no_sense_is_said(self) -> None:
        with pytest.raises(
            InputError,
            match=r"there is no tag 'whisle'; the nearest are 'whistle'; classify and timeline take any label",
        ):
            PENGI.tags(TWO, labels=["whisle"])
        with pytest.raises(InputError, match="the nearest are 'whistle'"):
            PENGI.tags(TWO, labels=["blowing whistle"])
        with pytest.raises(InputError, match="threshold must be a probability from 0 to 1, not 7"):
            PENGI.tags(TWO, threshold=7)
        with pytest.raises(InputError, match="threshold must be a probability"):
            PENGI.tags(TWO, threshold=math.nan)
        with pytest.raises(InputError, match="top must be at least 1, not 0"):
            PENGI.tags(TWO, top=0)
        paper = Pengi(tiny_model(), "tiny", torch.device("cpu"))
        with pytest.raises(InputError, match="'tiny' has no tagger"):
            paper.tags(TWO)

    def test_events_are_the_tags(self) -> None:
        events = PENGI.events(TWO)
        assert {event.label for event in events} == {"rain", "whistle"}
        assert PENGI.events(SILENCE) == (Event("silence", 1.0),)


@pytest.mark.usefixtures("no_language_model")
class TestTimeline:
    def test_events_have_their_own_times_across_windows(self) -> None:
        timeline = PENGI.timeline(joined(HUM, HUM, HUM, RAIN, HUM, RAIN))
        assert timeline.duration_s == 30.0
        expected = [("hum", 0.0, 15.0), ("rain", 15.0, 20.0), ("hum", 20.0, 25.0), ("rain", 25.0, 30.0)]
        assert [segment.text for segment in timeline.segments] == [text for text, *_ in expected]
        for segment, (_, start_s, end_s) in zip(timeline.segments, expected, strict=True):
            assert segment.start_s == pytest.approx(start_s, abs=0.8)
            assert segment.end_s == pytest.approx(end_s, abs=0.8)
            assert segment.confidence > 0.9

    def test_a_silent_recording_is_silent(self) -> None:
        assert PENGI.timeline(SILENCE).segments == (Segment(0.0, 5.0, "silence", 1.0),)

    def test_of_some_labels_silence_is_one_only_if_it_is_named(self) -> None:
        assert PENGI.timeline(SILENCE, labels=["rain"]).segments == ()
        timeline = PENGI.timeline(SILENCE, labels=["rain", "Silence"], threshold={"Silence": 0.9})
        assert (timeline.segments, timeline.notes) == ((Segment(0.0, 5.0, "Silence", 1.0),), ())

    def test_events_may_overlap_and_labels_choose_them(self) -> None:
        tagger = PENGI.model.tagger
        assert tagger is not None
        tagger.shift_K[4] = 20.0
        try:
            timeline = PENGI.timeline(TWO)
            flute = next(segment for segment in timeline.segments if segment.text == "flute")
            assert (flute.start_s, flute.end_s) == (0.0, 10.0)
            assert flute.confidence == pytest.approx(1.0, abs=1e-3)
            assert {segment.text for segment in timeline.segments} == {"flute", "rain", "whistle"}
            chosen = PENGI.timeline(TWO, labels=["the rain"]).segments
            assert [(segment.text, segment.start_s) for segment in chosen] == [("the rain", 0.0)]
        finally:
            tagger.shift_K[4] = 0.0
        assert PENGI.timeline(TWO, threshold=0.9999).segments == ()

    def test_segments_come_once_they_have_ended_and_say_how_far_they_are(self) -> None:
        read: list[float] = []
        audio = joined(*[RAIN, HUM] * 20)
        events = []
        for segment in PENGI.segments(audio, progress=read.append):
            events.append((segment.text, len(read)))
        assert events[0] == ("rain", 0)
        assert read[-1] == 200.0
        assert len(read) > 1

    def test_segments_wait_for_those_that_began_before_them(self) -> None:
        joiner = EventJoiner(Joining(merge_gap_s=0.5))
        first = [Segment(0.0, 10.0, "rain", 0.6), Segment(2.0, 3.0, "dog", 0.9), Segment(9.0, 10.0, "wind", 0.7)]
        assert joiner.add(first, 10.0) == []
        assert joiner.add([Segment(10.0, 14.0, "rain", 0.8), Segment(15.0, 16.0, "dog", 0.5)], 20.0) == [
            Segment(0.0, 14.0, "rain", 0.8),
            Segment(2.0, 3.0, "dog", 0.9),
            Segment(9.0, 10.0, "wind", 0.7),
            Segment(15.0, 16.0, "dog", 0.5),
        ]
        assert joiner.add([Segment(20.0, 30.0, "rain", 0.6), Segment(22.0, 23.0, "dog", 0.9)], 30.0) == []
        assert [segment.text for segment in joiner.finish()] == ["rain", "dog"]

    def test_the_segments_before_damage_come_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def damaged(*_: Any, **__: Any) -> Iterator[tuple[float, Any]]:
            yield 0.0, HUM
            raise AudioError("the rest is damaged")

        monkeypatch.setattr(PENGI._encoder, "windows", damaged)
        segments = PENGI.segments(HUM)
        assert next(segments).text == "hum"
        with pytest.raises(AudioError, match="the rest is damaged"):
            next(segments)

    def test_options_of_windows_do_not_go_with_those_of_tags(self) -> None:
        for option in ({"threshold": 0.5}, {"labels": ["rain"]}, {"min_duration_s": 1.0}, {"merge_gap_s": 1.0}):
            with pytest.raises(InputError, match="apply only to events; leave out the window and the hop"):
                PENGI.timeline(TWO, window_s=2.0, **option)
        paper = Pengi(tiny_model(), "tiny", torch.device("cpu"))
        with pytest.raises(InputError, match="'tiny' has no tagger and needs labels for them"):
            paper.timeline(TWO, threshold=0.5)

    def test_a_label_can_have_a_threshold_of_its_own(self) -> None:
        def texts(threshold: Any, **options: Any) -> set[str]:
            return {segment.text for segment in PENGI.timeline(TWO, threshold=threshold, **options).segments}

        assert texts({"rain": 0.9999}) == {"whistle"}
        assert texts({"*": 0.9999, "rain": 0.5}) == {"rain"}
        assert texts({"the rain": 0.9999}, labels=["the rain", "whistle"]) == {"whistle"}
        with pytest.raises(InputError, match="a threshold is given for 'rayn', but there is no label 'rayn'; did you"):
            PENGI.timeline(TWO, threshold={"rayn": 0.5})
        with pytest.raises(InputError, match="probability from 0 to 1, not 2"):
            PENGI.timeline(TWO, threshold={"rain": 2.0})
        assert [tag.label for tag in PENGI.tags(TWO, threshold={"rain": 0.9999}).tags] == ["whistle"]

    def test_short_events_are_left_out_and_short_pauses_are_closed(self) -> None:
        short = WHISTLE[: 2 * 16_000]
        audio = joined(RAIN, short, RAIN)
        plain = PENGI.timeline(audio).segments
        assert [segment.text for segment in plain] == ["rain", "whistle", "rain"]
        long = PENGI.timeline(audio, min_duration_s=3.5).segments
        assert [segment.text for segment in long] == ["rain", "rain"]
        merged = PENGI.timeline(audio, merge_gap_s=3.0).segments
        assert next((segment.text, segment.start_s, segment.end_s) for segment in merged) == ("rain", 0.0, 12.0)
        assert len(merged) == 2
        with pytest.raises(InputError, match="the gap must be 0 seconds or more, not -1"):
            PENGI.timeline(audio, merge_gap_s=-1)


class TestTimelineOfAnyLabel:
    def test_labels_that_no_tag_knows_are_detected_by_their_likelihood(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def presence(chooser: Any, encoded: Any, labels: Any) -> torch.Tensor:
            assert labels == ["unicorn"]
            whistles = [
                any(tag.text == "whistle" and tag.probability > 0.5 for tag in item.evidence.tags) for item in encoded
            ]
            return torch.tensor([[0.875 if is_one else 0.125] for is_one in whistles])

        monkeypatch.setattr(labelling.LabelChooser, "presence", presence)
        audio = joined(RAIN, WHISTLE, RAIN, np.zeros(20 * 16_000, np.float32))
        found = PENGI.timeline(audio, labels=["rain", "unicorn"])
        unicorn = [segment for segment in found.segments if segment.text == "unicorn"]
        assert [(segment.confidence, segment.start_s, segment.end_s) for segment in unicorn] == [
            (0.875, pytest.approx(5.0, abs=2.5), pytest.approx(10.0, abs=2.5))
        ]
        assert {segment.text for segment in found.segments} == {"rain", "unicorn"}
        assert found.notes == (
            "there is no tag 'unicorn'; it is detected by the language model, in parts of about 2.5 s",
        )

    def test_there_are_not_too_many_of_them(self) -> None:
        with pytest.raises(InputError, match="17 labels are not tags; the language model looks for at most 16"):
            PENGI.timeline(TWO, labels=["rain", *(f"unicorn {number}" for number in range(17))])

    def test_a_slip_in_the_name_of_a_tag_is_noted(self) -> None:
        (note,) = PENGI.timeline(TWO, labels=["whisle"]).notes
        assert note.startswith(
            "there is no tag 'whisle'; the nearest are 'whistle'; it is detected by the language model"
        )

    def test_a_model_without_a_tagger_detects_labels_too(self) -> None:
        paper = Pengi(tiny_model(), "tiny", torch.device("cpu"))
        found = paper.timeline(TWO, labels=["rain"], threshold=0.0)
        assert [(segment.text, segment.start_s, segment.end_s) for segment in found.segments] == [("rain", 0.0, 10.0)]
        assert paper.timeline(TWO, labels=["rain"], threshold=1.0).segments == ()


def test_windows_can_still_be_named_by_the_language_model() -> None:
    timeline = PENGI.timeline(TWO, window_s=5.0, hop_s=5.0)
    assert timeline.duration_s == 10.0
    assert timeline.segments[0].start_s == 0.0


class TestLabels:
    def test_labels_that_name_tags_are_chosen_by_the_tagger(self) -> None:
        found = PENGI.classify([joined(RAIN), joined(HUM)], ["flute", "the hum", "rain falling"])
        assert [item.label for item in found] == ["rain falling", "the hum"]
        assert found[0].scores[0].probability > 0.9
        assert sum(score.probability for score in found[0].scores) == pytest.approx(1.0)

    def test_the_group_of_most_labels_decides_what_a_name_means(self) -> None:
        vocabulary = PENGI.model.tagger.vocabulary  # type: ignore[union-attr]
        assert vocabulary.label_indices(["rain", "hum"]) == [2, 1]
        assert vocabulary.label_indices(["rain", "stop"]) == [5, 6]
        assert vocabulary.label_indices(["unicorn", ""]) == [None, None]

    @pytest.mark.usefixtures("no_language_model")
    def test_the_language_model_is_not_asked_about_known_labels(self) -> None:
        assert PENGI.classify(joined(HUM), ["rain", "hum"], explain=True).explanation.prompt is None
        assert PENGI.classify(joined(HUM), ["hum"]).scores[0].probability == 1.0
        with pytest.raises(AssertionError, match="was run"):
            PENGI.classify(joined(HUM), ["rain", "hum", "unicorn"])

    @pytest.mark.parametrize(
        "labels", [["unicorn"], ["unicorn", "dragon"], [f"thing {number}" for number in range(500)]]
    )
    def test_unknown_labels_are_chosen_by_likelihood(self, labels: list[str]) -> None:
        found = PENGI.classify(joined(HUM), labels)
        assert {score.label for score in found.scores} == set(labels)
        assert sum(score.probability for score in found.scores) == pytest.approx(1.0, abs=1e-4)

    def test_known_and_unknown_labels_are_compared(self) -> None:
        found = PENGI.classify([joined(HUM), joined(RAIN)], ["hum", "unicorn"])
        shares = [{score.label: score.probability for score in item.scores} for item in found]
        assert shares[0]["hum"] > shares[1]["hum"]
        assert found[0].label == "hum"
        assert found[1].label == "unicorn"

    def test_fused_scores(self) -> None:
        likelihood = torch.tensor([-1.0, -3.0, -2.0])
        unknown = math.nan
        torch.testing.assert_close(fused(torch.tensor([unknown] * 3), likelihood), likelihood)
        known = torch.tensor([1.0, 2.0, 0.0])
        torch.testing.assert_close(fused(known, likelihood), known)
        mixed = fused(torch.tensor([3.0, -4.0, unknown]), likelihood).exp()
        assert float(mixed.sum()) == pytest.approx(1.0)
        assert float(mixed[0]) > 0.8
        unsure = fused(torch.tensor([-5.0, -4.0, unknown]), likelihood).exp()
        assert float(unsure[2]) > 0.5


class TestNoneOfThese:
    def test_a_recording_may_be_none_of_the_labels(self) -> None:
        none, hum = PENGI.classify([joined(RAIN), joined(HUM)], ["hum", "whistle"], none=True)
        assert (none.label, hum.label) == ("none of these", "hum")
        for found in (none, hum):
            assert sum(score.probability for score in found.scores) == pytest.approx(1.0)
            assert len(found.scores) == 3
        assert PENGI.classify(joined(HUM), ["hum", "whistle"], none=0.9999).label == "none of these"
        assert PENGI.classify(SILENCE, ["hum"], none=True).label == "none of these"
        assert PENGI.classify(SILENCE, ["hum", "silence"], none=True).label == "silence"

    def test_every_label_has_a_probability_by_itself(self) -> None:
        found = PENGI.classify(TWO, ["rain falling", "whistle", "hum"], multi_label=True)
        independent = {score.label: score.independent for score in found.scores}
        assert independent["rain falling"] > 0.9
        assert independent["whistle"] > 0.9
        assert independent["hum"] < 0.1
        assert sum(score.probability for score in found.scores) == pytest.approx(1.0)
        alone = PENGI.classify(TWO, ["hum"], multi_label=True)
        assert alone.scores[0].probability == 1.0
        assert alone.scores[0].independent == independent["hum"]
        assert found.to_dict()["scores"][0]["independent"] > 0.9
        assert "independent" not in PENGI.classify(TWO, ["hum"]).to_dict()["scores"][0]
        both = PENGI.classify(TWO, ["hum", "flute"], multi_label=True, none=True)
        assert next((score.label, score.independent is None) for score in both.scores) == ("none of these", True)

    def test_each_recording_is_read_once_for_all_labels(self, monkeypatch: pytest.MonkeyPatch) -> None:
        labels = ["unicorn", "dragon", "a very old dragon"]
        chooser, encoded = LabelChooser(PENGI._generator), PENGI.encode([joined(HUM), joined(WHISTLE)])
        alone = [[float(chooser.presence([one], [label])) for label in labels] for one in encoded]
        read: list[int] = []
        lm = PENGI.model.language_model
        prefill = lm.prefill_hidden
        monkeypatch.setattr(lm, "prefill_hidden", lambda *prefix: read.append(len(prefix[0])) or prefill(*prefix))
        assert chooser.presence(encoded, labels).tolist() == [pytest.approx(row, rel=1e-4) for row in alone]
        assert read == [1, 1]

    @pytest.mark.parametrize("labels", [["rain falling", "hum", "stop"], ["hum", "unicorn", "dragon"]])
    @pytest.mark.parametrize("options", [{}, {"none": True}, {"multi_label": True}])
    def test_the_order_of_labels_changes_nothing(self, labels: list[str], options: dict[str, Any]) -> None:
        first = PENGI.classify(joined(HUM), labels, **options)
        assert PENGI.classify(joined(HUM), labels[::-1], **options) == first
        assert PENGI.classify(joined(HUM), [*labels[1:], labels[0]], **options) == first

    def test_the_prompt_is_settable_and_shown(self) -> None:
        found = PENGI.classify(joined(HUM), ["unicorn"], prompt="you can hear {}", explain=True)
        assert found.to_dict()["prompt"] == "you can hear"
        assert "you can hear<|im_end|>" in found.explanation.prompt
        assert PENGI.classify(joined(HUM), ["unicorn"]).prompt == "this is a sound of"
        assert "prompt" not in PENGI.classify(joined(HUM), ["hum"]).to_dict()
        with pytest.raises(
            InputError, match=r"the label must come at the end of the prompt: write 'the sound of \{\}'"
        ):
            PENGI.classify(joined(HUM), ["unicorn"], prompt="the sound of {} is here")

    def test_mistakes_are_said(self) -> None:
        with pytest.raises(InputError, match=r"must be between 0 and 1, not 1\.5"):
            PENGI.classify(TWO, ["hum"], none=1.5)
        with pytest.raises(InputError, match="need the method 'likelihood', not 'match'"):
            PENGI.classify(TWO, ["hum"], none=True, method="match")
        with pytest.raises(InputError, match="is added automatically"):
            PENGI.classify(TWO, ["none of these"], none=True)


class TestExplanations:
    def test_an_explanation_says_what_the_model_read(self) -> None:
        pengi = chat_pengi(Recogniser("Stop it."))
        answer = pengi.ask(joined(SPEECH, RAIN), "is there a flute?", explain=True)
        why = answer.explanation
        assert why.transcript == "Stop it."
        assert [(tag.label, tag.strength) for tag in why.tags][-1] == ("flute", "hardly")
        assert {tag.label for tag in why.tags} == {"speech", "rain", "flute"}
        assert any(sentence.startswith("Level") for sentence in why.descriptors)
        assert why.prompt.startswith("<|im_start|>user\nHeard in 10 s: ")
        assert 'Said: "Stop it.".' in why.prompt
        assert why.prompt.endswith(
            "\nAsked about: flute (hardly, throughout).\nis there a flute?<|im_end|>\n<|im_start|>assistant\n"
        )
        json.dumps(answer.to_dict(), allow_nan=False)

    def test_every_method_that_writes_or_chooses_explains_itself_if_asked(self) -> None:
        calls = {
            "describe": PENGI.describe,
            "ask": lambda audio, **options: PENGI.ask(audio, "what?", **options),
            "generate": lambda audio, **options: PENGI.generate(audio, "this is", **options),
            "classify": lambda audio, **options: PENGI.classify(audio, ["hum", "unicorn"], **options),
        }
        for call in calls.values():
            assert call(TWO).explanation is None
            assert "explanation" not in call(TWO).to_dict()
            assert "rain (sure" in call(TWO, explain=True).explanation.prompt
            silent = call(SILENCE, explain=True)
            assert silent.explanation.prompt is None
            assert silent.explanation.tags == ()

    def test_the_audio_embeddings_are_marked(self) -> None:
        paper = Pengi(tiny_model(), "tiny", torch.device("cpu"))
        why = paper.ask(joined(RAIN), "what?", explain=True).explanation
        assert why.prompt.startswith("[audio: ")
        assert why.prompt.endswith(" embeddings] question: what? answer:")
        assert why.transcript is None
