"""Limits on requests: key, size and time. ASGI middleware in front of everything else.

If possible, a request is refused before its body is read: for a wrong key, a size that is too large, or too many
requests. The bytes of the body are counted while it arrives, since its header may be wrong. A request that takes
too long, or whose client has closed the connection, is cancelled together with its work.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hmac
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pengi.serving.inference_worker import BusyError, ClosingError, InferenceWorker
from pengi.serving.metrics import Metrics
from pengi.serving.replies import RefusalError, refusal
from pengi.serving.root_path import route_path
from pengi.serving.settings import ServingSettings

API_PREFIX = "/v1/"
HEALTH_PATH = "/healthz"
"""This address, for monitoring, needs no key."""
CLIENT_CLOSED = 499
"""nginx's status for a client that closed the connection before the answer; used only in the metrics."""
DRAIN_FACTOR = 4
"""A refused body is still read, and discarded, up to this multiple of the limit."""
MAX_JSON_PARTS = 20_000
"""Maximum number of brackets, braces and commas in a JSON body. Base64 has none, so recordings do not count. A few
megabytes of "[]," would become gigabytes of objects."""


class RequestLimits:
    """ASGI middleware; see the module."""

    def __init__(self, app: ASGIApp, *, worker: InferenceWorker, settings: ServingSettings, metrics: Metrics) -> None:
        self._app = app
        self._worker = worker
        self.settings = settings
        self._metrics = metrics
        self._in_flight = 0
        self._held_bytes = 0
        metrics.watch(
            "pengi_requests_in_flight", "Requests at /v1/ that are not answered yet.", lambda: self._in_flight
        )
        metrics.watch("pengi_held_bytes", "Bytes of request bodies that are held.", lambda: self._held_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "websocket":  # not used by any route
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.monotonic()
        body = _Body(scope, receive, self)
        reply = _Reply(send, body)
        try:
            await self._admit(scope, body, reply)
        except RefusalError as error:
            await error.reply()(scope, body.receive, reply.send)
        finally:
            body.release()
            endpoint = _endpoint(scope)
            self._metrics.requests.labels(endpoint, str(reply.status)).inc()
            self._metrics.request_seconds.labels(endpoint).observe(time.monotonic() - begun)

    async def _admit(self, scope: Scope, body: _Body, reply: _Reply) -> None:
        path = route_path(scope)
        if path != HEALTH_PATH:
            self._check_key(Headers(scope=scope), path)
        body.check_head()
        if not path.startswith(API_PREFIX):
            await self._app(scope, body.receive, reply.send)
            return
        if not self._worker.alive:
            raise refusal(ClosingError())
        if scope["method"] == "POST" and self._in_flight >= self.settings.max_requests:
            raise refusal(BusyError(self._worker.retry_after_s()))
        self._in_flight += 1
        try:
            await self._watched(scope, body, reply)
        finally:
            self._in_flight -= 1

    async def _watched(self, scope: Scope, body: _Body, reply: _Reply) -> None:
        """Serve a request until it is answered or its client has disconnected."""
        work = asyncio.ensure_future(self._app(scope, body.receive, reply.send))
        disconnected = asyncio.ensure_future(body.disconnected())
        try:
            await asyncio.wait((work, disconnected), return_when=asyncio.FIRST_COMPLETED)
            if reply.complete or work.done():
                await work
                return
        finally:
            disconnected.cancel()
            if not work.done():
                work.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await work
        reply.status = CLIENT_CLOSED

    def _check_key(self, headers: Headers, path: str) -> None:
        """Check the key: a bearer token or, for browsers, the password of basic authentication with any user name. The
        comparison takes constant time."""
        if self.settings.api_key is None:
            return
        header = headers.get("authorization")
        scheme, _, value = (header or "").partition(" ")
        given = value.strip().encode("utf-8", "surrogateescape")
        if scheme.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).partition(b":")[2]
            except binascii.Error:
                given = b""
        elif scheme.lower() != "bearer":
            given = b""
        if not hmac.compare_digest(given, self.settings.api_key.get_secret_value().encode()):
            challenge = "Bearer" if path.startswith(API_PREFIX) else 'Basic realm="pengi"'
            wrong = "this server needs its API key" if header is None else "this is not the API key of this server"
            how = "send the header 'Authorization: Bearer KEY', or give the key as the password in a browser"
            raise RefusalError(401, f"{wrong}; {how}", code="invalid_api_key", headers={"WWW-Authenticate": challenge})

    def reserve_bytes(self, count: int) -> None:
        """Count bytes of a body that are now in memory.

        Raises:
            RefusalError: if the bodies of all requests together are too large.
        """
        if self._held_bytes + count > self.settings.held_bytes:
            raise refusal(BusyError(self._worker.retry_after_s(), "too much is being uploaded at once"))
        self._held_bytes += count

    def release_bytes(self, count: int) -> None:
        """Subtract bytes that are no longer in memory."""
        self._held_bytes -= count


