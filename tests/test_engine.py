"""The engine on a tiny random model: one and many, alone and in a batch, any length, and bad input."""

from __future__ import annotations

import errno
import io
import itertools
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from helpers import MAPPER, RATE, SENTENCE_TEXT, noise, tiny_model, tone
from helpers.failing import FailingFile
from pengi import Pengi, checkpoint, timelines
from pengi.decoding import DecodeOptions, Hypothesis, run
from pengi.encoding import RecordingEncoder
from pengi.errors import AudioError, CheckpointError, ConfigError, InputError, PengiError, WeightsError
from pengi.generation import TextGenerator, _Pieces
from pengi.labelling import METHODS
from pengi.results import Answer, Description, Event, LabelScore, Segment, Timeline
from pengi.timelines import NamedTimelines

pytestmark = pytest.mark.usefixtures("short_texts")

LABELS = ["dog", "rain on a roof", "siren", "church bells", "wind"]
LENGTHS_S = (0.02, 0.5, 0.96, 1.0, 2.7, 5.0, 5.01, 9.99, 10.0, 10.001, 12.3, 21.0, 0.1, 3.3, 7.7, 4.4)
"""Sixteen: around a patch, a window and several windows."""


def build(**changes: Any) -> Pengi:
    return Pengi(tiny_model(**changes), "tiny", torch.device("cpu"))


PENGI = build()
SENTENCE_PENGI = build(text=SENTENCE_TEXT)


