"""A uvicorn server that reports when it is ready and answers the accepted requests before it ends."""

from __future__ import annotations

import copy
import math
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.config import LOGGING_CONFIG

from pengi.serving.settings import ServingSettings

GRACE_S = 5
"""Seconds that a shutdown waits in addition to the longest request."""


class Server(uvicorn.Server):
    """Serves an application. When it is stopped, it answers the accepted requests and accepts no others.

    Args:
        app: from :func:`pengi.serving.app.create_app`.
        settings: of the same server.
        ready: called once requests are accepted.
        verbose: log every request to stderr.
    """

    def __init__(
        self, app: FastAPI, settings: ServingSettings, ready: Callable[[], None], *, verbose: bool = False
    ) -> None:
        logging: dict[str, Any] = copy.deepcopy(LOGGING_CONFIG)
        logging["handlers"]["access"]["stream"] = "ext://sys.stderr"
        config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            log_config=logging,
            log_level="debug" if verbose else "warning",
            access_log=verbose,
            server_header=False,
            # A request may take this time to arrive, and the same time to be answered.
            timeout_graceful_shutdown=math.ceil(2 * settings.timeout_s) + GRACE_S,
        )
        super().__init__(config)
        self._state = app.state
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections, and call ``ready``."""
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more requests, and answer the accepted ones."""
        # An open page keeps its connection; the shutdown does not wait for it.
        end_page: Callable[[], None] | None = getattr(self._state, "end_page", None)
        if end_page is not None:
            end_page()
        await super().shutdown(sockets)
