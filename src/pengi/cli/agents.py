"""``mcp``: the model as tools of an agent, over the Model Context Protocol."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pengi.cli.console import guarded, print_note
from pengi.cli.options import AUTO, DEFAULT_MODEL, Debug, Device, Model
from pengi.cli.serving import bound_socket
from pengi.cli.session import load_model
from pengi.errors import InputError, how_to_install

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

    from pengi.retrieval import Collection


@guarded
def mcp(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER", help="Folders whose recordings the agent may read.", show_default=False),
    ],
    index: Annotated[
        str | None,
        typer.Option(
            metavar="INDEX", help="Index that `pengi index` made, for the tool `search`.", show_default="no search"
        ),
    ] = None,
    http: Annotated[
        bool, typer.Option("--http", help="Serve over HTTP on 127.0.0.1 instead of standard input and output.")
    ] = False,
    port: Annotated[int, typer.Option(metavar="PORT", help="With --http: the port; 0 takes any free one.")] = 8000,
    model: Model = DEFAULT_MODEL,
    device: Device = AUTO,
    debug: Debug = False,
) -> None:
    """Serve the model to an agent, such as Claude or an editor, over the Model Context Protocol.

    The agent starts the command and speaks to it over standard input and output. It can read the recordings of the
    folders and no other files.

    Examples:
        pengi mcp recordings/
        pengi mcp recordings/ --index sounds.index
        pengi mcp recordings/ --http --port 8765
    """
    if find_spec("mcp") is None:
        raise InputError(f"`pengi mcp` needs the package mcp, which is not installed; {how_to_install('mcp')}")
    from pengi import weights
    from pengi.serving.agents import Folders, create_server
    from pengi.weights import hub

    readable = Folders(folders)
    collection = None if index is None else _collection(index, device)
    if not Path(model).is_dir() and not hub.is_repository(model):
        weights.cached(model)  # an unknown name is an error at once
    # An agent waits only a few seconds for the server, so the server starts before the model is loaded.
    engine = ThreadPoolExecutor(1).submit(load_model, model, device).result
    # The package's logger already has a handler; mcp adds another one to the root logger.
    logging.getLogger("pengi").propagate = False
    server = create_server(engine, readable, collection)
    if http:
        _serve_http(server, model, port, debug)
    else:
        server.run()


def _collection(index: str, device: str) -> Collection:
    from pengi.retrieval import Collection

    return Collection.open(index, device=device)


def _serve_http(server: MCPServer, model: str, port: int, debug: bool) -> None:
    import uvicorn

    from pengi.serving.settings import ServingSettings

    with closing(bound_socket(ServingSettings.parse({"port": port}, "pengi mcp"))) as bound:
        print_note(f"{model} is served at http://127.0.0.1:{bound.getsockname()[1]}/mcp (Ctrl-C stops)")
        config = uvicorn.Config(server.streamable_http_app(), log_level="debug" if debug else "warning")
        uvicorn.Server(config).run([bound])
