"""The application: one engine behind HTTP, for programs at ``/v1/`` and for people at ``/``."""

from __future__ import annotations

import io
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import PurePath
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Body, Depends, FastAPI, Form, Request, Response, Security, UploadFile
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.security import HTTPBearer
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from pengi import __version__
from pengi.calls import ANSWER, DESCRIBE
from pengi.errors import InputError
from pengi.results import Answer, Classification, Description, Tags, Timeline
from pengi.serving import replies
from pengi.serving.batcher import Engine, Listener, Query
from pengi.serving.chat import MAX_QUESTION, ChatRequest, Completion, asked, decoded
from pengi.serving.gate import Gate, is_json, media_type
from pengi.serving.metrics import CONTENT_TYPE, Metrics
from pengi.serving.replies import RefusalError
from pengi.serving.root_path import RootPath
from pengi.serving.settings import ServingSettings

MAX_LABELS = 256
MAX_LABEL = 200  # characters
SHORTEST_HOP_S = 0.25
_AS_A_FILE = "send the recording as a file of a multipart form, as curl -F file=@dog.wav does"

ABOUT = """
Send a recording, get words: a description, an answer, the best of your labels, a vector, a timeline.
Formats are told by content: wav, flac, mp3, ogg, opus, aiff, m4a, aac, mp4, webm.
Errors are JSON: `{"error": {"message", "type", "param", "code"}}`.
"""
CHAT_EXAMPLES: dict[str, Any] = {
    "a question about a recording": {
        "value": {
            "model": "pengi-mini",
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "input_audio", "input_audio": {"data": "UklGRiQA...", "format": "wav"}},
                        {"type": "text", "text": "what instrument is playing?"},
                    ],
                }
            ],
        }
    }
}
ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "A mistake in the request"},
    413: {"description": "The upload is too large"},
    415: {"description": "The body is of another content type than this address reads"},
    422: {"description": "Not audio, damaged, empty, too long, or samples that are not finite"},
    429: {"description": "No room now; the header Retry-After says when"},
    504: {"description": "No answer in time"},
}

Recording = Annotated[UploadFile, Field(description="The recording itself; its name means nothing.")]

Explain = Annotated[bool, Form(description="Add what the answer was given from: tags, transcript, the prompt.")]
Threshold = Annotated[float | None, Form(ge=0, le=1, description="Lowest probability of a tag.")]
OnlyLabels = Annotated[list[str] | None, Form(description="Only these tags; as the labels of /v1/classify.")]


class Embedding(BaseModel):
    """A recording as a vector of length 1."""

    embedding: list[float]


class Health(BaseModel):
    """Whether the server takes requests."""

    status: Literal["ok", "closing"]
    model: str


def create_app(engine: Engine, settings: ServingSettings, *, collection: Any = None) -> FastAPI:
    """The application, with its own model thread, which ends when the application's lifespan does.

    Args:
        engine: the loaded model.
        settings: limits, key, and whether to show the page.
        collection: a :class:`pengi.retrieval.Collection` that the page may search.
    """
    metrics = Metrics()
    listener = Listener(engine, settings, metrics)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(listener.close)

    app = FastAPI(title="pengi", version=__version__, description=ABOUT, lifespan=lifespan, redirect_slashes=False)
    app.state.listener = listener
    replies.install(app)
    app.add_middleware(Gate, listener=listener, settings=settings, metrics=metrics)
    if settings.allow_origins:
        # In front of the gate, since a preflight request carries no key. No cookies: pages send the key as a header.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allow_origins,
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=("*",),
            expose_headers=("Retry-After",),
        )
    if settings.root_path:
        app.add_middleware(RootPath, root_path=settings.root_path)
    app.include_router(_upkeep(listener, metrics))
    keyed = [Security(HTTPBearer(auto_error=False))] if settings.api_key else []
    app.include_router(_protocol(listener), dependencies=keyed)
    app.include_router(_uploads(listener), dependencies=keyed)
    if settings.page:
        from pengi.serving import page
        from pengi.serving.page_shelf import Limits

        limits = Limits(upload_bytes=settings.upload_bytes, duration_s=settings.max_seconds)
        app = page.mount(app, listener, collection, name=public_name(engine), limits=limits)
    return app


def public_name(engine: Engine) -> str:
    """The model's name for others: of a folder its last part, not where it lies on this machine."""
    return PurePath(engine.name).name or engine.name


