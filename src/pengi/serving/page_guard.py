"""Allows only the routes of Gradio's server that the page needs.

Gradio has routes for development, for other programs, for recorded runs and for fetching URLs. The page needs few of
them; the others return 404. Bodies have a maximum size. A request that starts an action of the page, which Gradio calls
an event, may name only files that were uploaded to this server. (Gradio itself checks that only for apps that it has
started, not for mounted ones.)
"""

from __future__ import annotations

import json
from collections.abc import Container
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pengi.serving.replies import RefusalError, not_found
from pengi.serving.root_path import route_path
from pengi.serving.upload_store import UploadStore, make_room

GRADIO_API = "/gradio_api"
READ_PATHS = {
    "/",
    "/config",
    "/theme.css",
    "/favicon.ico",
    "/robots.txt",
    "/manifest.json",
    f"{GRADIO_API}/queue/data",
    f"{GRADIO_API}/upload_progress",
    f"{GRADIO_API}/startup-events",
}
READ_PREFIXES = ("/assets/", "/static/", f"{GRADIO_API}/heartbeat/")
FILE, JOIN, UPLOAD = f"{GRADIO_API}/file=", f"{GRADIO_API}/queue/join", f"{GRADIO_API}/upload"
WRITE_PATHS = {JOIN, UPLOAD, f"{GRADIO_API}/cancel", f"{GRADIO_API}/reset"}
EVENT_BYTES = 2**18
"""Largest body of an event, in bytes; the page sends a question, labels, or the name of an upload."""
FORM_BYTES = 2**16
"""Maximum size of a multipart form besides its file, in bytes."""
MAX_NAME_CHARACTERS = 255
"""Longest file name that file systems allow."""
MAX_UPLOADS = 4
"""Size of the uploads folder, as a number of files of the largest size."""


class PageGuard:
    """ASGI middleware around Gradio's app.

    Args:
        app: Gradio's.
        store: where uploads are.
        actions: the numbers of the actions that an event may start.
    """

    def __init__(self, app: ASGIApp, store: UploadStore, actions: Container[int]) -> None:
        self.app = app
        self.store = store
        self.actions = actions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        try:
            if scope["type"] != "http" or not self._open(scope["method"], route_path(scope)):
                raise not_found(scope.get("method", "websocket"))
            # On a public host Gradio would allow all origins; here the server's settings decide.
            scope = {**scope, "headers": [header for header in scope["headers"] if header[0] != b"origin"]}
            if scope["method"] == "POST":
                receive = await self._checked(scope, receive)
        except RefusalError as error:
            await error.reply()(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _open(self, method: str, path: str) -> bool:
        if any(len(part) > MAX_NAME_CHARACTERS for part in path.split("/")):
            return False
        if method in ("GET", "HEAD"):
            return path in READ_PATHS or path.startswith(READ_PREFIXES) or self._is_file(path)
        return method == "POST" and path in WRITE_PATHS

    def _is_file(self, path: str) -> bool:
        return path.startswith(FILE) and self._uploaded(path.removeprefix(FILE))

    async def _checked(self, scope: Scope, receive: Receive) -> Receive:
        """What passes a request on that may be passed on.

        Raises:
            RefusalError: if it may not.
        """
        stated = Headers(scope=scope).get("content-length", "")
        if not stated.isdecimal():
            raise RefusalError(411, "the length of the request is not stated", code="length_required")
        size, limits = int(stated), self.store.limits
        if route_path(scope) == UPLOAD:
            if size > limits.upload_bytes + FORM_BYTES:
                limit = f"{limits.upload_bytes / 1e6:g} MB"
                raise RefusalError(413, f"files of at most {limit} can be uploaded", code="too_large")
            if not make_room(self.store.uploads, size, MAX_UPLOADS * limits.upload_bytes + FORM_BYTES):
                raise RefusalError(507, "there is no room for this file at the moment", code="busy")
            return receive
        if size > EVENT_BYTES:
            raise RefusalError(413, "the request is too long", code="too_large")
        return await self._checked_event(scope, receive)

    async def _checked_event(self, scope: Scope, receive: Receive) -> Receive:
        """Read the event, check the files in it, and pass it on as if it had not been read."""
        try:
            body = await Request(scope, receive).body()
            event = json.loads(body)
        except (ValueError, RecursionError, ClientDisconnect) as error:
            raise RefusalError(400, "the request is not JSON", code="invalid_json") from error
        if route_path(scope) == JOIN and not self._starts_an_action(event):
            raise RefusalError(400, "the request names no action of the page", code="bad_input")
        if not self._files_allowed(event):
            raise RefusalError(400, "the request names a file that was not uploaded", code="bad_input")
        read = False

        async def again() -> Message:
            nonlocal read
            if read:
                return await receive()
            read = True
            return {"type": "http.request", "body": body, "more_body": False}

        return again

    def _starts_an_action(self, event: Any) -> bool:
        number = event.get("fn_index") if isinstance(event, dict) else None
        return type(number) is int and number in self.actions

    def _files_allowed(self, value: Any) -> bool:
        """Whether every file named anywhere in an event lies in the uploads folder."""
        waiting = [value]
        while waiting:
            item = waiting.pop()
            if isinstance(item, dict):
                if "path" in item and not (item["path"] is None or self._uploaded(item["path"])):
                    return False
                waiting.extend(item.values())
            elif isinstance(item, list):
                waiting.extend(item)
        return True

    def _uploaded(self, path: Any) -> bool:
        if not isinstance(path, str) or "\0" in path:
            return False
        return Path(path).resolve().is_relative_to(self.store.uploads.resolve())
