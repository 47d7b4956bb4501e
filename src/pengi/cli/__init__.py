"""The ``pengi`` command: one short file per group of commands; torch is imported only when a command needs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from pengi.cli.agents import mcp
from pengi.cli.answering import ask, classify, describe
from pengi.cli.benchmarking import bench
from pengi.cli.comparing import compare, duplicates
from pengi.cli.console import run_app
from pengi.cli.data import data
from pengi.cli.embedding import embed
from pengi.cli.evaluating import evaluation
from pengi.cli.extracting import extract
from pengi.cli.help import Command, Group
from pengi.cli.importing import import_official
from pengi.cli.models import models, pull, push
from pengi.cli.probing import probe
from pengi.cli.running import run
from pengi.cli.searching import export_index, index, search
from pengi.cli.serving import serve
from pengi.cli.tagging import tags
from pengi.cli.timelines import timeline
from pengi.cli.training import train
from pengi.cli.transcribing import transcribe
from pengi.cli.watching import watch

__all__ = ["app", "main"]

app = typer.Typer(
    name="pengi",
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from pengi import __version__

        typer.echo(f"pengi {__version__}")
        raise typer.Exit


@app.callback()
def _pengi(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Describe recordings, answer questions about them, and search them.

    `pengi COMMAND --help` explains a command. Results go to stdout, progress and errors to stderr. If one of many
    recordings cannot be read, it gets an error entry and the others are still processed. Exit codes: 0 done, 1 internal
    error, 2 a mistake in the arguments or in any of the files, 130 interrupted, 141 a closed pipe.

    Examples:
        pengi describe street.wav
        pengi ask street.wav "is there a siren?"
    """


_PANELS: dict[str, tuple[Callable[..., None] | typer.Typer, ...]] = {
    "Recordings": (describe, ask, classify, tags, timeline, extract, transcribe, embed, compare, watch),
    "Collections": (run, index, search, duplicates, export_index, serve, mcp),
    "Measure and train": (evaluation, probe, bench, train, data, models, pull, push, import_official),
}
"""The commands in the panels of the help."""

for _panel, _commands in _PANELS.items():
    for _command in _commands:
        if isinstance(_command, typer.Typer):
            app.add_typer(_command, rich_help_panel=_panel)
        else:
            app.command(cls=Command, rich_help_panel=_panel)(_command)


def main() -> None:
    """Run the command line; never returns."""
    run_app(app)
