"""The application: one engine behind HTTP, for programs at ``/v1/`` and for people at ``/``."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, FastAPI, Request, Response, Security
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from pengi import __version__
from pengi.calls import ANSWER, DESCRIBE
from pengi.serving import queries, replies, transcriptions, uploads
from pengi.serving.chat import ChatRequest, Chunks, Completion, decoded, last_question
from pengi.serving.inference_worker import Engine, InferenceWorker
from pengi.serving.limits import RequestLimits, is_json, media_type
from pengi.serving.metrics import Metrics
from pengi.serving.queries import Query
from pengi.serving.replies import RefusalError
from pengi.serving.root_path import RootPath
from pengi.serving.running_calls import QueuedRequest
from pengi.serving.settings import ServingSettings
from pengi.serving.streaming import stream

if TYPE_CHECKING:
    from pengi.retrieval import Collection

DEFAULT_QUESTION = "what is it?"
"""The question if a request has a JSON schema but no text."""
API_DESCRIPTION = """
Send a recording and get a description, an answer, the best of your labels, tags, a vector or a timeline.
Formats are recognized by content: wav, flac, mp3, ogg, opus, aiff, m4a, aac, mp4, webm.
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


class Health(BaseModel):
    """Whether the server takes requests."""

    status: Literal["ok", "closing"]
    model: str


def create_app(engine: Engine, settings: ServingSettings, *, collection: Collection | None = None) -> FastAPI:
    """The application. It starts a model thread, which ends when the application shuts down.

    Args:
        engine: the loaded model.
        settings: limits, key, and whether to show the page.
        collection: an index that the page may search.
    """
    metrics = Metrics()
    worker = InferenceWorker(engine, settings, metrics)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(worker.close)

    app = FastAPI(
        title="pengi", version=__version__, description=API_DESCRIPTION, lifespan=lifespan, redirect_slashes=False
    )
    app.state.worker = worker
    replies.install(app)
    app.add_middleware(RequestLimits, worker=worker, settings=settings, metrics=metrics)
    if settings.allow_origins:
        # Before the limits, since a preflight request has no key. Cookies are not needed: pages send the key in a
        # header.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allow_origins,
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=("*",),
            expose_headers=("Retry-After",),
        )
    if settings.root_path:
        app.add_middleware(RootPath, root_path=settings.root_path)
    app.include_router(_monitoring_routes(worker, metrics))
    keyed = [Security(HTTPBearer(auto_error=False))] if settings.api_key else []
    app.include_router(_openai_routes(worker), dependencies=keyed)
    app.include_router(uploads.router, dependencies=keyed)
    app.include_router(transcriptions.router, dependencies=keyed)
    if settings.page:
        from pengi.serving import page
        from pengi.serving.upload_store import StoreLimits

        limits = StoreLimits(upload_bytes=settings.upload_bytes, duration_s=settings.max_seconds)
        app = page.mount(app, worker, collection, limits=limits)
    return app


def _monitoring_routes(worker: InferenceWorker, metrics: Metrics) -> APIRouter:
    router = APIRouter(tags=["monitoring"])

    @router.head("/healthz", include_in_schema=False)
    @router.get("/healthz", response_model=Health, responses={503: {"model": Health}})
    async def healthz() -> JSONResponse:
        """Whether requests are taken; needs no key."""
        alive = worker.alive
        body = {"status": "ok" if alive else "closing", "model": worker.name}
        return JSONResponse(body, 200 if alive else 503)

    @router.head("/metrics", include_in_schema=False)
    @router.get("/metrics", response_class=Response)
    async def prometheus() -> Response:
        """Counters in Prometheus' text format."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router


def _openai_routes(worker: InferenceWorker) -> APIRouter:
    """The routes of OpenAI's clients."""
    router = APIRouter(tags=["OpenAI protocol"])
    card = {"id": worker.name, "object": "model", "created": int(time.time()), "owned_by": "pengi"}

    @router.head("/v1/models", include_in_schema=False)
    @router.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The one model of this server."""
        return {"object": "list", "data": [card]}

    @router.get("/v1/models/{model:path}")
    async def model(model: str) -> dict[str, Any]:
        """The model, if the name is its own."""
        _check_model(model, worker.name)
        return card

    @router.post(
        "/v1/chat/completions", responses=uploads.ERRORS, response_model=None, dependencies=[Depends(_require_json)]
    )
    async def chat(request: Annotated[ChatRequest, Body(openapi_examples=CHAT_EXAMPLES)]) -> Response:
        """Answer the user's last text about the user's last recording. Without a text, describe the recording."""
        _check_model(request.model, worker.name)
        request.refuse_unsupported()
        found = last_question(request.messages)
        schema = request.schema_text
        is_asked = bool(found.question) or schema is not None
        default = ANSWER if is_asked else DESCRIBE
        options = request.decoding(default)
        content = decoded(found.audio)
        uploads.check_size(len(content), worker.settings)
        recording = uploads.Upload(content)
        query: Query[Any] = queries.describe(options=options)
        if is_asked:
            query = queries.ask(found.question or DEFAULT_QUESTION, options=options, schema=schema)
        # JSON ends where the grammar says, not after a number of tokens: truncated JSON would be invalid.
        max_tokens = (options or default).max_tokens if schema is None else None
        complete = partial(_completion, worker, max_tokens)
        if not request.stream:
            queued = worker.submit(recording, query)
            return JSONResponse(complete(queued, (await worker.answer(queued)).text).to_dict())
        include_usage = request.stream_options is not None and bool(request.stream_options.include_usage)
        return await stream(worker, recording, query, Chunks(worker.name, include_usage=include_usage), complete)

    return router


def _completion(worker: InferenceWorker, max_tokens: int | None, request: QueuedRequest[Any], text: str) -> Completion:
    tokens = worker.engine.count_tokens(text)
    return Completion(
        model=worker.name,
        text=text,
        finish_reason="stop" if max_tokens is None or tokens < max_tokens else "length",
        cost=request.cost,
        completion_tokens=tokens,
    )


def _require_json(request: Request) -> None:
    """Refuse a chat whose Content-Type is not JSON; FastAPI would not parse its body."""
    kind = media_type(request.headers)
    if not is_json(kind):
        given = f"not '{kind[:80]}'" if kind else "which is missing"
        raise RefusalError(
            415,
            f"this address reads JSON: send the header 'Content-Type: application/json', {given}",
            code="content_type",
        )


def _check_model(asked_for: str, served: str) -> None:
    if asked_for != served:
        raise RefusalError(
            404,
            f"there is no model '{asked_for[:80]}' here; this server runs '{served}'",
            code="model_not_found",
            param="model",
        )