def recording(samples: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
    return samples, RATE


def mixed(seconds: float, seed: int) -> tuple[NDArray[np.float32], int]:
    """A tone in noise, another one for every seed."""
    return recording(tone(seconds, 150.0 * (seed + 1)) + noise(seconds, seed, 0.02 * (seed % 4)))


SIXTEEN = [mixed(seconds, seed) for seed, seconds in enumerate(LENGTHS_S)]
CALLS: dict[str, Callable[[Pengi, Any], Any]] = {
    "describe": lambda pengi, audio: pengi.describe(audio),
    "ask": lambda pengi, audio: pengi.ask(audio, "what do you hear?"),
    "sample": lambda pengi, audio: pengi.ask(
        audio, "what is it?", options=DecodeOptions(beams=2, max_tokens=8, temperature=1.0, seed=3)
    ),
    **{
        f"classify by {method}": lambda pengi, audio, method=method: pengi.classify(audio, LABELS, method=method)
        for method in METHODS
    },
    "embed": lambda pengi, audio: pengi.embed(audio),
    "timeline": lambda pengi, audio: pengi.timeline(audio, window_s=2.0, hop_s=1.5),
}


def flat(result: Any) -> Any:
    """A result as nested JSON values, which ``pytest.approx`` can compare number by number."""
    return result.tolist() if isinstance(result, np.ndarray) else result.to_dict()


def assert_same(found: Any, expected: Any) -> None:
    """Equal but for rounding of the numbers."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_same(found[key], value)
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-5)
    else:
        assert found == expected


@pytest.mark.parametrize("call", CALLS)
def test_a_batch_of_sixteen_gives_what_sixteen_calls_give(call: str) -> None:
    pengi = SENTENCE_PENGI if call == "classify by match" else PENGI
    together = CALLS[call](pengi, SIXTEEN)
    assert len(together) == 16
    for audio, result in zip(SIXTEEN, together, strict=True):
        assert_same(flat(result), flat(CALLS[call](pengi, audio)))
    assert len({json.dumps(flat(result)) for result in together}) > 3


def test_every_recording_may_have_a_question_of_its_own() -> None:
    questions = ["what is it?", "is it loud?", "where is it?"]
    answers = PENGI.ask(SIXTEEN[3:6], questions)
    for audio, question, answer in zip(SIXTEEN[3:6], questions, answers, strict=True):
        assert_same(answer.to_dict(), PENGI.ask(audio, question).to_dict())
        assert answer.question == question
    with pytest.raises(InputError, match="2 questions were given for 3 recordings"):
        PENGI.ask(SIXTEEN[:3], questions[:2])
    with pytest.raises(InputError, match="empty"):
        PENGI.ask(SIXTEEN[:2], ["what?", " "])


def test_questions_stay_with_their_recordings_when_others_fail() -> None:
    audio = [SIXTEEN[3], b"no audio", SIXTEEN[5]]
    first, bad, last = PENGI.ask(audio, ["one?", "two?", "three?"], on_error="return")
    assert (first.question, last.question) == ("one?", "three?")
    assert isinstance(bad, AudioError)
    assert last.text == PENGI.ask(SIXTEEN[5], "three?").text


def test_a_timeline_reports_its_progress_and_can_be_ended() -> None:
    reached: list[float] = []
    timeline = PENGI.timeline(recording(tone(40.0)), window_s=1.0, hop_s=1.0, progress=reached.append)
    assert reached == [16.0, 32.0, 40.0]
    assert timeline.duration_s == 40.0

    def enough(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        PENGI.timeline(recording(tone(40.0)), window_s=1.0, hop_s=1.0, progress=enough)


def test_segments_come_as_soon_as_the_next_one_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """32 s are decoded in two batches of windows; of the first one all but the last segment is there before the second
    is encoded."""
    encoded: list[int] = []

    def name(windows: list[NDArray[np.float32]]) -> list[tuple[str, float]]:
        encoded.append(len(windows))
        return [("abc"[index // 6], 0.5) for index in range(len(windows))]

    monkeypatch.setattr(NamedTimelines, "name", lambda _, windows: name(windows))
    found = []
    for segment in PENGI.segments(recording(tone(32.0)), window_s=1.0, hop_s=1.0):
        found.append((segment.text, segment.start_s, segment.end_s, len(encoded)))
    assert found == [
        ("a", 0.0, 6.0, 1),
        ("b", 6.0, 12.0, 1),
        ("c", 12.0, 16.0, 2),
        ("a", 16.0, 22.0, 2),
        ("b", 22.0, 28.0, 2),
        ("c", 28.0, 32.0, 2),
    ]
    timeline = PENGI.timeline(recording(tone(32.0)), window_s=1.0, hop_s=1.0)
    assert [(segment.text, segment.start_s, segment.end_s) for segment in timeline.segments] == [
        row[:3] for row in found
    ]


def test_rate_and_tokens() -> None:
    assert PENGI.sample_rate == RATE
    assert PENGI.count_tokens("") == 0
    assert PENGI.count_tokens("two words") == len(PENGI.model.language_model.encode("two words")) > 1


def test_real_recordings_in_a_batch(shared_data: Path) -> None:
    with (shared_data / "manifest.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines][::700]
    paths = [shared_data / row["audio"] for row in rows]
    together = PENGI.describe(paths)
    for path, row, result in zip(paths, rows, together, strict=True):
        assert_same(result.to_dict(), PENGI.describe(path).to_dict())
        assert result.duration_s == pytest.approx(row["duration_s"], abs=0.05)


@pytest.mark.parametrize("changes", [
    {"audio": {"one": {"encoder": "yamnet-tiny-random", "mapper": MAPPER},
               "other": {"encoder": "yamnet-tiny-random", "trained": False, "max_tokens": 3, "window_s": 4.0,
                         "mapper": {"kind": "transformer", "constants": 4, "layers": 1, "heads": 4}}}},
    {"text": SENTENCE_TEXT},
])  # fmt: skip
def test_other_architectures_in_a_batch(changes: dict[str, Any]) -> None:
    pengi = build(**changes)
    for audio, result in zip(SIXTEEN[:9], pengi.classify(SIXTEEN[:9], LABELS), strict=True):
        assert_same(result.to_dict(), pengi.classify(audio, LABELS).to_dict())
    assert pengi.embed(SIXTEEN[0]).shape == (16 * len(pengi.model.branches),)


def test_one_recording_gives_one_result_and_a_list_gives_a_list(tone: Path) -> None:
    samples, rate = soundfile.read(tone, dtype="float32")
    expected = PENGI.describe(tone)
    assert isinstance(expected, Description)
    with tone.open("rb") as file:
        sources = [tone, str(tone), tone.read_bytes(), file, (samples, rate), (torch.from_numpy(samples), rate)]
        for result in PENGI.describe(sources):
            assert_same(result.to_dict(), expected.to_dict())
    assert_same(PENGI.describe((samples, rate)).to_dict(), expected.to_dict())
    assert_same(PENGI.describe((tone, tone, tone))[2].to_dict(), PENGI.describe([tone])[0].to_dict())
    assert isinstance(PENGI.describe((tone, tone)), list)
    for call in CALLS.values():
        assert call(SENTENCE_PENGI, []) == []


def test_what_the_answers_are() -> None:
    audio = mixed(3.0, 1)
    described = PENGI.describe(audio)
    assert described.duration_s == pytest.approx(3.0)
    assert all(0 < event.confidence <= 1 for event in described.events)
    confidences = [event.confidence for event in described.events]
    assert confidences == sorted(confidences, reverse=True)
    answer = PENGI.ask(audio, "what is it?")
    assert isinstance(answer, Answer)
    assert answer.question == "what is it?"
    assert 0 < answer.confidence <= 1
    json.dumps([described.to_dict(), answer.to_dict(), PENGI.timeline(audio).to_dict()])


def test_a_description_is_a_caption_and_the_events(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = PENGI.model.language_model
    said = {"generate audio caption": " Rain falls.", "this is a sound of": " rain, wind"}

    async def generated(
        generator: TextGenerator, encoded: Any, prompts: list[str], *_: Any, **__: Any
    ) -> list[list[Hypothesis]]:
        assert len(encoded) == len(prompts)
        return [[Hypothesis(tuple(lm.encode(said[prompt])), (math.log(0.5),), True)] for prompt in prompts]

    monkeypatch.setattr(TextGenerator, "generate", generated)
    expected = Description("Rain falls.", (Event("rain", 0.5), Event("wind", 0.5)), 1.0)
    assert PENGI.describe([mixed(1.0, 0), mixed(1.0, 1)]) == [expected, expected]


def test_an_answer_is_what_the_model_most_likely_says() -> None:
    """The confidence is the probability of the complete text behind the prefix, the end included."""
    audio = mixed(1.0, 2)
    answer = PENGI.ask(audio, "what?", options=DecodeOptions(beams=1, max_tokens=200))
    model, lm = PENGI.model, PENGI.model.language_model
    samples = torch.from_numpy(audio[0])[None]
    tokens = [branch.encoder(samples, torch.tensor([samples.shape[1]])) for branch in model.branches.values()]
    with torch.no_grad():
        logits, state = lm.prefill(*model.prefix(tokens, model.text_prefix(["question: what? answer:"])))
        ids, log_prob = [], 0.0
        while len(ids) < 200:
            log_probs = logits[0].log_softmax(-1)
            best = int(log_probs.argmax())
            log_prob += float(log_probs[best])
            if best == lm.end_id:
                break
            ids.append(best)
            logits, state = lm.step(torch.tensor([[best]]), state)
            logits = logits[:, -1]
    assert answer.text == lm.decode(ids).strip()
    assert answer.confidence == pytest.approx(math.exp(log_prob), rel=1e-3)


def test_likelihood_is_that_of_the_label_behind_the_prompt() -> None:
    audio = mixed(1.0, 3)
    found = PENGI.classify(audio, LABELS, prompt="the animal is")
    model, lm = PENGI.model, PENGI.model.language_model
    samples = torch.from_numpy(audio[0])[None]
    tokens = [branch.encoder(samples, torch.tensor([samples.shape[1]])) for branch in model.branches.values()]
    scores = []
    with torch.no_grad():
        prefix, _ = model.prefix(tokens, model.text_prefix(["the animal is"]))
        for label in LABELS:
            ids = [*lm.encode(" " + label), lm.end_id]
            sequence = torch.cat([prefix, lm.embed(torch.tensor([ids]))], 1)
            log_probs = lm.model(inputs_embeds=sequence).logits[0, prefix.shape[1] - 1 : -1].log_softmax(-1)
            picked = log_probs.gather(1, torch.tensor(ids)[:, None])
            scores.append(float(picked.mean()))
    shares = torch.tensor(scores).softmax(0).tolist()
    expected = dict(zip(LABELS, shares, strict=True))
    assert {score.label: score.probability for score in found.scores} == pytest.approx(expected, rel=1e-2, abs=1e-6)


def test_generated_labels_are_labels_and_the_nearest_one_is_matched() -> None:
    audio = mixed(1.0, 3)
    generated = PENGI.classify(audio, LABELS, method="generate")
    assert {score.label for score in generated.scores} == set(LABELS)
    matched = SENTENCE_PENGI.classify(audio, LABELS, method="match")
    encoder = SENTENCE_PENGI.model.text_encoder
    assert encoder is not None
    assert matched.text
    nearest = int((encoder.embed([matched.text]) @ encoder.embed(LABELS).T).argmax())
    assert matched.label == LABELS[nearest]


@pytest.mark.parametrize("method", METHODS)
def test_labels_count_once_and_the_best_come_first(method: str) -> None:
    audio = mixed(2.0, 5)
    whole = SENTENCE_PENGI.classify(audio, LABELS, method=method)
    again = SENTENCE_PENGI.classify(audio, [*LABELS, " dog ", "wind"], method=method)
    assert_same(again.to_dict(), whole.to_dict())
    assert whole.method == method
    shares = [score.probability for score in whole.scores]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1.0, abs=1e-5)
    assert SENTENCE_PENGI.classify(audio, LABELS, method=method, top=2).scores == whole.scores[:2]
    assert len(SENTENCE_PENGI.classify(audio, LABELS, method=method, top=99).scores) == len(LABELS)
    assert SENTENCE_PENGI.classify(audio, ["dog"], method=method).scores[0].probability == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda audio: PENGI.ask(audio, "  "), "the question is empty"),
        (lambda audio: PENGI.ask(audio, "what is it? " * 50), "the question is too long"),
        (lambda audio: PENGI.classify(audio, ["dog"], prompt="sound " * 99), "the prompt is too long"),
        (lambda audio: PENGI.classify(audio, []), "give at least one label, and no empty ones"),
        (lambda audio: PENGI.classify(audio, ["dog", " "]), "give at least one label, and no empty ones"),
        (lambda audio: PENGI.classify(audio, "dog"), "labels must be a list of strings, not one string"),
        (lambda audio: PENGI.classify(audio, None), "labels must be a list of strings"),
        (lambda audio: PENGI.classify(audio, 5), "labels must be a list of strings"),
        (lambda audio: PENGI.classify(audio, ["dog"], method="guess"), "unknown method 'guess'; choose one of like"),
        (lambda audio: PENGI.classify(audio, ["dog"], top=0), "top must be at least 1, not 0"),
        (lambda audio: PENGI.timeline(audio, window_s=0.0), "must be positive and no longer than window"),
        (lambda audio: PENGI.timeline(audio, window_s=2.0, hop_s=3.0), "no longer than window"),
        (lambda audio: PENGI.timeline(audio, hop_s=-1.0), "must be positive"),
        (lambda audio: PENGI.timeline(audio, window_s=math.nan), "must be positive"),
        (lambda audio: PENGI.timeline(audio, window_s=11.0), r"longer than the 10 s that 'tiny' encodes at once"),
    ],
)
def test_calls_that_make_no_sense(call: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(mixed(1.0, 0))


@pytest.mark.parametrize("call", CALLS)
def test_bad_recordings_get_an_error_in_their_place(call: str, bad_files: dict[str, Path], tone: Path) -> None:
    pengi = SENTENCE_PENGI
    run = CALLS[call]
    nan = recording(np.array([0.1, np.nan], np.float32))
    failing = FailingFile(tone.read_bytes(), 1000, OSError(errno.EIO, "Input/output error"))
    bad = [*bad_files.values(), failing, nan]
    with pytest.raises(AudioError, match=r"there is no file .*missing\.wav"):
        run(pengi, [tone, *bad])
    method, *arguments = {
        "describe": ("describe",), "ask": ("ask", "what do you hear?"), "embed": ("embed",), "timeline": ("timeline",),
    }.get(call, ("classify", LABELS))  # fmt: skip
    results = getattr(pengi, method)([tone, *bad, tone], *arguments, on_error="return")
    assert all(isinstance(result, AudioError) and "\n" not in str(result) for result in results[1:-1])
    expected = getattr(pengi, method)(tone, *arguments)
    assert_same(flat(results[0]), flat(expected))
    assert_same(flat(results[-1]), flat(expected))
    assert isinstance(getattr(pengi, method)(bad[0], *arguments, on_error="return"), AudioError)


def test_a_recording_that_breaks_off_late_is_an_error_and_harms_no_other() -> None:
    late = noise(25.0)
    late[24 * RATE] = np.inf
    results = PENGI.describe([mixed(11.0, 1), recording(late), mixed(3.0, 2)], on_error="return")
    assert isinstance(results[1], AudioError)
    assert_same(results[0].to_dict(), PENGI.describe(mixed(11.0, 1)).to_dict())
    assert_same(results[2].to_dict(), PENGI.describe(mixed(3.0, 2)).to_dict())


def test_what_is_no_audio_at_all() -> None:
    for nonsense in (None, 3, iter([]), io.StringIO("text"), ([0.1, 0.2], 16_000, 1)):
        with pytest.raises(PengiError):
            PENGI.describe(nonsense)


SILENT = {
    "digital zeros": (np.zeros(3 * RATE, np.float32), RATE),
    "noise at -80 dBFS": (noise(3.0, level=1e-4), RATE),
    "a constant offset": (np.full(3 * RATE, 0.1, np.float32), RATE),
    "a constant offset at another rate": (np.full(3 * 44_100, -0.4, np.float32), 44_100),
    "a constant offset and noise": (0.1 + noise(12.0, level=1e-5), RATE),
    "16-bit zeros": (np.zeros((2, 3 * RATE), np.int64), RATE),
}


@pytest.mark.parametrize("kind", SILENT)
def test_every_task_says_that_a_silent_recording_is_silent(kind: str) -> None:
    audio = SILENT[kind]
    sounding = mixed(1.0, 1)
    described, sound = PENGI.describe([audio, sounding])
    assert (described.text, described.events) == ("Silence.", (Event("silence", 1.0),))
    assert sound.text != "Silence."
    assert PENGI.events(audio) == (Event("silence", 1.0),)
    assert PENGI.timeline(audio).segments == (Segment(0.0, described.duration_s, "silence", 1.0),)
    answers = PENGI.ask([sounding, audio], ["what is it?", "is there a dog?"])
    assert answers[1] == Answer("is there a dog?", "The recording is silent.", 1.0)
    assert answers[0].text != answers[1].text
    assert PENGI.generate(audio, "generate audio caption").text == "The recording is silent."
    assert np.isfinite(PENGI.embed(audio)).all()


@pytest.mark.parametrize("method", METHODS)
def test_of_a_silent_recording_no_label_is_detected_but_silence(method: str) -> None:
    silent, sound = PENGI.classify([SILENT["a constant offset"], mixed(1.0, 1)], LABELS, method=method)
    assert not silent.detected
    assert silent.label == "silence"
    assert [(score.label, score.probability) for score in silent.scores] == [(label, 0.0) for label in sorted(LABELS)]
    assert silent.to_dict()["detected"] is False
    assert sound.detected
    assert sound.label in LABELS


def test_a_silent_recording_has_none_of_the_labels_also_by_themselves() -> None:
    silent = PENGI.classify(SILENT["a constant offset"], LABELS, none=True, multi_label=True, top=2)
    none, label = silent.scores
    assert (silent.label, none.probability, none.independent) == ("none of these", 1.0, None)
    assert (label.probability, label.independent) == (0.0, 0.0)


@pytest.mark.parametrize("label", ["silence", "Silence", "silent."])
def test_of_a_silent_recording_the_label_silence_wins(label: str) -> None:
    found = PENGI.classify(SILENT["digital zeros"], [*LABELS, label], top=2)
    assert found.detected
    assert found.label == label
    assert found.scores == (LabelScore(label, 1.0), LabelScore(min(LABELS), 0.0))


def test_a_constant_offset_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    samples, rate = mixed(12.0, 3)
    with_offset = [(samples, rate), (samples + np.float32(0.3), rate)]
    plain, offset = PENGI.embed(with_offset)
    np.testing.assert_allclose(offset, plain, atol=1e-4)
    levels = [recording.level_db for recording in PENGI.encode(with_offset)]
    assert levels[1] == pytest.approx(levels[0], abs=0.01)
    means: list[float] = []
    encode = PENGI.model.encode

    def watched(waveform_BS: torch.Tensor, lengths_B: torch.Tensor) -> Any:
        means.append(float(waveform_BS.mean()))
        return encode(waveform_BS, lengths_B)

    monkeypatch.setattr(PENGI.model, "encode", watched)
    PENGI.embed((np.float32(0.3) + tone(10.0), RATE))
    assert means == pytest.approx([0.0], abs=1e-3)


BAD_TEXTS: list[tuple[Any, str]] = [
    ("is it \ud800?", "not valid Unicode: character 7"),
    (b"dog", "must be a string, not bytes"),
    (5, "must be a string, not int"),
    (None, "must be a string, not NoneType"),
]


@pytest.mark.parametrize(("text", "message"), BAD_TEXTS)
def test_text_that_is_no_text(text: Any, message: str) -> None:
    audio = mixed(1.0, 0)
    calls: list[Callable[[], Any]] = [
        lambda: PENGI.ask(audio, text),
        lambda: PENGI.ask([audio, audio], ["what is it?", text]),
        lambda: PENGI.classify(audio, ["dog", text]),
        lambda: PENGI.generate(audio, text),
        lambda: PENGI.generate(audio, "generate metadata", extra_text=text),
    ]
    if text is not None:
        calls.append(lambda: PENGI.classify(audio, LABELS, prompt=text))
    for call in calls:
        with pytest.raises(InputError, match=message):
            call()


def test_lists_of_recordings_of_every_kind(tone: Path) -> None:
    expected = PENGI.ask(tone, "what is it?").to_dict()
    samples, rate = soundfile.read(tone, dtype="float32")
    rows = [
        {"array": samples, "sampling_rate": rate},
        {"bytes": None, "path": str(tone)},
        (torch.from_numpy(samples)[None], torch.tensor(rate)),
    ]
    paths = np.array([str(tone)] * 3)
    for recordings in (rows, paths, paths.astype(object), tuple(paths)):
        answers = PENGI.ask(recordings, np.array(["what is it?"] * 3))
        assert len(answers) == 3
        for answer in answers:
            assert_same(answer.to_dict(), expected)
    assert_same(PENGI.ask(rows[0], "what is it?").to_dict(), expected)


def test_a_recording_of_unknown_scale_among_others_is_its_own_error() -> None:
    integers = (tone(1.0) * 2**15).astype(np.int32)
    first, bad, last = PENGI.describe([mixed(1.0, 1), (integers, RATE), mixed(1.0, 2)], on_error="return")
    assert isinstance(first, Description)
    assert isinstance(last, Description)
    assert isinstance(bad, PengiError)
    assert "int16" in str(bad)


def test_a_sound_after_long_silence_is_detected() -> None:
    samples = np.concatenate([np.zeros(15 * RATE, np.float32), tone(5.0)])
    assert PENGI.describe(recording(samples)).text != "Silence."
    segments = PENGI.timeline(recording(samples)).segments
    assert segments[0] == Segment(0.0, 15.0, "silence", 1.0)
    assert (segments[-1].start_s, segments[-1].end_s) == (15.0, 20.0)
    assert segments[-1].text != "silence"


def test_embeddings_have_length_one_and_tell_sounds_apart() -> None:
    one, same, other = PENGI.embed([mixed(2.0, 1), mixed(4.0, 1), recording(noise(2.0))])
    assert one.dtype == np.float32
    assert np.linalg.norm(one) == pytest.approx(1.0, abs=1e-5)
    assert one @ same > one @ other


class Watched:
    """What went through the encoder and the language model, and how far the recording had been read by then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read_s = 0.0
        self.encoded: list[tuple[int, float]] = []
        self.prefixes: list[int] = []
        stream, encode = timelines.stream, RecordingEncoder.tokens
        prefill = type(PENGI.model.language_model).prefill

        def counted(*arguments: Any, **options: Any) -> Iterator[NDArray[np.float32]]:
            for block in stream(*arguments, **options):
                self.read_s += len(block) / RATE
                yield block

        def encoded(encoder: RecordingEncoder, windows: list[NDArray[np.float32]]) -> Any:
            self.encoded.append((len(windows), self.read_s))
            return encode(encoder, windows)

        def prefilled(lm: Any, embeds: torch.Tensor, mask: torch.Tensor) -> Any:
            self.prefixes.append(embeds.shape[1])
            return prefill(lm, embeds, mask)

        monkeypatch.setattr(timelines, "stream", counted)
        monkeypatch.setattr(RecordingEncoder, "tokens", encoded)
        monkeypatch.setattr(type(PENGI.model.language_model), "prefill", prefilled)


def test_two_minutes_are_encoded_in_bounded_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, np.concatenate([tone(60.0), noise(60.0)]), RATE)
    watched = Watched(monkeypatch)
    timeline = PENGI.timeline(path, window_s=2.0, hop_s=2.0)
    assert timeline.duration_s == pytest.approx(120.0)
    assert [windows for windows, _ in watched.encoded] == [1] * 60
    # The first batch of 32 s was encoded before more than a block or two beyond it was read.
    assert watched.encoded[0][1] <= 32 + 2 * 10
    watched.prefixes.clear()
    description = PENGI.describe(path)
    assert description.duration_s == pytest.approx(120.0)
    prompt = len(PENGI.model.language_model.encode("generate audio caption"))
    assert max(watched.prefixes) <= MAPPER["constants"] + 1 + prompt


