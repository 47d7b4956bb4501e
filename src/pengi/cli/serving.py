"""``serve``: the model over HTTP, for programs and for people."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from pengi.cli.console import guarded, print_json, print_note
from pengi.cli.options import AUTO, DEFAULT_MODEL, Debug, Device, Model
from pengi.cli.session import load_model
from pengi.errors import InputError, how_to_install, reason

if TYPE_CHECKING:
    from fastapi import FastAPI

    from pengi.serving.settings import ServingSettings

KEPT_BYTES = 128 * 2**20
"""Size of the cache of recent recordings, in bytes: about ten of 10 s."""


@dataclass(frozen=True)
class AddressOptions:
    """Where the server is and who may call it, named as in :class:`pengi.serving.settings.ServingSettings`."""

    host: Annotated[
        str,
        typer.Option(
            metavar="HOST",
            help="Address to serve at; 127.0.0.1 is for this machine alone, 0.0.0.0 for all networks.",
        ),
    ] = "127.0.0.1"
    port: Annotated[int, typer.Option(metavar="PORT", help="Port to serve at; 0 takes any free one.")] = 8000
    api_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            envvar="PENGI_API_KEY",
            show_envvar=True,
            help="Serve only requests that carry this key. Give it in the environment variable, where other users of "
            "the machine do not see it.",
            show_default="no key",
        ),
    ] = None
    allow_origins: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-origin",
            metavar="ORIGIN",
            help="Let web pages of this origin, such as https://app.example.org, call the server (CORS). Repeat it for "
            "more origins; '*' allows all web pages.",
            show_default=False,
        ),
    ] = None
    root_path: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="Path under which a reverse proxy shows the server, such as /pengi.",
            show_default=False,
        ),
    ] = ""
    page: Annotated[bool, typer.Option("--page/--no-page", help="Show a page in the browser at /.")] = True
    index: Annotated[
        Path | None,
        typer.Option(
            metavar="INDEX",
            help="Index that `pengi index` made, which the page can then search.",
            show_default="no search",
        ),
    ] = None


@dataclass(frozen=True)
class LimitOptions:
    """Limits of requests, named as in :class:`pengi.serving.settings.ServingSettings`."""

    panel: ClassVar = "Limits"

    max_upload_mb: Annotated[float, typer.Option(metavar="MB", help="Largest upload, in millions of bytes.")] = 25.0
    max_seconds: Annotated[float, typer.Option(metavar="SECONDS", help="Longest recording, in seconds.")] = 600.0
    timeout_s: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="Longest time from request to answer, in seconds.")
    ] = 120.0
    max_requests: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Maximum number of requests at a time, including queued ones; further ones get status 429.",
        ),
    ] = 64
    batch_size: Annotated[
        int, typer.Option(metavar="N", help="Maximum number of recordings in the model at a time.")
    ] = 8


@guarded
def serve(
    *,
    address: AddressOptions,
    limits: LimitOptions,
    model: Model = DEFAULT_MODEL,
    json: Annotated[
        bool,
        typer.Option("--json", help="Print the address as JSON on stdout once it is ready.", rich_help_panel="Common"),
    ] = False,
    device: Device = AUTO,
    debug: Debug = False,
) -> None:
    """Serve a model over HTTP: OpenAI's API, uploads, and a page for browsers.

    Examples:
        pengi serve
        pengi serve --host 0.0.0.0 --port 8765 --no-page --max-seconds 60
    """
    _require_extra(address.page)
    from pengi.serving.settings import ServingSettings

    given = {name: value for name, value in {**vars(address), **vars(limits)}.items() if value is not None}
    settings = ServingSettings.parse(given, "pengi serve")
    if settings.index is not None and not settings.page:
        raise InputError("--index is searched on the page; leave out --no-page")
    with closing(bound_socket(settings)) as bound:
        app = _application(settings, model, device)
        url = _url(settings.host, bound.getsockname()[1]) + settings.root_path
        from pengi.serving.server import Server

        Server(app, settings, lambda: _announce(url, model, settings, as_json=json), verbose=debug).run([bound])


def _require_extra(page: bool) -> None:
    """Check, before a model is loaded, that the extra is installed.

    Raises:
        InputError: if it is not.
    """
    for name in ("fastapi", "uvicorn", "prometheus_client", "python_multipart", *(["gradio"] if page else [])):
        if find_spec(name) is None:
            raise InputError(f"the server needs {name}, which is not installed; {how_to_install('serve')}")


def bound_socket(settings: ServingSettings) -> socket.socket:
    """A socket that is bound to the address and does not accept connections yet.

    Raises:
        InputError: if the address is in use, or is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    bound = socket.socket(family)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((settings.host, settings.port))
    except OSError as error:
        bound.close()
        raise InputError(
            f"cannot listen at {settings.host} port {settings.port} ({reason(error)}); "
            "choose another address with --host and --port"
        ) from error
    return bound


def _application(settings: ServingSettings, model: str, device: str) -> FastAPI:
    engine = load_model(model, device)
    engine.keep_recent(KEPT_BYTES)
    collection = None
    if settings.index is not None:
        from pengi.retrieval import Collection

        collection = Collection.open(settings.index)
    from pengi.serving.app import create_app

    return create_app(engine, settings, collection=collection)


def _announce(url: str, model: str, settings: ServingSettings, *, as_json: bool) -> None:
    if as_json:
        print_json({"url": url, "model": model, "pid": os.getpid()})
    print_note(f"{model} is served at {url} (Ctrl-C stops)" + (f"; the page: {url}/" if settings.page else ""))
    if settings.api_key is None and settings.host not in ("127.0.0.1", "::1", "localhost"):
        print_note("anyone who can reach this address can use it; set --api-key to require a key")


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
