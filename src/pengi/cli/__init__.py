"""The ``pengi`` command: one short file per group of commands; torch is imported only when a command needs it."""

from __future__ import annotations

from typing import Annotated, get_type_hints

import typer
from typer.models import ParameterInfo

from pengi.cli.agents import mcp
from pengi.cli.answering import ask, classify, describe
from pengi.cli.benchmarking import bench
from pengi.cli.comparing import compare, duplicates
from pengi.cli.console import run_app
from pengi.cli.data import data
from pengi.cli.embedding import embed
from pengi.cli.evaluating import evaluation
from pengi.cli.extracting import extract
from pengi.cli.help import Group, apply_help
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


_RECORDINGS, _COLLECTIONS, _MODELS = "Recordings", "Collections", "Measure and train"
app.command(rich_help_panel=_RECORDINGS)(describe)
app.command(rich_help_panel=_RECORDINGS)(ask)
app.command(rich_help_panel=_RECORDINGS)(classify)
app.command(rich_help_panel=_RECORDINGS)(tags)
app.command(rich_help_panel=_RECORDINGS)(timeline)
app.command(rich_help_panel=_RECORDINGS)(extract)
app.command(rich_help_panel=_RECORDINGS)(transcribe)
app.command(rich_help_panel=_RECORDINGS)(embed)
app.command(rich_help_panel=_RECORDINGS)(compare)
app.command(rich_help_panel=_RECORDINGS)(watch)
app.command(rich_help_panel=_COLLECTIONS)(run)
app.command(rich_help_panel=_COLLECTIONS)(index)
app.command(rich_help_panel=_COLLECTIONS)(search)
app.command(rich_help_panel=_COLLECTIONS)(duplicates)
app.command("export-index", rich_help_panel=_COLLECTIONS)(export_index)
app.command(rich_help_panel=_COLLECTIONS)(serve)
app.command(rich_help_panel=_COLLECTIONS)(mcp)
app.add_typer(evaluation, name="eval", rich_help_panel=_MODELS)
app.command(rich_help_panel=_MODELS)(probe)
app.command(rich_help_panel=_MODELS)(bench)
app.command(rich_help_panel=_MODELS)(train)
app.add_typer(data, name="data", rich_help_panel=_MODELS)
app.command(rich_help_panel=_MODELS)(models)
app.command(rich_help_panel=_MODELS)(pull)
app.command(rich_help_panel=_MODELS)(push)
app.command("import-official", rich_help_panel=_MODELS)(import_official)


def _leave_permissions_to_commands(group: typer.Typer) -> None:
    """Let commands handle unreadable files: typer would end the command, but among many files only one should fail."""
    for command in group.registered_commands:
        for annotation in get_type_hints(command.callback, include_extras=True).values():
            for parameter in getattr(annotation, "__metadata__", ()):
                if isinstance(parameter, ParameterInfo):
                    parameter.readable = False


for _commands in (app, evaluation, data):
    _leave_permissions_to_commands(_commands)
    apply_help(_commands)


def main() -> None:
    """Run the command line; never returns."""
    run_app(app)
