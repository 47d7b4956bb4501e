"""The path under which a reverse proxy shows the server, such as ``/pengi``.

Some proxies remove it from the requests that they pass on, others do not. After :class:`RootPath` every request has the
form that ASGI specifies: ``path`` begins with ``root_path``, and links of the server have the prefix.
"""

from __future__ import annotations

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send


def route_path(scope: Scope) -> str:
    """The path of a request without the root path, for comparison with routes."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if path.startswith(f"{root}/") else path


class RootPath:
    """ASGI middleware; see the module.

    Args:
        app: gets the requests.
        root_path: begins with a slash and does not end with one.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with the root path in front of its path."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        path, root = scope["path"], self._root_path
        if path == root and scope["type"] == "http":  # the page's links are relative: they need the slash
            await RedirectResponse(f"{root}/")(scope, receive, send)
            return
        if not path.startswith(f"{root}/"):
            path = root + path
        await self._app({**scope, "path": path, "root_path": root}, receive, send)
