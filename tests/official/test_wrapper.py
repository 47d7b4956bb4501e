"""The paper's own calls and the official wrapper's quirks, on tiny random models."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from helpers import MAPPER, RATE, TRANSFORMER, noise, tiny_model, tone
from pengi import Pengi, calls, checkpoint, labelling, templates
from pengi.decoding import DecodeOptions, Hypothesis, generate
from pengi.errors import AudioError, InputError
from pengi.generation import TextGenerator
from pengi.labelling import METHODS
from pengi.model import PengiModel
from pengi.official import OfficialPengi, ReferenceOptions, ReferenceQuirks
from pengi.results import Description, Generation, ScoredText

POOLED = {**TRANSFORMER, "input": "pooled"}
PAPER = {
    "audio": {
        "yamnet": {"encoder": "yamnet-tiny-random", "window_s": 2.0, "projection": {"width": 12}, "mapper": POOLED}
    },
    "text": {"encoder": "tiny-random", "projection": {"width": 24}, "mapper": POOLED},
}
"""The paper's architecture in small: projections of width 12 and 24, prefixes of 4."""
NO_TEXT_ENCODER = {**PAPER, "text": {"max_tokens": 6, "pad_token": 0, "mapper": TRANSFORMER}}
OPTIONS = DecodeOptions(beams=3, max_tokens=8)
CPU = torch.device("cpu")
MODEL = tiny_model(**PAPER)
PENGI = Pengi(MODEL, "tiny", CPU)
PLAIN = OfficialPengi(MODEL, "tiny", CPU, ReferenceQuirks())
CLIPS = [(tone(1.0) + noise(1.0, 1), RATE), (noise(1.7, 2), RATE), (tone(1.2, 300.0), RATE)]


@pytest.fixture(autouse=True)
def short_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DESCRIBE", "ANSWER", "GENERATE"):
        monkeypatch.setattr(calls, name, OPTIONS)
    monkeypatch.setattr(labelling, "MATCH", OPTIONS)


def with_quirks(model: PengiModel = MODEL, **quirks: Any) -> OfficialPengi:
    return OfficialPengi(model, "tiny", CPU, ReferenceQuirks(**quirks))


def prefix_of(pengi: OfficialPengi, clip: Any, prompt: str) -> torch.Tensor:
    """The prefix ``[1, P, D]`` of one recording and a prompt, put together from the public calls."""
    parts = [pengi.audio_prefix(clip), pengi.prompt_prefix(prompt)]
    return torch.from_numpy(np.concatenate(parts))[None]


def expected_texts(pengi: Pengi, prefix_1PD: torch.Tensor, options: DecodeOptions = OPTIONS) -> tuple[ScoredText, ...]:
    [beams] = generate(pengi.model.language_model, prefix_1PD, torch.ones(prefix_1PD.shape[:2]), options)
    return tuple(
        ScoredText(pengi.model.language_model.decode(beam.tokens).strip(), pytest.approx(beam.score, abs=1e-4))
        for beam in beams
    )


# ---- the calls -------------------------------------------------------------------------------------------------------


def test_generate_goes_on_from_audio_prefix_and_prompt_prefix() -> None:
    found = PENGI.generate(CLIPS[0], "generate metadata")
    assert isinstance(found, Generation)
    assert found == Generation(
        "generate metadata", expected_texts(PENGI, prefix_of(PLAIN, CLIPS[0], "generate metadata"))
    )
    assert found.text == found.texts[0].text
    assert [text.score for text in found.texts] == sorted((text.score for text in found.texts), reverse=True)
    assert json.loads(json.dumps(found.to_dict()))["prompt"] == "generate metadata"


def test_each_recording_may_have_its_own_prompt_and_extra_text() -> None:
    prompts = ["generate metadata", "this is a sound of", "question: why?"]
    extra = ["", " rain", " wind and"]
    together = PENGI.generate(CLIPS, prompts, extra_text=extra)
    for clip, prompt, text, found in zip(CLIPS, prompts, extra, together, strict=True):
        alone = PENGI.generate(clip, prompt, extra_text=text)
        assert found.prompt == prompt
        assert [beam.text for beam in found.texts] == [beam.text for beam in alone.texts]
    assert [found.text for found in PENGI.generate(CLIPS, "generate metadata")] == [
        PENGI.generate(clip, "generate metadata").text for clip in CLIPS
    ]
    assert len({found.text for found in together}) > 1
    assert PENGI.generate([], "generate metadata") == []


def test_extra_text_is_read_behind_the_prompt() -> None:
    lm = MODEL.language_model
    extra_PD = lm.embed(torch.tensor([lm.encode(" rain on a roof")]))
    prefix_1PD = torch.cat([prefix_of(PLAIN, CLIPS[1], "what?"), extra_PD], 1)
    assert PENGI.generate(CLIPS[1], "what?", extra_text=" rain on a roof").texts == expected_texts(PENGI, prefix_1PD)


