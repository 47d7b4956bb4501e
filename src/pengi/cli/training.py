"""``train``: trains a model by a recipe, and writes a checkpoint folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pengi.cli.console import announced, guarded, print_result
from pengi.cli.options import Json


@guarded
def train(
    recipe: Annotated[
        Path,
        typer.Argument(
            metavar="RECIPE.yaml", help="Recipe: the data, the model and the settings of a run.", show_default=False
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a setting of the recipe, such as training.max_steps=100; may be repeated.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Folder for checkpoints and log.", show_default="runs/ and the name of the model"
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the last checkpoint of a run that was stopped.")
    ] = False,
    json: Json = False,
) -> None:
    """Train or fine-tune a model from a recipe. Ctrl-C saves a checkpoint and stops.

    Examples:
        pengi train recipes/own-sounds.yaml --set data.manifest=my-sounds
        pengi train recipes/finetune.yaml --set data.manifest=texts.csv --resume
        accelerate launch -m pengi train recipes/pengi-base.yaml
    """
    with announced("Starting"):
        from pengi.training import train as run_training
    checkpoint = run_training(recipe, overrides or (), resume=resume, out=out)
    print_result({"checkpoint": str(checkpoint)}, str(checkpoint), as_json=json)
