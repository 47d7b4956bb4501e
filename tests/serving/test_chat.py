"""The question of a conversation, and the form of an answer: without a server."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pengi.decoding import DecodeOptions
from pengi.serving.chat import MAX_ANSWER_TOKENS, NEUTRAL, ChatRequest, Chunks, Completion, decoded, last_question
from pengi.serving.costs import Cost
from pengi.serving.replies import RefusalError

DEFAULT = DecodeOptions(beams=5, max_tokens=30)


def audio(data: str) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts) if not isinstance(parts[0], str) else parts[0]}


def request(*messages: dict[str, Any], **options: Any) -> ChatRequest:
    return ChatRequest.model_validate({"model": "tiny", "messages": messages or [user("hello")], **options})


def refused(message: str, *messages: dict[str, Any]) -> RefusalError:
    with pytest.raises(RefusalError, match=message) as caught:
        last_question(request(*messages).messages)
    assert caught.value.status_code == 400
    return caught.value


@pytest.mark.parametrize(
    ("messages", "recording", "question"),
    [
        ([user(audio("A"), text("what is it?"))], "A", "what is it?"),
        ([user(text("what is it?"), audio("A"))], "A", "what is it?"),
        ([user(audio("A"))], "A", ""),
        ([user(audio("A"), text("what?")), {"role": "assistant", "content": "a dog"}, user("why?")], "A", "why?"),
        ([user(audio("A"), text("what?")), user(audio("B"), text("and this?"))], "B", "and this?"),
        ([user(audio("A"), text("what?")), user(audio("B"))], "B", "what?"),
        ([user(audio("A"), text("one"), text(" two ")), {"role": "assistant", "content": None}], "A", "one two"),
        ([{"role": "system", "content": "be brief"}, user(audio("A"), audio("B"), text("what?"))], "B", "what?"),
        ([user("listen"), user(audio("A"))], "A", "listen"),
        ([user(audio("A"), text("  "))], "A", ""),
    ],
)  # fmt: skip
def test_the_last_question_about_the_last_audio(messages: list[Any], recording: str, question: str) -> None:
    found = last_question(request(*messages).messages)
    assert (found.audio, found.question) == (recording, question)


def test_what_cannot_be_answered() -> None:
    assert refused("there is no audio", user("what is it?")).code == "no_audio"
    assert refused("there is no audio", {"role": "assistant", "content": [audio("A")]}).code == "no_audio"
    picture = {"type": "image_url", "image_url": {"url": "http://127.0.0.1/cat.png"}}
    assert refused("'image_url' is not 'text'", user(audio("A"), picture)).param == "messages.0.content"
    assert refused("longer than 2000 characters", user(audio("A"), text("x" * 2001)))


@given(st.binary(max_size=200), st.integers(1, 80))
def test_base64_as_clients_write_it(content: bytes, width: int) -> None:
    data = base64.b64encode(content).decode()
    lines = "\r\n".join(data[start : start + width] for start in range(0, len(data), width))
    for form in (
        data,
        lines,
        f"\n {data} ",
        data.rstrip("="),
        base64.urlsafe_b64encode(content).decode(),
        f"data:audio/wav;base64,{data}",
        f"DATA:audio/wav;BASE64,{data}",
        f" \n data:audio/ogg; codecs=opus;base64, {lines}\n",
        f"data:;base64,{quote(data, safe='')}",
    ):
        assert decoded(form) == content


@pytest.mark.parametrize("data", ["!", "A", "QUJD*", "QUJDA", "ÄÖÜ=", "data:audio/wav;base64,?", "QQ==QQ==", "dog.wav"])
def test_what_is_no_base64(data: str) -> None:
    with pytest.raises(RefusalError, match="not valid base64") as caught:
        decoded(data)
    assert caught.value.status_code == 400


@pytest.mark.parametrize("url", ["data:audio/wav;base64", "data:audio/wav,RIFF", "data:,", "data:"])
def test_a_data_url_without_base64(url: str) -> None:
    with pytest.raises(RefusalError, match="must begin like 'data:audio/wav;base64,'"):
        decoded(url)


@pytest.mark.parametrize(
    "data", ["http://127.0.0.1:1/a.wav", " https://example.org/a.wav", "file:///etc/passwd", "s3://bucket/a.wav"]
)
def test_nothing_is_fetched(data: str) -> None:
    with pytest.raises(RefusalError, match="addresses are not fetched"):
        decoded(data)


@pytest.mark.parametrize("value", [{"url": "data:audio/wav;base64,A"}, "data:audio/wav;base64,A"])
def test_a_recording_as_a_data_url_as_clients_of_vllm_send_it(value: Any) -> None:
    found = last_question(request(user({"type": "audio_url", "audio_url": value}, text("what?"))).messages)
    assert (found.audio, found.question) == ("data:audio/wav;base64,A", "what?")


def test_how_an_answer_is_decoded() -> None:
    assert request().decoding(DEFAULT) is None
    assert request(temperature=0, top_p=1).decoding(DEFAULT) is None
    assert request(max_tokens=7).decoding(DEFAULT) == DecodeOptions(beams=5, max_tokens=7)
    assert request(max_tokens=7, max_completion_tokens=9).decoding(DEFAULT) == DecodeOptions(beams=5, max_tokens=9)
    assert request(max_tokens=10**9).decoding(DEFAULT) == DecodeOptions(beams=5, max_tokens=MAX_ANSWER_TOKENS)
    sampled = DecodeOptions(beams=1, max_tokens=30, temperature=0.7, top_p=0.9, seed=3)
    assert request(temperature=0.7, top_p=0.9, seed=3).decoding(DEFAULT) == sampled


def test_options_that_change_nothing() -> None:
    for name, values in NEUTRAL.items():
        for value in (None, *values):
            given = request(**{name: value}, user="me", metadata={"a": "b"})
            given.refuse_unsupported()
            assert given.decoding(DEFAULT) is None


def test_every_option_may_be_null() -> None:
    names = set(ChatRequest.model_fields) - {"model", "messages"}
    assert request(**dict.fromkeys(names)).decoding(DEFAULT) is None
    assert request(stream_options={"include_usage": None}).decoding(DEFAULT) is None


def test_options_the_model_does_not_have() -> None:
    for name, value in {"n": 2, "tools": [{"type": "function"}], "stop": "x"}.items():
        with pytest.raises(RefusalError, match=f"'{name}' is not supported") as caught:
            request(**{name: value}).refuse_unsupported()
        assert caught.value.param == name


def test_the_format_of_the_answer_is_a_schema() -> None:
    assert request(response_format={"type": "text"}).schema_text is None
    assert request(response_format={"type": "json_object"}).schema_text == '{"type": "object"}'
    schema = {"type": "array"}
    asked = request(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}})
    assert asked.schema_text == '{"type": "array"}'
    options = asked.decoding(DEFAULT)
    assert options is not None
    assert options.max_tokens == 200
    with pytest.raises(ValidationError):
        request(response_format={"type": "json"})


@given(st.text(max_size=80))
def test_a_stream_says_what_the_whole_says(words: str) -> None:
    completion = Completion("tiny", words, "stop", cost=Cost(audio=1, text=2, generated=9), completion_tokens=4)
    chunks_of = Chunks("tiny", include_usage=True)
    pieces = [words[start : start + 7] for start in range(0, len(words), 7)]
    events = [chunks_of.start(), *map(chunks_of.piece, pieces), *chunks_of.end(completion)]
    assert all(event.startswith("data: ") and event.endswith("\n\n") and event.count("\n") == 2 for event in events)
    assert events[-1] == "data: [DONE]\n\n"
    chunks = [json.loads(event[6:]) for event in events[:-1]]
    assert len({chunk["id"] for chunk in chunks}) == 1
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]
    assert deltas[0]["role"] == "assistant"
    assert "".join(delta.get("content", "") for delta in deltas) == words
    assert chunks[-1]["usage"] == completion.to_dict()["usage"] == completion.usage
    assert completion.usage["total_tokens"] == 7