def assert_tiled(timeline: Timeline, duration_s: float) -> None:
    segments = timeline.segments
    assert timeline.duration_s == pytest.approx(duration_s)
    assert segments[0].start_s == 0.0
    assert segments[-1].end_s == pytest.approx(duration_s)
    assert all(segment.start_s < segment.end_s for segment in segments)
    assert all(0 <= segment.confidence <= 1 for segment in segments)
    for one, other in itertools.pairwise(segments):
        assert one.end_s == other.start_s
        assert one.text != other.text


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 20 * RATE), st.floats(0.2, 10.0), st.floats(0.05, 1.0), st.lists(st.sampled_from("abb"), min_size=1)
)
@example(samples=19 * RATE, window_s=10.0, share=0.25, texts=["a", "b"])
@example(samples=44_096, window_s=0.33203125, share=1.0, texts=["a", "b"])  # where sums of seconds were rounded
def test_segments_tile_whatever_is_named(samples: int, window_s: float, share: float, texts: list[str]) -> None:
    windows: list[tuple[str, float]] = []

    def name(_: NamedTimelines, given: list[NDArray[np.float32]]) -> list[tuple[str, float]]:
        new = [(texts[(len(windows) + index) % len(texts)], 0.5) for index in range(len(given))]
        windows.extend(new)
        return new

    samples_S = np.full(samples, 0.1, np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NamedTimelines, "name", name)
        timeline = PENGI.timeline(recording(samples_S), window_s=window_s, hop_s=share * window_s)
    assert_tiled(timeline, samples / RATE)
    if len({text for text, _ in windows}) == 1:
        (segment,) = timeline.segments
        assert (segment.start_s, segment.text) == (0.0, windows[0][0])
        assert segment.end_s == pytest.approx(samples / RATE)
        assert segment.confidence == pytest.approx(0.5)


