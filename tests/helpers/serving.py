"""Engines to serve, recordings to send, and servers on free ports that end with the test."""

from __future__ import annotations

import base64
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from fastapi import FastAPI
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from torch import Tensor

from helpers import RATE, noise, tone
from pengi import Pengi
from pengi.results import Answer, Classification, Description, LabelScore, Tags, Timeline
from pengi.serving.app import create_app
from pengi.serving.server import Server
from pengi.serving.settings import ServingSettings

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PATIENCE_S = 60.0
"""Longer than anything here takes, also on a busy machine."""


def encoded(samples: NDArray[np.float32], container: str = "WAV", rate: int = RATE, **options: Any) -> bytes:
    """Samples as the content of a file."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container, **options)
    return file.getvalue()


def clip(seed: int, seconds: float = 1.0) -> bytes:
    """A WAV file of a tone in noise, another one for every seed."""
    return encoded(tone(seconds, 150.0 * (seed + 1)) + noise(seconds, seed, 0.05))


def question(content: bytes, *texts: str, container: str = "wav") -> list[Any]:
    """The messages of a chat: a user's recording, and perhaps text."""
    data = {"data": base64.b64encode(content).decode(), "format": container}
    words = [{"type": "text", "text": text} for text in texts]
    return [{"role": "user", "content": [{"type": "input_audio", "input_audio": data}, *words]}]


class HeldEngine:
    """Answers with what it was given, but only while ``free`` is set.

    Attributes:
        calls: the batches that it got.
        encoded: numbers of recordings that were encoded together.
    """

    name = "held"
    sample_rate = RATE

    def __init__(self) -> None:
        self.free = threading.Event()
        self.calls: list[tuple[str, list[float]]] = []
        self.encoded: list[int] = []
        self.started = threading.Event()
        self.windows = 0

    has_tagger = False

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def labels_without_tag(self, labels: Sequence[str]) -> list[str]:
        return list(labels)

    def encode(self, audio: Any, *, on_error: str) -> list[Any]:
        self.encoded.append(len(audio))
        return list(audio)

    async def answering(self, method: str, audio: Any, /, **options: Any) -> list[Any]:
        answers: list[Any] = getattr(self, method)(audio, **options, on_error="return")
        return answers

    def describe(self, audio: Any, *, on_error: str, **_options: Any) -> list[Any]:
        return self._each("describe", audio, lambda index, s: Description(f"{s:.2f} s", (), s))

    def ask(self, audio: Any, *, question: Sequence[str], on_error: str, **_options: Any) -> list[Any]:
        if "break" in question:
            raise RuntimeError("broken by a question")
        return self._each(
            "ask", audio, lambda index, s: Answer(question[index], f"{question[index]} of {s:.2f} s", 1.0)
        )

    def classify(self, audio: Any, labels: Sequence[str], *, on_error: str, **_options: Any) -> list[Any]:
        scores = tuple(LabelScore(label, 1 / len(labels)) for label in labels)
        return self._each("classify", audio, lambda index, s: Classification("likelihood", scores))

    def tags(self, audio: Any, *, on_error: str) -> list[Any]:
        return self._each("tags", audio, lambda index, s: Tags((), s))

    def embed(self, audio: Any, *, on_error: str) -> list[Any]:
        return self._each("embed", audio, lambda index, s: np.full(2, s, np.float32))

    def timeline(self, audio: Any, *, progress: Callable[[float], None], on_error: str) -> list[Any]:
        """Reads a window at a time until it is set free."""
        self.started.set()
        until = time.monotonic() + PATIENCE_S
        while not self.free.is_set():
            assert time.monotonic() < until
            self.windows += 1
            progress(float(self.windows))
        return [Timeline((), 0.0)]

    def _each(self, task: str, audio: Any, answer: Callable[[int, float], Any]) -> list[Any]:
        self.calls.append((task, [len(samples) / rate for samples, rate in audio]))
        self.started.set()
        assert self.free.wait(PATIENCE_S)
        return [answer(index, seconds) for index, (_, seconds) in enumerate(zip(audio, self.calls[-1][1], strict=True))]


class StepSpy:
    """Stands in for the step of an engine's language model: counts its rows, and does something before a step."""

    def __init__(self, engine: Pengi, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: list[int] = []
        self.before: dict[int, Callable[[], object]] = {}
        """What to do before a step, by the number of steps made."""
        self._step = engine.model.language_model.step
        monkeypatch.setattr(engine.model.language_model, "step", self)

    def __call__(self, ids_BT: Tensor, state: Any) -> Any:
        before = self.before.pop(len(self.rows), None)
        self.rows.append(len(ids_BT))
        if before is not None:
            before()
        return self._step(ids_BT, state)


@contextmanager
def running(app: FastAPI) -> Iterator[tuple[str, Server]]:
    """The address of a server on a free port, and the server."""
    ready = threading.Event()
    server = Server(app, app.state.worker.settings, ready.set)
    with socket.create_server(("127.0.0.1", 0)) as bound:
        thread = threading.Thread(target=server.run, args=([bound],))
        thread.start()
        try:
            assert ready.wait(PATIENCE_S)
            yield f"http://127.0.0.1:{bound.getsockname()[1]}", server
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


@contextmanager
def proxied(url: str, prefix: str, *, strips: bool) -> Iterator[str]:
    """The address under which a reverse proxy shows the server at ``url``.

    Args:
        url: of the server.
        prefix: path that the proxy passes on to the server; everything else is not found.
        strips: whether the server gets the path without the prefix.
    """

    async def proxy(scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        if path != prefix and not path.startswith(f"{prefix}/"):
            await PlainTextResponse("the proxy knows no such path", 404)(scope, receive, send)
            return
        request = Request(scope, receive)
        target = f"{url}{(path.removeprefix(prefix) or '/') if strips else path}?{request.url.query}"
        async with (
            httpx.AsyncClient(timeout=PATIENCE_S) as client,
            client.stream(request.method, target, headers=request.headers.raw, content=await request.body()) as reply,
        ):
            await send({"type": "http.response.start", "status": reply.status_code, "headers": reply.headers.raw})
            async for part in reply.aiter_raw():
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    app = FastAPI()
    app.router.default = proxy
    app.state.worker = SimpleNamespace(settings=ServingSettings(timeout_s=0.1))  # what is still open ends soon
    with running(app) as (address, _):
        yield address


def wait_for(condition: Callable[[], object]) -> None:
    """Return once something is so."""
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, "it never came to be"
        threading.Event().wait(0.005)


@contextmanager
def serving(engine: Any, *, page: bool = False, **settings: Any) -> Iterator[httpx.Client]:
    """A client of a server for an engine."""
    app = create_app(engine, ServingSettings(page=page, **settings))
    with running(app) as (url, _), httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
        yield client


def complaint(response: httpx.Response, status: int) -> str:
    """The message of an error, which must have the status and the shape of OpenAI's."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    message: str = body["error"]["message"]
    assert "Traceback" not in response.text
    assert "\n" not in message
    assert len(message) < 300
    return message