def _endpoint(scope: Scope) -> str:
    """The address for the metrics; unknown addresses share one, so that they make no new counters."""
    route: str | None = getattr(scope.get("route"), "path", None)
    path = route_path(scope)
    return route or (path if path in scope["app"].openapi()["paths"] else "other")


def media_type(headers: Headers) -> str:
    """The media type of the header without parameters, such as "application/json"; empty if there is none."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def is_json(kind: str) -> bool:
    """Whether a media type is JSON."""
    return kind == "application/json" or kind.endswith("+json")


class _Reply:
    """Records the status of the response, and whether all of it was sent."""

    def __init__(self, send: Send, body: _Body) -> None:
        self._send = send
        self._body = body
        self.status = 500
        self.complete = False

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self._body.must_close:
                message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
        elif message["type"] == "http.response.body":
            self.complete = not message.get("more_body", False)
        await self._send(message)


class _Body:
    """Counts and times the body of a request; after the body, notices when the client disconnects."""

    def __init__(self, scope: Scope, receive: Receive, limits: RequestLimits) -> None:
        self._receive = receive
        self._limits = limits
        self._watched = route_path(scope).startswith(API_PREFIX)
        self._headers = Headers(scope=scope)
        self._is_json = is_json(media_type(self._headers))
        self._limit = limits.settings.json_bytes if self._is_json else limits.settings.form_bytes
        length = self._headers.get("content-length", "0")
        self._stated_bytes = int(length[:20]) if length.isdecimal() else 0
        self._until = asyncio.get_running_loop().time() + limits.settings.timeout_s
        self._bytes = 0
        self._parts = 0
        self._read = asyncio.Event()
        self._disconnected = asyncio.Event()

    @property
    def must_close(self) -> bool:
        """Whether the connection is closed after the reply, because too much may still arrive. The rest of a smaller
        body is read and discarded, so that the client reads the reply."""
        if self._read.is_set():
            return False
        return "transfer-encoding" in self._headers or self._stated_bytes > DRAIN_FACTOR * self._limit

    def check_head(self) -> None:
        """Check a body by its headers.

        Raises:
            RefusalError: if the body is compressed or too large.
        """
        encoding = self._headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("identity", ""):
            raise RefusalError(
                415, f"content encoding '{encoding[:20]}' is not supported; send the body uncompressed", code="encoding"
            )
        if self._stated_bytes > self._limit:
            raise self._too_large()

    async def receive(self) -> Message:
        """The next message.

        Raises:
            RefusalError: if the body is too large, has too many JSON parts, or is too slow.
        """
        if self._read.is_set():
            if not self._watched:
                return await self._receive()
            await self._disconnected.wait()
            return {"type": "http.disconnect"}
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError as error:
            seconds = f"{self._limits.settings.timeout_s:g} seconds"
            # The rest of this body must not be read as the next request.
            headers = {"Connection": "close"}
            raise RefusalError(
                408, f"the request did not arrive within {seconds}", code="timeout", headers=headers
            ) from error
        if message["type"] == "http.request":
            self._count(message.get("body", b""))
            if not message.get("more_body", False):
                self._read.set()
        return message

    async def disconnected(self) -> None:
        """Return when the client has closed the connection after a complete body; only for requests at /v1/, where
        nothing else waits after the body."""
        await self._read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._disconnected.set()

    def release(self) -> None:
        """Subtract the bytes of the body."""
        self._limits.release_bytes(self._bytes)
        self._bytes = 0

    def _count(self, part: bytes) -> None:
        if self._bytes + len(part) > self._limit:
            raise self._too_large()
        self._limits.reserve_bytes(len(part))
        self._bytes += len(part)
        if self._is_json:
            self._parts += part.count(b"{") + part.count(b"[") + part.count(b",")
            if self._parts > MAX_JSON_PARTS:
                raise RefusalError(400, "the JSON body has too many parts", code="invalid_json")

    def _too_large(self) -> RefusalError:
        limit = f"{self._limits.settings.max_upload_mb:g} MB"
        return RefusalError(413, f"the upload is too large; recordings up to {limit} are accepted", code="too_large")
