"""OpenAI's own client against a server on a real port."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Literal, cast

import httpx
import numpy as np
import openai
import pytest
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel

from helpers import RATE, noise
from helpers.serving import (
    EXAMPLES,
    PATIENCE_S,
    HeldEngine,
    StepSpy,
    clip,
    encoded,
    question,
    running,
    serving,
    wait_for,
)
from pengi import Pengi
from pengi.decoding import DecodeOptions
from pengi.serving import app as serving_app
from pengi.serving.app import create_app
from pengi.serving.settings import ServingSettings

QUESTION = "what is heard?"


def openai_client(client: httpx.Client, api_key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{client.base_url}/v1", api_key=api_key, max_retries=0, timeout=PATIENCE_S)


@pytest.fixture
def chat(client: httpx.Client) -> Iterator[openai.OpenAI]:
    with openai_client(client) as chat:
        yield chat


def test_an_answer_is_the_engines(chat: openai.OpenAI, tiny: Pengi) -> None:
    completion = chat.chat.completions.create(model="tiny", messages=question(clip(1), QUESTION))
    expected = tiny.ask(clip(1), QUESTION).text
    assert completion.choices[0].message.content == expected
    assert completion.choices[0].message.role == "assistant"
    assert completion.choices[0].finish_reason in ("stop", "length")
    assert (completion.object, completion.model) == ("chat.completion", "tiny")
    usage = completion.usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.audio_tokens == 110
    assert usage.prompt_tokens == 110 + tiny.count_tokens(QUESTION)
    assert usage.completion_tokens == tiny.count_tokens(expected)
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_the_length_of_answers_does_not_limit_a_sampled_description(
    chat: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_app, "ANSWER", replace(serving_app.ANSWER, max_tokens=1))
    monkeypatch.setattr(serving_app, "DESCRIBE", replace(serving_app.DESCRIBE, max_tokens=40))
    silent = encoded(np.zeros(RATE, np.float32))
    completion = chat.chat.completions.create(model="tiny", messages=question(silent), temperature=0.5)
    assert completion.choices[0].message.content == "Silence."
    assert completion.choices[0].finish_reason == "stop"


def test_a_silent_recording_is_answered_as_silent(chat: openai.OpenAI) -> None:
    silent = encoded(np.full(RATE, 0.1, np.float32))
    for words, text in (([QUESTION], "The recording is silent."), ([], "Silence.")):
        completion = chat.chat.completions.create(model="tiny", messages=question(silent, *words))
        assert completion.choices[0].message.content == text


def test_a_stream_is_the_same_answer(chat: openai.OpenAI, tiny: Pengi) -> None:
    stream = chat.chat.completions.create(
        model="tiny", messages=question(clip(1), QUESTION), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == tiny.ask(clip(1), QUESTION).text
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] in ("stop", "length")
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == 110 + tiny.count_tokens(QUESTION)
    assert all(chunk.usage is None for chunk in chunks[:-1])


def streamed(chat: openai.OpenAI) -> openai.Stream[ChatCompletionChunk]:
    """An answer of 12 tokens."""
    return chat.chat.completions.create(model="tiny", messages=question(clip(1), QUESTION), stream=True, max_tokens=12)


def pieces(stream: openai.Stream[ChatCompletionChunk]) -> Iterator[str]:
    return (chunk.choices[0].delta.content for chunk in stream if chunk.choices[0].delta.content)


def test_a_stream_is_sent_while_the_answer_is_written(chat: openai.OpenAI, tiny: Pengi, steps: StepSpy) -> None:
    received = threading.Event()
    seen: list[bool] = []
    steps.before[10] = lambda: seen.append(received.wait(PATIENCE_S))
    found = []
    for piece in pieces(streamed(chat)):
        received.set()
        found.append(piece)
    assert seen == [True]
    options = DecodeOptions(beams=1, max_tokens=12)
    assert "".join(found) == tiny.ask(clip(1), QUESTION, options=options).text


def test_an_error_in_the_middle_of_a_stream_is_the_clients_own_error(chat: openai.OpenAI, steps: StepSpy) -> None:
    def fail() -> None:
        raise RuntimeError("broken in the middle")

    steps.before[10] = fail
    with pytest.raises(openai.APIError, match="internal error"):
        list(pieces(streamed(chat)))


def test_a_client_that_hangs_up_ends_the_search(tiny: Pengi, steps: StepSpy) -> None:
    app = create_app(tiny, ServingSettings(page=False))
    with running(app) as (url, _), openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as chat:
        inside = app.state.worker._accepted
        steps.before[9] = lambda: wait_for(lambda: all(request.future.cancelled() for request in inside))
        stream = streamed(chat)
        assert next(pieces(stream))
        stream.close()
        wait_for(lambda: not inside)
    assert len(steps.rows) <= 10


def test_a_stream_of_what_is_not_written_token_by_token_is_whole(chat: openai.OpenAI) -> None:
    silent = encoded(np.full(RATE, 0.1, np.float32))
    stream = chat.chat.completions.create(model="tiny", messages=question(silent, QUESTION), stream=True)
    assert list(pieces(stream)) == ["The recording is silent."]


def test_audio_alone_is_described(chat: openai.OpenAI, tiny: Pengi) -> None:
    completion = chat.chat.completions.create(model="tiny", messages=question(clip(2)))
    assert completion.choices[0].message.content == tiny.describe(clip(2)).text


def test_a_second_question_is_about_the_same_recording(chat: openai.OpenAI, tiny: Pengi) -> None:
    talk = question(clip(1), QUESTION)
    first = chat.chat.completions.create(model="tiny", messages=talk).choices[0].message
    talk += [{"role": "assistant", "content": first.content}, {"role": "user", "content": "is it loud?"}]
    second = chat.chat.completions.create(model="tiny", messages=talk).choices[0].message
    assert second.content == tiny.ask(clip(1), "is it loud?").text


def test_options_reach_the_search(chat: openai.OpenAI, tiny: Pengi) -> None:
    completion = chat.chat.completions.create(
        model="tiny", messages=question(clip(1), QUESTION), temperature=1.0, top_p=0.9, seed=5, max_completion_tokens=4
    )
    options = DecodeOptions(beams=1, max_tokens=4, temperature=1.0, top_p=0.9, seed=5)
    assert completion.choices[0].message.content == tiny.ask(clip(1), QUESTION, options=options).text


@pytest.mark.parametrize("container", ["wav", "mp3", "flac", "ogg"])
def test_formats(chat: openai.OpenAI, tiny: Pengi, container: str) -> None:
    content = encoded(noise(1.0, 3), container.upper())
    completion = chat.chat.completions.create(model="tiny", messages=question(content, QUESTION, container=container))
    assert completion.choices[0].message.content == tiny.ask(content, QUESTION).text


def test_what_clients_send_as_null_changes_nothing(chat: openai.OpenAI, tiny: Pengi) -> None:
    nothing: Any = {"max_tokens": None, "max_completion_tokens": None, "n": None, "temperature": None, "seed": None}
    for stop in ("", [], None):
        completion = chat.chat.completions.create(
            model="tiny", messages=question(clip(1), QUESTION), stop=stop, stream=None, **nothing
        )
        assert completion.choices[0].message.content == tiny.ask(clip(1), QUESTION).text


def test_audio_url(chat: openai.OpenAI, tiny: Pengi) -> None:
    def asked(url: str) -> Any:
        part = {"type": "audio_url", "audio_url": {"url": url}}
        return [{"role": "user", "content": [part, {"type": "text", "text": QUESTION}]}]

    data = base64.urlsafe_b64encode(clip(1)).decode().rstrip("=")
    completion = chat.chat.completions.create(model="tiny", messages=asked(f" DATA:audio/wav;base64,\n{data}"))
    assert completion.choices[0].message.content == tiny.ask(clip(1), QUESTION).text
    with pytest.raises(openai.BadRequestError, match="addresses are not fetched"):
        chat.chat.completions.create(model="tiny", messages=asked("https://127.0.0.1:1/a.wav"))


def test_models(chat: openai.OpenAI) -> None:
    assert [model.id for model in chat.models.list()] == ["tiny"]
    assert chat.models.retrieve("tiny").owned_by == "pengi"
    with pytest.raises(openai.NotFoundError, match="this server runs 'tiny'"):
        chat.models.retrieve("gpt-4o-audio-preview")


def test_mistakes_are_the_clients_own_errors(chat: openai.OpenAI) -> None:
    create = chat.chat.completions.create
    with pytest.raises(openai.BadRequestError, match="no audio in the conversation") as no_audio:
        create(model="tiny", messages=[{"role": "user", "content": "what is it?"}])
    assert (no_audio.value.code, no_audio.value.type) == ("no_audio", "invalid_request_error")
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-4o'"):
        create(model="gpt-4o", messages=question(clip(1), QUESTION))
    with pytest.raises(openai.UnprocessableEntityError, match="not audio in any format"):
        create(model="tiny", messages=question(b"no audio at all", QUESTION))
    with pytest.raises(openai.UnprocessableEntityError, match="longer than the 60 seconds"):
        create(model="tiny", messages=question(encoded(noise(61.0), "FLAC"), QUESTION))
    with pytest.raises(openai.BadRequestError, match="'n' is not supported"):
        create(model="tiny", messages=question(clip(1), QUESTION), n=2)
    with pytest.raises(openai.BadRequestError, match="less than or equal to 2"):
        create(model="tiny", messages=question(clip(1), QUESTION), temperature=3)
    with pytest.raises(openai.BadRequestError, match="too long"):
        create(model="tiny", messages=question(clip(1), "why " * 400))
    image: Any = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/"}}]}]
    with pytest.raises(openai.BadRequestError, match="addresses are not fetched"):
        create(model="tiny", messages=image, stream=True)


def test_too_large_is_an_error_before_the_stream_begins(chat: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError, match="too large") as caught:
        chat.chat.completions.create(model="tiny", messages=question(bytes(2_100_000), QUESTION), stream=True)
    assert caught.value.status_code == 413


def test_the_key(tiny: Pengi) -> None:
    with serving(tiny, api_key="correct horse") as client:
        with openai_client(client, "wrong horse") as wrong, pytest.raises(openai.AuthenticationError, match="API key"):
            wrong.models.list()
        with openai_client(client, "correct horse") as right:
            assert [model.id for model in right.models.list()] == ["tiny"]


def test_a_busy_server_says_so(held: HeldEngine) -> None:
    with serving(held, max_requests=1) as client, openai_client(client) as chat, ThreadPoolExecutor(1) as pool:
        create = chat.chat.completions.create
        first = pool.submit(create, model="held", messages=question(clip(0), QUESTION))
        wait_for(held.started.is_set)
        with pytest.raises(openai.RateLimitError, match="busy") as caught:
            create(model="held", messages=question(clip(0), QUESTION))
        assert 1 <= int(caught.value.response.headers["retry-after"]) <= 60
        assert client.get("/healthz").status_code == 200
        held.free.set()
        assert first.result(PATIENCE_S).choices[0].message.content == f"{QUESTION} of 1.00 s"


def test_many_at_once_share_calls(held: HeldEngine) -> None:
    async def ask(url: str, count: int) -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=PATIENCE_S) as chat:
            create = chat.chat.completions.create
            tasks = [
                asyncio.ensure_future(create(model="held", messages=question(clip(0), f"question {number}")))
                for number in range(count)
            ]
            worker = app.state.worker
            while len(worker._waiting) + sum(held.encoded) < count:  # decoded, all of them
                await asyncio.sleep(0.005)
            held.free.set()
            return [completion.choices[0].message.content for completion in await asyncio.gather(*tasks)]

    app = create_app(held, ServingSettings(page=False, batch_size=16))
    with running(app) as (url, _):
        texts = asyncio.run(ask(f"{url}/v1", 12))
    assert texts == [f"question {number} of 1.00 s" for number in range(12)]
    assert sum(held.encoded) == 12
    assert len(held.encoded) <= 4


def test_the_shipped_model_answers_as_it_does_alone(pengi_mini: Pengi) -> None:
    content = (EXAMPLES / "woman.opus").read_bytes()
    with serving(pengi_mini) as client, openai_client(client) as chat:
        messages = question(content, "is someone speaking?", container="opus")
        answer = chat.chat.completions.create(model="pengi-mini", messages=messages).choices[0].message.content
    assert answer == pengi_mini.ask(EXAMPLES / "woman.opus", "is someone speaking?").text
    assert answer is not None
    assert "yes" in answer.lower()


def test_an_answer_follows_a_json_schema(chat: openai.OpenAI) -> None:
    class Scene(BaseModel):
        is_loud: bool
        place: Literal["indoors", "outdoors"]

    parsed = chat.chat.completions.parse(
        model="tiny", messages=question(clip(1), QUESTION), response_format=Scene
    ).choices[0]
    assert isinstance(parsed.message.parsed, Scene)
    assert parsed.finish_reason == "stop"
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"enum": ["a", "b"]}}}
    text = chat.chat.completions.create(
        model="tiny", messages=question(clip(1)), response_format=cast("Any", schema)
    ).choices[0].message.content  # fmt: skip
    assert text in ('"a"', '"b"')
    wrong = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "sound"}}}
    with pytest.raises(openai.BadRequestError, match="the JSON schema cannot be followed"):
        chat.chat.completions.create(
            model="tiny", messages=question(clip(1), QUESTION), response_format=cast("Any", wrong)
        )