def test_prompts_keep_their_places_beside_recordings_that_fail(bad_files: dict[str, Path]) -> None:
    found = PENGI.generate([bad_files["text"], CLIPS[1]], ["one", "two"], extra_text=["", " rain"], on_error="return")
    assert isinstance(found[0], AudioError)
    assert found[1].prompt == "two"
    assert found[1].text == PENGI.generate(CLIPS[1], "two", extra_text=" rain").text


def test_prompts_and_extra_texts_are_counted() -> None:
    with pytest.raises(InputError, match="2 prompts were given for 3 recordings; give one for all or one for each"):
        PENGI.generate(CLIPS, ["one", "two"])
    with pytest.raises(InputError, match="2 extra texts were given for 1 recordings"):
        PENGI.generate(CLIPS[0], "one", extra_text=["a", "b"])


def test_a_description_in_the_papers_style_joins_three_answers() -> None:
    asking = with_quirks(ask_about_silence=True)  # as the paper's style does
    for clip in (*CLIPS, (np.zeros(RATE, np.float32), RATE)):
        described = PENGI.describe(clip, style="paper", options=OPTIONS)
        tasks = ("caption", "metadata", "events")
        caption, metadata, events = (asking.generate(clip, templates.PROMPTS[task][0]).text for task in tasks)
        assert isinstance(described, Description)
        assert described.text == f"{caption} {metadata} this audio contains sound events: {events}."
    plain = PENGI.describe(CLIPS, options=OPTIONS)
    assert [found.events for found in PENGI.describe(CLIPS, style="paper", options=OPTIONS)] == [
        found.events for found in plain
    ]
    assert plain[0].text == PENGI.generate(CLIPS[0], "generate audio caption").text
    with pytest.raises(InputError, match="there is no style 'long'; choose one of caption, paper"):
        PENGI.describe(CLIPS[0], style="long")  # type: ignore[arg-type]


def test_audio_embeddings_are_what_m1_reads() -> None:
    together = PLAIN.audio_embeddings(CLIPS)
    assert np.concatenate(together).shape == (3, 12)
    assert np.concatenate(together).dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(np.concatenate(together), axis=1), 1.0, rtol=1e-5)
    branch = MODEL.branches["yamnet"]
    for clip, embedding_1I, prefix_PD in zip(CLIPS, together, PLAIN.audio_prefix(CLIPS), strict=True):
        np.testing.assert_allclose(PLAIN.audio_embeddings(clip), embedding_1I, atol=1e-5)
        with torch.no_grad():
            mapped_1PD, _ = branch.mapper(torch.from_numpy(embedding_1I)[None], torch.ones(1, 1, dtype=torch.bool))
        assert prefix_PD.shape == (4, MODEL.language_model.dim)
        np.testing.assert_allclose(prefix_PD, mapped_1PD[0], atol=1e-5)
        np.testing.assert_allclose(PLAIN.audio_prefix(clip), prefix_PD, atol=1e-5)


def test_audio_embeddings_of_a_sequence_and_of_several_branches() -> None:
    branches = {
        "short": {"encoder": "yamnet-tiny-random", "mapper": MAPPER, "max_tokens": 3},
        "long": {"encoder": "yamnet-tiny-random", "trained": False, "mapper": MAPPER},
    }
    pengi = with_quirks(tiny_model(audio=branches))
    long = (noise(8.0), RATE)
    assert pengi.audio_embeddings(long).shape == (3, 16)
    assert pengi.audio_embeddings(long, branch="long").shape[0] > 3
    both = pengi.audio_prefix([long, CLIPS[0]])
    assert both[0].shape == both[1].shape == (2 + 2, pengi.model.language_model.dim)
    np.testing.assert_allclose(pengi.audio_prefix(CLIPS[0]), both[1], atol=1e-5)
    with pytest.raises(InputError, match="there is no audio branch 'log'; did you mean 'long'"):
        pengi.audio_embeddings(long, branch="log")


def test_unreadable_recordings_have_errors_for_embeddings(bad_files: dict[str, Path]) -> None:
    for call in (PLAIN.audio_embeddings, PLAIN.audio_prefix):
        found = call([bad_files["empty"], CLIPS[0]], on_error="return")
        assert isinstance(found[0], AudioError)
        assert isinstance(found[1], np.ndarray)
        with pytest.raises(AudioError):
            call(bad_files["empty"])


