"""The OpenAI protocol: chat completions about sound.

The last text of the user is a question about the last audio of the user. So a second question about the same recording
is just another message. Earlier answers and system messages do not reach the model, which reads only a recording and a
question. Without any text the recording is described.
"""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator

from pengi.decoding import DecodeOptions
from pengi.serving.costs import Cost
from pengi.serving.replies import RefusalError

MAX_MESSAGES = 200
MAX_QUESTION = 2000  # characters
MAX_ANSWER_TOKENS = 200
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "tools": ([],),
    "functions": ([],),
    "stop": ("", [], [""]),
    "logprobs": (False,),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "modalities": (["text"],),
    "audio": (),
}
"""Unsupported options of the protocol, with the values besides null that have no effect; other values are refused."""
_STANDARD_ALPHABET = str.maketrans("-_", "+/")


class AudioData(BaseModel):
    """A recording inside JSON."""

    data: str = Field(description="The recording as base64 or as a data URL. Nothing is fetched from an address.")
    format: str | None = Field(None, description="wav, mp3, ...; may be absent, since the content is examined.")


class AudioPart(BaseModel):
    """A part of a message that holds a recording."""

    type: Literal["input_audio"]
    input_audio: AudioData


class AudioUrl(BaseModel):
    """A recording as a data URL, as clients of vLLM send it."""

    url: str = Field(description="data:audio/wav;base64,... Nothing is fetched from an address.")


class AudioUrlPart(BaseModel):
    """A part of a message that holds a recording, in vLLM's form."""

    type: Literal["audio_url"]
    audio_url: AudioUrl

    @field_validator("audio_url", mode="before")
    @classmethod
    def _object(cls, value: Any) -> Any:
        """A plain string is the URL."""
        return {"url": value} if isinstance(value, str) else value


class TextPart(BaseModel):
    """A part of a message that holds text."""

    type: Literal["text"]
    text: str


class OtherPart(BaseModel):
    """A part of a kind that this server does not know."""

    type: str


def _kind_of_part(part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else getattr(part, "type", None)
    return kind if kind in ("text", "input_audio", "audio_url") else "other"


ContentPart = Annotated[
    Annotated[TextPart, Tag("text")]
    | Annotated[AudioPart, Tag("input_audio")]
    | Annotated[AudioUrlPart, Tag("audio_url")]
    | Annotated[OtherPart, Tag("other")],
    Discriminator(_kind_of_part),
]


class Message(BaseModel):
    """One message of a conversation."""

    role: str
    content: list[ContentPart] | None = Field(None, description="Components, or plain text.")

    @field_validator("content", mode="before")
    @classmethod
    def _parts(cls, content: Any) -> Any:
        """Plain text is one part. (A union of both would report every mistake twice.)"""
        return [{"type": "text", "text": content}] if isinstance(content, str) else content


class StreamOptions(BaseModel):
    """How to stream."""

    include_usage: bool | None = None


class JsonSchema(BaseModel):
    """A schema with a name, as OpenAI's clients send it."""

    model_config = ConfigDict(extra="allow")

    schema_: dict[str, Any] = Field({"type": "object"}, alias="schema")


class ResponseFormat(BaseModel):
    """What the text of an answer is."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @property
    def schema_text(self) -> str | None:
        """The JSON schema of the text, as JSON; None for any text."""
        if self.type == "text":
            return None
        return json.dumps({"type": "object"} if self.json_schema is None else self.json_schema.schema_)


class ChatRequest(BaseModel):
    """The body of a chat completion, as OpenAI's clients send it."""

    model_config = ConfigDict(extra="allow")

    model: str
    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2, description="above 0 samples; otherwise beam search decides")
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = None
    response_format: ResponseFormat | None = Field(None, description="text, or JSON that follows a schema")

    @property
    def schema_text(self) -> str | None:
        """The JSON schema of the answer, as JSON; None for any text."""
        return None if self.response_format is None else self.response_format.schema_text

    def refuse_unsupported(self) -> None:
        """Check that no option is given that the model does not have.

        Raises:
            RefusalError: if there is one.
        """
        for name, value in (self.model_extra or {}).items():
            if value is not None and name in NEUTRAL and value not in NEUTRAL[name]:
                raise RefusalError(400, f"'{name}' is not supported; leave it out", code="unsupported", param=name)

    def decoding(self, default: DecodeOptions) -> DecodeOptions | None:
        """How the answer is generated; None is the model's default."""
        requested = self.max_completion_tokens or self.max_tokens
        if self.schema_text is not None:  # its value may be an object or a list
            requested = requested or MAX_ANSWER_TOKENS
        given: dict[str, Any] = {} if requested is None else {"max_tokens": min(requested, MAX_ANSWER_TOKENS)}
        if self.temperature:
            given |= {"beams": 1, "temperature": self.temperature, "top_p": self.top_p or 1.0, "seed": self.seed}
        return replace(default, **given) if given else None