def _upkeep(listener: Listener, metrics: Metrics) -> APIRouter:
    router = APIRouter(tags=["upkeep"])

    @router.head("/healthz", include_in_schema=False)
    @router.get("/healthz", response_model=Health, responses={503: {"model": Health}})
    async def healthz() -> JSONResponse:
        """Whether requests are taken; needs no key."""
        alive = listener.alive
        body = {"status": "ok" if alive else "closing", "model": public_name(listener.engine)}
        return JSONResponse(body, 200 if alive else 503)

    @router.head("/metrics", include_in_schema=False)
    @router.get("/metrics", response_class=Response)
    async def prometheus() -> Response:
        """Counters in Prometheus' text format."""
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    return router


def _protocol(listener: Listener) -> APIRouter:
    """What OpenAI's clients call."""
    router = APIRouter(tags=["OpenAI protocol"])
    name = public_name(listener.engine)
    card = {"id": name, "object": "model", "created": int(time.time()), "owned_by": "pengi"}

    @router.head("/v1/models", include_in_schema=False)
    @router.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The one model of this server."""
        return {"object": "list", "data": [card]}

    @router.get("/v1/models/{model:path}")
    async def model(model: str) -> dict[str, Any]:
        """The model, if it is called so."""
        _check_model(model, name)
        return card

    @router.post("/v1/chat/completions", responses=ERRORS, response_model=None, dependencies=[Depends(_require_json)])
    async def chat(request: Annotated[ChatRequest, Body(openapi_examples=CHAT_EXAMPLES)]) -> Response:
        """The last text of a user, asked about the last recording of a user; no text: a description."""
        _check_model(request.model, name)
        options = request.search(ANSWER)
        heard = asked(request.messages)
        recording = decoded(heard.audio)
        _check_size(len(recording), listener.settings)
        if heard.question:
            query = Query.of("ask", heard.question, options=options)
        else:
            query = Query.of("describe", options=request.search(DESCRIBE))
        text = (await listener.answer(_Upload(recording), query)).text
        default = ANSWER if heard.question else DESCRIBE
        completion = _completion(listener.engine, heard.question, text, (options or default).max_tokens)
        if not request.stream:
            return JSONResponse(completion.whole())
        include_usage = request.stream_options is not None and request.stream_options.include_usage
        events = completion.events(include_usage=bool(include_usage))
        return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})

    return router


def _uploads(listener: Listener) -> APIRouter:
    """One address for each thing the engine does, with the recording as a file of a form."""
    form = [Depends(_require_one_file)]
    router = APIRouter(prefix="/v1", tags=["recordings"], responses=ERRORS, dependencies=form)

    async def answer(file: UploadFile, query: Query) -> Any:
        _check_size(file.size or 0, listener.settings)
        return await listener.answer(_Upload(await file.read()), query)

    @router.post("/describe")
    async def describe(
        file: Recording,
        style: Annotated[Literal["caption", "paper"] | None, Form(description="caption if absent")] = None,
        explain: Explain = False,
    ) -> Description:
        """A text about the recording, and its sound events."""
        description: Description = await answer(file, Query.of("describe", style=style, explain=explain or None))
        return description

    @router.post("/ask")
    async def ask(
        file: Recording,
        question: Annotated[str, Form(max_length=MAX_QUESTION, examples=["what instrument is playing?"])],
        explain: Explain = False,
    ) -> Answer:
        """An answer to a question in plain words."""
        if not question.strip():
            raise InputError("the question is empty")
        reply: Answer = await answer(file, Query.of("ask", question, explain=explain or None))
        return reply

    @router.post("/classify")
    async def classify(
        file: Recording,
        labels: Annotated[
            list[str],
            Form(
                description="The field several times, once with commas, or once as a JSON list.",
                examples=[["dog barking", "rain"]],
            ),
        ],
        method: Annotated[Literal["likelihood", "generate"], Form()] = "likelihood",
        top: Annotated[int | None, Form(ge=1, description="Only so many labels.")] = None,
        explain: Explain = False,
    ) -> Classification:
        """The best of your own labels."""
        query = Query.of("classify", labels=_labels(labels), method=method, top=top, explain=explain or None)
        classification: Classification = await answer(file, query)
        return classification

    @router.post("/tags")
    async def tags(
        file: Recording,
        threshold: Threshold = None,
        top: Annotated[int | None, Form(ge=1, description="Only so many tags.")] = None,
        labels: OnlyLabels = None,
    ) -> Tags:
        """Which tags are in the recording, and when."""
        query = Query.of("tags", threshold=threshold, top=top, labels=None if labels is None else _labels(labels))
        found: Tags = await answer(file, query)
        return found

    @router.post("/embed")
    async def embed(file: Recording) -> Embedding:
        """A vector: the nearer two are, the more alike the recordings."""
        vector_D: NDArray[np.float32] = await answer(file, Query.of("embed"))
        return Embedding(embedding=vector_D.tolist())

    @router.post("/timeline")
    async def timeline(
        file: Recording,
        threshold: Threshold = None,
        labels: OnlyLabels = None,
        window_s: Annotated[float | None, Form(gt=0, description="Name windows of so many seconds.")] = None,
        hop_s: Annotated[float | None, Form(ge=SHORTEST_HOP_S, description="Seconds from one to the next.")] = None,
    ) -> Timeline:
        """What happens when; the events of detected tags may overlap."""
        only = None if labels is None else _labels(labels)
        query = Query.of("timeline", threshold=threshold, labels=only, window_s=window_s, hop_s=hop_s)
        found: Timeline = await answer(file, query)
        return found

    return router


class _Upload(io.BytesIO):
    """A recording that came over the network, under the name that messages give it."""

    name = "the recording"


def _completion(engine: Engine, question: str, text: str, most_tokens: int) -> Completion:
    tokens = engine.count_tokens(text)
    return Completion(
        model=public_name(engine),
        text=text,
        finish_reason="stop" if tokens < most_tokens else "length",
        prompt_tokens=engine.count_tokens(question),
        completion_tokens=tokens,
    )


def _require_json(request: Request) -> None:
    """Refuse a chat whose header says that it is no JSON, which FastAPI would not parse."""
    kind = media_type(request.headers)
    if not is_json(kind):
        given = f"not '{kind[:80]}'" if kind else "which is missing"
        raise RefusalError(
            415,
            f"this address reads JSON: send the header 'Content-Type: application/json', {given}",
            code="content_type",
        )


async def _require_one_file(request: Request) -> None:
    """Refuse an upload that is not a form with one recording as a file; FastAPI reports a missing file."""
    kind = media_type(request.headers)
    if kind not in ("", "multipart/form-data"):
        raise RefusalError(
            415, f"this address reads a form, not '{kind[:80]}': {_AS_A_FILE}", code="content_type", param="file"
        )
    files = (await request.form()).getlist("file")
    if len(files) > 1:
        raise RefusalError(400, f"send one recording in 'file', not {len(files)}", code="invalid_field", param="file")
    if files and isinstance(files[0], str):
        raise RefusalError(
            400, f"'file' is a text field without a file name: {_AS_A_FILE}", code="invalid_field", param="file"
        )


def _check_model(asked_for: str, served: str) -> None:
    if asked_for != served:
        raise RefusalError(
            404,
            f"there is no model '{asked_for[:80]}' here; this server runs '{served}'",
            code="model_not_found",
            param="model",
        )


def _check_size(count: int, settings: ServingSettings) -> None:
    if count > settings.upload_bytes:
        most = f"{settings.max_upload_mb:g} MB"
        raise RefusalError(413, f"the recording is too large; up to {most} are accepted", code="too_large")


def _labels(given: list[str]) -> list[str]:
    """Labels of a form: the field repeated, or once as a JSON list or with commas between.

    Raises:
        InputError: if a list is no JSON, or there are too many or too long labels; the engine says the rest.
    """
    labels = [label.strip() for label in (_listed(given[0]) if len(given) == 1 else given)]
    if len(labels) > MAX_LABELS or any(len(label) > MAX_LABEL for label in labels):
        raise InputError(f"give at most {MAX_LABELS} labels of at most {MAX_LABEL} characters")
    return labels


def _listed(text: str) -> list[str]:
    """The labels in one field.

    Raises:
        InputError: if it is a JSON list of something else than texts, or looks like a list of texts and is none.
    """
    if not text.lstrip().startswith("["):
        return text.split(",")
    try:
        labels = json.loads(text)
    except ValueError as error:
        if not text.lstrip().startswith(('["', "['")):
            return text.split(",")  # "[music], [noise]" is two labels
        raise InputError('\'labels\' is not a valid JSON list, such as ["dog", "rain"]') from error
    if not all(isinstance(label, str) for label in labels):
        raise InputError('\'labels\' must be a JSON list of texts, such as ["dog", "rain"]')
    return list(labels)