def test_a_rest_of_a_few_samples_is_no_segment_of_its_own() -> None:
    samples = np.concatenate([tone(5.0), noise(0.01)])
    timeline = PENGI.timeline(recording(samples))
    assert len(timeline.segments) == 1
    assert timeline.segments[0].end_s == timeline.duration_s == pytest.approx(5.01)


def finding(monkeypatch: pytest.MonkeyPatch, *texts: tuple[str, float], cut: str = "") -> None:
    """Let every search find these texts of these probabilities, all of them whole but one."""
    encode = PENGI.model.language_model.encode
    beams = [Hypothesis(tuple(encode(text)), (math.log(share),), text != cut) for text, share in texts]

    async def generated(generator: TextGenerator, encoded: Any, *_: Any, **__: Any) -> list[list[Hypothesis]]:
        return [beams] * len(encoded)

    monkeypatch.setattr(TextGenerator, "generate", generated)


def test_events_are_as_probable_as_the_texts_that_name_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def probabilities(*texts: tuple[str, float]) -> dict[str, float]:
        finding(monkeypatch, *texts)
        return {event.label: event.confidence for event in PENGI.events(mixed(0.5, 0))}

    texts = [(" rain, wind", 0.4), (" rain", 0.3), (" dog", 0.05)]
    expected = {"rain": pytest.approx(0.7), "wind": pytest.approx(0.4)}
    for said in (texts, [*texts, texts[1], texts[1]]):  # a sample that comes again is no further evidence
        assert probabilities(*said) == expected
    assert list(probabilities((" dog", 0.01))) == ["dog"]
    assert probabilities((" dog", 0.004), (" rain", 0.003)) == {}  # 0 % is no event
    assert probabilities((" Dog, rain", 0.2), (" dog", 0.3), (" dog, Dog", 0.1)) == {
        "dog": pytest.approx(0.6),
        "rain": pytest.approx(0.2),
    }