@dataclass(frozen=True)
class AudioQuestion:
    """The recording and the question of a conversation."""

    audio: str
    """Base64 or a data URL."""
    question: str
    """Empty if the recording is to be described."""


def last_question(messages: list[Message]) -> AudioQuestion:
    """The user's last text and the user's last audio.

    Raises:
        RefusalError: if there is no audio, a part is neither text nor audio, or the question is too long.
    """
    audio: str | None = None
    question = ""
    for index, message in enumerate(messages):
        if message.role != "user" or message.content is None:
            continue
        for part in message.content:
            if isinstance(part, AudioPart):
                audio = part.input_audio.data
            elif isinstance(part, AudioUrlPart):
                audio = part.audio_url.url
            elif isinstance(part, OtherPart):
                raise RefusalError(
                    400,
                    f"a part of type '{part.type[:40]}' is not 'text', 'input_audio' or 'audio_url'; send recordings "
                    "as base64 in 'input_audio', addresses are not fetched",
                    code="unsupported_content",
                    param=f"messages.{index}.content",
                )
        text = " ".join(part.text.strip() for part in message.content if isinstance(part, TextPart)).strip()
        question = text or question
    if audio is None:
        raise RefusalError(
            400,
            "there is no audio in the conversation; add a part {'type': 'input_audio', 'input_audio': {'data': BASE64, "
            "'format': 'wav'}} to a user's message",
            code="no_audio",
            param="messages",
        )
    if len(question) > MAX_QUESTION:
        raise RefusalError(
            400, f"the question is longer than {MAX_QUESTION} characters", code="bad_input", param="messages"
        )
    return AudioQuestion(audio, question)


def decoded(audio: str) -> bytes:
    """The bytes of a recording, from base64 or a data URL.

    All variants that clients send are accepted: white space anywhere, the URL-safe alphabet, no padding, ``DATA:`` in
    capitals.

    Raises:
        RefusalError: if it is another URL, or not base64.
    """
    data = audio.lstrip()
    if data[:5].lower() == "data:":
        data = _content_of_data_url(data)
    elif "://" in data[:20]:
        raise RefusalError(
            400,
            "addresses are not fetched; send the bytes of the recording as base64 or as a data URL",
            code="unsupported_content",
        )
    data = "".join(data.split()).rstrip("=").translate(_STANDARD_ALPHABET)
    try:
        return base64.b64decode(data + "=" * (-len(data) % 4), validate=True)
    except ValueError as error:  # also for characters outside of ASCII
        raise RefusalError(
            400, "the recording is not valid base64; send the bytes of the file, not its name", code="invalid_base64"
        ) from error


def _content_of_data_url(url: str) -> str:
    """The base64 in ``data:audio/wav;base64,...``.

    Raises:
        RefusalError: if there is none.
    """
    head, comma, content = url.partition(",")
    if not comma or not head.rstrip().lower().endswith(";base64"):
        raise RefusalError(
            400, "the data URL must begin like 'data:audio/wav;base64,' followed by base64", code="invalid_base64"
        )
    return unquote(content) if "%" in content else content


@dataclass(frozen=True)
class Completion:
    """An answer in the form of OpenAI's protocol."""

    model: str
    text: str
    finish_reason: Literal["stop", "length"]
    cost: Cost
    """Of the request."""
    completion_tokens: int
    """Of the text."""

    @property
    def usage(self) -> dict[str, Any]:
        """The numbers of tokens."""
        return {
            "prompt_tokens": self.cost.prompt,
            "prompt_tokens_details": {"audio_tokens": self.cost.audio},
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.cost.prompt + self.completion_tokens,
        }

    def to_dict(self) -> dict[str, Any]:
        """The body of the response."""
        message = {"role": "assistant", "content": self.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self.finish_reason}
        return {**_head("chat.completion", self.model), "choices": [choice], "usage": self.usage}


class Chunks:
    """An answer as server-sent events, one for every piece of its text.

    Args:
        model: its name.
        include_usage: whether the numbers of tokens follow the answer.
    """

    def __init__(self, model: str, *, include_usage: bool = False) -> None:
        self._head = _head("chat.completion.chunk", model)
        self._include_usage = include_usage

    def start(self) -> str:
        """The first event."""
        return self._chunk({"role": "assistant", "content": ""})

    def piece(self, text: str) -> str:
        """A piece of the text."""
        return self._chunk({"content": text})

    def end(self, completion: Completion) -> Iterator[str]:
        """The last events of an answer that is complete."""
        yield self._chunk({}, completion.finish_reason)
        if self._include_usage:
            yield event({**self._head, "choices": [], "usage": completion.usage})
        yield "data: [DONE]\n\n"

    def _chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return event({**self._head, "choices": [choice]})


def _head(kind: str, model: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": None,
    }


def event(value: dict[str, Any]) -> str:
    """A server-sent event; an error after the first event has the form that OpenAI's clients raise."""
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