def test_prompt_embeddings_are_what_m2_reads() -> None:
    prompts = ["generate metadata", "this is a sound of"]
    together = PLAIN.prompt_embeddings(prompts)
    assert np.concatenate(together).shape == (2, 24)
    np.testing.assert_allclose(np.linalg.norm(np.concatenate(together), axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(PLAIN.prompt_embeddings(prompts[1]), together[1], atol=1e-6)
    prefixes = PLAIN.prompt_prefix(prompts)
    with torch.no_grad():
        expected_BPD, _ = MODEL.text_prefix(prompts)
    np.testing.assert_allclose(np.stack(prefixes), expected_BPD, atol=1e-5)
    np.testing.assert_allclose(PLAIN.prompt_prefix(prompts[0]), prefixes[0], atol=1e-5)


@pytest.mark.parametrize(("text", "message"), [(5, "must be a string, not int"), ("\ud800", "not valid Unicode")])
def test_prompts_that_are_no_text(text: Any, message: str) -> None:
    for call in (PLAIN.prompt_embeddings, PLAIN.prompt_prefix):
        for prompts in (text, ["generate metadata", text]):
            with pytest.raises(InputError, match=message):
                call(prompts)


def test_without_a_text_encoder_prompt_embeddings_are_token_embeddings() -> None:
    pengi = with_quirks(tiny_model(**NO_TEXT_ENCODER))
    lm = pengi.model.language_model
    ids = lm.encode("a dog")[:6]
    expected = lm.embed(torch.tensor(ids + [0] * (6 - len(ids))))
    np.testing.assert_array_equal(pengi.prompt_embeddings("a dog"), expected)
    assert pengi.prompt_prefix("a dog").shape == (4, lm.dim)


# ---- the quirks ------------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_loaded_with_all_quirks_or_with_those_that_are_given(tmp_path: Path) -> None:
    checkpoint.save(MODEL, tmp_path, card="# tiny\n")
    assert OfficialPengi.from_pretrained(tmp_path, device="cpu").quirks == ReferenceQuirks.all()
    raw = ReferenceQuirks(raw_prompt_embedding=True)
    assert OfficialPengi.from_pretrained(tmp_path, device="cpu", quirks=raw).quirks == raw


def test_with_no_quirk_on_every_answer_is_the_engines() -> None:
    plain = with_quirks()
    clips = [*CLIPS, (np.zeros(RATE, np.float32), RATE), (noise(5.0), RATE)]
    assert plain.generate(clips, "what?", extra_text="rain") == PENGI.generate(clips, "what?", extra_text="rain")
    assert plain.describe(clips) == PENGI.describe(clips)
    assert plain.classify(clips, ["dog", "rain"]) == PENGI.classify(clips, ["dog", "rain"])


def test_a_raw_prompt_embedding_keeps_its_length() -> None:
    raw = with_quirks(raw_prompt_embedding=True)
    normal, long = PLAIN.prompt_embeddings("generate metadata"), raw.prompt_embeddings("generate metadata")
    length = float(np.linalg.norm(long))
    # Behind a LayerNorm of 24 features with weights of one, the length is the root of 24.
    assert length == pytest.approx(math.sqrt(24), rel=1e-2)
    np.testing.assert_allclose(long / length, normal, atol=1e-5)
    assert np.abs(raw.prompt_prefix("generate metadata") - PLAIN.prompt_prefix("generate metadata")).max() > 1e-2
    np.testing.assert_array_equal(raw.audio_embeddings(CLIPS[0]), PLAIN.audio_embeddings(CLIPS[0]))
    prefix_1PD = prefix_of(raw, CLIPS[0], "generate metadata")
    assert raw.generate(CLIPS[0], "generate metadata").texts == expected_texts(raw, prefix_1PD)


def test_a_raw_prompt_embedding_changes_nothing_without_a_projection() -> None:
    model = tiny_model(**NO_TEXT_ENCODER)
    plain, raw = with_quirks(model), with_quirks(model, raw_prompt_embedding=True)
    np.testing.assert_array_equal(raw.prompt_embeddings("a dog"), plain.prompt_embeddings("a dog"))


def test_a_random_crop_keeps_one_window_of_a_long_clip() -> None:
    samples = np.concatenate([tone(5.0), noise(5.0)])
    cropped = with_quirks(random_crop=True, crop_seed=0)
    assert cropped.describe((samples, RATE)).duration_s == pytest.approx(2.0)
    first, again, other = (
        with_quirks(random_crop=True, crop_seed=seed).audio_embeddings((samples, RATE)) for seed in (0, 0, 7)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-4
    batch = cropped.audio_embeddings([*CLIPS, (samples, RATE)])
    np.testing.assert_allclose(batch[-1], first, atol=1e-5)
    np.testing.assert_allclose(batch[0], PLAIN.audio_embeddings(CLIPS[0]), atol=1e-5)


def test_flat_channels_are_encoded_as_one_long_recording(tmp_path: Path) -> None:
    left, right = tone(0.9), noise(0.9)
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([left, right], 1), RATE, subtype="FLOAT")
    found = with_quirks(flat_channels=True).audio_embeddings(path)
    expected = PLAIN.audio_embeddings((np.concatenate([left, right]), RATE))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - PLAIN.audio_embeddings(path)).max() > 1e-4


def test_only_one_character_of_extra_text_is_read() -> None:
    quirky = with_quirks(extra_text_by_character=True)
    found = quirky.generate(CLIPS[:2], "what?", extra_text=["rain", "wind"])
    expected = PENGI.generate(CLIPS[:2], "what?", extra_text=["r", "i"])
    assert [one.texts[0].text for one in found] == [one.texts[0].text for one in expected]


def test_scores_out_of_order_are_those_of_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = MODEL.language_model
    beams = [Hypothesis(tuple(lm.encode(text)), (score,), True) for text, score in (("a", -2.0), ("b", -1.0))]

    async def found(*_: Any, **__: Any) -> list[list[Hypothesis]]:
        return [beams]

    monkeypatch.setattr(TextGenerator, "generate", found)
    assert PENGI.generate(CLIPS[0], "what?").texts == (ScoredText("a", -2.0), ScoredText("b", -1.0))
    quirky = with_quirks(scores_out_of_order=True)
    assert quirky.generate(CLIPS[0], "what?").texts == (ScoredText("b", -2.0), ScoredText("a", -1.0))


def test_stopping_at_a_space_ends_texts_before_the_end_token() -> None:
    lm = MODEL.language_model
    space, *rest = lm.encode(" <|endoftext|>")
    assert rest == [lm.end_id]
    options = replace(OPTIONS, beams=1, max_tokens=40)
    prefix_1PD = prefix_of(PLAIN, CLIPS[0], "what?")
    [[expected]] = generate(lm, prefix_1PD, torch.ones(prefix_1PD.shape[:2]), options, stop_ids=[space])
    found = with_quirks(stop_at_space=True).generate(CLIPS[0], "what?", options=options)
    assert found.text == lm.decode(expected.tokens).strip()
    assert found.texts[0].score == pytest.approx(expected.score, abs=1e-4)


def test_the_reference_search_is_used_whatever_the_options_say() -> None:
    quirky = with_quirks(reference_search=True)
    prefix_1PD = prefix_of(PLAIN, CLIPS[2], "what?")
    for temperature in (0.0, 0.7):
        options = replace(OPTIONS, temperature=temperature)
        expected = expected_texts(PENGI, prefix_1PD, ReferenceOptions.like(options))
        assert [beam.text for beam in quirky.generate(CLIPS[2], "what?", options=options).texts] == [
            beam.text for beam in expected
        ]
        assert PENGI.generate(CLIPS[2], "what?", options=ReferenceOptions.like(options)).texts == expected
    with pytest.raises(InputError, match="the reference search has no top_p"):
        quirky.generate(CLIPS[2], "what?", options=replace(OPTIONS, top_p=0.9))
    # Label-constrained search has no reference form.
    assert quirky.classify(CLIPS[2], ["dog", "rain"], method="generate").scores


def test_silence_is_put_to_the_model() -> None:
    asking = with_quirks(ask_about_silence=True)
    silence = (np.zeros(RATE, np.float32), RATE)
    assert asking.ask(silence, "what is it?").text != PENGI.ask(silence, "what is it?").text == calls.SILENT_ANSWER
    found = asking.classify(silence, ["dog", "rain"])
    assert found.detected
    assert sum(score.probability for score in found.scores) == pytest.approx(1.0)


def test_a_constant_offset_reaches_the_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    means: list[float] = []
    encode = MODEL.encode

    def watched(waveform_BS: torch.Tensor, lengths_B: torch.Tensor) -> Any:
        means.append(float(waveform_BS.mean()))
        return encode(waveform_BS, lengths_B)

    monkeypatch.setattr(MODEL, "encode", watched)
    for pengi in (PENGI, with_quirks(keep_offset=True)):
        pengi.embed((np.float32(0.3) + tone(2.0), RATE))
    assert means == pytest.approx([0.0, 0.3], abs=1e-3)


def test_all_quirks_together_answer_every_call() -> None:
    quirky = OfficialPengi(MODEL, "tiny", CPU, ReferenceQuirks.all(crop_seed=0))
    assert quirky.generate(CLIPS, "generate metadata", extra_text="rain")
    assert quirky.describe(CLIPS, style="paper")
    assert quirky.ask(CLIPS[0], "what?").text is not None
    for method in METHODS:
        assert quirky.classify(CLIPS[0], ["dog", "rain"], method=method).label in ("dog", "rain")
    assert quirky.timeline((noise(5.0), RATE), window_s=2.0, hop_s=2.0).duration_s == pytest.approx(5.0)