def test_from_pretrained_reads_a_folder_and_names_its_errors(tmp_path: Path) -> None:
    checkpoint.save(PENGI.model, tmp_path / "saved", card="")
    loaded = Pengi.from_pretrained(tmp_path / "saved", device="cpu")
    assert_same(loaded.describe(mixed(1.0, 1)).to_dict(), PENGI.describe(mixed(1.0, 1)).to_dict())
    with pytest.raises(WeightsError, match="there is no model named 'pengi-minni'; did you mean"):
        Pengi.from_pretrained("pengi-minni")
    for part in ("yamnet", "smollm2-135m-instruct"):  # whether it is on this machine or not
        with pytest.raises(CheckpointError, match=f"'{part}' is a part .*, not a model; models are pengi-mini, pengi-"):
            Pengi.from_pretrained(part)
    (tmp_path / "saved" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError):
        Pengi.from_pretrained(tmp_path / "saved")
    for device in ("gpu", "cuda:99"):
        with pytest.raises(ConfigError, match=f"device '{device}' is not available here"):
            Pengi.from_pretrained(tmp_path / "saved", device=device)


def test_a_tail_too_short_to_be_understood_joins_the_window_before_it() -> None:
    rate = 16_000
    for seconds, windows in ((10.0, 1), (10.05, 1), (10.5, 2), (20.05, 2)):
        waveform = noise(seconds, 0, 0.1)
        lengths = [len(window) for _, window in PENGI.windows((waveform, rate))]
        assert len(lengths) == windows
        assert sum(lengths) == len(waveform)


