"""What the engine of a chat model measures in recordings and writes for the language model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from helpers import noise, tiny_model
from helpers.chat import HUM, RAIN, SPEECH, WHISTLE, Recogniser, chat_pengi, joined
from pengi import Pengi, encoding
from pengi.conditioning.evidence import evidence_text
from pengi.config import EvidenceConfig
from pengi.encoding import Encoded, TokenStore, shortened
from pengi.errors import AudioError

pytestmark = pytest.mark.usefixtures("short_texts")

PENGI = chat_pengi()


class Read:
    """The evidence and the prompts that the language model reads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shared: list[str] = []
        self.own: list[str] = []
        model = type(PENGI.model)
        shared_prefix, prompt_ids = model.shared_prefix, model.prompt_ids

        def shared(this: Any, tokens: Any, evidence: Any = None) -> Any:
            self.shared += evidence or []
            return shared_prefix(this, tokens, evidence)

        def ids(this: Any, prompt: str) -> Any:
            self.own.append(prompt)
            return prompt_ids(this, prompt)

        monkeypatch.setattr(model, "shared_prefix", shared)
        monkeypatch.setattr(model, "prompt_ids", ids)


def test_the_model_reads_what_was_detected_and_when(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Read(monkeypatch)
    PENGI.ask(joined(RAIN, WHISTLE[:48_000]), "what is it?")
    (text,) = read.shared
    assert text.startswith("Heard in 8 s: rain (sure, 0-5 s), whistle (sure, 5-8 s).")
    assert "Nothing is said." in text
    assert "Level -" in text
    assert read.own[-1] == "what is it?"


def test_a_question_is_read_behind_the_evidence_about_the_tags_that_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Read(monkeypatch)
    PENGI.ask([joined(RAIN), joined(HUM)], ["is there rain or a flute?", "is the hum loud?"])
    assert read.own[-2:] == [
        "Asked about: rain (sure, throughout), together with flute (hardly, throughout).\nis there rain or a flute?",
        "Asked about: hum (sure, throughout).\nis the hum loud?",
    ]


def test_a_few_labels_are_asked_about_and_many_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Read(monkeypatch)
    PENGI.classify(joined(RAIN), ["flute", "stone", "rain"])
    assert (
        read.own[-1]
        == "Asked about: flute (hardly, throughout), together with rain (sure, throughout).\nthis is a sound of"
    )
    PENGI.classify(joined(RAIN), ["flute", "rain", "a", "b", "c", "d"])
    assert read.own[-1] == "this is a sound of"


def test_speech_is_transcribed_once_and_only_where_the_model_writes() -> None:
    recogniser = Recogniser()
    pengi = chat_pengi(recogniser)
    spoken = joined(SPEECH)
    assert pengi.encode(spoken).evidence.transcript == "Come here."
    assert recogniser.lengths == [len(SPEECH)]
    pengi.embed(spoken)
    assert pengi.encode(spoken, for_text=False).evidence.transcript is None
    assert pengi.encode(joined(RAIN)).evidence.transcript == ""
    assert recogniser.lengths == [len(SPEECH)]


def test_long_recordings_are_cut_at_pauses_and_their_evidence_is_put_together() -> None:
    recogniser = Recogniser()
    pengi = chat_pengi(recogniser)
    pause = noise(0.6, level=1e-3)
    audio = joined(SPEECH, SPEECH[:40_000], pause, SPEECH, np.zeros(48_000, np.float32), RAIN, RAIN, RAIN, WHISTLE)
    evidence = pengi.encode(audio).evidence
    assert evidence.duration_s == pytest.approx(36.1)
    assert recogniser.lengths[0] == pytest.approx(7.8 * 16_000, abs=5_000)
    assert evidence.transcript == " ".join(["Come here."] * len(recogniser.lengths))
    found = {tag.text: tag for tag in evidence.tags}
    ((start_s, end_s),) = found["rain"].spans
    assert (start_s, end_s) == (pytest.approx(16.1, abs=0.6), pytest.approx(31.1, abs=0.6))
    assert found["whistle"].spans[-1] == (pytest.approx(31.1, abs=0.6), pytest.approx(36.1))
    assert found["speech"].spans[0][0] == 0.0
    assert found["speech"].spans[-1][1] < 14.0
    text = evidence_text(evidence, EvidenceConfig())
    assert "Level -" in text
    assert "Note" not in text


def test_a_batch_has_the_evidence_that_each_has_alone() -> None:
    recordings = [joined(RAIN), joined(SPEECH, SPEECH, HUM), joined(WHISTLE[:8_000]), joined(HUM, RAIN)]
    together = PENGI.encode([*recordings, b"no audio"], on_error="return")
    assert isinstance(together[-1], AudioError)
    for audio, encoded in zip(recordings, together, strict=False):
        alone: Encoded = PENGI.encode(audio)
        assert PENGI._generator.prompting.evidence([encoded]) == PENGI._generator.prompting.evidence([alone])
        torch.testing.assert_close(encoded.log_odds_K, alone.log_odds_K, atol=1e-3, rtol=1e-3)


def test_hours_are_encoded_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "MAX_TOKENS", 40)
    whole = PENGI.encode(joined(*[RAIN, HUM] * 12))
    assert len(whole.tokens[0]) <= 41
    assert whole.duration_s == 120.0
    monkeypatch.undo()
    exact = PENGI.encode(joined(*[RAIN, HUM] * 12))
    assert len(exact.tokens[0]) > 200
    torch.testing.assert_close(whole.tokens[0].mean(0), exact.tokens[0].mean(0), atol=0.02, rtol=0.05)


def test_averaged_tokens_stay_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "MAX_TOKENS", 8)
    store = TokenStore()
    for start in range(0, 99, 9):
        store.add(torch.arange(start, start + 9.0)[:, None])
    values = store.tokens()[:, 0]
    assert len(values) <= 9
    assert values.tolist() == sorted(values.tolist())
    assert len(set(values[:-1].diff().tolist())) == 1
    assert values[0] == pytest.approx(7.5)


def test_a_long_transcript_is_read_in_part() -> None:
    words = [str(number) for number in range(500)]
    text = shortened(" ".join(words)).split()
    assert text[:80] == words[:80]
    assert text[80] == "..."
    assert text[81:] == words[-40:]
    assert shortened("Come here.") == "Come here."


def test_silence_is_not_put_to_the_tagger_or_the_transcriber() -> None:
    encoded = PENGI.encode(joined(np.zeros(5 * 16_000, np.float32)))
    assert encoded.evidence.tags == ()
    assert encoded.evidence.transcript == ""
    assert encoded.evidence.descriptors == ()
    assert PENGI.ask(joined(np.zeros(16_000, np.float32)), "is there rain?").text == "The recording is silent."


def test_models_without_evidence_read_the_question_in_the_papers_words() -> None:
    paper = Pengi(tiny_model(), "tiny", torch.device("cpu"))
    assert paper._generator.prompting.question(" what? ") == "question: what? answer:"
    assert PENGI._generator.prompting.question(" what? ") == "what?"
