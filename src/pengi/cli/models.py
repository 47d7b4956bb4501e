"""``models`` and ``pull``: list the weights, and fetch them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from pengi.cli.console import EXIT_USER, announced, guarded, print_error, print_json, print_result, print_text
from pengi.cli.options import AUTO, Json, Tokenizers
from pengi.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pengi.weights import CheckedFile


@guarded
def models(
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare every file in the cache with its SHA-256 instead.")
    ] = False,
    licenses: Annotated[
        bool,
        typer.Option("--licenses", help="Show the licences instead: of all weights, and of what they were trained on."),
    ] = False,
    json: Json = False,
) -> None:
    """List the models and the frozen parts that they are built from, and which are on this machine.

    Examples:
        pengi models
        pengi models --verify
        pengi models --licenses
    """
    from pengi import weights

    if licenses:
        _show_licenses(json)
        return
    if verify:
        with announced("Reading the cache"):
            checked = weights.verify()
        _show_checked(checked, json)
        return
    _show_entries(json)


def _show_entries(json: bool) -> None:
    from pengi import weights

    entries = weights.entries()
    if json:
        names = ("name", "what", "licence", "download_mb", "source")
        rows = [{name: getattr(entry, name) for name in names} for entry in entries]
        paths = [{"path": str(entry.path) if entry.path else None} for entry in entries]
        print_json([row | path for row, path in zip(rows, paths, strict=True)])
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "what", "licence", "here", "source"):
        table.add_column(heading, no_wrap=heading == "name")
    for entry in entries:
        size = f", {entry.download_mb} MB" if entry.download_mb else ""
        here = "yes" if entry.path else f"no{size}"
        table.add_row(Text(entry.name, style="bold"), Text(entry.what), entry.licence, here, Text(entry.source))
    print_text(table)


def _show_licenses(json: bool) -> None:
    from pengi import weights

    entries = [(entry, weights.training_data_licences(entry.path)) for entry in weights.entries()]
    if json:
        print_json(
            [
                {"name": entry.name, "licence": entry.licence, "origin": entry.origin, "training_data": trained_on}
                for entry, trained_on in entries
            ]
        )
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "licence", "text and origin"):
        table.add_column(heading, no_wrap=heading != "licence")
    for entry, _ in entries:
        table.add_row(Text(entry.name, style="bold"), entry.licence, Text(entry.origin))
    print_text(table)
    for entry, trained_on in entries:
        if trained_on:
            print_text(
                Text(
                    f"\n{entry.name}: the code is MIT. The weights were trained on recordings under "
                    f"{', '.join(trained_on)}. Some of these are share-alike or GPL; whoever redistributes the weights "
                    "decides what follows from that. The model card says which recordings have which licence."
                )
            )


def _show_checked(checked: Sequence[CheckedFile], json: bool) -> None:
    damaged = [file for file in checked if file.problem is not None]
    if json:
        print_json([{"name": file.name, "file": str(file.file), "error": file.problem} for file in checked])
    else:
        table = Table(box=None, pad_edge=False, show_header=False)
        for file in checked:
            table.add_row(
                Text(file.name, style="bold"), Text(str(file.file)), Text(file.problem or "as it was fetched")
            )
        print_text(table if checked else Text("nothing is in the cache"))
    for name in dict.fromkeys(file.name for file in damaged):
        print_error(f"'{name}' is damaged; fetch it again with `pengi pull {name}`")
    if damaged:
        raise typer.Exit(EXIT_USER)


@guarded
def pull(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="Model or part that `pengi models` lists, or user/model of the Hugging Face hub.",
            show_default=False,
        ),
    ],
    tokenizers: Tokenizers = None,
    json: Json = False,
) -> None:
    """Fetch a model and all parts that it needs, for use without a network later.

    `pengi-base` and `pengi-base-no-text-enc` are downloaded from the authors' record and imported. An interrupted
    download is continued.

    Examples:
        pengi pull pengi-mini
        pengi pull user/model@v1
    """
    with announced(f"Fetching {name}"):
        from pengi import weights
        from pengi.weights import hub

        if weights.is_published(name):
            folder = _pull_published(name, tokenizers)
        elif tokenizers is not None:
            raise InputError(f"--tokenizers is only for published models such as pengi-base, not for '{name}'")
        else:
            folder = hub.fetch(name) if hub.is_repository(name) else weights.pull(name)
        parts = {part: weights.pull(part) for part in _frozen_parts(name, folder)}
    if parts:
        with announced(f"Preparing {name}"):
            _prepare(folder)
    if json:
        print_json({"name": name, "path": str(folder), "parts": {part: str(path) for part, path in parts.items()}})
    else:
        print_text(*(Text(str(path)) for path in (folder, *parts.values())))


def _pull_published(name: str, tokenizers: Path | None) -> Path:
    from pengi import weights

    here = weights.cached(name)
    if here is not None and weights.damage(here) is None:  # avoids the import of torch
        return here
    from pengi.official import import_official

    return weights.pull_published(name, partial(import_official, tokenizers=tokenizers))


def _prepare(folder: Path) -> None:
    """Build in advance what loading the model would build: the graphs of the language model for onnxruntime."""
    from pengi import checkpoint
    from pengi.engine import device_of
    from pengi.runtime import chosen_runtime

    runtime = chosen_runtime(None, device_of(AUTO))
    if runtime != "torch":
        checkpoint.load(folder, runtime=runtime)


def _frozen_parts(name: str, folder: Path) -> list[str]:
    """The frozen parts that a model needs besides its own files; empty for a frozen part or a published model."""
    from pengi import weights

    if name in weights.part_names() or weights.is_published(name):
        return []
    from pengi.config import CONFIG_FILE, ModelConfig, read_json
    from pengi.encoders import encoder_spec

    config = read_json(ModelConfig, folder / CONFIG_FILE)
    encoders = [encoder_spec(branch.encoder).weights for branch in config.audio.values() if not branch.trained]
    names = dict.fromkeys([config.language_model.name, config.text.encoder, *encoders])
    return [part for part in names if part in weights.part_names()]


@guarded
def push(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Folder of a checkpoint, or a name.", show_default=False)
    ],
    repo: Annotated[
        str, typer.Argument(metavar="USER/MODEL", help="Repository of the Hugging Face hub.", show_default=False)
    ],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[
        str | None, typer.Option(metavar="BRANCH", help="Branch to commit to.", show_default="the main one")
    ] = None,
    json: Json = False,
) -> None:
    """Upload a model to the Hugging Face hub, with a model card. The access token comes from HF_TOKEN or
    `hf auth login`.

    Examples:
        pengi push runs/mine user/model
    """
    with announced(f"Uploading {model}"):
        from pengi import checkpoint

        url = checkpoint.push(checkpoint.model_folder(model), repo, private=private, revision=revision)
    print_result({"repo": repo, "commit": url}, url, as_json=json)