def test_results_say_how_a_recording_was_read(shared_cases: Path) -> None:
    path = shared_cases / "opposite-phase.flac"
    results = [
        PENGI.describe(path),
        PENGI.ask(path, "what is this?"),
        PENGI.generate(path, "this is"),
        PENGI.classify(path, ["a", "b"]),
        PENGI.timeline(path),
        PENGI.describe(PENGI.encode(path)),
    ]
    for result in results:
        assert len(result.notes) == 1
        assert f"the channels of '{path}' cancel each other out" in result.notes[0]
        assert result.to_dict()["notes"] == result.notes


def test_a_track_and_a_damaged_recording_can_be_asked_for(shared_cases: Path, tmp_path: Path) -> None:
    path = shared_cases / "two-tracks.mp4"
    assert "track 2 is read" in PENGI.describe(path).notes[0]
    assert PENGI.describe(path, track=1).notes == ()
    with pytest.raises(InputError, match="track must be a whole number, counted from 1, not '2'"):
        PENGI.describe(path, track="2")  # type: ignore[arg-type]
    (failed,) = PENGI.describe([path], track=3, on_error="return")
    assert "has 2 sound tracks, so there is no track 3" in str(failed)
    cut = tmp_path / "cut.flac"
    cut.write_bytes((shared_cases / "opposite-phase.flac").read_bytes()[:60_000])
    assert isinstance(PENGI.describe([cut], on_error="return")[0], AudioError)
    described = PENGI.describe(cut, partial=True)
    assert 0.5 < described.duration_s < 2.5
    assert f"only the first {described.duration_s:.2f} s of '{cut}' were read" in described.notes[0]
    assert PENGI.timeline(cut, partial=True).notes == described.notes


