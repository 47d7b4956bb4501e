"""``models`` and ``pull``: which weights there are and how to get them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from pengi.cli.console import announced, guarded, say, say_json
from pengi.cli.options import Debug, Json


@guarded
def models(json: Json = False, debug: Debug = False) -> None:
    """List the models and frozen parts that can be named, and which are on this machine."""
    from pengi import weights

    entries = weights.entries()
    if json:
        say_json(
            [
                {
                    "name": entry.name,
                    "what": entry.what,
                    "licence": entry.licence,
                    "download_mb": entry.download_mb,
                    "source": entry.source,
                    "path": str(entry.path) if entry.path else None,
                }
                for entry in entries
            ]
        )
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "what", "licence", "here", "source"):
        table.add_column(heading, no_wrap=heading == "name")
    for entry in entries:
        here = "yes" if entry.path else f"no, {entry.download_mb} MB"
        table.add_row(Text(entry.name, style="bold"), Text(entry.what), entry.licence, here, Text(entry.source))
    say(table)


@guarded
def pull(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name that `pengi models` lists.", show_default=False)],
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Fetch weights now rather than when they are first needed; for a model, all frozen parts that it builds on."""
    with announced(f"Fetching {name}"):
        from pengi import weights

        folder = weights.pull(name)
        parts = {part: weights.pull(part) for part in _frozen_parts(folder)}
    if json:
        say_json({"name": name, "path": str(folder), "parts": {part: str(path) for part, path in parts.items()}})
    else:
        say(*(Text(str(path)) for path in (folder, *parts.values())))


def _frozen_parts(folder: Path) -> list[str]:
    """What a model of the package needs beside its own files; nothing for a frozen part itself."""
    from pengi import weights

    if not folder.is_relative_to(weights.ASSETS):
        return []
    from pengi.config import CONFIG_FILE, ModelConfig, read_json
    from pengi.encoders import encoder_spec

    config = read_json(ModelConfig, folder / CONFIG_FILE)
    encoders = [encoder_spec(branch.encoder).weights for branch in config.audio if not branch.trained]
    names = [config.language_model.name, config.text.encoder, *encoders]
    return [name for name in dict.fromkeys(names) if name is not None]
