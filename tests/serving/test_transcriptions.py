"""Transcripts over OpenAI's protocol, with OpenAI's own client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from helpers.serving import PATIENCE_S, HeldEngine, clip, serving
from pengi.results import Transcript, TranscriptSegment, TranscriptWord

SAID = (
    TranscriptSegment(0.0, 2.5, "Come here.", (TranscriptWord("Come", 0.0, 1.0), TranscriptWord("here.", 1.5, 2.5))),
    TranscriptSegment(3661.25, 3662.0, "At <once> & now.", (TranscriptWord("At", 3661.25, 3661.5),)),
)


class SpeakingEngine(HeldEngine):
    """Hears the same in every recording that is longer than a second."""

    def transcribe(self, audio: Any, *, on_error: str) -> list[Transcript]:
        assert len(audio) == 1
        seconds = len(audio[0].samples) / audio[0].sample_rate
        segments = SAID if seconds > 1 else ()
        return [Transcript(" ".join(part.text for part in segments), segments, seconds)]


@pytest.fixture(scope="module")
def client() -> Iterator[openai.OpenAI]:
    with (
        serving(SpeakingEngine()) as http,
        openai.OpenAI(base_url=f"{http.base_url}/v1", api_key="none", max_retries=0, timeout=PATIENCE_S) as client,
    ):
        yield client


def test_text_and_times(client: openai.OpenAI) -> None:
    plain = client.audio.transcriptions.create(model="whisper-1", file=("a.wav", clip(1, 2.0)))
    assert plain.text == "Come here. At <once> & now."
    full = client.audio.transcriptions.create(
        model="held", file=("a.wav", clip(1, 2.0)), response_format="verbose_json", language="en"
    )
    assert (full.language, float(full.duration), full.text) == ("english", 2.0, plain.text)
    assert full.segments is not None
    assert [(part.id, part.start, part.end, part.text) for part in full.segments] == [
        (0, 0.0, 2.5, "Come here."),
        (1, 3661.25, 3662.0, "At <once> & now."),
    ]


def test_times_of_words(client: openai.OpenAI) -> None:
    def found(*granularities: Any) -> Any:
        return client.audio.transcriptions.create(
            model="held",
            file=("a.wav", clip(1, 2.0)),
            response_format="verbose_json",
            timestamp_granularities=list(granularities),
        )

    words = found("word").words
    assert [(word.word, word.start, word.end) for word in words] == [
        ("Come", 0.0, 1.0),
        ("here.", 1.5, 2.5),
        ("At", 3661.25, 3661.5),
    ]
    assert found("word").segments is None
    assert found("segment").words is None
    both = found("segment", "word")
    assert len(both.segments) == 2
    assert len(both.words) == 3


def test_subtitles(client: openai.OpenAI) -> None:
    def subtitles(name: Any, seconds: float = 2.0) -> Any:
        return client.audio.transcriptions.create(model="held", file=("a.wav", clip(1, seconds)), response_format=name)

    assert subtitles("text") == "Come here. At <once> & now.\n"
    assert subtitles("srt").startswith("1\n00:00:00,000 --> 00:00:02,500\nCome here.\n\n2\n01:01:01,250 --> ")
    assert subtitles("vtt").startswith("WEBVTT\n\n00:00:00.000 --> 00:00:02.500\nCome here.\n")
    assert "At &lt;once&gt; &amp; now." in subtitles("vtt")
    assert subtitles("vtt", 1.0) == "WEBVTT\n"
    assert subtitles("srt", 1.0) == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"language": "fr"}, "only English is transcribed"),
        ({"response_format": "diarized_json"}, "response_format"),
        ({"stream": True}, "is not streamed"),
    ],
)
def test_what_it_cannot_do_is_refused(client: openai.OpenAI, options: dict[str, Any], said: str) -> None:
    with pytest.raises(openai.BadRequestError, match=said):
        client.audio.transcriptions.create(model="held", file=("a.wav", clip(1)), **options)


def test_what_is_no_audio_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match="audio"):
        client.audio.transcriptions.create(model="held", file=("a.wav", b"no audio"))