def test_a_text_is_given_while_it_is_written() -> None:
    audio = mixed(1.0, 2)
    for ask in (
        lambda on_text: PENGI.describe(audio, options=DecodeOptions(beams=1), on_text=on_text),
        lambda on_text: PENGI.ask(audio, "what is it?", on_text=on_text),
    ):
        pieces: list[str] = []
        text = ask(pieces.append).text
        assert len(pieces) > 1
        assert text.startswith("".join(pieces))
    unseen: list[str] = []
    assert PENGI.describe(audio, on_text=unseen.append).text
    assert PENGI.generate(audio, "this is", options=DecodeOptions(beams=2, max_tokens=4), on_text=unseen.append).texts
    assert not unseen
    with pytest.raises(InputError, match="on_text works with one recording, not with 2"):
        PENGI.describe([audio, audio], on_text=print)


def test_a_character_of_several_tokens_is_given_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = PENGI.model.language_model.encode
    tokens = encode(" a café €")
    assert len(encode("€")) == 3
    pieces: list[str] = []
    follow = _Pieces(PENGI._generator, pieces.append)
    for length in range(1, len(tokens) + 1):
        follow.add(tuple(tokens[:length]))
    assert pieces[-1] == " €"
    assert "".join(pieces) == "a café €"


def test_several_calls_that_run_at_a_time_give_the_results_of_the_methods() -> None:
    audio = [mixed(1.0, 0), b"<html>", mixed(2.7, 1)]
    for method, options in (
        ("ask", {"question": ["what?", "who?", "where?"]}),
        ("describe", {}),
        ("classify", {"labels": LABELS, "method": "generate"}),
        ("timeline", {}),
    ):
        found = run(PENGI.answering(method, audio, **options))
        expected = getattr(PENGI, method)(audio, **options, on_error="return")
        assert [str(result) for result in found] == [str(result) for result in expected]


@pytest.mark.parametrize("method", ["describe", "timeline"])
def test_an_unknown_way_with_errors_is_refused(method: str) -> None:
    with pytest.raises(InputError, match="on_error must be 'raise' or 'return', not 'ignore'"):
        getattr(PENGI, method)([], on_error="ignore")
