"""``import-official``: converts a checkpoint of the paper's authors to one of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pengi.cli.console import announced, guarded, print_result
from pengi.cli.options import Json, Tokenizers


@guarded
def import_official(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT.pth", help="Checkpoint file that the paper's authors published.", show_default=False
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER", help="New folder for the checkpoint, to be given as --model.", show_default=False
        ),
    ],
    config: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Which of the paper's models it is: base or base-no-text-enc; auto reads that from the file.",
        ),
    ] = "auto",
    tokenizers: Tokenizers = None,
    json: Json = False,
) -> None:
    """Convert a checkpoint of the paper's authors. No code in the file is executed, and a file with tensors that the
    model does not have is refused.

    Examples:
        pengi import-official base.pth --out pengi-base
    """
    with announced("Reading"):
        from pengi import official
    with announced("Converting"):
        folder = official.import_official(file, out, config=config, tokenizers=tokenizers)
    print_result({"checkpoint": str(folder)}, str(folder), as_json=json)
