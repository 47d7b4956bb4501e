"""Streams answers of OpenAI's protocol while they are generated, as server-sent events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any

from fastapi.responses import StreamingResponse

from pengi.audio.sources import AudioSource
from pengi.errors import PengiError
from pengi.serving.chat import Chunks, Completion, event
from pengi.serving.inference_worker import InferenceWorker
from pengi.serving.queries import Query
from pengi.serving.replies import internal_error, refusal
from pengi.serving.running_calls import QueuedRequest

log = logging.getLogger(__name__)


async def stream(
    worker: InferenceWorker,
    audio: AudioSource,
    query: Query[Any],
    chunks: Chunks,
    complete: Callable[[QueuedRequest[Any], str], Completion],
) -> StreamingResponse:
    """The response to a query for a text. It begins once the first piece of the text is there; an error before that has
    its usual HTTP status.

    Args:
        worker: answers the query.
        audio: the recording.
        query: the query about the recording.
        chunks: formats the events.
        complete: makes the completion for the request and its text.

    Raises:
        PengiError: as :meth:`InferenceWorker.wait`.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[str | None] = asyncio.Queue()

    def on_text(piece: str) -> None:
        loop.call_soon_threadsafe(queue.put_nowait, piece)

    request = worker.submit(audio, query, on_text)
    pieces = _text_pieces(worker.answer(request), queue)
    first = await anext(pieces, "")
    events = _events(first, pieces, chunks, partial(complete, request))
    return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


async def _text_pieces(work: Coroutine[Any, Any, Any], queue: asyncio.Queue[str | None]) -> AsyncIterator[str]:
    """The text of an answer, piece by piece as the queue gets it; in one piece if it is not generated token by token.

    Raises:
        PengiError: as :meth:`InferenceWorker.answer`.
    """
    answer = asyncio.ensure_future(work)
    # The answer also comes through the event loop, and therefore after all of its pieces.
    answer.add_done_callback(lambda _: queue.put_nowait(None))
    given = 0
    try:
        while (piece := await queue.get()) is not None:
            given += len(piece)
            yield piece
        text: str = (await answer).text
        if len(text) > given:
            yield text[given:]
    finally:
        answer.cancel()


async def _events(
    first: str, pieces: AsyncIterator[str], chunks: Chunks, complete: Callable[[str], Completion]
) -> AsyncIterator[str]:
    yield chunks.start()
    text = first
    if first:
        yield chunks.piece(first)
    try:
        async for piece in pieces:
            text += piece
            yield chunks.piece(piece)
    except PengiError as error:
        yield event(refusal(error).body)
        return
    except Exception:  # the response has begun, so its status cannot say that it failed
        log.exception("An answer failed while it was sent")
        yield event(internal_error().body)
        return
    for last in chunks.end(complete(text)):
        yield last
